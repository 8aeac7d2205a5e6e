//! What arrived, unaltered, with the facts of its arrival.

use std::net::IpAddr;

use bytes::Bytes;

use super::{
    headers::HeaderBlock,
    ids::{EndpointId, EventId, IntegrationId},
};

/// A verified webhook on its way into the log; the log's writer gives it its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// The integration that the endpoint belongs to.
    pub integration: IntegrationId,
    /// Everything but the id.
    pub arrival: Arrival,
}

/// The facts of an arrival: raw body and headers exactly as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Where it was posted to.
    pub endpoint: EndpointId,
    /// Wall clock at receipt, milliseconds since 1970.
    pub received_at_ms: u64,
    /// The configuration version in force when it was accepted.
    pub accepted_version: u64,
    /// The peer's address as the socket saw it.
    pub peer: IpAddr,
    /// How many hookmills it has passed before this one.
    pub hops: u8,
    /// The request's query string, without `?`.
    pub query: Box<str>,
    /// Header lines.
    pub headers: HeaderBlock,
    /// Body bytes.
    pub body: Bytes,
}

/// One accepted webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Identity and position.
    pub id: EventId,
    /// The facts of its arrival.
    pub arrival: Arrival,
}

impl Event {
    /// The request's content type, where it was given once and is text.
    pub fn content_type(&self) -> Option<&str> {
        match self.arrival.headers.single("content-type") {
            super::headers::Single::Value(value) => std::str::from_utf8(value).ok(),
            _ => None,
        }
    }
}

/// What a provider read from an event: its own name for it, and its own id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The provider's name of what happened (`payment_intent.succeeded`).
    pub event_type: Option<Box<str>>,
    /// The provider's id, the same on its own retries.
    pub provider_id: Option<Box<str>>,
}
