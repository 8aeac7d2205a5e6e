//! When a destination is left alone: the circuit breaker. It opens on failures in a row or on a rate of them, stays
//! open for a while, then lets a few probes through: all must succeed, or it stays open twice as long. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::shaping::BreakerPolicy;

/// The sliding window moves by this part of itself.
const SLICES: usize = 10;
/// So that destinations that failed together, and many nodes, do not probe together: up to so much longer.
const JITTER: f64 = 0.1;

/// What an attempt said about the destination's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    Bad,
    /// The attempt was abandoned.
    Unknown,
}

/// What an attempt's end changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Opened,
    Closed,
}

/// The state between two attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Closed,
    Open {
        since: Instant,
        until: Instant,
    },
    /// `out`: probes under way; `good`: those that succeeded.
    HalfOpen {
        since: Instant,
        out: u32,
        good: u32,
    },
}

/// A destination's breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    policy: BreakerPolicy,
    state: State,
    /// Counts the states, so that an attempt of an earlier one says nothing about this one.
    round: u64,
    failures_in_a_row: u32,
    /// Times it opened without closing between them.
    openings: u32,
    window: Window,
}

impl Breaker {
    pub(super) fn new(policy: BreakerPolicy, now: Instant) -> Self {
        Self {
            policy,
            state: State::Closed,
            round: 0,
            failures_in_a_row: 0,
            openings: 0,
            window: Window::new(Duration::from_secs(u64::from(policy.window_s)), now),
        }
    }

    /// From now on by this policy; its state stays, unless it is switched off.
    pub(super) fn update(&mut self, policy: BreakerPolicy, now: Instant) -> Option<Change> {
        if policy.window_s != self.policy.window_s {
            self.window = Window::new(Duration::from_secs(u64::from(policy.window_s)), now);
        }
        self.policy = policy;
        (!policy.enabled && self.state != State::Closed).then(|| self.close(now))
    }

    /// How many attempts may begin now, or when to ask again. Half opens it when its time has come.
    pub(super) fn room(&mut self, now: Instant) -> Result<usize, Instant> {
        match self.state {
            State::Closed => Ok(usize::MAX),
            State::Open { until, .. } if now < until => Err(until),
            State::Open { since, .. } => {
                self.enter(State::HalfOpen { since, out: 0, good: 0 });
                Ok(self.probes() as usize)
            }
            State::HalfOpen { out, good, .. } => Ok(self.probes().saturating_sub(out + good) as usize),
        }
    }

    /// An attempt begins, after [`Self::room`] allowed it. Returns what [`Self::ended`] wants to know.
    pub(super) fn begun(&mut self) -> u64 {
        if let State::HalfOpen { out, .. } = &mut self.state {
            *out += 1;
        }
        self.round
    }

    /// An attempt of that round ended. `jitter` is from 0 to 1.
    pub(super) fn ended(&mut self, round: u64, health: Health, now: Instant, jitter: f64) -> Option<Change> {
        if round != self.round || !self.policy.enabled {
            return None;
        }
        match (&mut self.state, health) {
            (State::Closed, Health::Good) => {
                self.failures_in_a_row = 0;
                self.window.note(false, now);
                None
            }
            (State::Closed, Health::Bad) => {
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                self.window.note(true, now);
                self.must_open(now).then(|| self.open(now, now, jitter))
            }
            (State::HalfOpen { out, good, .. }, Health::Good) => {
                *out = out.saturating_sub(1);
                *good += 1;
                let closes = *good >= self.policy.probes.max(1);
                closes.then(|| self.close(now))
            }
            (State::HalfOpen { since, .. }, Health::Bad) => {
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                let since = *since;
                Some(self.open(since, now, jitter))
            }
            (State::HalfOpen { out, .. }, Health::Unknown) => {
                *out = out.saturating_sub(1);
                None
            }
            (State::Closed, Health::Unknown) | (State::Open { .. }, _) => None,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row
    }

    /// The share of the window's attempts that failed; 0 where there were none.
    pub(super) fn error_rate(&mut self, now: Instant) -> f64 {
        let (attempts, failures) = self.window.totals(now);
        if attempts == 0 { 0.0 } else { f64::from(failures) / f64::from(attempts) }
    }

    fn must_open(&mut self, now: Instant) -> bool {
        let (attempts, _) = self.window.totals(now);
        self.failures_in_a_row >= self.policy.consecutive_failures.max(1)
            || (attempts >= self.policy.attempts_min.max(1) && self.error_rate(now) >= self.policy.error_rate)
    }

    fn open(&mut self, since: Instant, now: Instant, jitter: f64) -> Change {
        let doubled = u64::from(self.policy.open_s.max(1)).saturating_mul(1 << self.openings.min(31));
        let wait = Duration::from_secs(doubled.min(u64::from(self.policy.open_max_s.max(1))));
        self.openings = self.openings.saturating_add(1);
        self.enter(State::Open { since, until: now + wait.mul_f64(1.0 + JITTER * jitter.clamp(0.0, 1.0)) });
        Change::Opened
    }

    fn close(&mut self, now: Instant) -> Change {
        self.failures_in_a_row = 0;
        self.openings = 0;
        // What it looked like before says nothing any more.
        self.window = Window::new(self.window.slice * 10, now);
        self.enter(State::Closed);
        Change::Closed
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.round += 1;
    }

    fn probes(&self) -> u32 {
        self.policy.probes.max(1)
    }
}

/// Attempts and failures of the last while, in slices.
#[derive(Debug)]
struct Window {
    slice: Duration,
    slices: [(u32, u32); SLICES],
    /// The slice that is being filled, and when it began.
    at: usize,
    began: Instant,
    totals: (u32, u32),
}

impl Window {
    fn new(length: Duration, now: Instant) -> Self {
        let slice = (length / 10).max(Duration::from_millis(1));
        Self { slice, slices: [(0, 0); SLICES], at: 0, began: now, totals: (0, 0) }
    }

    fn note(&mut self, failed: bool, now: Instant) {
        self.advance(now);
        let (attempts, failures) = &mut self.slices[self.at];
        if *attempts == u32::MAX / 16 {
            return;
        }
        *attempts += 1;
        *failures += u32::from(failed);
        self.totals.0 += 1;
        self.totals.1 += u32::from(failed);
    }

    fn totals(&mut self, now: Instant) -> (u32, u32) {
        self.advance(now);
        self.totals
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        if passed < self.slice {
            return;
        }
        let steps = passed.as_nanos() / self.slice.as_nanos();
        if steps >= SLICES as u128 {
            *self = Self::new(self.slice * 10, now);
            return;
        }
        for _ in 0..steps {
            self.at = (self.at + 1) % SLICES;
            let (attempts, failures) = std::mem::take(&mut self.slices[self.at]);
            self.totals.0 -= attempts;
            self.totals.1 -= failures;
            self.began += self.slice;
        }
    }
}
