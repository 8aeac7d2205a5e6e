//! `hookmill deadletters`

use super::{Action, Flag, Kind, Paging, Reply, Resource};
use crate::cli::show::Column;

const COLUMNS: &[Column] = &[
    Column::text("SUBSCRIPTION", "/subscription_id"),
    Column::text("EVENT", "/event_id"),
    Column::text("NAME", "/subscription"),
    Column::text("REASON", "/reason"),
    Column::text("ATTEMPTS", "/attempts"),
    Column::time("AT", "/at"),
    Column::text("ERROR", "/error"),
];

pub(super) const REASONS: &[&str] = &[
    "attempts_exhausted",
    "refused",
    "expired",
    "corrupt",
    "filter_failed",
    "transform_failed",
    "provider_failed",
    "poison",
];
const WHY: Flag = Flag::new("reason", "/reason", Kind::Text, "Why it is given up, for the audit log");

pub(super) const DEAD_LETTERS: Resource = Resource {
    name: "deadletters",
    about: "What could not be delivered and needs an operator",
    actions: &[
        Action {
            about: "Show the dead letters",
            examples: &["", "--integration Shop --reason attempts_exhausted", "--all --jsonl"],
            query: &[
                Flag::new("integration", "integration_id", Kind::Ref("integrations"), "Only of this integration"),
                Flag::new("subscription", "subscription_id", Kind::Ref("subscriptions"), "Only of this subscription"),
                Flag::new("reason", "reason", Kind::Choice(REASONS), "Only for this reason"),
                Flag::new("from", "from", Kind::Text, "Only since then, such as 2026-01-31T08:00:00Z"),
                Flag::new("to", "to", Kind::Text, "Only until then"),
            ],
            ..Action::list("/deadletters", COLUMNS, Paging::Cursor("after"))
        },
        Action {
            about: "Show one dead letter",
            examples: &["7 01a20fd6-af3c-7000-8000-00000001fb31"],
            ..Action::get("/deadletters/{SUBSCRIPTION}/{EVENT}")
        },
        Action {
            about: "Deliver a dead letter again; many of them: `hookmill replay create`",
            examples: &["7 01a20fd6-af3c-7000-8000-00000001fb31"],
            ..Action::act("replay", "/deadletters/{SUBSCRIPTION}/{EVENT}/replay")
        },
        Action {
            about: "Give a dead letter up",
            examples: &["7 01a20fd6-af3c-7000-8000-00000001fb31 --reason 'refunded by hand'"],
            members: &[WHY],
            ..Action::act("discard", "/deadletters/{SUBSCRIPTION}/{EVENT}/discard")
        },
        Action {
            about: "Give up all dead letters that the flags mean; `--query '{}'` means every one",
            examples: &["--subscription-of payments --reason-of expired --reason 'too late to matter'"],
            members: &[
                WHY,
                Flag::new("query", "/query", Kind::Json, "Which, as an object; the other flags are its members"),
                Flag::new("integration-of", "/query/integration_id", Kind::Ref("integrations"), "Of this integration"),
                Flag::new(
                    "subscription-of",
                    "/query/subscription_id",
                    Kind::Ref("subscriptions"),
                    "Of this subscription",
                ),
                Flag::new("reason-of", "/query/reason", Kind::Choice(REASONS), "Dead for this reason"),
                Flag::new("from", "/query/from", Kind::Text, "Since then, such as 2026-01-31T08:00:00Z"),
                Flag::new("to", "/query/to", Kind::Text, "Until then"),
            ],
            reply: Reply::Repeated(&["discarded"]),
            ..Action::act("discard-many", "/deadletters/discard")
        },
    ],
};
