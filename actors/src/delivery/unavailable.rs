//! What becomes of a delivery that cannot be prepared because a program's engine cannot be had: it is no fault of the
//! event, nor of the destination. So it waits and is tried again for as long as that takes, and spends no attempt.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Delivery;
use crate::domain::delivery::{DeliveryRecord, DeliveryStatus};

const WAIT_FIRST: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// However many deliveries meet it, an outage is logged no more often.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// The wait after so many times in a row, at least 1. Half of it is spread, by `random` from 0 to 1, so that what met an
/// outage together does not come back together.
fn wait(times: u32, random: f64) -> Duration {
    let doubled = 1u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX);
    WAIT_FIRST.saturating_mul(doubled).min(WAIT_MAX).mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

/// When the last outage was logged; one for the whole tree.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutageLog(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    at: Option<Instant>,
    unsaid: u64,
}

impl OutageLog {
    /// A delivery met an outage. How many did since the last time it was said, where it is to be said now.
    fn met(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.unsaid += 1;
        if said.at.is_some_and(|at| now.saturating_duration_since(at) < SAID_EVERY) {
            return None;
        }
        said.at = Some(now);
        Some(std::mem::take(&mut said.unsaid))
    }
}

impl Delivery {
    /// Sets when it is tried again, and says in its record why it was not.
    pub(super) fn postpone(&mut self, record: &mut DeliveryRecord, reason: &str) {
        Self::count(&self.wires.counters.engine_unavailable);
        if let Some(deliveries) = self.wires.outages.met(Instant::now()) {
            tracing::warn!(
                subscription = self.id.0,
                deliveries,
                reason,
                "deliveries wait, as a program's engine is unavailable"
            );
        }
        record.postponed = record.postponed.saturating_add(1);
        record.reason = Some(format!("waits for its transformation's engine: {reason}"));
        record.status = DeliveryStatus::Retrying;
        // hookmill outlived it.
        record.crashes = 0;
        let wait_ms = u64::try_from(wait(record.postponed, fastrand::f64()).as_millis()).unwrap_or(u64::MAX);
        let due_ms = self.ports.clock.now_ms().saturating_add(wait_ms);
        record.due_ms = Some(due_ms);
        self.ledger.next_due(due_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_are_spread() {
        for (times, seconds) in [(1, 1), (2, 2), (6, 32), (7, 60), (33, 60), (u32::MAX, 60)] {
            let whole = Duration::from_secs(seconds);
            assert_eq!((wait(times, 0.0), wait(times, 1.0)), (whole / 2, whole), "{times} times");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_said_once_a_minute_with_its_extent() {
        let log = OutageLog::default();
        assert_eq!(log.met(Instant::now()), Some(1));
        tokio::time::advance(SAID_EVERY / 2).await;
        assert_eq!((log.met(Instant::now()), log.met(Instant::now())), (None, None));
        tokio::time::advance(SAID_EVERY / 2).await;
        assert_eq!((log.met(Instant::now()), log.clone().met(Instant::now())), (Some(3), None));
    }
}
