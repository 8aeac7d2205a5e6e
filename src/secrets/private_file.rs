//! Small text files that nobody but us may read: made whole or not at all, and refused when others can read them.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// Owner reads and writes, nobody else does anything.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// The permission bits of group and others.
const OTHERS: u32 = 0o077;

/// Why a private file was not read or made. Never says what is in it.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// Others have rights on it.
    #[error("`{}` has mode {mode:04o}, so others can read or change it; type `chmod 600 {}`", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is somebody else's.
    #[error("`{}` belongs to user {owner}, and hookmill runs as user {us}; type `chown {us} {}`", path.display(), path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// Our number.
        us: u32,
    },
    /// It is a folder, a device or the like.
    #[error("`{}` is no ordinary file", .0.display())]
    NotAFile(PathBuf),
    /// It is far larger than it can be.
    #[error("`{}` is larger than {bytes_max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What would be right.
        bytes_max: u16,
    },
    /// It holds no text.
    #[error("`{}` is not UTF-8 text", .0.display())]
    NotText(PathBuf),
    /// The system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl PrivateFileError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// Whether there is such a file; refused where others can read it.
pub fn check(path: &Path) -> Result<bool, PrivateFileError> {
    const BYTES_MAX: u16 = u16::MAX;
    Ok(read(path, BYTES_MAX)?.is_some())
}

/// The file's text, or `None` when there is no such file. The text is wiped when dropped.
pub(crate) fn read(path: &Path, bytes_max: u16) -> Result<Option<Zeroizing<String>>, PrivateFileError> {
    // Asked before it is opened, because opening a pipe waits for its other end.
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(PrivateFileError::NotAFile(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PrivateFileError::io("read", path)(error)),
    }
    let file = File::open(path).map_err(PrivateFileError::io("read", path))?;
    let metadata = file.metadata().map_err(PrivateFileError::io("read", path))?;
    check_access(path, metadata.mode(), metadata.uid(), rustix::process::geteuid().as_raw())?;
    if metadata.len() > u64::from(bytes_max) {
        return Err(PrivateFileError::TooLarge { path: path.to_owned(), bytes_max });
    }
    // Made large enough at once: a buffer that grows leaves copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::from(bytes_max)));
    file.take(u64::from(bytes_max)).read_to_end(&mut bytes).map_err(PrivateFileError::io("read", path))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
        Err(_) => Err(PrivateFileError::NotText(path.to_owned())),
    }
}

fn check_access(path: &Path, mode: u32, owner: u32, us: u32) -> Result<(), PrivateFileError> {
    let path = || path.to_owned();
    if owner != us {
        return Err(PrivateFileError::NotOurs { path: path(), owner, us });
    }
    if mode & OTHERS != 0 {
        return Err(PrivateFileError::Exposed { path: path(), mode: mode & 0o7777 });
    }
    Ok(())
}

/// Makes the file, and its folder where there is none; fails when the file is there. When this returns, file and
/// name survive a power cut; when it was interrupted, there is no file, rather than half of one.
pub(crate) fn create(path: &Path, text: &str) -> Result<(), PrivateFileError> {
    let file = written(path, text)?;
    file.persist_noclobber(path).map_err(|error| PrivateFileError::io("make", path)(error.error))?;
    sync_folder(folder_of(path))
}

/// Makes the file or puts another text in its place. When this was interrupted, the old text stands. A link stays one.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), PrivateFileError> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let file = written(&path, text)?;
    file.persist(&path).map_err(|error| PrivateFileError::io("replace", &path)(error.error))?;
    sync_folder(folder_of(&path))
}

/// Keeps every other process that asks out of the file's folder, until the handle is dropped.
pub(super) fn lock_folder(path: &Path) -> Result<File, PrivateFileError> {
    let folder = folder_of(path);
    let handle = File::open(folder).map_err(PrivateFileError::io("open folder", folder))?;
    handle.lock().map_err(PrivateFileError::io("lock folder", folder))?;
    Ok(handle)
}

/// Makes a folder that nobody but us may enter, where there is none.
pub(crate) fn make_folder(folder: &Path) -> Result<(), PrivateFileError> {
    let mut folders = fs::DirBuilder::new();
    folders.recursive(true).mode(FOLDER_MODE).create(folder).map_err(PrivateFileError::io("make folder", folder))
}

/// A file beside `path`, whole and synced, still without its name.
fn written(path: &Path, text: &str) -> Result<tempfile::NamedTempFile, PrivateFileError> {
    let folder = folder_of(path);
    make_folder(folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(".hookmill-")
        .permissions(Permissions::from_mode(FILE_MODE))
        .tempfile_in(folder)
        .map_err(PrivateFileError::io("write into folder", folder))?;
    file.write_all(text.as_bytes()).map_err(PrivateFileError::io("write", path))?;
    file.as_file().sync_all().map_err(PrivateFileError::io("sync", path))?;
    Ok(file)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn sync_folder(folder: &Path) -> Result<(), PrivateFileError> {
    let handle = File::open(folder).map_err(PrivateFileError::io("open folder", folder))?;
    handle.sync_all().map_err(PrivateFileError::io("sync folder", folder))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_private_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        assert_eq!(read(&path, 10).unwrap(), None);
        create(&path, "text").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, FILE_MODE);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, FOLDER_MODE);
        assert_eq!(read(&path, 10).unwrap().unwrap().as_str(), "text");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        create(&path, "first").unwrap();
        assert!(matches!(create(&path, "second"), Err(PrivateFileError::Io { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
    }

    #[test]
    fn what_is_replaced_stays_private_and_a_link_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        create(&path, "first").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, "second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, FILE_MODE);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "a temporary file was left");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        create(&path, "text").unwrap();
        for mode in [0o640, 0o604, 0o602, 0o610, 0o644] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let text = read(&path, 10).unwrap_err().to_string();
            assert!(text.contains(&format!("{mode:04o}")) && text.contains("chmod 600"), "{text}");
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(read(&path, 10).unwrap().is_some());
        }
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let text = check_access(Path::new("keys.toml"), 0o100_600, 0, 1_000).unwrap_err().to_string();
        assert!(text.contains("user 0") && text.contains("chown 1000 keys.toml"), "{text}");
    }

    #[test]
    fn what_is_no_small_text_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path(), 10), Err(PrivateFileError::NotAFile(_))));
        let path = folder.path().join("large");
        create(&path, "12345678901").unwrap();
        assert!(matches!(read(&path, 10), Err(PrivateFileError::TooLarge { .. })));
        let path = folder.path().join("bytes");
        create(&path, "").unwrap();
        fs::write(&path, [0xff]).unwrap();
        assert!(matches!(read(&path, 10), Err(PrivateFileError::NotText(_))));
    }
}
