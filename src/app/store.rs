//! Opening and closing the embedded store with the key ring that fits it.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use hookmill_actors::ports::{clock::Clock, event_log::CommitListener};

use crate::{
    admin::ENDPOINT_BODY_BYTES_MAX,
    cli::ServeOptions,
    keys::KeyKeeper,
    secrets::{KeySource, KeyVariables, LiveRing},
    settings::Settings,
    storage::{
        LogOptions, SegmentLog, StoreDir, quarantine, sled_config::SledConfig, sled_db::StateDb, sled_state::SledState,
    },
};

/// Everything that is on disk, open.
pub(super) struct Store {
    pub(super) log: Arc<SegmentLog>,
    pub(super) state: Arc<SledState>,
    pub(super) config: Arc<SledConfig>,
    pub(super) keys: Arc<KeyKeeper>,
}

impl Store {
    /// Commits what is queued and syncs.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.log.close().await.context("the event log did not close cleanly")
    }
}

/// Headers, query and envelope of a record beside its body.
const RECORD_HEAD_BYTES_MAX: usize = 1 << 20;

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
        let source = KeySource::choose(&data_dir, &settings.secrets, KeyVariables::of_process())?;
        let ring = Arc::new(LiveRing::new(source.open_or_create(store_exists, clock.now_ms())?, source));
        match open_in(&settings, &dir, ring.clone(), listener.clone(), clock.clone()) {
            Err(Opening::Store(error)) if options.start_empty => {
                let aside = quarantine(&dir, clock.now_ms()).context("the store could not be set aside")?;
                tracing::error!(
                    error = format!("{error:#}"),
                    kept_in = %aside.display(),
                    "the store could not be opened; it is set aside, and an empty one takes its place"
                );
                open_in(&settings, &dir, ring, listener, clock).map_err(Opening::into_error)
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
    ring: Arc<LiveRing>,
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
    let keys = KeyKeeper::open(ring, config.clone()).map_err(|error| Opening::Other(error.into()))?;
    let options = LogOptions {
        segment_bytes: settings.log.segment_bytes,
        queue_events: settings.log.queue_events,
        queue_bytes: settings.log.queue_bytes,
        reserve_bytes: settings.log.reserve_bytes,
        stall_limit: settings.log.stall_limit,
        record_bytes_max: (ENDPOINT_BODY_BYTES_MAX as usize).max(settings.ingress.body_bytes_max)
            + RECORD_HEAD_BYTES_MAX,
        ..LogOptions::default()
    };
    let log =
        SegmentLog::open(options, store_dir, state.clone(), listener, clock).map_err(|error| store(error.into()))?;
    Ok(Store { log, state, config, keys: Arc::new(keys) })
}
