//! Reports of attempts, put together: what the operator reads in the delivery's attempts.

use std::time::Duration;

use hookmill_actors::ports::transport::{AttemptReport, Timings, Verdict};

/// Bytes of an error that are kept: twelve attempts make one stored record, which must stay small.
const ERROR_BYTES_MAX: usize = 200;

/// Failed; may succeed later.
pub(super) const RETRY: Verdict = Verdict::Retry { after: None };

/// A success without a status.
pub(super) fn delivered(timings: Timings) -> AttemptReport {
    AttemptReport { verdict: Verdict::Delivered, status: None, error: None, reply: None, timings }
}

/// A failure without a status, in words that hold no secret.
pub(super) fn failed(verdict: Verdict, mut words: String, timings: Timings) -> AttemptReport {
    words.truncate(words.floor_char_boundary(ERROR_BYTES_MAX));
    AttemptReport { verdict, status: None, error: Some(words), reply: None, timings }
}

/// The failure of an attempt whose total time ran out.
pub(super) fn timed_out(limit: Duration, timings: Timings) -> AttemptReport {
    failed(RETRY, format!("no answer within {} ms", limit.as_millis()), timings)
}

/// A peer's own words, cut and without control characters: they are shown in terminals.
pub(super) fn peers_words(words: &str) -> String {
    words.chars().filter(|char| !char.is_control()).take(120).collect()
}
