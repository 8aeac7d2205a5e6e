//! `hookmill tokens`

use super::{Action, Flag, Kind, Paging, Reply, Resource};
use crate::cli::show::Column;

const COLUMNS: &[Column] = &[
    Column::text("ID", "/id"),
    Column::text("NAME", "/name"),
    Column::text("ROLE", "/role"),
    Column::text("SCOPES", "/scopes"),
    Column::state("STATUS", "/status"),
    Column::time("EXPIRES", "/expires_at"),
    Column::time("LAST USED", "/last_used_at"),
];
const ROLES: &[&str] = &["admin", "manager", "viewer"];

pub(super) const TOKENS: Resource = Resource {
    name: "tokens",
    about: "Who may use the API: tokens with a role, scopes and an end",
    actions: &[
        Action {
            about: "Show the tokens; never what they are",
            examples: &["", "--status expired"],
            query: &[
                Flag::new("status", "status", Kind::Choice(&["active", "expired", "revoked"]), "Only in this state"),
                Flag::new("role", "role", Kind::Choice(ROLES), "Only of this role"),
            ],
            ..Action::list("/tokens", COLUMNS, Paging::Skip)
        },
        Action { about: "Show one token", examples: &["4"], ..Action::get("/tokens/{TOKEN}") },
        Action {
            name: "self",
            about: "Show the token that is used: what it may do, and until when",
            examples: &["", "--json"],
            ..Action::get("/tokens/self")
        },
        Action {
            about: "Make a token; it is shown this once",
            examples: &[
                "--name ci --role manager --expires-in 90d --secret-to ci.token",
                "--name shop-team --role viewer --scopes integration:3",
            ],
            members: &[
                Flag::new("name", "/name", Kind::Text, "Who or what it is for: the audit log names it"),
                Flag::new("role", "/role", Kind::Choice(ROLES), "What it may do"),
                Flag::new("scopes", "/scopes", Kind::Texts, "Only there: `integration:3`, `environment:production`"),
                Flag::new("expires-in", "/expires_in", Kind::Text, "When it ends, such as `90d`"),
            ],
            once: Some("token"),
            ..Action::create("/tokens")
        },
        Action {
            name: "revoke",
            about: "End a token at once",
            examples: &["4"],
            conditional: false,
            reply: Reply::Done("revoked"),
            ..Action::delete("/tokens/{TOKEN}")
        },
    ],
};
