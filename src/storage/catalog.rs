//! Which segments there are, and the index of the one being written: what readers see of the log.
//!
//! The writer publishes here, after the sync; so nothing that is not yet durable is ever visible. Readers take
//! copies under a short lock. Sealed segments are a shared list, replaced as a whole when one comes or goes; their
//! files are opened when needed and a bounded number stays open.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use hookmill_actors::domain::ids::{EventId, IntegrationId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    disk::{Disk, DiskFile},
    index::{Entry, MemoryIndex},
    open_error::OpenError,
    segment::{SegmentHeader, segment_path, sidecar_path},
    sidecar::{Sidecar, Summary},
};

/// Sealed segments whose files stay open, at most.
const OPEN_SEGMENTS_MAX: usize = 64;

/// All segments.
pub(crate) struct Catalog {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    inner: RwLock<Inner>,
    open: Mutex<Vec<(u64, Arc<OpenSegment>)>>,
}

struct Inner {
    sealed: Arc<Vec<Arc<Sealed>>>,
    active: Active,
    last: EventId,
}

/// The segment being written, as readers see it.
pub(crate) struct Active {
    pub(crate) segment: Arc<OpenSegment>,
    pub(crate) file_bytes: u64,
    pub(crate) prev_last: EventId,
    /// Where its last synced commit ends.
    pub(crate) end: u64,
    pub(crate) index: MemoryIndex,
}

/// A segment that is written no more.
pub(crate) struct Sealed {
    pub(crate) summary: Summary,
    pub(crate) file_bytes: u64,
    /// Its index, until the sidecar is durable.
    memory: RwLock<Option<Arc<MemoryIndex>>>,
}

/// How far a segment is filled, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SegmentExtent {
    /// Its number; they follow each other without a gap.
    pub number: u64,
    /// Differs for every use of a file.
    pub salt: u64,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Where its last synced commit ends.
    pub end: u64,
    /// Nothing is written into it any more.
    pub sealed: bool,
}

/// An open segment file.
pub(crate) struct OpenSegment {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    sidecar: OnceLock<Arc<Sidecar>>,
}

/// One integration's view of the log at a moment.
pub(crate) struct Snapshot {
    pub(crate) sealed: Arc<Vec<Arc<Sealed>>>,
    pub(crate) active: Arc<OpenSegment>,
    pub(crate) active_entries: Vec<Entry>,
}

/// A sealed segment's index, wherever it is.
pub(crate) enum IndexView {
    /// Its sidecar is not written yet.
    Memory(Arc<MemoryIndex>),
    /// As a file.
    Sidecar(Arc<Sidecar>),
}

impl OpenSegment {
    pub(crate) fn new(number: u64, salt: u64, file: Arc<dyn DiskFile>) -> Arc<Self> {
        Arc::new(Self { number, salt, file, sidecar: OnceLock::new() })
    }
}

impl Sealed {
    pub(crate) fn new(summary: Summary, file_bytes: u64, memory: Option<Arc<MemoryIndex>>) -> Arc<Self> {
        Arc::new(Self { summary, file_bytes, memory: RwLock::new(memory) })
    }

    /// The index, while it is in memory.
    pub(crate) fn memory(&self) -> Option<Arc<MemoryIndex>> {
        read(&self.memory).clone()
    }

    /// Puts the index into memory, or forgets it once its sidecar is durable.
    pub(crate) fn set_memory(&self, index: Option<Arc<MemoryIndex>>) {
        *write(&self.memory) = index;
    }
}

impl Catalog {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        sealed: Vec<Arc<Sealed>>,
        active: Active,
        last: EventId,
    ) -> Self {
        let inner = RwLock::new(Inner { sealed: Arc::new(sealed), active, last });
        Self { disk, dir, inner, open: Mutex::new(Vec::new()) }
    }

    /// The last event that is durable.
    pub(crate) fn last(&self) -> EventId {
        read(&self.inner).last
    }

    /// Makes a synced commit visible.
    pub(crate) fn publish(&self, events: &[Entry], kept: &[Entry], last: EventId, end: u64) {
        let mut inner = write(&self.inner);
        for entry in events {
            inner.active.index.push(*entry);
        }
        for entry in kept {
            inner.active.index.push_kept(*entry);
        }
        inner.active.end = end;
        inner.last = last;
    }

    /// Seals the active segment and makes another one active. Returns the sealed one.
    pub(crate) fn rotate(&self, segment: Arc<OpenSegment>, header: &SegmentHeader) -> Arc<Sealed> {
        let mut inner = write(&self.inner);
        let active = Active {
            segment,
            file_bytes: header.file_bytes,
            prev_last: header.prev_last,
            end: super::segment::DATA_START,
            index: MemoryIndex::default(),
        };
        let old = std::mem::replace(&mut inner.active, active);
        let count = |count: usize| u32::try_from(count).expect("a segment's offsets are 32 bits, so are its counts");
        let summary = Summary {
            number: old.segment.number,
            salt: old.segment.salt,
            end: old.end,
            events: count(old.index.events().len()),
            kept: count(old.index.kept().len()),
            prev_last: old.prev_last,
            last: header.prev_last,
        };
        let sealed = Sealed::new(summary, old.file_bytes, Some(Arc::new(old.index)));
        let mut all = Vec::clone(&inner.sealed);
        all.push(Arc::clone(&sealed));
        inner.sealed = Arc::new(all);
        sealed
    }

    /// Takes the oldest sealed segment off the list.
    pub(crate) fn forget_oldest(&self, number: u64) {
        let mut inner = write(&self.inner);
        let rest = inner.sealed.iter().filter(|sealed| sealed.summary.number != number).cloned().collect();
        inner.sealed = Arc::new(rest);
        drop(inner);
        lock(&self.open).retain(|(open, _)| *open != number);
    }

    /// All sealed segments, oldest first.
    pub(crate) fn sealed(&self) -> Arc<Vec<Arc<Sealed>>> {
        Arc::clone(&read(&self.inner).sealed)
    }

    /// Whether a segment is still part of the log.
    pub(crate) fn has(&self, number: u64) -> bool {
        let inner = read(&self.inner);
        inner.active.segment.number == number || inner.sealed.iter().any(|sealed| sealed.summary.number == number)
    }

    /// The sealed segments, and an integration's events after `after` in the active one.
    pub(crate) fn snapshot(&self, integration: IntegrationId, after: EventId, limit: usize) -> Snapshot {
        let inner = read(&self.inner);
        Snapshot {
            sealed: Arc::clone(&inner.sealed),
            active: Arc::clone(&inner.active.segment),
            active_entries: inner.active.index.after(integration, after, limit),
        }
    }

    /// The sealed segments, and what `look` finds in the active one.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&MemoryIndex) -> T) -> (Arc<Vec<Arc<Sealed>>>, Arc<OpenSegment>, T) {
        let inner = read(&self.inner);
        (Arc::clone(&inner.sealed), Arc::clone(&inner.active.segment), look(&inner.active.index))
    }

    /// Segments, bytes of their files, bytes of their commits.
    pub(crate) fn sizes(&self) -> (u64, u64, u64) {
        let inner = read(&self.inner);
        let files: u64 = inner.sealed.iter().map(|sealed| sealed.file_bytes).sum();
        let commits: u64 = inner.sealed.iter().map(|sealed| sealed.summary.end).sum();
        (inner.sealed.len() as u64 + 1, files + inner.active.file_bytes, commits + inner.active.end)
    }

    /// All segments as they are at one moment, oldest first, and the last event in them.
    pub(crate) fn extents(&self) -> (Vec<SegmentExtent>, EventId) {
        let inner = read(&self.inner);
        let sealed = inner.sealed.iter().map(|sealed| SegmentExtent {
            number: sealed.summary.number,
            salt: sealed.summary.salt,
            file_bytes: sealed.file_bytes,
            end: sealed.summary.end,
            sealed: true,
        });
        let active = SegmentExtent {
            number: inner.active.segment.number,
            salt: inner.active.segment.salt,
            file_bytes: inner.active.file_bytes,
            end: inner.active.end,
            sealed: false,
        };
        (sealed.chain([active]).collect(), inner.last)
    }

    /// Opens a sealed segment, or takes it from those that are open.
    pub(crate) fn open(&self, sealed: &Sealed) -> Result<Arc<OpenSegment>, OpenError> {
        let number = sealed.summary.number;
        let mut open = lock(&self.open);
        if let Some(place) = open.iter().position(|(open, _)| *open == number) {
            let found = open.remove(place);
            let segment = Arc::clone(&found.1);
            open.push(found);
            return Ok(segment);
        }
        drop(open);
        let path = segment_path(&self.dir, number);
        let file = self.disk.open(&path).map_err(|error| OpenError::io(&path, error))?;
        let header = SegmentHeader::read(&*file, &path, number)?;
        if header.salt != sealed.summary.salt {
            return Err(OpenError::damaged(&path, 0, "it is not the segment that was sealed"));
        }
        let segment = OpenSegment::new(number, header.salt, file);
        let mut open = lock(&self.open);
        if open.len() >= OPEN_SEGMENTS_MAX {
            open.remove(0);
        }
        open.push((number, Arc::clone(&segment)));
        Ok(segment)
    }

    /// A sealed segment's index. `InvalidData`, `UnexpectedEof`, `NotFound`: it must be made again.
    pub(crate) fn index(&self, sealed: &Sealed, segment: &OpenSegment) -> io::Result<IndexView> {
        if let Some(memory) = sealed.memory() {
            return Ok(IndexView::Memory(memory));
        }
        if let Some(sidecar) = segment.sidecar.get() {
            return Ok(IndexView::Sidecar(Arc::clone(sidecar)));
        }
        let sidecar = Sidecar::open(self.disk.open(&sidecar_path(&self.dir, segment.number))?)?;
        if *sidecar.summary() != sealed.summary {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the index is of another segment"));
        }
        Ok(IndexView::Sidecar(Arc::clone(segment.sidecar.get_or_init(|| Arc::new(sidecar)))))
    }
}

impl IndexView {
    pub(crate) fn after(&self, integration: IntegrationId, after: EventId, limit: usize) -> io::Result<Vec<Entry>> {
        match self {
            Self::Memory(index) => Ok(index.after(integration, after, limit)),
            Self::Sidecar(sidecar) => sidecar.after(integration, after, limit),
        }
    }

    pub(crate) fn bytes_after(&self, integration: IntegrationId, after: EventId) -> io::Result<u64> {
        match self {
            Self::Memory(index) => Ok(index.bytes_after(integration, after)),
            Self::Sidecar(sidecar) => sidecar.bytes_after(integration, after),
        }
    }

    pub(crate) fn count_after(&self, integration: Option<IntegrationId>, after: EventId) -> io::Result<u64> {
        match self {
            Self::Memory(index) => Ok(index.count_after(integration, after)),
            Self::Sidecar(sidecar) => sidecar.count_after(integration, after),
        }
    }

    pub(crate) fn ids_after(
        &self,
        integration: Option<IntegrationId>,
        after: EventId,
        limit: usize,
    ) -> io::Result<Vec<EventId>> {
        match self {
            Self::Memory(index) => Ok(index.ids_after(integration, after, limit)),
            Self::Sidecar(sidecar) => sidecar.ids_after(integration, after, limit),
        }
    }

    pub(crate) fn before(
        &self,
        integration: Option<IntegrationId>,
        before: EventId,
        limit: usize,
    ) -> io::Result<Vec<EventId>> {
        match self {
            Self::Memory(index) => Ok(index.before(integration, before, limit)),
            Self::Sidecar(sidecar) => sidecar.before(integration, before, limit),
        }
    }

    /// The records of those events that are here; the events are ascending.
    pub(crate) fn find_all(&self, ids: &[EventId]) -> io::Result<Vec<Entry>> {
        match self {
            Self::Memory(index) => Ok(ids.iter().filter_map(|id| index.find(*id)).collect()),
            Self::Sidecar(sidecar) => sidecar.find_all(ids),
        }
    }

    pub(crate) fn find_kept(&self, id: EventId) -> io::Result<Option<Entry>> {
        match self {
            Self::Memory(index) => Ok(index.find_kept(id)),
            Self::Sidecar(sidecar) => sidecar.find_kept(id),
        }
    }

    pub(crate) fn kept(&self) -> io::Result<Vec<Entry>> {
        match self {
            Self::Memory(index) => Ok(index.kept().collect()),
            Self::Sidecar(sidecar) => sidecar.kept(),
        }
    }
}

// A panic while one of these locks is held leaves whole values behind: they are replaced, never edited in steps
// that could stop half-way without the writer failing the whole log.

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
