//! How many retries a destination gets: a share of its first attempts, and a floor so that they do not starve when
//! traffic stops. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::{domain::shaping::RetryBudget, flow::rate::Pace};

/// What first attempts may save up for retries: more would let a long healthy time pay for one flood.
const SAVED_MAX: f64 = 1_000.0;
/// First attempts may earn a retry at any time: nobody waits longer for the floor than this without asking again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A floor of less than one a day is none.
const FLOOR_PERIOD_MAX: Duration = Duration::from_secs(86_400);

/// A destination's budget at one moment.
#[derive(Debug)]
pub(super) struct Budget {
    policy: RetryBudget,
    saved: f64,
    floor: Option<Pace>,
}

impl Budget {
    pub(super) fn new(policy: RetryBudget, now: Instant) -> Self {
        Self { policy, saved: 0.0, floor: floor(policy.floor_per_second, now) }
    }

    /// From now on by this policy; what was saved stays.
    pub(super) fn update(&mut self, policy: RetryBudget, now: Instant) {
        if policy.floor_per_second.to_bits() != self.policy.floor_per_second.to_bits() {
            self.floor = floor(policy.floor_per_second, now);
        }
        self.policy = policy;
    }

    /// A first attempt was made.
    pub(super) fn earn(&mut self) {
        self.saved = (self.saved + self.policy.share.max(0.0)).min(SAVED_MAX);
    }

    /// Whether a retry may be made now, or when to ask again; takes nothing.
    pub(super) fn peek(&mut self, now: Instant) -> Result<(), Instant> {
        if self.saved >= 1.0 {
            return Ok(());
        }
        let ask_again = now + ASK_AGAIN_AFTER;
        match &mut self.floor {
            Some(floor) => floor.peek(1, now).map_err(|at| at.min(ask_again)),
            None => Err(ask_again),
        }
    }

    /// A retry is made, after [`Self::peek`] allowed it at the same instant.
    pub(super) fn spend(&mut self, now: Instant) {
        if self.saved >= 1.0 {
            self.saved -= 1.0;
        } else if let Some(floor) = &mut self.floor {
            let _ = floor.check(now);
        }
    }

    /// Retries that first attempts have paid for and nobody has made yet; the floor comes on top.
    pub(super) fn saved(&self) -> f64 {
        self.saved
    }
}

fn floor(per_second: f64, now: Instant) -> Option<Pace> {
    let period = Duration::try_from_secs_f64(per_second.recip()).ok().filter(|period| *period <= FLOOR_PERIOD_MAX)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, which is meant")]
    let second = per_second.ceil() as u32;
    Some(Pace::every(period, second, now))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn budget(share: f64, floor_per_second: f64, now: Instant) -> Budget {
        Budget::new(RetryBudget { share, floor_per_second }, now)
    }

    #[test]
    fn two_first_attempts_pay_for_one_retry() {
        let now = Instant::now();
        let mut budget = budget(0.5, 0.0, now);
        assert_eq!(budget.peek(now), Err(now + ASK_AGAIN_AFTER));
        budget.earn();
        assert!(budget.peek(now).is_err());
        budget.earn();
        assert_eq!(budget.peek(now), Ok(()));
        budget.spend(now);
        assert!(budget.peek(now).is_err());
    }

    #[test]
    fn the_floor_holds_without_any_traffic() {
        let now = Instant::now();
        let mut budget = budget(0.0, 2.0, now);
        for _ in 0..2 {
            assert_eq!(budget.peek(now), Ok(()));
            budget.spend(now);
        }
        assert_eq!(budget.peek(now), Err(now + Duration::from_millis(500)));
    }

    #[test]
    fn strange_floors_are_none_or_bounded() {
        let now = Instant::now();
        for per_second in [0.0, -1.0, f64::NAN, 1e-9, f64::INFINITY] {
            assert!(budget(0.0, per_second, now).peek(now).is_err() || per_second > 1.0, "{per_second}");
        }
    }

    proptest! {
        #[test]
        fn retries_stay_within_share_floor_and_what_may_be_saved(
            share in 0.0f64..3.0, floor in 0.0f64..50.0,
            steps in prop::collection::vec((0u64..50_000, any::<bool>()), 1..500),
        ) {
            let begin = Instant::now();
            let mut budget = budget(share, floor, begin);
            let (mut now, mut firsts, mut retries) = (begin, 0u32, 0u32);
            for (wait_us, first) in steps {
                now += Duration::from_micros(wait_us);
                if first {
                    budget.earn();
                    firsts += 1;
                } else if budget.peek(now).is_ok() {
                    budget.spend(now);
                    retries += 1;
                }
                let seconds = (now - begin).as_secs_f64();
                let allowed = share * f64::from(firsts) + floor * seconds * 1.001 + floor.ceil().max(1.0);
                prop_assert!(f64::from(retries) <= allowed + 0.001, "{retries} retries, {allowed} allowed");
            }
        }
    }
}
