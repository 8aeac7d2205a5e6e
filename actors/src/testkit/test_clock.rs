//! A wall clock that follows tokio's, so that paused time holds for both.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;

use crate::ports::clock::Clock;

/// Wall time that passes as tokio's does; can be set as an operator might.
#[derive(Debug)]
pub struct TestClock {
    start: Instant,
    start_ms: u64,
    offset_ms: AtomicI64,
}

impl Default for TestClock {
    fn default() -> Self {
        Self { start: Instant::now(), start_ms: 1_760_000_000_000, offset_ms: AtomicI64::new(0) }
    }
}

impl TestClock {
    /// Sets the clock ahead, or back when negative.
    pub fn jump(&self, by_ms: i64) {
        self.offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        let elapsed_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        (self.start_ms + elapsed_ms).saturating_add_signed(self.offset_ms.load(Ordering::Relaxed))
    }
}
