//! Faults of its connection tests.

use std::time::{Duration, Instant};

use hyper::Response;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::Caller;
use crate::harness::{Sink, TOKEN, status, wait_for};

/// A host that takes connections and never answers.
async fn silent() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    address
}

async fn until(caller: &Caller, id: u64, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, async || {
        let status = caller.get(&format!("/integrations/{id}/status")).await;
        holds(&status).then_some(status)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_07_the_six_hourly_test_runs_once_in_six_hours() {
    let (caller, sink) = (Caller::new(), Sink::start().await);
    let base = json!({"base_url": format!("http://{}", sink.address)});
    let id = caller.integration("payment_gateway", base, json!({"api_key": "k"})).await;
    let status = until(&caller, id, "the test", |status| status["connectivity"] == "healthy").await;
    let round = caller.hookmill.get("/tasks/integration_management.test_all_active_integrations").await;
    assert_eq!((&round["schedule"], &round["under_way"]), (&json!("0 */6 * * *"), &json!(0)));
    assert_eq!(status["next_connection_test"], round["next_run_at"]);
    let at = |moment: &Value| moment.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    let past_the_hour_s = at(&round["next_run_at"]) % (6 * 3_600);
    assert!((0..=30).contains(&past_the_hour_s), "put off by {past_the_hour_s} s");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(sink.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_14_the_background_test_needs_nothing_of_the_request_that_queued_it() {
    let (caller, sink) = (Caller::new(), Sink::start().await);
    let body = json!({"name": "x", "type": "payment_gateway", "environment": "staging",
                      "configuration": {"base_url": format!("http://{}", sink.address)},
                      "credentials": {"api_key": "k"}})
    .to_string();
    let request = format!(
        "POST /integration-management/integrations/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len(),
    );
    let mut stream = tokio::net::TcpStream::connect(caller.hookmill.admin).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    wait_for("the integration", async || (caller.get("/integrations/").await["total"] == 1).then_some(())).await;
    drop(stream);
    until(&caller, 1, "its test", |status| status["status"] == "active" && status["is_connected"] == true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_15_a_slow_provider_holds_nothing_up() {
    let caller = Caller::with_settings("[connection_tests]\ntimeout = \"4s\"\n");
    caller.shop().await;
    let slow = json!({"health_check_url": format!("http://{}/", silent().await)});
    let id = caller.integration("custom", slow, json!({"token": "t"})).await;
    let path = format!("/integrations/{id}/test");
    let (tested, slowest) = tokio::join!(caller.post(&path, json!({})), async {
        let mut slowest = Duration::ZERO;
        for n in 0..40 {
            let began = Instant::now();
            caller.received("shop", &format!(r#"{{"n":{n}}}"#)).await;
            caller.get("/webhooks/").await;
            slowest = slowest.max(began.elapsed());
        }
        slowest
    });
    assert_eq!(tested["success"], false, "{tested}");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_16_dead_hosts_are_tested_side_by_side_and_a_live_one_comes_back() {
    let settings = "[connection_tests]\ntimeout = \"1s\"\nprobe_after = \"1s\"\nprobe_every_max = \"1s\"\n\
                    failures_max = 2\nevery = \"1m\"\n";
    let (caller, sink, dead) = (Caller::with_settings(settings), Sink::start().await, silent().await);
    let began = Instant::now();
    for _ in 0..40 {
        let configuration = json!({"health_check_url": format!("http://{dead}/")});
        caller.integration("custom", configuration, json!({"token": "t"})).await;
    }
    wait_for("all dead hosts", async || {
        (caller.get("/integrations/?status=failed").await["total"] == 40).then_some(())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(25), "one after the other they take 40 s: {:?}", began.elapsed());

    let live = json!({"base_url": format!("http://{}", sink.address)});
    let id = caller.integration("payment_gateway", live, json!({"api_key": "k"})).await;
    until(&caller, id, "a pass", |status| status["status"] == "active").await;
    sink.answers(|_, _| status(503));
    caller.post(&format!("/integrations/{id}/test"), json!({})).await;
    let damped = caller.get(&format!("/integrations/{id}/status")).await;
    assert_eq!((&damped["status"], &damped["connectivity"]), (&json!("active"), &json!("degraded")));
    until(&caller, id, "the end of its damping", |status| status["status"] == "failed").await;
    // It is information: webhooks are accepted all the same.
    let secret = crate::harness::SECRET;
    caller.post("/webhooks/", json!({"integration_id": id, "name": "a", "path": "a", "secret": secret})).await;
    caller.received("a", "{}").await;
    sink.answers(|_, _| status(200));
    until(&caller, id, "its return", |status| status["status"] == "active").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_23_redirects_are_not_followed_and_no_reply_is_repeated() {
    let (caller, sink, inside) = (Caller::new(), Sink::start().await, Sink::start().await);
    let location = format!("http://{}/", inside.address);
    sink.answers(move |_, _| {
        Response::builder().status(302).header("location", &location).body("planted-reply".into()).unwrap()
    });
    let configuration = json!({"base_url": format!("http://{}", sink.address)});
    let id = caller.integration("email_provider", configuration, json!({"api_key": "planted-key"})).await;
    let tested = caller.post(&format!("/integrations/{id}/test"), json!({})).await;
    assert_eq!(tested["success"], false);
    let text = tested.to_string() + &caller.get(&format!("/integrations/{id}/status")).await.to_string();
    assert!(text.contains("redirects are not followed") && !text.contains("planted"), "{text}");
    assert_eq!(sink.received()[0].headers["authorization"], "Bearer planted-key");
    assert_eq!(inside.received().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_27_a_sign_in_that_was_asked_for_is_never_left_out() {
    let (caller, sink) = (Caller::new(), Sink::start().await);
    let configuration = json!({"health_check_url": format!("http://{}/health", sink.address), "auth_type": "bearer",
                               "headers": {"X-Team": "billing"}});
    let id = caller.integration("custom", configuration.clone(), json!({"username": "u", "password": "p"})).await;
    let tested = caller.post(&format!("/integrations/{id}/test"), json!({})).await;
    assert_eq!(tested["success"], false);
    assert!(tested["message"].as_str().unwrap().contains("`token`"), "{tested}");
    assert_eq!(sink.received().len(), 0, "nobody was asked without it");

    let path = format!("/integrations/{id}");
    caller.put(&path, json!({"credentials": {"token": "planted-token"}})).await;
    let tested = caller.post(&format!("{path}/test"), json!({})).await;
    assert_eq!(tested["success"], true, "{tested}");
    assert_eq!(caller.get(&path).await["configuration"], configuration, "no token leaks into it");
    let got = sink.received();
    assert_eq!(got[0].headers["authorization"], "Bearer planted-token");
    assert_eq!(got[0].headers["x-team"], "billing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_waits_for_its_test_survives_a_kill_and_a_failed_one_changes_nothing() {
    let caller = Caller::with_settings("[connection_tests]\ntimeout = \"3s\"\n");
    let id = caller.integration("crm", json!({}), json!({"api_key": "k"})).await;
    let path = format!("/integrations/{id}");
    let wanted = json!({"configuration": {"health_check_url": format!("http://{}/", silent().await)},
                        "credentials": {"token": "planted-token"}, "activate": "after_test"});
    let held = caller.call(hyper::Method::PUT, &path, Some(wanted)).await;
    assert_eq!(held.status, hyper::StatusCode::ACCEPTED, "{:?}", held.body);
    let caller = Caller { hookmill: caller.hookmill.kill().start() };
    assert_eq!(caller.get(&path).await["pending_version"]["state"], "testing");
    let failed = wait_for("its failure", async || {
        let shown = caller.get(&path).await;
        (shown["pending_version"]["state"] == "failed").then_some(shown)
    })
    .await;
    assert_eq!((&failed["configuration"], &failed["version"]), (&json!({}), &json!(1)));
    assert!(failed["pending_version"]["reason"].as_str().unwrap().contains("3000 ms"), "{failed}");
    let stopped = caller.hookmill.terminate();
    assert_eq!(crate::harness::files_with(&stopped.data_dir(), "planted-token"), Vec::<std::path::PathBuf>::new());
}
