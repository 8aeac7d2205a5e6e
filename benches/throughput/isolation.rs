//! Ten destinations, one of which hangs: what the other nine notice, what its backlog costs, and how fast it drains
//! once the destination is back.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    gateway::Gateway,
    histogram::Histogram,
    http,
    load::LoadArgs,
    process::{Scratch, Server, load},
    report::table,
    servers::HELD,
};

/// Integrations, each with a destination of its own; the first one's hangs.
const WAYS: u64 = 10;

/// How much.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct IsolationArgs {
    /// Webhooks a second over all ten: about half of the full load.
    #[arg(long, default_value_t = 12_000.0)]
    rate: f64,
    /// Seconds of load, with the fault and without.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Events that wait for the destination that hangs before it wakes.
    #[arg(long, default_value_t = 1_000_000)]
    backlog: u64,
    /// Keep-alive connections of the sender.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Deliveries a subscription may have under way at once.
    #[arg(long, default_value_t = 64)]
    in_flight: u16,
    /// Bytes of each webhook's body.
    #[arg(long, default_value_t = 1_536)]
    body_bytes: usize,
}

/// Measures and prints.
pub(crate) fn run(args: &IsolationArgs, binary: &Path, directory: &Path) -> Result<Value> {
    println!("{WAYS} destinations, {:.0} webhooks/s for {} s", args.rate, args.seconds);
    let healthy = {
        let world = World::start(args, false, binary, directory)?;
        world.paced(args)?.0
    };
    let world = World::start(args, true, binary, directory)?;
    let (faulty, waiting) = world.paced(args)?;
    let rows = [("none hangs", &healthy), ("one hangs", &faulty)]
        .map(|(name, count)| vec![name.to_owned(), count.permille(500).to_string(), count.permille(990).to_string()]);
    table(&["the other nine", "p50 us", "p99 us"], &rows);

    let plain = world.plain_rate(args)?;
    let backlog = waiting + world.fill(args)?;
    let (_, peak_mib) = world.gateway.running.memory_mib()?;
    let (woke, drain_rate) = world.drain(backlog)?;
    println!("\nbacklog of the one that hung {backlog:>12}");
    println!("memory at its peak           {peak_mib:>12.0} MiB");
    println!("plain delivery               {plain:>12.0} /s  to a healthy one, from its own backlog");
    println!("first delivery after it woke {:>12.1} s", woke.as_secs_f64());
    println!("its backlog drained at       {drain_rate:>12.0} /s  ({:.2} of that)\n", drain_rate / plain);
    Ok(json!({
        "rate": args.rate,
        "healthy_p50_us": healthy.permille(500), "healthy_p99_us": healthy.permille(990),
        "faulty_p50_us": faulty.permille(500), "faulty_p99_us": faulty.permille(990),
        "backlog": backlog, "memory_peak_mib": peak_mib,
        "woke_after_s": woke.as_secs_f64(), "plain_per_second": plain, "drain_per_second": drain_rate,
    }))
}

struct World {
    gateway: Gateway,
    sink: Server,
    _scratch: Scratch,
}

impl World {
    fn start(args: &IsolationArgs, one_hangs: bool, binary: &Path, directory: &Path) -> Result<Self> {
        let scratch = Scratch::below(directory)?;
        let sink = Server::sink()?;
        let (gateway, _) = Gateway::start(binary, &scratch.path().join("data"))?;
        for way in 0..WAYS {
            let path = if way == 0 && one_hangs { HELD } else { "/" };
            gateway.way(way, &format!("http://{}{path}", sink.address), args.in_flight)?;
        }
        gateway.running.settle(Duration::from_secs(20))?;
        Ok(Self { gateway, sink, _scratch: scratch })
    }

    /// The latency of what arrived at the destinations that do not hang, and how many went to the first one.
    fn paced(&self, args: &IsolationArgs) -> Result<(Histogram, u64)> {
        let report = load(&LoadArgs { rate: args.rate, seconds: args.seconds, ..self.load(args) })?;
        ensure!(report.faults().is_none(), "not every webhook was accepted: {:?}", report.faults());
        Ok((self.sink.count()?.latency, report.accepted.div_ceil(WAYS)))
    }

    /// Events a second to a healthy destination while nothing else happens: a backlog that drains.
    fn plain_rate(&self, args: &IsolationArgs) -> Result<f64> {
        let events = args.backlog / 4;
        let before = self.settled()?;
        let began = Instant::now();
        let report = load(&LoadArgs { requests: events, first_path: 1, paths: 1, ..self.load(args) })?;
        let after = self.settled()?;
        let took = began.elapsed().max(Duration::from_millis(1));
        ensure!(after - before >= report.accepted, "not everything arrived");
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        Ok((after - before) as f64 / took.as_secs_f64())
    }

    /// Lets the backlog grow. Returns how long it is.
    fn fill(&self, args: &IsolationArgs) -> Result<u64> {
        let report = load(&LoadArgs { requests: args.backlog, first_path: 0, paths: 1, ..self.load(args) })?;
        ensure!(report.accepted >= args.backlog, "not every webhook was accepted: {:?}", report.faults());
        self.gateway.running.settle(Duration::from_secs(30))?;
        Ok(report.accepted)
    }

    /// Wakes the destination and waits for the last of its events. Returns when the breaker had found out, and how many
    /// a second came from then on.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn drain(&self, backlog: u64) -> Result<(Duration, f64)> {
        let (status, _) = http::get(self.sink.address, "/release")?;
        ensure!(status == 200, "the sink answered {status}");
        let began = Instant::now();
        let until = began + Duration::from_mins(10);
        // Retries are spread and limited, so the last few say nothing of the rate.
        let (first, last) = (backlog / 100, backlog - backlog / 100);
        let mut under_way: Option<(Instant, u64)> = None;
        loop {
            let (now, held) = (Instant::now(), self.sink.count()?.held);
            ensure!(now < until, "only {held} of {backlog} drained");
            match under_way {
                None if held >= first => under_way = Some((now, held)),
                Some((since, before)) if held >= last => {
                    let took = now.duration_since(since).as_secs_f64().max(0.001);
                    return Ok((since.duration_since(began), (held - before) as f64 / took));
                }
                _ => {}
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What has arrived, once no more comes.
    fn settled(&self) -> Result<u64> {
        let mut last = self.sink.count()?.distinct;
        loop {
            thread::sleep(Duration::from_millis(250));
            let now = self.sink.count()?.distinct;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
    }

    fn load(&self, args: &IsolationArgs) -> LoadArgs {
        LoadArgs {
            target: self.gateway.ingress,
            connections: args.connections,
            seconds: 600.0,
            warmup: 0.0,
            rate: 0.0,
            requests: 0,
            body_bytes: args.body_bytes,
            sign_each: true,
            paths: WAYS,
            first_path: 0,
            mixed_types: false,
            threads: 1,
            progress: false,
        }
    }
}
