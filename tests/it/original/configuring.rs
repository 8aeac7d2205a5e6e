//! Faults of its resources: fields, versions, lists, secrets that did not change, the audit log.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Caller, signed};
use crate::harness::{SECRET, hex_hmac, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn fault_01_the_receiver_knows_its_endpoints_members_in_both_spellings() {
    let caller = Caller::new();
    let id = caller.integration("payment_gateway", json!({}), json!({"api_key": "k"})).await;
    for (path, members) in [
        ("doc", json!({"active": true, "secret": SECRET, "verify_signature": true, "signature_header": "X-Sig"})),
        ("code", json!({"is_active": true, "secret_key": SECRET})),
    ] {
        let mut body = members;
        body["integration_id"] = id.into();
        body["name"] = path.into();
        body["path"] = path.into();
        caller.post("/webhooks/", body).await;
    }
    let doc = caller.receive("doc", &[("X-Sig", &signed("{}"))], "{}").await;
    assert_eq!((doc.status, &doc.json()["status"]), (StatusCode::OK, &json!("success")));
    caller.received("code", "{}").await;
    assert_eq!(caller.receive("code", &[], "{}").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_03_creating_changing_and_testing_work_and_are_recorded() {
    let caller = Caller::new();
    let id = caller.shop().await;
    let path = format!("/integrations/{id}");
    caller.put(&path, json!({"configuration": {"a": 1}, "credentials": {"api_key": "other"}})).await;
    let tested = caller.post(&format!("{path}/test"), json!({})).await;
    assert!(tested["success"].is_boolean() && tested["message"].is_string(), "{tested}");
    wait_for("the activities", async || {
        let text = caller.hookmill.get("/activities?limit=100").await.to_string();
        ["integration.created", "integration.updated", "integration.tested"]
            .iter()
            .all(|action| text.contains(action))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_04_versions_are_numbers_and_the_tenth_comes_after_the_ninth() {
    let caller = Caller::new();
    let id = caller.shop().await;
    for n in 0..12 {
        caller.put(&format!("/integrations/{id}"), json!({"configuration": {"n": n}})).await;
    }
    let versions = caller.hookmill.get(&format!("/integrations/{id}/versions")).await;
    let numbers: Vec<u64> =
        versions["items"].as_array().unwrap().iter().map(|it| it["version"].as_u64().unwrap()).collect();
    // It was made, got its endpoint, and was changed twelve times.
    assert_eq!(numbers.len(), 14);
    assert!(numbers.is_sorted_by(|a, b| a > b), "newest first: {numbers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_05_a_path_is_found_with_and_without_its_leading_slash() {
    let caller = Caller::new();
    let id = caller.shop().await;
    let body = json!({"integration_id": id, "name": "deep", "path": "deep/er", "secret_key": SECRET});
    assert_eq!(caller.post("/webhooks/", body).await["path"], "/deep/er");
    for path in ["shop", "/shop", "deep/er", "/deep/er"] {
        caller.received(path, "{}").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_any_text_and_the_header_of_its_scheme_may_be_named() {
    let caller = Caller::new();
    for (provider, scheme, header, kept) in [
        ("twilio", "generic_hmac", "X-Twilio-Signature", json!("X-Twilio-Signature")),
        ("Stripe", "stripe", "Stripe-Signature", Value::Null),
        ("stripe", "stripe", "stripe-signature", Value::Null),
    ] {
        let id = caller.integration("sms_provider", json!({"provider": provider}), json!({"auth_token": "t"})).await;
        let path = format!("/integrations/{id}");
        let made = caller.get(&path).await;
        assert_eq!((&made["provider"], &made["configuration"]["provider"]), (&json!(scheme), &json!(provider)));
        caller.put(&path, json!({"configuration": {"provider": provider, "base_url": "https://x.example"}})).await;

        let webhook = json!({"integration_id": id, "name": provider, "signature_header": header});
        let webhook = caller.post("/webhooks/", webhook).await;
        assert_eq!(webhook["signature_header"], kept, "{provider}");
        let path = format!("/webhooks/{}", webhook["id"]);
        assert_eq!(caller.put(&path, json!({"signature_header": header})).await["signature_header"], kept);
        let other = caller.call(Method::PUT, &path, Some(json!({"signature_header": "X-Other"}))).await;
        assert_eq!(other.status.is_success(), scheme == "generic_hmac", "{provider}: {:?}", other.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_08_a_rotated_or_changed_secret_is_the_one_that_verifies() {
    let caller = Caller::new();
    caller.shop().await;
    let rotated = caller.post("/webhooks/1/rotate-secret", json!({})).await;
    let secret = rotated["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"));
    let with = |secret: &str| hex_hmac(secret.as_bytes(), b"{}");
    let status = async |secret: &str| caller.receive("shop", &[("x-signature", &with(secret))], "{}").await.status;
    assert_eq!(status(secret).await, StatusCode::OK);
    assert_eq!(status(SECRET).await, StatusCode::UNAUTHORIZED, "the former one stops at once");
    let other = "whsec_set_by_its_caller_0123456789";
    let set = caller.put("/webhooks/1", json!({"secret_key": other})).await;
    assert!(!set.to_string().contains(other));
    assert_eq!(status(other).await, StatusCode::OK);
    assert_eq!(status(secret).await, StatusCode::UNAUTHORIZED);
    let misspelt = caller.call(Method::PUT, "/webhooks/1", Some(json!({"secretkey": other}))).await;
    assert_eq!(misspelt.status, StatusCode::UNPROCESSABLE_ENTITY, "nothing that is given is passed over");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_17_lists_are_bounded_and_in_order_and_what_is_kept_has_an_end() {
    let caller = Caller::new();
    for n in 0..5 {
        caller.integration("crm", json!({"n": n}), json!({"api_key": "k"})).await;
    }
    let mut ids = Vec::new();
    for skip in [0, 2, 4] {
        let page = caller.get(&format!("/integrations/?skip={skip}&limit=2")).await;
        assert_eq!((&page["total"], &page["limit"]), (&json!(5), &json!(2)));
        ids.extend(page["items"].as_array().unwrap().iter().map(|it| it["id"].as_u64().unwrap()));
    }
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    let refused = caller.call(Method::GET, "/integrations/?limit=1000000", None).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.json()["detail"].as_str().unwrap().contains("1000"));
    let printed = crate::harness::command().args(["config", "check", "--print"]).output().unwrap();
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.contains("retention") && printed.contains("30d"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_19_no_secret_is_kept_in_or_shown_from_the_configuration() {
    let caller = Caller::new();
    let body = json!({"name": "x", "type": "payment_gateway", "environment": "production",
                      "configuration": {"webhook_secret": "planted-secret-4711"}, "credentials": {"api_key": "k"}});
    let refused = caller.call(Method::POST, "/integrations/", Some(body)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.json()["errors"][0]["pointer"], "/configuration");
    assert!(!String::from_utf8_lossy(&refused.body).contains("planted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_29_metrics_have_a_bounded_number_of_labels() {
    let caller = Caller::new();
    for n in 0..4 {
        let body = json!({"name": format!("a name {n}"), "type": "crm", "environment": "staging",
                          "credentials": {"api_key": "k"}});
        caller.post("/integrations/", body).await;
    }
    let counts = wait_for("the tests", async || {
        let counts = caller.hookmill.get("/metrics").await["connection_tests"].clone();
        (counts[0]["count"] == 4).then_some(counts)
    })
    .await;
    assert_eq!(counts, json!([{"type": "crm", "status": "nothing_to_test", "count": 4}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_30_the_audit_log_outlives_what_is_deleted_and_names_who_deleted_it() {
    let caller = Caller::new();
    let id = caller.shop().await;
    let reply = caller.call(Method::DELETE, &format!("/integrations/{id}"), None).await;
    assert_eq!((reply.status, reply.body.len()), (StatusCode::NO_CONTENT, 0));
    let about = wait_for("the deletion's activity", async || {
        let activities = caller.hookmill.get("/activities?limit=100").await;
        let subject = format!("integration {id}");
        let all = activities["items"].as_array().unwrap().clone();
        let about: Vec<Value> = all.into_iter().filter(|it| it["subject"] == subject.as_str()).collect();
        about.iter().any(|it| it["action"] == "integration.deleted").then_some(about)
    })
    .await;
    assert!(about.iter().any(|it| it["action"] == "integration.created"));
    assert!(about.iter().all(|it| it["author"].as_str().is_some_and(|author| !author.is_empty())), "{about:?}");
    let deleted = about.iter().find(|it| it["action"] == "integration.deleted").unwrap();
    assert_eq!(deleted["source"], "127.0.0.1", "and from where");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_two_roles_hold_and_its_promised_rate_limits_are_told() {
    let caller = Caller::new();
    caller.shop().await;
    let made = caller.hookmill.create("/tokens", json!({"name": "shop", "role": "integration_manager"})).await;
    let token = made["token"].as_str().unwrap();
    let request = async |method: Method, path: &str| {
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("http://{}/integration-management{path}", caller.hookmill.admin))
            .header("authorization", format!("Bearer {token}"));
        caller.hookmill.request(request.body("".into()).unwrap()).await
    };
    let listed = request(Method::GET, "/integrations/").await;
    assert_eq!(listed.status, StatusCode::OK);
    for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
        assert!(listed.headers[name].to_str().unwrap().parse::<u64>().is_ok(), "{name}");
    }
    let refused = request(Method::DELETE, "/integrations/1").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.json()["detail"].is_string());
    assert_eq!(request(Method::DELETE, "/webhooks/1").await.status, StatusCode::NO_CONTENT);
    let anonymous = hyper::Request::get(format!("http://{}/integration-management/webhooks/", caller.hookmill.admin));
    let anonymous = caller.hookmill.request(anonymous.body("".into()).unwrap()).await;
    assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED);
    assert!(anonymous.json()["detail"].is_string());
}
