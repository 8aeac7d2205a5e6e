//! `hookmill listen`: tails a server's events and posts each, signed, to a service on this machine.
//!
//! In: the server's live stream, or its list of events where it has no stream. Out: requests to the service, one after
//! the other, in the order of arrival. Owns: the id of the last event that was seen. When the server goes away it is
//! tried again; what arrived meanwhile is read from the list, so that nothing is left out.

mod forward;
mod tail;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use hookmill_actors::domain::secret::Secret;
use hyper::Uri;
use serde_json::{Value, json};
use tokio::time::sleep;

use self::{
    forward::{Answer, Forwarder},
    tail::{Tail, Wanted},
};
use super::{
    UsageError,
    client::Client,
    context::ServerArgs,
    is_unread, note, one_thread, print,
    resources::resolved,
    show::{OutputArgs, escaped},
    verify::read_secret,
};
use crate::{destinations::new_signing_secret, secrets::random_bytes};

/// What to listen to, and where to post it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListenArgs {
    /// Your service: each event is posted there; without it events are only shown
    #[arg(long, value_name = "URL")]
    forward: Option<Uri>,
    /// Only events of this integration
    #[arg(long, value_name = "NUMBER|NAME")]
    integration: Option<String>,
    /// Only events of these types, such as `payment_intent.*`
    #[arg(long, value_name = "TEXT,…", value_delimiter = ',')]
    types: Vec<String>,
    /// Only events for which this CEL expression holds: `body.amount > 1000`
    #[arg(long, value_name = "CEL")]
    filter: Option<String>,
    /// A file with the secret to sign with (`whsec_…`), or `-`; else one is made for this session
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// End after so many events
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

const EXAMPLES: &str = "\
Examples:
  hookmill listen --forward http://localhost:3000/hooks
  hookmill listen --integration Shop --types 'payment_intent.*' \\
    --forward http://localhost:3000/hooks
  hookmill listen --jsonl | jq .event_type

Each event goes out as from a destination: the body as it came, with `webhook-id`, `webhook-timestamp` and \
`webhook-signature` by Standard Webhooks, under the secret that is printed at the start. An event is posted once; the \
server's own deliveries are not touched.";

/// Before the first new try, and at most between two.
const WAIT_MIN: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(10);

pub(super) fn run(args: &ListenArgs) -> anyhow::Result<ExitCode> {
    one_thread()?.block_on(listen(args))
}

async fn listen(args: &ListenArgs) -> anyhow::Result<ExitCode> {
    let client = args.server.client()?;
    let integration = match &args.integration {
        Some(typed) => Some(resolved(&client, "integrations", typed).await?),
        None => None,
    };
    let secret = match &args.secret_file {
        Some(file) => read_secret(file).map_err(|error| UsageError::new(format!("{error:#}")))?,
        None => new_signing_secret(&random_bytes::<32>()),
    };
    let forwarder = args.forward.clone().map(|url| Forwarder::new(url, secret.clone())).transpose()?;
    let mut tail =
        Tail::begin(&client, Wanted { integration, types: args.types.clone(), filter: args.filter.clone() }).await?;
    greet(args, &secret);
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut wait = WAIT_MIN;
    while left > 0 {
        let next = tail.next().await;
        let item = match next {
            Ok(item) => item,
            Err(error) if error.is_final() => return Err(error.into()),
            Err(error) => {
                note(format_args!("{error}; trying again in {} s", wait.as_secs_f32()));
                sleep(wait).await;
                wait = (wait * 2).min(WAIT_MAX);
                tail.reconnect();
                continue;
            }
        };
        wait = WAIT_MIN;
        let answer = match &forwarder {
            Some(forwarder) => Some(forwarded(&client, forwarder, &item, &mut wait).await?),
            None => None,
        };
        show(args.output, &item, answer.as_ref())?;
        if is_unread() {
            break;
        }
        left -= 1;
    }
    Ok(ExitCode::SUCCESS)
}

fn greet(args: &ListenArgs, secret: &Secret) {
    match &args.forward {
        Some(url) => note(format_args!("ready: events are posted to {url}")),
        None => note("ready: events are shown; `--forward URL` posts them to a service of yours"),
    }
    if args.forward.is_some()
        && args.secret_file.is_none()
        && let Some(secret) = secret.expose_str()
    {
        note(format_args!("signed with {secret}"));
    }
}

/// Posts an event; the server is asked for its body until it has given it or says that it cannot.
async fn forwarded(
    client: &Client,
    forwarder: &Forwarder,
    item: &Value,
    wait: &mut Duration,
) -> anyhow::Result<Answer> {
    loop {
        match forwarder.fetched(client, item).await {
            Ok(Some(event)) => return Ok(forwarder.post(event).await),
            Ok(None) => return Ok(Answer::Gone),
            Err(error) if tail::is_final(&error) => return Err(error.into()),
            Err(error) => {
                note(format_args!("{error}; trying again in {} s", wait.as_secs_f32()));
                sleep(*wait).await;
                *wait = (*wait * 2).min(WAIT_MAX);
            }
        }
    }
}

fn show(output: OutputArgs, item: &Value, answer: Option<&Answer>) -> anyhow::Result<()> {
    if output.is_json() {
        let mut line = item.clone();
        if let (Some(answer), Value::Object(line)) = (answer, &mut line) {
            line.insert("answer".to_owned(), answer.json());
        }
        return OutputArgs { json: false, jsonl: true }.document(&line);
    }
    let text = |member: &str| item[member].as_str().map_or_else(|| "-".to_owned(), escaped);
    let answer = answer.map(|answer| format!("  -> {answer}")).unwrap_or_default();
    print(format_args!("{}  {}  {}{answer}\n", text("received_at"), text("event_type"), text("id")))
}

impl Answer {
    fn json(&self) -> Value {
        match self {
            Self::Replied { status, took } => {
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                json!({"status": status.as_u16(), "took_ms": took_ms})
            }
            Self::Failed(problem) => json!({"problem": problem}),
            Self::Gone => json!({"problem": "the event is no longer there"}),
        }
    }
}
