//! Time to the 2xx at half of the full load, which is how a gateway lives: p50 and p99, beside the bare server's.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    gateway::Gateway,
    load::LoadArgs,
    process::{Scratch, Server, load},
    report::{load_json, table},
};

/// How long and how wide.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PacedAckArgs {
    /// Keep-alive connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds at the fixed rate.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Requests a second; 0: half of hookmill's full load, which is measured first for 5 s.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Bytes of each webhook's body.
    #[arg(long, default_value_t = 1_536)]
    body_bytes: usize,
}

/// Measures and prints.
pub(crate) fn run(args: &PacedAckArgs, binary: &Path, directory: &Path) -> Result<Value> {
    let scratch = Scratch::below(directory)?;
    let bare = Server::bare()?;
    let (gateway, _) = Gateway::start(binary, &scratch.path().join("data"))?;
    gateway.configure()?;
    let send = |target: SocketAddr, rate: f64, seconds: f64| {
        gateway.running.settle(Duration::from_secs(20))?;
        load(&LoadArgs {
            target,
            connections: args.connections,
            seconds,
            warmup: 1.0,
            rate,
            requests: 0,
            body_bytes: args.body_bytes,
            sign_each: rate > 0.0,
            threads: 1,
            paths: 1,
            first_path: 0,
            mixed_types: false,
            progress: false,
        })
    };
    let rate = if args.rate > 0.0 { args.rate } else { send(gateway.ingress, 0.0, 5.0)?.per_second() / 2.0 };
    ensure!(rate >= 1.0, "hookmill answered nothing at full load, so half of it is no rate");
    println!("{} connections, {} bytes, paced at {rate:.0} requests/s", args.connections, args.body_bytes);
    let of_bare = send(bare.address, rate, args.seconds)?;
    let of_hookmill = send(gateway.ingress, rate, args.seconds)?;
    let rows: Vec<Vec<String>> = [("bare", &of_bare), ("hookmill", &of_hookmill)]
        .iter()
        .map(|(name, report)| {
            let at = |permille| report.latency.permille(permille).to_string();
            let rate = format!("{:.0}", report.per_second());
            vec![(*name).to_owned(), rate, at(500), at(990), at(999), report.latency.max().to_string()]
        })
        .collect();
    table(&["server", "req/s", "p50 us", "p99 us", "p99.9 us", "max us"], &rows);
    for (name, report) in [("bare", &of_bare), ("hookmill", &of_hookmill)] {
        if let Some(faults) = report.faults() {
            println!("! {name}: {faults}");
        }
    }
    Ok(json!({"rate": rate, "bare": load_json(&of_bare), "hookmill": load_json(&of_hookmill)}))
}
