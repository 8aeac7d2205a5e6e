//! Finds what a query covers, a bounded step at a time.

use super::look::look_at;
use crate::{
    domain::{
        delivery::{DeadLetter, DeliveryRecord, Position},
        ids::{EventId, SubscriptionId},
        limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX},
        replay::{DeadLetterFilter, EventFilter, ReplayCursor, ReplayItem, ReplayJob, ReplayQuery},
        selection::Selection,
        standing::Standing,
    },
    ports::{
        event_log::{LogError, ReadBounds, Stored, id_of},
        state_store::StateStore,
    },
    snapshot::Snapshot,
    tree::Ports,
};

/// Looked at in one step, at most, whether they pass or not.
pub(super) const LOOK_MAX: usize = 1_024;
/// Read from the store at once.
const PAGE: usize = 256;

/// What a step found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// In order, each with where the scan stands once it is dealt with.
    pub(super) items: Vec<(ReplayItem, ReplayCursor)>,
    /// Where the scan stands once all of them are.
    pub(super) cursor: ReplayCursor,
    /// Nothing lies beyond.
    pub(super) end: bool,
    /// What lies beyond is not taken in yet.
    pub(super) ahead_of_intake: bool,
}

/// Goes on from the job's cursor until so many are found, enough was looked at, or nothing is left.
pub(super) async fn scan(
    ports: &Ports,
    snapshot: &Snapshot,
    job: &ReplayJob,
    items_max: usize,
) -> Result<Found, LogError> {
    match &job.query {
        ReplayQuery::DeadLetters(filter) => scan_letters(&*ports.state, job, filter, items_max).await,
        ReplayQuery::Events(filter) => scan_events(ports, snapshot, job, filter, items_max).await,
    }
}

/// Letters that pass a filter.
pub struct Letters {
    /// In order of subscription and event.
    pub letters: Vec<DeadLetter>,
    /// The last one looked at, where the next step goes on; `None` when nothing lies beyond.
    pub next: Option<(SubscriptionId, EventId)>,
}

/// Letters after a place, as far as one step goes: it looks at a bounded number of them, and may find none that pass
/// though more lie beyond.
pub async fn letters(
    state: &dyn StateStore,
    filter: &DeadLetterFilter,
    after: Option<(SubscriptionId, EventId)>,
    letters_max: usize,
) -> Result<Letters, LogError> {
    let first = filter.subscription.map(|subscription| (subscription, EventId::ZERO));
    let mut after = after.max(first);
    let (mut letters, mut looked_at) = (Vec::new(), 0);
    loop {
        let page = state.dead_letters(after, PAGE).await?;
        let is_last = page.len() < PAGE;
        for letter in page {
            if filter.subscription.is_some_and(|wanted| letter.subscription != wanted) {
                return Ok(Letters { letters, next: None });
            }
            after = Some((letter.subscription, letter.event));
            looked_at += 1;
            if filter.passes(&letter) {
                letters.push(letter);
                if letters.len() == letters_max {
                    return Ok(Letters { letters, next: after });
                }
            }
        }
        if is_last {
            return Ok(Letters { letters, next: None });
        }
        if looked_at >= LOOK_MAX {
            return Ok(Letters { letters, next: after });
        }
    }
}

async fn scan_letters(
    state: &dyn StateStore,
    job: &ReplayJob,
    filter: &DeadLetterFilter,
    items_max: usize,
) -> Result<Found, LogError> {
    // What came there after the job was made is not part of it.
    let made_before = job.created_at_ms.saturating_add(1);
    let filter = DeadLetterFilter {
        to_ms: Some(filter.to_ms.map_or(made_before, |to_ms| to_ms.min(made_before))),
        ..filter.clone()
    };
    let at = job.cursor;
    let after = (at != ReplayCursor::default()).then_some((SubscriptionId(at.subscription), at.event));
    let Letters { letters, next } = letters(state, &filter, after, items_max).await?;
    let cursor_of =
        |(subscription, event): (SubscriptionId, EventId)| ReplayCursor { subscription: subscription.0, event };
    let items = letters
        .into_iter()
        .filter(|letter| letter.event <= job.upto)
        .map(|letter| {
            let subscription = job.target.unwrap_or(letter.subscription);
            (ReplayItem { subscription, event: letter.event }, cursor_of((letter.subscription, letter.event)))
        })
        .collect();
    Ok(Found { items, cursor: next.map_or(at, cursor_of), end: next.is_none(), ahead_of_intake: false })
}

async fn scan_events(
    ports: &Ports,
    snapshot: &Snapshot,
    job: &ReplayJob,
    filter: &EventFilter,
    items_max: usize,
) -> Result<Found, LogError> {
    let mut found = Found { cursor: job.cursor, ..Found::default() };
    let taken_in = ports.state.intake(filter.integration).await?;
    let limit = job.upto.min(taken_in);
    let bounds = ReadBounds { events_max: BATCH_EVENTS_MAX.min(LOOK_MAX), bytes_max: BATCH_BYTES_MAX };
    let matcher = Matcher::new(ports, snapshot, job, filter).await?;
    let mut looked_at = 0;
    while looked_at < LOOK_MAX {
        let read = ports.log.read(filter.integration, found.cursor.event, bounds).await?;
        if read.is_empty() {
            found.end = true;
            return Ok(found);
        }
        for stored in read {
            let event = id_of(&stored);
            if event > job.upto {
                found.end = true;
                return Ok(found);
            }
            if event > limit {
                found.ahead_of_intake = true;
                return Ok(found);
            }
            looked_at += 1;
            found.cursor.event = event;
            if matcher.fits(&stored).await? {
                let subscription = job.target.unwrap_or(filter.subscription);
                found.items.push((ReplayItem { subscription, event }, found.cursor));
                if found.items.len() == items_max {
                    return Ok(found);
                }
            }
        }
    }
    Ok(found)
}

/// Whether an event fits, apart from its time.
struct Matcher<'a> {
    ports: &'a Ports,
    filter: &'a EventFilter,
    selection: Selection,
    created_at_ms: u64,
    start_after: EventId,
    position: Position,
}

impl<'a> Matcher<'a> {
    async fn new(
        ports: &'a Ports,
        snapshot: &Snapshot,
        job: &ReplayJob,
        filter: &'a EventFilter,
    ) -> Result<Self, LogError> {
        let configured = snapshot.configuration.subscriptions.get(&filter.subscription);
        Ok(Self {
            ports,
            filter,
            selection: filter.selection(),
            created_at_ms: job.created_at_ms,
            start_after: configured.map_or(EventId::ZERO, |subscription| subscription.start_after),
            position: ports.state.position(filter.subscription).await?.unwrap_or_default(),
        })
    }

    async fn fits(&self, stored: &Stored) -> Result<bool, LogError> {
        // What is damaged cannot be sent, whatever it was.
        let Ok(event) = stored else { return Ok(false) };
        if self.filter.endpoint.is_some_and(|wanted| event.arrival.endpoint != wanted) {
            return Ok(false);
        }
        if self.filter.types.is_empty() && self.filter.standing.is_none() {
            return Ok(true);
        }
        let state = &*self.ports.state;
        let note = state.note(event.id).await?;
        let event_type = note.as_ref().and_then(|note| note.event_type.as_deref());
        if !self.selection.takes_type(event_type) {
            return Ok(false);
        }
        let Some(wanted) = self.filter.standing else { return Ok(true) };
        let (whose, start_after) = (self.filter.subscription, self.start_after);
        let look = look_at(state, whose, start_after, &self.position, event.id, note.as_ref()).await?;
        Ok(look.standing == Some(wanted) && self.stood_then(event.id, wanted, look.record.as_ref()).await?)
    }

    /// Whether the event stood there when the job was made, and not only since.
    async fn stood_then(
        &self,
        event: EventId,
        standing: Standing,
        record: Option<&DeliveryRecord>,
    ) -> Result<bool, LogError> {
        let since_ms = match standing {
            Standing::Dead => {
                self.ports.state.dead_letter(self.filter.subscription, event).await?.map(|letter| letter.at_ms)
            }
            Standing::Delivered => record
                .and_then(|record| record.latest.last())
                .map(|attempt| attempt.at_ms.saturating_add(u64::from(attempt.duration_ms))),
            Standing::Discarded => record.and_then(|record| record.discarded_at_ms),
            _ => None,
        };
        Ok(since_ms.is_none_or(|since_ms| since_ms <= self.created_at_ms))
    }
}

#[cfg(all(test, feature = "testkit"))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        domain::{
            delivery::{DeadReason, DeliveryStatus},
            ids::{IntegrationId, ReplayId},
            replay::{ReplayCounts, ReplayStatus},
        },
        ports::state_store::StateOp,
        testkit::memory_state::MemoryState,
    };

    fn letter((subscription, sequence, integration, poison, at_ms): (u32, u8, u32, bool, u64)) -> DeadLetter {
        DeadLetter {
            event: EventId::from_parts(u128::from(sequence) + 1, IntegrationId(integration), 0),
            subscription: SubscriptionId(subscription),
            reason: if poison { DeadReason::Poison } else { DeadReason::Refused },
            error: String::new(),
            at_ms,
            attempts: 1,
        }
    }

    fn job(filter: DeadLetterFilter, upto: EventId) -> ReplayJob {
        ReplayJob {
            id: ReplayId(1),
            author: String::new(),
            created_at_ms: 60,
            query: ReplayQuery::DeadLetters(filter),
            target: None,
            rate_per_s: 1,
            status: ReplayStatus::Running,
            upto,
            cursor: ReplayCursor::default(),
            counts: ReplayCounts::default(),
            sample: Vec::new(),
            start: false,
            note: String::new(),
            ended_at_ms: None,
        }
    }

    proptest! {
        /// However small the steps, and whatever leaves on the way: each that passes and stays is found once, in order.
        #[test]
        fn steps_find_exactly_what_passes(
            letters in proptest::collection::vec((1u32..4, any::<u8>(), 1u32..3, any::<bool>(), 0u64..100), 0..120),
            integration in proptest::option::of(1u32..3), subscription in proptest::option::of(1u32..4),
            poison in proptest::option::of(any::<bool>()), from_ms in proptest::option::of(0u64..100),
            to_ms in proptest::option::of(0u64..100), upto in any::<u8>(), steps in proptest::collection::vec(1usize..9, 1..8),
            leaves in proptest::collection::vec(any::<bool>(), 1..5),
        ) {
            let state = MemoryState::default();
            let letters: Vec<DeadLetter> = letters.into_iter().map(letter).collect();
            state.apply(&letters.iter().cloned().map(StateOp::Dead).collect::<Vec<_>>());
            let filter = DeadLetterFilter {
                integration: integration.map(IntegrationId),
                subscription: subscription.map(SubscriptionId),
                reason: poison.map(|poison| if poison { DeadReason::Poison } else { DeadReason::Refused }),
                from_ms,
                to_ms,
            };
            let upto = EventId::from_parts(u128::from(upto), IntegrationId(9), 0);
            let mut job = job(filter.clone(), upto);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let standing = state.dead_letters(None, 1_000).await.unwrap();
                let passes = |letter: &&DeadLetter| filter.passes(letter) && letter.at_ms <= 60 && letter.event <= upto;
                let want: Vec<_> = standing.iter().filter(passes).map(|it| (it.subscription, it.event)).collect();
                let mut found = Vec::new();
                for (step, leaves) in steps.iter().cycle().zip(leaves.iter().cycle()) {
                    let ReplayQuery::DeadLetters(filter) = job.query.clone() else { unreachable!() };
                    let scanned = scan_letters(&state, &job, &filter, *step).await.unwrap();
                    prop_assert!(scanned.items.len() <= *step);
                    for (item, _) in &scanned.items {
                        found.push((item.subscription, item.event));
                        if *leaves {
                            let record = DeliveryRecord { status: DeliveryStatus::Retrying, ..DeliveryRecord::new(1) };
                            let (subscription, event) = (item.subscription, item.event);
                            state.apply(&[StateOp::Delivery { subscription, event, record }]);
                        }
                    }
                    job.cursor = scanned.cursor;
                    if scanned.end {
                        break;
                    }
                }
                prop_assert_eq!(found, want);
                Ok(())
            })?;
        }
    }
}
