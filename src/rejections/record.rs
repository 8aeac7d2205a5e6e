//! A kept rejection and the form of its file: a checksum, then `MessagePack`. Pure.

use std::{fmt, net::IpAddr, path::Path, str::FromStr};

use bytes::Bytes;
use hookmill_actors::domain::{
    headers::HeaderBlock,
    ids::{EndpointId, EventId, IntegrationId},
};
use serde::{Deserialize, Serialize};

/// A rejection's number: milliseconds since 1970 and a counter; it only grows. Shown as 16 hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RejectionId(u64);

const COUNTER_BITS: u32 = 16;
const DIGITS: usize = 16;

impl RejectionId {
    /// The next one after `last` at wall-clock `now_ms`.
    pub(super) fn next(now_ms: u64, last: Self) -> Self {
        Self((now_ms << COUNTER_BITS).max(last.0 + 1))
    }

    pub(super) fn of_file(path: &Path) -> Option<Self> {
        path.file_name()?.to_str()?.parse().ok()
    }
}

impl fmt::Display for RejectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text that is no rejection's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no rejection's number: 16 hex digits")]
pub struct BadRejectionId;

impl FromStr for RejectionId {
    type Err = BadRejectionId;

    fn from_str(text: &str) -> Result<Self, BadRejectionId> {
        let sound = text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        u64::from_str_radix(text, 16).ok().filter(|_| sound).map(Self).ok_or(BadRejectionId)
    }
}

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its number.
    pub id: RejectionId,
    /// When it came, milliseconds since 1970.
    pub at_ms: u64,
    /// Whose endpoint it was sent to.
    pub integration: IntegrationId,
    /// Where it was sent to.
    pub endpoint: EndpointId,
    /// The code that its sender was told.
    pub cause: Box<str>,
    /// Why, for the operator.
    pub reason: Box<str>,
    /// The TCP peer.
    pub peer: IpAddr,
    /// Its method.
    pub method: Box<str>,
    /// Its path and query.
    pub target: Box<str>,
    /// Its header lines, without the values of those that are redacted.
    pub headers: HeaderBlock,
    /// Its body, or the beginning of it.
    pub body: Bytes,
    /// Whether that is all of the body.
    pub body_whole: bool,
    /// The event that was made of it, and when, milliseconds since 1970.
    pub accepted: Option<(EventId, u64)>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    id: RejectionId,
    at_ms: u64,
    integration: IntegrationId,
    endpoint: EndpointId,
    cause: Box<str>,
    reason: Box<str>,
    peer: IpAddr,
    method: Box<str>,
    target: Box<str>,
    headers: Bytes,
    body: Bytes,
    body_whole: bool,
    accepted: Option<(EventId, u64)>,
}

pub(super) fn encode(rejection: &Rejection) -> Vec<u8> {
    let it = rejection.clone();
    let stored = Stored {
        id: it.id,
        at_ms: it.at_ms,
        integration: it.integration,
        endpoint: it.endpoint,
        cause: it.cause,
        reason: it.reason,
        peer: it.peer,
        method: it.method,
        target: it.target,
        headers: it.headers.as_bytes().clone(),
        body: it.body,
        body_whole: it.body_whole,
        accepted: it.accepted,
    };
    let packed = rmp_serde::to_vec(&stored).expect("plain data is written to memory without failing");
    [crc32fast::hash(&packed).to_be_bytes().as_slice(), &packed].concat()
}

pub(super) fn decode(bytes: &[u8]) -> Option<Rejection> {
    let (checksum, packed) = bytes.split_first_chunk::<4>()?;
    if crc32fast::hash(packed) != u32::from_be_bytes(*checksum) {
        return None;
    }
    let it: Stored = rmp_serde::from_slice(packed).ok()?;
    Some(Rejection {
        id: it.id,
        at_ms: it.at_ms,
        integration: it.integration,
        endpoint: it.endpoint,
        cause: it.cause,
        reason: it.reason,
        peer: it.peer,
        method: it.method,
        target: it.target,
        headers: HeaderBlock::from_bytes(it.headers)?,
        body: it.body,
        body_whole: it.body_whole,
        accepted: it.accepted,
    })
}
