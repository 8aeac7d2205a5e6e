//! What the log's threads and its callers share: catalog, state, counters, and the one way to fail.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use hookmill_actors::ports::event_log::LogError;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{
    StateView, catalog::Catalog, options::LogOptions, space::SpaceWatch, stats::Counters, stats::LogHealth, tail::Tail,
};

/// Shared by the log, its threads and its readers.
pub(crate) struct Shared {
    pub(crate) options: LogOptions,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) tail: Tail,
    pub(crate) state: Arc<dyn StateView>,
    pub(crate) counters: Counters,
    pub(crate) disk_low: AtomicBool,
    pub(crate) closed: AtomicBool,
    failure: OnceLock<Arc<str>>,
    health: watch::Sender<LogHealth>,
}

impl Shared {
    pub(crate) fn new(options: LogOptions, catalog: Arc<Catalog>, state: Arc<dyn StateView>) -> Arc<Self> {
        Arc::new(Self {
            options,
            tail: Tail::new(catalog.last()),
            catalog,
            state,
            counters: Counters::default(),
            disk_low: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            failure: OnceLock::new(),
            health: watch::Sender::new(LogHealth::Ready),
        })
    }

    /// Ends the log for good. The first failure is the one that is told.
    pub(crate) fn fail(&self, text: &str) -> LogError {
        let failure = self.failure.get_or_init(|| {
            error!(failure = text, "the event log failed; nothing is accepted any more");
            text.into()
        });
        self.health.send_replace(LogHealth::Failed(Arc::clone(failure)));
        LogError::Failed(Arc::clone(failure))
    }

    /// Why the log is of no use any more, if so.
    pub(crate) fn failed(&self) -> Option<LogError> {
        self.failure.get().map(|failure| LogError::Failed(Arc::clone(failure)))
    }

    /// Whether the log takes events, and every change of that.
    pub(crate) fn health(&self) -> watch::Receiver<LogHealth> {
        self.health.subscribe()
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
        if shared.disk_low.swap(low, SeqCst) == low {
            return;
        }
        if low {
            warn!(free, reserve = shared.options.reserve_bytes, "the log's disk is nearly full; events are refused");
        } else {
            info!(free, "the log's disk has space again");
        }
        shared.health.send_if_modified(|health| {
            let next = if low { LogHealth::DiskLow } else { LogHealth::Ready };
            let changes = !matches!(health, LogHealth::Failed(_)) && *health != next;
            if changes {
                *health = next;
            }
            changes
        });
    }
}
