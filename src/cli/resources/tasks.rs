//! `hookmill tasks`

use super::{Action, Flag, Kind, Paging, Reply, Resource, Verb};
use crate::cli::show::Column;

const COLUMNS: &[Column] = &[
    Column::text("NAME", "/name"),
    Column::text("SCHEDULE", "/schedule"),
    Column::text("EVERY S", "/every_s"),
    Column::time("NEXT RUN", "/next_run_at"),
    Column::time("LAST RUN", "/last_run/started_at"),
    Column::state("STATUS", "/last_run/status"),
];
const RUN_COLUMNS: &[Column] = &[
    Column::text("ID", "/id"),
    Column::time("STARTED", "/started_at"),
    Column::time("ENDED", "/ended_at"),
    Column::text("AUTHOR", "/author"),
    Column::state("STATUS", "/status"),
    Column::text("ERROR", "/error"),
];
const STATUSES: &[&str] = &["running", "succeeded", "failed", "interrupted"];

pub(super) const TASKS: Resource = Resource {
    name: "tasks",
    about: "What hookmill does by schedule, and what came of it",
    actions: &[
        Action {
            about: "Show the tasks: when they run, and how it went last",
            examples: &["", "--json"],
            ..Action::list("/tasks", COLUMNS, Paging::Skip)
        },
        Action {
            name: "show",
            about: "Show one task, with what its last run did and found",
            examples: &["process_pending_webhook_events"],
            ..Action::get("/tasks/{TASK}")
        },
        Action {
            name: "runs",
            about: "Show the last runs of a task, newest first",
            examples: &["test_all_active_integrations", "test_all_active_integrations --status failed --json"],
            query: &[Flag::new("status", "status", Kind::Choice(STATUSES), "Only those that stand there")],
            ..Action::list("/tasks/{TASK}/runs", RUN_COLUMNS, Paging::Skip)
        },
        Action {
            name: "run",
            about: "Run a task now; `show` and `runs` tell what came of it",
            examples: &[
                "test_all_active_integrations",
                "process_pending_webhook_events --limit 500",
                "test_integration_connection --integration Shop",
                "process_webhook_event --event 019ab3f0-0000-7000-8000-000000010000",
            ],
            method: Verb::Post,
            members: &[
                Flag::new("event", "/event_id", Kind::Text, "The event, for `process_webhook_event`"),
                Flag::new(
                    "integration",
                    "/integration_id",
                    Kind::Ref("integrations"),
                    "The integration, for `test_integration_connection`",
                ),
                Flag::new("limit", "/limit", Kind::Number, "How many, for `process_pending_webhook_events`"),
            ],
            reply: Reply::One,
            ..Action::act("run", "/tasks/{TASK}/run")
        },
    ],
};
