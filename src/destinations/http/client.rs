//! The HTTP client: pools, TLS and the way to the other side. Most destinations share one; one with a certificate of
//! its own, its own authorities or a proxy has its own.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hookmill_actors::{
    domain::{limits::IN_FLIGHT_MAX, secret::Secret},
    ports::provider::SettingsError,
};
use http_body_util::Full;
use hyper::{Uri, header::HeaderValue, rt::ReadBufCursor};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection, proxy::Tunnel},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::net::TcpStream;
use tower::{Service, ServiceExt};

use super::{
    super::{
        egress::connector::{Bounded, ConnectError, Connector},
        members::{Credentials, fault_of},
    },
    settings::{basic, secret_value},
};

/// Idle connections kept to one destination: as many as one subscription may use at once.
pub(super) const IDLE_CONNECTIONS_MAX: usize = IN_FLIGHT_MAX;
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// The head of a reply, and what is read ahead of its body, bytes.
const READ_BUFFER_MAX: usize = 64 << 10;
/// What an HTTP/2 peer may send unasked, a reply and a connection, bytes.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// All deliveries to an HTTP/2 destination share a connection, which no single timeout closes: when the network
/// has silently lost it, only pings find out.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Certificates in one PEM text.
const CERTIFICATES_MAX: usize = 8;
const PEM_BYTES: std::ops::RangeInclusive<usize> = 1..=16 << 10;

/// The credentials that sign in at a proxy.
pub(super) const PROXY_CREDENTIALS: (&str, &str) = ("proxy_username", "proxy_password");
const CERTIFICATE: &str = "client_certificate";
const KEY: &str = "client_key";

pub(in crate::destinations) type HttpClient = Client<Bounded<HttpsConnector<Route>>, Full<Bytes>>;

/// A client whose connections take that way.
pub(in crate::destinations) fn client(route: Route, tls: ClientConfig) -> HttpClient {
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions().wrap_connector(route);
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .http1_max_buf_size(READ_BUFFER_MAX)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(Bounded::new(connector))
}

/// Trusts the authorities that Mozilla's browser trusts.
pub(in crate::destinations) fn common_tls() -> ClientConfig {
    builder().with_webpki_roots().with_no_client_auth()
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the default TLS versions")
}

/// How the other side is reached and known, where that is special.
#[derive(Default)]
pub(super) struct Peer {
    /// TLS of its own.
    pub(super) tls: Option<ClientConfig>,
    pub(super) proxy: Option<Proxy>,
}

/// A proxy that stands before a destination.
#[derive(Clone)]
pub(in crate::destinations) struct Proxy {
    pub(super) uri: Uri,
    /// `proxy-authorization`.
    pub(super) authorization: Option<HeaderValue>,
}

impl Peer {
    /// `ca` is PEM; `proxy` comes with its user and password. Takes the client's certificate from the credentials.
    pub(super) fn new(
        uri: &Uri,
        ca: Option<&str>,
        credentials: &mut Credentials,
        proxy: Option<(Uri, Option<Secret>, Option<Secret>)>,
    ) -> Result<Self, SettingsError> {
        let certificate = credentials.take(CERTIFICATE, PEM_BYTES)?;
        let key = credentials.take(KEY, PEM_BYTES)?;
        let https = uri.scheme_str() == Some("https");
        if !https && ca.is_some() {
            return Err(SettingsError::new("ca", "means nothing without TLS; use an `https://` url"));
        }
        if !https && certificate.is_some() {
            return Err(fault_of(CERTIFICATE, "means nothing without TLS; use an `https://` url"));
        }
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(fault_of(KEY, "is missing; `client_certificate` needs it")),
            (None, Some(_)) => return Err(fault_of(CERTIFICATE, "is missing; `client_key` needs it")),
        };
        let tls = match (ca, &identity) {
            (None, None) => None,
            _ => Some(tls(ca, identity.as_ref())?),
        };
        Ok(Self { tls, proxy: proxy.map(Proxy::new).transpose()? })
    }

    /// Whether the shared client will do.
    pub(super) fn is_common(&self) -> bool {
        self.tls.is_none() && self.proxy.is_none()
    }
}

impl Proxy {
    fn new((uri, user, password): (Uri, Option<Secret>, Option<Secret>)) -> Result<Self, SettingsError> {
        let (user_name, password_name) = PROXY_CREDENTIALS;
        let authorization = match (user, password) {
            (Some(user), Some(password)) => Some(secret_value(&basic(&user, &password), password_name)?),
            (None, None) => None,
            (Some(_), None) => return Err(fault_of(password_name, "is missing; `proxy_username` needs it")),
            (None, Some(_)) => return Err(fault_of(user_name, "is missing; `proxy_password` needs it")),
        };
        Ok(Self { uri, authorization })
    }
}

/// Trusts the authorities of that PEM alone.
pub(in crate::destinations) fn tls_of(ca: &str) -> Result<ClientConfig, SettingsError> {
    tls(Some(ca), None)
}

/// With the given authorities alone, and with a certificate to show.
fn tls(ca: Option<&str>, identity: Option<&(Secret, Secret)>) -> Result<ClientConfig, SettingsError> {
    let verified = match ca {
        None => builder().with_webpki_roots(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem.as_bytes()).map_err(|problem| SettingsError::new("ca", problem))? {
                roots
                    .add(certificate)
                    .map_err(|error| SettingsError::new("ca", format!("is no authority: {error}")))?;
            }
            builder().with_root_certificates(roots)
        }
    };
    let Some((certificate, key)) = identity else { return Ok(verified.with_no_client_auth()) };
    let chain = certificates(certificate.expose()).map_err(|problem| fault_of(CERTIFICATE, problem))?;
    let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(|_| fault_of(KEY, no_key(key)))?;
    verified.with_client_auth_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => fault_of(KEY, "is not the key of `client_certificate`"),
        rustls::Error::InvalidCertificate(why) => fault_of(
            CERTIFICATE,
            format!(
                "cannot be used ({}); it must be of X.509 version 3, which `openssl x509 -req` makes with `-extfile`",
                certificate_words(&why)
            ),
        ),
        other => fault_of(KEY, format!("cannot be used: {other}")),
    })
}

fn no_key(pem: &Secret) -> &'static str {
    match pem.expose_str() {
        Some(text) if text.contains("ENCRYPTED") => {
            "is encrypted; give it without its passphrase, as `openssl pkey` writes it"
        }
        _ => "holds no private key in PEM (`-----BEGIN PRIVATE KEY-----`)",
    }
}

/// What is wrong with a certificate, without the wrapping of what rustls has no name for.
pub(super) fn certificate_words(error: &rustls::CertificateError) -> String {
    match error {
        rustls::CertificateError::Other(rustls::OtherError(inner)) => inner.to_string(),
        other => other.to_string(),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(CERTIFICATES_MAX + 1).collect();
    match found {
        Ok(found) if found.is_empty() => Err("holds no certificate in PEM (`-----BEGIN CERTIFICATE-----`)".into()),
        Ok(found) if found.len() > CERTIFICATES_MAX => Err(format!("holds more than {CERTIFICATES_MAX} certificates")),
        Ok(found) => Ok(found),
        Err(_) => Err("is no PEM of certificates".into()),
    }
}

/// The way that connections take: straight, or through a proxy. Either way within the egress rules.
#[derive(Clone)]
pub(in crate::destinations) struct Route {
    connector: Connector,
    proxy: Option<Proxy>,
}

impl Route {
    pub(in crate::destinations) fn new(connector: Connector, proxy: Option<Proxy>) -> Self {
        Self { connector, proxy }
    }

    async fn open(mut self, uri: Uri) -> Result<Stream, BoxError> {
        let Some(proxy) = self.proxy else {
            return Ok(Stream { tcp: self.connector.call(uri).await?, to_proxy: false });
        };
        let mut connector = self.connector.map_err(ConnectError::of_proxy);
        if uri.scheme_str() != Some("https") {
            return Ok(Stream { tcp: connector.call(proxy.uri).await?, to_proxy: true });
        }
        let mut tunnel = Tunnel::new(proxy.uri, connector);
        if let Some(authorization) = proxy.authorization {
            tunnel = tunnel.with_auth(authorization);
        }
        match tunnel.call(uri).await {
            Ok(tcp) => Ok(Stream { tcp, to_proxy: false }),
            Err(error) if std::error::Error::source(&error).is_some() => Err(error.into()),
            Err(error) => {
                let words = error.to_string();
                Err(ConnectError::Proxy(words.trim_start_matches("tunnel error: ").to_owned()).into())
            }
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Route {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().open(uri))
    }
}

/// A connection that knows whether requests on it are for a proxy, which wants whole URLs in them (RFC 9112, 3.2.2).
pub(in crate::destinations) struct Stream {
    tcp: TokioIo<TcpStream>,
    to_proxy: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.tcp.inner().connected().proxy(self.to_proxy)
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }
}
