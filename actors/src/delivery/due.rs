//! Taking due retries from the state, as the window allows.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{Delivery, DeliveryMsg, Pending, post::DeliveryPost};
use crate::{
    domain::{
        delivery::{DeliveryRecord, DeliveryStatus},
        event::Event,
        ids::{EventId, SubscriptionId},
        limits::{POISON_CRASHES, SUSPECT_CRASHES},
    },
    ports::{
        event_log::LogError,
        state_store::{DeliveryState as Known, StateOp},
    },
    tree::{Ports, mailbox::Way, wires::Roll},
};

/// A delivery that is due: its record, and its event where the log still has it whole.
pub(crate) struct DueItem {
    pub(super) event: EventId,
    pub(super) record: DeliveryRecord,
    pub(super) payload: Option<Arc<Event>>,
}

/// Taken at once, at most: each holds its payload.
const LOAD_MAX: usize = 32;

/// While a delivery is younger than this, what it takes from the due queue is noted as taken first: should it
/// take hookmill down, it is known for it after the next start.
const YOUNG: Duration = Duration::from_secs(60);

impl Delivery {
    /// Loads what is due while there are slots for it. The due entry stays in the state until the attempt's outcome
    /// is recorded; `retrying` keeps it from being taken twice.
    pub(super) fn load_due(&mut self) {
        let taken = self.due_in_flight + self.due_ready.len();
        let free = self.window().saturating_sub(self.ledger.in_flight() + self.due_ready.len() + self.due_reserved);
        // While there are new events, retries take a quarter of the window and no more: the end of an outage, or a
        // replay of thousands, must not stop what is live.
        let live = self.lanes.ready() > 0 || self.is_behind();
        let share = if live { (self.window() / 4).max(1) } else { self.window() };
        let slots = free.min(share.saturating_sub(taken)).min(LOAD_MAX);
        let bytes_max = self.holding.room();
        let crowded = bytes_max == 0 && self.ledger.in_flight() > 0;
        if !self.due_waiting || self.due_reserved > 0 || slots == 0 || crowded {
            return;
        }
        self.due_waiting = false;
        self.due_reserved = slots;
        let load = Load {
            ports: self.ports.clone(),
            id: self.id,
            taken: self.retrying.clone(),
            holders: self.wires.deliveries.clone(),
            limit: slots,
            bytes_max: bytes_max.max(1),
            noted: self.started.elapsed() < YOUNG,
        };
        let (me, retry) = (self.me.clone(), self.wires.retry.clone());
        tokio::spawn(async move {
            let (items, more) = match load.run().await {
                Ok(Loaded { items, more, unreadable }) => {
                    let mut taken = load.taken;
                    taken.extend(items.iter().map(|item| item.event));
                    if !more && let Ok(Some(due_ms)) = next_due(&load.ports, load.id, &taken).await {
                        // What could not be read now is no better at once.
                        let soonest_ms = if unreadable { load.ports.clock.now_ms() + LOAD_AGAIN_AFTER_MS } else { 0 };
                        retry.schedule(load.id, due_ms.max(soonest_ms));
                    }
                    (Ok(items), more)
                }
                Err(error) => (Err(error), false),
            };
            me.cast(DeliveryMsg::DueLoaded { items, reserved: slots, more });
        });
    }

    pub(super) fn take_due(&mut self, items: Result<Vec<DueItem>, LogError>, reserved: usize, more: bool) {
        self.due_reserved -= reserved;
        let items = match items {
            Ok(items) => items,
            Err(error) => {
                tracing::warn!(subscription = self.id.0, %error, "could not load due retries");
                let due_ms = self.ports.clock.now_ms() + LOAD_AGAIN_AFTER_MS;
                return self.wires.retry.schedule(self.id, due_ms);
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
            let lane = record.lane;
            match payload {
                _ if record.crashes >= POISON_CRASHES => {
                    self.ledger.retried(event);
                    self.bury_poison(event, record);
                    self.released(event);
                }
                Some(payload) => {
                    let held = self.holding.hold(&payload);
                    self.due_ready.push_back(Pending {
                        event: payload,
                        lane,
                        record: Some(Box::new(record)),
                        due: true,
                        held,
                    });
                }
                None => {
                    self.ledger.retried(event);
                    self.bury_corrupt(event, record);
                    self.released(event);
                }
            }
        }
    }
}

const LOAD_AGAIN_AFTER_MS: u64 = 1_000;

/// What a load found.
struct Loaded {
    items: Vec<DueItem>,
    /// There may be others due now.
    more: bool,
    /// The log could not read some of them; they stay due.
    unreadable: bool,
}

/// One look into the due queue.
struct Load {
    ports: Arc<Ports>,
    id: SubscriptionId,
    /// Due entries whose attempts are under way or not yet recorded.
    taken: HashSet<EventId>,
    holders: Roll<SubscriptionId, DeliveryPost>,
    limit: usize,
    bytes_max: usize,
    /// Whether what is taken is noted as taken.
    noted: bool,
}

impl Load {
    async fn run(&self) -> Result<Loaded, LogError> {
        let Self { ports, id, taken, limit, .. } = self;
        let now_ms = ports.clock.now_ms();
        let due = ports.state.due(*id, now_ms, limit + taken.len()).await?;
        let (mut items, mut bytes, mut looked_at, mut unreadable) = (Vec::with_capacity(*limit), 0, 0, false);
        for entry in due.into_iter().filter(|entry| !taken.contains(&entry.event)).take(*limit) {
            if bytes >= self.bytes_max && looked_at > 0 {
                break;
            }
            looked_at += 1;
            let record = match ports.state.delivery(*id, entry.event).await? {
                Known::Record(record) if record.status == DeliveryStatus::Retrying => record,
                // Settled since the entry was read.
                Known::Record(_) | Known::Delivered { .. } | Known::Unknown => continue,
            };
            let payload = match ports.log.get(entry.event).await {
                Ok(payload) => payload,
                Err(LogError::Corrupt(_)) => None,
                Err(error) => {
                    tracing::warn!(subscription = id.0, event = %entry.event, %error, "could not read an event to retry");
                    unreadable = true;
                    continue;
                }
            };
            bytes += payload.as_ref().map_or(0, |event| event.arrival.body.len());
            items.push(DueItem { event: entry.event, record, payload });
        }
        if self.noted {
            self.note(&mut items).await?;
        }
        let more = (looked_at == *limit && !unreadable) || bytes >= self.bytes_max;
        Ok(Loaded { items, more, unreadable })
    }

    /// Counts a start for each, as long as that alone makes it a suspect; what is one is counted when it is begun.
    async fn note(&self, items: &mut [DueItem]) -> Result<(), LogError> {
        let mut ops = Vec::with_capacity(items.len());
        for item in items.iter_mut().filter(|item| item.record.crashes < SUSPECT_CRASHES) {
            item.record.crashes += 1;
            let (event, record) = (item.event, item.record.clone());
            ops.push(StateOp::Delivery { subscription: self.id, event, record });
        }
        // Once the subscription is deleted its retries are cancelled, which must not be undone.
        if ops.is_empty() || !self.holders.holds(self.id) {
            return Ok(());
        }
        self.ports.log.commit(ops)?.await
    }
}

async fn next_due(ports: &Ports, id: SubscriptionId, taken: &HashSet<EventId>) -> Result<Option<u64>, LogError> {
    let due = ports.state.due(id, u64::MAX, taken.len() + 1).await?;
    Ok(due.into_iter().find(|entry| !taken.contains(&entry.event)).map(|entry| entry.due_ms))
}
