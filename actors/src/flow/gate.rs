//! What stands before one destination: breaker, retry budget, concurrency and rate, asked in this order, so that
//! nothing is used up when a later one refuses. Shared by the destination's subscriptions; the lock is held for
//! nanoseconds and never across a wait.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    domain::{ids::SubscriptionId, shaping::DestinationLimits},
    flow::{
        adaptive::{Limit, Load},
        breaker::{Breaker, Health, State},
        diary::{Diary, Entry},
        line::Line,
        rate::Pace,
        retry_budget::Budget,
        view::{BreakerView, ConcurrencyView, GateView},
    },
};

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
    /// Somebody must finish first: the caller is in the line and is hinted when it is its turn.
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
    /// It could not be reached, or gave no answer in time.
    Unanswered,
    /// It answered 5xx.
    Failed,
    /// The attempt was given up on our side: says nothing.
    Abandoned,
}

/// A subscription that is called and does not come loses its turn after this.
const CLAIM: Duration = Duration::from_secs(1);

/// Everything that bounds a destination's attempts.
#[derive(Debug)]
pub(crate) struct Gate(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    limits: DestinationLimits,
    breaker: Breaker,
    budget: Budget,
    concurrency: Limit,
    pace: Option<Pace>,
    line: Line,
    in_use: usize,
    /// Whom to hint at the next chance.
    owed: Vec<SubscriptionId>,
    diary: Diary,
}

impl Gate {
    pub(super) fn new(limits: DestinationLimits, now: Instant) -> Self {
        Self(Mutex::new(Inner {
            limits,
            breaker: Breaker::new(limits.breaker, now),
            budget: Budget::new(limits.retry_budget, now),
            concurrency: Limit::new(limits.concurrency, now),
            pace: limits.rate.map(|rate| Pace::new(rate, now)),
            line: Line::default(),
            in_use: 0,
            owed: Vec::new(),
            diary: Diary::default(),
        }))
    }

    /// From now on by these limits. The breaker's state, a learned limit and what is under way stay.
    pub(super) fn update(&self, limits: DestinationLimits, now: Instant) {
        let mut inner = self.lock();
        if inner.limits == limits {
            return;
        }
        if let Some(change) = inner.breaker.update(limits.breaker, now) {
            inner.diary.note(change);
        }
        inner.budget.update(limits.retry_budget, now);
        inner.concurrency.update(limits.concurrency, now);
        if inner.limits.rate != limits.rate {
            inner.pace = limits.rate.map(|rate| Pace::new(rate, now));
        }
        inner.limits = limits;
        // What they were told holds no longer: all ask again.
        let told = inner.line.dismiss_all();
        inner.owed.extend(told);
    }

    /// An attempt may begin, or what to wait for. Nothing is used up by a refusal. After `ForRoom` the waiter is in
    /// the line and hears of it when it is its turn; whoever then has nothing to send calls [`Self::leave`].
    pub(crate) fn begin(self: &Arc<Self>, attempt: Try, waiter: SubscriptionId, now: Instant) -> Result<Permit, Wait> {
        let mut inner = self.lock();
        inner.line.lapse(now);
        let allowed = match inner.breaker.room(now) {
            Ok(room) => room,
            Err(until) => {
                inner.owed.retain(|who| *who != waiter);
                inner.line.leave(waiter);
                return Err(Wait::Breaker(until));
            }
        };
        if attempt == Try::Retry {
            inner.budget.peek(now).map_err(Wait::Budget)?;
        }
        inner.owed.retain(|who| *who != waiter);
        let room = inner.free_places().min(allowed);
        let turn = inner.line.turn(waiter);
        if turn.is_some() && room == 0 {
            // The place that it was called for is gone: a limit shrank.
            inner.line.step_back(waiter);
            return Err(Wait::ForRoom);
        }
        if turn.is_none() && room <= inner.line.others(waiter) {
            inner.line.join(waiter);
            return Err(Wait::ForRoom);
        }
        // Whoever asks before its turn must not take the turn of somebody who waits.
        if let Some(turn) = turn.filter(|turn| *turn > now) {
            return Err(Wait::Rate(turn));
        }
        let ahead = if turn.is_some() { 0 } else { u32::try_from(inner.line.claims()).unwrap_or(u32::MAX) };
        if let Some(pace) = &mut inner.pace
            && let Err(until) = pace.check_behind(ahead, now)
        {
            inner.line.claim(waiter, until, until + CLAIM);
            return Err(Wait::Rate(until));
        }
        inner.line.leave(waiter);
        match attempt {
            Try::First => inner.budget.earn(),
            Try::Retry => inner.budget.spend(now),
            Try::Replay => {}
        }
        inner.in_use += 1;
        let round = inner.breaker.begun();
        drop(inner);
        Ok(Permit { gate: Some(self.clone()), round, began: now })
    }

    /// The subscription has nothing to send any more. Returns whom to hint in its place.
    #[must_use]
    pub(crate) fn leave(&self, waiter: SubscriptionId, now: Instant) -> Vec<SubscriptionId> {
        let mut inner = self.lock();
        if inner.line.leave(waiter) { inner.call(now) } else { Vec::new() }
    }

    /// What it looks like.
    pub(crate) fn view(&self, now: Instant) -> GateView {
        let mut inner = self.lock();
        let error_rate = inner.breaker.error_rate(now);
        GateView {
            breaker: BreakerView::new(inner.breaker.state(), inner.breaker.failures_in_a_row(), error_rate, now),
            concurrency: ConcurrencyView {
                limit: inner.concurrency.is_set().then(|| inner.concurrency.max()),
                in_use: inner.in_use,
                adaptive: inner.concurrency.is_adaptive(),
            },
            retries_saved: inner.budget.saved(),
            waiting: inner.line.len(),
        }
    }

    /// Takes back turns that nobody took, and tells what the breaker did since the last time.
    pub(super) fn sweep(&self, now: Instant) -> (Vec<SubscriptionId>, Entry) {
        let mut inner = self.lock();
        let hints = inner.call(now);
        let closed = inner.breaker.state() == State::Closed;
        (hints, inner.diary.tear_off(closed, now))
    }

    fn end(
        &self,
        (round, began): (u64, Instant),
        ended: Ended,
        latency: Duration,
        now: Instant,
    ) -> Vec<SubscriptionId> {
        let mut inner = self.lock();
        let in_use = inner.in_use;
        inner.in_use = in_use.saturating_sub(1);
        inner.concurrency.ended(began, ended.load(latency), in_use, now);
        let change = inner.breaker.ended(round, ended.health(), now, fastrand::f64);
        if let Some(change) = change {
            inner.diary.note(change);
        }
        inner.call(now)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn free_places(&self) -> usize {
        self.concurrency.max().saturating_sub(self.in_use)
    }

    /// Whom to hint now.
    fn call(&mut self, now: Instant) -> Vec<SubscriptionId> {
        let mut hints = std::mem::take(&mut self.owed);
        if self.line.len() == 0 {
            return hints;
        }
        self.line.lapse(now);
        match self.breaker.room(now) {
            Ok(allowed) => {
                let room = self.free_places().min(allowed);
                hints.extend(self.line.call(room, now, now + CLAIM));
            }
            // They ask again and learn when it lets probes through.
            Err(_) => hints.extend(self.line.dismiss()),
        }
        hints
    }
}

impl Ended {
    fn health(self) -> Health {
        match self {
            Self::Delivered | Self::Answered | Self::Throttled => Health::Good,
            Self::Overloaded | Self::Unanswered | Self::Failed => Health::Bad,
            Self::Abandoned => Health::Unknown,
        }
    }

    fn load(self, latency: Duration) -> Load {
        match self {
            Self::Delivered | Self::Answered => Load::Answered(latency),
            Self::Throttled | Self::Overloaded | Self::Unanswered => Load::TooMuch,
            Self::Failed | Self::Abandoned => Load::Unknown,
        }
    }
}

/// The right to one attempt. Dropped without [`Permit::end`], the attempt counts as abandoned.
#[must_use]
#[derive(Debug)]
pub(crate) struct Permit {
    /// `None` once it has ended.
    gate: Option<Arc<Gate>>,
    round: u64,
    began: Instant,
}

impl Permit {
    /// The attempt is over. Returns whom to hint now.
    #[must_use]
    pub(crate) fn end(mut self, ended: Ended, latency: Duration, now: Instant) -> Vec<SubscriptionId> {
        self.gate.take().map(|gate| gate.end((self.round, self.began), ended, latency, now)).unwrap_or_default()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            let mut inner = gate.lock();
            inner.in_use = inner.in_use.saturating_sub(1);
            // Nobody is called: there is no one here to tell them. The next sweep does.
            let _ = inner.breaker.ended(self.round, Health::Unknown, self.began, || 0.0);
        }
    }
}

#[cfg(test)]
mod tests;
