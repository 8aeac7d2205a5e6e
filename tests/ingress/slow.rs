//! Slow peers are cut off.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use hookmill::ingress::IngressOptions;

use crate::bench::*;

#[test]
fn a_slow_head_is_cut_off() {
    let bench = start();
    let began = Instant::now();
    let mut silent = bench.connect();
    let mut peer = bench.connect();
    peer.stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    for byte in post_with(&"X-Slow: 1\r\n".repeat(40), "x").bytes() {
        peer.send([byte]);
        if peer.fill() {
            break;
        }
    }
    peer.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let answer = peer.answer();
    answer.is(408, "slow_request");
    assert!(answer.closes());
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert!(silent.is_closed());
    // The second head of a connection has the same deadline.
    let mut peer = bench.connect();
    peer.send(post("/orders", "x"));
    assert_eq!(peer.answer().status, 200);
    peer.send("POST /webhooks");
    peer.answer().is(408, "slow_request");
    // Also when it came along with the first.
    let mut peer = bench.connect();
    peer.send(post("/orders", "x") + "POST /webhooks");
    assert_eq!(peer.answer().status, 200);
    peer.answer().is(408, "slow_request");
    assert_eq!(bench.totals().bad_request, 3);
}

#[test]
fn a_body_that_never_comes_is_cut_off() {
    let bench = start_with(IngressOptions { request_timeout: Duration::from_millis(300), ..options() });
    let mut peer = bench.connect();
    peer.send(framed("Content-Length: 5\r\n") + "ab");
    let answer = peer.answer();
    answer.is(408, "slow_request");
    assert!(answer.closes() && peer.is_closed());
}

#[test]
fn a_dripping_body_is_cut_off() {
    let bench = start_with(IngressOptions { request_timeout: Duration::from_secs(20), ..options() });
    let began = Instant::now();
    let mut peer = bench.connect();
    peer.send(framed("Content-Length: 900\r\n"));
    peer.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    while !peer.fill() {
        peer.send("x");
        assert!(began.elapsed() < Duration::from_secs(5), "20 bytes a second are too few");
    }
    peer.answer().is(408, "slow_request");
    assert!(began.elapsed() >= Duration::from_secs(1), "the first second is free");
}

#[test]
fn a_peer_that_does_not_read_its_replies_is_cut_off() {
    let bench = start_with(IngressOptions { idle_timeout: Duration::from_millis(300), ..options() });
    let mut peer = bench.connect();
    peer.stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let requests = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".repeat(500);
    let error = loop {
        if let Err(error) = peer.stream.write_all(requests.as_bytes()) {
            break error;
        }
    };
    assert!(
        matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe),
        "it is closed, not left hanging: {error}"
    );
    assert!(bench.is_alive());
}

#[test]
fn every_deadline_begins_anew() {
    let bench = start_with(IngressOptions {
        head_timeout: Duration::from_millis(150),
        idle_timeout: Duration::from_millis(300),
        ..options()
    });
    let mut peer = bench.connect();
    let request = post("/orders", "x");
    let (first, rest) = request.split_at(30);
    // In all longer than either deadline, but nothing of it is slow.
    for _ in 0..5 {
        peer.send(first);
        thread::sleep(Duration::from_millis(20));
        peer.send(rest);
        assert_eq!(peer.answer().status, 200);
        thread::sleep(Duration::from_millis(100));
    }
}
