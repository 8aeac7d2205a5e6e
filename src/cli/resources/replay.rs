//! `hookmill replay`

use super::{Action, Flag, Kind, Paging, Reply, Resource, Verb, deadletters::REASONS};
use crate::cli::show::Column;

const COLUMNS: &[Column] = &[
    Column::text("ID", "/id"),
    Column::state("STATUS", "/status"),
    Column::text("SOURCE", "/query/source"),
    Column::text("PLANNED", "/plan/deliveries"),
    Column::text("REPLAYED", "/progress/replayed"),
    Column::text("SKIPPED", "/progress/skipped"),
    Column::text("AUTHOR", "/author"),
    Column::time("CREATED", "/created_at"),
    Column::text("NOTE", "/note"),
];
const STATUSES: &[&str] = &["planning", "planned", "running", "paused", "done", "cancelled", "failed"];
const STANDINGS: &[&str] = &["any", "delivered", "dead", "filtered", "duplicate", "discarded", "cancelled"];

const fn ordered(name: &'static str, about: &'static str, path: &'static str) -> Action {
    Action { about, examples: &["1", "1 --json"], reply: Reply::Replay, ..Action::act(name, path) }
}

pub(super) const REPLAY: Resource = Resource {
    name: "replay",
    about: "Bulk replays: a plan first, then a job that is started, paused and cancelled",
    actions: &[
        Action {
            about: "Show the replays, newest first",
            examples: &["", "--status running"],
            query: &[Flag::new("status", "status", Kind::Choice(STATUSES), "Only in this state")],
            ..Action::list("/replays", COLUMNS, Paging::Skip)
        },
        Action {
            about: "Show one replay: its plan and how far it is",
            examples: &["1", "1 --follow"],
            reply: Reply::Replay,
            ..Action::get("/replays/{REPLAY}")
        },
        Action {
            about: "Plan a replay; `--start` starts it as soon as it is planned",
            examples: &[
                "--source dead_letters --subscription payments --start --follow",
                "--source events --integration Shop --subscription payments --types 'payment.*' \\\n      \
                 --from 2026-01-31T08:00:00Z",
            ],
            members: &[
                Flag::new(
                    "source",
                    "/query/source",
                    Kind::Choice(&["dead_letters", "events"]),
                    "What is sent again: dead letters, or any stored events",
                ),
                Flag::new("integration", "/query/integration_id", Kind::Ref("integrations"), "Of this integration"),
                Flag::new("subscription", "/query/subscription_id", Kind::Ref("subscriptions"), "Of this subscription"),
                Flag::new("reason", "/query/reason", Kind::Choice(REASONS), "Dead letters: dead for this reason"),
                Flag::new("types", "/query/types", Kind::Texts, "Events: of these types, such as `payment.*`"),
                Flag::new("webhook", "/query/endpoint_id", Kind::Ref("webhooks"), "Events: that came in there"),
                Flag::new("status", "/query/status", Kind::Choice(STANDINGS), "Events: that stand so"),
                Flag::new("from", "/query/from", Kind::Text, "Since then, such as 2026-01-31T08:00:00Z"),
                Flag::new("to", "/query/to", Kind::Text, "Until then"),
                Flag::new(
                    "target",
                    "/target_subscription_id",
                    Kind::Ref("subscriptions"),
                    "Sends to this subscription instead",
                ),
                Flag::new("rate", "/rate_per_s", Kind::Number, "Deliveries a second"),
                Flag::new("start", "/start", Kind::Bool, "Starts as soon as it is planned"),
            ],
            reply: Reply::Replay,
            method: Verb::Post,
            ..Action::create("/replays")
        },
        ordered("start", "Start a planned replay", "/replays/{REPLAY}/start"),
        ordered("pause", "Pause a replay; what is due already goes on", "/replays/{REPLAY}/pause"),
        ordered("resume", "Go on with a paused replay", "/replays/{REPLAY}/resume"),
        ordered("cancel", "End a replay; what is due already goes on", "/replays/{REPLAY}/cancel"),
    ],
};
