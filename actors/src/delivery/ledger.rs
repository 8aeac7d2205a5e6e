//! A subscription's position and what is not yet recorded of it. Pure.

use std::collections::BTreeSet;

use crate::{
    domain::{
        delivery::Position,
        ids::{EventId, SubscriptionId},
        limits::{COMMIT_OUTCOMES, IN_FLIGHT_MAX, RUN_IDS_MAX, UNRECORDED_MAX},
    },
    ports::state_store::{FirstTry, StateOp},
};

/// Every event up to `read_upto` is settled, due, or in `open`. What is settled but not yet part of a commit waits
/// in `delivered` and `ops`; a commit carries it together with the position that no longer lists it as open, so
/// that the stored position never passes an event whose outcome is not stored.
#[derive(Debug)]
pub(crate) struct Ledger {
    read_upto: EventId,
    open: BTreeSet<EventId>,
    delivered: Vec<(EventId, FirstTry)>,
    ops: Vec<StateOp>,
    /// Of those that were due, and stand in the due queue until `ops` are stored.
    retried: Vec<EventId>,
    next_due_ms: Option<u64>,
    waiting: usize,
    unrecorded: usize,
    moved: bool,
}

/// What one commit holds.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    pub(crate) ops: Vec<StateOp>,
    /// How many outcomes it holds.
    pub(crate) outcomes: usize,
    /// These leave the due queue, or stand in it with another time.
    pub(crate) retried: Vec<EventId>,
    /// The soonest time of a next attempt in it, milliseconds since 1970.
    pub(crate) next_due_ms: Option<u64>,
}

impl Ledger {
    /// Goes on from a recorded position.
    pub(crate) fn new(position: Position) -> Self {
        Self {
            read_upto: position.read_upto,
            open: position.open.into_iter().collect(),
            delivered: Vec::new(),
            ops: Vec::new(),
            retried: Vec::new(),
            next_due_ms: None,
            waiting: 0,
            unrecorded: 0,
            moved: false,
        }
    }

    /// The last event read.
    pub(crate) fn read_upto(&self) -> EventId {
        self.read_upto
    }

    /// Events read and neither settled nor due.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// Events that may still be read before some are settled.
    pub(crate) fn room(&self) -> usize {
        if self.unrecorded >= UNRECORDED_MAX { 0 } else { IN_FLIGHT_MAX.saturating_sub(self.open.len()) }
    }

    /// Whether more outcomes may come before some are recorded.
    pub(crate) fn may_settle(&self) -> bool {
        self.unrecorded < UNRECORDED_MAX
    }

    /// An event was read: it is open until it is settled.
    pub(crate) fn read(&mut self, event: EventId) {
        debug_assert!(event > self.read_upto, "events are read in order");
        self.read_upto = event;
        self.open.insert(event);
        self.moved = true;
    }

    /// Nothing of this integration lies between here and `event`.
    pub(crate) fn skip_to(&mut self, event: EventId) {
        if event > self.read_upto {
            self.read_upto = event;
            self.moved = true;
        }
    }

    /// An event succeeded at its first try.
    pub(crate) fn delivered(&mut self, event: EventId, attempt: FirstTry) {
        self.open.remove(&event);
        self.delivered.push((event, attempt));
        self.count();
    }

    /// An event has an outcome, or its next attempt a time: `ops` says so. For events that were due, too.
    pub(crate) fn settled(&mut self, event: EventId, ops: impl IntoIterator<Item = StateOp>) {
        self.open.remove(&event);
        self.ops.extend(ops);
        self.count();
    }

    /// Something about an event that stays open, or due, is to be recorded with the next commit.
    pub(crate) fn noted(&mut self, op: StateOp) {
        self.ops.push(op);
        self.moved = true;
    }

    fn count(&mut self) {
        self.waiting += 1;
        self.unrecorded += 1;
    }

    /// Whether a commit is due without waiting for the timer.
    pub(crate) fn commit_due(&self) -> bool {
        self.waiting >= COMMIT_OUTCOMES
    }

    /// Whether there is anything to commit.
    pub(crate) fn dirty(&self) -> bool {
        self.waiting > 0 || self.moved
    }

    /// Whether everything settled is recorded.
    pub(crate) fn clean(&self) -> bool {
        self.unrecorded == 0 && !self.moved
    }

    /// The outcome of one that was due comes with the next commit.
    pub(crate) fn retried(&mut self, event: EventId) {
        self.retried.push(event);
    }

    /// The next commit holds an attempt that is due then, milliseconds since 1970.
    pub(crate) fn next_due(&mut self, due_ms: u64) {
        self.next_due_ms = Some(self.next_due_ms.map_or(due_ms, |known| known.min(due_ms)));
    }

    /// Whether the next commit is one that others wait for.
    pub(crate) fn hurries(&self) -> bool {
        self.next_due_ms.is_some() || !self.retried.is_empty()
    }

    /// Everything settled since the last commit, handed in at `at_ms`.
    pub(crate) fn take_commit(&mut self, subscription: SubscriptionId, at_ms: u64) -> Commit {
        let mut ops = std::mem::take(&mut self.ops);
        // Taken whole: what room it has is let go, as thousands of subscriptions have one now and then.
        let mut delivered = std::mem::take(&mut self.delivered);
        delivered.sort_unstable();
        for run in delivered.chunks(RUN_IDS_MAX) {
            let (events, attempts) = run.iter().copied().unzip();
            ops.push(StateOp::Delivered { subscription, events, at_ms: Some(at_ms), attempts });
        }
        ops.push(StateOp::Position { subscription, position: self.position() });
        self.moved = false;
        Commit {
            ops,
            outcomes: std::mem::take(&mut self.waiting),
            retried: std::mem::take(&mut self.retried),
            next_due_ms: self.next_due_ms.take(),
        }
    }

    /// A commit of so many outcomes is durable.
    pub(crate) fn recorded(&mut self, outcomes: usize) {
        self.unrecorded = self.unrecorded.saturating_sub(outcomes);
    }

    fn position(&self) -> Position {
        Position { read_upto: self.read_upto, open: self.open.iter().copied().collect() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::ids::IntegrationId;

    fn id(n: u32) -> EventId {
        EventId::from_parts(u128::from(n) + 1, IntegrationId(1), 0)
    }

    fn attempt(event: EventId) -> FirstTry {
        FirstTry { at_ms: event.millis(), duration_ms: 3, status: Some(200) }
    }

    /// What a store would hold after the given commits.
    fn settled_in(ops: &[StateOp]) -> BTreeSet<EventId> {
        let mut settled = BTreeSet::new();
        for op in ops {
            if let StateOp::Delivered { events, attempts, .. } = op {
                assert!(events.iter().map(|event| attempt(*event)).eq(attempts.iter().copied()));
                settled.extend(events);
            }
        }
        settled
    }

    proptest! {
        /// At any commit, each event read so far is open in the stored position or its outcome is stored.
        #[test]
        fn a_stored_position_never_passes_an_unrecorded_event(steps in proptest::collection::vec((0u8..3, any::<prop::sample::Index>()), 1..400)) {
            let mut ledger = Ledger::new(Position::default());
            let mut read = Vec::new();
            let mut unsettled: Vec<EventId> = Vec::new();
            let mut stored = BTreeSet::new();
            for (step, index) in steps {
                match step {
                    0 if ledger.room() > 0 => {
                        let event = id(u32::try_from(read.len()).unwrap());
                        ledger.read(event);
                        read.push(event);
                        unsettled.push(event);
                    }
                    1 if !unsettled.is_empty() => {
                        let event = unsettled.swap_remove(index.index(unsettled.len()));
                        ledger.delivered(event, attempt(event));
                    }
                    2 if ledger.dirty() => {
                        let Commit { ops, outcomes, .. } = ledger.take_commit(SubscriptionId(1), 0);
                        stored.extend(settled_in(&ops));
                        let Some(StateOp::Position { position, .. }) = ops.last() else {
                            return Err(TestCaseError::fail("a commit ends with the position"));
                        };
                        prop_assert!(position.open.len() <= IN_FLIGHT_MAX);
                        for event in read.iter().filter(|event| **event <= position.read_upto) {
                            prop_assert!(position.open.contains(event) != stored.contains(event));
                        }
                        ledger.recorded(outcomes);
                        prop_assert!(ledger.clean());
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn stops_reading_when_too_much_is_unrecorded() {
        let mut ledger = Ledger::new(Position::default());
        for n in 0..u32::try_from(UNRECORDED_MAX).unwrap() {
            ledger.read(id(n));
            ledger.delivered(id(n), attempt(id(n)));
        }
        assert_eq!(ledger.room(), 0);
        assert!(ledger.commit_due());
        let outcomes = ledger.take_commit(SubscriptionId(1), 0).outcomes;
        assert_eq!(ledger.room(), 0);
        ledger.recorded(outcomes);
        assert_eq!(ledger.room(), IN_FLIGHT_MAX);
    }
}
