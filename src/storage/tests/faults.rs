//! Writes and syncs that fail, and disks that fill.

use std::io::ErrorKind;

use tokio::time::timeout;

use super::*;
use crate::storage::{LogHealth, disk::sim::SimDisk};

pub(super) const DIR: &str = "/store";

#[tokio::test]
async fn after_the_first_failure_nothing_is_acknowledged_and_nothing_hangs() {
    let mut failed = 0;
    for n in 1..120 {
        let disk = SimDisk::default();
        let state = Arc::<TestState>::default();
        let log = open_on(Arc::new(disk.clone()), Path::new(DIR), options(), &state).unwrap();
        disk.fail_at(n, ErrorKind::Other);
        let mut acked = Vec::new();
        let mut refused = false;
        for turn in 0..150u32 {
            let outcome = timeout(Duration::from_secs(5), append(&log, 1, vec![turn as u8; 2_000])).await;
            match outcome.expect("no hang") {
                Ok(id) => {
                    assert!(!refused, "acknowledged after a failure, fault at {n}");
                    acked.push((id, turn));
                }
                Err(LogError::Failed(_)) => refused = true,
                Err(other) => panic!("{other}"),
            }
        }
        let state_answer = log.commit(vec![position(1)]);
        if refused {
            failed += 1;
            assert!(matches!(state_answer, Err(LogError::Failed(_))));
            assert!(matches!(*log.health().borrow(), LogHealth::Failed(_)));
            assert!(log.close().await.is_err());
        } else {
            // A sidecar or a spare failed: that stops nothing.
            state_answer.unwrap().await.unwrap();
            log.close().await.unwrap();
        }
        assert!(disk.has_failed(), "fault {n} was never met");
        drop(log);
        // What was acknowledged is there after a restart, whatever the fault.
        let image = disk.image().cut(crate::storage::disk::sim::Cut::DropAll, &mut fastrand::Rng::with_seed(n));
        let log =
            open_on(Arc::new(SimDisk::from_image(image)), Path::new(DIR), options(), &TestState::at(state.durable()))
                .unwrap_or_else(|error| panic!("fault at {n}: {error}"));
        for (id, turn) in acked {
            let event = log.get(id).await.unwrap().unwrap_or_else(|| panic!("{id} is lost, fault at {n}"));
            assert_eq!(event.arrival.body, vec![turn as u8; 2_000]);
        }
        log.close().await.unwrap();
    }
    assert!(failed > 60, "{failed} faults reached the log");
}

#[tokio::test]
async fn below_the_reserve_events_are_refused_and_state_goes_until_space_returns() {
    let disk = SimDisk::default();
    disk.set_free(10 << 20);
    let bounds = LogOptions { reserve_bytes: 1 << 20, ..options() };
    let state = Arc::<TestState>::default();
    let log = open_on(Arc::new(disk.clone()), Path::new(DIR), bounds, &state).unwrap();
    append(&log, 1, "there is space").await.unwrap();
    prepared(&disk).await;
    disk.set_free(0);
    let mut health = log.health();
    timeout(Duration::from_secs(5), health.wait_for(|health| *health == LogHealth::DiskLow)).await.unwrap().unwrap();
    assert!(matches!(log.append(event(1, "x")), Err(LogError::DiskFull)));
    // The rest of this segment and the one prepared take state: at least a segment's worth, with nothing free.
    for n in 0..400 {
        log.commit(vec![position(n); 5]).unwrap().await.unwrap();
    }
    disk.set_free(10 << 20);
    timeout(Duration::from_secs(5), health.wait_for(|health| *health == LogHealth::Ready)).await.unwrap().unwrap();
    append(&log, 1, "there is space again").await.unwrap();
    log.close().await.unwrap();
}

/// Waits until the next segment's file is there, whole.
pub(super) async fn prepared(disk: &SimDisk) {
    let dir = Path::new(DIR).join("log");
    let is_whole = |name: &String| {
        let file = disk.open(&dir.join(name));
        file.and_then(|file| file.bytes()).is_ok_and(|bytes| bytes == options().segment_bytes)
    };
    let is_there = || disk.list(&dir).unwrap().iter().any(|name| name.contains(".spare") && is_whole(name));
    timeout(Duration::from_secs(5), async {
        while !is_there() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn on_a_full_disk_state_waits_in_order_and_nothing_of_it_is_skipped() {
    let disk = SimDisk::default();
    let state = Arc::<TestState>::default();
    let log = open_on(Arc::new(disk.clone()), Path::new(DIR), options(), &state).unwrap();
    prepared(&disk).await;
    disk.set_free(0);
    let mut commits = Vec::new();
    while commits.len() < 2_000 {
        commits.push(log.commit(vec![position(commits.len() as u64); 5]).unwrap());
    }
    let last = commits.pop().unwrap();
    let waiting = tokio::spawn(last);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "there is no space for all of it");
    assert!(append(&log, 1, vec![1; 3_000]).await.is_err(), "events are refused meanwhile");
    disk.set_free(10 << 20);
    timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap().unwrap();
    for commit in commits {
        commit.await.unwrap();
    }
    append(&log, 1, "it goes on").await.unwrap();
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_barrier_waits_for_nothing_but_what_is_before_it() {
    let disk = SimDisk::default();
    let patient = LogOptions { state_wait: Duration::from_secs(60), ..options() };
    let log = open_on(Arc::new(disk), Path::new(DIR), patient, &Arc::default()).unwrap();
    let barriers = async {
        for _ in 0..100 {
            log.commit(Vec::new()).unwrap().await.unwrap();
        }
        let state = log.commit(vec![position(1)]).unwrap();
        log.commit(Vec::new()).unwrap().await.unwrap();
        state.await.unwrap();
    };
    timeout(Duration::from_secs(20), barriers).await.expect("a barrier waits for no company");
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_disk_that_is_full_to_the_last_byte_does_not_end_the_log() {
    let disk = SimDisk::default();
    let log = open_on(Arc::new(disk.clone()), Path::new(DIR), options(), &Arc::default()).unwrap();
    append(&log, 1, "x").await.unwrap();
    disk.set_free(0);
    let mut acked = 1;
    let refused = loop {
        match timeout(Duration::from_secs(5), append(&log, 1, vec![1; 3_000])).await.expect("no hang") {
            Ok(_) => acked += 1,
            Err(error) => break error,
        }
        assert!(acked < 1_000);
    };
    assert_eq!(refused, LogError::DiskFull);
    assert!(timeout(Duration::from_secs(5), append(&log, 1, vec![1; 3_000])).await.unwrap().is_err());
    disk.set_free(1 << 20);
    append(&log, 1, vec![1; 3_000]).await.unwrap();
    acked += 1;
    let read = log.read(IntegrationId(1), EventId::ZERO, ALL).await.unwrap();
    assert_eq!(read.iter().filter(|stored| stored.is_ok()).count(), acked);
    log.close().await.unwrap();
}
