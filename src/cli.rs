//! The command line: what is typed in, the exit code and the words for people out. The work is done elsewhere.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or settings, and of the commands over the admin API 3 not found, 4
//! denied, 5 conflict, 6 unreachable or busy. Results go to standard output, everything else to standard error. No
//! secret is ever an argument, because every user of a machine can read arguments.

mod apply;
mod backup;
mod client;
mod config;
mod context;
mod demo;
mod doctor;
mod document;
mod export;
mod heap;
mod jq_worker;
mod keys;
mod listen;
mod local;
mod manual;
mod panics;
mod resources;
pub mod send;
mod serve;
mod show;
pub mod verify;

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Context;
use clap::{
    Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

pub use self::serve::ServeOptions;
use self::{
    apply::ApplyArgs,
    backup::{BackupArgs, RestoreArgs},
    client::{ApiError, EXIT_CONFLICT, EXIT_NOT_FOUND},
    config::ConfigArgs,
    context::ContextArgs,
    demo::DemoArgs,
    doctor::DoctorArgs,
    export::ExportArgs,
    jq_worker::JqWorkerArgs,
    keys::KeysArgs,
    listen::ListenArgs,
    manual::{CompletionsArgs, ManArgs},
    resources::NotThere,
    send::SendArgs,
    serve::ServeArgs,
    verify::VerifyArgs,
};
use crate::{
    keys::KeysError,
    secrets::{KeyRingError, RingChangeError},
    settings::{self, Effective, LogFormat, Overrides, SettingsError, SettingsSources, TelemetrySettings},
};

const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// hookmill receives webhooks, makes them durable before it answers, and delivers them at least once.
///
/// Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "hookmill", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Columns of an example: neither a terminal of 80 breaks it nor a manual page there, so that it can be pasted.
const HELP_COLUMNS: usize = 72;

const EXAMPLES: &str = "\
Examples:
  hookmill --dev                         # serve on loopback alone
  hookmill --config hookmill.toml        # serve with a settings file
  hookmill demo                          # see webhooks fail and succeed
  hookmill config default                # every setting explained
  hookmill config check --print          # where each setting comes from
  hookmill events list --status failure  # what did not get through
  hookmill context add prod --url https://hooks.example.com:8081 \\
    --token-file token.txt

Environment:
  HOOKMILL_SECTION__NAME  any setting: HOOKMILL_INGRESS__ADDRESS is `address` of `[ingress]`
  HOOKMILL_ADMIN_TOKEN    presets the admin token; without it the first start makes one
  HOOKMILL_KEY_FILE       the key ring's file; without it `keys.toml` in the data folder
  HOOKMILL_KEYRING        the key ring itself, in place of a file
  HOOKMILL_URL            the server that commands over the admin API talk to, with its token in
                          HOOKMILL_TOKEN_FILE or HOOKMILL_TOKEN
  HOOKMILL_CONTEXT        the same by the name of a context
  NO_COLOR                plain output";

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive and deliver webhooks (this is also what `hookmill` alone does)
    Serve(ServeArgs),
    /// Watch it work: a server, a service and three providers, all in this process
    Demo(DemoArgs),
    /// Sign a sample event as a provider does, and post it
    Send(SendArgs),
    /// Say why a signature holds or fails, or run a file of test vectors
    Verify(VerifyArgs),
    /// Show, add, rotate and retire the keys that stored secrets are sealed with
    Keys(KeysArgs),
    /// Copy events, state and configuration into a folder, while the server runs
    Backup(BackupArgs),
    /// Make a data directory out of a backup
    Restore(RestoreArgs),
    /// Say what is wrong with machine, files and settings, and what to do
    Doctor(DoctorArgs),
    /// Check and explain the settings
    Config(ConfigArgs),
    /// Know servers by name, and say which one is meant
    Context(ContextArgs),
    /// Make stand what documents say, all or nothing; show first what that changes
    Apply(ApplyArgs),
    /// Write what stands as documents that `apply` reads
    Export(ExportArgs),
    /// Tail a server's events and post them, signed, to a service of yours
    Listen(ListenArgs),
    #[command(about = "Print the OpenAPI document of the admin API", after_help = manual::OPENAPI_EXAMPLES)]
    Openapi,
    /// Print a script that completes commands in a shell
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
    /// Run jq programs for a hookmill that started this process
    #[command(hide = true)]
    JqWorker(JqWorkerArgs),
}

/// All commands: those that are written out, and those that tables make.
fn command() -> clap::Command {
    resources::ALL
        .into_iter()
        .fold(Cli::command(), |command, resource| command.subcommand(resources::command(resource)))
}

/// Runs the command that was typed and tells how it went.
pub fn main() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| Ok((typed(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(mut error) => {
            if let Some(tip) = tip(&error) {
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
            }
            // Nothing can be done where the terminal is gone. `--help` and `--version` come here, too.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let done = match (cli, resources::typed(&matches)) {
        (_, Some((action, matches))) => {
            one_thread().and_then(|thread| thread.block_on(resources::run(action, matches)))
        }
        (Some(cli), None) => run(cli),
        (None, None) => Err(UsageError::new("there is no such command")),
    };
    done.unwrap_or_else(|error| {
        tell(&error);
        ExitCode::from(exit_code(&error))
    })
}

/// What is meant by what other programs take, where the parser has no words for it.
fn tip(error: &clap::Error) -> Option<String> {
    let named = |kind| error.get(kind).map(ToString::to_string);
    match (error.kind(), named(ContextKind::InvalidSubcommand), named(ContextKind::InvalidArg)) {
        (ErrorKind::ArgumentConflict, Some(command), _) => {
            Some(format!("what goes with `{command}` stands behind it: `hookmill {command} ... --flag`"))
        }
        (ErrorKind::UnknownArgument, _, Some(flag)) => match flag.as_str() {
            "--output" | "-o" => Some("`--json` writes JSON, `--jsonl` a document on each line".to_owned()),
            "--json" | "--jsonl" | "--context" | "--url" | "--token-file" | "--ca" | "--timeout" => Some(format!(
                "a command over the admin API takes it, behind its own words: `hookmill events list {flag}`"
            )),
            _ => None,
        },
        _ => None,
    }
}

/// What was typed, where no table has it.
fn typed(matches: &clap::ArgMatches) -> Result<Option<Cli>, clap::Error> {
    if resources::typed(matches).is_some() { Ok(None) } else { Cli::from_arg_matches(matches).map(Some) }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => demo::run(&args),
        Command::Send(args) => one_thread()?.block_on(send::run(&args, &mut io::stdout().lock())),
        Command::Verify(args) => verify::run(&args, &mut io::stdout().lock()),
        Command::Keys(args) => keys::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => backup::run_restore(&args),
        Command::Doctor(args) => doctor::run(args),
        Command::Config(args) => config::run(args),
        Command::Context(args) => context::run(args),
        Command::Apply(args) => apply::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Listen(args) => listen::run(&args),
        Command::Openapi => manual::openapi(),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
        Command::JqWorker(args) => Ok(jq_worker::run(&args)),
    }
}

fn one_thread() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime for the network")
}

/// The flags that bear on settings, the same for every command that reads them.
#[derive(Clone, Debug, Default, Args)]
struct SettingsArgs {
    /// Settings file (TOML); it must exist
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the store, the key ring and the first admin token
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where webhooks are received, such as 127.0.0.1:8080
    #[arg(long, value_name = "ADDRESS")]
    ingress: Option<SocketAddr>,
    /// Where the admin API listens, such as 127.0.0.1:8081
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// For trying out: destinations may be on this machine, and nobody else can reach hookmill
    #[arg(long)]
    dev: bool,
}

impl SettingsArgs {
    fn load(self) -> Result<Effective, SettingsError> {
        Effective::load(SettingsSources {
            config_file: self.config,
            environment: settings::process_environment()?,
            overrides: Overrides { data_dir: self.data_dir, ingress: self.ingress, admin: self.admin, dev: self.dev },
        })
    }
}

/// Sends log lines to standard error: ours from the set level on, those of libraries from `warn` on.
/// Does nothing where a subscriber is set already.
pub(crate) fn init_tracing(telemetry: &TelemetrySettings) {
    let level = LevelFilter::from(telemetry.log_level);
    let filter = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        // A prefix: it stands for every crate of ours.
        .with_target("hookmill", level);
    let terminal = io::stderr().is_terminal();
    let human = match telemetry.log_format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let _ = if human {
        registry.with(fmt::layer().with_writer(io::stderr).with_ansi(terminal && !no_color())).try_init()
    } else {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init()
    };
}

/// Whether the user asked for plain output (<https://no-color.org>).
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Whether the reader of the results has gone.
static IS_UNREAD: AtomicBool = AtomicBool::new(false);

/// Writes a result. A reader that has gone, such as `head`, is no failure.
pub(crate) fn print(text: impl Display) -> anyhow::Result<()> {
    print_bytes(text.to_string().as_bytes())
}

/// The same of what need not be text.
fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => IS_UNREAD.store(true, Ordering::Relaxed),
        written => written?,
    }
    Ok(())
}

/// Whether whoever read the results has gone: then nothing more need be asked for.
fn is_unread() -> bool {
    IS_UNREAD.load(Ordering::Relaxed)
}

/// Something beside the result, on standard error.
fn note(text: impl Display) {
    // Nothing can be done where standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// What was typed or written cannot be meant so.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

impl UsageError {
    #[expect(clippy::new_ret_no_self, reason = "it is made to be returned as what commands fail with")]
    fn new(problem: impl Into<String>) -> anyhow::Error {
        Self(problem.into()).into()
    }
}

fn tell(error: &anyhow::Error) {
    let mut stderr = io::stderr().lock();
    // Nothing can be done where standard error is gone.
    let _ = stderr.write_all(told(error).as_bytes());
    if let Some(next) = next_step(error) {
        let _ = writeln!(stderr, "next: {next}");
    }
}

/// An error and its causes, a line each; what a line ends with is not told again.
fn told(error: &anyhow::Error) -> String {
    let mut told = format!("error: {error}\n");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !told.trim_end().ends_with(&cause) {
            told.extend(["  because: ", &cause, "\n"]);
        }
    }
    told
}

fn next_step(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let settings = cause.downcast_ref::<SettingsError>().map(|it| it.next_step().to_owned());
        let keys = || cause.downcast_ref::<KeyRingError>().map(|it| it.next_step().to_owned());
        let api = || cause.downcast_ref::<ApiError>().map(ApiError::next_step);
        settings.or_else(keys).or_else(api)
    })
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let code = error.chain().find_map(|cause| {
        let is_usage = cause.is::<SettingsError>() || cause.is::<UsageError>();
        let is_not_there = cause.is::<NotThere>();
        let api = cause.downcast_ref::<ApiError>().map(ApiError::exit_code);
        // As for a running server's refusal of the same.
        let keys = cause.downcast_ref::<KeysError>().and_then(|error| match error {
            KeysError::Ring(RingChangeError::NoSuchKey(_)) => Some(EXIT_NOT_FOUND),
            error => error.is_refusal().then_some(EXIT_CONFLICT),
        });
        is_usage.then_some(EXIT_USAGE).or(is_not_there.then_some(EXIT_NOT_FOUND)).or(keys).or(api)
    });
    code.unwrap_or(EXIT_FAILURE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["hookmill"], words].concat())
    }

    #[test]
    fn the_arguments_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn serving_needs_no_word() {
        let bare = parse(&["--dev", "--ingress", "127.0.0.1:9", "--start-empty"]).unwrap();
        let worded = parse(&["serve", "--dev", "--ingress", "127.0.0.1:9", "--start-empty"]).unwrap();
        let Some(Command::Serve(worded)) = worded.command else { panic!("not serve") };
        assert!(bare.command.is_none());
        assert_eq!(format!("{:?}", bare.serve), format!("{worded:?}"));
        assert!(worded.settings.dev && worded.start_empty);
    }

    #[test]
    fn a_flag_before_the_word_is_refused_rather_than_forgotten() {
        assert!(parse(&["--dev", "serve"]).is_err());
    }

    #[test]
    fn what_stands_in_a_wrong_place_is_told_where_to_stand() {
        for (words, tip_of_it) in [
            (vec!["--data-dir", "d", "events", "list"], Some("behind it: `hookmill events ...")),
            (vec!["--json", "events", "list"], Some("`hookmill events list --json`")),
            (vec!["events", "list", "--output", "json"], Some("`--jsonl`")),
            (vec!["events", "list", "--statu", "x"], None),
        ] {
            let typed = [&["hookmill"], words.as_slice()].concat();
            let tip = tip(&command().try_get_matches_from(typed).unwrap_err());
            match tip_of_it {
                Some(part) => assert!(tip.as_ref().is_some_and(|tip| tip.contains(part)), "{words:?}: {tip:?}"),
                None => assert_eq!(tip, None, "{words:?}"),
            }
        }
    }

    #[test]
    fn an_address_is_checked_where_it_is_typed() {
        let text = parse(&["--ingress", "localhost"]).unwrap_err().to_string();
        assert!(text.contains("--ingress") && text.contains("localhost"), "{text}");
    }

    #[test]
    fn help_has_examples_everywhere() {
        /// The words of an example as a shell would make them.
        fn words(line: &str) -> Vec<String> {
            let line = line.split(" | ").next().unwrap().split(" < ").next().unwrap().split(" > ").next().unwrap();
            let mut words = vec![String::new()];
            let mut quoted = false;
            for it in line.chars() {
                match it {
                    '\'' => quoted = !quoted,
                    ' ' if !quoted => words.push(String::new()),
                    it => words.last_mut().unwrap().push(it),
                }
            }
            words.retain(|word| !word.is_empty());
            words
        }

        fn check(command: &clap::Command, whole: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "`{path}` does not say what it does");
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples = help.split("Examples:\n").nth(1).unwrap_or_else(|| panic!("`{path}` has none"));
            let wide = examples.lines().take_while(|line| !line.is_empty());
            let wide: Vec<_> = wide.filter(|line| line.chars().count() > HELP_COLUMNS).collect();
            assert!(wide.is_empty(), "`{path}` has examples that a terminal breaks: {wide:?}");
            let help = help.split("\\\n").map(str::trim_start).collect::<String>();
            for line in help.lines().filter_map(|line| line.trim().strip_prefix("hookmill ")) {
                let line = line.split(" #").next().unwrap();
                let typed = [vec!["hookmill".to_owned()], words(line)].concat();
                let parsed = whole.clone().try_get_matches_from(&typed);
                let shows_help = |error: &clap::Error| {
                    matches!(error.kind(), clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion)
                };
                let told = parsed.as_ref().err().filter(|error| !shows_help(error));
                assert!(told.is_none(), "`{path}` has an example that does not parse: {typed:?}: {told:?}");
            }
            let below: Vec<_> =
                command.get_subcommands().filter(|it| it.get_name() != "help" && !it.is_hide_set()).collect();
            let abouts: BTreeSet<_> = below.iter().filter_map(|it| it.get_about()).map(ToString::to_string).collect();
            assert_eq!(abouts.len(), below.len(), "`{path}` has commands that say the same: {abouts:?}");
            for command in below {
                check(command, whole, &path);
            }
        }
        let whole = command();
        check(&whole, &whole, "");
    }

    #[test]
    fn a_cause_that_its_error_repeats_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("admin token: {0}")]
        struct Wrapped(#[source] std::io::Error);
        let error = anyhow::Error::from(Wrapped(std::io::Error::other("mode 0644"))).context("cannot start");
        assert_eq!(told(&error), "error: cannot start\n  because: admin token: mode 0644\n");
    }

    #[test]
    fn wrong_settings_are_wrong_usage() {
        let absent = || SettingsError::Absent("f".into());
        let error = Err::<(), _>(absent()).context("cannot start").unwrap_err();
        assert_eq!(exit_code(&error), EXIT_USAGE);
        assert_eq!(next_step(&error).as_deref(), Some(absent().next_step()));
        assert_eq!(exit_code(&anyhow::anyhow!("disk on fire")), EXIT_FAILURE);
        let error = anyhow::Error::from(KeyRingError::Missing("k".into()));
        assert!(next_step(&error).is_some_and(|next| next.contains("HOOKMILL_KEY_FILE")));
    }
}
