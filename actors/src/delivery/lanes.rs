//! What may be begun next, and what must wait behind what. Pure.
//!
//! A lane is the events of one order key. Of each lane one event goes at a time; a failed one may hold the rest back,
//! which are then parked: recorded as such and no longer in memory, so that a key that fails for days costs the others
//! neither window nor memory. Within a lane every parked event is older than every waiting one.

use std::collections::{BTreeMap, VecDeque};

use crate::domain::{
    ids::EventId,
    limits::{LANES_MAX, PARKED_MAX},
};

/// Deliveries that may be begun, and the lanes that they and others are in.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    ready: VecDeque<T>,
    by_key: BTreeMap<u64, Lane<T>>,
    parked: usize,
}

#[derive(Debug)]
struct Lane<T> {
    head: Head,
    parked: VecDeque<EventId>,
    waiting: VecDeque<T>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// One of the lane is ready, being loaded or under way.
    Going,
    /// This one failed, and the rest waits for it: for its next attempt, or for an operator where it is dead.
    Held { event: EventId, dead: bool },
}

/// What becomes of a delivery that was just read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed<T> {
    /// It is ready, or waits in memory.
    Kept,
    /// It waits behind a failed one: record it as parked.
    Parked(T),
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { ready: VecDeque::new(), by_key: BTreeMap::new(), parked: 0 }
    }
}

impl<T> Lanes<T> {
    /// Takes up what was recorded: the failed event that holds a lane back and whether it is dead, and what is parked
    /// in it, ascending.
    /// Returns the parked event to load where nothing holds the lane back.
    pub(crate) fn restore(
        &mut self,
        lane: u64,
        held: Option<(EventId, bool)>,
        parked: VecDeque<EventId>,
    ) -> Option<EventId> {
        if held.is_none() && parked.is_empty() {
            return None;
        }
        self.parked += parked.len();
        let first = held.map_or(Head::Going, |(event, dead)| Head::Held { event, dead });
        self.by_key.insert(lane, Lane { head: first, parked, waiting: VecDeque::new() });
        match held {
            Some(_) => None,
            None => self.next_parked(lane),
        }
    }

    /// Adds a delivery, later than all before it. `may_park`: whether it may be parked rather than kept in memory.
    pub(crate) fn push(&mut self, lane: Option<u64>, event: EventId, delivery: T, may_park: bool) -> Pushed<T> {
        let Some(lane) = lane else {
            self.ready.push_back(delivery);
            return Pushed::Kept;
        };
        let parked = self.parked;
        let lanes = self.by_key.len();
        let Some(lane) = self.by_key.get_mut(&lane) else {
            self.by_key.insert(lane, Lane { head: Head::Going, parked: VecDeque::new(), waiting: VecDeque::new() });
            self.ready.push_back(delivery);
            return Pushed::Kept;
        };
        let behind = matches!(lane.head, Head::Held { .. }) || !lane.parked.is_empty();
        if may_park && behind && lane.waiting.is_empty() && parked < PARKED_MAX && lanes <= LANES_MAX {
            lane.parked.push_back(event);
            self.parked += 1;
            return Pushed::Parked(delivery);
        }
        lane.waiting.push_back(delivery);
        Pushed::Kept
    }

    /// A parked delivery was loaded again: it goes as the one of its lane.
    pub(crate) fn loaded(&mut self, delivery: T) {
        self.ready.push_back(delivery);
    }

    /// The next delivery that may be begun.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.ready.pop_front()
    }

    /// Puts a delivery back that could not be begun after all.
    pub(crate) fn unpop(&mut self, delivery: T) {
        self.ready.push_front(delivery);
    }

    /// Deliveries that may be begun.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Deliveries that are parked.
    pub(crate) fn parked(&self) -> usize {
        self.parked
    }

    /// The lane's event that was under way, or that held it back, does so no more. Returns the parked event to load.
    pub(crate) fn free(&mut self, lane: u64) -> Option<EventId> {
        let next = self.next_parked(lane);
        if next.is_some() {
            return next;
        }
        if let Some(state) = self.by_key.get_mut(&lane) {
            match state.waiting.pop_front() {
                Some(delivery) => {
                    state.head = Head::Going;
                    self.ready.push_back(delivery);
                }
                None => drop(self.by_key.remove(&lane)),
            }
        }
        None
    }

    fn next_parked(&mut self, lane: u64) -> Option<EventId> {
        let state = self.by_key.get_mut(&lane)?;
        let next = state.parked.pop_front()?;
        state.head = Head::Going;
        self.parked -= 1;
        Some(next)
    }

    /// The lane's event failed and holds the rest back. Returns what is to be parked, ascending; `id` names each.
    pub(crate) fn hold(
        &mut self,
        lane: u64,
        (event, dead): (EventId, bool),
        may_park: bool,
        id: impl Fn(&T) -> EventId,
    ) -> Vec<T> {
        let lanes = self.by_key.len();
        let state = self.by_key.entry(lane).or_insert_with(|| Lane {
            head: Head::Going,
            parked: VecDeque::new(),
            waiting: VecDeque::new(),
        });
        state.head = Head::Held { event, dead };
        let mut out = Vec::new();
        while may_park && self.parked < PARKED_MAX && lanes <= LANES_MAX {
            let Some(delivery) = state.waiting.pop_front() else { break };
            state.parked.push_back(id(&delivery));
            self.parked += 1;
            out.push(delivery);
        }
        out
    }

    /// The lane that this event holds back.
    pub(crate) fn held_by(&self, event: EventId) -> Option<u64> {
        let holds = |head: Head| matches!(head, Head::Held { event: own, .. } if own == event);
        self.by_key.iter().find(|(_, lane)| holds(lane.head)).map(|(lane, _)| *lane)
    }

    /// Every dead event that holds a lane back, by lane.
    pub(crate) fn held_dead(&self) -> Vec<EventId> {
        let held = self.by_key.values().filter_map(|lane| match lane.head {
            Head::Held { event, dead: true } => Some(event),
            Head::Held { dead: false, .. } | Head::Going => None,
        });
        held.collect()
    }

    /// All that is in memory and not under way.
    pub(crate) fn deliveries(&mut self) -> impl Iterator<Item = &mut T> {
        self.ready.iter_mut().chain(self.by_key.values_mut().flat_map(|lane| lane.waiting.iter_mut()))
    }

    /// Takes out what is ready and for which `gone` holds.
    pub(crate) fn take_ready(&mut self, gone: impl Fn(&T) -> bool) -> Vec<T> {
        if !self.ready.iter().any(&gone) {
            return Vec::new();
        }
        let (out, stay): (Vec<T>, Vec<T>) = std::mem::take(&mut self.ready).into_iter().partition(gone);
        self.ready = stay.into();
        out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::ids::IntegrationId;

    type Id = (u64, u64);

    fn id(n: u64) -> EventId {
        EventId::from_parts(u128::from(n) + 1, IntegrationId(1), 0)
    }

    fn number(event: EventId) -> u64 {
        u64::try_from(event.sequence()).unwrap() - 1
    }

    proptest! {
        /// Whatever fails and whenever, each lane's events are settled in order and none is lost.
        #[test]
        fn lanes_keep_their_order_and_lose_nothing(
            steps in proptest::collection::vec((0u8..4, 0u64..3, any::<prop::sample::Index>()), 1..300),
            may_park in any::<bool>(),
        ) {
            let mut lanes: Lanes<Id> = Lanes::default();
            let (mut pushed, mut going, mut held) = (0u64, Vec::<Id>::new(), Vec::<Id>::new());
            let mut settled: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            let mut parked = BTreeMap::new();
            let load = |lanes: &mut Lanes<Id>, parked: &mut BTreeMap<u64, u64>, next: Option<EventId>| {
                if let Some(event) = next {
                    let lane = parked.remove(&number(event)).expect("it was parked");
                    lanes.loaded((lane, number(event)));
                }
            };
            for (step, lane, index) in steps {
                match step {
                    0 => {
                        if let Pushed::Parked((lane, n)) = lanes.push(Some(lane), id(pushed), (lane, pushed), may_park) {
                            parked.insert(n, lane);
                        }
                        pushed += 1;
                    }
                    1 => if let Some(delivery) = lanes.pop() {
                        prop_assert!(!going.iter().chain(&held).any(|(lane, _)| *lane == delivery.0), "one of a lane at a time");
                        going.push(delivery);
                    },
                    2 if !going.is_empty() => {
                        let (lane, n) = going.swap_remove(index.index(going.len()));
                        settled.entry(lane).or_default().push(n);
                        let next = lanes.free(lane);
                        load(&mut lanes, &mut parked, next);
                    }
                    3 if !going.is_empty() => {
                        let (lane, n) = going.swap_remove(index.index(going.len()));
                        held.push((lane, n));
                        for (lane, n) in lanes.hold(lane, (id(n), false), may_park, |(_, n)| id(*n)) {
                            parked.insert(n, lane);
                        }
                    }
                    _ if !held.is_empty() => {
                        let (lane, n) = held.swap_remove(index.index(held.len()));
                        prop_assert_eq!(lanes.held_by(id(n)), Some(lane));
                        settled.entry(lane).or_default().push(n);
                        let next = lanes.free(lane);
                        load(&mut lanes, &mut parked, next);
                    }
                    _ => {}
                }
                prop_assert_eq!(lanes.parked(), parked.len());
            }
            // Everything heals.
            loop {
                let ended: Vec<Id> = held.drain(..).chain(going.drain(..)).chain(std::iter::from_fn(|| lanes.pop())).collect();
                if ended.is_empty() {
                    break;
                }
                for (lane, n) in ended {
                    settled.entry(lane).or_default().push(n);
                    let next = lanes.free(lane);
                    load(&mut lanes, &mut parked, next);
                }
            }
            prop_assert!(settled.values().all(|lane| lane.is_sorted()));
            let all: BTreeSet<u64> = settled.into_values().flatten().collect();
            prop_assert_eq!(all, (0..pushed).collect());
        }
    }

    #[test]
    fn without_lanes_everything_is_ready_at_once() {
        let mut lanes = Lanes::default();
        for n in 0..5 {
            assert_eq!(lanes.push(None, id(n), n, true), Pushed::Kept);
        }
        assert_eq!(lanes.ready(), 5);
        assert_eq!(lanes.take_ready(|n| n % 2 == 0), [0, 2, 4]);
        assert_eq!((lanes.pop(), lanes.pop(), lanes.pop()), (Some(1), Some(3), None));
    }

    #[test]
    fn what_was_parked_goes_on_after_a_restart() {
        let mut lanes: Lanes<u64> = Lanes::default();
        assert_eq!(lanes.restore(7, Some((id(1), true)), [id(2), id(3)].into()), None);
        assert_eq!(lanes.restore(8, None, [id(4)].into()), Some(id(4)));
        assert_eq!(lanes.restore(9, None, VecDeque::new()), None);
        assert_eq!(
            lanes.push(Some(8), id(5), 5, true),
            Pushed::Kept,
            "the parked one is under way: no need to park more"
        );
        assert_eq!(lanes.push(Some(7), id(6), 6, true), Pushed::Parked(6));
        assert_eq!(lanes.held_dead(), [id(1)]);
        assert_eq!((lanes.free(7), lanes.free(7), lanes.free(7)), (Some(id(2)), Some(id(3)), Some(id(6))));
        assert_eq!(lanes.parked(), 0);
    }

    #[test]
    fn parking_is_bounded_and_then_deliveries_wait_in_memory() {
        let mut lanes: Lanes<u64> = Lanes::default();
        lanes.push(Some(1), id(0), 0, true);
        lanes.pop();
        lanes.hold(1, (id(0), false), true, |n| id(*n));
        for n in 1..=PARKED_MAX as u64 {
            assert_eq!(lanes.push(Some(1), id(n), n, true), Pushed::Parked(n));
        }
        let beyond = PARKED_MAX as u64 + 1;
        assert_eq!(lanes.push(Some(1), id(beyond), beyond, true), Pushed::Kept);
        assert_eq!(lanes.free(1), Some(id(1)));
        assert_eq!(
            lanes.push(Some(1), id(beyond + 1), beyond + 1, true),
            Pushed::Kept,
            "none may pass the one that waits"
        );
    }
}
