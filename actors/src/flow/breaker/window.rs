//! Attempts and failures of the last while, in slices: one falls out as one is begun. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// The window moves by this part of itself.
const SLICES: usize = 10;
const SLICES_U32: u32 = 10;
/// A slice counts no further: the sum of all must fit.
const ATTEMPTS_MAX: u32 = u32::MAX / 16;

/// Attempts and failures of the last while, in slices.
#[derive(Debug)]
pub(super) struct Window {
    slice: Duration,
    slices: [(u32, u32); SLICES],
    /// The slice that is being filled, and when it began.
    at: usize,
    began: Instant,
    totals: (u32, u32),
}

impl Window {
    pub(super) fn new(length: Duration, now: Instant) -> Self {
        let slice = (length / SLICES_U32).max(Duration::from_millis(1));
        Self { slice, slices: [(0, 0); SLICES], at: 0, began: now, totals: (0, 0) }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, now: Instant) {
        *self = Self { slices: [(0, 0); SLICES], at: 0, began: now, totals: (0, 0), ..*self };
    }

    /// An attempt ended.
    pub(super) fn note(&mut self, failed: bool, now: Instant) {
        self.advance(now);
        let (attempts, failures) = &mut self.slices[self.at];
        if *attempts == ATTEMPTS_MAX {
            return;
        }
        *attempts += 1;
        *failures += u32::from(failed);
        self.totals.0 += 1;
        self.totals.1 += u32::from(failed);
    }

    /// Attempts and failures in it.
    pub(super) fn totals(&mut self, now: Instant) -> (u32, u32) {
        self.advance(now);
        self.totals
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        if passed < self.slice {
            return;
        }
        let steps = passed.as_nanos() / self.slice.as_nanos();
        if steps >= SLICES as u128 {
            self.clear(now);
            return;
        }
        for _ in 0..steps {
            self.at = (self.at + 1) % SLICES;
            let (attempts, failures) = std::mem::take(&mut self.slices[self.at]);
            self.totals.0 -= attempts;
            self.totals.1 -= failures;
            self.began += self.slice;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_window_falls_out_and_the_rest_stays() {
        let begin = Instant::now();
        let mut window = Window::new(Duration::from_secs(10), begin);
        for second in 0..20 {
            window.note(second % 2 == 0, begin + Duration::from_secs(second));
        }
        assert_eq!(window.totals(begin + Duration::from_secs(19)), (10, 5));
        assert_eq!(window.totals(begin + Duration::from_secs(24)), (5, 2));
        assert_eq!(window.totals(begin + Duration::from_secs(60)), (0, 0));
        window.note(true, begin + Duration::from_secs(60));
        assert_eq!(window.totals(begin + Duration::from_secs(61)), (1, 1));
    }
}
