//! `hookmill jq-worker`: what hookmill starts itself as, to run jq programs within limits.

use std::process::ExitCode;

use clap::Args;

use crate::programs::{WorkerLimits, serve_jq};

/// The worker's limits.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct JqWorkerArgs {
    /// Address space, bytes
    #[arg(long)]
    memory_bytes: u64,
    /// Processor time for one request, seconds
    #[arg(long)]
    cpu_s: u64,
    /// One value that comes out, bytes
    #[arg(long)]
    output_bytes: usize,
}

const EXAMPLES: &str = "\
Examples:
  none: hookmill starts its workers itself and talks to them over pipes";

pub(super) fn run(args: &JqWorkerArgs) -> ExitCode {
    let JqWorkerArgs { memory_bytes, cpu_s, output_bytes } = *args;
    serve_jq(WorkerLimits { memory_bytes, cpu_s, output_bytes })
}
