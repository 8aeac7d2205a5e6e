//! One attempt to one destination.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{program::Rendered, provider::SettingsError};
use crate::domain::{config::Destination, event::Event, secret::Secret};

/// What to deliver.
#[derive(Clone, Debug)]
pub struct Consignment {
    /// The event, as it arrived.
    pub event: Arc<Event>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Whether an operator asked for it again.
    pub replay: bool,
    /// The provider's name of what happened, where the transport asked for it.
    pub event_type: Option<Box<str>>,
    /// What is sent in place of the arrival's body; `None`: that.
    pub rendered: Option<Arc<Rendered>>,
}

/// What the destination's answer means. Whoever sees the failure classifies it; nobody reads error text later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 2xx.
    Delivered,
    /// Failed; may succeed later, not before `after` where the destination named a time.
    Retry {
        /// The destination's `Retry-After`.
        after: Option<Duration>,
    },
    /// 410: it wants no more. The delivery is retried once the destination is set active again.
    Gone,
    /// It can never succeed.
    Refused,
}

/// How an attempt went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptReport {
    /// What it means.
    pub verdict: Verdict,
    /// The status, where there was one.
    pub status: Option<u16>,
    /// The failure in words, without secrets; `None` for a success.
    pub error: Option<String>,
    /// The beginning of the reply's body as text, for failures.
    pub reply: Option<String>,
    /// Where the time went.
    pub timings: Timings,
}

/// Where an attempt's time went, each from its beginning; `None` where it did not come so far or the kind of
/// destination has no such step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// A connection was there: opened, or taken from the pool.
    pub connected: Option<Duration>,
    /// The reply's status and headers were there.
    pub answered: Option<Duration>,
}

/// Makes attempts to one destination.
///
/// # Contract
/// Always returns, within the destination's total timeout; never panics on what a peer sends; holds no more than
/// the event and a bounded part of the reply.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Whether consignments carry the event's type, which costs a look at each event.
    fn names_events(&self) -> bool {
        false
    }

    /// One attempt. `now_ms` is the wall clock, for the signature's timestamp.
    async fn attempt(&self, consignment: Consignment, now_ms: u64) -> AttemptReport;
}

/// The destination registry, as the tree sees it.
pub trait Transports: Send + Sync {
    /// Makes a destination's transport; refuses settings that are wrong or forbidden by the egress rules.
    /// `credentials` is the JSON object of what its kind needs to sign in.
    fn build(
        &self,
        destination: &Destination,
        signing_secret: &Secret,
        credentials: Option<&Secret>,
    ) -> Result<Arc<dyn Transport>, SettingsError>;
}
