//! Things are known by their names, so a name must be that of one thing.

use std::{collections::BTreeMap, fmt::Display};

use hookmill_actors::domain::config::Configuration;
use serde_json::{Map, Value};

use crate::admin::{
    json::quoted,
    problem::{Code, Problem},
    redact,
};

pub(super) fn by_name<Name: Ord, Id>(all: impl Iterator<Item = (Name, Id)>) -> BTreeMap<Name, Vec<Id>> {
    let mut found = BTreeMap::<Name, Vec<Id>>::new();
    for (name, id) in all {
        found.entry(name).or_default().push(id);
    }
    found
}

/// The name of a document that holds what it must.
pub(super) fn name(members: &Map<String, Value>) -> Result<String, Problem> {
    if let Some(place) = redact::redacted_within(members) {
        let detail = "is `***`, which an export shows in place of a secret; give the secret itself, or leave it out";
        return Err(Problem::member(place, detail));
    }
    match members.get("name") {
        Some(Value::String(name)) => Ok(name.clone()),
        _ => Err(Problem::member("/name", "is missing or no string; it says which one is meant")),
    }
}

pub(super) fn twice(kind: &str) -> Problem {
    Problem::member("/name", format!("is that of another {kind} of the documents; names tell them apart"))
}

/// The only one of that name.
pub(super) fn one<Id: Copy + Display>(found: Option<&Vec<Id>>, what: &str, name: &str) -> Result<Option<Id>, Problem> {
    match found.map(Vec::as_slice) {
        None | Some([]) => Ok(None),
        Some([id]) => Ok(Some(*id)),
        Some(several) => {
            let ids = several.iter().map(Id::to_string).collect::<Vec<_>>().join(", ");
            let name = quoted(name);
            let detail = format!("`{name}` is the name of the {what} {ids}; give them different names first");
            Err(Problem::new(Code::Conflict, detail))
        }
    }
}

/// Refuses what documents could not tell apart.
pub(super) fn check_distinct(all: &Configuration) -> Result<(), Problem> {
    for (name, ids) in by_name(all.destinations.values().map(|it| (&it.name, it.id))) {
        one(Some(&ids), "destinations", name)?;
    }
    for (name, ids) in by_name(all.integrations.values().map(|it| (&it.name, it.id))) {
        one(Some(&ids), "integrations", name)?;
    }
    for ((integration, name), ids) in by_name(all.endpoints.values().map(|it| ((it.integration_id, &it.name), it.id))) {
        one(Some(&ids), &format!("webhooks of integration {integration}"), name)?;
    }
    let subscriptions = all.subscriptions.values().map(|it| ((it.integration_id, &it.name), it.id));
    for ((integration, name), ids) in by_name(subscriptions) {
        one(Some(&ids), &format!("subscriptions of integration {integration}"), name)?;
    }
    Ok(())
}
