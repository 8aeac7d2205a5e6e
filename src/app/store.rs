//! Opening and closing the embedded store with the key ring that fits it.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use hookmill_actors::ports::{clock::Clock, event_log::CommitListener};

use crate::{
    admin::ENDPOINT_BODY_BYTES_MAX,
    cli::ServeOptions,
    secrets::{KeyRing, key_file_path},
    settings::{KEY_FILE_VARIABLE, Settings},
    storage::{
        LogOptions, SegmentLog, StoreDir, quarantine, sled_config::SledConfig, sled_db::StateDb, sled_state::SledState,
    },
};

/// Everything that is on disk, open.
pub(super) struct Store {
    pub(super) log: Arc<SegmentLog>,
    pub(super) state: Arc<SledState>,
    pub(super) config: Arc<SledConfig>,
    pub(super) keys: Arc<KeyRing>,
}

impl Store {
    /// Commits what is queued and syncs.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.log.close().await.context("the event log did not close cleanly")
    }
}

/// Headers, query and envelope of a record beside its body.
const RECORD_HEAD_BYTES_MAX: usize = 1 << 20;

/// The name under which the store keeps what tells whether a key ring is its own.
const KEY_CHECK: &str = "key-check";

/// Opens the store, or makes it where there is none. A store that cannot be opened is set aside only when `options`
/// say so; nothing is ever deleted.
pub(super) async fn open(
    settings: &Settings,
    data_dir: &Path,
    options: ServeOptions,
    listener: Arc<dyn CommitListener>,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Store> {
    let (settings, data_dir) = (settings.clone(), data_dir.to_owned());
    tokio::task::spawn_blocking(move || {
        let dir = settings.store_dir();
        let store_exists = dir.join("FORMAT").exists();
        let variable = std::env::var_os(KEY_FILE_VARIABLE).map(Into::into);
        let keys = Arc::new(KeyRing::open_or_create(&key_file_path(&data_dir, variable), store_exists)?);
        match open_in(&settings, &dir, keys.clone(), listener.clone(), clock.clone()) {
            Err(Opening::Store(error)) if options.start_empty => {
                let aside = quarantine(&dir, clock.now_ms()).context("the store could not be set aside")?;
                tracing::error!(
                    error = format!("{error:#}"),
                    kept_in = %aside.display(),
                    "the store could not be opened; it is set aside, and an empty one takes its place"
                );
                open_in(&settings, &dir, keys, listener, clock).map_err(Opening::into_error)
            }
            opened => opened.map_err(Opening::into_error),
        }
    })
    .await
    .context("opening the store was cut off")?
}

/// What kept the store from opening.
enum Opening {
    /// The files themselves.
    Store(anyhow::Error),
    /// The files are whole; setting them aside would help nobody.
    Other(anyhow::Error),
}

impl Opening {
    fn into_error(self) -> anyhow::Error {
        match self {
            Self::Store(error) => error.context(
                "the store cannot be opened and nothing was changed; restore a copy, or start with --start-empty, \
                 which sets it aside (it is kept) and begins with an empty one",
            ),
            Self::Other(error) => error,
        }
    }
}

fn open_in(
    settings: &Settings,
    dir: &Path,
    keys: Arc<KeyRing>,
    listener: Arc<dyn CommitListener>,
    clock: Arc<dyn Clock>,
) -> Result<Store, Opening> {
    let store = |error: anyhow::Error| Opening::Store(error);
    let store_dir = StoreDir::open(dir).map_err(|error| match error {
        locked @ crate::storage::OpenError::Locked { .. } => Opening::Other(locked.into()),
        error => Opening::Store(error.into()),
    })?;
    let db =
        StateDb::open(&store_dir.state_path(), settings.log.state_cache_bytes).map_err(|error| store(error.into()))?;
    let state = Arc::new(SledState::open(db.clone()).map_err(|error| store(error.into()))?);
    let config = Arc::new(SledConfig::open(db).map_err(|error| store(error.into()))?);
    check_keys(&config, &keys).map_err(Opening::Other)?;
    let options = LogOptions {
        segment_bytes: settings.log.segment_bytes,
        queue_events: settings.log.queue_events,
        queue_bytes: settings.log.queue_bytes,
        reserve_bytes: settings.log.reserve_bytes,
        record_bytes_max: (ENDPOINT_BODY_BYTES_MAX as usize).max(settings.ingress.body_bytes_max)
            + RECORD_HEAD_BYTES_MAX,
        ..LogOptions::default()
    };
    let log =
        SegmentLog::open(options, store_dir, state.clone(), listener, clock).map_err(|error| store(error.into()))?;
    Ok(Store { log, state, config, keys })
}

/// A ring that is not the one this store was sealed with would make every credential unreadable: say so at once.
fn check_keys(config: &SledConfig, keys: &KeyRing) -> anyhow::Result<()> {
    match config.meta_get(KEY_CHECK)? {
        None => config.meta_put(KEY_CHECK, keys.check_value().as_bytes())?,
        Some(stored) => match std::str::from_utf8(&stored) {
            Ok(stored) => keys.verify_check(stored)?,
            Err(_) => bail!("the store's key check is not text; the store is damaged"),
        },
    }
    Ok(())
}
