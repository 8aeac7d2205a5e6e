//! Where an integration hands events over to one of its deliveries. Credit is left here, not sent: an announcement for
//! each event would cost the integration a turn for each.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::ids::EventId;

/// Shared by an integration and one of its deliveries, for as long as that delivery lives. Of what the integration
/// sends, one message waits at most: it takes the credit that allows it.
#[derive(Debug)]
pub(crate) struct Handover(Mutex<State>);

#[derive(Debug)]
struct State {
    /// How far the integration has taken events in.
    intake: EventId,
    credit: Option<Credit>,
}

/// The delivery has read all that it knows of.
#[derive(Debug)]
struct Credit {
    /// Where it stands.
    at: EventId,
    /// How many events it has room for.
    events: usize,
}

/// How a delivery is told of new events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// It stands right before them and has room: they are sent.
    Batch,
    /// It is to read them from the log.
    Wake,
    /// Not at all: it is busy, and looks here before it rests.
    Nothing,
}

impl Handover {
    /// For a delivery that begins: it reads before it announces.
    pub(crate) fn new(intake: EventId) -> Self {
        Self(Mutex::new(State { intake, credit: None }))
    }

    /// The integration has taken in so many events after `prev`, from `first` to `last`.
    pub(crate) fn offer(&self, prev: EventId, first: EventId, last: EventId, events: usize) -> Offer {
        let mut state = self.state();
        state.intake = last;
        match state.credit.take() {
            Some(Credit { at, events: room }) if at >= prev && at < first && events <= room => Offer::Batch,
            Some(_) => Offer::Wake,
            None => Offer::Nothing,
        }
    }

    /// The delivery stands at `at` and has room for so many events. Whether it may rest: there is nothing to read yet.
    pub(super) fn announce(&self, at: EventId, events: usize) -> bool {
        let mut state = self.state();
        let may_rest = at >= state.intake;
        if may_rest {
            state.credit = Some(Credit { at, events });
        }
        may_rest
    }

    /// How far there is something to read.
    pub(super) fn intake(&self) -> EventId {
        self.state().intake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole by itself: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u64) -> EventId {
        EventId::at_millis(n)
    }

    #[test]
    fn credit_allows_one_message() {
        let handover = Handover::new(at(5));
        assert_eq!(handover.offer(at(5), at(6), at(7), 2), Offer::Nothing, "it reads what was there before");
        assert!(!handover.announce(at(5), 10), "there is more to read");
        assert_eq!(handover.intake(), at(7));
        assert!(handover.announce(at(7), 10));
        assert_eq!(handover.offer(at(7), at(8), at(9), 10), Offer::Batch);
        assert_eq!(handover.offer(at(9), at(10), at(11), 1), Offer::Nothing, "the credit is spent");
        assert!(!handover.announce(at(9), 10));
        assert!(handover.announce(at(11), 1));
        assert_eq!(handover.offer(at(11), at(12), at(13), 2), Offer::Wake, "more than there is room for");
        assert_eq!(handover.intake(), at(13));
    }

    #[test]
    fn a_batch_goes_only_to_who_stands_right_before_it() {
        for (stands, offer) in [(4, Offer::Wake), (5, Offer::Batch), (6, Offer::Batch), (7, Offer::Wake)] {
            let handover = Handover::new(at(stands));
            assert!(handover.announce(at(stands), 10));
            assert_eq!(handover.offer(at(5), at(7), at(9), 1), offer, "stands at {stands}");
        }
    }
}
