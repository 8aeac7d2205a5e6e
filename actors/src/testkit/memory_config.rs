//! [`ConfigStore`] in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::{
    domain::{
        activity::{Activity, RecordedActivity},
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
        let mut configuration = Configuration::default();
        for change in &self.kept().changes {
            configuration.apply(change);
        }
        Ok(configuration)
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

    async fn record_activity(&self, activities: Vec<Activity>) -> Result<(), ConfigStoreError> {
        let mut kept = self.kept();
        for activity in activities {
            let number = kept.activities.len() as u64 + 1;
            kept.activities.push(RecordedActivity { number, activity });
        }
        Ok(())
    }

    async fn activities(&self, before: Option<u64>, limit: usize) -> Result<Vec<RecordedActivity>, ConfigStoreError> {
        let kept = self.kept();
        let below = kept.activities.iter().rev().filter(|entry| before.is_none_or(|before| entry.number < before));
        Ok(below.take(limit).cloned().collect())
    }
}
