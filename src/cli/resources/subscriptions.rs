//! `hookmill subscriptions`

use super::{Action, Body, Flag, Kind, Paging, Reply, Resource, Verb};
use crate::cli::show::Column;

const COLUMNS: &[Column] = &[
    Column::text("ID", "/id"),
    Column::text("INTEGRATION", "/integration_id"),
    Column::text("DESTINATION", "/destination_id"),
    Column::text("NAME", "/name"),
    Column::text("ACTIVE", "/active"),
    Column::text("TYPES", "/selection/types"),
    Column::text("ORDER", "/order/mode"),
    Column::time("UPDATED", "/updated_at"),
];
const TRIED: &[Column] = &[
    Column::text("EVENT", "/event_id"),
    Column::text("TYPE", "/event_type"),
    Column::text("SELECTED", "/selected"),
    Column::text("BECAUSE", "/because"),
    Column::text("KEY", "/key"),
    Column::text("DETAIL", "/detail"),
    Column::text("SENT", "/rendered/body"),
];

const NAME: Flag = Flag::new("name", "/name", Kind::Text, "What people call it");
const ACTIVE: Flag = Flag::new("active", "/active", Kind::Bool, "Whether it delivers");
const IN_FLIGHT: Flag = Flag::new("in-flight-max", "/in_flight_max", Kind::Number, "Deliveries under way at once");
const TYPES: Flag =
    Flag::new("types", "/selection/types", Kind::Texts, "Event types that are taken, such as `payment.*`");
const FILTER: Flag =
    Flag::new("filter", "/selection/filter", Kind::Text, "A CEL expression that must hold of an event");
const ORDER: Flag = Flag::new("order", "/order", Kind::Json, "In which order, an object with `mode`");
const TRANSFORM: Flag = Flag::new("transform", "/transform", Kind::Json, "What is sent, an object with `kind`");
const RETRY: Flag = Flag::new("retry", "/retry", Kind::Json, "When failed deliveries are tried again, an object");
const DESTINATION: Flag = Flag::new("destination", "/destination_id", Kind::Ref("destinations"), "Where they go");

pub(super) const SUBSCRIPTIONS: Resource = Resource {
    name: "subscriptions",
    about: "Which events of an integration go to which destination, and how",
    actions: &[
        Action {
            about: "Show the subscriptions",
            examples: &["", "--integration Shop --json"],
            query: &[
                Flag::new("integration", "integration_id", Kind::Ref("integrations"), "Only of this integration"),
                Flag::new("destination", "destination_id", Kind::Ref("destinations"), "Only to this destination"),
                Flag::new("active", "active", Kind::Bool, "Only active, or only inactive ones"),
            ],
            ..Action::list("/subscriptions", COLUMNS, Paging::Skip)
        },
        Action { about: "Show one subscription", examples: &["7"], ..Action::get("/subscriptions/{SUBSCRIPTION}") },
        Action {
            about: "Make a subscription; it begins with the next event, or where `--start` says",
            examples: &[
                "--integration Shop --destination ledger --name payments --types 'payment_intent.*'",
                "-f payments.toml --start beginning",
            ],
            members: &[
                Flag::new("integration", "/integration_id", Kind::Ref("integrations"), "Whose events"),
                DESTINATION,
                NAME,
                ACTIVE,
                TYPES,
                FILTER,
                ORDER,
                TRANSFORM,
                RETRY,
                IN_FLIGHT,
                Flag::new("start", "/start", Kind::Text, "`now`, `beginning`, or a time such as 2026-01-31T08:00:00Z"),
            ],
            ..Action::create("/subscriptions")
        },
        Action {
            about: "Change a subscription; what is not named stays",
            examples: &["7 --active=false", "payments --filter 'body.amount > 1000'"],
            members: &[DESTINATION, NAME, ACTIVE, TYPES, FILTER, ORDER, TRANSFORM, RETRY, IN_FLIGHT],
            ..Action::update("/subscriptions/{SUBSCRIPTION}")
        },
        Action {
            about: "Delete a subscription; what it has not delivered is cancelled",
            examples: &["7"],
            ..Action::delete("/subscriptions/{SUBSCRIPTION}")
        },
        Action {
            name: "dry-run",
            about: "Try selection, order and transformation on stored events or samples; nothing is sent",
            examples: &[
                "--subscription 7 --events 01a20fd6-af3c-7000-8000-00000001fb31",
                "--integration Shop --filter 'body.amount > 1000' -f samples.json",
            ],
            method: Verb::Post,
            path: "/subscriptions/dry_run",
            members: &[
                Flag::new(
                    "subscription",
                    "/subscription_id",
                    Kind::Ref("subscriptions"),
                    "Begin with this subscription",
                ),
                Flag::new("integration", "/integration_id", Kind::Ref("integrations"), "Whose events"),
                Flag::new("events", "/event_ids", Kind::Texts, "Stored events to try it on"),
                TYPES,
                FILTER,
                ORDER,
                TRANSFORM,
            ],
            body: Body::Question,
            reply: Reply::Whole(TRIED),
            ..Action::BASE
        },
    ],
};
