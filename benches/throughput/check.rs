//! Whether the measuring works, in about a second and without hookmill: the load generator against the bare server
//! and the sink, at full speed, paced and counted.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    load::{LoadArgs, LoadReport},
    process::{Server, load},
};

/// Fails with what is wrong.
pub(crate) fn run() -> Result<()> {
    let bare = Server::bare()?;
    let full = LoadArgs {
        target: bare.address,
        connections: 8,
        seconds: 0.3,
        warmup: 0.1,
        rate: 0.0,
        requests: 0,
        body_bytes: 1_536,
        sign_each: false,
        threads: 2,
        paths: 1,
        first_path: 0,
        mixed_types: false,
        progress: false,
    };
    let report = answered("at full speed", load(&full)?)?;
    ensure!(report.latency.permille(990) > 0 && report.latency.count() == report.replies, "latencies are missing");
    ensure!(report.accepted > report.replies, "replies of the warm-up are not among the accepted");

    let paced = LoadArgs { rate: 400.0, seconds: 0.5, warmup: 0.0, ..full.clone() };
    let report = answered("paced", load(&paced)?)?;
    ensure!((50..=201).contains(&report.sent), "{} requests in half a second at 400 a second", report.sent);

    let sink = Server::sink()?;
    let counted = LoadArgs { target: sink.address, requests: 200, seconds: 20.0, sign_each: true, ..full };
    let report = answered("counted", load(&counted)?)?;
    ensure!(report.accepted == 200, "{} requests instead of 200", report.accepted);
    let count = sink.count()?;
    // The load generator sends no `webhook-id`: that is the gateway's to add.
    ensure!((count.requests, count.distinct, count.without_id) == (200, 0, 200), "the sink has counted {count:?}");

    let (cpu, (rss, peak)) = (bare.running.cpu_seconds()?, bare.running.memory_mib()?);
    ensure!(cpu > 0.0 && rss > 0.0 && peak >= rss, "the kernel tells {cpu} CPU seconds, {rss} of {peak} MiB");
    let address = bare.address;
    bare.running.kill()?;
    thread::sleep(Duration::from_millis(10));
    let refused = load(&LoadArgs { target: address, seconds: 0.1, warmup: 0.0, ..counted })?;
    ensure!(!refused.failures.is_empty() && refused.accepted == 0, "a server that is gone answered {refused:?}");
    println!("the measuring works");
    Ok(())
}

fn answered(what: &str, report: LoadReport) -> Result<LoadReport> {
    ensure!(report.accepted > 0, "{what}: no replies");
    if let Some(faults) = report.faults() {
        anyhow::bail!("{what}: {faults}");
    }
    Ok(report)
}
