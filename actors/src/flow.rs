//! What a destination is asked to bear. Every attempt passes its destination's [`Gate`], which all subscriptions of
//! that destination share: a circuit breaker, a retry budget, a limit of attempts under way at once, and a rate.
//! Holds no event and starts no timer: callers hand in the time and wait as they are told. A crash forgets what was
//! learned, nothing else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use crate::domain::{
    config::Destination,
    ids::{DestinationId, SubscriptionId},
};

mod adaptive;
mod breaker;
mod gate;
mod line;
pub(crate) mod rate;
mod retry_budget;
mod view;

pub use view::{BreakerState, BreakerView, ConcurrencyView, GateView};

pub(crate) use gate::{Gate, Permit};
pub(crate) use rate::Pace;

/// What an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Try {
    /// The delivery's first: earns retries.
    First,
    /// Spends the retry budget.
    Retry,
    /// An operator asked for it: neither.
    Replay,
}

/// Why an attempt may not begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The breaker is open until then.
    Breaker(Instant),
    /// The retry budget is used up; ask again then. First attempts and replays may still begin.
    Budget(Instant),
    /// The rate is used up; it is the caller's turn then.
    Rate(Instant),
    /// Somebody must finish first: the caller is in the line and is hinted.
    ForRoom,
}

impl Wait {
    /// When to ask again; `None`: a hint comes.
    pub(crate) fn until(self) -> Option<Instant> {
        match self {
            Self::Breaker(at) | Self::Budget(at) | Self::Rate(at) => Some(at),
            Self::ForRoom => None,
        }
    }
}

/// How an attempt ended, as far as its destination's limits care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was taken.
    Delivered,
    /// An answer that says nothing about its health: 4xx. Counts as a healthy one.
    Answered,
    /// It asks for less but is well: 429.
    Throttled,
    /// It asks for less and is not well: 503.
    Overloaded,
    /// No answer in time.
    TimedOut,
    /// It could not be reached, or answered 5xx.
    Failed,
    /// The attempt was given up on our side: says nothing.
    Abandoned,
}

/// All destinations' gates.
#[derive(Clone, Default)]
pub(crate) struct Gates(Arc<Mutex<HashMap<DestinationId, Arc<Gate>>>>);

impl Gates {
    /// The destination's gate, with the limits it has now.
    pub(crate) fn of(&self, destination: &Destination, now: Instant) -> Arc<Gate> {
        let gate =
            self.lock().entry(destination.id).or_insert_with(|| Arc::new(Gate::new(destination.limits, now))).clone();
        gate.update(destination.limits, now);
        gate
    }

    /// What one looks like; `None` where nothing was sent there yet.
    pub(crate) fn view(&self, destination: DestinationId, now: Instant) -> Option<GateView> {
        let gate = self.lock().get(&destination).cloned()?;
        Some(gate.view(now))
    }

    /// What all look like.
    pub(crate) fn views(&self, now: Instant) -> Vec<(DestinationId, GateView)> {
        self.all().into_iter().map(|(id, gate)| (id, gate.view(now))).collect()
    }

    /// Forgets destinations that are not there any more.
    pub(crate) fn retain(&self, exists: impl Fn(DestinationId) -> bool) {
        self.lock().retain(|id, _| exists(*id));
    }

    fn all(&self) -> Vec<(DestinationId, Arc<Gate>)> {
        let mut all: Vec<_> = self.lock().iter().map(|(id, gate)| (*id, gate.clone())).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DestinationId, Arc<Gate>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
