//! One commit of the state while it is put together: an overlay over the tree, so that later operations of a commit
//! see earlier ones, then one atomic batch. Dropped unfinished, it leaves nothing behind.

use std::collections::BTreeMap;

use hookmill_actors::{
    domain::{
        delivery::{DeadLetter, DeliveryRecord, DeliveryStatus},
        ids::{EventId, IntegrationId, SubscriptionId},
    },
    ports::{
        event_log::LogError,
        state_store::{Due, Note, StateOp},
    },
};

use super::{
    keys,
    sled_db::{StateDb, VALUE_BYTES_MAX},
    values,
};

/// What a commit adds to the counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CountChanges {
    pub(super) due: i64,
    pub(super) dead: i64,
}

pub(super) struct Changes<'a> {
    db: &'a StateDb,
    tree: &'a sled::Tree,
    overlay: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    counts: CountChanges,
}

impl<'a> Changes<'a> {
    pub(super) fn new(db: &'a StateDb, tree: &'a sled::Tree) -> Self {
        Self { db, tree, overlay: BTreeMap::new(), counts: CountChanges::default() }
    }

    pub(super) fn add(&mut self, op: &StateOp) -> Result<(), LogError> {
        match op {
            StateOp::Intake { integration, upto, notes } => self.intake(*integration, *upto, notes),
            StateOp::Position { subscription, position } => {
                for (part, value) in (0..).zip(values::encode_position(position)) {
                    self.put(&keys::position(*subscription, part), value);
                }
            }
            StateOp::Delivered { subscription, events } => self.delivered(*subscription, events)?,
            StateOp::Delivery { subscription, event, record } => self.delivery(*subscription, *event, record)?,
            StateOp::Dead(letter) => self.dead(letter)?,
        }
        Ok(())
    }

    /// Writes everything as one atomic batch; what it adds to the counts.
    pub(super) fn commit(self) -> Result<CountChanges, LogError> {
        let mut batch = sled::Batch::default();
        for (key, value) in self.overlay {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.db.guard(self.tree.apply_batch(batch))?;
        Ok(self.counts)
    }

    pub(super) fn put(&mut self, key: &[u8], value: Vec<u8>) {
        debug_assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes", value.len());
        self.overlay.insert(key.to_vec(), Some(value));
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.overlay.insert(key.to_vec(), None);
    }

    /// Adds ids to a subscription's runs; a run that begins with the same id is merged with. Ascending ids.
    pub(super) fn add_run(&mut self, subscription: SubscriptionId, mut ids: Vec<EventId>) -> Result<(), LogError> {
        while let Some(first) = ids.first() {
            let key = keys::owned(keys::RUN, subscription.0, *first);
            if let Some(value) = self.get(&key)? {
                let before = ids.len();
                ids.extend(values::decode_run(&value).ok_or_else(|| malformed(&key))?);
                if ids.len() > before {
                    ids.sort_unstable();
                    ids.dedup();
                }
            }
            let (taken, value) = values::encode_run(&ids);
            self.put(&key, value);
            ids.drain(..taken);
        }
        Ok(())
    }

    fn intake(&mut self, integration: IntegrationId, upto: EventId, notes: &[Note]) {
        self.put(&keys::intake(integration), upto.to_bytes().to_vec());
        for (last, value) in values::encode_notes(notes) {
            self.put(&keys::owned(keys::NOTES, last.integration().0, last), value);
        }
    }

    fn delivered(&mut self, subscription: SubscriptionId, events: &[EventId]) -> Result<(), LogError> {
        let mut events = events.to_vec();
        if !events.is_sorted() {
            events.sort_unstable();
        }
        self.add_run(subscription, events)
    }

    fn delivery(
        &mut self,
        subscription: SubscriptionId,
        event: EventId,
        record: &DeliveryRecord,
    ) -> Result<(), LogError> {
        let record_key = keys::owned(keys::RECORD, subscription.0, event);
        let former = match self.get(&record_key)? {
            Some(value) => due_ms(&values::decode_record(&value).ok_or_else(|| malformed(&record_key))?),
            None => None,
        };
        let due = due_ms(record);
        if former != due {
            if let Some(due_ms) = former {
                self.remove(&keys::due(subscription, Due { due_ms, event }));
                self.counts.due -= 1;
            }
            if let Some(due_ms) = due {
                self.put(&keys::due(subscription, Due { due_ms, event }), Vec::new());
                self.counts.due += 1;
            }
        }
        let dead_key = keys::owned(keys::DEAD, subscription.0, event);
        let was_dead = self.has(&dead_key)?;
        let dead = was_dead && record.status == DeliveryStatus::Dead;
        if was_dead && !dead {
            self.remove(&dead_key);
            self.counts.dead -= 1;
        }
        match (former.is_some() || was_dead, due.is_some() || dead) {
            (false, true) => self.put(&keys::needed(event, subscription), Vec::new()),
            (true, false) => self.remove(&keys::needed(event, subscription)),
            // A retry that failed is due again: nothing new here.
            _ => {}
        }
        self.put(&record_key, values::encode_record(record));
        Ok(())
    }

    fn dead(&mut self, letter: &DeadLetter) -> Result<(), LogError> {
        let key = keys::owned(keys::DEAD, letter.subscription.0, letter.event);
        if !self.has(&key)? {
            self.counts.dead += 1;
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

/// A value that this version did not write.
pub(super) fn malformed(key: &[u8]) -> LogError {
    LogError::Failed(format!("the state's value at `{}` is malformed", key.escape_ascii()).into())
}
