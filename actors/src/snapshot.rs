//! The configuration in force, compiled: verifiers with expanded keys, transports, paths.
//! The configuration actor publishes it; the ingress and the tree read it without a lock.

use std::{collections::BTreeSet, sync::Arc};

use rpds::{HashTrieMapSync, RedBlackTreeSetSync};
use serde_json::{Map, Value};

use crate::{
    allowance::Allowance,
    backlog::Backlog,
    domain::{
        config::{Configuration, Destination, Endpoint, ResourceKey, SharedMap, Subscription},
        ids::{DestinationId, EndpointId, IntegrationId, SubscriptionId},
    },
    ports::{
        program::{Selector, Transformer},
        provider::{Provider, SettingsError, Verifier},
        transport::Transport,
    },
};

mod compiler;

pub use self::compiler::Compiler;

/// A path that accepts webhooks.
pub struct Route {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Whose events they are.
    pub integration: IntegrationId,
    /// Checks signatures.
    pub verifier: Arc<dyn Verifier>,
    /// The header that its settings name as the one with the signature, in lower case: kept as it came, whatever is
    /// redacted, so that the signature can be checked again.
    pub signature_header: Option<Box<str>>,
    /// The largest body, bytes, where the endpoint sets one.
    pub body_bytes_max: Option<u32>,
    /// Its integration's.
    pub backlog: Arc<Backlog>,
    /// How many webhooks it takes, where the endpoint sets a limit.
    pub allowance: Option<Arc<Allowance>>,
    made_from: (u64, u64, Option<u64>),
}

/// How an endpoint's events are named at intake.
#[derive(Clone)]
pub struct Naming {
    /// The scheme.
    pub provider: &'static dyn Provider,
    /// The endpoint's verification settings.
    pub settings: Arc<Map<String, Value>>,
    /// An event whose id was seen within so long is a duplicate, milliseconds; 0: none is.
    pub dedup_window_ms: u64,
    /// The id is part of what is signed.
    pub id_signed: bool,
}

/// How a subscription is served.
pub struct Plan {
    /// As configured.
    pub subscription: Arc<Subscription>,
    /// As configured.
    pub destination: Arc<Destination>,
    /// The way there, or why there is none.
    pub transport: Result<Arc<dyn Transport>, SettingsError>,
    /// Selects events and names their keys; `None` where every event is taken in no order.
    pub selector: Result<Option<Arc<dyn Selector>>, SettingsError>,
    /// Renders events; `None` where the bytes go as they came.
    pub transformer: Result<Option<Arc<dyn Transformer>>, SettingsError>,
    /// Whether deliveries may be made: subscription, destination and integration are all on.
    pub running: bool,
}

impl Plan {
    /// The configuration version that selection uses.
    pub fn version(&self) -> u64 {
        self.subscription.meta.version.max(self.destination.meta.version)
    }
}

/// A resource that is configured but cannot be used as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which: `webhook endpoint 3`.
    pub subject: String,
    /// Why; never a secret.
    pub problem: String,
}

/// All of it at one version. A copy shares everything.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// As configured.
    pub configuration: Arc<Configuration>,
    /// Active paths, with their leading slash.
    pub routes: HashTrieMapSync<Box<str>, Arc<Route>>,
    /// Naming, by endpoint, inactive ones too: their events may still be in the log.
    pub namings: SharedMap<EndpointId, Naming>,
    /// Plans by integration and subscription.
    pub plans: SharedMap<(IntegrationId, SubscriptionId), Arc<Plan>>,
    /// How much of the log each integration's unfinished events hold.
    pub backlogs: SharedMap<IntegrationId, Arc<Backlog>>,
    /// What cannot be used, by the endpoint or subscription that was compiled.
    faults: SharedMap<ResourceKey, Vec<Fault>>,
    /// When a secret of which endpoint expires, milliseconds since 1970.
    expiries: RedBlackTreeSetSync<(u64, EndpointId)>,
}

impl Snapshot {
    /// The configuration version.
    pub fn version(&self) -> u64 {
        self.configuration.version
    }

    /// The subscriptions of an integration.
    pub fn plans_of(&self, integration: IntegrationId) -> impl Iterator<Item = &Arc<Plan>> {
        let bounds = (integration, SubscriptionId(0))..=(integration, SubscriptionId(u32::MAX));
        self.plans.range(bounds).map(|(_, plan)| plan)
    }

    /// What cannot be used.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.faults.values().flatten()
    }

    /// The integration that a resource belongs to; of a destination: the one that it serves, where it is one only.
    pub fn integration_of(&self, key: ResourceKey) -> Option<IntegrationId> {
        match key {
            ResourceKey::Integration(id) => Some(id),
            ResourceKey::Endpoint(id) => self.configuration.endpoints.get(&id).map(|it| it.integration_id),
            ResourceKey::Subscription(id) => self.configuration.subscriptions.get(&id).map(|it| it.integration_id),
            ResourceKey::Destination(id) => self.only_user_of(id),
        }
    }

    /// The integration that a destination serves, where it is one only. Looks at every subscription.
    fn only_user_of(&self, destination: DestinationId) -> Option<IntegrationId> {
        let mut users = self.configuration.subscriptions.values().filter(|it| it.destination_id == destination);
        let first = users.next()?.integration_id;
        users.all(|it| it.integration_id == first).then_some(first)
    }

    /// What of an endpoint or a subscription cannot be used that could be before, or for another reason.
    pub(crate) fn new_faults(&self, before: &Self, part: ResourceKey) -> impl Iterator<Item = &Fault> {
        let former = before.faults.get(&part).map_or(&[][..], Vec::as_slice);
        self.faults.get(&part).into_iter().flatten().filter(|fault| !former.contains(fault))
    }

    /// When a secret expires next, milliseconds since 1970: time to compile its endpoint again.
    pub(crate) fn next_expiry_ms(&self) -> Option<u64> {
        self.expiries.first().map(|(at_ms, _)| *at_ms)
    }

    /// The endpoints of which a secret has expired since they were compiled.
    pub(crate) fn expired(&self, now_ms: u64) -> impl Iterator<Item = EndpointId> {
        self.expiries.range(..=(now_ms, EndpointId(u32::MAX))).map(|(_, endpoint)| *endpoint)
    }

    fn forget_endpoint(&mut self, endpoint: &Endpoint) {
        self.namings.remove_mut(&endpoint.id);
        self.faults.remove_mut(&ResourceKey::Endpoint(endpoint.id));
        if self.routes.get(endpoint.path.as_str()).is_some_and(|route| route.endpoint == endpoint.id) {
            self.routes.remove_mut(endpoint.path.as_str());
        }
        for at_ms in endpoint.secrets.iter().filter_map(|secret| secret.expires_at_ms) {
            self.expiries.remove_mut(&(at_ms, endpoint.id));
        }
    }

    fn forget_subscription(&mut self, subscription: &Subscription) {
        self.plans.remove_mut(&(subscription.integration_id, subscription.id));
        self.faults.remove_mut(&ResourceKey::Subscription(subscription.id));
    }
}

/// What a change concerns, directly or by what it belongs to or goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Those of which anything is otherwise.
    pub(crate) integrations: BTreeSet<IntegrationId>,
    /// To be compiled again.
    pub(crate) endpoints: BTreeSet<EndpointId>,
    /// To be compiled again.
    pub(crate) subscriptions: BTreeSet<SubscriptionId>,
}

impl Touched {
    /// Everything that is there.
    pub(crate) fn all(configuration: &Configuration) -> Self {
        Self {
            integrations: configuration.integrations.keys().copied().collect(),
            endpoints: configuration.endpoints.keys().copied().collect(),
            subscriptions: configuration.subscriptions.keys().copied().collect(),
        }
    }
}

/// The provider that verifies nothing; used only where an endpoint says so.
pub const UNVERIFIED: &str = "none";

/// An endpoint's verification settings, with its `signature_header` in them as `header`.
pub fn effective_settings(endpoint: &Endpoint) -> Map<String, Value> {
    let mut settings = endpoint.verification.clone();
    if let Some(header) = &endpoint.signature_header {
        settings.insert("header".to_owned(), Value::String(header.clone()));
    }
    settings
}
