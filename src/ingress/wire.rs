//! The socket of an HTTP/1 connection as hyper sees it. It shows every byte to the [`Scanner`] first and hides from
//! hyper what must not be served; it notes where the connection stands ([`Progress`]), so that its deadlines can be
//! kept without a timer a request; and it keeps back hyper's own empty error replies, which ours replace.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::{
    reply::Refused,
    strict_http::{Fault, Scanner},
};

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// For its first byte.
    New,
    /// For the rest of a head.
    Head,
    /// For us: a request is under way, and keeps its own deadlines.
    Request,
    /// For the peer to take the reply.
    Reply,
    /// For another request.
    Idle,
}

/// Where a connection stands; shared by its socket, its requests and whoever keeps its deadlines.
#[derive(Debug)]
pub(super) struct Progress {
    phase: Cell<Phase>,
    since: Cell<Instant>,
    /// Requests under way: at most one in HTTP/1, several streams in HTTP/2.
    requests: Cell<usize>,
    /// What must still be told to the peer before the connection closes.
    refused: Cell<Option<Refused>>,
    /// The peer may still be sending what nobody will read.
    unread: Cell<bool>,
}

impl Progress {
    /// A new connection.
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::New),
            since: Cell::new(Instant::now()),
            requests: Cell::new(0),
            refused: Cell::new(None),
            unread: Cell::new(false),
        })
    }

    /// The phase, and when it began.
    pub(super) fn phase(&self) -> (Phase, Instant) {
        (self.phase.get(), self.since.get())
    }

    fn enter(&self, phase: Phase) {
        if self.phase.replace(phase) != phase {
            self.since.set(Instant::now());
        }
    }

    /// The first byte is there.
    pub(super) fn opened(&self) {
        self.enter(Phase::Head);
    }

    /// A request's head is complete.
    pub(super) fn request_began(&self) {
        self.requests.set(self.requests.get() + 1);
        self.unread.set(false);
        self.phase.set(Phase::Request);
    }

    /// A request's reply is made, or nobody waits for it any more. `unread`: its body did not end.
    pub(super) fn request_ended(&self, unread: bool) {
        let requests = self.requests.get().saturating_sub(1);
        self.requests.set(requests);
        self.unread.set(self.unread.get() || unread);
        if requests == 0 {
            self.enter(Phase::Reply);
        }
    }

    /// For HTTP/2, whose frames are not followed here: the connection is idle unless a request is under way.
    pub(super) fn rest(&self) {
        if self.requests.get() == 0 {
            self.enter(Phase::Idle);
        }
    }

    /// Takes the refusal that nobody has told the peer yet.
    pub(super) fn take_refused(&self) -> Option<Refused> {
        self.refused.take()
    }

    /// Whether closing now would make the peer's system throw our last reply away.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.get()
    }
}

/// Reads and writes for hyper.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    /// What was read to tell HTTP/1 from HTTP/2.
    first: Vec<u8>,
    /// Only for HTTP/1.
    scanner: Option<Scanner>,
    progress: Rc<Progress>,
    /// A violation was found: hyper sees the end of the stream.
    ended: bool,
}

impl Wire {
    /// A wire for HTTP/1 when there is a scanner, else for HTTP/2.
    pub(super) fn new(stream: TcpStream, first: Vec<u8>, scanner: Option<Scanner>, progress: Rc<Progress>) -> Self {
        Self { stream, first, scanner, progress, ended: false }
    }

    /// The socket, for closing it.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Shows new bytes to the scanner; how many of them hyper may see.
    fn admit(&mut self, bytes: &[u8]) -> usize {
        let Some(scanner) = &mut self.scanner else { return bytes.len() };
        if bytes.is_empty() {
            return 0;
        }
        if self.progress.phase.get() == Phase::Idle {
            self.progress.enter(Phase::Head);
        }
        match scanner.take_in(bytes) {
            Ok(()) => bytes.len(),
            Err(violation) => {
                self.ended = true;
                self.progress.refused.set(Some(violation.fault.into()));
                self.progress.unread.set(true);
                violation.passed
            }
        }
    }

    /// Whether bytes that hyper writes now are its own verdict on what it could not parse.
    fn is_hypers_own(&self) -> bool {
        self.scanner.is_some() && matches!(self.progress.phase.get(), Phase::Head | Phase::Idle)
    }

    fn keep_back(&self, reply: &[u8]) {
        if self.progress.refused.get().is_none() {
            let fault = match reply.get(9..12) {
                Some(b"431") => Fault::HeadersTooLarge,
                Some(b"414") => Fault::TargetTooLong,
                _ => Fault::Malformed("the request's head is malformed"),
            };
            self.progress.refused.set(Some(fault.into()));
            self.progress.unread.set(true);
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if me.ended {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if me.first.is_empty() {
            ready!(Pin::new(&mut me.stream).poll_read(cx, buf))?;
        } else {
            let count = me.first.len().min(buf.remaining());
            let first = me.first.split_off(count);
            buf.put_slice(&std::mem::replace(&mut me.first, first));
        }
        let admitted = me.admit(&buf.filled()[before..]);
        buf.set_filled(before + admitted);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        if me.is_hypers_own() {
            me.keep_back(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut me.stream).poll_write(cx, buf)
    }

    /// hyper flushes once all it had to write is written.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(scanner) = &self.scanner
            && self.progress.phase.get() == Phase::Reply
        {
            self.progress.enter(if scanner.inside_head() { Phase::Head } else { Phase::Idle });
        }
        Poll::Ready(Ok(()))
    }

    /// An HTTP/1 connection is closed after hyper has let go of it, as there may be something left to say.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.scanner {
            Some(_) => Poll::Ready(Ok(())),
            None => Pin::new(&mut self.get_mut().stream).poll_shutdown(cx),
        }
    }
}
