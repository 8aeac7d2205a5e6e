//! Old segments go; what is needed stays readable by its id.

use hookmill_actors::ports::event_log::{TrimRequest, Trimmed};

use super::*;

const KEEP_ALL: TrimRequest = TrimRequest { finished_upto: EventId::MAX, received_before_ms: 0, bytes_max: u64::MAX };

async fn fill(log: &SegmentLog, events: usize) -> Vec<EventId> {
    let mut ids = Vec::new();
    for n in 0..events {
        ids.push(append(log, 1, format!("{n:0900}")).await.unwrap());
    }
    ids
}

#[tokio::test]
async fn by_size_the_oldest_go_and_needed_payloads_move_along() {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::<TestState>::default();
    let log = open(dir.path(), &state);
    let ids = fill(&log, 500).await;
    assert_eq!(log.trim(KEEP_ALL).await.unwrap(), Trimmed::default());
    let needed = [ids[3], ids[40], ids[41], ids[499]];
    state.needed.lock().unwrap().extend(needed);

    let before = log.stats();
    let trimmed = log.trim(TrimRequest { bytes_max: 200_000, ..KEEP_ALL }).await.unwrap();
    assert_eq!(trimmed.kept, 3);
    assert!(trimmed.events > 200 && trimmed.bytes > 200_000, "{trimmed:?}");
    assert!(log.stats().disk_bytes <= 200_000 && before.disk_bytes > 400_000);
    let read = log.read(IntegrationId(1), EventId::ZERO, ALL).await.unwrap();
    assert_eq!(read.len() as u64, 500 - trimmed.events - trimmed.kept);
    assert_eq!(read.last().unwrap().as_ref().unwrap().id, ids[499]);
    assert_eq!(log.get(ids[4]).await.unwrap(), None);
    heads_tell_the_same(&log, &ids).await;
    assert!(state.live().pruned >= ids[200]);
    let check = async |log: &SegmentLog| {
        for (id, n) in needed.iter().zip([3, 40, 41, 499]) {
            let event = log.get(*id).await.unwrap().unwrap();
            assert_eq!((event.id, &event.arrival.body[..]), (*id, format!("{n:0900}").as_bytes()));
        }
    };
    check(&log).await;

    // They move along with every trim, over restarts, until nobody needs them.
    log.close().await.unwrap();
    drop(log);
    let log = open(dir.path(), &state);
    check(&log).await;
    fill(&log, 300).await;
    log.trim(TrimRequest { bytes_max: 0, ..KEEP_ALL }).await.unwrap();
    check(&log).await;
    state.needed.lock().unwrap().clear();
    fill(&log, 300).await;
    log.trim(TrimRequest { bytes_max: 0, ..KEEP_ALL }).await.unwrap();
    assert_eq!(log.get(needed[0]).await.unwrap(), None);
    log.close().await.unwrap();
    drop(log);
    let log = open(dir.path(), &state);
    assert_eq!(log.get(needed[0]).await.unwrap(), None);
    log.close().await.unwrap();
}

#[tokio::test]
async fn by_age_and_never_beyond_what_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &Arc::default());
    let ids = fill(&log, 400).await;
    let old = TrimRequest { received_before_ms: NOW_MS + 60_000, ..KEEP_ALL };
    let unfinished = TrimRequest { finished_upto: ids[20], ..old };
    assert_eq!(log.trim(unfinished).await.unwrap(), Trimmed::default());
    let some = TrimRequest { finished_upto: ids[200], ..old };
    assert!(log.trim(some).await.unwrap().events > 0);
    assert!(log.get(ids[201]).await.unwrap().is_some());
    assert!(log.get(ids[0]).await.unwrap().is_none());
    assert!(log.trim(TrimRequest { received_before_ms: NOW_MS - 1, ..KEEP_ALL }).await.unwrap().events == 0);
    log.trim(old).await.unwrap();
    assert_eq!(log.stats().segments, 1);
    log.close().await.unwrap();
}

#[tokio::test]
async fn readers_go_on_while_segments_are_trimmed_and_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &Arc::default());
    let reader = {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let mut reads = 0;
            while !matches!(log.append(event(2, "probe")), Err(LogError::Closed)) {
                for stored in log.read(IntegrationId(1), EventId::ZERO, ALL).await.unwrap() {
                    stored.expect("a recycled file never reads as damage");
                }
                reads += 1;
            }
            reads
        })
    };
    for _ in 0..20 {
        fill(&log, 100).await;
        log.trim(TrimRequest { bytes_max: 0, ..KEEP_ALL }).await.unwrap();
    }
    log.close().await.unwrap();
    assert!(reader.await.unwrap() > 0);
}

#[tokio::test]
async fn a_damaged_payload_that_is_needed_stays_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::<TestState>::default();
    let log = open(dir.path(), &state);
    let ids = fill(&log, 200).await;
    state.needed.lock().unwrap().insert(ids[5]);
    let path = dir.path().join("log/0000000000000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    let wanted = format!("{:0900}", 5);
    let at = bytes.windows(900).position(|part| part == wanted.as_bytes()).unwrap();
    bytes[at] ^= 1;
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::OpenOptions::new().write(true).open(&path).unwrap(),
        &bytes[at..=at],
        at as u64,
    )
    .unwrap();
    log.trim(TrimRequest { bytes_max: 0, ..KEEP_ALL }).await.unwrap();
    assert_eq!(log.get(ids[5]).await, Err(LogError::Corrupt(ids[5])));
    log.close().await.unwrap();
}
