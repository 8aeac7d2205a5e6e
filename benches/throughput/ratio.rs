//! Durable accepts against a bare hyper server: the same client, the same machine, the same minute, taking turns.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    gateway::Gateway,
    load::{LoadArgs, LoadReport},
    process::{Running, Scratch, Server, load},
    report::{load_json, median, table},
};

/// Work that one server left for later gets this long before the other is measured.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(20);

/// How long and how wide.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RatioArgs {
    /// Rounds; the ratio is the median over them.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that each server is measured for in each round.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of load before them that do not count.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Keep-alive connections, one measurement for each number.
    #[arg(long, value_delimiter = ',', default_value = "64,256")]
    connections: Vec<usize>,
    /// Bytes of each webhook's body.
    #[arg(long, default_value_t = 1_536)]
    body_bytes: usize,
    /// Repeat one event a connection instead of making and signing each anew, which costs the client, and so the ratio's
    /// both sides, a microsecond or two a request: all but the first are duplicates then.
    #[arg(long)]
    repeat: bool,
    /// Threads of the load generator.
    #[arg(long, default_value_t = 1)]
    load_threads: usize,
}

/// One server in one round.
struct Sample {
    load: LoadReport,
    cpu_us: f64,
    memory_mib: f64,
}

/// Measures and prints. A gateway starts afresh each round, so that the disk holds one round's events only.
pub(crate) fn run(args: &RatioArgs, binary: &Path, directory: &Path) -> Result<Value> {
    ensure!(args.rounds > 0, "`--rounds` must be at least 1");
    let bare = Server::bare()?;
    let mut results = Vec::new();
    for connections in &args.connections {
        println!("{connections} connections, {} bytes, {} s each", args.body_bytes, args.seconds);
        let (mut rows, mut rounds) = (Vec::new(), Vec::new());
        for round in 0..args.rounds {
            let (of_bare, of_hookmill) = measure_round(args, binary, directory, &bare, *connections, round)?;
            rows.push(row(&format!("{} bare", round + 1), &of_bare, String::new()));
            let ratio = of_hookmill.load.per_second() / of_bare.load.per_second();
            rows.push(row(&format!("{} hookmill", round + 1), &of_hookmill, format!("{ratio:.3}")));
            rounds.push((of_bare, of_hookmill, ratio));
        }
        let ratio = median(&rounds.iter().map(|(_, _, ratio)| *ratio).collect::<Vec<_>>());
        let of_bare = total(rounds.iter().map(|(bare, _, _)| bare));
        let of_hookmill = total(rounds.iter().map(|(_, hookmill, _)| hookmill));
        rows.push(row("all bare", &of_bare, String::new()));
        rows.push(row("all hookmill", &of_hookmill, format!("{ratio:.3}")));
        table(&["round", "req/s", "p50 us", "p99 us", "max us", "CPU us/req", "peak MiB", "ratio"], &rows);
        for (name, sample) in [("bare", &of_bare), ("hookmill", &of_hookmill)] {
            if let Some(faults) = sample.load.faults() {
                println!("! {name}: {faults}");
            }
        }
        println!("median ratio at {connections} connections: {ratio:.3}\n");
        results.push(json!({
            "connections": connections,
            "ratio_median": ratio,
            "ratios": rounds.iter().map(|(_, _, ratio)| *ratio).collect::<Vec<_>>(),
            "bare": load_json(&of_bare.load),
            "hookmill": load_json(&of_hookmill.load),
            "bare_cpu_us": of_bare.cpu_us,
            "hookmill_cpu_us": of_hookmill.cpu_us,
            "hookmill_memory_peak_mib": of_hookmill.memory_mib,
        }));
        ensure!(of_hookmill.load.accepted > 0, "hookmill accepted nothing");
    }
    Ok(Value::Array(results))
}

fn measure_round(
    args: &RatioArgs,
    binary: &Path,
    directory: &Path,
    bare: &Server,
    connections: usize,
    round: usize,
) -> Result<(Sample, Sample)> {
    let scratch = Scratch::below(directory)?;
    let (gateway, _) = Gateway::start(binary, &scratch.path().join("data"))?;
    gateway.configure()?;
    let measure = |running: &Running, target: SocketAddr| {
        gateway.running.settle(SETTLE_WAIT_MAX)?;
        sample(
            running,
            &LoadArgs {
                target,
                connections,
                seconds: args.seconds,
                warmup: args.warmup,
                rate: 0.0,
                requests: 0,
                body_bytes: args.body_bytes,
                sign_each: !args.repeat,
                threads: args.load_threads,
                paths: 1,
                first_path: 0,
                mixed_types: false,
                progress: false,
            },
        )
    };
    // Whoever goes first may find the machine cooler: they take turns in that too.
    if round.is_multiple_of(2) {
        let of_bare = measure(&bare.running, bare.address)?;
        Ok((of_bare, measure(&gateway.running, gateway.ingress)?))
    } else {
        let of_hookmill = measure(&gateway.running, gateway.ingress)?;
        Ok((measure(&bare.running, bare.address)?, of_hookmill))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn sample(running: &Running, args: &LoadArgs) -> Result<Sample> {
    let before = running.cpu_seconds()?;
    let load = load(args)?;
    let used = running.cpu_seconds()? - before;
    let replies: u64 = load.statuses.values().sum();
    Ok(Sample { cpu_us: used * 1e6 / replies.max(1) as f64, memory_mib: running.memory_mib()?.1, load })
}

fn total<'a>(samples: impl Iterator<Item = &'a Sample> + Clone) -> Sample {
    let mut load = LoadReport::default();
    for sample in samples.clone() {
        load.merge(&sample.load);
        load.seconds += sample.load.seconds;
    }
    let cpu: Vec<f64> = samples.clone().map(|sample| sample.cpu_us).collect();
    Sample { load, cpu_us: median(&cpu), memory_mib: samples.map(|sample| sample.memory_mib).fold(0.0, f64::max) }
}

fn row(name: &str, sample: &Sample, ratio: String) -> Vec<String> {
    vec![
        name.to_owned(),
        format!("{:.0}", sample.load.per_second()),
        sample.load.latency.permille(500).to_string(),
        sample.load.latency.permille(990).to_string(),
        sample.load.latency.max().to_string(),
        format!("{:.1}", sample.cpu_us),
        format!("{:.0}", sample.memory_mib),
        ratio,
    ]
}
