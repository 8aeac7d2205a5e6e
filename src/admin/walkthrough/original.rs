//! The original's callers, who changed a host name and nothing else.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Running, running};

const INTEGRATIONS: &str = "/integration-management/integrations/";
const WEBHOOKS: &str = "/integration-management/webhooks/";

fn payment() -> Value {
    json!({
        "name": "Payments", "type": "payment_gateway", "environment": "production", "description": null,
        "configuration": {"base_url": "https://status-200.example"},
        "credentials": {"api_key": "planted-key"},
    })
}

/// Looks again until it holds.
async fn until(run: &Running, path: &str, holds: impl Fn(&Value) -> bool) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = run.get(path).await;
        if holds(&answer.body) {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {}", answer.text);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn has(body: &Value, names: &[&str]) {
    let members = body.as_object().expect("an object");
    let missing: Vec<_> = names.iter().filter(|name| !members.contains_key(**name)).collect();
    assert!(missing.is_empty(), "{missing:?} of {body}");
}

const INTEGRATION: [&str; 12] = [
    "id",
    "name",
    "type",
    "description",
    "environment",
    "status",
    "configuration",
    "last_health_check",
    "health_status",
    "last_connection_test",
    "created_at",
    "updated_at",
];
const WEBHOOK: [&str; 12] = [
    "id",
    "integration_id",
    "name",
    "description",
    "path",
    "is_active",
    "active",
    "verify_signature",
    "signature_header",
    "created_at",
    "updated_at",
    "version",
];

#[tokio::test]
async fn integrations_are_served_under_the_original_s_paths() {
    let run = running().await;
    let made = run.post(INTEGRATIONS, payment()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    has(&made.body, &INTEGRATION);
    assert_eq!((&made.body["id"], &made.body["status"]), (&json!(1), &json!("pending")));
    assert!(made.body.get("credentials").is_none() && !made.text.contains("planted"), "{}", made.text);

    let one = until(&run, "/integration-management/integrations/1", |body| body["status"] == "active").await;
    has(&one.body, &INTEGRATION);
    assert_eq!((&one.body["health_status"], &one.body["connection_test"]["status"]), (&json!("healthy"), &json!(200)));
    assert!(one.body["last_connection_test"].is_string() && one.body["last_health_check"].is_string());

    let listed = run.get(&format!("{INTEGRATIONS}?type=PAYMENT_GATEWAY&status=ACTIVE&environment=Production")).await;
    let page = (&listed.body["total"], &listed.body["skip"], &listed.body["limit"]);
    assert_eq!(page, (&json!(1), &json!(0), &json!(100)));
    assert!(listed.body["items"][0].get("credentials").is_none());
    assert_eq!(run.get(&format!("{INTEGRATIONS}?status=failed")).await.body["total"], 0);

    // What was read is sent back with a change in it.
    let mut sent = one.body.clone();
    sent["name"] = json!("Shop");
    sent["credentials"] = Value::Null;
    let changed = run.put("/integration-management/integrations/1/", sent).await;
    assert_eq!((changed.status, &changed.body["name"]), (StatusCode::OK, &json!("Shop")), "{}", changed.text);
    let kept = run.get("/api/v1/integrations/1").await;
    assert!(kept.body["credentials"]["fingerprint"].is_string(), "`null` is no change: {}", kept.text);

    let tested = run.post("/integration-management/integrations/1/test", Value::Null).await;
    assert_eq!((tested.status, &tested.body["success"]), (StatusCode::OK, &json!(true)), "{}", tested.text);
    assert_eq!(tested.body["message"], "it answered 200 OK");

    let gone = run.send("DELETE", "/integration-management/integrations/1", Value::Null, None).await;
    assert_eq!((gone.status, gone.text.as_str()), (StatusCode::NO_CONTENT, ""));
    for (method, path) in [("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/test"), ("GET", "/status")] {
        let body = if method == "PUT" { json!({}) } else { Value::Null };
        let missing = run.send(method, &format!("/integration-management/integrations/1{path}"), body, None).await;
        let heard = (missing.status, &missing.body["detail"]);
        assert_eq!(heard, (StatusCode::NOT_FOUND, &json!("Integration not found")), "{method} {path}");
    }
}

#[tokio::test]
async fn webhooks_are_served_under_the_original_s_paths() {
    let run = running().await;
    run.post(INTEGRATIONS, payment()).await;
    let code = json!({"integration_id": 1, "name": "a", "path": "/a", "is_active": true, "secret_key": "whsec_planted-a",
                      "description": null});
    let doc = json!({"integration_id": 1, "name": "b", "path": "b", "active": false, "secret": "whsec_planted-b",
                     "verify_signature": true, "signature_header": "X-Sig"});
    for body in [code, doc] {
        let made = run.post(WEBHOOKS, body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        has(&made.body, &WEBHOOK);
        assert!(!made.text.contains("planted"), "a given secret is never shown: {}", made.text);
    }
    let generated = run.post(WEBHOOKS, json!({"integration_id": 1, "name": "c", "secret": null, "path": null})).await;
    assert!(generated.body["secret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")), "{}", generated.text);

    let all = run.get(WEBHOOKS).await;
    assert_eq!(all.body.as_array().map(Vec::len), Some(3), "a bare array: {}", all.text);
    for (query, count) in [("active=True", 2), ("active=false", 1), ("integration_id=1", 3), ("integration_id=2", 0)] {
        let some = run.get(&format!("{WEBHOOKS}?{query}")).await;
        assert_eq!(some.body.as_array().map(Vec::len), Some(count), "{query}: {}", some.text);
    }

    let mut sent = run.get("/integration-management/webhooks/2").await.body;
    assert_eq!((&sent["path"], &sent["is_active"], &sent["active"]), (&json!("/b"), &json!(false), &json!(false)));
    sent["is_active"] = json!(true);
    sent["active"] = json!(true);
    sent["secret_key"] = Value::Null;
    let changed = run.put("/integration-management/webhooks/2", sent).await;
    assert_eq!((changed.status, &changed.body["active"]), (StatusCode::OK, &json!(true)), "{}", changed.text);

    let rotated = run.post("/integration-management/webhooks/1/rotate-secret", Value::Null).await;
    assert!(rotated.body["secret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")), "{}", rotated.text);
    assert_eq!(rotated.body["secrets"].as_array().map(Vec::len), Some(1), "the former one ends at once");
    let graced = run.post("/integration-management/webhooks/1/rotate-secret", json!({"grace_s": 60})).await;
    assert_eq!(graced.body["secrets"].as_array().map(Vec::len), Some(2));

    let taken = run.post(WEBHOOKS, json!({"integration_id": 1, "name": "d", "path": "a"})).await;
    assert_eq!((taken.status, &taken.body["code"]), (StatusCode::BAD_REQUEST, &json!("conflict")), "{}", taken.text);
    assert!(taken.body["detail"].is_string());
    assert_eq!(
        run.post("/api/v1/webhooks", json!({"integration_id": 1, "name": "d", "path": "a"})).await.status,
        StatusCode::CONFLICT
    );

    let gone = run.send("DELETE", "/integration-management/webhooks/1/", Value::Null, None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let missing = run.get("/integration-management/webhooks/1").await;
    assert_eq!(
        (missing.status, &missing.body["detail"]),
        (StatusCode::NOT_FOUND, &json!("Webhook endpoint not found"))
    );
    assert_eq!(missing.body["code"], "not_found");
}

#[tokio::test]
async fn the_status_has_the_members_of_both_of_the_original_s_shapes_and_a_live_view() {
    let run = running().await;
    run.configure().await;
    let path = "/integration-management/integrations/1/status";
    let status = until(&run, path, |body| body["connection_test"].is_object()).await;
    assert_eq!(status.text, run.get("/api/v1/integrations/1/status").await.text);
    has(
        &status.body,
        &[
            "service_type",
            "provider",
            "is_connected",
            "last_checked",
            "details",
            "integration_id",
            "integration_name",
            "integration_type",
            "integration_status",
            "integration_environment",
            "last_connection_test",
            "last_health_check",
            "health_status",
            "connectivity",
            "error_details",
            "status",
        ],
    );
    // Nothing to test is no health.
    assert_eq!((&status.body["status"], &status.body["connectivity"]), (&json!("active"), &json!("unknown")));
    assert_eq!(status.body["is_connected"], Value::Null);
    assert_eq!(status.body["states"], json!({"operator": "active", "deliveries": "running", "connection": "active"}));
    assert_eq!((&status.body["endpoints"]["active"], &status.body["events"]["dead_letters"]), (&json!(1), &json!(1)));
    assert_eq!(status.body["destinations"][0]["breaker"]["state"], "closed");

    run.put(
        "/api/v1/integrations/1",
        json!({"configuration": {"base_url": "https://refused.example"},
                                            "credentials": {"api_key": "planted"}}),
    )
    .await;
    let failing = until(&run, path, |body| body["connectivity"] == "degraded").await;
    assert_eq!(
        (&failing.body["error_details"], &failing.body["is_connected"]),
        (&json!("connection refused"), &json!(false))
    );
    assert_eq!(failing.body["status"], "active", "one failure is damped");
    let metrics = run.get("/api/v1/metrics").await;
    let counts = metrics.body["connection_tests"].as_array().expect("a list");
    assert!(counts.iter().any(|count| count["type"] == "payment_gateway" && count["status"] == "failed"), "{counts:?}");
}

#[tokio::test]
async fn a_change_that_waits_for_its_test_takes_force_when_it_passes() {
    let run = running().await;
    run.post("/api/v1/integrations", payment()).await;
    let with = |host: &str| json!({"configuration": {"base_url": host}, "activate": "after_test"});
    let path = "/api/v1/integrations/1";
    until(&run, path, |body| body["status"] == "active").await;

    let held = run.put(path, with("https://status-503.example")).await;
    assert_eq!(held.status, StatusCode::ACCEPTED, "{}", held.text);
    assert_eq!(held.body["configuration"]["base_url"], "https://status-200.example", "the old one is in force");
    let failed = until(&run, path, |body| body["pending_version"]["state"] == "failed").await;
    assert_eq!(failed.body["pending_version"]["reason"], "it answered 503 Service Unavailable");
    assert_eq!(failed.body["configuration"]["base_url"], "https://status-200.example");
    assert_eq!(failed.body["version"], 1, "nothing was changed");

    assert_eq!(run.put(path, with("https://status-200.example/v2")).await.status, StatusCode::ACCEPTED);
    let passed = until(&run, path, |body| body["version"] == 2).await;
    assert_eq!(passed.body["configuration"]["base_url"], "https://status-200.example/v2");
    assert!(passed.body["pending_version"].is_null());

    // The next change cancels what waits or has failed.
    run.put(path, with("https://refused.example")).await;
    until(&run, path, |body| body["pending_version"]["state"] == "failed").await;
    let other = run.put(path, json!({"name": "Shop"})).await;
    assert!(other.body["pending_version"].is_null(), "{}", other.text);

    let mut made = payment();
    made["activate"] = json!("AFTER_TEST");
    let made = run.post("/api/v1/integrations", made).await;
    assert_eq!((made.status, &made.body["status"]), (StatusCode::CREATED, &json!("inactive")), "{}", made.text);
    until(&run, "/api/v1/integrations/2", |body| body["status"] == "active").await;
    let activities = run.get("/api/v1/activities?limit=1000").await.text;
    for action in ["integration.activated", "integration.activation_failed", "integration.tested"] {
        assert!(activities.contains(action), "{action}");
    }
    assert!(!activities.contains("planted"));
}
