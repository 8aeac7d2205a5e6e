//! Acceptance: what becomes of a well-formed request.

use std::{net::Shutdown, time::Duration};

use bytes::Bytes;
use hookmill::ingress::IngressOptions;
use hookmill_actors::{
    domain::ids::{EndpointId, EventId, IntegrationId},
    metrics::Totals,
    ports::{clock::Clock, event_log::LogError},
};
use serde_json::{Value, json};

use crate::{bench::*, ports::*};

#[test]
fn a_good_webhook_is_stored_as_it_came() {
    let bench = start();
    let answer = bench.ask(
        "POST /webhooks/receive/orders?a=1&b=%20 HTTP/1.1\r\nHost: shop.example\r\nX-Signature:  good\t\r\n\
         X-Bytes: \u{e9}\r\nX-Twice: 1\r\nX-Twice: 2\r\nHookmill-Hops: 2\r\nContent-Length: 8\r\n\r\n{\"a\": 1}",
    );
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, format!(r#"{{"status":"success","event_id":"{}"}}"#, EventId::at_millis(42)));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let events = bench.log.events();
    let arrival = &events[0].arrival;
    assert_eq!((events.len(), events[0].integration, arrival.endpoint), (1, IntegrationId(1), EndpointId(1)));
    assert_eq!((arrival.received_at_ms, arrival.accepted_version, arrival.hops), (FixedClock.now_ms(), 17, 2));
    assert_eq!(&*arrival.query, "a=1&b=%20");
    assert_eq!(arrival.body, Bytes::from_static(b"{\"a\": 1}"));
    assert!(arrival.peer.is_loopback());
    let headers: Vec<(&str, &[u8])> = arrival.headers.iter().collect();
    assert_eq!(headers[0], ("host", b"shop.example".as_slice()));
    assert_eq!(headers[1], ("x-signature", b"good".as_slice()));
    assert_eq!(headers[2], ("x-bytes", "\u{e9}".as_bytes()));
    assert_eq!(arrival.headers.all("x-twice").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(bench.totals(), Totals { accepted: 1, ..Totals::default() });
}

#[test]
fn paths_are_found_by_their_one_spelling() {
    let bench = start();
    for path in ["/orders", "//orders", "/deep/er.path_~-1"] {
        assert_eq!(bench.ask(post(path, "x")).status, 200, "{path}");
    }
    let unknown = bench.ask(post("/nobody", "x"));
    unknown.is(404, "not_found");
    for path in ["/inactive", "", "/", "///orders", "/orders/", "/orders/..", "/./orders", "/%6frders", "/ORDERS"] {
        assert_eq!(bench.ask(post(path, "x")), unknown, "{path}");
    }
    assert_eq!(bench.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"), unknown);
    assert_eq!(bench.totals().unknown_path, 11);
    assert_eq!(bench.log.events().len(), 3);
}

#[test]
fn signatures_decide_and_nothing_more_is_told() {
    let bench = start();
    bench.ask(post_with("", "x")).is(401, "missing_signature");
    let wrong = bench.ask(post_with("X-Signature: bad\r\n", "x"));
    wrong.is(401, "invalid_signature");
    assert_eq!(bench.ask(post_with("X-Signature: good\r\nX-Signature: good\r\n", "x")), wrong);
    assert!(bench.log.events().is_empty());
    assert_eq!(bench.totals(), Totals { missing_signature: 1, invalid_signature: 2, ..Totals::default() });
}

#[test]
fn handshakes_are_answered_and_not_stored() {
    let bench = start();
    let answer = bench.ask("GET /webhooks/receive/greeted?challenge=ok HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    bench.ask("GET /webhooks/receive/greeted HTTP/1.1\r\nHost: a\r\n\r\n").is(403, "handshake_refused");
    assert_eq!(bench.ask(post("/orders", "challenge")).body, "challenge accepted");
    bench.ask(post_with("X-Signature: bad\r\n", "challenge")).is(401, "invalid_signature");
    assert!(bench.log.events().is_empty());
    assert_eq!(bench.totals().accepted, 0);
}

#[test]
fn other_methods_are_told_which_ones_there_are() {
    let bench = start();
    for (request, allow) in [
        ("GET /webhooks/receive/orders", "POST"),
        ("PUT /webhooks/receive/orders", "POST"),
        ("BREW /webhooks/receive/orders", "POST"),
        ("DELETE /webhooks/receive/greeted", "GET, POST"),
        ("POST /healthz", "GET, HEAD"),
        ("DELETE /readyz", "GET, HEAD"),
    ] {
        let answer = bench.ask(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n"));
        answer.is(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allow), "{request}");
    }
    let mut peer = bench.connect();
    peer.send("HEAD /webhooks/receive/orders HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(peer.answer_to("HEAD").unwrap().status, 405);
    assert_eq!(peer.answer().status, 200);
}

#[test]
fn a_log_that_cannot_take_it_is_a_503() {
    let bench = start();
    for (mood, code) in [
        (Mood::Refuses(LogError::QueueFull), "queue_full"),
        (Mood::Refuses(LogError::DiskFull), "disk_full"),
        (Mood::Refuses(LogError::Stalled), "log_stalled"),
        (Mood::Refuses(LogError::Failed("gone".into())), "log_failed"),
        (Mood::Refuses(LogError::Closed), "log_failed"),
        (Mood::Fails(LogError::Failed("gone".into())), "log_failed"),
        (Mood::Fails(LogError::DiskFull), "disk_full"),
    ] {
        bench.log.is(mood);
        let answer = bench.ask(post("/orders", "x"));
        answer.is(503, code);
        let seconds: u8 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=5).contains(&seconds));
    }
    assert_eq!(bench.totals(), Totals { unavailable: 7, ..Totals::default() });
}

#[test]
fn no_reply_before_the_event_is_on_disk() {
    let bench = start();
    bench.log.is(Mood::Waits);
    let mut peer = bench.connect();
    peer.send(post("/orders", "x"));
    bench.log.until_events(1);
    peer.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(!peer.fill(), "nothing may be said yet");
    peer.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    bench.log.release();
    assert_eq!(peer.answer().status, 200);
}

#[test]
fn a_log_that_does_not_answer_is_a_503_in_time() {
    let bench = start_with(IngressOptions { request_timeout: Duration::from_millis(200), ..options() });
    bench.log.is(Mood::Waits);
    bench.ask(post("/orders", "x")).is(503, "not_confirmed");
    assert_eq!(bench.log.events().len(), 1, "it may be stored all the same");
}

#[test]
fn a_peer_that_is_done_sending_still_hears_the_answer() {
    let bench = start();
    bench.log.is(Mood::Waits);
    let mut peer = bench.connect();
    peer.send(post("/orders", "x"));
    peer.stream.shutdown(Shutdown::Write).unwrap();
    bench.log.until_events(1);
    bench.log.release();
    assert_eq!(peer.answer().status, 200);
}

#[test]
fn too_many_hops_are_a_loop() {
    let bench = start();
    assert_eq!(bench.ask(post_with("X-Signature: good\r\nHookmill-Hops: 4\r\n", "x")).status, 200);
    for hops in ["5", "6", "99999999999"] {
        bench.ask(post_with(&format!("X-Signature: good\r\nhookmill-hops: {hops}\r\n"), "x")).is(508, "too_many_hops");
    }
    bench.ask(post_with("X-Signature: good\r\nHookmill-Hops: x\r\n", "x")).is(400, "bad_request");
}

#[test]
fn health() {
    let bench = start();
    let get = |path: &str| bench.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(get("/healthz").body, r#"{"status":"alive"}"#);
    assert_eq!(get("/readyz").body, r#"{"status":"ready"}"#);
    bench.readiness.0.lock().unwrap().push("disk \"full\"".to_owned());
    let answer = get("/readyz");
    assert_eq!(answer.status, 503);
    let document: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(document, json!({"status": "not_ready", "reasons": ["disk \"full\""]}));
    assert_eq!(get("/healthz").status, 200);
    let mut peer = bench.connect();
    peer.send("HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = peer.answer_to("HEAD").unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("18")));
    assert_eq!(peer.answer().body, r#"{"status":"alive"}"#);
}
