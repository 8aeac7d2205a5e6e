//! From a backup to a data directory: everything is held against its sum while it is copied, and the store gets its
//! name only once it is whole.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufReader, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::manifest::{FileCopy, Manifest, SegmentCopy, Summing};
use crate::{
    rejections,
    storage::{ImportError, StateOpenError, import, sled_db::StateDb, store_files},
};

/// In the data directory until it is whole.
const DRAFT: &str = "store.restoring";
/// The refused requests meanwhile.
const REJECTIONS_DRAFT: &str = "rejections.restoring";
const BUFFER_BYTES: usize = 1 << 20;

/// Why nothing was restored. What was written is removed again.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no backup, or its manifest cannot be used.
    #[error("{0}")]
    Manifest(String),
    /// Something lies there.
    #[error("`{}` is not empty (it holds `{found}`); name a directory that is absent or empty", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// One of its files.
        found: String,
    },
    /// A file is not what it was when the backup was made.
    #[error("`{file}` of the backup is damaged: {problem}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// There is no room.
    #[error("{needed} bytes are needed in `{}`, and {free} are free", dir.display())]
    NoRoom {
        /// The directory.
        dir: PathBuf,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The new database was not made.
    #[error("the new database cannot be made")]
    Database(#[from] StateOpenError),
    /// The system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl RestoreError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    fn damaged(copy: &FileCopy, problem: impl Into<String>) -> Self {
        Self::Damaged { file: copy.file.clone(), problem: problem.into() }
    }
}

/// Holds every file of a backup against its sum. `passed` hears of bytes as they are read.
pub fn check(from: &Path, mut passed: impl FnMut(u64)) -> Result<Manifest, RestoreError> {
    let manifest = read_manifest(from)?;
    for copy in manifest.files() {
        let mut file = open(from, copy)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match file.read(&mut buffer).map_err(RestoreError::io("read", &from.join(&copy.file)))? {
                0 => break,
                read => passed(read as u64),
            }
        }
        matches(copy, file)?;
    }
    Ok(manifest)
}

/// Makes a data directory out of a backup. It has no keys and no admin token. `passed` hears of bytes as they are read.
pub fn restore(from: &Path, to: &Path, cache_bytes: u64, passed: impl FnMut(u64)) -> Result<Manifest, RestoreError> {
    let manifest = read_manifest(from)?;
    empty(to)?;
    let made_directory = !to.exists();
    DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(RestoreError::io("make folder", to))?;
    let (draft, rejections_draft) = (to.join(DRAFT), to.join(REJECTIONS_DRAFT));
    let mut passed = passed;
    let restored = room(to, &manifest)
        .and_then(|()| fill(from, &draft, &manifest, cache_bytes, &mut passed))
        .and_then(|()| put_rejections(from, &rejections_draft, &manifest, &mut passed));
    if let Err(error) = restored {
        // What is left of it would keep the next try from beginning.
        for draft in [&draft, &rejections_draft] {
            let _ = fs::remove_dir_all(draft);
        }
        if made_directory {
            let _ = fs::remove_dir(to);
        }
        return Err(error);
    }
    if manifest.rejections.is_some() {
        let path = to.join(rejections::FOLDER);
        fs::rename(&rejections_draft, &path).map_err(RestoreError::io("make", &path))?;
    }
    let store = to.join("store");
    fs::rename(&draft, &store).map_err(RestoreError::io("make", &store))?;
    sync_folder(to)?;
    Ok(manifest)
}

fn read_manifest(from: &Path) -> Result<Manifest, RestoreError> {
    match Manifest::read(from) {
        Ok(Some(manifest)) => Ok(manifest),
        Ok(None) => {
            Err(RestoreError::Manifest(format!("`{}` holds no whole backup: it has no manifest", from.display())))
        }
        Err(problem) => Err(RestoreError::Manifest(problem)),
    }
}

fn empty(to: &Path) -> Result<(), RestoreError> {
    let entries = match fs::read_dir(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(RestoreError::io("look into", to)(error)),
        Ok(entries) => entries,
    };
    for entry in entries {
        let found = entry.map_err(RestoreError::io("look into", to))?.file_name().to_string_lossy().into_owned();
        if found != "lost+found" {
            return Err(RestoreError::NotEmpty { dir: to.to_owned(), found });
        }
    }
    Ok(())
}

fn room(to: &Path, manifest: &Manifest) -> Result<(), RestoreError> {
    let stat = rustix::fs::statvfs(to).map_err(|error| RestoreError::io("look at the disk of", to)(error.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let needed = manifest.bytes();
    if free < needed { Err(RestoreError::NoRoom { dir: to.to_owned(), needed, free }) } else { Ok(()) }
}

fn fill(
    from: &Path,
    draft: &Path,
    manifest: &Manifest,
    cache_bytes: u64,
    passed: &mut impl FnMut(u64),
) -> Result<(), RestoreError> {
    let log = draft.join(store_files::LOG);
    DirBuilder::new().recursive(true).mode(0o700).create(&log).map_err(RestoreError::io("make folder", &log))?;
    for segment in &manifest.segments {
        put_segment(from, &log, segment, passed)?;
    }
    sync_folder(&log)?;
    let db = StateDb::open(&draft.join(store_files::STATE), cache_bytes)?;
    for copy in [&manifest.state, &manifest.configuration] {
        let mut file = BufReader::new(Counting { inner: open(from, copy)?, passed: &mut *passed });
        import(&db, &mut file).map_err(|error| match error {
            ImportError::Malformed(problem) => RestoreError::damaged(copy, problem),
            ImportError::Io(source) => RestoreError::io("read", &from.join(&copy.file))(source),
            ImportError::Database(error) => RestoreError::damaged(copy, error.to_string()),
        })?;
        matches(copy, file.into_inner().inner)?;
    }
    drop(db);
    let format = draft.join(store_files::FORMAT);
    let text = store_files::format_text();
    put(&format, |file| file.write_all(text.as_bytes()))?;
    sync_folder(draft)
}

fn put_rejections(
    from: &Path,
    draft: &Path,
    manifest: &Manifest,
    passed: &mut impl FnMut(u64),
) -> Result<(), RestoreError> {
    let Some(copy) = &manifest.rejections else { return Ok(()) };
    let mut file = BufReader::new(Counting { inner: open(from, copy)?, passed });
    rejections::unpack(&mut file, draft).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => RestoreError::damaged(copy, error.to_string()),
        _ => RestoreError::io("make", draft)(error),
    })?;
    matches(copy, file.into_inner().inner)
}

fn put_segment(
    from: &Path,
    log: &Path,
    segment: &SegmentCopy,
    passed: &mut impl FnMut(u64),
) -> Result<(), RestoreError> {
    let number = segment.extent.number;
    copy_file(from, &log.join(store_files::segment(number)), &segment.data, passed, |file| {
        // The rest of a segment is zeros. What is still written into is written once, so that later syncs change no
        // metadata; of the others a hole will do.
        if segment.extent.sealed {
            return file.set_len(segment.extent.file_bytes);
        }
        let zeros = vec![0; BUFFER_BYTES];
        let mut rest = segment.extent.file_bytes - segment.extent.end;
        while rest > 0 {
            let part = usize::try_from(rest).map_or(BUFFER_BYTES, |rest| rest.min(BUFFER_BYTES));
            file.write_all(&zeros[..part])?;
            rest -= part as u64;
        }
        Ok(())
    })?;
    match &segment.index {
        Some(index) => copy_file(from, &log.join(store_files::index(number)), index, passed, |_| Ok(())),
        None => Ok(()),
    }
}

fn copy_file(
    from: &Path,
    path: &Path,
    copy: &FileCopy,
    passed: &mut impl FnMut(u64),
    end: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), RestoreError> {
    let mut source = Counting { inner: open(from, copy)?, passed };
    put(path, |file| io::copy(&mut source, file).and_then(|_| end(file)))?;
    matches(copy, source.inner)
}

fn put(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), RestoreError> {
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    let mut file = file.map_err(RestoreError::io("make", path))?;
    write(&mut file).and_then(|()| file.sync_all()).map_err(RestoreError::io("write", path))
}

fn open(from: &Path, copy: &FileCopy) -> Result<Summing<io::Take<File>>, RestoreError> {
    let path = from.join(&copy.file);
    match File::open(&path) {
        // One byte more than there should be, to see that there is none.
        Ok(file) => Ok(Summing::new(file.take(copy.bytes + 1))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(RestoreError::damaged(copy, "it is missing")),
        Err(error) => Err(RestoreError::io("open", &path)(error)),
    }
}

/// Whether what was read, to its end, is what the manifest says.
fn matches(copy: &FileCopy, mut file: Summing<io::Take<File>>) -> Result<(), RestoreError> {
    // A reader may have stopped where it had what it wanted.
    let rest = io::copy(&mut file, &mut io::sink());
    rest.map_err(|error| RestoreError::damaged(copy, error.to_string()))?;
    let (_, bytes, sha256) = file.finish();
    if bytes != copy.bytes {
        let problem = if bytes < copy.bytes { "it is shorter than it was" } else { "it is longer than it was" };
        return Err(RestoreError::damaged(copy, problem));
    }
    if sha256 != copy.sha256 {
        return Err(RestoreError::damaged(copy, "its checksum is another one"));
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<(), RestoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(RestoreError::io("sync", folder))
}

/// Tells how many bytes were read.
struct Counting<'a, T, F: FnMut(u64)> {
    inner: T,
    passed: &'a mut F,
}

impl<T: Read, F: FnMut(u64)> Read for Counting<'_, T, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        (self.passed)(read as u64);
        Ok(read)
    }
}
