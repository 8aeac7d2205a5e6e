//! `Idempotency-Key`: a `POST` that is sent again with the same key is answered as it was the first time, and done once.
//!
//! Such a request is noted durably before anything is done, and its reply before it is sent; so it is done once across a
//! restart, too. Where hookmill stopped in between, nobody knows whether it was done: whoever repeats it is told so,
//! rather than that it is done twice. A request with a key goes on when its client goes away, so that its end is known
//! to whoever asks again. What was refused for a reason that passes by itself is not kept.

mod kept;

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hookmill_actors::activity;
use sha2::{Digest, Sha256};
use tracing::Instrument;
use zeroize::Zeroizing;

use self::kept::{Met, Reply, UnderWay};
pub(super) use self::kept::{Replies, ReplyPorts};
use super::{
    access::Access,
    json::collect,
    problem::{Code, Problem},
};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Key, characters.
const KEY_CHARS_MAX: usize = 255;

/// What was asked for: a hash.
type Asked = [u8; 32];

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
        match replies.meet((identity.id, key), asked) {
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
        if let Err(problem) = under_way.noted().await {
            return problem.into_response();
        }
        let response = match source {
            Some(source) => activity::from_source(source, next.run(request)).await,
            None => next.run(request).await,
        };
        ended(under_way, response).await
    };
    tokio::spawn(task.in_current_span())
        .await
        // The panic hook has logged where.
        .unwrap_or_else(|_| Problem::internal(&"a handler panicked").into_response())
}

/// Keeps the reply, where it is final, and hands it on.
async fn ended(under_way: UnderWay, response: Response) -> Response {
    if !is_final(response.status()) {
        under_way.forgotten().await;
        return response;
    }
    let (parts, body) = response.into_parts();
    let bytes_max = under_way.reply_bytes_max();
    let small = body.size_hint().exact().is_some_and(|bytes| bytes <= bytes_max as u64);
    let (reply, body) = if small {
        match axum::body::to_bytes(body, bytes_max).await {
            Ok(bytes) => {
                let (status, headers) = (parts.status, parts.headers.clone());
                (Reply::Whole { status, headers, body: Zeroizing::new(bytes.to_vec()) }, Body::from(bytes))
            }
            // It was in memory already.
            Err(error) => return Problem::internal(&error).into_response(),
        }
    } else {
        (Reply::Large(parts.status), body)
    };
    under_way.kept(reply).await;
    Response::from_parts(parts, body)
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

impl Reply {
    fn again(&self) -> Response {
        let mut response = match self {
            Self::Whole { status, headers, body } => (*status, headers.clone(), body.to_vec()).into_response(),
            Self::Large(status) => {
                let status = status.as_u16();
                let detail = format!("it was done and answered {status}; the reply was too large to keep, look again");
                Problem::new(Code::Conflict, detail).into_response()
            }
            Self::Unknown => Problem::new(
                Code::OutcomeUnknown,
                "hookmill stopped while a request with this `idempotency-key` was under way: look whether it was done; \
                 if not, send it again with a new key",
            )
            .into_response(),
        };
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}

#[cfg(test)]
mod tests;
