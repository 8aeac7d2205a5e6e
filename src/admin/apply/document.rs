//! Resources as documents: what an operator would write to have them so. References are names, secrets are `***`.

use hookmill_actors::{
    domain::{
        config::{Configuration, Destination, Endpoint, Integration, IntegrationStatus, Subscription},
        secret::Secret,
    },
    ports::sealer::Owner,
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::admin::{
    destinations, integrations, redact::REDACTED, resource::Managed, subscriptions, tools::Tools, webhooks,
};

/// A resource that a document can say.
pub(super) trait Documented: Managed {
    /// How plans call it.
    const KIND_NAME: &'static str;

    /// Its name.
    fn name(&self) -> &str;
    /// Without numbers, times and whatever else is not chosen.
    fn document(&self, configuration: &Configuration, tools: &Tools) -> Map<String, Value>;
}

/// What replies show, but for some members.
fn shown(view: &impl Serialize, without: &[&[&str]]) -> Map<String, Value> {
    let Ok(Value::Object(mut members)) = serde_json::to_value(view) else { return Map::new() };
    members.retain(|name, value| !value.is_null() && !without.iter().any(|names| names.contains(&name.as_str())));
    members
}

impl Documented for Integration {
    const KIND_NAME: &'static str = "integration";

    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self, _configuration: &Configuration, tools: &Tools) -> Map<String, Value> {
        let mut members = shown(&self.view(tools), &[&integrations::READ_ONLY, &["credentials"]]);
        // The other states are hookmill's own findings.
        let status = if self.status == IntegrationStatus::Inactive { "inactive" } else { "active" };
        members.insert("status".to_owned(), status.into());
        let open = |sealed| tools.sealer.open(Owner::Credentials(self.id), sealed).ok();
        if let Some(credentials) = self.credentials.as_ref().and_then(open) {
            members.insert("credentials".to_owned(), hidden(&credentials));
        }
        members
    }
}

impl Documented for Endpoint {
    const KIND_NAME: &'static str = "webhook";

    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self, _configuration: &Configuration, tools: &Tools) -> Map<String, Value> {
        let mut members = shown(&self.view(tools), &[&webhooks::READ_ONLY, &["integration_id", "is_active"]]);
        if !self.secrets.is_empty() {
            members.insert("secret".to_owned(), REDACTED.into());
        }
        members
    }
}

impl Documented for Destination {
    const KIND_NAME: &'static str = "destination";

    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self, _configuration: &Configuration, tools: &Tools) -> Map<String, Value> {
        let mut members = shown(&self.view(tools), &[&destinations::READ_ONLY]);
        members.insert("signing_secret".to_owned(), REDACTED.into());
        members
    }
}

impl Documented for Subscription {
    const KIND_NAME: &'static str = "subscription";

    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self, configuration: &Configuration, tools: &Tools) -> Map<String, Value> {
        let own = ["integration_id", "destination_id", "is_active"];
        let mut members = shown(&self.view(tools), &[&subscriptions::READ_ONLY, &own]);
        if let Some(destination) = configuration.destinations.get(&self.destination_id) {
            members.insert("destination".to_owned(), destination.name.clone().into());
        }
        members
    }
}

/// An object of credentials with each text hidden.
fn hidden(credentials: &Secret) -> Value {
    fn hide(value: Value) -> Value {
        match value {
            Value::Object(members) => members.into_iter().map(|(name, value)| (name, hide(value))).collect(),
            Value::Array(items) => items.into_iter().map(hide).collect(),
            _ => REDACTED.into(),
        }
    }
    serde_json::from_slice(credentials.expose()).map(hide).unwrap_or_default()
}

/// All that is configured.
#[derive(Serialize, ToSchema)]
#[schema(as = Document)]
pub(super) struct Whole {
    #[schema(value_type = Vec<Object>)]
    destinations: Vec<Map<String, Value>>,
    #[schema(value_type = Vec<Object>)]
    integrations: Vec<Map<String, Value>>,
}

impl Whole {
    /// Every resource, in the order of their numbers, each integration with what belongs to it.
    pub(super) fn of(configuration: &Configuration, tools: &Tools) -> Self {
        let mut integrations: Vec<_> =
            configuration.integrations.values().map(|it| (it.id, it.document(configuration, tools))).collect();
        let mut add = |owner, collection: &str, document: Map<String, Value>| {
            // They come by number, as the integrations do.
            let Ok(at) = integrations.binary_search_by_key(&owner, |(id, _)| *id) else { return };
            let parts = integrations[at].1.entry(collection).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(parts) = parts {
                parts.push(document.into());
            }
        };
        for endpoint in configuration.endpoints.values() {
            add(endpoint.integration_id, "webhooks", endpoint.document(configuration, tools));
        }
        for subscription in configuration.subscriptions.values() {
            add(subscription.integration_id, "subscriptions", subscription.document(configuration, tools));
        }
        Self {
            destinations: configuration.destinations.values().map(|it| it.document(configuration, tools)).collect(),
            integrations: integrations.into_iter().map(|(_, document)| document).collect(),
        }
    }
}
