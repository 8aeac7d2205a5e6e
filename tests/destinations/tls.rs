//! A Redis and a NATS server behind TLS: who is trusted, and who is not.

use hookmill_actors::ports::transport::{AttemptReport, Verdict};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
};

use crate::{
    authority::Authority,
    nats::ask_on,
    peers::{Server, free_port},
    redis_stream::entries,
    registry::{BODY, NOW_MS, RETRY, build, consignment, destinations, error_of, transport},
};

async fn attempt(kind: &str, settings: Value, credentials: Option<Value>) -> AttemptReport {
    transport(kind, settings, credentials).attempt(consignment(1), NOW_MS).await
}

/// A Redis with a port for TLS, and one in clear for the test's own questions.
struct TlsRedis {
    server: Server,
    port: u16,
    authority: Authority,
    _files: TempDir,
}

impl TlsRedis {
    fn start(name: &str) -> Self {
        let (authority, files, port) = (Authority::new(), TempDir::new().unwrap(), free_port());
        let (certificate, key) = authority.files(files.path(), name);
        let tls_port = port.to_string();
        let server = Server::redis(&[
            "--tls-port",
            &tls_port,
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-auth-clients",
            "no",
        ]);
        Self { server, port, authority, _files: files }
    }

    async fn attempt(&self, url: String, ca: Option<&str>) -> AttemptReport {
        let mut settings = json!({"url": url, "stream": "webhooks", "timeout_ms": 3_000});
        if let Some(ca) = ca {
            settings["ca"] = ca.into();
        }
        attempt("redis_stream", settings, None).await
    }
}

#[tokio::test]
async fn a_redis_is_reached_by_tls_and_only_where_its_certificate_is_trusted() {
    let redis = TlsRedis::start("localhost");
    let own = redis.authority.pem.as_str();
    let url = format!("rediss://localhost:{}", redis.port);
    let report = redis.attempt(url.clone(), Some(own)).await;
    assert_eq!((report.verdict, report.error), (Verdict::Delivered, None));

    for (what, url, ca) in [
        ("nobody the public knows", url.clone(), None),
        ("somebody else's authority", url.clone(), Some(Authority::new().pem.as_str())),
        ("another name", format!("rediss://127.0.0.1:{}", redis.port), Some(own)),
    ] {
        let report = redis.attempt(url, ca).await;
        assert_eq!(report.verdict, RETRY, "{what}");
        assert!(error_of(&report).starts_with("certificate not trusted"), "{what}: {report:?}");
    }
    for (what, url) in [
        ("TLS to a port in clear", format!("rediss://localhost:{}", redis.server.port)),
        ("in clear to a port with TLS", format!("redis://localhost:{}", redis.port)),
    ] {
        let ca = url.starts_with("rediss").then_some(own);
        let report = redis.attempt(url, ca).await;
        assert_eq!(report.verdict, RETRY, "{what}");
        assert!(!error_of(&report).is_empty(), "{what}: {report:?}");
    }
    let found = entries(&redis.server, "webhooks").await;
    assert_eq!(found.len(), 1, "what was not trusted was not written to");
    assert_eq!(found[0].iter().find(|(name, _)| name == "body").unwrap().1, BODY);
}

#[tokio::test]
async fn a_certificate_may_be_for_an_address() {
    let redis = TlsRedis::start("127.0.0.1");
    let url = format!("rediss://127.0.0.1:{}", redis.port);
    assert_eq!(redis.attempt(url, Some(&redis.authority.pem)).await.verdict, Verdict::Delivered);
}

/// Asks a NATS server that takes nothing but TLS.
async fn ask_nats(server: &Server, authority: &Authority, subject: &str, body: &str) -> Value {
    let mut stream = BufReader::new(TcpStream::connect(server.address()).await.unwrap());
    let mut greeting = String::new();
    stream.read_line(&mut greeting).await.unwrap();
    assert!(greeting.contains("\"tls_required\":true"), "{greeting}");
    let name = ServerName::try_from("localhost").unwrap();
    let stream = authority.connector().connect(name, stream.into_inner()).await.unwrap();
    ask_on(stream, ",\"user\":\"ada\",\"pass\":\"planted-password\"", subject, body).await
}

#[tokio::test]
async fn a_nats_server_is_reached_by_tls_and_only_where_its_certificate_is_trusted() {
    let (authority, files) = (Authority::new(), TempDir::new().unwrap());
    let (certificate, key) = authority.files(files.path(), "localhost");
    let arguments =
        ["--user", "ada", "--pass", "planted-password", "--tls", "--tlscert", &certificate, "--tlskey", &key];
    let server = Server::nats(&arguments);
    let stream = json!({"name": "HOOKS", "subjects": ["webhooks.>"], "storage": "memory"}).to_string();
    let made = ask_nats(&server, &authority, "$JS.API.STREAM.CREATE.HOOKS", &stream).await;
    assert!(made["error"].is_null(), "{made}");

    let attempt = async |url: String, ca: Option<&str>| {
        let mut settings = json!({"url": url, "subject": "webhooks.shop", "timeout_ms": 3_000});
        if let Some(ca) = ca {
            settings["ca"] = ca.into();
        }
        attempt("nats", settings, Some(json!({"username": "ada", "password": "planted-password"}))).await
    };
    let url = format!("tls://localhost:{}", server.port);
    let report = attempt(url.clone(), Some(&authority.pem)).await;
    assert_eq!((report.verdict, report.error), (Verdict::Delivered, None));
    for (what, url, ca) in [
        ("nobody the public knows", url.clone(), None),
        ("nor where only the server asks for TLS", format!("nats://localhost:{}", server.port), None),
        ("somebody else's authority", url, Some(Authority::new().pem.as_str())),
        ("another name", format!("tls://127.0.0.1:{}", server.port), Some(authority.pem.as_str())),
    ] {
        let report = attempt(url, ca).await;
        assert_eq!(report.verdict, RETRY, "{what}");
        assert!(error_of(&report).starts_with("certificate not trusted"), "{what}: {report:?}");
        assert!(!format!("{report:?}").contains("planted"), "{what}");
    }
    let info = ask_nats(&server, &authority, "$JS.API.STREAM.INFO.HOOKS", "").await;
    assert_eq!(info["state"]["messages"], 1, "what was not trusted was not written to");
}

#[tokio::test]
async fn a_nats_server_in_clear_is_not_taken_for_one_with_tls() {
    let (server, authority) = (Server::nats(&[]), Authority::new());
    let url = format!("tls://localhost:{}", server.port);
    let settings = json!({"url": url, "subject": "webhooks.shop", "ca": authority.pem, "timeout_ms": 1_000});
    let report = attempt("nats", settings, Some(json!({"token": "planted-token"}))).await;
    assert_eq!(report.verdict, RETRY);
    assert!(!format!("{report:?}").contains("planted"), "{report:?}");
}

#[test]
fn authorities_are_read_strictly() {
    let registry = destinations(None);
    let pem = Authority::new().pem;
    for (kind, clear, tls, more) in
        [("redis_stream", "redis", "rediss", ("stream", "s")), ("nats", "nats", "tls", ("subject", "s"))]
    {
        let made = |scheme: &str, ca: &str| {
            let settings = json!({"url": format!("{scheme}://peer.example"), more.0: more.1, "ca": ca});
            build(&registry, kind, settings, None)
        };
        assert!(made(tls, &pem).is_ok());
        for (scheme, ca, words) in [
            (clear, pem.as_str(), tls),
            (tls, "no certificate", "PEM"),
            (tls, "", "0 bytes"),
            (tls, &"x".repeat(13_000), "bytes"),
        ] {
            let refused = made(scheme, ca).err().unwrap();
            assert!(refused.field == "ca" && refused.problem.contains(words), "{kind}: {refused}");
        }
    }
}
