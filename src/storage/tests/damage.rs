//! Bytes that were synced and are not what they were: seen at the start or by the reader, never taken for good.

use super::*;

/// A store of several segments, closed; its files are then at hand.
struct Store {
    dir: tempfile::TempDir,
    state: Arc<TestState>,
    ids: Vec<EventId>,
}

const EVENTS: usize = 400;

async fn store() -> Store {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::<TestState>::default();
    let log = open(dir.path(), &state);
    let mut ids = Vec::new();
    for n in 0..EVENTS {
        ids.push(append(&log, 1, format!("{n:01000}")).await.unwrap());
        if n % 10 == 0 {
            log.commit(vec![position(n as u64)]).unwrap().await.unwrap();
        }
    }
    assert!(log.stats().segments >= 6);
    log.close().await.unwrap();
    Store { dir, state, ids }
}

impl Store {
    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("log").join(name)
    }

    fn reopen(&self) -> Result<Arc<SegmentLog>, OpenError> {
        open_on(Arc::new(RealDisk), self.dir.path(), options(), &self.state)
    }

    fn refused(&self) -> OpenError {
        let error = self.reopen().unwrap_err();
        assert!(self.file("").exists(), "nothing is removed");
        error
    }

    fn segments(&self) -> Vec<String> {
        let names = RealDisk.list(&self.file("")).unwrap();
        names.into_iter().filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "seg")).collect()
    }
}

/// How many events read as damaged; the rest must be equal to what was stored.
async fn damaged_events(log: &SegmentLog, ids: &[EventId]) -> usize {
    let read = log.read(IntegrationId(1), EventId::ZERO, ALL).await.unwrap();
    assert_eq!(read.len(), ids.len(), "every event is accounted for");
    heads_tell_the_same(log, ids).await;
    let mut damaged = 0;
    for (n, (stored, id)) in read.into_iter().zip(ids).enumerate() {
        match stored {
            Ok(event) => assert_eq!((event.id, &event.arrival.body[..]), (*id, format!("{n:01000}").as_bytes())),
            Err(bad) => {
                assert_eq!(bad, *id);
                assert_eq!(log.get(*id).await, Err(LogError::Corrupt(*id)));
                damaged += 1;
            }
        }
    }
    damaged
}

#[tokio::test]
async fn a_flipped_bit_is_a_damaged_event_or_a_refused_start() {
    let store = store().await;
    let segments = store.segments();
    let mut random = fastrand::Rng::with_seed(1);
    let (mut refused, mut seen) = (0, 0);
    for turn in 0..120 {
        let name = match turn % 3 {
            0 => segments.last().unwrap(),
            _ => &segments[random.usize(..segments.len() - 1)],
        };
        let path = store.file(name);
        let whole = std::fs::read(&path).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
        let at = random.usize(..used);
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << random.u8(..8);
        std::fs::write(&path, bytes).unwrap();
        match store.reopen() {
            Ok(log) => {
                let damaged = damaged_events(&log, &store.ids).await;
                assert!(damaged <= 1, "{damaged} events by one bit");
                seen += damaged;
                log.close().await.unwrap();
            }
            Err(OpenError::Damaged { .. } | OpenError::StateAhead { .. } | OpenError::Newer { .. }) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
        std::fs::write(&path, whole).unwrap();
    }
    assert!(refused > 3 && seen > 20, "refused {refused}, seen {seen}");
}

#[tokio::test]
async fn a_damaged_or_missing_index_is_made_again() {
    let store = store().await;
    for spoil in [
        |path: &Path| std::fs::remove_file(path).unwrap(),
        |path: &Path| std::fs::write(path, "x").unwrap(),
        |path: &Path| {
            // Its header stays good: the damage is found by a reader.
            let mut bytes = std::fs::read(path).unwrap();
            let at = bytes.len() - 5_000;
            bytes[at] ^= 1;
            std::fs::write(path, bytes).unwrap();
        },
    ] {
        spoil(&store.file("0000000000000002.idx"));
        let log = store.reopen().unwrap();
        assert_eq!(damaged_events(&log, &store.ids).await, 0);
        log.close().await.unwrap();
        drop(log);
        // Only the damage that the start sees is repaired on disk; either way it opens and reads.
        let log = store.reopen().unwrap();
        assert_eq!(damaged_events(&log, &store.ids).await, 0);
        log.close().await.unwrap();
    }
}

#[tokio::test]
async fn missing_truncated_and_swapped_segments_are_refused() {
    let store = store().await;
    let segments = store.segments();
    let aside = store.dir.path().join("log/aside");
    for (place, name) in segments.iter().enumerate() {
        std::fs::rename(store.file(name), &aside).unwrap();
        let error = store.refused();
        let missing = matches!(&error, OpenError::Missing { file, .. } if file.ends_with(name));
        assert!(missing, "{place}: {error}");
        std::fs::rename(&aside, store.file(name)).unwrap();

        let whole = std::fs::read(store.file(name)).unwrap();
        for keep in [0, 100, 5_000, whole.len() - 1] {
            std::fs::write(store.file(name), &whole[..keep]).unwrap();
            assert!(matches!(store.refused(), OpenError::Damaged { file, .. } if file.ends_with(name)));
        }
        std::fs::write(store.file(name), &whole).unwrap();
    }
    let swap = |a: &str, b: &str| {
        std::fs::rename(store.file(a), &aside).unwrap();
        std::fs::rename(store.file(b), store.file(a)).unwrap();
        std::fs::rename(&aside, store.file(b)).unwrap();
    };
    swap(&segments[1], &segments[2]);
    assert!(matches!(store.refused(), OpenError::Damaged { .. }));
    swap(&segments[1], &segments[2]);
    let log = store.reopen().unwrap();
    assert_eq!(damaged_events(&log, &store.ids).await, 0);
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_log_of_another_store_is_refused() {
    let (one, other) = (store().await, store().await);
    let name = &one.segments()[3];
    std::fs::copy(other.file(name), one.file(name)).unwrap();
    assert!(matches!(one.refused(), OpenError::Damaged { .. }));
}

#[tokio::test]
async fn a_log_that_lost_its_end_or_everything_is_refused() {
    let store = store().await;
    let last = store.segments().pop().unwrap();
    let path = store.file(&last);
    let mut bytes = std::fs::read(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used - 3_000..].fill(0);
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(store.refused(), OpenError::StateAhead { .. }));
    std::fs::remove_dir_all(store.file("")).unwrap();
    let error = store.reopen().unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    std::fs::create_dir(store.file("")).unwrap();
    assert!(matches!(store.reopen().unwrap_err(), OpenError::Missing { .. }));
    std::fs::remove_file(store.dir.path().join("FORMAT")).unwrap();
    assert!(matches!(store.reopen().unwrap_err(), OpenError::NotAStore { .. }));
}

#[tokio::test]
async fn a_newer_segment_is_refused_by_both_numbers() {
    let store = store().await;
    let path = store.file(&store.segments()[0]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 9;
    std::fs::write(&path, bytes).unwrap();
    let text = store.refused().to_string();
    assert!(text.contains("format 9") && text.contains("up to 1"), "{text}");
}

#[tokio::test]
async fn state_of_another_log_is_refused() {
    let store = store().await;
    store.state.live.lock().unwrap().upto = LogPlace { segment: 2, offset: 5_001 };
    let error = store.refused();
    assert!(matches!(error, OpenError::Damaged { .. } | OpenError::StateForeign { .. }), "{error}");
    store.state.live.lock().unwrap().upto = LogPlace { segment: 200, offset: 4_096 };
    assert!(matches!(store.refused(), OpenError::StateAhead { .. }));
}
