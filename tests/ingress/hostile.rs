//! Hostile HTTP is refused, and nothing behind it is served.

use std::{net::Shutdown, thread, time::Duration};

use hookmill::ingress::IngressOptions;
use hookmill_actors::metrics::Totals;

use crate::bench::*;

#[test]
fn ambiguous_requests_are_refused_and_nothing_behind_them_is_served() {
    let bench = start();
    let behind = post("/orders", "smuggled");
    let signed = |line: &str| format!("{line}\r\nHost: a\r\nX-Signature: good\r\n\r\n");
    let table = [
        framed("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n",
        framed("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n") + "0\r\n\r\n",
        framed("Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n",
        framed("Transfer-Encoding: chunked, identity\r\n") + "0\r\n\r\n",
        framed("Transfer-Encoding: xchunked\r\n") + "0\r\n\r\n",
        framed("Transfer-Encoding : chunked\r\n") + "0\r\n\r\n",
        framed("Transfer-Encoding:\u{b}chunked\r\n") + "0\r\n\r\n",
        framed("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n") + "0\r\n\r\n",
        framed("Content-Length: 1\r\nContent-Length: 1\r\n") + "x",
        framed("Content-Length: 1\r\nContent-Length: 2\r\n") + "x",
        framed("Content-Length: 1, 1\r\n") + "x",
        framed("Content-Length: +1\r\n") + "x",
        framed("Content-Length: 1 1\r\n") + "x",
        framed("Content-Length: -1\r\n"),
        framed("Content-Length: 18446744073709551616\r\n"),
        framed("Host: b\r\n"),
        framed("Host: a\r\n"),
        framed("X: a\r\n folded: b\r\n"),
        framed("X: a\nY: b\r\n"),
        framed("X: a\rY: b\r\n"),
        framed("X\0: a\r\n"),
        framed("X: a\0\r\n"),
        framed("X\r\n"),
        framed(": x\r\n"),
        "POST /webhooks/receive/orders HTTP/1.1\r\nX-Signature: good\r\n\r\n".to_owned(),
        signed("POST http://a/webhooks/receive/orders HTTP/1.1"),
        signed("POST webhooks/receive/orders HTTP/1.1"),
        signed("POST  /webhooks/receive/orders HTTP/1.1"),
        signed("POST /webhooks/receive/orders  HTTP/1.1"),
        signed("POST /webhooks/receive/orders HTTP/9.9"),
        signed("POST /webhooks/receive/orders HTTP/2.0"),
        signed("POST /webhooks/receive/orders"),
        signed("POST /webhooks/receive/orders#x HTTP/1.1"),
        signed("POST /webhooks/receive/orders HTTP/1.1").replace("\r\n", "\n"),
        signed("CONNECT a:443 HTTP/1.1"),
        signed("OPTIONS * HTTP/1.1"),
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{7c}\u{3}\u{3} not TLS here\r\n\r\n".to_owned(),
        "\0\0\0\0\r\n\r\n".to_owned(),
        "\n\n\n\n".to_owned(),
    ];
    let count = 2 * table.len() as u64;
    for (request, is_split) in table.iter().flat_map(|request| [(request, false), (request, true)]) {
        let mut peer = bench.connect();
        let bytes = request.clone() + &behind;
        let (first, rest) = bytes.split_at(if is_split { request.len() - 2 } else { 0 });
        if is_split {
            peer.send(first);
            thread::sleep(Duration::from_millis(3));
        }
        peer.send(rest);
        let answer = peer.answer_to("POST").unwrap_or_else(|| panic!("an answer to {request:?}"));
        answer.is(400, "bad_request");
        assert!(answer.closes(), "{request:?}");
        peer.stream.shutdown(Shutdown::Write).unwrap();
        assert!(peer.is_closed(), "{request:?}");
    }
    assert!(bench.log.events().is_empty());
    assert_eq!(bench.totals(), Totals { bad_request: count, ..Totals::default() });
    assert!(bench.is_alive());
}

#[test]
fn malformed_chunks_are_refused() {
    let bench = start();
    for body in
        ["x\r\n", "3\r\nabcd\r\n", "3\nabc\n", "3 \r\nabc\r\n", "0\r\nA: b\n\r\n", "fffffffffffffffff\r\n", "-3\r\n"]
    {
        for is_split in [false, true] {
            let mut peer = bench.connect();
            let (head, body) =
                (framed("Transfer-Encoding: chunked\r\n"), body.to_owned() + &post("/orders", "smuggled"));
            if is_split {
                peer.send(head);
                thread::sleep(Duration::from_millis(10));
                peer.send(body);
            } else {
                peer.send(head + &body);
            }
            let answer = peer.answer();
            answer.is(400, "bad_request");
            assert!(answer.closes() && peer.is_closed(), "{is_split}");
        }
    }
    // A body that breaks off is no event.
    let mut peer = bench.connect();
    peer.send(framed("Content-Length: 5\r\n") + "ab");
    peer.stream.shutdown(Shutdown::Write).unwrap();
    peer.answer().is(400, "bad_request");
    assert!(bench.log.events().is_empty());
    assert_eq!(bench.totals(), Totals { bad_request: 15, ..Totals::default() });
    assert!(bench.is_alive());
}

#[test]
fn what_came_before_the_fault_is_served() {
    let bench = start();
    let mut peer = bench.connect();
    peer.send(post("/orders", "one") + "GET / HTTP/1.1\r\n\r\n" + &post("/orders", "smuggled"));
    assert_eq!(peer.answer().status, 200);
    peer.answer().is(400, "bad_request");
    assert!(peer.is_closed());
    assert_eq!(bench.log.events().len(), 1);
}

#[test]
fn noise_never_gets_a_2xx() {
    let bench = start_with(IngressOptions { head_timeout: Duration::from_millis(50), ..options() });
    let good = post("/orders", "body").into_bytes();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    for round in 0..200 {
        let mut bytes = good.clone();
        for _ in 0..random(8) {
            let at = random(bytes.len());
            bytes[at] = u8::try_from(random(256)).unwrap();
        }
        // A control character in the method, so that no mutation is by chance a good request; not a line end, which
        // may stand before one.
        bytes[random(4)] = u8::try_from(14 + random(18)).unwrap();
        let mut peer = bench.connect();
        peer.send(&bytes);
        let answer = peer.answer_to("POST").unwrap_or_else(|| panic!("round {round}: no answer to {bytes:?}"));
        assert!((400..500).contains(&answer.status), "round {round}: {answer:?} to {bytes:?}");
    }
    assert!(bench.log.events().is_empty());
    assert!(bench.is_alive());
}
