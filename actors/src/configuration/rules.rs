//! What must hold between resources. Pure: from the configuration in force and the wanted writes to the changes.

use super::{ConfigError, Write, linked::Linked};
use crate::domain::{
    config::{Change, Kept, Meta, Resource, ResourceKey},
    limits::{DELETED_KEPT_MAX, INTEGRATION_PARTS_MAX},
    version::Origin,
};

/// Resources of one kind, at most: the snapshot is in memory.
const RESOURCES_MAX: usize = 100_000;

/// Whether deleted integrations and endpoints may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deletion {
    /// Their place is kept.
    Kept,
    /// It is free at once.
    Final,
}

/// The changes that the writes amount to, cascades included, and what then stands; or why they are refused. All carry
/// one new version.
pub(super) fn changes(
    before: &Linked,
    writes: Vec<Write>,
    origin: &Origin,
    deletion: Deletion,
    now_ms: u64,
) -> Result<(Vec<Change>, Linked), ConfigError> {
    let version = before.configuration().version + 1;
    let mut after = before.clone();
    let mut made = Vec::with_capacity(writes.len());
    let change = |after: &Linked, key, resource: Option<Resource>| Change {
        version,
        at_ms: now_ms,
        author: origin.author.name.clone(),
        comment: origin.comment.clone(),
        key,
        kept: kept(after, key, version, now_ms).filter(|_| deletion == Deletion::Kept && resource.is_none()),
        resource,
    };
    // Paths may go round among those that are written: what counts is who has which one in the end.
    for write in &writes {
        if let (ResourceKey::Endpoint(id), Some(_)) = (write.key, &write.resource) {
            after.vacate(id);
        }
    }
    for write in writes {
        let meta = checked_meta(&after, &write, version, now_ms)?;
        let resource = write.resource.map(|mut resource| {
            *resource.meta_mut() = meta;
            resource
        });
        if resource.is_none() {
            for key in dependents(&after, write.key)? {
                let change = change(&after, key, None);
                push(&mut after, &mut made, change);
            }
        }
        if let Some(resource) = &resource {
            free_path(&mut after, &mut made, resource);
            check_references(&after, resource)?;
        }
        let change = change(&after, write.key, resource);
        push(&mut after, &mut made, change);
    }
    if after.configuration().deleted.size() > DELETED_KEPT_MAX {
        return Err(ConfigError::KeptFull(DELETED_KEPT_MAX));
    }
    Ok((made, after))
}

/// Whoever deletes an endpoint and gives its path to another one, at once, wants the path to move: nothing is kept for it.
fn free_path(after: &mut Linked, made: &mut [Change], resource: &Resource) {
    let Resource::Endpoint(endpoint) = resource else { return };
    let Some(by) = after.reserved_for(&endpoint.path) else { return };
    let deletion = made.iter_mut().find(|change| change.key == ResourceKey::Endpoint(by) && change.resource.is_none());
    if let Some(deletion) = deletion {
        deletion.kept = None;
        after.apply(deletion);
    }
}

/// What is kept of a resource that is being deleted.
fn kept(after: &Linked, key: ResourceKey, version: u64, at_ms: u64) -> Option<Kept> {
    match key {
        ResourceKey::Integration(_) => Some(Kept { version, at_ms, integration: None, path: None }),
        ResourceKey::Endpoint(id) => {
            let endpoint = after.configuration().endpoints.get(&id)?;
            let (integration, path) = (Some(endpoint.integration_id), Some(endpoint.path.clone()));
            Some(Kept { version, at_ms, integration, path })
        }
        ResourceKey::Destination(_) | ResourceKey::Subscription(_) => None,
    }
}

fn push(after: &mut Linked, made: &mut Vec<Change>, change: Change) {
    after.apply(&change);
    made.push(change);
}

fn checked_meta(linked: &Linked, write: &Write, version: u64, now_ms: u64) -> Result<Meta, ConfigError> {
    let after = linked.configuration();
    let current = after.get(write.key);
    let applied = write.resource.as_ref().is_some_and(|resource| resource.meta().applied);
    match (write.expected_version, current) {
        (None, None) => {
            let count = match write.key {
                ResourceKey::Integration(_) => after.integrations.size(),
                ResourceKey::Endpoint(_) => after.endpoints.size(),
                ResourceKey::Destination(_) => after.destinations.size(),
                ResourceKey::Subscription(_) => after.subscriptions.size(),
            };
            if count >= RESOURCES_MAX {
                return Err(ConfigError::TooMany(count));
            }
            check_parts(linked, write.resource.as_ref())?;
            // What comes back was made when it was made first.
            let first_ms = write.resource.as_ref().map_or(0, |resource| resource.meta().created_at_ms);
            let created_at_ms = if first_ms == 0 { now_ms } else { first_ms };
            Ok(Meta { version, created_at_ms, updated_at_ms: now_ms, applied })
        }
        (Some(expected), Some(current)) if current.meta().version == expected => {
            Ok(Meta { version, created_at_ms: current.meta().created_at_ms, updated_at_ms: now_ms, applied })
        }
        (expected, Some(current)) => Err(ConfigError::Conflict {
            key: write.key,
            expected: expected.unwrap_or_default(),
            actual: current.meta().version,
        }),
        (Some(_), None) => Err(ConfigError::NotFound(write.key)),
    }
}

/// What is new belongs to an integration that has room for it.
fn check_parts(after: &Linked, resource: Option<&Resource>) -> Result<(), ConfigError> {
    let id = match resource {
        Some(Resource::Endpoint(endpoint)) => endpoint.integration_id,
        Some(Resource::Subscription(subscription)) => subscription.integration_id,
        Some(Resource::Integration(_) | Resource::Destination(_)) | None => return Ok(()),
    };
    if after.endpoints_of(id).count() + after.subscriptions_of(id).count() < INTEGRATION_PARTS_MAX {
        return Ok(());
    }
    Err(ConfigError::Full { integration: id, most: INTEGRATION_PARTS_MAX })
}

/// What goes with a deleted resource; a destination in use stays.
fn dependents(after: &Linked, key: ResourceKey) -> Result<Vec<ResourceKey>, ConfigError> {
    match key {
        ResourceKey::Integration(id) => {
            let endpoints = after.endpoints_of(id).map(ResourceKey::Endpoint);
            Ok(endpoints.chain(after.subscriptions_of(id).map(ResourceKey::Subscription)).collect())
        }
        ResourceKey::Destination(id) => match after.users_of(id).next() {
            Some(user) => Err(ConfigError::InUse { key, by: ResourceKey::Subscription(user) }),
            None => Ok(Vec::new()),
        },
        ResourceKey::Endpoint(_) | ResourceKey::Subscription(_) => Ok(Vec::new()),
    }
}

fn check_references(after: &Linked, resource: &Resource) -> Result<(), ConfigError> {
    let configuration = after.configuration();
    let integration = |id| match configuration.integrations.contains_key(&id) {
        true => Ok(()),
        false => Err(ConfigError::Dangling { field: "integration_id", target: ResourceKey::Integration(id) }),
    };
    match resource {
        Resource::Integration(_) | Resource::Destination(_) => Ok(()),
        Resource::Endpoint(endpoint) => {
            integration(endpoint.integration_id)?;
            if let Some(by) = after.reserved_for(&endpoint.path).filter(|other| *other != endpoint.id) {
                return Err(ConfigError::Reserved { by });
            }
            match after.endpoint_at(&endpoint.path).filter(|other| *other != endpoint.id) {
                Some(other) => Err(ConfigError::Taken { field: "path", by: ResourceKey::Endpoint(other) }),
                None => Ok(()),
            }
        }
        Resource::Subscription(subscription) => {
            integration(subscription.integration_id)?;
            if configuration.destinations.contains_key(&subscription.destination_id) {
                Ok(())
            } else {
                Err(ConfigError::Dangling {
                    field: "destination_id",
                    target: ResourceKey::Destination(subscription.destination_id),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::domain::{
        config::{Endpoint, Environment, Integration, IntegrationStatus, IntegrationType},
        ids::{EndpointId, IntegrationId},
    };

    fn integration(id: u32) -> Resource {
        Resource::Integration(Integration {
            id: IntegrationId(id),
            name: "a".to_owned(),
            kind: IntegrationType::Custom,
            provider: "stripe".to_owned(),
            description: None,
            environment: Environment::Production,
            status: IntegrationStatus::Pending,
            configuration: Map::new(),
            credentials: None,
            meta: Meta::default(),
        })
    }

    fn endpoint(id: u32, integration: u32, path: &str) -> Resource {
        Resource::Endpoint(Endpoint {
            id: EndpointId(id),
            integration_id: IntegrationId(integration),
            name: "e".to_owned(),
            description: None,
            path: path.to_owned(),
            active: true,
            verify_signature: true,
            signature_header: None,
            verification: Map::new(),
            secrets: Vec::new(),
            body_bytes_max: None,
            dedup_window_s: None,
            rate_limit: None,
            meta: Meta::default(),
        })
    }

    fn create(resource: Resource) -> Write {
        Write { key: resource.key(), expected_version: None, resource: Some(resource) }
    }

    fn configured(writes: Vec<Write>) -> Linked {
        changes(&Linked::default(), writes, &Origin::of("test"), Deletion::Kept, 7).expect("the fixture is valid").1
    }

    #[test]
    fn one_write_is_one_version_with_its_cascade() {
        let before = configured(vec![create(integration(1)), create(endpoint(1, 1, "/a"))]);
        assert_eq!(before.configuration().version, 1);
        let delete =
            Write { key: ResourceKey::Integration(IntegrationId(1)), expected_version: Some(1), resource: None };
        let (made, _) =
            changes(&before, vec![delete], &Origin::of("test"), Deletion::Kept, 8).expect("nothing stands against it");
        assert_eq!(
            made.iter().map(|change| change.key).collect::<Vec<_>>(),
            [ResourceKey::Endpoint(EndpointId(1)), ResourceKey::Integration(IntegrationId(1))]
        );
        assert!(made.iter().all(|change| change.version == 2));
    }

    #[test]
    fn a_stale_write_is_a_conflict_and_a_taken_path_is_refused() {
        let before = configured(vec![create(integration(1)), create(endpoint(1, 1, "/a"))]);
        let stale = Write {
            key: ResourceKey::Integration(IntegrationId(1)),
            expected_version: Some(9),
            resource: Some(integration(1)),
        };
        assert!(matches!(
            changes(&before, vec![stale], &Origin::of("test"), Deletion::Kept, 8),
            Err(ConfigError::Conflict { actual: 1, .. })
        ));
        let taken = create(endpoint(2, 1, "/a"));
        assert!(matches!(
            changes(&before, vec![taken], &Origin::of("test"), Deletion::Kept, 8),
            Err(ConfigError::Taken { field: "path", .. })
        ));
        let dangling = create(endpoint(3, 5, "/b"));
        assert!(matches!(
            changes(&before, vec![dangling], &Origin::of("test"), Deletion::Kept, 8),
            Err(ConfigError::Dangling { .. })
        ));
    }

    #[test]
    fn a_path_moves_within_one_change_and_is_reserved_after_a_deletion() {
        let before = configured(vec![create(integration(1)), create(endpoint(1, 1, "/a"))]);
        let delete = || Write { key: ResourceKey::Endpoint(EndpointId(1)), expected_version: Some(1), resource: None };
        let both = vec![delete(), create(endpoint(2, 1, "/a"))];
        let (_, moved) = changes(&before, both, &Origin::of("test"), Deletion::Kept, 8).expect("the path moves");
        assert_eq!((moved.endpoint_at("/a"), moved.configuration().deleted.size()), (Some(EndpointId(2)), 0));
        let (_, gone) = changes(&before, vec![delete()], &Origin::of("test"), Deletion::Kept, 8).expect("it goes");
        assert_eq!((gone.endpoint_at("/a"), gone.configuration().deleted.size()), (None, 1));
        let refused = changes(&gone, vec![create(endpoint(2, 1, "/a"))], &Origin::of("test"), Deletion::Kept, 9);
        assert_eq!(refused.err(), Some(ConfigError::Reserved { by: EndpointId(1) }));
        let (_, freed) = changes(&before, vec![delete()], &Origin::of("test"), Deletion::Final, 8).expect("it goes");
        assert_eq!(freed.configuration().deleted.size(), 0);
    }

    #[test]
    fn paths_go_round_within_one_change_and_no_two_endpoints_end_at_one() {
        let paths = ["/a", "/b", "/c", "/d"];
        let made = (1..).zip(paths).map(|(id, path)| create(endpoint(id, 1, path)));
        let before = configured(std::iter::once(create(integration(1))).chain(made).collect());
        let moved = |moves: &[(u32, &str)]| {
            let write = |(id, path): &(u32, &str)| Write {
                key: ResourceKey::Endpoint(EndpointId(*id)),
                expected_version: Some(1),
                resource: Some(endpoint(*id, 1, path)),
            };
            changes(&before, moves.iter().map(write).collect(), &Origin::of("test"), Deletion::Kept, 8)
        };
        for round in [vec![(1, "/b"), (2, "/a")], vec![(3, "/a"), (1, "/b"), (2, "/c")], vec![(1, "/b"), (2, "/x")]] {
            let (_, after) = moved(&round).expect("each path has one endpoint in the end");
            for endpoint in after.configuration().endpoints.values() {
                assert_eq!(after.endpoint_at(&endpoint.path), Some(endpoint.id), "{round:?}");
            }
        }
        for (wrong, by) in [
            (vec![(1, "/b")], 2),
            (vec![(1, "/b"), (2, "/b")], 1),
            (vec![(1, "/b"), (2, "/c"), (4, "/a")], 3),
            (vec![(1, "/x"), (2, "/x")], 1),
        ] {
            let taken = ConfigError::Taken { field: "path", by: ResourceKey::Endpoint(EndpointId(by)) };
            assert_eq!(moved(&wrong).err(), Some(taken), "{wrong:?}");
        }
    }

    #[test]
    fn an_update_keeps_the_time_of_creation() {
        let before = configured(vec![create(integration(1))]);
        let update = Write {
            key: ResourceKey::Integration(IntegrationId(1)),
            expected_version: Some(1),
            resource: Some(integration(1)),
        };
        let (made, _) =
            changes(&before, vec![update], &Origin::of("test"), Deletion::Kept, 99).expect("the version is right");
        let meta = *made[0].resource.as_ref().expect("it was no delete").meta();
        assert_eq!((meta.version, meta.created_at_ms, meta.updated_at_ms), (2, 7, 99));
    }
}
