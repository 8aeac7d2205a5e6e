//! How two versions differ, as a JSON Patch over the resources' views. Of a secret it tells `changed` or `unchanged`, and
//! nothing that could be tried out against it. Pure.

use hookmill_actors::{
    configuration::Past,
    domain::{
        config::{Destination, Endpoint, Integration, Subscription},
        secret::Sealed,
    },
    ports::sealer::Owner,
};
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use crate::admin::{
    problem::Problem,
    redact::{self, CHANGED, UNCHANGED},
    resource::{Configured, Managed},
    tools::Tools,
};

/// What a change makes though nobody sets it. Other members that nobody sets are stamped by each change or found out
/// live, so they are no part of what was configured.
const COMPARED: [&str; 6] = ["id", "created_at", "url_path", "secrets", "status_reason", "start_after"];

/// What makes `to` out of `from`, or out of nothing. Webhooks, destinations and subscriptions are members by their id.
pub(super) fn patch(from: Option<&Past>, to: &Past, tools: &Tools) -> Result<json_patch::Patch, Problem> {
    let before = match from {
        Some(from) => document(from, from, tools)?,
        None => json!({"integration": null, "webhooks": {}, "destinations": {}, "subscriptions": {}}),
    };
    let after = match from {
        Some(from) => document(to, from, tools)?,
        None => document(to, &nothing(to), tools)?,
    };
    Ok(json_patch::diff(&before, &after))
}

fn nothing(past: &Past) -> Past {
    Past {
        version: past.version.clone(),
        integration: None,
        endpoints: Vec::new(),
        destinations: Vec::new(),
        subscriptions: Vec::new(),
    }
}

/// A version's resources, their secrets compared with those of `other`.
fn document(past: &Past, other: &Past, tools: &Tools) -> Result<Value, Problem> {
    let integration = past.integration.as_ref();
    let integration = integration.map(|it| shown(it, other.integration.as_ref(), tools)).transpose()?;
    Ok(json!({
        "integration": integration,
        "webhooks": all(&past.endpoints, &other.endpoints, tools)?,
        "destinations": all(&past.destinations, &other.destinations, tools)?,
        "subscriptions": all(&past.subscriptions, &other.subscriptions, tools)?,
    }))
}

fn all<R: Compared>(these: &[R], others: &[R], tools: &Tools) -> Result<Map<String, Value>, Problem> {
    these
        .iter()
        .map(|this| {
            // Both are by id.
            let other = others.binary_search_by_key(&this.id(), Configured::id).ok().map(|at| &others[at]);
            Ok((this.id().to_string(), shown(this, other, tools)?))
        })
        .collect()
}

fn shown<R: Compared>(this: &R, other: Option<&R>, tools: &Tools) -> Result<Value, Problem> {
    let view = serde_json::to_value(this.past_view(tools)).map_err(|error| Problem::internal(&error))?;
    let Value::Object(mut members) = view else { return Ok(view) };
    let is_compared = |name: &str| !R::READ_ONLY.contains(&name) || COMPARED.contains(&name);
    members.retain(|name, _| is_compared(name));
    this.mark(other, &mut members, tools);
    Ok(Value::Object(members))
}

/// A resource whose view may be compared.
trait Compared: Managed {
    /// Puts marks in place of all that tells of a secret.
    fn mark(&self, other: Option<&Self>, view: &mut Map<String, Value>, tools: &Tools);
}

impl Compared for Integration {
    fn mark(&self, other: Option<&Self>, view: &mut Map<String, Value>, tools: &Tools) {
        let former = other.and_then(|other| other.credentials.as_ref());
        let mark = self.credentials.as_ref().map(|it| marked(same(Owner::Credentials(self.id), it, former, tools)));
        view.insert("credentials".to_owned(), mark.into());
        let configuration = redact::compared(&self.configuration, other.map(|other| &other.configuration));
        view.insert("configuration".to_owned(), configuration.into());
    }
}

impl Compared for Endpoint {
    fn mark(&self, other: Option<&Self>, view: &mut Map<String, Value>, tools: &Tools) {
        let owner = Owner::EndpointSecret(self.integration_id);
        let former = other.map_or(&[][..], |other| other.secrets.as_slice());
        let stood = |sealed: &Sealed| former.iter().any(|secret| same(owner, sealed, Some(&secret.sealed), tools));
        let marks: Vec<&str> = self.secrets.iter().map(|secret| marked(stood(&secret.sealed))).collect();
        if let Some(Value::Array(secrets)) = view.get_mut("secrets") {
            for (secret, mark) in secrets.iter_mut().zip(marks) {
                if let Value::Object(members) = secret {
                    members.remove("fingerprint");
                    members.insert("secret".to_owned(), mark.into());
                }
            }
        }
        let verification = redact::compared(&self.verification, other.map(|other| &other.verification));
        view.insert("verification".to_owned(), verification.into());
    }
}

impl Compared for Destination {
    fn mark(&self, other: Option<&Self>, view: &mut Map<String, Value>, tools: &Tools) {
        view.remove("signing_fingerprint");
        let former = other.map(|other| &other.signing_secret);
        let mark = marked(same(Owner::SigningSecret(self.id), &self.signing_secret, former, tools));
        view.insert("signing_secret".to_owned(), mark.into());
        let owner = Owner::DestinationCredentials(self.id);
        let former = other.and_then(|other| other.credentials.as_ref());
        let mark = self.credentials.as_ref().map(|it| marked(same(owner, it, former, tools)));
        view.insert("credentials".to_owned(), mark.into());
        let settings = redact::compared(&self.settings, other.map(|other| &other.settings));
        view.insert("settings".to_owned(), settings.into());
    }
}

impl Compared for Subscription {
    fn mark(&self, _other: Option<&Self>, _view: &mut Map<String, Value>, _tools: &Tools) {}
}

fn marked(same: bool) -> &'static str {
    if same { UNCHANGED } else { CHANGED }
}

/// Whether two sealed texts hold the same: one secret is never sealed alike twice.
fn same(owner: Owner, one: &Sealed, other: Option<&Sealed>, tools: &Tools) -> bool {
    let Some(other) = other else { return false };
    if one == other {
        return true;
    }
    match (tools.sealer.open(owner, one), tools.sealer.open(owner, other)) {
        (Ok(one), Ok(other)) => one.expose().ct_eq(other.expose()).into(),
        _ => false,
    }
}
