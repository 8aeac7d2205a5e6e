//! Refused requests as a client meets them.

use std::time::{Duration, Instant};

use hookmill_actors::domain::headers::HeaderBlock;

use super::*;
use crate::ingress::{RefusedRequest, RefusedRequests};

impl Running {
    /// A refused request, by its id.
    pub(super) async fn rejection(&self) -> String {
        refuse(self, 1, "invalid_signature", "POST", b"{}");
        listed(self, 1).await[0]["id"].as_str().expect("an id").to_owned()
    }
}

fn refuse(run: &Running, endpoint: u32, cause: &'static str, method: &str, body: &[u8]) {
    let lines: [(&str, &[u8]); 2] = [("x-signature", b"planted-signature"), ("x-other", b"shown")];
    run.refused.offer(&RefusedRequest {
        integration: IntegrationId(1),
        endpoint: EndpointId(endpoint),
        at_ms: 1_767_225_600_000,
        cause,
        reason: "no active secret gives this signature",
        peer: [192, 0, 2, 1].into(),
        method,
        target: "/webhooks/receive/shop?token=planted&a=1",
        headers: &HeaderBlock::from_lines(lines),
        body,
        body_whole: true,
    });
}

async fn listed(run: &Running, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let items = run.get("/api/v1/rejections").await.body["items"].as_array().expect("a list").clone();
        if items.len() == count {
            return items;
        }
        assert!(Instant::now() < deadline, "{items:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn rejections_are_listed_shown_and_accepted_only_as_a_webhook_that_holds() {
    let run = running().await;
    run.configure().await;
    refuse(&run, 1, "invalid_signature", "POST", b"{}");
    refuse(&run, 1, "handshake_refused", "GET", b"\xff");
    refuse(&run, 9, "invalid_signature", "POST", b"{}");
    refuse(&run, 1, "invalid_signature", "POST", &[b'x'; 1_001]);
    let items = listed(&run, 4).await;
    let path = |at: usize| format!("/api/v1/rejections/{}", items[at]["id"].as_str().expect("an id"));
    assert_eq!((&items[3]["cause"], &items[3]["at"]), (&json!("invalid_signature"), &json!("2026-01-01T00:00:00Z")));
    assert_eq!((&items[0]["size"], &items[0]["body_complete"]), (&json!(1_000), &json!(false)));
    for (filter, count) in [
        ("cause=handshake_refused", 1),
        ("endpoint_id=9", 1),
        ("integration_id=1", 4),
        ("accepted=true", 0),
        ("since=2026-01-01T00:00:00Z", 4),
        ("until=2026-01-01T00:00:00Z", 0),
    ] {
        let found = run.get(&format!("/api/v1/rejections?{filter}")).await.body["items"].as_array().map(Vec::len);
        assert_eq!(found, Some(count), "{filter}");
    }
    for wrong in ["cause=queue_full", "before=7", "accepted=maybe", "endpoint=1"] {
        assert_eq!(run.get(&format!("/api/v1/rejections?{wrong}")).await.status, StatusCode::BAD_REQUEST, "{wrong}");
    }

    let one = run.get(&path(3)).await;
    assert_eq!((&one.body["query"], &one.body["body"]), (&json!("token=***&a=1"), &json!("{}")));
    assert!(!one.text.contains("planted") && one.text.contains("shown"), "{}", one.text);
    assert_eq!(run.get(&path(2)).await.body["body_base64"], "/w==");
    let explained = run.get(&format!("{}/explain", path(3))).await;
    assert_eq!((&explained.body["holds"], &explained.body["reason"]), (&json!(false), &json!("mismatch")));
    assert_eq!(run.get("/api/v1/rejections/0000000000000001").await.status, StatusCode::NOT_FOUND);
    assert_eq!(run.get("/api/v1/rejections/nonsense/explain").await.status, StatusCode::NOT_FOUND);

    for (at, why) in [(3, "does not hold"), (2, "a `GET` is no webhook"), (1, "was deleted"), (0, "not kept whole")] {
        let refused = run.post(&format!("{}/accept", path(at)), json!({})).await;
        assert_eq!((refused.status, &refused.body["code"]), (StatusCode::CONFLICT, &json!("conflict")), "{why}");
        assert!(refused.text.contains(why), "{why}: {}", refused.text);
    }
    // The log of this test takes nothing: a failure leaves it to be accepted later.
    for _ in 0..2 {
        let failed = run.post(&format!("{}/accept", path(3)), json!({"unverified": true})).await;
        assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE, "{}", failed.text);
    }
    let many = run.post("/api/v1/rejections/accept", json!({"endpoint_id": 9})).await;
    assert_eq!((&many.body["accepted"], &many.body["left"][0]["code"]), (&json!([]), &json!("conflict")));
    let wrong = run.post("/api/v1/rejections/accept", json!({"cause": "invalid_signature"})).await;
    assert_eq!(wrong.body["errors"][0]["pointer"], "/endpoint_id");
}
