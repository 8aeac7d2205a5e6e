//! Durable configuration with its history, and the activity log.

use async_trait::async_trait;

use crate::domain::{
    activity::{Activity, ActivityBounds, ActivityFilter, ActivityPage},
    config::{Change, Configuration, ResourceKey},
    ids::IntegrationId,
    version::{NewVersion, Parts, Version},
};

/// Why the configuration was not read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration store: {0}")]
pub struct ConfigStoreError(pub String);

/// Stores changes; each stays as a version of its resource.
///
/// # Contract
/// `commit` returns once all changes would survive a power cut; all of them are in force, or none.
#[async_trait]
pub trait ConfigStore: Send + Sync {
    /// Everything that is configured.
    async fn load(&self) -> Result<Configuration, ConfigStoreError>;
    /// Stores changes of one version, which must lie above the stored one: a version is never rewritten. `versions`
    /// are those that the changes make of the integrations they concern.
    async fn commit(&self, changes: Vec<Change>, versions: Vec<NewVersion>) -> Result<(), ConfigStoreError>;
    /// The history of a resource, newest first.
    async fn history(&self, key: ResourceKey, limit: usize) -> Result<Vec<Change>, ConfigStoreError>;
    /// Each of these as it stood at a configuration version: its newest change up to there; `None` where there is none.
    async fn as_of(&self, keys: Vec<(ResourceKey, u64)>) -> Result<Vec<Option<Change>>, ConfigStoreError>;
    /// Versions of an integration below a number, newest first; `None` begins with the last one.
    async fn versions(
        &self,
        integration: IntegrationId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Version>, ConfigStoreError>;
    /// What an integration consisted of at one of its versions.
    async fn parts(&self, integration: IntegrationId, number: u64) -> Result<Option<Parts>, ConfigStoreError>;
    /// Forgets the history of an integration that is deleted for good, and of all that ever belonged to it.
    async fn forget(&self, integration: IntegrationId) -> Result<(), ConfigStoreError>;
    /// Appends to the activity log; nothing in it is ever changed. Durable when it returns, as `commit` is.
    async fn record_activity(&self, activities: Vec<Activity>) -> Result<(), ConfigStoreError>;
    /// Recorded activities that pass the filter, newest first. Those of one integration, or of a time, are found
    /// without looking at others.
    async fn activities(
        &self,
        filter: &ActivityFilter,
        bounds: ActivityBounds,
    ) -> Result<ActivityPage, ConfigStoreError>;
    /// Removes activities from before a time, milliseconds since 1970, as many as one step may; the last one of all
    /// stays. Tells how many went.
    async fn forget_activities(&self, before_ms: u64) -> Result<u64, ConfigStoreError>;
}
