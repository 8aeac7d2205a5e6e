//! The operator's side of the demo: one small HTTP service with a healthy path and one that is down for a while.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The path that always works.
pub(super) const STEADY: &str = "/orders";
/// The path that is down for a while.
pub(super) const SHAKY: &str = "/ledger";

/// The running service; it ends with the process.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    down: AtomicBool,
    steady: AtomicU64,
    shaky: AtomicU64,
    refused: AtomicU64,
}

impl Service {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port for the demo's service")?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = shared.clone();
                let service = service_fn(move |request| answer(seen.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { address, seen })
    }

    pub(super) fn set_down(&self, down: bool) {
        self.seen.down.store(down, Relaxed);
    }

    pub(super) fn is_down(&self) -> bool {
        self.seen.down.load(Relaxed)
    }

    /// Deliveries it took on the steady path, took on the shaky one, and refused.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        (self.seen.steady.load(Relaxed), self.seen.shaky.load(Relaxed), self.seen.refused.load(Relaxed))
    }
}

async fn answer(seen: Arc<Seen>, request: Request<hyper::body::Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
    let shaky = request.uri().path() == SHAKY;
    request.into_body().collect().await?;
    let (counter, status) = match (shaky, seen.down.load(Relaxed)) {
        (true, true) => (&seen.refused, StatusCode::SERVICE_UNAVAILABLE),
        (true, false) => (&seen.shaky, StatusCode::NO_CONTENT),
        (false, _) => (&seen.steady, StatusCode::NO_CONTENT),
    };
    counter.fetch_add(1, Relaxed);
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    Ok(response)
}
