//! Health and metrics in the document.

use axum::http::StatusCode;
use hookmill_actors::metrics::Report;
use serde_json::{Value, json};

use super::{Health, Metrics};
use crate::admin::{flow, openapi::Doc};

pub(in crate::admin) fn alive() -> Doc {
    Doc::new("get_health", "Whether the process answers").reply::<Health>(StatusCode::OK, json!({"status": "alive"}))
}

pub(in crate::admin) fn ready() -> Doc {
    Doc::new("get_readiness", "Whether webhooks can be taken now, or why not")
        .reply::<Health>(StatusCode::OK, json!({"status": "ready"}))
        .reply::<Health>(
            StatusCode::SERVICE_UNAVAILABLE,
            json!({"status": "not_ready", "reasons": ["the disk is full"]}),
        )
}

pub(in crate::admin) fn report() -> Doc {
    let mut metrics = serde_json::to_value(Report::default()).expect("it has text keys only");
    let more = json!({
        "due": 2,
        "dead_letters": 1,
        "configuration_version": 7,
        "destinations_total": 1,
        "destinations": [flow::doc::destination()],
        "integrations_total": 1,
        "integrations": [flow::doc::backlog()],
        "subscriptions_total": 1,
        "subscriptions": [flow::doc::subscription()],
        "mailboxes": [{"role": "router", "actors": 1, "waiting_max": 0, "fullest": 0, "highest": 3, "bound": 64, "passed": 17}],
        "connection_tests": [{"type": "payment_gateway", "status": "passed", "count": 3}],
        "integration_management": {
            "integrations_by_status": {"active": 2},
            "integrations_by_type": {"payment_gateway": 2},
            "total_webhooks": 2,
            "active_webhooks": 2,
            "total_webhook_events": 1_500,
            "processed_webhook_events": 1_498,
            "pending_webhook_events": 2,
            "webhook_events_last_24h": 90,
        },
        "faults": [{"subject": "subscription 4", "problem": "the filter does not compile"}],
    });
    if let (Value::Object(metrics), Value::Object(more)) = (&mut metrics, more) {
        metrics.extend(more);
    }
    Doc::new("get_metrics", "Counts and gauges").reply::<Metrics>(StatusCode::OK, metrics)
}
