//! How long until a gateway accepts again: on an empty directory, with a full store after a clean stop, and with a
//! full store after `kill -9` in the middle of a load.

use std::{path::Path, thread, time::Duration};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    gateway::{Gateway, size_mib},
    load::LoadArgs,
    process::{Load, Scratch, free_address},
    report::table,
};

/// How much.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StartupArgs {
    /// Events in the store.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Leave them waiting for an inactive subscription; otherwise nothing subscribes to them.
    #[arg(long)]
    queued: bool,
    /// Keep-alive connections of the sender.
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// Bytes of each webhook's body.
    #[arg(long, default_value_t = 1_536)]
    body_bytes: usize,
    /// Seconds that filling may take.
    #[arg(long, default_value_t = 600)]
    fill_seconds: u32,
    /// Seconds without load before idle memory is read.
    #[arg(long, default_value_t = 5)]
    idle_seconds: u64,
}

/// Measures and prints.
pub(crate) fn run(args: &StartupArgs, binary: &Path, directory: &Path) -> Result<Value> {
    let scratch = Scratch::below(directory)?;
    let data = scratch.path().join("data");
    let idle = Duration::from_secs(args.idle_seconds);
    let mut rows = Vec::new();

    let (gateway, ready) = Gateway::start(binary, &data)?;
    thread::sleep(idle);
    let mut lines = vec![measured("empty directory", ready, None, gateway.running.memory_mib()?.0, &mut rows)];

    let integration = gateway.configure()?;
    if args.queued {
        // Nobody listens there, and nobody asks: the subscription is inactive.
        gateway.subscribe(&integration, free_address()?, 128, false, None)?;
    }
    let filled = crate::process::load(&load_args(args, &gateway, args.events))?;
    let missing = args.events.saturating_sub(filled.accepted);
    ensure!(missing == 0, "{missing} of {} events were not accepted: {:?}", args.events, filled.faults());
    println!("{} events stored at {:.0} /s", filled.accepted, filled.per_second());
    let (_, fill_peak) = gateway.running.memory_mib()?;
    gateway.running.settle(Duration::from_mins(1))?;
    let stopped = gateway.stop()?;
    println!("store: {:.0} MiB; clean stop: {} ms", size_mib(&data)?, stopped.as_millis());

    let (mut gateway, ready) = Gateway::start(binary, &data)?;
    let first = gateway.first_accept()?;
    thread::sleep(idle);
    lines.push(measured("after a clean stop", ready, Some(first), gateway.running.memory_mib()?.0, &mut rows));

    let under_way = Load::start(&LoadArgs { seconds: 10.0, ..load_args(args, &gateway, 0) })?;
    thread::sleep(Duration::from_secs(2));
    gateway.running.kill()?;
    drop(under_way);

    let (mut gateway, ready) = Gateway::start(binary, &data)?;
    let first = gateway.first_accept()?;
    thread::sleep(idle);
    lines.push(measured("after kill -9 under load", ready, Some(first), gateway.running.memory_mib()?.0, &mut rows));
    gateway.stop()?;

    table(&["start", "ready ms", "first 2xx ms", "idle RSS MiB"], &rows);
    println!("\npeak memory while filling: {fill_peak:.0} MiB\n");
    Ok(json!({
        "events": args.events,
        "queued": args.queued,
        "fill_per_second": filled.per_second(),
        "fill_memory_peak_mib": fill_peak,
        "clean_stop_ms": stopped.as_secs_f64() * 1e3,
        "starts": lines,
    }))
}

fn load_args(args: &StartupArgs, gateway: &Gateway, requests: u64) -> LoadArgs {
    LoadArgs {
        target: gateway.ingress,
        connections: args.connections,
        seconds: f64::from(args.fill_seconds),
        warmup: 0.0,
        rate: 0.0,
        requests,
        body_bytes: args.body_bytes,
        sign_each: true,
        threads: 1,
        paths: 1,
        first_path: 0,
        mixed_types: false,
        progress: false,
    }
}

fn measured(name: &str, ready: Duration, first: Option<Duration>, rss_mib: f64, rows: &mut Vec<Vec<String>>) -> Value {
    let millis = |duration: Duration| format!("{:.0}", duration.as_secs_f64() * 1e3);
    rows.push(vec![
        name.to_owned(),
        millis(ready),
        first.map_or_else(|| "-".to_owned(), millis),
        format!("{rss_mib:.1}"),
    ]);
    json!({
        "start": name,
        "ready_ms": ready.as_secs_f64() * 1e3,
        "first_2xx_ms": first.map(|first| first.as_secs_f64() * 1e3),
        "idle_rss_mib": rss_mib,
    })
}
