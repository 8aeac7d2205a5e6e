//! Reads events: by integration from a place, by id, and the newest for people. Blocking; called on a bounded pool.
//!
//! Owns nothing. A record is checked before it is an event; one that fails reads as damaged, by its id. A segment
//! may be trimmed while it is read, and its file used again: whatever does not read is held against the catalog
//! first, and read again from a new snapshot when its segment is gone.

mod by_id;

use std::{io, sync::Arc};

use bytes::Bytes;
use hookmill_actors::{
    domain::{
        event::Event,
        ids::{EventId, IntegrationId},
    },
    ports::event_log::{LogError, ReadBounds, Stored},
};
use tracing::{error, warn};

use super::{
    catalog::{Catalog, IndexView, OpenSegment, Sealed},
    index::Entry,
    open_error::OpenError,
    record::{RECORD_HEADER_BYTES, RecordHeader, decode_event},
    recovery::rebuild_index,
    tail::TailRecord,
};

pub(crate) use self::by_id::{get, heads};

/// Records closer together than this are read at once.
const GAP_BYTES_MAX: u64 = 4096;
/// The most that is read at once, unless a single record is larger.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Entries of the active segment that are copied at once to be counted.
const COUNT_PAGE: usize = 4_096;

/// Why a read did not end.
enum Miss {
    /// The segment was trimmed meanwhile: look again.
    Gone,
    Failed(LogError),
}

/// Reads an integration's events after `after`, in order.
pub(crate) fn read(
    catalog: &Catalog,
    integration: IntegrationId,
    mut after: EventId,
    bounds: ReadBounds,
) -> Result<Vec<Stored>, LogError> {
    let mut batch = Batch { bounds, bytes: 0, events: Vec::new() };
    loop {
        match read_snapshot(catalog, integration, &mut after, &mut batch) {
            Ok(()) => return Ok(batch.events),
            Err(Miss::Gone) => {}
            Err(Miss::Failed(error)) => return Err(error),
        }
    }
}

/// What a read has found so far.
struct Batch {
    bounds: ReadBounds,
    bytes: usize,
    events: Vec<Stored>,
}

impl Batch {
    fn room(&self) -> usize {
        self.bounds.events_max.saturating_sub(self.events.len())
    }

    fn is_full(&self) -> bool {
        self.room() == 0 || (!self.events.is_empty() && self.bytes >= self.bounds.bytes_max)
    }

    /// The first of `entries` that still fit.
    fn cut<'a>(&mut self, entries: &'a [Entry]) -> &'a [Entry] {
        let mut taken = 0;
        for entry in entries.iter().take(self.room()) {
            let bytes = self.bytes + entry.bytes as usize;
            if bytes > self.bounds.bytes_max && (taken > 0 || !self.events.is_empty()) {
                self.bytes = self.bounds.bytes_max.max(self.bytes);
                break;
            }
            self.bytes = bytes;
            taken += 1;
        }
        &entries[..taken]
    }
}

fn read_snapshot(
    catalog: &Catalog,
    integration: IntegrationId,
    after: &mut EventId,
    batch: &mut Batch,
) -> Result<(), Miss> {
    let snapshot = catalog.snapshot(integration, *after, batch.room());
    let start = snapshot.sealed.partition_point(|sealed| sealed.summary.last <= *after);
    for sealed in snapshot.sealed[start..].iter().filter(|sealed| sealed.summary.events > 0) {
        if batch.is_full() {
            return Ok(());
        }
        let (segment, entries) = with_index(catalog, sealed, |index| index.after(integration, *after, batch.room()))?;
        read_entries(catalog, &segment, &entries, after, batch)?;
    }
    if batch.is_full() {
        return Ok(());
    }
    read_entries(catalog, &snapshot.active, &snapshot.active_entries, after, batch)
}

fn read_entries(
    catalog: &Catalog,
    segment: &OpenSegment,
    entries: &[Entry],
    after: &mut EventId,
    batch: &mut Batch,
) -> Result<(), Miss> {
    let entries = batch.cut(entries);
    read_runs(catalog, segment, entries, |entry, record| {
        let stored = decode(record, segment.salt, entry.id());
        if stored.is_none() {
            damaged(catalog, segment, entry)?;
        }
        *after = entry.id();
        batch.events.push(stored.map(Arc::new).ok_or(entry.id()));
        Ok(())
    })
}

/// Reads records, ascending by offset, those that lie close together at once, and hands each to `take`.
fn read_runs(
    catalog: &Catalog,
    segment: &OpenSegment,
    entries: &[Entry],
    mut take: impl FnMut(&Entry, &[u8]) -> Result<(), Miss>,
) -> Result<(), Miss> {
    let mut rest = entries;
    let mut buffer = Vec::new();
    while let Some(first) = rest.first() {
        let start = u64::from(first.offset);
        let end_of = |entry: &Entry| u64::from(entry.offset) + u64::from(entry.bytes);
        let together = rest
            .windows(2)
            .take_while(|pair| {
                u64::from(pair[1].offset) <= end_of(&pair[0]) + GAP_BYTES_MAX
                    && end_of(&pair[1]) - start <= READ_BYTES_MAX
            })
            .count()
            + 1;
        let (run, later) = rest.split_at(together);
        let bytes = end_of(&run[together - 1]) - start;
        buffer.resize(usize::try_from(bytes).expect("offsets are 32 bits"), 0);
        segment.file.read_exact_at(&mut buffer, start).map_err(|error| unreadable(catalog, segment, &error))?;
        for entry in run {
            let place = (entry.offset - first.offset) as usize;
            take(entry, &buffer[place..place + entry.bytes as usize])?;
        }
        rest = later;
    }
    Ok(())
}

/// Bytes of the records of an integration's events after `after`.
pub(crate) fn bytes_after(catalog: &Catalog, integration: IntegrationId, mut after: EventId) -> Result<u64, LogError> {
    let mut bytes = 0;
    loop {
        match bytes_after_in_snapshot(catalog, integration, &mut after, &mut bytes) {
            Ok(true) => return Ok(bytes),
            Ok(false) | Err(Miss::Gone) => {}
            Err(Miss::Failed(error)) => return Err(error),
        }
    }
}

/// Counts on; whether that was all. The active segment's index is held for a page at a time: its writer waits for it.
fn bytes_after_in_snapshot(
    catalog: &Catalog,
    integration: IntegrationId,
    after: &mut EventId,
    bytes: &mut u64,
) -> Result<bool, Miss> {
    let snapshot = catalog.snapshot(integration, *after, COUNT_PAGE);
    let start = snapshot.sealed.partition_point(|sealed| sealed.summary.last <= *after);
    for sealed in snapshot.sealed[start..].iter().filter(|sealed| sealed.summary.events > 0) {
        let (_, more) = with_index(catalog, sealed, |index| index.bytes_after(integration, *after))?;
        *bytes += more;
        *after = sealed.summary.last;
    }
    let entries = snapshot.active_entries;
    *bytes += entries.iter().map(|entry| u64::from(entry.bytes)).sum::<u64>();
    *after = entries.last().map_or(*after, Entry::id);
    Ok(entries.len() < COUNT_PAGE)
}

/// The newest events before `before`, newest first.
pub(crate) fn latest(
    catalog: &Catalog,
    integration: Option<IntegrationId>,
    before: EventId,
    limit: usize,
) -> Result<Vec<EventId>, LogError> {
    loop {
        match latest_snapshot(catalog, integration, before, limit) {
            Ok(ids) => return Ok(ids),
            Err(Miss::Gone) => {}
            Err(Miss::Failed(error)) => return Err(error),
        }
    }
}

fn latest_snapshot(
    catalog: &Catalog,
    integration: Option<IntegrationId>,
    before: EventId,
    limit: usize,
) -> Result<Vec<EventId>, Miss> {
    let (sealed, _, mut ids) = catalog.look(|index| index.before(integration, before, limit));
    for sealed in sealed.iter().rev().filter(|sealed| sealed.summary.events > 0 && sealed.summary.prev_last < before) {
        if ids.len() >= limit {
            break;
        }
        let (_, more) = with_index(catalog, sealed, |index| index.before(integration, before, limit - ids.len()))?;
        ids.extend(more);
    }
    Ok(ids)
}

/// The events after `after`, oldest first.
pub(crate) fn following(
    catalog: &Catalog,
    integration: Option<IntegrationId>,
    after: EventId,
    limit: usize,
) -> Result<Vec<EventId>, LogError> {
    loop {
        match following_snapshot(catalog, integration, after, limit) {
            Ok(ids) => return Ok(ids),
            Err(Miss::Gone) => {}
            Err(Miss::Failed(error)) => return Err(error),
        }
    }
}

fn following_snapshot(
    catalog: &Catalog,
    integration: Option<IntegrationId>,
    after: EventId,
    limit: usize,
) -> Result<Vec<EventId>, Miss> {
    let (sealed, _, active) = catalog.look(|index| index.ids_after(integration, after, limit));
    let start = sealed.partition_point(|sealed| sealed.summary.last <= after);
    let mut ids = Vec::new();
    for sealed in sealed[start..].iter().filter(|sealed| sealed.summary.events > 0) {
        if ids.len() >= limit {
            return Ok(ids);
        }
        let (_, more) = with_index(catalog, sealed, |index| index.ids_after(integration, after, limit - ids.len()))?;
        ids.extend(more);
    }
    ids.extend(active.into_iter().take(limit - ids.len()));
    Ok(ids)
}

/// How many events there are after `after`.
pub(crate) fn count_after(
    catalog: &Catalog,
    integration: Option<IntegrationId>,
    after: EventId,
) -> Result<u64, LogError> {
    loop {
        match count_snapshot(catalog, integration, after) {
            Ok(events) => return Ok(events),
            Err(Miss::Gone) => {}
            Err(Miss::Failed(error)) => return Err(error),
        }
    }
}

fn count_snapshot(catalog: &Catalog, integration: Option<IntegrationId>, after: EventId) -> Result<u64, Miss> {
    let (sealed, _, mut events) = catalog.look(|index| index.count_after(integration, after));
    let start = sealed.partition_point(|sealed| sealed.summary.last <= after);
    for sealed in sealed[start..].iter().filter(|sealed| sealed.summary.events > 0) {
        events += match integration {
            None if after <= sealed.summary.prev_last => u64::from(sealed.summary.events),
            _ => with_index(catalog, sealed, |index| index.count_after(integration, after))?.1,
        };
    }
    Ok(events)
}

/// Looks into a sealed segment's index, which is made again when it does not read.
fn with_index<T>(
    catalog: &Catalog,
    sealed: &Sealed,
    look: impl Fn(&IndexView) -> io::Result<T>,
) -> Result<(Arc<OpenSegment>, T), Miss> {
    let number = sealed.summary.number;
    let failed = |problem: &dyn std::fmt::Display| {
        if catalog.has(number) {
            Miss::Failed(LogError::Failed(format!("reading segment {number:016x}: {problem}").into()))
        } else {
            Miss::Gone
        }
    };
    let segment = catalog.open(sealed).map_err(|error| failed(&chain(&error)))?;
    let problem = match catalog.index(sealed, &segment).and_then(|index| look(&index)) {
        Ok(found) => return Ok((segment, found)),
        Err(problem) => problem,
    };
    if !catalog.has(number) {
        return Err(Miss::Gone);
    }
    warn!(segment = number, %problem, "the index of a sealed segment does not read; it is made again");
    let index = rebuild_index(catalog, sealed).map_err(|error| failed(&chain(&error)))?;
    sealed.set_memory(Some(Arc::new(index)));
    let view = catalog.index(sealed, &segment).map_err(|error| failed(&error))?;
    look(&view).map(|found| (segment, found)).map_err(|error| failed(&error))
}

/// Reads the record of an entry as it is; for trimming, which copies it.
pub(crate) fn read_raw(
    catalog: &Catalog,
    segment: &OpenSegment,
    entry: &Entry,
) -> Result<Option<(RecordHeader, Bytes)>, LogError> {
    let bytes = read_bytes(catalog, segment, entry).map_err(|miss| match miss {
        Miss::Failed(error) => error,
        Miss::Gone => LogError::Closed,
    })?;
    Ok(RecordHeader::decode(&bytes, segment.salt)
        .filter(|header| header.id == entry.id() && header.record_bytes() == bytes.len())
        .map(|header| (header, bytes.slice(RECORD_HEADER_BYTES..))))
}

/// A sealed segment's files, and what `look` finds in its index; for trimming, under which no segment goes.
pub(crate) fn look_into<T>(
    catalog: &Catalog,
    sealed: &Sealed,
    look: impl Fn(&IndexView) -> io::Result<T>,
) -> Result<(Arc<OpenSegment>, T), LogError> {
    with_index(catalog, sealed, look).map_err(|miss| match miss {
        Miss::Failed(error) => error,
        Miss::Gone => LogError::Closed,
    })
}

fn read_bytes(catalog: &Catalog, segment: &OpenSegment, entry: &Entry) -> Result<Bytes, Miss> {
    let mut bytes = vec![0; entry.bytes as usize];
    segment
        .file
        .read_exact_at(&mut bytes, u64::from(entry.offset))
        .map_err(|error| unreadable(catalog, segment, &error))?;
    Ok(bytes.into())
}

/// The event of a record, if it is whole and the one that was looked for.
/// A record of the tail, which has bytes of its own.
pub(crate) fn decode_recent(record: &TailRecord) -> Stored {
    let event = RecordHeader::decode(&record.bytes, record.salt)
        .and_then(|header| decode_event(&header, &record.bytes.slice(RECORD_HEADER_BYTES..)));
    event.map(Arc::new).ok_or(record.id)
}

fn decode(record: &[u8], salt: u64, id: EventId) -> Option<Event> {
    let header = RecordHeader::decode(record, salt).filter(|header| header.id == id)?;
    // A copy of its own: an event that waits for its retry must not hold a whole read in memory.
    decode_event(&header, &Bytes::copy_from_slice(&record[RECORD_HEADER_BYTES..]))
}

fn unreadable(catalog: &Catalog, segment: &OpenSegment, problem: &io::Error) -> Miss {
    if catalog.has(segment.number) {
        Miss::Failed(LogError::Failed(format!("reading segment {:016x}: {problem}", segment.number).into()))
    } else {
        Miss::Gone
    }
}

fn damaged(catalog: &Catalog, segment: &OpenSegment, entry: &Entry) -> Result<(), Miss> {
    if !catalog.has(segment.number) {
        return Err(Miss::Gone);
    }
    error!(event = %entry.id(), segment = segment.number, offset = entry.offset, "a stored event is damaged");
    Ok(())
}

fn chain(error: &OpenError) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
