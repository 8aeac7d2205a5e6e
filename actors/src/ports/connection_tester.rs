//! Connection tests: asking the third party that an integration belongs to.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::{
    config::{Integration, IntegrationStatus},
    connection_test::Test,
};

/// Asks third parties, and knows what came of it.
///
/// # Contract
/// A test ends by itself, within its time-out once it has its turn. What it finds is kept where it is shown, and tells
/// the audit log where that is news.
#[async_trait]
pub trait ConnectionTester: Send + Sync {
    /// Tests an integration now, as soon as fewer tests than may be are under way.
    async fn test(&self, integration: &Arc<Integration>) -> Test;

    /// An integration's status: what its operator and its actor say first, then what its tests say.
    fn status(&self, integration: &Integration) -> IntegrationStatus;
}
