//! The versions that a change makes of the integrations it concerns. Pure.

use std::collections::BTreeSet;

use super::linked::Linked;
use crate::domain::{
    config::{Change, ResourceKey},
    ids::IntegrationId,
    version::{Changed, Deed, NewVersion, Parts, Version},
};

/// A version of each of the integrations, for those of the changes that concern it.
pub(super) fn of(
    before: &Linked,
    after: &Linked,
    changes: &[Change],
    integrations: &BTreeSet<IntegrationId>,
) -> Vec<NewVersion> {
    integrations.iter().filter_map(|id| version(before, after, changes, *id)).collect()
}

fn version(before: &Linked, after: &Linked, changes: &[Change], id: IntegrationId) -> Option<NewVersion> {
    let mut all: Vec<Changed> = Vec::new();
    for change in changes.iter().filter(|change| concerns(before, id, change.key) || concerns(after, id, change.key)) {
        let deed = match (before.configuration().version_of(change.key), &change.resource) {
            (_, None) => Deed::Deleted,
            (None, Some(_)) => Deed::Created,
            (Some(_), Some(_)) => Deed::Updated,
        };
        match all.iter_mut().find(|earlier| earlier.key == change.key) {
            Some(earlier) => earlier.deed = deed,
            None => all.push(Changed { key: change.key, deed }),
        }
    }
    let first = changes.first().filter(|_| !all.is_empty())?;
    let of_its_own = all.iter().any(|it| !matches!(it.key, ResourceKey::Destination(_)));
    let version = Version {
        integration: id,
        number: first.version,
        at_ms: first.at_ms,
        author: first.author.clone(),
        comment: first.comment.clone(),
        changed: all,
    };
    Some(NewVersion { version, parts: of_its_own.then(|| parts(after, id)) })
}

/// Whether a resource is the integration, belongs to it, or is a destination of it.
fn concerns(linked: &Linked, id: IntegrationId, key: ResourceKey) -> bool {
    let configuration = linked.configuration();
    match key {
        ResourceKey::Integration(it) => it == id && configuration.integrations.contains_key(&it),
        ResourceKey::Endpoint(it) => configuration.endpoints.get(&it).is_some_and(|it| it.integration_id == id),
        ResourceKey::Subscription(it) => configuration.subscriptions.get(&it).is_some_and(|it| it.integration_id == id),
        ResourceKey::Destination(it) => linked.delivers_to(id, it),
    }
}

fn parts(linked: &Linked, id: IntegrationId) -> Parts {
    let configuration = linked.configuration();
    if !configuration.integrations.contains_key(&id) {
        return Parts::new();
    }
    let endpoints = linked.endpoints_of(id).map(ResourceKey::Endpoint);
    let subscriptions = linked.subscriptions_of(id).map(ResourceKey::Subscription);
    let own = std::iter::once(ResourceKey::Integration(id)).chain(endpoints).chain(subscriptions);
    own.filter_map(|key| configuration.version_of(key).map(|version| (key, version))).collect()
}
