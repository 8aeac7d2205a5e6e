//! Who waits for a destination, in the order they came. A waiter that is called has a claim until it takes its place
//! or the claim lapses, so that nobody who comes later goes first. Nobody stands in it twice. Pure.

use std::collections::{BTreeSet, HashMap, VecDeque};

use tokio::time::Instant;

use crate::domain::ids::SubscriptionId;

/// The line before one destination; never longer than there are subscriptions.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// May hold some who have left: only the number that `waiting` knows counts.
    order: VecDeque<(SubscriptionId, u64)>,
    waiting: HashMap<SubscriptionId, u64>,
    claims: HashMap<SubscriptionId, Claim>,
    lapses: BTreeSet<(Instant, SubscriptionId)>,
    last: u64,
}

/// A turn: from when, and until when it is kept.
#[derive(Clone, Copy, Debug)]
struct Claim {
    from: Instant,
    lapses: Instant,
}

impl Line {
    /// Everybody in it, called or not.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.claims.len()
    }

    /// Everybody in it but this one.
    pub(super) fn others(&self, who: SubscriptionId) -> usize {
        self.len() - usize::from(self.waiting.contains_key(&who) || self.claims.contains_key(&who))
    }

    /// Turns that nobody has taken yet.
    pub(super) fn claims(&self) -> usize {
        self.claims.len()
    }

    /// When this one's turn begins, if it has a claim to one.
    pub(super) fn turn(&self, who: SubscriptionId) -> Option<Instant> {
        self.claims.get(&who).map(|claim| claim.from)
    }

    /// Joins at the end; whoever waits in it already keeps the place.
    pub(super) fn join(&mut self, who: SubscriptionId) {
        if self.waiting.contains_key(&who) {
            return;
        }
        self.leave(who);
        let number = self.wait(who);
        self.order.push_back((who, number));
    }

    /// A claim that cannot be met now: waits again, before all others.
    pub(super) fn step_back(&mut self, who: SubscriptionId) {
        self.leave(who);
        let number = self.wait(who);
        self.order.push_front((who, number));
    }

    /// Has a claim to its turn, wherever it stood.
    pub(super) fn claim(&mut self, who: SubscriptionId, from: Instant, lapses: Instant) {
        self.leave(who);
        self.claims.insert(who, Claim { from, lapses });
        self.lapses.insert((lapses, who));
    }

    /// Whether it was in it.
    pub(super) fn leave(&mut self, who: SubscriptionId) -> bool {
        if let Some(claim) = self.claims.remove(&who) {
            self.lapses.remove(&(claim.lapses, who));
            return true;
        }
        self.waiting.remove(&who).is_some()
    }

    /// Takes back the claims whose time is over. Whoever comes after all joins again.
    pub(super) fn lapse(&mut self, now: Instant) {
        while let Some((lapses, who)) = self.lapses.first().copied().filter(|(lapses, _)| *lapses <= now) {
            self.lapses.remove(&(lapses, who));
            self.claims.remove(&who);
        }
    }

    /// Calls those who waited longest until there are as many claims as places. Returns whom to tell.
    pub(super) fn call(&mut self, places: usize, now: Instant, lapses: Instant) -> Vec<SubscriptionId> {
        let mut called = Vec::new();
        while self.claims.len() < places
            && let Some((who, number)) = self.order.pop_front()
        {
            if self.waiting.get(&who) == Some(&number) {
                self.claim(who, now, lapses);
                called.push(who);
            }
        }
        called
    }

    /// Sends everybody away. Returns whom to tell, in order; those with a claim come by themselves or know already.
    pub(super) fn dismiss(&mut self) -> Vec<SubscriptionId> {
        let line = std::mem::replace(self, Self { last: self.last, ..Self::default() });
        let waits = |(who, number): &(SubscriptionId, u64)| line.waiting.get(who) == Some(number);
        line.order.into_iter().filter(waits).map(|(who, _)| who).collect()
    }

    /// Sends everybody away. Returns all of them.
    pub(super) fn dismiss_all(&mut self) -> Vec<SubscriptionId> {
        let mut all: Vec<SubscriptionId> = self.lapses.iter().map(|(_, who)| *who).collect();
        all.extend(self.dismiss());
        all
    }

    fn wait(&mut self, who: SubscriptionId) -> u64 {
        if self.order.len() > 16 && self.order.len() > 2 * self.waiting.len() {
            let waiting = &self.waiting;
            self.order.retain(|(who, number)| waiting.get(who) == Some(number));
        }
        self.last += 1;
        self.waiting.insert(who, self.last);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const A: SubscriptionId = SubscriptionId(1);
    const B: SubscriptionId = SubscriptionId(2);
    const C: SubscriptionId = SubscriptionId(3);

    fn line(now: Instant) -> (Line, Instant) {
        let mut line = Line::default();
        for who in [A, B, A, C, B] {
            line.join(who);
        }
        (line, now + Duration::from_secs(1))
    }

    #[test]
    fn first_come_first_called_and_nobody_twice() {
        let now = Instant::now();
        let (mut line, lapses) = line(now);
        assert_eq!(line.len(), 3);
        assert_eq!(line.call(2, now, lapses), [A, B]);
        assert_eq!(line.call(2, now, lapses), [], "two places are claimed");
        assert!(line.leave(A));
        assert_eq!(line.call(2, now, lapses), [C]);
        assert!(!line.leave(A));
    }

    #[test]
    fn whoever_left_and_came_again_stands_at_the_end() {
        let now = Instant::now();
        let (mut line, lapses) = line(now);
        line.leave(A);
        line.join(A);
        assert_eq!(line.call(9, now, lapses), [B, C, A]);
    }

    #[test]
    fn a_claim_lapses_and_one_that_cannot_be_met_stays_first() {
        let now = Instant::now();
        let (mut line, lapses) = line(now);
        assert_eq!(line.call(1, now, lapses), [A]);
        line.step_back(A);
        assert_eq!(line.call(1, now, lapses), [A]);
        line.lapse(lapses);
        assert_eq!(line.call(1, now, lapses), [B]);
        assert_eq!(line.dismiss(), [C], "B was told already");
        assert_eq!(line.len(), 0);
    }

    #[test]
    fn coming_and_going_takes_no_room() {
        let mut line = Line::default();
        line.join(B);
        for _ in 0..10_000 {
            line.join(A);
            line.leave(A);
        }
        assert!(line.order.len() < 40, "{}", line.order.len());
        assert_eq!(line.dismiss(), [B]);
    }
}
