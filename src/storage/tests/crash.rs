//! Power cuts: at any operation, with any part of what was not synced gone.

use super::*;
use crate::storage::disk::sim::{Cut, Image, SimDisk};

const DIR: &str = "/store";

/// What was acknowledged at a moment, and what the disk and the state were.
struct Moment {
    image: Image,
    state: Taken,
    events: Vec<(EventId, usize)>,
    state_ops: u64,
    trimmed_upto: EventId,
}

#[derive(Default)]
struct Acked {
    events: Vec<(EventId, usize)>,
    state_ops: u64,
    /// Events up to here may be gone, unless needed.
    trimmed_upto: EventId,
}

fn body(n: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(n as u64);
    (0..n * 7 % 1_900).map(|_| random.u8(..)).collect()
}

/// Runs a load with trimming on a disk that keeps moments of itself.
async fn run(
    seed: u64,
    rounds: usize,
    disk: SimDisk,
    state: Arc<TestState>,
    first: usize,
    acked: Arc<Mutex<Acked>>,
) -> Vec<Moment> {
    let moments = Arc::new(Mutex::new(Vec::new()));
    {
        let (moments, acked, state) = (Arc::clone(&moments), Arc::clone(&acked), Arc::clone(&state));
        let mut random = fastrand::Rng::with_seed(seed);
        disk.set_hook(move |_, image| {
            if random.u8(..) < 40 {
                let acked = acked.lock().unwrap();
                moments.lock().unwrap().push(Moment {
                    state: state.durable(),
                    image: image.clone(),
                    events: acked.events.clone(),
                    state_ops: acked.state_ops,
                    trimmed_upto: acked.trimmed_upto,
                });
            }
        });
    }
    let log = open_on(Arc::new(disk), Path::new(DIR), options(), &state).unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut next = first;
    for round in 0..rounds {
        let appended: Vec<_> = (0..random.usize(0..12))
            .map(|_| {
                next += 1;
                (next, log.append(event(next as u32 % 5, body(next))).unwrap())
            })
            .collect();
        let op = random.bool().then(|| {
            let n = acked.lock().unwrap().state_ops;
            log.commit(vec![position(n)]).unwrap()
        });
        for (n, committing) in appended {
            let id = committing.await.unwrap();
            if n % 20 == 0 {
                state.needed.lock().unwrap().insert(id);
            }
            acked.lock().unwrap().events.push((id, n));
        }
        if let Some(op) = op {
            op.await.unwrap();
            acked.lock().unwrap().state_ops += 1;
        }
        if round % 15 == 14 {
            let upto = log.last_committed();
            acked.lock().unwrap().trimmed_upto = upto;
            let request = hookmill_actors::ports::event_log::TrimRequest {
                finished_upto: upto,
                received_before_ms: 0,
                bytes_max: 150_000,
            };
            log.trim(request).await.unwrap();
        }
    }
    log.close().await.unwrap();
    drop(log);
    Arc::into_inner(moments).map_or_else(Vec::new, |moments| moments.into_inner().unwrap())
}

async fn check(moment: &Moment, image: Image, needed: &BTreeSet<EventId>, what: &str) -> (SimDisk, Arc<TestState>) {
    let disk = SimDisk::from_image(image);
    let state = TestState::at(moment.state.clone());
    state.needed.lock().unwrap().clone_from(needed);
    let log = open_on(Arc::new(disk.clone()), Path::new(DIR), options(), &state)
        .unwrap_or_else(|error| panic!("{what}: {error} {error:?}"));
    let mut read: BTreeMap<EventId, Vec<u8>> = BTreeMap::new();
    for integration in 0..5 {
        for stored in log.read(IntegrationId(integration), EventId::ZERO, ALL).await.unwrap() {
            let stored = stored.unwrap_or_else(|id| panic!("{what}: {id} is damaged"));
            read.insert(stored.id, stored.arrival.body.to_vec());
        }
    }
    for (id, n) in &moment.events {
        let found = match read.get(id) {
            Some(found) => Some(found.clone()),
            None => log.get(*id).await.unwrap().map(|event| event.arrival.body.to_vec()),
        };
        match found {
            Some(found) => assert_eq!(found, body(*n), "{what}: {id}"),
            None => assert!(*id <= moment.trimmed_upto && !needed.contains(id), "{what}: acknowledged {id} is lost"),
        }
    }
    let ops = state.live().ops;
    let want: Vec<_> = (0..ops.len() as u64).map(position).collect();
    assert_eq!(ops, want, "{what}: state is in order, each once");
    assert!(ops.len() as u64 >= moment.state_ops, "{what}: acknowledged state is lost");
    assert!(ops.len() as u64 <= moment.state_ops + 1, "{what}: state from nowhere");
    log.close().await.unwrap();
    drop(log);
    (disk, state)
}

/// `HOOKMILL_CRASH_SEEDS` asks for more than a quick run has.
fn seeds() -> u64 {
    std::env::var("HOOKMILL_CRASH_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2)
}

const CUTS: [Cut; 6] = [Cut::DropAll, Cut::KeepAll, Cut::TornLast, Cut::AnySectors, Cut::TornLast, Cut::AnySectors];

#[tokio::test]
async fn no_power_cut_loses_what_was_acknowledged() {
    let mut states = 0;
    for seed in 0..seeds() {
        let state = Arc::<TestState>::default();
        let moments = run(seed, 120, SimDisk::default(), Arc::clone(&state), 0, Arc::default()).await;
        let needed = state.needed.lock().unwrap().clone();
        let mut random = fastrand::Rng::with_seed(seed);
        for (n, moment) in moments.iter().enumerate() {
            for cut in CUTS {
                let image = moment.image.cut(cut, &mut random);
                check(moment, image, &needed, &format!("seed {seed}, moment {n}, {cut:?}")).await;
                states += 1;
            }
        }
    }
    eprintln!("{states} crash states");
    assert!(states > 300, "{states} crash states are too few to mean anything");
}

#[tokio::test]
async fn a_cut_after_a_cut_loses_nothing_either() {
    let mut states = 0;
    for seed in 1_000..1_000 + seeds() {
        let state = Arc::<TestState>::default();
        let moments = run(seed, 60, SimDisk::default(), Arc::clone(&state), 0, Arc::default()).await;
        let needed = state.needed.lock().unwrap().clone();
        let mut random = fastrand::Rng::with_seed(seed);
        for (n, moment) in moments.iter().enumerate().step_by(7) {
            let image = moment.image.cut(Cut::AnySectors, &mut random);
            let what = format!("seed {seed}, moment {n}");
            let (disk, state) = check(moment, image, &needed, &what).await;
            let acked = Acked {
                events: moment.events.clone(),
                state_ops: state.live().ops.len() as u64,
                trimmed_upto: moment.trimmed_upto,
            };
            let again = run(seed + 100, 12, disk, Arc::clone(&state), 10_000, Arc::new(Mutex::new(acked))).await;
            let needed = state.needed.lock().unwrap().clone();
            for later in again.iter().step_by(3) {
                let image = later.image.cut(Cut::AnySectors, &mut random);
                check(later, image, &needed, &format!("{what}, again")).await;
                states += 1;
            }
        }
    }
    eprintln!("{states} crash states");
    assert!(states > 20, "{states} crash states are too few to mean anything");
}
