//! Messages in the streams of a real NATS server.

use std::time::Duration;

use futures_util::future::join_all;
use hookmill_actors::ports::transport::Verdict;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::{
    peers::Server,
    redis_stream::delivered_within,
    registry::{BODY, NOW_MS, RETRY, build, consignment, destinations, error_of, rendered, transport},
};

/// Asks the server's API, as its command line does: the payload of the answer.
async fn ask(server: &Server, sign_in: &str, subject: &str, body: &str) -> Value {
    let stream = TcpStream::connect(server.address()).await.unwrap();
    ask_on(stream, sign_in, subject, body).await
}

/// The same on a connection that stands.
pub(crate) async fn ask_on(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    sign_in: &str,
    subject: &str,
    body: &str,
) -> Value {
    let mut stream = BufReader::new(stream);
    let connect = format!("CONNECT {{\"verbose\":false{sign_in}}}\r\nSUB answers 1\r\n");
    let publish = format!("PUB {subject} answers {}\r\n{body}\r\n", body.len());
    stream.write_all(format!("{connect}{publish}").as_bytes()).await.unwrap();
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).await.unwrap() > 0, "the server hung up");
        assert!(!line.starts_with("-ERR"), "{line}");
        if let Some(rest) = line.strip_prefix("MSG ") {
            let length = rest.split_ascii_whitespace().last().unwrap().parse().unwrap();
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            return serde_json::from_slice(&payload).unwrap();
        }
    }
}

async fn stream(server: &Server, sign_in: &str, more: Value) {
    let mut config = json!({"name": "HOOKS", "subjects": ["webhooks.>"], "storage": "memory"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = ask(server, sign_in, "$JS.API.STREAM.CREATE.HOOKS", &config.to_string()).await;
    assert!(made["error"].is_null(), "{made}");
}

async fn messages(server: &Server) -> u64 {
    ask(server, "", "$JS.API.STREAM.INFO.HOOKS", "").await["state"]["messages"].as_u64().unwrap()
}

async fn message(server: &Server, number: u64) -> (String, Vec<u8>) {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let asked = json!({ "seq": number }).to_string();
    let found = ask(server, "", "$JS.API.STREAM.MSG.GET.HOOKS", &asked).await;
    let decode = |name: &str| STANDARD.decode(found["message"][name].as_str().unwrap_or_default()).unwrap();
    (String::from_utf8(decode("hdrs")).unwrap(), decode("data"))
}

fn settings(server: &Server, more: &Value) -> Value {
    let mut settings = json!({"url": format!("nats://{}", server.address()), "subject": "webhooks.shop"});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

#[tokio::test]
async fn a_message_holds_the_event_and_a_second_copy_is_dropped_by_the_stream() {
    let server = Server::nats(&[]);
    stream(&server, "", json!({})).await;
    let transport = transport("nats", settings(&server, &json!({})), None);
    for _ in 0..2 {
        let report = transport.attempt(consignment(1), NOW_MS).await;
        assert_eq!((report.verdict, report.error), (Verdict::Delivered, None));
        assert!(report.timings.connected.unwrap() <= report.timings.answered.unwrap());
    }
    assert_eq!(messages(&server).await, 1);
    let (headers, data) = message(&server, 1).await;
    assert_eq!(data, BODY);
    let id = consignment(1).event.id;
    for line in [format!("Nats-Msg-Id: {id}"), format!("webhook-id: {id}"), "content-type: text/odd".to_owned()] {
        assert!(headers.contains(&format!("{line}\r\n")), "{headers}");
    }
    assert!(!headers.contains("hush"));

    let sent = rendered(2, b"{\"made\":1}", &[("X-Team", "billing")]);
    assert_eq!(transport.attempt(sent, NOW_MS).await.verdict, Verdict::Delivered);
    let (headers, data) = message(&server, 2).await;
    assert_eq!(data, b"{\"made\":1}");
    assert!(headers.contains("x-team: billing\r\n") && headers.contains("hookmill-event-type: payment.succeeded\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_attempts_share_one_connection() {
    let server = Server::nats(&[]);
    stream(&server, "", json!({})).await;
    let transport = transport("nats", settings(&server, &json!({})), None);
    let reports = join_all((0..2_000).map(|number| transport.attempt(consignment(number), NOW_MS))).await;
    assert!(
        reports.iter().all(|report| report.verdict == Verdict::Delivered),
        "{:?}",
        reports.iter().find(|it| it.error.is_some())
    );
    assert_eq!(messages(&server).await, 2_000);
}

#[tokio::test]
async fn a_subject_without_a_stream_waits_and_is_told() {
    let server = Server::nats(&[]);
    let transport = transport("nats", settings(&server, &json!({})), None);
    let report = transport.attempt(consignment(1), NOW_MS).await;
    assert_eq!(report.verdict, RETRY);
    assert_eq!(error_of(&report), "no stream takes the subject `webhooks.shop`; make one, or correct it");
    stream(&server, "", json!({"max_msgs": 1, "discard": "new"})).await;
    assert_eq!(transport.attempt(consignment(1), NOW_MS).await.verdict, Verdict::Delivered);
    let report = transport.attempt(consignment(2), NOW_MS).await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).contains("maximum messages exceeded"), "{report:?}");
}

#[tokio::test]
async fn sign_in_is_by_credentials_and_said_when_it_fails() {
    let token = Server::nats(&["--auth", "planted-token"]);
    stream(&token, ",\"auth_token\":\"planted-token\"", json!({})).await;
    let user = Server::nats(&["--user", "ada", "--pass", "planted-password"]);
    stream(&user, ",\"user\":\"ada\",\"pass\":\"planted-password\"", json!({})).await;
    let attempt = async |server: &Server, credentials: Option<Value>| {
        let transport = transport("nats", settings(server, &json!({})), credentials);
        transport.attempt(consignment(1), NOW_MS).await
    };
    assert_eq!(attempt(&token, Some(json!({"token": "planted-token"}))).await.verdict, Verdict::Delivered);
    let ada = json!({"username": "ada", "password": "planted-password"});
    assert_eq!(attempt(&user, Some(ada)).await.verdict, Verdict::Delivered);
    for (server, credentials) in [
        (&token, None),
        (&token, Some(json!({"token": "planted-wrong"}))),
        (&user, Some(json!({"username": "ada", "password": "planted-wrong"}))),
    ] {
        let report = attempt(server, credentials).await;
        assert_eq!(report.verdict, RETRY);
        assert!(error_of(&report).starts_with("NATS refused the sign-in: Authorization Violation"), "{report:?}");
        assert!(!format!("{report:?}").contains("planted"));
    }
}

#[tokio::test]
async fn what_the_server_never_takes_is_refused() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = dir.path().join("nats.conf");
    std::fs::write(&config, "max_payload: 256\n").unwrap();
    let server = Server::nats(&["--config", &config.display().to_string()]);
    let transport = transport("nats", settings(&server, &json!({})), None);
    let report = transport.attempt(consignment(1), NOW_MS).await;
    assert_eq!(report.verdict, Verdict::Refused);
    assert!(error_of(&report).contains("takes 256"), "{report:?}");
}

#[tokio::test]
async fn a_permission_that_is_missing_is_told() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = dir.path().join("nats.conf");
    let users =
        "authorization { users = [ { user: ada, password: planted, permissions: { publish: \"other.>\" } } ] }\n";
    std::fs::write(&config, users).unwrap();
    let server = Server::nats(&["--config", &config.display().to_string()]);
    let credentials = json!({"username": "ada", "password": "planted"});
    let transport = transport("nats", settings(&server, &json!({})), Some(credentials));
    let report = transport.attempt(consignment(1), NOW_MS).await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).contains("Permissions Violation for Publish"), "{report:?}");
}

#[tokio::test]
async fn a_server_that_goes_and_comes_back_is_found_again() {
    let mut server = Server::nats(&[]);
    stream(&server, "", json!({"storage": "file"})).await;
    let transport = transport("nats", settings(&server, &json!({"timeout_ms": 500})), None);
    assert_eq!(transport.attempt(consignment(1), NOW_MS).await.verdict, Verdict::Delivered);
    server.kill();
    let report = transport.attempt(consignment(2), NOW_MS).await;
    assert_eq!(report.verdict, RETRY, "{report:?}");
    server.restart();
    delivered_within(Duration::from_secs(10), &*transport).await;
    server.freeze(true);
    let report = transport.attempt(consignment(3), NOW_MS).await;
    assert_eq!((report.verdict, error_of(&report)), (RETRY, "no answer within 500 ms"));
    server.freeze(false);
    delivered_within(Duration::from_secs(5), &*transport).await;
}

#[tokio::test]
async fn a_peer_that_is_no_nats_is_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let settings = json!({"url": format!("nats://{address}"), "subject": "a"});
    let report = transport("nats", settings, None).attempt(consignment(1), NOW_MS).await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).contains("does not speak NATS"), "{report:?}");
}

#[test]
fn settings_are_read_strictly() {
    let registry = destinations(None);
    let refused = |settings: Value, credentials: Value| {
        build(&registry, "nats", settings, Some(credentials)).err().unwrap().field
    };
    let url = "nats://nats.example";
    assert_eq!(refused(json!({"subject": "a"}), json!({})), "url");
    assert_eq!(refused(json!({"url": "nats://169.254.169.254", "subject": "a"}), json!({})), "url");
    assert_eq!(refused(json!({"url": url}), json!({})), "subject");
    assert_eq!(refused(json!({"url": url, "subject": "a.>"}), json!({})), "subject");
    assert_eq!(refused(json!({"url": url, "subject": "a", "stream": "b"}), json!({})), "stream");
    assert_eq!(refused(json!({"url": url, "subject": "a"}), json!({"nkey": "x"})), "credentials.nkey");
    let both = json!({"token": "x", "username": "a", "password": "b"});
    assert_eq!(refused(json!({"url": url, "subject": "a"}), both), "credentials.token");
}
