//! End to end: webhooks in at a fixed rate or at full speed, deliveries out to a sink that counts, and at the end
//! every accepted event must have arrived. A loss is a failure of the program, not a figure.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    gateway::Gateway,
    load::{LoadArgs, LoadReport},
    process::{Load, Scratch, Server, load},
    report::{load_json, table},
};

/// A backlog that has not shrunk for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Between two lines of how the backlog develops.
const MOMENT_EVERY: Duration = Duration::from_secs(1);

/// The sender alone with a sink shows its rate in less than this.
const DIRECT_SECONDS_MAX: f64 = 5.0;

/// What both ways have in common.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EndToEndArgs {
    /// Keep-alive connections of the sender.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Deliveries the subscription may have under way at once.
    #[arg(long, default_value_t = 128)]
    in_flight: u16,
    /// Bytes of each webhook's body.
    #[arg(long, default_value_t = 1_536)]
    body_bytes: usize,
    /// A CEL filter of the subscription, such as `body.type == "bench.tick"`; all of the load passes that one.
    #[arg(long)]
    filter: Option<String>,
    /// Seconds the backlog gets to drain after the load.
    #[arg(long, default_value_t = 300)]
    drain_seconds: u64,
}

/// How fast.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DeliveredArgs {
    #[command(flatten)]
    common: EndToEndArgs,
    /// Webhooks a second.
    #[arg(long, default_value_t = 6_000.0)]
    rate: f64,
    /// Seconds of load.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
}

/// How long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FloodArgs {
    #[command(flatten)]
    common: EndToEndArgs,
    /// Seconds of load.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
}

/// The state of things at one second.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at_s: f64,
    accepted: u64,
    delivered: u64,
    rss_mib: f64,
}

impl Moment {
    fn backlog(&self) -> u64 {
        self.accepted.saturating_sub(self.delivered)
    }
}

/// At a fixed rate: does delivery keep up, and how late is it?
pub(crate) fn paced(args: &DeliveredArgs, binary: &Path, directory: &Path) -> Result<Value> {
    ensure!(args.rate > 0.0, "`--rate` must be more than 0; `flood` sends at full speed");
    println!("paced at {:.0} webhooks/s for {} s", args.rate, args.seconds);
    end_to_end(&args.common, args.rate, args.seconds, binary, directory)
}

/// At full speed: does accepting starve delivery, and does memory hold?
pub(crate) fn flood(args: &FloodArgs, binary: &Path, directory: &Path) -> Result<Value> {
    println!("at full speed for {} s", args.seconds);
    end_to_end(&args.common, 0.0, args.seconds, binary, directory)
}

fn end_to_end(args: &EndToEndArgs, rate: f64, seconds: f64, binary: &Path, directory: &Path) -> Result<Value> {
    let direct = (rate == 0.0).then(|| direct(args, seconds.min(DIRECT_SECONDS_MAX))).transpose()?;
    let scratch = Scratch::below(directory)?;
    let sink = Server::sink()?;
    let (gateway, _) = Gateway::start(binary, &scratch.path().join("data"))?;
    let integration = gateway.configure()?;
    gateway.subscribe(&integration, sink.address, args.in_flight, true, args.filter.as_deref())?;
    gateway.running.settle(Duration::from_secs(20))?;

    let began = Instant::now();
    let mut load = Load::start(&LoadArgs {
        target: gateway.ingress,
        connections: args.connections,
        seconds,
        // Every accepted event must arrive, so every event counts.
        warmup: 0.0,
        rate,
        requests: 0,
        body_bytes: args.body_bytes,
        sign_each: true,
        threads: 1,
        paths: 1,
        first_path: 0,
        mixed_types: false,
        progress: true,
    })?;
    let mut moments = Vec::new();
    let mut next = began + MOMENT_EVERY;
    while !load.is_over()? {
        if Instant::now() >= next {
            next += MOMENT_EVERY;
            let (rss_mib, _) = gateway.running.memory_mib()?;
            let delivered = sink.count()?.distinct;
            moments.push(Moment { at_s: began.elapsed().as_secs_f64(), accepted: load.accepted(), delivered, rss_mib });
        }
        thread::sleep(Duration::from_millis(10));
    }
    let report = load.finish()?;
    let at_end = Moment {
        at_s: began.elapsed().as_secs_f64(),
        accepted: report.accepted,
        delivered: sink.count()?.distinct,
        rss_mib: gateway.running.memory_mib()?.0,
    };
    let drain = wait_for_drain(&sink, report.accepted, Duration::from_secs(args.drain_seconds))?;
    // Nothing may come twice either: what comes late is still seen.
    thread::sleep(Duration::from_millis(500));
    let count = sink.count()?;
    let (_, peak_mib) = gateway.running.memory_mib()?;

    print_moments(&moments);
    let growth = growth_per_second(&moments);
    let delivered_per_second = per_second(at_end.delivered, at_end.at_s);
    println!("\naccepted        {:>12.0} /s  ({} in all)", report.per_second(), report.accepted);
    println!("delivered       {delivered_per_second:>12.0} /s  while the load lasted ({} in all)", count.distinct);
    if let Some(direct) = direct {
        let ratio = delivered_per_second / direct;
        println!("without it      {direct:>12.0} /s  from the same sender to the same sink: a ratio of {ratio:.2}");
    }
    println!(
        "backlog         {:>12}     at the end of the load, {growth:+.0} /s over its second half",
        at_end.backlog()
    );
    println!("drained in      {:>12.1} s", drain.as_secs_f64());
    let at = |permille| count.latency.permille(permille);
    println!("sent to arrived {:>12} us p50, {} us p99, {} us max", at(500), at(990), count.latency.max());
    let acked = &report.latency;
    println!("sent to 2xx     {:>12} us p50, {} us p99", acked.permille(500), acked.permille(990));
    println!("memory          {peak_mib:>12.0} MiB at its peak, {:.0} MiB at the end of the load", at_end.rss_mib);
    println!("repeated        {:>12}", count.requests - count.distinct - count.without_id);
    if let Some(faults) = report.faults() {
        println!("! sender: {faults}");
    }
    let verdict = verdict(&report, count.distinct, count.without_id);
    println!("{}\n", verdict.as_ref().map_or_else(ToString::to_string, Clone::clone));

    let results = json!({
        "rate": rate,
        "load": load_json(&report),
        "delivered_per_second": delivered_per_second,
        "direct_per_second": direct,
        "delivered": count.distinct,
        "repeated": count.requests - count.distinct - count.without_id,
        "backlog_at_end": at_end.backlog(),
        "backlog_growth_per_second": growth,
        "drain_seconds": drain.as_secs_f64(),
        "latency_p50_us": at(500),
        "latency_p99_us": at(990),
        "memory_peak_mib": peak_mib,
        "moments": moments.iter().map(|it| json!([it.at_s, it.accepted, it.delivered, it.rss_mib])).collect::<Vec<_>>(),
    });
    verdict?;
    Ok(results)
}

/// Requests a second that the sender gets into a sink of its own with nothing between them.
fn direct(args: &EndToEndArgs, seconds: f64) -> Result<f64> {
    let sink = Server::sink()?;
    let report = load(&LoadArgs {
        target: sink.address,
        connections: args.connections,
        seconds,
        warmup: 0.0,
        rate: 0.0,
        requests: 0,
        body_bytes: args.body_bytes,
        sign_each: true,
        threads: 1,
        paths: 1,
        first_path: 0,
        mixed_types: false,
        progress: false,
    })?;
    ensure!(report.refused() == 0, "the sink did not take everything: {:?}", report.faults());
    Ok(report.per_second())
}

/// Waits until all that was accepted has arrived, or nothing has for a while. Returns how long that took.
fn wait_for_drain(sink: &Server, accepted: u64, wait_max: Duration) -> Result<Duration> {
    let began = Instant::now();
    let (mut seen, mut moved) = (0, began);
    loop {
        let delivered = sink.count()?.distinct;
        let now = Instant::now();
        if delivered != seen {
            (seen, moved) = (delivered, now);
        }
        let stuck = now.duration_since(moved) >= STUCK_AFTER || now.duration_since(began) >= wait_max;
        if delivered >= accepted || stuck {
            return Ok(began.elapsed());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Whether what arrived is what was accepted. A request that was never answered may have been accepted or not.
fn verdict(report: &LoadReport, distinct: u64, without_id: u64) -> Result<String> {
    let (accepted, unanswered) = (report.accepted, report.unanswered());
    ensure!(accepted > 0, "FAILED: nothing was accepted");
    ensure!(without_id == 0, "FAILED: {without_id} deliveries had no webhook-id");
    ensure!(distinct >= accepted, "FAILED: {} of {accepted} accepted events did not arrive", accepted - distinct);
    ensure!(
        distinct <= accepted + unanswered,
        "FAILED: {distinct} events arrived, but only {accepted} were accepted and {unanswered} unanswered"
    );
    Ok(format!("every accepted event arrived: {accepted} accepted, {unanswered} unanswered, {distinct} delivered"))
}

/// Slope of the backlog over the second half, by least squares: a rate that is kept up with has none.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn growth_per_second(moments: &[Moment]) -> f64 {
    let half = &moments[moments.len() / 2..];
    let count = half.len() as f64;
    if half.len() < 2 {
        return 0.0;
    }
    let mean_at = half.iter().map(|it| it.at_s).sum::<f64>() / count;
    let mean_backlog = half.iter().map(|it| it.backlog() as f64).sum::<f64>() / count;
    let covariance: f64 = half.iter().map(|it| (it.at_s - mean_at) * (it.backlog() as f64 - mean_backlog)).sum();
    let variance: f64 = half.iter().map(|it| (it.at_s - mean_at).powi(2)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// About twenty lines, however long it took.
fn print_moments(moments: &[Moment]) {
    let step = moments.len().div_ceil(20).max(1);
    let rows: Vec<Vec<String>> = moments
        .iter()
        .step_by(step)
        .map(|it| {
            vec![
                format!("{:.0} s", it.at_s),
                it.accepted.to_string(),
                it.delivered.to_string(),
                it.backlog().to_string(),
                format!("{:.0}", it.rss_mib),
            ]
        })
        .collect();
    table(&["after", "accepted", "delivered", "backlog", "RSS MiB"], &rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(backlogs: &[u64]) -> Vec<Moment> {
        let of = |(second, backlog): (u32, &u64)| Moment {
            at_s: f64::from(second),
            accepted: 10_000 + backlog,
            delivered: 10_000,
            rss_mib: 0.0,
        };
        (0..).zip(backlogs).map(of).collect()
    }

    #[test]
    fn growth_is_that_of_the_second_half() {
        assert!((growth_per_second(&moments(&[0, 900, 5, 5, 15, 25, 35])) - 10.0).abs() < 1e-9);
        assert!(growth_per_second(&moments(&[0, 500, 900, 80, 80, 80])).abs() < 1e-9);
        assert!(growth_per_second(&moments(&[7])).abs() < 1e-9);
        assert!(growth_per_second(&[]).abs() < 1e-9);
    }

    #[test]
    fn the_verdict_forgives_only_what_was_never_answered() {
        let report = LoadReport { accepted: 10, sent: 12, statuses: [(200, 10)].into(), ..LoadReport::default() };
        assert!(verdict(&report, 10, 0).is_ok());
        assert!(verdict(&report, 12, 0).is_ok());
        for (distinct, without_id) in [(9, 0), (13, 0), (10, 1)] {
            assert!(verdict(&report, distinct, without_id).is_err(), "{distinct} {without_id}");
        }
        assert!(verdict(&LoadReport::default(), 0, 0).is_err());
    }
}
