//! The supervised tree: who starts whom, and how the outside talks to it.

use std::{sync::Arc, time::Duration};

use crate::{
    configuration::ConfigHandle,
    domain::{
        delivery::{DeliveryRecord, DeliveryStatus},
        ids::{EventId, SubscriptionId},
    },
    metrics::{Counters, MetricsMsg, Report},
    ports::{
        clock::Clock,
        config_store::ConfigStore,
        event_log::{EventLog, LogError},
        state_store::{DeliveryState, StateOp, StateStore},
    },
    snapshot::Compiler,
};

pub(crate) mod wires;

/// All that the tree needs of the outside.
#[derive(Clone)]
pub struct Ports {
    /// Events.
    pub log: Arc<dyn EventLog>,
    /// What is known about events.
    pub state: Arc<dyn StateStore>,
    /// Configuration.
    pub config: Arc<dyn ConfigStore>,
    /// Makes verifiers and transports.
    pub compiler: Compiler,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
}

/// Why a dead letter was not replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// There is no such dead letter.
    #[error("no dead letter of event {event} for subscription {subscription}")]
    NotFound {
        /// Which.
        event: EventId,
        /// Whose.
        subscription: SubscriptionId,
    },
    /// Its subscription was deleted.
    #[error("subscription {0} does not exist any more; its dead letters can only be looked at")]
    SubscriptionGone(SubscriptionId),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// How the outside talks to a running tree.
#[derive(Clone)]
pub struct TreeHandle {
    ports: Ports,
    wires: wires::Wires,
}

impl TreeHandle {
    /// Configuration: read and change.
    pub fn config(&self) -> &ConfigHandle {
        &self.wires.config
    }

    /// The ports that the tree runs on.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The counters that everybody adds to.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.wires.counters
    }

    /// Sends a dead letter again: due at once, with all attempts of its subscription's policy.
    pub async fn replay(&self, subscription: SubscriptionId, event: EventId) -> Result<(), ReplayError> {
        if self.ports.state.dead_letter(subscription, event).await?.is_none() {
            return Err(ReplayError::NotFound { event, subscription });
        }
        if !self.wires.config.current().plans.contains_key(&subscription) {
            return Err(ReplayError::SubscriptionGone(subscription));
        }
        let matched_version = match self.ports.state.delivery(subscription, event).await? {
            DeliveryState::Record(record) => record.matched_version,
            DeliveryState::Delivered | DeliveryState::Unknown => self.wires.config.current().version(),
        };
        let record = DeliveryRecord {
            status: DeliveryStatus::Retrying,
            due_ms: Some(self.ports.clock.now_ms()),
            replay: true,
            ..DeliveryRecord::new(matched_version)
        };
        self.ports.log.commit(vec![StateOp::Delivery { subscription, event, record }])?.await?;
        Ok(())
    }

    /// Totals and rates.
    pub async fn report(&self) -> Report {
        self.wires.metrics.call(MetricsMsg::Report, Duration::from_secs(1)).await.unwrap_or_default()
    }
}

/// Starts only what configuration needs: no router and no deliveries, so that a test sees what it stored.
///
/// # Panics
/// When the configuration cannot be loaded.
#[cfg(feature = "testkit")]
pub async fn start_configuration(ports: Ports) -> TreeHandle {
    use ractor::Actor;

    use crate::{
        activity::ActivityActor,
        configuration::{ConfigActor, ConfigArgs},
        metrics::MetricsActor,
    };

    let wires = wires::Wires::new();
    let args = ConfigArgs {
        store: ports.config.clone(),
        compiler: ports.compiler.clone(),
        clock: ports.clock.clone(),
        wires: wires.clone(),
    };
    ConfigActor::spawn(None, ConfigActor, args).await.expect("an empty configuration loads");
    let args = (ports.config.clone(), wires.clone());
    ActivityActor::spawn(None, ActivityActor, args).await.expect("it only takes its place");
    MetricsActor::spawn(None, MetricsActor, wires.clone()).await.expect("it only takes its place");
    TreeHandle { ports, wires }
}
