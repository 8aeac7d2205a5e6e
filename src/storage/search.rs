//! Finds events by what intake noted of them: endpoint, type, provider's id. An index beside the notes, made from them.
//!
//! A store with a key for each would cost a random page written for each event. So rows of hashes are gathered in memory
//! in the order that notes are committed, and every [`BLOCK_ROWS`] of them become one file of columns, which is read
//! through: a million events cost a few milliseconds for a column, and 28 bytes each on disk. A hit is held against its
//! note, so that the hashes need not be exact.
//!
//! Its thread `search` writes the files. A crash loses the rows in memory, and files that were not yet entered in the
//! tree `search`; the notes are read again from where the tree says that each integration's rows had come. Files that
//! are missing or damaged have everything read again. Nothing here is needed for an event to be stored or delivered.

mod block;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use hookmill_actors::{
    domain::ids::{EventId, IntegrationId},
    ports::{event_log::LogError, state_store::NoteFilter},
};

pub(super) use self::block::Row;
use self::block::{Block, Probe};
use super::{changes::malformed, keys, sled_db::StateDb, values};

/// Rows of one file: under a megabyte.
const BLOCK_ROWS: usize = if cfg!(test) { 64 } else { 1 << 15 };
/// Keys of the tree: how far an integration's rows are in files, and which files there are.
const UPTO: u8 = b'u';
const FILE: u8 = b'f';

/// The index. Dropping it stops its thread.
pub(super) struct Search {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

struct Inner {
    db: StateDb,
    /// The state's, with the notes.
    notes: sled::Tree,
    tree: sled::Tree,
    dir: PathBuf,
    parts: Mutex<Parts>,
    turn: Condvar,
}

#[derive(Default)]
struct Parts {
    /// In the order they were committed.
    recent: Vec<Row>,
    /// On their way into a file.
    sealing: Option<Arc<Vec<Row>>>,
    /// By their last event.
    blocks: Vec<Arc<Block>>,
    /// What a former run has left is here too.
    is_loaded: bool,
    is_stopping: bool,
    /// It cannot be read or made; searches say so.
    failure: Option<Arc<str>>,
}

/// What a search has found: newest first, and where the next one goes on.
pub(super) type Found = (Vec<EventId>, Option<EventId>);

impl Search {
    /// Begins to make the index in the background.
    pub(super) fn open(db: StateDb, notes: sled::Tree) -> Result<Self, LogError> {
        let (tree, dir) = (db.tree("search")?, db.dir().join("search"));
        let inner = Arc::new(Inner { db, notes, tree, dir, parts: Mutex::default(), turn: Condvar::new() });
        let mine = inner.clone();
        let thread = std::thread::Builder::new().name("search".to_owned()).spawn(move || mine.run());
        let thread = thread.map_err(|error| LogError::Failed(format!("the search thread: {error}").into()))?;
        Ok(Self { inner, thread: Some(thread) })
    }

    /// Takes in what was committed.
    pub(super) fn add(&self, rows: Vec<Row>) {
        let mut parts = self.inner.parts();
        if parts.failure.is_some() {
            return;
        }
        parts.recent.extend(rows);
        if parts.recent.len() >= BLOCK_ROWS && parts.sealing.is_none() {
            self.inner.turn.notify_all();
        }
    }

    /// Events up to this one are gone.
    pub(super) fn forget(&self, upto: EventId) -> Result<(), LogError> {
        let gone: Vec<Arc<Block>> = self.inner.parts().blocks.extract_if(.., |block| block.last <= upto).collect();
        for block in gone {
            self.inner.db.guard(self.inner.tree.remove(file_key(block.number)))?;
            if let Err(error) = fs::remove_file(&block.path) {
                tracing::warn!(%error, file = %block.path.display(), "a file of the search index stays");
            }
        }
        Ok(())
    }

    /// Events that may pass, from `first` on and before `before`, newest first, as many as `limit`. Blocks for the disk.
    pub(super) fn candidates(
        &self,
        filter: &NoteFilter,
        (first, before): (EventId, EventId),
        limit: usize,
    ) -> Result<Found, LogError> {
        let probe = Probe::new(filter, first, before);
        let (recent, mut blocks) = {
            let mut parts = self.inner.parts();
            while !parts.is_loaded && parts.failure.is_none() {
                parts = self.inner.turn.wait(parts).unwrap_or_else(PoisonError::into_inner);
            }
            if let Some(failure) = &parts.failure {
                return Err(LogError::Failed(failure.clone()));
            }
            // The log's writer waits for this lock, so nothing is sorted under it.
            let sealing = parts.sealing.iter().flat_map(|rows| rows.iter());
            let passing = parts.recent.iter().chain(sealing).filter(|row| probe.passes(row));
            (passing.map(|row| row.event).collect::<Vec<_>>(), parts.blocks.clone())
        };
        let mut found = BTreeSet::from_iter(recent);
        while let Some(block) = blocks.pop() {
            // All that is left lies at or before the last event of this one.
            if found.range(block.last..).count() > limit {
                break;
            }
            if block.first >= before || block.last < first {
                continue;
            }
            match block.find(&probe, limit + 1) {
                Ok(events) => found.extend(events),
                // It was forgotten meanwhile, with its events.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LogError::Failed(format!("{}: {error}", block.path.display()).into())),
            }
        }
        let more = found.len() > limit;
        let events: Vec<EventId> = found.into_iter().rev().take(limit).collect();
        let next = events.last().copied().filter(|_| more);
        Ok((events, next))
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.inner.parts().is_stopping = true;
        self.inner.turn.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn run(&self) {
        let ended = self.load().and_then(|()| self.seal_now_and_then());
        if let Err(error) = ended {
            tracing::error!(%error, "events cannot be searched until the next start");
            let mut parts = self.parts();
            parts.failure = Some(error.to_string().into());
            parts.recent = Vec::new();
            self.turn.notify_all();
        }
    }

    fn seal_now_and_then(&self) -> Result<(), LogError> {
        loop {
            let rows = {
                let mut parts = self.parts();
                while parts.recent.len() < BLOCK_ROWS && !parts.is_stopping {
                    parts = self.turn.wait(parts).unwrap_or_else(PoisonError::into_inner);
                }
                if parts.is_stopping {
                    return Ok(());
                }
                let rows = Arc::new(std::mem::take(&mut parts.recent));
                parts.sealing = Some(rows.clone());
                rows
            };
            let block = self.seal(&rows)?;
            let mut parts = self.parts();
            parts.sealing = None;
            insert(&mut parts.blocks, block);
        }
    }

    /// Writes rows as a file, enters it, and then how far each integration has come: rows that a crash in between leaves
    /// behind come into another file once more, and a search tells each event once.
    fn seal(&self, rows: &[Row]) -> Result<Arc<Block>, LogError> {
        let last = self.db.guard(self.tree.scan_prefix([FILE]).keys().next_back().transpose())?;
        let number = last.and_then(|key| parse_file_key(&key)).unwrap_or(0) + 1;
        let block = self.db_free(Block::write(&self.dir, number, rows))?;
        let mut upto: BTreeMap<IntegrationId, EventId> = BTreeMap::new();
        for row in rows {
            let furthest = upto.entry(row.event.integration()).or_default();
            *furthest = row.event.max(*furthest);
        }
        self.db.guard(self.tree.insert(file_key(number), &[]))?;
        // Everybody else's writes and reads wait for a batch of sled's, and all pages that it replaces stay in memory.
        for (integration, event) in upto {
            self.db.guard(self.tree.insert(upto_key(integration), &event.to_bytes()))?;
        }
        Ok(Arc::new(block))
    }

    /// Takes in what a former run has left: its files, and the notes beyond them.
    fn load(&self) -> Result<(), LogError> {
        self.db_free(fs::create_dir_all(&self.dir))?;
        let mut blocks = Vec::new();
        if let Some(files) = self.files()? {
            blocks = files;
        } else {
            tracing::warn!(dir = %self.dir.display(), "the search index is not whole; it is made again");
            self.reset()?;
        }
        let mut rows = Vec::new();
        let mut next_owner = Some(0);
        while let Some(owner) = next_owner {
            let last = keys::owned(keys::NOTES, u32::MAX, EventId::MAX);
            let Some(item) = self.notes.range(keys::owned(keys::NOTES, owner, EventId::ZERO)..=last).next() else {
                break;
            };
            let (key, _) = self.db.guard(item)?;
            let (owner, _) = keys::parse_owned(&key).ok_or_else(|| malformed(&key))?;
            let upto = self.upto(IntegrationId(owner))?;
            let (first, last) = (keys::owned(keys::NOTES, owner, upto), keys::owned(keys::NOTES, owner, EventId::MAX));
            for item in self.notes.range(first..=last) {
                let (key, value) = self.db.guard(item)?;
                let notes = values::decode_notes(&value).ok_or_else(|| malformed(&key))?;
                rows.extend(notes.iter().filter(|note| note.event > upto).map(Row::of));
                if rows.len() >= BLOCK_ROWS {
                    insert(&mut blocks, self.seal(&rows)?);
                    rows.clear();
                }
                if self.parts().is_stopping {
                    return Ok(());
                }
            }
            next_owner = owner.checked_add(1);
        }
        let mut parts = self.parts();
        // What was committed meanwhile may be among both; a search tells each event once.
        parts.recent.extend(rows);
        parts.blocks = blocks;
        parts.is_loaded = true;
        self.turn.notify_all();
        Ok(())
    }

    /// The files that were entered, by their last event; `None` where one is not whole. Files that were not are removed.
    fn files(&self) -> Result<Option<Vec<Arc<Block>>>, LogError> {
        let entered = self.tree.scan_prefix([FILE]).keys();
        let entered: Vec<u64> = entered
            .map(|key| self.db.guard(key).and_then(|key| parse_file_key(&key).ok_or_else(|| malformed(&key))))
            .collect::<Result<_, _>>()?;
        for file in self.db_free(fs::read_dir(&self.dir))? {
            let path = self.db_free(file)?.path();
            if !entered.iter().any(|number| Block::path(&self.dir, *number) == path) {
                self.db_free(fs::remove_file(&path))?;
            }
        }
        let mut blocks: Vec<Arc<Block>> = Vec::new();
        for number in entered {
            let Ok(block) = Block::open(&self.dir, number) else { return Ok(None) };
            blocks.push(Arc::new(block));
        }
        blocks.sort_by_key(|block| block.last);
        Ok(Some(blocks))
    }

    fn reset(&self) -> Result<(), LogError> {
        self.db.guard(self.tree.clear())?;
        for file in self.db_free(fs::read_dir(&self.dir))? {
            self.db_free(file.and_then(|file| fs::remove_file(file.path())))?;
        }
        Ok(())
    }

    fn upto(&self, integration: IntegrationId) -> Result<EventId, LogError> {
        let key = upto_key(integration);
        match self.db.guard(self.tree.get(key))? {
            Some(value) => value.as_ref().try_into().map(EventId::from_bytes).map_err(|_| malformed(&key)),
            None => Ok(EventId::ZERO),
        }
    }

    /// Trouble with the files is no trouble of the database.
    fn db_free<T>(&self, answer: io::Result<T>) -> Result<T, LogError> {
        answer.map_err(|error| LogError::Failed(format!("{}: {error}", self.dir.display()).into()))
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        // Each change of it is whole by itself.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert(blocks: &mut Vec<Arc<Block>>, block: Arc<Block>) {
    let place = blocks.partition_point(|other| other.last <= block.last);
    blocks.insert(place, block);
}

fn file_key(number: u64) -> [u8; 9] {
    let mut key = [FILE; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

fn parse_file_key(key: &[u8]) -> Option<u64> {
    key.get(1..)?.try_into().ok().map(u64::from_be_bytes)
}

fn upto_key(integration: IntegrationId) -> [u8; 5] {
    let [a, b, c, d] = integration.0.to_be_bytes();
    [UPTO, a, b, c, d]
}

#[cfg(test)]
mod tests;
