//! Naming events, and cancelling what a deleted subscription still had to retry.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{
    domain::{
        delivery::DeliveryStatus,
        event::{Event, Identity},
        ids::{EventId, IntegrationId, SubscriptionId},
        limits::BATCH_EVENTS_MAX,
    },
    ports::{
        event_log::{LogError, Stored},
        state_store::{DeliveryState, Note, StateOp},
    },
    snapshot::Snapshot,
    tree::Ports,
};

/// What is noted of a batch. Events whose bytes are damaged, or that carry no name, get no note.
pub(super) fn notes(snapshot: &Snapshot, events: &[Stored]) -> Vec<Note> {
    events
        .iter()
        .flatten()
        .filter_map(|event| {
            let Identity { event_type, provider_id } = identify(snapshot, event);
            (event_type.is_some() || provider_id.is_some()).then_some(Note {
                event: event.id,
                event_type,
                provider_id,
                ..Note::default()
            })
        })
        .collect()
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

/// A provider that panics costs the event its name, nothing else.
fn identify(snapshot: &Snapshot, event: &Event) -> Identity {
    let Some(naming) = snapshot.namings.get(&event.arrival.endpoint) else { return Identity::default() };
    catch_unwind(AssertUnwindSafe(|| naming.provider.identify(&naming.settings, event))).unwrap_or_else(|_| {
        tracing::error!(event = %event.id, provider = naming.provider.name(), "a provider panicked while naming an event");
        Identity::default()
    })
}

/// Cancelled at once, at most: one commit holds them.
const CANCEL_BATCH: usize = 256;

/// Cancels everything of a subscription that is due or parked; each has the outcome `cancelled` afterwards.
pub(super) async fn cancel_due(ports: &Ports, subscription: SubscriptionId) -> Result<(), LogError> {
    loop {
        // What a delivery actor that was just stopped had handed in comes first.
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
