//! Who did what, when: the audit log's entries.

use serde::{Deserialize, Serialize};

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivityResult {
    /// It was done.
    Success,
    /// It was refused or failed.
    Failure,
}

/// One entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// A token's name, or a part of hookmill.
    pub actor: String,
    /// What was done: `integration.created`, `dead_letter.replayed`, `destination.paused`, ...
    pub action: String,
    /// To what: `integration 3`.
    pub subject: String,
    /// How it ended.
    pub result: ActivityResult,
    /// More, in words; never a secret.
    pub detail: Option<String>,
}
