//! The running product against its own document: schemathesis (<https://schemathesis.readthedocs.io>) asks for every
//! operation what the document allows and what it does not, and checks each answer against the document. Its choices
//! follow from a seed, and it makes a bounded number of them.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Hookmill, Sink, TOKEN, command, status, wait_for};

/// Integrations with all that belongs to them; the fuzz deletes some.
const EACH: usize = 4;
/// It is done in a third of that on a quiet machine.
const TIME_MAX: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_what_the_document_says() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let program = target.join("schemathesis/bin/st");
    assert!(program.exists(), "{} is missing; run .ci/setup", program.display());
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("hookmill.toml");
    std::fs::write(&settings, "[admin]\nrequests_per_minute = 1000000\n").unwrap();
    let server = Hookmill::start_with(&["--dev", "--config", settings.to_str().unwrap()]);
    let sink = Sink::start().await;
    sink.answers(|count, _| status(if count % 2 == 0 { 200 } else { 500 }));
    let events = furnish(&server, &sink).await;

    let hooks = folder.path().join("hooks.py");
    std::fs::write(&hooks, include_str!("contract/hooks.py")).unwrap();
    let config = folder.path().join("schemathesis.toml");
    std::fs::write(&config, configuration(&events)).unwrap();
    let (report, told) = (folder.path().join("report"), File::create(folder.path().join("report")).unwrap());
    let mut run = Command::new(&program)
        .args(["--config-file", config.to_str().unwrap(), "run"])
        .arg(format!("http://{}/api/v1/openapi.json", server.admin))
        .current_dir(folder.path())
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", folder.path())
        .env("HOOKMILL_SINK", sink.address.to_string())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stderr(told.try_clone().unwrap())
        .stdout(told)
        .spawn()
        .unwrap();
    let began = Instant::now();
    let done = loop {
        match run.try_wait().unwrap() {
            Some(done) => break done,
            None if began.elapsed() > TIME_MAX => run.kill().unwrap(),
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    assert!(done.success(), "after {:?}: {}", began.elapsed(), std::fs::read_to_string(report).unwrap());
    assert_eq!(server.get("/metrics").await["faults"], json!([]), "what it stored can be used");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_printed_as_it_is_served() {
    let server = Hookmill::start();
    let printed = command().arg("openapi").output().unwrap();
    assert!(printed.status.success());
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(printed, server.get("/openapi.json").await);
}

/// Something of each kind, so that there is more to find than what is not there. Returns events' ids.
async fn furnish(server: &Hookmill, sink: &Sink) -> Vec<String> {
    let mut events = Vec::new();
    for number in 1..=EACH {
        let path = format!("shop-{number}");
        let integration = server.integration("generic_hmac", &path).await;
        // One attempt each, so that failures are dead letters at once.
        server.deliver_to(integration, sink, json!({"schedule_s": []})).await;
        for amount in 0..4 {
            events.push(server.post_signed(&path, &format!(r#"{{"id":"evt_{amount}","amount":{amount}}}"#)).await);
        }
        let refused = server.post(&path, &[("x-signature", "00")], "{}").await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    }
    wait_for("some deliveries fail", async || server.dead_letters().await.pop()).await;
    events
}

/// What schemathesis is told, of this server.
fn configuration(events: &[String]) -> String {
    include_str!("contract/schemathesis.toml")
        .replace("@TOKEN@", TOKEN)
        // A list of texts is the same in TOML.
        .replace("@EVENTS@", &json!(events).to_string())
}
