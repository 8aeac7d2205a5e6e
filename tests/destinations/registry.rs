//! Builds transports as the tree does, and the events that they send.

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use hookmill::destinations::{Destinations, Egress, HttpDefaults, OwnAddresses};
use hookmill_actors::{
    domain::{
        config::{Destination, DestinationStatus, Meta},
        event::{Arrival, Event},
        headers::HeaderBlock,
        ids::{DestinationId, EndpointId, EventId, IntegrationId},
        secret::{Sealed, Secret},
        shaping::DestinationLimits,
    },
    ports::{
        program::Rendered,
        provider::SettingsError,
        transport::{AttemptReport, Consignment, Transport, Transports, Verdict},
    },
};
use serde_json::Value;

pub(crate) const NOW_MS: u64 = 1_767_225_600_123;
pub(crate) const SIGNING_SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
pub(crate) const BODY: &[u8] = b"{\"a\": \"\xff\x00 not quite JSON\"}\r\n";
pub(crate) const RETRY: Verdict = Verdict::Retry { after: None };

/// Loopback is allowed, and files below that folder.
pub(crate) fn destinations(files: Option<PathBuf>) -> Destinations {
    let allow = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    Destinations::new(Egress::new(allow, OwnAddresses::default()), HttpDefaults::default(), files)
}

pub(crate) fn build(
    destinations: &Destinations,
    kind: &str,
    settings: Value,
    credentials: Option<Value>,
) -> Result<Arc<dyn Transport>, SettingsError> {
    let Value::Object(settings) = settings else { panic!("settings are an object") };
    let credentials = credentials.map(|credentials| Secret::new(credentials.to_string()));
    destinations.validate(kind, &settings, credentials.as_ref())?;
    let destination = Destination {
        id: DestinationId(1),
        name: kind.to_owned(),
        kind: kind.to_owned(),
        status: DestinationStatus::Active,
        status_reason: None,
        settings,
        signing_secret: Sealed(String::new()),
        signing_fingerprint: String::new(),
        credentials: None,
        limits: DestinationLimits::default(),
        meta: Meta::default(),
    };
    destinations.build(&destination, &Secret::new(SIGNING_SECRET), credentials.as_ref())
}

pub(crate) fn transport(kind: &str, settings: Value, credentials: Option<Value>) -> Arc<dyn Transport> {
    build(&destinations(None), kind, settings, credentials).unwrap_or_else(|error| panic!("{error}"))
}

/// The event of that number, sent for the first time.
pub(crate) fn consignment(number: u32) -> Consignment {
    let arrival = Arrival {
        endpoint: EndpointId(1),
        received_at_ms: NOW_MS - 5,
        accepted_version: 1,
        peer: Ipv4Addr::LOCALHOST.into(),
        hops: 0,
        query: "".into(),
        headers: HeaderBlock::from_lines([("content-type", &b"text/odd"[..]), ("authorization", b"Bearer hush")]),
        body: Bytes::from_static(BODY),
    };
    let id = EventId::from_parts((u128::from(NOW_MS) << 26) + u128::from(number), IntegrationId(3), 77);
    Consignment { event: Arc::new(Event { id, arrival }), attempt: 1, replay: false, event_type: None, rendered: None }
}

/// The same as a subscription's transformation leaves it.
pub(crate) fn rendered(number: u32, body: &'static [u8], headers: &[(&str, &str)]) -> Consignment {
    let rendered = Rendered {
        content_type: Some("application/json".to_owned()),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: Bytes::from_static(body),
    };
    Consignment {
        event_type: Some("payment.succeeded".into()),
        rendered: Some(Arc::new(rendered)),
        ..consignment(number)
    }
}

pub(crate) fn error_of(report: &AttemptReport) -> &str {
    report.error.as_deref().unwrap_or_else(|| panic!("it must fail: {report:?}"))
}
