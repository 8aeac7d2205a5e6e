//! Stopping and starting.

use std::{
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use hookmill::ingress::{Ingress, IngressOptions, IngressPorts};
use hookmill_actors::snapshot::Snapshot;
use serde_json::{Value, json};

use crate::{bench::*, ports::*};

fn drain(ingress: Ingress) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(ingress.drain());
}

#[test]
fn a_drain_answers_what_is_under_way_and_refuses_the_rest() {
    let mut bench = start();
    bench.log.is(Mood::Waits);
    let (mut idle, mut probe, mut busy) = (bench.connect(), bench.connect(), bench.connect());
    for peer in [&mut idle, &mut probe] {
        peer.send("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(peer.answer().status, 200);
    }
    busy.send(post("/orders", "x"));
    bench.log.until_events(1);

    let began = Instant::now();
    let ingress = bench.ingress.take().unwrap();
    let drained = thread::spawn(move || drain(ingress));
    while TcpStream::connect(bench.address).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(1), "it must stop listening");
        thread::sleep(Duration::from_millis(5));
    }
    idle.send(post("/orders", "x"));
    let answer = idle.answer();
    answer.is(503, "draining");
    assert!(answer.closes() && idle.is_closed());
    drop(idle);
    probe.send("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = probe.answer();
    let document: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, document), (503, json!({"status": "not_ready", "reasons": ["draining"]})));
    assert!(!drained.is_finished());
    bench.log.release();
    let answer = busy.answer();
    assert_eq!(answer.status, 200);
    assert!(answer.closes() && busy.is_closed());
    drained.join().unwrap();
    assert!(began.elapsed() < Duration::from_millis(1_800), "done when all are closed");
}

#[test]
fn a_drain_ends_in_time_whatever_is_open() {
    let mut bench = start_with(IngressOptions { drain_timeout: Duration::from_millis(400), ..options() });
    bench.log.is(Mood::Waits);
    let mut stuck = bench.connect();
    stuck.send(post("/orders", "x"));
    bench.log.until_events(1);
    let mut silent = bench.connect();
    let began = Instant::now();
    drain(bench.ingress.take().unwrap());
    assert!(began.elapsed() >= Duration::from_millis(300) && began.elapsed() < Duration::from_secs(1));
    assert!(stuck.is_closed() && silent.is_closed());
}

#[test]
fn a_drain_of_nothing_is_done_at_once() {
    let mut bench = start();
    let mut silent = bench.connect();
    let began = Instant::now();
    drain(bench.ingress.take().unwrap());
    assert!(began.elapsed() < Duration::from_secs(1), "idle connections get a share of the time only");
    assert!(silent.is_closed());
}

#[test]
fn a_taken_address_is_told_at_once() {
    let bench = start();
    let ports = IngressPorts {
        snapshot: Arc::new(ArcSwap::from_pointee(Snapshot::default())),
        log: bench.log.clone(),
        clock: Arc::new(FixedClock),
        counters: bench.counters.clone(),
        readiness: bench.readiness.clone(),
        refused: Arc::new(hookmill::ingress::Forgetful),
    };
    let error = Ingress::start(IngressOptions { address: bench.address, ..options() }, ports).expect_err("taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&bench.address.to_string()), "{error}");
}
