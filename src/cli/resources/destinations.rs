//! `hookmill destinations`

use super::{Action, Flag, Kind, Paging, Resource, SecretFlag};
use crate::cli::show::Column;

const COLUMNS: &[Column] = &[
    Column::text("ID", "/id"),
    Column::text("NAME", "/name"),
    Column::text("TYPE", "/type"),
    Column::state("STATUS", "/status"),
    Column::text("URL", "/settings/url"),
    Column::text("REASON", "/status_reason"),
    Column::time("UPDATED", "/updated_at"),
];

const STATUSES: &[&str] = &["active", "paused"];
const NAME: Flag = Flag::new("name", "/name", Kind::Text, "What people call it");
const URL: Flag = Flag::new("to", "/settings/url", Kind::Text, "Where events are sent to: `settings.url`");
const STATUS: Flag = Flag::new("status", "/status", Kind::Choice(STATUSES), "Whether it takes deliveries");
const SETTINGS: Flag = Flag::new("settings", "/settings", Kind::Json, "The settings of its type, an object");
const LIMITS: Flag = Flag::new("limits", "/limits", Kind::Json, "What it is asked to bear, an object");
const SIGNING: SecretFlag =
    SecretFlag { file: "signing-secret-file", variable: "signing-secret-env", member: "/signing_secret", named: false };
const CREDENTIALS: SecretFlag =
    SecretFlag { file: "credential-file", variable: "credential-env", member: "/credentials", named: true };
const EVENT: Flag = Flag::new("event", "/event_id", Kind::Text, "A stored event to send, rather than a sample");

pub(super) const DESTINATIONS: Resource = Resource {
    name: "destinations",
    about: "Services of yours that events are delivered to",
    actions: &[
        Action {
            about: "Show the destinations",
            examples: &["", "--status paused"],
            query: &[Flag::new("status", "status", Kind::Choice(STATUSES), "Only in this state")],
            ..Action::list("/destinations", COLUMNS, Paging::Skip)
        },
        Action { about: "Show one destination", examples: &["ledger"], ..Action::get("/destinations/{DESTINATION}") },
        Action {
            about: "Make a destination; without a signing secret one is made and shown this once",
            examples: &[
                "--name ledger --to https://ledger.example.com/hooks --secret-to ledger.secret",
                "-f ledger.yaml --credential-file token=token.txt",
            ],
            members: &[
                // Settings first: the URL is one of them.
                SETTINGS,
                URL,
                NAME,
                Flag::new(
                    "type",
                    "/type",
                    Kind::Text,
                    "http (what it is if not given), redis_stream, nats, file, store",
                ),
                STATUS,
                LIMITS,
            ],
            secrets: &[SIGNING, CREDENTIALS],
            once: Some("signing_secret"),
            ..Action::create("/destinations")
        },
        Action {
            about: "Change a destination; what is not named stays",
            examples: &["ledger --status active", "ledger --to https://ledger.example.com/v2 --if-version 17"],
            members: &[SETTINGS, URL, NAME, STATUS, LIMITS],
            secrets: &[CREDENTIALS],
            ..Action::update("/destinations/{DESTINATION}")
        },
        Action {
            about: "Delete a destination that no subscription uses",
            examples: &["ledger"],
            ..Action::delete("/destinations/{DESTINATION}")
        },
        Action {
            about: "Sign deliveries with a new secret from now on",
            examples: &["ledger --secret-to ledger.secret", "ledger --signing-secret-env NEW_SECRET"],
            secrets: &[SIGNING],
            once: Some("signing_secret"),
            conditional: true,
            ..Action::act("rotate-secret", "/destinations/{DESTINATION}/rotate-secret")
        },
        Action {
            about: "Make one attempt with a sample event: what happened, and how long it took",
            examples: &["ledger", "ledger --event 01a20fd6-af3c-7000-8000-00000001fb31"],
            members: &[EVENT],
            ..Action::act("test", "/destinations/{DESTINATION}/test")
        },
        Action {
            name: "flow",
            about: "Show what a destination bears now: breaker, rate, concurrency",
            examples: &["ledger"],
            ..Action::get("/destinations/{DESTINATION}/flow")
        },
    ],
};
