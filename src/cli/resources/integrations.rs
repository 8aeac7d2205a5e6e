//! `hookmill integrations`

use super::{Action, DELETED, Flag, Kind, PURGE, Paging, Reply, Resource, SecretFlag, Verb};
use crate::cli::show::Column;

pub(super) const TYPES: &[&str] = &[
    "payment_gateway",
    "sms_provider",
    "email_provider",
    "analytics",
    "crm",
    "monitoring",
    "authentication",
    "storage",
    "custom",
];
pub(super) const ENVIRONMENTS: &[&str] = &["development", "staging", "production"];

const COLUMNS: &[Column] = &[
    Column::text("ID", "/id"),
    Column::text("NAME", "/name"),
    Column::text("TYPE", "/type"),
    Column::text("PROVIDER", "/provider"),
    Column::text("ENVIRONMENT", "/environment"),
    Column::state("STATUS", "/status"),
    Column::time("UPDATED", "/updated_at"),
];

const NAME: Flag = Flag::new("name", "/name", Kind::Text, "What people call it");
const DESCRIPTION: Flag = Flag::new("description", "/description", Kind::Text, "What it is for");
const ENVIRONMENT: Flag = Flag::new("environment", "/environment", Kind::Choice(ENVIRONMENTS), "Where it is used");
const CONFIGURATION: Flag =
    Flag::new("configuration", "/configuration", Kind::Json, "Provider settings that are no secret, an object");
const ACTIVATE: Flag = Flag::new(
    "activate",
    "/activate",
    Kind::Choice(&["now", "after_test"]),
    "When it takes force: at once, or when its connection test has passed",
);
const CREDENTIALS: &[SecretFlag] =
    &[SecretFlag { file: "credential-file", variable: "credential-env", member: "/credentials", named: true }];

pub(super) const INTEGRATIONS: Resource = Resource {
    name: "integrations",
    about: "Connections to third parties",
    actions: &[
        Action {
            about: "Show the integrations",
            examples: &["", "--status failed --json", "--environment production --all"],
            query: &[
                Flag::new("type", "type", Kind::Choice(TYPES), "Only of this type"),
                Flag::new(
                    "status",
                    "status",
                    Kind::Choice(&["active", "inactive", "pending", "failed"]),
                    "Only in this state",
                ),
                Flag::new("environment", "environment", Kind::Choice(ENVIRONMENTS), "Only of this environment"),
                DELETED,
            ],
            ..Action::list("/integrations", COLUMNS, Paging::Skip)
        },
        Action {
            about: "Show one integration",
            examples: &["3", "Shop --json"],
            ..Action::get("/integrations/{INTEGRATION}")
        },
        Action {
            about: "Make an integration; a document may carry its webhook, destination and subscription",
            examples: &[
                "--name Shop --type payment_gateway --provider stripe --environment production",
                "-f shop.toml --credential-env api_key=SHOP_API_KEY",
                "-f - --json < shop.json",
            ],
            members: &[
                NAME,
                Flag::new("type", "/type", Kind::Choice(TYPES), "The family of its provider"),
                Flag::new("provider", "/provider", Kind::Text, "The scheme it speaks; see `hookmill providers list`"),
                ENVIRONMENT,
                DESCRIPTION,
                CONFIGURATION,
                ACTIVATE,
            ],
            secrets: CREDENTIALS,
            ..Action::create("/integrations")
        },
        Action {
            about: "Change an integration; what is not named stays",
            examples: &["Shop --status inactive", "3 -f shop.yaml --if-version 17"],
            members: &[
                NAME,
                ENVIRONMENT,
                Flag::new("status", "/status", Kind::Choice(&["active", "inactive"]), "Switches it on or off"),
                DESCRIPTION,
                CONFIGURATION,
                ACTIVATE,
            ],
            secrets: CREDENTIALS,
            ..Action::update("/integrations/{INTEGRATION}")
        },
        Action {
            about: "Delete an integration with its webhooks and subscriptions; for a while it may be restored",
            examples: &["3", "Shop --if-version 17", "3 --purge"],
            query: &[PURGE],
            ..Action::delete("/integrations/{INTEGRATION}")
        },
        Action {
            about: "Bring back a deleted integration with all that it had; `list --deleted` shows which there are",
            examples: &["3"],
            ..Action::restore("/integrations/{NUMBER}/restore")
        },
        Action {
            about: "Start an integration again; nothing is lost",
            examples: &["Shop"],
            ..Action::act("restart", "/integrations/{INTEGRATION}/restart")
        },
        Action {
            about: "Test an integration's connection",
            examples: &["Shop"],
            ..Action::act("test", "/integrations/{INTEGRATION}/test")
        },
        Action {
            name: "status",
            about: "Show how an integration is: its connection, events, backlog and breakers",
            examples: &["Shop", "3 --json"],
            ..Action::get("/integrations/{INTEGRATION}/status")
        },
        Action {
            name: "flow",
            about: "Show what each subscription of an integration waits for",
            examples: &["Shop"],
            ..Action::get("/integrations/{INTEGRATION}/flow")
        },
        Action {
            name: "versions",
            about: "Show an integration's history, newest first",
            examples: &["Shop"],
            method: Verb::Get,
            path: "/integrations/{INTEGRATION}/versions",
            reply: Reply::List(super::versions::COLUMNS, Paging::Cursor("before")),
            ..Action::BASE
        },
    ],
};
