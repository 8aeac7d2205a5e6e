//! Create, send, deliver, retry, dead letter, replay, restart.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Hookmill, Sink, hex_hmac, signature_holds, status, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_webhook_arrives_unaltered_and_signed() {
    let (hookmill, sink) = (Hookmill::start(), Sink::start().await);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    let (destination, _) = hookmill.deliver_to(integration, &sink, json!({})).await;
    let body = "{\"type\": \"payment.succeeded\",  \"id\":\"evt_1\", \"amount\": 1999}\n";
    let id = hookmill.post_signed("orders", body).await;
    let got = sink.until("a delivery", |got| !got.is_empty()).await.remove(0);
    assert_eq!(got.body, body.as_bytes());
    assert_eq!(got.id(), id);
    assert_eq!(got.headers["content-type"], "application/json");
    assert_eq!(got.headers["hookmill-hops"], "1");
    assert!(got.headers["traceparent"].to_str().unwrap().starts_with("00-"));
    assert!(signature_holds(destination["signing_secret"].as_str().unwrap(), &got));

    let event = wait_for("the outcome", async || {
        let event = hookmill.get(&format!("/events/{id}")).await;
        (event["deliveries"][0]["status"] == "delivered").then_some(event)
    })
    .await;
    assert_eq!(event["event_type"], "payment.succeeded");
    assert_eq!(event["provider_id"], "evt_1");
    let listed = hookmill.get("/events?status=success").await;
    assert_eq!(listed["items"][0]["id"], id.as_str());
    assert_eq!(hookmill.get("/events?status=failure,pending,processing").await["items"], json!([]));

    let attempts = event["deliveries"][0]["latest_attempts"].as_array().unwrap();
    assert_eq!(
        (attempts.len(), &attempts[0]["status"]),
        (1, &json!(200)),
        "a success at the first try tells its attempt too"
    );
    let moment = |name: &str| event[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let took_ms = moment("processed_at").as_millisecond() - moment("received_at").as_millisecond();
    assert!((0..10_000).contains(&took_ms), "processed {took_ms} ms after it came");
    let hookmill = hookmill.terminate().start();
    assert_eq!(hookmill.get(&format!("/events/{id}")).await["processed_at"], event["processed_at"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_makes_the_whole_way_of_an_event_or_nothing_of_it() {
    let (hookmill, sink) = (Hookmill::start(), Sink::start().await);
    let wanted = |path: &str| {
        json!({"name": "Shop", "type": "PAYMENT_GATEWAY", "provider": "stripe", "environment": "production",
               "webhook": {"path": path},
               "destination": {"type": "http", "settings": {"url": format!("http://{}/hook", sink.address)}},
               "subscription": {"retry": {"schedule_s": [1]}}})
    };
    let refused = hookmill.admin(Method::POST, "/integrations", Some(wanted("bad path"))).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.json()["errors"][0]["pointer"], "/webhook/path");
    assert_eq!(hookmill.get("/integrations").await["total"], 0);
    assert_eq!(hookmill.get("/destinations").await["total"], 0);

    let made = hookmill.create("/integrations", wanted("shop")).await;
    let versions =
        [&made, &made["webhook"], &made["destination"], &made["subscription"]].map(|it| it["version"].clone());
    assert_eq!(versions, [1, 1, 1, 1].map(serde_json::Value::from), "one change, one version");
    let secret = made["webhook"]["secret"].as_str().unwrap();
    let (body, now) = ("{\"id\":\"evt_1\",\"type\":\"charge.succeeded\"}", jiff::Timestamp::now().as_second());
    let signature = hex_hmac(secret.as_bytes(), format!("{now}.{body}").as_bytes());
    let reply = hookmill.post("shop", &[("stripe-signature", &format!("t={now},v1={signature}"))], body).await;
    assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
    let got = sink.until("the delivery", |got| !got.is_empty()).await.remove(0);
    assert!(signature_holds(made["destination"]["signing_secret"].as_str().unwrap(), &got));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_well_signed_is_refused_and_not_delivered() {
    let (hookmill, sink) = (Hookmill::start(), Sink::start().await);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    hookmill.deliver_to(integration, &sink, json!({})).await;
    for (headers, code) in
        [(vec![], "missing_signature"), (vec![("x-signature", "00".repeat(32))], "invalid_signature")]
    {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = hookmill.post("orders", &headers, "{}").await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
        assert_eq!(reply.json()["code"], code);
    }
    let unknown = hookmill.post("nowhere", &[], "{}").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let endpoint = hookmill.get("/webhooks").await["items"][0].clone();
    let path = format!("/webhooks/{}", endpoint["id"]);
    let reply = hookmill.admin(Method::PUT, &path, Some(json!({"is_active": false}))).await;
    assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
    let inactive = hookmill.post("orders", &[], "{}").await;
    assert_eq!((inactive.status, &inactive.body), (unknown.status, &unknown.body), "the same reply for both");
    assert!(sink.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_delivery_is_tried_again_with_the_same_id_and_a_fresh_signature() {
    let (hookmill, sink) = (Hookmill::start(), Sink::start().await);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    let (destination, _) = hookmill.deliver_to(integration, &sink, json!({"schedule_s": [1, 1, 1]})).await;
    sink.answers(|count, _| status(if count < 3 { 503 } else { 204 }));
    let id = hookmill.post_signed("orders", "{\"n\":1}").await;
    let got = sink.until("the third attempt", |got| got.len() == 3).await;
    assert!(got.iter().all(|got| got.id() == id));
    assert!(got.iter().all(|got| signature_holds(destination["signing_secret"].as_str().unwrap(), got)));
    let event = wait_for("the outcome", async || {
        let event = hookmill.get(&format!("/events/{id}")).await;
        (event["deliveries"][0]["status"] == "delivered").then_some(event)
    })
    .await;
    assert_eq!(event["deliveries"][0]["attempts"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_behind_an_open_breaker_says_so_until_the_destination_is_back() {
    let (hookmill, sink) = (Hookmill::start(), Sink::start().await);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    let (destination, _) = hookmill.deliver_to(integration, &sink, json!({"schedule_s": [1, 1, 1, 1, 1, 1]})).await;
    let destination = format!("/destinations/{}", destination["id"]);
    let breaker = json!({"limits": {"breaker": {"consecutive_failures": 1, "open_s": 3, "open_max_s": 3}}});
    let reply = hookmill.admin(Method::PATCH, &destination, Some(breaker)).await;
    assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);

    sink.answers(|_, _| status(503));
    hookmill.post_signed("orders", "{\"id\":\"opens it\"}").await;
    wait_for("the breaker to open", async || {
        let flow = hookmill.get(&format!("{destination}/flow")).await;
        (flow["breaker"]["state"] == "open").then_some(())
    })
    .await;
    let behind = hookmill.post_signed("orders", "{\"id\":\"behind it\"}").await;
    let delivery = async || hookmill.get(&format!("/events/{behind}")).await["deliveries"][0].clone();
    let waiting = wait_for("what it waits for", async || {
        let delivery = delivery().await;
        (delivery["waiting_for"] == "breaker").then_some(delivery)
    })
    .await;
    assert_eq!((&waiting["attempts"], &waiting["processing_status"]), (&json!(0), &json!("pending")), "{waiting}");

    sink.answers(|_, _| status(200));
    let delivered = wait_for("its delivery", async || {
        let delivery = delivery().await;
        (delivery["status"] == "delivered").then_some(delivery)
    })
    .await;
    assert_eq!((&delivered["attempts"], &delivered["waiting_for"]), (&json!(1), &json!(null)), "{delivered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_out_of_attempts_stands_in_the_dead_letter_until_it_is_replayed() {
    let (hookmill, sink) = (Hookmill::start(), Sink::start().await);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    let (_, subscription) = hookmill.deliver_to(integration, &sink, json!({"schedule_s": [1]})).await;
    sink.answers(|_, _| status(500));
    let id = hookmill.post_signed("orders", "{\"n\":1}").await;
    let letter = wait_for("the dead letter", async || hookmill.dead_letters().await.pop()).await;
    assert_eq!(letter["event_id"], id.as_str());
    assert_eq!(letter["reason"], "attempts_exhausted");
    assert_eq!(letter["attempts"], 2);

    let hookmill = hookmill.terminate().start();
    assert_eq!(hookmill.dead_letters().await.len(), 1, "it survives a restart");
    sink.answers(|_, _| status(200));
    let path = format!("/deadletters/{}/{id}/replay", subscription["id"]);
    let reply = hookmill.admin(Method::POST, &path, None).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{:?}", reply.body);
    let got = sink.until("the replay", |got| got.len() == 3).await.pop().unwrap();
    assert_eq!(got.id(), id);
    assert_eq!(got.body, "{\"n\":1}");
    assert_eq!(got.headers["hookmill-replay"], "true");
    wait_for("an empty dead letter", async || hookmill.dead_letters().await.is_empty().then_some(())).await;
    let again = hookmill.admin(Method::POST, &path, None).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_goes_on_where_it_was() {
    let (hookmill, sink) = (Hookmill::start(), Sink::start().await);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    hookmill.deliver_to(integration, &sink, json!({"schedule_s": [2, 2, 2, 2]})).await;
    sink.answers(|_, _| status(503));
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(hookmill.post_signed("orders", &format!("{{\"n\":{n}}}")).await);
    }
    sink.until("first attempts", |got| got.len() >= 20).await;
    let hookmill = hookmill.terminate().start();
    sink.answers(|_, _| status(200));
    sink.until("all of them", |got| {
        let after = &got[20..];
        ids.iter().all(|id| after.iter().any(|got| got.id() == *id))
    })
    .await;
    ids.push(hookmill.post_signed("orders", "{\"n\":\"later\"}").await);
    sink.until("the later one", |got| got.iter().any(|got| Some(&got.id()) == ids.last())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_pauses_a_destination_and_redirects_are_failures() {
    let (hookmill, sink, elsewhere) = (Hookmill::start(), Sink::start().await, Sink::start().await);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    let (destination, _) = hookmill.deliver_to(integration, &sink, json!({"schedule_s": [1, 1, 1, 1]})).await;
    let target = format!("http://{}/", elsewhere.address);
    sink.answers(move |count, _| match count {
        1 => hyper::Response::builder().status(302).header("location", &target).body("".into()).unwrap(),
        _ => status(410),
    });
    hookmill.post_signed("orders", "{}").await;
    let path = format!("/destinations/{}", destination["id"]);
    wait_for("the pause", async || (hookmill.get(&path).await["status"] == "paused").then_some(())).await;
    assert!(elsewhere.received().is_empty(), "a redirect is not followed");
    let tried = sink.received().len();
    hookmill.post_signed("orders", "{}").await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(sink.received().len(), tried, "it rests");
    sink.answers(|_, _| status(200));
    let reply = hookmill.admin(Method::PUT, &path, Some(json!({"status": "active"}))).await;
    assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
    sink.until("both events", |got| got.len() >= tried + 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured() {
    let (hookmill, sink) = (Hookmill::start(), Sink::start().await);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    hookmill.deliver_to(integration, &sink, json!({"schedule_s": [0, 0]})).await;
    sink.answers(|count, _| match count {
        1 => hyper::Response::builder().status(429).header("retry-after", "2").body("".into()).unwrap(),
        _ => status(200),
    });
    let began = std::time::Instant::now();
    hookmill.post_signed("orders", "{}").await;
    sink.until("the second attempt", |got| got.len() == 2).await;
    assert!(began.elapsed() >= Duration::from_millis(1_950), "after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_keeps_the_old_secret_for_its_grace() {
    let hookmill = Hookmill::start();
    hookmill.integration("generic_hmac", "orders").await;
    let endpoint = hookmill.get("/webhooks").await["items"][0].clone();
    let path = format!("/webhooks/{}/rotate-secret", endpoint["id"]);
    let reply = hookmill.admin(Method::POST, &path, Some(json!({"grace_s": 1}))).await;
    assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
    let fresh = reply.json()["secret"].as_str().unwrap().to_owned();
    hookmill.post_signed("orders", "{}").await;
    let signature = hex_hmac(fresh.as_bytes(), b"{}");
    assert_eq!(hookmill.post("orders", &[("x-signature", &signature)], "{}").await.status, StatusCode::OK);
    let old = hex_hmac(crate::harness::SECRET.as_bytes(), b"{}");
    wait_for("the old secret to expire", async || {
        let status = hookmill.post("orders", &[("x-signature", &old)], "{}").await.status;
        (status == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    assert_eq!(hookmill.post("orders", &[("x-signature", &signature)], "{}").await.status, StatusCode::OK);
}
