//! Requests that are sent twice, as a client meets it.

use axum::http::{StatusCode, header};
use serde_json::json;

use super::running;

#[tokio::test]
async fn what_is_posted_twice_with_a_key_is_made_once() {
    let run = running().await;
    run.configure().await;
    let key = [("idempotency-key", "5f0c21aa-1")];
    let hook = json!({"integration_id": 1, "name": "once"});
    let first = run.send_with("POST", "/api/v1/webhooks", hook.clone(), &key).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);
    let again = run.send_with("POST", "/api/v1/webhooks", hook, &key).await;
    assert_eq!((again.status, &again.text), (StatusCode::CREATED, &first.text), "with the secret that is shown once");
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.headers[header::LOCATION], first.headers[header::LOCATION]);
    assert_ne!(again.headers["x-request-id"], first.headers["x-request-id"]);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    assert_eq!(run.get("/api/v1/webhooks").await.body["total"], 2);

    let other = json!({"integration_id": 1, "name": "another"});
    let reused = run.send_with("POST", "/api/v1/webhooks", other, &key).await;
    assert_eq!(reused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(reused.body["code"], "idempotency_key_reused");
    let rotated =
        run.send_with("POST", "/api/v1/webhooks/2/rotate-secret", json!({}), &[("idempotency-key", "r")]).await;
    let again = run.send_with("POST", "/api/v1/webhooks/2/rotate-secret", json!({}), &[("idempotency-key", "r")]).await;
    assert_eq!(rotated.text, again.text);
    assert_eq!(run.get("/api/v1/webhooks/2").await.body["secrets"].as_array().map(Vec::len), Some(2));
}
