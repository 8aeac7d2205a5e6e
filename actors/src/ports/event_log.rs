//! The event log.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::state_store::StateOp;
use crate::domain::{
    event::{Event, NewEvent},
    ids::{EndpointId, EventId, IntegrationId},
};

/// Why the log did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Too much waits for the disk; nothing was taken. The sender should come back.
    #[error("the event log's queue is full")]
    QueueFull,
    /// The disk is nearly full; nothing was taken.
    #[error("the event log's disk is nearly full")]
    DiskFull,
    /// The disk does not answer; nothing was taken. The sender should come back.
    #[error("the event log waits for its disk")]
    Stalled,
    /// A write or sync failed, or never ended: nothing is accepted any more until a restart.
    #[error("the event log failed: {0}")]
    Failed(Arc<str>),
    /// The event is larger than the log takes; nothing was taken.
    #[error("an event of {bytes} bytes is larger than the log's limit of {bytes_max}")]
    TooLarge {
        /// Bytes of its record.
        bytes: usize,
        /// The most that is taken.
        bytes_max: usize,
    },
    /// The log is shut.
    #[error("the event log is shut")]
    Closed,
    /// Stored bytes do not match their checksum.
    #[error("record of event {0} is corrupt")]
    Corrupt(EventId),
}

/// Resolves once the commit that holds the request would survive a power cut.
#[derive(Debug)]
pub struct Committing<T>(oneshot::Receiver<Result<T, LogError>>);

impl<T> Committing<T> {
    /// The future, and what the log's writer answers it with.
    pub fn new() -> (oneshot::Sender<Result<T, LogError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }
}

impl<T> Future for Committing<T> {
    type Output = Result<T, LogError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(LogError::Closed)))
    }
}

/// Bounds of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadBounds {
    /// Events, at most.
    pub events_max: usize,
    /// Payload bytes, about; at least one event is returned.
    pub bytes_max: usize,
}

/// What a read found in memory.
#[derive(Debug)]
pub struct Recent {
    /// In order.
    pub events: Vec<Stored>,
    /// Whether these were all there were. Of later ones the [`CommitListener`] hears after this was read.
    pub all: bool,
}

/// What may go from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimRequest {
    /// Every delivery of every event up to this one is settled, due, parked or dead: nothing beyond it is ever trimmed.
    pub finished_upto: EventId,
    /// Finished events received before this go, milliseconds since 1970.
    pub received_before_ms: u64,
    /// The oldest finished events go until the log holds no more than this, bytes.
    pub bytes_max: u64,
}

/// What a trim did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Events whose payload is gone.
    pub events: u64,
    /// Payloads kept because a dead letter, a due retry or a parked delivery needs them.
    pub kept: u64,
    /// Bytes freed.
    pub bytes: u64,
}

/// A stored event as read: whole, or known to be damaged.
pub type Stored = Result<Arc<Event>, EventId>;

/// What lists tell of a stored event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Where it arrived.
    pub endpoint: EndpointId,
    /// When, milliseconds since 1970.
    pub received_at_ms: u64,
    /// Of its body.
    pub body_bytes: usize,
}

impl Head {
    /// The head of an event.
    pub fn of(event: &Event) -> Self {
        let arrival = &event.arrival;
        Self { endpoint: arrival.endpoint, received_at_ms: arrival.received_at_ms, body_bytes: arrival.body.len() }
    }
}

/// The id of a stored event, damaged or not.
pub fn id_of(stored: &Stored) -> EventId {
    match stored {
        Ok(event) => event.id,
        Err(id) => *id,
    }
}

/// Hears of commits, to wake readers.
///
/// # Contract
/// Called on the log's writer thread between two commits, after the sync and after the senders were answered: it
/// must not block, and not call the log.
pub trait CommitListener: Send + Sync + 'static {
    /// The integrations that have new events, ascending, each with the last of them.
    fn committed(&self, integrations: &[(IntegrationId, EventId)]);
}

/// Durable, ordered storage of events, with the state riding along in its commits.
///
/// # Contract
/// - Id order is commit order. An id is given out only after the sync of its commit, and readers never see
///   an event before that.
/// - State operations are applied in the order they were handed in. They become durable in the same commit as,
///   or a later one than, events appended before them, never an earlier one.
/// - After a failed write or sync nothing is acknowledged any more.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Queues an event for the next commit. Fails at once when the queue is full.
    fn append(&self, event: NewEvent) -> Result<Committing<EventId>, LogError>;

    /// Queues state for a coming commit: at once when events are being written, else within 50 ms.
    fn commit(&self, state: Vec<StateOp>) -> Result<Committing<()>, LogError>;

    /// An integration's events after `after`, in order.
    async fn read(
        &self,
        integration: IntegrationId,
        after: EventId,
        bounds: ReadBounds,
    ) -> Result<Vec<Stored>, LogError>;

    /// The same at once, where all that follows `after` is in memory; `None` where it may not be.
    fn recent(&self, integration: IntegrationId, after: EventId, bounds: ReadBounds) -> Option<Recent> {
        let _ = (integration, after, bounds);
        None
    }

    /// How many bytes of the log an integration's events after `after` take.
    async fn bytes_after(&self, integration: IntegrationId, after: EventId) -> Result<u64, LogError>;

    /// How many events there are after `after`, of one integration or of all.
    async fn count_after(&self, integration: Option<IntegrationId>, after: EventId) -> Result<u64, LogError> {
        Ok(self.following(integration, after, usize::MAX).await?.len() as u64)
    }

    /// One event by its id.
    async fn get(&self, id: EventId) -> Result<Option<Arc<Event>>, LogError>;

    /// What lists tell of events, in their order, each named once: `None` where there is no such event, its id where it
    /// is damaged.
    async fn heads(&self, ids: &[EventId]) -> Result<Vec<Option<Result<Head, EventId>>>, LogError> {
        let mut heads = Vec::with_capacity(ids.len());
        for id in ids {
            heads.push(match self.get(*id).await {
                Ok(event) => event.map(|event| Ok(Head::of(&event))),
                Err(LogError::Corrupt(id)) => Some(Err(id)),
                Err(error) => return Err(error),
            });
        }
        Ok(heads)
    }

    /// The newest events before `before`, newest first, of one integration or of all: for people.
    async fn latest(
        &self,
        integration: Option<IntegrationId>,
        before: EventId,
        limit: usize,
    ) -> Result<Vec<EventId>, LogError>;

    /// The events after `after`, oldest first, of one integration or of all: for people who follow them.
    async fn following(
        &self,
        integration: Option<IntegrationId>,
        after: EventId,
        limit: usize,
    ) -> Result<Vec<EventId>, LogError> {
        let mut ids = self.latest(integration, EventId::MAX, usize::MAX).await?;
        ids.reverse();
        Ok(ids.into_iter().filter(|id| *id > after).take(limit).collect())
    }

    /// Removes what may go, oldest first. The payload of a delivery that is dead, due or parked stays readable
    /// by its id.
    async fn trim(&self, request: TrimRequest) -> Result<Trimmed, LogError>;

    /// The id of the last committed event.
    fn last_committed(&self) -> EventId;
}
