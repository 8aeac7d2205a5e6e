//! Requests that the ingress refused at a path that exists, kept for people: to see why, and to accept afterwards what
//! was refused because hookmill had the wrong secret.
//!
//! In: what the ingress offers, by a queue with a bound; what finds no room, or comes faster than the settings allow, is
//! dropped and counted, so that a flood of bad signatures costs neither the good ones' time nor memory nor disk. Out: one
//! file a request. Its thread `rejections` is the only one that adds; it owns the folder. No sender hears that one was kept,
//! so nothing is synced: a power cut may take the last of them, and a torn file goes at the next start. A backup takes them along ([`Pack`]). When the bounds are reached the oldest of the endpoint that holds the most goes first, so
//! that a flood at one endpoint leaves the others' alone.

mod pack;
mod record;
mod ring;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use bytes::Bytes;
use hookmill_actors::{
    domain::ids::EventId,
    metrics::{Counters, add},
};
use tokio::time::Instant;

pub use self::{
    pack::{Pack, unpack},
    record::{Rejection, RejectionId},
    ring::Entry,
};
use self::{
    record::{decode, encode},
    ring::{Ring, Throttle},
};
use crate::ingress::{RefusedRequest, RefusedRequests};

/// What an operator may turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectionOptions {
    /// Requests that are kept; 0: none.
    pub count_max: usize,
    /// Bytes that they take.
    pub bytes_max: u64,
    /// Bytes of one body; of a longer one only so many are kept, and it cannot be accepted afterwards.
    pub body_bytes_max: usize,
    /// Requests kept a second; more are dropped.
    pub per_second: u32,
}

/// The folder's name in the data directory.
pub const FOLDER: &str = "rejections";
/// Requests that wait for the thread.
const QUEUE_COUNT_MAX: usize = 1_024;
/// Their bytes.
const QUEUE_BYTES_MAX: usize = 4 << 20;
/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 256;

/// Why a rejection was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectionError {
    /// It is not there, or no longer.
    #[error("rejection {0} does not exist, or made room for later ones")]
    NotFound(RejectionId),
    /// It was accepted before.
    #[error("rejection {id} was accepted as event {event} already")]
    Accepted {
        /// Which.
        id: RejectionId,
        /// As what.
        event: EventId,
    },
    /// Somebody else accepts it at this moment.
    #[error("rejection {0} is being accepted by another request")]
    UnderWay(RejectionId),
    /// Its file cannot be read or written.
    #[error("rejection {id}: {problem}")]
    Io {
        /// Which.
        id: RejectionId,
        /// Why.
        problem: String,
    },
}

/// The kept requests. Clones share them.
#[derive(Clone)]
pub struct Rejections(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    options: RejectionOptions,
    ring: Mutex<Ring>,
    counters: Arc<Counters>,
    /// Bytes that wait for the thread.
    waiting: AtomicUsize,
}

/// Where the ingress hands in what it refused. Dropping all ends the thread.
pub struct RejectionDesk {
    shared: Arc<Shared>,
    throttle: Mutex<Throttle>,
    queue: SyncSender<Rejection>,
}

impl Rejections {
    /// Opens the folder, made if missing, and starts the thread. What is there is read by the thread.
    pub fn open(
        dir: PathBuf,
        options: RejectionOptions,
        counters: Arc<Counters>,
    ) -> io::Result<(Self, Arc<RejectionDesk>)> {
        make_private(&dir)?;
        let shared =
            Arc::new(Shared { dir, options, ring: Mutex::default(), counters, waiting: AtomicUsize::default() });
        let (queue, received) = sync_channel(QUEUE_COUNT_MAX);
        let mine = shared.clone();
        let (locked, is_locked) = sync_channel(1);
        thread::Builder::new().name("rejections".to_owned()).spawn(move || mine.run(&received, &locked))?;
        // Whoever asks from now on waits until the folder has been read.
        let _ = is_locked.recv();
        let throttle = Mutex::new(Throttle::new(options.per_second, Instant::now()));
        Ok((Self(shared.clone()), Arc::new(RejectionDesk { shared, throttle, queue })))
    }

    /// Entries that pass, newest first, below `before`; and whether there may be more.
    pub fn list(
        &self,
        before: Option<RejectionId>,
        limit: usize,
        passes: impl Fn(&Entry) -> bool,
    ) -> (Vec<Entry>, bool) {
        let ring = self.0.ring();
        let mut found: Vec<Entry> =
            ring.newest(before).filter(|entry| passes(entry)).take(limit + 1).cloned().collect();
        let more = found.len() > limit;
        found.truncate(limit);
        (found, more)
    }

    /// Entries that pass, oldest first, beyond `after`.
    pub fn oldest(&self, after: Option<RejectionId>, limit: usize, passes: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        self.0.ring().oldest(after).filter(|entry| passes(entry)).take(limit).cloned().collect()
    }

    /// What lists tell of one.
    pub fn entry(&self, id: RejectionId) -> Option<Entry> {
        self.0.ring().get(id).cloned()
    }

    /// One of them, whole. Blocks for the disk.
    pub fn get(&self, id: RejectionId) -> Result<Rejection, RejectionError> {
        if self.0.ring().get(id).is_none() {
            return Err(RejectionError::NotFound(id));
        }
        self.0.read(id)
    }

    /// Reserves one that is to be accepted, so that nobody else accepts it too.
    pub fn reserve(&self, id: RejectionId) -> Result<Reservation, RejectionError> {
        self.0.ring().reserve(id)?;
        Ok(Reservation { shared: self.0.clone(), id })
    }
}

/// A rejection that is being accepted. Dropped without [`Reservation::accepted`], it may be tried again.
pub struct Reservation {
    shared: Arc<Shared>,
    id: RejectionId,
}

impl Reservation {
    /// It is an event now, and will not be accepted again. Blocks for the disk.
    pub fn accepted(self, event: EventId, at_ms: u64) -> Result<(), RejectionError> {
        self.shared.ring().accept(self.id, event);
        let mut rejection = match self.shared.read(self.id) {
            // It made room for others meanwhile: then it cannot be accepted again either.
            Err(RejectionError::NotFound(_)) => return Ok(()),
            read => read?,
        };
        rejection.accepted = Some((event, at_ms));
        self.shared.write(&rejection, true).map(drop).map_err(|problem| io_error(self.id, &problem))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.ring().release(self.id);
    }
}

impl RefusedRequests for RejectionDesk {
    fn offer(&self, refused: &RefusedRequest<'_>) {
        let shared = &self.shared;
        if shared.options.count_max == 0 {
            return;
        }
        // Asked first: what comes too fast costs no copy and wakes nobody.
        if !self.throttle.lock().unwrap_or_else(PoisonError::into_inner).admits(Instant::now()) {
            add(&shared.counters.rejections_dropped, 1);
            return;
        }
        let kept = refused.body.len().min(shared.options.body_bytes_max);
        let bytes = kept + refused.headers.as_bytes().len() + refused.target.len() + RECORD_BYTES;
        if shared.waiting.fetch_add(bytes, Relaxed) + bytes > QUEUE_BYTES_MAX {
            shared.waiting.fetch_sub(bytes, Relaxed);
            add(&shared.counters.rejections_dropped, 1);
            return;
        }
        let rejection = Rejection {
            id: RejectionId::default(),
            at_ms: refused.at_ms,
            integration: refused.integration,
            endpoint: refused.endpoint,
            cause: refused.cause.into(),
            reason: clipped(refused.reason).into(),
            peer: refused.peer,
            method: refused.method.into(),
            target: refused.target.into(),
            headers: refused.headers.clone(),
            body: Bytes::copy_from_slice(&refused.body[..kept]),
            body_whole: refused.body_whole && kept == refused.body.len(),
            accepted: None,
        };
        match self.queue.try_send(rejection) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                shared.waiting.fetch_sub(bytes, Relaxed);
                add(&shared.counters.rejections_dropped, 1);
            }
        }
    }
}

/// What a record takes beside what was sent, about.
const RECORD_BYTES: usize = 256;

fn clipped(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

impl Shared {
    fn run(&self, received: &Receiver<Rejection>, locked: &SyncSender<()>) {
        {
            let mut ring = self.ring();
            let _ = locked.send(());
            if let Err(error) = self.load(&mut ring) {
                tracing::warn!(%error, dir = %self.dir.display(), "kept rejections could not all be read");
            }
        }
        while let Ok(rejection) = received.recv() {
            let bytes =
                rejection.body.len() + rejection.headers.as_bytes().len() + rejection.target.len() + RECORD_BYTES;
            self.waiting.fetch_sub(bytes, Relaxed);
            if let Err(error) = self.keep(rejection) {
                add(&self.counters.rejections_dropped, 1);
                tracing::warn!(%error, "a rejection could not be kept");
            }
        }
    }

    fn keep(&self, mut rejection: Rejection) -> io::Result<()> {
        rejection.id = self.ring().next_id(rejection.at_ms);
        let bytes = self.write(&rejection, false)?;
        add(&self.counters.rejections_kept, 1);
        let outdone = {
            let mut ring = self.ring();
            ring.insert(Entry::of(&rejection, bytes));
            ring.make_room(self.options.count_max, self.options.bytes_max)
        };
        self.remove(&outdone);
        Ok(())
    }

    /// Reads what a former run has left. What is damaged goes.
    fn load(&self, ring: &mut Ring) -> io::Result<()> {
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            let Some(id) = RejectionId::of_file(&path) else { continue };
            match fs::read(&path).ok().and_then(|bytes| Some((bytes.len(), decode(&bytes)?))) {
                Some((bytes, rejection)) if rejection.id == id => ring.insert(Entry::of(&rejection, bytes as u64)),
                _ => fs::remove_file(&path)?,
            }
        }
        let outdone = ring.make_room(self.options.count_max, self.options.bytes_max);
        self.remove(&outdone);
        Ok(())
    }

    fn read(&self, id: RejectionId) -> Result<Rejection, RejectionError> {
        match fs::read(self.path(id)) {
            Ok(bytes) => decode(&bytes).ok_or_else(|| io_error(id, &"its file is damaged")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(RejectionError::NotFound(id)),
            Err(error) => Err(io_error(id, &error)),
        }
    }

    /// Writes its file; how many bytes. `again` replaces what is there, whole or not at all.
    fn write(&self, rejection: &Rejection, again: bool) -> io::Result<u64> {
        let bytes = encode(rejection);
        let path = self.path(rejection.id);
        if again {
            let draft = path.with_extension("new");
            fs::write(&draft, &bytes)?;
            fs::rename(&draft, &path)?;
        } else {
            // A torn file is found by its checksum.
            fs::write(&path, &bytes)?;
        }
        Ok(bytes.len() as u64)
    }

    fn remove(&self, outdone: &[RejectionId]) {
        for id in outdone {
            if let Err(error) = fs::remove_file(self.path(*id)) {
                tracing::warn!(%error, rejection = %id, "a rejection could not be removed");
            }
        }
    }

    fn path(&self, id: RejectionId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Each change of it is whole by itself.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn io_error(id: RejectionId, problem: &dyn std::fmt::Display) -> RejectionError {
    RejectionError::Io { id, problem: problem.to_string() }
}

/// What was refused may hold what nobody else should read.
fn make_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests;
