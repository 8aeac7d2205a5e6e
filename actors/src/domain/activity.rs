//! Who did what, when, to what, and how it ended: the entries of the activity log.

use serde::{Deserialize, Serialize};

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivityResult {
    /// It was done.
    Ok,
    /// It was not allowed, or what was asked for is wrong.
    Refused,
    /// It was tried and failed.
    Failed,
}

/// One action of an operator or of hookmill itself. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// Who: a token's name, or a part of hookmill.
    pub actor: String,
    /// What was done: `subscription.create`, `dead_letter.replay`.
    pub action: String,
    /// To what: `subscription 7`.
    pub subject: String,
    /// How it ended.
    pub result: ActivityResult,
    /// More of it in words; empty where there is nothing to add.
    pub detail: String,
}

/// An activity as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedActivity {
    /// Its number in the log, from 1, without gaps.
    pub number: u64,
    /// What happened.
    #[serde(flatten)]
    pub activity: Activity,
}
