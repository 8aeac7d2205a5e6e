//! The log's one writer thread: takes what has queued, writes it as one commit, syncs once, answers all.
//!
//! In: [`Request`]s from senders, actors and trimming. Out: answers, and the committed integrations to the listener.
//! Owns: the active segment, the last id, the number of the next commit. There is no timer for events: a commit is
//! what came during the last sync. State alone waits for events to ride along with, but not long.
//!
//! An answer goes out only after a sync that began after its write returned. The first write or sync that fails ends
//! the log: a second sync could succeed for pages that the first one lost. A crash loses what was not answered.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use hookmill_actors::{
    domain::ids::{EventId, IntegrationId},
    ports::{
        clock::Clock,
        event_log::{CommitListener, LogError},
        state_store::StateOp,
    },
};
use tokio::sync::oneshot;
use tracing::info;

use super::{
    LogPlace,
    catalog::OpenSegment,
    commit::{COMMIT_ALIGN, COMMIT_HEADER_BYTES, CommitHeader},
    disk::DiskFile,
    index::Entry,
    record::{Payload, RecordKind},
    segment::{DATA_START, SegmentHeader, fresh_salt, install},
    shared::Shared,
    space::{Job, Space},
    stall::Work,
    tail::TailRecord,
};

/// A buffer that grew beyond this for one large commit is given back.
const BUFFER_KEPT_BYTES: usize = 16 << 20;
/// State that waits for company does not wait once there is so much of it.
const STATE_ALONE_BYTES: usize = 1 << 20;
/// The state hears where the log is at least this often, bytes: bounds what a start must replay.
const APPLIED_LAG_BYTES: u64 = 8 << 20;

/// What is asked of the writer.
pub(crate) enum Request {
    /// Store an event.
    Event(EventRequest),
    /// Store and apply state.
    State(StateRequest),
    /// Store copies of payloads; segments before `oldest` go afterwards.
    Keep(KeepRequest),
    /// Do what is queued, then end.
    Close,
}

pub(crate) struct EventRequest {
    pub(crate) integration: IntegrationId,
    pub(crate) payload: Payload,
    pub(crate) reply: Reply<EventId>,
}

pub(crate) struct StateRequest {
    pub(crate) ops: Vec<StateOp>,
    pub(crate) encoded: Vec<u8>,
    pub(crate) reply: Reply<()>,
}

/// Payloads that outlive their segment.
pub(crate) struct KeepRequest {
    pub(crate) records: Vec<(EventId, Payload)>,
    /// Segments before this one are given up with this commit.
    pub(crate) oldest: Option<u64>,
    pub(crate) reply: Reply<()>,
}

/// Between two tries to write state to a full disk.
const FULL_PAUSE: Duration = Duration::from_millis(100);

type Reply<T> = oneshot::Sender<Result<T, LogError>>;

/// The requests of one commit.
#[derive(Default)]
struct Batch {
    events: Vec<EventRequest>,
    states: Vec<StateRequest>,
    keeps: Vec<KeepRequest>,
    oldest: Option<u64>,
    /// Somebody waits for what is before it.
    barrier: bool,
    records_bytes: usize,
    state_bytes: usize,
    /// Of events: what is given back to the queue's bounds.
    queued_bytes: usize,
}

impl Batch {
    /// What must not wait is in it.
    fn is_urgent(&self) -> bool {
        self.barrier || !self.events.is_empty() || !self.keeps.is_empty() || self.state_bytes >= STATE_ALONE_BYTES
    }

    fn bytes(&self) -> usize {
        self.records_bytes + self.state_bytes
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.states.is_empty() && self.keeps.is_empty()
    }
}

/// The active segment as the writer has it.
pub(crate) struct ActiveFile {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) file_bytes: u64,
    /// Where the next commit goes.
    pub(crate) end: u64,
}

/// The writer thread's state.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) requests: Receiver<Request>,
    pub(crate) space: Arc<Space>,
    /// Wakes the thread that syncs the state.
    pub(crate) state_sync: Sender<()>,
    pub(crate) listener: Arc<dyn CommitListener>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) active: ActiveFile,
    pub(crate) next_commit: u64,
    pub(crate) oldest_segment: u64,
    pub(crate) last: EventId,
    scratch: Scratch,
}

/// Buffers that live from commit to commit.
#[derive(Default)]
struct Scratch {
    batch: Batch,
    carried: Option<Request>,
    /// State that found no space, oldest first.
    held: VecDeque<StateRequest>,
    closing: bool,
    buffer: Vec<u8>,
    ids: Vec<EventId>,
    events: Vec<Entry>,
    kept: Vec<Entry>,
    integrations: Vec<(IntegrationId, EventId)>,
    ops: Vec<StateOp>,
    unapplied_bytes: u64,
    unsynced_bytes: u64,
}

/// Everything a writer begins with.
pub(crate) struct WriterStart {
    pub(crate) active: ActiveFile,
    pub(crate) next_commit: u64,
    pub(crate) oldest_segment: u64,
    pub(crate) last: EventId,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        requests: Receiver<Request>,
        space: Arc<Space>,
        state_sync: Sender<()>,
        listener: Arc<dyn CommitListener>,
        clock: Arc<dyn Clock>,
        start: WriterStart,
    ) -> Self {
        let WriterStart { active, next_commit, oldest_segment, last } = start;
        let scratch = Scratch::default();
        Self {
            shared,
            requests,
            space,
            state_sync,
            listener,
            clock,
            active,
            next_commit,
            oldest_segment,
            last,
            scratch,
        }
    }

    /// Runs until it is closed and the queue is drained.
    pub(crate) fn run(&mut self) {
        loop {
            self.gather();
            if !self.scratch.batch.is_empty() {
                self.commit();
            } else if self.scratch.closing {
                break;
            }
        }
        if self.scratch.unapplied_bytes > 0 && self.shared.failed().is_none() {
            self.advance_state();
        }
    }

    /// Collects a batch: all that is there, up to a commit's bound. Blocks while there is nothing.
    fn gather(&mut self) {
        while let Some(held) = self.scratch.held.pop_front() {
            self.add(Request::State(held));
            if let Some(Request::State(too_much)) = self.scratch.carried.take() {
                self.scratch.held.push_front(too_much);
                return;
            }
        }
        if let Some(carried) = self.scratch.carried.take() {
            self.add(carried);
        }
        let mut deadline = None;
        loop {
            while self.scratch.carried.is_none() {
                let Ok(request) = self.requests.try_recv() else { break };
                self.add(request);
            }
            let batch = &self.scratch.batch;
            if self.scratch.carried.is_some() || self.scratch.closing || batch.is_urgent() {
                return;
            }
            let received = if batch.is_empty() {
                self.requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                let until = *deadline.get_or_insert_with(|| Instant::now() + self.shared.options.state_wait);
                self.requests.recv_timeout(until.saturating_duration_since(Instant::now()))
            };
            match received {
                Ok(request) => self.add(request),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => self.scratch.closing = true,
            }
        }
    }

    /// Adds a request to the batch, or carries it over to the next one.
    fn add(&mut self, request: Request) {
        let batch = &mut self.scratch.batch;
        let request = match request {
            Request::State(barrier) if barrier.ops.is_empty() && batch.is_empty() => {
                let _ = barrier.reply.send(self.shared.failed().map_or(Ok(()), Err));
                return;
            }
            request => request,
        };
        let (records, state) = match &request {
            Request::Event(event) => (event.payload.record_bytes(), 0),
            Request::State(state) => (0, state.encoded.len()),
            Request::Keep(keep) => (keep.records.iter().map(|(_, payload)| payload.record_bytes()).sum(), 0),
            Request::Close => {
                self.scratch.closing = true;
                return;
            }
        };
        if !batch.is_empty() && batch.bytes() + records + state > self.shared.options.commit_bytes_max() {
            self.scratch.carried = Some(request);
            return;
        }
        batch.records_bytes += records;
        batch.state_bytes += state;
        match request {
            Request::Event(event) => {
                batch.queued_bytes += records;
                batch.events.push(event);
            }
            Request::State(state) if state.ops.is_empty() => {
                // A barrier: it says that all state before it is applied, so it waits for no company.
                batch.barrier = true;
                batch.states.push(state);
            }
            Request::State(state) => batch.states.push(state),
            Request::Keep(keep) => {
                batch.oldest = batch.oldest.max(keep.oldest);
                batch.keeps.push(keep);
            }
            Request::Close => {}
        }
    }

    /// Commits the batch and answers everybody in it.
    fn commit(&mut self) {
        let batch = std::mem::take(&mut self.scratch.batch);
        let result = match self.shared.failed() {
            Some(failed) => Err(failed),
            None => self.make_room(&batch).and_then(|()| self.write(&batch)),
        };
        self.shared.counters.queue_events.fetch_sub(batch.events.len(), SeqCst);
        self.shared.counters.queue_bytes.fetch_sub(batch.queued_bytes, SeqCst);
        match result {
            Ok(end) => self.answer(batch, end),
            Err(LogError::DiskFull) => self.keep_state(batch),
            Err(error) => refuse(batch, &error),
        }
    }

    /// The disk is full: events are refused, state waits for space before anything else. State is never skipped,
    /// because a later position says that what came before it is stored. Its senders bound it.
    fn keep_state(&mut self, batch: Batch) {
        let Batch { events, states, keeps, .. } = batch;
        refuse(Batch { events, keeps, ..Batch::default() }, &LogError::DiskFull);
        for state in states.into_iter().rev() {
            self.scratch.held.push_front(state);
        }
        if self.scratch.held.is_empty() {
            return;
        }
        // Whatever queued meanwhile must not wait behind the state.
        let carried = self.scratch.carried.take();
        for request in carried.into_iter().chain(self.requests.try_iter()) {
            match request {
                Request::State(state) => self.scratch.held.push_back(state),
                Request::Event(event) => {
                    self.shared.counters.queue_events.fetch_sub(1, SeqCst);
                    self.shared.counters.queue_bytes.fetch_sub(event.payload.record_bytes(), SeqCst);
                    let _ = event.reply.send(Err(LogError::DiskFull));
                }
                Request::Keep(keep) => drop(keep.reply.send(Err(LogError::DiskFull))),
                Request::Close => self.scratch.closing = true,
            }
        }
        if self.scratch.closing {
            let failed = self.shared.fail("the disk was full when the log was shut");
            refuse(Batch { states: self.scratch.held.drain(..).collect(), ..Batch::default() }, &failed);
        }
        std::thread::sleep(FULL_PAUSE);
    }

    /// Begins another segment when the commit does not fit into what is left of this one.
    fn make_room(&mut self, batch: &Batch) -> Result<(), LogError> {
        let bytes = (COMMIT_HEADER_BYTES + batch.bytes()).next_multiple_of(COMMIT_ALIGN) as u64;
        if self.active.end + bytes <= self.active.file_bytes {
            return Ok(());
        }
        let spare = match self.space.take(self.shared.options.segment_bytes.max(DATA_START + bytes)) {
            Ok(spare) => spare,
            // Nothing was written yet: the next commit may find space.
            Err(error) if is_full(&error) => return Err(LogError::DiskFull),
            Err(error) => return Err(self.shared.fail(&format!("preparing a segment: {error}"))),
        };
        let installing = self.shared.pulses.begin(Work::Commit);
        let header = SegmentHeader {
            number: self.active.number + 1,
            file_bytes: spare.bytes,
            salt: fresh_salt(),
            prev_salt: self.active.salt,
            prev_end: self.active.end,
            first_commit: self.next_commit,
            oldest_segment: self.oldest_segment,
            prev_last: self.last,
        };
        let catalog = &self.shared.catalog;
        let file = install(&*catalog.disk, &catalog.dir, &spare, &header)
            .map_err(|error| self.shared.fail(&format!("beginning segment {:016x}: {error}", header.number)))?;
        let sealed = catalog.rotate(OpenSegment::new(header.number, header.salt, Arc::clone(&file)), &header);
        self.active = ActiveFile {
            file,
            number: header.number,
            salt: header.salt,
            file_bytes: header.file_bytes,
            end: DATA_START,
        };
        self.space.ask(Job::Seal(sealed));
        drop(installing);
        self.advance_state();
        Ok(())
    }

    /// Writes the batch as one commit, syncs it and makes it visible. Returns its end.
    fn write(&mut self, batch: &Batch) -> Result<LogPlace, LogError> {
        self.encode(batch);
        let _writing = self.shared.pulses.begin(Work::Commit);
        let began = Instant::now();
        let buffer = &self.scratch.buffer;
        self.active
            .file
            .write_all_at(buffer, self.active.end)
            .and_then(|()| self.active.file.sync_data())
            .map_err(|error| self.shared.fail(&format!("writing segment {:016x}: {error}", self.active.number)))?;
        self.shared.counters.committed(batch.events.len(), buffer.len(), began.elapsed());
        let bytes = buffer.len() as u64;
        self.active.end += bytes;
        self.next_commit += 1;
        self.oldest_segment = self.oldest_segment.max(batch.oldest.unwrap_or(0));
        self.last = self.scratch.ids.last().copied().unwrap_or(self.last);
        self.scratch.unapplied_bytes += bytes;
        self.scratch.unsynced_bytes += bytes;
        self.shared.catalog.publish(&self.scratch.events, &self.scratch.kept, self.last, self.active.end);
        self.shared.tail.push(self.tail_records());
        if self.scratch.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.scratch.buffer = Vec::new();
        }
        Ok(LogPlace { segment: self.active.number, offset: self.active.end })
    }

    /// The events of the commit that was just written.
    fn tail_records(&self) -> Vec<TailRecord> {
        let Scratch { buffer, events, .. } = &self.scratch;
        let base = self.active.end - buffer.len() as u64;
        let record_of = |entry: &Entry| {
            let start = usize::try_from(u64::from(entry.offset) - base).expect("it is in the buffer");
            let bytes = Bytes::copy_from_slice(&buffer[start..start + entry.bytes as usize]);
            TailRecord { id: entry.id(), salt: self.active.salt, bytes }
        };
        events.iter().map(record_of).collect()
    }

    /// Lays the commit out in the buffer. Ids are given here.
    fn encode(&mut self, batch: &Batch) {
        let Scratch { buffer, ids, events, kept, .. } = &mut self.scratch;
        let base = self.active.end;
        let place = |at: usize| u32::try_from(base + at as u64).expect("segments are bounded to 32-bit offsets");
        let length = |bytes: usize| u32::try_from(bytes).expect("a commit is bounded far below 4 GiB");
        let entry = |list: &mut Vec<Entry>, id, start: usize, end: usize| {
            list.push(Entry::new(id, place(start), length(end - start)));
        };
        buffer.clear();
        buffer.reserve((COMMIT_HEADER_BYTES + batch.bytes()).next_multiple_of(COMMIT_ALIGN));
        buffer.resize(COMMIT_HEADER_BYTES, 0);
        ids.clear();
        events.clear();
        kept.clear();
        let now_ms = if batch.events.is_empty() { 0 } else { self.clock.now_ms() };
        let mut last = self.last;
        for event in &batch.events {
            let sequence = EventId::next_sequence(now_ms, last.sequence());
            last = EventId::from_parts(sequence, event.integration, fastrand::u16(..));
            let start = buffer.len();
            event.payload.put(buffer, RecordKind::Event, last, self.active.salt);
            entry(events, last, start, buffer.len());
            ids.push(last);
        }
        for (id, payload) in batch.keeps.iter().flat_map(|keep| &keep.records) {
            let start = buffer.len();
            payload.put(buffer, RecordKind::Kept, *id, self.active.salt);
            entry(kept, *id, start, buffer.len());
        }
        let state_start = buffer.len();
        for state in &batch.states {
            buffer.extend_from_slice(&state.encoded);
        }
        let header = CommitHeader {
            number: self.next_commit,
            oldest_segment: self.oldest_segment.max(batch.oldest.unwrap_or(0)),
            records_bytes: length(state_start - COMMIT_HEADER_BYTES),
            state_bytes: length(buffer.len() - state_start),
            state_crc: crc32fast::hash(&buffer[state_start..]),
            events: length(events.len()),
            kept: length(kept.len()),
            prev_last: self.last,
            last,
        };
        header.encode(self.active.salt, buffer);
        buffer.resize(buffer.len().next_multiple_of(COMMIT_ALIGN), 0);
    }

    /// Answers a durable batch: senders first, then the listener; state once it is applied.
    fn answer(&mut self, batch: Batch, end: LogPlace) {
        let scratch = &mut self.scratch;
        scratch.integrations.clear();
        for (event, id) in batch.events.into_iter().zip(&scratch.ids) {
            scratch.integrations.push((event.integration, *id));
            // A sender that went away does not hear it; its event is stored all the same.
            let _ = event.reply.send(Ok(*id));
        }
        if !scratch.integrations.is_empty() {
            // The newest of each integration comes first in its run, and is the one that stays.
            scratch.integrations.sort_unstable_by_key(|(integration, id)| (*integration, std::cmp::Reverse(*id)));
            scratch.integrations.dedup_by_key(|(integration, _)| *integration);
            self.listener.committed(&scratch.integrations);
        }
        for keep in batch.keeps {
            let _ = keep.reply.send(Ok(()));
        }
        if !batch.states.is_empty() {
            let mut replies = Vec::with_capacity(batch.states.len());
            for state in batch.states {
                scratch.ops.extend(state.ops);
                replies.push(state.reply);
            }
            let applied = self.apply(end);
            for reply in replies {
                let _ = reply.send(applied.clone());
            }
        } else if scratch.unapplied_bytes >= APPLIED_LAG_BYTES {
            self.advance_state();
        }
        if self.scratch.unsynced_bytes >= self.shared.options.state_sync_bytes {
            self.scratch.unsynced_bytes = 0;
            if let Err(TrySendError::Disconnected(())) = self.state_sync.try_send(()) {
                self.shared.fail("the thread that syncs the state has ended");
            }
        }
    }

    /// Tells the state where the log is, without operations.
    fn advance_state(&mut self) {
        // A failure is remembered by the log itself.
        let _ = self.apply(LogPlace { segment: self.active.number, offset: self.active.end });
    }

    fn apply(&mut self, upto: LogPlace) -> Result<(), LogError> {
        let applying = self.shared.pulses.begin(Work::Apply);
        let applied = self.shared.state.apply(&self.scratch.ops, upto);
        drop(applying);
        self.scratch.ops.clear();
        self.scratch.unapplied_bytes = 0;
        applied.map_err(|error| self.shared.fail(&format!("applying state: {error}")))
    }
}

/// Answers a batch that was not stored.
fn refuse(batch: Batch, error: &LogError) {
    for event in batch.events {
        let _ = event.reply.send(Err(error.clone()));
    }
    for state in batch.states {
        let _ = state.reply.send(Err(error.clone()));
    }
    for keep in batch.keeps {
        let _ = keep.reply.send(Err(error.clone()));
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Syncs the state from time to time, beside the writer. Ends when `nudges` closes.
pub(crate) fn sync_state(shared: &Shared, nudges: &Receiver<()>, every: Duration) {
    loop {
        let ending = matches!(nudges.recv_timeout(every), Err(RecvTimeoutError::Disconnected));
        if shared.failed().is_some() {
            return;
        }
        let _syncing = shared.pulses.begin(Work::Sync);
        let synced = if ending { shared.state.sync_all() } else { shared.state.sync() };
        if let Err(error) = synced {
            shared.fail(&format!("syncing the state: {error}"));
            return;
        }
        if ending {
            info!("the state is synced");
            return;
        }
    }
}
