//! Keys, bounds and races of replies that are kept.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Router, middleware::from_fn_with_state, routing::post};
use tokio::sync::Notify;
use tower::ServiceExt;

use super::{
    kept::{Bounds, KEPT},
    *,
};
use crate::{
    admin::testing::{MemoryReplies, reply_ports},
    tokens::{Identity, Role, Scopes, TokenId},
};

const LARGE: Bounds = Bounds { replies: 10_000, bytes: 32 << 20, reply_bytes: 256 << 10 };
const SMALL: Bounds = Bounds { replies: 3, bytes: 100, reply_bytes: 60 };

#[derive(Default)]
struct Counted {
    calls: AtomicU32,
    hold: Notify,
}

fn app(bounds: Bounds) -> (Router, Arc<Counted>) {
    app_over(bounds, Arc::default())
}

/// `/made` counts and echoes, `/held` waits to be let go, `/fails` fails the first time, `/panics` panics.
fn app_over(bounds: Bounds, store: Arc<MemoryReplies>) -> (Router, Arc<Counted>) {
    let counted = Arc::new(Counted::default());
    let made = async |State(counted): State<Arc<Counted>>, body: String| {
        let call = counted.calls.fetch_add(1, Ordering::Relaxed);
        (StatusCode::CREATED, [("etag", "\"7\"")], format!("{call}{body}"))
    };
    let held = async |State(counted): State<Arc<Counted>>| {
        counted.calls.fetch_add(1, Ordering::Relaxed);
        counted.hold.notified().await;
        "let go"
    };
    let fails = async |State(counted): State<Arc<Counted>>| match counted.calls.fetch_add(1, Ordering::Relaxed) {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    let panics = async |State(counted): State<Arc<Counted>>| -> StatusCode {
        counted.calls.fetch_add(1, Ordering::Relaxed);
        panic!("for the test")
    };
    let router = Router::new()
        .route("/made", post(made).get(made).put(made))
        .route("/other", post(made))
        .route("/held", post(held))
        .route("/fails", post(fails))
        .route("/panics", post(panics))
        .with_state(counted.clone())
        .layer(from_fn_with_state(Replies::bounded(bounds, reply_ports(store)).expect("they are readable"), layer));
    (router, counted)
}

fn request(method: &str, path: &str, author: &str, key: &str, body: &str) -> Request {
    let request = axum::http::Request::builder().method(method).uri(path).header(KEY, key);
    let mut request = request.body(Body::from(body.to_owned())).expect("it is well formed");
    let identity = Identity {
        id: Some(TokenId(crc32fast::hash(author.as_bytes()))),
        name: author.to_owned(),
        role: Role::Admin,
        scopes: Scopes::default(),
        expires_at_ms: None,
    };
    request.extensions_mut().insert(Access(Arc::new(identity)));
    request
}

async fn answer(app: &Router, request: Request) -> (StatusCode, bool, String) {
    let response = app.clone().oneshot(request).await.expect("the router cannot fail");
    let replayed = response.headers().get(REPLAYED).is_some_and(|value| value == "true");
    assert!(response.status() != StatusCode::CREATED || response.headers()["etag"] == "\"7\"");
    let (status, body) = (response.status(), response.into_body());
    let body = axum::body::to_bytes(body, 100_000).await.expect("it is in memory");
    (status, replayed, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn the_same_again_is_answered_the_same_and_done_once() {
    let (app, counted) = app(LARGE);
    let first = answer(&app, request("POST", "/made", "ada", "k", "a")).await;
    assert_eq!(first, (StatusCode::CREATED, false, "0a".to_owned()));
    let again = answer(&app, request("POST", "/made", "ada", "k", "a")).await;
    assert_eq!(again, (StatusCode::CREATED, true, "0a".to_owned()));
    for (path, body) in [("/made", "b"), ("/other", "a"), ("/made?x=1", "a")] {
        let (status, replayed, text) = answer(&app, request("POST", path, "ada", "k", body)).await;
        assert_eq!((status, replayed), (StatusCode::UNPROCESSABLE_ENTITY, false), "{path} {body}");
        assert!(text.contains("idempotency_key_reused"), "{text}");
    }
    assert_eq!(counted.calls.load(Ordering::Relaxed), 1);
    // Another token's keys are others, and only POST has any.
    assert_eq!(answer(&app, request("POST", "/made", "bob", "k", "a")).await.2, "1a");
    assert_eq!(answer(&app, request("PUT", "/made", "ada", "k", "a")).await.2, "2a");
}

#[tokio::test]
async fn of_two_at_once_one_is_done() {
    let (app, counted) = app(LARGE);
    let first = tokio::spawn({
        let app = app.clone();
        async move { answer(&app, request("POST", "/held", "ada", "k", "")).await }
    });
    while counted.calls.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let second = answer(&app, request("POST", "/held", "ada", "k", "")).await;
    assert_eq!(second.0, StatusCode::CONFLICT);
    assert!(second.2.contains("request_in_progress"), "{}", second.2);
    // The client goes away; what it asked for is done all the same.
    first.abort();
    assert!(first.await.expect_err("it was aborted").is_cancelled());
    assert_eq!(answer(&app, request("POST", "/held", "ada", "k", "")).await.0, StatusCode::CONFLICT);
    counted.hold.notify_one();
    let last = loop {
        let answer = answer(&app, request("POST", "/held", "ada", "k", "")).await;
        if answer.0 != StatusCode::CONFLICT {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(last, (StatusCode::OK, true, "let go".to_owned()));
    assert_eq!(counted.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_fault_of_the_server_is_not_kept() {
    let (app, _) = app(LARGE);
    assert_eq!(answer(&app, request("POST", "/fails", "ada", "k", "")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let again = answer(&app, request("POST", "/fails", "ada", "k", "")).await;
    assert_eq!((again.0, again.1), (StatusCode::OK, false));
    let (app, counted) = self::app(LARGE);
    for _ in 0..2 {
        let (status, replayed, text) = answer(&app, request("POST", "/panics", "ada", "k", "")).await;
        assert_eq!((status, replayed), (StatusCode::INTERNAL_SERVER_ERROR, false));
        assert!(!text.contains("for the test"));
    }
    assert_eq!(counted.calls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded_in_count_bytes_and_time() {
    let (app, _) = app(SMALL);
    for key in ["a", "b", "c", "d"] {
        answer(&app, request("POST", "/made", "ada", key, "")).await;
    }
    assert_eq!(answer(&app, request("POST", "/made", "ada", "d", "")).await.2, "3");
    assert_eq!(
        answer(&app, request("POST", "/made", "ada", "a", "")).await,
        (StatusCode::CREATED, false, "4".to_owned())
    );

    let (app, _) = self::app(SMALL);
    let body = "x".repeat(40);
    for key in ["a", "b", "c"] {
        answer(&app, request("POST", "/made", "ada", key, &body)).await;
    }
    assert!(!answer(&app, request("POST", "/made", "ada", "a", &body)).await.1, "the bytes of three are too many");
    assert!(answer(&app, request("POST", "/made", "ada", "c", &body)).await.1);
    let large = "x".repeat(60);
    assert_eq!(answer(&app, request("POST", "/made", "ada", "large", &large)).await.0, StatusCode::CREATED);
    let again = answer(&app, request("POST", "/made", "ada", "large", &large)).await;
    assert_eq!((again.0, again.1), (StatusCode::CONFLICT, true));
    assert!(again.2.contains("answered 201"), "{}", again.2);

    let (app, _) = self::app(SMALL);
    answer(&app, request("POST", "/made", "ada", "k", "")).await;
    tokio::time::advance(KEPT.saturating_sub(Duration::from_secs(1))).await;
    assert!(answer(&app, request("POST", "/made", "ada", "k", "")).await.1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!answer(&app, request("POST", "/made", "ada", "k", "")).await.1);
}

#[tokio::test]
async fn a_key_has_a_form() {
    let (app, _) = app(LARGE);
    let most = "k".repeat(KEY_CHARS_MAX);
    assert_eq!(answer(&app, request("POST", "/made", "ada", &most, "")).await.0, StatusCode::CREATED);
    for wrong in ["", "a b", &format!("{most}k")] {
        let (status, _, text) = answer(&app, request("POST", "/made", "ada", wrong, "")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
        assert!(text.contains("1 to 255"), "{text}");
    }
    let mut twice = request("POST", "/made", "ada", "a", "");
    twice.headers_mut().append(KEY, HeaderValue::from_static("b"));
    assert_eq!(answer(&app, twice).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_restart_forgets_no_reply_and_shows_no_secret() {
    let store = Arc::<MemoryReplies>::default();
    let (first, _) = app_over(LARGE, store.clone());
    for (key, body) in [("k", "whsec_planted"), ("l", &"x".repeat(45 << 10))] {
        assert_eq!(answer(&first, request("POST", "/made", "ada", key, body)).await.0, StatusCode::CREATED);
    }
    let stored = format!("{:?}", store.0.lock().expect("nobody panicked"));
    assert!(stored.contains("\"k\"") && !stored.contains("whsec_planted"), "{stored}");
    drop(first);
    let (again, counted) = app_over(LARGE, store.clone());
    let same = answer(&again, request("POST", "/made", "ada", "k", "whsec_planted")).await;
    assert_eq!(same, (StatusCode::CREATED, true, "0whsec_planted".to_owned()));
    let other = answer(&again, request("POST", "/made", "ada", "k", "other")).await;
    assert_eq!(other.0, StatusCode::UNPROCESSABLE_ENTITY);
    let large = answer(&again, request("POST", "/made", "ada", "l", &"x".repeat(45 << 10))).await;
    assert!(large.0 == StatusCode::CONFLICT && large.2.contains("answered 201"), "{}", large.2);
    assert_eq!(counted.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_at_a_stop_is_not_done_again() {
    let store = Arc::<MemoryReplies>::default();
    let (first, counted) = app_over(LARGE, store.clone());
    answer(&first, request("POST", "/fails", "ada", "f", "")).await;
    let held = tokio::spawn({
        let first = first.clone();
        async move { answer(&first, request("POST", "/held", "ada", "k", "")).await }
    });
    while counted.calls.load(Ordering::Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
    // What a kill leaves: it is noted, and that is all.
    let left = MemoryReplies(store.0.lock().expect("nobody panicked").clone().into());
    let (again, counted) = app_over(LARGE, Arc::new(left));
    let (status, _, text) = answer(&again, request("POST", "/held", "ada", "k", "")).await;
    assert!(status == StatusCode::CONFLICT && text.contains("outcome_unknown"), "{text}");
    assert_eq!(counted.calls.load(Ordering::Relaxed), 0);
    let tried = answer(&again, request("POST", "/fails", "ada", "f", "")).await;
    assert_eq!(tried.0, StatusCode::SERVICE_UNAVAILABLE, "what came to nothing is tried again");
    held.abort();
}

#[tokio::test(start_paused = true)]
async fn the_store_is_bounded_as_memory_is() {
    let store = Arc::<MemoryReplies>::default();
    let (first, _) = app_over(SMALL, store.clone());
    for key in ["a", "b", "c", "d", "e"] {
        answer(&first, request("POST", "/made", "ada", key, "")).await;
        assert!(store.0.lock().expect("nobody panicked").len() <= SMALL.replies);
    }
    tokio::time::advance(KEPT).await;
    answer(&first, request("POST", "/made", "ada", "f", "")).await;
    assert_eq!(store.0.lock().expect("nobody panicked").len(), 1, "what is over goes");
    let first_ms = store.0.lock().expect("nobody panicked").values().map(|reply| reply.at_ms).max();
    for reply in store.0.lock().expect("nobody panicked").values_mut() {
        reply.at_ms = first_ms.expect("there is one").saturating_sub(2 * 86_400_000);
    }
    drop(app_over(SMALL, store.clone()));
    assert!(store.0.lock().expect("nobody panicked").is_empty(), "at a start, too");
}
