//! Replies of the admin API that are given again to whoever repeats a request with its `Idempotency-Key`: as they are
//! stored. Some show a secret this once, and a request may hold one that its hash would let people guess; so both are
//! sealed together.

use hookmill_actors::domain::secret::Sealed;
use serde::{Deserialize, Serialize};

use crate::tokens::TokenId;

/// A request with a key, and what it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredReply {
    /// Whose request it was: a key means something for its token alone. The first token of all has no number.
    pub token: Option<TokenId>,
    /// Its key.
    pub key: String,
    /// When it came, or once it is answered, when that was; milliseconds since 1970.
    pub at_ms: u64,
    /// What was asked for, and its reply once there is one, sealed for this document's number.
    pub sealed: Sealed,
}

/// Where they are kept, by a number that only grows. All of it blocks for the disk.
pub trait ReplyStore: Send + Sync {
    /// All that are kept, by number.
    fn all(&self) -> Result<Vec<(u64, StoredReply)>, String>;
    /// Keeps one, in place of what had its number, and forgets others; durable when it returns. The reply is made while
    /// nobody else writes, so that a rotation of keys sees what is sealed in it, or is over.
    fn put(&self, forgotten: &[u64], number: u64, reply: &dyn Fn() -> StoredReply) -> Result<(), String>;
    /// Forgets.
    fn remove(&self, numbers: &[u64]) -> Result<(), String>;
}
