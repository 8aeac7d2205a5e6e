//! What the log counts.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use super::health::LogHealth;

/// Upper bounds of the sync histogram's buckets, microseconds; one more bucket holds what took longer.
pub const SYNC_BUCKETS_US: [u64; 8] = [100, 250, 500, 1_000, 5_000, 20_000, 100_000, 1_000_000];

/// A moment's counts.
#[derive(Clone, Debug, Default)]
pub struct LogStats {
    /// Events that wait for their commit.
    pub queue_events: usize,
    /// Their bytes.
    pub queue_bytes: usize,
    /// Commits since the start.
    pub commits: u64,
    /// Events in them: divided by `commits`, the mean batch.
    pub events: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Time spent writing and syncing them.
    pub sync_time: Duration,
    /// The longest of these.
    pub sync_time_max: Duration,
    /// How long they took, counted by [`SYNC_BUCKETS_US`].
    pub sync_buckets: [u64; SYNC_BUCKETS_US.len() + 1],
    /// Segments on disk, the one being written included.
    pub segments: u64,
    /// Bytes of their files.
    pub disk_bytes: u64,
    /// Bytes free on their file system, as last seen.
    pub free_bytes: u64,
    /// Whether the log takes events.
    pub health: LogHealth,
}

/// Counters that the writer turns and anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) queue_events: AtomicUsize,
    pub(crate) queue_bytes: AtomicUsize,
    pub(crate) free_bytes: AtomicU64,
    commits: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
    sync_us: AtomicU64,
    sync_us_max: AtomicU64,
    sync_buckets: [AtomicU64; SYNC_BUCKETS_US.len() + 1],
}

impl Counters {
    /// Counts a commit.
    pub(crate) fn committed(&self, events: usize, bytes: usize, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = SYNC_BUCKETS_US.iter().position(|bound| took_us <= *bound).unwrap_or(SYNC_BUCKETS_US.len());
        self.commits.fetch_add(1, Relaxed);
        self.events.fetch_add(events as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.sync_us.fetch_add(took_us, Relaxed);
        self.sync_us_max.fetch_max(took_us, Relaxed);
        self.sync_buckets[bucket].fetch_add(1, Relaxed);
    }

    /// The counts; what lies on disk is the catalog's to add.
    pub(crate) fn read(&self) -> LogStats {
        LogStats {
            queue_events: self.queue_events.load(Relaxed),
            queue_bytes: self.queue_bytes.load(Relaxed),
            commits: self.commits.load(Relaxed),
            events: self.events.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            sync_time: Duration::from_micros(self.sync_us.load(Relaxed)),
            sync_time_max: Duration::from_micros(self.sync_us_max.load(Relaxed)),
            sync_buckets: std::array::from_fn(|bucket| self.sync_buckets[bucket].load(Relaxed)),
            free_bytes: self.free_bytes.load(Relaxed),
            ..LogStats::default()
        }
    }
}
