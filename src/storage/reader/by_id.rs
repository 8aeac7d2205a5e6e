//! Reads events by their ids, many at once: those of a segment are looked up together and read in the order they lie in.

use std::{collections::BTreeMap, sync::Arc};

use hookmill_actors::{
    domain::{event::Event, ids::EventId},
    ports::event_log::{Head, LogError},
};

use super::{
    super::{
        catalog::{Catalog, OpenSegment},
        index::Entry,
    },
    Miss, damaged, decode, read_runs, with_index,
};

/// What was asked for, in that order: `None` where the log has no such event, an id where its record is damaged.
type Found<T> = Vec<Option<Result<T, EventId>>>;

/// Reads one event by its id.
pub(crate) fn get(catalog: &Catalog, id: EventId) -> Result<Option<Arc<Event>>, LogError> {
    match read(catalog, &[id], Arc::new)?.pop().flatten() {
        None => Ok(None),
        Some(event) => event.map(Some).map_err(LogError::Corrupt),
    }
}

/// What lists tell of events. Each record is checked whole, and of each only the head is kept.
pub(crate) fn heads(catalog: &Catalog, ids: &[EventId]) -> Result<Found<Head>, LogError> {
    read(catalog, ids, |event| Head::of(&event))
}

/// Reads events and keeps of each what `keep` takes.
fn read<T>(catalog: &Catalog, ids: &[EventId], keep: impl Fn(Event) -> T) -> Result<Found<T>, LogError> {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    loop {
        let mut reading = Reading { catalog, keep: &keep, found: BTreeMap::new() };
        match reading.snapshot(&sorted) {
            Ok(()) => return Ok(ids.iter().map(|id| reading.found.remove(id)).collect()),
            Err(Miss::Gone) => {}
            Err(Miss::Failed(error)) => return Err(error),
        }
    }
}

struct Reading<'a, T, Keep> {
    catalog: &'a Catalog,
    keep: &'a Keep,
    found: BTreeMap<EventId, Result<T, EventId>>,
}

impl<T, Keep: Fn(Event) -> T> Reading<'_, T, Keep> {
    /// Reads events, ascending, as the log is at one moment.
    fn snapshot(&mut self, ids: &[EventId]) -> Result<(), Miss> {
        let (sealed, active, entries) = self.catalog.look(|index| {
            let find = |id: &EventId| index.find(*id).or_else(|| index.find_kept(*id));
            ids.iter().filter_map(find).collect()
        });
        self.segment(&active, entries)?;
        let mut rest = ids.to_vec();
        rest.retain(|id| !self.found.contains_key(id));
        let own_of = |id: &EventId| sealed.partition_point(|sealed| sealed.summary.last < *id);
        for together in rest.chunk_by(|id, next| own_of(id) == own_of(next)) {
            let Some(own) = sealed.get(own_of(&together[0])) else { continue };
            let (segment, entries) = with_index(self.catalog, own, |index| index.find_all(together))?;
            self.segment(&segment, entries)?;
        }
        for sealed in sealed.iter().rev().filter(|sealed| sealed.summary.kept > 0) {
            rest.retain(|id| !self.found.contains_key(id));
            if rest.is_empty() {
                break;
            }
            let (segment, entries) = with_index(self.catalog, sealed, |index| {
                rest.iter().filter_map(|id| index.find_kept(*id).transpose()).collect()
            })?;
            self.segment(&segment, entries)?;
        }
        Ok(())
    }

    fn segment(&mut self, segment: &OpenSegment, mut entries: Vec<Entry>) -> Result<(), Miss> {
        entries.sort_unstable_by_key(|entry| entry.offset);
        read_runs(self.catalog, segment, &entries, |entry, record| {
            let event = decode(record, segment.salt, entry.id());
            if event.is_none() {
                damaged(self.catalog, segment, entry)?;
            }
            self.found.insert(entry.id(), event.map(self.keep).ok_or(entry.id()));
            Ok(())
        })
    }
}
