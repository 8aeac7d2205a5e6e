//! Attempts over real sockets, with peers of every kind on the other end.

use std::{
    convert::Infallible,
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use hookmill_actors::{
    domain::{
        event::{Arrival, Event},
        headers::HeaderBlock,
        ids::{EndpointId, EventId, IntegrationId},
        limits::REPLY_EXCERPT_BYTES,
    },
    ports::transport::Verdict,
};
use http_body_util::BodyExt;
use hyper::{Response, StatusCode, Version, body::Incoming, header::RETRY_AFTER, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::{RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::{super::egress::OwnAddresses, *};

const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const NOW_MS: u64 = 1_767_225_600_123;
const BODY: &[u8] = b"{\"a\": \"\xff\x00 not quite JSON\"}\r\n";

// The destination.

fn http(own: &[SocketAddr]) -> Http {
    with_egress(loopback(own), None)
}

fn with_egress(egress: Egress, tls: Option<ClientConfig>) -> Http {
    let egress = Arc::new(egress);
    let connector = Connector::new(Arc::clone(&egress));
    Http::with_tls(egress, connector, HttpDefaults::default(), tls.unwrap_or_else(common_tls))
}

fn loopback(own: &[SocketAddr]) -> Egress {
    let allow = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    Egress::new(allow, OwnAddresses::new(own.iter().copied()))
}

fn transport(http: &Http, settings: Value) -> Arc<dyn Transport> {
    let Value::Object(settings) = settings else { panic!("settings are an object") };
    let secret = Secret::new(format!("whsec_{}", STANDARD.encode(KEY)));
    http.build(&settings, Credentials::default(), &secret).unwrap_or_else(|error| panic!("{error}"))
}

fn consignment(headers: &[(&str, &str)]) -> Consignment {
    let arrival = Arrival {
        endpoint: EndpointId(1),
        received_at_ms: NOW_MS - 5,
        accepted_version: 1,
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        hops: 0,
        query: "secret=hush".into(),
        headers: HeaderBlock::from_lines(headers.iter().map(|(name, value)| (*name, value.as_bytes()))),
        body: Bytes::from_static(BODY),
    };
    let id = EventId::from_parts(u128::from(NOW_MS) << 26, IntegrationId(3), 77);
    Consignment { event: Arc::new(Event { id, arrival }), attempt: 1, replay: false, event_type: None, rendered: None }
}

/// One attempt to `url`, short of patience.
async fn attempt(url: &str) -> AttemptReport {
    let transport = transport(&http(&[]), json!({ "url": url, "timeout_ms": 400, "connect_timeout_ms": 300 }));
    transport.attempt(consignment(&[]), NOW_MS).await
}

fn error_of(report: &AttemptReport) -> &str {
    report.error.as_deref().expect("a failure says why")
}

const RETRY: Verdict = Verdict::Retry { after: None };

// The peers.

/// What a peer saw of a request.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    target: String,
    version: Version,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone, Default)]
struct Peer {
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Peer {
    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Serves HTTP, over TLS if asked, and answers every request with what `answer` makes.
    async fn start(
        tls: Option<ServerConfig>,
        answer: impl Fn() -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
    ) -> (SocketAddr, Self) {
        let peer = Self::default();
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let this = peer.clone();
        let address = listen(move |stream| {
            this.connections.fetch_add(1, Ordering::Relaxed);
            let (this, tls, answer) = (this.clone(), tls.clone(), answer.clone());
            async move {
                match tls {
                    None => this.serve(TokioIo::new(stream), answer).await,
                    // A client that does not trust us hangs up.
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            this.serve(TokioIo::new(stream), answer).await;
                        }
                    }
                }
            }
        })
        .await;
        (address, peer)
    }

    async fn serve(
        self,
        io: impl hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
        answer: impl Fn() -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
    ) {
        let service = service_fn(move |request: Request<Incoming>| {
            let (peer, answer) = (self.clone(), answer.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
                let seen = Seen { method: head.method, target, version: head.version, headers: head.headers, body };
                peer.seen.lock().unwrap().push(seen);
                Ok::<_, Infallible>(answer())
            }
        });
        let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
    }
}

/// Accepts connections and gives each to a task.
async fn listen<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(stream));
        }
    });
    address
}

/// Reads a request's head, then behaves as `answer` says.
async fn raw_peer<F>(answer: impl Fn(TcpStream) -> F + Clone + Send + Sync + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let address = listen(move |mut stream| {
        let answer = answer.clone();
        async move {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            answer(stream).await;
        }
    })
    .await;
    format!("http://{address}/")
}

fn reply(status: u16, headers: &[(HeaderName, &'static str)], body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn attempt_answered(
    status: u16,
    headers: &'static [(HeaderName, &'static str)],
    body: &'static str,
) -> AttemptReport {
    let (address, _) = Peer::start(None, move || reply(status, headers, body)).await;
    attempt(&format!("http://{address}/")).await
}

// What is sent.

#[tokio::test]
async fn the_request_is_the_event_signed() {
    let (address, peer) = Peer::start(None, || reply(204, &[], "")).await;
    let http = http(&[]);
    let transport = transport(&http, json!({ "url": format!("http://{address}/hooks/in?key=1") }));
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut sent = consignment(&[
        ("Content-Type", "text/x-odd; a=\"b\""),
        ("traceparent", parent),
        ("authorization", "Bearer hush"),
        ("stripe-signature", "t=1"),
        ("webhook-id", "theirs"),
        ("host", "theirs"),
    ]);
    sent.attempt = 3;
    sent.replay = true;
    let report = transport.attempt(sent.clone(), NOW_MS).await;
    let timings = report.timings;
    assert!(timings.connected.unwrap() <= timings.answered.unwrap(), "{timings:?}");
    assert_eq!(
        report,
        AttemptReport { verdict: Verdict::Delivered, status: Some(204), error: None, reply: None, timings }
    );

    let seen = peer.seen().remove(0);
    assert_eq!((seen.method, seen.target.as_str(), seen.version), (Method::POST, "/hooks/in?key=1", Version::HTTP_11));
    assert_eq!(seen.body, BODY);
    let header = |name: &str| seen.headers[name].to_str().unwrap();
    let id = sent.event.id.to_string();
    assert_eq!(header("host"), address.to_string());
    assert_eq!(header("content-type"), "text/x-odd; a=\"b\"");
    assert_eq!(header("content-length"), BODY.len().to_string());
    assert_eq!(header("user-agent"), format!("hookmill/{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(header("webhook-id"), id);
    assert_eq!(header("webhook-timestamp"), "1767225600");
    assert_eq!(header("hookmill-hops"), "1");
    assert_eq!(header("hookmill-attempt"), "3");
    assert_eq!(header("hookmill-replay"), "true");

    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(KEY).unwrap();
    mac.update(&[id.as_bytes(), b".1767225600.", BODY].concat());
    assert_eq!(header("webhook-signature"), format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())));

    let trace = header("traceparent");
    assert!(trace.starts_with(&parent[..36]) && trace.ends_with("-01") && trace.len() == 55, "{trace}");
    assert_ne!(trace, parent, "the span is ours");
    assert_eq!(seen.headers.len(), 11, "nothing else is forwarded: {:?}", seen.headers);
}

#[tokio::test]
async fn each_attempt_has_its_own_span_in_the_events_trace() {
    let (address, peer) = Peer::start(None, || reply(200, &[], "")).await;
    let http = http(&[]);
    let transport = transport(&http, json!({ "url": format!("http://{address}") }));
    let mut sent = consignment(&[]);
    Arc::get_mut(&mut sent.event).unwrap().arrival.hops = u8::MAX;
    for _ in 0..2 {
        transport.attempt(sent.clone(), NOW_MS).await;
    }
    let [first, second] = &peer.seen()[..] else { panic!("two attempts") };
    let traces = [&first.headers["traceparent"], &second.headers["traceparent"]].map(|trace| trace.to_str().unwrap());
    let event = sent.event.id.to_string().replace('-', "");
    assert!(traces.iter().all(|trace| trace.starts_with(&format!("00-{event}-"))), "{traces:?}");
    assert_ne!(traces[0], traces[1]);
    assert_eq!(first.headers["content-type"], "application/octet-stream");
    assert_eq!(first.headers["hookmill-hops"], "256");
    assert!(!first.headers.contains_key("hookmill-replay"));
    assert_eq!(first.target, "/");
}

#[tokio::test]
async fn destinations_share_connections_and_replies_are_drained() {
    let (address, peer) = Peer::start(None, || reply(200, &[], "thank you")).await;
    let http = http(&[]);
    for path in ["a", "b", "a", "b"] {
        let transport = transport(&http, json!({ "url": format!("http://{address}/{path}") }));
        assert_eq!(transport.attempt(consignment(&[]), NOW_MS).await.verdict, Verdict::Delivered);
    }
    assert_eq!((peer.seen().len(), peer.connections()), (4, 1));
}

#[tokio::test]
async fn an_attempt_waits_briefly_where_many_are_under_way_and_is_made_all_the_same() {
    let (address, peer) = Peer::start(None, || Response::new(Full::default())).await;
    let http = http(&[]);
    let url = format!("http://{address}/orders");
    let others = http.servers.places(&url.parse().unwrap());
    let mut taken = Vec::new();
    for _ in 0..client::IDLE_CONNECTIONS_MAX {
        taken.push(others.take().await.expect("nobody is there yet"));
    }
    let transport = transport(&http, json!({ "url": format!("http://{address}/bills") }));
    let began = Instant::now();
    let report = transport.attempt(consignment(&[]), NOW_MS).await;
    assert_eq!((report.verdict, peer.seen().len()), (Verdict::Delivered, 1));
    assert!(began.elapsed() >= places::WAIT_MAX, "{:?}", began.elapsed());
}

// What answers mean.

#[tokio::test]
async fn only_2xx_is_delivered_and_410_is_gone() {
    for status in [200, 201, 202, 204, 299] {
        let report = attempt_answered(status, &[], "").await;
        assert_eq!((report.verdict, report.status, report.error), (Verdict::Delivered, Some(status), None));
    }
    for status in [300, 304, 400, 401, 404, 408, 422, 429, 500, 502, 503, 504] {
        let report = attempt_answered(status, &[], "").await;
        assert_eq!((report.verdict, report.status), (RETRY, Some(status)));
        assert!(error_of(&report).contains(&status.to_string()), "{report:?}");
    }
    let report = attempt_answered(410, &[], "").await;
    assert_eq!((report.verdict, report.status), (Verdict::Gone, Some(410)));
}

#[tokio::test]
async fn a_failures_reply_is_kept_cut_and_clean() {
    let report = attempt_answered(500, &[], "no\r\n\x1b[2Jdatabase").await;
    assert_eq!(error_of(&report), "the destination answered 500 Internal Server Error");
    assert_eq!(report.reply.as_deref(), Some("no\\r\\n\\u{1b}[2Jdatabase"));
    assert_eq!(attempt_answered(200, &[], "fine").await.reply, None);
}

#[tokio::test]
async fn retry_after_is_understood_in_both_forms() {
    let after = |seconds| Verdict::Retry { after: Some(Duration::from_secs(seconds)) };
    assert_eq!(attempt_answered(429, &[(RETRY_AFTER, "120")], "").await.verdict, after(120));
    // NOW_MS is Thu, 01 Jan 2026 00:00:00.123 GMT.
    let report = attempt_answered(503, &[(RETRY_AFTER, "Thu, 01 Jan 2026 00:01:00 GMT")], "").await;
    assert_eq!(report.verdict, Verdict::Retry { after: Some(Duration::from_millis(59_877)) });
    assert_eq!(attempt_answered(503, &[(RETRY_AFTER, "later")], "").await.verdict, RETRY);
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let (target, followed) = Peer::start(None, || reply(200, &[], "")).await;
    let location: &'static str = format!("http://{target}/?token=hush").leak();
    let (address, _) = Peer::start(None, move || reply(307, &[(hyper::header::LOCATION, location)], "")).await;
    let report = attempt(&format!("http://{address}/")).await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).ends_with("redirects are not followed (this one leads to `127.0.0.1`)"), "{report:?}");
    assert!(followed.seen().is_empty());
}

// Peers that misbehave.

#[tokio::test]
async fn a_peer_that_never_answers_is_left_in_time() {
    let url = raw_peer(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let report = attempt(&url).await;
    assert_eq!((report.verdict, error_of(&report)), (RETRY, "no answer within 400 ms"));
}

#[tokio::test]
async fn a_success_stands_though_its_body_never_ends_or_breaks() {
    let endless = raw_peer(|mut stream| async move {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut sent = stream.write_all(head).await;
        while sent.is_ok() {
            sent = stream.write_all(b"5\r\nhello\r\n").await;
        }
    });
    let stalled = raw_peer(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhel").await;
        std::future::pending::<()>().await;
    });
    let huge = raw_peer(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\nhel").await;
        std::future::pending::<()>().await;
    });
    let broken = raw_peer(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhel").await;
    });
    for url in [endless.await, stalled.await, huge.await, broken.await] {
        let report = attempt(&url).await;
        assert_eq!((report.verdict, report.status), (Verdict::Delivered, Some(200)));
    }
}

#[tokio::test]
async fn an_endless_failure_is_read_no_further_than_its_bound() {
    let (sent, mut total) = tokio::sync::mpsc::channel(1_024);
    let url = raw_peer(move |mut stream| {
        let sent = sent.clone();
        async move {
            let _ = stream.write_all(b"HTTP/1.1 500 x\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
            let mut bytes = 0;
            while stream.write_all(chunk.as_bytes()).await.is_ok() {
                bytes += chunk.len();
            }
            let _ = sent.send(bytes).await;
        }
    })
    .await;
    let report = attempt(&url).await;
    assert_eq!((report.verdict, report.status), (RETRY, Some(500)));
    assert_eq!(report.reply.unwrap(), "x".repeat(REPLY_EXCERPT_BYTES));
    // The connection was dropped: the peer ends, having written little more than the sockets' buffers hold.
    assert!(total.recv().await.unwrap() < 16 << 20);
}

#[tokio::test]
async fn connections_that_break_are_told_apart() {
    let closed = raw_peer(|stream| async move { drop(stream) });
    assert_eq!(error_of(&attempt(&closed.await).await), "the connection was closed before an answer came");

    let reset = raw_peer(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 O").await;
        // SO_LINGER 0 makes the close a reset.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    assert_eq!(error_of(&attempt(&reset.await).await), "connection reset");

    let nonsense = raw_peer(|mut stream| async move {
        let _ = stream.write_all(b"220 smtp.example ESMTP\r\n").await;
    });
    let report = attempt(&nonsense.await).await;
    assert!(error_of(&report).starts_with("the answer is not HTTP"), "{report:?}");

    let big_head = raw_peer(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-long: ").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    assert_eq!(error_of(&attempt(&big_head.await).await), "the answer's head is too large");

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let report = attempt(&format!("http://{free}/?hush")).await;
    assert_eq!((report.verdict, report.status, error_of(&report)), (RETRY, None, "connection refused"));

    let report = attempt("http://no-such-name.invalid/").await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).starts_with("the host's name does not resolve"), "{report:?}");
}

#[tokio::test]
async fn opening_a_connection_has_a_time_of_its_own() {
    let tcp_only = listen(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    });
    let report = attempt(&format!("https://{}/", tcp_only.await)).await;
    assert_eq!((report.verdict, error_of(&report)), (RETRY, "no connection within 300 ms"));
}

// Egress.

#[tokio::test]
async fn a_name_that_leads_inside_waits_and_names_the_setting() {
    let (address, peer) = Peer::start(None, || reply(200, &[], "")).await;
    let http = with_egress(Egress::default(), None);
    let transport = transport(&http, json!({ "url": format!("http://localhost:{}/", address.port()) }));
    let report = transport.attempt(consignment(&[]), NOW_MS).await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).contains("is a loopback address and not in `egress.allow`"), "{report:?}");
    assert_eq!(peer.connections(), 0);
}

#[tokio::test]
async fn hookmill_itself_is_refused_for_good() {
    let (address, peer) = Peer::start(None, || reply(200, &[], "")).await;
    let http = http(&[address]);
    let transport = transport(&http, json!({ "url": format!("http://localhost:{}/", address.port()) }));
    let report = transport.attempt(consignment(&[]), NOW_MS).await;
    assert_eq!(report.verdict, Verdict::Refused);
    assert!(error_of(&report).contains("hookmill's own address"), "{report:?}");
    assert_eq!(peer.connections(), 0);
}

#[test]
fn a_denied_address_is_refused_with_the_settings() {
    let own = "127.0.0.1:8080".parse().unwrap();
    let http = http(&[own]);
    let problem = |url: &str| {
        let Value::Object(settings) = json!({ "url": url }) else { unreachable!() };
        http.validate(&settings, Credentials::default()).map_err(|error| error.to_string())
    };
    assert_eq!(problem("http://127.0.0.1:8081/"), Ok(()));
    assert_eq!(problem("https://intern.example/"), Ok(()), "names are judged when they are connected to");
    assert_eq!(
        problem("http://169.254.169.254/latest/"),
        Err("`url`: 169.254.169.254 is a cloud metadata service and not in `egress.allow`".to_owned())
    );
    assert!(problem("http://[::ffff:10.0.0.1]/").unwrap_err().contains("egress.allow"));
    assert_eq!(
        problem("http://127.0.0.1:8080/"),
        Err("`url`: 127.0.0.1:8080 is hookmill's own address, which is never delivered to".to_owned())
    );
}

// TLS.

/// A server's and a trusting client's side of a self-signed certificate for `localhost`.
fn tls(alpn: &[&[u8]]) -> (ServerConfig, ClientConfig) {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    server.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server, client)
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused() {
    let (server, client) = tls(&[]);
    let (address, peer) = Peer::start(Some(server), || reply(200, &[], "")).await;

    let report = attempt(&format!("https://localhost:{}/", address.port())).await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).starts_with("certificate not trusted: "), "{report:?}");

    let trusting = with_egress(loopback(&[]), Some(client));
    let wrong_name = transport(&trusting, json!({ "url": format!("https://{address}/") }));
    let report = wrong_name.attempt(consignment(&[]), NOW_MS).await;
    assert!(error_of(&report).starts_with("certificate not trusted: certificate not valid for name"), "{report:?}");
    assert!(peer.seen().is_empty());
}

#[tokio::test]
async fn https_speaks_what_was_negotiated() {
    for (alpn, version) in [(&[b"h2".as_slice(), b"http/1.1"][..], Version::HTTP_2), (&[], Version::HTTP_11)] {
        let (server, client) = tls(alpn);
        let (address, peer) = Peer::start(Some(server), || reply(200, &[], "ok")).await;
        let http = with_egress(loopback(&[]), Some(client));
        let transport = transport(&http, json!({ "url": format!("https://localhost:{}/in", address.port()) }));
        for _ in 0..2 {
            let report = transport.attempt(consignment(&[]), NOW_MS).await;
            assert_eq!(report.verdict, Verdict::Delivered, "{report:?}");
        }
        let seen = peer.seen();
        assert_eq!((seen.len(), peer.connections()), (2, 1));
        assert!(seen.iter().all(|seen| seen.version == version && seen.body == BODY && seen.target == "/in"));
        assert_eq!(seen[0].headers.contains_key("host"), version == Version::HTTP_11);
    }
}
