//! `hookmill rejections`

use super::{Action, Flag, Kind, Paging, Reply, Resource};
use crate::cli::show::{Column, How};

const COLUMNS: &[Column] = &[
    Column::text("ID", "/id"),
    Column::time("AT", "/at"),
    Column::text("INTEGRATION", "/integration_id"),
    Column::text("WEBHOOK", "/endpoint_id"),
    Column::text("CAUSE", "/cause"),
    Column::text("PEER", "/peer"),
    Column::new("SIZE", "/size", How::Bytes),
    Column::text("EVENT", "/event_id"),
    Column::text("REASON", "/reason"),
];
const CAUSES: &[&str] = &[
    "missing_signature",
    "invalid_signature",
    "handshake_refused",
    "method_not_allowed",
    "slow_request",
    "body_too_large",
    "bad_request",
    "too_many_hops",
];
const UNVERIFIED: Flag = Flag::new("unverified", "/unverified", Kind::Bool, "Even where the signature does not hold");

pub(super) const REJECTIONS: Resource = Resource {
    name: "rejections",
    about: "Webhooks that were refused, and why; they may be accepted afterwards",
    actions: &[
        Action {
            about: "Show what was refused, newest first",
            examples: &["", "--integration Shop --cause invalid_signature"],
            query: &[
                Flag::new("integration", "integration_id", Kind::Ref("integrations"), "Only of this integration"),
                Flag::new("webhook", "endpoint_id", Kind::Ref("webhooks"), "Only at this webhook endpoint"),
                Flag::new("cause", "cause", Kind::Choice(CAUSES), "Only for this cause"),
                Flag::new("since", "since", Kind::Text, "Only since then, such as 2026-01-31T08:00:00Z"),
                Flag::new("until", "until", Kind::Text, "Only until then"),
                Flag::new("accepted", "accepted", Kind::Bool, "Only those that were accepted afterwards, or were not"),
            ],
            ..Action::list("/rejections", COLUMNS, Paging::Cursor("before"))
        },
        Action {
            about: "Show one refused request: its headers and body",
            examples: &["0198c0f2d0a1-3"],
            ..Action::get("/rejections/{REJECTION}")
        },
        Action {
            name: "explain",
            about: "Say why the signature of a refused request holds or fails with the secrets of now",
            examples: &["0198c0f2d0a1-3"],
            ..Action::get("/rejections/{REJECTION}/explain")
        },
        Action {
            about: "Make an event of a refused request, once, if its signature holds with the secrets of now",
            examples: &["0198c0f2d0a1-3", "0198c0f2d0a1-3 --unverified"],
            members: &[UNVERIFIED],
            ..Action::act("accept", "/rejections/{REJECTION}/accept")
        },
        Action {
            about: "Make events of all refused requests that the flags mean",
            examples: &["--webhook orders --cause invalid_signature"],
            members: &[
                Flag::new("integration", "/integration_id", Kind::Ref("integrations"), "Of this integration"),
                Flag::new("webhook", "/endpoint_id", Kind::Ref("webhooks"), "At this webhook endpoint"),
                Flag::new("cause", "/cause", Kind::Choice(CAUSES), "Refused for this cause"),
                Flag::new("since", "/since", Kind::Text, "Since then, such as 2026-01-31T08:00:00Z"),
                Flag::new("until", "/until", Kind::Text, "Until then"),
                UNVERIFIED,
            ],
            reply: Reply::Repeated(&["accepted", "left"]),
            ..Action::act("accept-many", "/rejections/accept")
        },
    ],
};
