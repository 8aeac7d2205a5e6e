//! The embedded store: segment files hold the log, sled holds the state made from it and the configuration.
//!
//! Layout of the store's directory: `LOCK` (held while a process works in it), `FORMAT` (format version), `STARTING`
//! (until the first segment is durable), `log/` (segments, their indexes, prepared files), `state/` (sled).
//!
//! An event's way: [`SegmentLog`] encodes it on the sender's thread and queues it; `writer` puts what has queued into
//! one commit of the active `segment`, syncs once, shows it to readers through the `catalog`, and answers. `space`
//! prepares the next segment and writes the `sidecar` of a sealed one. `recovery` opens what a crash left, `trim`
//! removes what is finished.

mod catalog;
mod changes;
mod commit;
mod disk;
mod export;
mod health;
mod index;
mod jobs;
mod keys;
mod open_error;
mod options;
mod reader;
pub mod record;
mod recovery;
mod runs;
mod scan;
mod search;
mod seen;
mod segment;
mod segment_log;
mod shared;
mod sidecar;
pub mod sled_config;
pub mod sled_db;
pub mod sled_state;
mod space;
mod stall;
mod stats;
mod store_dir;
mod tail;
mod task_runs;
#[cfg(test)]
mod tests;
mod trim;
mod values;
mod writer;

pub use self::{
    catalog::SegmentExtent,
    export::{ImportError, import},
    health::LogHealth,
    open_error::OpenError,
    options::LogOptions,
    recovery::closed_extents,
    segment_log::SegmentLog,
    sled_db::OpenError as StateOpenError,
    stall::{Finding, StallWatch},
    stats::{LogStats, SYNC_BUCKETS_US},
    store_dir::{QUARANTINE_PREFIX, StoreDir, quarantine, store_format},
};

/// The files of a store, for whoever copies one.
pub mod store_files {
    use std::path::Path;

    pub use super::store_dir::{FORMAT, format_text};

    /// The folder of the segments.
    pub const LOG: &str = "log";
    /// The folder of sled.
    pub const STATE: &str = "state";

    /// The name of a segment's file.
    pub fn segment(number: u64) -> String {
        name(&super::segment::segment_path(Path::new(""), number))
    }

    /// The name of a sealed segment's index.
    pub fn index(number: u64) -> String {
        name(&super::segment::sidecar_path(Path::new(""), number))
    }

    fn name(path: &Path) -> String {
        path.to_string_lossy().into_owned()
    }
}

use std::fmt;

use hookmill_actors::{
    domain::ids::EventId,
    ports::{event_log::LogError, state_store::StateOp},
};
use serde::{Deserialize, Serialize};

/// A place in the segment files: everything before `offset` of `segment`, and all of the segments before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPlace {
    /// Number of the segment file; they only grow.
    pub segment: u64,
    /// Bytes from its start.
    pub offset: u64,
}

impl fmt::Display for LogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of segment {:016x}", self.offset, self.segment)
    }
}

/// The ends of the last commits that a view has applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Of the last whose positions it has, or a commit before that one. Never beyond `all`.
    pub positions: LogPlace,
    /// Of the last whose other operations it has.
    pub all: LogPlace,
}

impl Applied {
    /// Nothing is kept behind.
    pub fn whole(upto: LogPlace) -> Self {
        Self { positions: upto, all: upto }
    }
}

/// State as the log's writer sees it: a view that the log's own commits rebuild.
///
/// # Contract
/// The state operations of a commit are first synced as part of the log, then applied here in the same order, in
/// one atomic batch that also stores the commit's end. So the view may be behind the log by a crash, never ahead
/// of it, and the log's writer replays what is missing when it opens.
///
/// Positions, of which each replaces the one before, may be kept behind the rest: then they alone are applied again
/// from commits whose other operations stand already.
pub trait StateView: Send + Sync + 'static {
    /// How far it has come.
    fn applied(&self) -> Result<Applied, LogError>;

    /// Applies a commit's operations in order, atomically together with `upto`; of a commit that is no news, its
    /// positions. Visible to readers when it returns; durable only after [`StateView::sync`].
    fn apply(&self, ops: &[StateOp], upto: LogPlace) -> Result<(), LogError>;

    /// Makes what was applied so far survive a power cut, save for what stands in memory. Segments before the
    /// returned place may be removed.
    fn sync(&self) -> Result<LogPlace, LogError>;

    /// As [`StateView::sync`], with all positions.
    fn sync_all(&self) -> Result<LogPlace, LogError> {
        self.sync()
    }

    /// Events after `after` and up to `upto`, ascending and at most `limit`, that a dead letter, a due retry or a parked delivery
    /// needs.
    fn needed(&self, after: EventId, upto: EventId, limit: usize) -> Result<Vec<EventId>, LogError>;

    /// Whether a dead letter, a due retry or a parked delivery needs the event.
    fn is_needed(&self, event: EventId) -> Result<bool, LogError>;

    /// Drops notes and settled outcomes of events up to `upto`, save for events that are still needed, in bounded
    /// steps. Returns how many keys went.
    fn prune(&self, upto: EventId) -> Result<u64, LogError>;
}
