//! Events: `/api/v1/events`. What arrived, as it arrived, and what became of it.

use axum::{
    body::Bytes,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hookmill_actors::{
    domain::{
        config::{Endpoint, Subscription},
        event::Event,
        headers::HeaderBlock,
        ids::{EndpointId, EventId, IntegrationId, SubscriptionId},
        selection::TYPE_PATTERN_CHARS_MAX,
        standing::Processing,
    },
    ports::{
        event_log::{Head, LogError},
        state_store::{Mark, Note, NoteFilter},
    },
    tree::ReplayError,
};
use serde::Serialize;
use utoipa::ToSchema;

pub(super) use self::stream::stream as follow;
use self::{
    by_status::{Lookup, STATUSES},
    scan::{Bounds, Criteria, Scanned, Where},
    story::Story,
};
use super::{
    Api,
    access::{Author, State},
    fields::number,
    form::Form,
    json::Json,
    paging::{Params, Slice},
    problem::{Code, Problem},
    redact,
    resource::{Segments, json, time},
    verification::Facts,
};

mod by_status;
pub(super) mod doc;
mod scan;
mod story;
mod stream;

/// Larger bodies are not repeated within JSON; `body_url` has them.
const INLINE_BYTES_MAX: usize = 256 * 1024;
/// Types that one request asks for.
const TYPES_MAX: usize = 16;

/// An event in a list.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EventItem)]
struct Item {
    id: EventId,
    integration_id: u32,
    endpoint_id: Option<u32>,
    #[schema(format = DateTime)]
    received_at: String,
    event_type: Option<String>,
    provider_id: Option<String>,
    /// The event that this one repeats.
    duplicate_of: Option<EventId>,
    size: Option<usize>,
    /// Of all its deliveries. Not in a stream, nor in a list for events beyond the first 10,000 deliveries of its page.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Processing>,
    /// Why no more is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// An event with its envelope.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
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
    #[serde(flatten)]
    story: Story,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = HeaderLine)]
pub(super) struct HeaderView {
    name: String,
    value: String,
}

/// A part of the list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventList)]
struct Listed {
    #[serde(flatten)]
    slice: Slice<Item>,
    /// How much was looked at, where that was needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    scanned: Option<Scanned>,
}

/// `GET /api/v1/events`: newest first, before `before`. Integration, endpoint, type, provider's id and time are answered
/// by an index. Where it is asked for by `status`, `where` or a pattern of types, or by a token with scopes and no `integration_id`, a page may
/// be short or empty and yet have a `next`: one request looks at a bounded number of events, for a bounded time.
pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let limit = params.limit()?;
    let before = params.parsed("before", "an event id")?.unwrap_or(EventId::MAX);
    let noted = note_filter(&mut params)?;
    let statuses = params.some_of("status", &STATUSES)?;
    let since_ms = params.moment("since")?;
    let until_ms = params.moment("until")?;
    let filter = read_where(&api, &mut params).await?;
    params.finish()?;
    if noted.integration.is_some_and(|id| !api.sees(id)) {
        let slice = Slice::<Item> { items: Vec::new(), limit, next: None };
        return Ok(json(StatusCode::OK, &Listed { slice, scanned: None }));
    }
    let before = before.min(until_ms.map_or(EventId::MAX, EventId::at_millis));
    let first = since_ms.map_or(EventId::ZERO, EventId::at_millis);
    let looks = statuses.is_some() || filter.is_some();
    let _place = match &filter {
        Some(_) => Some(api.scan_place()?),
        None => None,
    };
    let sees = (!api.sees_everything()).then(|| scan::Sees::new(api.clone()));
    let criteria = Criteria { noted, first, statuses, filter, sees };
    let ports = api.tree.ports();
    let (log, state) = (&*ports.log, &*ports.state);
    let snapshot = api.tree.config().current();
    let found = scan::find((log, state), &snapshot.configuration, &criteria, before, Bounds::of_page(limit)).await?;
    let ids: Vec<EventId> = found.events.iter().map(|(id, _)| *id).collect();
    let statuses = match criteria.statuses {
        Some(_) => found.events.iter().map(|(_, status)| *status).collect(),
        None => Lookup::new(state, &snapshot.configuration).statuses_of_page(&ids).await?,
    };
    let heads = log.heads(&ids).await?;
    let known = ids.iter().zip(statuses).zip(heads.into_iter().zip(state.notes(&ids).await?));
    // What was trimmed meanwhile has no head.
    let told = |((id, status), (head, note)): ((&EventId, _), _)| Some(Item { status, ..item(*id, head?, note) });
    let items = known.filter_map(told).collect();
    let slice = Slice::<Item> { items, limit, next: found.next.map(|id| api.place_of(id).to_string()) };
    Ok(json(StatusCode::OK, &Listed { slice, scanned: looks.then_some(found.scanned) }))
}

/// The filters that an index answers.
fn note_filter(params: &mut Params) -> Result<NoteFilter, Problem> {
    let types =
        params.text("type")?.map(|text| text.split(',').map(|one| one.trim().into()).collect::<Vec<Box<str>>>());
    let types = types.unwrap_or_default();
    let is_wrong = |pattern: &str| pattern.is_empty() || pattern.chars().count() > TYPE_PATTERN_CHARS_MAX;
    if types.len() > TYPES_MAX || types.iter().any(|pattern| is_wrong(pattern)) {
        let detail = format!(
            "query parameter `type` must be 1 to {TYPES_MAX} types, separated by commas: names, or patterns such as \
             `payment.*`, of at most {TYPE_PATTERN_CHARS_MAX} characters"
        );
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    Ok(NoteFilter {
        integration: params.id("integration_id")?.map(IntegrationId),
        endpoint: params.id("endpoint_id")?.map(EndpointId),
        types,
        provider_id: params.line("provider_event_id")?.map(Into::into),
    })
}

/// The CEL filter `where`, compiled on a thread that may be held up.
async fn read_where(api: &Api, params: &mut Params) -> Result<Option<Where>, Problem> {
    let Some(text) = params.text("where")? else { return Ok(None) };
    let programs = api.tree.ports().compiler.programs.clone();
    let compiled = tokio::task::spawn_blocking(move || programs.selector(Some(&text), None));
    let selector = compiled
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(|error| Problem::new(Code::InvalidRequest, format!("query parameter `where` {}", error.problem)))?;
    Ok(Some(Where { selector, snapshot: api.tree.config().current() }))
}

/// `GET /api/v1/events/{id}`
pub(super) async fn one(State(api): State<Api>, Segments(id): Segments<EventId>) -> Result<Response, Problem> {
    let ports = api.tree.ports();
    let event = ports.log.get(id).await?.ok_or_else(|| gone(id))?;
    let note = ports.state.note(id).await?;
    let snapshot = api.tree.config().current();
    let waiting_for = |subscription| api.tree.waiting_for(subscription);
    let story = story::of(&*ports.state, &snapshot.configuration, id, note.as_ref(), waiting_for).await?;
    let endpoint = snapshot.configuration.endpoints.get(&event.arrival.endpoint).map(AsRef::as_ref);
    Ok(json(StatusCode::OK, &view(&event, note, endpoint, story)))
}

#[derive(Serialize, ToSchema)]
#[schema(as = QueuedDelivery)]
struct Queued {
    status: &'static str,
    subscription_id: SubscriptionId,
    event_id: EventId,
}

/// `POST /api/v1/events/{id}/replay`: it is sent to that subscription, again or for the first time, under the same
/// `webhook-id`.
pub(super) async fn replay(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<EventId>,
    Json(body): Json,
) -> Result<Response, Problem> {
    let is_there = matches!(api.tree.ports().log.heads(&[id]).await?.as_slice(), [Some(_)]);
    is_there.then_some(()).ok_or_else(|| gone(id))?;
    let mut form = Form::new(body)?;
    let subscription = form.required(&["subscription_id"], number::<u32>(1..=u32::MAX));
    let subscription = SubscriptionId(form.finish(|| subscription)?);
    if !api.sees_everything() {
        api.find::<Subscription>(subscription.0).map_err(|_| ReplayError::SubscriptionGone(subscription))?;
    }
    api.tree.replay_event(&author, subscription, id).await?;
    Ok(json(StatusCode::ACCEPTED, &Queued { status: "queued", subscription_id: subscription, event_id: id }))
}

/// `GET /api/v1/events/{id}/body`: the exact bytes, to be kept, never to be shown by a browser.
pub(super) async fn body(State(api): State<Api>, Segments(id): Segments<EventId>) -> Result<Response, Problem> {
    let event = api.tree.ports().log.get(id).await?.ok_or_else(|| gone(id))?;
    Ok(download(id, event.arrival.body.clone()))
}

/// `POST /api/v1/events/{id}/verify`: whether its signature holds as of the time it arrived, with the secrets of now and
/// those that were active then.
pub(super) async fn verify(State(api): State<Api>, Segments(id): Segments<EventId>) -> Result<Response, Problem> {
    let event = api.tree.ports().log.get(id).await?.ok_or_else(|| gone(id))?;
    let snapshot = api.tree.config().current();
    let configuration = &snapshot.configuration;
    let endpoint = configuration.endpoints.get(&event.arrival.endpoint);
    let integration = endpoint.and_then(|endpoint| configuration.integrations.get(&endpoint.integration_id));
    let Some((endpoint, integration)) = endpoint.zip(integration) else {
        let endpoint = event.arrival.endpoint;
        let detail = format!("webhook endpoint {endpoint}, which it arrived at, was deleted, and its secrets with it");
        return Err(Problem::new(Code::Conflict, detail));
    };
    let query = Some(&*event.arrival.query).filter(|query| !query.is_empty());
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let facts = Facts {
        method: "POST".to_owned(),
        target: format!("/webhooks/receive{}{query}", endpoint.path),
        headers: event.arrival.headers.clone(),
        body: event.arrival.body.clone(),
        peer: event.arrival.peer,
        at_ms: event.arrival.received_at_ms,
    };
    let case = api.case(integration, endpoint, facts)?;
    Ok(json(StatusCode::OK, &api.explain(case).await?))
}

pub(super) fn gone(id: EventId) -> Problem {
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

/// A damaged event stays in the list, with its damage.
fn item(id: EventId, head: Result<Head, EventId>, note: Option<Note>) -> Item {
    match head {
        Ok(head) => Item {
            endpoint_id: Some(head.endpoint.0),
            received_at: time(head.received_at_ms),
            size: Some(head.body_bytes),
            ..noted(id, note)
        },
        Err(damaged) => Item { problem: Some(LogError::Corrupt(damaged).to_string()), ..noted(id, note) },
    }
}

fn whole_item(event: &Event, note: Option<Note>) -> Item {
    item(event.id, Ok(Head::of(event)), note)
}

/// What is known without the event itself.
fn noted(id: EventId, note: Option<Note>) -> Item {
    let Note { event_type, provider_id, mark, .. } = note.unwrap_or_default();
    Item {
        id,
        integration_id: id.integration().0,
        endpoint_id: None,
        received_at: time(id.millis()),
        event_type: event_type.map(String::from),
        provider_id: provider_id.map(String::from),
        duplicate_of: match mark {
            Some(Mark::DuplicateOf(first)) => Some(first),
            Some(Mark::Unreadable(_)) | None => None,
        },
        size: None,
        status: None,
        problem: None,
    }
}

fn view(event: &Event, note: Option<Note>, endpoint: Option<&Endpoint>, story: Story) -> View {
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
        headers: headers(&arrival.headers, endpoint),
        body,
        body_base64,
        body_url: format!("/api/v1/events/{}/body", event.id),
        story,
    }
}

/// Header lines; the values of those that prove something are taken out, the endpoint's own choice included.
pub(super) fn headers(headers: &HeaderBlock, endpoint: Option<&Endpoint>) -> Vec<HeaderView> {
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
    headers.iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use hookmill_actors::domain::event::Arrival;
    use serde_json::json;

    use super::*;

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
        serde_json::to_value(view(event, None, None, Story::default())).expect("a view is JSON")
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
            rate_limit: None,
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
        let values: Vec<String> =
            headers(&event.arrival.headers, Some(&endpoint)).into_iter().map(|line| line.value).collect();
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
}
