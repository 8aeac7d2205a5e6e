//! In which order a subscription's events are delivered.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far deliveries of one subscription may overtake each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// As many at once as the window allows; no order is kept.
    #[default]
    Parallel,
    /// One at a time, in the order of acceptance.
    Fifo {
        /// What a failed event means for those behind it.
        #[serde(default)]
        on_failure: OnFailure,
    },
    /// One at a time for each key, in the order of acceptance; different keys go side by side.
    FifoByKey {
        /// A CEL expression that gives the key, a string: `body.customer`.
        key: String,
        /// What a failed event means for those behind it.
        #[serde(default)]
        on_failure: OnFailure,
    },
}

/// What a failed event means for the events behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// They wait until it is delivered. When its attempts are exhausted it stands in the dead letter and they still
    /// wait, until an operator replays or discards it.
    #[default]
    Block,
    /// They pass it; it is retried on the side.
    Skip,
    /// They wait while it is retried, and go on once it stands in the dead letter.
    Park,
}

impl Order {
    /// What a failed event means for those behind it; `None` where there is no order.
    pub fn on_failure(&self) -> Option<OnFailure> {
        match self {
            Self::Parallel => None,
            Self::Fifo { on_failure } | Self::FifoByKey { on_failure, .. } => Some(*on_failure),
        }
    }

    /// The expression of the key, where there is one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::FifoByKey { key, .. } => Some(key),
            Self::Parallel | Self::Fifo { .. } => None,
        }
    }
}
