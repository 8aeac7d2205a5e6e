//! How many attempts a destination bears at once: a set number, or one that is learned from latency and refusals.
//! It grows by one after a round of answers that came as fast as usual while the limit was in use; it shrinks when
//! answers are slow, and at once when the destination asks for less. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::shaping::Concurrency;

/// Kept of the limit when the destination asks for less.
const KEPT_ON_REFUSAL: f64 = 0.7;
/// Kept of the limit when a round of answers was slow.
const KEPT_ON_SLOWNESS: f64 = 0.9;
/// Answers that take longer than this many times what is usual are slow.
const SLOW: f64 = 2.0;
/// Up to this many times what is usual, more attempts at once did no harm.
const STEADY: f64 = 1.25;
/// Below this, latency says more about the machine's scheduler than about the destination, seconds.
const NOISE_S: f64 = 0.005;
/// The usual latency is measured anew after so many rounds, at half the limit: with fewer attempts than are borne.
const ROUNDS_UNTIL_MEASURED: u32 = 50;
/// And after so many slow rounds in a row: fewer attempts should have helped by now, unless slow is what is usual.
const SLOW_ROUNDS_MAX: u32 = 5;
/// Kept of the limit while the usual latency is measured.
const KEPT_WHILE_MEASURING: f64 = 0.5;
/// A limit that nobody set.
const UNLIMITED: usize = usize::MAX;

/// What an attempt said about the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// It was answered, after this long.
    Answered(Duration),
    /// It was refused for load, or not answered in time.
    TooMuch,
    /// Nothing.
    Unknown,
}

/// A destination's limit.
#[derive(Debug)]
pub(super) struct Limit {
    policy: Option<Concurrency>,
    learned: Learned,
}

#[derive(Debug)]
struct Learned {
    limit: f64,
    /// What an answer takes when there is no queue, seconds.
    usual_s: Option<f64>,
    /// Attempts that began before this were made under a higher limit and say nothing about this one.
    lowered: Instant,
    round: Round,
    /// Rounds since the usual latency was measured.
    rounds: u32,
    /// Slow rounds in a row.
    slow_rounds: u32,
    /// The limit to go back to once it is measured.
    measuring: Option<f64>,
}

#[derive(Debug, Default)]
struct Round {
    answers: u32,
    latencies_s: f64,
    in_use_max: usize,
}

impl Limit {
    pub(super) fn new(policy: Option<Concurrency>, now: Instant) -> Self {
        let limit = match policy {
            Some(Concurrency::Adaptive { min, .. }) => f64::from(min.max(1)),
            Some(Concurrency::Fixed { .. }) | None => 1.0,
        };
        Self { policy, learned: Learned::new(limit, now) }
    }

    /// From now on by this policy; what was learned stays, within its bounds.
    pub(super) fn update(&mut self, policy: Option<Concurrency>, now: Instant) {
        if let (Some(Concurrency::Adaptive { .. }), Some(Concurrency::Adaptive { min, max })) = (self.policy, policy) {
            self.learned.limit = bounded(self.learned.limit, min, max);
            self.policy = policy;
        } else if self.policy != policy {
            *self = Self::new(policy, now);
        }
    }

    /// How many may be under way at once.
    pub(super) fn max(&self) -> usize {
        match self.policy {
            None => UNLIMITED,
            Some(Concurrency::Fixed { max }) => usize::from(max.max(1)),
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 65,535")]
            Some(Concurrency::Adaptive { .. }) => self.learned.limit as usize,
        }
    }

    pub(super) fn is_set(&self) -> bool {
        self.policy.is_some()
    }

    pub(super) fn is_adaptive(&self) -> bool {
        matches!(self.policy, Some(Concurrency::Adaptive { .. }))
    }

    /// An attempt ended that began then, while so many, itself included, were under way.
    pub(super) fn ended(&mut self, began: Instant, load: Load, in_use: usize, now: Instant) {
        if let Some(Concurrency::Adaptive { min, max }) = self.policy {
            self.learned.ended(began, load, in_use, now);
            self.learned.limit = bounded(self.learned.limit, min, max);
        }
    }
}

fn bounded(limit: f64, min: u16, max: u16) -> f64 {
    let min = min.max(1);
    limit.clamp(f64::from(min), f64::from(max.max(min)))
}

impl Learned {
    fn new(limit: f64, now: Instant) -> Self {
        Self { limit, usual_s: None, lowered: now, round: Round::default(), rounds: 0, slow_rounds: 0, measuring: None }
    }

    fn ended(&mut self, began: Instant, load: Load, in_use: usize, now: Instant) {
        // One step down a round trip: what began before it is an answer to what was before it.
        if began < self.lowered {
            return;
        }
        match load {
            Load::Unknown => {}
            Load::TooMuch => {
                self.limit = self.measuring.take().unwrap_or(self.limit);
                self.lower(KEPT_ON_REFUSAL, now);
            }
            Load::Answered(latency) => {
                self.round.answers += 1;
                self.round.latencies_s += latency.as_secs_f64();
                self.round.in_use_max = self.round.in_use_max.max(in_use);
                if f64::from(self.round.answers) >= self.limit.floor() {
                    self.judge(now);
                }
            }
        }
    }

    /// A round is over: as many answers as the limit.
    fn judge(&mut self, now: Instant) {
        let round = std::mem::take(&mut self.round);
        let latency_s = round.latencies_s / f64::from(round.answers.max(1));
        if let Some(limit) = self.measuring.take() {
            self.limit = limit;
            self.usual_s = Some(latency_s);
            return;
        }
        self.rounds += 1;
        let usual_s = self.usual_s.map_or(latency_s, |usual_s| usual_s.min(latency_s));
        self.usual_s = Some(usual_s);
        let slow = latency_s > (usual_s * SLOW).max(NOISE_S);
        self.slow_rounds = if slow { self.slow_rounds + 1 } else { 0 };
        #[expect(clippy::cast_precision_loss, reason = "at most 65,535")]
        let full = round.in_use_max as f64 >= self.limit.floor();
        if self.rounds >= ROUNDS_UNTIL_MEASURED || self.slow_rounds >= SLOW_ROUNDS_MAX {
            self.rounds = 0;
            self.slow_rounds = 0;
            self.measuring = Some(self.limit);
            self.lower(KEPT_WHILE_MEASURING, now);
        } else if slow {
            self.lower(KEPT_ON_SLOWNESS, now);
        } else if full && latency_s <= (usual_s * STEADY).max(NOISE_S) {
            self.limit = self.limit.floor() + 1.0;
        }
    }

    fn lower(&mut self, kept: f64, now: Instant) {
        self.limit *= kept;
        self.lowered = now;
        self.round = Round::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn adaptive(min: u16, max: u16, now: Instant) -> Limit {
        Limit::new(Some(Concurrency::Adaptive { min, max }), now)
    }

    /// A destination that takes 20 ms for up to `bears` attempts at once, and longer in proportion beyond; it refuses
    /// more than `refuses_from`. Runs rounds as full as the limit allows; returns the mean limit of the last half.
    fn learn(limit: &mut Limit, bears: usize, refuses_from: usize, rounds: usize, now: &mut Instant) -> usize {
        let mut sum = 0;
        for round in 0..rounds {
            let in_use = limit.max();
            let began = *now;
            let latency = MILLISECOND * 20 * u32::try_from(in_use.max(bears)).expect("small")
                / u32::try_from(bears).expect("small");
            *now += latency;
            for place in 0..in_use {
                let load = if place >= refuses_from { Load::TooMuch } else { Load::Answered(latency) };
                limit.ended(began, load, in_use - place, *now);
            }
            if round >= rounds / 2 {
                sum += in_use;
            }
        }
        sum / (rounds - rounds / 2)
    }

    #[test]
    fn it_grows_while_that_helps_and_stays_near_what_is_borne() {
        let mut now = Instant::now();
        let mut limit = adaptive(1, 1_000, now);
        let learned = learn(&mut limit, 40, usize::MAX, 2_000, &mut now);
        assert!((40..100).contains(&learned), "{learned}");
    }

    #[test]
    fn it_keeps_below_what_is_refused() {
        let mut now = Instant::now();
        let mut limit = adaptive(1, 1_000, now);
        let learned = learn(&mut limit, 500, 60, 2_000, &mut now);
        assert!((40..=61).contains(&learned), "{learned}");
    }

    #[test]
    fn it_grows_again_when_the_destination_bears_more() {
        let mut now = Instant::now();
        let mut limit = adaptive(1, 1_000, now);
        let before = learn(&mut limit, 10, usize::MAX, 1_000, &mut now);
        let after = learn(&mut limit, 200, usize::MAX, 1_000, &mut now);
        assert!(before < 30 && after > 150, "{before} then {after}");
    }

    #[test]
    fn a_destination_that_is_slow_for_reasons_of_its_own_is_not_starved() {
        let mut now = Instant::now();
        let mut limit = adaptive(1, 50, now);
        for (latency, rounds) in [(20, 100), (200, 400)] {
            for _ in 0..rounds {
                let in_use = limit.max();
                let began = now;
                now += MILLISECOND * latency;
                (0..in_use).for_each(|_| limit.ended(began, Load::Answered(MILLISECOND * latency), in_use, now));
            }
        }
        assert!(limit.max() >= 45, "{}", limit.max());
    }

    #[test]
    fn one_flood_of_refusals_is_one_step() {
        let mut now = Instant::now();
        let mut limit = adaptive(1, 100, now);
        learn(&mut limit, 500, usize::MAX, 200, &mut now);
        assert_eq!(limit.max(), 100);
        let began = now;
        now += MILLISECOND;
        (0..100).for_each(|_| limit.ended(began, Load::TooMuch, 100, now));
        assert_eq!(limit.max(), 70);
        limit.ended(now, Load::TooMuch, 70, now + MILLISECOND);
        assert_eq!(limit.max(), 49);
    }

    #[test]
    fn it_does_not_grow_while_nobody_needs_it() {
        let mut now = Instant::now();
        let mut limit = adaptive(5, 100, now);
        for _ in 0..1_000 {
            now += MILLISECOND;
            limit.ended(now, Load::Answered(MILLISECOND), 2, now);
        }
        assert_eq!(limit.max(), 5);
    }

    #[test]
    fn new_bounds_keep_what_was_learned() {
        let mut now = Instant::now();
        let mut limit = adaptive(1, 100, now);
        learn(&mut limit, 500, usize::MAX, 40, &mut now);
        let learned = limit.max();
        assert!(learned > 20 && learned < 60, "{learned}");
        limit.update(Some(Concurrency::Adaptive { min: 2, max: 60 }), now);
        assert_eq!(limit.max(), learned);
        limit.update(Some(Concurrency::Adaptive { min: 2, max: 10 }), now);
        assert_eq!(limit.max(), 10);
        limit.update(Some(Concurrency::Fixed { max: 7 }), now);
        assert_eq!(limit.max(), 7);
        limit.update(None, now);
        assert_eq!(limit.max(), UNLIMITED);
    }

    proptest! {
        #[test]
        fn it_never_leaves_its_bounds(
            min in 0u16..50, more in 0u16..100,
            ends in prop::collection::vec((0u8..4, 0u64..5_000, 1usize..100, 0u64..100), 1..500),
        ) {
            let mut now = Instant::now();
            let max = min.saturating_add(more);
            let mut limit = adaptive(min, max, now);
            for (kind, latency_ms, in_use, wait_ms) in ends {
                let began = now;
                now += MILLISECOND * u32::try_from(wait_ms).expect("small");
                let load = match kind {
                    0 => Load::TooMuch,
                    1 => Load::Unknown,
                    _ => Load::Answered(Duration::from_millis(latency_ms)),
                };
                limit.ended(began, load, in_use, now);
                prop_assert!((usize::from(min.max(1))..=usize::from(max.max(1))).contains(&limit.max()));
            }
        }
    }
}
