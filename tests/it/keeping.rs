//! Backups of a running server, what a restored one has, and the doctor beside both.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Hookmill, SECRET, Sink, TOKEN, command, every_event, files_with, status, wait_for};

fn run(words: &[&str]) -> (i32, String) {
    let output = command().args(words).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(said).unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn backup(hookmill: &Hookmill, to: &Path) -> Value {
    let (code, said) = run(&["backup", "--json", "--to", text(to), "--data-dir", text(&hookmill.data_dir())]);
    assert_eq!(code, 0, "{said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// As on a machine that has nothing of the server's files.
fn backup_from_elsewhere(hookmill: &Hookmill, to: &Path) -> Value {
    let token = tempfile::NamedTempFile::new().unwrap();
    fs::write(token.path(), TOKEN).unwrap();
    let url = format!("http://{}", hookmill.admin);
    let (code, said) = run(&["backup", "--json", "--to", text(to), "--url", &url, "--token-file", text(token.path())]);
    assert_eq!(code, 0, "{said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// A data directory out of a backup, with the key ring of another one.
fn restored(from: &Path, to: &Path, ring: &Path) {
    let (code, said) = run(&["restore", "--from", text(from), "--to", text(to)]);
    assert!(code == 0 && said.contains("keys.toml"), "{said}");
    fs::copy(ring, to.join("keys.toml")).unwrap();
}

/// Posts events of some length until it is told to stop; the ids that were acknowledged.
fn send_until(
    stop: &Arc<AtomicBool>,
    hookmill: &Arc<Hookmill>,
    acknowledged: &Arc<Mutex<BTreeSet<String>>>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let sender = |sender| {
        let (hookmill, stop, acknowledged) = (hookmill.clone(), stop.clone(), acknowledged.clone());
        tokio::spawn(async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                let body = format!("{{\"n\":\"{sender}-{n}\",\"padding\":\"{}\"}}", "x".repeat(3_000));
                let id = hookmill.post_signed("orders", &body).await;
                acknowledged.lock().unwrap().insert(id);
                n += 1;
            }
        })
    };
    (0..8).map(sender).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_under_load_restores_everything_that_was_acknowledged_before_its_end() {
    let sink = Sink::start().await;
    // Small segments, so that there are several.
    let flags = ["--dev", "--config"];
    let settings = tempfile::tempdir().unwrap();
    let file = settings.path().join("hookmill.toml");
    fs::write(&file, "[log]\nsegment_bytes = \"2 MiB\"\n[ingress]\nbody_bytes_max = \"256 KiB\"\n").unwrap();
    let hookmill = Arc::new(Hookmill::start_with(&[&flags[..], &[text(&file)]].concat()));
    let integration = hookmill.integration("generic_hmac", "orders").await;
    let dead = hookmill.integration("generic_hmac", "dead").await;
    let retried = hookmill.integration("generic_hmac", "retried").await;
    hookmill.deliver_to(integration, &sink, json!({})).await;
    sink.answers(|_, got| if got.body.starts_with(b"{\"bad\"") { status(500) } else { status(200) });
    hookmill.deliver_to(dead, &sink, json!({"schedule_s": []})).await;
    hookmill.deliver_to(retried, &sink, json!({"schedule_s": [3_600, 3_600]})).await;
    for n in 0..5 {
        hookmill.post_signed("dead", &format!("{{\"bad\":{n}}}")).await;
        hookmill.post_signed("retried", &format!("{{\"bad\":{n},\"again\":1}}")).await;
    }
    wait_for("five dead letters", async || (hookmill.dead_letters().await.len() == 5).then_some(())).await;
    wait_for("five retries", async || (hookmill.get("/metrics").await["due"] == 5).then_some(())).await;

    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeSet::new())));
    let senders = send_until(&stop, &hookmill, &acknowledged);
    let count = || acknowledged.lock().unwrap().len();
    wait_for("more than one segment", async || (count() > 1_200).then_some(())).await;

    for n in 0..2 {
        let reply = hookmill.post("dead", &[("x-signature", "00")], format!("{{\"bad\":\"refused {n}\"}}")).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    }
    let refused = wait_for("two rejections", async || {
        let refused = hookmill.get("/rejections").await["items"].clone();
        (refused.as_array().unwrap().len() == 2).then_some(refused)
    })
    .await;

    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("backup");
    let before: BTreeSet<String> = acknowledged.lock().unwrap().clone();
    let first = tokio::task::spawn_blocking({
        let (hookmill, to) = (hookmill.clone(), to.clone());
        move || backup(&hookmill, &to)
    })
    .await
    .unwrap();
    let segments = |manifest: &Value| -> BTreeSet<String> {
        let all = manifest["segments"].as_array().unwrap();
        all.iter().map(|it| it["data"]["file"].as_str().unwrap().to_owned()).collect()
    };
    assert!(segments(&first).len() > 1, "{first}");
    assert!(first["keys"].as_array().is_some_and(|keys| keys.len() == 1), "{first}");

    // The second one copies what is new, and only that.
    let old = segments(&first).into_iter().next().unwrap();
    let made = fs::metadata(to.join(&old)).unwrap().modified().unwrap();
    wait_for("more", async || (count() > 2_400).then_some(())).await;
    let at_the_end: BTreeSet<String> = acknowledged.lock().unwrap().clone();
    let second = tokio::task::spawn_blocking({
        let (hookmill, to) = (hookmill.clone(), to.clone());
        move || backup_from_elsewhere(&hookmill, &to)
    })
    .await
    .unwrap();
    assert!(segments(&second).contains(&old), "{second}");
    assert_eq!(fs::metadata(to.join(&old)).unwrap().modified().unwrap(), made, "it was copied again");
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap();
    }
    assert!(before.is_subset(&at_the_end));
    assert_eq!(files_with(&to, SECRET), Vec::<PathBuf>::new());
    let ring = fs::read_to_string(hookmill.data_dir().join("keys.toml")).unwrap();
    let key = ring.lines().find_map(|line| line.strip_prefix("key = ")).unwrap().trim_matches('"');
    assert_eq!(files_with(&to, key), Vec::<PathBuf>::new());
    let (code, said) = run(&["restore", "--from", text(&to), "--check"]);
    assert!(code == 0 && said.contains("as its checksum says"), "{said}");

    let copy = folder.path().join("copy");
    restored(&to, &copy, &hookmill.data_dir().join("keys.toml"));
    let delivered_before = sink.received().len();
    let again = Hookmill::start_in(&copy, &["--dev", "--config", text(&file)]);
    let stored = every_event(&again).await;
    assert!(at_the_end.is_subset(&stored), "lost: {:?}", at_the_end.difference(&stored).count());
    assert_eq!(again.get("/rejections").await["items"], refused);
    assert_eq!(again.dead_letters().await.len(), 5);
    assert_eq!(again.get("/metrics").await["due"], 5);
    assert_eq!(again.get("/metrics").await["faults"], json!([]));
    let listed = again.get("/integrations").await;
    assert!(listed["items"].as_array().unwrap().iter().all(|it| it["credentials"]["fingerprint"].is_string()));
    assert_eq!(
        again.get("/activities?limit=1000").await["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|it| it["action"] == "backup.begun")
            .count(),
        2
    );
    again.post_signed("orders", "{\"after\":\"the restore\"}").await;
    sink.until("a delivery of the restored one", |got| {
        got.iter().skip(delivered_before).any(|one| one.body.ends_with(b"the restore\"}"))
    })
    .await;
    let letter = again.dead_letters().await.pop().unwrap();
    let body = again.admin(Method::GET, &format!("/events/{}/body", letter["event_id"].as_str().unwrap()), None).await;
    assert!(body.status == StatusCode::OK && body.body.starts_with(b"{\"bad\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_a_full_directory_and_a_foreign_ring_are_refused() {
    let hookmill = Hookmill::start();
    hookmill.integration("generic_hmac", "orders").await;
    for n in 0..20 {
        hookmill.post_signed("orders", &format!("{{\"n\":{n}}}")).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("backup");
    let manifest = backup(&hookmill, &to);
    let stopped = hookmill.terminate();
    let (code, said) = run(&["backup", "--to", text(&to), "--data-dir", text(&stopped.data_dir())]);
    assert!(code == 0 && said.contains("keys are not in it"), "without a server, too: {said}");

    let copy = folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::write(copy.join("letter.txt"), "dear").unwrap();
    let (code, said) = run(&["restore", "--from", text(&to), "--to", text(&copy)]);
    assert!(code == 1 && said.contains("letter.txt") && said.contains("not empty"), "{said}");
    fs::remove_file(copy.join("letter.txt")).unwrap();

    let segment = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|it| it == "seg")).max().unwrap();
    let whole = fs::read(&segment).unwrap();
    for (harm, word) in [
        (whole[..whole.len() - 1].to_vec(), "shorter"),
        ([&whole[..], b"x"].concat(), "longer"),
        (whole.iter().enumerate().map(|(at, byte)| if at == 5_000 { byte ^ 1 } else { *byte }).collect(), "checksum"),
    ] {
        fs::write(&segment, harm).unwrap();
        let (code, said) = run(&["restore", "--from", text(&to), "--to", text(&copy)]);
        assert!(code == 1 && said.contains(word), "{said}");
        assert_eq!(fs::read_dir(&copy).unwrap().count(), 0, "nothing half-restored is left");
        assert_eq!(run(&["restore", "--from", text(&to), "--check"]).0, 1);
    }
    fs::write(&segment, whole).unwrap();

    let (code, said) = run(&["restore", "--from", text(&to), "--to", text(&copy)]);
    assert!(code == 0 && said.contains(manifest["keys"][0].as_str().unwrap()), "{said}");
    let (code, said) =
        run(&["serve", "--dev", "--ingress", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir", text(&copy)]);
    assert!(code == 1 && said.contains("key file") && said.contains("next: "), "{said}");
    let other = folder.path().join("other.toml");
    let none = folder.path().join("none");
    assert_eq!(run(&["keys", "add", "--output", text(&other), "--data-dir", text(&none)]).0, 0);
    fs::copy(&other, copy.join("keys.toml")).unwrap();
    let (code, said) =
        run(&["serve", "--dev", "--ingress", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir", text(&copy)]);
    assert!(code == 1 && said.contains("no such key"), "{said}");
    fs::copy(stopped.data_dir().join("keys.toml"), copy.join("keys.toml")).unwrap();
    let again = Hookmill::start_in(&copy, &["--dev"]);
    assert_eq!(every_event(&again).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_backup_goes_on_and_its_hold_ends() {
    let hookmill = Hookmill::start();
    hookmill.integration("generic_hmac", "orders").await;
    hookmill.post_signed("orders", "{}").await;
    let begun = hookmill.create("/backup", json!({})).await;
    let refused = hookmill.admin(Method::POST, "/backup", Some(json!({}))).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "one at a time");
    let path = format!("/backup/{}", begun["id"].as_str().unwrap());
    let early = hookmill.admin(Method::GET, &format!("{path}/configuration"), None).await;
    assert_eq!(early.status, StatusCode::CONFLICT, "the end comes first");
    let end = hookmill.admin(Method::POST, &format!("{path}/end"), Some(json!({}))).await;
    assert_eq!((end.status, end.json()["segments"].as_array().unwrap().len()), (StatusCode::OK, 1));
    let stream = hookmill.admin(Method::GET, &format!("{path}/configuration"), None).await;
    assert!(stream.status == StatusCode::OK && stream.body.starts_with(b"hookmex1"));
    assert_eq!(hookmill.admin(Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(
        hookmill.admin(Method::POST, &format!("{path}/renew"), Some(json!({}))).await.status,
        StatusCode::CONFLICT
    );

    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("backup");
    fs::create_dir(&to).unwrap();
    // What a kill in the middle leaves.
    fs::write(to.join("copied.jsonl"), "{\"file\":\"a.seg\",\"by").unwrap();
    fs::write(to.join("state-1.export.part"), "half").unwrap();
    backup(&hookmill, &to);
    let names: Vec<String> =
        fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().all(|name| !name.contains(".part") && name != "copied.jsonl"), "{names:?}");
}

fn doctor(data: &Path, flags: &[&str]) -> (i32, Value) {
    let (code, said) = run(&[&["doctor", "--json", "--data-dir", text(data)], flags].concat());
    (code, serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}")))
}

fn level<'a>(report: &'a Value, check: &str) -> &'a str {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|it| it["check"] == check).unwrap_or_else(|| panic!("{check}: {report}"))["level"]
        .as_str()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_works_beside_a_server_and_without_one() {
    use std::os::unix::fs::PermissionsExt;
    let hookmill = Hookmill::start();
    hookmill.integration("generic_hmac", "orders").await;
    let (ingress, admin) = (hookmill.ingress.to_string(), hookmill.admin.to_string());
    let flags = ["--ingress", ingress.as_str(), "--admin", admin.as_str()];
    let (code, report) = doctor(&hookmill.data_dir(), &flags);
    assert_eq!((code, &report["ok"]), (0, &json!(true)), "{report}");
    for check in ["settings", "store", "key ring", "webhook port", "admin port", "clock"] {
        assert_eq!(level(&report, check), "ok", "{report}");
    }
    hookmill.post_signed("orders", "{}").await;
    let other = ["--ingress", "127.0.0.1:1", "--admin", "127.0.0.1:2"];
    let (code, report) = doctor(&hookmill.data_dir(), &other);
    let ports = |report: &Value| ["webhook port", "admin port"].map(|check| level(report, check).to_owned());
    assert_eq!((code, ports(&report)), (0, ["ok", "ok"].map(str::to_owned)), "the server says where it is: {report}");
    for told in ["ingress-address", "admin-address"] {
        fs::remove_file(hookmill.data_dir().join(told)).unwrap();
    }
    let (code, report) = doctor(&hookmill.data_dir(), &other);
    assert_eq!((code, ports(&report)), (1, ["fail", "fail"].map(str::to_owned)), "{report}");

    let stopped = hookmill.terminate();
    let data = stopped.data_dir();
    let (code, report) = doctor(&data, &flags);
    assert_eq!((code, level(&report, "key ring"), level(&report, "admin port")), (0, "ok", "ok"), "{report}");
    assert!(report.to_string().contains("it opens everything that is sealed: 4 secrets"), "{report}");
    fs::set_permissions(data.join("keys.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, report) = doctor(&data, &flags);
    assert_eq!((code, level(&report, "key ring")), (1, "fail"), "{report}");
    fs::set_permissions(data.join("keys.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(data.join("store/FORMAT"), "hookmill store 99\n").unwrap();
    assert_eq!(level(&doctor(&data, &flags).1, "store"), "fail");
    fs::write(data.join("store/FORMAT"), "hookmill store 1\n").unwrap();
    let (code, said) = run(&["doctor", "--data-dir", text(&data), "--config", "/nonexistent"]);
    assert!(code == 1 && said.contains("FAIL") && said.contains("next: "), "{said}");
    stopped.start().post_signed("orders", "{}").await;
    tokio::time::sleep(Duration::from_millis(1)).await;
}
