//! Whether a subscription has room for replays: live traffic comes first.

use crate::{
    domain::{
        config::DestinationStatus,
        delivery::Position,
        ids::{EventId, SubscriptionId},
    },
    ports::event_log::LogError,
    snapshot::Plan,
    tree::Ports,
};

/// Due deliveries of a subscription beside which no more are made due: its window takes them from there.
const DUE_MAX: usize = 256;
/// A subscription whose live events wait longer than this has enough to do, milliseconds.
const BEHIND_MAX_MS: u64 = 2_000;

/// What a subscription has room for.
pub(super) enum Room {
    /// So many more, at least one.
    For(usize),
    /// None now, and why.
    None(String),
}

/// Looks how much may be made due for a subscription now.
pub(super) async fn room(ports: &Ports, plan: &Plan) -> Result<Room, LogError> {
    let subscription = plan.subscription.id;
    if !plan.running {
        return Ok(Room::None(format!("waits for subscription {subscription}, which rests: {}", why(plan))));
    }
    let due = ports.state.due(subscription, ports.clock.now_ms(), DUE_MAX).await?.len();
    if due >= DUE_MAX {
        return Ok(Room::None(full(subscription)));
    }
    let position = ports.state.position(subscription).await?.unwrap_or_default();
    let intake = ports.state.intake(plan.subscription.integration_id).await?;
    let behind_ms = behind_ms(plan, &position, intake);
    if behind_ms > BEHIND_MAX_MS {
        let seconds = behind_ms / 1_000;
        return Ok(Room::None(format!("yields to live events of subscription {subscription}, {seconds} s behind")));
    }
    Ok(Room::For(DUE_MAX - due))
}

/// What to say where the due queue is as long as replays may make it.
pub(super) fn full(subscription: SubscriptionId) -> String {
    format!("waits for subscription {subscription}, where {DUE_MAX} deliveries are due already")
}

/// How far the oldest event that waits for a place in the window is behind the newest.
fn behind_ms(plan: &Plan, position: &Position, intake: EventId) -> u64 {
    let read_upto = position.read_upto.max(plan.subscription.start_after);
    let queued = position.open.len() > usize::from(plan.subscription.in_flight_max);
    let oldest = position.open.first().filter(|_| queued).copied().unwrap_or(read_upto);
    if oldest == EventId::ZERO { 0 } else { intake.millis().saturating_sub(oldest.millis()) }
}

fn why(plan: &Plan) -> &'static str {
    if !plan.subscription.active {
        "it is not active"
    } else if plan.destination.status != DestinationStatus::Active {
        "its destination is paused"
    } else {
        "its integration is not active"
    }
}
