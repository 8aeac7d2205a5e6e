//! `hookmill keys`: the key ring of a server, or of a data directory in which none works. No key is ever shown.

mod view;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::AtomicBool,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use self::view::{number, rotation_line, table};
use super::{
    UsageError,
    client::Call,
    local::{Place, RunningServer, StoreArgs},
    print,
    verify::now_ms,
};
use crate::{
    admin::{KeysView, rotation_json},
    keys::{KeyKeeper, Rotation, RotationState},
    secrets::{KeyId, KeyRing, KeyRingError, KeySource, KeyVariables, LiveRing, RingChangeError, forbid_core_dumps},
    settings::Settings,
    storage::{StoreDir, sled_config::SledConfig, sled_db::StateDb},
};

/// Who did it, in the audit log.
const AUTHOR: &str = "command line";
/// How often a running server is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// The key ring: what the stored secrets are sealed with.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

const EXAMPLES: &str = "\
Examples:
  hookmill keys list --sealed        # and what is sealed with each
  hookmill keys rotate               # a new key seals everything again
  hookmill keys retire 5f0c21aa      # forget one that seals nothing
  hookmill keys list --context prod  # of a server on another machine

A server does it, and goes on serving meanwhile: the one that a flag, the environment or a context names, or that of \
the data folder. Where none runs in the data folder, the command works on its files.";

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Show the keys: id, state, age; and how far a rotation is
    List(ListArgs),
    /// Add a key that opens and does not seal, or the keys of an older copy of the ring
    Add(AddArgs),
    /// Seal everything again with a new key, or with one that was added
    Rotate(RotateArgs),
    /// Forget a key that nothing is sealed with
    Retire(RetireArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  hookmill keys list\n  hookmill keys list --sealed --json")]
struct ListArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Count what is sealed with each key; looks at everything that is configured, old versions too
    #[arg(long)]
    sealed: bool,
    /// JSON, as the admin API has it
    #[arg(long)]
    json: bool,
}

const ADD_EXAMPLES: &str = "\
Examples:
  hookmill keys add                         # then `keys rotate --to ID`
  hookmill keys add --from old-keys.toml    # to read an older backup
  hookmill keys add --output new-keys.toml  # for HOOKMILL_KEYRING";

#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
struct AddArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Add the keys of this ring (mode 0600) instead of a new one
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Change nothing; write the ring with a new primary into this file, which must not exist
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    output: Option<PathBuf>,
}

const ROTATE_EXAMPLES: &str = "\
Examples:
  hookmill keys rotate
  hookmill keys rotate --to 5f0c21aa --no-wait

Old and new key both open meanwhile. Interrupted at any point, it goes on at the next start, or when it is asked for \
again. Then copy the ring, and `retire` the old key.";

#[derive(Debug, Args)]
#[command(after_help = ROTATE_EXAMPLES)]
struct RotateArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// A key of the ring in place of a new one
    #[arg(long, value_name = "ID")]
    to: Option<KeyId>,
    /// Return as soon as a running server has begun
    #[arg(long)]
    no_wait: bool,
    /// JSON, as the admin API has it
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  hookmill keys retire 5f0c21aa")]
struct RetireArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The key
    #[arg(value_name = "ID")]
    id: KeyId,
}

pub(super) fn run(args: &KeysArgs) -> anyhow::Result<ExitCode> {
    if let Err(error) = forbid_core_dumps() {
        tracing::warn!(%error, "core dumps could not be switched off; one would hold keys");
    }
    match &args.command {
        KeysCommand::List(args) => list(args)?,
        KeysCommand::Add(args) => add(args)?,
        KeysCommand::Rotate(args) => return rotate(args),
        KeysCommand::Retire(args) => retire(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let ring = match args.store.place()? {
        Place::Served(server, _) => server.json(Call::get("/keys").with("sealed", args.sealed.to_string()))?,
        Place::Stopped(settings, dir) => {
            let keeper = keeper(&settings, &dir)?;
            let rotation = keeper.rotation().zip(keeper.rotation_state());
            let source = keeper.ring().source().to_string();
            KeysView { source, keys: keeper.list(args.sealed)?, rotation }.into_json()
        }
        Place::Empty(settings) => {
            let source = source(&settings)?;
            let ring = source.read()?.with_context(|| {
                format!(
                    "there is neither a store in {} nor a key ring; the first start makes both. `--data-dir` names the \
                     folder of a server that was started elsewhere",
                    settings.data_dir.display()
                )
            })?;
            let keys = ring.infos().into_iter().map(|info| crate::keys::KeyReport { info, holdings: None }).collect();
            KeysView { source: source.to_string(), keys, rotation: None }.into_json()
        }
    };
    if args.json { print(format_args!("{ring:#}\n")) } else { print(table(&ring)) }
}

fn add(args: &AddArgs) -> anyhow::Result<()> {
    if let Some(output) = &args.output {
        return write_next(&source(&args.store.settings()?)?, output);
    }
    let place = args.store.place()?;
    if let Some(from) = &args.from {
        let source = source(place.settings().ok_or_else(|| {
            UsageError::new(
                "the keys of `--from` go into the ring's file, which is beside the server: type it there, with \
                 `--data-dir`",
            )
        })?)?;
        let other = KeySource::File(from.clone()).read()?.with_context(|| format!("{} is absent", from.display()))?;
        let added = source.update(|ring| Ok::<_, Change>(ring.with_keys_of(&other)?)).map_err(Change::into_error)?;
        let added = added.with_context(|| format!("the ring comes from {source}, which hookmill cannot write"))?;
        if let Place::Served(server, _) = place {
            server
                .json(Call::new(Method::POST, "/keys/reload"))
                .context("the keys are in the file, but the server did not take them")?;
        }
        let ids: Vec<String> = added.iter().map(KeyId::to_string).collect();
        let ids = if ids.is_empty() { "nothing that was not there".to_owned() } else { ids.join(", ") };
        return print(format_args!("added {ids}\n"));
    }
    let id = match place {
        Place::Served(server, _) => {
            server.json(Call::new(Method::POST, "/keys"))?["id"].as_str().unwrap_or("?").to_owned()
        }
        Place::Stopped(settings, dir) => keeper(&settings, &dir)?.add(now_ms())?.to_string(),
        Place::Empty(_) => bail!("there is no store yet; the first start makes one with a key of its own"),
    };
    print(format_args!("added {id}; it seals once `hookmill keys rotate --to {id}` was typed\n"))
}

/// The ring with a new primary, in a file of its own: for a source that somebody else writes.
fn write_next(source: &KeySource, output: &Path) -> anyhow::Result<()> {
    let ring = match source.read()? {
        Some(ring) => {
            let (ring, id) = ring.with_new_key(now_ms())?;
            ring.with_primary(id)?
        }
        None => KeyRing::generate(now_ms()),
    };
    ring.write_new(output)?;
    print(format_args!(
        "{} has key {} as its primary\nnext: put it where the ring comes from, then `hookmill keys rotate`\n",
        output.display(),
        ring.primary_id()
    ))
}

fn rotate(args: &RotateArgs) -> anyhow::Result<ExitCode> {
    let rotation = match args.store.place()? {
        Place::Served(server, _) => {
            let body = args.to.map_or_else(|| json!({}), |to| json!({ "to": to }));
            let begun = server.json(Call::post("/keys/rotate", body))?;
            if args.no_wait { begun } else { watched(&server)? }
        }
        Place::Stopped(settings, dir) => {
            let keeper = keeper(&settings, &dir)?;
            keeper.begin_rotation(args.to, AUTHOR, now_ms())?;
            let bar = bar();
            let told = |rotation: &Rotation| show(&bar, rotation.changes_done, rotation.changes_total);
            let state = keeper.run_rotation(&AtomicBool::new(false), now_ms, told)?;
            bar.finish_and_clear();
            rotation_json(keeper.rotation().context("the rotation is not there")?, state)
        }
        Place::Empty(_) => bail!("there is no store yet; the first start makes one with a key of its own"),
    };
    if args.json {
        print(format_args!("{rotation:#}\n"))?;
    } else {
        print(format_args!("{}\n", rotation_line(&rotation)))?;
    }
    let failed = rotation["failure"].is_string() || rotation["state"] == json!(RotationState::Interrupted);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Asks a running server until it is done; an interruption of this command stops nothing there.
fn watched(server: &RunningServer) -> anyhow::Result<Value> {
    let bar = bar();
    loop {
        let rotation = server.json(Call::get("/keys"))?["rotation"].clone();
        show(&bar, number(&rotation["changes_done"]), number(&rotation["changes_total"]));
        if rotation["state"] != json!(RotationState::Running) {
            bar.finish_and_clear();
            return Ok(rotation);
        }
        std::thread::sleep(ASK_EVERY);
    }
}

fn retire(args: &RetireArgs) -> anyhow::Result<()> {
    let note = match args.store.place()? {
        Place::Served(server, _) => {
            let retired = server.json(Call::new(Method::POST, format!("/keys/{}/retire", args.id)))?;
            retired["note"].as_str().map(str::to_owned)
        }
        Place::Stopped(settings, dir) => keeper(&settings, &dir)?.retire(args.id, now_ms())?.note,
        Place::Empty(_) => bail!("there is no store yet"),
    };
    match note {
        Some(note) => print(format_args!("{note}\n")),
        None => print(format_args!("retired {}; older backups need a copy of the ring that still has it\n", args.id)),
    }
}

fn source(settings: &Settings) -> anyhow::Result<KeySource> {
    Ok(KeySource::choose(&settings.data_dir, &settings.secrets, KeyVariables::of_process())?)
}

/// The keys of a store that nobody works in; `_dir` is its lock.
fn keeper(settings: &Settings, dir: &StoreDir) -> anyhow::Result<KeyKeeper> {
    let source = source(settings)?;
    let ring = source.open_or_create(true, now_ms())?;
    let db = StateDb::open(&dir.state_path(), settings.log.state_cache_bytes)?;
    let config = SledConfig::open(db)?;
    Ok(KeyKeeper::open(LiveRing::new(ring, source).into(), config.into())?)
}

/// Why a ring's file did not change.
enum Change {
    Ring(RingChangeError),
    Source(KeyRingError),
}

impl From<RingChangeError> for Change {
    fn from(error: RingChangeError) -> Self {
        Self::Ring(error)
    }
}

impl From<KeyRingError> for Change {
    fn from(error: KeyRingError) -> Self {
        Self::Source(error)
    }
}

impl Change {
    fn into_error(self) -> anyhow::Error {
        match self {
            Self::Ring(error) => error.into(),
            Self::Source(error) => error.into(),
        }
    }
}

/// Shown on a terminal only.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("sealing again {wide_bar} {pos}/{len} changes {eta}");
    let bar = ProgressBar::new(0);
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done);
}
