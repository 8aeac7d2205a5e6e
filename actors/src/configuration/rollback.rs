//! The writes that make an integration what it was at a version. Pure.

use std::collections::BTreeSet;

use super::{ConfigError, Write, linked::Linked, past::Past};
use crate::domain::{
    config::{Integration, IntegrationStatus, Resource, ResourceKey},
    ids::{DestinationId, EventId, IntegrationId},
};

/// Makes an integration what it was: what was made since goes, what was deleted comes back under its id. A subscription
/// that comes back begins after `resume_after`: what arrived while it was not there was not for it. `young` are its
/// destinations of now that were not there then; they go where nobody else uses them.
///
/// # Errors
/// [`ConfigError::Shared`] where it would change what another integration uses.
pub(super) fn writes(
    current: &Linked,
    id: IntegrationId,
    past: Past,
    young: &BTreeSet<DestinationId>,
    resume_after: EventId,
) -> Result<Vec<Write>, ConfigError> {
    let configuration = current.configuration();
    let mut writes = Vec::new();
    let mut kept: BTreeSet<ResourceKey> = BTreeSet::new();
    let mut wanted: Vec<Resource> = Vec::new();
    if let Some(mut integration) = past.integration {
        integration.status = status(&integration, configuration.integrations.get(&id).map(AsRef::as_ref));
        wanted.push(Resource::Integration(integration));
    }
    wanted.extend(past.destinations.into_iter().map(Resource::Destination));
    let (endpoints, mut subscriptions) = (past.endpoints, past.subscriptions);
    kept.extend(endpoints.iter().map(|it| ResourceKey::Endpoint(it.id)));
    kept.extend(subscriptions.iter().map(|it| ResourceKey::Subscription(it.id)));
    for subscription in &mut subscriptions {
        // Where it begins is no setting: it stays, or is now.
        subscription.start_after = match configuration.subscriptions.get(&subscription.id) {
            Some(stands) => stands.start_after,
            None => subscription.start_after.max(resume_after),
        };
    }
    for resource in wanted {
        let changed = difference(current, resource);
        if let Some(Write { key: ResourceKey::Destination(destination), .. }) = &changed {
            check_own(current, id, *destination)?;
        }
        writes.extend(changed);
    }
    // First what goes: what comes back may need its path.
    let own = current.subscriptions_of(id).map(ResourceKey::Subscription);
    for key in own.chain(current.endpoints_of(id).map(ResourceKey::Endpoint)).filter(|key| !kept.contains(key)) {
        writes.push(Write { key, expected_version: configuration.version_of(key), resource: None });
    }
    let parts = endpoints.into_iter().map(Resource::Endpoint);
    let parts = parts.chain(subscriptions.iter().cloned().map(Resource::Subscription));
    writes.extend(parts.filter_map(|resource| difference(current, resource)));
    for destination in young {
        let used = subscriptions.iter().any(|it| it.destination_id == *destination);
        let key = ResourceKey::Destination(*destination);
        if !used && check_own(current, id, *destination).is_ok() {
            writes.push(Write { key, expected_version: configuration.version_of(key), resource: None });
        }
    }
    Ok(writes)
}

/// Whether it is switched off is an operator's choice and comes back; what hookmill found out since then stays.
fn status(then: &Integration, now: Option<&Integration>) -> IntegrationStatus {
    match (then.status, now.map(|now| now.status)) {
        (IntegrationStatus::Inactive, _) => IntegrationStatus::Inactive,
        (_, Some(IntegrationStatus::Inactive) | None) => IntegrationStatus::Pending,
        (_, Some(now)) => now,
    }
}

/// The write that makes a resource stand as given; none where it does.
fn difference(current: &Linked, resource: Resource) -> Option<Write> {
    let key = resource.key();
    let Some(mut stands) = current.configuration().get(key) else {
        return Some(Write { key, expected_version: None, resource: Some(resource) });
    };
    let expected_version = Some(stands.meta().version);
    *stands.meta_mut() = *resource.meta();
    (stands != resource).then_some(Write { key, expected_version, resource: Some(resource) })
}

/// Refuses what another integration uses too.
fn check_own(current: &Linked, id: IntegrationId, destination: DestinationId) -> Result<(), ConfigError> {
    let subscriptions = &current.configuration().subscriptions;
    let other =
        current.users_of(destination).find(|it| subscriptions.get(it).is_some_and(|it| it.integration_id != id));
    match other {
        None => Ok(()),
        Some(by) => Err(ConfigError::Shared { destination, by }),
    }
}
