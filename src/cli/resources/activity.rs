//! `hookmill activity`

use super::{Action, Flag, Kind, Paging, Reply, Resource, Verb};
use crate::cli::show::Column;

const COLUMNS: &[Column] = &[
    Column::time("AT", "/at"),
    Column::text("AUTHOR", "/author"),
    Column::text("FROM", "/source"),
    Column::text("ACTION", "/action"),
    Column::text("SUBJECT", "/subject"),
    Column::state("RESULT", "/result"),
    Column::text("DETAIL", "/detail"),
];
const FILTERS: &[Flag] = &[
    Flag::new("integration", "integration_id", Kind::Ref("integrations"), "Only of this integration"),
    Flag::new("author", "author", Kind::Text, "Only of this token"),
    Flag::new("action", "action", Kind::Text, "Only this action, such as `integration.updated`"),
    Flag::new("result", "result", Kind::Choice(&["ok", "refused", "failed"]), "Only with this result"),
    Flag::new("since", "since", Kind::Text, "Only since then, such as 2026-01-31T08:00:00Z"),
    Flag::new("until", "until", Kind::Text, "Only until then"),
];

pub(super) const ACTIVITY: Resource = Resource {
    name: "activity",
    about: "Who did what, when, from where",
    actions: &[
        Action {
            about: "Show the audit log, newest first",
            examples: &["", "--integration Shop --result failed"],
            query: FILTERS,
            ..Action::list("/activities", COLUMNS, Paging::Cursor("before"))
        },
        Action {
            name: "export",
            about: "Print the audit log as JSON lines",
            examples: &["--to audit.jsonl", "--since 2026-01-01T00:00:00Z | gzip > audit.jsonl.gz"],
            method: Verb::Get,
            path: "/activities/export",
            query: FILTERS,
            reply: Reply::Lines,
            ..Action::BASE
        },
    ],
};
