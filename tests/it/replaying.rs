//! Sending again what was given up, filtered or delivered: by hand, and in bulk over a `kill -9`.

use std::collections::{BTreeMap, BTreeSet};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Hookmill, Received, Sink, status, wait_for};

/// So many events that stand in the dead letter.
async fn dead(hookmill: &Hookmill, sink: &Sink, count: usize) -> BTreeSet<String> {
    // A 4xx says nothing about the destination's health: its breaker stays closed.
    sink.answers(|_, _| status(400));
    let mut ids = BTreeSet::new();
    for n in 0..count {
        ids.insert(hookmill.post_signed("orders", &format!("{{\"n\":{n}}}")).await);
    }
    wait_for("the dead letters", async || (hookmill.get("/metrics").await["dead_letters"] == count).then_some(()))
        .await;
    ids
}

async fn replay(hookmill: &Hookmill, path: &str, body: Value) -> Value {
    let reply = hookmill.admin(Method::POST, path, Some(body)).await;
    assert!(reply.status.is_success(), "{path}: {:?}", reply.body);
    reply.json()
}

async fn until(hookmill: &Hookmill, id: &Value, wanted: &str) -> Value {
    wait_for(wanted, async || {
        let job = hookmill.get(&format!("/replays/{id}")).await;
        (job["status"] == wanted).then_some(job)
    })
    .await
}

fn is_replay(got: &Received) -> bool {
    got.headers.get("hookmill-replay").is_some_and(|value| value == "true")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_replay_survives_kill_9_and_sends_exactly_what_it_planned() {
    let (mut hookmill, sink) = (Hookmill::start(), Sink::start().await);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    hookmill.deliver_to(integration, &sink, json!({"schedule_s": []})).await;
    let covered = dead(&hookmill, &sink, 300).await;
    let planned = replay(&hookmill, "/replays", json!({"query": {"source": "dead_letters"}, "rate_per_s": 100})).await;
    let id = planned["id"].clone();
    let planned = until(&hookmill, &id, "planned").await;
    assert_eq!((&planned["plan"]["deliveries"], &planned["plan"]["takes_s"]), (&json!(300), &json!(3)));
    assert_eq!(planned["plan"]["sample"].as_array().map(Vec::len), Some(10));

    // One that comes after the plan stays where it is.
    let later = hookmill.post_signed("orders", "{\"later\":true}").await;
    wait_for("one more", async || (hookmill.get("/metrics").await["dead_letters"] == 301).then_some(())).await;
    sink.answers(|_, _| status(200));
    replay(&hookmill, &format!("/replays/{id}/start"), json!({})).await;
    for killed_at in [60, 150, 220] {
        sink.until("some replays", |got| got.iter().filter(|got| is_replay(got)).count() >= killed_at).await;
        hookmill = hookmill.kill().start();
    }
    let done = until(&hookmill, &id, "done").await;
    assert_eq!((&done["progress"]["replayed"], &done["progress"]["skipped"]), (&json!(300), &json!(0)));
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let got = sink
        .until("all of them", |got| {
            let ids: BTreeSet<String> = got.iter().filter(|got| is_replay(got)).map(Received::id).collect();
            ids.len() >= 300
        })
        .await;
    for got in got.iter().filter(|got| is_replay(got)) {
        *times.entry(got.id()).or_default() += 1;
    }
    assert_eq!(times.keys().cloned().collect::<BTreeSet<_>>(), covered);
    // A kill repeats what was under way or not yet recorded: at most what fell due within a moment.
    let repeats: usize = times.values().map(|times| times - 1).sum();
    assert!(repeats <= 3 * 64, "{repeats} repeats over three kills");
    let left = hookmill.dead_letters().await;
    assert_eq!((left.len(), left[0]["event_id"].as_str()), (1, Some(later.as_str())));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_reads_the_story_discards_replays_and_sends_elsewhere() {
    let (hookmill, sink, other) = (Hookmill::start(), Sink::start().await, Sink::start().await);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    let (_, first) = hookmill.deliver_to(integration, &sink, json!({"schedule_s": []})).await;
    sink.answers(|_, _| hyper::Response::builder().status(500).body("x".repeat(2_000).into()).unwrap());
    let id = hookmill.post_signed("orders", "{\"n\":1}").await;
    let letter = wait_for("the dead letter", async || hookmill.dead_letters().await.pop()).await;
    let story = hookmill.get(&format!("/events/{id}")).await;
    assert_eq!((&story["status"], &story["processing_attempts"]), (&json!("failure"), &json!(1)));
    assert_eq!(story["processed_at"], letter["at"]);
    let attempt = &story["deliveries"][0]["latest_attempts"][0];
    assert_eq!((&attempt["status"], attempt["reply"].as_str().map(str::len)), (&json!(500), Some(1_024)));

    for (query, found) in [
        ("reason=attempts_exhausted", 1),
        ("reason=expired", 0),
        (&format!("integration_id={integration}"), 1),
        ("integration_id=99", 0),
        ("from=2020-01-01T00:00:00Z&to=2021-01-01T00:00:00Z", 0),
        ("from=2020-01-01T00:00:00Z", 1),
    ] {
        let listed = hookmill.get(&format!("/deadletters?{query}")).await;
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(found), "{query}");
    }

    let (_, second) = hookmill.deliver_to(integration, &other, json!({"schedule_s": []})).await;
    let to = |subscription: &Value| json!({"subscription_id": subscription["id"]});
    replay(&hookmill, &format!("/events/{id}/replay"), to(&second)).await;
    let got = other.until("the replay", |got| got.len() == 1).await.pop().unwrap();
    assert_eq!((got.id(), is_replay(&got)), (id.clone(), true));
    let unknown =
        hookmill.admin(Method::POST, &format!("/events/{id}/replay"), Some(json!({"subscription_id": 99}))).await;
    assert_eq!(unknown.status, StatusCode::CONFLICT);

    let discard = format!("/deadletters/{}/{id}/discard", first["id"]);
    let unexplained = hookmill.admin(Method::POST, &discard, Some(json!({}))).await;
    assert_eq!(unexplained.status, StatusCode::UNPROCESSABLE_ENTITY);
    replay(&hookmill, &discard, json!({"reason": "a test order"})).await;
    assert!(hookmill.dead_letters().await.is_empty());
    let story = hookmill.get(&format!("/events/{id}")).await;
    assert_eq!(story["deliveries"][0]["status"], "discarded");
    assert_eq!(story["error_message"], "discarded: a test order");
    let noted = hookmill.get("/activities?limit=20").await;
    let noted = noted["items"].as_array().unwrap().iter().find(|it| it["action"] == "dead_letter.discarded");
    assert_eq!(noted.unwrap()["detail"], "a test order");

    // In bulk, of what was delivered, to the first again.
    sink.answers(|_, _| status(200));
    let query = json!({"source": "events", "integration_id": integration, "subscription_id": second["id"],
                       "status": "delivered"});
    let wanted = json!({"query": query, "target_subscription_id": first["id"], "start": true});
    let job = wait_for("the recorded outcome", async || {
        let job = replay(&hookmill, "/replays", wanted.clone()).await;
        let done = until(&hookmill, &job["id"], "done").await;
        (done["progress"]["replayed"] == 1).then_some(done)
    })
    .await;
    assert_eq!(job["query"]["status"], "delivered");
    sink.until("the first again", |got| got.iter().any(|got| got.id() == id && is_replay(got))).await;
}
