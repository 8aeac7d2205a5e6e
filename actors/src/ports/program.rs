//! Programs that operators write: CEL to select events and to name their keys, jq to rewrite them.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::provider::SettingsError;
use crate::{
    domain::{
        event::{Event, Identity},
        ids::{IntegrationId, SubscriptionId},
        transform::Transform,
    },
    snapshot::Naming,
};

/// An event as a program sees it: the envelope, the bytes, and what names it.
#[derive(Clone)]
pub struct Subject {
    /// The event as it arrived.
    pub event: Arc<Event>,
    /// The provider's name and id of it.
    pub identity: Identity,
    /// The integration and its name.
    pub integration: (IntegrationId, Arc<str>),
    /// The subscription it is looked at for.
    pub subscription: SubscriptionId,
    /// How its endpoint's events are named; `None` where the endpoint was deleted.
    pub naming: Option<Naming>,
}

/// A program did not do its work on one event. Costs that event a dead letter, nobody else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProgramFault(pub String);

/// Why an event was not rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderFault {
    /// The program failed on the event.
    #[error(transparent)]
    Program(#[from] ProgramFault),
    /// The program did not run, as its engine cannot be had now: nothing is known of the event. It is tried again
    /// later, for as long as that takes.
    #[error("{0}")]
    EngineUnavailable(String),
}

/// What selecting said of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    /// The filter does not hold.
    No,
    /// It is to be delivered, in the order of its key where there is a key expression.
    Yes {
        /// The key, at most [`KEY_BYTES_MAX`] bytes.
        key: Option<Box<str>>,
    },
}

/// Bytes of an order key, at most; a longer one is a fault of the event.
pub const KEY_BYTES_MAX: usize = 256;

/// A compiled filter, key expression, or both.
///
/// # Contract
/// Always returns, in a time and with memory bounded by the expression's checked cost and the body's size. Runs in this
/// process, so it is never unavailable.
pub trait Selector: Send + Sync {
    /// Looks at one event.
    fn select(&self, subject: &Subject) -> Result<Selected, ProgramFault>;
}

/// What is sent in place of the bytes as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The content type; `None`: the arrival's.
    pub content_type: Option<String>,
    /// Header lines to add.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// A compiled transformation with the headers to add.
///
/// # Contract
/// Always returns within a bounded time, and yields at most a bounded number of bytes.
#[async_trait]
pub trait Transformer: Send + Sync {
    /// Renders one event.
    async fn render(&self, subject: &Subject) -> Result<Rendered, RenderFault>;
}

/// Compiles what operators wrote. An error says where the text is wrong and what would be right.
pub trait Programs: Send + Sync {
    /// A filter, an order key, or both, over one event. At least one of them is given.
    fn selector(&self, filter: Option<&str>, key: Option<&str>) -> Result<Arc<dyn Selector>, SettingsError>;

    /// A transformation and headers to add, by name with a template each. `None` when the bytes go as they came.
    fn transformer(
        &self,
        transform: &Transform,
        headers: &BTreeMap<String, String>,
    ) -> Result<Option<Arc<dyn Transformer>>, SettingsError>;
}
