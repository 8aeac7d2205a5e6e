//! Events for the tests of the engines.

use std::{net::Ipv4Addr, sync::Arc};

use bytes::Bytes;
use hookmill_actors::{
    domain::{
        event::{Arrival, Event, Identity},
        headers::HeaderBlock,
        ids::{EndpointId, EventId, IntegrationId, SubscriptionId},
    },
    ports::program::Subject,
};

/// An event of integration 7, endpoint 3, named `payment.succeeded`, without headers.
pub(super) fn subject(body: &[u8]) -> Subject {
    with_headers(&[], body)
}

/// The same with headers.
pub(super) fn with_headers(headers: &[(&str, &str)], body: &[u8]) -> Subject {
    Subject {
        event: Arc::new(Event {
            id: EventId::at_millis(1_767_225_600_000),
            arrival: Arrival {
                endpoint: EndpointId(3),
                received_at_ms: 1_767_225_600_000,
                accepted_version: 1,
                peer: Ipv4Addr::new(192, 0, 2, 1).into(),
                hops: 0,
                query: "a=1&b=%C3%A4&a=2".into(),
                headers: HeaderBlock::from_lines(headers.iter().map(|(name, value)| (*name, value.as_bytes()))),
                body: Bytes::copy_from_slice(body),
            },
        }),
        identity: Identity { event_type: Some("payment.succeeded".into()), provider_id: Some("evt_1".into()) },
        integration: (IntegrationId(7), "shop".into()),
        subscription: SubscriptionId(9),
        naming: None,
    }
}
