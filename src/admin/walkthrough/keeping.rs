//! The key ring and backups: what the API says of them, and how it refuses.

use axum::http::{StatusCode, header};
use serde_json::{Value, json};

use super::running;

#[tokio::test]
async fn the_ring_is_told_without_a_key_and_refusals_say_why() {
    let run = running().await;
    let ring = run.get("/api/v1/keys?sealed=true").await;
    assert_eq!(
        (ring.status, &ring.body),
        (StatusCode::OK, &json!({"source": "nowhere", "keys": [], "rotation": null}))
    );
    assert_eq!(run.get("/api/v1/keys?sealed=perhaps").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(run.post("/api/v1/keys/reload", json!({})).await.status, StatusCode::OK);

    for (path, body, status, word) in [
        ("/api/v1/keys", json!({}), StatusCode::CONFLICT, "cannot write: give up"),
        ("/api/v1/keys/rotate", json!({}), StatusCode::CONFLICT, "a rotation is under way"),
        ("/api/v1/keys/rotate", json!({"to": "5f0c21aa"}), StatusCode::NOT_FOUND, "key `5f0c21aa`"),
        ("/api/v1/keys/rotate", json!({"to": "5F"}), StatusCode::UNPROCESSABLE_ENTITY, "8 lower-case hex digits"),
        ("/api/v1/keys/rotate", json!({"key": "c2VjcmV0"}), StatusCode::UNPROCESSABLE_ENTITY, "is not known"),
        ("/api/v1/keys/5f0c21aa/retire", json!({}), StatusCode::CONFLICT, "1 integration credential and 2 in versions"),
        ("/api/v1/keys/none/retire", json!({}), StatusCode::NOT_FOUND, "an id that is none"),
    ] {
        let refused = run.post(path, body).await;
        assert_eq!((refused.status, refused.text.contains(word)), (status, true), "{path}: {}", refused.text);
    }
}

#[tokio::test]
async fn a_backup_streams_and_what_is_over_is_refused() {
    let run = running().await;
    let state = run.get("/api/v1/backup/x/state").await;
    assert_eq!((state.status, state.text.as_str()), (StatusCode::OK, "one two"));
    assert_eq!(state.headers[header::CONTENT_TYPE], "application/octet-stream");
    assert_eq!(run.get("/api/v1/backup/x/keys").await.status, StatusCode::NOT_FOUND);
    assert_eq!(run.get("/api/v1/backup/x/configuration").await.status, StatusCode::CONFLICT);
    for path in ["/api/v1/backup", "/api/v1/backup/x/renew", "/api/v1/backup/x/end"] {
        assert_eq!(run.post(path, json!({})).await.status, StatusCode::CONFLICT, "{path}");
    }
    assert_eq!(run.post("/api/v1/backup/x/keys", json!({})).await.status, StatusCode::NOT_FOUND);
    let over = run.send("DELETE", "/api/v1/backup/x", Value::Null, None).await;
    assert!(over.status == StatusCode::CONFLICT && over.text.contains("begin again"), "{}", over.text);
}
