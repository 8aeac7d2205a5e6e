//! What was configured comes back: versions, rollbacks and deletions, with real keys on a real disk.

use std::sync::atomic::{AtomicU32, Ordering};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Hookmill, SECRET, Sink, files_with, hex_hmac};

const BODY: &str = r#"{"id":"evt_1"}"#;

/// How a webhook is answered that nobody sent before.
async fn accepts(hookmill: &Hookmill, path: &str, secret: &str) -> StatusCode {
    static SENT: AtomicU32 = AtomicU32::new(1);
    let body = format!(r#"{{"id":"new_{}"}}"#, SENT.fetch_add(1, Ordering::Relaxed));
    let signature = hex_hmac(secret.as_bytes(), body.as_bytes());
    hookmill.post(path, &[("x-signature", &signature)], body).await.status
}

async fn done(hookmill: &Hookmill, method: Method, path: &str, body: Option<Value>) -> Value {
    let reply = hookmill.admin(method, path, body).await;
    assert!(reply.status.is_success(), "{path}: {:?}", reply.body);
    if reply.body.is_empty() { Value::Null } else { reply.json() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_brings_the_secrets_of_its_version_back() {
    let sink = Sink::start().await;
    let hookmill = Hookmill::start();
    let integration = hookmill.integration("generic_hmac", "orders").await;
    hookmill.deliver_to(integration, &sink, json!({"schedule_s": [0]})).await;
    assert_eq!(accepts(&hookmill, "orders", SECRET).await, StatusCode::OK);
    let versions = format!("/integrations/{integration}/versions");
    let number = hookmill.get(&versions).await["items"][0]["version"].as_u64().unwrap();

    let given = json!({"secret": "planted-second-secret", "grace_s": 0});
    done(&hookmill, Method::POST, "/webhooks/1/rotate-secret", Some(given)).await;
    done(&hookmill, Method::DELETE, "/subscriptions/1", None).await;
    assert_eq!(accepts(&hookmill, "orders", SECRET).await, StatusCode::UNAUTHORIZED);
    let diff = hookmill.get(&format!("{versions}/{}/diff", number + 1)).await.to_string();
    assert!(diff.contains("/webhooks/1/secrets") && !diff.contains("planted"), "{diff}");

    let hookmill = hookmill.kill().start();
    let back = done(&hookmill, Method::POST, &format!("{versions}/{number}/rollback"), None).await;
    assert_eq!(back["comment"], format!("rollback to {number}"));
    assert_eq!(accepts(&hookmill, "orders", SECRET).await, StatusCode::OK);
    assert_eq!(accepts(&hookmill, "orders", "planted-second-secret").await, StatusCode::UNAUTHORIZED);
    sink.until("the deliveries before and after", |received| received.len() >= 2).await;
    let hookmill = hookmill.terminate().start();
    let listed = hookmill.get(&versions).await;
    assert_eq!(listed["items"][0]["version"], back["version"]);
    assert_eq!(accepts(&hookmill, "orders", SECRET).await, StatusCode::OK);
    assert_eq!(files_with(&hookmill.data_dir(), "planted"), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_integration_comes_back_after_a_crash_and_its_events_stay() {
    let hookmill = Hookmill::start();
    let integration = hookmill.integration("generic_hmac", "orders").await;
    let event = hookmill.post_signed("orders", BODY).await;
    done(&hookmill, Method::DELETE, &format!("/integrations/{integration}"), None).await;
    assert_eq!(accepts(&hookmill, "orders", SECRET).await, StatusCode::NOT_FOUND);
    let hookmill = hookmill.kill().start();
    assert_eq!(accepts(&hookmill, "orders", SECRET).await, StatusCode::NOT_FOUND);
    let events = hookmill.get(&format!("/events?integration_id={integration}")).await;
    assert_eq!(events["items"][0]["id"], event.as_str());
    let other = json!({"name": "b", "type": "custom", "environment": "development", "webhook": {"path": "orders"}});
    let taken = hookmill.admin(Method::POST, "/integrations", Some(other.clone())).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    done(&hookmill, Method::POST, &format!("/integrations/{integration}/restore"), None).await;
    assert_eq!(accepts(&hookmill, "orders", SECRET).await, StatusCode::OK);

    done(&hookmill, Method::DELETE, &format!("/integrations/{integration}?purge=true"), None).await;
    let hookmill = hookmill.terminate().start();
    let gone = hookmill.admin(Method::GET, &format!("/integrations/{integration}/versions"), None).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    let events = hookmill.get(&format!("/events?integration_id={integration}")).await;
    assert_eq!(events["items"].as_array().map(Vec::len), Some(2));
    hookmill.create("/integrations", other).await;
}
