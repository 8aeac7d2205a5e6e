//! What is known about events beside their payload: positions, outcomes, due retries, dead letters, notes.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::event_log::LogError;
use crate::domain::{
    delivery::{DeadLetter, DeliveryRecord, Position},
    ids::{EndpointId, EventId, IntegrationId, ReplayId, SubscriptionId, TaskRunId},
    replay::ReplayJob,
    selection,
    task::TaskRun,
};

/// What intake noted of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The event.
    pub event: EventId,
    /// Where it arrived.
    #[serde(default)]
    pub endpoint: Option<EndpointId>,
    /// The provider's name of what happened.
    pub event_type: Option<Box<str>>,
    /// The provider's id of it.
    pub provider_id: Option<Box<str>>,
    /// Why it is not delivered as any other; `None` for nearly all.
    #[serde(default)]
    pub mark: Option<Mark>,
    /// Under what a later duplicate of it is recognised; `None` where nothing is, or it is one itself. Read with
    /// [`StateStore::seen`]; a note that is read back has none.
    #[serde(default)]
    pub dedup: Option<DedupKey>,
}

/// Which events, by what intake noted of them; every member narrows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoteFilter {
    /// Those of an integration.
    pub integration: Option<IntegrationId>,
    /// Those that arrived at an endpoint.
    pub endpoint: Option<EndpointId>,
    /// Those whose type fits one of these patterns, as a subscription's selection has them; empty: of any, and none.
    pub types: Vec<Box<str>>,
    /// Those with this id of their provider's.
    pub provider_id: Option<Box<str>>,
}

impl NoteFilter {
    /// Whether it asks for more than the event's own id tells.
    pub fn needs_notes(&self) -> bool {
        self.endpoint.is_some() || !self.types.is_empty() || self.provider_id.is_some()
    }

    /// Whether the types narrow it only by looking at notes: an index of types knows names, and no patterns.
    pub fn has_open_types(&self) -> bool {
        self.types.iter().any(|pattern| selection::is_open(pattern))
    }

    fn takes_type(&self, name: &str) -> bool {
        self.types.iter().any(|pattern| selection::fits(pattern, name))
    }

    /// Whether an event with this note passes.
    pub fn passes(&self, note: &Note) -> bool {
        self.integration.is_none_or(|integration| note.event.integration() == integration)
            && self.endpoint.is_none_or(|endpoint| note.endpoint == Some(endpoint))
            && (self.types.is_empty() || note.event_type.as_ref().is_some_and(|it| self.takes_type(it)))
            && self.provider_id.as_ref().is_none_or(|wanted| note.provider_id.as_ref() == Some(wanted))
    }
}

/// What intake found about an event that changes what its subscriptions do with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// The provider sent it before, as this event: it is not delivered again.
    DuplicateOf(EventId),
    /// Its provider could not read it: it goes to the dead letter.
    Unreadable(Box<str>),
}

/// What makes two arrivals at one endpoint the same event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DedupKey {
    /// Where they arrived.
    pub endpoint: EndpointId,
    /// A cryptographic hash of the provider's id and, where its signature does not cover the id, of the body: so an
    /// id that comes again with another body is another event.
    #[serde(with = "serde_bytes")]
    pub hash: [u8; 16],
}

/// Which dedup keys are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// By endpoint, the event up to which its keys go; those of an endpoint that is not named all go.
    pub after: BTreeMap<EndpointId, EventId>,
    /// The oldest keys of all go until there are no more than this, about.
    pub keys_max: u64,
}

/// How many dedup keys went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Their window was over.
    pub outdated: u64,
    /// Their window was not over; there were too many.
    pub displaced: u64,
}

/// One change of state. All operations of one [`super::event_log::EventLog::commit`] become visible together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateOp {
    /// An integration's intake has come so far; its notes, at most `BATCH_EVENTS_MAX`, ascending.
    Intake {
        /// Whose.
        integration: IntegrationId,
        /// The last event taken in.
        upto: EventId,
        /// What was noted since the intake position before.
        notes: Vec<Note>,
    },
    /// A subscription's position.
    Position {
        /// Whose.
        subscription: SubscriptionId,
        /// How far it has come.
        position: Position,
    },
    /// Deliveries that succeeded at their first try, ascending, at most `RUN_IDS_MAX`. Comes with the `Position` that passes
    /// them: what a stored position does not pass, or has as open, is not looked for among them.
    Delivered {
        /// Whose.
        subscription: SubscriptionId,
        /// Which.
        events: Vec<EventId>,
        /// When this was handed in, milliseconds since 1970; `None` in logs of a time when it was not kept.
        #[serde(default)]
        at_ms: Option<u64>,
        /// The attempt of each, in their order; empty in logs of a time when it was not kept.
        #[serde(default)]
        attempts: Vec<FirstTry>,
    },
    /// Where a delivery stands that did not succeed at its first try. The store keeps the due queue and the dead
    /// letter in step: an entry under the record's former due time goes, one under its new time comes; the dead
    /// letter of a record that is no longer dead goes.
    Delivery {
        /// Whose.
        subscription: SubscriptionId,
        /// Which.
        event: EventId,
        /// Where it stands.
        record: DeliveryRecord,
    },
    /// A delivery enters the dead letter. Comes with the `Delivery` that says so.
    Dead(DeadLetter),
    /// Where a bulk replay stands.
    Job(Box<ReplayJob>),
    /// A bulk replay is no longer remembered.
    JobGone {
        /// Which.
        id: ReplayId,
    },
    /// Where a run of a task stands.
    TaskRun(Box<TaskRun>),
    /// A run is no longer remembered.
    TaskRunGone {
        /// Which.
        id: TaskRunId,
    },
    /// The next attempt of a delivery is due then, where it waits for one later than that. Whoever sees no more than the
    /// time says no more: what has become of the delivery meanwhile stays.
    Forward {
        /// Whose.
        subscription: SubscriptionId,
        /// Which.
        event: EventId,
        /// Milliseconds since 1970.
        at_ms: u64,
    },
}

/// The attempt of a delivery that succeeded at its first try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FirstTry {
    /// When it began, milliseconds since 1970.
    pub at_ms: u64,
    /// How long it took, milliseconds.
    pub duration_ms: u32,
    /// The destination's status, where its kind has one.
    pub status: Option<u16>,
}

/// A due retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// When, milliseconds since 1970.
    pub due_ms: u64,
    /// Which.
    pub event: EventId,
}

/// A delivery of a subscription that keeps an order, and that holds others back or is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InLane {
    /// The order key, hashed.
    pub lane: u64,
    /// Which.
    pub event: EventId,
}

/// What is known of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// Nothing is kept: beyond the position, open, or not this subscription's.
    Unknown,
    /// Delivered at the first try.
    Delivered {
        /// When the commit that says so was handed in, milliseconds since 1970: about 50 ms after the answer came
        /// ([`COMMIT_WAIT_MS`](crate::domain::limits::COMMIT_WAIT_MS)), or less; later only while the commits of
        /// thousands wait for each other. `None` where it was not kept.
        at_ms: Option<u64>,
        /// The attempt; `None` where it was not kept.
        attempt: Option<FirstTry>,
    },
    /// Anything else.
    Record(DeliveryRecord),
}

/// Counts for people and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts {
    /// Due entries.
    pub due: u64,
    /// Dead letters.
    pub dead: u64,
    /// Deliveries that wait behind a failed one of their order key.
    pub parked: u64,
    /// Dedup keys.
    pub dedup_keys: u64,
}

/// Reads of the state. Writes go through [`super::event_log::EventLog::commit`].
///
/// # Contract
/// A read sees every commit that was acknowledged before it began.
#[async_trait]
pub trait StateStore: Send + Sync {
    /// How far an integration's intake has come.
    async fn intake(&self, integration: IntegrationId) -> Result<EventId, LogError>;
    /// How far a subscription has come; `None` when it never recorded anything.
    async fn position(&self, subscription: SubscriptionId) -> Result<Option<Position>, LogError>;
    /// The next due entries of a subscription, soonest first, not after `until_ms`.
    async fn due(&self, subscription: SubscriptionId, until_ms: u64, limit: usize) -> Result<Vec<Due>, LogError>;
    /// What is known of a delivery.
    async fn delivery(&self, subscription: SubscriptionId, event: EventId) -> Result<DeliveryState, LogError>;
    /// The same of many, in their order. What lies close together costs less so.
    async fn deliveries(
        &self,
        subscription: SubscriptionId,
        events: &[EventId],
    ) -> Result<Vec<DeliveryState>, LogError> {
        let mut found = Vec::with_capacity(events.len());
        for event in events {
            found.push(self.delivery(subscription, *event).await?);
        }
        Ok(found)
    }
    /// Deliveries of a subscription whose record has a lane and is retrying, parked or dead, by lane and event.
    async fn lanes(&self, subscription: SubscriptionId) -> Result<Vec<InLane>, LogError>;
    /// The first subscription above `after` that has anything due, or a record that [`StateStore::lanes`] tells of.
    async fn next_waiting(&self, after: SubscriptionId) -> Result<Option<SubscriptionId>, LogError>;
    /// The marks of an integration's events after `after` and up to `upto`, ascending.
    async fn marks(
        &self,
        integration: IntegrationId,
        after: EventId,
        upto: EventId,
    ) -> Result<Vec<(EventId, Mark)>, LogError>;
    /// For each key, the last event before the given one that was taken in under it.
    async fn seen(&self, keys: &[(DedupKey, EventId)]) -> Result<Vec<Option<EventId>>, LogError>;
    /// Forgets dedup keys. What is forgotten may come back at a crash, until it is forgotten again.
    async fn forget_seen(&self, remembered: Remembered) -> Result<Forgotten, LogError>;
    /// What intake noted of an event.
    async fn note(&self, event: EventId) -> Result<Option<Note>, LogError>;
    /// The same of many, in their order. What lies close together costs less so.
    async fn notes(&self, events: &[EventId]) -> Result<Vec<Option<Note>>, LogError> {
        let mut found = Vec::with_capacity(events.len());
        for event in events {
            found.push(self.note(*event).await?);
        }
        Ok(found)
    }
    /// Events whose note passes, from `first` on and before `before`, newest first, as many as `limit`, or fewer; and
    /// where the next look goes on, `None` at the end. Of events that intake has not come to nothing is known.
    async fn noted(
        &self,
        filter: &NoteFilter,
        (first, before): (EventId, EventId),
        limit: usize,
    ) -> Result<(Vec<EventId>, Option<EventId>), LogError>;
    /// Dead letters after a place, ordered by subscription and event.
    async fn dead_letters(
        &self,
        after: Option<(SubscriptionId, EventId)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogError>;
    /// One dead letter.
    async fn dead_letter(&self, subscription: SubscriptionId, event: EventId) -> Result<Option<DeadLetter>, LogError>;
    /// Every bulk replay that is remembered, by number: at most `REPLAYS_MAX`.
    async fn jobs(&self) -> Result<Vec<ReplayJob>, LogError>;
    /// Every run of a task that is remembered, by number.
    async fn task_runs(&self) -> Result<Vec<TaskRun>, LogError>;
    /// One bulk replay.
    async fn job(&self, id: ReplayId) -> Result<Option<ReplayJob>, LogError>;
    /// Counts.
    async fn counts(&self) -> Result<StateCounts, LogError>;
}
