//! The kind `redis_stream`: each event becomes an entry of a stream in the operator's Redis (`XADD`).
//!
//! An entry's fields: `id` (the event's), `type` (the provider's name of what happened, where it is known),
//! `integration` (its number), `received_at` (milliseconds since 1970), `attempt` (from 1), `content_type`,
//! `traceparent`, `body` (byte for byte), `headers` (those that the subscription adds, as a JSON object, where there
//! are any) and `replay` (`true` on what an operator asked for again). A retry of an entry whose answer was lost makes
//! a second one with the same `id`.
//!
//! All attempts to one destination share a connection and do not wait for each other: commands are written one
//! behind the other, and answers come in their order.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use hookmill_actors::{
    domain::secret::Secret,
    ports::{
        provider::SettingsError,
        transport::{AttemptReport, Consignment, Timings, Transport},
    },
};
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisConnectionInfo, RedisError, aio::MultiplexedConnection};
use serde_json::{Map, Value};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{
    Kind,
    link::{Dialer, Failure, Io, Link, Session},
    members::{CA, Credentials, Members, fault_of},
    parcel::Parcel,
    report,
    trace::TRACEPARENT,
    url::{self, Scheme, Server},
};

const NAME: &str = "redis_stream";
const TLS: &str = "rediss";
const SCHEMES: [Scheme; 2] = [("redis", 6379), (TLS, 6379)];
const STREAM_BYTES_MAX: usize = 512;
/// More entries than this are a slip of the finger.
const LENGTH_MAX: u64 = 1_000_000_000;
/// Redis has 16 databases unless it was told otherwise.
const DATABASE_MAX: i64 = 1023;

/// The kind `redis_stream`.
pub(super) struct RedisStream {
    dialer: Dialer,
}

impl RedisStream {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer }
    }

    fn settings(
        &self,
        settings: &Map<String, Value>,
        mut credentials: Credentials,
    ) -> Result<StreamTransport, SettingsError> {
        let members = Members::new(NAME, settings, &["url", "stream", "maxlen", CA, "timeout_ms"])?;
        let text = members.required("url", 0..=usize::MAX, "the server, such as rediss://cache.example.com:6379")?;
        let uri = url::parse("url", text, &SCHEMES)?;
        let database = database(uri.path())
            .filter(|_| uri.query().is_none())
            .ok_or_else(|| members.fault("url", "has a path or query; only a database's number may follow the host"))?;
        let server = Server::of(&uri, &SCHEMES);
        self.dialer.check("url", &server)?;
        let username = credentials.take("username", 1..=255)?;
        let password = credentials.take("password", 1..=4096)?;
        if username.is_some() && password.is_none() {
            return Err(fault_of("password", "is missing; `username` needs it"));
        }
        credentials.finish(NAME)?;
        let mut info = RedisConnectionInfo::default().set_db(database).set_skip_set_lib_name();
        if let Some(username) = username.as_ref().and_then(Secret::expose_str) {
            info = info.set_username(username);
        }
        if let Some(password) = password.as_ref().and_then(Secret::expose_str) {
            info = info.set_password(password);
        }
        Ok(StreamTransport {
            dialer: self.dialer.trusting(&members, &uri, TLS)?,
            server,
            tls: uri.scheme_str() == Some(TLS),
            info,
            stream: members.required("stream", 1..=STREAM_BYTES_MAX, "the stream's key, such as webhooks")?.to_owned(),
            length_max: members.number("maxlen", 1..=LENGTH_MAX)?,
            timeout: members.timeout("timeout_ms", self.dialer.timeout())?,
            link: Link::new(),
        })
    }
}

fn database(path: &str) -> Option<i64> {
    match path.strip_prefix('/').unwrap_or(path) {
        "" => Some(0),
        number => number.parse().ok().filter(|number| (0..=DATABASE_MAX).contains(number)),
    }
}

impl Kind for RedisStream {
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
struct StreamTransport {
    dialer: Dialer,
    server: Server,
    tls: bool,
    info: RedisConnectionInfo,
    stream: String,
    length_max: Option<u64>,
    timeout: Duration,
    link: Link<Connected>,
}

/// A connection that has signed in, with the task that serves it.
struct Connected {
    commands: MultiplexedConnection,
    task: JoinHandle<()>,
}

impl Session for Connected {
    fn is_alive(&self) -> bool {
        !self.task.is_finished()
    }
}

impl StreamTransport {
    async fn open(&self) -> Result<Connected, Failure> {
        let tcp = self.dialer.tcp(&self.server).await?;
        let stream: Box<dyn Io> = if self.tls { self.dialer.secure(&self.server, tcp).await? } else { Box::new(tcp) };
        // Attempts have a time of their own.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let failure = |error: RedisError| Failure::passing(words(&error));
        let (mut commands, serve) =
            MultiplexedConnection::new_with_config(&self.info, stream, config).await.map_err(failure)?;
        let session = Connected { commands: commands.clone(), task: tokio::spawn(serve) };
        // To an XADD of somebody who has not signed in, Redis answers with a fault of its protocol. What a user may
        // not run beside XADD is no matter here.
        match commands.send_packed_command(&Cmd::ping()).await.and_then(redis::Value::extract_error) {
            Err(error) if code(&error) == "NOAUTH" || !is_answer(&error) => Err(failure(error)),
            _ => Ok(session),
        }
    }

    fn command(&self, parcel: &Parcel<'_>) -> Cmd {
        let event = &parcel.consignment.event;
        let mut command = Cmd::with_capacity(32, parcel.body.len() + 512);
        command.arg("XADD").arg(&self.stream);
        if let Some(length) = self.length_max {
            // Whole nodes are dropped at once, which is far cheaper than counting exactly.
            command.arg("MAXLEN").arg("~").arg(length);
        }
        command.arg("*").arg("id").arg(event.id.to_string());
        if let Some(event_type) = &parcel.consignment.event_type {
            command.arg("type").arg(&**event_type);
        }
        command.arg("integration").arg(event.id.integration().0);
        command.arg("received_at").arg(event.arrival.received_at_ms);
        command.arg("attempt").arg(parcel.consignment.attempt);
        command.arg("content_type").arg(parcel.content_type().as_bytes());
        command.arg(TRACEPARENT).arg(parcel.trace().to_string());
        command.arg("body").arg(&parcel.body[..]);
        if let Some(headers) = parcel.headers_object() {
            command.arg("headers").arg(Value::Object(headers).to_string());
        }
        if parcel.consignment.replay {
            command.arg("replay").arg("true");
        }
        command
    }

    async fn exchange(&self, parcel: &Parcel<'_>, began: Instant, timings: &mut Timings) -> Result<(), Failure> {
        let session = self.link.session(self.dialer.bounded(self.open())).await?;
        timings.connected = Some(began.elapsed());
        let mut commands = session.commands.clone();
        let deadline = began + self.timeout;
        let answer = match timeout_at(deadline, commands.send_packed_command(&self.command(parcel))).await {
            Ok(answer) => answer.and_then(redis::Value::extract_error),
            Err(_) => {
                // It may be the network that has silently lost it.
                self.link.forget(&session).await;
                return Err(Failure::passing(format!("no answer within {} ms", self.timeout.as_millis())));
            }
        };
        timings.answered = Some(began.elapsed());
        match answer {
            Ok(_) => Ok(()),
            Err(error) => {
                // A replica that was a master until now: another connection may lead to its successor.
                if !is_answer(&error) || code(&error) == "READONLY" {
                    self.link.forget(&session).await;
                }
                Err(Failure::passing(words(&error)))
            }
        }
    }
}

/// Whether Redis said it, so that the connection is as good as before.
fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

fn code(error: &RedisError) -> &str {
    error.code().unwrap_or_default()
}

/// What went wrong, in words that say what to do. Each may pass or be mended without touching the event, so all are
/// tried again.
fn words(error: &RedisError) -> String {
    let hint = match code(error) {
        "WRONGTYPE" => "the key holds something other than a stream; choose another, or remove it",
        "OOM" => "Redis has reached `maxmemory`; set `maxlen`, or give it more",
        "NOAUTH" => "Redis wants a password; set `credentials`",
        "WRONGPASS" => "Redis does not know this user and password",
        "NOPERM" => "the user may not run XADD on this key",
        "READONLY" => "this Redis is a replica; use its master's address",
        "LOADING" => "Redis is loading its data",
        "BUSY" => "Redis is busy with a script",
        "MISCONF" => "Redis cannot save its data and takes no writes",
        "MOVED" | "CLUSTERDOWN" => "this is a node of a Redis Cluster that does not serve the key",
        "" => "",
        _ => "Redis refused",
    };
    if error.kind() == ErrorKind::AuthenticationFailed && hint.is_empty() {
        return "Redis does not know this user and password".to_owned();
    }
    if code(error).is_empty() {
        let cause = error.to_string();
        return format!("the exchange with Redis failed: {}", report::peers_words(&cause));
    }
    format!("{hint} ({})", report::peers_words(&format!("{} {}", code(error), error.detail().unwrap_or_default())))
}

#[async_trait]
impl Transport for StreamTransport {
    async fn attempt(&self, consignment: Consignment, _now_ms: u64) -> AttemptReport {
        let (began, mut timings) = (Instant::now(), Timings::default());
        let parcel = Parcel::new(&consignment);
        // What waits for a connection that others open is bounded here, the answer within.
        let limit = began + self.timeout + Duration::from_millis(50);
        match timeout_at(limit, self.exchange(&parcel, began, &mut timings)).await {
            Ok(Ok(())) => report::delivered(timings),
            Ok(Err(failure)) => report::failed(failure.verdict, failure.words, timings),
            Err(_) => report::timed_out(self.timeout, timings),
        }
    }
}
