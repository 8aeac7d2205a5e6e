//! Events: `/api/v1/events`. What arrived, as it arrived, and what became of it.

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, TryStreamExt, stream};
use hookmill_actors::{
    domain::{
        config::{Configuration, Endpoint},
        delivery::{Attempt, DeliveryRecord, DeliveryStatus},
        event::Event,
        ids::{EventId, IntegrationId},
    },
    ports::{
        event_log::{EventLog, LogError},
        state_store::{DeliveryState, Note, StateStore},
    },
};
use serde::Serialize;

use super::{
    Api,
    paging::{Params, Slice},
    problem::{Code, Problem},
    redact,
    resource::{Segments, json, time},
};

/// Larger bodies are not repeated within JSON; `body_url` has them.
const INLINE_BYTES_MAX: usize = 256 * 1024;
/// Events read at once for a list. Each may hold a whole body for a moment.
const READS_AT_ONCE: usize = 4;

/// An event in a list.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Item {
    id: EventId,
    integration_id: u32,
    endpoint_id: Option<u32>,
    received_at: String,
    event_type: Option<String>,
    provider_id: Option<String>,
    size: Option<usize>,
    /// Why no more is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// An event with its envelope.
#[derive(Debug, Serialize)]
struct View {
    #[serde(flatten)]
    item: Item,
    accepted_version: u64,
    peer: String,
    hops: u8,
    query: String,
    content_type: Option<String>,
    headers: Vec<HeaderView>,
    /// The body, where it is UTF-8 and not large.
    body: Option<String>,
    /// The body, where it is not UTF-8 and not large.
    body_base64: Option<String>,
    body_url: String,
    deliveries: Vec<DeliveryView>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct HeaderView {
    name: String,
    value: String,
}

/// What became of an event for one subscription.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct DeliveryView {
    subscription_id: u32,
    subscription: String,
    destination_id: u32,
    status: DeliveryStatus,
    attempts: u32,
    /// Oldest first; empty where the first attempt succeeded.
    latest_attempts: Vec<AttemptView>,
    next_attempt_at: Option<String>,
    replay: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct AttemptView {
    at: String,
    duration_ms: u32,
    status: Option<u16>,
    error: Option<String>,
    reply: Option<String>,
}

/// `GET /api/v1/events`: newest first, before `before`.
pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let limit = params.limit()?;
    let integration = params.parsed("integration_id", "a number")?.map(IntegrationId);
    let before = params.parsed("before", "an event id")?.unwrap_or(EventId::MAX);
    params.finish()?;
    let ports = api.tree.ports();
    let ids = ports.log.latest(integration, before, limit).await?;
    let next = (ids.len() == limit).then(|| ids.last().map(EventId::to_string)).flatten();
    let items = stream::iter(ids)
        .map(|id| item(&*ports.log, &*ports.state, id))
        .buffered(READS_AT_ONCE)
        .try_filter_map(async |item| Ok(item))
        .try_collect()
        .await?;
    Ok(json(StatusCode::OK, &Slice::<Item> { items, limit, next }))
}

/// `GET /api/v1/events/{id}`
pub(super) async fn one(State(api): State<Api>, Segments(id): Segments<EventId>) -> Result<Response, Problem> {
    let ports = api.tree.ports();
    let event = ports.log.get(id).await?.ok_or_else(|| gone(id))?;
    let note = ports.state.note(id).await?;
    let snapshot = api.tree.config().current();
    let deliveries = deliveries(&*ports.state, &snapshot.configuration, id).await?;
    let endpoint = snapshot.configuration.endpoints.get(&event.arrival.endpoint).map(AsRef::as_ref);
    Ok(json(StatusCode::OK, &view(&event, note, endpoint, deliveries)))
}

/// `GET /api/v1/events/{id}/body`: the exact bytes, to be kept, never to be shown by a browser.
pub(super) async fn body(State(api): State<Api>, Segments(id): Segments<EventId>) -> Result<Response, Problem> {
    let event = api.tree.ports().log.get(id).await?.ok_or_else(|| gone(id))?;
    Ok(download(id, event.arrival.body.clone()))
}

fn gone(id: EventId) -> Problem {
    Problem::new(Code::NotFound, format!("event {id} does not exist, or its retention has ended"))
}

fn download(id: EventId, body: Bytes) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{id}.bin\"")) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    response
}

/// A damaged event stays in the list, with its damage; one that was trimmed meanwhile does not.
async fn item(log: &dyn EventLog, state: &dyn StateStore, id: EventId) -> Result<Option<Item>, LogError> {
    let note = state.note(id).await?;
    match log.get(id).await {
        Ok(Some(event)) => Ok(Some(whole_item(&event, note))),
        Ok(None) => Ok(None),
        Err(error @ LogError::Corrupt(_)) => Ok(Some(Item { problem: Some(error.to_string()), ..noted(id, note) })),
        Err(error) => Err(error),
    }
}

fn whole_item(event: &Event, note: Option<Note>) -> Item {
    Item {
        endpoint_id: Some(event.arrival.endpoint.0),
        received_at: time(event.arrival.received_at_ms),
        size: Some(event.arrival.body.len()),
        ..noted(event.id, note)
    }
}

/// What is known without the event itself.
fn noted(id: EventId, note: Option<Note>) -> Item {
    let (event_type, provider_id) = note.map_or((None, None), |note| (note.event_type, note.provider_id));
    Item {
        id,
        integration_id: id.integration().0,
        endpoint_id: None,
        received_at: time(id.millis()),
        event_type: event_type.map(String::from),
        provider_id: provider_id.map(String::from),
        size: None,
        problem: None,
    }
}

fn view(event: &Event, note: Option<Note>, endpoint: Option<&Endpoint>, deliveries: Vec<DeliveryView>) -> View {
    let arrival = &event.arrival;
    let (body, body_base64) = match arrival.body.as_ref() {
        large if large.len() > INLINE_BYTES_MAX => (None, None),
        small => match std::str::from_utf8(small) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(small))),
        },
    };
    View {
        item: whole_item(event, note),
        accepted_version: arrival.accepted_version,
        peer: arrival.peer.to_string(),
        hops: arrival.hops,
        query: redact::query(&arrival.query),
        content_type: event.content_type().map(str::to_owned),
        headers: headers(event, endpoint),
        body,
        body_base64,
        body_url: format!("/api/v1/events/{}/body", event.id),
        deliveries,
    }
}

/// Header lines; the values of those that prove something are taken out, the endpoint's own choice included.
fn headers(event: &Event, endpoint: Option<&Endpoint>) -> Vec<HeaderView> {
    let chosen = endpoint.map(|endpoint| {
        let within = endpoint.verification.get("header").and_then(serde_json::Value::as_str);
        [endpoint.signature_header.as_deref(), within]
    });
    let proves = |name: &str| {
        let is_chosen = chosen.iter().flatten().flatten().any(|chosen| chosen.eq_ignore_ascii_case(name));
        is_chosen || redact::is_sensitive(name)
    };
    let shown = |(name, value): (&str, &[u8])| HeaderView {
        value: if proves(name) { redact::REDACTED.to_owned() } else { String::from_utf8_lossy(value).into_owned() },
        name: name.to_owned(),
    };
    event.arrival.headers.iter().map(shown).collect()
}

/// Where the event stands with each subscription of its integration. Those that began after it are left out.
async fn deliveries(
    state: &dyn StateStore,
    configuration: &Configuration,
    event: EventId,
) -> Result<Vec<DeliveryView>, LogError> {
    let mut found = Vec::new();
    for subscription in configuration.subscriptions.values() {
        if subscription.integration_id != event.integration() {
            continue;
        }
        let record = match state.delivery(subscription.id, event).await? {
            DeliveryState::Record(record) => record,
            DeliveryState::Delivered => {
                DeliveryRecord { status: DeliveryStatus::Delivered, attempts: 1, ..DeliveryRecord::new(0) }
            }
            DeliveryState::Unknown if event <= subscription.start_after => continue,
            DeliveryState::Unknown => DeliveryRecord::new(0),
        };
        found.push(DeliveryView {
            subscription_id: subscription.id.0,
            subscription: subscription.name.clone(),
            destination_id: subscription.destination_id.0,
            status: record.status,
            attempts: record.attempts,
            latest_attempts: record.latest.into_iter().map(attempt).collect(),
            next_attempt_at: record.due_ms.map(time),
            replay: record.replay,
        });
    }
    Ok(found)
}

fn attempt(attempt: Attempt) -> AttemptView {
    AttemptView {
        at: time(attempt.at_ms),
        duration_ms: attempt.duration_ms,
        status: attempt.status,
        error: attempt.error,
        reply: attempt.reply,
    }
}

#[cfg(test)]
mod tests {
    use hookmill_actors::domain::{
        event::Arrival,
        headers::HeaderBlock,
        ids::{EndpointId, SubscriptionId},
    };
    use serde_json::json;

    use super::{
        super::{subscriptions::tests::subscription, testing::MemoryState},
        *,
    };

    fn id(sequence: u128, integration: u32) -> EventId {
        EventId::from_parts(sequence, IntegrationId(integration), 7)
    }

    fn event(body: &[u8], headers: &[(&'static str, &'static str)]) -> Event {
        let lines: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        Event {
            id: id(5, 1),
            arrival: Arrival {
                endpoint: EndpointId(2),
                received_at_ms: 1_767_225_600_000,
                accepted_version: 3,
                peer: [192, 0, 2, 1].into(),
                hops: 0,
                query: "a=1&token=planted".into(),
                headers: HeaderBlock::from_lines(lines.iter().copied()),
                body: Bytes::copy_from_slice(body),
            },
        }
    }

    fn shown(event: &Event) -> serde_json::Value {
        serde_json::to_value(view(event, None, None, Vec::new())).expect("a view is JSON")
    }

    #[test]
    fn a_body_is_text_or_base64_or_left_to_its_url() {
        let text = shown(&event(br#"{"a":1}"#, &[]));
        assert_eq!(
            (&text["body"], &text["body_base64"], &text["size"]),
            (&json!("{\"a\":1}"), &json!(null), &json!(7))
        );
        assert_eq!(text["received_at"], "2026-01-01T00:00:00Z");
        assert_eq!((&text["integration_id"], &text["endpoint_id"]), (&json!(1), &json!(2)));
        let bytes = shown(&event(&[0xff, 0xfe], &[]));
        assert_eq!((&bytes["body"], &bytes["body_base64"]), (&json!(null), &json!("//4=")));
        let large = shown(&event(&vec![b'a'; INLINE_BYTES_MAX + 1], &[]));
        assert_eq!((&large["body"], &large["body_base64"]), (&json!(null), &json!(null)));
        assert_eq!(large["body_url"], format!("/api/v1/events/{}/body", id(5, 1)));
    }

    #[test]
    fn what_proves_something_is_not_shown() {
        let planted = event(
            b"",
            &[
                ("Authorization", "planted"),
                ("Cookie", "planted"),
                ("X-Api-Key", "planted"),
                ("Stripe-Signature", "planted"),
                ("X-Gitlab-Token", "planted"),
                ("Content-Type", "application/json"),
                ("X-Event", "one"),
                ("X-Event", "two"),
            ],
        );
        let view = shown(&planted);
        assert!(!view.to_string().contains("planted"));
        assert_eq!((&view["query"], &view["content_type"]), (&json!("a=1&token=***"), &json!("application/json")));
        assert_eq!(view["headers"][6], json!({"name": "x-event", "value": "one"}));
        assert_eq!(view["headers"][7], json!({"name": "x-event", "value": "two"}));
    }

    #[test]
    fn the_header_that_an_endpoint_chose_is_not_shown_either() {
        let event = event(b"", &[("X-Acme-Check", "planted"), ("X-Acme-Other", "planted")]);
        let mut endpoint = Endpoint {
            dedup_window_s: None,
            id: EndpointId(2),
            integration_id: IntegrationId(1),
            name: String::new(),
            description: None,
            path: "/a".to_owned(),
            active: true,
            verify_signature: true,
            signature_header: Some("x-acme-check".to_owned()),
            verification: serde_json::Map::new(),
            secrets: Vec::new(),
            body_bytes_max: None,
            meta: hookmill_actors::domain::config::Meta::default(),
        };
        endpoint.verification.insert("header".to_owned(), json!("X-ACME-Other"));
        let values: Vec<String> = headers(&event, Some(&endpoint)).into_iter().map(|line| line.value).collect();
        assert_eq!(values, ["***", "***"]);
    }

    #[test]
    fn a_download_is_never_shown_by_a_browser() {
        let response = download(id(5, 1), Bytes::from_static(b"<script>"));
        let headers = response.headers();
        assert_eq!(headers[header::CONTENT_TYPE], "application/octet-stream");
        let disposition = format!("attachment; filename=\"{}.bin\"", id(5, 1));
        assert_eq!(headers[header::CONTENT_DISPOSITION], disposition.as_str());
    }

    #[tokio::test]
    async fn each_subscription_of_the_integration_tells_where_it_stands() {
        let event = id(50, 1);
        let mut record = DeliveryRecord { status: DeliveryStatus::Retrying, due_ms: Some(0), ..DeliveryRecord::new(1) };
        record.push(Attempt { at_ms: 0, duration_ms: 9, status: Some(500), error: Some("500".into()), reply: None });
        let state = MemoryState {
            deliveries: [
                ((SubscriptionId(1), event), DeliveryState::Delivered),
                ((SubscriptionId(2), event), DeliveryState::Record(record)),
            ]
            .into(),
            ..MemoryState::default()
        };
        let mut configuration = Configuration::default();
        for (number, integration, start_after) in [
            (1, 1, EventId::ZERO),
            (2, 1, EventId::ZERO),
            (3, 1, EventId::ZERO), // nothing recorded: still to come
            (4, 1, id(60, 1)),     // began later
            (5, 2, EventId::ZERO), // another integration's
        ] {
            configuration
                .subscriptions
                .insert(SubscriptionId(number), subscription(number, integration, start_after).into());
        }
        let found = deliveries(&state, &configuration, event).await.expect("the state is in memory");
        let told: Vec<_> = found.iter().map(|view| (view.subscription_id, view.status, view.attempts)).collect();
        assert_eq!(
            told,
            [(1, DeliveryStatus::Delivered, 1), (2, DeliveryStatus::Retrying, 1), (3, DeliveryStatus::Pending, 0),]
        );
        assert_eq!(found[1].next_attempt_at.as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(found[1].latest_attempts[0].status, Some(500));
    }
}
