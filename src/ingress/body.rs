//! Reads a request's body within bounds: its size, its time, its pace, and the bytes in flight over all connections.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};

use super::reply::Refused;

/// Bounds of one body.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyBounds {
    /// Bytes.
    pub(super) bytes_max: usize,
    /// Bytes a second that must have come on average, after the first [`GRACE`].
    pub(super) rate_min: u32,
    /// When all of it must be there.
    pub(super) deadline: Instant,
}

/// A connection needs a moment to get up to speed.
const GRACE: Duration = Duration::from_secs(1);
/// Longer than any request may take.
const NO_PACE: Duration = Duration::from_hours(24 * 365);
/// Room made at once for a body in several pieces. The sender's word is not enough to reserve more.
const CAPACITY_MAX: usize = 64 * 1024;
/// The peer left in the middle, or its framing is wrong.
pub(super) const BODY_BROKEN: Refused = Refused::Malformed("the body broke off or is malformed");

/// A body, and its share of the bytes in flight, which is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Received<'a> {
    pub(super) bytes: Bytes,
    _share: Share<'a>,
}

/// A body that is still to be read.
#[derive(Debug)]
pub(super) struct Inbound {
    incoming: Incoming,
    is_over: bool,
}

impl Inbound {
    pub(super) fn new(incoming: Incoming) -> Self {
        let is_over = incoming.is_end_stream();
        Self { incoming, is_over }
    }

    /// Whether there is nothing more to read; for a chunked body hyper itself does not remember.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Reads the whole body.
    pub(super) async fn receive<'a>(
        &mut self,
        bounds: BodyBounds,
        in_flight: &'a InFlight,
    ) -> Result<Received<'a>, Refused> {
        let mut share = Share { in_flight, bytes: 0 };
        let bytes = if self.is_over { Bytes::new() } else { collect(&mut self.incoming, bounds, &mut share).await? };
        self.is_over = true;
        Ok(Received { bytes, _share: share })
    }
}

/// A body that comes in a single piece is taken as it is, without a copy.
async fn collect(body: &mut Incoming, bounds: BodyBounds, share: &mut Share<'_>) -> Result<Bytes, Refused> {
    let announced = body.size_hint();
    if announced.lower() > bounds.bytes_max as u64 {
        return Err(Refused::BodyTooLarge);
    }
    let began = Instant::now();
    let Some(first) = next(body, &bounds, began, 0).await? else { return Ok(Bytes::new()) };
    share.take(first.len(), &bounds)?;
    let Some(second) = next(body, &bounds, began, first.len()).await? else { return Ok(first) };
    share.take(second.len(), &bounds)?;

    let announced = usize::try_from(announced.lower()).unwrap_or(CAPACITY_MAX);
    let mut all = BytesMut::with_capacity(announced.min(CAPACITY_MAX).max(share.bytes));
    all.extend_from_slice(&first);
    all.extend_from_slice(&second);
    drop((first, second));
    while let Some(piece) = next(body, &bounds, began, all.len()).await? {
        share.take(piece.len(), &bounds)?;
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

/// The next piece; `None` at the end. Trailers are dropped.
async fn next(
    body: &mut Incoming,
    bounds: &BodyBounds,
    began: Instant,
    received: usize,
) -> Result<Option<Bytes>, Refused> {
    // hyper knows the end of a body with a length as soon as the last byte is there: no timer then.
    if body.is_end_stream() {
        return Ok(None);
    }
    let deadline = bounds.deadline.min(pace_deadline(began, received, bounds.rate_min));
    loop {
        let Ok(frame) = timeout_at(deadline, body.frame()).await else { return Err(Refused::Slow) };
        match frame.transpose().map_err(|_| BODY_BROKEN)?.map(hyper::body::Frame::into_data) {
            None => return Ok(None),
            // An empty HTTP/2 frame is no progress: the deadline stays.
            Some(Ok(data)) if data.is_empty() => {}
            Some(Ok(data)) => return Ok(Some(data)),
            Some(Err(_trailers)) => {}
        }
    }
}

/// When the average pace falls below the minimum, unless more arrives before.
fn pace_deadline(began: Instant, received: usize, rate_min: u32) -> Instant {
    let earned_ms = (received as u64).saturating_mul(1_000).checked_div(u64::from(rate_min));
    // No minimum: only the request's own deadline counts, and that is far sooner.
    began + earned_ms.map_or(NO_PACE, |ms| GRACE + Duration::from_millis(ms))
}

/// Bytes of bodies that are held at this moment, over all connections.
#[derive(Debug)]
pub(super) struct InFlight {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl InFlight {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), bytes_max }
    }
}

#[derive(Debug)]
struct Share<'a> {
    in_flight: &'a InFlight,
    bytes: usize,
}

impl Share<'_> {
    fn take(&mut self, bytes: usize, bounds: &BodyBounds) -> Result<(), Refused> {
        if self.bytes + bytes > bounds.bytes_max {
            return Err(Refused::BodyTooLarge);
        }
        if self.grow(bytes) { Ok(()) } else { Err(Refused::Busy) }
    }

    fn grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.in_flight.bytes.fetch_add(bytes, Relaxed) + bytes <= self.in_flight.bytes_max
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.in_flight.bytes.fetch_sub(self.bytes, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_given_back() {
        let in_flight = InFlight::new(10);
        let mut first = Share { in_flight: &in_flight, bytes: 0 };
        let mut second = Share { in_flight: &in_flight, bytes: 0 };
        assert!(first.grow(6) && second.grow(4));
        assert!(!second.grow(1));
        drop(second);
        assert!(first.grow(4));
        drop(first);
        assert_eq!(in_flight.bytes.load(Relaxed), 0);
    }

    #[test]
    fn the_pace_is_an_average() {
        let began = Instant::now();
        assert_eq!(pace_deadline(began, 0, 1_000), began + GRACE);
        assert_eq!(pace_deadline(began, 2_500, 1_000), began + GRACE + Duration::from_millis(2_500));
        assert_eq!(pace_deadline(began, 5, 0), began + NO_PACE, "no minimum, no deadline of its own");
    }
}
