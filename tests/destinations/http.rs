//! Requests to real servers: methods, headers, signatures, client certificates and proxies.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use hookmill_actors::ports::transport::Verdict;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    authority::Authority,
    registry::{BODY, NOW_MS, RETRY, SIGNING_SECRET, consignment, error_of, rendered, transport},
};

/// A request as a server saw it.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    headers: hyper::HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

#[derive(Clone, Default)]
struct Service(Arc<Mutex<Vec<Seen>>>);

impl Service {
    fn last(&self) -> Seen {
        self.0.lock().unwrap().last().expect("something was received").clone()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    async fn start(tls: Option<ServerConfig>) -> (SocketAddr, Self) {
        let service = Self::default();
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = service.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (this, tls) = (this.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => this.serve(TokioIo::new(stream)).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                this.serve(TokioIo::new(stream)).await;
                            }
                        }
                    }
                });
            }
        });
        (address, service)
    }

    async fn serve(&self, io: impl hyper::rt::Read + hyper::rt::Write + Unpin) {
        let seen = self.0.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let seen = seen.clone();
            async move {
                let (head, body) = request.into_parts();
                let line = format!("{} {}", head.method, head.uri);
                let body = body.collect().await?.to_bytes();
                seen.lock().unwrap().push(Seen { line, headers: head.headers, body });
                Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from_static(b"ok"))))
            }
        });
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await;
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).unwrap();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

#[tokio::test]
async fn method_headers_and_rendered_parts_are_sent_and_signed() {
    let (address, service) = Service::start(None).await;
    let url = format!("http://{address}/in?x=1");
    let settings = json!({"url": url, "method": "PUT", "headers": {"X-Team": "billing", "user-agent": "ours/1"}});
    let transport = transport("http", settings, None);
    let sent = rendered(7, b"{\"made\":1}", &[("X-Kind", "a"), ("x-team", "other"), ("hookmill-test", "true")]);
    let report = transport.attempt(sent.clone(), NOW_MS).await;
    assert_eq!(report.verdict, Verdict::Delivered, "{report:?}");
    let seen = service.last();
    assert_eq!((seen.line.as_str(), &seen.body[..]), ("PUT /in?x=1", &b"{\"made\":1}"[..]));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("user-agent"), Some("ours/1"));
    assert_eq!(seen.header("x-kind"), Some("a"));
    assert_eq!(seen.header("x-team"), Some("other"), "the subscription's own goes over the destination's");
    assert_eq!(seen.header("hookmill-test"), Some("true"));
    let key = STANDARD.decode(SIGNING_SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let head = format!("{}.{}.", sent.event.id, NOW_MS / 1000);
    let signature = STANDARD.encode(mac::<Hmac<sha2::Sha256>>(&key, &[head.as_bytes(), b"{\"made\":1}"]));
    assert_eq!(seen.header("webhook-signature"), Some(format!("v1,{signature}").as_str()));

    let report = transport.attempt(rendered(8, b"x", &[("webhook-id", "forged")]), NOW_MS).await;
    assert_eq!(report.verdict, Verdict::Refused);
    assert!(error_of(&report).contains("`webhook-id` is set by hookmill itself"), "{report:?}");
    assert_eq!(service.count(), 1);
}

#[tokio::test]
async fn every_method_carries_the_body() {
    let (address, service) = Service::start(None).await;
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let settings = json!({"url": format!("http://{address}/orders/7"), "method": method});
        let report = transport("http", settings, None).attempt(consignment(1), NOW_MS).await;
        assert_eq!(report.verdict, Verdict::Delivered, "{method}: {report:?}");
        let seen = service.last();
        assert_eq!((seen.line, &seen.body[..]), (format!("{method} /orders/7"), BODY));
    }
}

#[tokio::test]
async fn every_way_to_sign_in_adds_its_header() {
    let (address, service) = Service::start(None).await;
    let url = format!("http://{address}/in");
    let sign_in = async |auth: Value, credentials: Value| {
        let transport = transport("http", json!({"url": url, "auth": auth}), Some(credentials));
        assert_eq!(transport.attempt(consignment(1), NOW_MS).await.verdict, Verdict::Delivered);
        service.last()
    };
    let seen = sign_in(json!({"type": "bearer"}), json!({"token": "t0k3n"})).await;
    assert_eq!(seen.header("authorization"), Some("Bearer t0k3n"));
    let seen = sign_in(json!({"type": "basic"}), json!({"username": "Aladdin", "password": "open sesame"})).await;
    // The example of RFC 7617.
    assert_eq!(seen.header("authorization"), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
    let api_key = json!({"type": "api_key", "header": "X-Api-Key", "prefix": "key "});
    let seen = sign_in(api_key, json!({"api_key": "k"})).await;
    assert_eq!((seen.header("x-api-key"), seen.header("authorization")), (Some("key k"), None));

    let (secret, seconds) = ("0123456789abcdef", (NOW_MS / 1000).to_string());
    let key = secret.as_bytes();
    let seen = sign_in(json!({"type": "hmac"}), json!({"secret": secret})).await;
    assert_eq!(seen.header("x-signature"), Some(hex::encode(mac::<Hmac<sha2::Sha256>>(key, &[BODY])).as_str()));
    let auth = json!({"type": "hmac", "header": "X-Hub", "algorithm": "sha512", "encoding": "base64", "prefix": "v0=",
                      "template": "v0:{timestamp}:{body}", "timestamp_header": "X-Time"});
    let seen = sign_in(auth, json!({"secret": secret})).await;
    let signed = mac::<Hmac<sha2::Sha512>>(key, &[b"v0:", seconds.as_bytes(), b":", BODY]);
    assert_eq!(seen.header("x-hub"), Some(format!("v0={}", STANDARD.encode(signed)).as_str()));
    assert_eq!(seen.header("x-time"), Some(seconds.as_str()));
    let auth = json!({"type": "hmac", "algorithm": "sha1", "template": "{method} {url} {id} {body}"});
    let seen = sign_in(auth, json!({"secret": secret})).await;
    let head = format!("POST {url} {} ", consignment(1).event.id);
    let signed = mac::<Hmac<sha1::Sha1>>(key, &[head.as_bytes(), BODY]);
    assert_eq!(seen.header("x-signature"), Some(hex::encode(signed).as_str()));
}

// TLS.

#[tokio::test]
async fn a_client_certificate_and_an_authority_of_one_s_own() {
    let authority = Authority::new();
    let (address, service) = Service::start(Some(authority.server())).await;
    let url = format!("https://localhost:{}/in", address.port());
    let attempt = async |settings: Value, credentials: Option<Value>| {
        transport("http", settings, credentials).attempt(consignment(1), NOW_MS).await
    };
    let trusting = json!({"url": url, "ca": authority.pem});
    let report = attempt(trusting.clone(), Some(authority.client())).await;
    assert_eq!(report.verdict, Verdict::Delivered, "{report:?}");
    assert_eq!(service.last().body, BODY);

    let report = attempt(json!({"url": url}), Some(authority.client())).await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).starts_with("certificate not trusted"), "{report:?}");
    assert_eq!(attempt(trusting.clone(), None).await.verdict, RETRY, "without a certificate nobody comes in");
    let stranger = Authority::new().client();
    assert_eq!(attempt(trusting, Some(stranger)).await.verdict, RETRY, "nor with one of somebody else");
    let other = json!({"url": url, "ca": Authority::new().pem});
    assert!(error_of(&attempt(other, None).await).starts_with("certificate not trusted"));
    assert_eq!(service.count(), 1);
}

// Proxies.

/// A proxy that notes what it was asked for, and wants that `proxy-authorization` where one is given.
async fn proxy(wanted: Option<&'static str>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let heads = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let heads = heads.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                heads.lock().unwrap().push(head.clone());
                let lower = head.to_ascii_lowercase();
                if wanted
                    .is_some_and(|it| !lower.contains(&format!("proxy-authorization: {}", it.to_ascii_lowercase())))
                {
                    let _ = stream
                        .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
                        .await;
                    return;
                }
                let target = head.split_ascii_whitespace().nth(1).unwrap();
                let authority = target.trim_start_matches("http://").split('/').next().unwrap();
                // Its names are its own: the test's servers are all on loopback.
                let port = authority.rsplit(':').next().unwrap();
                let Ok(mut onward) = TcpStream::connect(format!("127.0.0.1:{port}")).await else { return };
                if head.starts_with("CONNECT ") {
                    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                } else {
                    onward.write_all(head.as_bytes()).await.unwrap();
                }
                let _ = copy_bidirectional(&mut stream, &mut onward).await;
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_proxy_gets_whole_urls_for_http_and_tunnels_for_https() {
    let authority = Authority::new();
    let (plain, plain_service) = Service::start(None).await;
    let (secure, secure_service) = Service::start(Some(authority.server())).await;
    let (address, asked) = proxy(Some("Basic dXNlcjpwYXNz")).await;
    let proxy = format!("http://{address}");
    let signed_in = json!({"proxy_username": "user", "proxy_password": "pass"});

    // The name resolves for the proxy alone.
    let settings = json!({"url": format!("http://inside.invalid:{}/in", plain.port()), "proxy": proxy});
    let report = transport("http", settings.clone(), Some(signed_in.clone())).attempt(consignment(1), NOW_MS).await;
    assert_eq!(report.verdict, Verdict::Delivered, "{report:?}");
    let head = asked.lock().unwrap().pop().unwrap();
    assert!(head.starts_with(&format!("POST http://inside.invalid:{}/in HTTP/1.1\r\n", plain.port())), "{head}");
    assert_eq!(plain_service.last().body, BODY);
    let report = transport("http", settings, None).attempt(consignment(1), NOW_MS).await;
    assert_eq!((report.verdict, report.status), (RETRY, Some(407)));
    assert_eq!(error_of(&report), "the proxy answered 407 Proxy Authentication Required");

    let url = format!("https://localhost:{}/in", secure.port());
    let settings = json!({"url": url, "proxy": proxy, "ca": authority.pem});
    let mut credentials = authority.client();
    credentials.as_object_mut().unwrap().extend(signed_in.as_object().unwrap().clone());
    let report = transport("http", settings.clone(), Some(credentials)).attempt(consignment(1), NOW_MS).await;
    assert_eq!(report.verdict, Verdict::Delivered, "{report:?}");
    let head = asked.lock().unwrap().pop().unwrap();
    assert!(head.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", secure.port())), "{head}");
    let seen = secure_service.last();
    assert_eq!((seen.line.as_str(), seen.header("proxy-authorization")), ("POST /in", None));
    let report = transport("http", settings, Some(authority.client())).attempt(consignment(1), NOW_MS).await;
    assert_eq!(report.verdict, RETRY);
    assert_eq!(error_of(&report), "the proxy opened no tunnel: proxy authorization required");
}

#[tokio::test]
async fn a_proxy_that_is_down_is_told_from_a_destination_that_is() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for scheme in ["http", "https"] {
        let settings = json!({"url": format!("{scheme}://127.0.0.1:9/"), "proxy": format!("http://{gone}")});
        let report = transport("http", settings, None).attempt(consignment(1), NOW_MS).await;
        assert_eq!(report.verdict, RETRY);
        assert_eq!(error_of(&report), "the proxy cannot be reached: connection refused", "{scheme}");
    }
}

#[tokio::test]
async fn a_proxy_lies_within_the_egress_rules_and_opens_no_way_around_them() {
    use hookmill::destinations::{Destinations, Egress, HttpDefaults};
    let strict = Destinations::new(Egress::default(), HttpDefaults::default(), None);
    let build = |settings: Value| crate::registry::build(&strict, "http", settings, None);
    let (address, asked) = proxy(None).await;
    let refused = build(json!({"url": "https://a.example/", "proxy": format!("http://{address}")})).err().unwrap();
    assert!(refused.field == "proxy" && refused.problem.contains("egress.allow"), "{refused}");
    let named = json!({"url": "https://a.example/", "proxy": format!("http://localhost:{}", address.port())});
    let report = build(named).unwrap().attempt(consignment(1), NOW_MS).await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).contains("egress.allow"), "{report:?}");
    let around = build(json!({"url": "http://169.254.169.254/", "proxy": "http://proxy.example:3128"})).err().unwrap();
    assert!(around.field == "url" && around.problem.contains("metadata"), "{around}");
    assert!(asked.lock().unwrap().is_empty());
}
