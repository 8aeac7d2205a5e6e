//! One connection to a NATS server: many messages under way on it, each waiting for its stream's acknowledgement.
//! A task owns the socket; it ends with the connection, and everyone who waits hears why.

use std::{collections::HashMap, time::Duration};

use bytes::{Bytes, BytesMut};
use hookmill_actors::domain::limits::IN_FLIGHT_MAX;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{
    super::{
        link::{Dialer, Failure, Io, Session},
        report::peers_words,
        url::Server,
    },
    wire::{self, Info, Said},
};
use crate::secrets::random_bytes;

/// How often the server is asked whether it is there; it hangs up when a second question finds the first unanswered.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Bytes on their way into the socket, beyond which no more messages are taken.
const OUT_BYTES_MAX: usize = 1 << 20;
/// Messages that wait for an answer, beyond which those that nobody waits for are looked for.
const PENDING_MAX: usize = 4 * IN_FLIGHT_MAX;

/// How one signs in.
#[derive(Clone, Default)]
pub(super) struct SignIn {
    pub(super) token: Option<String>,
    pub(super) user: Option<(String, String)>,
}

/// A stream's answer: its bytes, and the status in its headers.
pub(super) type Answer = Result<(Option<u16>, Bytes), Failure>;

struct Message {
    subject: String,
    headers: Bytes,
    payload: Bytes,
    answer: oneshot::Sender<Answer>,
}

/// A connection that has signed in.
pub(super) struct NatsSession {
    messages: mpsc::Sender<Message>,
    /// Bytes of headers and payload that the server takes.
    payload_max: usize,
}

impl Session for NatsSession {
    fn is_alive(&self) -> bool {
        !self.messages.is_closed()
    }
}

impl NatsSession {
    /// Connects and signs in.
    pub(super) async fn open(dialer: &Dialer, server: &Server, tls: bool, sign_in: &SignIn) -> Result<Self, Failure> {
        let mut tcp = dialer.tcp(server).await?;
        let mut read = BytesMut::with_capacity(4096);
        let info = greeting(&mut tcp, &mut read).await?;
        if !info.headers || !info.jetstream {
            let what = if info.headers { "has JetStream switched off" } else { "is too old: it knows no headers" };
            return Err(Failure::passing(format!("the NATS server {what}")));
        }
        let tls = tls || info.tls_required;
        let mut stream: Box<dyn Io> = if tls {
            // What came in clear after the greeting could be anybody's.
            read.clear();
            dialer.secure(server, tcp).await?
        } else {
            Box::new(tcp)
        };
        let inbox = format!("_INBOX.{}", hex::encode(random_bytes::<16>()));
        stream.write_all(hello(sign_in, tls, &inbox).as_bytes()).await?;
        stream.flush().await?;
        loop {
            match said(&mut stream, &mut read).await? {
                Said::Pong => break,
                Said::Error(words) => {
                    return Err(Failure::passing(format!("NATS refused the sign-in: {}", peers_words(&words))));
                }
                _ => {}
            }
        }
        let (messages, queue) = mpsc::channel(IN_FLIGHT_MAX);
        let talk = Talk { read, out: BytesMut::new(), inbox, pending: HashMap::new(), last: 0, unanswered: false };
        tokio::spawn(talk.run(stream, queue));
        Ok(Self { messages, payload_max: info.max_payload })
    }

    /// Bytes of headers and payload that the server takes at once.
    pub(super) fn payload_max(&self) -> usize {
        self.payload_max
    }

    /// Publishes and waits for the answer.
    pub(super) async fn ask(&self, subject: String, headers: Bytes, payload: Bytes) -> Answer {
        let (answer, answered) = oneshot::channel();
        let gone = || Failure::passing("the connection was closed before an answer came");
        self.messages.send(Message { subject, headers, payload, answer }).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn greeting(stream: &mut (impl Io + ?Sized), read: &mut BytesMut) -> Result<Info, Failure> {
    match said(stream, read).await? {
        Said::Info(info) => Ok(info),
        _ => Err(Failure::passing(wire::Malformed("no INFO at the beginning").to_string())),
    }
}

async fn said(stream: &mut (impl Io + ?Sized), read: &mut BytesMut) -> Result<Said, Failure> {
    loop {
        match wire::next(read) {
            Ok(Some(said)) => return Ok(said),
            Ok(None) => {}
            Err(malformed) => return Err(Failure::passing(malformed.to_string())),
        }
        if stream.read_buf(read).await? == 0 {
            return Err(Failure::passing("the connection was closed before an answer came"));
        }
    }
}

/// Signs in, subscribes to our inbox, and asks for a sign that both were taken.
fn hello(sign_in: &SignIn, tls: bool, inbox: &str) -> String {
    let mut connect = json!({
        "verbose": false, "pedantic": false, "tls_required": tls, "lang": "rust", "name": "hookmill",
        "version": env!("CARGO_PKG_VERSION"), "protocol": 1, "headers": true, "no_responders": true, "echo": false,
    });
    if let Some(token) = &sign_in.token {
        connect["auth_token"] = token.as_str().into();
    }
    if let Some((user, password)) = &sign_in.user {
        connect["user"] = user.as_str().into();
        connect["pass"] = password.as_str().into();
    }
    format!("CONNECT {connect}\r\nSUB {inbox}.* 1\r\nPING\r\n")
}

/// The connection's task.
struct Talk {
    read: BytesMut,
    out: BytesMut,
    inbox: String,
    pending: HashMap<u64, oneshot::Sender<Answer>>,
    last: u64,
    /// A ping of ours has no pong yet.
    unanswered: bool,
}

impl Talk {
    async fn run(mut self, stream: Box<dyn Io>, mut queue: mpsc::Receiver<Message>) {
        let ended = self.talk(stream, &mut queue).await;
        queue.close();
        while let Ok(message) = queue.try_recv() {
            let _ = message.answer.send(Err(ended.clone()));
        }
        self.fail_all(&ended);
    }

    /// Until the connection ends, or nobody needs it any more.
    async fn talk(&mut self, stream: Box<dyn Io>, queue: &mut mpsc::Receiver<Message>) -> Failure {
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        let (mut reader, mut writer) = tokio::io::split(stream);
        loop {
            loop {
                match wire::next(&mut self.read) {
                    Ok(Some(said)) => {
                        if let Some(ended) = self.heard(said) {
                            return ended;
                        }
                    }
                    Ok(None) => break,
                    Err(malformed) => return Failure::passing(malformed.to_string()),
                }
            }
            tokio::select! {
                read = reader.read_buf(&mut self.read) => match read {
                    Ok(0) => return Failure::passing("the NATS server closed the connection"),
                    Ok(_) => {}
                    Err(error) => return error.into(),
                },
                written = writer.write_buf(&mut self.out), if !self.out.is_empty() => {
                    let flushed = match written {
                        Ok(_) if self.out.is_empty() => writer.flush().await,
                        Ok(_) => Ok(()),
                        Err(error) => Err(error),
                    };
                    if let Err(error) = flushed {
                        return error.into();
                    }
                }
                message = queue.recv(), if self.out.len() < OUT_BYTES_MAX => match message {
                    Some(message) => self.publish(message),
                    None => return Failure::passing("the destination was changed"),
                },
                _ = pings.tick() => {
                    if self.unanswered {
                        return Failure::passing("the NATS server does not answer any more");
                    }
                    self.unanswered = true;
                    self.out.extend_from_slice(b"PING\r\n");
                }
            }
        }
    }

    fn publish(&mut self, message: Message) {
        if self.pending.len() >= PENDING_MAX {
            self.pending.retain(|_, answer| !answer.is_closed());
        }
        self.last += 1;
        let reply = format!("{}.{}", self.inbox, self.last);
        wire::publish(&mut self.out, &message.subject, &reply, &message.headers, &message.payload);
        self.pending.insert(self.last, message.answer);
    }

    /// Acts on what the server said; a failure ends the talk.
    fn heard(&mut self, said: Said) -> Option<Failure> {
        match said {
            Said::Ping => self.out.extend_from_slice(b"PONG\r\n"),
            Said::Pong => self.unanswered = false,
            Said::Message { subject, status, payload } => {
                let number = subject.rsplit('.').next().and_then(|number| number.parse().ok());
                if let Some(answer) = number.and_then(|number: u64| self.pending.remove(&number)) {
                    let _ = answer.send(Ok((status, payload)));
                }
            }
            // It goes on, but does not say which message it means.
            Said::Error(words) if words.starts_with("Permissions Violation") => {
                self.fail_all(&Failure::passing(format!("NATS refused: {}", peers_words(&words))));
            }
            Said::Error(words) => return Some(Failure::passing(format!("NATS hung up: {}", peers_words(&words)))),
            Said::Info(_) | Said::Ok => {}
        }
        None
    }

    fn fail_all(&mut self, failure: &Failure) {
        for (_, answer) in self.pending.drain() {
            let _ = answer.send(Err(failure.clone()));
        }
    }
}
