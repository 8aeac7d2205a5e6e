use std::time::Duration;

use hookmill_actors::{
    domain::ids::EndpointId,
    ports::state_store::{Note, StateOp, StateStore},
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::storage::{LogPlace, StateView, sled_db::CACHE_BYTES, sled_state::SledState};

fn open(root: &TempDir) -> SledState {
    SledState::open(StateDb::open(&root.path().join("state"), CACHE_BYTES).unwrap()).unwrap()
}

fn dir(root: &TempDir) -> PathBuf {
    root.path().join("state").join("search")
}

fn event(n: u64, integration: u32) -> EventId {
    EventId::from_parts(u128::from(n) << 26, IntegrationId(integration), 7)
}

fn note(n: u64, integration: u32) -> Note {
    Note {
        event: event(n, integration),
        endpoint: Some(EndpointId(integration * 10 + u32::from(n.is_multiple_of(3)))),
        event_type: (!n.is_multiple_of(5)).then(|| format!("type.{}", n % 4).into()),
        provider_id: (!n.is_multiple_of(7)).then(|| format!("evt_{}", n / 2).into()),
        ..Note::default()
    }
}

/// One commit of intake.
fn take_in(state: &SledState, place: u64, notes: Vec<Note>) {
    let mut by_integration: BTreeMap<IntegrationId, Vec<Note>> = BTreeMap::new();
    for note in notes {
        by_integration.entry(note.event.integration()).or_default().push(note);
    }
    let ops: Vec<StateOp> = by_integration
        .into_iter()
        .map(|(integration, notes)| {
            let upto = notes.last().map(|note| note.event).unwrap_or_default();
            StateOp::Intake { integration, upto, notes }
        })
        .collect();
    state.apply(&ops, LogPlace { segment: 1, offset: place }).unwrap();
}

async fn walk(state: &SledState, filter: &NoteFilter, first: EventId, limit: usize) -> Vec<EventId> {
    let (mut all, mut before) = (Vec::new(), EventId::MAX);
    loop {
        let (ids, next) = state.noted(filter, (first, before), limit).await.unwrap();
        assert!(ids.len() <= limit);
        all.extend(ids);
        let Some(next) = next else { return all };
        assert!(next < before, "a walk goes on");
        before = next;
    }
}

fn sealed(root: &TempDir, files: usize) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while fs::read_dir(dir(root)).map_or(0, Iterator::count) < files {
        assert!(std::time::Instant::now() < deadline, "the rows are not sealed");
        std::thread::sleep(Duration::from_millis(1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever is in memory, in files or read again: what passes is found once, newest first, in pages of any size.
    #[test]
    fn what_passes_is_found(
        given in proptest::collection::vec(1u32..4, 1..400),
        commit in 1usize..90,
        reopen in proptest::option::of(0usize..400),
        filter in (
            proptest::option::of(1u32..4),
            proptest::option::of(10u32..33),
            proptest::sample::subsequence(vec!["type.0", "type.1", "*.2", "ty*", "none"], 0..3),
            proptest::option::of(0u64..220),
        ),
        first in 0u64..200,
        limit in 1usize..40,
    ) {
        let root = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut state = open(&root);
        let notes: Vec<Note> = (1..).zip(given).map(|(n, integration)| note(n, integration)).collect();
        for (place, batch) in (1..).zip(notes.chunks(commit)) {
            take_in(&state, place, batch.to_vec());
            if reopen.is_some_and(|at| at / commit == usize::try_from(place).unwrap()) {
                drop(state);
                state = open(&root);
            }
        }
        let (integration, endpoint, types, provider_id) = filter;
        let filter = NoteFilter {
            integration: integration.map(IntegrationId),
            endpoint: endpoint.map(EndpointId),
            types: types.into_iter().map(Into::into).collect(),
            provider_id: provider_id.map(|n| format!("evt_{n}").into()),
        };
        let first = event(first, 0);
        let mut want: Vec<EventId> =
            notes.iter().filter(|it| filter.passes(it) && it.event >= first).map(|note| note.event).collect();
        want.sort_unstable_by(|a, b| b.cmp(a));
        prop_assert_eq!(runtime.block_on(walk(&state, &filter, first, limit)), want);
    }
}

#[tokio::test]
async fn files_that_are_lost_or_damaged_are_made_again() {
    let harms: [fn(&std::path::Path); 3] = [
        |file| fs::remove_file(file).unwrap(),
        |file| fs::write(file, b"no rows").unwrap(),
        |file| {
            let mut bytes = fs::read(file).unwrap();
            bytes[20] ^= 1;
            fs::write(file, bytes).unwrap();
        },
    ];
    for harm in harms {
        let root = tempfile::tempdir().unwrap();
        let state = open(&root);
        for place in 1..=5 {
            take_in(&state, place, (0..64).map(|n| note(place * 64 + n, 1)).collect());
            sealed(&root, usize::try_from(place).unwrap());
        }
        let filter = NoteFilter { provider_id: Some("evt_40".into()), ..NoteFilter::default() };
        let before = walk(&state, &filter, EventId::ZERO, 10).await;
        assert_eq!(before, [event(81, 1), event(80, 1)]);
        drop(state);
        let file = fs::read_dir(dir(&root)).unwrap().next().unwrap().unwrap().path();
        harm(&file);
        let state = open(&root);
        assert_eq!(walk(&state, &filter, EventId::ZERO, 10).await, before);
    }
}

#[tokio::test]
async fn what_a_crash_left_unentered_goes_and_what_is_gone_is_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let state = open(&root);
    for place in 1..=3 {
        take_in(&state, place, (0..64).map(|n| note(place * 64 + n, 1)).collect());
        sealed(&root, usize::try_from(place).unwrap());
    }
    drop(state);
    fs::write(dir(&root).join("00000000000000ff"), b"half a file").unwrap();
    let state = open(&root);
    let all = NoteFilter { endpoint: Some(EndpointId(10)), ..NoteFilter::default() };
    let count = walk(&state, &all, EventId::ZERO, 7).await.len();
    assert!(count > 100);
    assert_eq!(fs::read_dir(dir(&root)).unwrap().count(), 3);
    state.prune(event(191, 1)).unwrap();
    assert_eq!(fs::read_dir(dir(&root)).unwrap().count(), 1);
    let left = walk(&state, &all, EventId::ZERO, 7).await;
    assert!(left.iter().all(|id| *id > event(191, 1)) && !left.is_empty());
}
