//! Flows in the document.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{DestinationFlow, IntegrationFlow};
use crate::admin::openapi::Doc;

/// What a destination's gate holds.
pub(in crate::admin) fn destination() -> Value {
    json!({
        "destination_id": 1,
        "breaker": {"state": "open", "opened_ms_ago": 1_200, "reopens_in_ms": 28_800, "consecutive_failures": 5,
            "error_rate": 1.0},
        "concurrency": {"limit": 8, "in_use": 0, "adaptive": false},
        "retries_saved": 0.4,
        "waiting": 1,
    })
}

/// What an integration's backlog is.
pub(in crate::admin) fn backlog() -> Value {
    json!({"integration_id": 1, "integration": "Card payments", "backlog_bytes": 1_048_576, "backlog_full": false})
}

/// What a subscription holds.
pub(in crate::admin) fn subscription() -> Value {
    json!({
        "subscription_id": 1,
        "window": 16,
        "in_flight": 0,
        "queued": 16,
        "open": 16,
        "held_bytes": 24_000,
        "parked": 0,
        "credit": 64,
        "waiting_for": "breaker",
    })
}

pub(in crate::admin) fn of_destination() -> Doc {
    Doc::new("get_destination_flow", "What a destination is asked to bear")
        .reply::<DestinationFlow>(StatusCode::OK, destination())
}

pub(in crate::admin) fn of_integration() -> Doc {
    let mut flow = backlog();
    flow["subscriptions_total"] = 1.into();
    flow["subscriptions"] = json!([subscription()]);
    Doc::new("get_integration_flow", "An integration's backlog, and what its subscriptions do about it")
        .reply::<IntegrationFlow>(StatusCode::OK, flow)
}
