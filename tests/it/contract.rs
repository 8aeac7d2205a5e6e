//! The running product against its own document: schemathesis (<https://schemathesis.readthedocs.io>) asks for every
//! operation what the document allows and what it does not, and checks each answer against the document. Its choices
//! follow from a seed, and it makes a bounded number of them.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Hookmill, SECRET, Sink, TOKEN, command, status, wait_for};

/// Integrations with all that belongs to them; the fuzz deletes some.
const EACH: usize = 4;
/// Events of each; half of them fail.
const EVENTS: usize = 8;
/// It is done in a third of that on a quiet machine.
const TIME_MAX: Duration = Duration::from_secs(600);
/// Operations that are not seen to succeed, each with the reason.
const NOT_SEEN: [(&str, &str); 1] =
    [("GET /api/v1/openapi.json", "schemathesis leaves out what it reads itself; the test below reads it")];

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_what_the_document_says_and_every_operation_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("hookmill.toml");
    // Some segments of the log are sealed by what `furnish` sends.
    let limits = "[admin]\nrequests_per_minute = 1000000\n[log]\nsegment_bytes = \"64 KiB\"\n\
                  [ingress]\nbody_bytes_max = \"16 KiB\"\n";
    fs::write(&settings, limits).unwrap();
    let server = Hookmill::start_with(&["--dev", "--config", settings.to_str().unwrap()]);
    let sink = Sink::start().await;
    sink.answers(|_, got| status(if got.body.starts_with(br#"{"fails":true"#) { 500 } else { 200 }));
    let events = furnish(&server, &sink).await;

    fs::write(folder.path().join("hooks.py"), include_str!("contract/hooks.py")).unwrap();
    fs::write(folder.path().join("schemathesis.toml"), configuration(&events)).unwrap();
    run(folder.path(), &server, &sink).await;
    assert_eq!(server.get("/metrics").await["faults"], json!([]), "what it stored can be used");

    let answers = fs::read_to_string(folder.path().join("answers")).unwrap();
    let succeeded: BTreeSet<&str> = answers
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|it| it.1.starts_with('2'))
        .map(|it| it.0)
        .collect();
    let document = server.get("/openapi.json").await;
    let known = document["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_ascii_uppercase()))
    });
    let not_seen: Vec<String> = known.filter(|operation| !succeeded.contains(operation.as_str())).collect();
    assert_eq!(not_seen, NOT_SEEN.map(|(operation, _)| operation), "they never succeed (left)");
}

/// Runs schemathesis on what the document allows and does not. `folder` has its files.
async fn run(folder: &Path, server: &Hookmill, sink: &Sink) {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let program = target.join("schemathesis/bin/st");
    assert!(program.exists(), "{} is missing; run .ci/setup", program.display());
    let report = folder.join("report");
    let told = File::create(&report).unwrap();
    let api = format!("http://{}/api/v1", server.admin);
    let mut run = Command::new(&program)
        .arg("run")
        .arg(format!("{api}/openapi.json"))
        .current_dir(folder)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", folder)
        .env("HOOKMILL_API", api)
        .env("HOOKMILL_ADMIN_TOKEN", TOKEN)
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
    assert!(done.success(), "after {:?}: {}", began.elapsed(), fs::read_to_string(report).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_printed_as_it_is_served() {
    let server = Hookmill::start();
    let printed = command().arg("openapi").output().unwrap();
    assert!(printed.status.success());
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(printed, server.get("/openapi.json").await);
}

/// Something of each kind, so that there is more to find than what is not there. Returns the id of an event of each.
async fn furnish(server: &Hookmill, sink: &Sink) -> Vec<String> {
    let mut events = Vec::new();
    for number in 1..=EACH {
        let path = format!("shop-{number}");
        let new = json!({
            "name": path,
            "type": "custom",
            "environment": "development",
            "webhook": {"path": path, "secret": SECRET},
            "destination": {"name": path, "settings": {"url": format!("http://{}/hook", sink.address)}},
            // One attempt each, so that failures are dead letters at once.
            "subscription": {"name": path, "retry": {"schedule_s": []}},
        });
        server.create("/integrations", new).await;
        for number in 0..EVENTS {
            let body = json!({"fails": number % 2 == 1, "id": format!("evt_{number}"), "pad": "x".repeat(6 << 10)});
            let event = server.post_signed(&path, &body.to_string()).await;
            if number == 0 {
                events.push(event);
            }
            let refused = server.post(&path, &[("x-signature", "00")], "{}").await;
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        }
    }
    let letters = EACH * EVENTS / 2;
    wait_for("half of them fail", async || (server.dead_letters().await.len() == letters).then_some(())).await;
    events
}

/// What schemathesis is told, of this server.
fn configuration(events: &[String]) -> String {
    include_str!("contract/schemathesis.toml")
        .replace("@TOKEN@", TOKEN)
        // A list of texts is the same in TOML.
        .replace("@EVENTS@", &json!(events).to_string())
}
