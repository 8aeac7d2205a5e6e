//! The folder that a backup is made in: files come whole or not at all, and what is there is taken again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::manifest::{FileCopy, MANIFEST, Manifest, Summing, is_plain};

/// Files that were copied since the last manifest, one JSON object a line: what an interrupted backup need not copy
/// again.
const JOURNAL: &str = "copied.jsonl";
/// Bytes that are written between two syncs: a burst of many would hold up the log's own syncs on the same disk.
const SYNC_EVERY: u64 = 8 << 20;
const BUFFER_BYTES: usize = 1 << 20;

/// Why a folder takes no backup.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Something else lies there.
    #[error("`{}` holds `{found}` and no backup; name an empty folder, or one with an earlier backup", folder.display())]
    NotABackup {
        /// The folder.
        folder: PathBuf,
        /// One of the files.
        found: String,
    },
    /// Another process makes a backup there.
    #[error("another backup into `{}` is under way", .0.display())]
    Busy(PathBuf),
    /// Its manifest cannot be used.
    #[error("{0}; move it away to begin anew")]
    Manifest(String),
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

impl FolderError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// A folder, locked.
pub struct BackupFolder {
    path: PathBuf,
    /// What is there already, by name.
    there: BTreeMap<String, FileCopy>,
    journal: File,
    _lock: File,
}

impl BackupFolder {
    /// Takes a folder, made where there is none.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(FolderError::io("make folder", path))?;
        let lock = File::open(path).map_err(FolderError::io("open folder", path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(FolderError::Busy(path.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(FolderError::io("lock folder", path)(error)),
        }
        let manifest = Manifest::read(path).map_err(FolderError::Manifest)?;
        let journal_path = path.join(JOURNAL);
        if manifest.is_none() && !journal_path.exists() {
            refuse_others(path)?;
        }
        let mut there: BTreeMap<String, FileCopy> = BTreeMap::new();
        let known = manifest.iter().flat_map(Manifest::files).cloned();
        for copy in known.chain(journalled(&journal_path)) {
            // A file that is shorter was cut off by a power cut, and is copied again.
            let length = fs::metadata(path.join(&copy.file)).map(|metadata| metadata.len());
            if is_plain(&copy.file) && length.is_ok_and(|length| length == copy.bytes) {
                there.insert(copy.file.clone(), copy);
            }
        }
        let journal = OpenOptions::new().create(true).append(true).mode(0o600).open(&journal_path);
        let journal = journal.map_err(FolderError::io("open", &journal_path))?;
        Ok(Self { path: path.to_owned(), there, journal, _lock: lock })
    }

    /// The file of that name, where it is there already.
    pub fn has(&self, name: &str) -> Option<&FileCopy> {
        self.there.get(name)
    }

    /// Puts what `source` gives into a file of that name. It counts as copied only once [`BackupFolder::keep`] was
    /// called with it. `passed` hears of bytes as they are written.
    pub fn write(
        &self,
        name: &str,
        source: &mut impl Read,
        mut passed: impl FnMut(u64),
    ) -> Result<FileCopy, FolderError> {
        debug_assert!(is_plain(name), "{name}");
        let (path, draft) = (self.path.join(name), self.path.join(format!("{name}.part")));
        let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft);
        let mut file = Summing::new(file.map_err(FolderError::io("make", &draft))?);
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut unsynced = 0;
        loop {
            let read = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(FolderError::io("read what goes into", &path)(error)),
            };
            file.write_all(&buffer[..read]).map_err(FolderError::io("write", &draft))?;
            passed(read as u64);
            unsynced += read as u64;
            if unsynced >= SYNC_EVERY {
                unsynced = 0;
                file.inner().sync_data().map_err(FolderError::io("sync", &draft))?;
            }
        }
        let (file, bytes, sha256) = file.finish();
        file.sync_all().map_err(FolderError::io("sync", &draft))?;
        fs::rename(&draft, &path).map_err(FolderError::io("make", &path))?;
        Ok(FileCopy { file: name.to_owned(), bytes, sha256 })
    }

    /// From now on the file is there, also for a backup that takes this one up.
    pub fn keep(&mut self, copy: FileCopy) -> Result<(), FolderError> {
        let mut line = serde_json::to_vec(&copy).expect("texts and a number");
        line.push(b'\n');
        let path = self.path.join(JOURNAL);
        self.journal.write_all(&line).map_err(FolderError::io("write", &path))?;
        self.there.insert(copy.file.clone(), copy);
        Ok(())
    }

    /// Makes the backup the one that stands here, then removes what it does not need.
    pub fn finish(self, manifest: &Manifest) -> Result<(), FolderError> {
        let sync = |folder: &Path| File::open(folder).and_then(|folder| folder.sync_all());
        // The files' names before the manifest that names them.
        sync(&self.path).map_err(FolderError::io("sync", &self.path))?;
        let json = serde_json::to_vec_pretty(manifest).expect("texts and numbers");
        let copy = self.write("manifest.new", &mut &json[..], |_| ())?;
        let path = self.path.join(MANIFEST);
        fs::rename(self.path.join(&copy.file), &path).map_err(FolderError::io("replace", &path))?;
        sync(&self.path).map_err(FolderError::io("sync", &self.path))?;
        let needed: BTreeSet<&str> = manifest.files().map(|file| file.file.as_str()).chain([MANIFEST]).collect();
        for name in names(&self.path).map_err(FolderError::io("look into", &self.path))? {
            let ours = name == JOURNAL
                || Path::new(&name).extension().is_some_and(|ending| ending == "part")
                || self.there.contains_key(&name);
            if ours && !needed.contains(name.as_str()) {
                let path = self.path.join(name);
                fs::remove_file(&path).map_err(FolderError::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

fn refuse_others(folder: &Path) -> Result<(), FolderError> {
    let names = names(folder).map_err(FolderError::io("look into", folder))?;
    match names.into_iter().find(|name| name != "lost+found") {
        None => Ok(()),
        Some(found) => Err(FolderError::NotABackup { folder: folder.to_owned(), found }),
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// What an interrupted backup copied. A last line that is cut off says nothing.
fn journalled(path: &Path) -> Vec<FileCopy> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    lines.filter_map(|line| serde_json::from_str(&line).ok()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::{super::manifest::tests::sample, *};

    fn put(folder: &mut BackupFolder, name: &str, bytes: &[u8]) -> FileCopy {
        let copy = folder.write(name, &mut &bytes[..], |_| ()).unwrap();
        folder.keep(copy.clone()).unwrap();
        copy
    }

    #[test]
    fn what_was_copied_is_there_again_and_what_is_shorter_is_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("backup");
        let mut folder = BackupFolder::open(&path).unwrap();
        assert!(matches!(BackupFolder::open(&path), Err(FolderError::Busy(_))));
        let copy = put(&mut folder, "a.seg", b"abc");
        assert_eq!(copy.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        put(&mut folder, "b.seg", b"def");
        folder.write("c.seg", &mut &b"never kept"[..], |_| ()).unwrap();
        drop(folder);
        fs::write(path.join("b.seg"), "d").unwrap();
        let mut journal = fs::read(path.join(JOURNAL)).unwrap();
        journal.extend(b"{\"file\":\"c.s");
        fs::write(path.join(JOURNAL), journal).unwrap();
        let folder = BackupFolder::open(&path).unwrap();
        assert_eq!(folder.has("a.seg"), Some(&copy));
        assert_eq!((folder.has("b.seg"), folder.has("c.seg")), (None, None));
    }

    #[test]
    fn the_former_backup_stands_until_the_next_one_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = BackupFolder::open(root.path()).unwrap();
        let mut manifest = sample();
        for copy in &mut manifest.segments {
            copy.data = put(&mut folder, &copy.data.file.clone(), &[1; 5_000]);
        }
        manifest.state = put(&mut folder, "state-1.export", b"state");
        manifest.configuration = put(&mut folder, "configuration-1.export", b"configuration");
        manifest.rejections = Some(put(&mut folder, "rejections-1.pack", b"rejections"));
        folder.finish(&manifest).unwrap();
        let mut kept = names(root.path()).unwrap();
        kept.sort();
        assert_eq!(
            kept,
            ["configuration-1.export", MANIFEST, "rejections-1.pack", "s-3.seg", "s-4.seg", "state-1.export"]
        );

        let mut folder = BackupFolder::open(root.path()).unwrap();
        assert!(folder.has("s-3.seg").is_some());
        manifest.state = put(&mut folder, "state-2.export", b"later");
        assert_eq!(Manifest::read(root.path()).unwrap().unwrap().state.file, "state-1.export");
        manifest.segments.remove(0);
        folder.finish(&manifest).unwrap();
        assert_eq!(Manifest::read(root.path()).unwrap().unwrap(), manifest);
        assert!(!root.path().join("state-1.export").exists() && !root.path().join("s-3.seg").exists());
    }

    #[test]
    fn a_folder_of_other_files_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("letter.txt"), "dear").unwrap();
        let Err(FolderError::NotABackup { found, .. }) = BackupFolder::open(root.path()) else {
            panic!("it was taken")
        };
        assert_eq!(found, "letter.txt");
        fs::write(root.path().join(MANIFEST), "{").unwrap();
        assert!(matches!(BackupFolder::open(root.path()), Err(FolderError::Manifest(_))));
    }
}
