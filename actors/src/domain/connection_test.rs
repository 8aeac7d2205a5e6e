//! Whether the third party that an integration belongs to answers: what one test of it found.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[schema(as = TestOutcome)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The service answered as it should.
    Passed,
    /// It did not, or could not be asked.
    Failed,
    /// There is nothing to ask.
    NothingToTest,
}

impl Outcome {
    /// Its name, as replies and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::NothingToTest => "nothing_to_test",
        }
    }
}

/// A test that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// When it ended, milliseconds since 1970.
    pub at_ms: u64,
    /// How.
    pub outcome: Outcome,
    /// Why, for people; holds no secret and nothing of a reply's body.
    pub reason: String,
    /// The HTTP status that came, where one did.
    pub status: Option<u16>,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
}
