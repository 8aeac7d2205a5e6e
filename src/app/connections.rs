//! The connection tests' ports: third parties through the egress rules, standings in the store.

use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use async_trait::async_trait;
use hookmill_actors::domain::{ids::IntegrationId, secret::Secret};

use super::{SystemClock, store::Store};
use crate::{
    connections::{Ask, ConnectionOptions, ConnectionPorts, Connections, Records, Request, SignIn},
    destinations::{Asking, Prober, basic_authorization, bearer},
    settings::ConnectionTestSettings,
    storage::sled_config::SledConfig,
};

/// With what was kept.
pub(super) async fn load(
    settings: &ConnectionTestSettings,
    store: &Store,
    prober: Prober,
) -> anyhow::Result<Connections> {
    let keys = store.keys.ring().clone();
    let ports = ConnectionPorts {
        ask: Arc::new(Third(prober)),
        records: Arc::new(Kept(store.config.clone())),
        sealer: store.keys.ring().clone(),
        fingerprint: Arc::new(move |secret| keys.fingerprint(secret)),
        clock: Arc::new(SystemClock),
    };
    let options = options(settings);
    let loaded = tokio::task::spawn_blocking(move || Connections::load(options, ports)).await;
    loaded.map_err(anyhow::Error::from)?.map_err(|problem| anyhow!("what was kept of connection tests: {problem}"))
}

fn options(settings: &ConnectionTestSettings) -> ConnectionOptions {
    ConnectionOptions {
        cadence: crate::connections::Cadence {
            every: settings.every,
            failures_max: settings.failures_max,
            probe_after: settings.probe_after,
            probe_every_max: settings.probe_every_max,
        },
        concurrent_max: settings.concurrent_max,
        timeout: settings.timeout,
    }
}

struct Third(Prober);

#[async_trait]
impl Ask for Third {
    async fn ask(&self, request: &Request, timeout: Duration) -> Result<u16, String> {
        let authorization: Option<Secret> = match &request.sign_in {
            SignIn::Nobody => None,
            SignIn::Bearer(token) => Some(bearer(token)),
            SignIn::Basic(user, password) => Some(basic_authorization(user, password)),
        };
        let asking = Asking {
            field: request.field,
            url: &request.url,
            headers: &request.headers,
            authorization: authorization.as_ref(),
            timeout,
        };
        self.0.ask(&asking).await
    }
}

/// Named values of the store, one an integration; all names are as long.
struct Kept(Arc<SledConfig>);

const PREFIX: &str = "connection/";
const NAME_BYTES: u8 = 21;

fn name(id: IntegrationId) -> String {
    format!("{PREFIX}{:010}", id.0)
}

impl Records for Kept {
    fn all(&self) -> Result<Vec<(IntegrationId, Vec<u8>)>, String> {
        let listed = self.0.meta_list(PREFIX, NAME_BYTES).map_err(|error| error.to_string())?;
        let named = |(rest, record): (String, Vec<u8>)| Some((IntegrationId(rest.parse().ok()?), record));
        Ok(listed.into_iter().filter_map(named).collect())
    }

    fn put(&self, id: IntegrationId, record: &[u8]) -> Result<(), String> {
        self.0.meta_put(&name(id), record).map_err(|error| error.to_string())
    }

    fn remove(&self, id: IntegrationId) -> Result<(), String> {
        self.0.meta_remove(&name(id)).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_all_as_long() {
        for id in [1, 4_711, u32::MAX] {
            assert_eq!(name(IntegrationId(id)).len(), usize::from(NAME_BYTES));
        }
    }
}
