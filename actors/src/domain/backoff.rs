//! When to try again: a schedule, jitter, and what the destination asked for. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a subscription retries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Waits between attempts, seconds: the first attempt is made at once, then one follows each wait.
    /// Default: the schedule that Standard Webhooks suggests, 5 s to 24 h, ten attempts in all.
    pub schedule_s: Vec<u64>,
    /// The longest `Retry-After` that is honoured, seconds.
    pub retry_after_max_s: u64,
}

/// Entries of a schedule, at most.
pub const SCHEDULE_MAX: usize = 64;
/// The longest single wait, seconds: 30 days.
pub const WAIT_MAX_S: u64 = 30 * 24 * 3600;
/// Explicit schedules are spread by this share either way, so that what failed together does not return together.
const JITTER: f64 = 0.2;

impl Default for RetryPolicy {
    fn default() -> Self {
        const H: u64 = 3600;
        Self {
            schedule_s: vec![5, 300, 1_800, 2 * H, 5 * H, 10 * H, 14 * H, 20 * H, 24 * H],
            retry_after_max_s: 24 * H,
        }
    }
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again after this wait.
    After(Duration),
    /// No attempt is left.
    GiveUp,
}

impl RetryPolicy {
    /// The policy's faults, in words that say what would be right.
    pub fn validate(&self) -> Result<(), String> {
        if self.schedule_s.len() > SCHEDULE_MAX {
            return Err(format!(
                "`retry.schedule_s` has {} entries; at most {SCHEDULE_MAX} are allowed",
                self.schedule_s.len()
            ));
        }
        if let Some(wait) = self.schedule_s.iter().find(|wait| **wait > WAIT_MAX_S) {
            return Err(format!("`retry.schedule_s` has a wait of {wait} s; the longest allowed is {WAIT_MAX_S} s"));
        }
        if self.retry_after_max_s > WAIT_MAX_S {
            return Err(format!(
                "`retry.retry_after_max_s` is {}; the most allowed is {WAIT_MAX_S}",
                self.retry_after_max_s
            ));
        }
        Ok(())
    }

    /// Decides after `attempts` failed attempts. `random` is uniform in 0..1. A `Retry-After` longer than the
    /// schedule's wait is honoured up to the cap, and is not spread: the destination named the time.
    pub fn next(&self, attempts: u32, retry_after: Option<Duration>, random: f64) -> Next {
        let Some(wait) = (attempts as usize).checked_sub(1).and_then(|index| self.schedule_s.get(index)) else {
            return Next::GiveUp;
        };
        let spread = Duration::from_secs(*wait).mul_f64(1.0 - JITTER + 2.0 * JITTER * random.clamp(0.0, 1.0));
        let asked = retry_after.unwrap_or_default().min(Duration::from_secs(self.retry_after_max_s));
        Next::After(spread.max(asked))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_stay_within_a_fifth_of_the_schedule(attempts in 1u32..=9, random in 0.0f64..1.0) {
            let policy = RetryPolicy::default();
            let planned = Duration::from_secs(policy.schedule_s[attempts as usize - 1]).as_secs_f64();
            let Next::After(wait) = policy.next(attempts, None, random) else {
                return Err(TestCaseError::fail("gave up early"));
            };
            prop_assert!(wait.as_secs_f64() >= planned * 0.8 - 1e-6);
            prop_assert!(wait.as_secs_f64() <= planned * 1.2 + 1e-6);
        }

        #[test]
        fn retry_after_is_a_floor_up_to_its_cap(asked in 0u64..10_000_000) {
            let policy = RetryPolicy::default();
            let Next::After(wait) = policy.next(1, Some(Duration::from_secs(asked)), 0.5) else {
                return Err(TestCaseError::fail("gave up early"));
            };
            prop_assert_eq!(wait.as_secs(), asked.clamp(5, policy.retry_after_max_s));
        }
    }

    #[test]
    fn gives_up_when_the_schedule_is_spent() {
        let policy = RetryPolicy { schedule_s: vec![1, 2], ..RetryPolicy::default() };
        assert_eq!(policy.next(3, Some(Duration::from_secs(5)), 0.5), Next::GiveUp);
        assert!(matches!(policy.next(2, None, 0.5), Next::After(_)));
    }

    #[test]
    fn says_what_is_wrong_with_a_policy() {
        let policy = RetryPolicy { schedule_s: vec![WAIT_MAX_S + 1], ..RetryPolicy::default() };
        assert!(policy.validate().is_err_and(|text| text.contains("retry.schedule_s")));
    }
}
