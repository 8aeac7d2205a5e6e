//! `hookmill serve`: settings in, the server's exit code out.

use std::process::ExitCode;

use clap::Args;

use super::{SettingsArgs, heap, panics};
use crate::{app, secrets};

/// How to serve.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
    /// When the store cannot be opened: set it aside, keep it, and begin with an empty one
    #[arg(long)]
    pub(super) start_empty: bool,
}

const EXAMPLES: &str = "\
Examples:
  hookmill serve --dev
  hookmill serve --config /etc/hookmill.toml --data-dir /srv/hookmill
  HOOKMILL_LOG__RETENTION=7d hookmill serve --ingress 0.0.0.0:8080";

/// What the server is told beside its settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServeOptions {
    /// A store that cannot be opened is set aside, and an empty one takes its place.
    pub start_empty: bool,
    /// `--dev`; its effect on the settings is applied already.
    pub dev: bool,
}

pub(super) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let tuned = heap::tune();
    let options = ServeOptions { start_empty: args.start_empty, dev: args.settings.dev };
    let settings = args.settings.load()?.settings;
    super::init_tracing(&settings.telemetry);
    panics::go_to_the_log();
    if let Err(error) = tuned {
        tracing::warn!(%error, "the heap is kept as it is by default, which costs memory and speed");
    }
    if let Err(error) = secrets::forbid_core_dumps() {
        tracing::warn!(%error, "core dumps could not be switched off; one would hold keys");
    }
    app::run(&settings, options)
}
