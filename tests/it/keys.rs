//! The key ring of a running server: rotated under load, killed in the middle, an old key retired.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Hookmill, SECRET, Sink, TOKEN, command, files_with, hex_hmac, signature_holds, wait_for};

fn keys(hookmill: &Hookmill, words: &[&str]) -> (i32, String) {
    run(&hookmill.data_dir(), &[], words)
}

fn run(data_dir: &Path, flags: &[&str], words: &[&str]) -> (i32, String) {
    let output = command().arg("keys").args(words).arg("--data-dir").arg(data_dir).args(flags).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(said).unwrap())
}

fn json_of(hookmill: &Hookmill, words: &[&str]) -> Value {
    let (code, said) = keys(hookmill, words);
    assert_eq!(code, 0, "{said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn primary(ring: &Value) -> String {
    let keys = ring["keys"].as_array().unwrap();
    keys.iter().find(|key| key["state"] == "primary").unwrap()["id"].as_str().unwrap().to_owned()
}

/// Changes each integration again and again, so that there are versions enough for a rotation to take a while.
async fn many_versions(hookmill: &Hookmill, integrations: &[u64], rounds: usize) {
    for round in 0..rounds {
        for id in integrations {
            let body = json!({"description": format!("round {round}"),
                              "credentials": {"api_key": format!("sk_planted_{id}_{round}")}});
            let reply = hookmill.admin(Method::PUT, &format!("/integrations/{id}"), Some(body)).await;
            assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
        }
    }
}

/// No integration shows a credential that does not open.
async fn all_readable(hookmill: &Hookmill) -> usize {
    let listed = hookmill.get("/integrations?limit=1000").await;
    let items = listed["items"].as_array().unwrap();
    for item in items {
        assert!(item["credentials"]["fingerprint"].is_string(), "{item}");
    }
    assert_eq!(hookmill.get("/metrics").await["faults"], json!([]));
    items.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keys_are_rotated_under_load_killed_in_the_middle_and_the_old_one_retired() {
    let sink = Sink::start().await;
    let mut hookmill = Hookmill::start();
    let mut integrations = Vec::new();
    for n in 0..30 {
        integrations.push(hookmill.integration("generic_hmac", &format!("orders-{n}")).await);
    }
    let (destination, _) = hookmill.deliver_to(integrations[0], &sink, json!({})).await;
    let signing = destination["signing_secret"].as_str().unwrap().to_owned();
    many_versions(&hookmill, &integrations, 12).await;

    let before = json_of(&hookmill, &["list", "--json"]);
    let old = primary(&before);
    let old_ring = fs::read_to_string(hookmill.data_dir().join("keys.toml")).unwrap();
    let begun = json_of(&hookmill, &["rotate", "--no-wait", "--json"]);
    let new = begun["to"].as_str().unwrap().to_owned();
    assert_ne!(new, old);

    // Reads and webhooks go on while it runs; then the power goes.
    let reads = Arc::new(AtomicUsize::new(0));
    for n in 0..5 {
        assert_eq!(all_readable(&hookmill).await, 30);
        hookmill.post_signed(&format!("orders-{n}"), "{}").await;
        reads.fetch_add(1, Ordering::Relaxed);
    }
    let stopped = hookmill.kill();
    let ring = fs::read_to_string(stopped.data_dir().join("keys.toml")).unwrap();
    assert!(ring.contains(&old) && ring.contains(&new));
    hookmill = stopped.start();
    assert_eq!(all_readable(&hookmill).await, 30);
    let ended = wait_for("the end of the rotation", async || {
        let rotation = hookmill.get("/keys").await["rotation"].clone();
        (rotation["state"] == "done").then_some(rotation)
    })
    .await;
    assert_eq!((ended["to"].as_str(), ended["damaged"].as_u64()), (Some(new.as_str()), Some(0)), "{ended}");

    let counted = hookmill.get("/keys?sealed=true").await;
    let with_old = counted["keys"].as_array().unwrap().iter().find(|key| key["id"] == old.as_str()).unwrap();
    assert_eq!(with_old["sealed"]["credentials"], json!({"current": 0, "versions": 0}), "{counted}");
    let (code, said) = keys(&hookmill, &["retire", &old]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = keys(&hookmill, &["retire", &new]);
    assert!(code == 5 && said.contains("is the primary"), "{said}");

    // The old key is gone from everywhere, and everything still opens.
    let old_key = old_ring.lines().find(|line| line.starts_with("key = ")).unwrap();
    assert!(!fs::read_to_string(hookmill.data_dir().join("keys.toml")).unwrap().contains(old_key));
    let stopped = hookmill.terminate();
    let ring = fs::read_to_string(stopped.data_dir().join("keys.toml")).unwrap();
    fs::write(stopped.data_dir().join("keys.toml"), &old_ring).unwrap();
    let (code, said) = stopped.start_refused(&[]);
    assert_eq!(code, 1);
    assert!(said.contains(&format!("sealed with key `{new}`")) && said.contains("next: "), "{said}");
    fs::write(stopped.data_dir().join("keys.toml"), ring).unwrap();
    hookmill = stopped.start();
    assert_eq!(all_readable(&hookmill).await, 30);
    hookmill.post_signed("orders-0", "{\"after\":true}").await;
    let got = sink.until("the delivery", |got| got.iter().any(|one| &one.body[..] == b"{\"after\":true}")).await;
    assert!(got.iter().all(|one| signature_holds(&signing, one)), "the signing secret is the same");
    let actions: Vec<String> = hookmill.get("/activities").await["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["action"].as_str().unwrap().to_owned())
        .collect();
    for action in ["keys.rotation_begun", "keys.rotated", "keys.retired"] {
        assert!(actions.iter().any(|it| it == action), "{actions:?}");
    }
    assert!(reads.load(Ordering::Relaxed) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn held_changes_and_kept_replies_survive_a_restart_and_a_rotation() {
    let mut hookmill = Hookmill::start();
    let id = hookmill.integration("generic_hmac", "orders").await;
    let wanted = json!({"configuration": {"health_check_url": "http://127.0.0.1:9/"}, "activate": "after_test",
                        "credentials": {"token": "planted-held-4711"}});
    let held = hookmill.admin(Method::PUT, &format!("/integrations/{id}"), Some(wanted)).await;
    assert_eq!(held.status, StatusCode::ACCEPTED, "{:?}", held.body);
    let make = async |hookmill: &Hookmill| {
        let body = json!({"name": "d", "type": "http", "settings": {"url": "http://127.0.0.1:9/"}});
        let request = hyper::Request::post(format!("http://{}/api/v1/destinations", hookmill.admin))
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", "application/json")
            .header("idempotency-key", "one-and-only");
        hookmill.request(request.body(body.to_string().into()).unwrap()).await
    };
    let first = make(&hookmill).await;
    assert_eq!(first.status, StatusCode::CREATED, "{:?}", first.body);
    let secret = first.json()["signing_secret"].as_str().unwrap().to_owned();
    let is_the_same = async |hookmill: &Hookmill| {
        let again = make(hookmill).await;
        assert_eq!((again.status, again.json()), (StatusCode::CREATED, first.json()));
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert_eq!(hookmill.get("/destinations").await["total"], 1);
        let shown = hookmill.get(&format!("/integrations/{id}")).await;
        assert!(shown["pending_version"]["integration"]["credentials"]["fingerprint"].is_string(), "{shown}");
    };
    hookmill = hookmill.kill().start();
    is_the_same(&hookmill).await;

    let old = primary(&json_of(&hookmill, &["list", "--json"]));
    let listed = keys(&hookmill, &["list", "--sealed"]).1;
    assert!(listed.contains("1 held change, 1 reply record"), "{listed}");
    let (code, said) = keys(&hookmill, &["rotate"]);
    assert_eq!(code, 0, "{said}");
    is_the_same(&hookmill).await;
    let (code, said) = keys(&hookmill, &["retire", &old]);
    assert_eq!(code, 0, "{said}");
    is_the_same(&hookmill).await;
    let stopped = hookmill.terminate();
    for planted in [secret.as_str(), "planted-held-4711"] {
        assert_eq!(files_with(&stopped.data_dir(), planted), Vec::<std::path::PathBuf>::new());
    }
    is_the_same(&stopped.start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_reads_and_writes_during_a_rotation_notices_nothing() {
    let hookmill = Arc::new(Hookmill::start());
    let mut integrations = Vec::new();
    for n in 0..20 {
        integrations.push(hookmill.integration("generic_hmac", &format!("orders-{n}")).await);
    }
    many_versions(&hookmill, &integrations, 10).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = integrations
        .iter()
        .take(4)
        .map(|id| {
            let (hookmill, stop, id) = (hookmill.clone(), stop.clone(), *id);
            tokio::spawn(async move {
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    many_versions(&hookmill, &[id], 1).await;
                    all_readable(&hookmill).await;
                    rounds += 1;
                }
                rounds
            })
        })
        .collect();
    let mut former = Vec::new();
    for _ in 0..3 {
        former.push(primary(&hookmill.get("/keys").await));
        let rotation = json_of(&hookmill, &["rotate", "--json"]);
        assert_eq!(rotation["state"], "done", "{rotation}");
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        assert!(task.await.unwrap() > 0);
    }
    for key in former {
        let (code, said) = keys(&hookmill, &["retire", &key]);
        assert_eq!(code, 0, "a key is still used: {said}");
    }
    assert_eq!(all_readable(&hookmill).await, 20);
    assert!(keys(&hookmill, &["list", "--sealed"]).1.contains("rotation to"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_elsewhere_is_asked_as_by_every_command() {
    let hookmill = Hookmill::start();
    let folder = tempfile::tempdir().unwrap();
    let typed = |words: &[&str], url: &str| {
        let mut keys: Command = command();
        keys.current_dir(folder.path()).env("HOOKMILL_URL", url).env("HOOKMILL_TOKEN", TOKEN);
        let output = keys.arg("keys").args(words).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let url = format!("http://{}", hookmill.admin);
    let old = primary(&hookmill.get("/keys").await);
    let (code, said) = typed(&["rotate"], &url);
    assert!(code == Some(0) && said.contains("done"), "{said}");
    let (code, said) = typed(&["retire", &old], &url);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = typed(&["list"], &url);
    assert!(code == Some(0) && said.contains(&old) && said.contains("retired"), "{said}");
    fs::write(folder.path().join("ring.toml"), "").unwrap();
    let (code, said) = typed(&["add", "--from", "ring.toml"], &url);
    assert!(code == Some(2) && said.contains("--data-dir"), "{said}");
    let (code, said) = typed(&["list"], "http://127.0.0.1:1");
    assert!(code == Some(6) && said.contains("http://127.0.0.1:1"), "{said}");
    assert_eq!(typed(&["list", "--context", "nowhere"], &url).0, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_the_command_does_it_on_the_directory() {
    let hookmill = Hookmill::start();
    hookmill.integration("generic_hmac", "orders").await;
    let old = primary(&hookmill.get("/keys").await);
    let stopped = hookmill.terminate();
    let data = stopped.data_dir();
    let (code, said) = run(&data, &[], &["rotate"]);
    assert!(code == 0 && said.contains("done"), "{said}");
    let (code, said) = run(&data, &[], &["list", "--sealed"]);
    assert!(code == 0 && said.contains(&old) && said.contains("1 integration credential"), "{said}");
    let old_ring = data.with_file_name("old.toml");
    fs::copy(data.join("keys.toml"), &old_ring).unwrap();
    let (code, said) = run(&data, &[], &["retire", &old]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = run(&data, &[], &["add", "--from", old_ring.to_str().unwrap()]);
    assert!(code == 0 && said.contains(&old), "{said}");
    let next = data.with_file_name("next.toml");
    let (code, said) = run(&data, &[], &["add", "--output", next.to_str().unwrap()]);
    assert!(code == 0 && said.contains("as its primary"), "{said}");
    let hookmill = stopped.start();
    hookmill.post_signed("orders", "{}").await;
    let listed = hookmill.get("/keys").await;
    let state =
        |id: &str| listed["keys"].as_array().unwrap().iter().find(|key| key["id"] == id).unwrap()["state"].clone();
    assert_eq!(state(&old), "active");
    let signature = hex_hmac(SECRET.as_bytes(), b"{}");
    assert_eq!(hookmill.post("orders", &[("x-signature", &signature)], "{}").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_from_the_environment_is_never_written_and_a_wrong_one_is_refused() {
    let hookmill = Hookmill::start();
    hookmill.integration("generic_hmac", "orders").await;
    let stopped = hookmill.terminate();
    let data = stopped.data_dir();
    let ring = fs::read_to_string(data.join("keys.toml")).unwrap();
    let other = data.with_file_name("other.toml");
    let made = run(&data.with_file_name("none"), &[], &["add", "--output", other.to_str().unwrap()]);
    assert_eq!(made.0, 0, "{}", made.1);
    fs::remove_file(data.join("keys.toml")).unwrap();
    let with_ring = |ring: &str, words: &[&str]| {
        let mut keys: Command = command();
        let output =
            keys.arg("keys").args(words).arg("--data-dir").arg(&data).env("HOOKMILL_KEYRING", ring).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, said) = with_ring(&ring, &["list", "--sealed"]);
    assert!(code == Some(0) && said.contains("HOOKMILL_KEYRING"), "{said}");
    let (code, said) = with_ring(&ring, &["rotate"]);
    assert!(code == Some(5) && said.contains("add a new key there first"), "{said}");
    let other = fs::read_to_string(&other).unwrap();
    let (code, said) = with_ring(&other, &["list"]);
    assert!(code == Some(1) && said.contains("no such key") && said.contains("next: "), "{said}");
    let planted = ring.lines().find_map(|line| line.strip_prefix("key = ")).unwrap();
    assert!(!said.contains(planted.trim_matches('"')));
    assert!(!data.join("keys.toml").exists());
    tokio::time::sleep(Duration::from_millis(1)).await;
}
