//! Where a segment's records are, by integration and in order: the form in memory, kept while a segment is written.
//!
//! The log's writer adds to it after each sync; readers copy out a few entries under a short read lock. When the
//! segment is sealed it becomes a sidecar file, and nothing of it stays in memory.

use std::collections::{BTreeMap, HashMap};

use hookmill_actors::domain::ids::{EventId, IntegrationId};

/// Where one record is. The id is kept as bytes, so that an entry takes 24 bytes and not 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    id: [u8; 16],
    /// Bytes from the segment's start to the record.
    pub(crate) offset: u32,
    /// Bytes of the record, its header included.
    pub(crate) bytes: u32,
}

impl Entry {
    pub(crate) fn new(id: EventId, offset: u32, bytes: u32) -> Self {
        Self { id: id.to_bytes(), offset, bytes }
    }

    pub(crate) fn id(&self) -> EventId {
        EventId::from_bytes(self.id)
    }
}

/// The records of one segment.
#[derive(Debug, Default)]
pub(crate) struct MemoryIndex {
    /// In id order.
    events: Vec<Entry>,
    /// Places in `events`, ascending.
    by_integration: HashMap<IntegrationId, Vec<u32>>,
    kept: BTreeMap<EventId, Entry>,
}

impl MemoryIndex {
    /// Adds an event; ids only grow.
    pub(crate) fn push(&mut self, entry: Entry) {
        let place = u32::try_from(self.events.len()).expect("a segment's offsets are 32 bits, so are its counts");
        self.events.push(entry);
        self.by_integration.entry(entry.id().integration()).or_default().push(place);
    }

    /// Adds a kept payload; a later copy replaces an earlier one.
    pub(crate) fn push_kept(&mut self, entry: Entry) {
        self.kept.insert(entry.id(), entry);
    }

    /// An integration's events after `after`, in order.
    pub(crate) fn after(&self, integration: IntegrationId, after: EventId, limit: usize) -> Vec<Entry> {
        self.all_after(integration, after).take(limit).collect()
    }

    /// Bytes of the records of an integration's events after `after`.
    pub(crate) fn bytes_after(&self, integration: IntegrationId, after: EventId) -> u64 {
        self.all_after(integration, after).map(|entry| u64::from(entry.bytes)).sum()
    }

    /// How many events there are after `after`, of one integration or of all.
    pub(crate) fn count_after(&self, integration: Option<IntegrationId>, after: EventId) -> u64 {
        let count = match integration {
            None => self.events.len() - self.events.partition_point(|entry| entry.id() <= after),
            Some(integration) => self.all_after(integration, after).count(),
        };
        count as u64
    }

    fn all_after(&self, integration: IntegrationId, after: EventId) -> impl Iterator<Item = Entry> + '_ {
        let places = self.by_integration.get(&integration).map_or(&[][..], Vec::as_slice);
        let start = places.partition_point(|place| self.events[*place as usize].id() <= after);
        places[start..].iter().map(|place| self.events[*place as usize])
    }

    /// Events before `before`, newest first, of one integration or of all.
    pub(crate) fn before(&self, integration: Option<IntegrationId>, before: EventId, limit: usize) -> Vec<EventId> {
        match integration {
            None => {
                let end = self.events.partition_point(|entry| entry.id() < before);
                self.events[..end].iter().rev().take(limit).map(Entry::id).collect()
            }
            Some(integration) => {
                let Some(places) = self.by_integration.get(&integration) else { return Vec::new() };
                let end = places.partition_point(|place| self.events[*place as usize].id() < before);
                places[..end].iter().rev().take(limit).map(|place| self.events[*place as usize].id()).collect()
            }
        }
    }

    /// Events after `after`, oldest first, of one integration or of all.
    pub(crate) fn ids_after(&self, integration: Option<IntegrationId>, after: EventId, limit: usize) -> Vec<EventId> {
        match integration {
            None => {
                let start = self.events.partition_point(|entry| entry.id() <= after);
                self.events[start..].iter().take(limit).map(Entry::id).collect()
            }
            Some(integration) => self.all_after(integration, after).take(limit).map(|entry| entry.id()).collect(),
        }
    }

    /// The record of an event.
    pub(crate) fn find(&self, id: EventId) -> Option<Entry> {
        self.events.binary_search_by_key(&id, Entry::id).ok().map(|place| self.events[place])
    }

    /// The kept copy of an event.
    pub(crate) fn find_kept(&self, id: EventId) -> Option<Entry> {
        self.kept.get(&id).copied()
    }

    /// All events, in id order.
    pub(crate) fn events(&self) -> &[Entry] {
        &self.events
    }

    /// All kept payloads, in id order.
    pub(crate) fn kept(&self) -> impl ExactSizeIterator<Item = Entry> + '_ {
        self.kept.values().copied()
    }

    /// Integrations in order, each with the places of its events.
    pub(crate) fn integrations(&self) -> Vec<(IntegrationId, &[u32])> {
        let mut all: Vec<_> = self.by_integration.iter().map(|(id, places)| (*id, places.as_slice())).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }
}
