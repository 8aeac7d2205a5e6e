//! [`ConfigStore`] in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::{
    domain::{
        activity::{Activity, RecordedActivity},
        config::{Change, Configuration, ResourceKey},
    },
    ports::config_store::{ConfigStore, ConfigStoreError},
};

/// Configuration and activities in memory. Clones share them.
#[derive(Clone, Default)]
pub struct MemoryConfig(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    changes: Vec<Change>,
    activities: Vec<RecordedActivity>,
}

impl MemoryConfig {
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

    async fn commit(&self, changes: Vec<Change>) -> Result<(), ConfigStoreError> {
        self.kept().changes.extend(changes);
        Ok(())
    }

    async fn history(&self, key: ResourceKey, limit: usize) -> Result<Vec<Change>, ConfigStoreError> {
        Ok(self.kept().changes.iter().rev().filter(|change| change.key == key).take(limit).cloned().collect())
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
