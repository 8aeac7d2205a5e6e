//! Tasks as operators meet them: by the API and by typing, over a restart.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::{Hookmill, Sink, status, wait_for},
    operating::User,
};

const ROUND: &str = "integration_management.test_all_active_integrations";
const SWEEP: &str = "integration_management.process_pending_webhook_events";

async fn ended(server: &Hookmill, url: &str) -> Value {
    let path = url.strip_prefix("/api/v1").unwrap();
    wait_for("the end of a run", async || {
        let run = server.get(path).await;
        (run["status"] != "running").then_some(run)
    })
    .await
}

async fn run(server: &Hookmill, task: &str, body: Value) -> Value {
    let begun = server.admin(Method::POST, &format!("/tasks/{task}/run"), Some(body)).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{:?}", begun.body);
    let url = begun.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(begun.json()["url"], url.as_str());
    let run = ended(server, &url).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    run
}

/// An integration of which `url` says whether it is well.
async fn watched(server: &Hookmill, name: &str, url: &str) -> u64 {
    let body = json!({"name": name, "type": "custom", "provider": "generic_hmac", "environment": "development",
        "configuration": {"health_check_url": url, "auth_type": "none"}});
    server.create("/integrations", body).await["id"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_run_when_asked_and_what_they_found_survives_a_restart() {
    let server = Hookmill::start();
    let third = Sink::start().await;
    let well = watched(&server, "well", &format!("http://{}/health", third.address)).await;
    let ill = watched(&server, "ill", "http://127.0.0.1:1/health").await;
    let none = server.integration("generic_hmac", "shop").await;

    let listed = server.get("/tasks").await;
    assert_eq!(listed["total"], 10);
    let task = server.get(&format!("/tasks/{ROUND}")).await;
    assert_eq!((&task["schedule"], &task["name"]), (&json!("0 */6 * * *"), &json!(ROUND)));
    assert!(task["next_run_at"].is_string());

    let round = run(&server, ROUND, json!({})).await;
    let counts = ["total", "successful", "failed", "skipped"].map(|name| round["result"][name].as_u64());
    assert_eq!(counts, [Some(3), Some(1), Some(1), Some(1)], "{round}");
    let told: Vec<_> = round["result"]["details"].as_array().unwrap().iter().map(|it| &it["integration_id"]).collect();
    assert_eq!(told, [&json!(ill), &json!(none), &json!(well)]);
    let tested = server.get(&format!("/integrations/{well}/status")).await;
    assert!(!tested["last_connection_test"].is_null(), "{tested}");

    // What fails now waits for its next attempt.
    third.answers(|_, got| status(if got.headers.contains_key("webhook-id") { 503 } else { 200 }));
    server.deliver_to(none, &third, json!({"schedule_s": [600]})).await;
    let event = server.post_signed("shop", r#"{"id":"evt_1","type":"order.paid"}"#).await;
    let waits = wait_for("the event waits for its retry", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let swept = run(&server, SWEEP, json!({"limit": 10})).await;
        (swept["result"]["waiting"] == json!({"retry": 1})).then_some(swept)
    })
    .await;
    assert_eq!(waits["result"]["events"][0]["event_id"], event.as_str());
    assert_eq!(waits["arguments"]["limit"], 10);

    run(&server, "collect_integration_metrics", json!({})).await;
    let counted = &server.get("/metrics").await["integration_management"];
    let counts = ["total_webhooks", "total_webhook_events", "processed_webhook_events", "pending_webhook_events"];
    assert_eq!(counts.map(|name| counted[name].as_u64()), [Some(1), Some(1), Some(0), Some(1)], "{counted}");

    let server = server.terminate().start();
    let path = waits["url"].as_str().unwrap().strip_prefix("/api/v1").unwrap();
    assert_eq!(server.get(path).await, waits);
    let server = server.kill().start();
    assert_eq!(server.get(path).await, waits);
    assert_eq!(server.get(&format!("/tasks/{ROUND}/runs?status=succeeded")).await["items"][0], round);
    let told = server.get("/activities?action=task.run").await;
    assert!(told["items"].as_array().unwrap().iter().any(|it| it["subject"] == format!("task {ROUND}")), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_runs_by_itself_and_a_run_under_way_is_refused_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("hookmill.toml");
    let text = "[tasks]\nprocess_pending_webhook_events = \"* * * * * *\"\ntest_all_active_integrations = \"\"\n";
    std::fs::write(&settings, text).unwrap();
    let server = Hookmill::start_with(&["--dev", "--config", settings.to_str().unwrap()]);
    let runs = wait_for("three runs", async || {
        let runs = server.get(&format!("/tasks/{SWEEP}/runs")).await;
        (runs["total"].as_u64().unwrap() >= 3).then_some(runs)
    })
    .await;
    assert!(runs["items"][1]["author"].is_null(), "{runs}");
    let round = server.get(&format!("/tasks/{ROUND}")).await;
    assert_eq!((&round["schedule"], &round["next_run_at"]), (&Value::Null, &Value::Null));

    // Nothing answers there, so the test takes until its time-out.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    watched(&server, "silent", &format!("http://{}/", silent.local_addr().unwrap())).await;
    let begun = server.admin(Method::POST, &format!("/tasks/{ROUND}/run"), None).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{:?}", begun.body);
    let refused = server.admin(Method::POST, &format!("/tasks/{ROUND}/run"), None).await;
    assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::CONFLICT, &json!("task_under_way")));
    let server = server.kill().start();
    let path = format!("/tasks/{ROUND}/runs/{}", begun.json()["id"]);
    assert_eq!(server.get(&path).await["status"], "interrupted");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_shown_and_run_by_typing() {
    let server = Hookmill::start();
    let user = User::new();
    server.integration("generic_hmac", "shop").await;
    let listed = user.on(&server, &["tasks", "list"]);
    assert_eq!(listed.code, 0, "{}", listed.err);
    assert!(listed.out.starts_with("NAME") && listed.out.contains(ROUND), "{}", listed.out);
    let begun = user.on(&server, &["tasks", "run", "test_integration_connection", "--integration", "1", "--json"]);
    let begun = begun.json();
    ended(&server, begun["url"].as_str().unwrap()).await;
    let shown = user.on(&server, &["tasks", "show", "test_integration_connection", "--json"]).json();
    assert_eq!(shown["last_run"]["result"]["outcome"], "nothing_to_test", "{shown}");
    let runs = user.on(&server, &["tasks", "runs", "test_integration_connection", "--json"]).json();
    assert_eq!(runs["items"].as_array().map(Vec::len), Some(1), "{runs}");
    let missing = user.on(&server, &["tasks", "run", "process_webhook_event"]);
    assert_eq!(missing.code, 2, "{}", missing.err);
    let unknown = user.on(&server, &["tasks", "show", "process_webhook_events"]);
    assert!(unknown.code == 3 && unknown.err.contains("did you mean"), "{}", unknown.err);
}
