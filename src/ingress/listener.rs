//! Listens on one thread and hands each connection to a task of its own. Bounds how many there are, over all threads:
//! a connection beyond the bound is answered 503 and closed at once, so that its sender hears why and comes back.

use std::{
    cell::Cell,
    io,
    net::{self, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::FutureExt;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{sleep, timeout_at},
};

use super::{Shared, connection::Server, reply::Refused};

/// Connections that wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// What was accepted by the kernel before a drain is still served, up to so many a thread.
const BACKLOG_DRAINED_MAX: usize = 4096;
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Opens one listener a thread, all on the address that the first one got.
pub(super) fn bind(address: SocketAddr, threads: usize) -> io::Result<Vec<net::TcpListener>> {
    let explain = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "; is another process listening there?",
            io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
            _ => "",
        };
        io::Error::new(error.kind(), format!("the ingress cannot listen on {address}: {error}{hint}"))
    };
    // With SO_REUSEPORT a second hookmill would get a taken port without a word, and half of the requests. Without it
    // the kernel says that the port is taken.
    drop(socket(address, false).map_err(explain)?);
    let first = listen(address).map_err(explain)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..threads {
        listeners.push(listen(address).map_err(explain)?);
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<net::TcpListener> {
    let socket = socket(address, true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Accepts until a drain begins, then waits until every connection of this thread is closed.
pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let open = Rc::new(Open::default());
    let server = Rc::new(Server::new(shared.clone()));
    let mut backoff = BACKOFF_MIN;
    {
        let mut drain = pin!(shared.drain.begun());
        loop {
            let accepted = tokio::select! {
                () = &mut drain => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    backoff = BACKOFF_MIN;
                    start(&server, &shared, &open, stream, peer);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Most likely out of file descriptors: those that close make room.
                    if let Some(more) = shared.accept_warning.due(shared.clock.now_ms()) {
                        tracing::error!(%error, more, "the ingress cannot accept connections");
                    }
                    tokio::select! {
                        () = &mut drain => break,
                        () = sleep(backoff) => {}
                    }
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }
    for _ in 0..BACKLOG_DRAINED_MAX {
        let Some(Ok((stream, peer))) = listener.accept().now_or_never() else { break };
        start(&server, &shared, &open, stream, peer);
    }
    drop(listener);
    let end = shared.drain.ends_at().unwrap_or_else(tokio::time::Instant::now);
    if timeout_at(end, open.until_none()).await.is_err() {
        tracing::warn!(connections = open.count.get(), "connections were cut off: the drain took too long");
    }
}

fn start(server: &Rc<Server>, shared: &Arc<Shared>, open: &Rc<Open>, stream: TcpStream, peer: SocketAddr) {
    let Some(admission) = Admission::new(shared, open) else {
        shared.refusals.note(Refused::Busy, shared.clock.now_ms());
        // A new socket's buffer takes this; if it does not, closing says enough.
        let _ = stream.try_write(&Refused::Busy.raw());
        return;
    };
    // Replies are written whole; waiting for more to send only delays them. A failure costs nothing but speed.
    let _ = stream.set_nodelay(true);
    let server = server.clone();
    tokio::task::spawn_local(async move {
        let _admission = admission;
        let _guard = Panicking("a connection");
        server.serve(stream, peer.ip()).await;
    });
}

/// Errors that say something about the connection that was to be accepted, not about the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

/// The connections of one thread.
#[derive(Default)]
struct Open {
    count: Cell<usize>,
    closed: Notify,
}

impl Open {
    async fn until_none(&self) {
        while self.count.get() > 0 {
            self.closed.notified().await;
        }
    }
}

/// One connection's place under the bound.
struct Admission {
    shared: Arc<Shared>,
    open: Rc<Open>,
}

impl Admission {
    fn new(shared: &Arc<Shared>, open: &Rc<Open>) -> Option<Self> {
        if !enter(&shared.connections, shared.options.connections_max) {
            return None;
        }
        open.count.set(open.count.get() + 1);
        Some(Self { shared: shared.clone(), open: open.clone() })
    }
}

fn enter(connections: &AtomicUsize, connections_max: usize) -> bool {
    connections.fetch_update(Relaxed, Relaxed, |count| (count < connections_max).then_some(count + 1)).is_ok()
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Relaxed);
        self.open.count.set(self.open.count.get() - 1);
        self.open.closed.notify_one();
    }
}

/// Says so in the log when its task panics; tokio has already kept the panic to that task.
pub(super) struct Panicking(pub(super) &'static str);

impl Drop for Panicking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("{} of the ingress panicked; it is closed, the others go on", self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_share_the_port_that_the_first_got() {
        let listeners = bind("127.0.0.1:0".parse().expect("an address"), 3).expect("free");
        let ports: Vec<u16> = listeners.iter().map(|it| it.local_addr().expect("bound").port()).collect();
        assert_ne!(ports[0], 0);
        assert_eq!(ports, [ports[0]; 3]);
    }

    #[test]
    fn a_taken_address_is_an_error_that_names_it() {
        let taken = bind("127.0.0.1:0".parse().expect("an address"), 2).expect("free");
        let address = taken[0].local_addr().expect("bound");
        let error = bind(address, 2).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
