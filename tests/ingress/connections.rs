//! Connections: reuse, pipelining, bounds, idleness, panics.

use std::{
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hookmill::ingress::IngressOptions;

use crate::bench::*;

#[test]
fn a_connection_is_used_again_and_pipelined_requests_are_answered_in_order() {
    let bench = start();
    let mut peer = bench.connect();
    for _ in 0..3 {
        peer.send(post("/orders", "x"));
        assert_eq!(peer.answer().status, 200);
    }
    let chunked = framed("Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let refused = post_with("X-Signature: bad\r\n", "three");
    peer.send([post("/orders", "one"), chunked, refused, post("/orders", "four")].concat());
    let statuses: Vec<u16> = (0..4).map(|_| peer.answer().status).collect();
    assert_eq!(statuses, [200, 200, 401, 200]);
    let bodies: Vec<Bytes> = bench.log.events().into_iter().map(|event| event.arrival.body).collect();
    assert_eq!(bodies, ["x", "x", "x", "one", "abcde", "four"]);
}

#[test]
fn a_request_in_single_bytes_is_the_same_request() {
    let bench = start_with(IngressOptions { head_timeout: Duration::from_secs(5), ..options() });
    let mut peer = bench.connect();
    for byte in post("/orders", "body").bytes() {
        peer.send([byte]);
    }
    assert_eq!(peer.answer().status, 200);
    assert_eq!(bench.log.events()[0].arrival.body, "body");
}

#[test]
fn a_body_in_many_pieces_is_put_together() {
    let bench = start();
    let body: String = (0..900).map(|number| char::from(b'a' + u8::try_from(number % 26).unwrap())).collect();
    let mut peer = bench.connect();
    for piece in post("/orders", &body).as_bytes().chunks(150) {
        peer.send(piece);
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(peer.answer().status, 200);
    assert_eq!(bench.log.events()[0].arrival.body, body);
}

#[test]
fn an_upgrade_is_not_made() {
    let bench = start();
    let mut peer = bench.connect();
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    for _ in 0..2 {
        peer.send(post_with(&format!("X-Signature: good\r\n{upgrade}"), "x"));
        assert_eq!(peer.answer().status, 200);
    }
}

#[test]
fn http_1_0_is_served_and_closed() {
    let bench = start();
    let mut peer = bench.connect();
    peer.send("POST /webhooks/receive/orders HTTP/1.0\r\nX-Signature: good\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(peer.answer().status, 200);
    assert!(peer.is_closed());
}

#[test]
fn connections_are_bounded() {
    let bench = start_with(IngressOptions { connections_max: 2, ..options() });
    let mut first = bench.connect();
    let mut second = bench.connect();
    for peer in [&mut first, &mut second] {
        peer.send(post("/orders", "x"));
        assert_eq!(peer.answer().status, 200);
    }
    let mut third = bench.connect();
    let answer = third.answer();
    answer.is(503, "busy");
    assert!(answer.closes() && third.is_closed());
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let mut again = bench.connect();
        again.send(post("/orders", "x"));
        if again.answer_to("POST").is_some_and(|answer| answer.status == 200) {
            break;
        }
        assert!(Instant::now() < deadline, "a closed connection makes room");
    }
    second.send(post("/orders", "x"));
    assert_eq!(second.answer().status, 200);
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let bench = start_with(IngressOptions { idle_timeout: Duration::from_millis(200), ..options() });
    let mut peer = bench.connect();
    peer.send(post("/orders", "x"));
    assert_eq!(peer.answer().status, 200);
    assert!(peer.is_closed());
}

#[test]
fn a_panic_costs_one_connection() {
    let bench = start();
    let mut peer = bench.connect();
    peer.send(post("/orders", "panic"));
    assert_eq!(peer.answer_to("POST"), None);
    assert_eq!(bench.ask(post("/orders", "x")).status, 200);
}
