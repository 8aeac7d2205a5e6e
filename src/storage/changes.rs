//! One commit of the state while it is put together: an overlay over the tree, so that later operations of a commit
//! see earlier ones, then one atomic batch. Dropped unfinished, it leaves nothing behind.

use std::collections::BTreeMap;

use hookmill_actors::{
    domain::{
        delivery::{DeadLetter, DeliveryRecord, DeliveryStatus},
        ids::{EndpointId, EventId, SubscriptionId},
    },
    ports::{
        event_log::LogError,
        state_store::{Due, InLane, Note, StateOp},
    },
};

use super::{
    jobs, keys,
    runs::{self, Success},
    search,
    seen::{self, Seen},
    sled_db::{StateDb, VALUE_BYTES_MAX},
    task_runs, values,
};

/// What a commit adds to the counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CountChanges {
    pub(super) due: i64,
    pub(super) dead: i64,
    pub(super) parked: i64,
}

/// What is to be told of a commit once it is written.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) counts: CountChanges,
    pub(super) seen: Vec<(EndpointId, Seen)>,
    pub(super) noted: Vec<search::Row>,
    pub(super) forgotten: Vec<(EndpointId, Seen)>,
}

pub(super) struct Changes<'a> {
    db: &'a StateDb,
    tree: &'a sled::Tree,
    overlay: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    written: Written,
}

/// The successes that an operation tells of; of most there are none.
pub(super) fn successes(op: &StateOp) -> impl Iterator<Item = Success> {
    let (events, at_ms, attempts) = match op {
        StateOp::Delivered { events, at_ms, attempts, .. } => (&events[..], *at_ms, &attempts[..]),
        _ => (&[][..], None, &[][..]),
    };
    let attempts = attempts.iter().copied().map(Some).chain(std::iter::repeat(None));
    events.iter().zip(attempts).map(move |(event, attempt)| Success { event: *event, at_ms, attempt })
}

impl<'a> Changes<'a> {
    pub(super) fn new(db: &'a StateDb, tree: &'a sled::Tree) -> Self {
        Self { db, tree, overlay: BTreeMap::new(), written: Written::default() }
    }

    /// Adds an operation, save for a position in it.
    pub(super) fn add(&mut self, op: &StateOp) -> Result<(), LogError> {
        match op {
            StateOp::Intake { notes, .. } => self.notes(notes),
            // Positions are written later, many at once.
            StateOp::Position { .. } => {}
            StateOp::Delivered { subscription, .. } => self.add_run(*subscription, successes(op).collect())?,
            StateOp::Delivery { subscription, event, record } => self.delivery(*subscription, *event, record)?,
            StateOp::Dead(letter) => self.dead(letter)?,
            StateOp::Job(job) => self.put(&keys::job(job.id), jobs::encode(job)),
            StateOp::JobGone { id } => self.remove(&keys::job(*id)),
            StateOp::TaskRun(run) => {
                for (part, value) in (0..).zip(task_runs::encode(run)) {
                    self.put(&keys::task_run(run.id, part), value);
                }
            }
            StateOp::TaskRunGone { id } => {
                for part in 0..task_runs::PARTS_MAX {
                    self.remove(&keys::task_run(*id, part));
                }
            }
            StateOp::Forward { subscription, event, at_ms } => self.forward(*subscription, *event, *at_ms)?,
        }
        Ok(())
    }

    /// Writes everything as one atomic batch.
    pub(super) fn commit(self) -> Result<Written, LogError> {
        let mut batch = sled::Batch::default();
        for (key, value) in self.overlay {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.db.guard(self.tree.apply_batch(batch))?;
        Ok(self.written)
    }

    /// The keys that this commit writes or removes.
    pub(super) fn touched(&self) -> impl Iterator<Item = &[u8]> {
        self.overlay.keys().map(Vec::as_slice)
    }

    pub(super) fn put(&mut self, key: &[u8], value: Vec<u8>) {
        debug_assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes", value.len());
        self.overlay.insert(key.to_vec(), Some(value));
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.overlay.insert(key.to_vec(), None);
    }

    /// Adds to a subscription's runs; a run that begins with the same id is merged with.
    pub(super) fn add_run(
        &mut self,
        subscription: SubscriptionId,
        mut successes: Vec<Success>,
    ) -> Result<(), LogError> {
        if !successes.is_sorted() {
            successes.sort_unstable();
        }
        while let Some(first) = successes.first() {
            let key = keys::owned(keys::RUN, subscription.0, first.event);
            if let Some(value) = self.get(&key)? {
                let before = successes.len();
                successes.extend(runs::decode_run(&value).ok_or_else(|| malformed(&key))?);
                if successes.len() > before {
                    successes.sort_unstable();
                    successes.dedup_by_key(|it| it.event);
                }
            }
            let (taken, value) = runs::encode_run(&successes);
            self.put(&key, value);
            successes.drain(..taken);
        }
        Ok(())
    }

    fn notes(&mut self, notes: &[Note]) {
        for (last, value) in values::encode_notes(notes) {
            self.put(&keys::owned(keys::NOTES, last.integration().0, last), value);
        }
        self.written.noted.extend(notes.iter().map(search::Row::of));
        let mut by_endpoint: BTreeMap<EndpointId, Vec<Seen>> = BTreeMap::new();
        for note in notes {
            if let Some(mark) = &note.mark {
                let key = keys::owned(keys::MARK, note.event.integration().0, note.event);
                self.put(&key, values::encode_mark(mark));
            }
            if let Some(key) = note.dedup {
                by_endpoint.entry(key.endpoint).or_default().push(Seen { event: note.event, hash: key.hash });
            }
        }
        for (endpoint, keys) in by_endpoint {
            for (last, value) in seen::encode(&keys) {
                self.put(&keys::owned(keys::SEEN, endpoint.0, last), value);
            }
            self.written.seen.extend(keys.into_iter().map(|seen| (endpoint, seen)));
        }
    }

    /// Removes a batch of dedup keys save for these, which are its last.
    pub(super) fn forget(&mut self, endpoint: EndpointId, key: &[u8], gone: &[Seen], kept: &[Seen]) {
        match seen::encode(kept).pop() {
            Some((_, value)) => self.put(key, value),
            None => self.remove(key),
        }
        self.written.forgotten.extend(gone.iter().map(|seen| (endpoint, *seen)));
    }

    fn delivery(
        &mut self,
        subscription: SubscriptionId,
        event: EventId,
        record: &DeliveryRecord,
    ) -> Result<(), LogError> {
        let record_key = keys::owned(keys::RECORD, subscription.0, event);
        let former_record = self.record(&record_key)?;
        let former = former_record.as_ref().and_then(due_ms);
        let due = due_ms(record);
        self.held(subscription, event, former_record.as_ref(), record);
        if former != due {
            if let Some(due_ms) = former {
                self.remove(&keys::due(subscription, Due { due_ms, event }));
                self.written.counts.due -= 1;
            }
            if let Some(due_ms) = due {
                self.put(&keys::due(subscription, Due { due_ms, event }), Vec::new());
                self.written.counts.due += 1;
            }
        }
        let dead_key = keys::owned(keys::DEAD, subscription.0, event);
        let was_dead = self.has(&dead_key)?;
        let dead = was_dead && record.status == DeliveryStatus::Dead;
        if was_dead && !dead {
            self.remove(&dead_key);
            self.written.counts.dead -= 1;
        }
        let was_parked = former_record.as_ref().is_some_and(is_parked);
        match (former.is_some() || was_dead || was_parked, due.is_some() || dead || is_parked(record)) {
            (false, true) => self.put(&keys::needed(event, subscription), Vec::new()),
            (true, false) => self.remove(&keys::needed(event, subscription)),
            // A retry that failed is due again, what was parked is due: nothing new here.
            _ => {}
        }
        self.put(&record_key, values::encode_record(record));
        Ok(())
    }

    fn forward(&mut self, subscription: SubscriptionId, event: EventId, at_ms: u64) -> Result<(), LogError> {
        let Some(mut record) = self.record(&keys::owned(keys::RECORD, subscription.0, event))? else { return Ok(()) };
        if record.bring_forward(at_ms) { self.delivery(subscription, event, &record) } else { Ok(()) }
    }

    fn record(&self, key: &[u8]) -> Result<Option<DeliveryRecord>, LogError> {
        let value = self.get(key)?;
        value.map(|value| values::decode_record(&value).ok_or_else(|| malformed(key))).transpose()
    }

    /// Keeps the lanes and the count of what is parked in step with a record.
    fn held(
        &mut self,
        subscription: SubscriptionId,
        event: EventId,
        former: Option<&DeliveryRecord>,
        record: &DeliveryRecord,
    ) {
        let (was_parked, parked) = (former.is_some_and(is_parked), is_parked(record));
        self.written.counts.parked += i64::from(parked) - i64::from(was_parked);
        let (was_held, held) = (former.and_then(held_lane), held_lane(record));
        if was_held == held && was_parked == parked {
            return;
        }
        if let Some(lane) = was_held {
            self.remove(&keys::lane(subscription, InLane { lane, event }));
        }
        if let Some(lane) = held {
            self.put(&keys::lane(subscription, InLane { lane, event }), vec![u8::from(parked)]);
        }
    }

    fn dead(&mut self, letter: &DeadLetter) -> Result<(), LogError> {
        let key = keys::owned(keys::DEAD, letter.subscription.0, letter.event);
        if !self.has(&key)? {
            self.written.counts.dead += 1;
        }
        self.put(&key, values::encode_dead_letter(letter));
        self.put(&keys::needed(letter.event, letter.subscription), Vec::new());
        Ok(())
    }

    /// The value as this commit would leave it.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, LogError> {
        match self.overlay.get(key) {
            Some(value) => Ok(value.as_deref().map(sled::IVec::from)),
            None => self.db.guard(self.tree.get(key)),
        }
    }

    fn has(&self, key: &[u8]) -> Result<bool, LogError> {
        Ok(self.get(key)?.is_some())
    }
}

/// When a record's next attempt is due; what is settled has none.
fn due_ms(record: &DeliveryRecord) -> Option<u64> {
    match record.status {
        DeliveryStatus::Pending | DeliveryStatus::Retrying => record.due_ms,
        DeliveryStatus::Delivered
        | DeliveryStatus::Dead
        | DeliveryStatus::Cancelled
        | DeliveryStatus::Parked
        | DeliveryStatus::Discarded => None,
    }
}

/// The lane that a record holds others back in, or is held back in.
fn held_lane(record: &DeliveryRecord) -> Option<u64> {
    match record.status {
        DeliveryStatus::Retrying | DeliveryStatus::Parked | DeliveryStatus::Dead => record.lane,
        DeliveryStatus::Pending | DeliveryStatus::Delivered | DeliveryStatus::Cancelled | DeliveryStatus::Discarded => {
            None
        }
    }
}

fn is_parked(record: &DeliveryRecord) -> bool {
    record.status == DeliveryStatus::Parked
}

/// A value that this version did not write.
pub(super) fn malformed(key: &[u8]) -> LogError {
    LogError::Failed(format!("the state's value at `{}` is malformed", key.escape_ascii()).into())
}
