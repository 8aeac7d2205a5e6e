//! What a destination gets of an event.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How an event is rendered for a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Transform {
    /// The bytes as they came.
    #[default]
    None,
    /// A `CloudEvents` 1.0 event.
    Cloudevents {
        /// Where its attributes go.
        #[serde(default)]
        mode: CloudEventsMode,
    },
    /// The provider-neutral canonical event, as JSON.
    Canonical,
    /// What a jq program makes of the parsed body.
    Jq {
        /// The program.
        program: String,
    },
}

/// Where a `CloudEvents` event carries its attributes (`CloudEvents` 1.0, HTTP protocol binding).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloudEventsMode {
    /// In `ce-` headers; the body stays as it came.
    #[default]
    Binary,
    /// In one JSON object with the body under `data`.
    Structured,
}
