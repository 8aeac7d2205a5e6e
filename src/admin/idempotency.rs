//! `Idempotency-Key`: a `POST` that is sent again with the same key is answered as it was the first time, and done once.
//!
//! Replies are kept in memory alone, wiped when they go, because some show a secret this once: nothing of them is on disk,
//! and a restart forgets them. A request with a key goes on when its client goes away, so that its end is known to
//! whoever asks again. What was refused for a reason that passes by itself is not kept.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hookmill_actors::activity;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::Instrument;
use zeroize::Zeroizing;

use super::{
    access::Access,
    json::collect,
    problem::{Code, Problem},
};
use crate::tokens::TokenId;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Key, characters.
const KEY_CHARS_MAX: usize = 255;
/// How long a reply is kept.
const KEPT: Duration = Duration::from_hours(24);

/// How much is kept; beyond it the oldest replies go.
#[derive(Clone, Copy)]
struct Bounds {
    replies: usize,
    /// Of all bodies.
    bytes: usize,
    /// Of one body.
    reply_bytes: usize,
}

const BOUNDS: Bounds = Bounds { replies: 10_000, bytes: 32 << 20, reply_bytes: 256 << 10 };

/// The replies that are kept. Clones share them.
#[derive(Clone)]
pub(super) struct Replies(Arc<Shared>);

struct Shared {
    bounds: Bounds,
    kept: Mutex<Kept>,
}

/// Whose request, and its key. A token that takes the name of one that is revoked has another number.
type Name = (Option<TokenId>, String);
/// What was asked for.
type Asked = [u8; 32];

#[derive(Default)]
struct Kept {
    requests: HashMap<Name, Known>,
    /// The replies, oldest first.
    order: VecDeque<(Instant, Name)>,
    bytes: usize,
}

struct Known {
    asked: Asked,
    /// `None` while it is under way.
    reply: Option<Arc<Reply>>,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    /// `None` where it was too large.
    body: Option<Zeroizing<Vec<u8>>>,
}

/// What is known of a request that comes in.
enum Met {
    /// Nothing: it is to be done.
    New(UnderWay),
    /// It was done.
    Done(Arc<Reply>),
    /// It is being done.
    UnderWay,
    /// Something else was asked for with this key.
    Other,
    /// Nothing more can be under way.
    Full,
}

/// A request that is being done. Dropped without a reply, it was never there.
struct UnderWay {
    replies: Replies,
    name: Option<Name>,
}

/// The middleware around all routes.
pub(super) async fn layer(State(replies): State<Replies>, request: Request, next: Next) -> Response {
    let answer = async {
        if *request.method() != Method::POST {
            return Ok(next.run(request).await);
        }
        let Some(key) = key(request.headers())? else { return Ok(next.run(request).await) };
        let Some(Access(identity)) = request.extensions().get().cloned() else { return Ok(next.run(request).await) };
        let (parts, body) = request.into_parts();
        let body = collect(Request::from_parts(parts.clone(), body), &()).await?;
        let asked = asked(&parts.method, parts.uri.path_and_query().map_or("", |it| it.as_str()), &body);
        match replies.meet((identity.id, key), asked, Instant::now()) {
            Met::New(under_way) => Ok(done(under_way, Request::from_parts(parts, Body::from(body)), next).await),
            Met::Done(reply) => Ok(reply.again()),
            Met::UnderWay => Err(Problem {
                retry_after_s: Some(1),
                ..Problem::new(Code::InProgress, "a request with this `idempotency-key` is under way; ask again later")
            }),
            Met::Other => Err(Problem::new(
                Code::KeyReused,
                "this `idempotency-key` was given with another request; take a new one for each thing to be done",
            )),
            Met::Full => Err(Problem {
                retry_after_s: Some(1),
                ..Problem::new(Code::Busy, "too many requests with an `idempotency-key` are under way")
            }),
        }
    };
    answer.await.unwrap_or_else(Problem::into_response)
}

/// Does it in a task of its own: its client may go away, and then asks again.
async fn done(under_way: UnderWay, request: Request, next: Next) -> Response {
    let source = activity::source();
    let task = async move {
        let response = match source {
            Some(source) => activity::from_source(source, next.run(request)).await,
            None => next.run(request).await,
        };
        under_way.ended(response).await
    };
    tokio::spawn(task.in_current_span())
        .await
        // The panic hook has logged where.
        .unwrap_or_else(|_| Problem::internal(&"a handler panicked").into_response())
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let refused = |detail: &str| Problem::new(Code::InvalidRequest, format!("the header `Idempotency-Key` {detail}"));
    let mut lines = headers.get_all(KEY).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(refused("occurs more than once"));
    }
    match line.to_str() {
        Ok(key) if (1..=KEY_CHARS_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(refused(&format!("must be 1 to {KEY_CHARS_MAX} visible ASCII characters, such as a UUID"))),
    }
}

fn asked(method: &Method, path: &str, body: &[u8]) -> Asked {
    let mut hash = Sha256::new();
    // No method and no path holds a line's end.
    for part in [method.as_str(), "\n", path, "\n"] {
        hash.update(part);
    }
    hash.update(body);
    hash.finalize().into()
}

/// Whether it would be answered the same way again: neither a fault here, nor what passes.
fn is_final(status: StatusCode) -> bool {
    let passes = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::CONFLICT,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    !status.is_server_error() && !passes.contains(&status)
}

impl Replies {
    pub(super) fn new() -> Self {
        Self::bounded(BOUNDS)
    }

    fn bounded(bounds: Bounds) -> Self {
        Self(Arc::new(Shared { bounds, kept: Mutex::default() }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Each change under it is whole before anything can panic.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meet(&self, name: Name, asked: Asked, now: Instant) -> Met {
        let mut kept = self.kept();
        while kept.order.front().is_some_and(|(at, _)| now.duration_since(*at) >= KEPT) {
            kept.forget_oldest();
        }
        match kept.requests.get(&name) {
            Some(known) if known.asked != asked => return Met::Other,
            Some(Known { reply: Some(reply), .. }) => return Met::Done(reply.clone()),
            Some(Known { reply: None, .. }) => return Met::UnderWay,
            None => {}
        }
        if kept.requests.len() >= self.0.bounds.replies && !kept.forget_oldest() {
            return Met::Full;
        }
        kept.requests.insert(name.clone(), Known { asked, reply: None });
        Met::New(UnderWay { replies: self.clone(), name: Some(name) })
    }

    fn keep(&self, name: Name, reply: Reply, now: Instant) {
        let mut kept = self.kept();
        let Some(known) = kept.requests.get_mut(&name) else { return };
        let bytes = reply.bytes();
        known.reply = Some(Arc::new(reply));
        kept.order.push_back((now, name));
        kept.bytes += bytes;
        while kept.bytes > self.0.bounds.bytes && kept.forget_oldest() {}
    }
}

impl Kept {
    /// Whether there was one.
    fn forget_oldest(&mut self) -> bool {
        let Some((_, name)) = self.order.pop_front() else { return false };
        if let Some(Known { reply: Some(reply), .. }) = self.requests.remove(&name) {
            self.bytes -= reply.bytes();
        }
        true
    }
}

impl UnderWay {
    /// Keeps the reply, where it is final, and hands it on.
    async fn ended(mut self, response: Response) -> Response {
        if !is_final(response.status()) {
            return response;
        }
        let (parts, body) = response.into_parts();
        let kept = |body| Reply { status: parts.status, headers: parts.headers.clone(), body };
        let small = body.size_hint().exact().is_some_and(|bytes| bytes <= self.replies.0.bounds.reply_bytes as u64);
        let (reply, body) = if small {
            match axum::body::to_bytes(body, self.replies.0.bounds.reply_bytes).await {
                Ok(bytes) => (kept(Some(Zeroizing::new(bytes.to_vec()))), Body::from(bytes)),
                // It was in memory already.
                Err(error) => return Problem::internal(&error).into_response(),
            }
        } else {
            (kept(None), body)
        };
        if let Some(name) = self.name.take() {
            self.replies.keep(name, reply, Instant::now());
        }
        Response::from_parts(parts, body)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.replies.kept().requests.remove(&name);
        }
    }
}

impl Reply {
    fn bytes(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.len())
    }

    fn again(&self) -> Response {
        let mut response = match &self.body {
            Some(body) => (self.status, self.headers.clone(), Bytes::copy_from_slice(body)).into_response(),
            None => {
                let status = self.status.as_u16();
                let detail = format!("it was done and answered {status}; the reply was too large to keep, look again");
                Problem::new(Code::Conflict, detail).into_response()
            }
        };
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}

#[cfg(test)]
mod tests;
