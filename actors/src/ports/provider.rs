//! The scheme that a third party speaks, as pure functions: no I/O, and the time is handed in.

use std::{net::IpAddr, sync::Arc, time::Duration};

use serde_json::{Map, Value};

use crate::domain::{
    canonical::CanonicalEvent,
    event::{Event, Identity},
    headers::HeaderBlock,
    secret::Secret,
};

/// A request as it came off the wire.
#[derive(Clone, Copy, Debug)]
pub struct InboundRequest<'a> {
    /// `POST`, or `GET` for a handshake.
    pub method: &'a str,
    /// Path and query as sent.
    pub target: &'a str,
    /// Header lines; values without surrounding spaces.
    pub headers: &'a HeaderBlock,
    /// The exact bytes received.
    pub body: &'a [u8],
    /// The TCP peer.
    pub peer: IpAddr,
}

/// A request whose signature holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Which of the endpoint's secrets it was signed with, by place in the list.
    pub secret_index: usize,
}

/// Why a request is refused. The sender hears `missing_signature` or `invalid_signature`, the operator all of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No signature at all.
    #[error("no `{0}` header")]
    MissingSignature(String),
    /// A header that must occur once occurs more often.
    #[error("`{0}` occurs more than once")]
    Repeated(String),
    /// The signature, or what must come with it, is not in the scheme's form.
    #[error("{0}")]
    Malformed(String),
    /// Signed too long ago, or too far ahead.
    #[error("timestamp {} s {}, tolerance {tolerance_s} s", .age_s.abs(), if *.age_s >= 0 { "old" } else { "ahead" })]
    Timestamp {
        /// Seconds between signing and now; negative when it lies ahead.
        age_s: i64,
        /// Allowed either way.
        tolerance_s: u64,
    },
    /// Well formed, and no active secret gives it.
    #[error("no active secret gives this signature")]
    Mismatch,
}

impl Refusal {
    /// The stable code that the sender is told.
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingSignature(_) => "missing_signature",
            _ => "invalid_signature",
        }
    }

    /// The stable name for counters and logs; bounded.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MissingSignature(_) => "missing",
            Self::Repeated(_) => "repeated",
            Self::Malformed(_) => "malformed",
            Self::Timestamp { .. } => "timestamp",
            Self::Mismatch => "mismatch",
        }
    }
}

/// The answer to a handshake, or the body a provider demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub content_type: &'static str,
    /// Body.
    pub body: Vec<u8>,
}

/// One endpoint's verification, made once from its settings: keys are expanded, nothing is parsed again.
pub trait Verifier: Send + Sync {
    /// Checks the signature over the exact bytes. `now_ms`: wall clock, milliseconds since 1970.
    fn verify(&self, request: &InboundRequest<'_>, now_ms: u64) -> Result<Verified, Refusal>;

    /// Answers a request that only proves that the endpoint is ours; nothing is stored for it. A `GET` is asked
    /// here first, and refused with 403 when there is no answer; a `POST` only once its signature holds.
    fn handshake(&self, request: &InboundRequest<'_>) -> Option<Reply> {
        let _ = request;
        None
    }

    /// Whether `GET` requests may be handshakes here; otherwise they are refused with 405 unread.
    fn answers_get(&self) -> bool {
        false
    }
}

/// A fault in a provider's or destination's settings: where, and what would be right. Never holds a value that
/// may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {problem}")]
pub struct SettingsError {
    /// The member at fault, dotted.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl SettingsError {
    /// Names the member at fault.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// A request to be sent as the provider would: for samples, the demo and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRequest {
    /// Header lines beside `content-type`.
    pub headers: Vec<(String, String)>,
}

/// What an operator has to do at the provider, in a sentence or two each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guide {
    /// Where the signing secret is found, or set.
    pub secret: &'static str,
    /// Where the endpoint's URL is entered.
    pub url: &'static str,
    /// A link to the provider's own description.
    pub reference: &'static str,
}

/// As long as the most patient of the well-known providers send again, but one.
const RETRY_WINDOW: Duration = Duration::from_hours(3 * 24);

/// A scheme.
pub trait Provider: Send + Sync {
    /// Its name in configuration: `snake_case`.
    fn name(&self) -> &'static str;

    /// One line for people.
    fn summary(&self) -> &'static str;

    /// What an endpoint's settings may be, as a JSON Schema (2020-12) of an object.
    fn settings_schema(&self) -> Value {
        serde_json::json!({ "type": "object", "properties": {}, "additionalProperties": false })
    }

    /// How to set it up at the provider.
    fn guide(&self) -> Guide {
        Guide::default()
    }

    /// Makes an endpoint's verifier. `settings` are the endpoint's `verification`; unknown members are refused.
    fn verifier(&self, settings: &Map<String, Value>, secrets: &[Secret]) -> Result<Arc<dyn Verifier>, SettingsError>;

    /// Reads the provider's type and id from a stored event. May parse; never called before the reply.
    /// `settings` are those of its endpoint: some schemes let one choose the header that carries the id.
    fn identify(&self, settings: &Map<String, Value>, event: &Event) -> Identity;

    /// For how long the provider sends an event again that it got no 2xx for: by default, an event whose id was seen
    /// within so long is a duplicate.
    fn retry_window(&self) -> Duration {
        RETRY_WINDOW
    }

    /// Whether the id that [`Provider::identify`] reads is part of what is signed. Then the id alone says that two
    /// events are the same: what is sent again may differ in other members.
    fn signs_id(&self, settings: &Map<String, Value>) -> bool {
        let _ = settings;
        false
    }

    /// The same event in words common to all providers; `None` where there are none for it, or the body is not in the
    /// provider's form. May parse; runs for deliveries that ask for it.
    fn canonicalize(&self, settings: &Map<String, Value>, event: &Event) -> Option<CanonicalEvent> {
        let _ = (settings, event);
        None
    }

    /// Signs `body` as the provider does. `id` is used where the scheme carries one.
    fn sign(
        &self,
        settings: &Map<String, Value>,
        secret: &Secret,
        id: &str,
        body: &[u8],
        now_ms: u64,
    ) -> Result<SignedRequest, SettingsError>;

    /// A sample body as the provider sends it, with `id` as its event id: `(content type, body)`.
    fn sample(&self, id: &str) -> (&'static str, Vec<u8>);

    /// A new secret in the provider's form, from 32 random bytes.
    fn new_secret(&self, random: &[u8; 32]) -> Secret;
}

/// The registry, as the tree sees it.
pub trait Providers: Send + Sync {
    /// The provider of that name.
    fn get(&self, name: &str) -> Option<&'static dyn Provider>;
    /// All names, sorted.
    fn names(&self) -> Vec<&'static str>;
}
