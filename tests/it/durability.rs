//! A 2xx means the event is on disk: `kill -9` under load, and what happens to damaged files.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::json;

use crate::harness::{Hookmill, SECRET, Sink, Stopped, every_event, hex_hmac, wait_for};

const CYCLES: usize = 10;
const SENDERS: usize = 32;

/// Posts until the server goes away; the ids that were acknowledged. The bodies have no id: none is a duplicate.
fn post_until_it_dies(
    hookmill: &Hookmill,
    acknowledged: &Arc<Mutex<BTreeSet<String>>>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let body = format!("{{\"padding\":\"{}\"}}", "x".repeat(1_400));
    let signature = hex_hmac(SECRET.as_bytes(), body.as_bytes());
    let uri = format!("http://{}/webhooks/receive/orders", hookmill.ingress);
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    (0..SENDERS)
        .map(|_| {
            let (client, uri, signature, body) =
                (client.clone(), uri.clone(), signature.clone(), Bytes::from(body.clone()));
            let acknowledged = acknowledged.clone();
            tokio::spawn(async move {
                loop {
                    let request = Request::post(&uri).header("x-signature", &signature).body(Full::from(body.clone()));
                    let Ok(response) = client.request(request.unwrap()).await else { return };
                    let ok = response.status() == StatusCode::OK;
                    let Ok(body) = response.into_body().collect().await else { return };
                    if ok {
                        let reply: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap();
                        acknowledged.lock().unwrap().insert(reply["event_id"].as_str().unwrap().to_owned());
                    }
                }
            })
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_event_is_lost_by_kill_9_under_load() {
    let sink = Sink::start().await;
    let mut hookmill = Hookmill::start();
    let integration = hookmill.integration("generic_hmac", "orders").await;
    hookmill.deliver_to(integration, &sink, json!({"schedule_s": [1, 1, 1]})).await;
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    for cycle in 0..CYCLES {
        let before = acknowledged.lock().unwrap().len();
        let senders = post_until_it_dies(&hookmill, &acknowledged);
        wait_for("acknowledged events", async || (acknowledged.lock().unwrap().len() > before + 200).then_some(()))
            .await;
        tokio::time::sleep(Duration::from_millis(20 + 17 * cycle as u64)).await;
        let stopped = hookmill.kill();
        for sender in senders {
            sender.await.unwrap();
        }
        hookmill = stopped.start();
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    let stored = every_event(&hookmill).await;
    assert!(acknowledged.is_subset(&stored), "lost: {:?}", acknowledged.difference(&stored).collect::<Vec<_>>());
    let delivered = wait_for("every acknowledged event", async || {
        let delivered: BTreeSet<String> = sink.received().iter().map(crate::harness::Received::id).collect();
        acknowledged.is_subset(&delivered).then_some(delivered)
    })
    .await;
    let repeats = sink.received().len() - delivered.len();
    assert!(repeats <= CYCLES * (64 + 2_048), "{repeats} repeats of {} acknowledged", acknowledged.len());
}

/// The first segment of a stopped hookmill's log.
fn first_segment(stopped: &Stopped) -> PathBuf {
    let entries = std::fs::read_dir(stopped.data_dir().join("store").join("log")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).min().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_refused_and_set_aside_only_when_asked() {
    let hookmill = Hookmill::start();
    hookmill.integration("generic_hmac", "orders").await;
    for n in 0..50 {
        hookmill.post_signed("orders", &format!("{{\"n\":{n}}}")).await;
    }
    let stopped = hookmill.kill();
    let segment = first_segment(&stopped);
    let mut bytes = std::fs::read(&segment).unwrap();
    // The header of the commit that holds the first event, far from the torn tail that a crash may leave.
    let event = bytes.windows(7).position(|window| window == b"{\"n\":0}").unwrap();
    bytes[event - 512..event].iter_mut().for_each(|byte| *byte ^= 0x40);
    std::fs::write(&segment, bytes).unwrap();

    let (code, said) = stopped.start_refused(&[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("--start-empty"), "{said}");
    let hookmill = stopped.with_flags(&["--dev", "--start-empty"]).start();
    let aside: Vec<_> = std::fs::read_dir(hookmill.data_dir().join("store"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("quarantine-"))
        .collect();
    assert_eq!(aside.len(), 1, "the damaged store is kept: {aside:?}");
    assert_eq!(hookmill.get("/events").await["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_payload_is_never_delivered_and_costs_only_its_event() {
    let sink = Sink::start().await;
    let hookmill = Hookmill::start();
    let integration = hookmill.integration("generic_hmac", "orders").await;
    let (_, subscription) = hookmill.deliver_to(integration, &sink, json!({})).await;
    let pause = json!({"active": false});
    let path = format!("/subscriptions/{}", subscription["id"]);
    assert_eq!(hookmill.admin(Method::PUT, &path, Some(pause)).await.status, StatusCode::OK);
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(hookmill.post_signed("orders", &format!("{{\"n\":{n}}}")).await);
    }
    let stopped = hookmill.terminate();
    let segment = first_segment(&stopped);
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(7).position(|window| window == b"{\"n\":3}").unwrap();
    bytes[at + 5] ^= 0x01;
    std::fs::write(&segment, bytes).unwrap();

    let hookmill = stopped.start();
    assert_eq!(hookmill.admin(Method::PUT, &path, Some(json!({"active": true}))).await.status, StatusCode::OK);
    sink.until("the others", |got| got.len() == 19).await;
    let letter = wait_for("the dead letter", async || hookmill.dead_letters().await.pop()).await;
    assert_eq!((letter["event_id"].as_str(), letter["reason"].as_str()), (Some(ids[3].as_str()), Some("corrupt")));
    assert!(sink.received().iter().all(|got| got.id() != ids[3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_its_key_is_refused() {
    let hookmill = Hookmill::start();
    hookmill.integration("generic_hmac", "orders").await;
    let stopped = hookmill.terminate();
    let key = stopped.data_dir().join("keys.toml");
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let (code, said) = stopped.start_refused(&[]);
    assert_ne!(code, 0);
    assert!(said.contains("key"), "{said}");
    assert!(!key.exists(), "no new key is made in silence");
    std::fs::write(&key, kept).unwrap();
    let (code, said) = stopped.start_refused(&[]);
    assert_ne!(code, 0, "a key that others can read is refused");
    assert!(said.contains("chmod 600"), "{said}");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    stopped.start().post_signed("orders", "{}").await;
}
