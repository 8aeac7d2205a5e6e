//! How hookmill is: health for machines, counts for people.

pub(super) mod doc;

use axum::{http::StatusCode, response::Response};
use hookmill_actors::{domain::task::Task, metrics::Report, snapshot::Fault};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{Api, access::State, flow::Gauges, problem::Problem, resource::json};
use crate::connections::TestCount;

#[derive(Serialize, ToSchema)]
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

#[derive(Serialize, ToSchema)]
struct Metrics {
    #[serde(flatten)]
    report: Report,
    /// Retries that wait for their time.
    due: u64,
    dead_letters: u64,
    configuration_version: u64,
    #[serde(flatten)]
    gauges: Gauges,
    /// Connection tests since the start.
    connection_tests: Vec<TestCount>,
    /// What the task `integration_management.collect_integration_metrics` counted last; `null` before its first run.
    #[schema(value_type = Option<Object>)]
    integration_management: Option<Value>,
    /// What is configured but cannot be used.
    faults: Vec<FaultView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ConfigurationFault)]
struct FaultView {
    subject: String,
    problem: String,
}

/// `GET /api/v1/metrics`
pub(super) async fn report(State(api): State<Api>) -> Result<Response, Problem> {
    let counts = api.tree.ports().state.counts().await?;
    let snapshot = api.tree.config().current();
    let fault = |fault: &Fault| FaultView { subject: fault.subject.clone(), problem: fault.problem.clone() };
    let counted = api.tree.task_runs(Task::CollectIntegrationMetrics);
    let counted = counted.into_iter().find(|run| run.result.is_some());
    let metrics = Metrics {
        report: api.tree.report().await,
        due: counts.due,
        dead_letters: counts.dead,
        configuration_version: snapshot.version(),
        gauges: Gauges::of(&api.tree),
        connection_tests: api.tools.connections.counts(),
        integration_management: counted.and_then(|run| run.result.clone()),
        faults: snapshot.faults().map(fault).collect(),
    };
    Ok(json(StatusCode::OK, &metrics))
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
}
