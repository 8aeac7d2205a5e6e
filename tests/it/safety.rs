//! Secrets stay secret, destinations stay outside, loops end.

use hyper::{Method, Request, StatusCode};
use serde_json::json;

use crate::harness::{Hookmill, SECRET, Sink, TOKEN, files_with, hex_hmac};

#[tokio::test(flavor = "multi_thread")]
async fn planted_secrets_are_nowhere_in_replies_logs_or_files() {
    let (hookmill, sink) = (Hookmill::start(), Sink::start().await);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    let (destination, _) = hookmill.deliver_to(integration, &sink, json!({})).await;
    let signing = destination["signing_secret"].as_str().unwrap().to_owned();
    hookmill.post_signed("orders", "{}").await;
    hookmill.post("orders", &[("x-signature", "nonsense")], "{}").await;
    sink.until("a delivery", |got| !got.is_empty()).await;
    let planted = [SECRET, "sk_test_planted_credential", signing.as_str()];
    for path in ["/integrations", "/webhooks", "/destinations", "/subscriptions", "/events", "/activities", "/metrics"]
    {
        let reply = hookmill.get(path).await.to_string();
        assert!(planted.iter().all(|secret| !reply.contains(secret)), "{path}: {reply}");
    }
    let log = hookmill.log();
    let stopped = hookmill.terminate();
    for secret in planted {
        assert!(!log.contains(secret));
        assert_eq!(files_with(&stopped.data_dir(), secret), Vec::<std::path::PathBuf>::new());
    }
    let token_files = files_with(&stopped.data_dir(), TOKEN);
    assert!(token_files.iter().all(|path| path.ends_with("admin-token")), "{token_files:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn private_destinations_need_the_setting_and_own_addresses_are_never_allowed() {
    let strict = Hookmill::start_with(&[]);
    for url in ["http://127.0.0.1:9/", "http://10.0.0.1/", "http://169.254.169.254/latest/meta-data", "http://[::1]:9/"]
    {
        let body = json!({"name": "inside", "type": "http", "settings": {"url": url}});
        let reply = strict.admin(Method::POST, "/destinations", Some(body)).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{url}");
        assert!(reply.json().to_string().contains("egress.allow"), "{url}: {:?}", reply.body);
    }
    let dev = Hookmill::start();
    for address in [dev.ingress, dev.admin] {
        let body = json!({"name": "self", "type": "http", "settings": {"url": format!("http://{address}/")}});
        let reply = dev.admin(Method::POST, "/destinations", Some(body)).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{:?}", reply.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_over_hookmills_ends() {
    let hookmill = Hookmill::start();
    hookmill.integration("generic_hmac", "orders").await;
    let signature = hex_hmac(SECRET.as_bytes(), b"{}");
    let reply = hookmill.post("orders", &[("x-signature", &signature), ("hookmill-hops", "5")], "{}").await;
    assert_eq!(reply.status, StatusCode::LOOP_DETECTED);
    let reply = hookmill.post("orders", &[("x-signature", &signature), ("hookmill-hops", "4")], "{}").await;
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_wants_its_token_and_ready_says_so() {
    let hookmill = Hookmill::start();
    for token in [None, Some("Bearer hm_wrong"), Some("Basic eDp5")] {
        let mut request = Request::get(format!("http://{}/api/v1/integrations", hookmill.admin));
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let reply = hookmill.request(request.body("".into()).unwrap()).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
        assert_eq!(reply.headers["content-type"], "application/problem+json");
    }
    for (address, path) in [(hookmill.ingress, "healthz"), (hookmill.ingress, "readyz"), (hookmill.admin, "readyz")] {
        let request = Request::get(format!("http://{address}/{path}")).body("".into()).unwrap();
        assert_eq!(hookmill.request(request).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_update_is_refused() {
    let hookmill = Hookmill::start();
    let id = hookmill.integration("generic_hmac", "orders").await;
    let path = format!("/integrations/{id}");
    let version = hookmill.get(&path).await["version"].as_u64().unwrap();
    let update = |version: u64, name: &str| {
        Request::put(format!("http://{}/api/v1{path}", hookmill.admin))
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", "application/json")
            .header("if-match", format!("\"{version}\""))
            .body(json!({"name": name}).to_string().into())
            .unwrap()
    };
    assert_eq!(hookmill.request(update(version, "first")).await.status, StatusCode::OK);
    let late = hookmill.request(update(version, "second")).await;
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(late.json()["code"], "version_conflict");
    assert_eq!(hookmill.get(&path).await["name"], "first");
}
