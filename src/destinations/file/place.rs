//! Where a `file` destination may write: below one folder, through no link, whatever stands there meanwhile. Each
//! step of the path is opened within the one before, so that nothing can be exchanged between a check and its use.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat},
    io::Errno,
};

/// The longest path below the folder, bytes.
pub(super) const PATH_BYTES_MAX: usize = 512;
const NAME_BYTES_MAX: usize = 200;
const DEPTH_MAX: usize = 8;

/// Folders and files are the operator's and their group's: bodies hold personal data.
const FOLDER_MODE: Mode = Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP);
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP);

/// A file below the allowed folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    root: PathBuf,
    folders: Vec<String>,
    name: String,
}

impl Place {
    /// Reads a path relative to the folder; the words say what is wrong with it.
    pub(super) fn new(root: &Path, path: &str) -> Result<Self, String> {
        if path.starts_with('/') {
            return Err("must be relative to the folder that the operator allows".into());
        }
        let parts: Vec<&str> = path.split('/').collect();
        if parts.len() > DEPTH_MAX {
            return Err(format!("is {} levels deep; at most {DEPTH_MAX} are allowed", parts.len()));
        }
        for part in &parts {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if part.is_empty() || part.starts_with('.') || part.len() > NAME_BYTES_MAX || !part.bytes().all(plain) {
                return Err(format!(
                    "must be names between slashes: each of letters, digits, `-`, `_` and `.`, not beginning with `.`, \
                     at most {NAME_BYTES_MAX} long"
                ));
            }
        }
        let (name, folders) = parts.split_last().expect("splitting a text gives at least one part");
        if name.rsplit('.').next().is_some_and(|end| end.bytes().all(|byte| byte.is_ascii_digit()))
            && name.contains('.')
        {
            return Err("ends in a number, as files that were rotated do; choose another ending".into());
        }
        Ok(Self {
            root: root.to_owned(),
            folders: folders.iter().map(|&folder| folder.to_owned()).collect(),
            name: (*name).to_owned(),
        })
    }

    /// Its folder, made where it is missing. The root itself must be there: a disk that is not mounted is no empty one.
    pub(super) fn folder(&self) -> io::Result<Folder> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let mut folder: OwnedFd = rustix::fs::open(&self.root, flags, Mode::empty())?;
        for name in &self.folders {
            match mkdirat(&folder, name, FOLDER_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            folder = openat(&folder, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok(Folder { folder, name: self.name.clone() })
    }
}

/// The path below the folder.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for folder in &self.folders {
            write!(f, "{folder}/")?;
        }
        f.write_str(&self.name)
    }
}

/// The folder of a file, held open.
pub(super) struct Folder {
    folder: OwnedFd,
    name: String,
}

impl Folder {
    /// The file, made where it is missing; a link or anything but a plain file is refused.
    pub(super) fn open(&self) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat(&self.folder, &self.name, flags, FILE_MODE)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no plain file"));
        }
        Ok(File::from(file))
    }

    /// Whether the name still stands for that file: somebody else may have moved it.
    pub(super) fn holds(&self, file: &File) -> bool {
        let named = statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        match (named, rustix::fs::fstat(file)) {
            (Ok(named), Ok(open)) => (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino),
            _ => false,
        }
    }

    /// Moves `name` to `name.1`, that to `name.2`, and so on; the last of `keep` goes.
    pub(super) fn rotate(&self, keep: u32) -> io::Result<()> {
        let numbered = |number: u32| format!("{}.{number}", self.name);
        match unlinkat(&self.folder, numbered(keep), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        for number in (1..keep).rev() {
            match renameat(&self.folder, numbered(number), &self.folder, numbered(number + 1)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        renameat(&self.folder, &self.name, &self.folder, numbered(1))?;
        Ok(())
    }

    /// Makes names durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.folder)?)
    }
}
