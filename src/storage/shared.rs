//! What the log's threads and its callers share: catalog, state, counters, and the one way to fail.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use hookmill_actors::ports::event_log::LogError;
use tracing::{error, info, warn};

use super::{
    StateView, catalog::Catalog, health::Health, options::LogOptions, space::SpaceWatch, stall::Pulses,
    stats::Counters, tail::Tail,
};

/// Shared by the log, its threads and its readers.
pub(crate) struct Shared {
    pub(crate) options: LogOptions,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) tail: Tail,
    pub(crate) state: Arc<dyn StateView>,
    pub(crate) counters: Counters,
    pub(crate) closed: AtomicBool,
    pub(crate) health: Arc<Health>,
    pub(crate) pulses: Arc<Pulses>,
}

impl Shared {
    pub(crate) fn new(options: LogOptions, catalog: Arc<Catalog>, state: Arc<dyn StateView>) -> Arc<Self> {
        Arc::new(Self {
            options,
            tail: Tail::new(catalog.last()),
            catalog,
            state,
            counters: Counters::default(),
            closed: AtomicBool::new(false),
            health: Arc::default(),
            pulses: Arc::default(),
        })
    }

    /// Ends the log for good. The first failure is the one that is told.
    pub(crate) fn fail(&self, text: &str) -> LogError {
        if self.health.fail(text) {
            error!(failure = text, "the event log failed; nothing is accepted any more");
        }
        self.failed().expect("it has just failed")
    }

    /// Why the log is of no use any more, if so.
    pub(crate) fn failed(&self) -> Option<LogError> {
        self.health.failure().map(LogError::Failed)
    }
}

/// Turns events away while the disk is nearly full.
pub(crate) struct ReserveWatch(pub(crate) Arc<Shared>);

impl SpaceWatch for ReserveWatch {
    fn free(&self, free: std::io::Result<u64>) {
        let shared = &self.0;
        let free = match free {
            Ok(free) => free,
            Err(error) => return warn!(%error, "free space of the log's disk is not known"),
        };
        shared.counters.free_bytes.store(free, SeqCst);
        let low = free < shared.options.reserve_bytes;
        if !shared.health.set_disk_low(low) {
            return;
        }
        if low {
            warn!(free, reserve = shared.options.reserve_bytes, "the log's disk is nearly full; events are refused");
        } else {
            info!(free, "the log's disk has space again");
        }
    }
}
