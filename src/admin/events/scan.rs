//! Finds events: by what an index answers (integration, endpoint, type, provider's id, time), and among these by what has
//! to be looked at, one event after the other: status, and a CEL filter over the event itself. Newest first, as far as one
//! request may go; the next one goes on from there.

use std::{sync::Arc, time::Duration};

use hookmill_actors::{
    domain::{
        config::Configuration,
        event::{Event, Identity},
        ids::{EventId, SubscriptionId},
        standing::Processing,
    },
    ports::{
        event_log::{EventLog, LogError},
        program::{Selected, Selector, Subject},
        state_store::{NoteFilter, StateStore},
    },
    snapshot::Snapshot,
};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::by_status::Lookup;
use crate::admin::Api;

/// Ids that are read, and whose statuses are looked up, in the first step, and in one step at most. What is frequent is
/// found in the first; what is rare costs the less, the more are looked up together.
const IDS_AT_FIRST: usize = 64;
const IDS_AT_ONCE: usize = 1_024;

/// Which events; every member narrows.
#[derive(Default)]
pub(super) struct Criteria {
    /// What the index answers.
    pub(super) noted: NoteFilter,
    /// Not before this one.
    pub(super) first: EventId,
    pub(super) statuses: Option<Vec<Processing>>,
    pub(super) filter: Option<Where>,
    /// Where the token of the request does not see everything. What it does not see is not looked at: what a filter
    /// says of it, or fails on, would tell of it.
    pub(super) sees: Option<Sees>,
}

/// The eyes of a token with scopes.
pub(super) struct Sees(Api);

impl Sees {
    pub(super) fn new(api: Api) -> Self {
        Self(api)
    }
}

/// A compiled filter, and the names that it may ask for.
#[derive(Clone)]
pub(super) struct Where {
    pub(super) selector: Arc<dyn Selector>,
    pub(super) snapshot: Arc<Snapshot>,
}

impl Where {
    /// Whether an event passes; `None` where the filter fails on it. May take a while.
    pub(super) fn passes(&self, event: Arc<Event>, identity: Identity) -> Option<bool> {
        let integration = event.id.integration();
        let name = self.snapshot.configuration.integrations.get(&integration).map_or("", |it| it.name.as_str());
        let subject = Subject {
            identity,
            integration: (integration, name.into()),
            subscription: SubscriptionId(0),
            naming: self.snapshot.namings.get(&event.arrival.endpoint).cloned(),
            event,
        };
        match self.selector.select(&subject) {
            Ok(Selected::Yes { .. }) => Some(true),
            Ok(Selected::No) => Some(false),
            Err(_) => None,
        }
    }
}

/// How far one request looks, at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Events that are found.
    pub(super) found: usize,
    /// Events that are looked at, whether they pass or not.
    pub(super) looked_at: usize,
    /// Bytes of bodies that a filter looks at.
    pub(super) bytes: usize,
    /// After this no further event is looked at: one of many subscriptions, or of a busy hour, costs more than others.
    pub(super) time: Duration,
}

impl Bounds {
    pub(super) fn of_page(found: usize) -> Self {
        Self { found, looked_at: 4_096, bytes: 16 << 20, time: Duration::from_millis(500) }
    }
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Scanned {
    pub(super) events: usize,
    /// Of the bodies that the filter looked at.
    pub(super) bytes: usize,
    /// Events that the filter failed on, such as by asking for a member that they have not; they do not pass.
    pub(super) faults: usize,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Newest first; with its status where that was asked for.
    pub(super) events: Vec<(EventId, Option<Processing>)>,
    /// Where the next request goes on; `None` when nothing lies beyond.
    pub(super) next: Option<EventId>,
    pub(super) scanned: Scanned,
}

/// The newest events before `before` that pass; at least one event is looked at.
pub(super) async fn find(
    (log, state): (&dyn EventLog, &dyn StateStore),
    configuration: &Configuration,
    criteria: &Criteria,
    mut before: EventId,
    bounds: Bounds,
) -> Result<Found, LogError> {
    let began = Instant::now();
    let mut lookup = Lookup::new(state, configuration);
    let (mut found, mut looked_at) = (Found::default(), 0);
    let looks = criteria.statuses.is_some() || criteria.filter.is_some() || criteria.sees.is_some();
    let mut at_once = bounds.found.clamp(IDS_AT_FIRST, IDS_AT_ONCE);
    loop {
        let asked = match looks {
            true => at_once.min(bounds.looked_at - looked_at),
            // Patterns are looked at below, in notes.
            false if criteria.noted.has_open_types() => IDS_AT_ONCE.max(bounds.found),
            // What is not looked at is found as it is.
            false => bounds.found,
        };
        // Where events have many deliveries, a step that is larger still would end long after its time.
        if began.elapsed() < bounds.time / 8 {
            at_once = (2 * at_once).min(IDS_AT_ONCE);
        }
        let (ids, beyond) = candidates((log, state), criteria, before, asked).await?;
        let seen = |id: &EventId| criteria.sees.as_ref().is_none_or(|Sees(api)| api.sees(id.integration()));
        let visible: Vec<EventId> = ids.iter().copied().filter(seen).collect();
        let mut statuses = match criteria.statuses {
            Some(_) => lookup.statuses(&visible).await?,
            None => Vec::new(),
        }
        .into_iter();
        let mut visible = visible.into_iter().peekable();
        for id in ids {
            before = id;
            looked_at += 1;
            if visible.next_if_eq(&id).is_none() {
                continue;
            }
            found.scanned.events += 1;
            let status = statuses.next();
            let wanted = match (&criteria.statuses, status) {
                (Some(wanted), Some(status)) => wanted.contains(&status),
                _ => true,
            };
            if wanted && passes((log, state), criteria, id, &mut found.scanned).await? {
                found.events.push((id, status));
            }
            let enough = found.events.len() == bounds.found || found.scanned.bytes >= bounds.bytes;
            if enough || looks && began.elapsed() >= bounds.time {
                found.next = Some(before);
                return Ok(found);
            }
        }
        if looks {
            // The store may answer at once, so nobody else would have a turn.
            tokio::task::yield_now().await;
        }
        match beyond {
            None => return Ok(found),
            // The index may have nothing for a stretch of time, and more beyond it.
            Some(beyond) => before = beyond,
        }
        if looks && looked_at >= bounds.looked_at || began.elapsed() >= bounds.time {
            found.next = Some(before);
            return Ok(found);
        }
    }
}

/// Ids that pass what an index answers, newest first, and where to go on.
async fn candidates(
    (log, state): (&dyn EventLog, &dyn StateStore),
    criteria: &Criteria,
    before: EventId,
    limit: usize,
) -> Result<(Vec<EventId>, Option<EventId>), LogError> {
    if criteria.noted.needs_notes() {
        return state.noted(&criteria.noted, (criteria.first, before), limit).await;
    }
    let mut ids = log.latest(criteria.noted.integration, before, limit).await?;
    let is_last = ids.len() < limit || ids.last().is_some_and(|last| *last < criteria.first);
    ids.retain(|id| *id >= criteria.first);
    let beyond = ids.last().copied().filter(|_| !is_last);
    Ok((ids, beyond))
}

/// Whether the filter lets an event pass.
async fn passes(
    (log, state): (&dyn EventLog, &dyn StateStore),
    criteria: &Criteria,
    id: EventId,
    scanned: &mut Scanned,
) -> Result<bool, LogError> {
    let Some(filter) = &criteria.filter else { return Ok(true) };
    let event = match log.get(id).await {
        Ok(Some(event)) => event,
        // It was trimmed meanwhile, or nobody can read it.
        Ok(None) | Err(LogError::Corrupt(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    scanned.bytes += event.arrival.body.len();
    let note = state.note(id).await?.unwrap_or_default();
    let identity = Identity { event_type: note.event_type, provider_id: note.provider_id };
    let filter = filter.clone();
    let passes = tokio::task::spawn_blocking(move || filter.passes(event, identity)).await.ok().flatten();
    scanned.faults += usize::from(passes.is_none());
    Ok(passes.unwrap_or(false))
}
