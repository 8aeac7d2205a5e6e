//! Seeds of the simulation: `cargo run --release -p hookmill-actors --example simulate` runs more of them.

use std::{
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use hookmill_actors::testkit::sim::{Features, run};

const SEEDS: u64 = 500;
const THREADS: usize = 2;

#[test]
fn every_invariant_holds_for_every_seed() {
    let next = AtomicU64::new(0);
    let found = std::thread::scope(|scope| {
        let workers = [(); THREADS].map(|()| {
            scope.spawn(|| {
                let mut found = Vec::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return found;
                    }
                    found.extend(run(seed, Features::ALL).err());
                }
            })
        });
        workers.into_iter().flat_map(|worker| worker.join().expect("a run does not panic")).collect::<Vec<_>>()
    });
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(
        found.is_empty(),
        "{}\n{} of {SEEDS} seeds break an invariant; `simulate --seed N` shows the course of one",
        lines.join("\n"),
        found.len()
    );
}

/// The hash of a seed's trace is handed to this process's child, which must find the same.
const EXPECTED: &str = "SIMULATION_TRACE_HASH";

#[test]
fn a_seed_runs_the_same_in_another_process() {
    for seed in [3, 17, 40] {
        let hash = run(seed, Features::ALL).map(|outcome| outcome.trace_hash).map_err(|broken| broken.broken);
        if let Ok(expected) = std::env::var(EXPECTED) {
            if expected.starts_with(&format!("{seed} ")) {
                assert_eq!(expected, format!("{seed} {hash:?}"));
            }
            continue;
        }
        let child = Command::new(std::env::current_exe().expect("this test runs"))
            .args(["--exact", "a_seed_runs_the_same_in_another_process"])
            .env(EXPECTED, format!("{seed} {hash:?}"))
            .output()
            .expect("this test can be started again");
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    }
}
