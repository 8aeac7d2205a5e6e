//! Dedup keys: under which key which event was taken in.
//!
//! They are stored in the order they came, many in one value, because a store of small values at random places would
//! cost a page read and a page written for each. What finds them is an index in memory of eight bytes a key, made from
//! the stored values at the opening: a part of the key's hash, and about when its event came. What it finds is looked
//! up in the values, so that it need not be exact.

use std::collections::BTreeMap;

use hashbrown::HashTable;
use hookmill_actors::{
    domain::ids::{EndpointId, EventId},
    ports::state_store::DedupKey,
};

use super::{
    sled_db::VALUE_BYTES_MAX,
    values::{IdDeltas, take},
};

/// A key's hash, and the event that was taken in under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) event: EventId,
    pub(super) hash: [u8; 16],
}

/// What one endpoint has seen, ascending, in values: the last event of each, and its bytes.
pub(super) fn encode(seen: &[Seen]) -> Vec<(EventId, Vec<u8>)> {
    let mut values: Vec<(EventId, Vec<u8>)> = Vec::new();
    let mut deltas = IdDeltas::default();
    for Seen { event, hash } in seen {
        if let Some((last, value)) = values.last_mut() {
            let before = value.len();
            deltas.write(*event, value);
            value.extend(hash);
            if value.len() <= VALUE_BYTES_MAX {
                *last = *event;
                continue;
            }
            value.truncate(before);
        }
        deltas = IdDeltas::default();
        let mut value = Vec::new();
        deltas.write(*event, &mut value);
        value.extend(hash);
        values.push((*event, value));
    }
    values
}

/// The inverse of [`encode`], of one value.
pub(super) fn decode(mut rest: &[u8]) -> Option<Vec<Seen>> {
    let mut deltas = IdDeltas::default();
    let mut seen = Vec::new();
    while !rest.is_empty() {
        seen.push(Seen { event: deltas.read(&mut rest)?, hash: take(&mut rest)? });
    }
    Some(seen)
}

/// Time is told in spans of two milliseconds, as a power of two. With 32 bits it goes round in 99 days, which is longer
/// than any window.
const SPAN_BITS: u32 = 1;
/// How the ages of keys are counted: in spans of eight seconds.
const AGE_BITS: u32 = 13;
/// Keys whose events came to nothing may be there again and again: only the youngest matter.
const SAME_MAX: usize = 8;

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span(u64);

impl Span {
    pub(super) fn of(event: EventId) -> Self {
        Self(event.millis() >> SPAN_BITS)
    }

    /// Before its first event.
    pub(super) fn start(self) -> EventId {
        EventId::at_millis(self.0 << SPAN_BITS)
    }
}

/// Finds keys by a part of their hash.
#[derive(Debug, Default)]
pub(super) struct SeenIndex {
    /// The high half is of the hash, the low one is the span.
    entries: HashTable<u64>,
    /// How many keys there are of each age.
    ages: BTreeMap<u64, u64>,
}

impl SeenIndex {
    /// How many keys there are.
    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Adds a key; one that is there already, as when the log is applied again, stays as it is.
    pub(super) fn insert(&mut self, endpoint: EndpointId, seen: &Seen) {
        let entry = entry(endpoint, seen);
        let mut same: Vec<u64> = Vec::new();
        for other in self.entries.iter_hash(place(entry)).filter(|other| *other >> 32 == entry >> 32) {
            if *other == entry {
                return;
            }
            same.push(*other);
        }
        if same.len() >= SAME_MAX {
            let age = |other: &u64| low(entry).wrapping_sub(low(*other));
            if let Some(oldest) = same.into_iter().max_by_key(age) {
                self.take(oldest, span_before(Span::of(seen.event), low(oldest)));
            }
        }
        self.entries.insert_unique(place(entry), entry, |entry| place(*entry));
        *self.ages.entry(seen.event.millis() >> AGE_BITS).or_default() += 1;
    }

    /// Removes a key; whether it was there.
    pub(super) fn remove(&mut self, endpoint: EndpointId, seen: &Seen) -> bool {
        self.take(entry(endpoint, seen), Span::of(seen.event))
    }

    /// When events may have come under this key, youngest first, none after `before`.
    pub(super) fn spans(&self, key: &DedupKey, before: EventId) -> Vec<Span> {
        let latest = Span::of(before);
        let wanted = entry(key.endpoint, &Seen { event: before, hash: key.hash });
        let same = self.entries.iter_hash(place(wanted)).filter(|entry| *entry >> 32 == wanted >> 32);
        let mut spans: Vec<Span> = same.map(|entry| span_before(latest, low(*entry))).collect();
        spans.sort_unstable_by(|a, b| b.cmp(a));
        spans
    }

    /// The event up to which keys must go for there to be no more than so many.
    pub(super) fn surplus_upto(&self, keys_max: u64) -> EventId {
        let mut surplus = self.len().saturating_sub(keys_max);
        let mut upto = EventId::ZERO;
        for (age, keys) in &self.ages {
            if surplus == 0 {
                break;
            }
            surplus = surplus.saturating_sub(*keys);
            upto = EventId::from_u128(EventId::at_millis((age + 1) << AGE_BITS).as_u128() - 1);
        }
        upto
    }

    fn take(&mut self, entry: u64, span: Span) -> bool {
        let Ok(found) = self.entries.find_entry(place(entry), |other| *other == entry) else { return false };
        found.remove();
        let age = span.0 >> (AGE_BITS - SPAN_BITS);
        if let Some(keys) = self.ages.get_mut(&age) {
            *keys -= 1;
            if *keys == 0 {
                self.ages.remove(&age);
            }
        }
        true
    }
}

/// The last span not after `latest` whose low half is this.
fn span_before(latest: Span, low_half: u32) -> Span {
    Span(latest.0.saturating_sub(u64::from(low(latest.0).wrapping_sub(low_half))))
}

fn entry(endpoint: EndpointId, seen: &Seen) -> u64 {
    let [a, b, c, d, ..] = seen.hash;
    // The hash is of what the endpoint's sender gave: the same id elsewhere must not pile up here.
    let part = u32::from_le_bytes([a, b, c, d]) ^ endpoint.0.wrapping_mul(0x9e37_79b9);
    u64::from(part) << 32 | u64::from(low(Span::of(seen.event).0))
}

/// Where the table looks for an entry: by its hash's part alone, spread over all bits.
fn place(entry: u64) -> u64 {
    (entry >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use hookmill_actors::domain::ids::IntegrationId;
    use proptest::prelude::*;

    use super::*;

    fn event(millis: u64) -> EventId {
        EventId::from_parts(u128::from(millis) << 26, IntegrationId(1), 7)
    }

    fn seen(millis: u64, id: u8) -> Seen {
        Seen { event: event(millis), hash: [id; 16] }
    }

    proptest! {
        #[test]
        fn values_survive_and_stay_small(gaps in proptest::collection::vec(0u64..1 << 40, 1..600)) {
            let mut millis = 0;
            let all: Vec<Seen> = gaps.iter().map(|gap| {
                millis += gap;
                Seen { event: event(millis), hash: u128::from(gap.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes() }
            }).collect();
            let values = encode(&all);
            let mut back = Vec::new();
            for (last, value) in &values {
                prop_assert!(value.len() <= VALUE_BYTES_MAX);
                back.extend(decode(value).unwrap());
                prop_assert_eq!(back.last().unwrap().event, *last);
            }
            prop_assert_eq!(back, all);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_key_is_found_until_it_goes(keys in proptest::collection::vec((1u64..1 << 45, any::<u8>()), 1..100)) {
            let mut index = SeenIndex::default();
            let endpoint = EndpointId(3);
            for (millis, id) in &keys {
                index.insert(endpoint, &seen(*millis, *id));
                let spans = index.spans(&DedupKey { endpoint, hash: [*id; 16] }, event(*millis));
                prop_assert!(spans.contains(&Span::of(event(*millis))));
                prop_assert!(spans.len() <= SAME_MAX && spans.is_sorted_by(|a, b| a > b));
            }
            for (millis, id) in &keys {
                index.remove(endpoint, &seen(*millis, *id));
            }
            prop_assert_eq!((index.len(), index.ages.len()), (0, 0));
        }
    }

    #[test]
    fn the_surplus_is_the_oldest() {
        let mut index = SeenIndex::default();
        for n in 0..100u64 {
            let id = u8::try_from(n).expect("below 100");
            index.insert(EndpointId(1), &seen(1_000_000 + n * 10_000, id));
            index.insert(EndpointId(1), &seen(1_000_000 + n * 10_000, id));
        }
        assert_eq!(index.len(), 100, "a key is counted once");
        assert_eq!(index.surplus_upto(100), EventId::ZERO);
        let upto = index.surplus_upto(40);
        let gone = (0..100).filter(|n| event(1_000_000 + n * 10_000) <= upto).count();
        assert!((60..=61).contains(&gone), "{gone}");
    }

    #[test]
    fn a_key_that_comes_again_and_again_does_not_pile_up() {
        let mut index = SeenIndex::default();
        for n in 1..10_000u64 {
            index.insert(EndpointId(1), &seen(n * 100, 9));
        }
        assert_eq!(index.len(), SAME_MAX as u64);
        let youngest = index.spans(&DedupKey { endpoint: EndpointId(1), hash: [9; 16] }, event(1 << 40));
        assert_eq!(youngest.len(), SAME_MAX);
        assert_eq!(youngest[0].0 & 0xffff_ffff, Span::of(event(9_999 * 100)).0);
    }
}
