//! All there is between a sender and its 2xx: route, limits, body, signature, log. Nothing is parsed, locked or looked
//! up beyond one snapshot load, and `200` is said only once the log has said that the event is on disk.

use std::{net::IpAddr, str, sync::Arc};

use bytes::Bytes;
use hookmill_actors::{
    domain::{
        event::{Arrival, NewEvent},
        headers::HeaderBlock,
    },
    metrics::add,
    ports::provider::{InboundRequest, Refusal},
    snapshot::Route,
};
use hyper::{
    HeaderMap, Method, Request, Version,
    body::Incoming,
    header::{self, HOST, HeaderValue},
    http::{request::Parts, uri::Authority},
};
use tokio::time::{Instant, timeout_at};

use super::{
    RefusedRequest, Shared,
    body::{BODY_BROKEN, BodyBounds, Inbound},
    health,
    path::endpoint_path,
    reply::{self, Refused, Reply},
    strict_http,
    wire::Progress,
};
use crate::rate_headers;

/// What a stored event takes beside what its sender sent, about.
const RECORD_BYTES: usize = 128;
/// Says how many hookmills an event has passed, so that two that deliver to each other stop.
const HOPS: &str = "hookmill-hops";

/// Answers a request; never fails.
pub(super) async fn answer(shared: &Shared, progress: &Progress, peer: IpAddr, request: Request<Incoming>) -> Reply {
    let mut under_way = UnderWay::begin(progress);
    let (head, body) = request.into_parts();
    let mut body = Inbound::new(body);
    let is_http2 = head.version == Version::HTTP_2;
    let mut known = Known::default();
    let mut reply = match respond(shared, peer, &head, &mut body, &mut known).await {
        Ok(reply) => reply,
        Err(refused) => {
            // Where the scanner cut this body short, it knows better than the body's reader why.
            let refused = match refused {
                BODY_BROKEN => progress.take_refused().unwrap_or(refused),
                _ => refused,
            };
            let now_ms = shared.clock.now_ms();
            shared.refusals.note(refused, now_ms);
            known.offer(shared, refused, peer, &head, now_ms);
            let mut reply = refused.reply();
            if let Refused::RateLimited(spent) = refused {
                rate_headers::of_spent(reply.headers_mut(), spent, now_ms);
            }
            if head.method == Method::HEAD {
                reply::without_body(&mut reply);
            }
            reply
        }
    };
    under_way.unread = !body.is_over();
    if under_way.unread {
        // This reply is the connection's last; what the scanner found behind the body's break needs no second one.
        let _ = progress.take_refused();
    }
    if is_http2 {
        reply.headers_mut().remove(header::CONNECTION);
    } else if under_way.unread || shared.drain.has_begun() {
        // A body that nobody reads would have to be read before the next request.
        reply::close(&mut reply);
    }
    reply
}

/// What is known of a request by the time it is refused.
#[derive(Default)]
struct Known {
    route: Option<Arc<Route>>,
    headers: Option<HeaderBlock>,
    body: Option<Bytes>,
    reason: Option<String>,
}

impl Known {
    /// Hands it to whoever keeps what is refused; what went to a path that is not there is nobody's.
    fn offer(self, shared: &Shared, refused: Refused, peer: IpAddr, head: &Parts, now_ms: u64) {
        let Some(route) = self.route.filter(|_| !refused.is_for_load()) else { return };
        let headers = self.headers.unwrap_or_else(|| header_block(head));
        shared.refused.offer(&RefusedRequest {
            integration: route.integration,
            endpoint: route.endpoint,
            at_ms: now_ms,
            cause: refused.code(),
            reason: self.reason.as_deref().unwrap_or_else(|| refused.detail()),
            peer,
            method: head.method.as_str(),
            target: head.uri.path_and_query().map_or("", |target| target.as_str()),
            headers: &redacted(headers, &route, &shared.options.redacted_headers),
            body: self.body.as_deref().unwrap_or_default(),
            body_whole: self.body.is_some(),
        });
    }
}

/// Without the values that must not be stored. A signature stays, so that it can be checked again.
fn redacted(headers: HeaderBlock, route: &Route, names: &[String]) -> HeaderBlock {
    if names.is_empty() {
        return headers;
    }
    headers.redacted(|name| route.signature_header.as_deref() != Some(name) && names.iter().any(|it| it == name))
}

/// Notes the request's end even when its connection is dropped in the middle.
struct UnderWay<'a> {
    progress: &'a Progress,
    unread: bool,
}

impl<'a> UnderWay<'a> {
    fn begin(progress: &'a Progress) -> Self {
        progress.request_began();
        Self { progress, unread: true }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.progress.request_ended(self.unread);
    }
}

async fn respond(
    shared: &Shared,
    peer: IpAddr,
    head: &Parts,
    body: &mut Inbound,
    known: &mut Known,
) -> Result<Reply, Refused> {
    let deadline = Instant::now() + shared.options.request_timeout;
    if head.version == Version::HTTP_2 {
        strict_http::check_http2(head, &shared.head_limits)?;
    }
    let path = head.uri.path();
    if let Some(answer) = health::answer(shared, &head.method, path) {
        return answer;
    }
    if shared.drain.has_begun() {
        return Err(Refused::Draining);
    }
    let endpoint = endpoint_path(path).ok_or(Refused::NotFound)?;
    let (route, version) = {
        let snapshot = shared.snapshot.load();
        let route = snapshot.routes.get(endpoint).cloned().ok_or(Refused::NotFound)?;
        (route, snapshot.version())
    };
    known.route = Some(route.clone());
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    match head.method {
        Method::POST => {}
        Method::GET if route.verifier.answers_get() => return greet(&route, peer, head, target),
        _ if route.verifier.answers_get() => return Err(Refused::Method("GET, POST")),
        _ => return Err(Refused::Method("POST")),
    }
    if route.backlog.is_full() {
        return Err(Refused::BacklogFull);
    }
    let hops = hops(&head.headers)?;
    if hops >= shared.options.hops_max {
        return Err(Refused::TooManyHops);
    }

    let bounds = BodyBounds {
        // What could never be in flight is too large for good, not for now.
        bytes_max: route
            .body_bytes_max
            .map_or(shared.options.body_bytes_max, |bytes| bytes as usize)
            .min(shared.options.body_bytes_in_flight_max),
        rate_min: shared.options.body_rate_min,
        deadline,
    };
    let received = body.receive(bounds, &shared.in_flight).await?;
    let headers = header_block(head);
    let now_ms = shared.clock.now_ms();
    let request = InboundRequest { method: "POST", target, headers: &headers, body: &received.bytes, peer };
    if let Err(refusal) = route.verifier.verify(&request, now_ms) {
        let refused = refuse(&route, &refusal);
        (known.headers, known.body, known.reason) = (Some(headers), Some(received.bytes), Some(refusal.to_string()));
        return Err(refused);
    }
    if let Some(answer) = route.verifier.handshake(&request) {
        return Ok(reply::handshake(answer));
    }

    // Only what is genuine counts: whoever knows the path alone must not be able to use up its owner's share.
    let taken = match &route.allowance {
        Some(allowance) => Some(allowance.take(Instant::now()).map_err(Refused::RateLimited)?),
        None => None,
    };

    let headers = redacted(headers, &route, &shared.options.redacted_headers);
    let bytes = received.bytes.len() + headers.as_bytes().len() + target.len() + RECORD_BYTES;
    let event = NewEvent {
        integration: route.integration,
        arrival: Arrival {
            endpoint: route.endpoint,
            received_at_ms: now_ms,
            accepted_version: version,
            peer,
            hops,
            query: head.uri.query().unwrap_or_default().into(),
            headers,
            body: received.bytes.clone(),
        },
    };
    let stored = shared.log.append(event)?;
    route.backlog.appended(bytes as u64);
    // Dropping `stored` does not take the event back: whoever hears this 503 sends again, and the copy is delivered too.
    let id = timeout_at(deadline, stored).await.map_err(|_| Refused::NotConfirmed)??;
    add(&shared.counters.accepted, 1);
    let mut reply = reply::accepted(id);
    if let Some(taken) = taken {
        rate_headers::of_taken(reply.headers_mut(), taken, now_ms);
    }
    Ok(reply)
}

/// Answers a `GET` that may be a handshake.
fn greet(route: &Route, peer: IpAddr, head: &Parts, target: &str) -> Result<Reply, Refused> {
    let headers = header_block(head);
    let request = InboundRequest { method: "GET", target, headers: &headers, body: &[], peer };
    route.verifier.handshake(&request).map(reply::handshake).ok_or(Refused::Handshake)
}

/// The sender hears as little as possible; the operator finds the rest in the log.
fn refuse(route: &Route, refusal: &Refusal) -> Refused {
    tracing::debug!(
        integration = route.integration.0,
        endpoint = route.endpoint.0,
        reason = refusal.reason(),
        %refusal,
        "a webhook's signature was refused"
    );
    match refusal {
        Refusal::MissingSignature(_) => Refused::MissingSignature,
        _ => Refused::InvalidSignature,
    }
}

/// How many hookmills the event has passed. Too large a number counts as the largest.
fn hops(headers: &HeaderMap) -> Result<u8, Refused> {
    const BAD: Refused = Refused::Malformed("hookmill-hops is not one decimal number");
    let mut values = headers.get_all(HOPS).iter();
    let Some(value) = values.next() else { return Ok(0) };
    let digits = str::from_utf8(strict_http::trim(value.as_bytes())).map_err(|_| BAD)?;
    if values.next().is_some() || digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BAD);
    }
    Ok(digits.parse().unwrap_or(u8::MAX))
}

fn header_block(head: &Parts) -> HeaderBlock {
    // An HTTP/2 request names its host in the target; as a header it is where readers look for it.
    let host = match head.version {
        Version::HTTP_2 if !head.headers.contains_key(HOST) => head.uri.authority().map(Authority::as_str),
        _ => None,
    };
    HeaderBlock::from_lines(HeaderLines { headers: &head.headers, host })
}

/// Header lines, to be gone through twice.
#[derive(Clone, Copy)]
struct HeaderLines<'a> {
    headers: &'a HeaderMap,
    host: Option<&'a str>,
}

struct HeaderLinesIter<'a> {
    headers: header::Iter<'a, HeaderValue>,
    host: Option<&'a str>,
}

impl<'a> IntoIterator for HeaderLines<'a> {
    type Item = (&'a str, &'a [u8]);
    type IntoIter = HeaderLinesIter<'a>;

    fn into_iter(self) -> HeaderLinesIter<'a> {
        HeaderLinesIter { headers: self.headers.iter(), host: self.host }
    }
}

impl<'a> Iterator for HeaderLinesIter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(host) = self.host.take() {
            return Some(("host", host.as_bytes()));
        }
        let (name, value) = self.headers.next()?;
        Some((name.as_str(), strict_http::trim(value.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_one_decimal_number() {
        for (lines, want) in [
            (&[][..], Some(0)),
            (&["0"], Some(0)),
            (&["4"], Some(4)),
            (&["0005"], Some(5)),
            (&["99999999999999999999"], Some(u8::MAX)),
            (&[""], None),
            (&["-1"], None),
            (&["+1"], None),
            (&["1,1"], None),
            (&["x"], None),
            (&["1", "1"], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(HOPS, HeaderValue::from_static(line));
            }
            assert_eq!(hops(&headers).ok(), want, "{lines:?}");
        }
    }
}
