//! Settings of files, and what a line holds.

use hookmill_actors::domain::{
    event::{Arrival, Event},
    headers::HeaderBlock,
    ids::{EndpointId, EventId, IntegrationId},
};
use serde_json::json;

use super::*;

fn consignment(body: &'static [u8]) -> Consignment {
    let arrival = Arrival {
        endpoint: EndpointId(1),
        received_at_ms: 1_767_225_600_123,
        accepted_version: 1,
        peer: std::net::Ipv4Addr::LOCALHOST.into(),
        hops: 0,
        query: "".into(),
        headers: HeaderBlock::from_lines([("content-type", &b"application/json"[..]), ("authorization", b"hush")]),
        body: bytes::Bytes::from_static(body),
    };
    let event = Arc::new(Event { id: EventId::from_parts(5, IntegrationId(3), 7), arrival });
    Consignment { event, attempt: 2, replay: true, event_type: Some("a.b".into()), rendered: None }
}

#[test]
fn a_line_is_one_line_and_gives_the_body_back() {
    for body in [&b"{\n \"a\": \"\xc3\xa9\"}\r\n"[..], b"", b"\x00\x01"] {
        let text = line(&Parcel::new(&consignment(body)));
        assert_eq!(text.iter().position(|byte| *byte == b'\n'), Some(text.len() - 1));
        let line: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(line["body"].as_str().unwrap().as_bytes(), body);
        assert_eq!(
            (&line["type"], &line["integration"], &line["attempt"], &line["replay"], &line["received_at"]),
            (&json!("a.b"), &json!(3), &json!(2), &json!(true), &json!("2026-01-01T00:00:00.123Z"))
        );
        assert!(!String::from_utf8_lossy(&text).contains("hush"), "headers of arrivals hold secrets");
    }
    let line: Value = serde_json::from_slice(&line(&Parcel::new(&consignment(b"\xff\n")))).unwrap();
    assert_eq!((line.get("body"), &line["body_base64"]), (None, &json!("/wo=")));
}

#[test]
fn only_files_below_the_folder_are_taken() {
    let refused = |files: &Files, settings: Value| {
        files.validate(settings.as_object().unwrap(), Credentials::default()).unwrap_err()
    };
    let off = refused(&Files::new(None), json!({"path": "a.jsonl"}));
    assert!(off.problem.contains("destinations.file_directory"), "{off}");

    let files = Files::new(Some("/somewhere".into()));
    for path in [
        "/etc/passwd",
        "../a",
        "a/../b",
        "a//b",
        "a/",
        ".a",
        "a/.b",
        "a\\b",
        "a b",
        "ä",
        "a.jsonl.7",
        "",
        "a/b/c/d/e/f/g/h/i",
    ] {
        assert_eq!(refused(&files, json!({"path": path})).field, "path", "{path}");
    }
    for (settings, field) in [
        (json!({"path": "a", "rotate_bytes": 5}), "rotate_bytes"),
        (json!({"path": "a", "rotate_every_s": 5}), "rotate_every_s"),
        (json!({"path": "a", "keep": 0}), "keep"),
        (json!({"path": "a", "fsync": "sometimes"}), "fsync"),
        (json!({"path": "a", "rotate": 5}), "rotate"),
    ] {
        assert_eq!(refused(&files, settings).field, field);
    }
    let all = json!({"path": "shop/events-7.jsonl", "rotate_bytes": 1 << 20, "rotate_every_s": 3600, "keep": 3, "fsync": "always"});
    files.validate(all.as_object().unwrap(), Credentials::default()).unwrap();
}

#[test]
fn destinations_of_one_file_share_its_appender() {
    let files = Files::new(Some("/somewhere".into()));
    let place = |path| Place::new(std::path::Path::new("/somewhere"), path).unwrap();
    let one = files.appender(place("a.jsonl"));
    assert!(Arc::ptr_eq(&one, &files.appender(place("a.jsonl"))));
    assert!(!Arc::ptr_eq(&one, &files.appender(place("b.jsonl"))));
    drop(one);
    files.appender(place("c.jsonl"));
    assert_eq!(files.appenders.lock().unwrap().len(), 1, "what nobody writes to is forgotten");
}
