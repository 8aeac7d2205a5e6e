//! The embedded event log: port `EventLog` on segment files, with the state riding along in its commits.
//!
//! In: events from the ingress, state from the actors, reads from both. Its threads: `log-writer` owns the end of
//! the log, `log-space` prepares files, `log-state` syncs the state. A crash loses what was not acknowledged, and
//! nothing else: opening again replays the rest.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    thread::{Builder, JoinHandle},
    time::Instant,
};

use async_trait::async_trait;
use crossbeam_channel::Sender;
use hookmill_actors::{
    domain::{
        event::{Event, NewEvent},
        ids::{EventId, IntegrationId},
    },
    ports::{
        clock::Clock,
        event_log::{
            CommitListener, Committing, EventLog, Head, LogError, ReadBounds, Recent, Stored, TrimRequest, Trimmed,
        },
        state_store::StateOp,
    },
};
use tokio::sync::{Semaphore, watch};

use super::{
    StateView,
    catalog::{Catalog, SegmentExtent, lock},
    commit::encode_state,
    health::LogHealth,
    open_error::OpenError,
    options::LogOptions,
    reader,
    record::Payload,
    recovery::recover,
    shared::{ReserveWatch, Shared},
    space::{Job, Space},
    stall::StallWatch,
    stats::LogStats,
    store_dir::StoreDir,
    trim::Trim,
    writer::{EventRequest, Request, StateRequest, Writer, sync_state},
};

/// Events whose heads are read in one go: more would hold a reader's place, and the index of the segment being written,
/// for long.
const HEADS_AT_ONCE: usize = 128;

/// The event log in segment files.
pub struct SegmentLog {
    shared: Arc<Shared>,
    space: Arc<Space>,
    requests: Sender<Request>,
    readers: Arc<Semaphore>,
    /// Held by the trim under way; until when there shall be none.
    trimming: Arc<Mutex<Option<Instant>>>,
    threads: Mutex<Option<Threads>>,
    /// Keeps other processes out.
    store: Arc<StoreDir>,
}

struct Threads {
    writer: JoinHandle<()>,
    space: JoinHandle<()>,
    state: JoinHandle<()>,
}

impl SegmentLog {
    /// Opens the log of a store, or begins it, and starts its threads. The state is brought up to the log's end.
    /// Blocking: a second or so after a kill.
    pub fn open(
        options: LogOptions,
        store: StoreDir,
        state: Arc<dyn StateView>,
        listener: Arc<dyn CommitListener>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, OpenError> {
        options.validate()?;
        let store = Arc::new(store);
        let recovered = recover(&store, &options, &state)?;
        let shared = Shared::new(options, Arc::clone(&recovered.catalog), state);
        let (space, jobs) = Space::new(
            recovered.catalog,
            shared.options.segment_bytes,
            // What sled may need while the disk is full; the rest of the reserve is for segments.
            shared.options.reserve_bytes / 4,
            recovered.recycled,
            recovered.next_spare,
            Arc::clone(&shared.pulses),
        );
        for sealed in recovered.unsaved {
            space.ask(Job::Seal(sealed));
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "events are bounded by count and bytes before, state by its senders"
        )]
        let (requests, received) = crossbeam_channel::unbounded();
        let (nudge, nudges) = crossbeam_channel::bounded(1);
        let writer =
            Writer::new(Arc::clone(&shared), received, Arc::clone(&space), nudge, listener, clock, recovered.writer);
        let threads = Threads {
            writer: {
                let space = Arc::clone(&space);
                spawn("log-writer", &shared, &store, move |_| {
                    let _stop = StopSpace(space);
                    let mut writer = writer;
                    writer.run();
                })?
            },
            space: {
                let space = Arc::clone(&space);
                spawn("log-space", &shared, &store, move |shared| {
                    space.run(&jobs, shared.options.space_check_every, &ReserveWatch(Arc::clone(shared)));
                })?
            },
            state: spawn("log-state", &shared, &store, move |shared| {
                sync_state(shared, &nudges, shared.options.state_sync_every);
            })?,
        };
        Ok(Arc::new(Self {
            readers: Arc::new(Semaphore::new(shared.options.readers)),
            trimming: Arc::default(),
            threads: Mutex::new(Some(threads)),
            shared,
            space,
            requests,
            store,
        }))
    }

    /// Whether the log takes events, and every change of that. After `Failed` the process must end.
    pub fn health(&self) -> watch::Receiver<LogHealth> {
        self.shared.health.subscribe()
    }

    /// Finds work of its threads that never ends. To be asked by a thread that waits for nothing else.
    pub fn stall_watch(&self) -> StallWatch {
        let Shared { pulses, health, options, .. } = &*self.shared;
        StallWatch::new(Arc::clone(pulses), Arc::clone(health), options.stall_limit)
    }

    /// A moment's counts.
    pub fn stats(&self) -> LogStats {
        let (segments, disk_bytes, _) = self.shared.catalog.sizes();
        let health = self.shared.health.subscribe().borrow().clone();
        LogStats { segments, disk_bytes, health, ..self.shared.counters.read() }
    }

    /// The store's directory.
    pub fn store(&self) -> &StoreDir {
        &self.store
    }

    /// Keeps every segment where it is until then; a trim under way is waited for. Blocking.
    pub fn hold(&self, until: Instant) {
        *lock(&self.trimming) = Some(until);
    }

    /// Goes on holding. `false`: it had ended, or was given up because the disk is nearly full. Blocking, as
    /// [`SegmentLog::hold`].
    pub fn hold_on(&self, until: Instant) -> bool {
        let mut held_until = lock(&self.trimming);
        let holds = held_until.is_some_and(|until| Instant::now() < until);
        *held_until = holds.then_some(until);
        holds
    }

    /// Segments may go again. Blocking, as [`SegmentLog::hold`].
    pub fn let_go(&self) {
        *lock(&self.trimming) = None;
    }

    /// All segments as they are at one moment, oldest first, and the last event in them.
    pub fn extents(&self) -> (Vec<SegmentExtent>, EventId) {
        self.shared.catalog.extents()
    }

    /// Takes no more, commits what is queued, syncs the state and ends the threads. Blocking; idempotent.
    pub fn close_blocking(&self) -> Result<(), LogError> {
        self.shared.closed.store(true, SeqCst);
        let Some(threads) = lock(&self.threads).take() else { return self.outcome() };
        // The writer may have ended with the log's failure; then there is nothing to close.
        let _ = self.requests.send(Request::Close);
        // A panic was caught and has failed the log.
        let _ = threads.writer.join();
        let _ = threads.state.join();
        let _ = threads.space.join();
        self.outcome()
    }

    /// As [`SegmentLog::close_blocking`], without holding up the runtime.
    pub async fn close(self: &Arc<Self>) -> Result<(), LogError> {
        let log = Arc::clone(self);
        tokio::task::spawn_blocking(move || log.close_blocking()).await.unwrap_or(Err(LogError::Closed))
    }

    fn outcome(&self) -> Result<(), LogError> {
        self.shared.failed().map_or(Ok(()), Err)
    }

    fn ensure_open(&self) -> Result<(), LogError> {
        self.outcome()?;
        if self.shared.closed.load(Relaxed) { Err(LogError::Closed) } else { Ok(()) }
    }

    /// Reserves room in the queue, or refuses.
    fn enqueue(&self, bytes: usize) -> Result<(), LogError> {
        let counters = &self.shared.counters;
        let options = &self.shared.options;
        if counters.queue_events.fetch_add(1, SeqCst) >= options.queue_events {
            counters.queue_events.fetch_sub(1, SeqCst);
            return Err(LogError::QueueFull);
        }
        let waiting = counters.queue_bytes.fetch_add(bytes, SeqCst);
        if waiting > 0 && waiting + bytes > options.queue_bytes {
            counters.queue_bytes.fetch_sub(bytes, SeqCst);
            counters.queue_events.fetch_sub(1, SeqCst);
            return Err(LogError::QueueFull);
        }
        Ok(())
    }

    /// Runs a read on a thread that may block, when its turn comes.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Catalog) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let permit = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| LogError::Closed)?;
        let catalog = Arc::clone(&self.shared.catalog);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read(&catalog)
        })
        .await
        .unwrap_or_else(|error| Err(LogError::Failed(format!("a read ended early: {error}").into())))
    }
}

impl std::fmt::Debug for SegmentLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentLog").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Drop for SegmentLog {
    /// Ends the threads without waiting for them.
    fn drop(&mut self) {
        self.shared.closed.store(true, SeqCst);
        let _ = self.requests.send(Request::Close);
    }
}

/// Ends the helper thread once the writer has ended, however it did.
struct StopSpace(Arc<Space>);

impl Drop for StopSpace {
    fn drop(&mut self) {
        self.0.ask(Job::Stop);
    }
}

#[async_trait]
impl EventLog for SegmentLog {
    fn append(&self, event: NewEvent) -> Result<Committing<EventId>, LogError> {
        self.ensure_open()?;
        self.shared.health.ensure_takes_events()?;
        let payload = Payload::encode(event.arrival);
        let (bytes, bytes_max) = (payload.record_bytes(), self.shared.options.record_bytes_max);
        if bytes > bytes_max {
            return Err(LogError::TooLarge { bytes, bytes_max });
        }
        self.enqueue(bytes)?;
        let (reply, committing) = Committing::new();
        let request = Request::Event(EventRequest { integration: event.integration, payload, reply });
        self.requests.send(request).map_err(|_| LogError::Closed)?;
        Ok(committing)
    }

    fn commit(&self, state: Vec<StateOp>) -> Result<Committing<()>, LogError> {
        self.ensure_open()?;
        let encoded = encode_state(&state);
        let (reply, committing) = Committing::new();
        let request = Request::State(StateRequest { ops: state, encoded, reply });
        self.requests.send(request).map_err(|_| LogError::Closed)?;
        Ok(committing)
    }

    async fn read(
        &self,
        integration: IntegrationId,
        after: EventId,
        bounds: ReadBounds,
    ) -> Result<Vec<Stored>, LogError> {
        if let Some(recent) = self.recent(integration, after, bounds) {
            return Ok(recent.events);
        }
        self.reading(move |catalog| reader::read(catalog, integration, after, bounds)).await
    }

    fn recent(&self, integration: IntegrationId, after: EventId, bounds: ReadBounds) -> Option<Recent> {
        let (records, all) = self.shared.tail.after(integration, after, bounds)?;
        Some(Recent { events: records.iter().map(reader::decode_recent).collect(), all })
    }

    async fn bytes_after(&self, integration: IntegrationId, after: EventId) -> Result<u64, LogError> {
        self.reading(move |catalog| reader::bytes_after(catalog, integration, after)).await
    }

    async fn count_after(&self, integration: Option<IntegrationId>, after: EventId) -> Result<u64, LogError> {
        self.reading(move |catalog| reader::count_after(catalog, integration, after)).await
    }

    async fn get(&self, id: EventId) -> Result<Option<Arc<Event>>, LogError> {
        self.reading(move |catalog| reader::get(catalog, id)).await
    }

    async fn heads(&self, ids: &[EventId]) -> Result<Vec<Option<Result<Head, EventId>>>, LogError> {
        let mut heads = Vec::with_capacity(ids.len());
        for ids in ids.chunks(HEADS_AT_ONCE) {
            let ids = ids.to_vec();
            heads.extend(self.reading(move |catalog| reader::heads(catalog, &ids)).await?);
        }
        Ok(heads)
    }

    async fn latest(
        &self,
        integration: Option<IntegrationId>,
        before: EventId,
        limit: usize,
    ) -> Result<Vec<EventId>, LogError> {
        self.reading(move |catalog| reader::latest(catalog, integration, before, limit)).await
    }

    async fn following(
        &self,
        integration: Option<IntegrationId>,
        after: EventId,
        limit: usize,
    ) -> Result<Vec<EventId>, LogError> {
        self.reading(move |catalog| reader::following(catalog, integration, after, limit)).await
    }

    async fn trim(&self, request: TrimRequest) -> Result<Trimmed, LogError> {
        self.ensure_open()?;
        let (shared, space, requests) = (Arc::clone(&self.shared), Arc::clone(&self.space), self.requests.clone());
        let trimming = Arc::clone(&self.trimming);
        tokio::task::spawn_blocking(move || {
            let mut held_until = lock(&trimming);
            // A disk that fills up is worse than a backup that has to begin again.
            if held_until.is_some_and(|until| Instant::now() < until) && !shared.health.disk_is_low() {
                return Ok(Trimmed::default());
            }
            *held_until = None;
            Trim { shared: &shared, space: &space, requests: &requests }.run(&request)
        })
        .await
        .unwrap_or_else(|error| Err(LogError::Failed(format!("a trim ended early: {error}").into())))
    }

    fn last_committed(&self) -> EventId {
        self.shared.catalog.last()
    }
}

/// Starts a thread whose panic fails the log.
fn spawn(
    name: &str,
    shared: &Arc<Shared>,
    store: &Arc<StoreDir>,
    run: impl FnOnce(&Arc<Shared>) + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let shared = Arc::clone(shared);
    let thread = name.to_owned();
    let locked = Arc::clone(store);
    Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _locked = locked;
            if catch_unwind(AssertUnwindSafe(|| run(&shared))).is_err() {
                shared.fail(&format!("thread {thread} panicked"));
            }
        })
        .map_err(|error| OpenError::io(store.path(), error))
}
