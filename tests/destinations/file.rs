//! Lines in real files, through the registry.

use std::sync::Arc;

use futures_util::future::join_all;
use hookmill_actors::ports::transport::Verdict;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::registry::{NOW_MS, RETRY, build, consignment, destinations, error_of, rendered};

#[tokio::test(flavor = "multi_thread")]
async fn events_are_lines_whatever_the_policy() {
    let root = TempDir::new().unwrap();
    let registry = destinations(Some(root.path().to_owned()));
    for policy in ["always", "interval", "never"] {
        let path = format!("shop/{policy}.jsonl");
        let transport = build(&registry, "file", json!({"path": path, "fsync": policy}), None).unwrap();
        let reports = join_all((0..300).map(|number| transport.attempt(consignment(number), NOW_MS))).await;
        assert!(reports.iter().all(|report| report.verdict == Verdict::Delivered));
        let text = std::fs::read_to_string(root.path().join(&path)).unwrap();
        let mut ids: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        let sent: Vec<String> = (0..300).map(|number| consignment(number).event.id.to_string()).collect();
        assert_eq!(ids, sent, "{policy}");
    }
}

#[tokio::test]
async fn a_transformation_takes_the_body_s_place() {
    let root = TempDir::new().unwrap();
    let registry = destinations(Some(root.path().to_owned()));
    let transport = build(&registry, "file", json!({"path": "a.jsonl"}), None).unwrap();
    transport.attempt(rendered(1, b"{\"made\":1}", &[("X-Team", "billing")]), NOW_MS).await;
    let line: Value = serde_json::from_slice(&std::fs::read(root.path().join("a.jsonl")).unwrap()).unwrap();
    assert_eq!(
        (&line["body"], &line["content_type"], &line["type"], &line["headers"]),
        (
            &json!("{\"made\":1}"),
            &json!("application/json"),
            &json!("payment.succeeded"),
            &json!({"x-team": "billing"})
        )
    );
}

#[tokio::test]
async fn a_destination_that_is_changed_goes_on_in_the_same_file() {
    let root = TempDir::new().unwrap();
    let registry = destinations(Some(root.path().to_owned()));
    let make = |fsync: &str| build(&registry, "file", json!({"path": "a.jsonl", "fsync": fsync}), None).unwrap();
    let (before, after) = (make("always"), make("never"));
    assert!(!Arc::ptr_eq(&before, &after));
    for transport in [&before, &after, &before] {
        assert_eq!(transport.attempt(consignment(1), NOW_MS).await.verdict, Verdict::Delivered);
    }
    assert_eq!(std::fs::read_to_string(root.path().join("a.jsonl")).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_is_told_and_tried_again() {
    let root = TempDir::new().unwrap();
    let registry = destinations(Some(root.path().to_owned()));
    std::fs::write(root.path().join("taken"), "a file\n").unwrap();
    let transport = build(&registry, "file", json!({"path": "taken/a.jsonl"}), None).unwrap();
    let report = transport.attempt(consignment(1), NOW_MS).await;
    assert_eq!(report.verdict, RETRY);
    assert!(error_of(&report).contains("no folder"), "{report:?}");
    std::fs::remove_file(root.path().join("taken")).unwrap();
    assert_eq!(transport.attempt(consignment(1), NOW_MS).await.verdict, Verdict::Delivered);
}

#[tokio::test]
async fn a_store_destination_keeps_and_sends_nothing() {
    let registry = destinations(None);
    let transport = build(&registry, "store", json!({}), None).unwrap();
    assert_eq!(transport.attempt(consignment(1), NOW_MS).await.verdict, Verdict::Delivered);
    assert_eq!(build(&registry, "store", json!({"url": "x"}), None).err().unwrap().field, "url");
    assert_eq!(build(&registry, "store", json!({}), Some(json!({"a": "b"}))).err().unwrap().field, "credentials.a");
}
