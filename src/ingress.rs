//! Takes webhooks in: hyper on a few single-threaded runtimes of its own, so that nothing the rest of hookmill does can
//! slow a reply. Reads the published configuration, hands events to the log, and answers 200 once they are on disk.
//! Owns its sockets and nothing else; a crash costs the connections that are open, whose senders try again.
//!
//! `listener` accepts, `connection` serves one peer, `wire` and `strict_http` refuse what is not clean HTTP, `accept`
//! is the way from a request to its 2xx.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use hookmill_actors::{
    domain::{
        headers::HeaderBlock,
        ids::{EndpointId, IntegrationId},
    },
    metrics::Counters,
    ports::{clock::Clock, event_log::EventLog},
    snapshot::Snapshot,
};
use tokio::{net::TcpListener, runtime, sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use body::InFlight;
use reply::{OnceASecond, Refusals};
use strict_http::HeadLimits;

mod accept;
mod body;
mod connection;
mod health;
mod listener;
mod path;
mod reply;
mod strict_http;
mod wire;

/// What an operator may turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressOptions {
    /// Where to listen. With port 0 the system chooses one.
    pub address: SocketAddr,
    /// Threads, each with its own listener; at least 1.
    pub threads: usize,
    /// Connections open at once, over all threads; one more is answered 503 and closed at once, so that its sender
    /// comes back: left unaccepted it would wait for a time-out of its own.
    pub connections_max: usize,
    /// Header lines of a request; more is a 431.
    pub header_count_max: usize,
    /// Bytes of a request's head, request line included; more is a 431.
    pub header_bytes_max: usize,
    /// Bytes of one header line; more is a 431.
    pub header_line_bytes_max: usize,
    /// Bytes of path and query; more is a 414.
    pub target_bytes_max: usize,
    /// Bytes of a body, where the endpoint says nothing else; more is a 413.
    pub body_bytes_max: usize,
    /// Bytes of all bodies that are being received or stored at once; more is a 503.
    pub body_bytes_in_flight_max: usize,
    /// How long a request's head may take from its first byte, and a new connection until its first byte.
    pub head_timeout: Duration,
    /// How long a request may take from the end of its head to the reply.
    pub request_timeout: Duration,
    /// How long a connection may rest between two requests.
    pub idle_timeout: Duration,
    /// Bytes a second that a body must come in on average, after its first second; less is a 408.
    pub body_rate_min: u32,
    /// A request that has passed so many hookmills is refused with 508.
    pub hops_max: u8,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Requests under way at once on one HTTP/2 connection.
    pub http2_streams_max: u32,
    /// Headers, in lower case, whose values are not stored; but for the one that an endpoint's settings name as that of
    /// its signature.
    pub redacted_headers: Vec<String>,
}

impl Default for IngressOptions {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            threads: thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS_DEFAULT_MAX)),
            connections_max: 10_000,
            header_count_max: 100,
            header_bytes_max: 32 * 1024,
            header_line_bytes_max: 8 * 1024,
            target_bytes_max: 4 * 1024,
            body_bytes_max: 1024 * 1024,
            body_bytes_in_flight_max: 64 * 1024 * 1024,
            head_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            body_rate_min: 1_000,
            hops_max: 5,
            drain_timeout: Duration::from_secs(8),
            http2_streams_max: 100,
            redacted_headers: Vec::new(),
        }
    }
}

/// The disk is the limit long before a third thread would help.
const THREADS_DEFAULT_MAX: usize = 2;
/// When draining, a connection without a request gets this share of the time to send one and hear that it must go
/// elsewhere: closing it at once would reset a request that is on its way.
const DRAIN_IDLE_SHARE: u32 = 8;

/// Whether webhooks can be stored now.
pub trait Readiness: Send + Sync {
    /// Why not, each in a few words for people; empty when ready. Must be cheap: probes ask every few seconds.
    fn reasons(&self) -> Vec<String>;
}

/// A request that was refused at a path that exists.
#[derive(Clone, Copy, Debug)]
pub struct RefusedRequest<'a> {
    /// Whose endpoint it is.
    pub integration: IntegrationId,
    /// Where it was sent to.
    pub endpoint: EndpointId,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// The code that its sender is told.
    pub cause: &'static str,
    /// Why, for the operator.
    pub reason: &'a str,
    /// The TCP peer.
    pub peer: IpAddr,
    /// Its method.
    pub method: &'a str,
    /// Path and query as sent.
    pub target: &'a str,
    /// Its header lines, without the values of those that are redacted.
    pub headers: &'a HeaderBlock,
    /// What was received of its body.
    pub body: &'a [u8],
    /// Whether that is all of it.
    pub body_whole: bool,
}

/// Hears of refused requests, save for those refused for load: their senders come again.
pub trait RefusedRequests: Send + Sync {
    /// Called before the reply, on the ingress' threads: must not block, and takes or leaves it.
    fn offer(&self, refused: &RefusedRequest<'_>);
}

/// Keeps none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgetful;

impl RefusedRequests for Forgetful {
    fn offer(&self, _: &RefusedRequest<'_>) {}
}

/// What the ingress needs of the rest.
#[derive(Clone)]
pub struct IngressPorts {
    /// The configuration in force.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where events go.
    pub log: Arc<dyn EventLog>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where requests are counted.
    pub counters: Arc<Counters>,
    /// What `/readyz` answers.
    pub readiness: Arc<dyn Readiness>,
    /// Who keeps what is refused.
    pub refused: Arc<dyn RefusedRequests>,
}

/// The running ingress. Dropping it begins a drain that nobody waits for.
#[derive(Debug)]
pub struct Ingress {
    address: SocketAddr,
    drain: Arc<Drain>,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    ended: oneshot::Receiver<()>,
    handle: thread::JoinHandle<()>,
}

impl Ingress {
    /// Binds and begins to serve. Fails when the address is taken or not ours, or a thread cannot be started.
    pub fn start(options: IngressOptions, ports: IngressPorts) -> io::Result<Self> {
        let listeners = listener::bind(options.address, options.threads.max(1))?;
        let address = listeners[0].local_addr()?;
        let drain = Arc::new(Drain::new(options.drain_timeout));
        let shared = Arc::new(Shared::new(options, ports, drain.clone()));
        // From here on an early return drops `ingress`, which stops the threads that run already.
        let mut ingress = Self { address, drain, threads: Vec::new() };
        for (number, listener) in listeners.into_iter().enumerate() {
            ingress.threads.push(start_thread(number, shared.clone(), listener)?);
        }
        tracing::info!(%address, threads = ingress.threads.len(), "the ingress is listening");
        Ok(ingress)
    }

    /// Where it listens; the port is the real one.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, answers what is under way, and 503 with `Connection: close` to what comes on open
    /// connections; returns when all are closed, after `drain_timeout` at the latest.
    pub async fn drain(mut self) {
        self.drain.begin();
        for thread in std::mem::take(&mut self.threads) {
            // An error means that the thread has ended without a word, which `join` tells.
            let _ = thread.ended.await;
            if thread.handle.join().is_err() {
                tracing::error!("a thread of the ingress had panicked");
            }
        }
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        self.drain.begin();
    }
}

fn start_thread(number: usize, shared: Arc<Shared>, listener: std::net::TcpListener) -> io::Result<Thread> {
    let (started_tx, started) = mpsc::sync_channel(1);
    let (ended_tx, ended) = oneshot::channel();
    let handle = thread::Builder::new().name(format!("ingress-{number}")).spawn(move || {
        let runtime =
            match runtime::Builder::new_current_thread().enable_all().build_local(runtime::LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => return drop(started_tx.send(Err(error))),
            };
        runtime.block_on(async {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let _ = started_tx.send(Ok(()));
                    listener::run(shared, listener).await;
                }
                Err(error) => drop(started_tx.send(Err(error))),
            }
        });
        drop(runtime);
        let _ = ended_tx.send(());
    })?;
    match started.recv() {
        Ok(Ok(())) => Ok(Thread { ended, handle }),
        Ok(Err(error)) => Err(error),
        Err(mpsc::RecvError) => Err(io::Error::other("a thread of the ingress ended before it began")),
    }
}

/// What all threads share.
struct Shared {
    options: IngressOptions,
    head_limits: HeadLimits,
    snapshot: Arc<ArcSwap<Snapshot>>,
    log: Arc<dyn EventLog>,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    readiness: Arc<dyn Readiness>,
    refused: Arc<dyn RefusedRequests>,
    refusals: Refusals,
    accept_warning: OnceASecond,
    connections: AtomicUsize,
    in_flight: InFlight,
    drain: Arc<Drain>,
}

impl Shared {
    fn new(options: IngressOptions, ports: IngressPorts, drain: Arc<Drain>) -> Self {
        let IngressPorts { snapshot, log, clock, counters, readiness, refused } = ports;
        let head_limits = HeadLimits {
            count_max: options.header_count_max,
            bytes_max: options.header_bytes_max,
            line_bytes_max: options.header_line_bytes_max,
            target_bytes_max: options.target_bytes_max,
        };
        Self {
            head_limits,
            snapshot,
            log,
            clock,
            refusals: Refusals::new(counters.clone()),
            counters,
            readiness,
            refused,
            accept_warning: OnceASecond::default(),
            connections: AtomicUsize::new(0),
            in_flight: InFlight::new(options.body_bytes_in_flight_max),
            drain,
            options,
        }
    }
}

/// Whether and since when the ingress is being stopped.
#[derive(Debug)]
struct Drain {
    token: CancellationToken,
    flag: AtomicBool,
    began_at: OnceLock<Instant>,
    timeout: Duration,
}

impl Drain {
    fn new(timeout: Duration) -> Self {
        Self { token: CancellationToken::new(), flag: AtomicBool::new(false), began_at: OnceLock::new(), timeout }
    }

    fn begin(&self) {
        self.began_at.get_or_init(Instant::now);
        self.flag.store(true, Relaxed);
        self.token.cancel();
    }

    fn has_begun(&self) -> bool {
        self.flag.load(Relaxed)
    }

    async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// When the last connection is cut off.
    fn ends_at(&self) -> Option<Instant> {
        self.began_at.get().map(|began| *began + self.timeout)
    }

    /// When connections without a request are closed.
    fn idle_ends_at(&self) -> Option<Instant> {
        self.began_at.get().map(|began| *began + self.timeout / DRAIN_IDLE_SHARE)
    }
}
