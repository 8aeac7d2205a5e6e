//! The sled database under the state and the configuration: opening it, syncing it, and its traps.
//!
//! [`super::sled_state`] and [`super::sled_config`] each own a tree of it. A crash costs what was not synced; the
//! event log replays that for the state, and the configuration syncs before it answers.
//!
//! What sled 0.34.7 asks for, from its source:
//! - `flush()` hands its buffers to the kernel and no more, so [`StateDb::sync`] calls `sync_data` on a second
//!   handle of the same file after it.
//! - A leaf of up to 17 items is written as one log item, and an item above a quarter of a segment becomes a file in
//!   `blobs/` that nothing ever syncs. [`VALUE_BYTES_MAX`] keeps leaves far below that.
//! - `flush_every_ms(None)` would also switch off the reuse of its segments.
//! - `mode` is read nowhere; the cache's default of 1 GiB is.
//! - A kill while it opens leaves a half-written `snap.*.generating`, which the next opening would take for the
//!   newest snapshot and refuse for ever. The one before it is still there, so [`StateDb::open`] removes the draft.
//! - Whoever extends its file waits, under its accountant's lock, for truncations that are queued in a pool of seven
//!   threads, each of which takes that lock after a write: with enough writes under way before a truncation it stands
//!   still for ever, even where one thread alone writes. [`super::stall`] finds that.
//! - On damaged files it panics as often as it returns an error, at the opening or at the first read.
//! - After an I/O error nothing it holds can be trusted, and a failed sync repeated may report success for pages that
//!   are lost. So the first error is kept and every later call answers with it.

use std::{
    fs::{self, File, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use hookmill_actors::ports::event_log::LogError;

/// The most a stored value may have, bytes: 17 of them stay below a quarter of sled's 512 KiB segment.
pub const VALUE_BYTES_MAX: usize = 4 * 1024;
/// The cache, unless the settings name another size, bytes.
#[cfg(test)]
pub(crate) const CACHE_BYTES: u64 = 32 << 20;

/// How often sled writes its buffers out and collects its garbage, milliseconds.
const FLUSH_EVERY_MS: u64 = 500;
/// The layout of keys and values; a change that older code would misread counts it up. In 1 positions were never behind
/// the rest, in 2 successes were not: both are read as they are.
const FORMAT: u32 = 3;
/// Where the format stands: a key of the default tree.
const FORMAT_KEY: &[u8] = b"format";
/// What is said of a panic of sled's.
const OWN_CHECKS: &str = "the database's own checks failed";
/// How long another holder of the database is waited for: one that shuts down needs a moment, and sled lets go of
/// its lock only some milliseconds after the handle is dropped.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(1);

/// Why the database cannot be used. Nothing was changed that was not there before.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("`{dir}` is in use by another process; stop that one, or name another data directory", dir = .dir.display())]
    InUse {
        /// The database's directory.
        dir: PathBuf,
    },
    /// Its files are damaged or part of them is missing.
    #[error(
        "`{dir}` is damaged ({cause}); restore a backup, or keep it aside and start without it by `--start-empty`",
        dir = .dir.display()
    )]
    Damaged {
        /// The database's directory.
        dir: PathBuf,
        /// What was found.
        cause: String,
    },
    /// Written by a newer hookmill.
    #[error("`{dir}` has format {found}, this hookmill reads up to {FORMAT}; use a newer one", dir = .dir.display())]
    Newer {
        /// The database's directory.
        dir: PathBuf,
        /// The format found.
        found: u32,
    },
    /// The operating system refused.
    #[error("`{dir}` cannot be opened", dir = .dir.display())]
    Io {
        /// The database's directory.
        dir: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// An open database. Clones share it; the last one to go closes it.
#[derive(Clone)]
pub struct StateDb(Arc<Shared>);

struct Shared {
    db: sled::Db,
    /// A second handle of the file that sled writes: sled's own does no `fdatasync`.
    file: File,
    dir: PathBuf,
    failure: OnceLock<Arc<str>>,
}

impl StateDb {
    /// Opens the database in `dir`, and makes it where the directory does not exist. `cache_bytes` bounds its page
    /// cache; 16 to 32 MiB is a good size.
    ///
    /// A new database is made beside its place and renamed when it is whole. So a directory without a format
    /// version has lost its contents, and is refused rather than begun anew in silence.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, OpenError> {
        let io_error = |source| OpenError::Io { dir: dir.to_owned(), source };
        if !dir.try_exists().map_err(io_error)? {
            create(dir, cache_bytes)?;
        }
        let db = start(dir, cache_bytes)?;
        let file = File::open(dir.join("db")).map_err(io_error)?;
        let db = Self(Arc::new(Shared { db, file, dir: dir.to_owned(), failure: OnceLock::new() }));
        let format = db.first_reads(|| db.guard(db.0.db.get(FORMAT_KEY)))?;
        let damaged = |cause: &str| Err(OpenError::Damaged { dir: dir.to_owned(), cause: cause.to_owned() });
        match format.map(|bytes| bytes.as_ref().try_into().map(u32::from_be_bytes)) {
            Some(Ok(FORMAT)) => Ok(db),
            Some(Ok(found)) if found > FORMAT => Err(OpenError::Newer { dir: dir.to_owned(), found }),
            Some(Ok(1..FORMAT)) => {
                db.first_reads(|| db.guard(db.0.db.insert(FORMAT_KEY, &FORMAT.to_be_bytes())))?;
                Ok(db)
            }
            Some(_) => damaged("its format version is malformed"),
            None => damaged("its format version is missing"),
        }
    }

    /// Makes everything written so far survive a power cut. Blocks for the disk.
    pub fn sync(&self) -> Result<(), LogError> {
        self.check()?;
        self.guard(self.0.db.flush().map(drop))?;
        self.guard(self.0.file.sync_data())
    }

    /// Runs an owner's first reads. What they find wrong is damage, and so is a panic of sled's in them.
    pub(super) fn first_reads<T>(&self, reads: impl FnOnce() -> Result<T, LogError>) -> Result<T, OpenError> {
        let damaged = |cause| OpenError::Damaged { dir: self.0.dir.clone(), cause };
        match catch_unwind(AssertUnwindSafe(reads)) {
            Ok(answer) => answer.map_err(|error| damaged(error.to_string())),
            Err(_) => Err(damaged(OWN_CHECKS.to_owned())),
        }
    }

    /// The directory, for what stands beside sled's files.
    pub(super) fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// A tree of that name, made where there is none.
    pub(super) fn tree(&self, name: &str) -> Result<sled::Tree, LogError> {
        self.guard(self.0.db.open_tree(name))
    }

    /// The names of all trees.
    pub(super) fn tree_names(&self) -> Result<Vec<sled::IVec>, LogError> {
        self.check()?;
        Ok(self.0.db.tree_names())
    }

    /// The first failure, for ever.
    pub(super) fn check(&self) -> Result<(), LogError> {
        match self.0.failure.get() {
            Some(failure) => Err(LogError::Failed(failure.clone())),
            None => Ok(()),
        }
    }

    /// Turns an answer of sled or of the system into ours; an error sticks.
    pub(super) fn guard<T, E: std::fmt::Display>(&self, answer: Result<T, E>) -> Result<T, LogError> {
        answer.map_err(|error| {
            let failure = || format!("`{}`: {error}", self.0.dir.display()).into();
            LogError::Failed(self.0.failure.get_or_init(failure).clone())
        })
    }
}

impl std::fmt::Debug for StateDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateDb").field("dir", &self.0.dir).field("failure", &self.0.failure).finish_non_exhaustive()
    }
}

/// Makes a database with its format version beside `dir`, then puts it there. What a crash leaves of an earlier
/// try holds nothing and goes.
fn create(dir: &Path, cache_bytes: u64) -> Result<(), OpenError> {
    let io_error = |source| OpenError::Io { dir: dir.to_owned(), source };
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let draft = parent.join(name);
    match fs::remove_dir_all(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
        _ => {}
    }
    fs::create_dir_all(&draft).map_err(io_error)?;
    let db = start(&draft, cache_bytes)?;
    let written = db.insert(FORMAT_KEY, &FORMAT.to_be_bytes()).and_then(|_| db.flush());
    written.map_err(|error| io_error(io::Error::other(error)))?;
    drop(db);
    released(&draft)?;
    for file in fs::read_dir(&draft).map_err(io_error)? {
        File::open(file.map_err(io_error)?.path()).and_then(|file| file.sync_all()).map_err(io_error)?;
    }
    sync_directory(&draft).map_err(io_error)?;
    fs::rename(&draft, dir).and_then(|()| sync_directory(parent)).map_err(io_error)
}

/// Waits until nobody holds the database file. There may be none yet.
fn released(dir: &Path) -> Result<(), OpenError> {
    let io_error = |source| OpenError::Io { dir: dir.to_owned(), source };
    let file = match File::open(dir.join("db")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(error)),
    };
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < RELEASE_WAIT_MAX => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(io_error(error)),
        }
    }
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes the drafts of snapshots that a kill left behind.
fn remove_drafts(dir: &Path) -> io::Result<()> {
    let files = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        files => files?,
    };
    for file in files {
        let file = file?;
        let name = file.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating")) {
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

/// Has sled open the directory.
fn start(dir: &Path, cache_bytes: u64) -> Result<sled::Db, OpenError> {
    released(dir)?;
    let dir = dir.to_owned();
    if let Err(source) = remove_drafts(&dir) {
        return Err(OpenError::Io { dir, source });
    }
    let config = sled::Config::new().path(&dir).cache_capacity(cache_bytes).flush_every_ms(Some(FLUSH_EVERY_MS));
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(source))) if source.kind() != io::ErrorKind::UnexpectedEof => {
            Err(OpenError::Io { dir, source })
        }
        Ok(Err(error)) => Err(OpenError::Damaged { dir, cause: error.to_string() }),
        Err(_) => Err(OpenError::Damaged { dir, cause: OWN_CHECKS.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(dir: &Path) {
        let db = StateDb::open(dir, CACHE_BYTES).unwrap();
        let tree = db.tree("t").unwrap();
        for number in 0..20_000u32 {
            tree.insert(number.to_be_bytes(), [7u8; 64].as_slice()).unwrap();
        }
        db.sync().unwrap();
        drop((tree, db));
        released(dir).unwrap();
    }

    #[test]
    fn a_second_opening_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        let _first = StateDb::open(&dir, CACHE_BYTES).unwrap();
        assert!(matches!(StateDb::open(&dir, CACHE_BYTES), Err(OpenError::InUse { .. })));
    }

    #[test]
    fn damage_and_loss_are_refused_and_say_what_to_do() {
        type Harm = fn(&Path);
        let harms: [(&str, Harm); 5] = [
            ("overwritten", |dir| {
                let length = fs::metadata(dir.join("db")).unwrap().len();
                fs::write(dir.join("db"), vec![0xa5; usize::try_from(length).unwrap()]).unwrap();
            }),
            ("emptied", |dir| fs::write(dir.join("db"), b"").unwrap()),
            ("removed", |dir| fs::remove_file(dir.join("db")).unwrap()),
            ("all removed", |dir| {
                fs::remove_dir_all(dir).unwrap();
                fs::create_dir(dir).unwrap();
            }),
            ("settings overwritten", |dir| fs::write(dir.join("conf"), b"not what sled wrote, at all").unwrap()),
        ];
        for (name, harm) in harms {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("state");
            filled(&dir);
            harm(&dir);
            match StateDb::open(&dir, CACHE_BYTES) {
                Err(error @ OpenError::Damaged { .. }) => {
                    assert!(error.to_string().contains("--start-empty"), "{name}: {error}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn whatever_bits_flip_an_opening_answers() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        filled(&dir);
        let whole = fs::read(dir.join("db")).unwrap();
        let mut random = fastrand::Rng::with_seed(11);
        let mut refused = 0;
        for _ in 0..40 {
            let mut bytes = whole.clone();
            for _ in 0..8 {
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u8(..8);
            }
            fs::write(dir.join("db"), bytes).unwrap();
            let opened = StateDb::open(&dir, CACHE_BYTES)
                .and_then(|db| db.first_reads(|| db.tree("t")?.iter().try_for_each(|item| db.guard(item).map(drop))));
            match opened {
                Ok(()) => {}
                Err(OpenError::Damaged { .. }) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(refused > 0);
    }

    #[test]
    fn a_snapshot_cut_short_by_a_kill_does_not_keep_it_shut() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        filled(&dir);
        fs::write(dir.join("snap.7FFFFFFFFFFFFFFF.generating"), b"half").unwrap();
        let db = StateDb::open(&dir, CACHE_BYTES).unwrap();
        assert_eq!(db.tree("t").unwrap().len(), 20_000);
    }

    #[test]
    fn a_newer_format_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        let db = StateDb::open(&dir, CACHE_BYTES).unwrap();
        db.0.db.insert(FORMAT_KEY, &(FORMAT + 1).to_be_bytes()).unwrap();
        db.sync().unwrap();
        drop(db);
        released(&dir).unwrap();
        assert!(matches!(StateDb::open(&dir, CACHE_BYTES), Err(OpenError::Newer { found, .. }) if found == FORMAT + 1));
    }

    #[test]
    fn an_earlier_format_is_read_and_becomes_this_one() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        filled(&dir);
        for found in 1..=FORMAT {
            released(&dir).unwrap();
            let db = StateDb::open(&dir, CACHE_BYTES).unwrap();
            assert_eq!(db.tree("t").unwrap().len(), 20_000);
            assert_eq!(db.0.db.get(FORMAT_KEY).unwrap().unwrap(), &FORMAT.to_be_bytes());
            db.0.db.insert(FORMAT_KEY, &found.to_be_bytes()).unwrap();
            db.sync().unwrap();
        }
    }

    #[test]
    fn a_beginning_that_was_cut_short_is_begun_anew() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("state.new")).unwrap();
        fs::write(root.path().join("state.new/db"), b"half").unwrap();
        StateDb::open(&root.path().join("state"), CACHE_BYTES).unwrap();
        assert!(!root.path().join("state.new").exists());
    }

    #[test]
    fn the_first_failure_stays() {
        let root = tempfile::tempdir().unwrap();
        let db = StateDb::open(&root.path().join("state"), CACHE_BYTES).unwrap();
        let answer = db.guard(Err::<(), _>(sled::Error::Io(io::Error::other("no space left"))));
        assert!(matches!(answer, Err(LogError::Failed(text)) if text.contains("no space left")));
        assert!(matches!(db.sync(), Err(LogError::Failed(text)) if text.contains("no space left")));
        assert!(matches!(db.check(), Err(LogError::Failed(_))));
    }
}
