//! What an operator can look up afterwards: who did what, what was refused and why, and making good of it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Hookmill, SECRET, Sink, TOKEN, files_with, hex_hmac};
use crate::operating::User;

const WRONG: &str = "whsec_wrong_0123456789abcdef0123456789abcde";

/// Waits until the list has so many items.
async fn listed(hookmill: &Hookmill, path: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let items = hookmill.get(path).await["items"].as_array().unwrap().clone();
        if items.len() >= count {
            return items;
        }
        assert!(Instant::now() < deadline, "{path} has {items:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn post_signed_with(hookmill: &Hookmill, secret: &str, body: &str) -> StatusCode {
    let signature = hex_hmac(secret.as_bytes(), body.as_bytes());
    let headers = [("x-signature", signature.as_str()), ("authorization", "Basic planted_authorization")];
    hookmill.post("orders", &headers, body.to_owned()).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_for_a_wrong_secret_is_explained_and_accepted_afterwards() {
    let (hookmill, sink) = (Hookmill::start(), Sink::start().await);
    let integration = hookmill.integration("generic_hmac", "orders").await;
    hookmill.deliver_to(integration, &sink, json!({})).await;
    for number in 0..5 {
        let body = format!(r#"{{"id":"evt_{number}","type":"paid"}}"#);
        assert_eq!(post_signed_with(&hookmill, WRONG, &body).await, StatusCode::UNAUTHORIZED);
    }
    hookmill.post("nowhere", &[("x-signature", "x")], "{}").await;
    let items = listed(&hookmill, "/rejections?cause=invalid_signature", 5).await;
    assert_eq!((items.len(), &items[0]["cause"]), (5, &json!("invalid_signature")), "an unknown path is nobody's");

    // Page by page, newest first, each once.
    let page = hookmill.get("/rejections?limit=3").await;
    let next = page["next"].as_str().unwrap();
    let rest = hookmill.get(&format!("/rejections?limit=3&before={next}")).await;
    let both: Vec<&Value> = page["items"].as_array().unwrap().iter().chain(rest["items"].as_array().unwrap()).collect();
    assert_eq!(both, items.iter().collect::<Vec<_>>());
    assert!(rest["next"].is_null());

    let id = items[4]["id"].as_str().unwrap();
    let one = hookmill.get(&format!("/rejections/{id}")).await;
    assert_eq!(
        (&one["body"], &one["path"]),
        (&json!(r#"{"id":"evt_0","type":"paid"}"#), &json!("/webhooks/receive/orders"))
    );
    let header = |name: &str| one["headers"].as_array().unwrap().iter().find(|it| it["name"] == name).cloned().unwrap();
    assert_eq!(header("authorization")["value"], "***");
    let explained = hookmill.get(&format!("/rejections/{id}/explain")).await;
    assert_eq!((&explained["holds"], &explained["reason"]), (&json!(false), &json!("mismatch")), "{explained}");
    let path = format!("/rejections/{id}/accept");
    let refused = hookmill.admin(Method::POST, &path, None).await;
    assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::CONFLICT, &json!("conflict")));

    // The operator finds that hookmill had the wrong secret.
    let rotated = json!({"secret": WRONG, "grace_s": 0});
    let reply = hookmill.admin(Method::POST, "/webhooks/1/rotate-secret", Some(rotated)).await;
    assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
    let explained = hookmill.get(&format!("/rejections/{id}/explain")).await;
    assert_eq!(explained["holds"], true, "{explained}");
    let accepted = hookmill.admin(Method::POST, &path, None).await;
    assert_eq!(accepted.status, StatusCode::OK, "{:?}", accepted.body);
    let event = accepted.json()["event_id"].as_str().unwrap().to_owned();
    let again = hookmill.admin(Method::POST, &path, Some(json!({"unverified": true}))).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    let detail = again.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(&event), "{detail}");
    let stored = hookmill.get(&format!("/events/{event}")).await;
    assert_eq!(stored["received_at"], one["at"], "it counts as received when it came");

    // The others in bulk, also after a crash.
    let hookmill = hookmill.kill().start();
    let body = json!({"endpoint_id": 1, "cause": "invalid_signature"});
    let many = hookmill.admin(Method::POST, "/rejections/accept", Some(body.clone())).await;
    assert_eq!(many.status, StatusCode::OK, "{:?}", many.body);
    assert_eq!((many.json()["accepted"].as_array().unwrap().len(), &many.json()["left"]), (4, &json!([])));
    let none = hookmill.admin(Method::POST, "/rejections/accept", Some(body)).await.json();
    assert_eq!((&none["accepted"], &none["left"], &none["next"]), (&json!([]), &json!([]), &Value::Null));
    let unbounded = hookmill.admin(Method::POST, "/rejections/accept", Some(json!({}))).await;
    assert_eq!(unbounded.status, StatusCode::UNPROCESSABLE_ENTITY);
    sink.until("five deliveries", |got| got.len() >= 5).await;
    let noted = listed(&hookmill, "/activities?action=rejection.accepted&integration_id=1", 5).await;
    assert_eq!((noted.len(), &noted[0]["source"]), (5, &json!("127.0.0.1")));
    assert_eq!(files_with(&hookmill.data_dir(), "planted_authorization"), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bad_signatures_is_bounded_and_good_ones_go_on() {
    let hookmill = Hookmill::start();
    hookmill.integration("generic_hmac", "orders").await;
    let flood = (0..2_000).map(|number| post_signed_with_owned(&hookmill, format!("{{\"n\":{number}}}")));
    let refused = futures_util::future::join_all(flood).await;
    assert!(refused.iter().all(|status| *status == StatusCode::UNAUTHORIZED));
    hookmill.post_signed("orders", "{}").await;
    let totals = hookmill.get("/metrics").await["totals"].clone();
    let count = |name: &str| totals[name].as_u64().unwrap();
    assert!(count("rejections_kept") < 2_000 && count("rejections_kept") + count("rejections_dropped") <= 2_000);
    assert!(count("rejections_dropped") > 0, "{totals}");
}

async fn post_signed_with_owned(hookmill: &Hookmill, body: String) -> StatusCode {
    post_signed_with(hookmill, WRONG, &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn activities_outlive_what_they_are_about_and_are_exported_whole() {
    let hookmill = Hookmill::start();
    let integration = hookmill.integration("generic_hmac", "orders").await;
    for number in 0..600 {
        let name = json!({"name": format!("name {number}")});
        let reply = hookmill.admin(Method::PUT, &format!("/integrations/{integration}"), Some(name)).await;
        assert_eq!(reply.status, StatusCode::OK);
    }
    let other = hookmill.integration("generic_hmac", "other").await;
    let gone = hookmill.admin(Method::DELETE, &format!("/integrations/{integration}"), None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    for _ in 0..30 {
        let request = Request::get(format!("http://{}/api/v1/events", hookmill.admin))
            .header("authorization", "Bearer hm_planted_wrong_token")
            .body(Full::default())
            .unwrap();
        let refused = hookmill.request(request).await;
        assert!([StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS].contains(&refused.status));
    }
    let of_it = format!("integration_id={integration}");
    listed(&hookmill, &format!("/activities?{of_it}&action=integration.deleted"), 1).await;
    let export = hookmill.admin(Method::GET, &format!("/activities/export?{of_it}"), None).await;
    assert_eq!(export.headers["content-type"], "application/x-ndjson");
    let lines: Vec<Value> = String::from_utf8(export.body.to_vec())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let count = |action: &str| lines.iter().filter(|it| it["action"] == action).count();
    assert_eq!((count("integration.created"), count("integration.updated"), count("integration.deleted")), (1, 600, 1));
    assert!(lines.iter().all(|line| line["integration_id"] == integration), "and nothing of {other}");
    // What hookmill notes beside a request may be stored after what came later.
    let at = |line: &Value| line["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(lines.is_sorted_by(|a, b| at(a) >= at(b)), "newest first");
    let numbers: BTreeSet<_> = lines.iter().map(|line| line["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers.len(), lines.len(), "each once");

    // Thirty failures are one entry now, and one more when they are told together.
    let failed = listed(&hookmill, "/activities?action=sign_in.", 1).await;
    assert_eq!((failed.len(), &failed[0]["source"], &failed[0]["result"]), (1, &json!("127.0.0.1"), &json!("refused")));
    let hookmill = hookmill.terminate().start();
    let failed = listed(&hookmill, "/activities?action=sign_in.", 2).await;
    assert!(failed[0]["detail"].as_str().unwrap().starts_with("29 further failures"), "{failed:?}");
    let all = hookmill.admin(Method::GET, "/activities/export", None).await;
    let all = String::from_utf8(all.body.to_vec()).unwrap();
    for secret in [SECRET, TOKEN, "hm_planted_wrong_token"] {
        assert!(!all.contains(secret));
    }
}

/// Reads a stream of events until it has told so many.
async fn followed(hookmill: &Hookmill, query: &str, last: Option<&str>, count: usize) -> Vec<Value> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut stream = tokio::net::TcpStream::connect(hookmill.admin).await.unwrap();
    let last = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
    let request = format!(
        "GET /api/v1/events/stream?{query} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n{last}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while text.matches("data: ").count() < count {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("nothing more came after: {text}")).unwrap();
        assert!(read > 0, "the stream ended: {text}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// The provider's ids of the events that a list tells.
async fn found(hookmill: &Hookmill, query: String) -> Vec<String> {
    let listed = hookmill.get(&format!("/events?{query}")).await;
    let items = listed["items"].as_array().unwrap();
    items.iter().map(|it| it["provider_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_found_followed_and_checked_again() {
    let hookmill = Hookmill::start();
    let shop = hookmill.integration("generic_hmac", "orders").await;
    let other = hookmill.integration("generic_hmac", "other").await;
    let live = async {
        let told = followed(&hookmill, &format!("integration_id={shop}&type=paid"), None, 10).await;
        told.iter().map(|it| it["provider_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let sent = async {
        // The stream begins with what comes after it was opened.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut ids = Vec::new();
        for number in 0..20 {
            let name = if number % 2 == 0 { "paid" } else { "failed" };
            ids.push(hookmill.post_signed("orders", &format!(r#"{{"id":"evt_{number}","type":"{name}"}}"#)).await);
            hookmill.post_signed("other", &format!(r#"{{"id":"other_{number}","type":"paid","n":{number}}}"#)).await;
        }
        ids
    };
    let (live, ids) = tokio::join!(live, sent);
    assert_eq!(live, (0..10).map(|n| format!("evt_{}", n * 2)).collect::<Vec<_>>());
    let rest = followed(&hookmill, &format!("integration_id={shop}&type=paid"), Some(&ids[10]), 4).await;
    assert_eq!(rest[0]["provider_id"], "evt_12", "it goes on after the last one that was told");

    // What has come is searched once intake has named it, a moment later.
    assert_eq!(listed(&hookmill, "/events?type=paid,failed", 40).await.len(), 40);
    assert_eq!(found(&hookmill, "provider_event_id=evt_7".to_owned()).await, ["evt_7"]);
    assert_eq!(found(&hookmill, format!("type=failed&integration_id={other}")).await, Vec::<String>::new());
    let endpoint = found(&hookmill, "endpoint_id=2&limit=3".to_owned()).await;
    assert_eq!(endpoint, ["other_19", "other_18", "other_17"]);
    assert_eq!(found(&hookmill, "where=body.n%20%3E%2017&endpoint_id=2".to_owned()).await, ["other_19", "other_18"]);
    let checked = hookmill.admin(Method::POST, &format!("/events/{}/verify", ids[3]), None).await;
    assert_eq!((checked.status, &checked.json()["holds"]), (StatusCode::OK, &json!(true)), "{:?}", checked.body);
    // What intake noted is found after a crash, too.
    let hookmill = hookmill.kill().start();
    assert_eq!(found(&hookmill, "provider_event_id=evt_7&type=failed".to_owned()).await, ["evt_7"]);
    // A stream that is open does not hold up a stop.
    let mut open = tokio::net::TcpStream::connect(hookmill.admin).await.unwrap();
    let request =
        format!("GET /api/v1/events/stream HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut open, request.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    hookmill.terminate();
    assert!(began.elapsed() < Duration::from_secs(4), "the stop took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_says_why_a_signature_fails() {
    let hookmill = Hookmill::start();
    let listed = hookmill.get("/providers").await;
    for provider in listed["items"].as_array().unwrap() {
        let one = hookmill.get(&format!("/providers/{}", provider["name"].as_str().unwrap())).await;
        assert!(one["settings_schema"]["properties"].is_object() && one["guide"]["url"].is_string(), "{one}");
    }
    let body = r#"{"id":1}"#;
    let request = |secret: &str| json!({"headers": {"X-Signature": hex_hmac(SECRET.as_bytes(), body.as_bytes())}, "body": body, "secret": secret});
    let holds = hookmill.admin(Method::POST, "/providers/generic_hmac/verify", Some(request(SECRET))).await;
    assert_eq!(holds.json()["holds"], true, "{:?}", holds.body);
    let spaced = format!("{SECRET} ");
    let fails = hookmill.admin(Method::POST, "/providers/generic_hmac/verify", Some(request(&spaced))).await.json();
    assert_eq!((&fails["holds"], &fails["reason"]), (&json!(false), &json!("mismatch")));
    assert!(fails["likely"][0].as_str().unwrap().contains("has spaces"), "{fails}");
    assert!(!hookmill.log().contains(SECRET));

    let user = User::new();
    let file = user.write("request.json", &request(&spaced).to_string());
    let typed = user.on(&hookmill, &["providers", "verify", "generic_hmac", "-f", &file, "--json"]);
    assert_eq!(typed.json()["likely"], fails["likely"], "{}", typed.err);
    let file = user.write("secret", SECRET);
    let headers = request(SECRET)["headers"].to_string();
    let words = ["--headers", &headers, "--body", body, "--secret-file", &file];
    let typed = user.on(&hookmill, &[&["providers", "verify", "generic_hmac", "--json"], &words[..]].concat());
    assert_eq!(typed.json()["holds"], true, "{}", typed.err);
}
