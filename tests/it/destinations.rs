//! Other destinations than HTTP, and the test of a destination, through the whole product.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Hookmill, Sink, status, wait_for};

/// A Redis on a free port, stopped when dropped.
pub(crate) struct Redis(Child, pub(crate) u16);

impl Redis {
    pub(crate) fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--requirepass",
                "planted-password",
                "--port",
                &port.to_string(),
            ])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is there; else run .ci/setup");
        Self(child, port)
    }

    async fn entries(&self) -> usize {
        let client = redis::Client::open(format!("redis://:planted-password@127.0.0.1:{}", self.1)).unwrap();
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return 0 };
        redis::cmd("XLEN").arg("webhooks").query_async(&mut connection).await.unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn subscribe(hookmill: &Hookmill, integration: u64, destination: &Value) {
    let subscription = json!({"integration_id": integration, "destination_id": destination["id"],
                              "name": destination["name"], "retry": {"schedule_s": [1, 1, 1, 1, 1, 1, 1, 1]}});
    hookmill.create("/subscriptions", subscription).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_into_a_stream_a_file_and_nowhere() {
    let (redis, files) = (Redis::start(), TempDir::new().unwrap());
    let config = files.path().join("hookmill.toml");
    let folder = files.path().join("files");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&config, format!("[destinations]\nfile_directory = \"{}\"\n", folder.display())).unwrap();
    let hookmill = Hookmill::start_with(&["--dev", "--config", &config.display().to_string()]);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    let stream = hookmill
        .create(
            "/destinations",
            json!({"name": "stream", "type": "redis_stream", "credentials": {"password": "planted-password"},
                   "settings": {"url": format!("redis://localhost:{}", redis.1), "stream": "webhooks"},
                   "limits": {"rate": {"per_second": 1000}}}),
        )
        .await;
    assert_eq!(stream["credentials"], json!({"password": "***"}));
    assert_eq!(stream["limits"]["rate"]["per_second"], 1000);
    let file = json!({"name": "file", "type": "file", "settings": {"path": "shop/orders.jsonl", "fsync": "always"}});
    let file = hookmill.create("/destinations", file).await;
    let store = hookmill.create("/destinations", json!({"name": "store", "type": "store", "settings": {}})).await;
    for destination in [&stream, &file, &store] {
        subscribe(&hookmill, integration, destination).await;
    }
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(hookmill.post_signed("orders", &format!("{{\"n\":{number}}}")).await);
    }
    let last = ids[19].clone();
    let event = wait_for("all deliveries of the last event", async || {
        let event = hookmill.get(&format!("/events/{last}")).await;
        let deliveries = event["deliveries"].as_array().unwrap().clone();
        deliveries.iter().all(|delivery| delivery["status"] == "delivered").then_some(event)
    })
    .await;
    assert_eq!(event["deliveries"].as_array().unwrap().len(), 3);
    wait_for("the entries", async || (redis.entries().await == 20).then_some(())).await;
    let path = folder.join("shop/orders.jsonl");
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    wait_for("the lines", async || (lines().len() == 20).then_some(())).await;

    // After a crash it goes on in the same file, a torn line mended.
    let torn = std::fs::read(&path).unwrap();
    let stopped = hookmill.kill();
    std::fs::write(&path, [&torn[..], b"{\"id\":\"0"].concat()).unwrap();
    let hookmill = stopped.start();
    let id = hookmill.post_signed("orders", "{\"n\":20}").await;
    wait_for("the line of the last event", async || {
        let text = std::fs::read_to_string(&path).unwrap();
        text.ends_with('\n').then_some(())?;
        lines().iter().any(|line| line["id"] == id.as_str()).then_some(())
    })
    .await;
    assert!(lines().iter().filter(|line| line["id"] == ids[0].as_str()).count() >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_test_says_what_happens_and_stores_no_event() {
    let (hookmill, sink) = (Hookmill::start(), Sink::start().await);
    let settings = json!({"url": format!("http://{}/hook", sink.address), "auth": {"type": "bearer"}});
    let destination = json!({"name": "sink", "settings": settings, "credentials": {"token": "planted-token"}});
    let id = hookmill.create("/destinations", destination.clone()).await["id"].clone();
    let path = format!("/destinations/{id}/test");

    let tested = hookmill.admin(Method::POST, &path, None).await;
    assert_eq!(tested.status, StatusCode::OK, "{:?}", tested.body);
    let tested = tested.json();
    assert_eq!(
        (&tested["verdict"], &tested["status"], &tested["error"]),
        (&json!("delivered"), &json!(200), &json!(null))
    );
    let timings = &tested["timings_ms"];
    let millis = |name: &str| timings[name].as_f64().unwrap_or_else(|| panic!("{timings}"));
    assert!(millis("connected") <= millis("answered") && millis("answered") <= millis("total"), "{timings}");
    let got = sink.received().remove(0);
    assert_eq!(got.headers["hookmill-test"], "true");
    assert_eq!(got.headers["authorization"], "Bearer planted-token");
    assert_eq!(got.id(), tested["webhook_id"].as_str().unwrap());
    assert_eq!(hookmill.get("/events").await["items"], json!([]));

    sink.answers(|_, _| {
        let mut response = status(503);
        *response.body_mut() = "x".repeat(5_000).into();
        response
    });
    let body = json!({"event_type": "a.b", "body": {"mine": 1}});
    let tested = hookmill.admin(Method::POST, &path, Some(body)).await.json();
    assert_eq!((&tested["verdict"], &tested["status"]), (&json!("retry"), &json!(503)));
    assert_eq!(tested["reply"].as_str().unwrap().len(), 1_024, "the first KiB");
    assert_eq!(sink.received()[1].body, "{\"mine\":1}");

    let mut unsaved = destination;
    unsaved["credentials"]["token"] = "planted-other".into();
    let tested = hookmill.admin(Method::POST, "/destinations/test", Some(json!({"destination": unsaved}))).await;
    assert_eq!(tested.status, StatusCode::OK, "{:?}", tested.body);
    assert_eq!(sink.received()[2].headers["authorization"], "Bearer planted-other");
    assert_eq!(hookmill.get("/destinations").await["total"], 1);
    let wrong = json!({"destination": {"settings": {"url": "ftp://x"}}});
    let refused = hookmill.admin(Method::POST, "/destinations/test", Some(wrong)).await;
    assert_eq!(refused.json()["errors"][0]["pointer"], "/destination/settings/url");

    let activities = hookmill.get("/activities").await.to_string();
    assert_eq!(activities.matches("destination.tested").count(), 3);
    assert!(!activities.contains("planted") && !hookmill.log().contains("planted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_event_may_be_the_sample_and_tests_are_bounded() {
    let (hookmill, sink) = (Hookmill::start(), Sink::start().await);
    hookmill.integration("generic_hmac", "orders").await;
    let event = hookmill.post_signed("orders", "{\"type\":\"a.b\"}").await;
    let settings = json!({"url": format!("http://{}/hook", sink.address)});
    let id = hookmill.create("/destinations", json!({"name": "sink", "settings": settings})).await["id"].clone();
    let path = format!("/destinations/{id}/test");
    let tested = hookmill.admin(Method::POST, &path, Some(json!({"event_id": event}))).await.json();
    assert_eq!(tested["verdict"], "delivered", "{tested}");
    let got = sink.received().remove(0);
    assert_eq!(got.body, "{\"type\":\"a.b\"}");
    assert_ne!(got.id(), event, "a test is no delivery of the event");
    let missing = json!({"event_id": "00000000-0000-7000-8000-000000000001"});
    assert_eq!(hookmill.admin(Method::POST, &path, Some(missing)).await.status, StatusCode::NOT_FOUND);

    // A service that takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = json!({"url": format!("http://{}/", silent.local_addr().unwrap()), "timeout_ms": 3_000});
    let id = hookmill.create("/destinations", json!({"name": "silent", "settings": settings})).await["id"].clone();
    let path = format!("/destinations/{id}/test");
    let all = futures_util::future::join_all((0..8).map(|_| hookmill.admin(Method::POST, &path, None)));
    let replies = tokio::time::timeout(Duration::from_secs(25), all).await.unwrap();
    let busy = replies.iter().filter(|reply| reply.status == StatusCode::TOO_MANY_REQUESTS).count();
    assert_eq!(busy, 4, "{:?}", replies.iter().map(|reply| reply.status).collect::<Vec<_>>());
    let waited = replies.iter().find(|reply| reply.status == StatusCode::OK).unwrap().json();
    assert_eq!((&waited["verdict"], &waited["error"]), (&json!("retry"), &json!("no answer within 3000 ms")));
}
