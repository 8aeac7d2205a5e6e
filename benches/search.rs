//! What it costs to find events by what intake noted: at intake, and at a search, by a provider's id, a rare type, an
//! endpoint.
//!
//! `cargo bench --bench search [-- EVENTS]`, a million by default; 256 events a commit, over four integrations with two
//! endpoints each.

#![expect(clippy::print_stdout, reason = "its output is the report")]
#![expect(clippy::cast_precision_loss, reason = "the counts are far below 2^52")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hookmill::storage::{LogPlace, StateView, sled_db::StateDb, sled_state::SledState};
use hookmill_actors::{
    domain::ids::{EndpointId, EventId, IntegrationId},
    ports::state_store::{Note, NoteFilter, StateOp, StateStore},
};

const CACHE_BYTES: u64 = 16 << 20;
const BATCH: u64 = 256;
const INTEGRATIONS: u64 = 4;
/// One event in so many is of the rare type.
const RARE: u64 = 100_000;
const SEARCHES: u64 = 200;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // `cargo test` runs this as a check, without `--bench`.
    let default = if std::env::args().any(|argument| argument == "--bench") { 1_000_000 } else { 10 * BATCH };
    let events: u64 = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(default);
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("state");
    let state = open(&dir);
    let begun = Instant::now();
    for n in (0..events).step_by(256) {
        let integration = n / BATCH % INTEGRATIONS + 1;
        let notes: Vec<Note> = (n..n + BATCH).map(|n| note(n, integration)).collect();
        let upto = notes.last().map(|note| note.event).unwrap_or_default();
        let op =
            StateOp::Intake { integration: IntegrationId(u32::try_from(integration).expect("small")), upto, notes };
        state.apply(&[op], LogPlace { segment: 1, offset: n }).expect("it is applied");
    }
    println!("{events} events  {:.2} us each at intake", begun.elapsed().as_secs_f64() * 1e6 / events as f64);
    searches(&state, events).await;
    state.sync().expect("it syncs");
    drop(state);
    let begun = Instant::now();
    let state = open(&dir);
    let opened = begun.elapsed();
    let any = NoteFilter { provider_id: Some("evt_1".into()), ..NoteFilter::default() };
    find(&state, &any).await;
    println!("opened in {opened:.1?}; the first search answered after {:.1?}", begun.elapsed());
}

async fn searches(state: &SledState, events: u64) {
    let by_id = |n: u64| NoteFilter {
        provider_id: Some(format!("evt_{:024}", n * 7_919 % events).into()),
        ..NoteFilter::default()
    };
    let absent = |n: u64| NoteFilter { provider_id: Some(format!("no_{n}").into()), ..NoteFilter::default() };
    let rare = |_: u64| NoteFilter { types: vec!["charge.dispute.created".into()], ..NoteFilter::default() };
    let endpoint = |n: u64| NoteFilter {
        endpoint: Some(EndpointId(u32::try_from(n % INTEGRATIONS * 2 + 10).expect("small"))),
        ..NoteFilter::default()
    };
    let kinds: [(&str, &dyn Fn(u64) -> NoteFilter); 4] = [
        ("a provider's id", &by_id),
        ("an id that is not there", &absent),
        ("a rare type", &rare),
        ("an endpoint", &endpoint),
    ];
    for (name, filter) in kinds {
        let mut took: Vec<Duration> = Vec::new();
        let mut found = 0;
        for n in 0..SEARCHES {
            let begun = Instant::now();
            found += find(state, &filter(n)).await;
            took.push(begun.elapsed());
        }
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() - 1) * percent / 100];
        println!("  {name:<24} p50 {:>8.1?}  p99 {:>8.1?}  {} found each", at(50), at(99), found as u64 / SEARCHES);
    }
}

/// A page of a hundred.
async fn find(state: &SledState, filter: &NoteFilter) -> usize {
    state.noted(filter, (EventId::ZERO, EventId::MAX), 100).await.expect("it answers").0.len()
}

/// 30,000 events a second.
fn note(n: u64, integration: u64) -> Note {
    let sequence = (1_700_000_000_000 << 26) + (u128::from(n) << 26) / 30;
    let integration = u32::try_from(integration).expect("small");
    let names = ["payment_intent.succeeded", "charge.succeeded", "invoice.paid", "customer.updated"];
    let name =
        if n.is_multiple_of(RARE) { "charge.dispute.created" } else { names[usize::try_from(n % 4).expect("small")] };
    Note {
        event: EventId::from_parts(sequence, IntegrationId(integration), 7),
        endpoint: Some(EndpointId((integration - 1) * 2 + 10 + u32::from(n.is_multiple_of(3)))),
        event_type: Some(name.into()),
        provider_id: Some(format!("evt_{n:024}").into()),
        ..Note::default()
    }
}

fn open(dir: &Path) -> SledState {
    SledState::open(StateDb::open(dir, CACHE_BYTES).expect("it opens")).expect("it is whole")
}
