//! Marks that intake has made and the state may not have yet.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{domain::ids::EventId, ports::state_store::Mark};

/// An integration's marks that are not known to be recorded. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentMarks(Arc<Mutex<BTreeMap<EventId, Mark>>>);

impl RecentMarks {
    /// The marks of events after `after` and up to `upto`, ascending.
    pub(crate) fn between(&self, after: EventId, upto: EventId) -> Vec<(EventId, Mark)> {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if after >= upto {
            return Vec::new();
        }
        let between = marks.range((Bound::Excluded(after), Bound::Included(upto)));
        between.map(|(event, mark)| (*event, mark.clone())).collect()
    }
}
