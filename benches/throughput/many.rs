//! Thousands of integrations, each with an endpoint, a destination and a subscription: how fast they start, what they
//! cost in memory, and whether events spread over all of them pass as fast as those of one.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    gateway::Gateway,
    load::LoadArgs,
    process::{Scratch, Server, load},
    report::table,
};

/// How many.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ManyArgs {
    /// Integrations.
    #[arg(long, default_value_t = 10_000)]
    integrations: u64,
    /// Seconds of load at full speed, for one integration and for all.
    #[arg(long, default_value_t = 15.0)]
    seconds: f64,
    /// Keep-alive connections of the sender.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of each webhook's body.
    #[arg(long, default_value_t = 1_536)]
    body_bytes: usize,
}

/// Measures and prints.
pub(crate) fn run(args: &ManyArgs, binary: &Path, directory: &Path) -> Result<Value> {
    let scratch = Scratch::below(directory)?;
    let (data, sink) = (scratch.path().join("data"), Server::sink()?);
    let (gateway, _) = Gateway::start(binary, &data)?;
    let url = format!("http://{}/", sink.address);
    gateway.way(0, &url, 64)?;
    let one = flood(args, &gateway, &sink, 1)?;
    let began = Instant::now();
    for number in 1..args.integrations {
        gateway.way(number, &url, 64)?;
    }
    println!("{} integrations made in {:.1} s", args.integrations, began.elapsed().as_secs_f64());
    gateway.running.settle(Duration::from_mins(1))?;
    gateway.stop()?;
    let (gateway, ready) = Gateway::start(binary, &data)?;
    let (idle_mib, _) = gateway.running.memory_mib()?;
    let all = flood(args, &gateway, &sink, args.integrations)?;
    let (_, peak_mib) = gateway.running.memory_mib()?;
    gateway.stop()?;

    let rows = [("one", one), (&*args.integrations.to_string(), all)]
        .map(|(name, delivered)| vec![name.to_owned(), format!("{delivered:.0}")]);
    table(&["integrations", "delivered /s"], &rows);
    println!("\nratio                {:>8.2}", all / one);
    println!("ready after a start  {:>8.0} ms", ready.as_secs_f64() * 1e3);
    println!("memory               {idle_mib:>8.0} MiB after it, {peak_mib:.0} MiB at the peak of the load\n");
    Ok(json!({
        "integrations": args.integrations, "one_per_second": one, "all_per_second": all,
        "ready_ms": ready.as_secs_f64() * 1e3, "idle_mib": idle_mib, "peak_mib": peak_mib,
    }))
}

/// Events a second that arrived, from the first sent to the last delivered.
fn flood(args: &ManyArgs, gateway: &Gateway, sink: &Server, paths: u64) -> Result<f64> {
    let before = sink.count()?.distinct;
    let began = Instant::now();
    let report = load(&LoadArgs {
        target: gateway.ingress,
        connections: args.connections,
        seconds: args.seconds,
        warmup: 0.0,
        rate: 0.0,
        requests: 0,
        body_bytes: args.body_bytes,
        sign_each: true,
        paths,
        first_path: 0,
        threads: 1,
        progress: false,
    })?;
    ensure!(report.refused() == 0, "not every webhook was accepted: {:?}", report.faults());
    let until = Instant::now() + Duration::from_mins(5);
    while sink.count()?.distinct - before < report.accepted {
        ensure!(Instant::now() < until, "not everything arrived");
        thread::sleep(Duration::from_millis(20));
    }
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    Ok(report.accepted as f64 / began.elapsed().as_secs_f64())
}
