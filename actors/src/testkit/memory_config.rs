//! [`ConfigStore`] in memory.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use crate::{
    domain::{
        activity::{Activity, ActivityBounds, ActivityFilter, ActivityPage, RecordedActivity},
        config::{Change, Configuration, ResourceKey},
        ids::IntegrationId,
        version::{NewVersion, Parts, Version},
    },
    ports::config_store::{ConfigStore, ConfigStoreError},
};

/// Configuration and activities in memory. Clones share them.
#[derive(Clone, Default)]
pub struct MemoryConfig(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    changes: Vec<Change>,
    versions: Vec<NewVersion>,
    activities: Vec<RecordedActivity>,
}

impl Kept {
    fn standing(&self) -> Configuration {
        let mut configuration = Configuration::default();
        for change in &self.changes {
            configuration.apply(change);
        }
        configuration
    }
}

impl MemoryConfig {
    /// All changes there ever were.
    pub fn changes(&self) -> Vec<Change> {
        self.kept().changes.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ConfigStore for MemoryConfig {
    async fn load(&self) -> Result<Configuration, ConfigStoreError> {
        Ok(self.kept().standing())
    }

    async fn commit(&self, changes: Vec<Change>, versions: Vec<NewVersion>) -> Result<(), ConfigStoreError> {
        let mut kept = self.kept();
        kept.changes.extend(changes);
        kept.versions.extend(versions);
        Ok(())
    }

    async fn history(&self, key: ResourceKey, limit: usize) -> Result<Vec<Change>, ConfigStoreError> {
        Ok(self.kept().changes.iter().rev().filter(|change| change.key == key).take(limit).cloned().collect())
    }

    async fn as_of(&self, keys: Vec<(ResourceKey, u64)>) -> Result<Vec<Option<Change>>, ConfigStoreError> {
        let kept = self.kept();
        let standing = |(key, version)| {
            kept.changes.iter().rev().find(|change| change.key == key && change.version <= version).cloned()
        };
        Ok(keys.into_iter().map(standing).collect())
    }

    async fn versions(
        &self,
        integration: IntegrationId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Version>, ConfigStoreError> {
        let kept = self.kept();
        let wanted = kept.versions.iter().rev().map(|new| &new.version).filter(|version| {
            version.integration == integration && before.is_none_or(|before| version.number < before)
        });
        Ok(wanted.take(limit).cloned().collect())
    }

    async fn parts(&self, integration: IntegrationId, number: u64) -> Result<Option<Parts>, ConfigStoreError> {
        let kept = self.kept();
        let upto = |new: &&NewVersion| new.version.integration == integration && new.version.number <= number;
        Ok(kept.versions.iter().rev().filter(upto).find_map(|new| new.parts.clone()))
    }

    async fn forget(&self, integration: IntegrationId) -> Result<(), ConfigStoreError> {
        let mut kept = self.kept();
        let (its, others) = std::mem::take(&mut kept.versions)
            .into_iter()
            .partition::<Vec<_>, _>(|new| new.version.integration == integration);
        kept.versions = others;
        let parts: Vec<ResourceKey> =
            its.into_iter().filter_map(|new| new.parts).flatten().map(|(key, _)| key).collect();
        let standing: BTreeSet<ResourceKey> = kept.standing().deleted.keys().copied().collect();
        // What still reserves a path stands in the last change.
        kept.changes
            .retain(|change| !parts.contains(&change.key) || (change.kept.is_some() && standing.contains(&change.key)));
        Ok(())
    }

    async fn record_activity(&self, activities: Vec<Activity>) -> Result<(), ConfigStoreError> {
        let mut kept = self.kept();
        for activity in activities {
            let number = kept.activities.last().map_or(0, |entry| entry.number) + 1;
            kept.activities.push(RecordedActivity { number, activity });
        }
        Ok(())
    }

    async fn activities(
        &self,
        filter: &ActivityFilter,
        bounds: ActivityBounds,
    ) -> Result<ActivityPage, ConfigStoreError> {
        let mut passing: Vec<_> =
            self.kept().activities.iter().filter(|it| filter.passes(&it.activity)).cloned().collect();
        passing.retain(|entry| entry.place() < bounds.before);
        passing.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.place()));
        let more = passing.len() > bounds.found_max;
        passing.truncate(bounds.found_max);
        let next = passing.last().filter(|_| more).map(RecordedActivity::place);
        Ok(ActivityPage { entries: passing, next })
    }

    async fn forget_activities(&self, before_ms: u64) -> Result<u64, ConfigStoreError> {
        let mut kept = self.kept();
        let (before, last) = (kept.activities.len(), kept.activities.last().map(|entry| entry.number));
        kept.activities.retain(|entry| entry.activity.at_ms >= before_ms || Some(entry.number) == last);
        Ok((before - kept.activities.len()) as u64)
    }
}

impl MemoryConfig {
    /// The newest activities, newest first.
    pub fn newest_activities(&self, limit: usize) -> Vec<RecordedActivity> {
        self.kept().activities.iter().rev().take(limit).cloned().collect()
    }
}
