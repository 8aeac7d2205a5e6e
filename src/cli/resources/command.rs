//! From a table to what the parser knows.

use clap::{Arg, ArgAction, ArgGroup, Args as _, Command, builder::PossibleValuesParser, value_parser};

use super::{Action, Body, Flag, Kind, Reply, Resource, Verb};
use crate::cli::{HELP_COLUMNS, context::ServerArgs, show::OutputArgs};

/// The exit codes, below each command's examples.
const EXIT_CODES: &str = "\
Exit code: 0 done, 1 failed, 2 wrong usage or refused as invalid, 3 not found, \
4 denied, 5 conflict, 6 unreachable or busy: try again.";

pub(super) fn of(resource: &Resource) -> Command {
    if let [only] = resource.actions
        && only.name.is_empty()
    {
        let command = action(only, resource.name);
        return command.name(resource.name).about(resource.about);
    }
    let examples: Vec<String> = resource
        .actions
        .iter()
        .filter_map(|action| action.examples.first().map(|example| line(resource.name, action.name, example)))
        .collect();
    Command::new(resource.name)
        .about(resource.about)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(format!("Examples:\n{}\n\n{EXIT_CODES}", examples.join("\n")))
        .subcommands(resource.actions.iter().map(|it| action(it, resource.name)))
}

/// An example as it may be pasted: what is longer than a line of help goes on behind a backslash, before an option.
fn line(resource: &str, action: &str, rest: &str) -> String {
    let words: Vec<&str> = ["hookmill", resource, action, rest].into_iter().filter(|word| !word.is_empty()).collect();
    let command = words.join(" ");
    let mut options = command.split(" --");
    let mut lines = vec![format!("  {}", options.next().unwrap_or_default())];
    for option in options {
        match lines.last_mut() {
            Some(line) if line.chars().count() + " -- \\".len() + option.chars().count() <= HELP_COLUMNS => {
                line.push_str(" --");
                line.push_str(option);
            }
            _ => lines.push(format!("    --{option}")),
        }
    }
    lines.join(" \\\n")
}

fn action(action: &Action, resource: &str) -> Command {
    let examples: Vec<String> = action.examples.iter().map(|rest| line(resource, action.name, rest)).collect();
    let mut command =
        Command::new(action.name).after_help(format!("Examples:\n{}\n\n{EXIT_CODES}", examples.join("\n")));
    for name in action.arguments() {
        command = command.arg(Arg::new(name).value_name(name).required(true).help(argument_help(name)));
    }
    for flag in action.query.iter().chain(action.members) {
        command = command.arg(arg(flag));
    }
    if action.body.takes_document() {
        command = command.args([
            Arg::new("file")
                .short('f')
                .long("file")
                .value_name("FILE")
                .value_parser(value_parser!(std::path::PathBuf))
                .help(
                    "A JSON, TOML or YAML document, or `-` for standard input; ${NAME} is put in from the environment",
                ),
            Arg::new("set")
                .long("set")
                .value_name("MEMBER=VALUE")
                .action(ArgAction::Append)
                .help("Sets any member: `settings.url=https://x`; the value is JSON, else text"),
        ]);
    }
    if action.method != Verb::Get {
        command = command
            .arg(Arg::new("comment").long("comment").value_name("TEXT").help("What you say of it, for the history"));
    }
    if action.body == Body::Document {
        command = command.arg(
            Arg::new("idempotency-key")
                .long("idempotency-key")
                .value_name("KEY")
                .help("Makes a repeated call one: the first reply is given again"),
        );
    }
    for secret in action.secrets {
        let (what, file, variable) = match secret.named {
            true => ("; again for each", "NAME=FILE", "NAME=VARIABLE"),
            false => ("", "FILE", "VARIABLE"),
        };
        let member = secret.member.trim_start_matches('/');
        command = command.args([
            Arg::new(secret.file)
                .long(secret.file)
                .value_name(file)
                .action(ArgAction::Append)
                .help(format!("`{member}` from a file, or `-` for standard input{what}")),
            Arg::new(secret.variable)
                .long(secret.variable)
                .value_name(variable)
                .action(ArgAction::Append)
                .help(format!("`{member}` from a variable of the environment{what}")),
        ]);
        if !secret.named {
            command = command.group(ArgGroup::new(secret.member).args([secret.file, secret.variable]));
        }
    }
    if action.conditional {
        command = command.arg(
            Arg::new("if-version")
                .long("if-version")
                .value_name("VERSION")
                .value_parser(value_parser!(u64))
                .help("Only if it still is at that version"),
        );
    }
    command = for_reply(command, action);
    // Last, as `augment_args` puts its own docstring there.
    OutputArgs::augment_args(ServerArgs::augment_args(command)).about(action.about)
}

fn for_reply(mut command: Command, action: &Action) -> Command {
    if let Some(member) = action.once {
        command = command.arg(
            Arg::new("secret-to")
                .long("secret-to")
                .value_name("FILE")
                .value_parser(value_parser!(std::path::PathBuf))
                .help(format!("Writes `{member}`, which is shown this once, into a new file of mode 0600 instead")),
        );
    }
    match action.reply {
        Reply::List(..) => {
            command = command.args([
                Arg::new("limit")
                    .long("limit")
                    .value_name("COUNT")
                    .value_parser(value_parser!(u64).range(1..=1_000_000))
                    .default_value("50")
                    .help("How many at most"),
                Arg::new("all")
                    .long("all")
                    .action(ArgAction::SetTrue)
                    .conflicts_with("limit")
                    .help("As many as there are"),
            ]);
            command = command.arg(
                Arg::new("cursor")
                    .long("cursor")
                    .value_name("CURSOR")
                    .help("Goes on behind an earlier page: its `next`"),
            );
        }
        Reply::Bytes | Reply::Lines => {
            command = command.arg(
                Arg::new("to")
                    .long("to")
                    .value_name("FILE")
                    .value_parser(value_parser!(std::path::PathBuf))
                    .help("Writes into a new file rather than to standard output"),
            );
        }
        Reply::Replay => {
            command = command.arg(
                Arg::new("follow")
                    .long("follow")
                    .action(ArgAction::SetTrue)
                    .help("Shows how far it is until it ends; exit code 1 where it fails"),
            );
        }
        Reply::Done(_) | Reply::One | Reply::Whole(_) | Reply::Repeated(_) => {}
    }
    command
}

fn argument_help(name: &str) -> &'static str {
    match name {
        "INTEGRATION" => "The integration, by number or name",
        "WEBHOOK" => "The webhook endpoint, by number or name",
        "DESTINATION" => "The destination, by number or name",
        "SUBSCRIPTION" => "The subscription, by number or name",
        "EVENT" => "The event's id",
        "REPLAY" => "The replay's number",
        "VERSION" => "The version's number",
        "PROVIDER" => "The provider's name",
        "REJECTION" => "The refused request's id",
        "TASK" => "The task's name, with or without what stands before the point",
        "TOKEN" => "The token's number, as `list` shows it",
        _ => "Its number, as `list` shows it",
    }
}

fn arg(flag: &Flag) -> Arg {
    let arg = Arg::new(flag.name).long(flag.name).help(flag.help);
    match flag.kind {
        Kind::Text => arg.value_name("TEXT"),
        Kind::Number => arg.value_name("NUMBER").value_parser(value_parser!(u64)),
        Kind::Bool => arg
            .value_name("true|false")
            .value_parser(value_parser!(bool))
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Kind::Texts => arg.value_name("TEXT,…").value_delimiter(',').action(ArgAction::Append),
        Kind::Json => arg.value_name("JSON"),
        Kind::Ref(_) => arg.value_name("NUMBER|NAME"),
        Kind::Choice(names) => arg.value_name("WHICH").value_parser(PossibleValuesParser::new(names)),
    }
}
