//! Deliveries over HTTP: one signed request with the event's exact bytes, or what its subscription made of them.
//! Deliveries make attempts through it. It owns pools of connections; a crash costs the attempts under way,
//! which are made again.
//!
//! What is sent is in [`HttpTransport::request`]; who we are to the destination in [`auth`]; what an answer means in
//! [`reply`], a failure in [`failure`]; how it is reached in [`client`].

mod auth;
pub(super) mod client;
pub(super) mod failure;
mod places;
mod reply;
pub(super) mod settings;

use std::{fmt::Write, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use hookmill_actors::{
    domain::secret::Secret,
    ports::{
        provider::SettingsError,
        transport::{AttemptReport, Consignment, Timings, Transport, Verdict},
    },
};
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Uri,
    header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT},
};
use rustls::ClientConfig;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

pub use self::settings::HttpDefaults;
use self::{
    auth::{Auth, Signed},
    client::{HttpClient, Route, common_tls},
    places::{Places, Servers},
    settings::{HttpSettings, NAME},
};
use super::{
    Kind,
    egress::{
        Egress,
        connector::{CONNECTING, Connecting, Connector},
    },
    header_rules,
    members::Credentials,
    parcel::Parcel,
    report,
    sign::{SIGNATURE_BYTES, Signer},
    trace::TRACEPARENT,
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
/// The headers above, a sign-in, and what HTTP itself adds: the map never grows, nor has room for twice as many.
const HEADERS_MAX: usize = 10;
/// The text of [`HttpTransport::request`]: ids, timestamp, signature, trace.
const TEXT_BYTES_MAX: usize = 192;

/// The kind `http`.
pub(super) struct Http {
    egress: Arc<Egress>,
    defaults: HttpDefaults,
    connector: Connector,
    /// For destinations that bring no TLS of their own.
    tls: ClientConfig,
    /// For destinations that are reached as most are.
    shared: HttpClient,
    servers: Servers,
}

impl Http {
    pub(super) fn new(egress: Arc<Egress>, connector: Connector, defaults: HttpDefaults) -> Self {
        Self::with_tls(egress, connector, defaults, common_tls())
    }

    fn with_tls(egress: Arc<Egress>, connector: Connector, defaults: HttpDefaults, tls: ClientConfig) -> Self {
        let shared = client::client(Route::new(connector.clone(), None), tls.clone());
        Self { egress, defaults, connector, tls, shared, servers: Servers::default() }
    }

    fn settings(&self, settings: &Map<String, Value>, credentials: Credentials) -> Result<HttpSettings, SettingsError> {
        let settings = HttpSettings::parse(settings, credentials, self.defaults)?;
        // The destination's own too when a proxy stands before it: what is denied is denied through it as well.
        for (member, server) in settings.servers() {
            server.check(member, &self.egress)?;
        }
        Ok(settings)
    }
}

impl Kind for Http {
    fn name(&self) -> &'static str {
        NAME
    }

    fn validate(&self, settings: &Map<String, Value>, credentials: Credentials) -> Result<(), SettingsError> {
        self.settings(settings, credentials).map(drop)
    }

    fn build(
        &self,
        settings: &Map<String, Value>,
        credentials: Credentials,
        signing_secret: &Secret,
    ) -> Result<Arc<dyn Transport>, SettingsError> {
        let mut settings = self.settings(settings, credentials)?;
        let signer = Signer::new(signing_secret)?;
        let (client, places) = if settings.peer.is_common() {
            (self.shared.clone(), self.servers.places(&settings.uri))
        } else {
            let tls = settings.peer.tls.take().unwrap_or_else(|| self.tls.clone());
            let route = Route::new(self.connector.clone(), settings.peer.proxy.clone());
            (client::client(route, tls), Places::default())
        };
        Ok(Arc::new(HttpTransport::new(client, places, settings, signer)))
    }
}

/// One destination.
struct HttpTransport {
    client: HttpClient,
    places: Places,
    method: Method,
    uri: Uri,
    /// What is the same in every request; of two with one name the later holds. A `host` is only in it for `http`: an `https` connection may turn out to
    /// be HTTP/2, which has `:authority` instead, so there the client decides.
    fixed: Box<[(HeaderName, HeaderValue)]>,
    auth: Auth,
    withheld: reply::Withheld,
    signer: Signer,
    timeout: Duration,
    connect_timeout: Duration,
}

impl HttpTransport {
    fn new(client: HttpClient, places: Places, settings: HttpSettings, signer: Signer) -> Self {
        let HttpSettings { uri, method, headers, auth, withheld, peer, timeout, connect_timeout } = settings;
        let mut fixed = vec![(USER_AGENT, HeaderValue::from_static(PRODUCT))];
        if uri.scheme_str() == Some("http") {
            if let Some(host) = uri.authority().and_then(|it| HeaderValue::from_str(it.as_str()).ok()) {
                fixed.push((HOST, host));
            }
            // Of `https` the proxy sees no request but the tunnel's.
            if let Some(authorization) = peer.proxy.and_then(|proxy| proxy.authorization) {
                fixed.push((PROXY_AUTHORIZATION, authorization));
            }
        }
        fixed.extend(headers);
        Self { client, places, method, uri, fixed: fixed.into(), auth, withheld, signer, timeout, connect_timeout }
    }

    /// The request of one attempt. Its changing header values are slices of one buffer. Of the arrival's headers
    /// only the content type goes on, and the trace in its own form. The words say why none can be made.
    fn request(&self, parcel: &Parcel<'_>, now_ms: u64) -> Result<Request<Full<Bytes>>, String> {
        let consignment = parcel.consignment;
        let event = &consignment.event;

        // `id.timestamp` stands at the beginning because that is how it is signed.
        let mut text = BytesMut::with_capacity(TEXT_BYTES_MAX);
        write_text(&mut text, format_args!("{}", event.id));
        let id = text.len();
        write_text(&mut text, format_args!(".{}", now_ms / 1000));
        let timestamp = text.len();
        let signature = self.signer.sign(&text, parcel.body);
        text.extend_from_slice(&signature);
        write_text(&mut text, format_args!("{}", parcel.trace()));
        let text = text.freeze();

        let mut headers = HeaderMap::with_capacity(HEADERS_MAX + self.fixed.len() + parcel.headers.len());
        for (name, value) in &self.fixed {
            headers.insert(name.clone(), value.clone());
        }
        headers.insert(CONTENT_TYPE, parcel.content_type());
        for (given, value) in parcel.headers {
            let (name, value) = header_rules::added(given, value)
                .map_err(|problem| format!("the header `{}` {problem}", report::peers_words(given)))?;
            headers.insert(name, value);
        }
        headers.insert(WEBHOOK_ID, visible(text.slice(..id)));
        headers.insert(WEBHOOK_TIMESTAMP, visible(text.slice(id + 1..timestamp)));
        headers.insert(WEBHOOK_SIGNATURE, visible(text.slice(timestamp..timestamp + SIGNATURE_BYTES)));
        headers.insert(HeaderName::from_static(TRACEPARENT), visible(text.slice(timestamp + SIGNATURE_BYTES..)));
        headers.insert(HOPS, number(u32::from(event.arrival.hops).saturating_add(1)));
        headers.insert(ATTEMPT, number(consignment.attempt));
        if consignment.replay {
            headers.insert(REPLAY, HeaderValue::from_static("true"));
        }
        let signed = Signed {
            id: &text[..id],
            timestamp: &text[id + 1..timestamp],
            method: self.method.as_str().as_bytes(),
            body: parcel.body,
        };
        self.auth.apply(&mut headers, signed);

        let mut request = Request::new(Full::new(parcel.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        Ok(request)
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn attempt(&self, consignment: Consignment, now_ms: u64) -> AttemptReport {
        // First, so that those who wait hold no request yet.
        let _place = self.places.take().await;
        let request = match self.request(&Parcel::new(&consignment), now_ms) {
            Ok(request) => request,
            Err(words) => return report::failed(Verdict::Refused, words, Timings::default()),
        };
        let began = Instant::now();
        let deadline = began + self.timeout;
        let exchange = async {
            let answer = timeout_at(deadline, self.client.request(request)).await;
            (answer, CONNECTING.with(Connecting::opened))
        };
        let (answer, opened) = CONNECTING.scope(Connecting::within(self.connect_timeout), exchange).await;
        let mut timings = Timings { connected: opened.map(|at| at - began), answered: None };
        match answer {
            Ok(Ok(response)) => {
                timings.answered = Some(began.elapsed());
                // Nothing was opened for it, so an idle connection was there from the beginning.
                timings.connected.get_or_insert_default();
                reply::judge(response, timings, deadline, now_ms, &self.withheld).await
            }
            Ok(Err(error)) => failure::report(&error, timings),
            Err(_) => report::timed_out(self.timeout, timings),
        }
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
