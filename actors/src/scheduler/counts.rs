//! What is configured and what came, counted: the gauges of the module before hookmill, under its names.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::details::name_of;
use crate::{
    backlog,
    domain::{config::IntegrationStatus, ids::EventId},
    ports::event_log::LogError,
    tree::{Ports, wires::Wires},
};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// An object: `integrations_by_status` and `integrations_by_type` by name; `total_webhooks` and of them `active_webhooks`,
/// whose paths take events; `total_webhook_events`, which are those in the log, and of them `processed_webhook_events`,
/// `pending_webhook_events` and `webhook_events_last_24h`. Pending is what comes after the first event that a subscription
/// has not settled, and each delivery that waits for a retry or behind one: so it is never too low.
pub(super) async fn counted(ports: &Ports, wires: &Wires) -> Result<Value, LogError> {
    let snapshot = wires.config.current();
    let configuration = &snapshot.configuration;
    let (mut by_status, mut by_type) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    let counts = ports.state.counts().await?;
    let mut pending = counts.due.saturating_add(counts.parked);
    for (id, integration) in &configuration.integrations {
        *by_status.entry(name_of(ports.connections.status(integration))).or_default() += 1;
        *by_type.entry(name_of(integration.kind)).or_default() += 1;
        let after = backlog::unfinished_after(ports, &snapshot, *id).await?;
        pending = pending.saturating_add(ports.log.count_after(Some(*id), after).await?);
    }
    let is_on = |id| configuration.integrations.get(id).is_some_and(|it| it.status != IntegrationStatus::Inactive);
    let active = configuration.endpoints.values().filter(|it| it.active && is_on(&it.integration_id)).count();
    let total = ports.log.count_after(None, EventId::ZERO).await?;
    let day_ago = EventId::at_millis(ports.clock.now_ms().saturating_sub(DAY_MS));
    let pending = pending.min(total);
    Ok(json!({
        "integrations_by_status": by_status,
        "integrations_by_type": by_type,
        "total_webhooks": configuration.endpoints.size(),
        "active_webhooks": active,
        "total_webhook_events": total,
        "processed_webhook_events": total - pending,
        "pending_webhook_events": pending,
        "webhook_events_last_24h": ports.log.count_after(None, day_ago).await?,
    }))
}
