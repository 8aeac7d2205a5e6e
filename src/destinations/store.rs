//! The kind `store`: events are kept in the log and go nowhere, for those who only read the API or replay later.

use std::sync::Arc;

use async_trait::async_trait;
use hookmill_actors::{
    domain::secret::Secret,
    ports::{
        provider::SettingsError,
        transport::{AttemptReport, Consignment, Timings, Transport},
    },
};
use serde_json::{Map, Value};

use super::{
    Kind,
    members::{Credentials, Members},
    report,
};

const NAME: &str = "store";

/// The kind `store`.
pub(super) struct Store;

impl Kind for Store {
    fn name(&self) -> &'static str {
        NAME
    }

    fn validate(&self, settings: &Map<String, Value>, credentials: Credentials) -> Result<(), SettingsError> {
        Members::new(NAME, settings, &[])?;
        credentials.finish(NAME)
    }

    fn build(
        &self,
        settings: &Map<String, Value>,
        credentials: Credentials,
        _signing_secret: &Secret,
    ) -> Result<Arc<dyn Transport>, SettingsError> {
        self.validate(settings, credentials)?;
        Ok(Arc::new(Keep))
    }
}

struct Keep;

#[async_trait]
impl Transport for Keep {
    async fn attempt(&self, _consignment: Consignment, _now_ms: u64) -> AttemptReport {
        report::delivered(Timings::default())
    }
}
