//! Where an integration stands by its connection tests, and when it is tested next. Pure: `now` comes in, a new standing
//! goes out.

use std::time::Duration;

pub use hookmill_actors::domain::connection_test::{Outcome, Test};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the tests say of an integration. It never keeps a webhook from being accepted or delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ConnectionHealth)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Nobody has looked yet.
    #[default]
    Pending,
    /// It passes, or has not failed often enough in a row.
    Active,
    /// It fails.
    Failed,
}

/// When tests are made, and what they lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// Between two tests of an integration that passes; zero: only when it changes.
    pub every: Duration,
    /// So many failures in a row make an active integration `failed`.
    pub failures_max: u32,
    /// After a first failure; each further one doubles it.
    pub probe_after: Duration,
    /// Up to this.
    pub probe_every_max: Duration,
}

impl Default for Cadence {
    fn default() -> Self {
        Self {
            every: Duration::from_hours(6),
            failures_max: 3,
            probe_after: Duration::from_secs(30),
            probe_every_max: Duration::from_hours(1),
        }
    }
}

/// Where an integration stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What is tested: tells configurations and credentials apart without showing them.
    pub subject: String,
    /// What the tests say.
    pub health: Health,
    /// Failures in a row.
    pub failures: u32,
    /// The last one.
    pub last: Option<Test>,
    /// When the next one is made, milliseconds since 1970; `None`: when something changes.
    pub next_at_ms: Option<u64>,
}

/// Tests are spread by a tenth either way, so that what was made together is not tested together for ever.
const SPREAD: f64 = 0.1;

impl Standing {
    /// Something else is to be tested from now on: soon, and with a clean sheet.
    pub(super) fn changed(&mut self, subject: String, now_ms: u64) {
        self.subject = subject;
        self.failures = 0;
        self.next_at_ms = Some(now_ms);
    }

    /// An operator says that it works: believed until a test says otherwise.
    pub(super) fn set_active(&mut self, now_ms: u64) {
        self.health = Health::Active;
        self.failures = 0;
        self.next_at_ms = Some(now_ms);
    }

    /// Whether a test is due. A clock that was set back does not put tests off for long.
    pub(super) fn is_due(&self, now_ms: u64, cadence: &Cadence) -> bool {
        let far = millis(cadence.every.max(cadence.probe_every_max)).saturating_mul(2);
        self.next_at_ms.is_some_and(|next| next <= now_ms || next - now_ms > far)
    }

    /// Takes a test in; whether its outcome is another than before. `spread` is a random share, 0 to 1.
    pub(super) fn tested(&mut self, test: Test, cadence: &Cadence, spread: f64) -> bool {
        let before = (self.health, self.last.as_ref().map(|last| last.outcome));
        let wait = if test.outcome == Outcome::Failed {
            self.failures = self.failures.saturating_add(1);
            // What was never well is not damped: its creator waits to hear.
            let fails = self.health != Health::Active || self.failures >= cadence.failures_max;
            self.health = if fails { Health::Failed } else { Health::Active };
            Some(cadence.probe_wait(self.failures))
        } else {
            self.failures = 0;
            self.health = Health::Active;
            (!cadence.every.is_zero()).then_some(cadence.every)
        };
        self.next_at_ms = wait.map(|wait| test.at_ms.saturating_add(millis(spread_out(wait, spread))));
        self.last = Some(test);
        before != (self.health, self.last.as_ref().map(|last| last.outcome))
    }
}

impl Cadence {
    fn probe_wait(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.probe_after.saturating_mul(1 << doublings).min(self.probe_every_max)
    }
}

fn spread_out(wait: Duration, spread: f64) -> Duration {
    wait.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * spread.clamp(0.0, 1.0))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn test(at_ms: u64, outcome: Outcome) -> Test {
        Test { at_ms, outcome, reason: String::new(), status: None, duration_ms: 1 }
    }

    fn after(outcomes: &[Outcome]) -> Standing {
        let mut standing = Standing::default();
        for outcome in outcomes {
            standing.tested(test(1_000, *outcome), &Cadence::default(), 0.5);
        }
        standing
    }

    use Outcome::{Failed, NothingToTest, Passed};

    #[test]
    fn the_first_test_decides_and_a_live_one_is_damped() {
        assert_eq!(after(&[]).health, Health::Pending);
        assert_eq!(after(&[Passed]).health, Health::Active);
        assert_eq!(after(&[NothingToTest]).health, Health::Active);
        assert_eq!(after(&[Failed]).health, Health::Failed);
        assert_eq!(after(&[Passed, Failed, Failed]).health, Health::Active);
        assert_eq!(after(&[Passed, Failed, Failed, Failed]).health, Health::Failed);
        assert_eq!(after(&[Passed, Failed, Failed, Passed, Failed, Failed]).health, Health::Active);
        assert_eq!(after(&[Failed, Failed, Passed]).health, Health::Active, "it comes back by itself");
    }

    #[test]
    fn what_fails_is_probed_at_a_growing_interval() {
        let mut standing = Standing::default();
        let mut waits = Vec::new();
        for _ in 0..9 {
            standing.tested(test(1_000, Failed), &Cadence::default(), 0.5);
            waits.push((standing.next_at_ms.expect("it is probed") - 1_000) / 1_000);
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
        standing.tested(test(1_000, Passed), &Cadence::default(), 0.5);
        assert_eq!(standing.next_at_ms, Some(1_000 + 6 * 3_600_000));
        let never = Cadence { every: Duration::ZERO, ..Cadence::default() };
        standing.tested(test(1_000, Passed), &never, 0.5);
        assert_eq!(standing.next_at_ms, None);
    }

    #[test]
    fn a_change_of_outcome_is_told_and_its_repetition_is_not() {
        let mut standing = Standing::default();
        let mut told = |outcome| standing.tested(test(1, outcome), &Cadence::default(), 0.5);
        assert_eq!([told(Passed), told(Passed), told(Failed), told(Failed)], [true, false, true, false]);
        assert_eq!([told(Failed), told(Failed), told(Passed)], [true, false, true], "the third one makes it failed");
    }

    #[test]
    fn a_clock_that_was_set_back_puts_no_test_off() {
        let mut standing = after(&[Passed]);
        assert!(!standing.is_due(2_000, &Cadence::default()));
        standing.next_at_ms = Some(90 * 24 * 3_600_000);
        assert!(standing.is_due(1_000, &Cadence::default()));
        standing.changed("x".to_owned(), 5_000);
        assert!(standing.is_due(5_000, &Cadence::default()) && standing.health == Health::Active);
    }

    proptest! {
        #[test]
        fn a_test_is_spread_but_near_its_time(failures in 0..100u32, spread in 0.0..=1.0f64) {
            let mut standing = Standing { failures, ..Standing::default() };
            standing.tested(test(0, Failed), &Cadence::default(), spread);
            let wait = Cadence::default().probe_wait(failures + 1).as_secs_f64() * 1_000.0;
            #[expect(clippy::cast_precision_loss, reason = "hours in milliseconds")]
            let next = standing.next_at_ms.expect("it is probed") as f64;
            prop_assert!(next >= wait * 0.899 && next <= wait * 1.101, "{next} {wait}");
        }
    }
}
