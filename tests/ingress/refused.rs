//! What is handed on of refused requests, and what is never stored of any.

use hookmill::ingress::IngressOptions;
use hookmill_actors::{domain::ids::EndpointId, ports::event_log::LogError};

use crate::{bench::*, ports::*};

#[test]
fn what_was_sent_to_a_path_that_exists_is_handed_on_with_its_cause() {
    let bench = start();
    let request = |path: &str, headers: &str, body: &str| {
        let length = body.len();
        bench.ask(format!(
            "POST /webhooks/receive{path} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        ));
        bench.refused.take()
    };
    let bad = request("/orders?a=1", "X-Signature: bad\r\n", "{}");
    assert_eq!((bad.len(), bad[0].cause, bad[0].endpoint), (1, "invalid_signature", EndpointId(1)));
    assert_eq!((bad[0].method.as_str(), bad[0].target.as_str()), ("POST", "/webhooks/receive/orders?a=1"));
    assert_eq!((bad[0].body.as_slice(), bad[0].body_whole), (b"{}".as_slice(), true));
    assert_eq!(bad[0].reason, "no active secret gives this signature");
    assert_eq!(bad[0].headers.all("x-signature").next(), Some(b"bad".as_slice()));
    let missing = request("/orders", "", "{}");
    assert_eq!((missing[0].cause, missing[0].reason.as_str()), ("missing_signature", "no `x-signature` header"));
    let large = request("/small", "X-Signature: good\r\n", "01234567890");
    assert_eq!((large[0].cause, large[0].body_whole, large[0].body.len()), ("body_too_large", false, 0));
    let circle = request("/orders", "Hookmill-Hops: 5\r\nX-Signature: good\r\n", "{}");
    assert_eq!(circle[0].cause, "too_many_hops");
    bench.ask("GET /webhooks/receive/greeted?challenge=no HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(bench.refused.take()[0].cause, "handshake_refused");
    bench.ask("PUT /webhooks/receive/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(bench.refused.take()[0].cause, "method_not_allowed");
}

#[test]
fn what_is_nobodys_and_what_comes_again_is_not() {
    let bench = start();
    bench.ask(post("/orders", "x"));
    bench.ask(post("/nobody", "x")).is(404, "not_found");
    bench.ask(post("/inactive", "x")).is(404, "not_found");
    bench.log.is(Mood::Refuses(LogError::QueueFull));
    bench.ask(post("/orders", "x")).is(503, "queue_full");
    bench.log.is(Mood::Fails(LogError::DiskFull));
    bench.ask(post("/orders", "x")).is(503, "disk_full");
    bench.log.is(Mood::Stores);
    let limited: Vec<u16> = (0..5).map(|_| bench.ask(post("/limited", "x")).status).collect();
    assert!(limited.contains(&429), "{limited:?}");
    assert!(bench.refused.take().is_empty());
}

#[test]
fn redacted_headers_are_stored_nowhere_but_a_signature_stays() {
    let names = ["authorization", "x-api-key", "x-signature"].map(str::to_owned).to_vec();
    let bench = start_with(IngressOptions { redacted_headers: names, ..options() });
    let ask = |path: &str, signature: &str| {
        bench.ask(format!(
            "POST /webhooks/receive{path} HTTP/1.1\r\nHost: a\r\nAuthorization: planted\r\nX-Api-Key: planted\r\nX-Open: open\r\n\
             X-Signature: {signature}\r\nContent-Length: 2\r\n\r\n{{}}"
        ))
    };
    assert_eq!(ask("/orders", "good").status, 200);
    let headers = bench.log.events()[0].arrival.headers.clone();
    for (name, value) in [("authorization", "***"), ("x-api-key", "***"), ("x-signature", "***"), ("x-open", "open")] {
        assert_eq!(headers.all(name).collect::<Vec<_>>(), [value.as_bytes()], "{name}");
    }
    // The same name is kept where the endpoint says that its signature is there.
    assert_eq!(ask("/named", "good").status, 200);
    let headers = bench.log.events()[1].arrival.headers.clone();
    assert_eq!(headers.all("x-signature").next(), Some(b"good".as_slice()));
    assert_eq!(headers.all("authorization").next(), Some(b"***".as_slice()));
    ask("/orders", "bad").is(401, "invalid_signature");
    let refused = bench.refused.take();
    assert_eq!(refused[0].headers.all("authorization").next(), Some(b"***".as_slice()));
}
