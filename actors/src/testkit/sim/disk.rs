//! What survives a crash, and the log and the state store of one life over it.
//!
//! Commits are slow, in order and atomic; a crash keeps a prefix of those that were handed in. Reads are slow, and may
//! fail where the scenario says so.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::{Notify, oneshot};

use super::orders::{Before, Orders};
use crate::{
    domain::{
        delivery::{DeadLetter, DeliveryStatus, Position},
        event::{Event, NewEvent},
        ids::{EventId, IntegrationId, ReplayId, SubscriptionId},
        replay::ReplayJob,
        task::TaskRun,
    },
    ports::{
        clock::Clock,
        config_store::ConfigStore,
        event_log::{CommitListener, Committing, EventLog, LogError, ReadBounds, Recent, Stored, TrimRequest, Trimmed},
        state_store::{
            DedupKey, DeliveryState, Due, Forgotten, InLane, Mark, Note, NoteFilter, Remembered, StateCounts, StateOp,
            StateStore,
        },
    },
    testkit::{memory_config::MemoryConfig, memory_state::MemoryState},
};

/// What survives.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) state: MemoryState,
    pub(super) config: MemoryConfig,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    events: BTreeMap<EventId, Arc<Event>>,
    accepted: BTreeMap<EventId, Arc<Event>>,
    died: HashSet<(SubscriptionId, EventId)>,
    orders: Orders,
    last: u128,
}

impl Disk {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every event that ever became durable, trimmed ones too.
    pub(super) fn accepted(&self) -> Vec<Arc<Event>> {
        self.kept().accepted.values().cloned().collect()
    }

    /// One of them.
    pub(super) fn accepted_event(&self, id: EventId) -> Option<Arc<Event>> {
        self.kept().accepted.get(&id).cloned()
    }

    /// Whether the delivery was ever in the dead letter.
    pub(super) fn ever_dead(&self, subscription: SubscriptionId, event: EventId) -> bool {
        self.kept().died.contains(&(subscription, event))
    }

    /// What operators asked for.
    pub(super) fn orders<T>(&self, look: impl FnOnce(&mut Orders) -> T) -> T {
        look(&mut self.kept().orders)
    }

    pub(super) fn wrong_order(&self) -> Option<String> {
        self.kept().orders.wrong().map(str::to_owned)
    }

    /// Times that an operator's replay made this delivery due.
    pub(super) fn times_again(&self, subscription: SubscriptionId, event: EventId) -> u32 {
        self.kept().orders.again((subscription, event))
    }

    pub(super) fn times_mean_nothing(&self) {
        self.kept().orders.timeless = true;
    }

    fn add(&self, request: Request, now_ms: u64, random: u16) -> Answer {
        let mut kept = self.kept();
        match request {
            Request::Append(event, reply) => {
                let sequence = EventId::next_sequence(now_ms, kept.last);
                let id = EventId::from_parts(sequence, event.integration, random);
                kept.last = sequence;
                let event = Arc::new(Event { id, arrival: event.arrival });
                kept.events.insert(id, event.clone());
                kept.accepted.insert(id, event);
                Answer::Appended(id, reply)
            }
            Request::State(ops, reply) => {
                for op in &ops {
                    let StateOp::Delivery { subscription, event, record } = op else { continue };
                    if record.status == DeliveryStatus::Dead {
                        kept.died.insert((*subscription, *event));
                    }
                }
                let configuration = self.config.load().now_or_never().and_then(Result::ok).unwrap_or_default();
                let Kept { events, orders, .. } = &mut *kept;
                orders.committed(&ops, &Before { state: &self.state, configuration: &configuration, events });
                self.state.apply(&ops);
                Answer::Recorded(reply)
            }
        }
    }
}

enum Request {
    Append(NewEvent, oneshot::Sender<Result<EventId, LogError>>),
    State(Vec<StateOp>, oneshot::Sender<Result<(), LogError>>),
}

enum Answer {
    Appended(EventId, oneshot::Sender<Result<EventId, LogError>>),
    Recorded(oneshot::Sender<Result<(), LogError>>),
}

/// How slow and how unreliable a disk is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    /// The longest commit, milliseconds.
    pub(super) commit_ms_max: u64,
    /// The longest read, milliseconds.
    pub(super) read_ms_max: u64,
    /// Of a thousand reads so many fail.
    pub(super) reads_failing: u32,
}

#[derive(Default)]
struct Queue {
    writing: Vec<Request>,
    waiting: Vec<Request>,
    failed: bool,
}

/// The log of one life.
#[derive(Clone)]
pub(super) struct SimLog {
    disk: Disk,
    queue: Arc<Mutex<Queue>>,
    bell: Arc<Notify>,
    luck: Luck,
}

/// Latencies and failures, by the seed.
#[derive(Clone)]
struct Luck {
    rng: Arc<Mutex<fastrand::Rng>>,
    manners: Arc<Mutex<Manners>>,
}

impl Luck {
    fn rng(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manners(&self) -> Manners {
        *self.manners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn commit_time(&self) {
        let longest = self.manners().commit_ms_max;
        let wait = if self.rng().bool() { 0 } else { self.rng().u64(..=longest) };
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }

    async fn read(&self) -> Result<(), LogError> {
        let Manners { read_ms_max, reads_failing, .. } = self.manners();
        let wait = if self.rng().u8(..4) > 0 { 0 } else { self.rng().u64(..=read_ms_max) };
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        if reads_failing > 0 && self.rng().u32(..1_000) < reads_failing {
            return Err(LogError::Failed("a read failed, as the scenario wants it".into()));
        }
        Ok(())
    }
}

impl SimLog {
    /// Opens the disk for one life, on the current runtime.
    pub(super) fn open(
        disk: Disk,
        listener: Arc<dyn CommitListener>,
        clock: Arc<dyn Clock>,
        manners: Manners,
        rng: fastrand::Rng,
    ) -> Self {
        let luck = Luck { rng: Arc::new(Mutex::new(rng)), manners: Arc::new(Mutex::new(manners)) };
        let log = Self { disk, queue: Arc::default(), bell: Arc::default(), luck };
        tokio::spawn(log.clone().write(listener, clock));
        log
    }

    /// The state store of the same life.
    pub(super) fn state(&self) -> SimState {
        SimState { state: self.disk.state.clone(), luck: self.luck.clone() }
    }

    /// From now on the disk behaves so.
    pub(super) fn set_manners(&self, manners: Manners) {
        *self.luck.manners.lock().unwrap_or_else(PoisonError::into_inner) = manners;
    }

    /// From now on nothing is acknowledged.
    pub(super) fn fail(&self) {
        self.queue().failed = true;
        self.bell.notify_one();
    }

    /// The process is gone: of what was being written a prefix is on the disk, the rest never was. The runtime must
    /// be gone, too.
    pub(super) fn crash(&self, now_ms: u64) {
        let mut queue = self.queue();
        let survive = self.luck.rng().usize(..=queue.writing.len());
        for request in queue.writing.drain(..).take(survive) {
            let random = self.luck.rng().u16(..);
            drop(self.disk.add(request, now_ms, random));
        }
        queue.waiting.clear();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, request: Request) -> Result<(), LogError> {
        let mut queue = self.queue();
        if queue.failed {
            return Err(LogError::Failed("the disk failed, as the scenario wants it".into()));
        }
        queue.waiting.push(request);
        drop(queue);
        self.bell.notify_one();
        Ok(())
    }

    async fn write(self, listener: Arc<dyn CommitListener>, clock: Arc<dyn Clock>) {
        loop {
            self.bell.notified().await;
            loop {
                {
                    let mut queue = self.queue();
                    queue.writing = std::mem::take(&mut queue.waiting);
                    if queue.writing.is_empty() {
                        break;
                    }
                }
                self.luck.commit_time().await;
                if self.queue().failed {
                    // Whoever waits never hears; a crash decides what became of it.
                    std::future::pending::<()>().await;
                }
                let batch = std::mem::take(&mut self.queue().writing);
                let mut written: BTreeMap<IntegrationId, EventId> = BTreeMap::new();
                let answers: Vec<Answer> = batch
                    .into_iter()
                    .map(|request| {
                        let random = self.luck.rng().u16(..);
                        self.disk.add(request, clock.now_ms(), random)
                    })
                    .collect();
                for answer in answers {
                    match answer {
                        Answer::Appended(id, reply) => {
                            written.insert(id.integration(), id);
                            let _ = reply.send(Ok(id));
                        }
                        Answer::Recorded(reply) => drop(reply.send(Ok(()))),
                    }
                }
                let written: Vec<_> = written.into_iter().collect();
                if !written.is_empty() {
                    listener.committed(&written);
                }
            }
        }
    }
}

#[async_trait]
impl EventLog for SimLog {
    fn append(&self, event: NewEvent) -> Result<Committing<EventId>, LogError> {
        let (reply, committing) = Committing::new();
        self.enqueue(Request::Append(event, reply))?;
        Ok(committing)
    }

    fn commit(&self, state: Vec<StateOp>) -> Result<Committing<()>, LogError> {
        let (reply, committing) = Committing::new();
        self.enqueue(Request::State(state, reply))?;
        Ok(committing)
    }

    async fn read(
        &self,
        integration: IntegrationId,
        after: EventId,
        bounds: ReadBounds,
    ) -> Result<Vec<Stored>, LogError> {
        self.luck.read().await?;
        let kept = self.disk.kept();
        let own = kept.events.range(after..).filter(|(id, _)| **id > after && id.integration() == integration);
        // Fewer than asked for, as where a read reaches the end of a segment.
        let limit = if self.luck.rng().u8(..4) == 0 { bounds.events_max.min(3) } else { bounds.events_max };
        Ok(own.take(limit).map(|(_, event)| Ok(event.clone())).collect())
    }

    fn recent(&self, integration: IntegrationId, after: EventId, bounds: ReadBounds) -> Option<Recent> {
        if self.luck.rng().bool() {
            return None;
        }
        let kept = self.disk.kept();
        let own = kept.events.range(after..).filter(|(id, _)| **id > after && id.integration() == integration);
        let mut events: Vec<Stored> = own.take(bounds.events_max + 1).map(|(_, event)| Ok(event.clone())).collect();
        let all = events.len() <= bounds.events_max;
        events.truncate(bounds.events_max);
        Some(Recent { events, all })
    }

    async fn bytes_after(&self, integration: IntegrationId, after: EventId) -> Result<u64, LogError> {
        self.luck.read().await?;
        let kept = self.disk.kept();
        let own = kept.events.range(after..).filter(|(id, _)| **id > after && id.integration() == integration);
        Ok(own.map(|(_, event)| event.arrival.body.len() as u64).sum())
    }

    async fn get(&self, id: EventId) -> Result<Option<Arc<Event>>, LogError> {
        self.luck.read().await?;
        Ok(self.disk.kept().events.get(&id).cloned())
    }

    async fn latest(
        &self,
        integration: Option<IntegrationId>,
        before: EventId,
        limit: usize,
    ) -> Result<Vec<EventId>, LogError> {
        self.luck.read().await?;
        let kept = self.disk.kept();
        let ids = kept.events.range(..before).rev().map(|(id, _)| *id);
        Ok(ids.filter(|id| integration.is_none_or(|wanted| id.integration() == wanted)).take(limit).collect())
    }

    async fn trim(&self, request: TrimRequest) -> Result<Trimmed, LogError> {
        self.luck.read().await?;
        let needed: HashSet<EventId> = self.disk.state.needed(EventId::ZERO, EventId::MAX).into_iter().collect();
        let mut kept = self.disk.kept();
        let before = kept.events.len();
        kept.events.retain(|id, event| {
            *id > request.finished_upto
                || event.arrival.received_at_ms >= request.received_before_ms
                || needed.contains(id)
        });
        Ok(Trimmed { events: (before - kept.events.len()) as u64, kept: needed.len() as u64, bytes: 0 })
    }

    fn last_committed(&self) -> EventId {
        self.disk.kept().accepted.last_key_value().map_or(EventId::ZERO, |(id, _)| *id)
    }
}

/// The state store of one life.
pub(super) struct SimState {
    state: MemoryState,
    luck: Luck,
}

#[async_trait]
impl StateStore for SimState {
    async fn intake(&self, integration: IntegrationId) -> Result<EventId, LogError> {
        self.luck.read().await?;
        self.state.intake(integration).await
    }

    async fn position(&self, subscription: SubscriptionId) -> Result<Option<Position>, LogError> {
        self.luck.read().await?;
        self.state.position(subscription).await
    }

    async fn due(&self, subscription: SubscriptionId, until_ms: u64, limit: usize) -> Result<Vec<Due>, LogError> {
        self.luck.read().await?;
        self.state.due(subscription, until_ms, limit).await
    }

    async fn delivery(&self, subscription: SubscriptionId, event: EventId) -> Result<DeliveryState, LogError> {
        self.luck.read().await?;
        self.state.delivery(subscription, event).await
    }

    async fn lanes(&self, subscription: SubscriptionId) -> Result<Vec<InLane>, LogError> {
        self.luck.read().await?;
        self.state.lanes(subscription).await
    }

    async fn next_waiting(&self, after: SubscriptionId) -> Result<Option<SubscriptionId>, LogError> {
        self.state.next_waiting(after).await
    }

    async fn marks(
        &self,
        integration: IntegrationId,
        after: EventId,
        upto: EventId,
    ) -> Result<Vec<(EventId, Mark)>, LogError> {
        self.luck.read().await?;
        self.state.marks(integration, after, upto).await
    }

    async fn seen(&self, keys: &[(DedupKey, EventId)]) -> Result<Vec<Option<EventId>>, LogError> {
        self.luck.read().await?;
        self.state.seen(keys).await
    }

    async fn forget_seen(&self, remembered: Remembered) -> Result<Forgotten, LogError> {
        self.luck.read().await?;
        self.state.forget_seen(remembered).await
    }

    async fn note(&self, event: EventId) -> Result<Option<Note>, LogError> {
        self.luck.read().await?;
        self.state.note(event).await
    }

    async fn noted(
        &self,
        filter: &NoteFilter,
        span: (EventId, EventId),
        limit: usize,
    ) -> Result<(Vec<EventId>, Option<EventId>), LogError> {
        self.luck.read().await?;
        self.state.noted(filter, span, limit).await
    }

    async fn dead_letters(
        &self,
        after: Option<(SubscriptionId, EventId)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogError> {
        self.luck.read().await?;
        self.state.dead_letters(after, limit).await
    }

    async fn dead_letter(&self, subscription: SubscriptionId, event: EventId) -> Result<Option<DeadLetter>, LogError> {
        self.luck.read().await?;
        self.state.dead_letter(subscription, event).await
    }

    async fn jobs(&self) -> Result<Vec<ReplayJob>, LogError> {
        self.luck.read().await?;
        self.state.jobs().await
    }

    async fn task_runs(&self) -> Result<Vec<TaskRun>, LogError> {
        self.luck.read().await?;
        self.state.task_runs().await
    }

    async fn job(&self, id: ReplayId) -> Result<Option<ReplayJob>, LogError> {
        self.luck.read().await?;
        self.state.job(id).await
    }

    async fn counts(&self) -> Result<StateCounts, LogError> {
        self.luck.read().await?;
        self.state.counts().await
    }
}
