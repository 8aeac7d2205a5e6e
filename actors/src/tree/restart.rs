//! How many restarts are too many. Pure: ractor counts none.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// So many restarts within so long, then the supervisor gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartLimit {
    /// Restarts within the window, at most.
    pub restarts_max: usize,
    /// The window.
    pub window: Duration,
}

impl Default for RestartLimit {
    fn default() -> Self {
        Self { restarts_max: 5, window: Duration::from_secs(10) }
    }
}

/// What a supervisor does after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterCrash {
    /// Start it again after this wait.
    Restart(Duration),
    /// It keeps crashing.
    GiveUp,
}

/// The crashes of one child.
#[derive(Debug)]
pub(crate) struct RestartBudget {
    limit: RestartLimit,
    crashes: VecDeque<Instant>,
}

/// The first wait; it doubles with each crash in the window.
const WAIT_MIN: Duration = Duration::from_millis(50);
/// Waits longer than this would hide the child from its budget's window.
const WAIT_MAX: Duration = Duration::from_secs(1);

impl RestartBudget {
    pub(crate) fn new(limit: RestartLimit) -> Self {
        Self { limit, crashes: VecDeque::new() }
    }

    /// Notes a crash and decides.
    pub(crate) fn crashed(&mut self, now: Instant) -> AfterCrash {
        while self.crashes.front().is_some_and(|at| now.duration_since(*at) > self.limit.window) {
            self.crashes.pop_front();
        }
        if self.crashes.len() >= self.limit.restarts_max {
            return AfterCrash::GiveUp;
        }
        let doublings = u32::try_from(self.crashes.len().min(16)).unwrap_or(16);
        self.crashes.push_back(now);
        AfterCrash::Restart((WAIT_MIN * 2u32.pow(doublings)).min(WAIT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gives_up_only_within_the_window() {
        let start = Instant::now();
        let mut budget = RestartBudget::new(RestartLimit { restarts_max: 2, window: Duration::from_secs(10) });
        assert_eq!(budget.crashed(start), AfterCrash::Restart(Duration::from_millis(50)));
        assert_eq!(budget.crashed(start + Duration::from_secs(1)), AfterCrash::Restart(Duration::from_millis(100)));
        assert_eq!(budget.crashed(start + Duration::from_secs(2)), AfterCrash::GiveUp);
        assert_eq!(budget.crashed(start + Duration::from_secs(60)), AfterCrash::Restart(Duration::from_millis(50)));
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_in_a_window(steps in proptest::collection::vec(0u64..5_000, 1..200)) {
            let limit = RestartLimit::default();
            let mut budget = RestartBudget::new(limit);
            let mut now = Instant::now();
            let mut restarts: Vec<Instant> = Vec::new();
            for step in steps {
                now += Duration::from_millis(step);
                if matches!(budget.crashed(now), AfterCrash::Restart(_)) {
                    restarts.push(now);
                }
                let recent = restarts.iter().filter(|at| now.duration_since(**at) <= limit.window).count();
                prop_assert!(recent <= limit.restarts_max);
            }
        }
    }
}
