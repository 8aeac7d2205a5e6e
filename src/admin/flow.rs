//! What destinations are asked to bear, and what integrations, subscriptions and mailboxes hold: gauges, for the metrics
//! and for one destination or integration.

pub(super) mod doc;

use std::cmp::Reverse;

use axum::{http::StatusCode, response::Response};
use hookmill_actors::{
    backlog::Backlog,
    domain::{
        config::{Destination, Integration},
        ids::{DestinationId, IntegrationId},
    },
    flow::{BreakerState, GateView},
    metrics::gauges::{SubscriptionView, WaitingFor},
    snapshot::Snapshot,
    tree::{TreeHandle, mailbox::MailboxView},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    access::State,
    problem::Problem,
    resource::{Configured, Segments, json},
};

/// The metrics show so many destinations, integrations and subscriptions, those with the most to tell: a reply stays
/// readable, and bounded, with ten thousand of each.
const SHOWN_MAX: usize = 100;

#[derive(Serialize, ToSchema)]
struct DestinationFlow {
    destination_id: DestinationId,
    #[serde(flatten)]
    flow: GateView,
}

/// What the log holds for an integration.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = IntegrationBacklog)]
struct BacklogView {
    integration_id: IntegrationId,
    /// Its name.
    integration: String,
    /// Bytes of the log after the first event that is not taken in, or that a subscription has still to deliver for the
    /// first time; measured twice a minute, and every two seconds where they may be too many.
    backlog_bytes: u64,
    /// Whether that is more than its share: its endpoints answer 503 for now.
    backlog_full: bool,
}

impl BacklogView {
    fn of(integration: &Integration, backlog: &Backlog) -> Self {
        Self {
            integration_id: integration.id,
            integration: integration.name.clone(),
            backlog_bytes: backlog.bytes(),
            backlog_full: backlog.is_full(),
        }
    }
}

/// An integration's backlog, and what its subscriptions do about it.
#[derive(Serialize, ToSchema)]
struct IntegrationFlow {
    #[serde(flatten)]
    backlog: BacklogView,
    subscriptions_total: usize,
    /// Those that wait for something, and those that hold most, first.
    subscriptions: Vec<SubscriptionView>,
}

/// The gauges of everything that deliveries pass.
#[derive(Serialize, ToSchema)]
pub(super) struct Gauges {
    /// How many destinations something was sent to.
    destinations_total: usize,
    /// Of them, those whose breaker is not closed, that are waited for, or that have attempts under way, first.
    destinations: Vec<DestinationFlow>,
    integrations_total: usize,
    /// The backlogs that are full, and the largest, first.
    integrations: Vec<BacklogView>,
    subscriptions_total: usize,
    /// Those that wait for something, and those that hold most, first.
    subscriptions: Vec<SubscriptionView>,
    mailboxes: Vec<MailboxView>,
}

impl Gauges {
    pub(super) fn of(tree: &TreeHandle) -> Self {
        let (destinations, subscriptions) = (tree.destination_flows(), tree.subscription_gauges());
        let integrations = backlogs(&tree.config().current());
        Self {
            destinations_total: destinations.len(),
            destinations: loudest_destinations(destinations),
            integrations_total: integrations.len(),
            integrations: largest_backlogs(integrations),
            subscriptions_total: subscriptions.len(),
            subscriptions: loudest_subscriptions(subscriptions),
            mailboxes: tree.mailboxes(),
        }
    }
}

fn loudest_destinations(mut all: Vec<(DestinationId, GateView)>) -> Vec<DestinationFlow> {
    all.sort_by_key(|(id, view)| {
        let closed = view.breaker.state == BreakerState::Closed;
        (closed, Reverse(view.waiting), Reverse(view.concurrency.in_use), *id)
    });
    all.truncate(SHOWN_MAX);
    all.into_iter().map(|(destination_id, flow)| DestinationFlow { destination_id, flow }).collect()
}

fn backlogs(snapshot: &Snapshot) -> Vec<BacklogView> {
    let integrations = snapshot.configuration.integrations.values();
    let known = integrations.filter_map(|it| Some(BacklogView::of(it, snapshot.backlogs.get(&it.id)?)));
    known.collect()
}

fn largest_backlogs(mut all: Vec<BacklogView>) -> Vec<BacklogView> {
    all.sort_by_key(|view| (Reverse(view.backlog_full), Reverse(view.backlog_bytes), view.integration_id));
    all.truncate(SHOWN_MAX);
    all
}

fn loudest_subscriptions(mut all: Vec<SubscriptionView>) -> Vec<SubscriptionView> {
    all.sort_by_key(|view| {
        let waits = view.waiting_for != WaitingFor::Nothing;
        (Reverse(waits), Reverse(view.held_bytes), Reverse(view.in_flight), view.subscription_id)
    });
    all.truncate(SHOWN_MAX);
    all
}

/// `GET /api/v1/destinations/{id}/flow`
pub(super) async fn one(State(api): State<Api>, Segments(id): Segments<u32>) -> Result<Response, Problem> {
    let destination_id = DestinationId(id);
    let flow = api.tree.destination_flow(destination_id).ok_or_else(|| Problem::not_found(Destination::key(id)))?;
    Ok(json(StatusCode::OK, &DestinationFlow { destination_id, flow }))
}

/// `GET /api/v1/integrations/{id}/flow`
pub(super) async fn of_integration(State(api): State<Api>, Segments(id): Segments<u32>) -> Result<Response, Problem> {
    let snapshot = api.tree.config().current();
    let integration_id = IntegrationId(id);
    let found = snapshot.configuration.integrations.get(&integration_id).zip(snapshot.backlogs.get(&integration_id));
    let (integration, backlog) = found.ok_or_else(|| Problem::not_found(Integration::key(id)))?;
    let mut subscriptions = api.tree.subscription_gauges();
    subscriptions.retain(|view| {
        let subscription = snapshot.configuration.subscriptions.get(&view.subscription_id);
        subscription.is_some_and(|subscription| subscription.integration_id == integration_id)
    });
    let flow = IntegrationFlow {
        backlog: BacklogView::of(integration, backlog),
        subscriptions_total: subscriptions.len(),
        subscriptions: loudest_subscriptions(subscriptions),
    };
    Ok(json(StatusCode::OK, &flow))
}

#[cfg(test)]
mod tests {
    use hookmill_actors::flow::{BreakerView, ConcurrencyView};

    use super::*;

    fn gate(state: BreakerState, waiting: usize, in_use: usize) -> GateView {
        GateView {
            breaker: BreakerView {
                state,
                opened_ms_ago: None,
                reopens_in_ms: None,
                consecutive_failures: 0,
                error_rate: 0.0,
            },
            concurrency: ConcurrencyView { limit: None, in_use, adaptive: false },
            retries_saved: 0.0,
            waiting,
        }
    }

    #[test]
    fn of_many_destinations_those_in_trouble_are_shown() {
        let mut all: Vec<_> = (0..1_000).map(|id| (DestinationId(id), gate(BreakerState::Closed, 0, 1))).collect();
        all[900].1 = gate(BreakerState::Open, 0, 0);
        all[800].1 = gate(BreakerState::Closed, 7, 1);
        all[700].1 = gate(BreakerState::Closed, 0, 5);
        let shown = loudest_destinations(all);
        let ids: Vec<u32> = shown.iter().map(|flow| flow.destination_id.0).collect();
        assert_eq!((ids.len(), &ids[..5]), (SHOWN_MAX, &[900, 800, 700, 0, 1][..]));
    }

    #[test]
    fn of_many_backlogs_the_full_and_the_largest_are_shown() {
        let backlog = |id: u32, backlog_bytes, backlog_full| BacklogView {
            integration_id: IntegrationId(id),
            integration: format!("shop {id}"),
            backlog_bytes,
            backlog_full,
        };
        let mut all: Vec<_> = (0..1_000).map(|id| backlog(id, 10, false)).collect();
        all[900] = backlog(900, 500, false);
        all[800] = backlog(800, 70, true);
        let shown = largest_backlogs(all);
        let ids: Vec<u32> = shown.iter().map(|view| view.integration_id.0).collect();
        assert_eq!((ids.len(), &ids[..4]), (SHOWN_MAX, &[800, 900, 0, 1][..]));
    }

    #[test]
    fn the_reply_says_what_an_operator_asks() {
        let flow = DestinationFlow { destination_id: DestinationId(3), flow: gate(BreakerState::HalfOpen, 2, 1) };
        let shown = serde_json::json!({
            "destination_id": 3,
            "breaker": { "state": "half_open", "consecutive_failures": 0, "error_rate": 0.0 },
            "concurrency": { "limit": null, "in_use": 1, "adaptive": false },
            "retries_saved": 0.0,
            "waiting": 2,
        });
        assert_eq!(serde_json::to_value(&flow).expect("it is JSON"), shown);
    }
}
