//! What an operator may turn of the log.

use std::time::Duration;

use super::{
    open_error::OpenError,
    segment::{DATA_START, SEGMENT_BYTES_MAX},
};

/// Settings of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes of a segment file, allocated at once. Trimming removes whole segments.
    pub segment_bytes: u64,
    /// Events that may wait for their commit; more are refused with `QueueFull`.
    pub queue_events: usize,
    /// Their bytes; one larger event is still taken when nothing waits.
    pub queue_bytes: usize,
    /// A commit takes no more events once it has so many bytes.
    pub commit_bytes: usize,
    /// The largest record, headers and body together, bytes.
    pub record_bytes_max: usize,
    /// While less than this is free on the file system, events are refused with `DiskFull`, bytes.
    pub reserve_bytes: u64,
    /// How often free space is looked at.
    pub space_check_every: Duration,
    /// How long state waits for events to ride along with.
    pub state_wait: Duration,
    /// How often the state is synced,
    pub state_sync_every: Duration,
    /// or after how many bytes of log: bounds what a start must replay.
    pub state_sync_bytes: u64,
    /// Work of the log's threads that takes longer than this is given up for stalled, and the log fails.
    pub stall_limit: Duration,
    /// Reads under way at once; more wait.
    pub readers: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            queue_events: 16_384,
            queue_bytes: 64 << 20,
            commit_bytes: 8 << 20,
            record_bytes_max: 65 << 20,
            reserve_bytes: 256 << 20,
            space_check_every: Duration::from_millis(250),
            state_wait: Duration::from_millis(50),
            state_sync_every: Duration::from_secs(2),
            state_sync_bytes: 32 << 20,
            stall_limit: Duration::from_mins(1),
            readers: 8,
        }
    }
}

impl LogOptions {
    /// The first fault, in words that say what would be right.
    pub(crate) fn validate(&self) -> Result<(), OpenError> {
        let range = 4 * DATA_START..=SEGMENT_BYTES_MAX;
        if !range.contains(&self.segment_bytes) {
            return Err(OpenError::Option(format!(
                "`segment_bytes` is {}; it must be {} to {}",
                self.segment_bytes,
                range.start(),
                range.end()
            )));
        }
        if self.record_bytes_max as u64 + 2 * DATA_START > SEGMENT_BYTES_MAX {
            return Err(OpenError::Option(format!(
                "`record_bytes_max` is {}; it must be well below {SEGMENT_BYTES_MAX}",
                self.record_bytes_max
            )));
        }
        for (name, value) in
            [("queue_events", self.queue_events), ("commit_bytes", self.commit_bytes), ("readers", self.readers)]
        {
            if value == 0 {
                return Err(OpenError::Option(format!("`{name}` is 0; it must be at least 1")));
            }
        }
        Ok(())
    }

    /// A commit must leave most of a segment's end usable, so it is small against a segment.
    pub(crate) fn commit_bytes_max(&self) -> usize {
        usize::try_from(self.segment_bytes / 4).unwrap_or(usize::MAX).min(self.commit_bytes).min(256 << 20)
    }
}
