//! What dedup costs at intake: keys into the state, look-ups of known and of new ones, the sweep, a start, memory.
//!
//! `cargo bench --bench dedup [-- KEYS]`, a million by default. One key an event, 256 events a commit, as intake makes
//! them at full speed; and one event a commit, as a quiet integration does.

#![expect(clippy::print_stdout, reason = "its output is the report")]
#![expect(clippy::cast_precision_loss, reason = "the counts are far below 2^52")]

use std::{hint::black_box, path::Path, time::Instant};

use hookmill::storage::{LogPlace, StateView, sled_db::StateDb, sled_state::SledState};
use hookmill_actors::{
    domain::ids::{EndpointId, EventId, IntegrationId},
    ports::state_store::{DedupKey, Note, Remembered, StateOp, StateStore},
};

const CACHE_BYTES: u64 = 16 << 20;
const BATCH: u64 = 256;

fn main() {
    // `cargo test` runs this as a check, without `--bench`.
    let default = if std::env::args().any(|argument| argument == "--bench") { 1_000_000 } else { 10 * BATCH };
    let keys = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(default);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for batch in [BATCH, 1] {
        runtime.block_on(measure(keys / if batch == 1 { 10 } else { 1 }, batch));
    }
}

/// 30,000 events a second.
fn event(n: u64) -> EventId {
    EventId::from_parts((1_700_000_000_000 << 26) + (u128::from(n) << 26) / 30, IntegrationId(1), 7)
}

fn key(n: u64) -> DedupKey {
    let high = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    DedupKey { endpoint: EndpointId(1), hash: (u128::from(high) << 64 | u128::from(n)).to_be_bytes() }
}

fn intake(numbers: std::ops::Range<u64>, with_keys: bool) -> StateOp {
    let note = |n| Note {
        event: event(n),
        event_type: Some("payment_intent.succeeded".into()),
        provider_id: Some(format!("evt_{n:024}").into()),
        dedup: with_keys.then(|| key(n)),
        ..Note::default()
    };
    let upto = event(numbers.end - 1);
    StateOp::Intake { integration: IntegrationId(1), upto, notes: numbers.map(note).collect() }
}

async fn measure(keys: u64, batch: u64) {
    let keys = keys / batch * batch;
    println!("{keys} keys, {batch} a commit");
    let mut plain = 0.0;
    for with_keys in [false, true] {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("state");
        let state = open(&dir);
        let before = resident_bytes();
        let mut took = std::time::Duration::ZERO;
        for n in (0..keys).step_by(usize::try_from(batch).expect("it is small")) {
            let op = [intake(n..n + batch, with_keys)];
            let begun = Instant::now();
            state.apply(&op, LogPlace { segment: 1, offset: n }).expect("it is applied");
            took += begun.elapsed();
        }
        let micros = took.as_secs_f64() * 1e6 / keys as f64;
        let memory = resident_bytes().saturating_sub(before) >> 20;
        if with_keys {
            println!("  notes with keys      {micros:.2} us an event ({:.2} more), {memory} MiB", micros - plain);
            rest(state, &dir, keys).await;
        } else {
            plain = micros;
            println!("  notes alone          {micros:.2} us an event, {memory} MiB");
        }
    }
}

async fn rest(state: SledState, dir: &Path, keys: u64) {
    for (name, offset) in [("new", keys), ("known", 0)] {
        let asked: Vec<(DedupKey, EventId)> =
            (0..keys.min(100_000)).map(|n| (key(offset + n * 7_919 % keys), event(2 * keys))).collect();
        let begun = Instant::now();
        let mut found = 0;
        for some in asked.chunks(256) {
            found += black_box(state.seen(some).await.expect("it answers")).iter().flatten().count();
        }
        let micros = begun.elapsed().as_secs_f64() * 1e6 / asked.len() as f64;
        println!("  {name:<5} keys looked up  {micros:.2} us a key, {found} found");
    }
    state.sync().expect("it syncs");
    drop(state);
    let before = resident_bytes();
    let begun = Instant::now();
    let state = open(dir);
    println!(
        "  opened               {:.2} s, {} MiB",
        begun.elapsed().as_secs_f64(),
        resident_bytes().saturating_sub(before) >> 20
    );
    let begun = Instant::now();
    let after = [(EndpointId(1), event(keys / 2))].into();
    let gone = state.forget_seen(Remembered { after, keys_max: u64::MAX }).await.expect("it forgets").outdated;
    println!("  {gone} forgotten     {:.2} s", begun.elapsed().as_secs_f64());
}

fn open(dir: &Path) -> SledState {
    SledState::open(StateDb::open(dir, CACHE_BYTES).expect("it opens")).expect("it is whole")
}

/// Of this process, where the system tells.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4_096
}
