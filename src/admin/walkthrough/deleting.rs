//! Deleting, bringing back, and deleting for good, as a client meets them.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Running, running};

impl Running {
    async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, Value::Null, None).await
    }
}

#[tokio::test]
async fn what_is_deleted_may_come_back_and_keeps_its_path() {
    let run = running().await;
    run.configure().await;
    let before = run.get("/api/v1/webhooks/1").await.body;
    assert_eq!(run.delete("/api/v1/webhooks/1").await.status, StatusCode::NO_CONTENT);
    let missing = run.get("/api/v1/webhooks/1").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(
        missing.text.contains("is deleted; `POST .../restore` brings it back until 2026-01-01T01:00:00Z"),
        "{}",
        missing.text
    );
    assert_eq!(run.put("/api/v1/webhooks/1", json!({"name": "n"})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(run.get("/api/v1/webhooks").await.body["total"], 0);
    let deleted = run.get("/api/v1/webhooks?deleted=true&integration_id=1").await.body;
    let item = &deleted["items"][0];
    assert_eq!((&item["path"], &item["deleted_at"]), (&json!("/shop"), &json!("2026-01-01T00:00:00Z")));
    assert_eq!(item["restorable_until"], "2026-01-01T01:00:00Z");
    assert_eq!(run.get("/api/v1/webhooks?deleted=true&integration_id=2").await.body["items"], json!([]));

    let hook = json!({"integration_id": 1, "name": "b", "path": "shop"});
    let reserved = run.post("/api/v1/webhooks", hook.clone()).await;
    assert_eq!((reserved.status, &reserved.body["errors"][0]["pointer"]), (StatusCode::CONFLICT, &json!("/path")));
    assert!(reserved.text.contains("DELETE /api/v1/webhooks/1?purge=true"), "{}", reserved.text);
    let back = run.post("/api/v1/webhooks/1/restore", Value::Null).await;
    assert_eq!(back.status, StatusCode::OK, "{}", back.text);
    for member in ["path", "secrets", "created_at", "name"] {
        assert_eq!(back.body[member], before[member], "{member}");
    }
    assert_eq!(
        run.post("/api/v1/webhooks/1/restore", Value::Null).await.status,
        StatusCode::CONFLICT,
        "it is not deleted"
    );
    assert_eq!(run.post("/api/v1/webhooks/9/restore", Value::Null).await.status, StatusCode::NOT_FOUND);

    assert_eq!(run.delete("/api/v1/webhooks/1").await.status, StatusCode::NO_CONTENT);
    assert_eq!(run.delete("/api/v1/webhooks/1").await.status, StatusCode::NOT_FOUND);
    assert_eq!(run.delete("/api/v1/webhooks/1?purge=true").await.status, StatusCode::NO_CONTENT);
    assert_eq!(run.delete("/api/v1/webhooks/1?purge=true").await.status, StatusCode::NOT_FOUND);
    assert_eq!(run.post("/api/v1/webhooks/1/restore", Value::Null).await.status, StatusCode::NOT_FOUND);
    assert_eq!(run.post("/api/v1/webhooks", hook).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn an_integration_comes_back_with_all_that_it_had() {
    let run = running().await;
    run.configure().await;
    run.put("/api/v1/integrations/1", json!({"credentials": {"key": "planted"}})).await;
    assert_eq!(run.delete("/api/v1/integrations/1").await.status, StatusCode::NO_CONTENT);
    assert_eq!(run.get("/api/v1/integrations?deleted=true").await.body["items"][0]["name"], "shop");
    let alone = run.post("/api/v1/webhooks/1/restore", Value::Null).await;
    assert_eq!(alone.status, StatusCode::CONFLICT);
    assert!(alone.text.contains("integrations/1/restore"), "{}", alone.text);
    let elsewhere = json!({"name": "b", "type": "custom", "environment": "staging", "webhook": {"path": "shop"}});
    assert_eq!(run.post("/api/v1/integrations", elsewhere.clone()).await.status, StatusCode::CONFLICT);

    let back = run.post("/api/v1/integrations/1/restore", Value::Null).await;
    assert_eq!(back.status, StatusCode::OK, "{}", back.text);
    assert!(back.body["credentials"]["fingerprint"].is_string());
    for path in ["webhooks/1", "subscriptions/1", "destinations/1"] {
        assert_eq!(run.get(&format!("/api/v1/{path}")).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(run.get("/api/v1/integrations?deleted=true").await.body["items"], json!([]));
    let versions = run.get("/api/v1/integrations/1/versions").await.body;
    assert_eq!(
        (&versions["items"][0]["comment"], &versions["items"][1]["changes"][2]["change"]),
        (&json!("restored"), &json!("deleted"))
    );

    let stale = run.send("DELETE", "/api/v1/integrations/1?purge=true", Value::Null, Some("\"1\"")).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(run.delete("/api/v1/integrations/1?purge=true").await.status, StatusCode::NO_CONTENT);
    for path in ["integrations/1/versions", "integrations/1", "webhooks/1", "subscriptions/1"] {
        assert_eq!(run.get(&format!("/api/v1/{path}")).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let left = format!("{:?}", run.config.changes());
    assert!(!left.contains("credentials: Some(\"Credentials"), "the history went with it: {left}");
    assert_eq!(run.post("/api/v1/integrations", elsewhere).await.status, StatusCode::CREATED);
    assert_eq!(run.post("/api/v1/integrations/1/restore", Value::Null).await.status, StatusCode::NOT_FOUND);
}
