//! Whether the log takes events, who hears of a change of that, and the one way to fail.
//!
//! Nothing here waits: whoever watches threads that hang must not hang with them.

use std::sync::{
    Arc, OnceLock,
    atomic::{
        AtomicBool,
        Ordering::{Relaxed, SeqCst},
    },
};

use hookmill_actors::ports::event_log::LogError;
use tokio::sync::watch;

/// Whether the log takes events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogHealth {
    /// It does.
    #[default]
    Ready,
    /// Not now: free space is below the reserve. It comes back by itself.
    DiskLow,
    /// Not now: this work, without which nothing can be stored, takes unusually long. It comes back by itself, or fails.
    Stalled(&'static str),
    /// Never again in this process: a write or sync failed, or never ended. Say so, be not ready, exit non-zero.
    Failed(Arc<str>),
}

/// What is known of the log's health. A failure outlasts everything, and a stall hides a full disk.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failure: OnceLock<Arc<str>>,
    stalled: AtomicBool,
    disk_low: AtomicBool,
    told: watch::Sender<LogHealth>,
}

impl Health {
    /// Ends the log for good; the first failure is the one that is told. Whether this is it.
    pub(crate) fn fail(&self, text: &str) -> bool {
        let mut is_first = false;
        let failure = self.failure.get_or_init(|| {
            is_first = true;
            text.into()
        });
        self.told.send_replace(LogHealth::Failed(Arc::clone(failure)));
        is_first
    }

    /// Why the log is of no use any more, if so.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.failure.get().cloned()
    }

    /// Free space is below the reserve, or is not any more. Whether that is news.
    pub(crate) fn set_disk_low(&self, low: bool) -> bool {
        let is_news = self.disk_low.swap(low, SeqCst) != low;
        self.tell(|told| match told {
            LogHealth::Stalled(work) => Some(work),
            _ => None,
        });
        is_news
    }

    /// The work that keeps events from being stored, if any does.
    pub(crate) fn set_stalled(&self, work: Option<&'static str>) {
        self.stalled.store(work.is_some(), SeqCst);
        self.tell(|_| work);
    }

    /// Refuses events while they could not be stored, unless for good.
    pub(crate) fn ensure_takes_events(&self) -> Result<(), LogError> {
        if self.stalled.load(Relaxed) {
            return Err(LogError::Stalled);
        }
        if self.disk_low.load(Relaxed) { Err(LogError::DiskFull) } else { Ok(()) }
    }

    /// Whether free space is below the reserve.
    pub(crate) fn disk_is_low(&self) -> bool {
        self.disk_low.load(Relaxed)
    }

    /// Every change from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<LogHealth> {
        self.told.subscribe()
    }

    fn tell(&self, stalled: impl FnOnce(&LogHealth) -> Option<&'static str>) {
        self.told.send_if_modified(|told| {
            let next = match stalled(told) {
                Some(work) => LogHealth::Stalled(work),
                None if self.disk_is_low() => LogHealth::DiskLow,
                None => LogHealth::Ready,
            };
            let changes = !matches!(told, LogHealth::Failed(_)) && *told != next;
            if changes {
                *told = next;
            }
            changes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_hides_a_full_disk_and_a_failure_hides_both() {
        let health = Health::default();
        let told = health.subscribe();
        let is = |want: LogHealth| assert_eq!(*told.borrow(), want);
        assert!(health.set_disk_low(true) && !health.set_disk_low(true));
        is(LogHealth::DiskLow);
        health.set_stalled(Some("syncing"));
        health.set_disk_low(false);
        is(LogHealth::Stalled("syncing"));
        assert_eq!(health.ensure_takes_events(), Err(LogError::Stalled));
        health.set_stalled(None);
        is(LogHealth::Ready);
        assert_eq!(health.ensure_takes_events(), Ok(()));
        health.set_stalled(Some("syncing"));
        health.set_disk_low(true);
        health.set_stalled(None);
        is(LogHealth::DiskLow);
        assert_eq!(health.ensure_takes_events(), Err(LogError::DiskFull));
        assert!(health.fail("gone") && !health.fail("gone again"));
        health.set_stalled(Some("syncing"));
        health.set_disk_low(false);
        is(LogHealth::Failed("gone".into()));
        assert_eq!(health.failure().as_deref(), Some("gone"));
    }
}
