//! The state against plain maps, over re-openings, kills and pruning; and what a commit costs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Instant,
};

use hookmill_actors::{
    domain::{
        delivery::{Attempt, DeadReason, DeliveryRecord, DeliveryStatus},
        limits::{ATTEMPTS_KEPT, IDENTITY_BYTES_MAX, IN_FLIGHT_MAX, RUN_IDS_MAX},
    },
    ports::state_store::FirstTry,
    testkit::memory_state::MemoryState,
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::storage::sled_db::CACHE_BYTES;

mod positions;

const EVENTS: u64 = 400;
const SUBSCRIPTIONS: u32 = 3;

/// Events of two integrations in turn, half a second apart, so that runs of them reach over the longest span.
fn event(n: u64) -> EventId {
    let integration = IntegrationId(u32::try_from(n % 2).unwrap() + 1);
    let sequence = u128::from(1_700_000_000_000 + n * 500) << 26 | u128::from(n);
    EventId::from_parts(sequence, integration, u16::try_from(n * 157 % 65_536).unwrap())
}

fn open(dir: &Path) -> SledState {
    SledState::open(StateDb::open(dir, CACHE_BYTES).unwrap()).unwrap()
}

fn place(n: u64) -> LogPlace {
    LogPlace { segment: 1, offset: n }
}

fn record(status: DeliveryStatus, due_ms: Option<u64>) -> DeliveryRecord {
    DeliveryRecord { status, due_ms, ..DeliveryRecord::new(3) }
}

fn letter(subscription: SubscriptionId, event: EventId) -> DeadLetter {
    let error = "refused by the destination".to_owned();
    DeadLetter { event, subscription, reason: DeadReason::Refused, error, at_ms: 5, attempts: 2 }
}

/// Few ids, so that they come again.
fn dedup_key(n: u64) -> DedupKey {
    let [low, ..] = (n % 67).to_le_bytes();
    DedupKey { endpoint: EndpointId(u32::try_from(n % 2).unwrap() * 7), hash: [low; 16] }
}

fn mark(n: u64) -> Option<Mark> {
    match n % 9 {
        3 => Some(Mark::DuplicateOf(event(n / 2))),
        4 => Some(Mark::Unreadable("the provider panicked on it".into())),
        _ => None,
    }
}

fn note(n: u64) -> Note {
    Note {
        mark: mark(n),
        dedup: mark(n).is_none().then(|| dedup_key(n)),
        event: event(n),
        endpoint: Some(EndpointId(1)),
        event_type: (!n.is_multiple_of(5)).then(|| format!("invoice.paid.{}", n / 3).into()),
        provider_id: (!n.is_multiple_of(7)).then(|| format!("evt_{n:0>40}").into()),
    }
}

/// One commit's operations.
fn commit() -> impl Strategy<Value = Vec<StateOp>> {
    let subscription = (1..=SUBSCRIPTIONS).prop_map(SubscriptionId);
    let events = proptest::collection::btree_set(0..EVENTS, 0..60)
        .prop_map(|numbers| numbers.into_iter().map(event).collect::<Vec<_>>());
    // Few events, so that the operations of one commit meet each other.
    let few = (0..12u64).prop_map(event);
    let status = prop_oneof![
        Just((DeliveryStatus::Pending, false)),
        Just((DeliveryStatus::Parked, false)),
        Just((DeliveryStatus::Discarded, false)),
        Just((DeliveryStatus::Retrying, true)),
        Just((DeliveryStatus::Retrying, true)),
        Just((DeliveryStatus::Delivered, false)),
        Just((DeliveryStatus::Dead, false)),
        Just((DeliveryStatus::Cancelled, true)),
    ];
    let op = prop_oneof![
        2 => (subscription.clone(), events.clone(), 0..EVENTS).prop_map(|(subscription, open, upto)| {
            StateOp::Position { subscription, position: Position { read_upto: event(upto), open } }
        }),
        // Each event has one time, whenever it comes again: which of several stands is nobody's business.
        3 => (subscription.clone(), events, 0..3u64).prop_map(|(subscription, mut events, class)| {
            events.retain(|event| event.sequence() % 3 == u128::from(class));
            let at_ms = class.checked_sub(1).map(|n| n + 1_700_000_000_000);
            let attempt = |event: &EventId| FirstTry { at_ms: event.millis(), duration_ms: 7, status: Some(200) };
            let attempts = if class == 2 { events.iter().map(attempt).collect() } else { Vec::new() };
            StateOp::Delivered { subscription, events, at_ms, attempts }
        }),
        6 => (subscription.clone(), few.clone(), status, 0u64..50, 0u64..6).prop_map(
            |(subscription, event, (status, has_due), due, lane)| {
                // What is parked is so in a lane; others need not be in one.
                let lane = (lane < 3 || status == DeliveryStatus::Parked).then_some(lane << 61);
                let record = DeliveryRecord { lane, ..record(status, has_due.then_some(due)) };
                StateOp::Delivery { subscription, event, record }
            }
        ),
        2 => (subscription.clone(), few.clone(), 0u64..50).prop_map(|(subscription, event, at_ms)| {
            StateOp::Forward { subscription, event, at_ms }
        }),
        3 => (subscription, few).prop_map(|(subscription, event)| StateOp::Dead(letter(subscription, event))),
    ];
    proptest::collection::vec(op, 0..12)
}

/// Intake goes forward only: commit `n` of `of` takes its share of the events in.
fn with_intake(mut ops: Vec<StateOp>, n: u64, of: u64) -> Vec<StateOp> {
    for integration in 0..2 {
        let share = n * EVENTS / of..(n + 1) * EVENTS / of;
        let notes: Vec<Note> = share.filter(|n| n % 2 == integration).map(note).collect();
        if let Some(last) = notes.last() {
            let integration = last.event.integration();
            ops.push(StateOp::Intake { integration, upto: last.event, notes });
        }
    }
    ops
}

/// Successes come with a position that passes them, and none that comes later takes that back.
fn with_positions(commits: Vec<Vec<StateOp>>) -> impl Iterator<Item = Vec<StateOp>> {
    let mut delivered: BTreeMap<SubscriptionId, BTreeSet<EventId>> = BTreeMap::new();
    commits.into_iter().map(move |mut ops| {
        for op in &ops {
            if let StateOp::Delivered { subscription, events, .. } = op {
                delivered.entry(*subscription).or_default().extend(events);
            }
        }
        for op in &mut ops {
            if let StateOp::Position { subscription, position } = op
                && let Some(delivered) = delivered.get(subscription)
            {
                position.read_upto = position.read_upto.max(delivered.last().copied().unwrap_or_default());
                position.open.retain(|event| !delivered.contains(event));
            }
        }
        let passed = |(subscription, delivered): (&SubscriptionId, &BTreeSet<EventId>)| StateOp::Position {
            subscription: *subscription,
            position: Position { read_upto: delivered.last().copied().unwrap_or_default(), open: Vec::new() },
        };
        let new: Vec<StateOp> = delivered.iter().map(passed).collect();
        // Before the commit's own: those stand, with what they list as open.
        new.into_iter().chain(ops).collect()
    })
}

async fn same(state: &SledState, model: &MemoryState) {
    assert_eq!(state.counts().await, model.counts().await);
    for integration in (0..4).map(IntegrationId) {
        assert_eq!(state.intake(integration).await, model.intake(integration).await);
    }
    for integration in (0..4).map(IntegrationId) {
        for (after, upto) in [(EventId::ZERO, EventId::MAX), (event(3), event(31)), (event(30), event(30))] {
            assert_eq!(state.marks(integration, after, upto).await, model.marks(integration, after, upto).await);
        }
    }
    same_seen(state, model).await;
    for subscription in (0..=SUBSCRIPTIONS + 1).map(SubscriptionId) {
        assert_eq!(state.lanes(subscription).await, model.lanes(subscription).await);
        assert_eq!(state.position(subscription).await, model.position(subscription).await);
        for (until, limit) in [(u64::MAX, 1_000), (25, 1_000), (40, 3), (0, 1), (9, 0)] {
            assert_eq!(state.due(subscription, until, limit).await, model.due(subscription, until, limit).await);
        }
        for event in (0..EVENTS).map(event) {
            assert_eq!(state.delivery(subscription, event).await, model.delivery(subscription, event).await);
        }
        for event in (0..12).map(event) {
            assert_eq!(state.dead_letter(subscription, event).await, model.dead_letter(subscription, event).await);
        }
        let after = Some((subscription, event(5)));
        assert_eq!(state.dead_letters(after, 4).await, model.dead_letters(after, 4).await);
    }
    assert_eq!(state.dead_letters(None, 1_000).await, model.dead_letters(None, 1_000).await);
    for event in (0..EVENTS).map(event) {
        assert_eq!(state.note(event).await, model.note(event).await);
    }
    let needed = model.needed(EventId::ZERO, EventId::MAX);
    assert_eq!(state.needed(EventId::ZERO, EventId::MAX, 1_000), Ok(needed.clone()));
    assert_eq!(state.needed(event(3), event(8), 1_000), Ok(model.needed(event(3), event(8))));
    assert_eq!(state.needed(EventId::ZERO, EventId::MAX, 2).unwrap(), needed[..needed.len().min(2)]);
    for event in (0..12).map(event) {
        assert_eq!(state.is_needed(event), Ok(needed.contains(&event)));
    }
}

async fn same_seen(state: &SledState, model: &MemoryState) {
    let asked: Vec<(DedupKey, EventId)> =
        (0..EVENTS).flat_map(|n| [(dedup_key(n), event(n)), (dedup_key(n / 3), event(n))]).collect();
    let stranger = [(DedupKey { endpoint: EndpointId(3), hash: [1; 16] }, EventId::MAX)];
    for keys in [asked.as_slice(), &stranger] {
        assert_eq!(state.seen(keys).await, model.seen(keys).await);
    }
    assert_eq!(state.counts().await, model.counts().await);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn answers_as_plain_maps_do(commits in proptest::collection::vec(commit(), 1..20)) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        let (runtime, model) = (runtime(), MemoryState::default());
        let state = open(&dir);
        let of = commits.len() as u64;
        for (n, ops) in (0..).zip(with_positions(commits)) {
            let ops = with_intake(ops, n, of);
            state.apply(&ops, place(n + 1)).unwrap();
            model.apply(&ops);
            prop_assert_eq!(state.applied().unwrap().all, place(n + 1));
            if n % 5 == 2 {
                state.0.write_positions().unwrap();
            }
        }
        runtime.block_on(same(&state, &model));
        prop_assert_eq!(state.sync_all(), Ok(place(of)));
        drop(state);
        let state = open(&dir);
        prop_assert_eq!(state.applied(), Ok(Applied::whole(place(of))));
        runtime.block_on(same(&state, &model));
    }

    #[test]
    fn pruning_takes_what_is_settled_and_nothing_else(
        commits in proptest::collection::vec(commit(), 1..12), upto in 0..EVENTS,
    ) {
        let root = tempfile::tempdir().unwrap();
        let (runtime, model) = (runtime(), MemoryState::default());
        let state = open(&root.path().join("state"));
        let of = commits.len() as u64;
        for (n, ops) in (0..).zip(with_positions(commits)) {
            let ops = with_intake(ops, n, of);
            state.apply(&ops, place(n + 1)).unwrap();
            model.apply(&ops);
        }
        let needed = model.needed(EventId::ZERO, EventId::MAX);
        state.prune(event(upto)).unwrap();
        prop_assert_eq!(state.prune(event(upto)), Ok(0), "a second time finds nothing more");
        runtime.block_on(async {
            assert_eq!(state.counts().await, model.counts().await);
            for n in 0..EVENTS {
                let event = event(n);
                let gone = n <= upto && !needed.contains(&event);
                let note = state.note(event).await.unwrap();
                assert!(note == model.note(event).await.unwrap() || gone && note.is_none(), "note {n}");
                let marked = state.marks(event.integration(), just_before(event), event).await.unwrap();
                let want = mark(n).filter(|_| note.is_some()).map(|mark| (event, mark));
                assert_eq!(marked, Vec::from_iter(want), "mark {n}");
                for subscription in (1..=SUBSCRIPTIONS).map(SubscriptionId) {
                    let (found, want) = (
                        state.delivery(subscription, event).await.unwrap(),
                        model.delivery(subscription, event).await.unwrap(),
                    );
                    let settled = match &want {
                        DeliveryState::Unknown => false,
                        DeliveryState::Delivered { .. } => true,
                        DeliveryState::Record(record) => {
                            use DeliveryStatus::{Cancelled, Delivered, Discarded};
                            matches!(record.status, Delivered | Cancelled | Discarded)
                        }
                    };
                    let record = matches!(want, DeliveryState::Record(_));
                    assert!(found == want || gone && settled, "{subscription} {n}: {found:?}, not {want:?}");
                    // A run that reaches over the end stays whole; a record stands alone.
                    assert!(!(gone && settled && record) || found != want, "record {subscription} {n} stayed");
                }
            }
        });
    }
}

fn just_before(event: EventId) -> EventId {
    EventId::from_u128(event.as_u128() - 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn keys_are_forgotten_by_their_window_and_the_oldest_for_want_of_room(
        commits in 1u64..20, windows in (0..EVENTS, 0..EVENTS), both in any::<bool>(), keys_max in 0u64..500,
    ) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        let (runtime, model) = (runtime(), MemoryState::default());
        let state = open(&dir);
        for n in 0..commits {
            let ops = with_intake(Vec::new(), n, commits);
            state.apply(&ops, place(n + 1)).unwrap();
            model.apply(&ops);
        }
        let mut after: BTreeMap<EndpointId, EventId> = [(EndpointId(0), event(windows.0))].into();
        if both {
            after.insert(EndpointId(7), event(windows.1));
        }
        runtime.block_on(async {
            let outdated = Remembered { after: after.clone(), keys_max: u64::MAX };
            assert_eq!(state.forget_seen(outdated.clone()).await, model.forget_seen(outdated.clone()).await);
            same_seen(&state, &model).await;
            assert_eq!(state.forget_seen(outdated).await, Ok(Forgotten::default()));
            // Age is told in spans, so a few more may go than must.
            let displaced = state.forget_seen(Remembered { after: after.clone(), keys_max }).await.unwrap();
            let left = state.counts().await.unwrap().dedup_keys;
            let before = model.counts().await.unwrap().dedup_keys;
            assert_eq!((displaced.outdated, displaced.displaced), (0, before - left));
            assert!(left <= keys_max && left + 20 >= keys_max.min(before), "{left} of {before} are left of {keys_max}");
            model.forget_seen(Remembered { after, keys_max: left }).await.unwrap();
            same_seen(&state, &model).await;
        });
        state.sync().unwrap();
        drop(state);
        runtime.block_on(same_seen(&open(&dir), &model));
    }
}

#[test]
fn pruning_everything_leaves_only_what_is_needed() {
    let root = tempfile::tempdir().unwrap();
    let state = open(&root.path().join("state"));
    let subscription = SubscriptionId(1);
    let due = StateOp::Delivery {
        subscription: SubscriptionId(2),
        event: event(6),
        record: record(DeliveryStatus::Retrying, Some(9)),
    };
    let delivered = StateOp::Delivered {
        subscription,
        events: (0..EVENTS).map(event).collect(),
        at_ms: None,
        attempts: Vec::new(),
    };
    state.apply(&with_intake(vec![due, delivered], 0, 1), place(1)).unwrap();
    assert!(state.prune(EventId::MAX).unwrap() > 0);
    let kept: Vec<(u8, EventId)> = state
        .0
        .tree
        .iter()
        .keys()
        .map(Result::unwrap)
        .filter(|key| [keys::NOTES, keys::RUN, keys::RECORD].contains(&key[0]))
        .map(|key| (key[0], keys::parse_owned(&key).unwrap().1))
        .collect();
    assert_eq!(kept, [(keys::RECORD, event(6)), (keys::NOTES, event(6)), (keys::RUN, event(6))]);
}

#[test]
fn a_slow_delivery_hides_nobody_in_its_run() {
    let root = tempfile::tempdir().unwrap();
    let (state, runtime) = (open(&root.path().join("state")), runtime());
    let subscription = SubscriptionId(1);
    let delivered = |numbers: &[u64], at_ms| {
        let events = numbers.iter().copied().map(event).collect();
        StateOp::Delivered { subscription, events, at_ms: Some(at_ms), attempts: Vec::new() }
    };
    state.apply(&[delivered(&[10, 11, 12, 14], 70)], place(1)).unwrap();
    // Far behind the others, and then the same first id again.
    state.apply(&[delivered(&[0, 1, 13, 300], 80), delivered(&[0, 5], 90)], place(2)).unwrap();
    let found = |state: &SledState| -> Vec<(u64, u64)> {
        let time = |n| match runtime.block_on(state.delivery(subscription, event(n))).unwrap() {
            DeliveryState::Delivered { at_ms, .. } => Some((n, at_ms.unwrap())),
            _ => None,
        };
        (0..EVENTS).filter_map(time).collect()
    };
    let want = [(0, 80), (1, 80), (5, 90), (10, 70), (11, 70), (12, 70), (13, 80), (14, 70), (300, 80)];
    assert_eq!(found(&state), want, "each has the time of its own commit");
    // Of the first run only this stays, in a run of its own.
    let needed = record(DeliveryStatus::Retrying, Some(9));
    state
        .apply(&[StateOp::Delivery { subscription: SubscriptionId(2), event: event(5), record: needed }], place(3))
        .unwrap();
    state.prune(event(EVENTS)).unwrap();
    assert_eq!(found(&state), [(5, 90)]);
}

fn full_record(due_ms: u64) -> DeliveryRecord {
    let attempt = Attempt {
        at_ms: u64::MAX,
        duration_ms: u32::MAX,
        status: Some(503),
        error: Some("e".repeat(400)),
        reply: Some("r".repeat(256)),
    };
    let mut record = record(DeliveryStatus::Retrying, Some(due_ms));
    record.latest = vec![attempt; ATTEMPTS_KEPT];
    record
}

fn blobs(dir: &Path) -> usize {
    fs::read_dir(dir.join("blobs")).unwrap().count()
}

#[test]
fn the_largest_values_written_over_and_removed_make_no_blob() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state");
    let state = open(&dir);
    let long = |n: u64| Note {
        event: EventId::from_parts(u128::from(n) << 60, IntegrationId(1), u16::MAX),
        event_type: Some(format!("{n:0>IDENTITY_BYTES_MAX$}").into()),
        provider_id: Some(format!("{n:0>IDENTITY_BYTES_MAX$}").into()),
        ..Note::default()
    };
    let wide: Vec<EventId> =
        (1..=IN_FLIGHT_MAX as u128).map(|n| EventId::from_parts(n << 65, IntegrationId(1), u16::MAX)).collect();
    for round in 0..6u64 {
        for batch in 0..4u64 {
            let mut ops: Vec<StateOp> = (0..100)
                .map(|n| StateOp::Delivery {
                    subscription: SubscriptionId(1),
                    event: event(batch * 100 + n),
                    record: full_record(round * 1_000 + n),
                })
                .collect();
            let position = Position { read_upto: EventId::MAX, open: wide.clone() };
            ops.push(StateOp::Position { subscription: SubscriptionId(u32::try_from(batch).unwrap()), position });
            let notes: Vec<Note> = (0..256).map(|n| long(round * 1_024 + batch * 256 + n)).collect();
            ops.push(StateOp::Intake { integration: IntegrationId(1), upto: EventId::MAX, notes });
            ops.push(StateOp::Delivered {
                subscription: SubscriptionId(2),
                events: wide[..RUN_IDS_MAX].to_vec(),
                at_ms: Some(u64::MAX),
                attempts: Vec::new(),
            });
            state.apply(&ops, place(round * 4 + batch + 1)).unwrap();
        }
        state.sync_all().unwrap();
        assert_eq!(blobs(&dir), 0, "round {round}");
    }
    let cancelled: Vec<StateOp> = (0..EVENTS)
        .map(|n| StateOp::Delivery {
            subscription: SubscriptionId(1),
            event: event(n),
            record: record(DeliveryStatus::Cancelled, None),
        })
        .collect();
    state.apply(&cancelled, place(u64::MAX)).unwrap();
    assert!(state.prune(EventId::MAX).unwrap() > EVENTS);
    state.sync().unwrap();
    assert_eq!(blobs(&dir), 0);
    let longest = state.0.tree.iter().values().map(|value| value.unwrap().len()).max().unwrap();
    assert!(longest <= crate::storage::sled_db::VALUE_BYTES_MAX);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What a killed process leaves in its files is what a copy of them finds while it runs.
#[test]
fn a_kill_leaves_whole_commits_only_and_all_that_were_synced() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state");
    let (runtime, model, state) = (runtime(), MemoryState::default(), open(&dir));
    let mut after = vec![model.snapshot()];
    let mut copies: Vec<(u64, TempDir)> = Vec::new();
    let mut commits = Vec::new();
    let mut synced = 0;
    for n in 0..200u64 {
        let subscription = SubscriptionId(u32::try_from(n % 3).unwrap() + 1);
        let first = n * 2;
        let ops = with_intake(
            vec![
                StateOp::Delivered { subscription, events: vec![event(first)], at_ms: Some(n), attempts: Vec::new() },
                StateOp::Delivery {
                    subscription,
                    event: event(first + 1),
                    record: record(DeliveryStatus::Retrying, Some(n)),
                },
                StateOp::Dead(letter(subscription, event(n % 12))),
                StateOp::Position { subscription, position: Position { read_upto: event(first), open: vec![] } },
            ],
            n,
            200,
        );
        state.apply(&ops, place(n + 1)).unwrap();
        model.apply(&ops);
        after.push(model.snapshot());
        commits.push(ops);
        if n % 32 == 5 {
            state.sync().unwrap();
            synced = n + 1;
        }
        if n % 40 == 12 {
            state.0.write_positions().unwrap();
        }
        if n % 23 == 9 {
            let files = tempfile::tempdir().unwrap();
            copy(&dir, files.path());
            copies.push((synced, files));
        }
    }
    for (synced, files) in copies {
        let state = open(files.path());
        let Applied { positions, all } = state.applied().unwrap();
        let [positions, applied] = [positions, all].map(|place| usize::try_from(place.offset).unwrap());
        assert!(all.offset >= synced, "{all} was kept, {synced} were synced");
        assert!(applied < 20 || positions > 0 && positions <= applied, "{positions} of {applied}");
        for (n, ops) in (0..).zip(&commits).take(applied).skip(positions) {
            state.apply(ops, place(n + 1)).unwrap();
        }
        assert_eq!(state.applied().unwrap().all, all);
        runtime.block_on(same(&state, &after[applied]));
    }
}

#[test]
#[ignore = "a measurement: cargo test --lib -- --ignored --nocapture what_a_commit_costs"]
fn what_a_commit_costs() {
    const ROUNDS: u64 = 200;
    let root = tempfile::tempdir().unwrap();
    let state = open(&root.path().join("state"));
    let id = |n: u64| EventId::from_parts((1_700_000_000_000 << 26) + u128::from(n) * 900_000, IntegrationId(1), 7);
    let runs = |round: u64| -> Vec<StateOp> {
        let ids: Vec<EventId> = (round * 512..(round + 1) * 512).map(id).collect();
        let position = Position { read_upto: ids[511], open: ids[256..].to_vec() };
        let run = |part: &[EventId]| StateOp::Delivered {
            subscription: SubscriptionId(1),
            events: part.to_vec(),
            at_ms: Some(1_700_000_000_000 + round),
            attempts: Vec::new(),
        };
        vec![run(&ids[..256]), run(&ids[256..]), StateOp::Position { subscription: SubscriptionId(1), position }]
    };
    let records = |round: u64| -> Vec<StateOp> {
        let mut record = record(DeliveryStatus::Retrying, Some(round));
        record.push(Attempt { at_ms: 1, duration_ms: 2, status: Some(500), error: Some("500".into()), reply: None });
        let delivery = |n| StateOp::Delivery { subscription: SubscriptionId(1), event: id(n), record: record.clone() };
        (round * 512..(round + 1) * 512).map(delivery).collect()
    };
    for (part, name, commit) in
        [(0, "runs and a position", &runs as &dyn Fn(u64) -> Vec<StateOp>), (1, "records", &records)]
    {
        let mut micros: Vec<u128> = (0..ROUNDS)
            .map(|round| {
                let ops = commit(round);
                let begun = Instant::now();
                state.apply(&ops, place(part * ROUNDS + round + 1)).unwrap();
                begun.elapsed().as_micros()
            })
            .collect();
        micros.sort_unstable();
        let begun = Instant::now();
        state.sync().unwrap();
        let (median, p99) = (micros[micros.len() / 2], micros[micros.len() * 99 / 100]);
        eprintln!("512 {name}: median {median} us, p99 {p99} us; a sync then {} us", begun.elapsed().as_micros());
    }
}
