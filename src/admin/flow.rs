//! What destinations are asked to bear, and what subscriptions and mailboxes hold: gauges, for the metrics and for one
//! destination.

use std::cmp::Reverse;

use axum::{extract::State, http::StatusCode, response::Response};
use hookmill_actors::{
    domain::{config::Destination, ids::DestinationId},
    flow::{BreakerState, GateView},
    metrics::gauges::{SubscriptionView, WaitingFor},
    tree::{TreeHandle, mailbox::MailboxView},
};
use serde::Serialize;

use super::{
    Api,
    paging::Params,
    problem::Problem,
    resource::{Configured, Segments, json},
};

/// The metrics show so many destinations and subscriptions, those with the most to tell: a reply stays readable, and
/// bounded, with ten thousand of each.
const SHOWN_MAX: usize = 100;

#[derive(Serialize)]
struct DestinationFlow {
    destination_id: DestinationId,
    #[serde(flatten)]
    flow: GateView,
}

/// The gauges of everything that deliveries pass.
#[derive(Serialize)]
pub(super) struct Gauges {
    /// How many destinations something was sent to.
    destinations_total: usize,
    /// Of them, those whose breaker is not closed, that are waited for, or that have attempts under way, first.
    destinations: Vec<DestinationFlow>,
    subscriptions_total: usize,
    /// Those that wait for something, and those that hold most, first.
    subscriptions: Vec<SubscriptionView>,
    mailboxes: Vec<MailboxView>,
}

impl Gauges {
    pub(super) fn of(tree: &TreeHandle) -> Self {
        let (destinations, subscriptions) = (tree.destination_flows(), tree.subscription_gauges());
        Self {
            destinations_total: destinations.len(),
            destinations: loudest_destinations(destinations),
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

fn loudest_subscriptions(mut all: Vec<SubscriptionView>) -> Vec<SubscriptionView> {
    all.sort_by_key(|view| {
        let waits = view.waiting_for != WaitingFor::Nothing;
        (Reverse(waits), Reverse(view.held_bytes), Reverse(view.in_flight), view.subscription_id)
    });
    all.truncate(SHOWN_MAX);
    all
}

/// `GET /api/v1/destinations/{id}/flow`
pub(super) async fn one(
    State(api): State<Api>,
    Segments(id): Segments<u32>,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    let destination_id = DestinationId(id);
    let flow = api.tree.destination_flow(destination_id).ok_or_else(|| Problem::not_found(Destination::key(id)))?;
    Ok(json(StatusCode::OK, &DestinationFlow { destination_id, flow }))
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
