//! One file of the search index: rows by event, stored column by column, so that a search reads only what it asks for.
//!
//! Layout: a head of [`HEAD_BYTES`] (magic, rows, first and last event, checksum of these), then the columns
//! provider's id, type, endpoint (four bytes a row each, hashes but for the last), event (sixteen bytes a row).

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use hookmill_actors::{
    domain::ids::EventId,
    ports::state_store::{Note, NoteFilter},
};

const MAGIC: &[u8; 8] = b"hmsearch";
const HEAD_BYTES: usize = 8 + 8 + 16 + 16 + 4;
/// Bytes of a row in the first three columns.
const CELL: usize = 4;
const EVENT: usize = 16;
/// A text that is not there.
const NONE: u32 = 0;
/// With fewer hits than this their events are read one by one.
const READ_ALONE_MAX: usize = 64;
/// Cells that are compared together.
const PASSED_AT_ONCE: usize = 64;

/// What is kept of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::storage) struct Row {
    pub(in crate::storage) event: EventId,
    endpoint: u32,
    event_type: u32,
    provider_id: u32,
}

impl Row {
    pub(in crate::storage) fn of(note: &Note) -> Self {
        Self {
            event: note.event,
            endpoint: note.endpoint.map_or(0, |endpoint| endpoint.0),
            event_type: note.event_type.as_deref().map_or(NONE, hash),
            provider_id: note.provider_id.as_deref().map_or(NONE, hash),
        }
    }
}

/// A collision costs a look at a note, so this need not be a strong one.
fn hash(text: &str) -> u32 {
    crc32fast::hash(text.as_bytes()).max(NONE + 1)
}

/// What is looked for, as rows have it.
pub(super) struct Probe {
    first: EventId,
    before: EventId,
    integration: Option<u32>,
    endpoint: Option<u32>,
    /// Empty where the notes have to be looked at.
    types: Vec<u32>,
    provider_id: Option<u32>,
}

impl Probe {
    pub(super) fn new(filter: &NoteFilter, first: EventId, before: EventId) -> Self {
        let names = if filter.has_open_types() { &[][..] } else { &filter.types };
        Self {
            first,
            before,
            integration: filter.integration.map(|integration| integration.0),
            endpoint: filter.endpoint.map(|endpoint| endpoint.0),
            types: names.iter().map(|name| hash(name)).collect(),
            provider_id: filter.provider_id.as_deref().map(hash),
        }
    }

    pub(super) fn passes(&self, row: &Row) -> bool {
        self.provider_id.is_none_or(|wanted| row.provider_id == wanted)
            && (self.types.is_empty() || self.types.contains(&row.event_type))
            && self.endpoint.is_none_or(|wanted| row.endpoint == wanted)
            && self.passes_event(row.event)
    }

    fn passes_event(&self, event: EventId) -> bool {
        event >= self.first && event < self.before && self.integration.is_none_or(|it| event.integration().0 == it)
    }
}

/// The places of cells that are wanted. Most blocks have few of them or none, so cells are passed many at a time, in a loop
/// that compiles to vector instructions: 2 us a block where one after the other takes 13.
fn matching(cells: &[[u8; CELL]], wanted: &[[u8; CELL]]) -> Vec<usize> {
    let mut places = Vec::new();
    for (first, cells) in (0..).step_by(PASSED_AT_ONCE).zip(cells.chunks(PASSED_AT_ONCE)) {
        let holds = |wanted: &[u8; CELL]| cells.iter().fold(0, |holds, cell| holds | u8::from(cell == wanted)) > 0;
        if wanted.iter().any(holds) {
            let hits = (first..).zip(cells).filter(|(_, cell)| wanted.contains(cell));
            places.extend(hits.map(|(place, _)| place));
        }
    }
    places
}

/// A file of rows.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) path: PathBuf,
    pub(super) number: u64,
    pub(super) first: EventId,
    pub(super) last: EventId,
    rows: usize,
}

impl Block {
    pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
        dir.join(format!("{number:016x}"))
    }

    /// Writes rows, at least one, in any order; what stands there twice is written once. On disk when it returns.
    pub(super) fn write(dir: &Path, number: u64, rows: &[Row]) -> io::Result<Self> {
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        rows.dedup_by_key(|row| row.event);
        let ends = rows.first().zip(rows.last()).map(|(first, last)| (first.event, last.event));
        let (first, last) = ends.ok_or_else(|| io::Error::other("a block has rows"))?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + rows.len() * (3 * CELL + EVENT));
        bytes.extend(MAGIC);
        bytes.extend((rows.len() as u64).to_be_bytes());
        bytes.extend(first.to_bytes());
        bytes.extend(last.to_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes.extend(rows.iter().flat_map(|row| row.provider_id.to_be_bytes()));
        bytes.extend(rows.iter().flat_map(|row| row.event_type.to_be_bytes()));
        bytes.extend(rows.iter().flat_map(|row| row.endpoint.to_be_bytes()));
        bytes.extend(rows.iter().flat_map(|row| row.event.to_bytes()));
        let path = Self::path(dir, number);
        let mut file = File::create(&path)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(Self { path, number, first, last, rows: rows.len() })
    }

    /// Reads a file's head; fails where the file is not whole.
    pub(super) fn open(dir: &Path, number: u64) -> io::Result<Self> {
        let path = Self::path(dir, number);
        let file = File::open(&path)?;
        let mut head = [0; HEAD_BYTES];
        file.read_exact_at(&mut head, 0)?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
        let (told, checksum) = head.split_last_chunk::<4>().ok_or_else(damaged)?;
        let told: &[u8; HEAD_BYTES - 4] = told.try_into().map_err(|_| damaged())?;
        let (magic, rest) = told.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (rows, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (first, last) = rest.split_first_chunk::<16>().ok_or_else(damaged)?;
        let rows = usize::try_from(u64::from_be_bytes(*rows)).map_err(|_| damaged())?;
        let last: [u8; 16] = last.try_into().map_err(|_| damaged())?;
        let bytes = rows.checked_mul(3 * CELL + EVENT).and_then(|bytes| bytes.checked_add(HEAD_BYTES));
        let whole = magic == MAGIC
            && u32::from_be_bytes(*checksum) == crc32fast::hash(told)
            && bytes.is_some_and(|bytes| bytes as u64 == fs::metadata(&path).map_or(0, |it| it.len()));
        if !whole {
            return Err(damaged());
        }
        let (first, last) = (EventId::from_bytes(*first), EventId::from_bytes(last));
        Ok(Self { path, number, first, last, rows })
    }

    /// The events of the rows that pass, the newest of them, as many as `limit`.
    pub(super) fn find(&self, probe: &Probe, limit: usize) -> io::Result<Vec<EventId>> {
        let file = File::open(&self.path)?;
        let mut hits: Option<Vec<usize>> = None;
        let mut narrow = |place: usize, wanted: &[u32]| -> io::Result<()> {
            if hits.as_ref().is_some_and(Vec::is_empty) {
                return Ok(());
            }
            let column = self.column(&file, place * CELL, CELL)?;
            let (cells, _) = column.as_chunks::<CELL>();
            let wanted: Vec<[u8; CELL]> = wanted.iter().map(|wanted| wanted.to_be_bytes()).collect();
            hits = Some(match hits.take() {
                None => matching(cells, &wanted),
                Some(hits) => hits.into_iter().filter(|row| wanted.contains(&cells[*row])).collect(),
            });
            Ok(())
        };
        if let Some(wanted) = probe.provider_id {
            narrow(0, &[wanted])?;
        }
        if !probe.types.is_empty() {
            narrow(1, &probe.types)?;
        }
        if let Some(wanted) = probe.endpoint {
            narrow(2, &[wanted])?;
        }
        let events = match hits {
            Some(hits) if hits.len() <= READ_ALONE_MAX => {
                hits.into_iter().map(|row| self.event(&file, row)).collect::<io::Result<Vec<_>>>()?
            }
            hits => {
                let column = self.column(&file, 3 * CELL, EVENT)?;
                let (events, _) = column.as_chunks::<EVENT>();
                let event = |row: usize| EventId::from_bytes(events[row]);
                match hits {
                    Some(hits) => hits.into_iter().map(event).collect(),
                    None => (0..self.rows).map(event).collect(),
                }
            }
        };
        // Rows are by event.
        Ok(events.into_iter().rev().filter(|event| probe.passes_event(*event)).take(limit).collect())
    }

    fn column(&self, file: &File, before: usize, width: usize) -> io::Result<Vec<u8>> {
        let mut column = vec![0; self.rows * width];
        file.read_exact_at(&mut column, (HEAD_BYTES + self.rows * before) as u64)?;
        Ok(column)
    }

    fn event(&self, file: &File, row: usize) -> io::Result<EventId> {
        let mut event = [0; EVENT];
        file.read_exact_at(&mut event, (HEAD_BYTES + self.rows * 3 * CELL + row * EVENT) as u64)?;
        Ok(EventId::from_bytes(event))
    }
}
