//! `hookmill events`

use super::{Action, Flag, Kind, Paging, Reply, Resource, Verb};
use crate::cli::show::{Column, How};

const COLUMNS: &[Column] = &[
    Column::text("ID", "/id"),
    Column::time("RECEIVED", "/received_at"),
    Column::text("INTEGRATION", "/integration_id"),
    Column::text("TYPE", "/event_type"),
    Column::text("PROVIDER'S ID", "/provider_id"),
    Column::new("SIZE", "/size", How::Bytes),
    Column::state("STATUS", "/status"),
];

pub(super) const EVENTS: Resource = Resource {
    name: "events",
    about: "What arrived, and what became of it",
    actions: &[
        Action {
            about: "Show events, newest first",
            examples: &[
                "",
                "--integration Shop --status failure",
                "--type 'order.*' --where 'body.amount > 1000'",
                "--all --jsonl",
            ],
            query: &[
                Flag::new("integration", "integration_id", Kind::Ref("integrations"), "Only of this integration"),
                Flag::new("webhook", "endpoint_id", Kind::Ref("webhooks"), "Only from this webhook endpoint"),
                Flag::new("type", "type", Kind::Texts, "Only of these types; `*` stands for anything: `payment.*`"),
                Flag::new("provider-id", "provider_event_id", Kind::Text, "Only with this id of the provider's"),
                Flag::new("since", "since", Kind::Text, "Only since then, such as 2026-01-31T08:00:00Z"),
                Flag::new("until", "until", Kind::Text, "Only until then"),
                Flag::new("where", "where", Kind::Text, "Only where this CEL expression holds: `body.amount > 1000`"),
                Flag::new(
                    "status",
                    "status",
                    Kind::Texts,
                    "Only those that are `pending`, `processing`, `success` or `failure`; several with commas",
                ),
            ],
            ..Action::list("/events", COLUMNS, Paging::Cursor("before"))
        },
        Action {
            about: "Show one event: as it arrived, and each delivery, attempt by attempt",
            examples: &["01a20fd6-af3c-7000-8000-00000001fb31"],
            ..Action::get("/events/{EVENT}")
        },
        Action {
            name: "body",
            about: "Print an event's body, byte for byte",
            examples: &[
                "01a20fd6-af3c-7000-8000-00000001fb31 | jq .",
                "01a20fd6-af3c-7000-8000-00000001fb31 --to event.json",
            ],
            method: Verb::Get,
            path: "/events/{EVENT}/body",
            reply: Reply::Bytes,
            ..Action::BASE
        },
        Action {
            about: "Say whether an event's signature holds, as of the time when it came",
            examples: &["01a20fd6-af3c-7000-8000-00000001fb31"],
            ..Action::act("verify", "/events/{EVENT}/verify")
        },
        Action {
            about: "Send an event to a subscription, again or for the first time",
            examples: &["01a20fd6-af3c-7000-8000-00000001fb31 --subscription payments"],
            members: &[Flag::new("subscription", "/subscription_id", Kind::Ref("subscriptions"), "Which one")],
            ..Action::act("replay", "/events/{EVENT}/replay")
        },
    ],
};
