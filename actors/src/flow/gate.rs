use crate::domain::{config::Destination, ids::SubscriptionId};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
#[derive(Clone, Default)]
pub(crate) struct Gates;
impl Gates {
    pub(crate) fn of(&self, _d: &Destination, _now: Instant) -> Arc<Gate> {
        Arc::new(Gate)
    }
}
#[derive(Debug)]
pub(crate) struct Gate;
pub(crate) enum Try {
    First,
    Retry,
    Replay,
}
pub(crate) enum Wait {
    Until(Instant),
    ForRoom,
}
pub(crate) enum Ended {
    Delivered,
    Overloaded,
    Failed,
    Answered,
    Abandoned,
}
pub(crate) struct Permit;
impl Gate {
    pub(crate) fn begin(self: &Arc<Self>, _t: Try, _w: SubscriptionId, _n: Instant) -> Result<Permit, Wait> {
        Ok(Permit)
    }
}
impl Permit {
    pub(crate) fn end(self, _e: Ended, _l: Duration, _n: Instant) -> Vec<SubscriptionId> {
        Vec::new()
    }
}
