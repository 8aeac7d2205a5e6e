//! `hookmill providers`

use super::{Action, Reply, Resource};
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
    ],
};
