//! Taking due retries from the state, as the window allows.

use std::{collections::HashSet, sync::Arc};

use ractor::ActorRef;

use super::{DeliveryMsg, DeliveryState};
use crate::{
    domain::{
        delivery::{DeliveryRecord, DeliveryStatus},
        event::Event,
        ids::{EventId, SubscriptionId},
    },
    ports::{event_log::LogError, state_store::DeliveryState as Known},
    retry::RetryMsg,
    tree::Ports,
};

/// A delivery that is due: its record, and its event where the log still has it whole.
pub(crate) struct DueItem {
    pub(super) event: EventId,
    pub(super) record: DeliveryRecord,
    pub(super) payload: Option<Arc<Event>>,
}

/// Taken at once, at most: each holds its payload.
const LOAD_MAX: usize = 32;

impl DeliveryState {
    /// Loads what is due while there are slots for it. The due entry stays in the state until the attempt's outcome
    /// is recorded; `retrying` keeps it from being taken twice.
    pub(super) fn load_due(&mut self, me: &ActorRef<DeliveryMsg>) {
        let slots = self.window().saturating_sub(self.in_flight + self.due_reserved).min(LOAD_MAX);
        if !self.due_waiting || self.due_reserved > 0 || slots == 0 {
            return;
        }
        self.due_waiting = false;
        self.due_reserved = slots;
        let (ports, me, id) = (self.ports.clone(), me.clone(), self.id);
        let (mut taken, retry) = (self.retrying.clone(), self.wires.retry.clone());
        tokio::spawn(async move {
            let loaded = load(&ports, id, &taken, slots).await;
            let more = loaded.as_ref().is_ok_and(|items| items.len() == slots);
            taken.extend(loaded.iter().flatten().map(|item| item.event));
            if !more && let Ok(Some(due_ms)) = next_due(&ports, id, &taken).await {
                retry.hint(RetryMsg::Schedule { subscription: id, due_ms });
            }
            let _ = me.cast(DeliveryMsg::DueLoaded { items: loaded, reserved: slots, more });
        });
    }

    pub(super) fn take_due(
        &mut self,
        me: &ActorRef<DeliveryMsg>,
        items: Result<Vec<DueItem>, LogError>,
        reserved: usize,
        more: bool,
    ) {
        self.due_reserved -= reserved;
        let items = match items {
            Ok(items) => items,
            Err(error) => {
                tracing::warn!(subscription = self.id.0, %error, "could not load due retries");
                let due_ms = self.ports.clock.now_ms() + LOAD_AGAIN_AFTER_MS;
                return self.wires.retry.hint(RetryMsg::Schedule { subscription: self.id, due_ms });
            }
        };
        if !self.runnable() {
            // They stay due; whoever makes the subscription run again looks for them.
            self.due_waiting = true;
            return;
        }
        self.due_waiting |= more;
        for DueItem { event, record, payload } in items {
            if !self.retrying.insert(event) {
                continue;
            }
            match payload {
                Some(payload) => {
                    let replay = record.replay;
                    self.begin(me, payload, Some(record), replay);
                }
                None => self.unreadable_due(event, record),
            }
        }
    }
}

const LOAD_AGAIN_AFTER_MS: u64 = 1_000;

async fn load(
    ports: &Ports,
    id: SubscriptionId,
    taken: &HashSet<EventId>,
    limit: usize,
) -> Result<Vec<DueItem>, LogError> {
    let now_ms = ports.clock.now_ms();
    let due = ports.state.due(id, now_ms, limit + taken.len()).await?;
    let mut items = Vec::with_capacity(limit);
    for entry in due.into_iter().filter(|entry| !taken.contains(&entry.event)).take(limit) {
        let record = match ports.state.delivery(id, entry.event).await? {
            Known::Record(record) if record.status == DeliveryStatus::Retrying => record,
            // Settled since the entry was read.
            Known::Record(_) | Known::Delivered | Known::Unknown => continue,
        };
        let payload = match ports.log.get(entry.event).await {
            Ok(payload) => payload,
            Err(LogError::Corrupt(_)) => None,
            Err(error) => return Err(error),
        };
        items.push(DueItem { event: entry.event, record, payload });
    }
    Ok(items)
}

async fn next_due(ports: &Ports, id: SubscriptionId, taken: &HashSet<EventId>) -> Result<Option<u64>, LogError> {
    let due = ports.state.due(id, u64::MAX, taken.len() + 1).await?;
    Ok(due.into_iter().find(|entry| !taken.contains(&entry.event)).map(|entry| entry.due_ms))
}
