//! The state in sled: positions, outcomes, due retries, dead letters and notes, as the log's commits make them.
//!
//! The log's writer applies each commit here through [`StateView`]; the actors read through [`StateStore`]. Owns the
//! tree `state`; its keys are in [`super::keys`]. A crash loses what was applied and not synced, and the log's
//! writer applies that again.

mod export;
mod forget;
mod many;
mod positions;
mod prune;

use std::{
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use hookmill_actors::{
    domain::{
        delivery::{DeadLetter, Position},
        ids::{EndpointId, EventId, IntegrationId, ReplayId, SubscriptionId},
        replay::ReplayJob,
        task::TaskRun,
    },
    ports::{
        event_log::LogError,
        state_store::{
            DedupKey, DeliveryState, Due, Forgotten, InLane, Mark, Note, NoteFilter, Remembered, StateCounts, StateOp,
            StateStore,
        },
    },
};

use super::{
    Applied, LogPlace, StateView,
    changes::{Changes, CountChanges, Written, malformed},
    jobs, keys,
    search::Search,
    seen::{self, SeenIndex, Span},
    sled_db::{OpenError, StateDb},
    task_runs, values,
};

pub use self::export::StateExport;
use self::{export::Walk, positions::Positions};

/// The state. Clones share it.
#[derive(Clone)]
pub struct SledState(Arc<Shared>);

struct Shared {
    db: StateDb,
    tree: sled::Tree,
    due: AtomicU64,
    dead: AtomicU64,
    parked: AtomicU64,
    seen: Mutex<SeenIndex>,
    search: Search,
    positions: Positions,
    /// Up to where everything but what stands in memory was applied when it was opened: of commits up to there only that is
    /// news.
    opened_at: LogPlace,
    /// Held from the first read of a change to its write, so that pruning and commits do not cross; with it, the export
    /// that changes must not run ahead of.
    writing: Mutex<Option<Walk>>,
}

impl SledState {
    /// Takes the database's tree over: counts what is due, dead and parked in it, and indexes its dedup keys.
    pub fn open(db: StateDb) -> Result<Self, OpenError> {
        let (tree, due, dead, parked, seen) = db.first_reads(|| {
            let tree = db.tree("state")?;
            let count =
                |letter: u8| tree.scan_prefix([letter]).keys().try_fold(0, |keys, key| db.guard(key).map(|_| keys + 1));
            let (due, dead) = (count(keys::DUE)?, count(keys::DEAD)?);
            let parked = tree.scan_prefix([keys::LANE]).values().try_fold(0, |parked, value| {
                db.guard(value).map(|value| parked + u64::from(value.first() == Some(&1)))
            })?;
            let seen = index_seen(&db, &tree)?;
            Ok((tree, due, dead, parked, seen))
        })?;
        let (due, dead, parked) = (AtomicU64::new(due), AtomicU64::new(dead), AtomicU64::new(parked));
        let (seen, writing) = (Mutex::new(seen), Mutex::new(None));
        let search = db.first_reads(|| Search::open(db.clone(), tree.clone()))?;
        let positions = Positions::default();
        let opened_at = LogPlace::default();
        let mut shared = Shared { db, tree, due, dead, parked, seen, search, positions, opened_at, writing };
        shared.opened_at = shared.db.first_reads(|| {
            shared.begin_positions()?;
            shared.applied()
        })?;
        Ok(Self(Arc::new(shared)))
    }

    /// Runs a scan that may be long where it holds nothing up.
    async fn scan<T: Send + 'static>(
        &self,
        scan: impl FnOnce(&Shared) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let shared = self.0.clone();
        tokio::task::spawn_blocking(move || scan(&shared)).await.unwrap_or(Err(LogError::Closed))
    }
}

impl StateView for SledState {
    fn applied(&self) -> Result<Applied, LogError> {
        let all = self.0.applied()?;
        let positions = self.0.place(&keys::POSITIONS)?.unwrap_or_default().min(all);
        Ok(Applied { positions, all })
    }

    fn apply(&self, ops: &[StateOp], upto: LogPlace) -> Result<(), LogError> {
        self.0.db.check()?;
        let mut writing = self.0.writing();
        let mut now = self.0.positions.hold(ops);
        let news = upto > self.0.opened_at;
        if !news {
            // What stood in memory may find no room there now.
            now.retain(|op| matches!(op, StateOp::Delivered { .. }));
        }
        if news || !now.is_empty() {
            self.0.change_within(&mut writing, |changes| {
                now.into_iter().try_for_each(|op| changes.add(op))?;
                if news {
                    changes.put(&keys::APPLIED, values::pack(&upto));
                }
                Ok(())
            })?;
        }
        // Last: whoever sees a position finds the outcomes that it stands for.
        self.0.positions.take(ops);
        Ok(())
    }

    fn sync(&self) -> Result<LogPlace, LogError> {
        if self.0.positions.ripe() {
            self.0.write_positions()?;
        }
        // Read before the sync: what is applied while it runs may not be part of it.
        let applied = self.applied()?;
        self.0.db.sync()?;
        Ok(applied.positions)
    }

    fn sync_all(&self) -> Result<LogPlace, LogError> {
        self.0.write_positions()?;
        self.sync()
    }

    fn needed(&self, after: EventId, upto: EventId, limit: usize) -> Result<Vec<EventId>, LogError> {
        let Some(first) = after.as_u128().checked_add(1).map(EventId::from_u128) else {
            return Ok(Vec::new());
        };
        self.0.needed(first, upto, limit)
    }

    fn is_needed(&self, event: EventId) -> Result<bool, LogError> {
        Ok(!self.0.needed(event, event, 1)?.is_empty())
    }

    fn prune(&self, upto: EventId) -> Result<u64, LogError> {
        self.0.db.check()?;
        // What stands in memory goes as well.
        self.0.write_positions()?;
        let gone = prune::prune(&self.0, upto)?;
        self.0.search.forget(upto)?;
        Ok(gone)
    }
}

#[async_trait]
impl StateStore for SledState {
    async fn intake(&self, integration: IntegrationId) -> Result<EventId, LogError> {
        if let Some(upto) = self.0.positions.intake(integration) {
            return Ok(upto);
        }
        let key = keys::intake(integration);
        match self.0.get(&key)? {
            Some(value) => value.as_ref().try_into().map(EventId::from_bytes).map_err(|_| malformed(&key)),
            None => Ok(EventId::ZERO),
        }
    }

    async fn position(&self, subscription: SubscriptionId) -> Result<Option<Position>, LogError> {
        self.0.position(subscription)
    }

    async fn due(&self, subscription: SubscriptionId, until_ms: u64, limit: usize) -> Result<Vec<Due>, LogError> {
        self.scan(move |shared| shared.due(subscription, until_ms, limit)).await
    }

    async fn delivery(&self, subscription: SubscriptionId, event: EventId) -> Result<DeliveryState, LogError> {
        self.0.delivery(subscription, event)
    }

    async fn deliveries(
        &self,
        subscription: SubscriptionId,
        events: &[EventId],
    ) -> Result<Vec<DeliveryState>, LogError> {
        let events = events.to_vec();
        self.scan(move |shared| many::deliveries(shared, subscription, &events)).await
    }

    async fn lanes(&self, subscription: SubscriptionId) -> Result<Vec<InLane>, LogError> {
        self.scan(move |shared| shared.lanes(subscription)).await
    }

    async fn next_waiting(&self, after: SubscriptionId) -> Result<Option<SubscriptionId>, LogError> {
        self.scan(move |shared| shared.next_waiting(after)).await
    }

    async fn marks(
        &self,
        integration: IntegrationId,
        after: EventId,
        upto: EventId,
    ) -> Result<Vec<(EventId, Mark)>, LogError> {
        self.0.marks(integration, after, upto)
    }

    async fn seen(&self, keys: &[(DedupKey, EventId)]) -> Result<Vec<Option<EventId>>, LogError> {
        self.0.seen_before(keys)
    }

    async fn forget_seen(&self, remembered: Remembered) -> Result<Forgotten, LogError> {
        self.scan(move |shared| forget::forget(shared, &remembered)).await
    }

    async fn note(&self, event: EventId) -> Result<Option<Note>, LogError> {
        self.0.note(event)
    }

    async fn notes(&self, events: &[EventId]) -> Result<Vec<Option<Note>>, LogError> {
        let events = events.to_vec();
        self.scan(move |shared| many::notes(shared, &events)).await
    }

    async fn noted(
        &self,
        filter: &NoteFilter,
        span: (EventId, EventId),
        limit: usize,
    ) -> Result<(Vec<EventId>, Option<EventId>), LogError> {
        let filter = filter.clone();
        self.scan(move |shared| {
            let (events, next) = shared.search.candidates(&filter, span, limit)?;
            let notes = many::notes(shared, &events)?;
            let passing = notes.into_iter().flatten().filter(|note| filter.passes(note)).map(|note| note.event);
            Ok((passing.collect(), next))
        })
        .await
    }

    async fn dead_letters(
        &self,
        after: Option<(SubscriptionId, EventId)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogError> {
        self.scan(move |shared| shared.dead_letters(after, limit)).await
    }

    async fn dead_letter(&self, subscription: SubscriptionId, event: EventId) -> Result<Option<DeadLetter>, LogError> {
        let key = keys::owned(keys::DEAD, subscription.0, event);
        let Some(value) = self.0.get(&key)? else { return Ok(None) };
        values::decode_dead_letter(&value).map(Some).ok_or_else(|| malformed(&key))
    }

    async fn jobs(&self) -> Result<Vec<ReplayJob>, LogError> {
        self.scan(|shared| {
            shared.db.check()?;
            let found = shared.tree.scan_prefix([keys::JOB]).map(|item| {
                let (key, value) = shared.db.guard(item)?;
                jobs::decode(&value).ok_or_else(|| malformed(&key))
            });
            found.collect()
        })
        .await
    }

    async fn task_runs(&self) -> Result<Vec<TaskRun>, LogError> {
        self.scan(|shared| {
            shared.db.check()?;
            task_runs::decode(shared.tree.scan_prefix([keys::TASK_RUN]).map(|item| shared.db.guard(item)))
        })
        .await
    }

    async fn job(&self, id: ReplayId) -> Result<Option<ReplayJob>, LogError> {
        let key = keys::job(id);
        let Some(value) = self.0.get(&key)? else { return Ok(None) };
        jobs::decode(&value).map(Some).ok_or_else(|| malformed(&key))
    }

    async fn counts(&self) -> Result<StateCounts, LogError> {
        self.0.db.check()?;
        Ok(StateCounts {
            due: self.0.due.load(Ordering::Relaxed),
            dead: self.0.dead.load(Ordering::Relaxed),
            parked: self.0.parked.load(Ordering::Relaxed),
            dedup_keys: self.0.index().len(),
        })
    }
}

impl Shared {
    fn place(&self, key: &[u8]) -> Result<Option<LogPlace>, LogError> {
        let Some(value) = self.get(key)? else { return Ok(None) };
        rmp_serde::from_slice(&value).map(Some).map_err(|_| malformed(key))
    }

    /// Up to where everything but what stands in memory was applied.
    fn applied(&self) -> Result<LogPlace, LogError> {
        Ok(self.place(&keys::APPLIED)?.unwrap_or_default())
    }

    fn writing(&self) -> MutexGuard<'_, Option<Walk>> {
        // What panicked under it left nothing half done: the walk keeps a key whole, or not at all.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a commit together and writes it, or leaves everything as it is.
    fn change(&self, fill: impl FnOnce(&mut Changes<'_>) -> Result<(), LogError>) -> Result<(), LogError> {
        self.change_within(&mut self.writing(), fill)
    }

    fn change_within(
        &self,
        walking: &mut Option<Walk>,
        fill: impl FnOnce(&mut Changes<'_>) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let mut changes = Changes::new(&self.db, &self.tree);
        fill(&mut changes)?;
        if let Some(walk) = walking {
            walk.keep(changes.touched(), |key| self.db.guard(self.tree.get(key)))?;
        }
        let Written { counts: CountChanges { due, dead, parked }, seen, noted, forgotten } = changes.commit()?;
        if !noted.is_empty() {
            self.search.add(noted);
        }
        if !seen.is_empty() || !forgotten.is_empty() {
            let mut index = self.index();
            for (endpoint, seen) in &seen {
                index.insert(*endpoint, seen);
            }
            for (endpoint, seen) in &forgotten {
                index.remove(*endpoint, seen);
            }
        }
        // Adding a negative number's two's complement subtracts.
        self.due.fetch_add(due.cast_unsigned(), Ordering::Relaxed);
        self.dead.fetch_add(dead.cast_unsigned(), Ordering::Relaxed);
        self.parked.fetch_add(parked.cast_unsigned(), Ordering::Relaxed);
        Ok(())
    }

    fn index(&self) -> MutexGuard<'_, SeenIndex> {
        // Each change of it is whole by itself.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, LogError> {
        self.db.check()?;
        self.db.guard(self.tree.get(key))
    }

    /// Keys and values from `first` to `last`, both included.
    fn range(
        &self,
        first: &[u8],
        last: &[u8],
    ) -> impl DoubleEndedIterator<Item = Result<(sled::IVec, sled::IVec), LogError>> + '_ {
        let bounds = (Bound::Included(first), Bound::Included(last));
        self.tree.range::<&[u8], _>(bounds).map(|item| self.db.guard(item))
    }

    /// Events from `first` to `last`, both included, that are due, dead or parked for any subscription.
    fn needed(&self, first: EventId, last: EventId, limit: usize) -> Result<Vec<EventId>, LogError> {
        self.db.check()?;
        let mut events = Vec::new();
        if first > last || limit == 0 {
            return Ok(events);
        }
        let (first, last) = (keys::needed(first, SubscriptionId(0)), keys::needed(last, SubscriptionId(u32::MAX)));
        for item in self.range(&first, &last) {
            let (key, _) = item?;
            let event = keys::parse_needed(&key).ok_or_else(|| malformed(&key))?;
            if events.last() == Some(&event) {
                continue;
            }
            events.push(event);
            if events.len() == limit {
                break;
            }
        }
        Ok(events)
    }

    fn position(&self, subscription: SubscriptionId) -> Result<Option<Position>, LogError> {
        if let Some(position) = self.positions.subscription(subscription) {
            return Ok(Some(position));
        }
        let key = keys::position(subscription, 0);
        let Some(first) = self.get(&key)? else { return Ok(None) };
        let parts = values::position_parts(&first).ok_or_else(|| malformed(&key))?;
        let mut others = Vec::new();
        for part in 1..parts {
            let key = keys::position(subscription, part);
            others.push(self.get(&key)?.ok_or_else(|| malformed(&key))?);
        }
        values::decode_position(&first, &others).map(Some).ok_or_else(|| malformed(&key))
    }

    fn due(&self, subscription: SubscriptionId, until_ms: u64, limit: usize) -> Result<Vec<Due>, LogError> {
        self.db.check()?;
        let first = keys::due(subscription, Due { due_ms: 0, event: EventId::ZERO });
        let last = keys::due(subscription, Due { due_ms: until_ms, event: EventId::MAX });
        let entries = self.range(&first, &last).take(limit);
        entries.map(|item| item.and_then(|(key, _)| keys::parse_due(&key).ok_or_else(|| malformed(&key)))).collect()
    }

    fn next_waiting(&self, after: SubscriptionId) -> Result<Option<SubscriptionId>, LogError> {
        self.db.check()?;
        let Some(next) = after.0.checked_add(1) else { return Ok(None) };
        let first_of = |letter| {
            let first = keys::number(letter, next);
            let last = keys::ordered(letter, SubscriptionId(u32::MAX), u64::MAX, EventId::MAX);
            let found = self.range(&first, &last).next().transpose()?;
            found.map(|(key, _)| keys::parse_subscription(&key).ok_or_else(|| malformed(&key))).transpose()
        };
        Ok([first_of(keys::DUE)?, first_of(keys::LANE)?].into_iter().flatten().min())
    }

    fn delivery(&self, subscription: SubscriptionId, event: EventId) -> Result<DeliveryState, LogError> {
        let found = many::deliveries(self, subscription, &[event])?;
        Ok(found.into_iter().next().unwrap_or(DeliveryState::Unknown))
    }

    fn lanes(&self, subscription: SubscriptionId) -> Result<Vec<InLane>, LogError> {
        self.db.check()?;
        let first = keys::lane(subscription, InLane { lane: 0, event: EventId::ZERO });
        let last = keys::lane(subscription, InLane { lane: u64::MAX, event: EventId::MAX });
        let held = self.range(&first, &last);
        held.map(|item| item.and_then(|(key, _)| keys::parse_lane(&key).ok_or_else(|| malformed(&key)))).collect()
    }

    fn marks(
        &self,
        integration: IntegrationId,
        after: EventId,
        upto: EventId,
    ) -> Result<Vec<(EventId, Mark)>, LogError> {
        self.db.check()?;
        if after >= upto {
            return Ok(Vec::new());
        }
        let first = Bound::Excluded(keys::owned(keys::MARK, integration.0, after));
        let last = Bound::Included(keys::owned(keys::MARK, integration.0, upto));
        let marks = self.tree.range((first, last));
        marks
            .map(|item| {
                let (key, value) = self.db.guard(item)?;
                let mark = keys::parse_owned(&key).zip(values::decode_mark(&value));
                mark.map(|((_, event), mark)| (event, mark)).ok_or_else(|| malformed(&key))
            })
            .collect()
    }

    fn seen_before(&self, keys: &[(DedupKey, EventId)]) -> Result<Vec<Option<EventId>>, LogError> {
        self.db.check()?;
        let spans: Vec<Vec<Span>> = {
            let index = self.index();
            keys.iter().map(|(key, before)| index.spans(key, *before)).collect()
        };
        keys.iter().zip(spans).map(|((key, before), spans)| self.last_seen(key, *before, &spans)).collect()
    }

    /// The last event before `before` that was taken in under a key, of those that came within one of these spans,
    /// youngest first.
    fn last_seen(&self, key: &DedupKey, before: EventId, spans: &[Span]) -> Result<Option<EventId>, LogError> {
        for span in spans {
            let first = keys::owned(keys::SEEN, key.endpoint.0, span.start());
            let last = keys::owned(keys::SEEN, key.endpoint.0, EventId::MAX);
            let mut found = None;
            for item in self.range(&first, &last) {
                let (at, value) = item?;
                let seen = seen::decode(&value).ok_or_else(|| malformed(&at))?;
                if seen.first().is_none_or(|first| Span::of(first.event) > *span) {
                    break;
                }
                let own = seen.iter().filter(|seen| seen.hash == key.hash && seen.event < before);
                found = found.max(own.map(|seen| seen.event).max());
            }
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn note(&self, event: EventId) -> Result<Option<Note>, LogError> {
        Ok(many::notes(self, &[event])?.into_iter().next().flatten())
    }

    fn dead_letters(
        &self,
        after: Option<(SubscriptionId, EventId)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogError> {
        self.db.check()?;
        let last = keys::owned(keys::DEAD, u32::MAX, EventId::MAX);
        let first = match after {
            Some((subscription, event)) => Bound::Excluded(keys::owned(keys::DEAD, subscription.0, event)),
            None => Bound::Included(keys::owned(keys::DEAD, 0, EventId::ZERO)),
        };
        if first == Bound::Excluded(last) {
            return Ok(Vec::new());
        }
        let letters = self.tree.range((first, Bound::Included(last))).take(limit);
        letters
            .map(|item| {
                let (key, value) = self.db.guard(item)?;
                values::decode_dead_letter(&value).ok_or_else(|| malformed(&key))
            })
            .collect()
    }
}

/// Reads all dedup keys.
fn index_seen(db: &StateDb, tree: &sled::Tree) -> Result<SeenIndex, LogError> {
    let mut index = SeenIndex::default();
    for item in tree.scan_prefix([keys::SEEN]) {
        let (key, value) = db.guard(item)?;
        let (endpoint, _) = keys::parse_owned(&key).ok_or_else(|| malformed(&key))?;
        for seen in seen::decode(&value).ok_or_else(|| malformed(&key))? {
            index.insert(EndpointId(endpoint), &seen);
        }
    }
    Ok(index)
}

#[cfg(test)]
mod tests;
