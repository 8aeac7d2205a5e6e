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
pub(crate) struct RecentMarks(Arc<Mutex<Recent>>);

#[derive(Debug, Default)]
struct Recent {
    marks: BTreeMap<EventId, Mark>,
    /// Marks of events up to this one may be in the state alone.
    recorded: EventId,
}

/// What is known of the marks in a span.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Ascending.
    pub(crate) marks: Vec<(EventId, Mark)>,
    /// Whether these are all.
    pub(crate) all: bool,
}

impl RecentMarks {
    /// From the recorded intake position on.
    pub(super) fn begin(&self, intake: EventId) {
        let mut recent = self.recent();
        recent.recorded = recent.recorded.max(intake);
    }

    /// The marks of events after `after` and up to `upto`. Where these are not all, the state has the others: a mark
    /// goes from here only once it is there.
    pub(crate) fn between(&self, after: EventId, upto: EventId) -> Known {
        if after >= upto {
            return Known { marks: Vec::new(), all: true };
        }
        let recent = self.recent();
        let between = recent.marks.range((Bound::Excluded(after), Bound::Included(upto)));
        let marks = between.map(|(event, mark)| (*event, mark.clone())).collect();
        Known { marks, all: after >= recent.recorded }
    }

    /// Holds the marks of these notes, from before anybody may read their events.
    pub(super) fn hold(&self, notes: &[Note]) {
        let marked = notes.iter().filter_map(|note| note.mark.clone().map(|mark| (note.event, mark)));
        self.recent().marks.extend(marked);
    }

    /// Lets go of the marks of events up to `upto`: the state has them.
    pub(super) fn recorded(&self, upto: EventId) {
        let recent = &mut *self.recent();
        while let Some(first) = recent.marks.first_entry().filter(|first| *first.key() <= upto) {
            recent.recorded = recent.recorded.max(*first.key());
            first.remove();
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // What is recorded is said before its mark goes: a panic leaves nothing untrue.
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
        let known =
            |marks: &[u64], all| Known { marks: marks.iter().map(|n| (event(*n), duplicate.clone())).collect(), all };
        marks.begin(event(1));
        marks.hold(&[note(2, Some(duplicate.clone())), note(3, None), note(5, Some(duplicate.clone()))]);
        assert_eq!(marks.between(EventId::ZERO, event(4)), known(&[2], false));
        assert_eq!(marks.between(event(1), event(4)), known(&[2], true));
        assert_eq!(marks.between(event(2), event(5)), known(&[5], true));
        assert_eq!(marks.between(event(5), event(5)), known(&[], true));
        marks.recorded(event(4));
        assert_eq!(marks.between(event(1), EventId::MAX), known(&[5], false));
        assert_eq!(marks.between(event(2), EventId::MAX), known(&[5], true));
    }
}
