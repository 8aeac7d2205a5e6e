//! `GET /api/v1/integrations/{id}/status`: how an integration is now, in the members of the module that hookmill
//! replaces and in those that say more. Everything here is in memory but for its dead letters, which are counted up to
//! a bound.

pub(super) mod doc;

use std::collections::BTreeMap;

use axum::{http::StatusCode, response::Response};
use hookmill_actors::{
    domain::{
        config::{DestinationStatus, Environment, Integration, IntegrationStatus, IntegrationType},
        delivery::DeadLetter,
        ids::{DestinationId, EventId, IntegrationId, SubscriptionId},
        task::Task,
    },
    flow::{BreakerState, BreakerView},
    metrics::gauges::SubscriptionView,
    ports::{event_log::LogError, state_store::StateStore},
    snapshot::Snapshot,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    access::State,
    connection_tests::TestView,
    problem::Problem,
    resource::{Segments, json, time},
};
use crate::connections::{Health, Outcome, Standing};

/// Dead letters that are counted; more are `dead_letters_more`.
const DEAD_LETTERS_MAX: usize = 1_000;
/// Destinations that are shown, those in trouble first.
const DESTINATIONS_MAX: usize = 100;

/// Whether an integration reaches what it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Connectivity {
    /// Nothing says otherwise, and something says so.
    Healthy,
    /// Some of it fails.
    Degraded,
    /// It fails.
    Failing,
    /// Nobody has looked yet, or there is nothing to look at.
    Unknown,
}

#[derive(Serialize, ToSchema)]
#[schema(as = IntegrationStanding)]
#[expect(clippy::struct_field_names, reason = "the names are the contract's")]
struct Status {
    integration_id: IntegrationId,
    integration_name: String,
    integration_type: IntegrationType,
    integration_status: IntegrationStatus,
    integration_environment: Environment,
    status: IntegrationStatus,
    service_type: IntegrationType,
    provider: String,
    connectivity: Connectivity,
    health_status: Connectivity,
    /// Whether the last test passed; `null` where nobody knows.
    is_connected: Option<bool>,
    #[schema(format = DateTime)]
    last_checked: Option<String>,
    #[schema(format = DateTime)]
    last_health_check: Option<String>,
    #[schema(format = DateTime)]
    last_connection_test: Option<String>,
    details: Details,
    error_details: Option<String>,
    states: States,
    connection_test: Option<TestView>,
    /// Of connection tests, in a row.
    failures: u32,
    #[schema(format = DateTime)]
    next_connection_test: Option<String>,
    endpoints: Endpoints,
    events: Events,
    backlog: Backlog,
    destinations_total: usize,
    destinations: Vec<DestinationView>,
}

/// What the last test heard.
#[derive(Serialize, ToSchema)]
#[schema(as = TestDetails)]
struct Details {
    /// HTTP's.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What `status` is made of. Only the first two say whether webhooks are accepted and delivered.
#[derive(Serialize, ToSchema)]
#[schema(as = IntegrationStates)]
struct States {
    /// `active` or `inactive`: what its operator wants.
    operator: &'static str,
    /// `running`; `resting` while it is inactive; `failed` when it kept crashing and waits for a restart.
    deliveries: &'static str,
    /// What its connection tests say.
    connection: Health,
}

impl States {
    fn of(status: IntegrationStatus, connection: Health) -> Self {
        let (operator, deliveries) = match status {
            IntegrationStatus::Inactive => ("inactive", "resting"),
            IntegrationStatus::Failed => ("active", "failed"),
            IntegrationStatus::Active | IntegrationStatus::Pending => ("active", "running"),
        };
        Self { operator, deliveries, connection }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = EndpointCounts)]
struct Endpoints {
    total: usize,
    active: usize,
}

/// Deliveries of all its subscriptions.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = DeliveryCounts)]
struct Events {
    /// Attempts under way.
    in_flight: usize,
    /// In memory, not under way.
    queued: usize,
    /// Read, without outcome or due time.
    open: usize,
    /// Behind a failed one of their order key.
    parked: usize,
    /// At most [`DEAD_LETTERS_MAX`].
    dead_letters: usize,
    /// Whether there are more than were counted.
    dead_letters_more: bool,
}

#[derive(Serialize, ToSchema)]
struct Backlog {
    /// As last measured.
    bytes: u64,
    /// Whether its endpoints answer 503 for now.
    full: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DestinationStanding)]
struct DestinationView {
    destination_id: DestinationId,
    name: String,
    status: DestinationStatus,
    breaker: BreakerView,
}

/// What connectivity is judged by.
#[derive(Clone, Copy, Debug)]
struct Evidence {
    /// Its actor kept crashing.
    failed: bool,
    tests: Connectivity,
    destinations: usize,
    /// Of them, those whose breaker is not closed.
    troubled: usize,
    backlog_full: bool,
}

impl Evidence {
    fn connectivity(self) -> Connectivity {
        let all_troubled = self.destinations > 0 && self.troubled == self.destinations;
        if self.failed || all_troubled || self.tests == Connectivity::Failing {
            Connectivity::Failing
        } else if self.troubled > 0 || self.backlog_full {
            Connectivity::Degraded
        } else {
            self.tests
        }
    }
}

impl Connectivity {
    /// What the connection tests alone say.
    pub(super) fn by_tests(standing: &Standing) -> Self {
        match (standing.health, standing.last.as_ref().map(|last| last.outcome)) {
            (Health::Failed, _) => Self::Failing,
            (_, Some(Outcome::Failed)) => Self::Degraded,
            (_, Some(Outcome::Passed)) => Self::Healthy,
            (_, Some(Outcome::NothingToTest) | None) => Self::Unknown,
        }
    }
}

/// `GET /api/v1/integrations/{id}/status`
pub(super) async fn of_integration(State(api): State<Api>, Segments(id): Segments<u32>) -> Result<Response, Problem> {
    let integration = api.find::<Integration>(id)?;
    let snapshot = api.tree.config().current();
    let mut events = Events::of(&snapshot, integration.id, &api.tree.subscription_gauges());
    count_dead_letters(&mut events, &*api.tree.ports().state, &snapshot, integration.id).await?;
    let mut destinations = destinations(&api, &snapshot, integration.id);
    let backlog = snapshot.backlogs.get(&integration.id);
    let backlog = Backlog {
        bytes: backlog.map_or(0, |backlog| backlog.bytes()),
        full: backlog.is_some_and(|backlog| backlog.is_full()),
    };
    let standing = api.tools.connections.standing(integration.id);
    let last = standing.last.as_ref();
    // By itself, or with all others.
    let round_ms = api.tree.task(Task::TestAllActiveIntegrations).next_at_ms;
    let round_ms = round_ms.filter(|_| integration.status != IntegrationStatus::Inactive);
    let next_test_ms = standing.next_at_ms.into_iter().chain(round_ms).min();
    let evidence = Evidence {
        failed: integration.status == IntegrationStatus::Failed,
        tests: Connectivity::by_tests(&standing),
        destinations: destinations.len(),
        troubled: destinations.iter().filter(|it| it.breaker.state != BreakerState::Closed).count(),
        backlog_full: backlog.full,
    };
    let destinations_total = destinations.len();
    destinations.truncate(DESTINATIONS_MAX);
    let connectivity = evidence.connectivity();
    let shown = api.tools.connections.status(&integration);
    let last_at = last.map(|test| time(test.at_ms));
    let error = last.filter(|test| test.outcome == Outcome::Failed).map(|test| test.reason.clone());
    let status = Status {
        integration_id: integration.id,
        integration_name: integration.name,
        integration_type: integration.kind,
        integration_status: shown,
        integration_environment: integration.environment,
        status: shown,
        service_type: integration.kind,
        provider: integration.provider,
        connectivity,
        health_status: Connectivity::by_tests(&standing),
        is_connected: last.and_then(|test| match test.outcome {
            Outcome::Passed => Some(true),
            Outcome::Failed => Some(false),
            Outcome::NothingToTest => None,
        }),
        last_checked: last_at.clone(),
        last_health_check: last_at.clone(),
        last_connection_test: last_at,
        details: Details {
            status: last.and_then(|test| test.status),
            duration_ms: last.map(|test| test.duration_ms),
            error: error.clone(),
        },
        error_details: error,
        states: States::of(integration.status, standing.health),
        connection_test: last.map(TestView::of),
        failures: standing.failures,
        next_connection_test: next_test_ms.map(time),
        endpoints: endpoints(&snapshot, integration.id),
        events,
        backlog,
        destinations_total,
        destinations,
    };
    Ok(json(StatusCode::OK, &status))
}

fn endpoints(snapshot: &Snapshot, id: IntegrationId) -> Endpoints {
    let own = || snapshot.configuration.endpoints.values().filter(|endpoint| endpoint.integration_id == id);
    Endpoints { total: own().count(), active: own().filter(|endpoint| endpoint.active).count() }
}

impl Events {
    fn of(snapshot: &Snapshot, id: IntegrationId, gauges: &[SubscriptionView]) -> Self {
        let mut events = Self::default();
        for plan in snapshot.plans_of(id) {
            // They are sorted by subscription.
            let found = gauges.binary_search_by_key(&plan.subscription.id, |view| view.subscription_id);
            let Ok(view) = found.map(|index| gauges[index]) else { continue };
            events.in_flight += view.in_flight;
            events.queued += view.queued;
            events.open += view.open;
            events.parked += view.parked;
        }
        events
    }
}

/// Counts up to the bound, over all subscriptions.
async fn count_dead_letters(
    events: &mut Events,
    state: &dyn StateStore,
    snapshot: &Snapshot,
    id: IntegrationId,
) -> Result<(), LogError> {
    for plan in snapshot.plans_of(id) {
        let subscription = plan.subscription.id;
        let room = DEAD_LETTERS_MAX + 1 - events.dead_letters;
        let letters = state.dead_letters(Some((subscription, EventId::ZERO)), room).await?;
        events.dead_letters += own(&letters, subscription);
        if events.dead_letters > DEAD_LETTERS_MAX {
            events.dead_letters = DEAD_LETTERS_MAX;
            events.dead_letters_more = true;
            break;
        }
    }
    Ok(())
}

/// They are ordered by subscription, so that of the next one's may follow.
fn own(letters: &[DeadLetter], subscription: SubscriptionId) -> usize {
    letters.iter().take_while(|letter| letter.subscription == subscription).count()
}

/// Where its events go, those whose breaker is not closed first.
fn destinations(api: &Api, snapshot: &Snapshot, id: IntegrationId) -> Vec<DestinationView> {
    let used: BTreeMap<DestinationId, _> =
        snapshot.plans_of(id).map(|plan| (plan.destination.id, &plan.destination)).collect();
    let view = |(destination_id, destination): (DestinationId, &std::sync::Arc<_>)| {
        let destination: &hookmill_actors::domain::config::Destination = destination;
        let breaker = api.tree.destination_flow(destination_id)?.breaker;
        Some(DestinationView { destination_id, name: destination.name.clone(), status: destination.status, breaker })
    };
    let mut shown: Vec<DestinationView> = used.into_iter().filter_map(view).collect();
    shown.sort_by_key(|view| (view.breaker.state == BreakerState::Closed, view.destination_id));
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connectivity_is_the_worst_that_is_known() {
        let well =
            Evidence { failed: false, tests: Connectivity::Healthy, destinations: 2, troubled: 0, backlog_full: false };
        for (evidence, want) in [
            (well, Connectivity::Healthy),
            (Evidence { troubled: 1, ..well }, Connectivity::Degraded),
            (Evidence { backlog_full: true, ..well }, Connectivity::Degraded),
            (Evidence { tests: Connectivity::Degraded, ..well }, Connectivity::Degraded),
            (Evidence { tests: Connectivity::Unknown, ..well }, Connectivity::Unknown),
            (Evidence { tests: Connectivity::Unknown, troubled: 1, ..well }, Connectivity::Degraded),
            (Evidence { troubled: 2, ..well }, Connectivity::Failing),
            (Evidence { failed: true, ..well }, Connectivity::Failing),
            (Evidence { tests: Connectivity::Failing, ..well }, Connectivity::Failing),
            (Evidence { destinations: 0, ..well }, Connectivity::Healthy),
        ] {
            assert_eq!(evidence.connectivity(), want, "{evidence:?}");
        }
    }

    #[test]
    fn no_failed_test_says_that_deliveries_rest() {
        let states = States::of(IntegrationStatus::Pending, Health::Failed);
        assert_eq!((states.operator, states.deliveries), ("active", "running"));
        assert_eq!(States::of(IntegrationStatus::Failed, Health::Active).deliveries, "failed");
        assert_eq!(States::of(IntegrationStatus::Inactive, Health::Active).deliveries, "resting");
    }
}
