//! Marks that intake has made and the state may not have yet.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    domain::ids::EventId,
    ports::state_store::{Mark, Note},
};

/// An integration's marks that are not known to be recorded. Clones share them. Bounded by what intake may be ahead
/// of its recording.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentMarks(Arc<Mutex<BTreeMap<EventId, Mark>>>);

impl RecentMarks {
    /// The marks of events after `after` and up to `upto`, ascending. Whoever needs all of them asks here first and
    /// the state then: a mark goes from here only once the state has it.
    pub(crate) fn between(&self, after: EventId, upto: EventId) -> Vec<(EventId, Mark)> {
        if after >= upto {
            return Vec::new();
        }
        let marks = self.marks();
        let between = marks.range((Bound::Excluded(after), Bound::Included(upto)));
        between.map(|(event, mark)| (*event, mark.clone())).collect()
    }

    /// Holds the marks of these notes, from before anybody may read their events.
    pub(super) fn hold(&self, notes: &[Note]) {
        let marked = notes.iter().filter_map(|note| note.mark.clone().map(|mark| (note.event, mark)));
        self.marks().extend(marked);
    }

    /// Lets go of the marks of events up to `upto`: the state has them.
    pub(super) fn recorded(&self, upto: EventId) {
        let mut marks = self.marks();
        while let Some(first) = marks.first_entry().filter(|first| *first.key() <= upto) {
            first.remove();
        }
    }

    fn marks(&self) -> MutexGuard<'_, BTreeMap<EventId, Mark>> {
        // Each change is one insertion or removal: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_there_until_its_event_is_recorded() {
        let marks = RecentMarks::default();
        let event = EventId::at_millis;
        let note = |n, mark| Note { event: event(n), mark, ..Note::default() };
        let duplicate = Mark::DuplicateOf(event(1));
        marks.hold(&[note(2, Some(duplicate.clone())), note(3, None), note(5, Some(duplicate.clone()))]);
        assert_eq!(marks.between(EventId::ZERO, event(4)), [(event(2), duplicate.clone())]);
        assert_eq!(marks.between(event(2), event(5)), [(event(5), duplicate.clone())]);
        assert_eq!(marks.between(event(5), event(5)), []);
        marks.recorded(event(4));
        assert_eq!(marks.between(EventId::ZERO, EventId::MAX), [(event(5), duplicate)]);
    }
}
