//! Integrations as replies show them: what is configured, and what their connection tests found.

use hookmill_actors::{
    domain::config::{Environment, Integration, IntegrationStatus, IntegrationType},
    ports::sealer::Owner,
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::STATUSES;
use crate::{
    admin::{
        connection_tests::TestView,
        redact,
        resource::time,
        status::Connectivity,
        tools::{SealedView, Tools},
    },
    connections::Held,
};

/// An integration as replies show it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Integration)]
pub(in crate::admin) struct View {
    id: u32,
    name: String,
    r#type: IntegrationType,
    provider: String,
    description: Option<String>,
    environment: Environment,
    status: IntegrationStatus,
    #[schema(value_type = Object)]
    configuration: Map<String, Value>,
    credentials: Option<SealedView>,
    version: u64,
    #[schema(format = DateTime)]
    last_health_check: Option<String>,
    health_status: Option<Connectivity>,
    #[schema(format = DateTime)]
    last_connection_test: Option<String>,
    connection_test: Option<TestView>,
    /// A change that waits for its connection test, or whose test failed.
    pending_version: Option<PendingView>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A change that is not in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PendingChange)]
struct PendingView {
    /// `testing` or `failed`.
    state: &'static str,
    author: String,
    #[schema(format = DateTime)]
    at: String,
    /// Why it failed.
    reason: Option<String>,
    /// What would stand.
    #[schema(no_recursion)]
    integration: Box<View>,
}

impl PendingView {
    fn of(held: &Held, tools: &Tools) -> Self {
        Self {
            state: if held.failed.is_some() { "failed" } else { "testing" },
            author: held.author.clone(),
            at: time(held.at_ms),
            reason: held.failed.as_ref().map(|test| test.reason.clone()),
            integration: Box::new(View::configured(&held.integration, tools)),
        }
    }
}

impl View {
    /// What may be shown of an integration at any time.
    pub(super) fn of(integration: &Integration, tools: &Tools) -> Self {
        let standing = tools.connections.standing(integration.id);
        let last = standing.last.as_ref();
        View {
            status: tools.connections.status(integration),
            last_health_check: last.map(|test| time(test.at_ms)),
            health_status: Some(Connectivity::by_tests(&standing)),
            last_connection_test: last.map(|test| time(test.at_ms)),
            connection_test: last.map(TestView::of),
            pending_version: tools.connections.held(integration).map(|held| PendingView::of(&held, tools)),
            ..View::configured(integration, tools)
        }
    }

    /// As it is configured, without what its tests found.
    pub(super) fn configured(integration: &Integration, tools: &Tools) -> Self {
        let sealed = integration.credentials.as_ref();
        View {
            id: integration.id.0,
            name: integration.name.clone(),
            r#type: integration.kind,
            provider: integration.provider.clone(),
            description: integration.description.clone(),
            environment: integration.environment,
            status: integration.status,
            configuration: redact::settings(&integration.configuration),
            credentials: sealed.map(|sealed| tools.sealed_view(Owner::Credentials(integration.id), sealed)),
            version: integration.meta.version,
            last_health_check: None,
            health_status: None,
            last_connection_test: None,
            connection_test: None,
            pending_version: None,
            created_at: time(integration.meta.created_at_ms),
            updated_at: time(integration.meta.updated_at_ms),
        }
    }

    /// Its status in small letters.
    pub(in crate::admin) fn status_name(&self) -> &'static str {
        STATUSES.iter().find(|(_, status)| *status == self.status).map_or("", |(name, _)| name)
    }
}
