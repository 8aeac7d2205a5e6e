//! A disk that hangs: hookmill says so, refuses, and ends rather than stand still; what it acknowledged is there.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use hyper::{Request, StatusCode};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Hookmill, Reply, SECRET, Sink, command, every_event, hex_hmac, wait_for};

const STALL_LIMIT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long its end may take at the limit: eight seconds for deliveries, five for the rest, and what a busy machine adds.
const END_MAX: Duration = Duration::from_secs(8 + 5 + 12);

/// What makes the disk hang for files whose path has a text in it.
struct HangingDisk {
    dir: TempDir,
}

impl HangingDisk {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/hanging_disk.c");
        let compiled =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(dir.path().join("hang.so")).arg(source).status();
        assert!(compiled.unwrap().success());
        Self { dir }
    }

    /// A hookmill with it, and short times.
    fn start(&self, within: &str) -> Hookmill {
        let mut command = command();
        command
            .env("LD_PRELOAD", self.dir.path().join("hang.so"))
            .env("HANG", self.flag())
            .env("HANG_WITHIN", within)
            .env("HOOKMILL_LOG__STALL_LIMIT", format!("{}s", STALL_LIMIT.as_secs()))
            .env("HOOKMILL_INGRESS__REQUEST_TIMEOUT", format!("{}s", REQUEST_TIMEOUT.as_secs()))
            .env("HOOKMILL_INGRESS__DRAIN_TIMEOUT", "1s");
        Hookmill::start_by(command)
    }

    fn flag(&self) -> PathBuf {
        self.dir.path().join("hangs")
    }

    fn hang(&self) {
        std::fs::write(self.flag(), "").unwrap();
    }

    fn go_on(&self) {
        std::fs::remove_file(self.flag()).unwrap();
    }
}

/// Posts an event, which is answered in time whatever the disk does.
async fn post(hookmill: &Hookmill) -> Reply {
    let began = Instant::now();
    let reply = hookmill.post("orders", &[("x-signature", &hex_hmac(SECRET.as_bytes(), b"{}"))], "{}").await;
    assert!(began.elapsed() < REQUEST_TIMEOUT + Duration::from_secs(2), "answered after {:?}", began.elapsed());
    reply
}

/// Why it is not ready; nothing where it is.
async fn not_ready_because(hookmill: &Hookmill) -> String {
    let request = Request::get(format!("http://{}/readyz", hookmill.ingress)).body("".into()).unwrap();
    let reply = hookmill.request(request).await;
    if reply.status == StatusCode::OK { String::new() } else { reply.json()["reasons"].to_string() }
}

/// A hookmill that delivers what comes to `/orders`, and some events that it has acknowledged.
async fn with_events(hookmill: &Hookmill, sink: &Sink) -> BTreeSet<String> {
    let integration = hookmill.integration("generic_hmac", "orders").await;
    hookmill.deliver_to(integration, sink, json!({"schedule_s": [1, 1, 1]})).await;
    let mut acknowledged = BTreeSet::new();
    for n in 0..20 {
        acknowledged.insert(hookmill.post_signed("orders", &format!("{{\"n\":{n}}}")).await);
    }
    acknowledged
}

/// After the next start, what was acknowledged is stored, and delivered.
async fn nothing_is_lost(hookmill: &Hookmill, sink: &Sink, acknowledged: &BTreeSet<String>) {
    let stored = every_event(hookmill).await;
    assert!(acknowledged.is_subset(&stored), "lost: {:?}", acknowledged.difference(&stored).collect::<Vec<_>>());
    sink.until("every acknowledged event", |got| {
        let delivered: BTreeSet<String> = got.iter().map(crate::harness::Received::id).collect();
        acknowledged.is_subset(&delivered)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_hangs_events_are_refused_and_at_the_limit_it_ends() {
    let disk = HangingDisk::new();
    let sink = Sink::start().await;
    let hookmill = disk.start("/store/log/");
    let mut acknowledged = with_events(&hookmill, &sink).await;

    // For less than the limit: refused, with the reason, and then it goes on.
    disk.hang();
    let first = post(&hookmill).await;
    assert_eq!((first.status, &first.json()["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not_confirmed")));
    let reply = post(&hookmill).await;
    assert_eq!((reply.status, &reply.json()["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("log_stalled")));
    assert!(not_ready_because(&hookmill).await.contains("writing a commit"));
    disk.go_on();
    let body = wait_for("an accepted event", async || {
        let reply = post(&hookmill).await;
        (reply.status == StatusCode::OK).then(|| reply.json())
    })
    .await;
    acknowledged.insert(body["event_id"].as_str().unwrap().to_owned());
    assert_eq!(not_ready_because(&hookmill).await, "");

    // For longer: it ends, though its threads hang.
    disk.hang();
    let began = Instant::now();
    assert_eq!(post(&hookmill).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let (code, said, stopped) = tokio::task::spawn_blocking(|| hookmill.ended()).await.unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(began.elapsed() >= STALL_LIMIT && began.elapsed() < STALL_LIMIT + END_MAX, "{:?}", began.elapsed());
    assert!(said.contains(" has not ended within 5 s (setting `log.stall_limit`)"), "{said}");
    assert!(said.contains("Look at the disk"), "{said}");
    nothing_is_lost(&stopped.start(), &sink, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_on_a_disk_that_hangs_ends_with_the_reason() {
    let disk = HangingDisk::new();
    let sink = Sink::start().await;
    let hookmill = disk.start("/store/state/");
    let mut acknowledged = with_events(&hookmill, &sink).await;
    disk.hang();
    acknowledged.insert(hookmill.post_signed("orders", "{}").await);
    hookmill.signal("TERM");
    let began = Instant::now();
    let (code, said, stopped) = tokio::task::spawn_blocking(|| hookmill.ended()).await.unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(began.elapsed() < STALL_LIMIT + END_MAX, "{:?}", began.elapsed());
    assert!(said.contains("syncing the state has not ended within 5 s"), "{said}");
    nothing_is_lost(&stopped.start(), &sink, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stands_still_takes_no_pause_for_a_stall() {
    let disk = HangingDisk::new();
    let hookmill = disk.start("/store/log/");
    with_events(&hookmill, &Sink::start().await).await;
    disk.hang();
    assert_eq!(post(&hookmill).await.status, StatusCode::SERVICE_UNAVAILABLE);
    hookmill.signal("STOP");
    tokio::time::sleep(STALL_LIMIT + Duration::from_secs(1)).await;
    hookmill.signal("CONT");
    // The watch looks again, and finds the same commit under way.
    tokio::time::sleep(Duration::from_millis(500)).await;
    disk.go_on();
    wait_for("an accepted event", async || (post(&hookmill).await.status == StatusCode::OK).then_some(())).await;
    assert!(!hookmill.log().contains("has not ended"), "{}", hookmill.log());
    hookmill.terminate();
}
