//! `hookmill webhooks`

use super::{Action, DELETED, Flag, Kind, PURGE, Paging, Resource, SecretFlag};
use crate::cli::show::Column;

const COLUMNS: &[Column] = &[
    Column::text("ID", "/id"),
    Column::text("INTEGRATION", "/integration_id"),
    Column::text("NAME", "/name"),
    Column::text("PATH", "/url_path"),
    Column::text("ACTIVE", "/active"),
    Column::text("SIGNED", "/verify_signature"),
    Column::time("UPDATED", "/updated_at"),
];

const NAME: Flag = Flag::new("name", "/name", Kind::Text, "What people call it");
const PATH: Flag = Flag::new("path", "/path", Kind::Text, "Its path below /webhooks/receive; else one is made");
const ACTIVE: Flag = Flag::new("active", "/active", Kind::Bool, "Whether it takes webhooks");
const VERIFY: Flag = Flag::new("verify-signature", "/verify_signature", Kind::Bool, "`false` takes unsigned requests");
const HEADER: Flag = Flag::new("signature-header", "/signature_header", Kind::Text, "The header with the signature");
const VERIFICATION: Flag =
    Flag::new("verification", "/verification", Kind::Json, "The provider's verification settings, an object");
const DESCRIPTION: Flag = Flag::new("description", "/description", Kind::Text, "What it is for");
const SECRET: &[SecretFlag] =
    &[SecretFlag { file: "secret-file", variable: "secret-env", member: "/secret", named: false }];

pub(super) const WEBHOOKS: Resource = Resource {
    name: "webhooks",
    about: "Public paths that providers post to, and their secrets",
    actions: &[
        Action {
            about: "Show the webhook endpoints",
            examples: &["", "--integration Shop"],
            query: &[
                Flag::new("integration", "integration_id", Kind::Ref("integrations"), "Only of this integration"),
                Flag::new("active", "active", Kind::Bool, "Only active, or only inactive ones"),
                DELETED,
            ],
            ..Action::list("/webhooks", COLUMNS, Paging::Skip)
        },
        Action { about: "Show one webhook endpoint", examples: &["5"], ..Action::get("/webhooks/{WEBHOOK}") },
        Action {
            about: "Make a webhook endpoint; without a secret one is made and shown this once",
            examples: &[
                "--integration Shop --name orders --path shop --secret-to shop.secret",
                "--integration Shop --name orders --secret-file stripe.secret",
            ],
            members: &[
                Flag::new("integration", "/integration_id", Kind::Ref("integrations"), "Whose events it takes"),
                NAME,
                PATH,
                ACTIVE,
                VERIFY,
                HEADER,
                VERIFICATION,
                DESCRIPTION,
            ],
            secrets: SECRET,
            once: Some("secret"),
            ..Action::create("/webhooks")
        },
        Action {
            about: "Change a webhook endpoint; a new secret replaces the former ones at once",
            examples: &["5 --active=false", "orders --path orders-v2"],
            members: &[NAME, PATH, ACTIVE, VERIFY, HEADER, VERIFICATION, DESCRIPTION],
            secrets: SECRET,
            ..Action::update("/webhooks/{WEBHOOK}")
        },
        Action {
            about: "Delete a webhook endpoint; its events stay, and for a while it may be restored",
            examples: &["5", "5 --purge"],
            query: &[PURGE],
            ..Action::delete("/webhooks/{WEBHOOK}")
        },
        Action {
            about: "Bring back a deleted webhook endpoint; `list --deleted` shows which there are",
            examples: &["5"],
            ..Action::restore("/webhooks/{NUMBER}/restore")
        },
        Action {
            about: "Give a webhook endpoint a new secret; the old one holds for a grace",
            examples: &["5 --secret-to shop.secret", "5 --secret-env NEW_SECRET --grace-s 86400"],
            members: &[Flag::new("grace-s", "/grace_s", Kind::Number, "How long the old secret still holds, seconds")],
            secrets: SECRET,
            once: Some("secret"),
            conditional: true,
            ..Action::act("rotate-secret", "/webhooks/{WEBHOOK}/rotate-secret")
        },
    ],
};
