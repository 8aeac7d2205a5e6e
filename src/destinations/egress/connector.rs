//! Opens every outgoing connection: resolves the host once, checks each address against the egress rules, and
//! connects to a checked address, so that no second answer of a name server can slip in between.
//! The HTTP client's pool calls it when no idle connection is left.

use std::{
    cell::Cell,
    error::Error,
    future::Future,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{self, Instant},
};
use tower::{Service, ServiceExt};

use super::{Denied, Egress, resolver::Resolver};

/// How long one address may keep the next from being tried as well (RFC 8305 recommends this).
const STAGGER: Duration = Duration::from_millis(250);
/// For connections that are opened outside of an attempt, which hyper's pool does not do today.
const CONNECT_TIMEOUT_FALLBACK: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// The attempt under way. The pool is shared by all destinations and hands a connector nothing but the URI; it
    /// calls it in the task that asks for the connection.
    pub(in crate::destinations) static CONNECTING: Connecting;
}

/// What an attempt wants of a connection that is opened for it, and when it was.
pub(in crate::destinations) struct Connecting {
    limit: Duration,
    opened: Cell<Option<Instant>>,
}

impl Connecting {
    /// `limit` is how long opening may take.
    pub(in crate::destinations) fn within(limit: Duration) -> Self {
        Self { limit, opened: Cell::new(None) }
    }

    /// When a connection was opened for the attempt; `None` while it waits, or where an idle one was taken.
    pub(in crate::destinations) fn opened(&self) -> Option<Instant> {
        self.opened.get()
    }
}

type BoxError = Box<dyn Error + Send + Sync>;
type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(in crate::destinations) enum ConnectError {
    /// The host is an address that is denied, or a name with no other address.
    #[error("{denied}")]
    Denied {
        denied: Denied,
        /// Whether the settings name the address itself, so that it cannot change.
        literal: bool,
    },
    #[error("the host's name does not resolve: {0}")]
    Unresolved(Arc<io::Error>),
    #[error("no connection within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The proxy's fault, or its answer.
    #[error("the proxy opened no tunnel: {0}")]
    Proxy(String),
    /// There is no connection to the proxy.
    #[error("the proxy cannot be reached: {0}")]
    ProxyUnreached(Box<ConnectError>),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ConnectError {
    /// The same of a connection that was to go to a proxy.
    pub(in crate::destinations) fn of_proxy(self) -> Self {
        Self::ProxyUnreached(Box::new(self))
    }

    /// Whether another attempt cannot end otherwise.
    pub(in crate::destinations) fn is_final(&self) -> bool {
        match self {
            Self::Denied { denied, literal } => *literal || matches!(denied, Denied::Own(_)),
            Self::ProxyUnreached(error) => error.is_final(),
            Self::Unresolved(_) | Self::Timeout(_) | Self::Proxy(_) | Self::Io(_) => false,
        }
    }
}

/// The address that a URI's host spells out; `None` for a name. Looser spellings (`127.1`, `2130706433`) are
/// names here: the resolver makes addresses of them, and those are checked.
pub(in crate::destinations) fn literal_address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

/// The port that a URI names or means.
pub(in crate::destinations) fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
}

/// Opens TCP connections within the egress rules.
#[derive(Clone)]
pub(in crate::destinations) struct Connector {
    egress: Arc<Egress>,
    resolver: Resolver,
}

impl Connector {
    pub(in crate::destinations) fn new(egress: Arc<Egress>) -> Self {
        Self { egress, resolver: Resolver::new() }
    }

    /// A connection to that host, an IPv6 address in brackets. Bounding its time is the caller's.
    pub(in crate::destinations) async fn open(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let targets = self.targets(host, port).await?;
        let stream = connect_first(&targets).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, ConnectError> {
        self.open(uri.host().unwrap_or_default(), port_of(&uri)).await.map(TokioIo::new)
    }

    async fn targets(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        if let Some(address) = literal_address(host) {
            let target = SocketAddr::new(address, port);
            self.egress.check(target).map_err(|denied| ConnectError::Denied { denied, literal: true })?;
            return Ok(vec![target]);
        }
        let addresses = self.resolver.lookup(host).await.map_err(ConnectError::Unresolved)?;
        self.egress.select(&addresses, port).map_err(|denied| ConnectError::Denied { denied, literal: false })
    }
}

/// Tries the addresses in order, the next one when the last has failed or has kept us waiting; the first
/// connection wins, the others are closed.
async fn connect_first(targets: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut rest = targets.iter();
    let mut trying = FuturesUnordered::new();
    let mut failure = None;
    loop {
        if let Some(target) = rest.next() {
            trying.push(TcpStream::connect(*target));
        }
        tokio::select! {
            tried = trying.next() => match tried {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => failure = Some(error),
                None => return Err(failure.unwrap_or_else(|| io::Error::other("the host has no address"))),
            },
            () = time::sleep(STAGGER), if rest.len() > 0 => {}
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// Bounds the opening of a connection, name resolution and TLS included, as [`CONNECTING`] says.
/// The pool clones its connector for every request, used or not, so that a clone is one count here.
pub(in crate::destinations) struct Bounded<C>(Arc<C>);

impl<C> Bounded<C> {
    pub(in crate::destinations) fn new(connector: C) -> Self {
        Self(Arc::new(connector))
    }
}

impl<C> Clone for Bounded<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> Service<Uri> for Bounded<C>
where
    C: Service<Uri, Error = BoxError> + Clone + Send + Sync + 'static,
    C::Future: Send,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<C::Response, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let limit = CONNECTING.try_with(|attempt| attempt.limit).unwrap_or(CONNECT_TIMEOUT_FALLBACK);
        let connecting = C::clone(&self.0).oneshot(uri);
        Box::pin(async move {
            let opened =
                time::timeout(limit, connecting).await.unwrap_or_else(|_| Err(ConnectError::Timeout(limit).into()))?;
            // Outside of an attempt nobody asks when.
            let _ = CONNECTING.try_with(|attempt| attempt.opened.set(Some(Instant::now())));
            Ok(opened)
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::{super::OwnAddresses, *};

    fn connector(allow: &[&str], own: &[SocketAddr]) -> Connector {
        let allow = allow.iter().map(|net| net.parse().unwrap()).collect();
        Connector::new(Arc::new(Egress::new(allow, OwnAddresses::new(own.iter().copied()))))
    }

    #[test]
    fn only_full_spellings_are_literal() {
        assert_eq!(literal_address("127.0.0.1"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(literal_address("[::1]"), Some("::1".parse().unwrap()));
        for name in ["2130706433", "0x7f000001", "127.1", "0177.0.0.1", "localhost", "[127.0.0.1]", "[fe80::1%eth0]"] {
            assert_eq!(literal_address(name), None, "{name}");
        }
    }

    #[tokio::test]
    async fn odd_spellings_of_a_denied_address_are_denied() {
        for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "2130706433", "0x7f000001", "127.1", "0177.0.0.1"] {
            let error = connector(&[], &[]).targets(host, 80).await.unwrap_err();
            assert!(matches!(error, ConnectError::Denied { denied: Denied::Range { .. }, .. }), "{host}: {error}");
        }
    }

    #[tokio::test]
    async fn a_denied_name_may_be_allowed_later_but_an_address_or_ourselves_never() {
        let own: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let strict = connector(&[], &[]);
        let connector = connector(&["127.0.0.0/8", "::1/128"], &[own]);
        assert!(connector.targets("localhost", 8080).await.unwrap_err().is_final());
        assert!(connector.targets("10.0.0.1", 80).await.unwrap_err().is_final());
        assert!(connector.targets("localhost", 8081).await.unwrap().iter().all(|target| target.ip().is_loopback()));
        assert!(!strict.targets("localhost", 80).await.unwrap_err().is_final());
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_fails() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(connect_first(&[closed, open]).await.unwrap().peer_addr().unwrap(), open);
        let error = connect_first(&[closed, closed]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
