//! `hookmill metrics`

use super::{Action, Resource};

pub(super) const METRICS: Resource = Resource {
    name: "metrics",
    about: "Show totals, rates, backlogs and what is configured but cannot be used",
    actions: &[Action { name: "", examples: &["", "--json"], ..Action::get("/metrics") }],
};
