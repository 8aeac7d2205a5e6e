//! Whether the wall clock can be trusted to remove things by age.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A clock further than this from where it should be has jumped.
const JUMP_MS: u64 = 5 * 60 * 1_000;
/// A clock that jumped is believed again after it was steady for so long.
const STEADY: Duration = Duration::from_secs(3600);

/// Compares the wall clock with monotonic time. A machine whose clock is set a year ahead by mistake must not lose
/// a year of dead letters.
#[derive(Debug)]
pub(crate) struct ClockWatch {
    at: Instant,
    wall_ms: u64,
    jumped: Option<Instant>,
}

impl ClockWatch {
    pub(crate) fn new(now: Instant, wall_ms: u64) -> Self {
        Self { at: now, wall_ms, jumped: None }
    }

    /// Looks at both clocks. False since a jump until an hour has passed without another.
    pub(crate) fn trusts(&mut self, now: Instant, wall_ms: u64) -> bool {
        let elapsed_ms = u64::try_from(now.duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        let expected_ms = self.wall_ms.saturating_add(elapsed_ms);
        if expected_ms.abs_diff(wall_ms) > JUMP_MS {
            self.jumped = Some(now);
        }
        (self.at, self.wall_ms) = (now, wall_ms);
        if self.jumped.is_some_and(|at| now.duration_since(at) >= STEADY) {
            self.jumped = None;
        }
        self.jumped.is_none()
    }
}

/// One watch for everybody: a jump that one part sees, all see. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClockTrust(Arc<Mutex<Option<ClockWatch>>>);

impl ClockTrust {
    /// Looks at both clocks. False since a jump until an hour has passed without another.
    pub(crate) fn holds(&self, wall_ms: u64) -> bool {
        let now = Instant::now();
        let mut watch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watch.get_or_insert_with(|| ClockWatch::new(now, wall_ms)).trusts(now, wall_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_distrusted_for_an_hour() {
        let start = Instant::now();
        let mut watch = ClockWatch::new(start, 1_000_000);
        assert!(watch.trusts(start + Duration::from_secs(60), 1_060_000));
        let year_ms = 365 * 24 * 3_600_000;
        assert!(!watch.trusts(start + Duration::from_secs(120), 1_120_000 + year_ms));
        assert!(!watch.trusts(start + Duration::from_secs(1_800), 2_800_000 + year_ms));
        assert!(watch.trusts(start + Duration::from_secs(3_720), 4_720_000 + year_ms));
    }

    #[test]
    fn drift_below_the_bound_is_no_jump() {
        let start = Instant::now();
        let mut watch = ClockWatch::new(start, 1_000_000);
        assert!(watch.trusts(start + Duration::from_secs(60), 1_000_000));
        assert!(watch.trusts(start + Duration::from_secs(120), 1_300_000));
    }
}
