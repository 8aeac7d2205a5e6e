//! Which events their provider has sent before. Decides on batches in their order, beside the actor.
//!
//! The first of two events under one key stands, and the later one is its duplicate, unless the first came to nothing:
//! then the provider's resend is the second chance, and its key replaces the first one's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest, Sha256};

use crate::{
    domain::{
        delivery::DeliveryStatus,
        event::Event,
        ids::{EventId, IntegrationId},
    },
    ports::{
        event_log::LogError,
        state_store::{DedupKey, DeliveryState, Mark, Note, StateStore},
    },
    snapshot::{Naming, Snapshot},
};

/// An integration's keys that are not known to be recorded. Clones share them. Bounded by what intake may be ahead of
/// its recording.
#[derive(Clone, Debug, Default)]
pub(super) struct RecentKeys(Arc<Mutex<HashMap<DedupKey, EventId>>>);

impl RecentKeys {
    /// Holds the keys of these notes, from before the next batch is looked at.
    pub(super) fn hold(&self, notes: &[Note]) {
        self.keys().extend(notes.iter().filter_map(|note| note.dedup.map(|key| (key, note.event))));
    }

    /// Lets go of the keys of events up to `upto`: the state has them.
    pub(super) fn recorded(&self, upto: EventId) {
        self.keys().retain(|_, event| *event > upto);
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<DedupKey, EventId>> {
        // Each change is whole by itself: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A note that may be of a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its place among the batch's notes.
    pub(super) note: usize,
    pub(super) key: DedupKey,
    pub(super) event: EventId,
    /// How much older the first may be, milliseconds.
    pub(super) window_ms: u64,
}

/// Under what an event is known as the same, where its endpoint asks for that.
pub(super) fn key(naming: &Naming, event: &Event, provider_id: &str) -> Option<DedupKey> {
    if naming.dedup_window_ms == 0 {
        return None;
    }
    let mut hash = Sha256::new();
    hash.update((provider_id.len() as u64).to_le_bytes());
    hash.update(provider_id);
    if !naming.id_signed {
        hash.update(&event.arrival.body);
    }
    let whole: [u8; 32] = hash.finalize().into();
    let [hash, _] = *whole.as_chunks::<16>().0 else { return None };
    Some(DedupKey { endpoint: event.arrival.endpoint, hash })
}

/// Marks the duplicates among a batch's notes, and gives the others their keys.
pub(super) struct Dedup<'a> {
    pub(super) state: &'a dyn StateStore,
    pub(super) snapshot: &'a Snapshot,
    pub(super) integration: IntegrationId,
    pub(super) recent: &'a RecentKeys,
}

impl Dedup<'_> {
    pub(super) async fn mark(&self, candidates: &[Candidate], notes: &mut [Note]) -> Result<(), LogError> {
        // Recent keys first: one goes from there only once the state has it.
        let recent: HashMap<DedupKey, EventId> = {
            let keys = self.recent.keys();
            candidates
                .iter()
                .filter_map(|candidate| keys.get_key_value(&candidate.key))
                .map(|(k, v)| (*k, *v))
                .collect()
        };
        let asked: Vec<(DedupKey, EventId)> =
            candidates.iter().map(|candidate| (candidate.key, candidate.event)).collect();
        let recorded = if asked.is_empty() { Vec::new() } else { self.state.seen(&asked).await? };
        let mut newest = recent;
        for (candidate, recorded) in candidates.iter().zip(recorded) {
            let Candidate { note, key, event, window_ms } = *candidate;
            // What is in memory is younger than what is recorded.
            let first = newest.get(&key).copied().or(recorded);
            match first.filter(|first| is_within(*first, event, window_ms)) {
                Some(first) if !self.came_to_nothing(first).await? => notes[note].mark = Some(Mark::DuplicateOf(first)),
                _ => {
                    notes[note].dedup = Some(key);
                    newest.insert(key, event);
                }
            }
        }
        Ok(())
    }

    /// Whether some delivery of the event was given up: sent again, it is worth another try.
    async fn came_to_nothing(&self, event: EventId) -> Result<bool, LogError> {
        for plan in self.snapshot.plans_of(self.integration) {
            if let DeliveryState::Record(record) = self.state.delivery(plan.subscription.id, event).await?
                && given_up(record.status)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn given_up(status: DeliveryStatus) -> bool {
    match status {
        DeliveryStatus::Dead | DeliveryStatus::Discarded | DeliveryStatus::Cancelled => true,
        DeliveryStatus::Pending | DeliveryStatus::Retrying | DeliveryStatus::Parked | DeliveryStatus::Delivered => {
            false
        }
    }
}

/// Whether `first` came before `event`, and not too long before. An event is never its own duplicate: after a crash
/// one may be looked at again whose key is known already.
fn is_within(first: EventId, event: EventId, window_ms: u64) -> bool {
    first < event && event.millis().saturating_sub(first.millis()) <= window_ms
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        domain::{event::Arrival, headers::HeaderBlock, ids::EndpointId},
        integration::intake::record,
        testkit::{memory_state::MemoryState, stubs::PlainProvider},
    };

    const INTEGRATION: IntegrationId = IntegrationId(1);
    const WINDOW_MS: u64 = 50;

    fn naming(id_signed: bool) -> Naming {
        Naming { provider: &PlainProvider, settings: Arc::default(), dedup_window_ms: WINDOW_MS, id_signed }
    }

    fn event(millis: u64, body: &'static str) -> Event {
        let arrival = Arrival {
            endpoint: EndpointId(1),
            received_at_ms: millis,
            accepted_version: 1,
            peer: Ipv4Addr::LOCALHOST.into(),
            hops: 0,
            query: "".into(),
            headers: HeaderBlock::default(),
            body: Bytes::from_static(body.as_bytes()),
        };
        Event { id: EventId::from_parts(u128::from(millis) << 26, INTEGRATION, 0), arrival }
    }

    #[test]
    fn a_signed_id_decides_alone_and_any_other_with_its_body() {
        let (one, other) = (event(1, "one"), event(2, "other"));
        assert_eq!(key(&naming(true), &one, "1"), key(&naming(true), &other, "1"));
        assert_ne!(key(&naming(true), &one, "1"), key(&naming(true), &one, "2"));
        assert_ne!(key(&naming(false), &one, "1"), key(&naming(false), &other, "1"));
        assert_eq!(key(&naming(false), &one, "1"), key(&naming(false), &event(3, "one"), "1"));
        // Where an id ends and a body begins is part of the key.
        assert_ne!(key(&naming(false), &event(1, "bc"), "a"), key(&naming(false), &event(1, "c"), "ab"));
        assert_eq!(key(&Naming { dedup_window_ms: 0, ..naming(true) }, &one, "1"), None);
    }

    /// What stands, told one event after the other.
    fn expected(events: &[Event]) -> Vec<Option<EventId>> {
        let mut standing: HashMap<Bytes, EventId> = HashMap::new();
        let mut first_of = |event: &Event| {
            let body = event.arrival.body.clone();
            let first = standing.get(&body).filter(|first| event.id.millis() - first.millis() <= WINDOW_MS).copied();
            if first.is_none() {
                standing.insert(body, event.id);
            }
            first
        };
        events.iter().map(&mut first_of).collect()
    }

    /// One batch of intake; what follows it on the way to the state may be cut off by a crash.
    async fn look_at(state: &MemoryState, recent: &RecentKeys, events: &[Event]) -> Vec<Note> {
        let (mut notes, mut candidates) = (Vec::new(), Vec::new());
        for event in events {
            let key = key(&naming(false), event, "id").expect("it has an id");
            candidates.push(Candidate { note: notes.len(), key, event: event.id, window_ms: WINDOW_MS });
            notes.push(Note { event: event.id, ..Note::default() });
        }
        let snapshot = Snapshot::default();
        let dedup = Dedup { state, snapshot: &snapshot, integration: INTEGRATION, recent };
        dedup.mark(&candidates, &mut notes).await.expect("the state answers");
        notes
    }

    proptest! {
        #[test]
        fn batches_delays_and_crashes_change_nothing(
            arrivals in proptest::collection::vec((0u64..30, 0usize..4), 1..60),
            // How many events a batch has, whether it is recorded after it, and whether a crash follows.
            batches in proptest::collection::vec((1usize..12, any::<bool>(), 0u8..5), 1..30),
        ) {
            let mut now = 1_000;
            let events: Vec<Event> = arrivals.iter().map(|(gap, body)| {
                now += gap + 1;
                event(now, ["a", "b", "c", "d"][*body])
            }).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let state = MemoryState::default();
            let mut recent = RecentKeys::default();
            let (mut at, mut recorded_upto, mut waiting) = (0, 0, Vec::new());
            for (size, records, crash) in batches.into_iter().cycle().take(1_000) {
                let batch = &events[at..events.len().min(at + size)];
                let notes = runtime.block_on(look_at(&state, &recent, batch));
                recent.hold(&notes);
                waiting.extend(notes);
                at += batch.len();
                if records || at == events.len() {
                    let upto = events[at - 1].id;
                    state.apply(&record(INTEGRATION, upto, std::mem::take(&mut waiting)));
                    recent.recorded(upto);
                    recorded_upto = at;
                }
                if at == events.len() {
                    break;
                }
                if crash == 0 {
                    (recent, at) = (RecentKeys::default(), recorded_upto);
                    waiting.clear();
                }
            }
            prop_assume!(at == events.len());
            for (event, first) in events.iter().zip(expected(&events)) {
                let mark = runtime.block_on(state.note(event.id)).unwrap().and_then(|note| note.mark);
                prop_assert_eq!(mark, first.map(Mark::DuplicateOf), "event {}", event.id);
            }
        }
    }
}
