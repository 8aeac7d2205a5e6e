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
/// The usual latency follows a lasting rise by this part of it a round, so that it is not for ever yesterday's.
const DRIFT: f64 = 0.01;
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
    /// The usual latency, seconds.
    usual_s: Option<f64>,
    /// Attempts that began before this were made under a higher limit and say nothing about this one.
    shrunk: Instant,
    round: Round,
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
        Self { policy, learned: Learned { limit, usual_s: None, shrunk: now, round: Round::default() } }
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
    fn ended(&mut self, began: Instant, load: Load, in_use: usize, now: Instant) {
        match load {
            Load::Unknown => {}
            // One shrinking a round trip: the rest of the refusals are of attempts made before it.
            Load::TooMuch if began < self.shrunk => {}
            Load::TooMuch => self.shrink(KEPT_ON_REFUSAL, now),
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
        let usual_s = match self.usual_s {
            Some(usual_s) if latency_s > usual_s => usual_s + (latency_s - usual_s).min(usual_s) * DRIFT,
            _ => latency_s,
        };
        self.usual_s = Some(usual_s);
        #[expect(clippy::cast_precision_loss, reason = "at most 65,535")]
        let in_use_max = round.in_use_max as f64;
        if latency_s > (usual_s * SLOW).max(NOISE_S) {
            self.shrink(KEPT_ON_SLOWNESS, now);
        } else if latency_s <= (usual_s * STEADY).max(NOISE_S) && in_use_max >= self.limit.floor() {
            self.limit = self.limit.floor() + 1.0;
        }
    }

    fn shrink(&mut self, kept: f64, now: Instant) {
        self.limit *= kept;
        self.shrunk = now;
        self.round = Round::default();
    }
}
