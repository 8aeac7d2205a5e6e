//! What stands in memory: that it is found there, how it is written, and positions while several write them.

use super::*;

#[test]
fn however_many_write_positions_at_once_the_newest_is_the_one_that_stands() {
    let root = tempfile::tempdir().unwrap();
    let (runtime, state) = (runtime(), open(&root.path().join("state")));
    let subscription = SubscriptionId(1);
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut behind = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if state.0.positions.subscription(subscription).is_some() {
                        state.0.write_positions().unwrap();
                    }
                    std::thread::yield_now();
                }
            });
        }
        for n in 1..=400 {
            let position = Position { read_upto: event(n), open: Vec::new() };
            let ops = [
                StateOp::Position { subscription, position: position.clone() },
                StateOp::Intake { integration: IntegrationId(1), upto: event(n), notes: Vec::new() },
            ];
            state.apply(&ops, place(n)).unwrap();
            std::thread::yield_now();
            let found = runtime.block_on(async {
                (state.position(subscription).await.unwrap(), state.intake(IntegrationId(1)).await.unwrap())
            });
            if found != (Some(position), event(n)) {
                behind.push(n);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(behind, [0; 0]);
    state.0.write_positions().unwrap();
    assert_eq!(state.applied(), Ok(Applied::whole(place(400))));
}

#[test]
fn successes_stand_in_memory_until_they_make_one_run() {
    let root = tempfile::tempdir().unwrap();
    let (runtime, state) = (runtime(), open(&root.path().join("state")));
    let (busy, quiet) = (SubscriptionId(1), SubscriptionId(2));
    let delivered = |subscription, events: std::ops::Range<u64>| StateOp::Delivered {
        subscription,
        at_ms: Some(events.start),
        events: events.map(event).collect(),
        attempts: Vec::new(),
    };
    let runs = || state.0.tree.scan_prefix([keys::RUN]).count();
    let known = |subscription| -> Vec<(u64, Option<u64>)> {
        let found = |n| match runtime.block_on(state.delivery(subscription, event(n))).unwrap() {
            DeliveryState::Delivered { at_ms, .. } => Some((n, at_ms)),
            _ => None,
        };
        (0..700).filter_map(found).collect()
    };
    for n in 0..40 {
        state.apply(&[delivered(quiet, n..n + 1)], place(n + 1)).unwrap();
    }
    assert_eq!(runs(), 0);
    let each: Vec<_> = (0..40).map(|n| (n, Some(n))).collect();
    assert_eq!(known(quiet), each);
    // What makes a run by itself is not held back, and takes no more memory however much there is.
    for n in 0..7 {
        state.apply(&[delivered(busy, n * 100..n * 100 + 100)], place(n + 41)).unwrap();
    }
    assert_eq!(runs(), 5);
    assert_eq!(known(busy).len(), 700);
    state.0.write_positions().unwrap();
    // Two of the busy one, as a run spans little more than a minute.
    assert_eq!(runs(), 5 + 1 + 2);
    assert_eq!((known(quiet), known(busy).len()), (each, 700));
}

#[test]
fn what_the_log_has_to_apply_again_is_so_after_an_export_too() {
    let root = tempfile::tempdir().unwrap();
    let (dir, copied) = (root.path().join("state"), root.path().join("copied"));
    let state = open(&dir);
    let subscription = SubscriptionId(1);
    for n in 1..=5 {
        let ops = [
            StateOp::Delivered { subscription, at_ms: None, events: vec![event(n)], attempts: Vec::new() },
            StateOp::Position { subscription, position: Position { read_upto: event(n), open: Vec::new() } },
        ];
        state.apply(&ops, place(n)).unwrap();
        if n == 3 {
            state.0.write_positions().unwrap();
        }
    }
    state.0.db.sync().unwrap();
    std::fs::create_dir(&copied).unwrap();
    copy(&dir, &copied);
    let behind = Applied { positions: place(3), all: place(5) };
    assert_eq!(state.applied(), Ok(behind));
    // As after a kill, before the log is opened.
    let state = open(&copied);
    let mut export = state.export().unwrap();
    while export.next_chunk().unwrap().is_some() {}
    assert_eq!(state.applied(), Ok(behind));
}
