//! Why a store does not open. None of these is ever answered by an empty start.

use std::{
    io,
    path::{Path, PathBuf},
};

use hookmill_actors::ports::event_log::LogError;

use super::LogPlace;

/// Why a store was not opened; nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works in the directory.
    #[error("{} is in use by another process; only one hookmill may work in a data directory", .dir.display())]
    Locked {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The directory holds files, and none of them says that it is a store.
    #[error("{} holds `{found}` but no FORMAT file: it is not a hookmill store, or has lost parts", .dir.display())]
    NotAStore {
        /// The store's directory.
        dir: PathBuf,
        /// One of the files.
        found: String,
    },
    /// Written by a newer hookmill.
    #[error("{} has format {found}; this hookmill knows formats up to {known}: use a newer one", .file.display())]
    Newer {
        /// The file that says so.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// Bytes that were once synced are not what they were.
    #[error("{} is damaged at byte {offset}: {problem}", .file.display())]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// Where the damage begins, bytes from its start.
        offset: u64,
        /// What was found.
        problem: String,
    },
    /// A file that must be there is not.
    #[error("{} is missing: {problem}", .file.display())]
    Missing {
        /// The missing file.
        file: PathBuf,
        /// How that is known.
        problem: String,
    },
    /// State was made from commits that the log no longer has: the log has lost its end.
    #[error("the state was made from the log up to {applied}, but the log ends at {end}: its end is lost")]
    StateAhead {
        /// Where the state is.
        applied: LogPlace,
        /// Where the log ends.
        end: LogPlace,
    },
    /// State stands before the oldest segment, or between two commits: state and log do not belong together.
    #[error("the state stands at {applied}, where the log (from segment {oldest:016x}) has no commit to go on from")]
    StateForeign {
        /// Where the state is.
        applied: LogPlace,
        /// The oldest segment.
        oldest: u64,
    },
    /// An option is out of range.
    #[error("{0}")]
    Option(String),
    /// A file could not be read or written.
    #[error("{}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The state failed.
    #[error("state did not take what the log holds")]
    State(#[source] LogError),
}

impl OpenError {
    pub(crate) fn io(file: &Path, source: io::Error) -> Self {
        Self::Io { file: file.to_owned(), source }
    }

    pub(crate) fn damaged(file: &Path, offset: u64, problem: &str) -> Self {
        Self::Damaged { file: file.to_owned(), offset, problem: problem.to_owned() }
    }
}
