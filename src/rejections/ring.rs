//! Which rejections are kept, in memory: what lists need, who goes first, who is being accepted. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    ops::Bound,
};

use hookmill_actors::domain::ids::{EndpointId, EventId, IntegrationId};
use tokio::time::Instant;

use super::{Rejection, RejectionError, RejectionId};

/// What a list tells of a rejection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub id: RejectionId,
    /// When it came, milliseconds since 1970.
    pub at_ms: u64,
    /// Whose endpoint it was sent to.
    pub integration: IntegrationId,
    /// Where it was sent to.
    pub endpoint: EndpointId,
    /// The code that its sender was told.
    pub cause: Box<str>,
    /// Why, for the operator.
    pub reason: Box<str>,
    /// The TCP peer.
    pub peer: IpAddr,
    /// Bytes of its body that are kept.
    pub body_bytes: usize,
    /// Whether that is all of the body.
    pub body_whole: bool,
    /// The event that was made of it.
    pub accepted: Option<EventId>,
    /// Bytes of its file.
    bytes: u64,
}

impl Entry {
    pub(super) fn of(rejection: &Rejection, bytes: u64) -> Self {
        Self {
            id: rejection.id,
            at_ms: rejection.at_ms,
            integration: rejection.integration,
            endpoint: rejection.endpoint,
            cause: rejection.cause.clone(),
            reason: rejection.reason.clone(),
            peer: rejection.peer,
            body_bytes: rejection.body.len(),
            body_whole: rejection.body_whole,
            accepted: rejection.accepted.map(|(event, _)| event),
            bytes,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Ring {
    entries: BTreeMap<RejectionId, Entry>,
    by_endpoint: HashMap<EndpointId, Share>,
    reserved: BTreeSet<RejectionId>,
    bytes: u64,
    last: RejectionId,
}

/// What one endpoint holds.
#[derive(Debug, Default)]
struct Share {
    ids: BTreeSet<RejectionId>,
    bytes: u64,
}

impl Ring {
    pub(super) fn next_id(&mut self, now_ms: u64) -> RejectionId {
        self.last = RejectionId::next(now_ms, self.last);
        self.last
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        self.last = self.last.max(entry.id);
        self.bytes += entry.bytes;
        let share = self.by_endpoint.entry(entry.endpoint).or_default();
        share.ids.insert(entry.id);
        share.bytes += entry.bytes;
        self.entries.insert(entry.id, entry);
    }

    pub(super) fn get(&self, id: RejectionId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(super) fn newest(&self, before: Option<RejectionId>) -> impl Iterator<Item = &Entry> {
        let end = before.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((Bound::Unbounded, end)).rev().map(|(_, entry)| entry)
    }

    pub(super) fn oldest(&self, after: Option<RejectionId>) -> impl Iterator<Item = &Entry> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((start, Bound::Unbounded)).map(|(_, entry)| entry)
    }

    /// Takes out what is too much; their files are to go. The oldest of the endpoint that holds the most goes first.
    pub(super) fn make_room(&mut self, count_max: usize, bytes_max: u64) -> Vec<RejectionId> {
        let mut outdone = Vec::new();
        loop {
            let fullest = if self.bytes > bytes_max {
                self.by_endpoint.values().max_by_key(|share| share.bytes)
            } else if self.entries.len() > count_max {
                self.by_endpoint.values().max_by_key(|share| share.ids.len())
            } else {
                return outdone;
            };
            let Some(oldest) = fullest.and_then(|share| share.ids.first().copied()) else { return outdone };
            self.remove(oldest);
            outdone.push(oldest);
        }
    }

    fn remove(&mut self, id: RejectionId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.bytes -= entry.bytes;
        if let Some(share) = self.by_endpoint.get_mut(&entry.endpoint) {
            share.ids.remove(&id);
            share.bytes -= entry.bytes;
            if share.ids.is_empty() {
                self.by_endpoint.remove(&entry.endpoint);
            }
        }
    }

    pub(super) fn reserve(&mut self, id: RejectionId) -> Result<(), RejectionError> {
        let entry = self.entries.get(&id).ok_or(RejectionError::NotFound(id))?;
        if let Some(event) = entry.accepted {
            return Err(RejectionError::Accepted { id, event });
        }
        if !self.reserved.insert(id) {
            return Err(RejectionError::UnderWay(id));
        }
        Ok(())
    }

    pub(super) fn release(&mut self, id: RejectionId) {
        self.reserved.remove(&id);
    }

    pub(super) fn accept(&mut self, id: RejectionId, event: EventId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.accepted = Some(event);
        }
    }
}

/// So many a second, and as many at once.
pub(super) struct Throttle {
    per_second: f64,
    tokens: f64,
    at: Instant,
}

impl Throttle {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, tokens: per_second, at: now }
    }

    pub(super) fn admits(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + since * self.per_second).min(self.per_second);
        let admits = self.tokens >= 1.0;
        if admits {
            self.tokens -= 1.0;
        }
        admits
    }
}
