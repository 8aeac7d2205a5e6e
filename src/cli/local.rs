//! Where commands about a store work: at a server, named as for every other command; or in a data directory, whose
//! server is asked where one runs, and in which they do it themselves where none does; the store's lock tells which.

use std::{
    io::{self, Read},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::time::timeout;

use super::{
    UsageError,
    client::{ApiError, Call, Client},
    context::ServerArgs,
    one_thread,
};
use crate::{
    settings::{Overrides, Settings, SettingsSources, process_environment},
    storage::{OpenError, StoreDir},
};

/// Whose store.
#[derive(Clone, Debug, Args)]
pub(super) struct StoreArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Settings file (TOML) of the data folder's server; it must exist
    #[arg(long, value_name = "FILE", conflicts_with_all = ["context", "url"])]
    config: Option<PathBuf>,
    /// Where the data folder's server listens, if not where it says
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["context", "url"])]
    admin: Option<SocketAddr>,
}

/// Who works in a store.
pub(super) enum Place {
    /// Nobody ever did.
    Empty(Settings),
    /// Nobody now: it is ours until the handle is dropped.
    Stopped(Settings, StoreDir),
    /// A server, which is to be asked; with its settings where its data directory is here.
    Served(Box<RunningServer>, Option<Settings>),
}

impl Place {
    /// Of a data directory that is here.
    pub(super) fn settings(&self) -> Option<&Settings> {
        match self {
            Self::Empty(settings) | Self::Stopped(settings, _) => Some(settings),
            Self::Served(_, settings) => settings.as_ref(),
        }
    }
}

impl StoreArgs {
    /// Where the store is. A data directory is meant where a flag is about one, or where nothing names a server.
    pub(super) fn place(&self) -> anyhow::Result<Place> {
        if !self.names_data_dir()
            && let Some(server) = self.server.named()?
        {
            let client = self.server.client_of(server)?;
            return Ok(Place::Served(Box::new(RunningServer { client, wait_max: self.server.wait_max() }), None));
        }
        let settings = self.settings()?;
        let dir = settings.store_dir();
        if !dir.join("FORMAT").try_exists().with_context(|| format!("cannot look into {}", dir.display()))? {
            return Ok(Place::Empty(settings));
        }
        match StoreDir::open(&dir) {
            Ok(dir) => Ok(Place::Stopped(settings, dir)),
            Err(OpenError::Locked { .. }) => {
                let server = self.server.local(&settings, self.admin)?.ok_or_else(|| {
                    UsageError::new(
                        "a server works in the data folder, which holds no admin token; give one with `--token-file`, or \
                         HOOKMILL_TOKEN",
                    )
                })?;
                let client = self.server.client_of(server)?;
                let server = RunningServer { client, wait_max: self.server.wait_max() };
                Ok(Place::Served(Box::new(server), Some(settings)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The settings of the data directory.
    pub(super) fn settings(&self) -> anyhow::Result<Settings> {
        let overrides = Overrides { data_dir: self.server.data_dir.clone(), admin: self.admin, ..Overrides::default() };
        let environment = process_environment()?;
        Ok(Settings::load(SettingsSources { config_file: self.config.clone(), environment, overrides })?)
    }

    fn names_data_dir(&self) -> bool {
        self.server.data_dir.is_some() || self.config.is_some() || self.admin.is_some()
    }
}

/// The admin API of a store's server.
pub(super) struct RunningServer {
    client: Client,
    wait_max: Duration,
}

impl RunningServer {
    /// A reply of any length, read as it comes. Blocks.
    pub(super) fn read(&self, path: &str) -> anyhow::Result<ReplyBody> {
        let runtime = one_thread()?;
        let body = runtime.block_on(self.client.stream(Call::get(path)))?;
        Ok(ReplyBody { runtime, body, chunk: Bytes::new(), wait_max: self.wait_max })
    }

    /// The reply's JSON. Blocks.
    pub(super) fn json(&self, call: Call) -> anyhow::Result<Value> {
        let reply: Result<Value, ApiError> = one_thread()?.block_on(self.client.json(call));
        Ok(reply?)
    }
}

/// A reply that is read as it comes.
pub(super) struct ReplyBody {
    runtime: tokio::runtime::Runtime,
    body: hyper::body::Incoming,
    chunk: Bytes,
    wait_max: Duration,
}

impl Read for ReplyBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let frame = self.runtime.block_on(async { timeout(self.wait_max, self.body.frame()).await });
            match frame.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))? {
                Some(frame) => self.chunk = frame.map_err(io::Error::other)?.into_data().unwrap_or_default(),
                None => return Ok(0),
            }
        }
        let part = self.chunk.split_to(buffer.len().min(self.chunk.len()));
        buffer[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}
