//! Events looked for, followed and checked again; providers asked.

use futures_util::StreamExt;

use super::*;

#[tokio::test]
async fn events_are_found_by_time_and_by_what_they_hold() {
    let run = running().await;
    run.configure().await;
    let found = async |query: &str| {
        let answer = run.get(&format!("/api/v1/events?{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.text);
        answer.body
    };
    let ids = |body: &Value| -> Vec<String> {
        body["items"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|it| it["id"].as_str().expect("an id").to_owned())
            .collect()
    };
    // Events are at 1, 2, 3 and 4 milliseconds.
    let within = found("since=1970-01-01T00:00:00.002Z&until=1970-01-01T00:00:00.004Z").await;
    assert_eq!(ids(&within), [event_id(3, 13).to_string(), event_id(2, 2).to_string()]);
    assert!(within["next"].is_null() && within.get("scanned").is_none());
    for item in within["items"].as_array().expect("a list").iter().filter(|item| item.get("problem").is_none()) {
        let whole = run.get(&format!("/api/v1/events/{}", item["id"].as_str().expect("an id"))).await;
        assert!(item["status"].is_string() && item["status"] == whole.body["status"], "{item}");
    }
    let page = found("since=1970-01-01T00:00:00.002Z&limit=2").await;
    let rest =
        found(&format!("since=1970-01-01T00:00:00.002Z&limit=2&before={}", page["next"].as_str().expect("more"))).await;
    assert_eq!(ids(&page).len() + ids(&rest).len(), 3);

    let held = found("where=body.id%20%3D%3D%20%22evt_1%22").await;
    assert_eq!(ids(&held).len(), 3, "the damaged one cannot be looked at: {held}");
    assert_eq!((&held["scanned"]["events"], &held["scanned"]["bytes"]), (&json!(4), &json!(3 * 14)));
    let none = found("where=body.id%20%3D%3D%20%22evt_2%22").await;
    assert_eq!((&none["items"], &none["next"], &none["scanned"]["faults"]), (&json!([]), &json!(null), &json!(0)));
    let failing = found("where=body.missing%20%3D%3D%201").await;
    assert_eq!((&failing["items"], &failing["scanned"]["faults"]), (&json!([]), &json!(3)));
    for (wrong, why) in [
        ("where=body.", "where"),
        ("where=", "where"),
        ("type=", "type"),
        ("type=a,,b", "type"),
        ("endpoint_id=x", "endpoint_id"),
        ("since=now", "since"),
        ("provider_id=x", "provider_event_id"),
    ] {
        let refused = run.get(&format!("/api/v1/events?{wrong}")).await;
        assert_eq!(
            (refused.status, &refused.body["code"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_request")),
            "{wrong}"
        );
        assert!(refused.body["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{}", refused.text);
    }
}

#[tokio::test]
async fn a_signature_is_checked_again_as_of_its_time() {
    let run = running().await;
    run.configure().await;
    let checked = run.post(&format!("/api/v1/events/{}/verify", event_id(1, 1)), Value::Null).await;
    assert_eq!(checked.status, StatusCode::OK, "{}", checked.text);
    assert_eq!((&checked.body["holds"], &checked.body["reason"]), (&json!(false), &json!("mismatch")));
    assert_eq!(checked.body["as_of"], "1970-01-01T00:00:00.001Z");
    assert!(!checked.text.contains("planted"));
    let missing = run.post(&format!("/api/v1/events/{}/verify", event_id(9, 9)), Value::Null).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    run.send("DELETE", "/api/v1/webhooks/1", Value::Null, None).await;
    let gone = run.post(&format!("/api/v1/events/{}/verify", event_id(1, 1)), Value::Null).await;
    assert_eq!((gone.status, &gone.body["code"]), (StatusCode::CONFLICT, &json!("conflict")));
}

/// What a stream tells, until it has told so many events.
async fn told(run: &Running, query: &str, last_event_id: Option<&str>, events: usize) -> String {
    let mut request = axum::http::Request::get(format!("/api/v1/events/stream?{query}"))
        .header(header::HOST, "localhost")
        .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
    if let Some(id) = last_event_id {
        request = request.header("last-event-id", id);
    }
    let response =
        run.app.clone().oneshot(request.body(Body::empty()).expect("well formed")).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut body = response.into_body().into_data_stream();
    let mut text = String::new();
    while text.matches("data: ").count() < events {
        let chunk = tokio::time::timeout(std::time::Duration::from_secs(10), body.next()).await;
        let chunk = chunk.expect("more comes").expect("it goes on").expect("it is sound");
        text.push_str(std::str::from_utf8(&chunk).expect("text"));
    }
    text
}

#[tokio::test]
async fn a_stream_goes_on_where_its_reader_had_come() {
    let run = running().await;
    run.configure().await;
    let before = EventId::from_u128(event_id(1, 1).as_u128() - 1).to_string();
    let all = told(&run, &format!("after={before}"), None, 3).await;
    let ids: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    let want = [event_id(1, 1), event_id(2, 2), event_id(4, 4)].map(|id| id.to_string());
    assert_eq!(ids, want, "oldest first, without the damaged one");
    let data = all.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
    let data: Value = serde_json::from_str(data).expect("JSON");
    assert_eq!((&data["id"], &data["endpoint_id"]), (&json!(want[0]), &json!(1)));
    let rest = told(&run, "", Some(&want[1]), 1).await;
    assert!(rest.contains(&want[2]) && !rest.contains(&want[1]), "{rest}");
    let filtered = told(&run, &format!("after={before}&where=event.id%20%3D%3D%20%22{}%22", want[2]), None, 1).await;
    assert_eq!(filtered.matches("data: ").count(), 1, "{filtered}");
    for wrong in ["status=success", "after=7", "where=body."] {
        let refused = run.get(&format!("/api/v1/events/stream?{wrong}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn streams_are_bounded_in_number() {
    let run = running().await;
    let open = || async {
        let request = axum::http::Request::get("/api/v1/events/stream")
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .body(Body::empty())
            .expect("well formed");
        run.app.clone().oneshot(request).await.expect("infallible")
    };
    let mut streams = Vec::new();
    for _ in 0..super::super::STREAMS_MAX {
        streams.push(open().await);
    }
    assert_eq!(open().await.status(), StatusCode::TOO_MANY_REQUESTS);
    streams.pop();
    assert_eq!(open().await.status(), StatusCode::OK);
}

#[tokio::test]
async fn providers_tell_what_they_want_and_why_a_signature_fails() {
    let run = running().await;
    let listed = run.get("/api/v1/providers").await;
    assert_eq!(listed.body["total"], 2);
    let name = listed.body["items"][0]["name"].as_str().expect("a name");
    let one = run.get(&format!("/api/v1/providers/{name}")).await;
    assert_eq!((one.status, &one.body["settings_schema"]["type"]), (StatusCode::OK, &json!("object")), "{}", one.text);
    assert_eq!(one.body["sample"]["body"], "{}");
    assert_eq!(run.get("/api/v1/providers/nonsense").await.status, StatusCode::NOT_FOUND);
    let verify = &format!("/api/v1/providers/{name}/verify");
    let request =
        json!({"headers": {"X-Signature": "x", "X-Two": ["a", "b"]}, "body": "{}", "secret": "whsec_planted"});
    let checked = run.post(verify, request).await;
    assert_eq!((checked.status, &checked.body["holds"]), (StatusCode::OK, &json!(false)), "{}", checked.text);
    for (wrong, pointer) in [
        (json!({"body": "", "secret": "whsec_planted"}), "/headers"),
        (json!({"headers": {}, "secret": "whsec_planted"}), "/body"),
        (json!({"headers": {}, "body": "", "body_base64": "", "secret": "whsec_planted"}), "/body"),
        (json!({"headers": {}, "body_base64": "%", "secret": "whsec_planted"}), "/body_base64"),
        (json!({"headers": {"a b": "x"}, "body": "", "secret": "whsec_planted"}), "/headers"),
        (json!({"headers": {"a": 1}, "body": "", "secret": "whsec_planted"}), "/headers"),
        (json!({"headers": {}, "body": "", "secret": "planted"}), "/secrets"),
        (json!({"headers": {}, "body": "", "secret": "whsec_planted", "settings": {"x": 1}}), "/settings/x"),
        (json!({"headers": {}, "body": "", "secret": "whsec_planted", "at": 5}), "/at"),
        (json!({"headers": {}, "body": "", "secret": "whsec_planted", "sekret": 5}), "/sekret"),
    ] {
        let refused = run.post(verify, wrong).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text);
        assert_eq!(refused.body["errors"][0]["pointer"], pointer, "{}", refused.text);
        assert!(!refused.text.contains("planted"), "{}", refused.text);
    }
    // A refused write is noted, without what it held.
    let noted = run.get("/api/v1/activities?limit=1000").await;
    assert!(!noted.text.contains("planted"));
}
