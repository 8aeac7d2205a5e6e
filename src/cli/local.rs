//! The server of a data directory: whether there is one, and how it is asked. Commands that work on the directory ask
//! the server where one runs, and do it themselves where none does; the store's lock tells which.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Method;
use serde_json::Value;
use tokio::time::timeout;

use super::{
    client::{ApiError, Call, Client, Server},
    verify::read_secret,
};
use crate::{
    secrets::{AdminToken, admin_token_file},
    settings::Settings,
    storage::{OpenError, StoreDir},
};

const REPLY_WAIT_MAX: Duration = Duration::from_secs(60);

/// Who works in a data directory.
pub(super) enum DataDir {
    /// Nobody ever did.
    Empty,
    /// Nobody now: it is ours until the handle is dropped.
    Stopped(StoreDir),
    /// A server, which is to be asked.
    Served(Box<LocalServer>),
}

impl DataDir {
    pub(super) fn look(settings: &Settings) -> anyhow::Result<Self> {
        let dir = settings.store_dir();
        if !dir.join("FORMAT").try_exists().with_context(|| format!("cannot look into {}", dir.display()))? {
            return Ok(Self::Empty);
        }
        match StoreDir::open(&dir) {
            Ok(dir) => Ok(Self::Stopped(dir)),
            Err(OpenError::Locked { .. }) => Ok(Self::Served(Box::new(LocalServer::of(settings)?))),
            Err(error) => Err(error.into()),
        }
    }
}

/// A server's admin API, as this machine reaches it.
pub(super) struct LocalServer {
    address: SocketAddr,
    client: Client,
}

impl LocalServer {
    /// Where the settings say, with the data directory's admin token or the preset one.
    pub(super) fn of(settings: &Settings) -> anyhow::Result<Self> {
        let mut address = settings.admin.address;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        let token = match AdminToken::preset_from_environment() {
            Some(token) => token,
            None => read_secret(&admin_token_file(&settings.data_dir))
                .context("the admin token is needed to talk to the running server")?,
        };
        let server = Server { url: format!("http://{address}"), token, authorities: None };
        Ok(Self { address, client: Client::new(&server, REPLY_WAIT_MAX)? })
    }

    /// A reply of any length, read as it comes. Blocks; a refusal is an error with its own words.
    pub(super) fn read(&self, path: &str) -> anyhow::Result<ReplyBody> {
        let runtime = super::one_thread()?;
        let body = runtime.block_on(self.client.stream(Call::get(path))).map_err(|error| self.failed(error))?;
        Ok(ReplyBody { runtime, body, chunk: Bytes::new() })
    }

    /// The reply's JSON; a refusal is an error with its own words.
    pub(super) async fn json(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let call = Call { body, ..Call::new(method, path) };
        self.client.json(call).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: ApiError) -> anyhow::Error {
        let was_refused = matches!(error, ApiError::Refused(_));
        let error = anyhow::Error::from(error);
        if was_refused {
            return error;
        }
        error.context(format!(
            "a server works in the data directory, and its admin API was asked at {} (setting `admin.address`)",
            self.address
        ))
    }
}

/// A reply that is read as it comes.
pub(super) struct ReplyBody {
    runtime: tokio::runtime::Runtime,
    body: hyper::body::Incoming,
    chunk: Bytes,
}

impl Read for ReplyBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let frame = self.runtime.block_on(async { timeout(REPLY_WAIT_MAX, self.body.frame()).await });
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
