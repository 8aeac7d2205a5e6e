//! The whole tree in a deterministic simulation. A seed decides who is configured, what arrives, how slow the disk is,
//! which destinations fail and how, when operators change their minds, when the clock jumps and when the process dies.
//! In the end the world heals, and every delivery must have come to something.
//!
//! The same seed runs the same, in any process: one thread, paused time, and nothing in the tree depends on the order
//! of a hash map.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Runtime;

use self::{
    destinations::SimDestinations,
    disk::{Disk, Manners},
    life::{Cut, End, Life},
    scenario::Scenario,
    watch::Watch,
};

mod destinations;
mod disk;
mod life;
mod limits;
mod operator;
mod orders;
mod programs;
mod rules;
mod scenario;
mod verdict;
mod watch;

/// What may occur in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "switches, any of which may be off")]
pub struct Features {
    /// Orders other than parallel.
    pub order: bool,
    /// Orders change while events wait.
    pub order_changes: bool,
    /// Filters and type patterns.
    pub selection: bool,
    /// Rendered bodies; what shares a destination is always rendered.
    pub transform: bool,
    /// Events on which programs and providers fail.
    pub faults: bool,
    /// Age limits.
    pub expiry: bool,
    /// Provider's ids that come again.
    pub dedup: bool,
    /// Replays, single ones and in bulk, of what is not dead either; and discards.
    pub replays: bool,
    /// Rates, limits of concurrency, retry budgets and breakers.
    pub limits: bool,
    /// The wall clock is set.
    pub clock_jumps: bool,
    /// Reads of the disk fail now and then.
    pub failing_reads: bool,
}

impl Features {
    /// Only what a plain subscription needs.
    pub const PLAIN: Self = Self {
        order: false,
        order_changes: false,
        selection: false,
        transform: false,
        faults: false,
        expiry: false,
        dedup: false,
        replays: false,
        limits: false,
        clock_jumps: false,
        failing_reads: false,
    };
    /// Everything.
    pub const ALL: Self = Self {
        order: true,
        order_changes: true,
        selection: true,
        transform: true,
        faults: true,
        expiry: true,
        dedup: true,
        replays: true,
        limits: true,
        clock_jumps: true,
        failing_reads: true,
    };
}

/// A run in which every invariant held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Tells one course of things from another.
    pub trace_hash: u64,
    /// Events accepted.
    pub events: usize,
    /// Attempts made.
    pub attempts: u64,
    /// Crashes, of the process and of actors.
    pub crashes: u64,
}

/// A run in which one did not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}: {broken}")]
pub struct Broken {
    /// Runs it again.
    pub seed: u64,
    /// What did not hold.
    pub broken: String,
    /// What happened, up to that.
    pub course: Vec<String>,
}

/// What outlives the lives of a run.
struct World {
    watch: Arc<Watch>,
    destinations: SimDestinations,
    scenario: Scenario,
    features: Features,
    wall_ms: u64,
    serial: u64,
    /// Every body that was sent.
    sent: Vec<String>,
    /// Reasons of discards that were acknowledged, and whose activities are not lost with a crash.
    reasons: Vec<String>,
}

/// Runs a seed on the calling thread.
pub fn run(seed: u64, features: Features) -> Result<Outcome, Broken> {
    // The tree's own choices: jitter, and the random part of event ids.
    fastrand::seed(seed);
    let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let watch = Arc::new(Watch::new(Disk::default()));
    let scenario = Scenario::new(&mut rng, features);
    watch.note(format!("{scenario:?}"));
    let destinations = SimDestinations::new(watch.clone(), rng.fork());
    let mut world = World {
        watch,
        destinations,
        scenario,
        features,
        wall_ms: 1_760_000_000_000,
        serial: 0,
        sent: Vec::new(),
        reasons: Vec::new(),
    };
    for life in 0..world.scenario.lives {
        live(&mut world, life, &mut rng);
        if world.watch.broken().is_some() {
            break;
        }
    }
    if world.watch.broken().is_none() {
        last_life(&mut world, &mut rng);
    }
    let (attempts, crashes) = world.watch.counts();
    match world.watch.broken() {
        Some(broken) => Err(Broken { seed, broken, course: world.watch.course() }),
        None => Ok(Outcome {
            trace_hash: world.watch.trace_hash(),
            events: world.watch.disk.accepted().len(),
            attempts,
            crashes,
        }),
    }
}

/// One life, from its start to its end.
fn live(world: &mut World, life: u32, rng: &mut fastrand::Rng) {
    let runtime = paused_runtime();
    let manners = world.scenario.manners;
    let reasons = world.reasons.len();
    let (log, ended) = runtime.block_on(async {
        let begun = tokio::time::Instant::now();
        world.watch.begin_life(life);
        let (log, started) = Life::start(world, manners, rng.fork()).await;
        let end = match started {
            Ok(mut running) => {
                world.watch.count_by(running.handle().counters().clone());
                let happened = match life {
                    0 => running.configure(world).await,
                    _ => Ok(()),
                };
                let end = match happened {
                    Ok(()) => running.happen(world).await,
                    Err(cut) => Err(cut),
                };
                world.watch.note(format!("life {life} ends: {end:?}"));
                check_mailboxes(world, &running);
                let wall_ms = crate::ports::clock::Clock::now_ms(running.clock.as_ref());
                world.wall_ms = wall_ms;
                if matches!(end, Ok(End::Stopped)) {
                    running.tree.stop(Duration::from_secs(40)).await;
                    world.wall_ms = crate::ports::clock::Clock::now_ms(running.clock.as_ref());
                }
                end
            }
            Err(error) => {
                world.watch.note(format!("life {life} does not begin: {error}"));
                Err(Cut::GaveUp)
            }
        };
        (log, (end, begun.elapsed()))
    });
    // As kill -9 would: nothing runs to its end.
    drop(runtime);
    log.crash(world.wall_ms);
    let downtime = if rng.bool() { 0 } else { rng.u64(..=60_000) };
    let (end, lasted) = ended;
    if !matches!(end, Ok(End::Stopped)) {
        // The last of the activities may be lost.
        world.reasons.truncate(reasons);
    }
    world.watch.end_life(!matches!(end, Ok(End::Stopped)), lasted, Duration::from_millis(downtime));
    world.wall_ms += downtime;
}

/// The world heals, and everything must come to something.
fn last_life(world: &mut World, rng: &mut fastrand::Rng) {
    let runtime = paused_runtime();
    let manners = Manners { reads_failing: 0, ..world.scenario.manners };
    runtime.block_on(async {
        world.watch.begin_life(world.scenario.lives);
        let (_, started) = Life::start(world, manners, rng.fork()).await;
        let mut running = match started {
            Ok(running) => running,
            Err(error) => return world.watch.breaks(format!("the tree does not start on a healthy disk: {error}")),
        };
        world.watch.count_by(running.handle().counters().clone());
        running.heal(world).await;
        for _ in 0..SETTLE_ROUNDS {
            tokio::time::sleep(SETTLE_ROUND).await;
            running.care(world).await;
            if verdict::unsettled(world).is_none() || world.watch.broken().is_some() {
                break;
            }
        }
        check_mailboxes(world, &running);
        // What is wrong may still be under way.
        tokio::time::sleep(SETTLE_ROUND).await;
        if let Some(broken) = verdict::broken(world) {
            world.watch.breaks(broken);
        }
    });
}

/// None may ever hold more than its credit allows.
fn check_mailboxes(world: &World, running: &Life) {
    if let Some(full) = running.handle().mailboxes().into_iter().find(|view| view.passed > 0) {
        world.watch.breaks(format!("a mailbox passed its bound: {full:?}"));
    }
}

/// Longer than any retry, any probe and any time of distrust of the clock takes.
const SETTLE_ROUNDS: u32 = 300;
const SETTLE_ROUND: Duration = Duration::from_secs(30);

#[expect(clippy::expect_used, reason = "a runtime without I/O needs nothing of the system")]
fn paused_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing of the system")
}
