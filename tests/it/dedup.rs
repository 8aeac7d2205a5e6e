//! What a provider sends again is stored and answered, and not delivered again.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Hookmill, Sink, status, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn a_resend_is_accepted_and_delivered_once_over_a_kill_too() {
    let (hookmill, sink) = (Hookmill::start(), Sink::start().await);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    hookmill.deliver_to(integration, &sink, json!({})).await;
    let first = hookmill.post_signed("orders", r#"{"id":"evt_1","attempt":1}"#).await;
    sink.until("the first", |got| got.len() == 1).await;
    // The id is part of the signed body, so that the rest of it may differ.
    let resent = hookmill.post_signed("orders", r#"{"id":"evt_1","attempt":2}"#).await;
    assert_ne!(resent, first, "it is an event of its own");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let hookmill = hookmill.kill().start();
    hookmill.post_signed("orders", r#"{"id":"evt_1","attempt":3}"#).await;
    let other = hookmill.post_signed("orders", r#"{"id":"evt_2","attempt":1}"#).await;
    let got = sink.until("the other one", |got| got.iter().any(|got| got.id() == other)).await;
    assert!(got.iter().all(|got| got.id() == first || got.id() == other), "{got:?}");

    let endpoint = hookmill.get("/webhooks").await["items"][0].clone();
    assert_eq!(endpoint["dedup_window_s"], json!(null));
    let path = format!("/webhooks/{}", endpoint["id"]);
    let reply = hookmill.admin(Method::PUT, &path, Some(json!({"dedup_window_s": 0}))).await;
    assert_eq!((reply.status, &reply.json()["dedup_window_s"]), (StatusCode::OK, &json!(0)));
    let unasked = hookmill.post_signed("orders", r#"{"id":"evt_2","attempt":2}"#).await;
    sink.until("what is no duplicate any more", |got| got.iter().any(|got| got.id() == unasked)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resend_of_a_dead_letter_is_delivered() {
    let (hookmill, sink) = (Hookmill::start(), Sink::start().await);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    hookmill.deliver_to(integration, &sink, json!({"schedule_s": []})).await;
    sink.answers(|_, _| status(500));
    hookmill.post_signed("orders", r#"{"id":"evt_1"}"#).await;
    wait_for("the dead letter", async || hookmill.dead_letters().await.pop()).await;
    sink.answers(|_, _| status(200));
    let resent = hookmill.post_signed("orders", r#"{"id":"evt_1"}"#).await;
    sink.until("the resend", |got| got.iter().any(|got| got.id() == resent)).await;
}
