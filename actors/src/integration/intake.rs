//! Reading on, naming events and finding duplicates, beside the actor; and cancelling what a deleted subscription still
//! had to retry.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::dedup::{self, Candidate, Dedup, RecentKeys};
use crate::{
    domain::{
        delivery::DeliveryStatus,
        event::{Event, Identity},
        ids::{EventId, IntegrationId, SubscriptionId},
        limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX},
    },
    ports::{
        event_log::{LogError, ReadBounds, Recent, Stored},
        state_store::{DeliveryState, Mark, Note, StateOp},
    },
    snapshot::{Naming, Snapshot},
    tree::Ports,
};

/// Events as read, and what was found about them.
#[derive(Debug, Default)]
pub(crate) struct TakenIn {
    pub(super) events: Vec<Stored>,
    /// Ascending. Events whose bytes are damaged, and those there is nothing to say of, have none.
    pub(super) notes: Vec<Note>,
    /// Nothing else had been committed when they were read: a wake comes for what follows.
    pub(super) all: bool,
}

/// Events are named in runs of so many; others get a turn in between.
const NAME_RUN: usize = 32;

/// What taking in the next events needs.
pub(super) struct Intake {
    pub(super) ports: Arc<Ports>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) integration: IntegrationId,
    pub(super) recent: RecentKeys,
}

impl Intake {
    /// The next events after `after`.
    pub(super) async fn after(&self, after: EventId) -> Result<TakenIn, LogError> {
        let bounds = ReadBounds { events_max: BATCH_EVENTS_MAX, bytes_max: BATCH_BYTES_MAX };
        let (events, all) = match self.ports.log.recent(self.integration, after, bounds) {
            Some(Recent { events, all }) => (events, all),
            None => (self.ports.log.read(self.integration, after, bounds).await?, false),
        };
        let (mut notes, mut candidates) = (Vec::new(), Vec::new());
        for (index, event) in events.iter().enumerate() {
            if index % NAME_RUN == NAME_RUN - 1 {
                tokio::task::yield_now().await;
            }
            if let Ok(event) = event {
                self.name(event, &mut notes, &mut candidates);
            }
        }
        let dedup = Dedup {
            state: &*self.ports.state,
            snapshot: &self.snapshot,
            integration: self.integration,
            recent: &self.recent,
        };
        dedup.mark(&candidates, &mut notes).await?;
        Ok(TakenIn { events, notes, all })
    }

    fn name(&self, event: &Event, notes: &mut Vec<Note>, candidates: &mut Vec<Candidate>) {
        let Some(naming) = self.snapshot.namings.get(&event.arrival.endpoint) else { return };
        let mut note = Note { event: event.id, endpoint: Some(event.arrival.endpoint), ..Note::default() };
        match identify(naming, event) {
            Ok(Identity { event_type, provider_id }) => {
                if let Some(key) = provider_id.as_deref().and_then(|id| dedup::key(naming, event, id)) {
                    let window_ms = naming.dedup_window_ms;
                    candidates.push(Candidate { note: notes.len(), key, event: event.id, window_ms });
                }
                (note.event_type, note.provider_id) = (event_type, provider_id);
            }
            Err(problem) => note.mark = Some(Mark::Unreadable(problem)),
        }
        notes.push(note);
    }
}

/// A provider that panics costs this event, which goes to the dead letter, and nothing else.
fn identify(naming: &Naming, event: &Event) -> Result<Identity, Box<str>> {
    catch_unwind(AssertUnwindSafe(|| naming.provider.identify(&naming.settings, event))).map_err(|_| {
        let provider = naming.provider.name();
        tracing::error!(event = %event.id, provider, "a provider panicked while naming an event");
        format!("the provider `{provider}` panicked on it").into()
    })
}

/// The operations that record an intake position with what was noted on the way to it.
pub(super) fn record(integration: IntegrationId, upto: EventId, mut notes: Vec<Note>) -> Vec<StateOp> {
    let mut ops = Vec::with_capacity(notes.len() / BATCH_EVENTS_MAX + 1);
    while notes.len() > BATCH_EVENTS_MAX {
        let rest = notes.split_off(BATCH_EVENTS_MAX);
        let batch = std::mem::replace(&mut notes, rest);
        let upto = batch.last().map_or(upto, |note| note.event);
        ops.push(StateOp::Intake { integration, upto, notes: batch });
    }
    ops.push(StateOp::Intake { integration, upto, notes });
    ops
}

/// Cancelled at once, at most: one commit holds them.
const CANCEL_BATCH: usize = 256;

/// Cancels everything of a subscription that is due or parked; each has the outcome `cancelled` afterwards.
pub(crate) async fn cancel_due(ports: &Ports, subscription: SubscriptionId) -> Result<(), LogError> {
    loop {
        // What a delivery that was just stopped had handed in comes first.
        ports.log.commit(Vec::new())?.await?;
        let due = ports.state.due(subscription, u64::MAX, CANCEL_BATCH).await?;
        let mut events: Vec<EventId> = due.into_iter().map(|entry| entry.event).collect();
        if events.is_empty() {
            let held = ports.state.lanes(subscription).await?;
            events.extend(held.into_iter().map(|held| held.event));
        }
        let mut ops = Vec::with_capacity(CANCEL_BATCH);
        for event in events {
            let known = ports.state.delivery(subscription, event).await?;
            let DeliveryState::Record(mut record) = known else { continue };
            // Dead letters stay to be looked at.
            if ops.len() < CANCEL_BATCH && record.status != DeliveryStatus::Dead {
                record.status = DeliveryStatus::Cancelled;
                record.due_ms = None;
                ops.push(StateOp::Delivery { subscription, event, record });
            }
        }
        if ops.is_empty() {
            return Ok(());
        }
        ports.log.commit(ops)?.await?;
    }
}
