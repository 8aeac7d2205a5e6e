//! Faults that let others in, or secrets out.

use hyper::{Method, Request, StatusCode};
use serde_json::json;

use super::{Caller, signed};
use crate::harness::{Hookmill, SECRET, TOKEN, files_with, hex_hmac};

#[tokio::test(flavor = "multi_thread")]
async fn fault_18_no_secret_is_on_disk_in_clear_and_no_sensitive_header_is_shown() {
    let caller = Caller::new();
    caller.shop().await;
    let signature = signed("{}");
    let headers =
        [("x-signature", signature.as_str()), ("cookie", "planted-cookie"), ("authorization", "planted-auth")];
    let reply = caller.receive("shop", &headers, "{}").await.json();
    let event = caller.hookmill.get(&format!("/events/{}", reply["event_id"].as_str().unwrap())).await.to_string();
    for planted in ["planted-cookie", "planted-auth", signature.as_str(), SECRET] {
        assert!(!event.contains(planted), "{planted}: {event}");
    }
    let stopped = caller.hookmill.terminate();
    for planted in [SECRET, "sk_test_planted_credential", "planted-cookie", "planted-auth"] {
        assert_eq!(files_with(&stopped.data_dir(), planted), Vec::<std::path::PathBuf>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_20_each_installation_has_keys_of_its_own_and_no_version_shows_an_old_credential() {
    let (one, two) = (Caller::new(), Caller::new());
    for caller in [&one, &two] {
        let id = caller.shop().await;
        caller.put(&format!("/integrations/{id}"), json!({"credentials": {"api_key": "another-planted"}})).await;
        let versions = caller.hookmill.get(&format!("/integrations/{id}/versions")).await.to_string();
        assert!(!versions.contains("planted"), "{versions}");
    }
    let key = |caller: &Caller| std::fs::read_to_string(caller.hookmill.data_dir().join("keys.toml")).unwrap();
    assert_ne!(key(&one), key(&two));
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_21_nothing_of_the_inside_is_told_to_strangers() {
    let caller = Caller::new();
    caller.shop().await;
    let signature = signed("{}");
    let long = "x".repeat(100);
    for (path, headers) in [
        ("nowhere", vec![]),
        ("shop", vec![]),
        ("shop", vec![("x-signature", "nonsense")]),
        ("shop", vec![("x-signature", "\u{fc}")]),
        ("shop", vec![("x-signature", long.as_str())]),
        ("shop", vec![("x-signature", signature.as_str()), ("hookmill-hops", "99")]),
    ] {
        let reply = caller.receive(path, &headers, "{}").await;
        assert!(reply.status.is_client_error() || reply.status == StatusCode::LOOP_DETECTED, "{:?}", reply.status);
        let text = String::from_utf8_lossy(&reply.body).to_lowercase();
        for inside in ["traceback", "exception", "panic", "src/", "thread", "attribute", "sled", SECRET] {
            assert!(!text.contains(inside), "{path} {headers:?}: {text}");
        }
        assert!(reply.json()["detail"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_22_old_requests_large_bodies_and_deep_json_are_refused() {
    let caller = Caller::new();
    let id = caller.integration("custom", json!({"provider": "standard_webhooks"}), json!({"api_key": "k"})).await;
    let made = caller.post("/webhooks/", json!({"integration_id": id, "name": "s", "path": "s"})).await;
    let secret = made["secret"].as_str().unwrap().to_owned();
    let status = async |ago_s: i64| {
        let timestamp = (jiff::Timestamp::now().as_second() - ago_s).to_string();
        let signature = standard_signature(&secret, &timestamp);
        let headers = [("webhook-id", "msg_1"), ("webhook-timestamp", &timestamp), ("webhook-signature", &signature)];
        caller.receive("s", &headers, "{}").await.status
    };
    assert_eq!(status(0).await, StatusCode::OK);
    assert_eq!(status(3_600).await, StatusCode::UNAUTHORIZED, "a request that was captured an hour ago");

    let large = "x".repeat(2 << 20);
    assert_eq!(caller.receive("s", &[], &large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
    for (kind, body) in [("application/json", deep.as_str()), ("text/plain", "{}")] {
        let request = Request::post(format!("http://{}/integration-management/integrations/", caller.hookmill.admin))
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", kind)
            .body(body.to_owned().into())
            .unwrap();
        let reply = caller.hookmill.request(request).await;
        assert!([StatusCode::BAD_REQUEST, StatusCode::UNSUPPORTED_MEDIA_TYPE].contains(&reply.status), "{kind}");
    }
}

fn standard_signature(secret: &str, timestamp: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
    let digest = hex::decode(hex_hmac(&key, format!("msg_1.{timestamp}.{{}}").as_bytes())).unwrap();
    format!("v1,{}", STANDARD.encode(digest))
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_24_a_header_of_the_sender_does_not_say_where_it_came_from() {
    let caller = Caller::new();
    caller.shop().await;
    let signature = signed("{}");
    let headers =
        [("x-signature", signature.as_str()), ("x-forwarded-for", "198.51.100.7"), ("x-real-ip", "198.51.100.7")];
    let reply = caller.receive("shop", &headers, "{}").await.json();
    let event = caller.hookmill.get(&format!("/events/{}", reply["event_id"].as_str().unwrap())).await;
    assert_eq!(event["peer"], "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_25_signatures_are_checked_unless_it_is_said_otherwise_and_paths_are_not_guessed() {
    let caller = Caller::new();
    let id = caller.shop().await;
    let plain = caller.post("/webhooks/", json!({"integration_id": id, "name": "plain"})).await;
    assert_eq!(plain["verify_signature"], true);
    assert!(plain["path"].as_str().unwrap().len() > 30, "{plain}");
    let open = json!({"integration_id": id, "name": "open", "path": "open", "verify_signature": false});
    assert_eq!(caller.post("/webhooks/", open).await["verify_signature"], false, "whoever looks sees it");
    assert_eq!(caller.receive(&plain["path"].as_str().unwrap()[1..], &[], "{}").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(caller.receive("open", &[], "{}").await.status, StatusCode::OK);
    caller.put("/webhooks/1", json!({"is_active": false})).await;
    let (inactive, unknown) = (caller.receive("shop", &[], "{}").await, caller.receive("nowhere", &[], "{}").await);
    assert_eq!((inactive.status, &inactive.body), (StatusCode::NOT_FOUND, &unknown.body), "nobody can tell them apart");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_26_a_missing_key_is_told_and_is_no_empty_credential() {
    let caller = Caller::new();
    caller.shop().await;
    let stopped = caller.hookmill.terminate();
    std::fs::remove_file(stopped.data_dir().join("keys.toml")).unwrap();
    let (code, said) = stopped.start_refused(&[]);
    assert_ne!(code, 0);
    assert!(said.contains("key"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_23_no_inside_address_is_asked() {
    let strict = Caller { hookmill: Hookmill::start_with(&[]) };
    for url in ["http://127.0.0.1:9", "http://169.254.169.254/latest", "http://localhost:9", "http://[::1]:9"] {
        let id = strict.integration("payment_gateway", json!({"base_url": url}), json!({"api_key": "k"})).await;
        let tested = strict.post(&format!("/integrations/{id}/test"), json!({})).await;
        assert_eq!(tested["success"], false, "{url}");
        assert!(tested["message"].as_str().unwrap().contains("egress.allow"), "{url}: {tested}");
    }
    let own = Caller::new();
    for address in [own.hookmill.ingress, own.hookmill.admin] {
        let configuration = json!({"health_check_url": format!("http://{address}/healthz")});
        let id = own.integration("custom", configuration, json!({"token": "t"})).await;
        let tested = own.call(Method::POST, &format!("/integrations/{id}/test"), None).await.json();
        assert_eq!(tested["success"], false, "{tested}");
    }
}
