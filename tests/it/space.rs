//! What one integration may take of the log.

use hyper::StatusCode;
use serde_json::json;

use crate::harness::{Hookmill, Reply, SECRET, Sink, hex_hmac, status, wait_for};

async fn send(hookmill: &Hookmill, path: &str, body: &str) -> Reply {
    let signature = hex_hmac(SECRET.as_bytes(), body.as_bytes());
    hookmill.post(path, &[("x-signature", &signature)], body.to_owned()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_that_holds_its_share_answers_503_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("small.toml");
    std::fs::write(
        &settings,
        "[log]\nsegment_bytes = \"2 MiB\"\nbytes_max = \"16 MiB\"\nintegration_share_percent = 5\n",
    )
    .unwrap();
    let hookmill = Hookmill::start_with(&["--dev", "--config", settings.to_str().unwrap()]);
    let (stopped, healthy) = (Sink::start().await, Sink::start().await);
    let full = hookmill.integration("generic_hmac", "full").await;
    let other = hookmill.integration("generic_hmac", "other").await;
    let (destination, _) = hookmill.deliver_to(full, &stopped, json!({})).await;
    hookmill.deliver_to(other, &healthy, json!({})).await;
    // It wants no more, and rests.
    stopped.answers(|_, _| status(410));
    send(&hookmill, "full", "{}").await;
    let path = format!("/destinations/{}", destination["id"]);
    wait_for("the pause", async || (hookmill.get(&path).await["status"] == "paused").then_some(())).await;

    let body = format!("{{\"padding\":\"{}\"}}", "x".repeat(20_000));
    let refused = wait_for("a full backlog", async || {
        let reply = send(&hookmill, "full", &body).await;
        (reply.status != StatusCode::OK).then_some(reply)
    })
    .await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["code"], "backlog_full");
    let seconds: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((30..=60).contains(&seconds), "{seconds}");
    assert_eq!(send(&hookmill, "other", &body).await.status, StatusCode::OK);
    healthy.until("the other's event", |got| got.len() == 1).await;
    let totals = hookmill.get("/metrics").await;
    assert!(totals["totals"]["backlog_full"].as_u64().unwrap_or_default() >= 1, "{totals}");
    let gauge = &totals["integrations"][0];
    assert_eq!((&gauge["integration_id"], &gauge["backlog_full"]), (&json!(full), &json!(true)), "{totals}");
    // Five of a hundred of 16 MiB.
    assert!(gauge["backlog_bytes"].as_u64().is_some_and(|bytes| bytes > 838_860), "{gauge}");
    let flow = hookmill.get(&format!("/integrations/{full}/flow")).await;
    assert_eq!(flow["backlog_full"], true, "{flow}");
    assert!(flow["backlog_bytes"].as_u64() >= gauge["backlog_bytes"].as_u64(), "{flow}");
    assert_eq!(flow["subscriptions_total"], 1, "the other's is not told here");
    let flow = hookmill.get(&format!("/integrations/{other}/flow")).await;
    assert_eq!(flow["backlog_full"], false, "{flow}");

    let hookmill = hookmill.terminate().start();
    wait_for("the same after a restart", async || {
        (send(&hookmill, "full", "{}").await.status == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    let tried = stopped.received().len();
    stopped.answers(|_, _| status(200));
    let reply = hookmill.admin(hyper::Method::PUT, &path, Some(json!({"status": "active"}))).await;
    assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
    wait_for("room", async || (send(&hookmill, "full", "{}").await.status == StatusCode::OK).then_some(())).await;
    let flow = hookmill.get(&format!("/integrations/{full}/flow")).await;
    assert!(flow["backlog_bytes"].as_u64().is_some_and(|bytes| bytes < 838_860), "{flow}");
    assert!(stopped.received().len() > tried, "it came back by what was delivered");
}
