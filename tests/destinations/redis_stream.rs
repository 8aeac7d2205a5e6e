//! Entries in the streams of a real Redis.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hookmill_actors::ports::transport::{Transport, Verdict};
use serde_json::{Value, json};

use crate::{
    peers::Server,
    registry::{BODY, NOW_MS, RETRY, consignment, error_of, rendered, transport},
};

/// Asks the Redis itself.
async fn ask(server: &Server, command: &[&str]) -> redis::RedisResult<redis::Value> {
    let client = redis::Client::open(format!("redis://{}", server.address())).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut asked = redis::cmd(command[0]);
    for argument in &command[1..] {
        asked.arg(*argument);
    }
    asked.query_async(&mut connection).await
}

pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// The entries' fields, oldest first.
pub(crate) async fn entries(server: &Server, stream: &str) -> Vec<Fields> {
    let found = ask(server, &["XRANGE", stream, "-", "+"]).await.unwrap();
    let found: Vec<(String, Fields)> = redis::from_redis_value(found).unwrap();
    found.into_iter().map(|(_, fields)| fields).collect()
}

fn settings(server: &Server, more: &Value) -> Value {
    let mut settings = json!({"url": format!("redis://{}", server.address()), "stream": "webhooks"});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

#[tokio::test]
async fn an_entry_holds_the_event_byte_for_byte() {
    let server = Server::redis(&[]);
    let transport = transport("redis_stream", settings(&server, &json!({})), None);
    let report = transport.attempt(consignment(1), NOW_MS).await;
    assert_eq!((report.verdict, report.error), (Verdict::Delivered, None));
    assert!(report.timings.connected.unwrap() <= report.timings.answered.unwrap());
    let sent = rendered(2, b"{\"made\":1}", &[("X-Team", "billing")]);
    assert_eq!(transport.attempt(sent, NOW_MS).await.verdict, Verdict::Delivered);

    let found = entries(&server, "webhooks").await;
    let text = |index: usize, name: &str| {
        let field = found[index].iter().find(|(field, _)| field == name);
        field.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    assert_eq!(found[0].iter().find(|(name, _)| name == "body").unwrap().1, BODY);
    assert_eq!(text(0, "id"), Some(consignment(1).event.id.to_string()));
    assert_eq!(text(0, "content_type").as_deref(), Some("text/odd"));
    assert_eq!(text(0, "received_at"), Some((NOW_MS - 5).to_string()));
    assert_eq!((text(0, "integration").as_deref(), text(0, "attempt").as_deref()), (Some("3"), Some("1")));
    assert_eq!((text(0, "type"), text(0, "headers"), text(0, "replay")), (None, None, None));
    assert!(!format!("{found:?}").contains("hush"));
    assert_eq!(text(1, "type").as_deref(), Some("payment.succeeded"));
    assert_eq!(text(1, "body").as_deref(), Some("{\"made\":1}"));
    assert_eq!(text(1, "content_type").as_deref(), Some("application/json"));
    assert_eq!(text(1, "headers").as_deref(), Some("{\"x-team\":\"billing\"}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_attempts_share_one_connection() {
    let server = Server::redis(&[]);
    let transport = transport("redis_stream", settings(&server, &json!({"maxlen": 100_000})), None);
    let before: u64 = connections_received(&server).await;
    let reports = join_all((0..2_000).map(|number| transport.attempt(consignment(number), NOW_MS))).await;
    assert!(
        reports.iter().all(|report| report.verdict == Verdict::Delivered),
        "{:?}",
        reports.iter().find(|it| it.error.is_some())
    );
    assert_eq!(entries(&server, "webhooks").await.len(), 2_000);
    // One for the attempts, one for each question of the test itself.
    assert_eq!(connections_received(&server).await - before, 3);
}

async fn connections_received(server: &Server) -> u64 {
    let info: String = redis::from_redis_value(ask(server, &["INFO", "stats"]).await.unwrap()).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn a_long_stream_is_trimmed() {
    let server = Server::redis(&[]);
    let transport = transport("redis_stream", settings(&server, &json!({"maxlen": 100})), None);
    for round in 0..10 {
        join_all((0..100).map(|number| transport.attempt(consignment(round * 100 + number), NOW_MS))).await;
    }
    let kept = entries(&server, "webhooks").await.len();
    assert!((100..=300).contains(&kept), "{kept}");
}

#[tokio::test]
async fn sign_in_is_by_credentials_and_said_when_it_fails() {
    let server = Server::redis(&["--requirepass", "planted-password"]);
    let attempt = async |credentials: Option<Value>| {
        let transport = transport("redis_stream", settings(&server, &json!({})), credentials);
        transport.attempt(consignment(1), NOW_MS).await
    };
    assert_eq!(attempt(Some(json!({"password": "planted-password"}))).await.verdict, Verdict::Delivered);
    let user = json!({"username": "default", "password": "planted-password"});
    assert_eq!(attempt(Some(user)).await.verdict, Verdict::Delivered);
    let report = attempt(None).await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).contains("set `credentials`"), "{report:?}");
    let report = attempt(Some(json!({"password": "planted-wrong"}))).await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).contains("does not know this user and password"), "{report:?}");
    assert!(!format!("{report:?}").contains("planted"));
}

#[tokio::test]
async fn what_redis_refuses_is_told_and_tried_again() {
    let server = Server::redis(&[]);
    let transport = transport("redis_stream", settings(&server, &json!({})), None);
    let attempt = async || transport.attempt(consignment(1), NOW_MS).await;
    ask(&server, &["SET", "webhooks", "taken"]).await.unwrap();
    let report = attempt().await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).contains("something other than a stream"), "{report:?}");
    ask(&server, &["DEL", "webhooks"]).await.unwrap();

    ask(&server, &["CONFIG", "SET", "maxmemory", "1"]).await.unwrap();
    let report = attempt().await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).contains("`maxmemory`"), "{report:?}");
    ask(&server, &["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();

    ask(&server, &["REPLICAOF", "127.0.0.1", "1"]).await.unwrap();
    let report = attempt().await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).contains("is a replica"), "{report:?}");
    ask(&server, &["REPLICAOF", "NO", "ONE"]).await.unwrap();

    ask(&server, &["ACL", "SETUSER", "reader", "on", ">planted", "~*", "+@read"]).await.unwrap();
    let credentials = json!({"username": "reader", "password": "planted"});
    let reader = crate::registry::transport("redis_stream", settings(&server, &json!({})), Some(credentials));
    let report = reader.attempt(consignment(1), NOW_MS).await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).contains("may not run XADD"), "{report:?}");
    assert_eq!(attempt().await.verdict, Verdict::Delivered);
}

#[tokio::test]
async fn a_redis_that_goes_and_comes_back_is_found_again() {
    let mut server = Server::redis(&[]);
    let transport = transport("redis_stream", settings(&server, &json!({"timeout_ms": 500})), None);
    assert_eq!(transport.attempt(consignment(1), NOW_MS).await.verdict, Verdict::Delivered);
    server.kill();
    let report = transport.attempt(consignment(2), NOW_MS).await;
    assert_eq!(report.verdict, RETRY, "{report:?}");
    let report = transport.attempt(consignment(2), NOW_MS).await;
    assert!(error_of(&report).contains("connection refused"), "{report:?}");
    server.restart();
    delivered_within(Duration::from_secs(5), &*transport).await;

    // The connection stands, but nothing comes back on it.
    server.freeze(true);
    let report = transport.attempt(consignment(3), NOW_MS).await;
    assert_eq!((report.verdict, error_of(&report)), (RETRY, "no answer within 500 ms"));
    server.freeze(false);
    delivered_within(Duration::from_secs(5), &*transport).await;
}

pub(crate) async fn delivered_within(limit: Duration, transport: &dyn Transport) {
    let began = Instant::now();
    loop {
        let report = transport.attempt(consignment(9), NOW_MS).await;
        if report.verdict == Verdict::Delivered {
            return;
        }
        assert!(began.elapsed() < limit, "{report:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn addresses_are_held_to_the_egress_rules() {
    use hookmill::destinations::{Destinations, Egress, HttpDefaults};
    let server = Server::redis(&[]);
    let strict = Destinations::new(Egress::default(), HttpDefaults::default(), None);
    let build = |url: String| crate::registry::build(&strict, "redis_stream", json!({"url": url, "stream": "s"}), None);
    let refused = build(format!("redis://{}", server.address())).err().unwrap();
    assert!(refused.field == "url" && refused.problem.contains("egress.allow"), "{refused}");
    // A name is judged when it is connected to.
    let report = build(format!("redis://localhost:{}", server.port)).unwrap().attempt(consignment(1), NOW_MS).await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).contains("egress.allow"), "{report:?}");
}

#[test]
fn settings_are_read_strictly() {
    let registry = crate::registry::destinations(None);
    let refused = |settings: Value, credentials: Value| {
        crate::registry::build(&registry, "redis_stream", settings, Some(credentials)).err().unwrap().field
    };
    let url = "redis://cache.example";
    assert_eq!(refused(json!({"stream": "s"}), json!({})), "url");
    assert_eq!(refused(json!({"url": "redis://:hush@cache.example", "stream": "s"}), json!({})), "url");
    assert_eq!(refused(json!({"url": "redis://cache.example/x", "stream": "s"}), json!({})), "url");
    assert_eq!(refused(json!({"url": "http://cache.example", "stream": "s"}), json!({})), "url");
    assert_eq!(refused(json!({"url": url}), json!({})), "stream");
    assert_eq!(refused(json!({"url": url, "stream": "s", "maxlen": 0}), json!({})), "maxlen");
    assert_eq!(refused(json!({"url": url, "stream": "s", "password": "x"}), json!({})), "password");
    assert_eq!(refused(json!({"url": url, "stream": "s"}), json!({"token": "x"})), "credentials.token");
    assert_eq!(refused(json!({"url": url, "stream": "s"}), json!({"username": "x"})), "credentials.password");
}
