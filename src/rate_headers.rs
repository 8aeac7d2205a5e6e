//! `X-RateLimit-Limit`, `-Remaining` and `-Reset`, as the original's documentation promises them: the last one in Unix
//! seconds. The admin API tells them of a token, the ingress of an endpoint that has a limit.

use std::time::Duration;

use hookmill_actors::allowance::{Spent, Taken};
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Tells what is left. `now_ms` is the wall clock, milliseconds since 1970.
pub(crate) fn of_taken(headers: &mut HeaderMap, taken: Taken, now_ms: u64) {
    put(headers, taken.limit, taken.remaining, taken.full_in, now_ms);
}

/// Tells that nothing is left; when to come back is `Retry-After`'s part.
pub(crate) fn of_spent(headers: &mut HeaderMap, spent: Spent, now_ms: u64) {
    put(headers, spent.limit, 0, spent.full_in, now_ms);
}

/// Whole seconds that are long enough.
pub(crate) fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

fn put(headers: &mut HeaderMap, limit: u32, remaining: u32, full_in: Duration, now_ms: u64) {
    let full_at_ms = now_ms.saturating_add(u64::try_from(full_in.as_millis()).unwrap_or(u64::MAX));
    headers.insert(LIMIT, HeaderValue::from(limit));
    headers.insert(REMAINING, HeaderValue::from(remaining));
    headers.insert(RESET, HeaderValue::from(full_at_ms.div_ceil(1_000)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_never_told_too_short() {
        for (wait_ms, told) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2)] {
            assert_eq!(seconds(Duration::from_millis(wait_ms)), told);
        }
        let mut headers = HeaderMap::new();
        of_taken(&mut headers, Taken { limit: 9, remaining: 8, full_in: Duration::from_millis(501) }, 1_500);
        for (name, told) in [(LIMIT, "9"), (REMAINING, "8"), (RESET, "3")] {
            assert_eq!(headers[&name], told, "{name}");
        }
    }
}
