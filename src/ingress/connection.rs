//! One connection from its first byte to its close: tells HTTP/1 from HTTP/2, lets hyper serve it, keeps its
//! deadlines, says the last word where there is one, and closes so that the peer can still read it.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until, timeout_at},
};

use super::{
    IngressOptions, Shared, accept,
    listener::Panicking,
    reply::Refused,
    strict_http::Scanner,
    wire::{Phase, Progress, Wire},
};

/// What an HTTP/2 connection with prior knowledge begins with (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a closing connection may take to read its last reply, and to stop sending.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// hyper asks for room beyond a head so that most bodies come in the same read.
const READ_BUFFER_BYTES_MIN: usize = 64 * 1024;
/// hyper's own bound on header lines.
const HYPER_HEADER_COUNT_MAX: usize = 100;
/// One HTTP/2 connection holds no more of unread bodies than this.
const HTTP2_WINDOW_BYTES: u32 = 1 << 20;
const HTTP2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const HTTP2_FRAME_BYTES_MAX: u32 = 16 * 1024;
/// Streams reset before we looked at them, at most: a "rapid reset" ends the connection.
const HTTP2_RESETS_MAX: usize = 32;
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves connections; one for each thread.
pub(super) struct Server {
    shared: Arc<Shared>,
    http1: http1::Builder,
    http2: http2::Builder<LocalExecutor>,
}

/// Runs the streams of HTTP/2 connections on their connection's thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F> Executor<F> for LocalExecutor
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            let _guard = Panicking("a stream");
            future.await;
        });
    }
}

impl Server {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let IngressOptions { header_count_max, header_bytes_max, http2_streams_max, .. } = shared.options;
        let mut http1 = http1::Builder::new();
        http1
            // A sender that shuts its writing side still waits for our word.
            .half_close(true)
            // Replies are small: one buffer, one write.
            .writev(false)
            .max_buf_size(READ_BUFFER_BYTES_MIN.max(2 * header_bytes_max))
            .max_header_size(2 * header_bytes_max)
            // The head's deadline is kept here, where it can be told from idleness.
            .header_read_timeout(None)
            .timer(TokioTimer::new());
        // The scanner counts them already; only a larger bound must be told, as it costs hyper an allocation a request.
        if header_count_max > HYPER_HEADER_COUNT_MAX {
            http1.max_headers(header_count_max);
        }
        let mut http2 = http2::Builder::new(LocalExecutor);
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(http2_streams_max)
            .max_header_list_size(u32::try_from(header_bytes_max).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(HTTP2_RESETS_MAX)
            .initial_connection_window_size(HTTP2_WINDOW_BYTES)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES_MAX)
            .keep_alive_interval(HTTP2_PING_INTERVAL)
            .keep_alive_timeout(HTTP2_PING_TIMEOUT);
        Self { shared, http1, http2 }
    }

    /// Serves one connection until it is closed.
    pub(super) async fn serve(self: Rc<Self>, mut stream: TcpStream, peer: IpAddr) {
        let peer = peer.to_canonical();
        let progress = Progress::new();
        let first = match self.first_bytes(&mut stream, &progress).await {
            Opening::Http1(first) => first,
            Opening::Http2 => return self.serve_http2(stream, peer, progress).await,
            Opening::Gone => return,
            Opening::Overdue => return self.close(stream, self.overdue()).await,
        };
        self.serve_http1(stream, peer, first, progress).await;
    }

    /// Reads until the protocol is known: one read, unless a preface dribbles in.
    async fn first_bytes(&self, stream: &mut TcpStream, progress: &Progress) -> Opening {
        let mut bytes = [0; HTTP2_PREFACE.len()];
        let mut count = 0;
        let mut watch = Watch::new(&self.shared, progress);
        loop {
            let mut read = pin!(stream.read(&mut bytes[count..]));
            let read = poll_fn(|cx| match read.as_mut().poll(cx) {
                Poll::Ready(read) => Poll::Ready(Some(read)),
                Poll::Pending => watch.poll_overdue(cx).map(|()| None),
            });
            match read.await {
                None if count == 0 => return Opening::Gone,
                None => return Opening::Overdue,
                Some(Ok(0)) if count > 0 => return Opening::Http1(bytes[..count].to_vec()),
                Some(Ok(0) | Err(_)) => return Opening::Gone,
                Some(Ok(more)) => count += more,
            }
            progress.opened();
            if bytes[..count] != HTTP2_PREFACE[..count] {
                return Opening::Http1(bytes[..count].to_vec());
            }
            if count == bytes.len() {
                return Opening::Http2;
            }
        }
    }

    async fn serve_http1(&self, stream: TcpStream, peer: IpAddr, first: Vec<u8>, progress: Rc<Progress>) {
        let shared = &self.shared;
        let service = service_fn(|request| {
            let (shared, progress) = (shared.clone(), progress.clone());
            async move { Ok::<_, Infallible>(accept::answer(&shared, &progress, peer, request).await) }
        });
        let scanner = Scanner::new(shared.head_limits);
        let wire = TokioIo::new(Wire::new(stream, first, Some(scanner), progress.clone()));
        let mut connection = self.http1.serve_connection(wire, service);
        let is_overdue = {
            let mut watch = Watch::new(shared, &progress);
            poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
                // hyper's error, if any, is about this peer alone: it left, or what it sent was refused.
                Poll::Ready(_) => Poll::Ready(false),
                Poll::Pending => watch.poll_overdue(cx).map(|()| true),
            })
            .await
        };
        let (phase, _) = progress.phase();
        let stream = connection.into_parts().io.into_inner().into_stream();
        if let Some(refused) = progress.take_refused() {
            self.close(stream, refused).await;
        } else if is_overdue && phase == Phase::Head {
            self.close(stream, self.overdue()).await;
        } else if progress.is_unread() && !is_overdue {
            discard(stream, self.linger_deadline()).await;
        }
    }

    async fn serve_http2(&self, stream: TcpStream, peer: IpAddr, progress: Rc<Progress>) {
        let shared = &self.shared;
        let service = service_fn(|request| {
            let (shared, progress) = (shared.clone(), progress.clone());
            async move {
                let reply = accept::answer(&shared, &progress, peer, request).await;
                progress.rest();
                Ok::<_, Infallible>(reply)
            }
        });
        progress.rest();
        let wire = TokioIo::new(Wire::new(stream, HTTP2_PREFACE.to_vec(), None, progress.clone()));
        let mut connection = pin!(self.http2.serve_connection(wire, service));
        let mut watch = Watch::new(shared, &progress);
        let mut is_leaving = false;
        poll_fn(|cx| {
            loop {
                if connection.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                // Streams under way are finished; the peer is told to open no more.
                if shared.drain.has_begun() && !is_leaving {
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                    continue;
                }
                return watch.poll_overdue(cx);
            }
        })
        .await;
    }

    /// What to tell a peer whose head did not come in time.
    fn overdue(&self) -> Refused {
        if self.shared.drain.has_begun() { Refused::Draining } else { Refused::Slow }
    }

    /// Says the last word and closes.
    async fn close(&self, mut stream: TcpStream, refused: Refused) {
        self.shared.refusals.note(refused, self.shared.clock.now_ms());
        let deadline = self.linger_deadline();
        if let Ok(Ok(())) = timeout_at(deadline, stream.write_all(&refused.raw())).await {
            discard(stream, deadline).await;
        }
    }

    fn linger_deadline(&self) -> Instant {
        let deadline = Instant::now() + LINGER_MAX;
        self.shared.drain.ends_at().map_or(deadline, |end| end.min(deadline))
    }
}

/// How a connection opened.
enum Opening {
    Http1(Vec<u8>),
    Http2,
    Gone,
    Overdue,
}

/// A socket that is closed with unread bytes in it resets the connection, and the peer's system may throw our reply
/// away unread. So say that we are done, and read what comes until the peer is done too.
async fn discard(mut stream: TcpStream, deadline: Instant) {
    let _ = timeout_at(deadline, async {
        let mut bytes = [0; 4096];
        stream.shutdown().await?;
        while stream.read(&mut bytes).await? > 0 {}
        std::io::Result::Ok(())
    })
    .await;
}

/// Keeps a connection's deadlines with one timer that is seldom set: it wakes at the earliest deadline it knew of,
/// and looks whether that still holds.
struct Watch<'a> {
    shared: &'a Shared,
    progress: &'a Progress,
    timer: Pin<Box<Sleep>>,
    /// `None` once it has begun.
    drain: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
    is_listening: bool,
}

impl<'a> Watch<'a> {
    fn new(shared: &'a Shared, progress: &'a Progress) -> Self {
        let (_, since) = progress.phase();
        let timer = Box::pin(sleep_until(since + shared.options.head_timeout));
        Self { shared, progress, timer, drain: Some(Box::pin(shared.drain.begun())), is_listening: false }
    }

    /// Ready once the connection has waited too long. To be polled whenever the connection was.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Asking takes a lock, and one registered waker is enough: the task stays the same.
        if (!self.is_listening || self.shared.drain.has_begun())
            && let Some(drain) = &mut self.drain
        {
            self.is_listening = true;
            if drain.as_mut().poll(cx).is_ready() {
                self.drain = None;
            }
        }
        loop {
            if let Some(deadline) = self.deadline()
                && deadline < self.timer.deadline()
            {
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
            // The deadline may have moved on since the timer was set.
            let now = Instant::now();
            match self.deadline() {
                Some(deadline) if deadline <= now => return Poll::Ready(()),
                Some(deadline) => self.timer.as_mut().reset(deadline),
                None => self.timer.as_mut().reset(now + self.shared.options.idle_timeout),
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let options = &self.shared.options;
        let drain = &self.shared.drain;
        let (phase, since) = self.progress.phase();
        let (deadline, drained) = match phase {
            Phase::New => (Some(since + options.head_timeout), drain.idle_ends_at()),
            Phase::Head => (Some(since + options.head_timeout), drain.ends_at()),
            // The request keeps its own deadline.
            Phase::Request => (None, drain.ends_at()),
            Phase::Reply => (Some(since + options.idle_timeout), drain.ends_at()),
            Phase::Idle => (Some(since + options.idle_timeout), drain.idle_ends_at()),
        };
        [deadline, drained].into_iter().flatten().min()
    }
}
