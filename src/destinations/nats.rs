//! The kind `nats`: each event is published to a subject of a `JetStream` stream; delivered once the stream says so.
//! `Nats-Msg-Id` is the event's id, so that a stream drops a second copy within its duplicate window.
//!
//! All attempts to one destination share a connection ([`session`]), which is opened at the first and again after it
//! broke. The servers that a cluster tells of are not connected to: the operator named one, and the egress rules
//! were asked about that one.

mod session;
mod wire;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use hookmill_actors::{
    domain::secret::Secret,
    ports::{
        provider::SettingsError,
        transport::{AttemptReport, Consignment, Timings, Transport, Verdict},
    },
};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use self::{
    session::{NatsSession, SignIn},
    wire::Headers,
};
use super::{
    Kind, header_rules,
    link::{Dialer, Failure, Link},
    members::{CA, Credentials, Members, fault_of},
    parcel::Parcel,
    report,
    trace::TRACEPARENT,
    url::{self, Scheme, Server},
};

const NAME: &str = "nats";
const TLS: &str = "tls";
const SCHEMES: [Scheme; 2] = [("nats", 4222), (TLS, 4222)];
const SUBJECT_BYTES_MAX: usize = 255;

/// The kind `nats`.
pub(super) struct Nats {
    dialer: Dialer,
}

impl Nats {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer }
    }

    fn settings(
        &self,
        settings: &Map<String, Value>,
        mut credentials: Credentials,
    ) -> Result<NatsTransport, SettingsError> {
        let members = Members::new(NAME, settings, &["url", "subject", CA, "timeout_ms"])?;
        let text = members.required("url", 0..=usize::MAX, "the server, such as tls://nats.example.com:4222")?;
        let uri = url::parse("url", text, &SCHEMES)?;
        let server = Server::of(&uri, &SCHEMES);
        self.dialer.check("url", &server)?;
        let subject = members.required("subject", 1..=SUBJECT_BYTES_MAX, "where to publish, such as webhooks.shop")?;
        check_subject(subject).map_err(|problem| members.fault("subject", problem))?;
        let sign_in = sign_in(&mut credentials)?;
        credentials.finish(NAME)?;
        Ok(NatsTransport {
            dialer: self.dialer.trusting(&members, &uri, TLS)?,
            server,
            tls: uri.scheme_str() == Some(TLS),
            sign_in,
            subject: subject.to_owned(),
            timeout: members.timeout("timeout_ms", self.dialer.timeout())?,
            link: Link::new(),
        })
    }
}

fn sign_in(credentials: &mut Credentials) -> Result<SignIn, SettingsError> {
    let mut take = |name| -> Result<Option<String>, SettingsError> {
        let secret = credentials.take(name, 1..=4096)?;
        Ok(secret.and_then(|secret| secret.expose_str().map(str::to_owned)))
    };
    let (token, user, password) = (take("token")?, take("username")?, take("password")?);
    let user = match (user, password) {
        (Some(user), Some(password)) => Some((user, password)),
        (None, None) => None,
        (Some(_), None) => return Err(fault_of("password", "is missing; `username` needs it")),
        (None, Some(_)) => return Err(fault_of("username", "is missing; `password` needs it")),
    };
    if token.is_some() && user.is_some() {
        return Err(fault_of("token", "stands beside `username`; a server takes one of them"));
    }
    Ok(SignIn { token, user })
}

/// A subject that can be published to: tokens between dots, no wildcards, none of the server's own.
fn check_subject(subject: &str) -> Result<(), &'static str> {
    if !subject.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be ASCII without spaces");
    }
    if subject.contains(['*', '>']) {
        return Err("holds a wildcard (`*`, `>`), which is for those who listen");
    }
    if subject.split('.').any(str::is_empty) {
        return Err("has an empty part; parts are separated by single dots");
    }
    if subject.starts_with('$') || subject.starts_with("_INBOX.") {
        return Err("is one of NATS's own");
    }
    Ok(())
}

impl Kind for Nats {
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
        _signing_secret: &Secret,
    ) -> Result<Arc<dyn Transport>, SettingsError> {
        Ok(Arc::new(self.settings(settings, credentials)?))
    }
}

/// One destination.
struct NatsTransport {
    dialer: Dialer,
    server: Server,
    tls: bool,
    sign_in: SignIn,
    subject: String,
    timeout: Duration,
    link: Link<NatsSession>,
}

/// What a stream answers (`io.nats.jetstream.api.v1.pub_ack_response`).
#[derive(Deserialize)]
struct PublishAck {
    stream: Option<String>,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    description: String,
}

impl NatsTransport {
    async fn exchange(
        &self,
        headers: Bytes,
        body: &Bytes,
        began: Instant,
        timings: &mut Timings,
    ) -> Result<(), Failure> {
        let open = self.dialer.bounded(NatsSession::open(&self.dialer, &self.server, self.tls, &self.sign_in));
        let session = self.link.session(open).await?;
        timings.connected = Some(began.elapsed());
        let bytes = headers.len() + body.len();
        if bytes > session.payload_max() {
            let words = format!("the message has {bytes} bytes and the NATS server takes {}", session.payload_max());
            return Err(Failure { verdict: Verdict::Refused, words });
        }
        let asked = session.ask(self.subject.clone(), headers, body.clone());
        let Ok(answer) = timeout_at(began + self.timeout, asked).await else {
            // It may be the network that has silently lost it.
            self.link.forget(&session).await;
            return Err(Failure::passing(format!("no answer within {} ms", self.timeout.as_millis())));
        };
        let (status, payload) = answer?;
        timings.answered = Some(began.elapsed());
        judge(status, &payload, &self.subject)
    }
}

fn judge(status: Option<u16>, payload: &[u8], subject: &str) -> Result<(), Failure> {
    if status == Some(503) {
        return Err(Failure::passing(format!("no stream takes the subject `{subject}`; make one, or correct it")));
    }
    match serde_json::from_slice(payload) {
        Ok(PublishAck { error: None, stream: Some(_) }) => Ok(()),
        Ok(PublishAck { error: Some(error), .. }) => {
            let description = report::peers_words(&error.description);
            Err(Failure::passing(format!("the stream refused: {description} ({})", error.code)))
        }
        _ => Err(Failure::passing("what answered is no stream: its answer is no acknowledgement")),
    }
}

fn headers(parcel: &Parcel<'_>) -> Result<Bytes, String> {
    let consignment = parcel.consignment;
    let id = consignment.event.id.to_string();
    let mut headers = Headers::new();
    for (given, value) in parcel.headers {
        let (name, value) = header_rules::added(given, value)
            .map_err(|problem| format!("the header `{}` {problem}", report::peers_words(given)))?;
        headers.add(name.as_str(), value.as_bytes());
    }
    headers.add("Nats-Msg-Id", id.as_bytes());
    headers.add("content-type", parcel.content_type().as_bytes());
    headers.add("webhook-id", id.as_bytes());
    headers.add(TRACEPARENT, parcel.trace().to_string().as_bytes());
    headers.add("hookmill-hops", (u32::from(consignment.event.arrival.hops) + 1).to_string().as_bytes());
    headers.add("hookmill-attempt", consignment.attempt.to_string().as_bytes());
    if let Some(event_type) = &consignment.event_type {
        headers.add("hookmill-event-type", event_type.as_bytes());
    }
    if consignment.replay {
        headers.add("hookmill-replay", b"true");
    }
    Ok(headers.finish())
}

#[async_trait]
impl Transport for NatsTransport {
    async fn attempt(&self, consignment: Consignment, _now_ms: u64) -> AttemptReport {
        let (began, mut timings) = (Instant::now(), Timings::default());
        let parcel = Parcel::new(&consignment);
        let headers = match headers(&parcel) {
            Ok(headers) => headers,
            Err(words) => return report::failed(Verdict::Refused, words, timings),
        };
        let exchange = self.exchange(headers, parcel.body, began, &mut timings);
        // What waits for a connection that others open is bounded here, the answer within.
        match timeout_at(began + self.timeout + Duration::from_millis(50), exchange).await {
            Ok(Ok(())) => report::delivered(timings),
            Ok(Err(failure)) => report::failed(failure.verdict, failure.words, timings),
            Err(_) => report::timed_out(self.timeout, timings),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_that_cannot_be_published_to_are_refused() {
        for subject in
            ["a b", "a.*", "a.>", "a..b", ".a", "a.", "$JS.API.STREAM.DELETE.x", "_INBOX.x", "a\r\nPUB b 0", "ü"]
        {
            assert!(check_subject(subject).is_err(), "{subject:?}");
        }
        for subject in ["a", "webhooks.shop", "WEB-hooks_1.$x"] {
            assert_eq!(check_subject(subject), Ok(()), "{subject}");
        }
    }

    #[test]
    fn only_a_stream_s_acknowledgement_is_a_success() {
        assert!(judge(None, br#"{"stream":"S","seq":7,"duplicate":true}"#, "s").is_ok());
        for (status, payload) in [
            (Some(503), &b""[..]),
            (None, b""),
            (None, b"{}"),
            (None, b"+OK"),
            (
                None,
                br#"{"error":{"code":503,"description":"resource limits exceeded for account"},"stream":"S","seq":0}"#,
            ),
        ] {
            let failure = judge(status, payload, "s").unwrap_err();
            assert_eq!(failure.verdict, report::RETRY, "{failure:?}");
        }
    }
}
