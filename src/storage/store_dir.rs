//! The store's directory: one process at a time, a format that is known, and never an empty start by mistake.
//!
//! A fresh directory gets the marker `STARTING` first and `FORMAT` last, once the first segment is durable. Nothing
//! is acknowledged in between, so a start that was cut short may begin again. Without either file, a directory that
//! holds anything is refused.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    disk::{Disk, LockGuard, RealDisk, read_whole, write_whole},
    open_error::OpenError,
    segment::FORMAT_VERSION,
};

const LOCK: &str = "LOCK";
/// The file that says that there is a store, and of which format.
pub const FORMAT: &str = "FORMAT";
const STARTING: &str = "STARTING";
const FORMAT_PREFIX: &str = "hookmill store ";
/// How the names begin of what [`quarantine`] put aside.
pub const QUARANTINE_PREFIX: &str = "quarantine-";

/// A locked store directory. The lock is held until this and every log opened in it are dropped.
pub struct StoreDir {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    fresh: bool,
    _lock: LockGuard,
}

impl StoreDir {
    /// Locks a directory, made if missing, and checks its format.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(RealDisk), path.into())
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Self, OpenError> {
        let failed = |source| OpenError::io(&path, source);
        disk.create_dir(&path).map_err(failed)?;
        let lock = lock(&*disk, &path)?;
        let names = disk.list(&path).map_err(failed)?;
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        let fresh = if has(FORMAT) {
            check_format(&*disk, &path.join(FORMAT))?;
            false
        } else if has(STARTING) {
            true
        } else if let Some(found) = names.iter().find(|name| belongs_to_a_store(name)) {
            return Err(OpenError::NotAStore { found: found.clone(), dir: path });
        } else {
            write_whole(&*disk, &path.join(STARTING), b"").map_err(failed)?;
            true
        };
        Ok(Self { path, disk, fresh, _lock: lock })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the state is kept.
    pub fn state_path(&self) -> PathBuf {
        self.path.join(super::store_files::STATE)
    }

    /// Whether nothing was ever stored here.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.path.join(super::store_files::LOG)
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Marks the store as begun: from here on it is never taken for an empty one.
    pub(crate) fn begun(&self) -> io::Result<()> {
        if !self.fresh {
            return Ok(());
        }
        write_whole(&*self.disk, &self.path.join(FORMAT), format_text().as_bytes())?;
        self.disk.remove(&self.path.join(STARTING))?;
        self.disk.sync_dir(&self.path)
    }
}

impl fmt::Debug for StoreDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreDir").field("path", &self.path).field("fresh", &self.fresh).finish_non_exhaustive()
    }
}

/// Moves everything in a store's directory into a new `quarantine-<UTC timestamp>` in it, for a start from empty.
/// Nothing is deleted. Returns the new directory.
pub fn quarantine(dir: &Path, now_ms: u64) -> Result<PathBuf, OpenError> {
    let disk = RealDisk;
    let failed = |source| OpenError::io(dir, source);
    let _lock = lock(&disk, dir)?;
    let seconds = i64::try_from(now_ms / 1000).unwrap_or(0);
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default().strftime("%Y%m%dT%H%M%SZ").to_string();
    let aside = (0..100)
        .map(|turn| match turn {
            0 => dir.join(format!("{QUARANTINE_PREFIX}{time}")),
            _ => dir.join(format!("{QUARANTINE_PREFIX}{time}-{turn}")),
        })
        .find(|path| !path.exists())
        .ok_or_else(|| failed(io::Error::other("a hundred quarantines within a second")))?;
    disk.create_dir(&aside).map_err(failed)?;
    // FORMAT goes last: whatever is left when this is cut short is not taken for an empty directory.
    let mut names = disk.list(dir).map_err(failed)?;
    names.retain(|name| belongs_to_a_store(name));
    names.sort_by_key(|name| name == FORMAT);
    for name in names {
        disk.rename(&dir.join(&name), &aside.join(&name)).map_err(failed)?;
    }
    disk.sync_dir(&aside).map_err(failed)?;
    disk.sync_dir(dir).map_err(failed)?;
    Ok(aside)
}

/// What stands in the file [`FORMAT`] of a store that this version writes.
pub fn format_text() -> String {
    format!("{FORMAT_PREFIX}{FORMAT_VERSION}\n")
}

/// The format of the store in a directory, without taking its lock; `None` where none was begun.
pub fn store_format(dir: &Path) -> Result<Option<u32>, OpenError> {
    let file = dir.join(FORMAT);
    match file.try_exists() {
        Ok(true) => check_format(&RealDisk, &file).map(Some),
        Ok(false) => Ok(None),
        Err(source) => Err(OpenError::io(&file, source)),
    }
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<LockGuard, OpenError> {
    let path = dir.join(LOCK);
    disk.lock(&path)
        .map_err(|source| OpenError::io(&path, source))?
        .ok_or_else(|| OpenError::Locked { dir: dir.into() })
}

/// A mount point has `lost+found`; what was put aside earlier stays aside.
fn belongs_to_a_store(name: &str) -> bool {
    name != LOCK && name != "lost+found" && !name.starts_with(QUARANTINE_PREFIX) && name != "STARTING.tmp"
}

fn check_format(disk: &dyn Disk, path: &Path) -> Result<u32, OpenError> {
    let bytes = read_whole(disk, path, 64).map_err(|source| OpenError::io(path, source))?;
    let version = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.trim_end().strip_prefix(FORMAT_PREFIX))
        .and_then(|version| version.parse::<u32>().ok())
        .filter(|version| *version > 0)
        .ok_or_else(|| OpenError::damaged(path, 0, "it does not read `hookmill store <number>`"))?;
    if version > FORMAT_VERSION {
        return Err(OpenError::Newer { file: path.to_owned(), found: version, known: FORMAT_VERSION });
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_directory_stays_fresh_until_begun() {
        let dir = tempfile::tempdir().unwrap();
        let store = StoreDir::open(dir.path()).unwrap();
        assert!(store.is_fresh());
        assert!(matches!(StoreDir::open(dir.path()), Err(OpenError::Locked { .. })));
        drop(store);
        let store = StoreDir::open(dir.path()).unwrap();
        assert!(store.is_fresh());
        store.begun().unwrap();
        drop(store);
        assert!(!StoreDir::open(dir.path()).unwrap().is_fresh());
    }

    #[test]
    fn a_directory_of_other_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        let error = StoreDir::open(dir.path()).unwrap_err();
        assert!(matches!(&error, OpenError::NotAStore { found, .. } if found == "letter.txt"), "{error}");
    }

    #[test]
    fn a_newer_format_is_refused_by_both_numbers() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FORMAT), "hookmill store 2\n").unwrap();
        let text = StoreDir::open(dir.path()).unwrap_err().to_string();
        assert!(text.contains("format 2") && text.contains("up to 1"), "{text}");
        std::fs::write(dir.path().join(FORMAT), "hookmill st").unwrap();
        assert!(matches!(StoreDir::open(dir.path()), Err(OpenError::Damaged { .. })));
    }

    #[test]
    fn quarantine_keeps_everything_aside() {
        let dir = tempfile::tempdir().unwrap();
        StoreDir::open(dir.path()).unwrap().begun().unwrap();
        std::fs::create_dir(dir.path().join("log")).unwrap();
        std::fs::write(dir.path().join("log/x.seg"), "x").unwrap();
        let aside = quarantine(dir.path(), 1_700_000_000_000).unwrap();
        assert_eq!(aside.file_name().unwrap(), "quarantine-20231114T221320Z");
        assert_eq!(std::fs::read(aside.join("log/x.seg")).unwrap(), b"x");
        assert!(aside.join(FORMAT).exists());
        assert!(StoreDir::open(dir.path()).unwrap().is_fresh());
        let again = quarantine(dir.path(), 1_700_000_000_000).unwrap();
        assert_ne!(again, aside);
    }
}
