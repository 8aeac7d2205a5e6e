//! Whatever changes are made, each version tells what stood, and a rollback brings it back.

use futures_util::FutureExt;

use super::*;
use crate::testkit::memory_config::MemoryConfig;

/// What an integration consists of: itself, its parts and its destinations, by key.
type Whole = BTreeMap<ResourceKey, Resource>;

fn whole(current: &Linked, id: IntegrationId) -> Whole {
    let configuration = current.configuration();
    if !configuration.integrations.contains_key(&id) {
        return Whole::new();
    }
    let own = std::iter::once(ResourceKey::Integration(id))
        .chain(current.endpoints_of(id).map(ResourceKey::Endpoint))
        .chain(current.subscriptions_of(id).map(ResourceKey::Subscription));
    let all = own.chain(current.destinations_of(id).into_iter().map(ResourceKey::Destination));
    all.filter_map(|key| configuration.get(key).map(|resource| (key, resource))).collect()
}

fn read(store: &Arc<dyn ConfigStore>, id: IntegrationId, number: u64) -> Option<Past> {
    Past::read(store, id, number).now_or_never().expect("nothing waits in memory").expect("memory does not fail")
}

fn of(past: Past) -> Whole {
    let parts = past.integration.into_iter().map(Resource::Integration);
    let parts = parts.chain(past.endpoints.into_iter().map(Resource::Endpoint));
    let parts = parts.chain(past.destinations.into_iter().map(Resource::Destination));
    let parts = parts.chain(past.subscriptions.into_iter().map(Resource::Subscription));
    parts.map(|resource| (resource.key(), resource)).collect()
}

/// Without what is no part of what was configured.
fn settings(mut whole: Whole) -> Whole {
    for resource in whole.values_mut() {
        *resource.meta_mut() = Meta::default();
        match resource {
            Resource::Integration(it) => it.status = IntegrationStatus::Active,
            Resource::Subscription(it) => it.start_after = EventId::ZERO,
            Resource::Endpoint(_) | Resource::Destination(_) => {}
        }
    }
    whole
}

proptest! {
    #[test]
    fn each_version_tells_what_stood_and_a_rollback_brings_it_back(steps in steps(), to in any::<prop::sample::Index>()) {
        let store: Arc<dyn ConfigStore> = Arc::new(MemoryConfig::default());
        let mut current = Linked::default();
        let mut stood: Vec<(IntegrationId, u64, Whole)> = Vec::new();
        let mut writes = Vec::new();
        for step in steps {
            writes.push(write(step, current.configuration(), 1_000));
            if step.joined {
                continue;
            }
            let made = rules::changes(&current, std::mem::take(&mut writes), &Origin::of("test"), Deletion::Kept, 1_000);
            let Ok((changes, next)) = made else { continue };
            let touched = next.touched(&current, &changes);
            let versions = versions::of(&current, &next, &changes, &touched.integrations);
            let ids: BTreeSet<IntegrationId> = (0..5).map(IntegrationId).collect();
            for id in ids {
                let version = versions.iter().find(|new| new.version.integration == id);
                let (before, after) = (whole(&current, id), whole(&next, id));
                // A version for whoever differs, and for nobody else; a destination may be put in place of its like.
                prop_assert!(before == after || version.is_some(), "{:?} changed without a version", id);
                if let Some(new) = version {
                    prop_assert!(!new.version.changed.is_empty());
                    stood.push((id, new.version.number, after));
                }
            }
            store.commit(changes, versions).now_or_never().expect("in memory").expect("memory does not fail");
            current = next;
        }
        for (id, number, whole) in &stood {
            let past = read(&store, *id, *number);
            let past = past.map(of);
            prop_assert_eq!(past.as_ref(), Some(whole));
        }
        if stood.is_empty() {
            return Ok(());
        }
        let (id, number, then) = to.get(&stood);
        let past = read(&store, *id, *number).expect("it was made");
        if past.integration.is_none() {
            return Ok(());
        }
        let before = current.clone();
        let last = EventId::at_millis(9);
        let made = rollback::writes(&current, *id, past, &BTreeSet::new(), last)
            .and_then(|writes| rules::changes(&current, writes, &Origin::of("test"), Deletion::Kept, 2_000));
        if let Ok((_, after)) = made {
            prop_assert_eq!(settings(whole(&after, *id)), settings(then.clone()));
            // What others use stays as it is.
            for other in (0..5).map(IntegrationId).filter(|other| other != id) {
                let others = whole(&before, other);
                let destinations = others.iter().filter(|(key, _)| matches!(key, ResourceKey::Destination(_)));
                for (key, resource) in destinations {
                    let stands = after.configuration().get(*key);
                    prop_assert_eq!(stands.as_ref(), Some(resource));
                }
            }
        }
    }
}
