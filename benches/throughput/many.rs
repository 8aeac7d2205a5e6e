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
    report::{median, table},
};

/// How many.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ManyArgs {
    /// Integrations.
    #[arg(long, default_value_t = 10_000)]
    integrations: u64,
    /// Rounds of load at full speed, to one integration and to all in turn; the ratio is the median over them.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of each load.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Keep-alive connections of the sender.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of each webhook's body.
    #[arg(long, default_value_t = 1_536)]
    body_bytes: usize,
}

/// Measures and prints. Both gateways run throughout and are loaded in turn: the one that rests costs the other nothing.
pub(crate) fn run(args: &ManyArgs, binary: &Path, directory: &Path) -> Result<Value> {
    let scratch = Scratch::below(directory)?;
    let (data, sink) = (scratch.path().join("many"), Server::sink()?);
    let url = format!("http://{}/", sink.address);
    let (many, _) = Gateway::start(binary, &data)?;
    let began = Instant::now();
    for number in 0..args.integrations {
        many.way(number, &url, 64)?;
    }
    println!("{} integrations made in {:.1} s", args.integrations, began.elapsed().as_secs_f64());
    many.running.settle(Duration::from_mins(1))?;
    many.stop()?;
    let (many, ready) = Gateway::start(binary, &data)?;
    let (idle_mib, _) = many.running.memory_mib()?;
    let (one, _) = Gateway::start(binary, &scratch.path().join("one"))?;
    one.way(0, &url, 64)?;

    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        let alone = flood(args, &one, &sink, 1)?;
        let all = flood(args, &many, &sink, args.integrations)?;
        println!("round {round}: {alone:.0}/s to one, {all:.0}/s to all");
        rounds.push((alone, all, all / alone));
    }
    let (_, peak_mib) = many.running.memory_mib()?;
    one.stop()?;
    many.stop()?;

    let column = |of: fn(&(f64, f64, f64)) -> f64| median(&rounds.iter().map(of).collect::<Vec<_>>());
    let (alone, all, ratio) = (column(|round| round.0), column(|round| round.1), column(|round| round.2));
    let rows = [("one", alone), (&*args.integrations.to_string(), all)]
        .map(|(name, delivered)| vec![name.to_owned(), format!("{delivered:.0}")]);
    table(&["integrations", "delivered /s"], &rows);
    println!("\nmedian ratio         {ratio:>8.2}");
    println!("ready after a start  {:>8.0} ms", ready.as_secs_f64() * 1e3);
    println!("memory               {idle_mib:>8.0} MiB after it, {peak_mib:.0} MiB at the peak of the load\n");
    Ok(json!({
        "integrations": args.integrations, "one_per_second": alone, "all_per_second": all, "ratio_median": ratio,
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
        mixed_types: false,
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
