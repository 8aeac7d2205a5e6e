//! When each subscription's next retry is due. Pure; one entry a subscription, however many retries wait.

use std::collections::{BTreeSet, HashMap};

use crate::domain::ids::SubscriptionId;

/// The next due time of every subscription that has one.
#[derive(Debug, Default)]
pub(crate) struct Timetable {
    order: BTreeSet<(u64, SubscriptionId)>,
    next: HashMap<SubscriptionId, u64>,
}

impl Timetable {
    /// Something of the subscription is due at `due_ms`; only the earliest counts.
    pub(crate) fn note(&mut self, subscription: SubscriptionId, due_ms: u64) {
        match self.next.get(&subscription) {
            Some(known) if *known <= due_ms => return,
            Some(known) => drop(self.order.remove(&(*known, subscription))),
            None => {}
        }
        self.next.insert(subscription, due_ms);
        self.order.insert((due_ms, subscription));
    }

    /// Takes out everyone whose time has come.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Vec<SubscriptionId> {
        let mut due = Vec::new();
        while let Some((due_ms, subscription)) = self.order.first().copied().filter(|(due_ms, _)| *due_ms <= now_ms) {
            self.order.remove(&(due_ms, subscription));
            self.next.remove(&subscription);
            due.push(subscription);
        }
        due
    }

    /// The soonest time of all.
    pub(crate) fn soonest(&self) -> Option<u64> {
        self.order.first().map(|(due_ms, _)| *due_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_the_earliest_of_each(notes in proptest::collection::vec((0u32..8, 0u64..100), 0..60), now in 0u64..120) {
            let mut timetable = Timetable::default();
            let mut model: HashMap<SubscriptionId, u64> = HashMap::new();
            for (subscription, due_ms) in notes {
                let subscription = SubscriptionId(subscription);
                timetable.note(subscription, due_ms);
                let known = model.entry(subscription).or_insert(due_ms);
                *known = (*known).min(due_ms);
            }
            prop_assert_eq!(timetable.soonest(), model.values().min().copied());
            let mut due = timetable.take_due(now);
            due.sort();
            let mut want: Vec<_> = model.iter().filter(|(_, due_ms)| **due_ms <= now).map(|(id, _)| *id).collect();
            want.sort();
            prop_assert_eq!(due, want);
            prop_assert_eq!(timetable.soonest(), model.values().filter(|due_ms| **due_ms > now).min().copied());
        }
    }
}
