//! Why the configuration is not changed.

use crate::{
    domain::{
        config::ResourceKey,
        ids::{DestinationId, EndpointId, IntegrationId, SubscriptionId},
    },
    ports::config_store::ConfigStoreError,
};

/// Why a change was refused; nothing of it is in force then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such resource.
    #[error("{0} does not exist")]
    NotFound(ResourceKey),
    /// Somebody else changed it since.
    #[error("{key} is at version {actual}, not {expected}; read it again and repeat the change")]
    Conflict {
        /// Which.
        key: ResourceKey,
        /// The version the change was based on.
        expected: u64,
        /// The version in force.
        actual: u64,
    },
    /// A member's value belongs to another resource.
    #[error("`{field}` is already used by {by}")]
    Taken {
        /// The member.
        field: &'static str,
        /// Who has it.
        by: ResourceKey,
    },
    /// A member names a resource that is not there.
    #[error("`{field}` names {target}, which does not exist")]
    Dangling {
        /// The member.
        field: &'static str,
        /// What it names.
        target: ResourceKey,
    },
    /// It is still needed.
    #[error("{key} is still used by {by}; delete or change that first")]
    InUse {
        /// Which.
        key: ResourceKey,
        /// By whom.
        by: ResourceKey,
    },
    /// Somebody else uses it too.
    #[error("{} is also used by {}, of another integration, and would be changed with this", ResourceKey::Destination(*.destination), ResourceKey::Subscription(*.by))]
    Shared {
        /// What is shared.
        destination: DestinationId,
        /// By whom.
        by: SubscriptionId,
    },
    /// The integration has no such version.
    #[error("integration {integration} has no version {number}; its list of versions tells which there are")]
    NoVersion {
        /// Which.
        integration: IntegrationId,
        /// The number that was asked for.
        number: u64,
    },
    /// Nothing stands at that version.
    #[error("version {number} of integration {integration} is its deletion; choose an earlier one, or delete it")]
    IsDeletion {
        /// Which.
        integration: IntegrationId,
        /// The number that was asked for.
        number: u64,
    },
    /// It has as many parts as an integration may have.
    #[error("integration {integration} has {most} webhook endpoints and subscriptions already, the most allowed")]
    Full {
        /// Which.
        integration: IntegrationId,
        /// How many it may have.
        most: usize,
    },
    /// The path of a deleted endpoint.
    #[error("the path is reserved for {}, which is deleted and may come back", ResourceKey::Endpoint(*.by))]
    Reserved {
        /// For whom.
        by: EndpointId,
    },
    /// As much that is deleted may come back as can.
    #[error("{0} deleted resources may come back already, the most there may be; delete some of them for good")]
    KeptFull(usize),
    /// There are as many as there may be.
    #[error("there are already {0} of these, the most allowed")]
    TooMany(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ConfigStoreError),
    /// The configuration actor is being restarted or has stopped.
    #[error("the configuration is not available now; try again")]
    Unavailable,
}
