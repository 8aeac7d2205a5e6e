//! `hookmill config`: check the settings, show what is in force, print the defaults with their explanations.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::SettingsArgs;
use crate::settings::DEFAULT_TOML;

/// What to do with the settings.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

const EXAMPLES: &str = "\
Examples:
  hookmill config check --config hookmill.toml
  hookmill config default > hookmill.toml";

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the settings as `serve` would read them; prints `ok`, or every fault (exit code 2)
    Check(CheckArgs),
    /// Print every setting with its default and its explanation
    #[command(after_help = "Examples:\n  hookmill config default > hookmill.toml")]
    Default,
}

#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
struct CheckArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Show the settings in force as TOML, each that is not a default with the place it was set
    #[arg(long)]
    print: bool,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  hookmill config check
  hookmill config check --config hookmill.toml --print
  HOOKMILL_INGRESS__THREADS=2 hookmill config check --print";

pub(super) fn run(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        ConfigCommand::Check(args) => {
            let effective = args.settings.load()?;
            if args.print {
                super::print(effective.to_toml())?;
            } else {
                super::print("ok\n")?;
            }
        }
        ConfigCommand::Default => super::print(DEFAULT_TOML)?,
    }
    Ok(ExitCode::SUCCESS)
}
