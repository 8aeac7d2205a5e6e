//! The versions of an integration: one for each change of it and of what belongs to it, which are its endpoints, its
//! subscriptions and the destinations that these deliver to.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{activity::Author, config::ResourceKey, ids::IntegrationId};

/// Who makes a change, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who.
    pub author: Author,
    /// What the author says of it.
    pub comment: Option<String>,
}

impl Origin {
    /// Without an address and a comment.
    pub fn of(author: &str) -> Self {
        Self { author: Author { name: author.to_owned(), source: None }, comment: None }
    }
}

/// What became of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Deed {
    Created,
    Updated,
    Deleted,
}

/// A resource that a version changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Which.
    pub key: ResourceKey,
    /// What became of it.
    pub deed: Deed,
}

/// One version of an integration; nothing in it ever changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Whose.
    pub integration: IntegrationId,
    /// The configuration version that made it: numbers of one integration grow, with gaps.
    pub number: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Who made it.
    pub author: String,
    /// What the author said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What it changed, in the order of the changes; each resource once.
    pub changed: Vec<Changed>,
}

/// What an integration consists of at a version, each with the configuration version it stands at: the integration
/// itself, its endpoints and its subscriptions. Empty once it is deleted. The subscriptions name the destinations.
pub type Parts = Vec<(ResourceKey, u64)>;

/// A version as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVersion {
    /// What is told of it.
    pub version: Version,
    /// What the integration consists of; `None` where only a destination changed, and the former parts stand.
    pub parts: Option<Parts>,
}
