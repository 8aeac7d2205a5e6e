//! The API as a client meets it, over a running tree with ports in memory.

mod allowed;
mod deleting;
mod documented;
mod keeping;
mod keys;
mod lists;
mod missing;
mod original;
mod queried;
mod refused;
mod scopes;
mod searching;
mod tokens;
mod trying;
mod versions;
mod writers;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use hookmill_actors::{
    domain::{
        backoff::RetryPolicy,
        config::Destination,
        delivery::{DeadLetter, DeadReason},
        event::{Arrival, Event, NewEvent},
        headers::HeaderBlock,
        ids::{EndpointId, EventId, IntegrationId, SubscriptionId},
        replay::ReplayJob,
        secret::Secret,
    },
    ports::{
        config_store::ConfigStore,
        event_log::{Committing, EventLog, LogError, ReadBounds, Stored, TrimRequest, Trimmed},
        provider::SettingsError,
        state_store::StateOp,
        transport::{AttemptReport, Consignment, Timings, Transport, Transports, Verdict},
    },
    snapshot::Compiler,
    testkit::memory_config::MemoryConfig,
    tree::{Ports, TreeHandle, TreeOptions},
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    Api, Shared, SubscriptionDefaults,
    auth::{FailedSignIns, Gate, Hosts, TrustedProxies},
    router, routes,
    testing::{FixedClock, MemoryState, NoBackup, NoKeys, TOKEN, no_replies, tokens_with, tools},
};
use crate::{
    connections::Tester,
    programs::{Engines, ProgramOptions},
    rejections::{RejectionDesk, RejectionOptions, Rejections},
};

#[derive(Default)]
struct MemoryLog {
    events: BTreeMap<EventId, Arc<Event>>,
    committed: Mutex<Vec<StateOp>>,
}

#[async_trait]
impl EventLog for MemoryLog {
    fn append(&self, _event: NewEvent) -> Result<Committing<EventId>, LogError> {
        Err(LogError::Closed)
    }

    fn commit(&self, state: Vec<StateOp>) -> Result<Committing<()>, LogError> {
        self.committed.lock().expect("nobody panicked").extend(state);
        let (answer, committing) = Committing::new();
        answer.send(Ok(())).expect("the future is held");
        Ok(committing)
    }

    async fn read(&self, _: IntegrationId, _: EventId, _: ReadBounds) -> Result<Vec<Stored>, LogError> {
        Ok(Vec::new())
    }

    async fn bytes_after(&self, _: IntegrationId, _: EventId) -> Result<u64, LogError> {
        Ok(0)
    }

    async fn get(&self, id: EventId) -> Result<Option<Arc<Event>>, LogError> {
        if id.as_u128() & 0xffff == 13 {
            return Err(LogError::Corrupt(id));
        }
        Ok(self.events.get(&id).cloned())
    }

    async fn latest(
        &self,
        integration: Option<IntegrationId>,
        before: EventId,
        limit: usize,
    ) -> Result<Vec<EventId>, LogError> {
        let wanted = |id: &&EventId| integration.is_none_or(|integration| id.integration() == integration);
        Ok(self.events.range(..before).rev().map(|(id, _)| id).filter(wanted).take(limit).copied().collect())
    }

    async fn trim(&self, _: TrimRequest) -> Result<Trimmed, LogError> {
        Ok(Trimmed::default())
    }

    fn last_committed(&self) -> EventId {
        self.events.last_key_value().map_or(EventId::ZERO, |(id, _)| *id)
    }
}

struct Nowhere;

#[async_trait]
impl Transport for Nowhere {
    async fn attempt(&self, _: Consignment, _: u64) -> AttemptReport {
        AttemptReport {
            verdict: Verdict::Delivered,
            status: Some(200),
            error: None,
            reply: None,
            timings: Timings::default(),
        }
    }
}

impl Transports for Nowhere {
    fn build(&self, _: &Destination, _: &Secret, _: Option<&Secret>) -> Result<Arc<dyn Transport>, SettingsError> {
        Ok(Arc::new(Nowhere))
    }
}

fn event_id(sequence: u128, random: u16) -> EventId {
    EventId::from_parts(sequence << 26, IntegrationId(1), random)
}

fn event(id: EventId) -> Event {
    let lines: [(&str, &[u8]); 2] = [("content-type", b"application/json"), ("x-signature", b"planted-signature")];
    Event {
        id,
        arrival: Arrival {
            endpoint: EndpointId(1),
            received_at_ms: id.millis(),
            accepted_version: 2,
            peer: [192, 0, 2, 1].into(),
            hops: 0,
            query: "".into(),
            headers: HeaderBlock::from_lines(lines),
            body: br#"{"id":"evt_1"}"#.as_slice().into(),
        },
    }
}

struct Running {
    app: Router,
    config: Arc<MemoryConfig>,
    log: Arc<MemoryLog>,
    refused: Arc<RejectionDesk>,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
    text: String,
}

/// More than any test makes.
const REQUESTS_PER_MINUTE: u32 = 1_000_000;

async fn running() -> Running {
    running_with(&[], Vec::new()).await
}

/// With further events, each a dead letter of subscription 2, and with replays.
async fn running_with(more: &[EventId], jobs: Vec<ReplayJob>) -> Running {
    let config = Arc::new(MemoryConfig::default());
    let Outside { app, log, refused, folder } = over(config.clone(), more, jobs).await;
    Running { app, config, log, refused, _folder: folder }
}

/// The API, and what lies behind it.
struct Outside {
    app: Router,
    log: Arc<MemoryLog>,
    refused: Arc<RejectionDesk>,
    folder: tempfile::TempDir,
}

/// The API over a tree whose configuration is in `config`.
async fn over(config: Arc<dyn ConfigStore>, more: &[EventId], jobs: Vec<ReplayJob>) -> Outside {
    let tools = tools();
    let ids = [event_id(1, 1), event_id(2, 2), event_id(3, 13), event_id(4, 4)];
    let events = ids.iter().chain(more).map(|id| (*id, Arc::new(event(*id)))).collect();
    let log = Arc::new(MemoryLog { events, ..MemoryLog::default() });
    let letter = |subscription, event| DeadLetter {
        event,
        subscription: SubscriptionId(subscription),
        reason: DeadReason::AttemptsExhausted,
        error: "500".to_owned(),
        at_ms: 5,
        attempts: 10,
    };
    let dead = [(1, ids[0]), (2, ids[0])].into_iter().chain(more.iter().map(|id| (2, *id)));
    let dead = dead.map(|(whose, event)| ((SubscriptionId(whose), event), letter(whose, event))).collect();
    let state = MemoryState { dead, jobs, ..MemoryState::default() };
    let ports = Ports {
        log: log.clone(),
        state: Arc::new(state),
        config: config.clone(),
        compiler: Compiler {
            providers: tools.providers.clone(),
            transports: Arc::new(Nowhere),
            sealer: tools.sealer.clone(),
            programs: Arc::new(Engines::new(ProgramOptions::default())),
        },
        connections: Arc::new(Tester { connections: tools.connections.clone(), audit: config.clone() }),
        clock: Arc::new(FixedClock(1_767_225_600_000)),
    };
    let tokens = tokens_with(REQUESTS_PER_MINUTE);
    let gate = Gate {
        tokens: tokens.clone(),
        hosts: Hosts::new([127, 0, 0, 1].into(), &[]),
        sign_ins: FailedSignIns::new(),
        proxies: TrustedProxies::default(),
        journal: Arc::default(),
        // Hundreds of writers wait for each other, on a machine that may be busy.
        request_timeout: std::time::Duration::from_mins(2),
        audit: config.clone(),
        clock: ports.clock.clone(),
    };
    let tree: TreeHandle = started(ports).await;
    let subscription_defaults = SubscriptionDefaults { in_flight_max: 64, retry: RetryPolicy::default() };
    let tests = Api::test_places();
    tokio::spawn(tools.connections.clone().run(tree.config().clone(), config.clone()));
    let folder = tempfile::tempdir().expect("a folder");
    let options = RejectionOptions { count_max: 10, bytes_max: 1 << 20, body_bytes_max: 1_000, per_second: 1_000 };
    let counters = tree.counters().clone();
    let (rejections, refused) =
        Rejections::open(folder.path().join("rejections"), options, counters).expect("the folder is there");
    let api = Api {
        tree,
        tools,
        tokens,
        readiness: Arc::new(Vec::new),
        keys: Arc::new(NoKeys),
        backup: Arc::new(NoBackup),
        subscription_defaults,
        tests,
        turns: super::turns::Turns::default(),
        streams: Api::stream_places(),
        rejections,
        explanations: Api::explanation_places(),
        scans: Api::scan_places(),
        stopping: tokio_util::sync::CancellationToken::new(),
        access: None,
    };
    Outside { app: router(routes(), Shared(api), gate, no_replies(), 256 * 1024), log, refused, folder }
}

async fn started(ports: Ports) -> TreeHandle {
    let board = Arc::new(hookmill_actors::router::CommitBoard::default());
    let options = TreeOptions { deletion_grace: std::time::Duration::from_hours(1), ..TreeOptions::default() };
    let tree = hookmill_actors::tree::Tree::start(ports, options, board).await;
    tree.expect("an empty tree starts").handle().clone()
}

impl Running {
    async fn send(&self, method: &str, path: &str, body: Value, if_match: Option<&str>) -> Answer {
        let headers: Vec<(&str, &str)> = if_match.map(|tag| (header::IF_MATCH.as_str(), tag)).into_iter().collect();
        self.send_with(method, path, body, &headers).await
    }

    async fn send_with(&self, method: &str, path: &str, body: Value, headers: &[(&str, &str)]) -> Answer {
        sent(&self.app, method, path, body, headers).await
    }

    /// With another token, or with none.
    async fn send_as(&self, token: Option<&str>, method: &str, path: &str, body: Value) -> Answer {
        sent_as(&self.app, token, method, path, body, &[]).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, Value::Null, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, body, None).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, body, None).await
    }

    /// An integration, an endpoint, a destination and a subscription, each number 1.
    async fn configure(&self) {
        let shop = json!({"name": "shop", "type": "PAYMENT_GATEWAY", "environment": "production"});
        for (path, body) in [
            ("/api/v1/integrations/", shop),
            ("/api/v1/webhooks", json!({"integration_id": 1, "name": "orders", "path": "shop"})),
            ("/api/v1/destinations", json!({"name": "ledger", "settings": {"url": "https://ledger.example"}})),
            (
                "/api/v1/subscriptions",
                json!({"integration_id": 1, "destination_id": 1, "name": "all", "start": "beginning"}),
            ),
        ] {
            let made = self.post(path, body).await;
            assert_eq!(made.status, StatusCode::CREATED, "{path}: {}", made.text);
            let location = made.headers[header::LOCATION].to_str().expect("it is text").to_owned();
            assert_eq!(location, format!("{}/1", path.trim_end_matches('/')));
            let read = self.get(&location).await;
            assert_eq!(read.status, StatusCode::OK);
            assert_eq!(read.headers[header::ETAG], made.headers[header::ETAG]);
            for secret in ["secret", "signing_secret"] {
                assert!(read.body.get(secret).is_none());
                if let Some(shown) = made.body[secret].as_str() {
                    assert!(!read.text.contains(shown));
                }
            }
        }
    }
}

/// Sends a request to the API.
async fn sent(app: &Router, method: &str, path: &str, body: Value, headers: &[(&str, &str)]) -> Answer {
    sent_as(app, Some(TOKEN), method, path, body, headers).await
}

async fn sent_as(
    app: &Router,
    token: Option<&str>,
    method: &str,
    path: &str,
    body: Value,
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = axum::http::Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { Body::empty() } else { body.to_string().into() };
    let response = app.clone().oneshot(request.body(body).expect("it is well formed")).await;
    let (parts, body) = response.expect("the router cannot fail").into_parts();
    // What goes on for ever is not waited for.
    let body = match parts.headers.get(header::CONTENT_TYPE) {
        Some(kind) if kind == "text/event-stream" => Body::empty(),
        _ => body,
    };
    let bytes = axum::body::to_bytes(body, 1 << 20).await.expect("the body is in memory");
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    }
}

#[tokio::test]
async fn resources_are_made_read_changed_and_deleted() {
    let run = running().await;
    run.configure().await;

    let changed = run.put("/api/v1/integrations/1", json!({"name": "store"})).await;
    assert_eq!(
        (changed.status, &changed.body["name"], &changed.body["version"]),
        (StatusCode::OK, &json!("store"), &json!(5))
    );
    assert_eq!(changed.headers[header::ETAG], "\"5\"");
    let unchanged = run.put("/api/v1/integrations/1", json!({"name": "store"})).await;
    assert_eq!(unchanged.headers[header::ETAG], "\"5\"");

    let stale = run.send("PUT", "/api/v1/integrations/1", json!({"name": "x"}), Some("\"1\"")).await;
    assert_eq!((stale.status, &stale.body["code"]), (StatusCode::PRECONDITION_FAILED, &json!("version_conflict")));
    let stale = run.send("DELETE", "/api/v1/integrations/1", Value::Null, Some("\"1\"")).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    let fresh = run.send("PUT", "/api/v1/integrations/1", json!({"status": "inactive"}), Some("\"5\"")).await;
    assert_eq!((fresh.status, &fresh.body["status"]), (StatusCode::OK, &json!("inactive")));

    let in_use = run.send("DELETE", "/api/v1/destinations/1", Value::Null, None).await;
    assert_eq!((in_use.status, &in_use.body["code"]), (StatusCode::CONFLICT, &json!("conflict")));
    let taken = run.post("/api/v1/webhooks", json!({"integration_id": 1, "name": "b", "path": "/shop"})).await;
    assert_eq!((taken.status, &taken.body["errors"][0]["pointer"]), (StatusCode::CONFLICT, &json!("/path")));
    let dangling =
        run.post("/api/v1/subscriptions", json!({"integration_id": 1, "destination_id": 9, "name": "b"})).await;
    assert_eq!(dangling.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(dangling.body["errors"][0]["pointer"], "/destination_id");

    let listed = run.get("/api/v1/webhooks?integration_id=1&active=true").await;
    assert_eq!((&listed.body["total"], &listed.body["items"][0]["path"]), (&json!(1), &json!("/shop")));
    assert_eq!(run.get("/api/v1/webhooks?integration_id=2").await.body["total"], 0);
    assert_eq!(run.get("/api/v1/webhooks?activ=true").await.status, StatusCode::BAD_REQUEST);

    let gone = run.send("DELETE", "/api/v1/integrations/1/", Value::Null, None).await;
    assert_eq!((gone.status, gone.text.as_str()), (StatusCode::NO_CONTENT, ""));
    for path in ["/api/v1/integrations/1", "/api/v1/webhooks/1", "/api/v1/subscriptions/1", "/api/v1/webhooks/x"] {
        let missing = run.get(path).await;
        assert_eq!((missing.status, &missing.body["code"]), (StatusCode::NOT_FOUND, &json!("not_found")), "{path}");
    }
    let versions = run.get("/api/v1/integrations/1/versions").await;
    assert_eq!(versions.body["items"].as_array().map(Vec::len), Some(6));
    assert_eq!(versions.body["items"][0]["author"], "admin");
    assert_eq!(run.get("/api/v1/integrations/7/versions").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn secrets_are_shown_once_and_rotated() {
    let run = running().await;
    run.configure().await;
    let rotated = run.post("/api/v1/webhooks/1/rotate-secret", Value::Null).await;
    assert_eq!(rotated.status, StatusCode::OK, "{}", rotated.text);
    assert!(rotated.body["secret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")));
    assert_eq!(rotated.body["secrets"][1]["expires_at"], "2026-01-02T00:00:00Z");
    let rotated = run.post("/api/v1/destinations/1/rotate-secret", json!({})).await;
    assert!(rotated.body["signing_secret"].is_string());
    let planted = json!({"secret": "whsec_planted-secret", "grace_s": 0});
    let given = run.post("/api/v1/webhooks/1/rotate-secret", planted).await;
    assert_eq!(given.body["secrets"].as_array().map(Vec::len), Some(1));
    assert!(!given.text.contains("planted"));
    let stored = format!("{:?}", run.config.changes());
    assert!(!stored.contains("planted"));
    let activities = run.get("/api/v1/activities?limit=1000").await;
    assert!(!activities.text.contains("planted"));
    assert!(activities.text.contains("webhook_endpoint.secret_rotated"));
    assert!(activities.text.contains("destination.secret_rotated"));
    let of_it =
        run.get("/api/v1/activities?integration_id=1&action=webhook_endpoint.&author=admin&result=ok&limit=1").await;
    let item = &of_it.body["items"][0];
    assert_eq!((&item["action"], &item["integration_id"]), (&json!("webhook_endpoint.secret_rotated"), &json!(1)));
    assert_eq!((&item["author"], &item["source"]), (&json!("admin"), &json!("0.0.0.0")));
    let next = of_it.body["next"].as_str().expect("there is more");
    let before = run.get(&format!("/api/v1/activities?action=webhook_endpoint.&limit=1&before={next}")).await;
    assert!(before.body["items"][0]["number"].as_u64() < item["number"].as_u64());
    for none in ["integration_id=9", "author=bob", "result=failed&action=destination.", "until=2000-01-01T00:00:00Z"] {
        assert_eq!(run.get(&format!("/api/v1/activities?{none}")).await.body["items"], json!([]), "{none}");
    }
    for wrong in ["before=7", "result=good", "since=yesterday", "integration=1"] {
        assert_eq!(run.get(&format!("/api/v1/activities?{wrong}")).await.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let export = run.get("/api/v1/activities/export?action=destination.").await;
    assert_eq!(export.headers[header::CONTENT_TYPE], "application/x-ndjson");
    let lines: Vec<Value> = export.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.len() >= 2 && lines.iter().all(|it| it["subject"] == "destination 1"), "{}", export.text);
}

#[tokio::test]
async fn concurrent_changes_of_different_members_all_stand() {
    let run = running().await;
    run.configure().await;
    let (name, description, active) = tokio::join!(
        run.put("/api/v1/webhooks/1", json!({"name": "n"})),
        run.put("/api/v1/webhooks/1", json!({"description": "d"})),
        run.put("/api/v1/webhooks/1", json!({"active": false})),
    );
    for answer in [name, description, active] {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    let stands = run.get("/api/v1/webhooks/1").await.body;
    assert_eq!((&stands["name"], &stands["description"], &stands["active"]), (&json!("n"), &json!("d"), &json!(false)));
}

#[tokio::test]
async fn events_tell_what_became_of_them() {
    let run = running().await;
    run.configure().await;
    let listed = run.get("/api/v1/events?limit=3&integration_id=1").await;
    assert_eq!(listed.status, StatusCode::OK, "{}", listed.text);
    let items = listed.body["items"].as_array().expect("a list");
    assert_eq!(items[0]["id"], event_id(4, 4).to_string());
    assert!(items[1]["problem"].is_string(), "the damaged one is told, not left out");
    let next = listed.body["next"].as_str().expect("there is more");
    let rest = run.get(&format!("/api/v1/events?before={next}&limit=3")).await;
    assert_eq!(rest.body["items"].as_array().map(Vec::len), Some(1));
    assert!(rest.body["next"].is_null());

    let path = format!("/api/v1/events/{}", event_id(1, 1));
    let one = run.get(&path).await;
    assert_eq!(one.body["body"], r#"{"id":"evt_1"}"#);
    assert_eq!(one.body["deliveries"][0]["status"], "pending");
    assert!(!one.text.contains("planted"));
    let body = run.get(&format!("{path}/body")).await;
    assert_eq!(body.text, r#"{"id":"evt_1"}"#);
    assert_eq!(body.headers[header::CONTENT_TYPE], "application/octet-stream");
    assert_eq!(run.get(&format!("/api/v1/events/{}", event_id(3, 13))).await.body["code"], "corrupt");
    assert_eq!(run.get(&format!("/api/v1/events/{}", event_id(9, 9))).await.status, StatusCode::NOT_FOUND);
    assert_eq!(run.get("/api/v1/events/nonsense").await.status, StatusCode::NOT_FOUND);
    assert_eq!(run.get("/api/v1/events?before=nonsense").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn events_are_listed_by_what_became_of_them() {
    let run = running().await;
    run.configure().await;
    let pending = run.get("/api/v1/events?status=processing,pending&integration_id=1&limit=3").await;
    assert_eq!(pending.status, StatusCode::OK, "{}", pending.text);
    let items = pending.body["items"].as_array().expect("a list");
    assert!(items.len() == 3 && items.iter().all(|item| item["status"] == "pending"), "{items:?}");
    let next = pending.body["next"].as_str().expect("there is more");
    let rest = run.get(&format!("/api/v1/events?status=pending&before={next}")).await;
    assert_eq!(rest.body["items"][0]["id"], event_id(1, 1).to_string());
    assert_eq!((rest.body["items"].as_array().map(Vec::len), &rest.body["next"]), (Some(1), &json!(null)));
    for none in ["status=failure", "status=pending&integration_id=2"] {
        let answer = run.get(&format!("/api/v1/events?{none}")).await;
        assert_eq!((&answer.body["items"], &answer.body["next"]), (&json!([]), &json!(null)), "{none}");
    }
    let refused = run.get("/api/v1/events?status=pending,failed").await;
    assert_eq!((refused.status, &refused.body["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")));
    assert!(refused.text.contains("known are `pending`, `processing`, `success`, `failure`"), "{}", refused.text);
}

#[tokio::test]
async fn dead_letters_are_listed_and_sent_again() {
    let run = running().await;
    run.configure().await;
    let listed = run.get("/api/v1/deadletters?limit=1").await;
    assert_eq!(listed.body["items"][0]["subscription"], "all");
    let next = listed.body["next"].as_str().expect("there is more");
    let rest = run.get(&format!("/api/v1/deadletters?after={next}")).await;
    assert_eq!(rest.body["items"][0]["subscription_id"], 2);
    let path = format!("/api/v1/deadletters/1/{}", event_id(1, 1));
    assert_eq!(run.get(&path).await.body["attempts"], 10);
    let queued = run.post(&format!("{path}/replay"), Value::Null).await;
    assert_eq!((queued.status, &queued.body["status"]), (StatusCode::ACCEPTED, &json!("queued")), "{}", queued.text);
    assert!(matches!(run.log.committed.lock().expect("nobody panicked")[0], StateOp::Delivery { .. }));
    let orphan = run.post(&format!("/api/v1/deadletters/2/{}/replay", event_id(1, 1)), json!({})).await;
    assert_eq!(orphan.status, StatusCode::CONFLICT);
    let missing = run.post(&format!("/api/v1/deadletters/1/{}/replay", event_id(2, 2)), json!({})).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    // The audit log has a writer of its own, so an entry may come a moment after its reply.
    let noted = async || {
        let activities = run.get("/api/v1/activities?limit=100").await.text;
        activities.contains("dead_letter.replayed") && activities.contains("request.refused")
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !noted().await {
        assert!(std::time::Instant::now() < deadline, "the replay and the refusal are not in the audit log");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn health_and_counts_are_told() {
    let run = running().await;
    assert_eq!(run.get("/healthz").await.body["status"], "alive");
    assert_eq!(run.get("/readyz").await.body["status"], "ready");
    let metrics = run.get("/api/v1/metrics").await;
    assert_eq!((metrics.status, &metrics.body["totals"]["accepted"]), (StatusCode::OK, &json!(0)));
    assert_eq!(metrics.body["faults"], json!([]));
}

#[tokio::test]
async fn a_destinations_flow_and_all_gauges_are_told() {
    let run = running().await;
    run.configure().await;
    let flow = run.get("/api/v1/destinations/1/flow").await;
    assert_eq!(flow.status, StatusCode::OK, "{}", flow.text);
    assert_eq!((&flow.body["breaker"]["state"], &flow.body["concurrency"]["in_use"]), (&json!("closed"), &json!(0)));
    let missing = run.get("/api/v1/destinations/9/flow").await;
    assert_eq!((missing.status, &missing.body["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
    let metrics = run.get("/api/v1/metrics").await.body;
    assert_eq!((&metrics["destinations_total"], &metrics["destinations"][0]["destination_id"]), (&json!(1), &json!(1)));
    let backlog = json!({"integration_id": 1, "integration": "shop", "backlog_bytes": 0, "backlog_full": false});
    assert_eq!((&metrics["integrations_total"], &metrics["integrations"]), (&json!(1), &json!([backlog])));
    let missing = run.get("/api/v1/integrations/9/flow").await;
    assert_eq!((missing.status, &missing.body["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
    let router = metrics["mailboxes"].as_array().expect("a list").iter().find(|mailbox| mailbox["role"] == "router");
    let router = router.expect("it has one");
    assert_eq!((&router["actors"], &router["bound"], &router["passed"]), (&json!(1), &json!(1), &json!(0)));
}
