//! Subscriptions with programs: refused where they do not compile, and tried before they run.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::running;

const DRY_RUN: &str = "/api/v1/subscriptions/dry_run";

#[tokio::test]
async fn what_does_not_compile_is_not_stored() {
    let run = running().await;
    run.configure().await;
    let body = json!({
        "integration_id": 1, "destination_id": 1, "name": "b",
        "selection": {"filter": "body.a =="}, "headers": {"x-a": "{{event.nam}}", "webhook-id": "x"},
    });
    let refused = run.post("/api/v1/subscriptions", body).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text);
    assert_eq!(refused.body["errors"][0]["pointer"], "/selection/filter");
    assert!(refused.body["errors"][0]["detail"].as_str().is_some_and(|text| text.starts_with("line 1, column 10")));
    assert_eq!(refused.body["errors"][1]["pointer"], "/headers/webhook-id");

    let refused = run.put("/api/v1/subscriptions/1", json!({"order": {"mode": "fifo_by_key", "key": "x"}})).await;
    assert_eq!(
        (refused.status, &refused.body["errors"][0]["pointer"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("/order/key"))
    );

    let shop = json!({
        "name": "s", "type": "CRM", "environment": "staging",
        "destination": {"settings": {"url": "https://ledger.example"}},
        "subscription": {"selection": {"filter": "bodi.a"}},
    });
    let refused = run.post("/api/v1/integrations", shop).await;
    assert_eq!(refused.body["errors"][0]["pointer"], "/subscription/selection/filter");

    let set = run.put("/api/v1/subscriptions/1", json!({"selection": {"filter": "has(body.a)"}})).await;
    assert_eq!((set.status, &set.body["selection"]["filter"]), (StatusCode::OK, &json!("has(body.a)")));
}

#[tokio::test]
async fn samples_are_tried_and_nothing_is_stored() {
    let run = running().await;
    run.configure().await;
    let request = json!({
        "integration_id": 1,
        "selection": {"types": ["order.*"], "filter": "body.total > 10 && headers['x-shop'] == 'a'"},
        "order": {"mode": "fifo_by_key", "key": "body.customer"},
        "headers": {"x-type": "{{event.type}}"},
        "samples": [
            {"type": "order.paid", "headers": {"X-Shop": "a"}, "body": {"total": 11, "customer": "c1"}},
            {"type": "refund.made", "body": {}},
            {"type": "order.paid", "headers": {"x-shop": "a"}, "body": {"total": 1}},
            {"type": "order.paid", "headers": {"x-shop": "a"}, "body_text": "no JSON"},
        ],
    });
    let tried = run.post(DRY_RUN, request).await;
    assert_eq!(tried.status, StatusCode::OK, "{}", tried.text);
    let items = tried.body["items"].as_array().expect("a list");
    let outcomes: Vec<(bool, Option<&str>)> =
        items.iter().map(|item| (item["selected"] == true, item["because"].as_str())).collect();
    assert_eq!(outcomes, [(true, None), (false, Some("type")), (false, Some("filter")), (false, Some("fault"))]);
    assert_eq!(items[0]["key"], "c1");
    assert_eq!(items[0]["rendered"]["headers"], json!([{"name": "x-type", "value": "order.paid"}]));
    assert_eq!(items[0]["rendered"]["body"], r#"{"customer":"c1","total":11}"#);
    assert!(items[3]["detail"].as_str().is_some_and(|text| text.contains("body != null")), "{}", items[3]);
    assert_eq!(run.get("/api/v1/subscriptions").await.body["total"], 1);
    assert!(run.log.committed.lock().expect("nobody panicked").is_empty());
}

#[tokio::test]
async fn a_subscription_is_tried_on_stored_events_with_changes() {
    let run = running().await;
    run.configure().await;
    let tried = run.post(DRY_RUN, json!({"subscription_id": 1, "transform": {"kind": "cloudevents"}})).await;
    assert_eq!(tried.status, StatusCode::OK, "{}", tried.text);
    let items = tried.body["items"].as_array().expect("a list");
    assert!(!items.is_empty());
    assert_eq!(items.iter().filter(|item| item["because"] == "corrupt").count(), 1, "one record is damaged");
    for item in items.iter().filter(|item| item["because"].is_null()) {
        let headers = item["rendered"]["headers"].as_array().expect("a list");
        assert!(headers.iter().any(|header| header["name"] == "ce-id" && header["value"] == item["event_id"]));
    }
    let id = items[0]["event_id"].clone();
    let one = run.post(DRY_RUN, json!({"subscription_id": 1, "event_ids": [id]})).await;
    assert_eq!((&one.body["items"][0]["selected"], one.body["items"][0].get("rendered")), (&json!(true), None));
}

#[tokio::test]
async fn a_dry_run_says_what_is_wrong_with_it() {
    let run = running().await;
    run.configure().await;
    for (body, pointer) in [
        (json!({}), "/integration_id"),
        (json!({"integration_id": 9}), "/integration_id"),
        (json!({"integration_id": 2, "subscription_id": 1}), "/integration_id"),
        (json!({"subscription_id": 1, "event_ids": ["x"]}), "/event_ids"),
        (json!({"subscription_id": 1, "event_ids": vec!["x"; 21]}), "/event_ids"),
        (json!({"subscription_id": 1, "event_ids": [], "samples": []}), "/samples"),
        (json!({"subscription_id": 1, "samples": [{"bdy": 1}]}), "/samples"),
        (json!({"subscription_id": 1, "selection": {"filter": "x"}}), "/selection/filter"),
        (json!({"subscription_id": 1, "rate": {"per_second": 1}}), "/rate"),
    ] {
        let refused = run.post(DRY_RUN, body.clone()).await;
        let pointers: Vec<&Value> =
            refused.body["errors"].as_array().into_iter().flatten().map(|it| &it["pointer"]).collect();
        assert_eq!((refused.status, pointers), (StatusCode::UNPROCESSABLE_ENTITY, vec![&json!(pointer)]), "{body}");
    }
    assert_eq!(run.post(DRY_RUN, json!({"subscription_id": 9})).await.status, StatusCode::NOT_FOUND);
}
