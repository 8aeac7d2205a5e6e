//! What deliveries hold in memory: each within a bound of its own, and all within one together. What finds no room
//! stays in the log, where it can be read again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::domain::{event::Event, limits::BATCH_BYTES_MAX};

/// Held for one subscription, bytes.
const OWN_BYTES_MAX: usize = 4 << 20;
/// Held for all of them: beyond it each has an equal share, be that a single event.
const ALL_BYTES_MAX: usize = 16 << 20;
/// What an event takes beside its body, about: its headers, its place in the order, the attempt with its request.
const BESIDE_BODY_BYTES: usize = 4 << 10;

/// What all deliveries hold together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holdings(Arc<All>);

#[derive(Debug, Default)]
struct All {
    bytes: AtomicUsize,
    /// Those that hold anything.
    holders: AtomicUsize,
}

/// What one delivery holds.
#[derive(Debug)]
pub(super) struct Holding(Arc<Own>);

#[derive(Debug)]
struct Own {
    all: Holdings,
    bytes: AtomicUsize,
}

/// An event in memory counts until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    own: Arc<Own>,
    bytes: usize,
}

impl Holdings {
    /// For one more delivery.
    pub(super) fn open(&self) -> Holding {
        Holding(Arc::new(Own { all: self.clone(), bytes: AtomicUsize::new(0) }))
    }

    /// What one of them may hold now.
    fn share(&self) -> usize {
        if self.0.bytes.load(Relaxed) < ALL_BYTES_MAX {
            OWN_BYTES_MAX
        } else {
            (ALL_BYTES_MAX / self.0.holders.load(Relaxed).max(1)).min(OWN_BYTES_MAX)
        }
    }
}

impl Holding {
    /// Counts an event.
    pub(super) fn hold(&self, event: &Event) -> Held {
        let bytes = bytes_of(event);
        let All { bytes: all, holders } = &*self.0.all.0;
        all.fetch_add(bytes, Relaxed);
        if self.0.bytes.fetch_add(bytes, Relaxed) == 0 {
            holders.fetch_add(1, Relaxed);
        }
        Held { own: self.0.clone(), bytes }
    }

    /// What is held, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes.load(Relaxed)
    }

    /// The bytes that may be read into memory; 0 until a good part of the share is free, as small reads cost as much as
    /// large ones. Whoever holds nothing may always read: an event that is larger than its share comes alone.
    pub(super) fn room(&self) -> usize {
        let (own, share) = (self.bytes(), self.0.all.share());
        let room = share.saturating_sub(own);
        match own {
            0 => room.clamp(1, BATCH_BYTES_MAX),
            _ if room < share / 4 => 0,
            _ => room.min(BATCH_BYTES_MAX),
        }
    }

    /// Whether these find room, all of them.
    pub(super) fn fits<'a>(&self, events: impl IntoIterator<Item = &'a Arc<Event>>) -> bool {
        events.into_iter().map(|event| bytes_of(event)).sum::<usize>() <= self.room()
    }
}

impl Held {
    /// Counts no more. What is held beside it, bytes.
    pub(super) fn let_go(self) -> usize {
        self.own.bytes.load(Relaxed).saturating_sub(self.bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let All { bytes: all, holders } = &*self.own.all.0;
        all.fetch_sub(self.bytes, Relaxed);
        if self.own.bytes.fetch_sub(self.bytes, Relaxed) == self.bytes {
            holders.fetch_sub(1, Relaxed);
        }
    }
}

fn bytes_of(event: &Event) -> usize {
    event.arrival.body.len() + BESIDE_BODY_BYTES
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::domain::{
        event::Arrival,
        headers::HeaderBlock,
        ids::{EndpointId, EventId, IntegrationId},
    };

    fn event(body_bytes: usize) -> Arc<Event> {
        let arrival = Arrival {
            endpoint: EndpointId(1),
            received_at_ms: 1,
            accepted_version: 1,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            hops: 0,
            query: Box::default(),
            headers: HeaderBlock::from_lines([]),
            body: vec![0; body_bytes].into(),
        };
        Arc::new(Event { id: EventId::from_parts(1, IntegrationId(1), 1), arrival })
    }

    /// An event that counts for so many bytes.
    fn of(bytes: usize) -> Arc<Event> {
        event(bytes - BESIDE_BODY_BYTES)
    }

    #[test]
    fn one_alone_may_hold_its_own_bound_and_reads_again_when_a_good_part_is_free() {
        let holding = Holdings::default().open();
        assert_eq!(holding.room(), BATCH_BYTES_MAX);
        let first = holding.hold(&of(OWN_BYTES_MAX / 2));
        let second = holding.hold(&of(OWN_BYTES_MAX / 4));
        assert_eq!(holding.room(), OWN_BYTES_MAX / 4);
        let third = holding.hold(&of(BESIDE_BODY_BYTES));
        assert_eq!(holding.room(), 0);
        drop(third);
        assert_eq!(holding.room(), OWN_BYTES_MAX / 4);
        drop((first, second));
        assert_eq!((holding.bytes(), holding.room()), (0, BATCH_BYTES_MAX));
    }

    #[test]
    fn many_together_hold_little_more_than_their_common_bound() {
        let all = Holdings::default();
        let one = || event(1_536);
        let mut held: Vec<_> = (0..20_000).map(|_| (all.open(), Vec::new())).collect();
        for _ in 0..10 {
            for (holding, events) in &mut held {
                if holding.fits([&one()]) {
                    events.push(holding.hold(&one()));
                }
            }
        }
        let each: Vec<_> = held.iter().map(|(_, events)| events.len()).collect();
        let total: usize = held.iter().map(|(holding, _)| holding.bytes()).sum();
        assert!(total <= ALL_BYTES_MAX + bytes_of(&one()), "{total}");
        assert!(each.iter().all(|count| *count <= 1), "nobody has a second one while others wait for their first");
    }

    #[test]
    fn whoever_holds_nothing_may_read_however_much_others_hold() {
        let all = Holdings::default();
        let (greedy, late) = (all.open(), all.open());
        let held: Vec<_> = (0..64).map(|_| greedy.hold(&of(1 << 20))).collect();
        assert_eq!(greedy.room(), 0);
        assert!(late.room() > 0);
        let first = late.hold(&event(1_536));
        assert!(late.room() > 0, "two share what there is");
        drop((held, first));
        assert_eq!((greedy.bytes(), late.bytes(), all.share()), (0, 0, OWN_BYTES_MAX));
    }

    #[test]
    fn an_event_counts_until_it_is_let_go_even_by_another_than_who_held_it() {
        let all = Holdings::default();
        let holding = all.open();
        let held = holding.hold(&event(10));
        drop(holding);
        assert_eq!(all.0.holders.load(Relaxed), 1);
        drop(held);
        assert_eq!((all.0.holders.load(Relaxed), all.0.bytes.load(Relaxed)), (0, 0));
    }
}
