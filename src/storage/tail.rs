//! The newest records in memory, so that whoever keeps up reads no file: by integration, the oldest go first.
//!
//! The writer adds to it after each sync, so nothing is read here that would not survive a power cut. Readers ask here
//! first and are told when they stand further back. Owns nothing that the files do not have.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use hookmill_actors::{
    domain::ids::{EventId, IntegrationId},
    ports::event_log::ReadBounds,
};

/// Bytes of records kept. Enough for a moment of full load: readers that keep up are not further behind.
const BYTES_MAX: usize = 4 << 20;

/// The newest records.
pub(crate) struct Tail(Mutex<Recent>);

/// A record and the salt of the segment it is in.
#[derive(Clone, Debug)]
pub(crate) struct TailRecord {
    pub(crate) id: EventId,
    pub(crate) salt: u64,
    pub(crate) bytes: Bytes,
}

struct Recent {
    bytes_max: usize,
    bytes: usize,
    /// Whose the records are, oldest first.
    order: VecDeque<IntegrationId>,
    /// Grows with the number of integrations that had events since the start.
    integrations: HashMap<IntegrationId, Own>,
    /// Records up to this one were written before the start.
    start: EventId,
}

struct Own {
    /// Records up to this one are not here.
    gone: EventId,
    records: VecDeque<TailRecord>,
}

impl Tail {
    /// Begins after `last`, the last id that the log has.
    pub(crate) fn new(last: EventId) -> Self {
        Self::with_bytes_max(last, BYTES_MAX)
    }

    fn with_bytes_max(last: EventId, bytes_max: usize) -> Self {
        let (order, integrations) = (VecDeque::new(), HashMap::new());
        Self(Mutex::new(Recent { bytes_max, bytes: 0, order, integrations, start: last }))
    }

    /// Adds records, ascending, each with bytes of its own: what a reader holds must not hold a whole commit.
    pub(crate) fn push(&self, records: Vec<TailRecord>) {
        let mut recent = self.lock();
        for record in records {
            let (start, integration) = (recent.start, record.id.integration());
            recent.bytes += record.bytes.len();
            recent.order.push_back(integration);
            let own = recent.integrations.entry(integration);
            own.or_insert_with(|| Own { gone: start, records: VecDeque::new() }).records.push_back(record);
        }
        while recent.bytes > recent.bytes_max && recent.drop_oldest() {}
    }

    /// Drops what was trimmed from the log: records up to `upto`.
    pub(crate) fn forget(&self, upto: EventId) {
        let mut recent = self.lock();
        while recent.oldest().is_some_and(|oldest| oldest <= upto) && recent.drop_oldest() {}
    }

    /// An integration's records after `after`, in order, and whether the bounds have room for all of them; `None` where
    /// some may not be here any more.
    pub(crate) fn after(
        &self,
        integration: IntegrationId,
        after: EventId,
        bounds: ReadBounds,
    ) -> Option<(Vec<TailRecord>, bool)> {
        let recent = self.lock();
        let Some(own) = recent.integrations.get(&integration) else {
            return (after >= recent.start).then(|| (Vec::new(), true));
        };
        if after < own.gone {
            return None;
        }
        let from = own.records.partition_point(|record| record.id <= after);
        let mut bytes = 0;
        let fitting = own.records.range(from..).take(bounds.events_max).take_while(|record| {
            let fits = bytes == 0 || bytes + record.bytes.len() <= bounds.bytes_max;
            bytes += record.bytes.len();
            fits
        });
        let fitting: Vec<TailRecord> = fitting.cloned().collect();
        let all = from + fitting.len() == own.records.len();
        Some((fitting, all))
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        // A panic under the lock leaves at most a record that is not counted.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn oldest(&self) -> Option<EventId> {
        let own = self.integrations.get(self.order.front()?)?;
        own.records.front().map(|record| record.id)
    }

    /// Whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let Some(own) = self.order.pop_front().and_then(|integration| self.integrations.get_mut(&integration)) else {
            return false;
        };
        if let Some(oldest) = own.records.pop_front() {
            own.gone = oldest.id;
            self.bytes -= oldest.bytes.len();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u64, integration: u32) -> EventId {
        EventId::from_parts(u128::from(n) + 10, IntegrationId(integration), 0)
    }

    fn record(n: u64, integration: u32, bytes: usize) -> TailRecord {
        TailRecord { id: id(n, integration), salt: 1, bytes: vec![0; bytes].into() }
    }

    proptest! {
        /// Whatever it answers is all there is, in order, within the bounds; and it holds no more than it may.
        #[test]
        fn an_answer_is_complete_or_there_is_none(
            writes in proptest::collection::vec((1u32..4, 1usize..60), 1..80),
            asks in proptest::collection::vec((1u32..5, 0u64..90, 1usize..8, 1usize..200), 1..40),
        ) {
            let tail = Tail::with_bytes_max(id(4, 9), 300);
            let mut written: Vec<(EventId, usize)> = Vec::new();
            for (n, (integration, bytes)) in (5u64..).zip(&writes) {
                tail.push(vec![record(n, *integration, *bytes)]);
                written.push((id(n, *integration), *bytes));
            }
            prop_assert!(tail.lock().bytes <= 300);
            for (integration, after, events_max, bytes_max) in asks {
                let (integration, after) = (IntegrationId(integration), id(after, 0));
                let all: Vec<_> = written.iter().filter(|(id, _)| id.integration() == integration && *id > after).collect();
                match tail.after(integration, after, ReadBounds { events_max, bytes_max }) {
                    None => {}
                    Some((found, all_found)) => {
                        prop_assert_eq!(all_found, found.len() == all.len());
                        prop_assert!(after >= id(4, 9) || found.is_empty());
                        prop_assert!(found.len() <= events_max);
                        prop_assert!(all.iter().zip(&found).all(|(written, found)| written.0 == found.id));
                        let cut = found.len() < all.len().min(events_max);
                        let bytes: usize = all.iter().take(found.len() + 1).map(|(_, bytes)| bytes).sum();
                        prop_assert!(!cut || bytes > bytes_max, "cut short without a reason");
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_there_before_the_start_is_not_known_here() {
        let tail = Tail::new(id(5, 1));
        let bounds = ReadBounds { events_max: 10, bytes_max: 1_000 };
        assert!(tail.after(IntegrationId(1), id(4, 1), bounds).is_none());
        assert_eq!(tail.after(IntegrationId(1), id(5, 1), bounds).map(|(found, _)| found.len()), Some(0));
        tail.push(vec![record(6, 1, 10)]);
        assert!(tail.after(IntegrationId(1), id(4, 1), bounds).is_none());
        assert_eq!(tail.after(IntegrationId(1), id(5, 1), bounds).map(|(found, _)| found.len()), Some(1));
        assert_eq!(tail.after(IntegrationId(2), id(6, 0), bounds).map(|(found, _)| found.len()), Some(0));
    }
}
