//! The server of a data directory: whether there is one, and how it is asked. Commands that work on the directory ask
//! the server where one runs, and do it themselves where none does; the store's lock tells which.

use std::{
    io::{self, Read},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use hookmill_actors::domain::secret::Secret;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Uri, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::time::timeout;

use super::verify::read_secret;
use crate::{
    secrets::{AdminToken, admin_token_file},
    settings::Settings,
    storage::{OpenError, StoreDir},
};

const REPLY_WAIT_MAX: Duration = Duration::from_secs(60);
const REPLY_BYTES_MAX: usize = 16 << 20;

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
    authority: String,
    token: Secret,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl LocalServer {
    /// Where the settings say, with the data directory's admin token or the preset one.
    pub(super) fn of(settings: &Settings) -> anyhow::Result<Self> {
        let address = settings.admin.address;
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let token = match AdminToken::preset_from_environment() {
            Some(token) => token,
            None => read_secret(&admin_token_file(&settings.data_dir))
                .context("the admin token is needed to talk to the running server")?,
        };
        let authority = std::net::SocketAddr::new(ip, address.port()).to_string();
        Ok(Self { authority, token, client: Client::builder(TokioExecutor::new()).build_http() })
    }

    /// A reply of any length, read as it comes. Blocks; a refusal is an error with its own words.
    pub(super) fn read(&self, path: &str) -> anyhow::Result<ReplyBody> {
        let runtime = super::one_thread()?;
        let begun = async {
            let reply = timeout(REPLY_WAIT_MAX, self.client.request(self.request(Method::GET, path, None)?)).await;
            let reply = reply.context("no reply in time")?.with_context(|| self.asked())?;
            if reply.status().is_success() {
                return Ok(reply.into_body());
            }
            let status = reply.status();
            let body = Limited::new(reply.into_body(), REPLY_BYTES_MAX).collect().await;
            Err(refusal(status, &body.map(http_body_util::Collected::to_bytes).unwrap_or_default()))
        };
        let body = runtime.block_on(begun)?;
        Ok(ReplyBody { runtime, body, chunk: Bytes::new() })
    }

    /// The reply's JSON; a refusal is an error with its own words.
    pub(super) async fn json(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let request = self.request(method, path, body)?;
        let exchange = async {
            let reply = self.client.request(request).await?;
            let status = reply.status();
            let body = Limited::new(reply.into_body(), REPLY_BYTES_MAX).collect().await;
            anyhow::Ok((status, body.map_err(anyhow::Error::from_boxed)?.to_bytes()))
        };
        let exchange = timeout(REPLY_WAIT_MAX, exchange).await.context("no reply in time").flatten();
        let (status, body) = exchange.with_context(|| self.asked())?;
        if status.is_success() {
            return Ok(serde_json::from_slice(&body).unwrap_or(Value::Null));
        }
        Err(refusal(status, &body))
    }

    fn request(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Request<Full<Bytes>>> {
        let uri: Uri = format!("http://{}/api/v1{path}", self.authority).parse().context("the path makes no URL")?;
        let bearer = [b"Bearer ", self.token.expose()].concat();
        let mut bearer =
            header::HeaderValue::from_bytes(&bearer).context("the admin token holds characters that cannot be sent")?;
        bearer.set_sensitive(true);
        Request::builder()
            .method(method)
            .uri(uri)
            .header(header::AUTHORIZATION, bearer)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.map(|body| body.to_string()).unwrap_or_default()))
            .context("this makes no request")
    }

    fn asked(&self) -> String {
        format!(
            "a server works in the data directory, and its admin API was asked at {} (setting `admin.address`)",
            self.authority
        )
    }
}

fn refusal(status: hyper::StatusCode, body: &[u8]) -> anyhow::Error {
    let reply: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    match reply["detail"].as_str() {
        Some(detail) => anyhow!("the server refused: {detail}"),
        None => anyhow!("the server answered {status}"),
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
