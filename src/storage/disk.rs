//! The seam between the log and the operating system: every byte the log writes, reads or syncs passes here.
//!
//! The real disk is a thin layer over `std::fs`. Tests put a simulated one in its place, which forgets what was not
//! synced and fails when told to. Nothing here retries: a failed sync is the caller's to report.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

#[cfg(test)]
pub(crate) mod sim;

/// An open file. Positions are explicit, so that readers and the writer share one handle.
pub(crate) trait DiskFile: Send + Sync {
    /// Fills `buffer` from `offset`; `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns once what was written before the call would survive a power cut, the file's length included.
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    fn bytes(&self) -> io::Result<u64>;
}

/// Files and directories.
pub(crate) trait Disk: Send + Sync + 'static {
    /// Makes a directory and those above it.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a file that must not be there yet.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name; one that has it is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted. `NotFound` when there is none.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Returns once the names in a directory would survive a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that this process may still take on the directory's file system.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Takes the exclusive lock of a file, made if missing; `None` when another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>>;
}

/// A held lock; free again when dropped.
#[derive(Debug)]
pub(crate) struct LockGuard(#[expect(dead_code, reason = "held for its lock, released when dropped")] Option<File>);

/// Writes a small file whole, so that its name never shows a part of it: beside, synced, renamed.
pub(crate) fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    match disk.remove(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&beside)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(&beside, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Reads a file whole, refusing one larger than `bytes_max`.
pub(crate) fn read_whole(disk: &dyn Disk, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let bytes = file.bytes()?;
    if bytes > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{bytes} bytes; at most {bytes_max} expected")));
    }
    let mut buffer = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut buffer, 0)?;
    Ok(buffer)
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RealDisk;

impl DiskFile for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }
}

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(LockGuard(Some(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
