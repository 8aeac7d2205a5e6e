//! When to try again: a schedule, jitter, and what the destination asked for. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a subscription retries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Waits between attempts, seconds: the first attempt is made at once, then one follows each wait.
    /// Default: the schedule that Standard Webhooks suggests, 5 s to 24 h, ten attempts in all.
    #[schema(max_items = 64)]
    pub schedule_s: Vec<u64>,
    /// Waits that grow by themselves, in place of the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponential: Option<Exponential>,
    /// No attempt is begun on an event accepted longer ago than this, seconds; `None`: no such limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31_536_000)]
    pub age_max_s: Option<u64>,
    /// Statuses that go straight to the dead letter: `400`, or a class, `4xx`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, max_items = 64)]
    pub dead_statuses: Vec<StatusPattern>,
    /// The longest `Retry-After` that is honoured, seconds.
    #[schema(minimum = 0, maximum = 2_592_000)]
    pub retry_after_max_s: u64,
}

/// Waits that double from a first one, each spread over its whole length ("full jitter").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Exponential {
    /// The first wait, seconds.
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub first_s: u64,
    /// The longest wait, seconds.
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub wait_max_s: u64,
    /// Attempts in all, the first included.
    #[schema(minimum = 1, maximum = 1_000)]
    pub attempts_max: u32,
}

/// A status or a class of statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StatusPattern {
    /// One status.
    Status(u16),
    /// All from 100 times this on: `4xx`.
    Class(u8),
}

impl StatusPattern {
    /// Whether the status is meant.
    pub fn fits(self, status: u16) -> bool {
        match self {
            Self::Status(own) => own == status,
            Self::Class(class) => status / 100 == u16::from(class),
        }
    }
}

impl TryFrom<String> for StatusPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Ok(status @ 400..=599) = text.parse() {
            return Ok(Self::Status(status));
        }
        match text.as_str() {
            "4xx" => Ok(Self::Class(4)),
            "5xx" => Ok(Self::Class(5)),
            _ => Err(format!(
                "`{}` is no status that can go straight to the dead letter; write 400 to 599, `4xx` or `5xx`",
                text.chars().take(16).collect::<String>()
            )),
        }
    }
}

impl From<StatusPattern> for String {
    fn from(pattern: StatusPattern) -> Self {
        match pattern {
            StatusPattern::Status(status) => status.to_string(),
            StatusPattern::Class(class) => format!("{class}xx"),
        }
    }
}

/// Entries of a schedule, at most.
pub const SCHEDULE_MAX: usize = 64;
/// The longest single wait, seconds: 30 days.
pub const WAIT_MAX_S: u64 = 30 * 24 * 3600;
/// Attempts that an exponential policy may make.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// Entries of `dead_statuses`, at most.
pub const DEAD_STATUSES_MAX: usize = 64;
/// The longest age limit, seconds: a year.
pub const AGE_MAX_S: u64 = 365 * 24 * 3600;
/// Explicit schedules are spread by this share either way, so that what failed together does not return together.
const JITTER: f64 = 0.2;

impl Default for RetryPolicy {
    fn default() -> Self {
        const H: u64 = 3600;
        Self {
            schedule_s: vec![5, 300, 1_800, 2 * H, 5 * H, 10 * H, 14 * H, 20 * H, 24 * H],
            exponential: None,
            age_max_s: None,
            dead_statuses: Vec::new(),
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
        if let Some(exponential) = self.exponential {
            exponential.validate()?;
        }
        if self.dead_statuses.len() > DEAD_STATUSES_MAX {
            return Err(format!("`retry.dead_statuses` has more than {DEAD_STATUSES_MAX} entries"));
        }
        if self.age_max_s.is_some_and(|age| !(1..=AGE_MAX_S).contains(&age)) {
            return Err(format!("`retry.age_max_s` must be 1 to {AGE_MAX_S}"));
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
        let random = random.clamp(0.0, 1.0);
        let spread = match (self.exponential, (attempts as usize).checked_sub(1)) {
            (_, None) => None,
            (Some(exponential), Some(_)) => exponential.wait(attempts).map(|wait| wait.mul_f64(random)),
            (None, Some(index)) => self
                .schedule_s
                .get(index)
                .map(|wait| Duration::from_secs(*wait).mul_f64(1.0 - JITTER + 2.0 * JITTER * random)),
        };
        let Some(spread) = spread else { return Next::GiveUp };
        let asked = retry_after.unwrap_or_default().min(Duration::from_secs(self.retry_after_max_s));
        Next::After(spread.max(asked))
    }
}

impl Exponential {
    /// The whole length of the wait after `attempts` failed attempts, before it is spread.
    fn wait(self, attempts: u32) -> Option<Duration> {
        if attempts >= self.attempts_max {
            return None;
        }
        let doubled = 1u64.checked_shl(attempts.saturating_sub(1)).unwrap_or(u64::MAX);
        Some(Duration::from_secs(self.first_s.saturating_mul(doubled).min(self.wait_max_s)))
    }

    fn validate(self) -> Result<(), String> {
        if !(1..=WAIT_MAX_S).contains(&self.first_s) || !(self.first_s..=WAIT_MAX_S).contains(&self.wait_max_s) {
            return Err(format!(
                "`retry.exponential` needs 1 <= `first_s` <= `wait_max_s` <= {WAIT_MAX_S}; it has {} and {}",
                self.first_s, self.wait_max_s
            ));
        }
        if !(1..=ATTEMPTS_MAX).contains(&self.attempts_max) {
            return Err(format!(
                "`retry.exponential.attempts_max` is {}; 1 to {ATTEMPTS_MAX} are allowed",
                self.attempts_max
            ));
        }
        Ok(())
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

    proptest! {
        #[test]
        fn exponential_waits_double_up_to_their_cap_and_are_spread_over_all_of_it(attempts in 1u32..40, random in 0.0f64..1.0) {
            let exponential = Exponential { first_s: 2, wait_max_s: 600, attempts_max: 20 };
            let policy = RetryPolicy { exponential: Some(exponential), ..RetryPolicy::default() };
            match policy.next(attempts, None, random) {
                Next::GiveUp => prop_assert!(attempts >= 20),
                Next::After(wait) => {
                    let whole = (2.0 * 2f64.powi(attempts.cast_signed() - 1)).min(600.0);
                    prop_assert!((wait.as_secs_f64() - whole * random).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn a_status_pattern_is_a_status_or_a_class() {
        let read = |text: &str| StatusPattern::try_from(text.to_owned());
        assert!(read("4xx").is_ok_and(|class| class.fits(404) && !class.fits(500)));
        assert!(read("422").is_ok_and(|status| status.fits(422) && !status.fits(421)));
        for wrong in ["200", "xx", "3xx", "", "600"] {
            assert!(read(wrong).is_err(), "{wrong}");
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
