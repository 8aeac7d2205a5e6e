use std::time::Duration;

use hookmill_actors::domain::{
    headers::HeaderBlock,
    ids::{EndpointId, IntegrationId},
};
use proptest::prelude::*;

use super::*;

const OPTIONS: RejectionOptions =
    RejectionOptions { count_max: 100, bytes_max: 1 << 20, body_bytes_max: 1_000, per_second: 10_000 };

fn open(dir: &tempfile::TempDir, options: RejectionOptions) -> (Rejections, Arc<RejectionDesk>, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    let (rejections, desk) = Rejections::open(dir.path().join("rejections"), options, counters.clone()).unwrap();
    (rejections, desk, counters)
}

fn offer(desk: &RejectionDesk, endpoint: u32, at_ms: u64, body: &[u8]) {
    let headers = HeaderBlock::from_lines([("x-signature", b"wrong".as_slice())]);
    desk.offer(&RefusedRequest {
        integration: IntegrationId(1),
        endpoint: EndpointId(endpoint),
        at_ms,
        cause: "invalid_signature",
        reason: "no active secret gives this signature",
        peer: [192, 0, 2, 1].into(),
        method: "POST",
        target: "/webhooks/receive/a?x=1",
        headers: &headers,
        body,
        body_whole: true,
    });
}

/// Waits for the thread.
fn settled(counters: &Counters, count: u64) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let totals = counters.totals();
        if totals.rejections_kept + totals.rejections_dropped >= count {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{totals:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn ids(rejections: &Rejections) -> Vec<RejectionId> {
    rejections.list(None, 1_000, |_| true).0.into_iter().map(|entry| entry.id).collect()
}

#[test]
fn what_was_refused_comes_back_whole_also_after_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (rejections, desk, counters) = open(&dir, OPTIONS);
    offer(&desk, 1, 1_000, b"{\"a\":1}");
    offer(&desk, 2, 1_000, &[b'x'; 1_001]);
    settled(&counters, 2);
    let before = ids(&rejections);
    drop((rejections, desk));
    fs::write(dir.path().join("rejections/0000000000000007"), b"torn").unwrap();
    let (rejections, _desk, _) = open(&dir, OPTIONS);
    assert_eq!(ids(&rejections), before);
    assert!(!dir.path().join("rejections/0000000000000007").exists(), "what is damaged goes");
    let cut = rejections.get(before[0]).unwrap();
    assert_eq!((cut.body.len(), cut.body_whole, cut.endpoint), (1_000, false, EndpointId(2)));
    let whole = rejections.get(before[1]).unwrap();
    assert_eq!((whole.body.as_ref(), whole.body_whole, whole.at_ms), (&b"{\"a\":1}"[..], true, 1_000));
    assert_eq!((&*whole.cause, &*whole.target), ("invalid_signature", "/webhooks/receive/a?x=1"));
    assert_eq!(whole.headers.all("x-signature").next(), Some(&b"wrong"[..]));
}

#[test]
fn a_flood_at_one_endpoint_leaves_the_others_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (rejections, desk, counters) = open(&dir, RejectionOptions { count_max: 20, ..OPTIONS });
    for _ in 0..3 {
        offer(&desk, 1, 1_000, b"good");
    }
    for _ in 0..200 {
        offer(&desk, 2, 2_000, b"flood");
    }
    settled(&counters, 203);
    let (found, more) = rejections.list(None, 1_000, |_| true);
    assert_eq!((found.len(), more), (20, false));
    assert_eq!(found.iter().filter(|entry| entry.endpoint == EndpointId(1)).count(), 3);
    assert_eq!(fs::read_dir(dir.path().join("rejections")).unwrap().count(), 20);
}

#[test]
fn what_comes_too_fast_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (rejections, desk, counters) = open(&dir, RejectionOptions { per_second: 10, ..OPTIONS });
    for _ in 0..500 {
        offer(&desk, 1, 1_000, b"flood");
    }
    settled(&counters, 500);
    let totals = counters.totals();
    assert!((10..100).contains(&totals.rejections_kept), "{totals:?}");
    assert_eq!(ids(&rejections).len() as u64, totals.rejections_kept);
    assert_eq!(rejections.0.waiting.load(Relaxed), 0);
}

#[test]
fn nothing_is_kept_where_nothing_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let (rejections, desk, counters) = open(&dir, RejectionOptions { count_max: 0, ..OPTIONS });
    offer(&desk, 1, 1_000, b"x");
    drop(desk);
    assert!(ids(&rejections).is_empty());
    assert_eq!(counters.totals().rejections_dropped, 0);
}

#[test]
fn one_is_accepted_once() {
    let dir = tempfile::tempdir().unwrap();
    let (rejections, desk, counters) = open(&dir, OPTIONS);
    offer(&desk, 1, 1_000, b"x");
    settled(&counters, 1);
    let id = ids(&rejections)[0];
    let first = rejections.reserve(id).unwrap();
    assert_eq!(rejections.reserve(id).err(), Some(RejectionError::UnderWay(id)));
    drop(first);
    let event = EventId::from_u128(7);
    rejections.reserve(id).unwrap().accepted(event, 2_000).unwrap();
    assert_eq!(rejections.reserve(id).err(), Some(RejectionError::Accepted { id, event }));
    drop((rejections, desk));
    let (rejections, _desk, _) = open(&dir, OPTIONS);
    assert_eq!(rejections.reserve(id).err(), Some(RejectionError::Accepted { id, event }));
    assert_eq!(rejections.get(id).unwrap().accepted, Some((event, 2_000)));
    let missing = "0000000000000001".parse().unwrap();
    assert_eq!(rejections.reserve(missing).err(), Some(RejectionError::NotFound(missing)));
}

#[test]
fn what_is_packed_comes_back_and_is_accepted_only_as_an_event_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (rejections, desk, counters) = open(&dir, OPTIONS);
    for body in [b"a", b"b", b"c"] {
        offer(&desk, 1, 1_000, body);
    }
    settled(&counters, 3);
    let ids = ids(&rejections);
    let [early, late] = [7, 9].map(EventId::from_u128);
    rejections.reserve(ids[0]).unwrap().accepted(early, 2_000).unwrap();
    rejections.reserve(ids[1]).unwrap().accepted(late, 2_000).unwrap();
    let from = dir.path().join("rejections");
    fs::write(from.join("0000000000000007"), b"torn").unwrap();
    let packed = |last: u128| {
        let mut pack = Pack::new(&from, EventId::from_u128(last)).unwrap();
        std::iter::from_fn(|| pack.next_chunk().unwrap()).flatten().collect::<Vec<u8>>()
    };
    let stream = packed(8);
    let copy = tempfile::tempdir().unwrap();
    assert_eq!(unpack(&mut &stream[..], &copy.path().join("rejections")).unwrap(), 3);
    let (restored, _desk, _) = open(&copy, OPTIONS);
    assert_eq!(self::ids(&restored), ids);
    let accepted = ids.iter().map(|id| restored.get(*id).unwrap().accepted.map(|(event, _)| event));
    assert_eq!(accepted.collect::<Vec<_>>(), [Some(early), None, None]);
    assert_eq!(restored.get(ids[2]).unwrap(), rejections.get(ids[2]).unwrap());
    assert_ne!(packed(9), stream);

    for end in 1..stream.len() {
        let copy = tempfile::tempdir().unwrap();
        if let Ok(count) = unpack(&mut &stream[..end], copy.path()) {
            assert!(count < 3, "{end}");
        }
    }
    let empty = Pack::new(&dir.path().join("none"), early).unwrap().next_chunk().unwrap();
    assert_eq!(empty, None);
}

#[test]
fn numbers_only_grow_and_are_read_back() {
    let first = RejectionId::next(5, RejectionId::default());
    let second = RejectionId::next(5, first);
    let third = RejectionId::next(1, second);
    assert!(first < second && second < third);
    assert_eq!(third.to_string().parse(), Ok(third));
    for wrong in ["", "1", "000000000000000g", "00000000000000001", "+000000000000001", "000000000000000A"] {
        assert!(wrong.parse::<RejectionId>().is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn the_bounds_hold_and_nobody_goes_before_the_fullest(
        given in proptest::collection::vec((1u32..5, 0usize..300), 1..120),
        count_max in 1usize..30,
        bytes_max in 1_000u64..6_000,
    ) {
        let mut ring = Ring::default();
        for (endpoint, body) in given {
            let rejection = Rejection {
                id: ring.next_id(1),
                at_ms: 1,
                integration: IntegrationId(1),
                endpoint: EndpointId(endpoint),
                cause: "x".into(),
                reason: "".into(),
                peer: [192, 0, 2, 1].into(),
                method: "POST".into(),
                target: "/".into(),
                headers: HeaderBlock::default(),
                body: vec![0; body].into(),
                body_whole: true,
                accepted: None,
            };
            let bytes = encode(&rejection).len() as u64;
            ring.insert(Entry::of(&rejection, bytes));
            let outdone = ring.make_room(count_max, bytes_max);
            let kept: Vec<&Entry> = ring.newest(None).collect();
            prop_assert!(kept.len() <= count_max);
            let total: u64 = kept.iter().map(|entry| encode(&rejection).len() as u64 - body as u64 + entry.body_bytes as u64).sum();
            prop_assert!(total <= bytes_max + 16 * kept.len() as u64, "{total}");
            for id in outdone {
                prop_assert!(ring.get(id).is_none());
            }
        }
    }
}
