//! [`StateStore`] over plain maps: what a real store must answer, written as simply as can be.
//!
//! Whoever stands in for the event log calls [`MemoryState::apply`] with each commit. Nothing is bounded or cut
//! short here, and nothing survives the last clone.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use crate::{
    domain::{
        delivery::{DeadLetter, DeliveryRecord, DeliveryStatus, Position},
        ids::{EventId, IntegrationId, ReplayId, SubscriptionId, TaskRunId},
        replay::ReplayJob,
        task::TaskRun,
    },
    ports::{
        event_log::LogError,
        state_store::{
            DedupKey, DeliveryState, Due, FirstTry, Forgotten, InLane, Mark, Note, NoteFilter, Remembered, StateCounts,
            StateOp, StateStore,
        },
    },
};

/// The state in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryState(Arc<Mutex<Maps>>);

#[derive(Clone, Debug, Default)]
struct Maps {
    intake: BTreeMap<IntegrationId, EventId>,
    notes: BTreeMap<EventId, Note>,
    seen: BTreeSet<(EventId, DedupKey)>,
    positions: BTreeMap<SubscriptionId, Position>,
    delivered: BTreeMap<(SubscriptionId, EventId), (Option<u64>, Option<FirstTry>)>,
    records: BTreeMap<(SubscriptionId, EventId), DeliveryRecord>,
    dead: BTreeMap<(SubscriptionId, EventId), DeadLetter>,
    jobs: BTreeMap<ReplayId, ReplayJob>,
    task_runs: BTreeMap<TaskRunId, TaskRun>,
}

impl MemoryState {
    /// Applies a commit's operations in order; readers see all of them or none.
    pub fn apply(&self, ops: &[StateOp]) {
        let mut maps = self.maps();
        for op in ops {
            maps.add(op.clone());
        }
    }

    /// A copy that later commits do not touch.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self(Arc::new(Mutex::new(self.maps().clone())))
    }

    /// Events after `after` and up to `upto` that a dead letter, a due retry or a parked delivery needs, ascending.
    pub fn needed(&self, after: EventId, upto: EventId) -> Vec<EventId> {
        let maps = self.maps();
        let parked =
            maps.records.iter().filter(|(_, record)| record.status == DeliveryStatus::Parked).map(|(key, _)| key);
        let events = maps.dead.keys().chain(maps.due().map(|(key, _)| key)).chain(parked).map(|(_, event)| *event);
        events.filter(|event| *event > after && *event <= upto).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maps {
    fn add(&mut self, op: StateOp) {
        match op {
            StateOp::Intake { integration, upto, notes } => {
                self.intake.insert(integration, upto);
                for mut note in notes {
                    self.seen.extend(note.dedup.take().map(|key| (note.event, key)));
                    self.notes.insert(note.event, note);
                }
            }
            StateOp::Position { subscription, position } => {
                self.positions.insert(subscription, position);
            }
            StateOp::Delivered { subscription, events, at_ms, attempts } => {
                let attempts = attempts.into_iter().map(Some).chain(std::iter::repeat(None));
                let successes = events.into_iter().zip(attempts);
                self.delivered.extend(successes.map(|(event, attempt)| ((subscription, event), (at_ms, attempt))));
            }
            StateOp::Delivery { subscription, event, record } => {
                if record.status != DeliveryStatus::Dead {
                    self.dead.remove(&(subscription, event));
                }
                self.records.insert((subscription, event), record);
            }
            StateOp::Dead(letter) => {
                self.dead.insert((letter.subscription, letter.event), letter);
            }
            StateOp::Job(job) => drop(self.jobs.insert(job.id, *job)),
            StateOp::JobGone { id } => drop(self.jobs.remove(&id)),
            StateOp::TaskRun(run) => drop(self.task_runs.insert(run.id, *run)),
            StateOp::TaskRunGone { id } => drop(self.task_runs.remove(&id)),
            StateOp::Forward { subscription, event, at_ms } => {
                let Some(mut record) = self.records.get(&(subscription, event)).cloned() else { return };
                if record.bring_forward(at_ms) {
                    self.add(StateOp::Delivery { subscription, event, record });
                }
            }
        }
    }

    /// What is due, in no order; what is settled is not.
    fn due(&self) -> impl Iterator<Item = (&(SubscriptionId, EventId), u64)> {
        self.records.iter().filter_map(|(key, record)| match record.status {
            DeliveryStatus::Pending | DeliveryStatus::Retrying => Some((key, record.due_ms?)),
            DeliveryStatus::Delivered
            | DeliveryStatus::Dead
            | DeliveryStatus::Cancelled
            | DeliveryStatus::Parked
            | DeliveryStatus::Discarded => None,
        })
    }

    /// What holds others back in a lane, or is held back in it.
    fn held(&self) -> impl Iterator<Item = (&(SubscriptionId, EventId), u64)> {
        let held = self.records.iter().filter(|(_, record)| {
            matches!(record.status, DeliveryStatus::Retrying | DeliveryStatus::Parked | DeliveryStatus::Dead)
        });
        held.filter_map(|(key, record)| record.lane.map(|lane| (key, lane)))
    }
}

#[async_trait]
impl StateStore for MemoryState {
    async fn intake(&self, integration: IntegrationId) -> Result<EventId, LogError> {
        Ok(self.maps().intake.get(&integration).copied().unwrap_or_default())
    }

    async fn position(&self, subscription: SubscriptionId) -> Result<Option<Position>, LogError> {
        Ok(self.maps().positions.get(&subscription).cloned())
    }

    async fn due(&self, subscription: SubscriptionId, until_ms: u64, limit: usize) -> Result<Vec<Due>, LogError> {
        let maps = self.maps();
        let own = maps.due().filter(|((of, _), due_ms)| *of == subscription && *due_ms <= until_ms);
        let mut due: Vec<Due> = own.map(|((_, event), due_ms)| Due { due_ms, event: *event }).collect();
        due.sort_unstable();
        due.truncate(limit);
        Ok(due)
    }

    async fn delivery(&self, subscription: SubscriptionId, event: EventId) -> Result<DeliveryState, LogError> {
        let maps = self.maps();
        Ok(match maps.records.get(&(subscription, event)) {
            Some(record) => DeliveryState::Record(record.clone()),
            None => match maps.delivered.get(&(subscription, event)) {
                Some((at_ms, attempt)) => DeliveryState::Delivered { at_ms: *at_ms, attempt: *attempt },
                None => DeliveryState::Unknown,
            },
        })
    }

    async fn lanes(&self, subscription: SubscriptionId) -> Result<Vec<InLane>, LogError> {
        let maps = self.maps();
        let own = maps.held().filter(|((of, _), _)| *of == subscription);
        let mut lanes: Vec<InLane> = own.map(|((_, event), lane)| InLane { lane, event: *event }).collect();
        lanes.sort_unstable();
        Ok(lanes)
    }

    async fn next_waiting(&self, after: SubscriptionId) -> Result<Option<SubscriptionId>, LogError> {
        let maps = self.maps();
        let due = maps.due().map(|((of, _), _)| *of);
        let held = maps.held().map(|((of, _), _)| *of);
        Ok(due.chain(held).filter(|of| *of > after).min())
    }

    async fn marks(
        &self,
        integration: IntegrationId,
        after: EventId,
        upto: EventId,
    ) -> Result<Vec<(EventId, Mark)>, LogError> {
        if after >= upto {
            return Ok(Vec::new());
        }
        let maps = self.maps();
        let between = maps.notes.range((Bound::Excluded(after), Bound::Included(upto)));
        let own = between.filter(|(event, _)| event.integration() == integration);
        Ok(own.filter_map(|(event, note)| note.mark.clone().map(|mark| (*event, mark))).collect())
    }

    async fn seen(&self, keys: &[(DedupKey, EventId)]) -> Result<Vec<Option<EventId>>, LogError> {
        let maps = self.maps();
        let last = |(key, before): &(DedupKey, EventId)| {
            let own = maps.seen.iter().rev().filter(|(event, seen)| seen == key && event < before);
            own.map(|(event, _)| *event).next()
        };
        Ok(keys.iter().map(last).collect())
    }

    async fn forget_seen(&self, Remembered { after, keys_max }: Remembered) -> Result<Forgotten, LogError> {
        let seen = &mut self.maps().seen;
        let before = seen.len();
        seen.retain(|(event, key)| after.get(&key.endpoint).is_some_and(|after| event > after));
        let outdated = (before - seen.len()) as u64;
        let mut displaced = 0;
        while seen.len() as u64 > keys_max && seen.pop_first().is_some() {
            displaced += 1;
        }
        Ok(Forgotten { outdated, displaced })
    }

    async fn note(&self, event: EventId) -> Result<Option<Note>, LogError> {
        Ok(self.maps().notes.get(&event).cloned())
    }

    async fn noted(
        &self,
        filter: &NoteFilter,
        (first, before): (EventId, EventId),
        limit: usize,
    ) -> Result<(Vec<EventId>, Option<EventId>), LogError> {
        if first >= before {
            return Ok((Vec::new(), None));
        }
        let maps = self.maps();
        let passing = maps.notes.range(first..before).rev().filter(|(_, note)| filter.passes(note));
        let mut ids: Vec<EventId> = passing.map(|(event, _)| *event).take(limit.saturating_add(1)).collect();
        let more = ids.len() > limit;
        ids.truncate(limit);
        let next = ids.last().copied().filter(|_| more);
        Ok((ids, next))
    }

    async fn dead_letters(
        &self,
        after: Option<(SubscriptionId, EventId)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogError> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self.maps().dead.range((after, Bound::Unbounded)).take(limit).map(|(_, letter)| letter.clone()).collect())
    }

    async fn dead_letter(&self, subscription: SubscriptionId, event: EventId) -> Result<Option<DeadLetter>, LogError> {
        Ok(self.maps().dead.get(&(subscription, event)).cloned())
    }

    async fn jobs(&self) -> Result<Vec<ReplayJob>, LogError> {
        Ok(self.maps().jobs.values().cloned().collect())
    }

    async fn task_runs(&self) -> Result<Vec<TaskRun>, LogError> {
        Ok(self.maps().task_runs.values().cloned().collect())
    }

    async fn job(&self, id: ReplayId) -> Result<Option<ReplayJob>, LogError> {
        Ok(self.maps().jobs.get(&id).cloned())
    }

    async fn counts(&self) -> Result<StateCounts, LogError> {
        let maps = self.maps();
        let parked = maps.records.values().filter(|record| record.status == DeliveryStatus::Parked).count() as u64;
        Ok(StateCounts {
            due: maps.due().count() as u64,
            dead: maps.dead.len() as u64,
            parked,
            dedup_keys: maps.seen.len() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::DeadReason;

    const SUBSCRIPTION: SubscriptionId = SubscriptionId(1);

    fn event(n: u64) -> EventId {
        EventId::at_millis(n)
    }

    fn record(status: DeliveryStatus, due_ms: Option<u64>) -> StateOp {
        let record = DeliveryRecord { status, due_ms, ..DeliveryRecord::new(1) };
        StateOp::Delivery { subscription: SUBSCRIPTION, event: event(1), record }
    }

    #[tokio::test]
    async fn a_delivery_goes_from_due_to_dead_to_delivered() {
        let state = MemoryState::default();
        state.apply(&[record(DeliveryStatus::Retrying, Some(5)), record(DeliveryStatus::Retrying, Some(9))]);
        assert_eq!(state.due(SUBSCRIPTION, 8, 10).await, Ok(vec![]));
        assert_eq!(state.due(SUBSCRIPTION, 9, 10).await, Ok(vec![Due { due_ms: 9, event: event(1) }]));
        assert_eq!(state.needed(EventId::ZERO, event(1)), vec![event(1)]);

        let letter = DeadLetter {
            event: event(1),
            subscription: SUBSCRIPTION,
            reason: DeadReason::Refused,
            error: String::new(),
            at_ms: 1,
            attempts: 1,
        };
        state.apply(&[StateOp::Dead(letter.clone()), record(DeliveryStatus::Dead, None)]);
        assert_eq!(state.counts().await, Ok(StateCounts { dead: 1, ..StateCounts::default() }));
        assert_eq!(state.dead_letters(None, 10).await, Ok(vec![letter]));
        assert_eq!(state.dead_letters(Some((SUBSCRIPTION, event(1))), 10).await, Ok(vec![]));

        state.apply(&[record(DeliveryStatus::Delivered, None)]);
        assert_eq!(state.counts().await, Ok(StateCounts::default()));
        assert_eq!(state.needed(EventId::ZERO, EventId::MAX), vec![]);
    }

    #[tokio::test]
    async fn only_what_waits_for_a_later_time_is_brought_forward() {
        let state = MemoryState::default();
        let forward = StateOp::Forward { subscription: SUBSCRIPTION, event: event(1), at_ms: 7 };
        for (status, due_ms, want) in [
            (DeliveryStatus::Retrying, Some(9), Some(7)),
            (DeliveryStatus::Pending, Some(9), Some(7)),
            (DeliveryStatus::Retrying, Some(5), Some(5)),
            (DeliveryStatus::Pending, None, None),
            (DeliveryStatus::Cancelled, Some(9), Some(9)),
            (DeliveryStatus::Discarded, None, None),
        ] {
            let before = record(status, due_ms);
            state.apply(&[before, forward.clone()]);
            let after = DeliveryRecord { status, due_ms: want, ..DeliveryRecord::new(1) };
            assert_eq!(state.delivery(SUBSCRIPTION, event(1)).await, Ok(DeliveryState::Record(after)));
        }
        let unknown = StateOp::Forward { subscription: SUBSCRIPTION, event: event(2), at_ms: 7 };
        state.apply(&[unknown]);
        assert_eq!(state.delivery(SUBSCRIPTION, event(2)).await, Ok(DeliveryState::Unknown));
    }
}
