//! When a destination is left alone: the circuit breaker. It opens on failures in a row or on a rate of them, stays
//! open for a while, then lets a few probes through: all must succeed, or it stays open twice as long. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::{domain::shaping::BreakerPolicy, flow::breaker::window::Window};

mod window;

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

    /// An attempt of that round ended. `jitter` gives a number from 0 to 1.
    pub(super) fn ended(
        &mut self,
        round: u64,
        health: Health,
        now: Instant,
        jitter: impl FnOnce() -> f64,
    ) -> Option<Change> {
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
                self.must_open(now).then(|| self.open(now, now, jitter()))
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
                Some(self.open(since, now, jitter()))
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
        self.window.clear(now);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: BreakerPolicy = BreakerPolicy {
        enabled: true,
        consecutive_failures: 3,
        error_rate: 0.5,
        attempts_min: 10,
        window_s: 30,
        open_s: 5,
        open_max_s: 30,
        probes: 2,
    };

    struct Story {
        breaker: Breaker,
        now: Instant,
    }

    impl Story {
        fn begin() -> Self {
            let now = Instant::now();
            Self { breaker: Breaker::new(POLICY, now), now }
        }

        fn after(&mut self, seconds: u64) -> &mut Self {
            self.now += Duration::from_secs(seconds);
            self
        }

        fn attempt(&mut self, health: Health) -> Option<Change> {
            assert!(self.breaker.room(self.now).is_ok_and(|room| room > 0), "it lets nothing through");
            let round = self.breaker.begun();
            self.end(round, health)
        }

        fn end(&mut self, round: u64, health: Health) -> Option<Change> {
            self.breaker.ended(round, health, self.now, || 0.0)
        }

        fn open_for(&mut self) -> u64 {
            let until = self.breaker.room(self.now).expect_err("it is open");
            (until - self.now).as_secs()
        }

        fn fail_until_open(&mut self) {
            while self.attempt(Health::Bad) != Some(Change::Opened) {}
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let mut story = Story::begin();
        for health in [Health::Bad, Health::Bad, Health::Good, Health::Bad, Health::Unknown, Health::Bad] {
            assert_eq!(story.attempt(health), None);
        }
        assert_eq!(story.attempt(Health::Bad), Some(Change::Opened));
        assert_eq!(story.open_for(), 5);
    }

    #[test]
    fn a_rate_of_failures_opens_it_once_there_are_enough_attempts() {
        let mut story = Story::begin();
        for _ in 0..4 {
            assert_eq!(story.attempt(Health::Bad), None);
            assert_eq!(story.attempt(Health::Good), None);
        }
        assert_eq!(story.attempt(Health::Good), None);
        assert_eq!(story.attempt(Health::Bad), Some(Change::Opened), "5 of 10");
    }

    #[test]
    fn failures_that_are_long_past_do_not_count() {
        let mut story = Story::begin();
        for _ in 0..4 {
            story.attempt(Health::Bad);
            story.attempt(Health::Good);
        }
        story.after(34);
        let now = story.now;
        assert!(story.breaker.error_rate(now).abs() < f64::EPSILON);
        story.attempt(Health::Good);
        assert_eq!(story.attempt(Health::Bad), None);
    }

    #[test]
    fn the_probes_close_it_when_all_of_them_succeed() {
        let mut story = Story::begin();
        story.fail_until_open();
        story.after(5);
        assert_eq!(story.breaker.room(story.now), Ok(2));
        let first = story.breaker.begun();
        let second = story.breaker.begun();
        assert_eq!(story.breaker.room(story.now), Ok(0));
        assert_eq!(story.end(first, Health::Good), None);
        assert_eq!(story.breaker.room(story.now), Ok(0), "two in all, not two at a time");
        assert_eq!(story.end(second, Health::Good), Some(Change::Closed));
        assert_eq!(story.breaker.room(story.now), Ok(usize::MAX));
    }

    #[test]
    fn a_probe_that_was_given_up_is_made_again() {
        let mut story = Story::begin();
        story.fail_until_open();
        story.after(5);
        assert_eq!(story.attempt(Health::Unknown), None);
        assert_eq!(story.breaker.room(story.now), Ok(2));
    }

    #[test]
    fn each_failed_probe_doubles_the_wait_up_to_its_bound_and_closing_forgets_it() {
        let mut story = Story::begin();
        story.fail_until_open();
        for wait in [5, 10, 20, 30, 30] {
            assert_eq!(story.open_for(), wait);
            story.after(wait);
            assert_eq!(story.attempt(Health::Bad), Some(Change::Opened));
        }
        story.after(30);
        story.attempt(Health::Good);
        assert_eq!(story.attempt(Health::Good), Some(Change::Closed));
        story.fail_until_open();
        assert_eq!(story.open_for(), 5);
    }

    #[test]
    fn whoever_began_before_it_opened_says_nothing_about_it_now() {
        let mut story = Story::begin();
        let early = [(); 4].map(|()| story.breaker.begun());
        story.fail_until_open();
        assert_eq!(story.end(early[0], Health::Good), None);
        story.after(5);
        story.breaker.room(story.now).expect("its time has come");
        assert_eq!(story.end(early[1], Health::Bad), None);
        assert_eq!([early[2], early[3]].map(|round| story.end(round, Health::Good)), [None, None]);
        assert!(matches!(story.breaker.state(), State::HalfOpen { out: 0, good: 0, .. }));
    }

    #[test]
    fn jitter_only_makes_it_longer_and_by_a_tenth_at_most() {
        let mut story = Story::begin();
        for _ in 0..3 {
            let round = story.breaker.begun();
            story.breaker.ended(round, Health::Bad, story.now, || 1.0);
        }
        let until = story.breaker.room(story.now).expect_err("open");
        assert_eq!(until - story.now, Duration::from_millis(5_500));
    }

    #[test]
    fn switched_off_it_lets_everything_through() {
        let mut story = Story::begin();
        story.fail_until_open();
        let off = BreakerPolicy { enabled: false, ..POLICY };
        assert_eq!(story.breaker.update(off, story.now), Some(Change::Closed));
        for _ in 0..100 {
            assert_eq!(story.attempt(Health::Bad), None);
        }
    }

    fn half_open(breaker: &Breaker) -> bool {
        matches!(breaker.state(), State::HalfOpen { .. })
    }

    proptest! {
        /// Whatever happens: open means not one attempt before its time, half open never more than the probes, and
        /// closed is only left by a failure.
        #[test]
        fn every_change_has_its_reason(
            steps in prop::collection::vec((0u64..2_000, 0u8..4, 0.0f64..1.0, any::<prop::sample::Index>()), 1..600),
        ) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(POLICY, now);
            let mut under_way: Vec<u64> = Vec::new();
            for (wait_ms, step, jitter, which) in steps {
                now += Duration::from_millis(wait_ms);
                let before = breaker.state();
                let health = match step {
                    0 | 1 => {
                        match breaker.room(now) {
                            Ok(0) => prop_assert!(half_open(&breaker)),
                            Ok(_) => under_way.push(breaker.begun()),
                            Err(until) => prop_assert!(until > now && before == breaker.state()),
                        }
                        if let State::Open { until, .. } = before && until <= now {
                            prop_assert!(half_open(&breaker));
                        }
                        if let State::HalfOpen { out, good, .. } = breaker.state() {
                            prop_assert!(out + good <= POLICY.probes);
                        }
                        continue;
                    }
                    2 => Health::Good,
                    _ => Health::Bad,
                };
                if under_way.is_empty() {
                    continue;
                }
                let round = under_way.swap_remove(which.index(under_way.len()));
                let change = breaker.ended(round, health, now, || jitter);
                match (before, breaker.state()) {
                    (State::Closed, State::Open { since, until }) => {
                        prop_assert_eq!((change, health, since), (Some(Change::Opened), Health::Bad, now));
                        prop_assert!(until >= now + Duration::from_secs(5));
                    }
                    (State::HalfOpen { .. }, State::Open { until, .. }) => {
                        prop_assert_eq!((change, health), (Some(Change::Opened), Health::Bad));
                        prop_assert!(until >= now + Duration::from_secs(10) && until <= now + Duration::from_secs(33));
                    }
                    (State::HalfOpen { good, .. }, State::Closed) => {
                        prop_assert_eq!((change, health, good + 1), (Some(Change::Closed), Health::Good, POLICY.probes));
                    }
                    (_, _) => prop_assert_eq!(change, None),
                }
            }
        }
    }
}
