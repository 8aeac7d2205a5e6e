//! Lists, and changes that say what they are based on, as a client meets them.

use axum::http::{StatusCode, header};
use serde_json::{Value, json};

use super::{Running, running};

impl Running {
    /// The names that a list shows.
    async fn names(&self, path: &str) -> Vec<String> {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let items = answer.body["items"].as_array().expect("a list");
        items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect()
    }
}

#[tokio::test]
async fn lists_are_filtered_and_gone_through_by_cursor() {
    let run = running().await;
    run.configure().await;
    for (name, kind, environment, description) in [
        ("Mail", "email", "staging", "Newsletters"),
        ("Texts", "sms", "production", "for SHOP orders"),
        ("Cards", "payment_gateway", "staging", ""),
    ] {
        let mut body = json!({"name": name, "type": kind, "environment": environment});
        if !description.is_empty() {
            body["description"] = description.into();
        }
        assert_eq!(run.post("/api/v1/integrations", body).await.status, StatusCode::CREATED);
    }
    for (query, want) in [
        ("", vec!["shop", "Mail", "Texts", "Cards"]),
        ("?type=payment_gateway", vec!["shop", "Cards"]),
        ("?environment=staging&type=email", vec!["Mail"]),
        ("?q=shop", vec!["shop", "Texts"]),
        ("?q=SHOP&environment=production", vec!["shop", "Texts"]),
        ("?status=inactive", vec![]),
        ("?skip=1&limit=2", vec!["Mail", "Texts"]),
    ] {
        assert_eq!(run.names(&format!("/api/v1/integrations{query}")).await, want, "{query}");
    }
    let first = run.get("/api/v1/integrations?limit=3&q=s").await.body;
    assert_eq!((&first["total"], first["items"].as_array().map(Vec::len)), (&json!(4), Some(3)));
    let cursor = first["next_cursor"].as_str().expect("there is more");
    // What is made later comes later, and what was shown may go.
    assert_eq!(run.send("DELETE", "/api/v1/integrations/2", Value::Null, None).await.status, StatusCode::NO_CONTENT);
    let late = json!({"name": "Late", "type": "crm", "environment": "staging", "description": "s"});
    run.post("/api/v1/integrations", late).await;
    let rest = run.get(&format!("/api/v1/integrations?limit=3&q=s&cursor={cursor}")).await.body;
    assert_eq!((&rest["items"][0]["name"], &rest["items"][1]["name"]), (&json!("Cards"), &json!("Late")));
    assert_eq!((&rest["next_cursor"], &rest["total"]), (&json!(null), &json!(null)));

    for (path, wants) in [
        ("/api/v1/webhooks?is_active=true&integration_id=1&q=ord", 1),
        ("/api/v1/webhooks?is_active=false", 0),
        ("/api/v1/subscriptions?active=true&q=ALL&destination_id=1", 1),
        ("/api/v1/destinations?type=http&status=active&q=led", 1),
        ("/api/v1/destinations?type=other", 0),
    ] {
        assert_eq!(run.names(path).await.len(), wants, "{path}");
    }
    for wrong in
        ["integrations?limit=1001", "webhooks?cursor=x", "integrations?skip=1&cursor=aQAAAAE", "webhooks?type=x"]
    {
        let refused = run.get(&format!("/api/v1/{wrong}")).await;
        assert_eq!(
            (refused.status, &refused.body["code"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_request")),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn a_merge_patch_changes_what_it_names_and_keeps_the_rest() {
    let run = running().await;
    run.configure().await;
    let patch = async |path: &str, body: Value| {
        let answer = run.send_with("PATCH", path, body, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer.body
    };
    run.put("/api/v1/integrations/1", json!({"configuration": {"a": 1, "b": {"c": 2}}})).await;
    let merged = patch("/api/v1/integrations/1", json!({"configuration": {"a": null, "b": {"d": 3}}})).await;
    assert_eq!((&merged["configuration"], &merged["name"]), (&json!({"b": {"c": 2, "d": 3}}), &json!("shop")));
    let headers = json!({"settings": {"url": "https://x.example", "headers": {"authorization": "planted"}}});
    run.put("/api/v1/destinations/1", headers).await;
    let merged = patch("/api/v1/destinations/1", json!({"settings": {"url": "https://y.example"}})).await;
    assert_eq!(merged["settings"], json!({"url": "https://y.example", "headers": {"authorization": "***"}}));
    patch("/api/v1/destinations/1", json!({"limits": {"rate": {"per_second": 5, "burst": 9}}})).await;
    let merged = patch("/api/v1/destinations/1", json!({"limits": {"rate": {"burst": null}}})).await;
    assert_eq!(merged["limits"]["rate"], json!({"per_second": 5, "burst": null}));
    run.put("/api/v1/subscriptions/1", json!({"headers": {"x-a": "1", "x-b": "2"}})).await;
    let merged = patch("/api/v1/subscriptions/1", json!({"headers": {"x-a": null}, "active": false})).await;
    assert_eq!((&merged["headers"], &merged["active"]), (&json!({"x-b": "2"}), &json!(false)));
    let merged = patch("/api/v1/webhooks/1", json!({"verification": {"tolerance_s": 60}, "description": "d"})).await;
    assert_eq!((&merged["verification"], &merged["path"]), (&json!({"tolerance_s": 60}), &json!("/shop")));

    let refused = run.send_with("PATCH", "/api/v1/webhooks/1", json!({"verification": {"x": 1}}), &[]).await;
    assert_eq!(
        (refused.status, &refused.body["errors"][0]["pointer"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("/verification/x"))
    );
    let stale = run.send_with("PATCH", "/api/v1/webhooks/1", json!({"name": "n"}), &[("if-match", "\"1\"")]).await;
    assert_eq!((stale.status, &stale.body["code"]), (StatusCode::PRECONDITION_FAILED, &json!("version_conflict")));
}

#[tokio::test]
async fn rotations_and_deletions_say_what_they_are_based_on() {
    let run = running().await;
    run.configure().await;
    for path in ["/api/v1/webhooks/1/rotate-secret", "/api/v1/destinations/1/rotate-secret"] {
        let read = run.get(path.trim_end_matches("/rotate-secret")).await;
        let tag = read.headers[header::ETAG].to_str().expect("it is text").to_owned();
        let fresh = run.send("POST", path, json!({}), Some(&tag)).await;
        assert_eq!(fresh.status, StatusCode::OK, "{}", fresh.text);
        let stale = run.send("POST", path, json!({}), Some(&tag)).await;
        assert_eq!((stale.status, &stale.body["code"]), (StatusCode::PRECONDITION_FAILED, &json!("version_conflict")));
        assert!(!stale.text.contains("secret\":"), "{}", stale.text);
    }
    for path in ["/api/v1/subscriptions/1", "/api/v1/webhooks/1", "/api/v1/destinations/1", "/api/v1/integrations/1"] {
        let stale = run.send("DELETE", path, Value::Null, Some("\"999\"")).await;
        assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED, "{path}");
        let tag = run.get(path).await.headers[header::ETAG].to_str().expect("it is text").to_owned();
        assert_eq!(run.send("DELETE", path, Value::Null, Some(&tag)).await.status, StatusCode::NO_CONTENT, "{path}");
    }
}
