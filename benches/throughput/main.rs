//! Measures hookmill's real binary from outside: `cargo bench --bench throughput -- [OPTIONS] [COMMAND]`.
//!
//! This process starts everything as children of its own: hookmill in a temporary directory, a bare hyper server,
//! a sink for deliveries, and the load generator, which is the same for all of them. It measures nothing itself and
//! sleeps meanwhile, as the machine's cores are the scarce thing. `benches/README.md` says how to read the figures.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]
#![expect(
    unused_imports,
    dead_code,
    reason = "without a harness the tests are dropped and their helpers stay; tests/throughput_pieces.rs runs them"
)]

mod check;
mod delivered;
mod gateway;
mod histogram;
mod http;
mod isolation;
mod load;
mod many;
mod paced_ack;
mod process;
mod ratio;
mod report;
mod searching;
mod servers;
mod startup;
mod wire;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde_json::Value;

/// Measures hookmill. Without a command: durable accepts beside a bare hyper server, and their ratio.
#[derive(Parser)]
#[command(name = "throughput", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Part>,
    #[command(flatten)]
    ratio: ratio::RatioArgs,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Common {
    /// The binary that is measured [default: the one cargo built].
    #[arg(long, global = true, value_name = "FILE")]
    hookmill: Option<PathBuf>,
    /// Where temporary data goes; must be on the disk that is to be measured.
    #[arg(long, global = true, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"), hide_default_value = true)]
    dir: PathBuf,
    /// Write the results there as JSON, too.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Minutes after which everything is killed, whatever it does.
    #[arg(long, global = true, value_name = "MINUTES", default_value_t = 30)]
    time_limit: u64,
    /// `cargo bench` adds this; `cargo test` does not, and then only the measuring itself is checked.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Part {
    /// Webhooks at a fixed rate to a sink: delivered, backlog, latency, memory; each must arrive.
    Delivered(delivered::DeliveredArgs),
    /// Webhooks at full speed to a sink: what is delivered meanwhile, memory; each must arrive.
    Flood(delivered::FloodArgs),
    /// Ten destinations, one of which hangs: what the others notice, its backlog, and how it drains.
    Isolation(isolation::IsolationArgs),
    /// Thousands of integrations: start, memory, and throughput beside that of one.
    Many(many::ManyArgs),
    /// Time to the 2xx at half of the full load.
    PacedAck(paced_ack::PacedAckArgs),
    /// Lists and searches among stored events while webhooks come in: their time, and what the ingress notices.
    Search(searching::SearchArgs),
    /// Time to the first 2xx: empty, full after a clean stop, full after kill -9; idle memory.
    Startup(startup::StartupArgs),
    /// Check that the measuring works, without hookmill.
    Check,
    /// The load generator.
    #[command(hide = true)]
    Load(load::LoadArgs),
    /// The bare hyper server.
    #[command(hide = true)]
    Bare(servers::ServerArgs),
    /// The receiver of deliveries.
    #[command(hide = true)]
    Sink(servers::ServerArgs),
}

fn main() -> Result<()> {
    let Cli { command, ratio, common } = Cli::parse();
    match &command {
        Some(Part::Load(args)) => return load::run(args),
        Some(Part::Bare(args)) => return servers::bare(args),
        Some(Part::Sink(args)) => return servers::sink(args),
        _ => {}
    }
    process::stop_on_signal(Duration::from_secs(60 * common.time_limit))?;
    match &command {
        Some(Part::Check) => check::run(),
        None if !common.bench => check::run(),
        Some(Part::Delivered(args)) => measure("delivered", &common, |bin, dir| delivered::paced(args, bin, dir)),
        Some(Part::Flood(args)) => measure("flood", &common, |bin, dir| delivered::flood(args, bin, dir)),
        Some(Part::Isolation(args)) => measure("isolation", &common, |bin, dir| isolation::run(args, bin, dir)),
        Some(Part::Many(args)) => measure("many", &common, |bin, dir| many::run(args, bin, dir)),
        Some(Part::PacedAck(args)) => measure("paced-ack", &common, |bin, dir| paced_ack::run(args, bin, dir)),
        Some(Part::Search(args)) => measure("search", &common, |bin, dir| searching::run(args, bin, dir)),
        Some(Part::Startup(args)) => measure("startup", &common, |bin, dir| startup::run(args, bin, dir)),
        _ => measure("ratio", &common, |bin, dir| ratio::run(&ratio, bin, dir)),
    }
}

fn measure(name: &str, common: &Common, run: impl FnOnce(&Path, &Path) -> Result<Value>) -> Result<()> {
    let binary = common.hookmill.clone().unwrap_or_else(gateway::binary);
    std::fs::create_dir_all(&common.dir)?;
    let machine = report::machine(&common.dir);
    report::print_machine(&machine);
    let results = run(&binary, &common.dir)?;
    report::write_json(common.json.as_deref(), name, &machine, &results)
}
