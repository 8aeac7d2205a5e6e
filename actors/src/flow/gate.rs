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
        Ended, Try, Wait,
        adaptive::{Limit, Load},
        breaker::{Breaker, Change, Health},
        line::Line,
        rate::Pace,
        retry_budget::Budget,
        view::{BreakerView, ConcurrencyView, GateView},
    },
};

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
    tally: Tally,
}

/// What the breaker did since somebody last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) opened: u64,
    pub(super) closed: u64,
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
            tally: Tally::default(),
        }))
    }

    /// From now on by these limits. The breaker's state, a learned limit and what is under way stay.
    pub(super) fn update(&self, limits: DestinationLimits, now: Instant) {
        let mut inner = self.lock();
        if inner.limits == limits {
            return;
        }
        if let Some(change) = inner.breaker.update(limits.breaker, now) {
            inner.tally.note(change);
        }
        inner.budget.update(limits.retry_budget, now);
        inner.concurrency.update(limits.concurrency, now);
        if inner.limits.rate != limits.rate {
            inner.pace = limits.rate.map(|rate| Pace::new(rate, now));
        }
        inner.limits = limits;
    }

    /// An attempt may begin, or what to wait for. Nothing is used up by a refusal. After `ForRoom` the waiter is in
    /// the line and hears of it when it is its turn; whoever then has nothing to send calls [`Self::leave`].
    pub(crate) fn begin(self: &Arc<Self>, attempt: Try, waiter: SubscriptionId, now: Instant) -> Result<Permit, Wait> {
        let mut inner = self.lock();
        inner.line.lapse(now);
        let allowed = match inner.breaker.room(now) {
            Ok(room) => room,
            Err(until) => {
                inner.line.leave(waiter);
                return Err(Wait::Breaker(until));
            }
        };
        if attempt == Try::Retry {
            inner.budget.peek(now).map_err(Wait::Budget)?;
        }
        let room = inner.free_places().min(allowed);
        let has_claim = inner.line.has_claim(waiter);
        if room == 0 || (!has_claim && room <= inner.line.others(waiter)) {
            if room == 0 {
                // The claim was on a place that is gone: a limit shrank.
                inner.line.leave(waiter);
            }
            inner.line.join(waiter);
            return Err(Wait::ForRoom);
        }
        let ahead = if has_claim { 0 } else { u32::try_from(inner.line.claims()).unwrap_or(u32::MAX) };
        if let Some(pace) = &mut inner.pace
            && let Err(until) = pace.check_behind(ahead, now)
        {
            inner.line.claim(waiter, until + CLAIM);
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
        if inner.line.len() > 0 && inner.line.leave(waiter) { inner.call(now) } else { Vec::new() }
    }

    /// Whether the breaker lets nothing through at the moment.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.lock().breaker.room(now).is_err()
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

    /// Takes back claims that nobody took up, and what the breaker did since the last time. Returns whom to hint.
    pub(super) fn sweep(&self, now: Instant) -> (Vec<SubscriptionId>, Tally, bool) {
        let mut inner = self.lock();
        let hints = if inner.line.len() > 0 { inner.call(now) } else { Vec::new() };
        (hints, std::mem::take(&mut inner.tally), inner.breaker.state() == super::breaker::State::Closed)
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
        let change = inner.breaker.ended(round, ended.health(), now, fastrand::f64());
        if let Some(change) = change {
            inner.tally.note(change);
        }
        if change == Some(Change::Opened) {
            // They ask again and learn when it closes.
            return inner.line.dismiss();
        }
        if inner.line.len() == 0 { Vec::new() } else { inner.call(now) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn free_places(&self) -> usize {
        self.concurrency.max().saturating_sub(self.in_use)
    }

    fn call(&mut self, now: Instant) -> Vec<SubscriptionId> {
        self.line.lapse(now);
        match self.breaker.room(now) {
            Ok(allowed) => {
                let room = self.free_places().min(allowed);
                self.line.call(room, now + CLAIM)
            }
            Err(_) => self.line.dismiss(),
        }
    }
}

impl Tally {
    fn note(&mut self, change: Change) {
        match change {
            Change::Opened => self.opened += 1,
            Change::Closed => self.closed += 1,
        }
    }
}

impl Ended {
    fn health(self) -> Health {
        match self {
            Self::Delivered | Self::Answered | Self::Throttled => Health::Good,
            Self::Overloaded | Self::TimedOut | Self::Failed => Health::Bad,
            Self::Abandoned => Health::Unknown,
        }
    }

    fn load(self, latency: Duration) -> Load {
        match self {
            Self::Delivered | Self::Answered => Load::Answered(latency),
            Self::Throttled | Self::Overloaded | Self::TimedOut => Load::TooMuch,
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
            let _ = inner.breaker.ended(self.round, Health::Unknown, self.began, 0.0);
        }
    }
}
