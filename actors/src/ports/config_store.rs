//! Durable configuration with its history.

use async_trait::async_trait;

use crate::domain::{
    activity::Activity,
    config::{Change, Configuration, ResourceKey},
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
    /// Stores changes of one version.
    async fn commit(&self, changes: Vec<Change>) -> Result<(), ConfigStoreError>;
    /// The history of a resource, newest first.
    async fn history(&self, key: ResourceKey, limit: usize) -> Result<Vec<Change>, ConfigStoreError>;
    /// Appends to the audit log.
    async fn record_activity(&self, entries: Vec<Activity>) -> Result<(), ConfigStoreError>;
    /// The audit log, newest first, entries before the given number (`None`: from the end), each with its number.
    async fn activities(&self, before: Option<u64>, limit: usize) -> Result<Vec<(u64, Activity)>, ConfigStoreError>;
}
