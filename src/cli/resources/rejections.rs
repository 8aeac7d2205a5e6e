//! `hookmill rejections`

use super::{Action, Flag, Kind, Paging, Resource};
use crate::cli::show::{Column, How};

const COLUMNS: &[Column] = &[
    Column::text("ID", "/id"),
    Column::time("AT", "/at"),
    Column::text("INTEGRATION", "/integration_id"),
    Column::text("PATH", "/path"),
    Column::text("CODE", "/code"),
    Column::text("PEER", "/peer"),
    Column::new("SIZE", "/size", How::Bytes),
];

pub(super) const REJECTIONS: Resource = Resource {
    name: "rejections",
    about: "Webhooks that were refused, and why; they may be accepted afterwards",
    actions: &[
        Action {
            about: "Show what was refused, newest first",
            examples: &["", "--integration Shop"],
            query: &[Flag::new("integration", "integration_id", Kind::Ref("integrations"), "Only of this integration")],
            ..Action::list("/rejections", COLUMNS, Paging::Cursor("before"))
        },
        Action {
            about: "Show one refused request, with what its signature fails on",
            examples: &["12"],
            ..Action::get("/rejections/{REJECTION}")
        },
        Action {
            about: "Accept a refused request after all",
            examples: &["12"],
            ..Action::act("accept", "/rejections/{REJECTION}/accept")
        },
    ],
};
