//! When a task runs by itself. Pure: a time comes in, a time goes out.

use std::{fmt, str::FromStr, time::Duration};

use croner::Cron;
use jiff02::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Characters of a cron expression.
const CHARS_MAX: usize = 100;

/// A cron expression in UTC: minute, hour, day of the month, month, day of the week, and if there are six fields, the
/// second before them; or such as `@hourly`. An empty text stands for never.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    cron: Option<Cron>,
}

/// A text that is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It is too long.
    #[error("has more than {CHARS_MAX} characters")]
    TooLong,
    /// It cannot be read.
    #[error("`{text}` is no cron expression, such as `*/5 * * * *` for every five minutes: {problem}")]
    NotCron {
        /// The text.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It names no time that comes.
    #[error("`{0}` names no time that ever comes")]
    Never(String),
}

impl Schedule {
    /// Not by itself.
    pub fn never() -> Self {
        Self { text: String::new(), cron: None }
    }

    /// The first time that it names after `now_ms`, both in milliseconds since 1970.
    pub fn next_after(&self, now_ms: u64) -> Option<u64> {
        let now = Timestamp::from_millisecond(i64::try_from(now_ms).ok()?).ok()?.to_zoned(TimeZone::UTC);
        let next = self.cron.as_ref()?.find_next_occurrence(&now, false).ok()?;
        u64::try_from(next.timestamp().as_millisecond()).ok()
    }

    /// The same, put off by `share`, 0 to 1, of what is allowed: `put_off_max`, and never half of the way to the time
    /// after it, so that none is passed over.
    pub(crate) fn next_spread(&self, now_ms: u64, put_off_max: Duration, share: f64) -> Option<u64> {
        let at_ms = self.next_after(now_ms)?;
        let following_ms = self.next_after(at_ms).unwrap_or(u64::MAX);
        let half = Duration::from_millis((following_ms - at_ms) / 2);
        let put_off = put_off_max.min(half).mul_f64(share.clamp(0.0, 1.0));
        Some(at_ms.saturating_add(u64::try_from(put_off.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::never());
        }
        if text.chars().count() > CHARS_MAX {
            return Err(ScheduleError::TooLong);
        }
        let not_cron = |problem: croner::errors::CronError| ScheduleError::NotCron {
            text: text.to_owned(),
            problem: problem.to_string(),
        };
        let schedule = Self { text: text.to_owned(), cron: Some(Cron::from_str(text).map_err(not_cron)?) };
        // 2026: an expression may name years.
        schedule.next_after(1_767_225_600_000).ok_or_else(|| ScheduleError::Never(text.to_owned()))?;
        Ok(schedule)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schedule {}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE_MS: u64 = 60_000;
    const HOUR_MS: u64 = 60 * MINUTE_MS;

    fn schedule(text: &str) -> Schedule {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_next_time_is_after_now_and_in_utc() {
        for (text, now_ms, want) in [
            ("*/5 * * * *", 0, Some(5 * MINUTE_MS)),
            ("*/5 * * * *", 5 * MINUTE_MS - 1, Some(5 * MINUTE_MS)),
            ("*/5 * * * *", 5 * MINUTE_MS, Some(10 * MINUTE_MS)),
            ("0 */6 * * *", 1, Some(6 * HOUR_MS)),
            ("0 */6 * * *", 23 * HOUR_MS, Some(24 * HOUR_MS)),
            ("@hourly", 1, Some(HOUR_MS)),
            ("* * * * * *", 1, Some(1_000)),
            (" */2 * * * * * ", 2_000, Some(4_000)),
            ("", 0, None),
        ] {
            assert_eq!(schedule(text).next_after(now_ms), want, "{text} after {now_ms}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_what_would_be_right() {
        for wrong in ["5m", "* * * *", "61 * * * *", "* * * * * * * *", "x * * * *", "0 0 30 2 *", "0 0 1 1 * 1999"] {
            let refused = wrong.parse::<Schedule>().map(|it| it.to_string());
            assert!(refused.is_err(), "{wrong}");
        }
        let refused = "5m".parse::<Schedule>().expect_err("it is none").to_string();
        assert!(refused.contains("`5m`") && refused.contains("*/5 * * * *"), "{refused}");
        assert_eq!("*".repeat(101).parse::<Schedule>(), Err(ScheduleError::TooLong));
    }

    proptest! {
        #[test]
        fn a_time_is_put_off_within_bounds_and_none_is_passed_over(
            now_ms in 0..4_000_000_000_000_u64, put_off_s in 0..1_000_u64, share in 0.0..=1.0_f64,
        ) {
            for text in ["* * * * * *", "*/5 * * * *", "0 */6 * * *"] {
                let schedule = schedule(text);
                let at_ms = schedule.next_after(now_ms).expect("it comes");
                let planned = schedule.next_spread(now_ms, Duration::from_secs(put_off_s), share).expect("it comes");
                prop_assert!(planned >= at_ms && planned <= at_ms + put_off_s * 1_000, "{} {}", at_ms, planned);
                let following = schedule.next_after(at_ms);
                prop_assert_eq!(schedule.next_after(planned), following, "none is passed over");
            }
        }
    }
}
