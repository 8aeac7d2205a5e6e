//! The two servers hookmill is measured with, each a process of its own: `bare`, the least that hyper can do with a
//! webhook, which is what hookmill's accepts are compared to; and `sink`, where hookmill delivers to, which counts.
//!
//! Both end when their stdin does, so that none outlives the program that started it.

use std::{
    collections::HashSet,
    convert::Infallible,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    io::Read as _,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpListener, sync::watch};

use crate::{histogram::Histogram, load::wall_us, wire::sent_us};

/// As long as hookmill's own.
const ACCEPTED: &[u8] = br#"{"status":"success","event_id":"00000000-0000-7000-8000-000000000000"}"#;

/// Requests to this path are answered only once `GET /release` was asked for.
pub(crate) const HELD: &str = "/held";

/// Where to listen.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// Address and port.
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Single-threaded runtimes that share the port.
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
}

/// What a sink has seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Count {
    /// Requests.
    pub(crate) requests: u64,
    /// Different `webhook-id`s among them.
    pub(crate) distinct: u64,
    /// Requests without a `webhook-id`.
    pub(crate) without_id: u64,
    /// Different `webhook-id`s that came to [`HELD`], which are not among the others.
    pub(crate) held: u64,
    /// Microseconds from the time of sending in the body until it was here, of each id's first delivery.
    pub(crate) latency: Histogram,
}

/// Reads each request whole and answers 200.
pub(crate) fn bare(args: &ServerArgs) -> Result<()> {
    serve(args, async |request: Request<Incoming>| match request.into_body().collect().await {
        Ok(_) => reply(200, Bytes::from_static(ACCEPTED)),
        Err(_) => reply(400, Bytes::new()),
    })
}

/// Counts deliveries; `GET /count` tells them as JSON.
pub(crate) fn sink(args: &ServerArgs) -> Result<()> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let released = Arc::new(watch::Sender::new(false));
    serve(args, move |request: Request<Incoming>| {
        let (seen, released) = (Arc::clone(&seen), Arc::clone(&released));
        async move {
            if request.method() == Method::GET {
                if request.uri().path() == "/release" {
                    released.send_replace(true);
                }
                let count = seen.lock().unwrap_or_else(PoisonError::into_inner).count.clone();
                return reply(200, Bytes::from(serde_json::to_vec(&count).unwrap_or_default()));
            }
            let id = request.headers().get("webhook-id").map(|value| fold_id(value.as_bytes()));
            let held = request.uri().path() == HELD;
            let Ok(body) = request.into_body().collect().await else { return reply(400, Bytes::new()) };
            if held {
                let _ = released.subscribe().wait_for(|released| *released).await;
                seen.lock().unwrap_or_else(PoisonError::into_inner).take_held(id);
                return reply(200, Bytes::from_static(b"{}"));
            }
            let took = sent_us(&body.to_bytes()).map(|sent| wall_us().saturating_sub(sent));
            seen.lock().unwrap_or_else(PoisonError::into_inner).take(id, took);
            reply(200, Bytes::from_static(b"{}"))
        }
    })
}

#[derive(Default)]
struct Seen {
    ids: HashSet<u128>,
    held: HashSet<u128>,
    count: Count,
}

impl Seen {
    fn take_held(&mut self, id: Option<u128>) {
        self.count.held += u64::from(id.is_some_and(|id| self.held.insert(id)));
    }

    fn take(&mut self, id: Option<u128>, took_us: Option<u64>) {
        self.count.requests += 1;
        self.count.without_id += u64::from(id.is_none());
        let first = id.is_some_and(|id| self.ids.insert(id));
        if first {
            self.count.distinct += 1;
            if let Some(took_us) = took_us {
                self.count.latency.record(took_us);
            }
        }
    }
}

/// An id in 16 bytes, so that millions of them fit: a UUID as it is, anything else hashed twice.
fn fold_id(id: &[u8]) -> u128 {
    let mut digits = [0; 32];
    let without_hyphens = id.iter().filter(|byte| **byte != b'-');
    let mut bytes = [0; 16];
    if without_hyphens.clone().count() == 32 {
        digits.iter_mut().zip(without_hyphens).for_each(|(digit, byte)| *digit = *byte);
        if hex::decode_to_slice(digits, &mut bytes).is_ok() {
            return u128::from_be_bytes(bytes);
        }
    }
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    (u128::from(hasher.hash_one((0, id))) << 64) | u128::from(hasher.hash_one((1, id)))
}

fn reply(status: u16, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// As hookmill's ingress is built: single-threaded runtimes, each with a socket of its own on the same port.
fn serve<H, F>(args: &ServerArgs, handler: H) -> Result<()>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    thread::spawn(|| {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let workers: Vec<_> = (0..args.threads.max(1))
        .map(|_| {
            let (listener, handler) = (listen(args.listen)?, handler.clone());
            Ok(thread::spawn(move || accept(listener, &handler)))
        })
        .collect::<Result<_>>()?;
    for worker in workers {
        worker.join().map_err(|_| anyhow!("a server thread panicked"))??;
    }
    Ok(())
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into()).with_context(|| format!("cannot listen on {address}"))?;
    socket.listen(1_024)?;
    Ok(socket.into())
}

fn accept<H, F>(listener: std::net::TcpListener, handler: &H) -> Result<()>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            stream.set_nodelay(true)?;
            let handler = handler.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let replied = handler(request);
                    async move { Ok::<_, Infallible>(replied.await) }
                });
                // No deadline for the head: the bare server shall do nothing that is not the request's own.
                let mut builder = http1::Builder::new();
                builder.header_read_timeout(None);
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_fold_to_different_numbers() {
        let uuid = b"019ab3f0-0000-7000-8000-000000010000";
        assert_eq!(fold_id(uuid), 0x019a_b3f0_0000_7000_8000_0000_0001_0000);
        let others: HashSet<u128> =
            [&b"msg_1"[..], b"msg_2", b"", b"zz9ab3f0-0000-7000-8000-000000010000", uuid].map(fold_id).into();
        assert_eq!(others.len(), 5);
    }

    #[test]
    fn a_second_delivery_is_counted_but_not_distinct() {
        let mut seen = Seen::default();
        seen.take(Some(1), Some(10));
        seen.take(Some(1), Some(5_000));
        seen.take(Some(2), Some(20));
        seen.take(None, Some(30));
        let count = seen.count;
        assert_eq!((count.requests, count.distinct, count.without_id), (4, 2, 1));
        assert_eq!((count.latency.count(), count.latency.max()), (2, 20));
    }
}
