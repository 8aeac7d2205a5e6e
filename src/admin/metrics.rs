//! How hookmill is: health for machines, counts and the audit log for people.

use axum::{http::StatusCode, response::Response};
use hookmill_actors::{
    configuration::ConfigError,
    domain::activity::{ActivityResult, RecordedActivity},
    metrics::Report,
    snapshot::Fault,
};
use serde::Serialize;

use super::{
    Api,
    access::State,
    flow::Gauges,
    paging::{Params, Slice},
    problem::Problem,
    resource::{json, time},
};

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// `GET /healthz`: the process answers.
pub(super) async fn alive() -> Response {
    json(StatusCode::OK, &Health { status: "alive", reasons: Vec::new() })
}

/// `GET /readyz`: webhooks can be taken now, or why not.
pub(super) async fn ready(State(api): State<Api>) -> Response {
    readiness((api.readiness)())
}

fn readiness(reasons: Vec<String>) -> Response {
    if reasons.is_empty() {
        json(StatusCode::OK, &Health { status: "ready", reasons })
    } else {
        json(StatusCode::SERVICE_UNAVAILABLE, &Health { status: "not_ready", reasons })
    }
}

#[derive(Serialize)]
struct Metrics {
    #[serde(flatten)]
    report: Report,
    /// Retries that wait for their time.
    due: u64,
    dead_letters: u64,
    configuration_version: u64,
    #[serde(flatten)]
    gauges: Gauges,
    /// What is configured but cannot be used.
    faults: Vec<FaultView>,
}

#[derive(Serialize)]
struct FaultView {
    subject: String,
    problem: String,
}

/// `GET /api/v1/metrics`
pub(super) async fn report(State(api): State<Api>, params: Params) -> Result<Response, Problem> {
    params.finish()?;
    let counts = api.tree.ports().state.counts().await?;
    let snapshot = api.tree.config().current();
    let fault = |fault: &Fault| FaultView { subject: fault.subject.clone(), problem: fault.problem.clone() };
    let metrics = Metrics {
        report: api.tree.report().await,
        due: counts.due,
        dead_letters: counts.dead,
        configuration_version: snapshot.version(),
        gauges: Gauges::of(&api.tree),
        faults: snapshot.faults().map(fault).collect(),
    };
    Ok(json(StatusCode::OK, &metrics))
}

/// An entry of the audit log.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct ActivityView {
    number: u64,
    at: String,
    actor: String,
    action: String,
    subject: String,
    result: ActivityResult,
    detail: String,
}

/// `GET /api/v1/activities`: newest first, before `before`.
pub(super) async fn activities(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let limit = params.limit()?;
    let before = params.parsed("before", "a number")?;
    params.finish()?;
    let entries = api.tree.ports().config.activities(before, limit).await.map_err(ConfigError::from)?;
    Ok(json(StatusCode::OK, &activity_slice(entries, limit)))
}

fn activity_slice(entries: Vec<RecordedActivity>, limit: usize) -> Slice<ActivityView> {
    let next = entries.last().filter(|_| entries.len() == limit).map(|entry| entry.number.to_string());
    let view = |RecordedActivity { number, activity: entry }| ActivityView {
        number,
        at: time(entry.at_ms),
        actor: entry.actor,
        action: entry.action,
        subject: entry.subject,
        result: entry.result,
        detail: entry.detail,
    };
    Slice { items: entries.into_iter().map(view).collect(), limit, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn not_ready_says_why() {
        assert_eq!(readiness(Vec::new()).status(), StatusCode::OK);
        let response = readiness(vec!["the disk is nearly full".to_owned()]);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.expect("in memory");
        assert_eq!(body.as_ref(), br#"{"status":"not_ready","reasons":["the disk is nearly full"]}"#);
    }

    #[test]
    fn a_full_page_has_a_next_one() {
        let activity = hookmill_actors::domain::activity::Activity {
            at_ms: 0,
            actor: "ada".to_owned(),
            action: "integration.created".to_owned(),
            subject: "integration 3".to_owned(),
            result: ActivityResult::Ok,
            detail: String::new(),
        };
        let entries = || [9, 8].map(|number| RecordedActivity { number, activity: activity.clone() }).to_vec();
        assert_eq!(activity_slice(entries(), 2).next.as_deref(), Some("8"));
        assert_eq!(activity_slice(entries(), 3).next, None);
        assert_eq!(activity_slice(entries(), 3).items[0].number, 9);
    }
}
