//! `hookmill context`: the servers that this user talks to; and which server a command means.
//!
//! A token belongs to the server it was given with and is sent to no other. It is read from a file, standard input or
//! the environment, and kept in one file of the user's, mode 0600.

mod store;

use std::{
    env,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use hookmill_actors::domain::secret::Secret;
use serde_json::json;

use self::store::{Contexts, Stored};
use super::{
    UsageError,
    client::{Call, Client, Server, is_in_clear, read_authorities, server_url},
    one_thread, print,
    show::{Column, How, OutputArgs},
    verify::read_secret,
};
use crate::{
    app::{Listener, published_address},
    secrets::{AdminToken, admin_token_file},
    settings::{Overrides, Settings, SettingsSources, process_environment},
};

/// The server, where no context says it.
const URL_VARIABLE: &str = "HOOKMILL_URL";
/// Its token.
const TOKEN_VARIABLE: &str = "HOOKMILL_TOKEN";
/// A file with its token.
const TOKEN_FILE_VARIABLE: &str = "HOOKMILL_TOKEN_FILE";
/// The name of a context.
const CONTEXT_VARIABLE: &str = "HOOKMILL_CONTEXT";

/// Which server a command talks to.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerArgs {
    /// A server known by `hookmill context`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["url", "data_dir"])]
    pub(super) context: Option<String>,
    /// The server's admin API, such as `https://hooks.example.com:8081`
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    pub(super) url: Option<String>,
    /// A file with the token, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// PEM of the authorities to trust in place of the common ones
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// The data folder of a server on this machine: its admin token is used
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Seconds to wait for a reply
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(super) timeout: u64,
}

impl ServerArgs {
    /// A client of the server that is meant.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        self.client_of(self.server()?)
    }

    /// A client of that server, with what the flags say of it.
    pub(super) fn client_of(&self, mut server: Server) -> anyhow::Result<Client> {
        if let Some(file) = &self.token_file {
            server.token = read_secret(file)?;
        }
        if let Some(file) = &self.ca {
            server.authorities = Some(read_authorities(file)?);
        }
        Client::new(&server, self.wait_max())
    }

    /// How long a reply is waited for.
    pub(super) fn wait_max(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// The first that is given of: `--data-dir`, `--url`, `--context`, `HOOKMILL_URL`, `HOOKMILL_CONTEXT`, the context
    /// in use, the server whose data folder this is.
    fn server(&self) -> anyhow::Result<Server> {
        if self.data_dir.is_none()
            && let Some(server) = self.named()?
        {
            return Ok(server);
        }
        if let Some(folder) = self.data_dir.as_deref().filter(|folder| !folder.is_dir()) {
            return Err(UsageError::new(format!("there is no folder {}", folder.display())));
        }
        let overrides = Overrides { data_dir: self.data_dir.clone(), ..Overrides::default() };
        let environment = process_environment()?;
        let settings = Settings::load(SettingsSources { config_file: None, environment, overrides })?;
        let problem = match &self.data_dir {
            Some(folder) => format!(
                "{} holds no admin token, as the data folder of a server does; name that, or give a token with \
                 `--token-file` or HOOKMILL_TOKEN",
                folder.display()
            ),
            None => "no server is known; name one with `hookmill context add NAME --url URL`, with HOOKMILL_URL and \
                     HOOKMILL_TOKEN_FILE, or run this where a server keeps its data (`--data-dir`)"
                .to_owned(),
        };
        self.local(&settings, None)?.ok_or_else(|| UsageError::new(problem))
    }

    /// The server that flags, environment or the user's contexts name; `None` where it is left to the data folder.
    pub(super) fn named(&self) -> anyhow::Result<Option<Server>> {
        if let Some(url) = &self.url {
            return self.addressed(url).map(Some);
        }
        if let Some(name) = &self.context {
            return Self::known(name).map(Some);
        }
        if let Some(url) = variable(URL_VARIABLE)? {
            return self.addressed(&url).map(Some);
        }
        let current = match variable(CONTEXT_VARIABLE)? {
            Some(name) => Some(name),
            None => Contexts::load()?.current,
        };
        current.map(|name| Self::known(&name)).transpose()
    }

    fn addressed(&self, url: &str) -> anyhow::Result<Server> {
        let url = server_url(url).map_err(UsageError::new)?;
        let token = match (&self.token_file, given_token()?) {
            // Read once, by the caller.
            (Some(_), _) => Secret::new(""),
            (None, Some(token)) => token,
            (None, None) => {
                return Err(UsageError::new(
                    "a token is needed beside the URL: `--token-file`, HOOKMILL_TOKEN_FILE or HOOKMILL_TOKEN",
                ));
            }
        };
        Ok(Server { url, token, authorities: None })
    }

    fn known(name: &str) -> anyhow::Result<Server> {
        let mut contexts = Contexts::load()?;
        let Some(stored) = contexts.contexts.remove(name) else {
            let names: Vec<&str> = contexts.contexts.keys().map(String::as_str).collect();
            let known =
                if names.is_empty() { "there is none".to_owned() } else { format!("there are {}", names.join(", ")) };
            return Err(UsageError::new(format!("there is no context `{name}`; {known}")));
        };
        let authorities = stored.ca_file.as_deref().map(read_authorities).transpose()?;
        Ok(Server { url: stored.url, token: Secret::new(stored.token.as_str()), authorities })
    }

    /// The server on this machine, by its data folder: at `admin` where that is given, else where it says that it
    /// listens, else where the settings say. Nothing where there is no token for it.
    pub(super) fn local(&self, settings: &Settings, admin: Option<SocketAddr>) -> anyhow::Result<Option<Server>> {
        let file = admin_token_file(&settings.data_dir);
        let token = match (given_token()?, AdminToken::preset_from_environment()) {
            (Some(token), _) | (None, Some(token)) => token,
            (None, None) if self.token_file.is_some() => Secret::new(""),
            (None, None) if file.exists() => read_secret(&file)?,
            (None, None) => return Ok(None),
        };
        let told = || published_address(&settings.data_dir, Listener::Admin);
        let mut address = admin.or_else(told).unwrap_or(settings.admin.address);
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        let url = format!("http://{address}");
        Ok(Some(Server { url, token, authorities: None }))
    }
}

fn variable(name: &str) -> anyhow::Result<Option<String>> {
    match env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(UsageError::new(format!("{name} is not UTF-8"))),
    }
}

/// The token of the environment.
fn given_token() -> anyhow::Result<Option<Secret>> {
    if let Some(token) = variable(TOKEN_VARIABLE)? {
        return Ok(Some(Secret::new(token)));
    }
    match variable(TOKEN_FILE_VARIABLE)? {
        Some(file) => read_secret(Path::new(&file)).context(TOKEN_FILE_VARIABLE).map(Some),
        None => Ok(None),
    }
}

/// What to do with the known servers.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ContextArgs {
    #[command(subcommand)]
    command: ContextCommand,
}

const EXAMPLES: &str = "\
Examples:
  hookmill context add prod --url https://hooks.example.com:8081 \\
    --token-file token.txt
  hookmill context list
  hookmill context use prod

They stand in `hookmill/contexts.toml` of the user's configuration folder, mode 0600.
A command talks to the first of: --data-dir, --url, --context, HOOKMILL_URL (with HOOKMILL_TOKEN or \
HOOKMILL_TOKEN_FILE), HOOKMILL_CONTEXT, the context in use, the server whose data folder is here.";

#[derive(Debug, Subcommand)]
enum ContextCommand {
    /// Remember a server; it is tried at once
    Add(AddArgs),
    /// Talk to that server from now on
    #[command(after_help = "Examples:\n  hookmill context use prod")]
    Use {
        /// Its name
        name: String,
    },
    /// Show the known servers
    #[command(after_help = "Examples:\n  hookmill context list\n  hookmill context list --json")]
    List(OutputArgs),
    /// Forget a server and its token
    #[command(after_help = "Examples:\n  hookmill context remove prod")]
    Remove {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
struct AddArgs {
    /// How to call it
    name: String,
    /// The server's admin API
    #[arg(long)]
    url: String,
    /// A file with the token, or `-` for standard input; without it `HOOKMILL_TOKEN` or `HOOKMILL_TOKEN_FILE`
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM of the authorities to trust in place of the common ones
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Do not try whether the server answers
    #[arg(long)]
    untried: bool,
}

const ADD_EXAMPLES: &str = "\
Examples:
  hookmill context add prod --url https://hooks.example.com:8081 \\
    --token-file token.txt
  pass show hookmill/prod | hookmill context add prod \\
    --url https://hooks.example.com:8081 --token-file -
  hookmill context add lab --url https://10.0.0.7:8081 --ca lab-ca.pem \\
    --token-file token.txt";

/// A name is a key of the file and is typed a lot.
const NAME_CHARS_MAX: usize = 64;
/// Long enough for a server far away.
const TRY_WAIT_MAX: Duration = Duration::from_secs(15);

pub(super) fn run(args: ContextArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        ContextCommand::Add(args) => add(args)?,
        ContextCommand::Use { name } => {
            Contexts::change(|contexts| {
                contexts.known(&name)?;
                contexts.current = Some(name.clone());
                Ok(())
            })?;
            print(format!("{name} is in use\n"))?;
        }
        ContextCommand::List(output) => list(output)?,
        ContextCommand::Remove { name } => {
            Contexts::change(|contexts| {
                contexts.known(&name)?;
                contexts.contexts.remove(&name);
                contexts.current.take_if(|current| *current == name);
                Ok(())
            })?;
            print(format!("{name} is forgotten\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn add(args: AddArgs) -> anyhow::Result<()> {
    let is_name = |text: &str| text.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.'));
    if args.name.is_empty() || args.name.len() > NAME_CHARS_MAX || !is_name(&args.name) {
        return Err(UsageError::new(format!(
            "`{}` is no name; take up to {NAME_CHARS_MAX} letters, digits, `-`, `_` and `.`",
            args.name
        )));
    }
    let url = server_url(&args.url).map_err(UsageError::new)?;
    let token = match &args.token_file {
        Some(file) => Some(read_secret(file)?),
        None => given_token()?,
    };
    let token = token.ok_or_else(|| {
        UsageError::new("the server's token is needed: `--token-file FILE` (`-` is standard input), or HOOKMILL_TOKEN")
    })?;
    let ca_file = args.ca.as_deref().map(std::path::absolute).transpose().context("the path of `--ca`")?;
    let authorities = ca_file.as_deref().map(read_authorities).transpose()?;
    if is_in_clear(&url) {
        super::note(format_args!("warning: {url} is not https, so its token travels in clear"));
    }
    let text = token.expose_str().context("the token is not text")?.to_owned();
    if !args.untried {
        let server = Server { url: url.clone(), token, authorities };
        let client = Client::new(&server, TRY_WAIT_MAX)?;
        one_thread()?.block_on(client.json(Call::get("/integrations").with("limit", "1")))?;
    }
    let name = args.name.clone();
    Contexts::change(|contexts| {
        contexts.contexts.insert(args.name.clone(), Stored { url, token: text.into(), ca_file });
        // The first one is the one to use.
        contexts.current.get_or_insert(args.name);
        Ok(())
    })?;
    print(format!("{name} is known\n"))
}

fn list(output: OutputArgs) -> anyhow::Result<()> {
    const COLUMNS: &[Column] = &[
        Column::new("IN USE", "/in_use", How::Text),
        Column::new("NAME", "/name", How::Text),
        Column::new("URL", "/url", How::Text),
    ];
    let Contexts { current, contexts } = Contexts::load()?;
    let items = contexts.into_iter().map(
        |(name, stored)| json!({"in_use": current.as_deref() == Some(name.as_str()), "name": name, "url": stored.url}),
    );
    output.list(&items.collect::<Vec<_>>(), None, COLUMNS)
}
