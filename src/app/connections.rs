//! The connection tests' ports: third parties through the egress rules, standings in the store.

use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use async_trait::async_trait;
use hookmill_actors::domain::secret::Secret;

use super::{SystemClock, store::Store};
use crate::{
    connections::{Ask, ConnectionOptions, ConnectionPorts, Connections, KeptRecords, Request, SignIn},
    destinations::{Asking, Prober, basic_authorization, bearer},
    settings::ConnectionTestSettings,
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
        records: Arc::new(KeptRecords(store.config.clone())),
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
