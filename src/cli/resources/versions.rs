//! `hookmill versions`

use super::{Action, Flag, Kind, Paging, Reply, Resource, Verb};
use crate::cli::show::Column;

pub(super) const COLUMNS: &[Column] = &[
    Column::text("VERSION", "/version"),
    Column::time("AT", "/at"),
    Column::text("AUTHOR", "/author"),
    Column::text("COMMENT", "/comment"),
];

/// A step of a JSON Patch.
const PATCH: &[Column] =
    &[Column::text("DOES", "/op"), Column::text("MEMBER", "/path"), Column::text("VALUE", "/value")];

pub(super) const VERSIONS: Resource = Resource {
    name: "versions",
    about: "The history of an integration with everything that belongs to it",
    actions: &[
        Action {
            about: "Show an integration's versions, newest first",
            examples: &["Shop", "3 --all --json"],
            ..Action::list("/integrations/{INTEGRATION}/versions", COLUMNS, Paging::Cursor("before"))
        },
        Action {
            about: "Show what stood at a version",
            examples: &["Shop 17"],
            ..Action::get("/integrations/{INTEGRATION}/versions/{VERSION}")
        },
        Action {
            name: "diff",
            about: "Show what a version changed; secrets as changed or unchanged",
            examples: &["Shop 17", "Shop 17 --against 12 --json"],
            method: Verb::Get,
            path: "/integrations/{INTEGRATION}/versions/{VERSION}/diff",
            reply: Reply::Whole(PATCH),
            query: &[Flag::new("against", "against", Kind::Number, "Since this version, rather than the one before")],
            ..Action::BASE
        },
        Action {
            about: "Make what stood at a version stand again, as a new version",
            examples: &["Shop 12 --comment 'the new filter drops too much'"],
            conditional: true,
            ..Action::act("rollback", "/integrations/{INTEGRATION}/versions/{VERSION}/rollback")
        },
    ],
};
