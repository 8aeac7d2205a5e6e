//! The status of an integration in the document.

use axum::http::StatusCode;
use serde_json::json;

use super::Status;
use crate::admin::{integrations::doc::connection_test, openapi::Doc};

pub(in crate::admin) fn of_integration() -> Doc {
    Doc::new("get_integration_status", "How an integration is now").reply::<Status>(
        StatusCode::OK,
        json!({
            "integration_id": 1,
            "integration_name": "Card payments",
            "integration_type": "payment_gateway",
            "integration_status": "active",
            "integration_environment": "production",
            "status": "active",
            "service_type": "payment_gateway",
            "provider": crate::providers::DEFAULT,
            "connectivity": "healthy",
            "health_status": "healthy",
            "is_connected": true,
            "last_checked": "2026-01-31T08:00:00Z",
            "last_health_check": "2026-01-31T08:00:00Z",
            "last_connection_test": "2026-01-31T08:00:00Z",
            "details": {"status": 200, "duration_ms": 84},
            "error_details": null,
            "states": {"operator": "active", "deliveries": "running", "connection": "active"},
            "connection_test": connection_test(),
            "failures": 0,
            "next_connection_test": "2026-01-31T14:00:00Z",
            "endpoints": {"total": 1, "active": 1},
            "events": {
                "in_flight": 0,
                "queued": 0,
                "open": 0,
                "parked": 0,
                "dead_letters": 1,
                "dead_letters_more": false,
            },
            "backlog": {"bytes": 0, "full": false},
            "destinations_total": 1,
            "destinations": [{
                "destination_id": 1,
                "name": "Billing",
                "status": "active",
                "breaker": {"state": "closed", "consecutive_failures": 0, "error_rate": 0.0},
            }],
        }),
    )
}
