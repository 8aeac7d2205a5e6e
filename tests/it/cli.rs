//! The command line, as typed.

use std::io::Write;

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
