//! Deliveries over HTTP: one signed POST of the event's exact bytes to one URL.
//! Delivery actors make attempts through it. It owns one pool of connections for all destinations; a crash costs
//! the attempts under way, which are made again.
//!
//! What is sent is in [`HttpTransport::request`]; what an answer means in [`reply`], a failure in [`failure`].

mod failure;
mod reply;
mod settings;
mod trace;

use std::{fmt::Write, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use hookmill_actors::{
    domain::{
        headers::{HeaderBlock, Single},
        limits::IN_FLIGHT_MAX,
        secret::Secret,
    },
    ports::{
        provider::SettingsError,
        transport::{AttemptReport, Consignment, Transport},
    },
};
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Uri,
    header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, crypto::ring};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

pub use self::settings::HttpDefaults;
use self::{
    settings::{HttpSettings, url_fault},
    trace::{TRACEPARENT, Trace},
};
use super::{
    Kind,
    egress::{
        Egress,
        connector::{Bounded, CONNECT_TIMEOUT, Connector},
    },
    sign::{SIGNATURE_BYTES, Signer},
};

/// The event's id, the same for every attempt and replay (Standard Webhooks).
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
/// When this attempt was made, seconds since 1970 (Standard Webhooks).
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// See [`super::sign`] (Standard Webhooks).
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// How many hookmills the event has passed, this one included.
const HOPS: HeaderName = HeaderName::from_static("hookmill-hops");
/// Which attempt this is, from 1.
const ATTEMPT: HeaderName = HeaderName::from_static("hookmill-attempt");
/// `true` on what an operator asked for again.
const REPLAY: HeaderName = HeaderName::from_static("hookmill-replay");

const PRODUCT: &str = concat!("hookmill/", env!("CARGO_PKG_VERSION"));
/// The headers above, those of HTTP itself, and room so that the map never grows.
const HEADERS_MAX: usize = 12;
/// The text of [`HttpTransport::request`]: ids, timestamp, signature, trace.
const TEXT_BYTES_MAX: usize = 192;

/// Idle connections kept to one destination: as many as one subscription may use at once.
const IDLE_CONNECTIONS_MAX: usize = IN_FLIGHT_MAX;
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

type HttpClient = Client<Bounded<HttpsConnector<Connector>>, Full<Bytes>>;

/// The kind `http`.
pub(super) struct Http {
    egress: Arc<Egress>,
    defaults: HttpDefaults,
    client: HttpClient,
}

impl Http {
    /// Trusts the authorities that Mozilla's browser trusts.
    pub(super) fn new(egress: Arc<Egress>, defaults: HttpDefaults) -> Self {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the default TLS versions")
            .with_webpki_roots()
            .with_no_client_auth();
        Self::with_tls(egress, defaults, tls)
    }

    fn with_tls(egress: Arc<Egress>, defaults: HttpDefaults, tls: ClientConfig) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(Connector::new(Arc::clone(&egress)));
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_buf_size(READ_BUFFER_MAX)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(Bounded::new(connector));
        Self { egress, defaults, client }
    }

    fn settings(&self, settings: &Map<String, Value>) -> Result<HttpSettings, SettingsError> {
        let settings = HttpSettings::parse(settings, self.defaults)?;
        if let Some(target) = settings.literal_target() {
            self.egress.check(target).map_err(|denied| url_fault(denied.to_string()))?;
        }
        Ok(settings)
    }
}

impl Kind for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn validate(&self, settings: &Map<String, Value>) -> Result<(), SettingsError> {
        self.settings(settings).map(drop)
    }

    fn build(&self, settings: &Map<String, Value>, secret: &Secret) -> Result<Arc<dyn Transport>, SettingsError> {
        let settings = self.settings(settings)?;
        let signer = Signer::new(secret)?;
        Ok(Arc::new(HttpTransport::new(self.client.clone(), settings, signer)))
    }
}

/// One destination.
struct HttpTransport {
    client: HttpClient,
    uri: Uri,
    /// Made once for `http`. An `https` connection may turn out to be HTTP/2, which has `:authority` instead, so
    /// there the client decides.
    host: Option<HeaderValue>,
    signer: Signer,
    timeout: Duration,
    connect_timeout: Duration,
}

impl HttpTransport {
    fn new(client: HttpClient, settings: HttpSettings, signer: Signer) -> Self {
        let HttpSettings { uri, timeout, connect_timeout } = settings;
        let host = match (uri.scheme_str(), uri.authority()) {
            (Some("http"), Some(authority)) => HeaderValue::from_str(authority.as_str()).ok(),
            _ => None,
        };
        Self { client, uri, host, signer, timeout, connect_timeout }
    }

    /// The request of one attempt. Its changing header values are slices of one buffer. Of the arrival's headers
    /// only the content type goes on, and the trace in its own form.
    fn request(&self, consignment: &Consignment, now_ms: u64) -> Request<Full<Bytes>> {
        let event = &consignment.event;
        let arrival = &event.arrival;

        // `id.timestamp` stands at the beginning because that is how it is signed.
        let mut text = BytesMut::with_capacity(TEXT_BYTES_MAX);
        write_text(&mut text, format_args!("{}", event.id));
        let id = text.len();
        write_text(&mut text, format_args!(".{}", now_ms / 1000));
        let timestamp = text.len();
        let signature = self.signer.sign(&text, &arrival.body);
        text.extend_from_slice(&signature);
        let trace = Trace::of(event.id, &arrival.headers);
        let span = fastrand::u64(1..);
        write_text(&mut text, format_args!("00-{:032x}-{span:016x}-{:02x}", trace.id, trace.flags));
        let text = text.freeze();

        let mut headers = HeaderMap::with_capacity(HEADERS_MAX);
        if let Some(host) = &self.host {
            headers.insert(HOST, host.clone());
        }
        headers.insert(CONTENT_TYPE, content_type(&arrival.headers));
        headers.insert(USER_AGENT, HeaderValue::from_static(PRODUCT));
        headers.insert(WEBHOOK_ID, visible(text.slice(..id)));
        headers.insert(WEBHOOK_TIMESTAMP, visible(text.slice(id + 1..timestamp)));
        headers.insert(WEBHOOK_SIGNATURE, visible(text.slice(timestamp..timestamp + SIGNATURE_BYTES)));
        headers.insert(HeaderName::from_static(TRACEPARENT), visible(text.slice(timestamp + SIGNATURE_BYTES..)));
        headers.insert(HOPS, number(u32::from(arrival.hops).saturating_add(1)));
        headers.insert(ATTEMPT, number(consignment.attempt));
        if consignment.replay {
            headers.insert(REPLAY, HeaderValue::from_static("true"));
        }

        let mut request = Request::new(Full::new(arrival.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn attempt(&self, consignment: Consignment, now_ms: u64) -> AttemptReport {
        let deadline = Instant::now() + self.timeout;
        let answer = self.client.request(self.request(&consignment, now_ms));
        match timeout_at(deadline, CONNECT_TIMEOUT.scope(self.connect_timeout, answer)).await {
            Ok(Ok(response)) => reply::judge(response, deadline, now_ms).await,
            Ok(Err(error)) => failure::report(&error),
            Err(_) => failure::timed_out(self.timeout),
        }
    }
}

/// As it arrived, byte for byte, where it arrived once.
fn content_type(headers: &HeaderBlock) -> HeaderValue {
    const UNKNOWN: HeaderValue = HeaderValue::from_static("application/octet-stream");
    match headers.single("content-type") {
        // Nearly all of them: spares a copy.
        Single::Value(b"application/json") => HeaderValue::from_static("application/json"),
        Single::Value(value) => HeaderValue::from_bytes(value).unwrap_or(UNKNOWN),
        Single::Absent | Single::Repeated => UNKNOWN,
    }
}

fn write_text(text: &mut BytesMut, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a buffer in memory takes all text");
}

/// A header value of text that was made here.
fn visible(text: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(text).expect("ids, numbers, base64 and hex are visible ASCII")
}

fn number(value: u32) -> HeaderValue {
    if value == 1 { HeaderValue::from_static("1") } else { HeaderValue::from(value) }
}

#[cfg(test)]
mod tests;
