//! The command line, as typed.

use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use crate::harness::{Hookmill, SECRET, command};

fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = command().args(arguments).output().unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn every_command_has_help_with_examples() {
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["demo", "--help"],
        &["send", "--help"],
        &["verify", "--help"],
        &["config", "check", "--help"],
    ] {
        let (code, out, _) = run(arguments);
        assert_eq!(code, 0, "{arguments:?}");
        assert!(out.contains("Examples"), "{arguments:?}: {out}");
    }
}

#[test]
fn the_server_has_its_heap_tuned_unless_somebody_else_has_tuned_it() {
    fn options(process_id: u32) -> Vec<String> {
        let environment = std::fs::read_to_string(format!("/proc/{process_id}/environ")).unwrap();
        let options = environment.split('\0').filter(|variable| variable.starts_with("MIMALLOC_"));
        options.map(str::to_owned).collect()
    }
    let hookmill = Hookmill::start();
    let tuned = options(hookmill.process_id());
    assert!(tuned.contains(&"MIMALLOC_PURGE_DELAY=0".to_owned()), "{tuned:?}");
    let data = tempfile::tempdir().unwrap();
    let mut given = command()
        .args(["serve", "--dev", "--ingress", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"])
        .arg(data.path().join("data"))
        .env("MIMALLOC_PURGE_DELAY", "100")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(given.stdout.take().unwrap()).lines();
    assert!(said.next().is_some(), "it serves");
    assert_eq!(options(given.id()), ["MIMALLOC_PURGE_DELAY=100"]);
    given.kill().unwrap();
    given.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn send_signs_what_the_server_accepts() {
    let hookmill = Hookmill::start();
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    writeln!(secret, "{SECRET}").unwrap();
    let secret = secret.path().to_str().unwrap().to_owned();
    for provider in ["generic_hmac", "stripe", "github"] {
        hookmill.integration(provider, provider).await;
        let url = format!("http://{}/webhooks/receive/{provider}", hookmill.ingress);
        let (code, out, err) = tokio::task::block_in_place(|| {
            run(&["send", "--provider", provider, "--secret-file", &secret, "--url", &url])
        });
        assert_eq!(code, 0, "{provider}: {out} {err}");
        assert!(out.contains("200"), "{provider}: {out}");
    }
    let url = format!("http://{}/webhooks/receive/nowhere", hookmill.ingress);
    let (code, _, _) =
        tokio::task::block_in_place(|| run(&["send", "--provider", "stripe", "--secret-file", &secret, "--url", &url]));
    assert_eq!(code, 1);
}

#[test]
fn config_check_names_the_nearest_key() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "[ingress]\nadress = \"127.0.0.1:1\"").unwrap();
    let (code, _, err) = run(&["config", "check", "--config", file.path().to_str().unwrap()]);
    assert_ne!(code, 0);
    assert!(err.contains("ingress.address"), "{err}");
    let (code, out, err) = run(&["config", "check"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn dev_refuses_to_listen_beyond_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (code, _, err) = run(&["serve", "--dev", "--ingress", "0.0.0.0:0", "--data-dir", data.to_str().unwrap()]);
    assert_ne!(code, 0);
    assert!(err.contains("--dev"), "{err}");
    assert!(!data.exists(), "nothing is made by a refused start");
}

#[test]
fn the_demo_delivers_everything_and_says_how_to_do_it_by_hand() {
    let (code, out, err) = run(&["demo", "--seconds", "5", "--rate", "40"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("Everything that was accepted has been delivered"), "{out}");
    assert!(out.contains("hookmill send --provider"), "{out}");
    assert!(out.contains("DOWN, answers 503"), "one service was down for a while: {out}");
    assert!(!out.contains('\u{1b}'), "plain output in a pipe: {out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_needs_nothing_and_says_what_to_type() {
    use std::{io::BufRead, os::unix::fs::PermissionsExt, process::Stdio};

    let dir = tempfile::tempdir().unwrap();
    let mut child = command()
        .env_remove("HOOKMILL_ADMIN_TOKEN")
        .current_dir(dir.path())
        .args(["--dev", "--ingress", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    while said.last().is_none_or(|line: &String| !line.starts_with("next: ")) {
        said.push(lines.next().expect("it says what to type").unwrap());
    }
    assert!(said.len() < 10, "{said:?}");
    let data = dir.path().join("hookmill-data");
    for private in ["admin-token", "keys.toml"] {
        let mode = std::fs::metadata(data.join(private)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }
    let next = said.last().unwrap().strip_prefix("next: ").unwrap().to_owned();
    let output = std::process::Command::new("sh").current_dir(dir.path()).args(["-c", &next]).output().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let reply: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reply["items"], serde_json::json!([]), "the printed command works");
}
