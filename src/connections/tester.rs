//! Connection tests as the scheduler's tasks ask for them.

use std::sync::Arc;

use async_trait::async_trait;
use hookmill_actors::{
    domain::{
        config::{Integration, IntegrationStatus},
        connection_test::Test,
    },
    ports::{config_store::ConfigStore, connection_tester::ConnectionTester},
};

use super::{Connections, UnderWay};

/// Waits for a place among the tests that hookmill makes by itself.
pub struct Tester {
    /// Makes and keeps them.
    pub connections: Connections,
    /// Hears of changed outcomes.
    pub audit: Arc<dyn ConfigStore>,
}

#[async_trait]
impl ConnectionTester for Tester {
    async fn test(&self, integration: &Arc<Integration>) -> Test {
        let shared = &self.connections.0;
        let _place = shared.places.acquire().await;
        // It is not begun a second time meanwhile, because it is due as well.
        let is_first = shared.under_way().insert(integration.id);
        let _under_way = is_first.then(|| UnderWay(shared, integration.id));
        // It may have been made or changed since the last look.
        shared.note(integration);
        self.connections.test_by_itself(integration, &*self.audit).await
    }

    fn status(&self, integration: &Integration) -> IntegrationStatus {
        self.connections.status(integration)
    }
}
