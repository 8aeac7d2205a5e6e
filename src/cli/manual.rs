//! `hookmill completions`, `hookmill man` and `hookmill openapi`: made from the same definitions as what is parsed and
//! served.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, ValueHint};
use clap_complete::Shell;

use super::{command, note, print};
use crate::admin::openapi_json;

/// Which shell.
#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  hookmill completions bash > /etc/bash_completion.d/hookmill
  hookmill completions zsh > ~/.zfunc/_hookmill
  hookmill completions fish > ~/.config/fish/completions/hookmill.fish";

/// Where to.
#[derive(Debug, Args)]
#[command(after_help = MAN_EXAMPLES)]
pub(super) struct ManArgs {
    /// The folder; a page for each command is written there
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

const MAN_EXAMPLES: &str = "\
Examples:
  hookmill man --to /usr/local/share/man/man1";

pub(super) const OPENAPI_EXAMPLES: &str = "\
Examples:
  hookmill openapi > hookmill.json  # a server shows it at /api/v1/docs";

pub(super) fn openapi() -> anyhow::Result<ExitCode> {
    print(openapi_json())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut without_files(command()), "hookmill", &mut script);
    print(String::from_utf8(script).context("a completion script is text")?)?;
    Ok(ExitCode::SUCCESS)
}

/// The same commands, whose arguments are completed with files only where they are files: else shells take any for one.
fn without_files(command: clap::Command) -> clap::Command {
    let hinted = |arg: clap::Arg| match (arg.get_action().takes_values(), arg.get_value_hint()) {
        (true, ValueHint::Unknown) => arg.value_hint(ValueHint::Other),
        _ => arg,
    };
    command.mut_args(hinted).mut_subcommands(without_files)
}

pub(super) fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    fs::create_dir_all(&args.to).with_context(|| format!("cannot make {}", args.to.display()))?;
    clap_mangen::generate_to(command(), &args.to)
        .with_context(|| format!("cannot write into {}", args.to.display()))?;
    note(format_args!("the pages are in {}", args.to.display()));
    Ok(ExitCode::SUCCESS)
}
