//! The log's helper thread: prepares the next segment's file, writes sidecars, watches free space.
//!
//! None of this may hold up a commit, so it is done beside the writer. The writer waits here only when it fills
//! segments faster than the disk takes zeros. A crash costs nothing: spares are reused or removed, and missing
//! sidecars made again, when the log opens.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tracing::warn;

use super::{
    catalog::{Catalog, Sealed, lock},
    segment::{Spare, allocate, segment_path, sidecar_path, spare_path},
    sidecar,
    stall::{Pulses, Work},
};

/// Files of trimmed segments that wait to be used again, at most.
const RECYCLED_MAX: usize = 2;
/// The helper answers within this, or is taken for dead: an allocation of the largest segment on a slow disk.
const SPARE_WAIT_MAX: Duration = Duration::from_mins(2);

/// Between the parts of a new file: filling one takes about a quarter of a second then, where the largest load
/// measured takes half a second to use one up, and commits are not held up by it.
const FILL_PAUSE: Duration = Duration::from_millis(3);
/// The helper's niceness: its work can always wait for a commit's.
const NICENESS: i32 = 10;

/// Prepared files and what asks for them.
pub(crate) struct Space {
    catalog: Arc<Catalog>,
    segment_bytes: u64,
    margin_bytes: u64,
    pool: Mutex<Pool>,
    ready: Condvar,
    jobs: Sender<Job>,
    next_spare: AtomicU64,
    stopped: AtomicBool,
    pulses: Arc<Pulses>,
}

#[derive(Default)]
struct Pool {
    spare: Option<Spare>,
    recycled: VecDeque<PathBuf>,
    /// Somebody waits; the helper's next failure is for them.
    wanted: bool,
    failure: Option<io::Error>,
}

/// What the helper is asked to do.
pub(crate) enum Job {
    /// Write the sidecar of a sealed segment.
    Seal(Arc<Sealed>),
    /// A spare was taken.
    Prepare,
    /// End.
    Stop,
}

/// Looks at free space; called on the helper's thread.
pub(crate) trait SpaceWatch: Send {
    /// `free`: bytes, or why they are not known.
    fn free(&self, free: io::Result<u64>);
}

impl Space {
    /// Space, and the receiver for [`Space::run`].
    pub(crate) fn new(
        catalog: Arc<Catalog>,
        segment_bytes: u64,
        margin_bytes: u64,
        recycled: Vec<PathBuf>,
        next_spare: u64,
        pulses: Arc<Pulses>,
    ) -> (Arc<Self>, Receiver<Job>) {
        #[allow(
            clippy::disallowed_methods,
            reason = "one or two small jobs a segment, and the writer waits for segments here"
        )]
        let (jobs, receiver) = crossbeam_channel::unbounded();
        let pool = Mutex::new(Pool { recycled: recycled.into(), ..Pool::default() });
        let space = Self {
            catalog,
            segment_bytes,
            margin_bytes,
            pool,
            ready: Condvar::new(),
            jobs,
            next_spare: AtomicU64::new(next_spare),
            stopped: AtomicBool::new(false),
            pulses,
        };
        (Arc::new(space), receiver)
    }

    /// Takes the prepared file, or waits for it. A segment larger than usual is allocated here and now.
    pub(crate) fn take(&self, bytes: u64) -> io::Result<Spare> {
        if bytes > self.segment_bytes {
            self.ensure_room(bytes)?;
            return allocate(&*self.catalog.disk, self.fresh_path(), bytes, || {});
        }
        let mut pool = lock(&self.pool);
        loop {
            if let Some(spare) = pool.spare.take() {
                pool.wanted = false;
                drop(pool);
                self.ask(Job::Prepare);
                return Ok(spare);
            }
            if let Some(failure) = pool.failure.take() {
                pool.wanted = false;
                return Err(failure);
            }
            if self.stopped.load(Relaxed) {
                return Err(io::Error::other("the log's helper thread has ended"));
            }
            pool.wanted = true;
            self.ask(Job::Prepare);
            let (back, wait) = self.ready.wait_timeout(pool, SPARE_WAIT_MAX).unwrap_or_else(PoisonError::into_inner);
            pool = back;
            if wait.timed_out() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no segment file was prepared in time"));
            }
        }
    }

    /// Hands a job to the helper.
    pub(crate) fn ask(&self, job: Job) {
        // A helper that has ended leaves spares unmade and sidecars unwritten: the writer hears of the first, the
        // next start makes the second.
        let _ = self.jobs.send(job);
    }

    /// Takes a trimmed segment's file: keeps it to be used again, or removes it. Its old name is durably gone when
    /// this returns, before any byte of it changes.
    pub(crate) fn retire(&self, number: u64, file_bytes: u64) -> io::Result<()> {
        let disk = &*self.catalog.disk;
        let dir = &self.catalog.dir;
        let keep = file_bytes == self.segment_bytes && lock(&self.pool).recycled.len() < RECYCLED_MAX;
        match disk.remove(&sidecar_path(dir, number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if !keep {
            disk.remove(&segment_path(dir, number))?;
            return disk.sync_dir(dir);
        }
        let path = self.fresh_path();
        disk.rename(&segment_path(dir, number), &path)?;
        disk.sync_dir(dir)?;
        lock(&self.pool).recycled.push_back(path);
        self.ask(Job::Prepare);
        Ok(())
    }

    /// The helper's thread, until it is stopped.
    pub(crate) fn run(&self, jobs: &Receiver<Job>, check_every: Duration, watch: &dyn SpaceWatch) {
        let _ended = Ended(self);
        // Where the system refuses, commits are only a little slower while files are prepared.
        let _ = rustix::process::nice(NICENESS);
        let mut unsaved: VecDeque<Arc<Sealed>> = VecDeque::new();
        loop {
            let looking = self.pulses.begin(Work::Prepare);
            watch.free(self.catalog.disk.free_bytes(&self.catalog.dir));
            drop(looking);
            self.prepare();
            match jobs.recv_timeout(check_every) {
                Ok(Job::Seal(sealed)) => unsaved.push_back(sealed),
                Ok(Job::Prepare) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.save(&mut unsaved);
        }
        self.save(&mut unsaved);
    }

    /// Makes a spare when there is none.
    fn prepare(&self) {
        let recycled = {
            let mut pool = lock(&self.pool);
            if pool.spare.is_some() {
                return;
            }
            pool.recycled.pop_front()
        };
        let filling = self.pulses.begin(Work::Prepare);
        let part_filled = || {
            filling.goes_on();
            self.breathe();
        };
        let made = match recycled {
            Some(path) => self.catalog.disk.open(&path).map(|file| Spare { path, file, bytes: self.segment_bytes }),
            None => self
                .ensure_room(self.segment_bytes)
                .and_then(|()| allocate(&*self.catalog.disk, self.fresh_path(), self.segment_bytes, part_filled)),
        };
        let mut pool = lock(&self.pool);
        match made {
            Ok(spare) => pool.spare = Some(spare),
            Err(error) if pool.wanted => pool.failure = Some(error),
            Err(_) => {}
        }
        self.ready.notify_all();
    }

    /// Refuses to fill the disk to its end: what sled then could not write would stop the process for good.
    fn ensure_room(&self, bytes: u64) -> io::Result<()> {
        let free = self.catalog.disk.free_bytes(&self.catalog.dir)?;
        if free < bytes.saturating_add(self.margin_bytes) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Leaves disk and processor to the commits for a moment, unless one waits for the file.
    fn breathe(&self) {
        let pool = lock(&self.pool);
        if !pool.wanted && !self.stopped.load(Relaxed) {
            let _ = self.ready.wait_timeout(pool, FILL_PAUSE);
        }
    }

    /// Writes sidecars; what cannot be written now is tried again later, its index stays in memory.
    fn save(&self, unsaved: &mut VecDeque<Arc<Sealed>>) {
        while let Some(sealed) = unsaved.front() {
            let _saving = self.pulses.begin(Work::Prepare);
            let number = sealed.summary.number;
            if let Some(index) = sealed.memory().filter(|_| self.catalog.has(number)) {
                let path = sidecar_path(&self.catalog.dir, number);
                if let Err(error) = sidecar::write(&*self.catalog.disk, &path, &sealed.summary, &index) {
                    warn!(%error, segment = number, "the index of a sealed segment could not be written; it stays in memory");
                    return;
                }
                sealed.set_memory(None);
            }
            unsaved.pop_front();
        }
    }

    fn fresh_path(&self) -> PathBuf {
        spare_path(&self.catalog.dir, self.next_spare.fetch_add(1, Relaxed))
    }
}

/// Frees a waiting writer when the helper ends, a panic included.
struct Ended<'a>(&'a Space);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Relaxed);
        self.0.ready.notify_all();
    }
}
