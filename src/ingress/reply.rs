//! Every reply of the ingress. Refusals are problem documents (RFC 9457) with stable codes, made of constant text
//! only: nothing a client sent comes back.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use hookmill_actors::{
    allowance::Spent,
    domain::ids::EventId,
    metrics::{Counters, add},
    ports::{event_log::LogError, provider},
};
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS},
};

use super::strict_http::Fault;
use crate::rate_headers;

/// What goes out.
pub(super) type Reply = Response<Full<Bytes>>;

/// Why a request is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// No such path, or an inactive one: nobody can tell which.
    NotFound,
    /// Nothing to verify.
    MissingSignature,
    /// Did not verify.
    InvalidSignature,
    /// A `GET` that is no handshake of this endpoint, or one with the wrong token.
    Handshake,
    /// Not a method of this path; these are.
    Method(&'static str),
    /// Head or body took too long.
    Slow,
    /// The body is over the limit.
    BodyTooLarge,
    /// The request line is over the limit.
    TargetTooLong,
    /// The header lines are over a limit.
    HeadersTooLarge,
    /// Not the HTTP that is spoken here.
    Malformed(&'static str),
    /// It has gone round in a circle.
    TooManyHops,
    /// The log's queue is full.
    QueueFull,
    /// The disk is nearly full.
    DiskFull,
    /// The disk does not answer.
    LogStalled,
    /// The integration's unfinished events hold their share of the log.
    BacklogFull,
    /// The endpoint takes no more for now.
    RateLimited(Spent),
    /// The log failed; only a restart helps.
    LogFailed,
    /// The log did not answer in time: the event may be stored or not.
    NotConfirmed,
    /// Too many connections, or too many bytes in flight.
    Busy,
    /// hookmill is being stopped.
    Draining,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(what) => Self::Malformed(what),
            Fault::TargetTooLong => Self::TargetTooLong,
            Fault::HeadersTooLarge => Self::HeadersTooLarge,
        }
    }
}

impl From<LogError> for Refused {
    fn from(error: LogError) -> Self {
        match error {
            LogError::QueueFull => Self::QueueFull,
            LogError::DiskFull => Self::DiskFull,
            LogError::Stalled => Self::LogStalled,
            LogError::TooLarge { .. } => Self::BodyTooLarge,
            LogError::Failed(_) | LogError::Closed | LogError::Corrupt(_) => Self::LogFailed,
        }
    }
}

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// A sender that is refused for load comes back within so many seconds; spread, so that all do not come at once.
const RETRY_AFTER_S_MAX: u8 = 5;
/// A backlog takes longer to go.
const BACKLOG_RETRY_AFTER_S: std::ops::RangeInclusive<u8> = 30..=60;

impl Refused {
    fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MissingSignature | Self::InvalidSignature => StatusCode::UNAUTHORIZED,
            Self::Handshake => StatusCode::FORBIDDEN,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooManyHops => StatusCode::LOOP_DETECTED,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::QueueFull
            | Self::DiskFull
            | Self::LogStalled
            | Self::BacklogFull
            | Self::LogFailed
            | Self::NotConfirmed
            | Self::Busy
            | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The stable code.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MissingSignature => "missing_signature",
            Self::InvalidSignature => "invalid_signature",
            Self::Handshake => "handshake_refused",
            Self::Method(_) => "method_not_allowed",
            Self::Slow => "slow_request",
            Self::BodyTooLarge => "body_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::HeadersTooLarge => "headers_too_large",
            Self::Malformed(_) => "bad_request",
            Self::TooManyHops => "too_many_hops",
            Self::QueueFull => "queue_full",
            Self::DiskFull => "disk_full",
            Self::LogStalled => "log_stalled",
            Self::BacklogFull => "backlog_full",
            Self::RateLimited(_) => "rate_limited",
            Self::LogFailed => "log_failed",
            Self::NotConfirmed => "not_confirmed",
            Self::Busy => "busy",
            Self::Draining => "draining",
        }
    }

    /// Whether it says nothing about the request: the same one is accepted later.
    pub(super) fn is_for_load(self) -> bool {
        matches!(self, Self::RateLimited(_)) || self.status() == StatusCode::SERVICE_UNAVAILABLE
    }

    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::NotFound => "there is nothing here",
            Self::MissingSignature => "the request carries no signature",
            Self::InvalidSignature => "the signature does not hold",
            Self::Handshake => "this is no handshake of this endpoint",
            Self::Method(_) => "the Allow header lists the methods of this path",
            Self::Slow => "the request took too long to arrive",
            Self::BodyTooLarge => "the body is larger than this path accepts",
            Self::TargetTooLong => "the request target is too long",
            Self::HeadersTooLarge => "there are too many header lines, or too long ones",
            Self::Malformed(what) => what,
            Self::TooManyHops => "the event has passed through too many gateways",
            Self::QueueFull => "more arrives than the disk takes; send it again",
            Self::DiskFull => "the disk is nearly full; send it again later",
            Self::LogStalled => "the disk does not answer; send it again later",
            Self::BacklogFull => "too many earlier events of this integration wait for delivery; send it again later",
            Self::RateLimited(_) => "this path takes no more for now; send it again later",
            Self::LogFailed => "events cannot be stored now; send it again later",
            Self::NotConfirmed => "it was not confirmed in time that the event is stored; send it again",
            Self::Busy => "too much is under way; send it again",
            Self::Draining => "this server is stopping; send it again",
        }
    }

    /// Whether the connection must not be used further: its framing is lost, or its peer is to go elsewhere.
    fn closes(self) -> bool {
        matches!(
            self,
            Self::Slow
                | Self::BodyTooLarge
                | Self::TargetTooLong
                | Self::HeadersTooLarge
                | Self::Malformed(_)
                | Self::Busy
                | Self::Draining
        )
    }

    fn retry_after(self) -> Option<u64> {
        match self {
            Self::BacklogFull => Some(fastrand::u8(BACKLOG_RETRY_AFTER_S).into()),
            Self::RateLimited(spent) => Some(rate_headers::seconds(spent.one_in)),
            _ => (self.status() == StatusCode::SERVICE_UNAVAILABLE).then(|| fastrand::u8(1..=RETRY_AFTER_S_MAX).into()),
        }
    }

    fn body(self) -> String {
        let status = self.status();
        format!(
            r#"{{"type":"about:blank","title":"{}","status":{},"code":"{}","detail":"{}"}}"#,
            status.canonical_reason().unwrap_or_default(),
            status.as_u16(),
            self.code(),
            self.detail(),
        )
    }

    /// Adds it to the counter it belongs to.
    pub(super) fn count(self, counters: &Counters) {
        let counter = match self {
            Self::NotFound => &counters.unknown_path,
            Self::MissingSignature => &counters.missing_signature,
            Self::InvalidSignature => &counters.invalid_signature,
            Self::BacklogFull => &counters.backlog_full,
            Self::RateLimited(_) => &counters.rate_limited,
            Self::QueueFull
            | Self::DiskFull
            | Self::LogStalled
            | Self::LogFailed
            | Self::NotConfirmed
            | Self::Busy
            | Self::Draining => &counters.unavailable,
            Self::Handshake
            | Self::Method(_)
            | Self::Slow
            | Self::BodyTooLarge
            | Self::TargetTooLong
            | Self::HeadersTooLarge
            | Self::Malformed(_)
            | Self::TooManyHops => &counters.bad_request,
        };
        add(counter, 1);
    }

    /// The reply.
    pub(super) fn reply(self) -> Reply {
        let mut reply = with_body(self.status(), PROBLEM, self.body().into());
        let headers = reply.headers_mut();
        if let Self::Method(allow) = self {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.closes() {
            close(&mut reply);
        }
        reply
    }

    /// The reply as HTTP/1.1 bytes, for when there is no request to hang it on; the connection closes after it.
    pub(super) fn raw(self) -> Vec<u8> {
        let (status, body) = (self.status(), self.body());
        let retry_after = self.retry_after().map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n{retry_after}\
             connection: close\r\n\r\n{body}",
            body.len(),
        )
        .into_bytes()
    }
}

/// The one reply that makes a promise: the event is on disk.
pub(super) fn accepted(id: EventId) -> Reply {
    use std::io::Write;

    const BEFORE: &[u8] = br#"{"status":"success","event_id":""#;
    const ID_BYTES: usize = 36;
    let mut body = Vec::with_capacity(BEFORE.len() + ID_BYTES + 2);
    body.extend_from_slice(BEFORE);
    write!(body, "{id}").expect("a Vec takes every byte");
    body.extend_from_slice(br#""}"#);
    with_body(StatusCode::OK, JSON, body.into())
}

/// A provider's answer to a handshake. What it reflects must not be taken for a page.
pub(super) fn handshake(answer: provider::Reply) -> Reply {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = with_body(status, HeaderValue::from_static(answer.content_type), answer.body.into());
    reply.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// A JSON document.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    with_body(status, JSON, body.into())
}

fn with_body(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

/// Says that the connection will not be used further.
pub(super) fn close(reply: &mut Reply) {
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Cuts the body off, as a reply to `HEAD` wants it, and keeps its length.
pub(super) fn without_body(reply: &mut Reply) {
    use hyper::body::Body;

    let length = reply.body().size_hint().lower();
    reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    *reply.body_mut() = Full::default();
}

/// Lets a line into the log once a second, with how many were held back since.
#[derive(Debug, Default)]
pub(super) struct OnceASecond {
    next_ms: AtomicU64,
    held: AtomicU64,
}

impl OnceASecond {
    /// `Some(held back since the last)` when a line is due.
    pub(super) fn due(&self, now_ms: u64) -> Option<u64> {
        let next = self.next_ms.load(Relaxed);
        // A clock that was set back must not silence the log for long.
        let is_due = now_ms >= next || next - now_ms > 1_000;
        if is_due && self.next_ms.compare_exchange(next, now_ms + 1_000, Relaxed, Relaxed).is_ok() {
            return Some(self.held.swap(0, Relaxed));
        }
        self.held.fetch_add(1, Relaxed);
        None
    }
}

/// Counts a refusal and, where the operator should act, warns.
#[derive(Debug)]
pub(super) struct Refusals {
    counters: Arc<Counters>,
    warnings: [OnceASecond; 6],
}

impl Refusals {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self { counters, warnings: Default::default() }
    }

    /// To be called once for each refused request.
    pub(super) fn note(&self, refused: Refused, now_ms: u64) {
        refused.count(&self.counters);
        let place = match refused {
            Refused::QueueFull => 0,
            Refused::DiskFull => 1,
            Refused::LogFailed => 2,
            Refused::NotConfirmed => 3,
            Refused::Busy => 4,
            Refused::LogStalled => 5,
            _ => return,
        };
        if let Some(held) = self.warnings[place].due(now_ms) {
            tracing::warn!(code = refused.code(), more = held, "webhooks are answered 503: {}", refused.detail());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SPENT: Spent = Spent { limit: 3, one_in: Duration::from_millis(1_200), full_in: Duration::from_secs(3) };
    const ALL: [Refused; 20] = [
        Refused::NotFound,
        Refused::MissingSignature,
        Refused::InvalidSignature,
        Refused::Handshake,
        Refused::Method("POST"),
        Refused::Slow,
        Refused::BodyTooLarge,
        Refused::TargetTooLong,
        Refused::HeadersTooLarge,
        Refused::Malformed("a detail"),
        Refused::TooManyHops,
        Refused::QueueFull,
        Refused::DiskFull,
        Refused::LogStalled,
        Refused::BacklogFull,
        Refused::RateLimited(SPENT),
        Refused::LogFailed,
        Refused::NotConfirmed,
        Refused::Busy,
        Refused::Draining,
    ];

    #[test]
    fn the_documentation_lists_every_code_with_its_status() {
        let coded: std::collections::BTreeMap<String, u16> =
            ALL.iter().map(|refused| (refused.code().to_owned(), refused.status().as_u16())).collect();
        assert_eq!(crate::documented_codes("## Webhooks"), coded, "docs/errors.md and `Refused` differ");
    }

    #[test]
    fn refusals_are_problem_documents_with_codes_of_their_own() {
        let mut codes = std::collections::BTreeSet::new();
        for refused in ALL {
            let document: serde_json::Value = serde_json::from_str(&refused.body()).expect("JSON");
            assert_eq!(document["type"], "about:blank");
            assert_eq!(document["status"], refused.status().as_u16());
            assert_eq!(document["code"], refused.code());
            assert!(!document["title"].as_str().expect("title").is_empty());
            assert!(!document["detail"].as_str().expect("detail").is_empty());
            assert!(codes.insert(refused.code()));
            assert_eq!(
                refused.reply().headers().contains_key(RETRY_AFTER),
                [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&refused.status())
            );
        }
    }

    #[test]
    fn every_refusal_is_counted_once() {
        let counters = Counters::default();
        for refused in ALL {
            refused.count(&counters);
        }
        let totals = counters.totals();
        let counted = totals.unknown_path
            + totals.missing_signature
            + totals.invalid_signature
            + totals.bad_request
            + totals.backlog_full
            + totals.rate_limited
            + totals.unavailable;
        assert_eq!(counted, ALL.len() as u64);
        assert_eq!(totals.accepted, 0);
    }

    #[test]
    fn a_second_has_one_line() {
        let lines = OnceASecond::default();
        assert_eq!(lines.due(10_000), Some(0));
        assert_eq!(lines.due(10_500), None);
        assert_eq!(lines.due(10_999), None);
        assert_eq!(lines.due(11_000), Some(2));
        assert_eq!(lines.due(5), Some(0), "the clock was set back");
    }
}
