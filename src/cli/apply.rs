//! `hookmill apply`: makes stand what documents say, after showing what that changes. All or nothing.

mod plan;
mod read;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};

use self::read::Documents;
use super::{
    UsageError,
    client::{ApiError, Call, Client},
    context::ServerArgs,
    note, one_thread,
    show::OutputArgs,
};
use crate::secrets::private_file;

/// What to apply.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ApplyArgs {
    /// A document, or a folder whose documents (JSON, TOML, YAML) are one configuration; again for more
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// Show what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Delete what an earlier apply made and the documents no longer hold; what was made by hand stays
    #[arg(long)]
    prune: bool,
    /// What you say of it, for the history
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Delete without asking
    #[arg(long)]
    yes: bool,
    /// Writes secrets that are made, which are shown this once, into a new file of mode 0600 instead
    #[arg(long, value_name = "FILE")]
    secrets_to: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

const EXAMPLES: &str = "\
Examples:
  hookmill apply -f config/examples/isp --dry-run
  hookmill apply -f hookmill/ --prune --context prod
  hookmill export | hookmill apply -f - --context staging

A document holds `integrations`, each with its `webhooks` and `subscriptions`, and `destinations`. They are known by \
their names. `${NAME}` is put in from the environment; a secret may be `file:PATH`, seen from its document. A member \
that is left out has its default, but a secret that is left out stays. Applied twice, nothing is changed.

Exit code: 0 done, 1 failed, 2 wrong usage or refused as invalid, 3 not found, 4 denied, 5 conflict, 6 unreachable or \
busy: try again.";

pub(super) fn run(args: &ApplyArgs) -> anyhow::Result<ExitCode> {
    if let Some(file) = args.secrets_to.as_ref().filter(|file| file.exists()) {
        return Err(UsageError::new(format!("{} is there already", file.display())));
    }
    let documents = Documents::read(&args.files)?;
    let client = args.server.client()?;
    one_thread()?.block_on(applied(args, &documents, &client))
}

async fn applied(args: &ApplyArgs, documents: &Documents, client: &Client) -> anyhow::Result<ExitCode> {
    let plan = call(documents, client, json!({"dry_run": true, "prune": args.prune}), None).await?;
    let changes = ["create", "update", "delete"].map(|deed| plan["summary"][deed].as_u64().unwrap_or_default());
    if args.dry_run || changes == [0, 0, 0] {
        show(args, &plan)?;
        return Ok(ExitCode::SUCCESS);
    }
    if changes[2] > 0 && !args.yes && io::stdin().is_terminal() {
        plan::show(&plan)?;
        if !confirmed(changes[2])? {
            note("nothing was changed");
            return Ok(ExitCode::FAILURE);
        }
    }
    let how = json!({"prune": args.prune, "plan": plan["plan"]});
    let mut done = call(documents, client, how, args.comment.clone()).await?;
    keep_secrets(args, &mut done)?;
    show(args, &done)?;
    Ok(ExitCode::SUCCESS)
}

fn show(args: &ApplyArgs, plan: &Value) -> anyhow::Result<()> {
    if args.output.is_json() { args.output.document(plan) } else { plan::show(plan) }
}

async fn call(documents: &Documents, client: &Client, how: Value, comment: Option<String>) -> anyhow::Result<Value> {
    let mut body = documents.body();
    if let Value::Object(how) = how {
        body.extend(how);
    }
    let call = Call { comment, ..Call::post("/apply", Value::Object(body)) };
    client.json(call).await.map_err(|mut error| {
        if let ApiError::Refused(refusal) = &mut error {
            refusal.relocate(|pointer| documents.place(pointer));
        }
        error.into()
    })
}

fn confirmed(count: u64) -> anyhow::Result<bool> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "delete {count}? type `yes`: ").and_then(|()| stderr.flush()).context("cannot ask")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer.trim() == "yes")
}

/// Takes the secrets that were made out of what is shown, where they have a file.
fn keep_secrets(args: &ApplyArgs, done: &mut Value) -> anyhow::Result<()> {
    let Some(file) = &args.secrets_to else { return Ok(()) };
    let mut kept = Map::new();
    for change in done["changes"].as_array_mut().into_iter().flatten() {
        let title = plan::title(change);
        if let Some(made) = change.as_object_mut().and_then(|change| change.remove("made")) {
            kept.insert(title, made);
        }
    }
    if kept.is_empty() {
        return Ok(());
    }
    let text = zeroize::Zeroizing::new(serde_json::to_string_pretty(&kept)? + "\n");
    if let Err(error) = private_file::create(file, &text) {
        // They cannot be had again, so they are shown rather than lost.
        super::print(text.as_str())?;
        return Err(error).context("the secrets are above, because they could not be written");
    }
    note(format_args!("the secrets that were made are in {}", file.display()));
    Ok(())
}
