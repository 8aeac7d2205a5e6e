//! `Retry-After` (RFC 9110, section 10.2.3): how long a destination asks us to wait. Pure.

use std::time::Duration;

use hookmill_actors::domain::backoff::WAIT_MAX_S;
use jiff::{
    Timestamp,
    fmt::{rfc2822, strtime},
    tz::TimeZone,
};

/// Longer than any of the three date forms; what is longer is nonsense and not parsed.
const VALUE_BYTES_MAX: usize = 64;

/// Peers compute the weekday themselves, and it adds nothing to the date.
const IMF_FIXDATE: rfc2822::DateTimeParser = rfc2822::DateTimeParser::new().relaxed_weekday(true);
/// The obsolete date forms that RFC 9110, section 5.6.7, has every recipient accept; always in GMT.
const OBSOLETE_DATES: [&str; 2] = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// The wait from `now_ms` (milliseconds since 1970), at most [`WAIT_MAX_S`]; zero for a time that has passed.
/// `None` when the value is neither seconds nor a date.
pub(super) fn parse(value: &[u8], now_ms: u64) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= VALUE_BYTES_MAX)?.trim_ascii();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only a number too large for 64 bits fails here.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let at_ms = u64::try_from(date_ms(text)?).unwrap_or(0);
        Duration::from_millis(at_ms.saturating_sub(now_ms))
    };
    Some(wait.min(Duration::from_secs(WAIT_MAX_S)))
}

fn date_ms(text: &str) -> Option<i64> {
    if let Ok(timestamp) = IMF_FIXDATE.parse_timestamp(text) {
        return Some(timestamp.as_millisecond());
    }
    let date = OBSOLETE_DATES.iter().find_map(|form| strtime::parse(form, text).ok()?.to_datetime().ok())?;
    TimeZone::UTC.to_timestamp(date).ok().map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW_MS: u64 = 784_111_777_000;

    #[test]
    fn takes_seconds_and_all_three_date_forms() {
        let secs = |value: &str| parse(value.as_bytes(), NOW_MS).map(|wait| wait.as_secs());
        assert_eq!(secs("120"), Some(120));
        assert_eq!(secs(" 0 "), Some(0));
        assert_eq!(secs("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(secs("Sunday, 06-Nov-94 08:50:07 GMT"), Some(30));
        assert_eq!(secs("Sun Nov  6 08:50:07 1994"), Some(30));
        assert_eq!(secs("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0), "a time that has passed");
        assert_eq!(secs("99999999999999999999999"), Some(WAIT_MAX_S));
        assert_eq!(secs("Thu, 31 Dec 2099 23:59:59 GMT"), Some(WAIT_MAX_S));
    }

    #[test]
    fn ignores_nonsense() {
        for value in ["", " ", "-1", "1.5", "soon", "12 s", "+5", "Sun, 99 Nov 1994 08:49:37 GMT", "1e3"] {
            assert_eq!(parse(value.as_bytes(), NOW_MS), None, "{value}");
        }
        assert_eq!(parse(&[0xff; 4], NOW_MS), None);
        assert_eq!(parse(&[b'1'; 65], NOW_MS), None);
    }

    proptest! {
        #[test]
        fn never_panics_and_never_exceeds_the_bound(value in proptest::collection::vec(any::<u8>(), 0..80), now in any::<u64>()) {
            prop_assert!(parse(&value, now).is_none_or(|wait| wait.as_secs() <= WAIT_MAX_S));
        }
    }
}
