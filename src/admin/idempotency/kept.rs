//! The requests with a key that are known: what lookups need in memory, everything in the store. In memory replies are
//! wiped when they go; in the store they are sealed.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hookmill_actors::{
    domain::secret::Secret,
    ports::{
        clock::Clock,
        sealer::{Owner, Sealer},
    },
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Asked;
use crate::{
    admin::problem::{Code, Problem},
    replies::{ReplyStore, StoredReply},
    tokens::TokenId,
};

/// How long a reply is kept.
pub(super) const KEPT: Duration = Duration::from_hours(24);
/// The largest reply that the store takes whole: sealed, it stays below what a document may have.
const PACKED_BYTES_MAX: usize = 44 << 10;

/// How much is kept; beyond it the oldest replies go.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) replies: usize,
    /// Of all bodies.
    pub(super) bytes: usize,
    /// Of one body.
    pub(super) reply_bytes: usize,
}

const BOUNDS: Bounds = Bounds { replies: 10_000, bytes: 32 << 20, reply_bytes: 256 << 10 };

/// Where replies are kept, and how.
#[derive(Clone)]
pub(in crate::admin) struct ReplyPorts {
    pub(in crate::admin) store: Arc<dyn ReplyStore>,
    pub(in crate::admin) sealer: Arc<dyn Sealer>,
    pub(in crate::admin) clock: Arc<dyn Clock>,
}

/// The replies that are kept. Clones share them.
#[derive(Clone)]
pub(in crate::admin) struct Replies(Arc<Shared>);

struct Shared {
    bounds: Bounds,
    ports: ReplyPorts,
    kept: Mutex<Kept>,
}

/// Whose request, and its key. A token that takes the name of one that is revoked has another number.
type Name = (Option<TokenId>, String);

#[derive(Default)]
struct Kept {
    requests: HashMap<Name, Known>,
    /// The replies, oldest first, with when they were given, milliseconds since 1970.
    order: VecDeque<(u64, Name)>,
    bytes: usize,
    /// The number last given.
    last: u64,
    /// Numbers that the store is to forget when it is next written.
    gone: Vec<u64>,
}

struct Known {
    asked: Asked,
    number: u64,
    /// `None` while it is under way.
    reply: Option<Arc<Reply>>,
}

/// What is said to whoever repeats a request.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// The same as the first time.
    Whole { status: StatusCode, headers: HeaderMap, body: Zeroizing<Vec<u8>> },
    /// It was done; what it said was too large to keep.
    Large(StatusCode),
    /// It was begun, and hookmill stopped.
    Unknown,
}

/// What is known of a request that comes in.
pub(super) enum Met {
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

impl Replies {
    /// With what is kept. Blocks for the disk.
    pub(in crate::admin) fn load(ports: ReplyPorts) -> Result<Self, String> {
        Self::bounded(BOUNDS, ports)
    }

    pub(super) fn bounded(bounds: Bounds, ports: ReplyPorts) -> Result<Self, String> {
        let now_ms = ports.clock.now_ms();
        let mut kept = Kept::default();
        for (number, stored) in ports.store.all()? {
            kept.last = kept.last.max(number);
            let known = unpacked(&stored, number, &*ports.sealer).filter(|_| !is_over(stored.at_ms, now_ms));
            match known {
                // One that does not open is as good as none.
                None => kept.gone.push(number),
                Some((asked, reply)) => {
                    let name = (stored.token, stored.key);
                    kept.requests.insert(name.clone(), Known { asked, number, reply: None });
                    kept.settle(name, reply, stored.at_ms, &bounds);
                }
            }
        }
        if !kept.gone.is_empty() {
            ports.store.remove(&std::mem::take(&mut kept.gone))?;
        }
        Ok(Self(Arc::new(Shared { bounds, ports, kept: Mutex::new(kept) })))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Each change under it is whole before anything can panic.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn meet(&self, name: Name, asked: Asked) -> Met {
        let now_ms = self.0.ports.clock.now_ms();
        let mut kept = self.kept();
        while kept.order.front().is_some_and(|(at_ms, _)| is_over(*at_ms, now_ms)) {
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
        kept.last += 1;
        let number = kept.last;
        kept.requests.insert(name.clone(), Known { asked, number, reply: None });
        drop(kept);
        Met::New(UnderWay { replies: self.clone(), name, asked, number, is_settled: false })
    }
}

fn is_over(at_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(at_ms) >= u64::try_from(KEPT.as_millis()).expect("a day fits")
}

impl Kept {
    fn settle(&mut self, name: Name, reply: Reply, at_ms: u64, bounds: &Bounds) {
        let Some(known) = self.requests.get_mut(&name) else { return };
        let bytes = reply.bytes();
        known.reply = Some(Arc::new(reply));
        self.order.push_back((at_ms, name));
        self.bytes += bytes;
        while self.bytes > bounds.bytes && self.forget_oldest() {}
    }

    /// Whether there was one.
    fn forget_oldest(&mut self) -> bool {
        let Some((_, name)) = self.order.pop_front() else { return false };
        if let Some(Known { number, reply: Some(reply), .. }) = self.requests.remove(&name) {
            self.bytes -= reply.bytes();
            self.gone.push(number);
        }
        true
    }
}

/// A request that is being done. Dropped without an end, it was never there.
pub(super) struct UnderWay {
    replies: Replies,
    name: Name,
    asked: Asked,
    number: u64,
    is_settled: bool,
}

impl UnderWay {
    /// The largest body that is kept.
    pub(super) fn reply_bytes_max(&self) -> usize {
        self.replies.0.bounds.reply_bytes
    }

    /// Notes that it is begun; durable when it returns.
    pub(super) async fn noted(&self) -> Result<(), Problem> {
        self.put(None).await.map_err(|cause| {
            tracing::error!(cause, "a request with an idempotency key could not be noted, and was not done");
            Problem::new(Code::Unavailable, "the request cannot be noted now, and was not done; the log has the cause")
        })
    }

    /// It was answered so; durable when it returns.
    pub(super) async fn kept(mut self, reply: Reply) {
        self.is_settled = true;
        if let Err(cause) = self.put(Some(&reply)).await {
            // Until a restart it is known all the same, and afterwards that it was begun.
            tracing::error!(cause, "a reply to a request with an idempotency key could not be stored");
        }
        let (replies, at_ms) = (&self.replies.0, self.replies.0.ports.clock.now_ms());
        self.replies.kept().settle(self.name.clone(), reply, at_ms, &replies.bounds);
    }

    /// It came to nothing, and may be tried again.
    pub(super) async fn forgotten(self) {
        let (replies, number) = (self.replies.clone(), self.number);
        let removed = tokio::task::spawn_blocking(move || replies.0.ports.store.remove(&[number])).await;
        if let Ok(Err(cause)) = removed {
            tracing::error!(cause, "a request with an idempotency key that came to nothing could not be forgotten");
        }
    }

    async fn put(&self, reply: Option<&Reply>) -> Result<(), String> {
        let (replies, number) = (self.replies.clone(), self.number);
        let (token, key) = self.name.clone();
        let at_ms = replies.0.ports.clock.now_ms();
        let packed = packed(&self.asked, reply);
        let gone = std::mem::take(&mut replies.kept().gone);
        let put = tokio::task::spawn_blocking(move || {
            let ReplyPorts { store, sealer, .. } = &replies.0.ports;
            let stored =
                || StoredReply { token, key: key.clone(), at_ms, sealed: sealer.seal(Owner::Reply(number), &packed) };
            let put = store.put(&gone, number, &stored);
            if put.is_err() {
                replies.kept().gone.extend(gone);
            }
            put
        });
        put.await.unwrap_or_else(|_| Err("hookmill stops".to_owned()))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut kept = self.replies.kept();
        if !self.is_settled {
            kept.requests.remove(&self.name);
            kept.gone.push(self.number);
        }
    }
}

/// A request and its reply as they are sealed.
#[derive(Serialize, Deserialize)]
struct Packed {
    /// Hex.
    asked: String,
    /// None while it is under way.
    answer: Option<Answer>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    /// None where it was too large, or no text.
    body: Option<Zeroizing<String>>,
}

fn packed(asked: &Asked, reply: Option<&Reply>) -> Secret {
    let pack = |answer| {
        let packed = Packed { asked: hex::encode(asked), answer };
        Secret::new(serde_json::to_vec(&packed).expect("texts and a number"))
    };
    let whole = pack(reply.and_then(Reply::answer));
    if whole.expose().len() <= PACKED_BYTES_MAX {
        return whole;
    }
    pack(reply.and_then(|reply| Reply::Large(reply.status()?).answer()))
}

/// What was asked for, and what was answered; `None` where it does not open.
fn unpacked(stored: &StoredReply, number: u64, sealer: &dyn Sealer) -> Option<(Asked, Reply)> {
    let opened = sealer.open(Owner::Reply(number), &stored.sealed).ok()?;
    let packed: Packed = serde_json::from_slice(opened.expose()).ok()?;
    let asked = hex::decode(packed.asked).ok()?.try_into().ok()?;
    Some((asked, packed.answer.and_then(Reply::of).unwrap_or(Reply::Unknown)))
}

impl Reply {
    fn bytes(&self) -> usize {
        match self {
            Self::Whole { body, .. } => body.len(),
            Self::Large(_) | Self::Unknown => 0,
        }
    }

    fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Whole { status, .. } | Self::Large(status) => Some(*status),
            Self::Unknown => None,
        }
    }

    fn answer(&self) -> Option<Answer> {
        let status = self.status()?.as_u16();
        let Self::Whole { headers, body, .. } = self else {
            return Some(Answer { status, headers: Vec::new(), body: None });
        };
        let text = |value: &HeaderValue| value.to_str().map(str::to_owned).ok();
        let headers = headers.iter().filter_map(|(name, value)| Some((name.to_string(), text(value)?)));
        let body = std::str::from_utf8(body).ok().map(|body| Zeroizing::new(body.to_owned()));
        Some(Answer { status, headers: headers.collect(), body })
    }

    fn of(answer: Answer) -> Option<Self> {
        let status = StatusCode::from_u16(answer.status).ok()?;
        let Some(body) = answer.body else { return Some(Self::Large(status)) };
        let header = |(name, value): (String, String)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
        };
        let headers = answer.headers.into_iter().filter_map(header).collect();
        Some(Self::Whole { status, headers, body: Zeroizing::new(body.as_bytes().to_vec()) })
    }
}
