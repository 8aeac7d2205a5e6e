//! [`EventLog`] over a vector: every append and commit is durable at once.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;

use super::memory_state::MemoryState;
use crate::{
    domain::{
        event::{Event, NewEvent},
        ids::{EventId, IntegrationId},
    },
    ports::{
        clock::Clock,
        event_log::{
            CommitListener, Committing, EventLog, LogError, ReadBounds, Recent, Stored, TrimRequest, Trimmed, id_of,
        },
        state_store::StateOp,
    },
};

/// The log in memory.
pub struct MemoryLog {
    events: Mutex<Vec<Arc<Event>>>,
    damaged: Mutex<HashSet<EventId>>,
    state: MemoryState,
    listener: Arc<dyn CommitListener>,
    clock: Arc<dyn Clock>,
    broken_reads: Mutex<Option<IntegrationId>>,
    reads: AtomicUsize,
    commits: AtomicUsize,
}

impl MemoryLog {
    /// An empty log whose commits go to `state`.
    pub fn new(state: MemoryState, listener: Arc<dyn CommitListener>, clock: Arc<dyn Clock>) -> Self {
        Self {
            events: Mutex::default(),
            damaged: Mutex::default(),
            state,
            listener,
            clock,
            broken_reads: Mutex::default(),
            reads: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
        }
    }

    /// The same events, as another process would find them, with the given state.
    #[must_use]
    pub fn reopened(&self, state: MemoryState, listener: Arc<dyn CommitListener>) -> Self {
        let reopened = Self::new(state, listener, self.clock.clone());
        reopened.events().clone_from(&self.events());
        reopened
            .damaged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&self.damaged.lock().unwrap_or_else(PoisonError::into_inner));
        reopened
    }

    /// How many commits of state there were so far.
    pub fn commits(&self) -> usize {
        self.commits.load(Ordering::Relaxed)
    }

    /// How often the log was read.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    /// From now on the event's bytes fail their checksum.
    pub fn damage(&self, event: EventId) {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(event);
    }

    /// From now on reading this integration's events panics, as a fault of hookmill that hits only it; `None` heals.
    pub fn break_reads(&self, integration: Option<IntegrationId>) {
        *self.broken_reads.lock().unwrap_or_else(PoisonError::into_inner) = integration;
    }

    fn events(&self) -> MutexGuard<'_, Vec<Arc<Event>>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn following_within(&self, integration: IntegrationId, after: EventId, bounds: ReadBounds) -> Vec<Stored> {
        let broken = *self.broken_reads.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(broken != Some(integration), "a fault of the test");
        self.reads.fetch_add(1, Ordering::Relaxed);
        let events = self.events();
        let from = events.partition_point(|event| event.id <= after);
        let mut bytes = 0;
        events[from..]
            .iter()
            .filter(|event| event.id.integration() == integration)
            .take(bounds.events_max)
            .take_while(|event| {
                let fits = bytes == 0 || bytes + event.arrival.body.len() <= bounds.bytes_max;
                bytes += event.arrival.body.len();
                fits
            })
            .map(|event| self.stored(event))
            .collect()
    }

    fn stored(&self, event: &Arc<Event>) -> Stored {
        match self.damaged.lock().unwrap_or_else(PoisonError::into_inner).contains(&event.id) {
            true => Err(event.id),
            false => Ok(event.clone()),
        }
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn append(&self, event: NewEvent) -> Result<Committing<EventId>, LogError> {
        let (answer, committing) = Committing::new();
        let integration = event.integration;
        let mut events = self.events();
        let last = events.last().map_or(0, |event| event.id.sequence());
        let id = EventId::from_parts(EventId::next_sequence(self.clock.now_ms(), last), integration, fastrand::u16(..));
        events.push(Arc::new(Event { id, arrival: event.arrival }));
        drop(events);
        self.listener.committed(&[(integration, id)]);
        let _ = answer.send(Ok(id));
        Ok(committing)
    }

    fn commit(&self, state: Vec<StateOp>) -> Result<Committing<()>, LogError> {
        let (answer, committing) = Committing::new();
        self.commits.fetch_add(usize::from(!state.is_empty()), Ordering::Relaxed);
        self.state.apply(&state);
        let _ = answer.send(Ok(()));
        Ok(committing)
    }

    async fn read(
        &self,
        integration: IntegrationId,
        after: EventId,
        bounds: ReadBounds,
    ) -> Result<Vec<Stored>, LogError> {
        Ok(self.following_within(integration, after, bounds))
    }

    fn recent(&self, integration: IntegrationId, after: EventId, bounds: ReadBounds) -> Option<Recent> {
        let events = self.following_within(integration, after, bounds);
        let upto = events.last().map_or(after, id_of);
        let stored = self.events();
        let rest = &stored[stored.partition_point(|event| event.id <= upto)..];
        let all = !rest.iter().any(|event| event.id.integration() == integration);
        Some(Recent { events, all })
    }

    async fn bytes_after(&self, integration: IntegrationId, after: EventId) -> Result<u64, LogError> {
        let events = self.events();
        let own = events.iter().filter(|event| event.id > after && event.id.integration() == integration);
        Ok(own.map(|event| event.arrival.body.len() as u64).sum())
    }

    async fn get(&self, id: EventId) -> Result<Option<Arc<Event>>, LogError> {
        let events = self.events();
        match events.binary_search_by_key(&id, |event| event.id) {
            Ok(index) => self.stored(&events[index]).map(Some).map_err(LogError::Corrupt),
            Err(_) => Ok(None),
        }
    }

    async fn latest(
        &self,
        integration: Option<IntegrationId>,
        before: EventId,
        limit: usize,
    ) -> Result<Vec<EventId>, LogError> {
        let events = self.events();
        let ids = events.iter().rev().map(|event| event.id).filter(|id| *id < before);
        Ok(ids.filter(|id| integration.is_none_or(|wanted| id.integration() == wanted)).take(limit).collect())
    }

    async fn trim(&self, request: TrimRequest) -> Result<Trimmed, LogError> {
        let mut events = self.events();
        let needed: HashSet<EventId> = self.state.needed(EventId::ZERO, EventId::MAX).into_iter().collect();
        let before = events.len();
        events.retain(|event| {
            event.id > request.finished_upto
                || event.arrival.received_at_ms >= request.received_before_ms
                || needed.contains(&event.id)
        });
        Ok(Trimmed { events: (before - events.len()) as u64, kept: needed.len() as u64, bytes: 0 })
    }

    fn last_committed(&self) -> EventId {
        self.events().last().map_or(EventId::ZERO, |event| event.id)
    }
}
