//! Bounds on bodies and heads.

use hookmill::ingress::IngressOptions;
use hookmill_actors::metrics::Totals;

use crate::{bench::*, ports::*};

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let bench = start();
    for (path, length) in [("/orders", 1_001_u64), ("/small", 11), ("/orders", 999_999_999_999)] {
        let mut peer = bench.connect();
        let expect = "Expect: 100-continue";
        peer.send(format!(
            "POST /webhooks/receive{path} HTTP/1.1\r\nHost: a\r\n{expect}\r\nContent-Length: {length}\r\n\r\n"
        ));
        let answer = peer.answer();
        answer.is(413, "body_too_large");
        assert!(answer.closes() && peer.is_closed());
    }
    // The peer may be in the middle of sending; it hears the answer all the same.
    bench.ask(post("/small", &"x".repeat(500_000))).is(413, "body_too_large");
    assert_eq!(bench.ask(post("/small", "0123456789")).status, 200);
    assert_eq!(bench.ask(post("/orders", &"x".repeat(1_000))).status, 200);
}

#[test]
fn an_expected_body_is_asked_for() {
    let bench = start();
    let mut peer = bench.connect();
    peer.send(framed("Expect: 100-continue\r\nContent-Length: 3\r\n"));
    assert_eq!(peer.answer().status, 100);
    peer.send("abc");
    assert_eq!(peer.answer().status, 200);
}

#[test]
fn a_chunked_body_over_the_limit_is_refused_while_it_comes() {
    let bench = start();
    let mut peer = bench.connect();
    peer.send(framed("Transfer-Encoding: chunked\r\n").replace("/orders", "/small") + "6\r\nabcdef\r\n");
    peer.send("6\r\nabcdef\r\n");
    let answer = peer.answer();
    answer.is(413, "body_too_large");
    assert!(answer.closes() && peer.is_closed());
    assert!(bench.log.events().is_empty());
}

#[test]
fn bytes_in_flight_are_bounded() {
    let bench = start_with(IngressOptions { body_bytes_in_flight_max: 1_500, ..options() });
    bench.log.is(Mood::Waits);
    let mut first = bench.connect();
    first.send(post("/orders", &"x".repeat(1_000)));
    bench.log.until_events(1);
    bench.ask(post("/orders", &"x".repeat(1_000))).is(503, "busy");
    bench.log.release();
    assert_eq!(first.answer().status, 200);
    bench.log.is(Mood::Stores);
    assert_eq!(bench.ask(post("/orders", &"x".repeat(1_000))).status, 200);
}

#[test]
fn heads_over_a_limit() {
    let bench = start();
    let long = "x".repeat(9_000);
    bench.ask(post(&format!("/{long}"), "x")).is(414, "target_too_long");
    bench.ask(post(&format!("/{}", &long[..4_090]), "x")).is(414, "target_too_long");
    bench.ask(post(&format!("/{}", &long[..4_000]), "x")).is(404, "not_found");
    bench.ask(post_with(&format!("X-Long: {long}\r\n"), "x")).is(431, "headers_too_large");
    bench.ask(post_with(&"a: b\r\n".repeat(99), "x")).is(431, "headers_too_large");
    bench.ask(post_with(&format!("a: {}\r\n", &long[..8_000]).repeat(5), "x")).is(431, "headers_too_large");
    // An endless line is refused as it comes, and so are endless lines.
    bench.ask("GET /".to_owned() + &long).is(414, "target_too_long");
    bench.ask("GET / HTTP/1.1\r\n".to_owned() + &"a: b\r\n".repeat(10_000)).is(431, "headers_too_large");
    assert_eq!(bench.ask(post_with(&("X-Signature: good\r\n".to_owned() + &"a: b\r\n".repeat(97)), "x")).status, 200);
    assert!(bench.is_alive());
    assert_eq!(bench.totals().bad_request, 7);
}

#[test]
fn a_refused_request_is_refused_once() {
    let bench = start();
    let mut peer = bench.connect();
    let chunks = "6\r\nabcdef\r\n6\r\nabcdef\r\nnot a chunk\r\n";
    peer.send(framed("Transfer-Encoding: chunked\r\n").replace("/orders", "/small") + chunks);
    let answer = peer.answer();
    assert!([400, 413].contains(&answer.status), "{answer:?}");
    assert!(answer.closes() && peer.is_closed());
    assert_eq!(bench.totals(), Totals { bad_request: 1, ..Totals::default() });
}

#[test]
fn a_limited_path_says_what_is_left_and_when_to_come_back() {
    let bench = start();
    let told = |answer: &Answer| {
        let number = |name| answer.header(name).and_then(|text| text.parse::<u64>().ok());
        (number("x-ratelimit-limit"), number("x-ratelimit-remaining"), number("x-ratelimit-reset").is_some())
    };
    // What is not genuine takes nothing of it.
    for _ in 0..5 {
        let forged = post("/limited", "x").replace("good", "bad");
        bench.ask(forged).is(401, "invalid_signature");
    }
    let began = std::time::Instant::now();
    for _ in 0..3 {
        let answer = bench.ask(post("/limited", "x"));
        assert_eq!((answer.status, told(&answer).0), (200, Some(3)));
    }
    let refused = bench.ask(post("/limited", "x"));
    assert!(began.elapsed().as_secs() < 1, "too slow to tell");
    refused.is(429, "rate_limited");
    assert_eq!((refused.header("retry-after"), told(&refused)), (Some("1"), (Some(3), Some(0), true)));
    assert!(!refused.closes());
    assert_eq!(bench.totals().rate_limited, 1);
    assert_eq!(bench.log.events().len(), 3);
    let other = bench.ask(post("/orders", "x"));
    assert_eq!((other.status, other.header("x-ratelimit-limit")), (200, None));
    std::thread::sleep(std::time::Duration::from_millis(1_050));
    assert_eq!(bench.ask(post("/limited", "x")).status, 200);
}
