//! Who waits for a destination, in the order they came. A waiter that is called has a claim on a place until it takes
//! it or the claim lapses, so that nobody who comes later goes first. Nobody stands in it twice. Pure.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use tokio::time::Instant;

use crate::domain::ids::SubscriptionId;

/// The line before one destination; never longer than there are subscriptions.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// May hold some who have left; `waiting` knows.
    order: VecDeque<(SubscriptionId, u64)>,
    waiting: HashMap<SubscriptionId, u64>,
    called: HashMap<SubscriptionId, Instant>,
    lapses: BTreeSet<(Instant, SubscriptionId)>,
    next: u64,
}

impl Line {
    /// Everybody in it, called or not.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.called.len()
    }

    /// Whether there is a claim of somebody else, or somebody else waits.
    pub(super) fn others(&self, who: SubscriptionId) -> usize {
        self.len() - usize::from(self.waiting.contains_key(&who) || self.called.contains_key(&who))
    }

    /// Claims that nobody has taken up yet.
    pub(super) fn claims(&self) -> usize {
        self.called.len()
    }

    pub(super) fn has_claim(&self, who: SubscriptionId) -> bool {
        self.called.contains_key(&who)
    }

    /// Joins at the end; whoever is in it already keeps the place.
    pub(super) fn join(&mut self, who: SubscriptionId) {
        if !self.called.contains_key(&who) && !self.waiting.contains_key(&who) {
            self.next += 1;
            self.waiting.insert(who, self.next);
            self.order.push_back((who, self.next));
            self.tidy();
        }
    }

    /// Has a claim from now on, wherever it stood.
    pub(super) fn claim(&mut self, who: SubscriptionId, lapses: Instant) {
        self.leave(who);
        self.called.insert(who, lapses);
        self.lapses.insert((lapses, who));
    }

    /// Whether it was in it.
    pub(super) fn leave(&mut self, who: SubscriptionId) -> bool {
        if let Some(lapses) = self.called.remove(&who) {
            self.lapses.remove(&(lapses, who));
            return true;
        }
        self.waiting.remove(&who).is_some()
    }

    /// Takes back the claims whose time is over. They may join again.
    pub(super) fn lapse(&mut self, now: Instant) {
        while let Some((lapses, who)) = self.lapses.first().copied().filter(|(lapses, _)| *lapses <= now) {
            self.lapses.remove(&(lapses, who));
            self.called.remove(&who);
        }
    }

    /// Calls those who waited longest until there are as many claims as places. Returns whom to tell.
    pub(super) fn call(&mut self, places: usize, lapses: Instant) -> Vec<SubscriptionId> {
        let mut called = Vec::new();
        while self.called.len() < places
            && let Some((who, number)) = self.order.pop_front()
        {
            if self.waiting.get(&who) == Some(&number) {
                self.claim(who, lapses);
                called.push(who);
            }
        }
        called
    }

    /// Sends everybody away. Returns those who were promised that they would be told.
    pub(super) fn dismiss(&mut self) -> Vec<SubscriptionId> {
        let waited: HashSet<SubscriptionId> = self.waiting.keys().copied().collect();
        let order = std::mem::take(&mut self.order);
        let told = order.into_iter().filter(|(who, number)| self.waiting.get(who) == Some(number));
        let told: Vec<SubscriptionId> = told.map(|(who, _)| who).collect();
        debug_assert_eq!(told.len(), waited.len());
        *self = Self { next: self.next, ..Self::default() };
        told
    }

    /// Those who left are dropped from the order when they are the larger part of it.
    fn tidy(&mut self) {
        if self.order.len() > 16 && self.order.len() > 2 * self.waiting.len() {
            let waiting = &self.waiting;
            self.order.retain(|(who, number)| waiting.get(who) == Some(number));
        }
    }
}
