//! The tasks in the document. The request's type says the members that [`super`] reads.

use axum::http::StatusCode;
use hookmill_actors::domain::{ids::EventId, task::TaskStatus};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{RunView, View};
use crate::admin::{
    openapi::Doc,
    paging::{PageParams, Paged},
    problem::Code,
};

const TASK: &str = "integration_management.process_pending_webhook_events";

fn run_example() -> Value {
    json!({
        "id": 7,
        "task": TASK,
        "arguments": {"event_id": null, "integration_id": null, "limit": 50},
        "author": "deploy",
        "status": "succeeded",
        "started_at": "2026-01-31T08:00:00Z",
        "ended_at": "2026-01-31T08:00:00.012Z",
        "result": {
            "limit": 50, "looked_at": 0, "under_way": 0, "woken": 0, "waiting": {}, "events": [], "events_left_out": 0,
        },
        "error": null,
        "url": format!("/api/v1/tasks/{TASK}/runs/7"),
    })
}

fn example() -> Value {
    json!({
        "name": TASK,
        "about": "Looks for events that are neither done nor under way, wakes what can go on, and says what waits for what",
        "argument": "limit",
        "schedule": "*/5 * * * *",
        "every_s": null,
        "next_run_at": "2026-01-31T08:05:11Z",
        "under_way": 0,
        "last_run": run_example(),
    })
}

/// What the list of runs may be narrowed by.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct RunParams {
    #[param(required = false)]
    status: TaskStatus,
}

/// What a run works on: `process_webhook_event` needs `event_id`, `test_integration_connection` needs `integration_id`,
/// `process_pending_webhook_events` may be given `limit`; the others take nothing.
#[derive(ToSchema)]
#[schema(as = NewTaskRun)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct NewRun {
    #[schema(required = false)]
    event_id: EventId,
    #[schema(minimum = 1, required = false)]
    integration_id: u32,
    #[schema(minimum = 1, maximum = 1_000, required = false)]
    limit: u32,
}

pub(in crate::admin) fn list() -> Doc {
    Doc::new("list_tasks", "What the scheduler does, when, and what came of it last")
        .query::<PageParams>()
        .list::<Paged<View>, View>(json!({"items": [example()], "total": 10, "skip": 0, "limit": 100}))
}

pub(in crate::admin) fn one() -> Doc {
    Doc::new("get_task", "One task").segment::<String>("task", TASK).reply::<View>(StatusCode::OK, example())
}

pub(in crate::admin) fn runs() -> Doc {
    Doc::new("list_task_runs", "The last runs of a task, newest first")
        .about("The last 50 are remembered, across restarts; of maintenance only those that somebody asked for.")
        .segment::<String>("task", TASK)
        .query::<PageParams>()
        .query::<RunParams>()
        .list::<Paged<RunView>, RunView>(json!({"items": [run_example()], "total": 1, "skip": 0, "limit": 100}))
}

pub(in crate::admin) fn one_run() -> Doc {
    Doc::new("get_task_run", "One run of a task")
        .segment::<String>("task", TASK)
        .reply::<RunView>(StatusCode::OK, run_example())
}

pub(in crate::admin) fn run() -> Doc {
    Doc::new("run_task", "Runs a task now")
        .about("The reply does not wait for the run, which is at `location`. A task does not overlap with itself.")
        .segment::<String>("task", TASK)
        .optional_body::<NewRun>(json!({"limit": 50}))
        .reply::<RunView>(StatusCode::ACCEPTED, run_example())
        .located()
        .refused(&[Code::TaskUnderWay])
}
