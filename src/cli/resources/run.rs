//! Runs an action: calls the API and shows what it replies.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{ArgMatches, FromArgMatches as _};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use super::{Action, Reply, follow, input, paging};
use crate::{
    cli::{
        UsageError,
        client::{Call, Client},
        context::ServerArgs,
        is_unread, note, print, print_bytes,
        show::{self, OutputArgs},
    },
    secrets::private_file,
};

/// Runs the action that was typed.
pub(in crate::cli) async fn run(action: &Action, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let server = ServerArgs::from_arg_matches(matches)?;
    let output = OutputArgs::from_arg_matches(matches)?;
    if let Some(file) = matches_path(action, matches, "secret-to").filter(|file| file.exists()) {
        // Before anything is made whose secret could then not be kept.
        return Err(UsageError::new(format!("{} is there already", file.display())));
    }
    let client = server.client()?;
    let call = input::call(action, matches, &client).await?;
    match action.reply {
        Reply::List(columns, paging) => {
            let all = matches.get_flag("all");
            let limit = matches.get_one::<u64>("limit").and_then(|limit| usize::try_from(*limit).ok());
            let cursor = matches.get_one::<String>("cursor").cloned();
            let wanted = paging::Wanted { limit: limit.filter(|_| !all), cursor };
            paging::shown(&client, call, paging, wanted, columns, output).await?;
        }
        Reply::Whole(columns) => {
            let mut reply = client.json(call).await?;
            if output.is_json() {
                output.document(&reply)?;
            } else {
                show::rows(&show::items(&mut reply), columns, true)?;
            }
        }
        Reply::Bytes => bytes(&client.bytes(call).await?, matches.get_one::<PathBuf>("to").map(PathBuf::as_path))?,
        Reply::Lines => {
            lines(client.stream(call).await?, matches.get_one::<PathBuf>("to").map(PathBuf::as_path)).await?;
        }
        Reply::Replay => {
            let reply = client.json(call).await?;
            if matches.get_flag("follow") {
                return follow::follow(&client, reply, output).await;
            }
            output.one(&reply)?;
        }
        Reply::Repeated(counted) => repeated(&client, call, counted, output).await?,
        Reply::Done(what) => {
            let reply = client.json(call).await?;
            if output.is_json() {
                output.document(&if reply.is_null() { serde_json::json!({"status": what}) } else { reply })?;
            } else {
                let named: Vec<&str> =
                    action.arguments().filter_map(|name| matches.get_one::<String>(name)).map(String::as_str).collect();
                print(format_args!("{} is {what}\n", named.join(" ")))?;
            }
        }
        Reply::One => {
            let mut reply = client.json(call).await?;
            let kept = keep_secret(action, matches, &mut reply)?;
            output.one(&reply)?;
            if !kept && let Some(member) = action.once.filter(|member| reply.get(member).is_some_and(Value::is_string))
            {
                note(format_args!("`{member}` is shown this once: keep it now"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn matches_path<'a>(action: &Action, matches: &'a ArgMatches, name: &str) -> Option<&'a PathBuf> {
    action.once.and_then(|_| matches.get_one::<PathBuf>(name))
}

/// Writes the secret of a reply into its file, and takes it out of what is shown.
fn keep_secret(action: &Action, matches: &ArgMatches, reply: &mut Value) -> anyhow::Result<bool> {
    let (Some(member), Some(file)) = (action.once, matches_path(action, matches, "secret-to")) else {
        return Ok(false);
    };
    let Some(Value::String(secret)) = reply.as_object_mut().and_then(|reply| reply.remove(member)) else {
        note(format_args!("the reply has no `{member}`, so {} was not made", file.display()));
        return Ok(true);
    };
    let secret = zeroize::Zeroizing::new(secret);
    let text = zeroize::Zeroizing::new(format!("{}\n", secret.as_str()));
    if let Err(error) = private_file::create(file, &text) {
        // It cannot be had again, so it is shown rather than lost.
        print(format_args!("{member} {}\n", secret.as_str()))?;
        return Err(error).context("the secret is above, because it could not be written");
    }
    note(format_args!("`{member}` is in {}", file.display()));
    Ok(true)
}

/// Repeats an action that does a part each time, from where the last one ended.
async fn repeated(client: &Client, mut call: Call, counted: &[&str], output: OutputArgs) -> anyhow::Result<()> {
    let mut done = vec![0; counted.len()];
    loop {
        let reply = client.json(call.clone()).await?;
        for (sum, name) in done.iter_mut().zip(counted) {
            let listed = reply[*name].as_array().map(|items| items.len() as u64);
            *sum += listed.or(reply[*name].as_u64()).unwrap_or_default();
        }
        let Some(next) = reply["next"].as_str() else { break };
        if let Some(Value::Object(body)) = &mut call.body {
            body.insert("after".to_owned(), next.into());
        }
    }
    let done = counted.iter().zip(done).map(|(name, count)| ((*name).to_owned(), count.into()));
    output.one(&Value::Object(done.collect()))
}

fn new_file(file: &Path) -> anyhow::Result<File> {
    let made = File::options().write(true).create_new(true).mode(0o600).open(file);
    made.with_context(|| format!("cannot make {}", file.display()))
}

fn bytes(bytes: &[u8], to: Option<&Path>) -> anyhow::Result<()> {
    if let Some(file) = to {
        return new_file(file)?.write_all(bytes).with_context(|| format!("cannot write {}", file.display()));
    }
    if !io::stdout().is_terminal() {
        return print_bytes(bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(UsageError::new("it is not text; give `--to FILE`, or send it into a pipe"));
    };
    let shown: String = text.split('\n').map(show::escaped).collect::<Vec<_>>().join("\n");
    print(format_args!("{shown}\n"))
}

async fn lines(mut body: Incoming, to: Option<&Path>) -> anyhow::Result<()> {
    let mut file = to.map(new_file).transpose()?;
    let is_terminal = io::stdout().is_terminal();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.context("the reply broke off")?.into_data() else { continue };
        match &mut file {
            Some(file) => file.write_all(&data).context("cannot write")?,
            None if is_terminal => {
                let text = String::from_utf8_lossy(&data);
                print(text.split('\n').map(show::escaped).collect::<Vec<_>>().join("\n"))?;
            }
            None => print_bytes(&data)?,
        }
        if is_unread() {
            break;
        }
    }
    Ok(())
}
