//! A sealed segment's index as a file: read by page, searched in place.
//!
//! ```text
//! page 0       header: magic, version, segment, salt, end, counts, ids, checksum
//! directory    (integration u32, first place u32, events u32), by integration
//! entries      (id 16, offset u32, bytes u32), by integration and id
//! order        (place in entries u32), by id
//! kept         as entries, by id
//! ```
//! Each page ends with a checksum that begins with the segment's salt and the page's number. A page that fails it
//! makes the whole file worthless, never an answer: it is made again from its segment.

use std::{collections::HashMap, io, path::Path, sync::Arc};

use bytes::{Buf, BufMut};
use hookmill_actors::domain::ids::{EventId, IntegrationId};

use super::{
    disk::{Disk, DiskFile, write_whole},
    index::{Entry, MemoryIndex},
    segment::FORMAT_VERSION,
};

const PAGE_BYTES: usize = 4096;
const PAGE_CONTENT_BYTES: usize = PAGE_BYTES - 4;
const MAGIC: [u8; 8] = *b"hookmidx";
const HEADER_BYTES: usize = 84;
const DIRECTORY_ITEM_BYTES: usize = 12;
const ENTRY_BYTES: usize = 24;
const ORDER_ITEM_BYTES: usize = 4;

/// What is known of a sealed segment without its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    /// Where its commits end, bytes.
    pub(crate) end: u64,
    pub(crate) events: u32,
    pub(crate) kept: u32,
    /// Its events are after this one,
    pub(crate) prev_last: EventId,
    /// and none is after this one.
    pub(crate) last: EventId,
}

/// An open sidecar file with its directory read.
pub(crate) struct Sidecar {
    file: Arc<dyn DiskFile>,
    summary: Summary,
    directory: Vec<DirectoryItem>,
    entries_page: u64,
    order_page: u64,
    kept_page: u64,
}

#[derive(Clone, Copy)]
struct DirectoryItem {
    integration: IntegrationId,
    first: u32,
    events: u32,
}

/// Writes the sidecar of a segment; durable when it returns.
pub(crate) fn write(disk: &dyn Disk, path: &Path, summary: &Summary, index: &MemoryIndex) -> io::Result<()> {
    let integrations = index.integrations();
    let count = u32::try_from(integrations.len()).map_err(io::Error::other)?;
    let mut pages = Pages { bytes: Vec::new(), salt: summary.salt };
    pages.put_all(std::iter::once(()), HEADER_BYTES, |(), page| put_header(summary, count, page));
    let mut first = 0u32;
    pages.put_all(integrations.iter(), DIRECTORY_ITEM_BYTES, |(integration, places), page| {
        let events = u32::try_from(places.len()).expect("places are 32 bits");
        page.put_u32_le(integration.0);
        page.put_u32_le(first);
        page.put_u32_le(events);
        first += events;
    });
    let by_integration = || integrations.iter().flat_map(|(_, places)| places.iter().copied());
    let entries = by_integration().map(|place| index.events()[place as usize]);
    pages.put_all(entries, ENTRY_BYTES, put_entry);
    let mut order = vec![0u32; index.events().len()];
    for (sorted, place) in (0u32..).zip(by_integration()) {
        order[place as usize] = sorted;
    }
    pages.put_all(order, ORDER_ITEM_BYTES, |place, page| page.put_u32_le(place));
    pages.put_all(index.kept(), ENTRY_BYTES, put_entry);
    write_whole(disk, path, &pages.bytes)
}

fn put_header(summary: &Summary, integrations: u32, page: &mut Vec<u8>) {
    page.put_slice(&MAGIC);
    page.put_u32_le(FORMAT_VERSION);
    page.put_u32_le(integrations);
    page.put_u64_le(summary.number);
    page.put_u64_le(summary.salt);
    page.put_u64_le(summary.end);
    page.put_u32_le(summary.events);
    page.put_u32_le(summary.kept);
    page.put_u128(summary.prev_last.as_u128());
    page.put_u128(summary.last.as_u128());
    page.put_u32_le(0);
}

fn put_entry(entry: Entry, page: &mut Vec<u8>) {
    page.put_u128(entry.id().as_u128());
    page.put_u32_le(entry.offset);
    page.put_u32_le(entry.bytes);
}

/// Pages in the making.
struct Pages {
    bytes: Vec<u8>,
    salt: u64,
}

impl Pages {
    /// Puts items of one size into pages of their own.
    fn put_all<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        item_bytes: usize,
        mut put: impl FnMut(T, &mut Vec<u8>),
    ) {
        let per_page = PAGE_CONTENT_BYTES / item_bytes;
        let mut in_page = 0;
        for item in items {
            put(item, &mut self.bytes);
            in_page += 1;
            if in_page == per_page {
                self.finish_page();
                in_page = 0;
            }
        }
        if in_page > 0 {
            self.finish_page();
        }
    }

    fn finish_page(&mut self) {
        let number = (self.bytes.len() / PAGE_BYTES) as u64;
        let start = self.bytes.len() / PAGE_BYTES * PAGE_BYTES;
        self.bytes.resize(start + PAGE_CONTENT_BYTES, 0);
        let crc = page_crc(self.salt, number, &self.bytes[start..]);
        self.bytes.put_u32_le(crc);
    }
}

fn page_crc(salt: u64, number: u64, content: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(&number.to_le_bytes());
    crc.update(content);
    crc.finalize()
}

fn worthless(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Reads a sidecar's summary.
pub(crate) fn read_summary(file: &dyn DiskFile) -> io::Result<Summary> {
    read_header(file).map(|(summary, _)| summary)
}

fn read_header(file: &dyn DiskFile) -> io::Result<(Summary, u32)> {
    let mut page = vec![0; PAGE_BYTES];
    file.read_exact_at(&mut page, 0)?;
    let mut rest = &page[..];
    let mut magic = [0; 8];
    rest.copy_to_slice(&mut magic);
    if magic != MAGIC || rest.get_u32_le() != FORMAT_VERSION {
        return Err(worthless("it does not begin as an index of a known format"));
    }
    let integrations = rest.get_u32_le();
    let summary = Summary {
        number: rest.get_u64_le(),
        salt: rest.get_u64_le(),
        end: rest.get_u64_le(),
        events: rest.get_u32_le(),
        kept: rest.get_u32_le(),
        prev_last: EventId::from_u128(rest.get_u128()),
        last: EventId::from_u128(rest.get_u128()),
    };
    let stored = (&page[PAGE_CONTENT_BYTES..]).get_u32_le();
    if stored != page_crc(summary.salt, 0, &page[..PAGE_CONTENT_BYTES]) {
        return Err(worthless("its header does not match its checksum"));
    }
    Ok((summary, integrations))
}

impl Sidecar {
    /// Opens a sidecar and reads its directory. `InvalidData` or `UnexpectedEof`: make it again.
    pub(crate) fn open(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let (summary, integrations) = read_header(&*file)?;
        let pages = |items: u32, item_bytes: usize| u64::from(items).div_ceil((PAGE_CONTENT_BYTES / item_bytes) as u64);
        let entries_page = 1 + pages(integrations, DIRECTORY_ITEM_BYTES);
        let order_page = entries_page + pages(summary.events, ENTRY_BYTES);
        let kept_page = order_page + pages(summary.events, ORDER_ITEM_BYTES);
        let end_page = kept_page + pages(summary.kept, ENTRY_BYTES);
        if file.bytes()? != end_page * PAGE_BYTES as u64 {
            return Err(worthless("its length is not what its header says"));
        }
        let mut sidecar = Self { file, summary, directory: Vec::new(), entries_page, order_page, kept_page };
        let mut cursor = sidecar.cursor(1, DIRECTORY_ITEM_BYTES);
        let mut directory = Vec::with_capacity(integrations as usize);
        for place in 0..integrations {
            let mut item = cursor.item(place)?;
            directory.push(DirectoryItem {
                integration: IntegrationId(item.get_u32_le()),
                first: item.get_u32_le(),
                events: item.get_u32_le(),
            });
        }
        sidecar.directory = directory;
        Ok(sidecar)
    }

    /// What it says of its segment.
    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// An integration's events after `after`, in order.
    pub(crate) fn after(&self, integration: IntegrationId, after: EventId, limit: usize) -> io::Result<Vec<Entry>> {
        let Some(run) = self.run(integration) else { return Ok(Vec::new()) };
        let mut cursor = self.cursor(self.entries_page, ENTRY_BYTES);
        let start = cursor.partition_point(run.first, run.events, |entry| entry.id() <= after)?;
        (start..run.first + run.events).take(limit).map(|place| cursor.entry(place)).collect()
    }

    /// Bytes of the records of an integration's events after `after`.
    pub(crate) fn bytes_after(&self, integration: IntegrationId, after: EventId) -> io::Result<u64> {
        let Some(run) = self.run(integration) else { return Ok(0) };
        let mut cursor = self.cursor(self.entries_page, ENTRY_BYTES);
        let start = cursor.partition_point(run.first, run.events, |entry| entry.id() <= after)?;
        (start..run.first + run.events).try_fold(0, |bytes, place| Ok(bytes + u64::from(cursor.entry(place)?.bytes)))
    }

    /// How many events there are after `after`, of one integration or of all.
    pub(crate) fn count_after(&self, integration: Option<IntegrationId>, after: EventId) -> io::Result<u64> {
        let Some(integration) = integration else {
            let start = self.first_after(after)?;
            return Ok(u64::from(self.summary.events - start));
        };
        let Some(run) = self.run(integration) else { return Ok(0) };
        let mut cursor = self.cursor(self.entries_page, ENTRY_BYTES);
        let start = cursor.partition_point(run.first, run.events, |entry| entry.id() <= after)?;
        Ok(u64::from(run.first + run.events - start))
    }

    /// The place, in the order of ids, of the first event after `after`.
    fn first_after(&self, after: EventId) -> io::Result<u32> {
        let mut entries = self.cursor(self.entries_page, ENTRY_BYTES);
        let mut order = self.cursor(self.order_page, ORDER_ITEM_BYTES);
        partition_point(0, self.summary.events, |place| {
            let sorted = order.item(place)?.get_u32_le();
            Ok(entries.entry(sorted)?.id() <= after)
        })
    }

    /// Events after `after`, oldest first, of one integration or of all.
    pub(crate) fn ids_after(
        &self,
        integration: Option<IntegrationId>,
        after: EventId,
        limit: usize,
    ) -> io::Result<Vec<EventId>> {
        if let Some(integration) = integration {
            return Ok(self.after(integration, after, limit)?.iter().map(Entry::id).collect());
        }
        let mut entries = self.cursor(self.entries_page, ENTRY_BYTES);
        let mut order = self.cursor(self.order_page, ORDER_ITEM_BYTES);
        let in_order = |place: u32| {
            let sorted = order.item(place)?.get_u32_le();
            entries.entry(sorted).map(|entry| entry.id())
        };
        (self.first_after(after)?..self.summary.events).take(limit).map(in_order).collect()
    }

    /// Events before `before`, newest first, of one integration or of all.
    pub(crate) fn before(
        &self,
        integration: Option<IntegrationId>,
        before: EventId,
        limit: usize,
    ) -> io::Result<Vec<EventId>> {
        let mut entries = self.cursor(self.entries_page, ENTRY_BYTES);
        let Some(integration) = integration else {
            let mut order = self.cursor(self.order_page, ORDER_ITEM_BYTES);
            let mut in_order = |place: u32| {
                let sorted = order.item(place)?.get_u32_le();
                entries.entry(sorted).map(|entry| entry.id())
            };
            let end = partition_point(0, self.summary.events, |place| Ok(in_order(place)? < before))?;
            return (0..end).rev().take(limit).map(in_order).collect();
        };
        let Some(run) = self.run(integration) else { return Ok(Vec::new()) };
        let end = entries.partition_point(run.first, run.events, |entry| entry.id() < before)?;
        (run.first..end).rev().take(limit).map(|place| entries.entry(place).map(|entry| entry.id())).collect()
    }

    /// The records of those events that are here; the events are ascending. Each is looked for from the one before it of
    /// its integration on: what people list together lies close together.
    pub(crate) fn find_all(&self, ids: &[EventId]) -> io::Result<Vec<Entry>> {
        let mut cursors = HashMap::new();
        let mut found = Vec::new();
        for id in ids {
            let Some(run) = self.run(id.integration()) else { continue };
            let (cursor, first) = cursors
                .entry(id.integration())
                .or_insert_with(|| (self.cursor(self.entries_page, ENTRY_BYTES), run.first));
            let end = run.first + run.events;
            let mut ahead = 1;
            while *first + ahead < end && cursor.entry(*first + ahead)?.id() < *id {
                *first += ahead;
                ahead *= 2;
            }
            *first = cursor.partition_point(*first, ahead.min(end - *first), |entry| entry.id() < *id)?;
            if *first < end {
                found.extend(Some(cursor.entry(*first)?).filter(|entry| entry.id() == *id));
            }
        }
        Ok(found)
    }

    /// The kept copy of an event.
    pub(crate) fn find_kept(&self, id: EventId) -> io::Result<Option<Entry>> {
        self.cursor(self.kept_page, ENTRY_BYTES).find(0, self.summary.kept, id)
    }

    /// All kept payloads, in id order.
    pub(crate) fn kept(&self) -> io::Result<Vec<Entry>> {
        let mut cursor = self.cursor(self.kept_page, ENTRY_BYTES);
        (0..self.summary.kept).map(|place| cursor.entry(place)).collect()
    }

    fn run(&self, integration: IntegrationId) -> Option<DirectoryItem> {
        let place = self.directory.binary_search_by_key(&integration, |item| item.integration).ok()?;
        Some(self.directory[place])
    }

    fn cursor(&self, first_page: u64, item_bytes: usize) -> Cursor<'_> {
        Cursor {
            file: &*self.file,
            salt: self.summary.salt,
            first_page,
            item_bytes,
            page: vec![0; PAGE_BYTES],
            loaded: None,
        }
    }
}

/// Reads items of one section, with the last page at hand.
struct Cursor<'a> {
    file: &'a dyn DiskFile,
    salt: u64,
    first_page: u64,
    item_bytes: usize,
    page: Vec<u8>,
    loaded: Option<u64>,
}

impl Cursor<'_> {
    fn item(&mut self, place: u32) -> io::Result<&[u8]> {
        let per_page = PAGE_CONTENT_BYTES / self.item_bytes;
        let number = self.first_page + u64::from(place) / per_page as u64;
        if self.loaded != Some(number) {
            self.loaded = None;
            self.file.read_exact_at(&mut self.page, number * PAGE_BYTES as u64)?;
            let stored = (&self.page[PAGE_CONTENT_BYTES..]).get_u32_le();
            if stored != page_crc(self.salt, number, &self.page[..PAGE_CONTENT_BYTES]) {
                return Err(worthless("a page does not match its checksum"));
            }
            self.loaded = Some(number);
        }
        let start = place as usize % per_page * self.item_bytes;
        Ok(&self.page[start..start + self.item_bytes])
    }

    fn entry(&mut self, place: u32) -> io::Result<Entry> {
        let mut item = self.item(place)?;
        Ok(Entry::new(EventId::from_u128(item.get_u128()), item.get_u32_le(), item.get_u32_le()))
    }

    fn partition_point(&mut self, first: u32, count: u32, before: impl Fn(&Entry) -> bool) -> io::Result<u32> {
        partition_point(first, count, |place| self.entry(place).map(|entry| before(&entry)))
    }

    fn find(&mut self, first: u32, count: u32, id: EventId) -> io::Result<Option<Entry>> {
        let place = self.partition_point(first, count, |entry| entry.id() < id)?;
        if place == first + count {
            return Ok(None);
        }
        Ok(Some(self.entry(place)?).filter(|entry| entry.id() == id))
    }
}

/// The first place of `first..first + count` that is not `before`.
fn partition_point(first: u32, count: u32, mut before: impl FnMut(u32) -> io::Result<bool>) -> io::Result<u32> {
    let (mut low, mut high) = (first, first + count);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::disk::RealDisk;

    fn summary(index: &MemoryIndex) -> Summary {
        Summary {
            number: 5,
            salt: 99,
            end: 4096,
            events: index.events().len() as u32,
            kept: index.kept().len() as u32,
            prev_last: EventId::ZERO,
            last: index.events().last().map_or(EventId::ZERO, Entry::id),
        }
    }

    fn index_of(integrations: &[u32]) -> MemoryIndex {
        let mut index = MemoryIndex::default();
        for (sequence, integration) in (1u32..).zip(integrations) {
            let id = EventId::from_parts(u128::from(sequence) * 3, IntegrationId(*integration), sequence as u16);
            index.push(Entry::new(id, sequence * 10, 10));
            if sequence % 3 == 0 {
                index.push_kept(Entry::new(id, sequence, 1));
            }
        }
        index
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn answers_as_the_index_in_memory(integrations in proptest::collection::vec(0u32..600, 0..1500), limit in 0usize..300, at in any::<prop::sample::Index>()) {
            let index = index_of(&integrations);
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.idx");
            write(&RealDisk, &path, &summary(&index), &index).unwrap();
            let sidecar = Sidecar::open(RealDisk.open(&path).unwrap()).unwrap();
            prop_assert_eq!(sidecar.summary(), &summary(&index));
            let places: Vec<_> = index.events().iter().map(Entry::id).chain([EventId::ZERO, EventId::MAX]).collect();
            let id = places[at.index(places.len())];
            let mut wanted: Vec<_> = places.iter().copied().skip(at.index(places.len())).step_by(1 + limit % 5).collect();
            wanted.sort_unstable();
            let found: Vec<_> = wanted.iter().filter_map(|id| index.find(*id)).collect();
            prop_assert_eq!(sidecar.find_all(&wanted).unwrap(), found);
            prop_assert_eq!(sidecar.find_kept(id).unwrap(), index.find_kept(id));
            prop_assert_eq!(sidecar.kept().unwrap(), index.kept().collect::<Vec<_>>());
            prop_assert_eq!(sidecar.before(None, id, limit).unwrap(), index.before(None, id, limit));
            for integration in [id.integration(), IntegrationId(0), IntegrationId(601)] {
                prop_assert_eq!(sidecar.after(integration, id, limit).unwrap(), index.after(integration, id, limit));
                let one = Some(integration);
                prop_assert_eq!(sidecar.before(one, id, limit).unwrap(), index.before(one, id, limit));
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_an_error_never_an_answer() {
        let index = index_of(&[1, 2, 1, 3, 1]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.idx");
        write(&RealDisk, &path, &summary(&index), &index).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(37) {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            std::fs::write(&path, bytes).unwrap();
            let answer = Sidecar::open(RealDisk.open(&path).unwrap()).and_then(|sidecar| {
                let all = sidecar.before(None, EventId::MAX, 10)?;
                sidecar.kept().map(|kept| (all, kept))
            });
            assert!(answer.is_err(), "byte {at}");
        }
    }
}
