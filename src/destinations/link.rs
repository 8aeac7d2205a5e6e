//! Long connections to a destination, one for all the attempts under way: how they are opened within the egress
//! rules, and when one is opened anew.

use std::{io, sync::Arc, time::Duration};

use hookmill_actors::ports::{provider::SettingsError, transport::Verdict};
use hyper::Uri;
use rustls::pki_types::{IpAddr, ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    egress::{
        Egress,
        connector::{ConnectError, Connector, literal_address},
    },
    http::{
        HttpDefaults,
        client::{common_tls, tls_of},
        failure,
    },
    members::{CA, Members},
    report::RETRY,
    url::Server,
};

/// After a failed connection the next is not tried sooner: twice a second at most, however many attempts wait.
const PAUSE: Duration = Duration::from_millis(500);

/// A stream, in clear or not.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Why there is no connection: what it means for an attempt, and in words.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) verdict: Verdict,
    pub(super) words: String,
}

impl Failure {
    /// One that may pass.
    pub(super) fn passing(words: impl Into<String>) -> Self {
        Self { verdict: RETRY, words: words.into() }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let (verdict, words) = failure::of(&error);
        Self { verdict, words }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let (verdict, words) = failure::of(&error);
        Self { verdict, words }
    }
}

/// Opens connections to addresses that the egress rules allow.
#[derive(Clone)]
pub(super) struct Dialer {
    egress: Arc<Egress>,
    connector: Connector,
    tls: TlsConnector,
    defaults: HttpDefaults,
}

impl Dialer {
    pub(super) fn new(egress: Arc<Egress>, connector: Connector, defaults: HttpDefaults) -> Self {
        Self { egress, connector, tls: TlsConnector::from(Arc::new(common_tls())), defaults }
    }

    /// The same with the authorities that a destination names in place of the public ones, where it does. `tls_scheme`
    /// is the one that the URL must have then: whoever names authorities wants no connection in clear.
    pub(super) fn trusting(&self, members: &Members<'_>, uri: &Uri, tls_scheme: &str) -> Result<Self, SettingsError> {
        let Some(ca) = members.authorities()? else { return Ok(self.clone()) };
        if uri.scheme_str() != Some(tls_scheme) {
            let problem = format!("means nothing without TLS; use a `{tls_scheme}://` url");
            return Err(members.fault(CA, problem));
        }
        Ok(Self { tls: TlsConnector::from(Arc::new(tls_of(ca)?)), ..self.clone() })
    }

    /// For a whole attempt where the destination says nothing else.
    pub(super) fn timeout(&self) -> Duration {
        self.defaults.timeout
    }

    /// Refuses an address that can never be connected to.
    pub(super) fn check(&self, field: &str, server: &Server) -> Result<(), SettingsError> {
        server.check(field, &self.egress)
    }

    /// A TCP connection.
    pub(super) async fn tcp(&self, server: &Server) -> Result<TcpStream, Failure> {
        Ok(self.connector.open(&server.host, server.port).await?)
    }

    /// TLS on it, with the server's name checked.
    pub(super) async fn secure(&self, server: &Server, stream: TcpStream) -> Result<Box<dyn Io>, Failure> {
        let name = match literal_address(&server.host) {
            Some(address) => ServerName::IpAddress(IpAddr::from(address)),
            None => ServerName::try_from(server.host.clone())
                .map_err(|_| Failure::passing("the host is no name that a certificate can hold"))?,
        };
        Ok(Box::new(self.tls.connect(name, stream).await?))
    }

    /// What opening makes, within the time that connecting may take.
    pub(super) async fn bounded<T>(&self, opening: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let limit = self.defaults.connect_timeout;
        timeout(limit, opening).await.unwrap_or_else(|_| Err(ConnectError::Timeout(limit).into()))
    }
}

/// What lives on a connection.
pub(super) trait Session {
    /// Whether it can still be used, as far as is known.
    fn is_alive(&self) -> bool;
}

/// One session, shared by all attempts to a destination; opened when the first asks for it, and again once it broke.
pub(super) struct Link<S> {
    slot: Mutex<Slot<S>>,
}

struct Slot<S> {
    session: Option<Arc<S>>,
    failed: Option<(Instant, Failure)>,
}

impl<S: Session> Link<S> {
    pub(super) fn new() -> Self {
        Self { slot: Mutex::new(Slot { session: None, failed: None }) }
    }

    /// The session that is there, or the one that `open` makes. While one attempt opens it the others wait for that;
    /// shortly after a failure they hear of that failure instead of knocking again.
    pub(super) async fn session(&self, open: impl Future<Output = Result<S, Failure>>) -> Result<Arc<S>, Failure> {
        let mut slot = self.slot.lock().await;
        if let Some(session) = slot.session.as_ref().filter(|session| session.is_alive()) {
            return Ok(session.clone());
        }
        slot.session = None;
        if let Some((at, failure)) = &slot.failed
            && at.elapsed() < PAUSE
        {
            return Err(failure.clone());
        }
        match open.await {
            Ok(session) => {
                let session = Arc::new(session);
                *slot = Slot { session: Some(session.clone()), failed: None };
                Ok(session)
            }
            Err(failure) => {
                slot.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// Opens another next time, unless that has happened. Attempts that hold the session go on with it.
    pub(super) async fn forget(&self, session: &Arc<S>) {
        let mut slot = self.slot.lock().await;
        if slot.session.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            slot.session = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    struct Fake(AtomicBool);

    impl Session for Fake {
        fn is_alive(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_attempts_share_one_session_and_one_failure() {
        let (link, opened) = (Link::new(), AtomicUsize::new(0));
        let fail = || async {
            opened.fetch_add(1, Ordering::Relaxed);
            Err(Failure::passing("connection refused"))
        };
        for _ in 0..100 {
            assert!(link.session(fail()).await.is_err());
        }
        assert_eq!(opened.load(Ordering::Relaxed), 1, "the others heard of the first failure");
        tokio::time::advance(PAUSE).await;
        let open = || async {
            opened.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(Fake(AtomicBool::new(true)))
        };
        let (one, other) = tokio::join!(link.session(open()), link.session(open()));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(opened.load(Ordering::Relaxed), 2);

        one.0.store(false, Ordering::Relaxed);
        let again = link.session(open()).await.unwrap();
        assert!(!Arc::ptr_eq(&one, &again), "a dead session is replaced");
        link.forget(&one).await;
        assert!(Arc::ptr_eq(&again, &link.session(open()).await.unwrap()), "only the one that broke is forgotten");
        link.forget(&again).await;
        assert!(!Arc::ptr_eq(&again, &link.session(open()).await.unwrap()));
    }
}
