//! The versions of an integration with everything that belongs to it: `/api/v1/integrations/{id}/versions`.
//! Credentials of a version stay sealed; what is told of them is whether they differ.

mod diff;
pub(super) mod doc;

use std::sync::Arc;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use hookmill_actors::{
    configuration::{ConfigError, Past, Rollback},
    domain::{
        activity::ActivityResult,
        config::{Destination, Endpoint, Integration, ResourceKey, Subscription},
        ids::IntegrationId,
        version::{Changed, Deed, Origin, Version},
    },
    ports::{config_store::ConfigStore, sealer::Owner},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    access::{Author, State},
    comment,
    json::NoMembers,
    paging::{Params, Slice},
    problem::{Code, Problem},
    resource::{Configured, IfMatch, Managed, Segments, json, time},
    tools::Tools,
};

/// What is told of a version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VersionHead)]
struct Head {
    version: u64,
    #[schema(format = DateTime)]
    at: String,
    author: String,
    comment: Option<String>,
    changes: Vec<ChangeView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VersionChange)]
struct ChangeView {
    kind: &'static str,
    id: u32,
    change: Deed,
}

/// A version with what stood at it.
#[derive(Serialize, ToSchema)]
#[schema(as = Version)]
struct Whole {
    #[serde(flatten)]
    head: Head,
    /// `null` where the version is the integration's deletion.
    #[schema(value_type = Option<super::integrations::View>)]
    integration: Option<<Integration as Managed>::View>,
    #[schema(value_type = Vec<super::webhooks::View>)]
    webhooks: Vec<<Endpoint as Managed>::View>,
    #[schema(value_type = Vec<super::destinations::View>)]
    destinations: Vec<<Destination as Managed>::View>,
    #[schema(value_type = Vec<super::subscriptions::View>)]
    subscriptions: Vec<<Subscription as Managed>::View>,
}

/// How one version differs from another.
#[derive(Serialize, ToSchema)]
#[schema(as = VersionDifference)]
struct Difference {
    version: u64,
    /// `null`: from nothing at all.
    against: Option<u64>,
    /// RFC 6902: makes the version out of `against`.
    #[schema(value_type = Vec<Object>)]
    patch: json_patch::Patch,
}

/// `GET /api/v1/integrations/{id}/versions`: newest first, before `before`; of a deleted integration too.
pub(super) async fn list(
    State(api): State<Api>,
    Segments(id): Segments<u32>,
    mut params: Params,
) -> Result<Response, Problem> {
    let limit = params.limit()?;
    let before = params.id("before")?.map(u64::from);
    params.finish()?;
    let versions = store(&api).versions(IntegrationId(id), before, limit).await.map_err(ConfigError::from)?;
    if versions.is_empty() && before.is_none() {
        return Err(Problem::not_found(Integration::key(id)));
    }
    let newest = versions.first().filter(|_| before.is_none()).map(|version| version.number);
    let next = versions.last().filter(|_| versions.len() == limit).map(|version| version.number.to_string());
    let items = versions.into_iter().map(Head::of).collect();
    let reply = json(StatusCode::OK, &Slice::<Head> { items, limit, next });
    Ok(match newest {
        Some(newest) => tagged(reply, newest),
        None => reply,
    })
}

/// `GET /api/v1/integrations/{id}/versions/{number}`
pub(super) async fn one(
    State(api): State<Api>,
    Segments((id, number)): Segments<(u32, u64)>,
) -> Result<Response, Problem> {
    let past = read(&api, IntegrationId(id), number).await?;
    Ok(tagged(json(StatusCode::OK, &Whole::of(past, &api.tools)), number))
}

/// `GET /api/v1/integrations/{id}/versions/{number}/diff`: against the version before, or the one of `against`.
pub(super) async fn difference(
    State(api): State<Api>,
    Segments((id, number)): Segments<(u32, u64)>,
    mut params: Params,
) -> Result<Response, Problem> {
    let against = params.id("against")?.map(u64::from);
    params.finish()?;
    let id = IntegrationId(id);
    let to = read(&api, id, number).await?;
    let against = match against {
        Some(against) => Some(against),
        None => {
            let before = store(&api).versions(id, Some(number), 1).await.map_err(ConfigError::from)?;
            before.first().map(|version| version.number)
        }
    };
    let from = match against {
        Some(against) => Some(read(&api, id, against).await?),
        None => None,
    };
    let patch = diff::patch(from.as_ref(), &to, &api.tools)?;
    Ok(json(StatusCode::OK, &Difference { version: number, against, patch }))
}

/// `POST /api/v1/integrations/{id}/versions/{number}/rollback`: a new version that equals this one. `If-Match` names the
/// newest version, as the list's `etag` does. Where nothing differs, no version is made.
pub(super) async fn roll_back(
    State(api): State<Api>,
    Author(author): Author,
    Segments((id, number)): Segments<(u32, u64)>,
    condition: IfMatch,
    _: NoMembers,
) -> Result<Response, Problem> {
    let integration = IntegrationId(id);
    let past = read(&api, integration, number).await?;
    if let Some(integration) = &past.integration {
        api.must_cover(integration)?;
    }
    check_seals(&past, &api.tools)?;
    let mut origin: Origin = comment::origin(&author);
    origin.comment.get_or_insert_with(|| format!("rollback to {number}"));
    let expected = condition.versions();
    let conditional = expected.is_some();
    let resume_after = api.tree.ports().log.last_committed();
    let rollback = Rollback { integration, number, expected, resume_after };
    let made = api.tree.config().roll_back(origin, rollback).await.map_err(|error| match error {
        ConfigError::Conflict { .. } if conditional => Problem::new(Code::VersionConflict, error.to_string()),
        other => other.into(),
    })?;
    let newest = match made.first() {
        Some(change) => change.version,
        None => {
            let newest = store(&api).versions(integration, None, 1).await.map_err(ConfigError::from)?;
            newest.first().map_or(number, |version| version.number)
        }
    };
    if !made.is_empty() {
        let subject = api.subject(Integration::key(id));
        let detail = format!("to version {number}, which made version {newest}");
        api.note(author, "integration.rolled_back", subject, ActivityResult::Ok, detail).await;
    }
    let past = read(&api, integration, newest).await?;
    Ok(tagged(json(StatusCode::OK, &Whole::of(past, &api.tools)), newest))
}

fn store(api: &Api) -> &Arc<dyn ConfigStore> {
    &api.tree.ports().config
}

async fn read(api: &Api, integration: IntegrationId, number: u64) -> Result<Past, Problem> {
    let past = Past::read(store(api), integration, number).await.map_err(ConfigError::from)?;
    past.ok_or_else(|| ConfigError::NoVersion { integration, number }.into())
}

/// Refuses to bring back what could not be used: its key is gone from the ring.
fn check_seals(past: &Past, tools: &Tools) -> Result<(), Problem> {
    let credentials =
        past.integration.iter().filter_map(|it| Some((Owner::Credentials(it.id), it.credentials.as_ref()?)));
    let secrets = past
        .endpoints
        .iter()
        .flat_map(|it| it.secrets.iter().map(|secret| (Owner::EndpointSecret(it.integration_id), &secret.sealed)));
    let signing = past.destinations.iter().map(|it| (Owner::SigningSecret(it.id), &it.signing_secret));
    let signing_in = past
        .destinations
        .iter()
        .filter_map(|it| Some((Owner::DestinationCredentials(it.id), it.credentials.as_ref()?)));
    for (owner, sealed) in credentials.chain(secrets).chain(signing).chain(signing_in) {
        if let Err(error) = tools.sealer.open(owner, sealed) {
            let number = past.version.number;
            let detail = format!("the credentials of version {number} cannot be brought back: {error}");
            return Err(Problem::new(Code::Conflict, detail));
        }
    }
    Ok(())
}

/// With the number as `etag`.
fn tagged(mut reply: Response, number: u64) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{number}\"")) {
        reply.headers_mut().insert(header::ETAG, tag);
    }
    reply
}

impl Head {
    fn of(version: Version) -> Self {
        let changes = version.changed.into_iter().map(|Changed { key, deed }| {
            let (kind, id) = match key {
                ResourceKey::Integration(id) => ("integration", id.0),
                ResourceKey::Endpoint(id) => ("webhook", id.0),
                ResourceKey::Destination(id) => ("destination", id.0),
                ResourceKey::Subscription(id) => ("subscription", id.0),
            };
            ChangeView { kind, id, change: deed }
        });
        Self {
            version: version.number,
            at: time(version.at_ms),
            author: version.author,
            comment: version.comment,
            changes: changes.collect(),
        }
    }
}

impl Whole {
    fn of(past: Past, tools: &Tools) -> Self {
        Self {
            head: Head::of(past.version),
            integration: past.integration.map(|it| it.past_view(tools)),
            webhooks: past.endpoints.iter().map(|it| it.view(tools)).collect(),
            destinations: past.destinations.iter().map(|it| it.view(tools)).collect(),
            subscriptions: past.subscriptions.iter().map(|it| it.view(tools)).collect(),
        }
    }
}
