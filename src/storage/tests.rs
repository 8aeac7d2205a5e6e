//! The log as a whole: on real files, on a disk that forgets, and on one that fails.

#![expect(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use hookmill_actors::{
    domain::{
        delivery::Position,
        event::NewEvent,
        ids::{EventId, IntegrationId, SubscriptionId},
    },
    ports::{
        clock::Clock,
        event_log::{CommitListener, EventLog, Head, LogError, ReadBounds},
        state_store::StateOp,
    },
};

use super::{
    Applied, LogOptions, LogPlace, OpenError, SegmentLog, StateView, StoreDir,
    disk::{Disk, RealDisk},
    record::tests::arrival,
};

mod crash;
mod damage;
mod faults;
mod stalls;
mod trimming;
mod use_cases;

/// State that remembers the order of what was applied, and forgets what was not synced. Its positions may be behind: what comes
/// again then stands apart.
#[derive(Default)]
pub(super) struct TestState {
    live: Mutex<Taken>,
    durable: Mutex<Taken>,
    needed: Mutex<BTreeSet<EventId>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Taken {
    ops: Vec<StateOp>,
    upto: LogPlace,
    behind: Option<LogPlace>,
    again: Vec<StateOp>,
    pruned: EventId,
}

impl TestState {
    fn at(applied: Taken) -> Arc<Self> {
        Arc::new(Self { live: Mutex::new(applied.clone()), durable: Mutex::new(applied), needed: Mutex::default() })
    }

    fn durable(&self) -> Taken {
        self.durable.lock().unwrap().clone()
    }

    fn live(&self) -> Taken {
        self.live.lock().unwrap().clone()
    }
}

impl StateView for TestState {
    fn applied(&self) -> Result<Applied, LogError> {
        let Taken { upto, behind, .. } = *self.live.lock().unwrap();
        Ok(Applied { positions: behind.unwrap_or(upto), all: upto })
    }

    fn apply(&self, ops: &[StateOp], upto: LogPlace) -> Result<(), LogError> {
        let mut live = self.live.lock().unwrap();
        if upto <= live.upto {
            live.again.extend_from_slice(ops);
            return Ok(());
        }
        live.ops.extend_from_slice(ops);
        live.upto = upto;
        Ok(())
    }

    fn sync(&self) -> Result<LogPlace, LogError> {
        let live = self.live.lock().unwrap().clone();
        let upto = live.upto;
        *self.durable.lock().unwrap() = live;
        Ok(upto)
    }

    fn needed(&self, after: EventId, upto: EventId, limit: usize) -> Result<Vec<EventId>, LogError> {
        let needed = self.needed.lock().unwrap();
        Ok(needed.iter().copied().filter(|id| *id > after && *id <= upto).take(limit).collect())
    }

    fn is_needed(&self, event: EventId) -> Result<bool, LogError> {
        Ok(self.needed.lock().unwrap().contains(&event))
    }

    fn prune(&self, upto: EventId) -> Result<u64, LogError> {
        self.live.lock().unwrap().pruned = upto;
        Ok(0)
    }
}

/// In whatever order they are asked for, heads tell what the events themselves do.
async fn heads_tell_the_same(log: &SegmentLog, ids: &[EventId]) {
    let mut ids = ids.to_vec();
    fastrand::Rng::with_seed(ids.len() as u64).shuffle(&mut ids);
    let heads = log.heads(&ids).await.unwrap();
    assert_eq!(heads.len(), ids.len());
    for (id, head) in ids.iter().zip(heads) {
        match log.get(*id).await {
            Ok(event) => assert_eq!(head, event.map(|event| Ok(Head::of(&event)))),
            Err(error) => assert_eq!((head, error), (Some(Err(*id)), LogError::Corrupt(*id))),
        }
    }
}

pub(super) struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

pub(super) const NOW_MS: u64 = 1_700_000_000_000;

fn clock() -> Arc<TestClock> {
    Arc::new(TestClock(AtomicU64::new(NOW_MS)))
}

#[derive(Default)]
pub(super) struct Heard(Mutex<BTreeMap<IntegrationId, EventId>>);

impl CommitListener for Heard {
    fn committed(&self, integrations: &[(IntegrationId, EventId)]) {
        let mut heard = self.0.lock().unwrap();
        assert!(integrations.windows(2).all(|pair| pair[0].0 < pair[1].0), "each integration once, ascending");
        for (integration, id) in integrations {
            assert!(heard.insert(*integration, *id).is_none_or(|before| before < *id), "ids only grow");
        }
    }
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        reserve_bytes: 0,
        state_wait: Duration::from_millis(1),
        space_check_every: Duration::from_millis(5),
        ..LogOptions::default()
    }
}

fn open_on(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: LogOptions,
    state: &Arc<TestState>,
) -> Result<Arc<SegmentLog>, OpenError> {
    let store = StoreDir::open_on(disk, dir.to_owned())?;
    let state = Arc::clone(state) as Arc<dyn StateView>;
    SegmentLog::open(options, store, state, Arc::<Heard>::default(), clock())
}

fn open(dir: &Path, state: &Arc<TestState>) -> Arc<SegmentLog> {
    open_on(Arc::new(RealDisk), dir, options(), state).unwrap()
}

fn event(integration: u32, body: impl Into<bytes::Bytes>) -> NewEvent {
    NewEvent { integration: IntegrationId(integration), arrival: arrival(body) }
}

/// Appends and waits.
async fn append(log: &SegmentLog, integration: u32, body: impl Into<bytes::Bytes>) -> Result<EventId, LogError> {
    log.append(event(integration, body))?.await
}

fn position(n: u64) -> StateOp {
    StateOp::Position {
        subscription: SubscriptionId(1),
        position: Position { read_upto: EventId::at_millis(n), open: Vec::new() },
    }
}

const ALL: ReadBounds = ReadBounds { events_max: usize::MAX >> 1, bytes_max: usize::MAX >> 1 };
