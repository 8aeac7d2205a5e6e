//! The scheduler's tasks: `/api/v1/tasks`. What runs when, what came of it, and runs by hand. They concern everything, so
//! tokens with scopes do not come here.

pub(super) mod doc;

use std::sync::Arc;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use hookmill_actors::{
    domain::{
        ids::{BadEventId, EventId, IntegrationId, TaskRunId},
        limits::PENDING_LIMIT_MAX,
        task::{Takes, Task, TaskArguments, TaskRun, TaskStatus},
    },
    scheduler::{Cadence, TaskError, TaskState},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Api,
    access::{Author, State},
    fields::{not_one_of, number, string},
    form::Form,
    json::OptionalJson,
    paging::Params,
    problem::{Code, Problem},
    resource::{Segments, json, time},
};

/// Where a run may stand, by name.
const STATUSES: [(&str, TaskStatus); 4] = [
    ("running", TaskStatus::Running),
    ("succeeded", TaskStatus::Succeeded),
    ("failed", TaskStatus::Failed),
    ("interrupted", TaskStatus::Interrupted),
];

/// A task as replies show it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Task)]
struct View {
    #[schema(value_type = String)]
    name: Task,
    about: &'static str,
    /// What a run is given: `event_id`, `integration_id`, or `limit`, which may be left out; `null`: nothing.
    argument: Option<&'static str>,
    /// A cron expression in UTC; `null`: it has none.
    schedule: Option<String>,
    /// Of what keeps hookmill in order: its period, seconds.
    every_s: Option<u64>,
    /// When it runs next by itself.
    #[schema(format = DateTime)]
    next_run_at: Option<String>,
    /// Runs under way.
    under_way: usize,
    last_run: Option<RunView>,
}

/// A run of a task as replies show it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskRun)]
struct RunView {
    /// `null`: it is not remembered, as those of maintenance are not that nobody asked for.
    id: Option<TaskRunId>,
    #[schema(value_type = String)]
    task: Task,
    arguments: ArgumentsView,
    /// Whose token asked for it; `null`: the schedule did.
    author: Option<String>,
    status: TaskStatus,
    #[schema(format = DateTime)]
    started_at: String,
    /// `null` while it runs, and where it was interrupted.
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// What it did and found; each task says what.
    #[schema(value_type = Option<Object>)]
    result: Option<Value>,
    /// Why it did not end well.
    error: Option<String>,
    url: Option<String>,
}

/// What a run works on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskArguments)]
struct ArgumentsView {
    event_id: Option<EventId>,
    integration_id: Option<IntegrationId>,
    limit: Option<u32>,
}

/// `GET /api/v1/tasks`
pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let page = params.page()?;
    params.finish()?;
    Ok(json(StatusCode::OK, &page.of(api.tree.tasks().into_iter(), view)))
}

/// `GET /api/v1/tasks/{task}`
pub(super) async fn one(State(api): State<Api>, Segments(name): Segments<String>) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &view(api.tree.task(named(&name)?))))
}

/// `GET /api/v1/tasks/{task}/runs`: newest first.
pub(super) async fn runs(
    State(api): State<Api>,
    Segments(name): Segments<String>,
    mut params: Params,
) -> Result<Response, Problem> {
    let page = params.page()?;
    let status = params.one_of("status", &STATUSES)?;
    params.finish()?;
    let runs = api.tree.task_runs(named(&name)?);
    let wanted = runs.iter().filter(|run| status.is_none_or(|status| run.status == status));
    Ok(json(StatusCode::OK, &page.of(wanted, run_view)))
}

/// `GET /api/v1/tasks/{task}/runs/{id}`
pub(super) async fn one_run(
    State(api): State<Api>,
    Segments((name, id)): Segments<(String, TaskRunId)>,
) -> Result<Response, Problem> {
    let task = named(&name)?;
    let run = api.tree.task_runs(task).into_iter().find(|run| run.id == id);
    let run = run.ok_or_else(|| Problem::not_found(format!("run {id} of `{task}`")))?;
    Ok(json(StatusCode::OK, &run_view(&run)))
}

/// `POST /api/v1/tasks/{task}/run`: begins a run, and does not wait for it.
pub(super) async fn run(
    State(api): State<Api>,
    Author(author): Author,
    Segments(name): Segments<String>,
    OptionalJson(body): OptionalJson,
) -> Result<Response, Problem> {
    let task = named(&name)?;
    let run = api.tree.run_task(&author, task, arguments(task, body)?).await?;
    let mut response = json(StatusCode::ACCEPTED, &run_view(&run));
    if let Ok(location) = HeaderValue::from_str(&url(&run)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

impl From<TaskError> for Problem {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::UnderWay { .. } => Self::new(Code::TaskUnderWay, error.to_string()),
            TaskError::Busy { .. } => Self::new(Code::Busy, error.to_string()),
            TaskError::NoEvent(id) => Self::member(
                "/event_id",
                format!("names event {id}, which does not exist, or whose retention has ended"),
            ),
            TaskError::NoIntegration(id) => {
                Self::member("/integration_id", format!("names integration {id}, which does not exist"))
            }
            TaskError::Unavailable => Self::new(Code::Unavailable, error.to_string()),
            TaskError::Log(error) => error.into(),
        }
    }
}

/// The task of that name, with or without what stands before the point.
fn named(name: &str) -> Result<Task, Problem> {
    let known = Task::ALL.iter().map(|task| if name.contains('.') { task.name() } else { task.short_name() });
    name.parse().map_err(|_| Problem::new(Code::NotFound, not_one_of(name, known)))
}

fn arguments(task: Task, body: Value) -> Result<TaskArguments, Problem> {
    let mut form = Form::new(body)?;
    let takes = task.takes();
    let event = match takes {
        Takes::Event => form.required(&["event_id"], event_id),
        _ => form.optional(&["event_id"], event_id),
    };
    let integration = match takes {
        Takes::Integration => form.required(&["integration_id"], number(1..=u32::MAX)),
        _ => form.optional(&["integration_id"], number(1..=u32::MAX)),
    };
    let integration = integration.map(IntegrationId);
    let limit = form.optional(&["limit"], number(1..=PENDING_LIMIT_MAX));
    for (member, is_given, taken_by) in [
        ("event_id", event.is_some(), Takes::Event),
        ("integration_id", integration.is_some(), Takes::Integration),
        ("limit", limit.is_some(), Takes::Limit),
    ] {
        if is_given && takes != taken_by {
            form.fault(member, format!("is not taken by `{task}`; leave it out"));
        }
    }
    form.finish(|| Some(TaskArguments { event, integration, limit }))
}

fn event_id(value: Value) -> Result<EventId, String> {
    string(value)?.parse().map_err(|error: BadEventId| error.to_string())
}

fn view(state: TaskState) -> View {
    let TaskState { task, cadence, next_at_ms, under_way, last } = state;
    let (schedule, every_s) = match cadence {
        Cadence::OnDemand => (None, None),
        Cadence::Cron(text) => (Some(text), None),
        Cadence::Every(period) => (None, Some(period.as_secs())),
    };
    View {
        name: task,
        about: task.about(),
        argument: match task.takes() {
            Takes::Nothing => None,
            Takes::Event => Some("event_id"),
            Takes::Integration => Some("integration_id"),
            Takes::Limit => Some("limit"),
        },
        schedule,
        every_s,
        next_run_at: next_at_ms.map(time),
        under_way,
        last_run: last.as_ref().map(run_view),
    }
}

fn run_view(run: &Arc<TaskRun>) -> RunView {
    let TaskArguments { event, integration, limit } = run.arguments;
    RunView {
        id: run.is_kept().then_some(run.id),
        task: run.task,
        arguments: ArgumentsView { event_id: event, integration_id: integration, limit },
        author: run.author.clone(),
        status: run.status,
        started_at: time(run.started_at_ms),
        ended_at: run.ended_at_ms.map(time),
        result: run.result.clone(),
        error: run.error.clone(),
        url: run.is_kept().then(|| url(run)),
    }
}

fn url(run: &TaskRun) -> String {
    format!("/api/v1/tasks/{}/runs/{}", run.task, run.id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_task_takes_its_own_argument_and_no_other() {
        let event = "019ab3f0-0000-7000-8000-000000010000";
        let given = |name: &str, body| arguments(name.parse().expect("it is a task"), body);
        let one = given("process_webhook_event", json!({"event_id": event})).expect("it is an id");
        assert_eq!(one.event.map(|id| id.to_string()).as_deref(), Some(event));
        let one = given("test_integration_connection", json!({"integration_id": 3})).expect("it is a number");
        assert_eq!(one.integration, Some(IntegrationId(3)));
        let many = given("process_pending_webhook_events", json!({"limit": 7})).expect("it is a number");
        assert_eq!(many.limit, Some(7));
        assert_eq!(given("process_pending_webhook_events", json!({})), Ok(TaskArguments::default()));
        for (name, body, pointer) in [
            ("process_webhook_event", json!({}), "/event_id"),
            ("process_webhook_event", json!({"event_id": "x"}), "/event_id"),
            ("process_webhook_event", json!({"event_id": event, "limit": 1}), "/limit"),
            ("test_integration_connection", json!({}), "/integration_id"),
            ("test_integration_connection", json!({"integration_id": 0}), "/integration_id"),
            ("test_all_active_integrations", json!({"integration_id": 1}), "/integration_id"),
            ("process_pending_webhook_events", json!({"limit": 0}), "/limit"),
            ("process_pending_webhook_events", json!({"limit": 1_001}), "/limit"),
            ("process_pending_webhook_events", json!({"limits": 1}), "/limits"),
            ("trim_event_log", json!({"event_id": event}), "/event_id"),
        ] {
            let refused = given(name, body.clone()).expect_err("it is wrong");
            let pointers: Vec<&str> = refused.faults.iter().map(|fault| fault.pointer.as_str()).collect();
            assert_eq!(pointers, [pointer], "{name} {body}: {refused:?}");
        }
    }

    #[test]
    fn what_is_no_task_is_not_found_with_the_nearest_that_is() {
        for (wrong, near) in [
            ("integration_management.process_webhook_events", "integration_management.process_webhook_event"),
            ("trim_event_logs", "trim_event_log"),
        ] {
            let refused = named(wrong).expect_err("it is none");
            assert_eq!(refused.code, Code::NotFound);
            assert!(refused.detail.contains(&format!("did you mean `{near}`")), "{refused:?}");
        }
    }
}
