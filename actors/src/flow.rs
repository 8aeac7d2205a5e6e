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
mod diary;
mod gate;
mod line;
mod rate;
mod retry_budget;
mod view;

pub use view::{BreakerState, BreakerView, ConcurrencyView, GateView};

pub(crate) use diary::News;
pub(crate) use gate::{Ended, Gate, Permit, Try, Wait};
pub(crate) use rate::{Paces, SharedPace};
/// What a regular look brought to light.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// Whom to hint.
    pub(crate) hints: Vec<SubscriptionId>,
    /// Times that a breaker opened.
    pub(crate) opened: u64,
    /// Times that one closed.
    pub(crate) closed: u64,
    /// What an operator should hear.
    pub(crate) news: Vec<(DestinationId, News)>,
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

    /// What all look like.
    pub(crate) fn views(&self, now: Instant) -> Vec<(DestinationId, GateView)> {
        self.all().into_iter().map(|(id, gate)| (id, gate.view(now))).collect()
    }

    /// Forgets destinations that are not there any more.
    pub(crate) fn retain(&self, exists: impl Fn(DestinationId) -> bool) {
        self.lock().retain(|id, _| exists(*id));
    }

    /// The regular look: whom to hint because a turn lapsed or a limit was raised, and what the breakers did.
    pub(crate) fn sweep(&self, now: Instant) -> Swept {
        let mut swept = Swept::default();
        for (id, gate) in self.all() {
            let (hints, entry) = gate.sweep(now);
            swept.hints.extend(hints);
            swept.opened += entry.opened;
            swept.closed += entry.closed;
            swept.news.extend(entry.news.map(|news| (id, news)));
        }
        swept
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
