//! What shall stand of one resource: its document as if it were new, and what came to be of the one that stands.

use hookmill_actors::{
    domain::{
        config::{Destination, Endpoint, Integration, IntegrationStatus, Meta, Subscription},
        ids::{DestinationId, EndpointId, IntegrationId, SubscriptionId},
        secret::{Sealed, Secret},
    },
    ports::sealer::Owner,
};
use serde::Serialize;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

use crate::admin::{Api, destinations, integrations, problem::Problem, subscriptions, tools::Tools, webhooks};

/// A resource as it shall stand.
pub(super) struct Settled<R> {
    pub(super) next: R,
    pub(super) secrets: Vec<SecretChange>,
    /// Secrets that were made for it, by member.
    pub(super) made: Map<String, Value>,
}

/// What becomes of a secret; never what it is.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct SecretChange {
    /// JSON pointer.
    pointer: &'static str,
    change: SecretDeed,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SecretDeed {
    Set,
    Changed,
    Removed,
}

// Each is told the number of what stands, or one for what is new.

/// What an apply makes can be pruned by a later one.
const MADE: Meta = Meta { version: 0, created_at_ms: 0, updated_at_ms: 0, applied: true };

pub(super) fn integration(
    api: &Api,
    mut members: Map<String, Value>,
    current: Option<&Integration>,
    id: u32,
) -> Result<Settled<Integration>, Problem> {
    let tools = &api.tools;
    if members.contains_key("activate") {
        return Err(Problem::member("/activate", "is not possible here: what is applied is in force at once"));
    }
    let status = integrations::status_to_set(members.remove("status"))?;
    let stays = !members.contains_key("credentials");
    let id = IntegrationId(id);
    let mut next = integrations::Draft::read(Value::Object(members), tools)?.into_integration(id, tools);
    next.meta = current.map_or(MADE, |current| current.meta);
    if let Some(current) = current {
        integrations::check_kept(current, next.kind, &next.provider)?;
        next.status = current.status;
        let owner = Owner::Credentials(id);
        next.credentials = kept(tools, owner, current.credentials.as_ref(), next.credentials.take(), stays);
    }
    match status {
        Some(IntegrationStatus::Inactive) => next.status = IntegrationStatus::Inactive,
        // Pending and failed are active, too: hookmill finds that out by itself.
        Some(_) if next.status == IntegrationStatus::Inactive => next.status = IntegrationStatus::Active,
        Some(_) | None => {}
    }
    let before = current.and_then(|current| current.credentials.as_ref());
    let secrets = secret_change("/credentials", before, next.credentials.as_ref());
    Ok(Settled { secrets: secrets.into_iter().collect(), made: Map::new(), next })
}

pub(super) fn webhook(
    api: &Api,
    integration: &Integration,
    mut members: Map<String, Value>,
    current: Option<&Endpoint>,
    id: u32,
    now_ms: u64,
) -> Result<Settled<Endpoint>, Problem> {
    let tools = &api.tools;
    let gives_path = members.contains_key("path");
    members.insert("integration_id".to_owned(), integration.id.0.into());
    let draft = webhooks::Draft::read(Value::Object(members))?;
    let given = draft.given_secret();
    let (mut next, mut made_secret) = draft.into_endpoint(integration, tools)?;
    next.id = EndpointId(id);
    next.meta = current.map_or(MADE, |current| current.meta);
    if let Some(current) = current {
        if !gives_path {
            next.path.clone_from(&current.path);
        }
        if !current.secrets.is_empty() || given.is_some() {
            next.secrets.clone_from(&current.secrets);
            made_secret = None;
        }
        let owner = Owner::EndpointSecret(integration.id);
        if let Some(secret) = given
            && !current.secrets.first().is_some_and(|first| is_that(tools, owner, &first.sealed, &secret))
        {
            // As a rotation: what the provider signs with the former one meanwhile is still good.
            next = webhooks::rotated(&next, integration, &secret, now_ms, tools)?;
        }
    }
    let first = |endpoint: &Endpoint| endpoint.secrets.first().map(|secret| secret.sealed.clone());
    let secrets = secret_change("/secret", current.and_then(first).as_ref(), first(&next).as_ref());
    let made = made("secret", made_secret.as_ref())?;
    Ok(Settled { secrets: secrets.into_iter().collect(), made, next })
}

pub(super) fn destination(
    api: &Api,
    mut members: Map<String, Value>,
    current: Option<&Destination>,
    id: u32,
) -> Result<Settled<Destination>, Problem> {
    let tools = &api.tools;
    let (gives_status, gives_signing) = (members.contains_key("status"), members.contains_key("signing_secret"));
    let stays = !members.contains_key("credentials");
    if let Some(current) = current.filter(|_| stays) {
        // The settings are checked together with what they need.
        let stored = destinations::stored_credentials(current, tools)?;
        if let Some(stored) = stored.and_then(|stored| serde_json::from_slice::<Value>(stored.expose()).ok()) {
            members.insert("credentials".to_owned(), stored);
        }
    }
    let id = DestinationId(id);
    let draft = destinations::Draft::read(Value::Object(members), tools)?;
    let (mut next, mut made_secret) = draft.into_destination(id, tools);
    next.meta = current.map_or(MADE, |current| current.meta);
    if let Some(current) = current {
        if stays {
            destinations::credentials_stay(current, &next.kind, &next.settings)?;
        }
        if !gives_status || next.status == current.status {
            (next.status, next.status_reason) = (current.status, current.status_reason.clone());
        }
        let owner = Owner::DestinationCredentials(id);
        next.credentials = kept(tools, owner, current.credentials.as_ref(), next.credentials.take(), stays);
        let owner = Owner::SigningSecret(id);
        next.signing_secret =
            kept(tools, owner, Some(&current.signing_secret), Some(next.signing_secret), !gives_signing)
                .unwrap_or_else(|| current.signing_secret.clone());
        if next.signing_secret == current.signing_secret {
            next.signing_fingerprint.clone_from(&current.signing_fingerprint);
            made_secret = None;
        }
    }
    let secrets = [
        secret_change("/signing_secret", current.map(|it| &it.signing_secret), Some(&next.signing_secret)),
        secret_change("/credentials", current.and_then(|it| it.credentials.as_ref()), next.credentials.as_ref()),
    ];
    let made = made("signing_secret", made_secret.as_ref())?;
    Ok(Settled { secrets: secrets.into_iter().flatten().collect(), made, next })
}

pub(super) async fn subscription(
    api: &Api,
    integration: &Integration,
    destination: DestinationId,
    mut members: Map<String, Value>,
    current: Option<&Subscription>,
    id: u32,
) -> Result<Settled<Subscription>, Problem> {
    members.remove("destination");
    for id in ["integration_id", "destination_id"] {
        if members.contains_key(id) {
            return Err(Problem::member(format!("/{id}"), "is given by where it stands; `destination` is a name"));
        }
    }
    members.insert("integration_id".to_owned(), integration.id.0.into());
    members.insert("destination_id".to_owned(), destination.0.into());
    let draft = subscriptions::Draft::read(Value::Object(members), &api.subscription_defaults)?;
    let id = SubscriptionId(id);
    let mut next = draft.into_subscription(id, api.tree.ports().log.last_committed());
    next.meta = current.map_or(MADE, |current| current.meta);
    if let Some(current) = current {
        next.start_after = current.start_after;
    }
    if current != Some(&next) {
        subscriptions::check(api, &next).await?;
    }
    Ok(Settled { next, secrets: Vec::new(), made: Map::new() })
}

/// What is sealed of a member: what stands, where it is not named or is the same, so that it does not change.
fn kept(tools: &Tools, owner: Owner, current: Option<&Sealed>, given: Option<Sealed>, stays: bool) -> Option<Sealed> {
    if stays {
        return current.cloned();
    }
    let given = given?;
    let opened = tools.sealer.open(owner, &given).ok();
    let is_same = current.zip(opened).is_some_and(|(current, given)| is_that(tools, owner, current, &given));
    if is_same { current.cloned() } else { Some(given) }
}

fn is_that(tools: &Tools, owner: Owner, sealed: &Sealed, secret: &Secret) -> bool {
    tools.sealer.open(owner, sealed).is_ok_and(|opened| opened.expose().ct_eq(secret.expose()).into())
}

fn secret_change(pointer: &'static str, from: Option<&Sealed>, to: Option<&Sealed>) -> Option<SecretChange> {
    let change = match (from, to) {
        (None, Some(_)) => SecretDeed::Set,
        (Some(_), None) => SecretDeed::Removed,
        (Some(from), Some(to)) if from != to => SecretDeed::Changed,
        (Some(_), Some(_)) | (None, None) => return None,
    };
    Some(SecretChange { pointer, change })
}

fn made(member: &str, secret: Option<&Secret>) -> Result<Map<String, Value>, Problem> {
    let text = webhooks::shown_once(secret)?;
    Ok(text.map(|text| (member.to_owned(), text.into())).into_iter().collect())
}
