//! The ingress under test, and a client that sends bytes and reads replies.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use hookmill::ingress::{Ingress, IngressOptions, IngressPorts};
use hookmill_actors::metrics::{Counters, Totals};
use serde_json::{Value, json};

use crate::ports::*;

pub(crate) struct Bench {
    pub(crate) ingress: Option<Ingress>,
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<TestLog>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) readiness: Arc<TestReadiness>,
    pub(crate) refused: Arc<TestRefused>,
}

pub(crate) fn options() -> IngressOptions {
    IngressOptions {
        address: "127.0.0.1:0".parse().unwrap(),
        threads: 2,
        head_timeout: Duration::from_millis(400),
        request_timeout: Duration::from_secs(3),
        idle_timeout: Duration::from_secs(3),
        drain_timeout: Duration::from_secs(2),
        body_bytes_max: 1_000,
        ..IngressOptions::default()
    }
}

pub(crate) fn start() -> Bench {
    start_with(options())
}

pub(crate) fn start_with(options: IngressOptions) -> Bench {
    let log = Arc::new(TestLog { mood: Mutex::new(Mood::Stores), events: Mutex::default(), waiting: Mutex::default() });
    let counters = Arc::new(Counters::default());
    let readiness = Arc::new(TestReadiness(Mutex::default()));
    let refused = Arc::new(TestRefused::default());
    let ports = IngressPorts {
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot())),
        log: log.clone(),
        clock: Arc::new(FixedClock),
        counters: counters.clone(),
        readiness: readiness.clone(),
        refused: refused.clone(),
    };
    let ingress = Ingress::start(options, ports).expect("the ingress starts");
    Bench { address: ingress.local_addr(), ingress: Some(ingress), log, counters, readiness, refused }
}

impl Bench {
    pub(crate) fn connect(&self) -> Peer {
        let stream = TcpStream::connect(self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream, buffer: Vec::new() }
    }

    /// Sends on a connection of its own and reads one reply.
    pub(crate) fn ask(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut peer = self.connect();
        peer.send(bytes);
        peer.answer()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.counters.totals()
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.ask("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
    }
}

pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) buffer: Vec<u8>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    #[track_caller]
    pub(crate) fn is(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let document: Value = serde_json::from_str(&self.body).expect("a problem document");
        assert_eq!((&document["status"], &document["code"]), (&json!(status), &json!(code)), "{self:?}");
        assert_eq!(self.header("retry-after").is_some(), [429, 503].contains(&status), "{self:?}");
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

impl Peer {
    /// The ingress may refuse and stop reading before all is sent: that is no failure here.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    pub(crate) fn fill(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                true
            }
        }
    }

    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("POST").expect("an answer")
    }

    pub(crate) fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                return None;
            }
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers: BTreeMap<String, String> = lines
            .map(|line| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap())
            .collect();
        headers.remove("date");
        let length = match method {
            "HEAD" => 0,
            _ => headers.get("content-length").map_or(0, |length| length.parse().unwrap()),
        };
        while self.buffer.len() < length {
            if !self.fill() {
                return None;
            }
        }
        let body = String::from_utf8(self.buffer.drain(..length).collect()).unwrap();
        Some(Answer { status, headers, body })
    }

    /// Whether nothing more comes, and the stream ends: a read that times out is no end.
    #[track_caller]
    pub(crate) fn is_closed(&mut self) -> bool {
        assert!(self.buffer.is_empty(), "unexpected: {:?}", String::from_utf8_lossy(&self.buffer));
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

pub(crate) fn post(path: &str, body: &str) -> String {
    format!(
        "POST /webhooks/receive{path} HTTP/1.1\r\nHost: a\r\nX-Signature: good\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) fn post_with(lines: &str, body: &str) -> String {
    format!("POST /webhooks/receive/orders HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A signed request to `/orders` whose framing is up to the test.
pub(crate) fn framed(lines: &str) -> String {
    format!("POST /webhooks/receive/orders HTTP/1.1\r\nHost: a\r\nX-Signature: good\r\n{lines}\r\n")
}
