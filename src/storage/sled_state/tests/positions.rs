//! Positions while several write them.

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
