//! Bulk replays: `/api/v1/replays`. A plan first, which says how many, which and how long; then a job that is started,
//! paused, resumed and cancelled.

pub(super) mod doc;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use hookmill_actors::{
    domain::{
        config::ResourceKey,
        delivery::DeadReason,
        ids::{EndpointId, EventId, IntegrationId, ReplayId, SubscriptionId},
        limits::REPLAY_RATE_MAX,
        replay::{DeadLetterFilter, EventFilter, ReplayItem, ReplayJob, ReplayQuery, ReplayStatus},
        selection::{TYPE_PATTERN_CHARS_MAX, TYPE_PATTERNS_MAX},
        standing::Standing,
    },
    replay::{NewReplay, ReplayCommand},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Api,
    access::{Author, State},
    deadletters,
    fields::{boolean, line, list as list_of, moment, number, one_of},
    form::Form,
    json::{Json, NoMembers},
    paging::Params,
    problem::{Code, Problem},
    resource::{Segments, json, time},
};

/// Deliveries a second, where the client does not say.
const RATE_DEFAULT: u32 = 100;
/// Where events may stand for a replay to cover them, by name.
const STANDINGS: [(&str, Option<Standing>); 7] = [
    ("any", None),
    ("delivered", Some(Standing::Delivered)),
    ("dead", Some(Standing::Dead)),
    ("filtered", Some(Standing::Filtered)),
    ("duplicate", Some(Standing::Duplicate)),
    ("discarded", Some(Standing::Discarded)),
    ("cancelled", Some(Standing::Cancelled)),
];
/// What a replay may cover, by name.
const SOURCES: [(&str, Source); 2] = [("dead_letters", Source::DeadLetters), ("events", Source::Events)];
/// Where a replay may stand, by name.
const STATUSES: [(&str, ReplayStatus); 7] = [
    ("planning", ReplayStatus::Planning),
    ("planned", ReplayStatus::Planned),
    ("running", ReplayStatus::Running),
    ("paused", ReplayStatus::Paused),
    ("done", ReplayStatus::Done),
    ("cancelled", ReplayStatus::Cancelled),
    ("failed", ReplayStatus::Failed),
];

#[derive(Clone, Copy)]
enum Source {
    DeadLetters,
    Events,
}

/// A replay as replies show it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replay)]
struct View {
    id: ReplayId,
    status: ReplayStatus,
    author: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    query: QueryView,
    /// `null`: to the subscription that the query finds them with.
    target_subscription_id: Option<SubscriptionId>,
    rate_per_s: u32,
    /// Whether it starts as soon as it is planned.
    start: bool,
    /// Nothing accepted after this event is covered.
    upto_event_id: EventId,
    plan: PlanView,
    progress: Progress,
    /// What it waits for, or why it ended.
    note: Option<String>,
    url: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplayPlan)]
struct PlanView {
    /// Whether everything is counted.
    complete: bool,
    /// How many deliveries; so far, while it is not complete.
    deliveries: u64,
    /// The first of them.
    sample: Vec<ItemView>,
    /// How long they take at the rate, seconds.
    takes_s: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplayItem)]
struct ItemView {
    subscription_id: SubscriptionId,
    event_id: EventId,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplayProgress)]
struct Progress {
    replayed: u64,
    skipped: u64,
    remaining: u64,
    remaining_s: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplayQuery)]
#[serde(tag = "source", rename_all = "snake_case")]
enum QueryView {
    DeadLetters {
        integration_id: Option<IntegrationId>,
        subscription_id: Option<SubscriptionId>,
        reason: Option<DeadReason>,
        #[schema(format = DateTime)]
        from: Option<String>,
        #[schema(format = DateTime)]
        to: Option<String>,
    },
    Events {
        integration_id: IntegrationId,
        subscription_id: SubscriptionId,
        types: Vec<String>,
        endpoint_id: Option<EndpointId>,
        status: Option<Standing>,
        #[schema(format = DateTime)]
        from: Option<String>,
        #[schema(format = DateTime)]
        to: Option<String>,
    },
}

/// `GET /api/v1/replays`: newest first.
pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let page = params.page()?;
    let status = params.one_of("status", &STATUSES)?;
    params.finish()?;
    let jobs = api.tree.ports().state.jobs().await?;
    let seen = jobs.into_iter().rev().filter(|job| api.sees_replay(job));
    let wanted = seen.filter(|job| status.is_none_or(|status| job.status == status));
    Ok(json(StatusCode::OK, &page.of(wanted, view)))
}

/// `GET /api/v1/replays/{id}`
pub(super) async fn one(State(api): State<Api>, Segments(id): Segments<ReplayId>) -> Result<Response, Problem> {
    let job = api.tree.ports().state.job(id).await?;
    let job = job.ok_or_else(|| Problem::not_found(format!("replay {id}")))?;
    Ok(json(StatusCode::OK, &view(job)))
}

/// `POST /api/v1/replays`: plans one; with `"start": true` it starts as soon as it is planned.
pub(super) async fn create(
    State(api): State<Api>,
    Author(author): Author,
    Json(body): Json,
) -> Result<Response, Problem> {
    let wanted = wanted(body)?;
    match &wanted.query {
        ReplayQuery::DeadLetters(filter) => api.must_see_letters(filter)?,
        ReplayQuery::Events(EventFilter { integration, subscription, .. }) => {
            api.must_see("/query/integration_id", ResourceKey::Integration(*integration))?;
            api.must_see("/query/subscription_id", ResourceKey::Subscription(*subscription))?;
        }
    }
    if let Some(target) = wanted.target {
        api.must_see("/target_subscription_id", ResourceKey::Subscription(target))?;
    }
    let job = api.tree.create_replay(&author, wanted).await?;
    let location = format!("/api/v1/replays/{}", job.id);
    let mut response = json(StatusCode::CREATED, &view(job));
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `POST /api/v1/replays/{id}/start`, `pause`, `resume`, `cancel`
pub(super) async fn command(
    State(api): State<Api>,
    Author(author): Author,
    Segments((id, command)): Segments<(ReplayId, String)>,
    _: NoMembers,
) -> Result<Response, Problem> {
    let command = match command.as_str() {
        "start" => ReplayCommand::Start,
        "pause" => ReplayCommand::Pause,
        "resume" => ReplayCommand::Resume,
        "cancel" => ReplayCommand::Cancel,
        _ => {
            let detail = "the path must end with `start`, `pause`, `resume` or `cancel`";
            return Err(Problem::new(Code::NotFound, detail));
        }
    };
    Ok(json(StatusCode::OK, &view(api.tree.command_replay(&author, id, command).await?)))
}

fn wanted(body: Value) -> Result<NewReplay, Problem> {
    let mut form = Form::new(body)?;
    let query = form.nested("query", query);
    if query.is_none() {
        form.fault("query", "is missing or no object; its `source` is `dead_letters` or `events`");
    }
    let target = form.clearable(&["target_subscription_id"], number(1..=u32::MAX)).into_option().map(SubscriptionId);
    let rate = form.optional(&["rate_per_s"], number(1..=REPLAY_RATE_MAX)).unwrap_or(RATE_DEFAULT);
    let start = form.optional(&["start"], boolean).unwrap_or(false);
    form.finish(|| Some(NewReplay { query: query.flatten()?, target, rate_per_s: rate, start }))
}

fn query(form: &mut Form) -> Option<ReplayQuery> {
    match form.required(&["source"], one_of(&SOURCES))? {
        Source::DeadLetters => Some(ReplayQuery::DeadLetters(deadletters::filter(form))),
        Source::Events => {
            let integration = form.required(&["integration_id"], number(1..=u32::MAX)).map(IntegrationId);
            let subscription = form.required(&["subscription_id"], number(1..=u32::MAX)).map(SubscriptionId);
            let pattern = |value| line(1..=TYPE_PATTERN_CHARS_MAX)(value);
            let types = form.optional(&["types"], list_of(TYPE_PATTERNS_MAX, pattern)).unwrap_or_default();
            let endpoint = form.optional(&["endpoint_id"], number(1..=u32::MAX)).map(EndpointId);
            let standing = form.optional(&["status"], one_of(&STANDINGS)).flatten();
            let (from_ms, to_ms) = (form.optional(&["from"], moment), form.optional(&["to"], moment));
            let (integration, subscription) = integration.zip(subscription)?;
            let filter = EventFilter { integration, subscription, types, endpoint, standing, from_ms, to_ms };
            Some(ReplayQuery::Events(filter))
        }
    }
}

fn view(job: ReplayJob) -> View {
    let remaining_s = job.remaining_s();
    let counts = job.counts;
    let remaining = counts.planned.saturating_sub(counts.replayed + counts.skipped);
    let item =
        |ReplayItem { subscription, event }: ReplayItem| ItemView { subscription_id: subscription, event_id: event };
    View {
        id: job.id,
        status: job.status,
        author: job.author,
        created_at: time(job.created_at_ms),
        ended_at: job.ended_at_ms.map(time),
        query: query_view(job.query),
        target_subscription_id: job.target,
        rate_per_s: job.rate_per_s,
        start: job.start,
        upto_event_id: job.upto,
        plan: PlanView {
            complete: job.status != ReplayStatus::Planning,
            deliveries: counts.planned,
            sample: job.sample.into_iter().map(item).collect(),
            takes_s: counts.planned.div_ceil(u64::from(job.rate_per_s.max(1))),
        },
        progress: Progress { replayed: counts.replayed, skipped: counts.skipped, remaining, remaining_s },
        note: (!job.note.is_empty()).then_some(job.note),
        url: format!("/api/v1/replays/{}", job.id),
    }
}

fn query_view(query: ReplayQuery) -> QueryView {
    match query {
        ReplayQuery::DeadLetters(DeadLetterFilter { integration, subscription, reason, from_ms, to_ms }) => {
            QueryView::DeadLetters {
                integration_id: integration,
                subscription_id: subscription,
                reason,
                from: from_ms.map(time),
                to: to_ms.map(time),
            }
        }
        ReplayQuery::Events(filter) => QueryView::Events {
            integration_id: filter.integration,
            subscription_id: filter.subscription,
            types: filter.types,
            endpoint_id: filter.endpoint,
            status: filter.standing,
            from: filter.from_ms.map(time),
            to: filter.to_ms.map(time),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wanted_is_read_whole() {
        let dead = wanted(json!({"query": {"source": "dead_letters"}})).expect("all dead letters");
        let all = ReplayQuery::DeadLetters(DeadLetterFilter::default());
        assert_eq!(dead, NewReplay { query: all, target: None, rate_per_s: 100, start: false });
        let events = wanted(json!({
            "query": {"source": "events", "integration_id": 1, "subscription_id": 2, "types": ["payment.*"],
                      "endpoint_id": 3, "status": "filtered", "from": "1970-01-01T00:00:01Z", "to": "1970-01-01T00:00:02Z"},
            "target_subscription_id": 4, "rate_per_s": 7, "start": true}));
        let events = events.expect("it is well formed");
        let filter = EventFilter {
            integration: IntegrationId(1),
            subscription: SubscriptionId(2),
            types: vec!["payment.*".to_owned()],
            endpoint: Some(EndpointId(3)),
            standing: Some(Standing::Filtered),
            from_ms: Some(1_000),
            to_ms: Some(2_000),
        };
        let query = ReplayQuery::Events(filter);
        assert_eq!(events, NewReplay { query, target: Some(SubscriptionId(4)), rate_per_s: 7, start: true });
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        for (body, pointer) in [
            (json!({}), "/query"),
            (json!({"query": []}), "/query"),
            (json!({"query": {}}), "/query/source"),
            (json!({"query": {"source": "dead"}}), "/query/source"),
            (json!({"query": {"source": "dead_letters", "reason": "bad"}}), "/query/reason"),
            (json!({"query": {"source": "dead_letters", "status": "dead"}}), "/query/status"),
            (json!({"query": {"source": "events", "subscription_id": 1}}), "/query/integration_id"),
            (json!({"query": {"source": "events", "integration_id": 1}}), "/query/subscription_id"),
            (json!({"query": {"source": "dead_letters", "from": "yesterday"}}), "/query/from"),
            (json!({"query": {"source": "dead_letters"}, "rate_per_s": 0}), "/rate_per_s"),
            (json!({"query": {"source": "dead_letters"}, "rate_per_s": 5_001}), "/rate_per_s"),
            (json!({"query": {"source": "dead_letters"}, "rat_per_s": 5}), "/rat_per_s"),
        ] {
            let refused = wanted(body.clone()).expect_err("it is wrong");
            assert!(refused.faults.iter().any(|fault| fault.pointer == pointer), "{body}: {refused:?}");
        }
    }
}
