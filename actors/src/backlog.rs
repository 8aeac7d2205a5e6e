//! How many bytes of the log an integration's unfinished events hold, and whether they are too many. One cell an
//! integration: the ingress adds to it and asks it on every request, the scheduler measures. A crash of hookmill loses
//! the figures; they are measured again at the start.
//!
//! The ingress never measures: what is counted between two measurements only says when to look. So an integration may
//! pass its share by what arrives within one period.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::{
    domain::ids::{EventId, IntegrationId},
    ports::event_log::LogError,
    snapshot::Snapshot,
    tree::Ports,
};

/// One integration's backlog.
#[derive(Debug, Default)]
pub struct Backlog {
    full: AtomicBool,
    measured: AtomicBool,
    bytes: AtomicU64,
    appended: AtomicU64,
}

/// Full until the backlog is below this share of what is allowed, percent: else a sender would hear 503 and 200 in turn.
const CLEARED_PERCENT: u64 = 90;

impl Backlog {
    /// Whether it holds its share, so that its endpoints accept nothing for now.
    pub fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }

    /// Its bytes when they were last measured.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// An event of about so many bytes was accepted.
    pub fn appended(&self, bytes: u64) {
        self.appended.fetch_add(bytes, Relaxed);
    }

    /// Whether it may have become full, or may no longer be.
    fn is_urgent(&self, bytes_max: u64) -> bool {
        let upper_bound = self.bytes.load(Relaxed).saturating_add(self.appended.load(Relaxed));
        !self.measured.load(Relaxed) || self.is_full() || upper_bound > bytes_max
    }

    /// Whether its bytes may be others than when they were last measured.
    fn has_changed(&self) -> bool {
        self.appended.load(Relaxed) > 0 || self.bytes.load(Relaxed) > 0
    }

    /// Takes a measurement that began after `counted` bytes had been appended; whether it is full now, if that is new.
    fn measured(&self, bytes: u64, counted: u64, bytes_max: u64) -> Option<bool> {
        self.bytes.store(bytes, Relaxed);
        self.appended.fetch_sub(counted, Relaxed);
        self.measured.store(true, Relaxed);
        let was_full = self.is_full();
        let limit = if was_full { bytes_max / 100 * CLEARED_PERCENT } else { bytes_max };
        let full = bytes > limit;
        self.full.store(full, Relaxed);
        (full != was_full).then_some(full)
    }
}

/// A backlog that became full, or no longer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) integration: IntegrationId,
    pub(crate) full: bool,
    pub(crate) bytes: u64,
}

/// Measures the backlogs that matter, or all that may have changed. Those that turned.
pub(crate) async fn measure(
    ports: &Ports,
    snapshot: &Snapshot,
    bytes_max: u64,
    all: bool,
) -> Result<Vec<Turn>, LogError> {
    let mut turns = Vec::new();
    for (integration, backlog) in &snapshot.backlogs {
        let due = backlog.is_urgent(bytes_max) || all && backlog.has_changed();
        if !due {
            continue;
        }
        let counted = backlog.appended.load(Relaxed);
        let after = unfinished_after(ports, snapshot, *integration).await?;
        let bytes = ports.log.bytes_after(*integration, after).await?;
        if let Some(full) = backlog.measured(bytes, counted, bytes_max) {
            turns.push(Turn { integration: *integration, full, bytes });
        }
    }
    Ok(turns)
}

/// The event up to which an integration's intake and all its subscriptions have neither anything to read nor open.
/// What waits for a retry or is dead is not in the way: its payload is kept aside.
pub(crate) async fn unfinished_after(
    ports: &Ports,
    snapshot: &Snapshot,
    integration: IntegrationId,
) -> Result<EventId, LogError> {
    let mut after = ports.state.intake(integration).await?;
    for plan in snapshot.plans_of(integration) {
        let position = ports.state.position(plan.subscription.id).await?.unwrap_or_default();
        after = after.min(match position.open.first() {
            Some(open) => EventId::from_u128(open.as_u128().saturating_sub(1)),
            None => position.read_upto.max(plan.subscription.start_after),
        });
    }
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_above_its_share_and_until_well_below_it() {
        let backlog = Backlog::default();
        assert!(backlog.is_urgent(1_000), "nothing is known yet");
        assert_eq!(backlog.measured(1_000, 0, 1_000), None);
        assert!(!backlog.is_full() && !backlog.is_urgent(1_000));
        backlog.appended(1);
        assert!(backlog.is_urgent(1_000));
        assert_eq!(backlog.measured(1_001, 1, 1_000), Some(true));
        assert!(backlog.is_full() && backlog.is_urgent(u64::MAX));
        assert_eq!(backlog.measured(901, 0, 1_000), None);
        assert!(backlog.is_full());
        assert_eq!(backlog.measured(900, 0, 1_000), Some(false));
        assert!(!backlog.is_full());
    }

    #[test]
    fn what_is_appended_while_it_is_measured_counts_on() {
        let backlog = Backlog::default();
        backlog.appended(100);
        let counted = backlog.appended.load(Relaxed);
        backlog.appended(30);
        backlog.measured(100, counted, 129);
        assert!(backlog.is_urgent(129));
        backlog.measured(0, 30, 129);
        assert!(!backlog.is_urgent(129) && !backlog.has_changed());
    }
}
