//! Integrations and webhook endpoints that are deleted and may come back: for a while they are only set aside. They take
//! no webhooks and deliver nothing; their paths stay reserved.

use axum::{http::StatusCode, response::Response};
use hookmill_actors::{
    configuration::{ConfigError, Rollback, Write},
    domain::{
        config::{Endpoint, Integration, Kept, ResourceKey},
        ids::IntegrationId,
    },
};
use serde::Serialize;
use utoipa::IntoParams;

use super::{
    Api,
    access::{Author, State},
    comment,
    json::NoMembers,
    paging::Params,
    problem::{Code, Problem},
    resource::{self, Configured, IfMatch, Managed, Segments, json, reply, time},
};

/// A deleted resource as the list of deleted ones shows it: as it stood, and how long it may come back.
#[derive(Serialize)]
struct Shown<V> {
    #[serde(flatten)]
    view: V,
    deleted_at: String,
    /// Then it is deleted for good.
    restorable_until: String,
}

/// Lists what is deleted.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
pub(super) struct DeletedParam {
    /// Those that are deleted and may come back, in place of those that stand.
    #[param(required = false)]
    deleted: bool,
}

/// How something is deleted.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
pub(super) struct Deletion {
    /// For good, also where it is deleted already.
    #[param(required = false)]
    purge: bool,
}

/// `GET /api/v1/<collection>`; with `deleted=true` those that are deleted and may come back.
pub(super) async fn list<R: Managed>(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    if params.boolean("deleted")? != Some(true) {
        return resource::listed::<R>(&api, params);
    }
    let window = params.window(R::COLLECTION)?;
    let filter = R::filter(&mut params)?;
    params.finish()?;
    let snapshot = api.tree.config().current();
    let first = window.after().map_or(0, |id| id.saturating_add(1));
    let all = snapshot.configuration.deleted.range(R::key(first)..=R::key(u32::MAX));
    let all = all.filter(|(key, kept)| api.sees_deleted(**key, kept));
    // As it stood is in the store; so the list is cut before it is read, and filters are for what is on the page.
    let page = window.of(all, None, |(key, _)| number(**key), |(key, kept)| (*key, kept.clone()));
    let versions = page.items().map(|(key, kept)| (*key, kept.version.saturating_sub(1)));
    let stood = api.tree.ports().config.as_of(versions.collect()).await.map_err(ConfigError::from)?;
    let grace_ms = api.tree.config().deletion_grace_ms();
    let view = |resource: R, kept: &Kept| Shown {
        view: resource.view(&api.tools),
        deleted_at: time(kept.at_ms),
        restorable_until: time(kept.at_ms.saturating_add(grace_ms)),
    };
    let mut stood = stood.into_iter();
    let page = page.filter_map(|(_, kept)| {
        let resource = stood.next().flatten().and_then(|change| change.resource).and_then(R::from_resource)?;
        resource.passes(&filter, &api.tools).then(|| view(resource, &kept))
    });
    Ok(json(StatusCode::OK, &page))
}

fn number(key: ResourceKey) -> u32 {
    match key {
        ResourceKey::Integration(id) => id.0,
        ResourceKey::Endpoint(id) => id.0,
        ResourceKey::Destination(id) => id.0,
        ResourceKey::Subscription(id) => id.0,
    }
}

/// `DELETE /api/v1/<collection>/{id}`; with `purge=true` for good, also where it is deleted already.
pub(super) async fn delete<R: Managed>(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<u32>,
    condition: IfMatch,
    mut params: Params,
) -> Result<StatusCode, Problem> {
    let purge = params.boolean("purge")? == Some(true);
    params.finish()?;
    if purge {
        let expected = condition.versions();
        let conditional = expected.is_some();
        let purged = api.tree.config().purge(comment::origin(&author), R::key(id), expected).await;
        purged.map_err(|error| match error {
            ConfigError::Conflict { .. } if conditional => Problem::new(Code::VersionConflict, error.to_string()),
            other => other.into(),
        })?;
    } else {
        api.delete::<R>(&author, id, &condition).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/integrations/{id}/restore`: with all that it had, as it was.
pub(super) async fn restore_integration(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<u32>,
    _: NoMembers,
) -> Result<Response, Problem> {
    let kept = kept::<Integration>(&api, id)?;
    let integration = IntegrationId(id);
    let before =
        api.tree.ports().config.versions(integration, Some(kept.version), 1).await.map_err(ConfigError::from)?;
    let number =
        before.first().map(|version| version.number).ok_or_else(|| Problem::not_found(Integration::key(id)))?;
    let mut origin = comment::origin(&author);
    origin.comment.get_or_insert_with(|| "restored".to_owned());
    let resume_after = api.tree.ports().log.last_committed();
    let rollback = Rollback { integration, number, expected: None, resume_after };
    api.tree.config().roll_back(origin, rollback).await?;
    let restored = api.find::<Integration>(id)?;
    Ok(reply(StatusCode::OK, &restored, &restored.view(&api.tools)))
}

/// `POST /api/v1/webhooks/{id}/restore`
pub(super) async fn restore_endpoint(
    State(api): State<Api>,
    Author(author): Author,
    Segments(id): Segments<u32>,
    _: NoMembers,
) -> Result<Response, Problem> {
    let kept = kept::<Endpoint>(&api, id)?;
    let configured = |id| api.tree.config().current().configuration.integrations.contains_key(&id);
    if let Some(integration) = kept.integration.filter(|id| !configured(*id)) {
        let detail = format!(
            "its integration {integration} is deleted too; `POST .../integrations/{integration}/restore` brings both back"
        );
        return Err(Problem::new(Code::Conflict, detail));
    }
    let key = Endpoint::key(id);
    let stood = api.tree.ports().config.as_of(vec![(key, kept.version.saturating_sub(1))]).await;
    let stood = stood.map_err(ConfigError::from)?.into_iter().flatten().next();
    let resource = stood.and_then(|change| change.resource).ok_or_else(|| Problem::not_found(key))?;
    let write = Write { key, expected_version: None, resource: Some(resource) };
    api.write(&author, vec![write]).await??;
    let restored = api.find::<Endpoint>(id)?;
    Ok(reply(StatusCode::OK, &restored, &restored.view(&api.tools)))
}

fn kept<R: Managed>(api: &Api, id: u32) -> Result<Kept, Problem> {
    let snapshot = api.tree.config().current();
    match snapshot.configuration.deleted.get(&R::key(id)) {
        Some(kept) => Ok(Kept::clone(kept)),
        None if R::find(&snapshot.configuration, id).is_some() => {
            Err(Problem::new(Code::Conflict, format!("{} is not deleted", R::key(id))))
        }
        None => Err(Problem::not_found(R::key(id))),
    }
}
