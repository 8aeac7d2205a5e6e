//! How many deliveries a bulk replay may make due, and when. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Made due in one step, at most: each is looked up, and all are one commit.
pub(super) const BATCH_MAX: u32 = 256;
/// Steps a second that are aimed at: small enough to be smooth, large enough to share a commit.
const STEPS_PER_S: u32 = 10;

/// A steady rate in batches. Never more than its rate over any time, plus two batches.
#[derive(Debug)]
pub(super) struct Pace {
    batch: u32,
    each: Duration,
    ready: Instant,
}

impl Pace {
    pub(super) fn new(rate_per_s: u32, now: Instant) -> Self {
        let rate = rate_per_s.max(1);
        Self { batch: (rate / STEPS_PER_S).clamp(1, BATCH_MAX), each: Duration::from_secs(1) / rate, ready: now }
    }

    /// When the next batch may go.
    pub(super) fn ready(&self) -> Instant {
        self.ready
    }

    /// How many may go once it is ready.
    pub(super) fn batch(&self) -> usize {
        self.batch as usize
    }

    /// So many went. A step that came late is caught up, by one batch at most: what a pause or a lack of room cost is
    /// not made good by a burst.
    pub(super) fn went(&mut self, now: Instant, count: usize) {
        let earliest = now.checked_sub(self.each * self.batch).unwrap_or(now);
        self.ready = self.ready.max(earliest) + self.each * u32::try_from(count).unwrap_or(u32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keeps_its_rate_when_steps_take_time() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000, start);
        let (mut now, mut count) = (start, 0);
        while now < start + Duration::from_secs(10) {
            if now >= pace.ready() {
                count += pace.batch();
                // The commit takes half of the time there is.
                pace.went(now, pace.batch());
                now += Duration::from_millis(50);
            } else {
                now = pace.ready();
            }
        }
        assert!((9_900..=10_200).contains(&count), "{count} in ten seconds");
    }

    proptest! {
        #[test]
        fn never_passes_its_rate(rate in 1u32..5_000, steps in proptest::collection::vec((0u64..3_000, 0u32..=256), 1..200)) {
            let start = Instant::now();
            let mut pace = Pace::new(rate, start);
            let mut now = start;
            let mut went: Vec<(Instant, u64)> = Vec::new();
            for (wait_ms, count) in steps {
                now += Duration::from_millis(wait_ms);
                if now < pace.ready() {
                    continue;
                }
                let count = (count as usize).min(pace.batch());
                pace.went(now, count);
                went.push((now, count as u64));
                for (from, (since, _)) in went.iter().enumerate() {
                    let total: u64 = went[from..].iter().map(|(_, count)| count).sum();
                    let bound = now.duration_since(*since).as_secs_f64() * f64::from(rate) + 2.0 * f64::from(pace.batch) + 1.0;
                    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
                    let total = total as f64;
                    prop_assert!(total <= bound, "{} of {}", total, bound);
                }
            }
        }
    }
}
