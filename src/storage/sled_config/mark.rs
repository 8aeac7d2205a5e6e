//! How far the configuration had come, in a file of its own beside sled's: written after each commit, so that it is
//! never ahead of a whole database. A crash costs the last step at most.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use crate::storage::sled_db::OpenError;

const FILE: &str = "config-mark";
const DRAFT: &str = "config-mark.new";

/// The last configuration version and the last activity's number that were acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) version: u64,
    pub(super) activity: u64,
}

impl Mark {
    /// The mark in `dir`; zero where nothing was committed yet.
    pub(super) fn read(dir: &Path) -> Result<Self, OpenError> {
        let bytes = match fs::read(dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(OpenError::Io { dir: dir.to_owned(), source }),
            Ok(bytes) => bytes,
        };
        Self::from_bytes(&bytes).ok_or_else(|| OpenError::Damaged {
            dir: dir.to_owned(),
            cause: format!("`{FILE}` does not match its checksum"),
        })
    }

    /// Replaces the mark in `dir`, whole or not at all; it is on disk when this returns.
    pub(super) fn write(self, dir: &Path) -> io::Result<()> {
        let mut draft = File::create(dir.join(DRAFT))?;
        draft.write_all(&self.to_bytes())?;
        draft.sync_all()?;
        fs::rename(dir.join(DRAFT), dir.join(FILE))?;
        File::open(dir)?.sync_all()
    }

    /// Whether this, found in the database of `dir`, has come at least as far as what was acknowledged.
    pub(super) fn covers(self, acknowledged: Self, dir: &Path) -> Result<(), OpenError> {
        let went_back = |what: &str, found: u64, acknowledged: u64| {
            let cause = format!("{what} {acknowledged} was stored, and the last one found is {found}");
            Err(OpenError::Damaged { dir: dir.to_owned(), cause })
        };
        if self.version < acknowledged.version {
            return went_back("configuration version", self.version, acknowledged.version);
        }
        if self.activity < acknowledged.activity {
            return went_back("activity", self.activity, acknowledged.activity);
        }
        Ok(())
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = [self.version.to_be_bytes(), self.activity.to_be_bytes()].concat();
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, checksum) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(numbers) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let (version, activity) = numbers.split_first_chunk::<8>()?;
        Some(Self { version: u64::from_be_bytes(*version), activity: u64::from_be_bytes(activity.try_into().ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Mark::read(dir.path()).unwrap(), Mark::default());
        let mark = Mark { version: 7, activity: u64::MAX };
        mark.write(dir.path()).unwrap();
        assert_eq!(Mark::read(dir.path()).unwrap(), mark);
        let mut bytes = fs::read(dir.path().join(FILE)).unwrap();
        bytes[7] ^= 1;
        fs::write(dir.path().join(FILE), bytes).unwrap();
        assert!(matches!(Mark::read(dir.path()), Err(OpenError::Damaged { .. })));
    }

    #[test]
    fn only_what_went_back_is_refused() {
        let mark = |version, activity| Mark { version, activity };
        let covers = |found: Mark, acknowledged| found.covers(acknowledged, Path::new("state")).is_ok();
        assert!(covers(mark(3, 4), mark(3, 4)) && covers(mark(4, 5), mark(3, 4)));
        assert!(!covers(mark(2, 9), mark(3, 4)) && !covers(mark(9, 3), mark(3, 4)));
    }
}
