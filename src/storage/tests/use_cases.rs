//! What works when nothing fails: append, read, get, latest, reopen, bounds.

use super::*;

#[tokio::test]
async fn what_was_appended_is_read_back_over_segments_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::<TestState>::default();
    let log = open(dir.path(), &state);
    let mut waiting = Vec::new();
    for n in 0..3_000u32 {
        let body = format!("{n}").repeat(n as usize % 40 + 1);
        waiting.push((n % 1_200, body.clone(), log.append(event(n % 1_200, body)).unwrap()));
    }
    let mut want: BTreeMap<u32, Vec<(EventId, String)>> = BTreeMap::new();
    let mut all = Vec::new();
    for (integration, body, committing) in waiting {
        let id = committing.await.unwrap();
        assert_eq!(id.integration(), IntegrationId(integration));
        want.entry(integration).or_default().push((id, body));
        all.push(id);
    }
    assert!(all.is_sorted());
    assert_eq!(log.last_committed(), *all.last().unwrap());
    assert!(log.stats().segments > 5, "{:?}", log.stats());
    check(&log, &want, &all).await;
    log.close().await.unwrap();
    assert_eq!(append(&log, 1, "late").await, Err(LogError::Closed));
    drop(log);

    let log = open(dir.path(), &state);
    assert_eq!(log.last_committed(), *all.last().unwrap());
    check(&log, &want, &all).await;
    let next = append(&log, 1, "next").await.unwrap();
    assert!(next > *all.last().unwrap());
    log.close().await.unwrap();
}

#[tokio::test]
async fn the_bytes_and_the_number_after_an_event_are_those_of_the_later_ones() {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::<TestState>::default();
    let log = open(dir.path(), &state);
    let mut want: BTreeMap<u32, Vec<(EventId, u64)>> = BTreeMap::new();
    for n in 0..12_000u32 {
        let body = vec![b'x'; n as usize % 50];
        let bytes = crate::storage::record::Payload::encode(arrival(body.clone())).record_bytes() as u64;
        let committing = log.append(event(n % 2, body)).unwrap();
        want.entry(n % 2).or_default().push((committing.await.unwrap(), bytes));
    }
    assert!(log.stats().segments > 5, "{:?}", log.stats());
    let total: u64 = want[&1].iter().map(|(_, bytes)| bytes).sum();
    let mut log = Some(log);
    for _ in 0..2 {
        let log = log.take().unwrap_or_else(|| open(dir.path(), &state));
        for (integration, events) in &want {
            for (place, (id, _)) in events.iter().enumerate().step_by(701) {
                let later: u64 = events[place + 1..].iter().map(|(_, bytes)| bytes).sum();
                assert_eq!(log.bytes_after(IntegrationId(*integration), *id).await, Ok(later));
                let own = log.count_after(Some(IntegrationId(*integration)), *id).await;
                assert_eq!(own, Ok((events.len() - place - 1) as u64));
                let of_all = want.values().flatten().filter(|(other, _)| other > id).count();
                assert_eq!(log.count_after(None, *id).await, Ok(of_all as u64));
            }
        }
        assert_eq!(log.bytes_after(IntegrationId(1), EventId::ZERO).await, Ok(total));
        assert_eq!(log.bytes_after(IntegrationId(1), EventId::MAX).await, Ok(0));
        assert_eq!(log.bytes_after(IntegrationId(9), EventId::ZERO).await, Ok(0));
        let counts = [(None, EventId::ZERO), (Some(IntegrationId(9)), EventId::ZERO), (None, EventId::MAX)];
        for ((whose, after), want) in counts.into_iter().zip([12_000, 0, 0]) {
            assert_eq!(log.count_after(whose, after).await, Ok(want));
        }
        log.close().await.unwrap();
    }
}

async fn check(log: &SegmentLog, want: &BTreeMap<u32, Vec<(EventId, String)>>, all: &[EventId]) {
    for (integration, events) in want {
        let read = log.read(IntegrationId(*integration), EventId::ZERO, ALL).await.unwrap();
        assert_eq!(read.len(), events.len());
        for (stored, (id, body)) in read.iter().zip(events) {
            let stored = stored.as_ref().unwrap();
            assert_eq!((stored.id, &stored.arrival.body[..]), (*id, body.as_bytes()));
            assert_eq!(stored.arrival.headers.as_bytes(), arrival("").headers.as_bytes());
        }
        let bounds = ReadBounds { events_max: 1, bytes_max: 1 };
        let second = log.read(IntegrationId(*integration), events[0].0, bounds).await.unwrap();
        assert_eq!(second.first().map(|stored| stored.as_ref().unwrap().id), events.get(1).map(|(id, _)| *id));
    }
    for id in all.iter().step_by(97) {
        assert_eq!(log.get(*id).await.unwrap().map(|event| event.id), Some(*id));
        let guess = EventId::from_u128(id.as_u128() ^ 1);
        assert_eq!(log.get(guess).await.unwrap(), None, "the random bits are checked");
    }
    let newest: Vec<_> = all.iter().rev().copied().collect();
    assert_eq!(log.latest(None, EventId::MAX, 1_000).await.unwrap(), newest[..1_000]);
    assert_eq!(log.latest(None, newest[500], 900).await.unwrap(), newest[501..1_401]);
    let one: Vec<_> = want[&7].iter().rev().map(|(id, _)| *id).collect();
    assert_eq!(log.latest(Some(IntegrationId(7)), EventId::MAX, 10).await.unwrap(), one);
}

#[tokio::test]
async fn a_read_is_bounded_and_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &Arc::default());
    let mut ids = Vec::new();
    for n in 0..200 {
        ids.push(append(&log, n % 2, vec![b'x'; 900]).await.unwrap());
    }
    let (mut after, mut found) = (EventId::ZERO, Vec::new());
    loop {
        let bounds = ReadBounds { events_max: 7, bytes_max: 4_000 };
        let read = log.read(IntegrationId(1), after, bounds).await.unwrap();
        assert!(read.len() <= 4, "{} events in 4,000 bytes", read.len());
        let Some(last) = read.last() else { break };
        after = last.as_ref().unwrap().id;
        found.extend(read.into_iter().map(|stored| stored.unwrap().id));
    }
    let want: Vec<_> = ids.into_iter().skip(1).step_by(2).collect();
    assert_eq!(found, want);
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_record_larger_than_a_segment_gets_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::<TestState>::default();
    let log = open(dir.path(), &state);
    let small = append(&log, 1, "small").await.unwrap();
    let large = append(&log, 1, vec![7; 300_000]).await.unwrap();
    let after = append(&log, 1, "after").await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let log = open(dir.path(), &state);
    let read = log.read(IntegrationId(1), EventId::ZERO, ALL).await.unwrap();
    let read: Vec<_> =
        read.into_iter().map(|stored| stored.unwrap()).map(|event| (event.id, event.arrival.body.len())).collect();
    assert_eq!(read, [(small, 5), (large, 300_000), (after, 5)]);
    let over = log.append(event(1, vec![0; options().record_bytes_max]));
    assert!(matches!(over, Err(LogError::TooLarge { .. })));
    log.close().await.unwrap();
}

#[tokio::test]
async fn ids_grow_when_the_clock_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::<TestState>::default();
    let store = StoreDir::open(dir.path()).unwrap();
    let time = clock();
    let view = Arc::clone(&state) as Arc<dyn StateView>;
    let log = SegmentLog::open(options(), store, view, Arc::<Heard>::default(), Arc::clone(&time) as _).unwrap();
    let first = append(&log, 1, "a").await.unwrap();
    time.0.store(NOW_MS - 86_400_000, SeqCst);
    let second = append(&log, 1, "b").await.unwrap();
    assert!(second > first);
    log.close().await.unwrap();
    drop(log);
    let store = StoreDir::open(dir.path()).unwrap();
    let log = SegmentLog::open(options(), store, state, Arc::<Heard>::default(), time).unwrap();
    assert!(append(&log, 1, "c").await.unwrap() > second);
    log.close().await.unwrap();
}

#[tokio::test]
async fn state_rides_along_and_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::<TestState>::default();
    let log = open(dir.path(), &state);
    for n in 0..50 {
        log.commit(vec![position(2 * n), position(2 * n + 1)]).unwrap().await.unwrap();
        if n % 5 == 0 {
            append(&log, 1, vec![b'x'; 3_000]).await.unwrap();
        }
    }
    let want: Vec<_> = (0..100).map(position).collect();
    assert_eq!(state.live().ops, want);
    log.close().await.unwrap();
    assert_eq!(state.durable().ops, want);
    drop(log);
    // A state that was lost whole is made again from the log.
    let state = Arc::<TestState>::default();
    let log = open(dir.path(), &state);
    assert_eq!(state.live().ops, want);
    log.close().await.unwrap();
}

#[tokio::test]
async fn what_is_behind_is_applied_again_and_apart_from_what_is_news() {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::<TestState>::default();
    let log = open(dir.path(), &state);
    let mut places = Vec::new();
    for n in 0..50 {
        log.commit(vec![position(2 * n), position(2 * n + 1)]).unwrap().await.unwrap();
        if n % 5 == 0 {
            append(&log, 1, vec![b'x'; 3_000]).await.unwrap();
        }
        places.push(state.live().upto);
    }
    log.close().await.unwrap();
    drop(log);
    let want: Vec<_> = (0..100).map(position).collect();
    // At each pair of places, in one segment or more.
    for (behind, upto) in [(0, 49), (3, 3), (3, 4), (10, 31), (29, 31), (49, 49)] {
        let state = TestState::at(Taken {
            ops: want[..=2 * upto + 1].to_vec(),
            upto: places[upto],
            behind: Some(places[behind]),
            ..Taken::default()
        });
        let log = open(dir.path(), &state);
        assert_eq!(state.live().again, want[2 * behind + 2..=2 * upto + 1], "{behind} to {upto}");
        assert_eq!(state.live().ops, want, "{behind} to {upto}");
        log.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_state_still_goes() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = LogOptions { queue_events: 4, queue_bytes: 100_000, ..options() };
    let log = open_on(Arc::new(RealDisk), dir.path(), bounds, &Arc::default()).unwrap();
    let mut taken = Vec::new();
    let refused = loop {
        match log.append(event(1, vec![b'x'; 20_000])) {
            Ok(committing) => taken.push(committing),
            Err(error) => break error,
        }
        assert!(taken.len() < 100_000, "the queue has no bound");
    };
    assert_eq!(refused, LogError::QueueFull);
    log.commit(vec![position(1)]).unwrap().await.unwrap();
    for committing in taken {
        committing.await.unwrap();
    }
    assert_eq!((log.stats().queue_events, log.stats().queue_bytes), (0, 0));
    append(&log, 1, "room again").await.unwrap();
    log.close().await.unwrap();
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &Arc::default());
    assert!(matches!(StoreDir::open(dir.path()), Err(OpenError::Locked { .. })));
    log.close_blocking().unwrap();
    drop(log);
    StoreDir::open(dir.path()).unwrap();
}
