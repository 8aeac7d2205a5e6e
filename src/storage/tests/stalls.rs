//! A disk that does not answer.

use tokio::time::timeout;

use super::{
    faults::{DIR, prepared},
    *,
};
use crate::storage::{
    Finding, LogHealth, StallWatch,
    disk::sim::{Cut, SimDisk},
    stall::Work,
};

/// Waits until work is under way, or until none is.
async fn until(watch: &StallWatch, work: Work, is_under_way: bool) {
    timeout(Duration::from_secs(5), async {
        while watch.sees(work) != is_under_way {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("it begins, or ends");
}

#[tokio::test]
async fn while_the_disk_hangs_events_are_refused_and_at_the_limit_the_log_fails() {
    let disk = SimDisk::default();
    let state = Arc::<TestState>::default();
    let never = Duration::from_hours(1);
    let quiet = LogOptions { space_check_every: never, state_sync_every: never, ..options() };
    let log = open_on(Arc::new(disk.clone()), Path::new(DIR), quiet, &state).unwrap();
    let mut acked = vec![append(&log, 1, "before").await.unwrap()];
    let (mut watch, health) = (log.stall_watch(), log.health());
    prepared(&disk).await;
    until(&watch, Work::Prepare, false).await;

    disk.set_hanging(true);
    let waiting = log.append(event(1, "it comes on in time")).unwrap();
    until(&watch, Work::Commit, true).await;
    let found = (0..30).find_map(|_| watch.look());
    assert!(matches!(found, Some(Finding::Stalled { work, .. }) if work.contains("commit")), "{found:?}");
    assert!(matches!(*health.borrow(), LogHealth::Stalled(_)));
    assert!(matches!(log.append(event(1, "x")), Err(LogError::Stalled)));
    disk.set_hanging(false);
    acked.push(timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap());
    // An outcome is no event, and goes on.
    log.commit(vec![position(1)]).unwrap().await.unwrap();
    assert_eq!(watch.look(), Some(Finding::Ended));
    acked.push(append(&log, 1, "after").await.unwrap());

    disk.set_hanging(true);
    let waiting = log.append(event(1, "it comes on too late")).unwrap();
    until(&watch, Work::Commit, true).await;
    let findings: Vec<Finding> = (0..100).filter_map(|_| watch.look()).collect();
    assert!(matches!(&findings[..], [Finding::Stalled { .. }, Finding::Failed(_)]), "{findings:?}");
    assert!(matches!(*health.borrow(), LogHealth::Failed(_)));
    assert!(matches!(log.append(event(1, "x")), Err(LogError::Failed(_))));
    assert!(matches!(log.commit(vec![position(2)]), Err(LogError::Failed(_))));
    disk.set_hanging(false);
    // It is on disk, so it may be said.
    acked.push(timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap());
    assert!(log.close().await.is_err());
    drop(log);

    let image = disk.image().cut(Cut::DropAll, &mut fastrand::Rng::with_seed(1));
    let state = TestState::at(state.durable());
    let log = open_on(Arc::new(SimDisk::from_image(image)), Path::new(DIR), options(), &state).unwrap();
    for id in acked {
        assert!(log.get(id).await.unwrap().is_some(), "{id} is lost");
    }
    log.close().await.unwrap();
}
