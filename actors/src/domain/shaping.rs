//! How much a destination is asked to bear: rates, concurrency, retries, and when to leave it alone.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// So many a second, evenly, with a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Attempts a second.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub per_second: u32,
    /// Attempts at once after a pause; `per_second` where it is not given.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub burst: Option<u32>,
}

/// The highest rate that can be asked for, attempts a second.
pub const RATE_MAX: u32 = 1_000_000;

/// Attempts under way at once, over all subscriptions of the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum Concurrency {
    /// Always so many.
    Fixed {
        /// Attempts.
        #[schema(minimum = 1, maximum = 10_000)]
        max: u16,
    },
    /// Learned from latency and from 429 and 503: grows while it helps, shrinks when it hurts.
    Adaptive {
        /// Never fewer.
        #[schema(minimum = 1, maximum = 10_000)]
        min: u16,
        /// Never more.
        #[schema(minimum = 1, maximum = 10_000)]
        max: u16,
    },
}

/// Retries as a share of all attempts, so that an outage is not made worse by what it left behind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryBudget {
    /// Retries for each first attempt.
    #[schema(minimum = 0.0, maximum = 10.0)]
    pub share: f64,
    /// Retries a second that are always allowed, so that they do not starve when traffic stops.
    #[schema(minimum = 0.0, maximum = 1_000_000.0)]
    pub floor_per_second: f64,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { share: 0.5, floor_per_second: 10.0 }
    }
}

/// When a destination is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerPolicy {
    /// `false`: attempts are made whatever happens.
    pub enabled: bool,
    /// It opens after so many failures in a row.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub consecutive_failures: u32,
    /// It opens when this share of the attempts of the last `window_s` failed.
    #[schema(minimum = 0.01, maximum = 1.0)]
    pub error_rate: f64,
    /// The share counts only from so many attempts on.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub attempts_min: u32,
    /// Attempts older than this are forgotten, seconds.
    #[schema(minimum = 1, maximum = 3_600)]
    pub window_s: u32,
    /// How long it stays open at first, seconds; doubled with each failed probe.
    #[schema(minimum = 1, maximum = 86_400)]
    pub open_s: u32,
    /// How long it stays open at most, seconds.
    #[schema(minimum = 1, maximum = 86_400)]
    pub open_max_s: u32,
    /// Attempts that must succeed while it is half open.
    #[schema(minimum = 1, maximum = 1_000)]
    pub probes: u32,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_failures: 20,
            error_rate: 0.5,
            attempts_min: 50,
            window_s: 30,
            open_s: 5,
            open_max_s: 60,
            probes: 3,
        }
    }
}

/// All of it for one destination, shared by its subscriptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DestinationLimits {
    /// Attempts a second; `None`: no limit.
    pub rate: Option<Rate>,
    /// Attempts at once; `None`: only the subscriptions' windows.
    pub concurrency: Option<Concurrency>,
    /// Retries.
    pub retry_budget: RetryBudget,
    /// When it is left alone.
    pub breaker: BreakerPolicy,
}
