//! Faults between the receiver and the end of an event's processing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Caller, signed};
use crate::harness::{Sink, status, wait_for};

async fn event(caller: &Caller, id: &str) -> Value {
    caller.hookmill.get(&format!("/events/{id}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_02_an_event_knows_its_endpoint_and_what_became_of_it() {
    let (caller, sink) = (Caller::new(), Sink::start().await);
    caller.shop_to(&sink, &[]).await;
    let id = caller.received("shop", r#"{"id":"evt_1","type":"payment.succeeded"}"#).await;
    let told = wait_for("its outcome", async || {
        let told = event(&caller, &id).await;
        (told["status"] == "success").then_some(told)
    })
    .await;
    assert_eq!((&told["endpoint_id"], &told["event_type"]), (&json!(1), &json!("payment.succeeded")));
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_06_header_names_are_found_in_any_case_and_events_have_type_and_source() {
    let (caller, body) = (Caller::new(), r#"{"id":"evt_1","type":"payment.failed"}"#);
    caller.shop().await;
    for name in ["X-SIGNATURE", "x-signature", "X-Signature", "x-SiGnAtUrE"] {
        let request = format!(
            "POST /integration-management/webhooks/receive/shop HTTP/1.1\r\nHost: x\r\n{name}: {}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            signed(body),
            body.len(),
        );
        let mut stream = tokio::net::TcpStream::connect(caller.hookmill.ingress).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{name}: {reply}");
    }
    let events = wait_for("their types", async || {
        let events = caller.hookmill.get("/events").await["items"].as_array().unwrap().clone();
        events.iter().all(|event| event["event_type"] == "payment.failed").then_some(events)
    })
    .await;
    assert_eq!(events.len(), 4);
    assert_eq!(event(&caller, events[0]["id"].as_str().unwrap()).await["peer"], "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_09_what_is_received_is_processed_at_once() {
    let (caller, sink) = (Caller::new(), Sink::start().await);
    caller.shop_to(&sink, &[]).await;
    caller.received("shop", r#"{"id":"first"}"#).await;
    sink.until("the first", |got| got.len() == 1).await;
    let began = Instant::now();
    let id = caller.received("shop", r#"{"id":"second"}"#).await;
    sink.until("the second", |got| got.iter().any(|got| got.id() == id)).await;
    assert!(began.elapsed() < Duration::from_secs(5), "no sweep of five minutes: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_10_a_poison_event_is_given_up_and_blocks_nobody() {
    let (caller, sink) = (Caller::new(), Sink::start().await);
    sink.answers(|_, got| if got.body.starts_with(br#"{"poison""#) { status(400) } else { status(200) });
    caller.shop_to(&sink, &[1]).await;
    for n in 0..120 {
        caller.received("shop", &format!(r#"{{"poison":{n}}}"#)).await;
    }
    let id = caller.received("shop", r#"{"good":1}"#).await;
    sink.until("the good one", |got| got.iter().any(|got| got.id() == id)).await;
    let dead = wait_for("the poison in the dead letter", async || {
        let letters = caller.hookmill.get("/deadletters?limit=1000").await["items"].as_array().unwrap().clone();
        (letters.len() == 120).then_some(letters)
    })
    .await;
    assert!(dead.iter().all(|letter| letter["attempts"] == 2), "one try and one retry each: {:?}", dead[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_11_no_event_is_processed_twice() {
    let (caller, sink) = (Caller::new(), Sink::start().await);
    caller.shop_to(&sink, &[]).await;
    let mut sent = Vec::new();
    for n in 0..60 {
        sent.push(caller.received("shop", &format!(r#"{{"n":{n}}}"#)).await);
    }
    sink.until("all of them", |got| got.len() >= sent.len()).await;
    // A clean restart reads the log again and sends nothing again.
    let hookmill = caller.hookmill.terminate().start();
    let caller = Caller { hookmill };
    sent.push(caller.received("shop", r#"{"n":"last"}"#).await);
    let got = sink.until("the last", |got| got.iter().any(|got| got.id() == *sent.last().unwrap())).await;
    let mut ids: Vec<String> = got.iter().map(crate::harness::Received::id).collect();
    ids.sort();
    sent.sort();
    assert_eq!(ids, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_12_what_a_provider_sends_again_is_no_second_event_to_process() {
    let (caller, sink) = (Caller::new(), Sink::start().await);
    caller.shop_to(&sink, &[]).await;
    let first = caller.received("shop", r#"{"id":"evt_1"}"#).await;
    for _ in 0..3 {
        caller.received("shop", r#"{"id":"evt_1"}"#).await;
    }
    let other = caller.received("shop", r#"{"id":"evt_2"}"#).await;
    let got = sink.until("the other one", |got| got.iter().any(|got| got.id() == other)).await;
    assert!(got.iter().all(|got| got.id() == first || got.id() == other), "{got:?}");
    assert_eq!(got.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_13_a_repeat_after_a_crash_carries_the_id_that_tells_it() {
    let (caller, sink) = (Caller::new(), Sink::start().await);
    caller.shop_to(&sink, &[]).await;
    // The service has done its work when its answer is still on the way.
    sink.answers(|_, _| {
        std::thread::sleep(Duration::from_millis(400));
        status(200)
    });
    let id = caller.received("shop", r#"{"id":"evt_1"}"#).await;
    sink.until("the first attempt", |got| !got.is_empty()).await;
    let hookmill = caller.hookmill.kill().start();
    let got = sink.until("the repeat", |got| got.len() == 2).await;
    assert!(got.iter().all(|got| got.id() == id), "{got:?}");
    drop(hookmill);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_28_no_amount_is_computed_with() {
    let (caller, sink) = (Caller::new(), Sink::start().await);
    caller.shop_to(&sink, &[]).await;
    let body = r#"{"id":"evt_1", "amount":19.99, "cents":1e2, "big":12345678901234567890.10}"#;
    caller.received("shop", body).await;
    let got = sink.until("the payment", |got| got.len() == 1).await;
    assert_eq!(got[0].body, body.as_bytes(), "byte for byte");
}
