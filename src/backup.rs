//! A backup: the log's segments up to a committed end, the state as one commit left it, the configuration, and the
//! refused requests. Without keys.
//!
//! The state's commit lies before the end, so the first start of a restored copy applies the rest from the segments, as
//! a start after a crash does. The configuration is taken after the end: it may know of more than the log, and never of
//! less. Refused requests are taken then, too: one counts as accepted where its event is in the backup. While a backup is made no segment is given up (see `SegmentLog::hold`), and everything else goes on.
//!
//! A backup is a folder. What is in it already, because of an earlier backup or one that was cut short, is not copied
//! again. `manifest.json` is replaced last: until then the former backup stands.

mod folder;
mod manifest;
mod restore;

use hookmill_actors::domain::ids::EventId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::{
    folder::{BackupFolder, FolderError},
    manifest::{FileCopy, MANIFEST, Manifest, SegmentCopy},
    restore::{RestoreError, check, restore},
};
use crate::storage::SegmentExtent;

/// How far a backup goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BackupEnd)]
pub struct EndMark {
    /// All segments, each up to its last commit.
    pub segments: Vec<SegmentExtent>,
    /// The last event in them: it and all before it are in the backup.
    pub last_event_id: EventId,
    /// When that was, milliseconds since 1970.
    pub at_ms: u64,
    /// The configuration's version, taken afterwards.
    pub configuration_version: u64,
    /// The keys that secrets in it are sealed with.
    pub keys: Vec<String>,
}

/// Why a running server goes on with no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// One at a time.
    #[error("another backup is under way; it ends by itself a minute after whoever makes it has gone")]
    Busy,
    /// It is over.
    #[error(
        "there is no such backup under way: it was not renewed in time, or the disk is nearly full and the log had to be \
         trimmed; begin again, what was copied is not copied twice"
    )]
    Over,
    /// It is not that far.
    #[error("ask for the backup's end first")]
    NoEnd,
    /// It has no such part.
    #[error("the backup has no such segment, or the segment has no index")]
    NoSegment,
    /// A file of the log, or a refused request, cannot be read.
    #[error("cannot read what is to be copied: {0}")]
    File(#[from] std::io::Error),
    /// The log or the state failed.
    #[error(transparent)]
    Log(#[from] hookmill_actors::ports::event_log::LogError),
    /// The configuration's store failed.
    #[error(transparent)]
    Config(#[from] hookmill_actors::ports::config_store::ConfigStoreError),
}

/// What a backup consists of, and is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The state at one commit.
    State,
    /// The configuration as it was fixed with the end.
    Configuration,
    /// The requests that were refused until then.
    Rejections,
    /// The segment of this number, up to the end.
    Segment(u64),
    /// The index of the segment of this number.
    Index(u64),
}

/// A backup that a running server has begun to hold segments for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Backup)]
pub struct Begun {
    /// Its name in later requests.
    pub id: String,
    /// It ends unless it is renewed within so long, seconds.
    pub lease_s: u64,
}
