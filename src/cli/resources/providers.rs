//! `hookmill providers`

use super::{Action, Body, Flag, Kind, Reply, Resource, SecretFlag, Verb};
use crate::cli::show::Column;

const COLUMNS: &[Column] = &[Column::text("NAME", "/name"), Column::text("ABOUT", "/summary")];

pub(super) const PROVIDERS: Resource = Resource {
    name: "providers",
    about: "The schemes that webhooks are verified by",
    actions: &[
        Action {
            name: "list",
            about: "Show the providers",
            examples: &["", "--json"],
            reply: Reply::Whole(COLUMNS),
            ..Action::get("/providers")
        },
        Action {
            about: "Show a provider: its settings, how it is set up, and a sample",
            examples: &["stripe"],
            ..Action::get("/providers/{PROVIDER}")
        },
        Action {
            name: "verify",
            about: "Say whether the signature of a request that you give holds, and if not, why; nothing of it is kept",
            examples: &[
                "stripe -f request.yaml --secret-file stripe.secret",
                "generic_hmac --headers '{\"x-signature\": \"5f0c…\"}' --body '{}' --secret-env SHOP_SECRET",
            ],
            method: Verb::Post,
            path: "/providers/{PROVIDER}/verify",
            body: Body::Question,
            members: &[
                Flag::new("headers", "/headers", Kind::Json, "Its headers, an object"),
                Flag::new("body", "/body", Kind::Text, "Its body, every byte as it came"),
                Flag::new("body-base64", "/body_base64", Kind::Text, "The same in base64, where it is no text"),
                Flag::new("settings", "/settings", Kind::Json, "The endpoint's verification settings, an object"),
                Flag::new("method", "/method", Kind::Text, "Its method, where it was not `POST`"),
                Flag::new("target", "/target", Kind::Text, "Its path and query, where the scheme signs them"),
                Flag::new("at", "/at", Kind::Text, "When it came, RFC 3339; else it is checked as of now"),
            ],
            secrets: &[SecretFlag { file: "secret-file", variable: "secret-env", member: "/secret", named: false }],
            ..Action::BASE
        },
    ],
};
