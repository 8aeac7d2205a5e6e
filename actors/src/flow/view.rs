//! What a destination's gate looks like from outside.

use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::flow::breaker::State;

/// A destination's gate at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Gate)]
pub struct GateView {
    /// Whether it is left alone.
    pub breaker: BreakerView,
    /// Attempts under way.
    pub concurrency: ConcurrencyView,
    /// Retries that first attempts have paid for and nobody has made yet; the floor comes on top.
    pub retries_saved: f64,
    /// Subscriptions that wait for their turn.
    pub waiting: usize,
}

/// A circuit breaker at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Breaker)]
pub struct BreakerView {
    /// Its state.
    pub state: BreakerState,
    /// Since when it was not closed, milliseconds ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened_ms_ago: Option<u64>,
    /// When it lets probes through, milliseconds from now; only while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reopens_in_ms: Option<u64>,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// The share of the attempts of its window that failed, 0 to 1.
    pub error_rate: f64,
}

/// What a circuit breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Every attempt.
    Closed,
    /// None.
    Open,
    /// A few probes.
    HalfOpen,
}

/// Attempts under way at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ConcurrencyInUse)]
pub struct ConcurrencyView {
    /// How many may be under way at once; `null`: only the subscriptions' windows say.
    pub limit: Option<usize>,
    /// How many are.
    pub in_use: usize,
    /// Whether the limit is learned.
    pub adaptive: bool,
}

impl BreakerView {
    pub(super) fn new(state: State, consecutive_failures: u32, error_rate: f64, now: Instant) -> Self {
        let (state, since, until) = match state {
            State::Closed => (BreakerState::Closed, None, None),
            // Half open as soon as somebody asks.
            State::Open { since, until } if until <= now => (BreakerState::HalfOpen, Some(since), None),
            State::Open { since, until } => (BreakerState::Open, Some(since), Some(until)),
            State::HalfOpen { since, .. } => (BreakerState::HalfOpen, Some(since), None),
        };
        Self {
            state,
            opened_ms_ago: since.map(|since| millis(since, now)),
            reopens_in_ms: until.map(|until| millis(now, until)),
            consecutive_failures,
            error_rate,
        }
    }
}

fn millis(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
}
