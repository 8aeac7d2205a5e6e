//! The audit log: `/api/v1/activities`. Newest first; filters by integration and time are answered by an index, the
//! others by looking, as far as one request may.

pub(super) mod doc;

use std::net::IpAddr;

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use hookmill_actors::{
    configuration::ConfigError,
    domain::{
        activity::{ActivityBounds, ActivityFilter, ActivityPlace, ActivityResult, RecordedActivity},
        ids::IntegrationId,
    },
    ports::config_store::ConfigStoreError,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    access::State,
    paging::{Params, Slice},
    problem::Problem,
    resource::{json, time},
};

/// Activities that one request looks at, whether they pass or not: about ten milliseconds.
const LOOKED_AT_MAX: usize = 2_000;
/// Activities that an export holds at once.
const EXPORT_STEP: usize = 256;
const RESULTS: [(&str, ActivityResult); 3] =
    [("ok", ActivityResult::Ok), ("refused", ActivityResult::Refused), ("failed", ActivityResult::Failed)];

/// An entry of the audit log.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Activity)]
struct ActivityView {
    number: u64,
    #[schema(format = DateTime)]
    at: String,
    author: String,
    /// From which address; `null` where hookmill acted by itself.
    #[schema(value_type = Option<String>)]
    source: Option<IpAddr>,
    action: String,
    subject: String,
    integration_id: Option<u32>,
    result: ActivityResult,
    detail: String,
}

impl From<RecordedActivity> for ActivityView {
    fn from(RecordedActivity { number, activity: entry }: RecordedActivity) -> Self {
        Self {
            number,
            at: time(entry.at_ms),
            author: entry.actor,
            source: entry.source,
            action: entry.action,
            subject: entry.subject,
            integration_id: entry.integration.map(|id| id.0),
            result: entry.result,
            detail: entry.detail,
        }
    }
}

/// `GET /api/v1/activities`: a page may be short or empty and yet have a `next`.
pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let limit = params.limit()?;
    let before = params.parsed("before", "the `next` of an earlier reply")?.unwrap_or(ActivityPlace::END);
    let filter = filter(&mut params)?;
    params.finish()?;
    let bounds = ActivityBounds { before, found_max: limit, looked_at_max: LOOKED_AT_MAX };
    let page = api.tree.ports().config.activities(&filter, bounds).await.map_err(ConfigError::from)?;
    let seen = page.entries.into_iter().filter(|entry| api.sees_activity(entry));
    let items = seen.map(ActivityView::from).collect();
    let next = page.next.map(|place| place.to_string());
    Ok(json(StatusCode::OK, &Slice::<ActivityView> { items, limit, next }))
}

/// `GET /api/v1/activities/export`: all that pass, one JSON object a line, read from the store as fast as they are
/// taken.
pub(super) async fn export(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let filter = filter(&mut params)?;
    params.finish()?;
    let place = api.stream_place()?;
    let store = api.tree.ports().config.clone();
    let lines = stream::try_unfold(Some(ActivityPlace::END), move |before| {
        let (store, filter, api) = (store.clone(), filter.clone(), api.clone());
        // The place is held until the stream ends or its reader goes.
        let _held = &place;
        async move {
            let Some(before) = before else { return Ok(None) };
            let bounds = ActivityBounds { before, found_max: EXPORT_STEP, looked_at_max: LOOKED_AT_MAX };
            let page = store.activities(&filter, bounds).await.inspect_err(|error| {
                tracing::error!(%error, "an export of activities breaks off");
            })?;
            let seen = page.entries.into_iter().filter(|entry| api.sees_activity(entry));
            Ok::<_, ConfigStoreError>(Some((lines(seen), page.next)))
        }
    });
    let mut response = Body::from_stream(lines).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    let disposition = HeaderValue::from_static("attachment; filename=\"activities.jsonl\"");
    headers.insert(header::CONTENT_DISPOSITION, disposition);
    Ok(response)
}

fn lines(entries: impl Iterator<Item = RecordedActivity>) -> Bytes {
    let mut lines = Vec::new();
    for entry in entries {
        // A view is texts and numbers; it cannot fail to be JSON.
        if serde_json::to_writer(&mut lines, &ActivityView::from(entry)).is_ok() {
            lines.push(b'\n');
        }
    }
    lines.into()
}

fn filter(params: &mut Params) -> Result<ActivityFilter, Problem> {
    Ok(ActivityFilter {
        integration: params.id("integration_id")?.map(IntegrationId),
        actor: params.line("author")?,
        action: params.line("action")?,
        result: params.one_of("result", &RESULTS)?,
        since_ms: params.moment("since")?,
        until_ms: params.moment("until")?,
    })
}
