//! The configuration in force, compiled: verifiers with expanded keys, transports, paths.
//! The configuration actor publishes it; the ingress and the tree read it without a lock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::{Map, Value};

use crate::{
    backlog::Backlog,
    domain::{
        config::{
            Configuration, Destination, DestinationStatus, Endpoint, Integration, IntegrationStatus, Subscription,
        },
        ids::{EndpointId, IntegrationId, SubscriptionId},
        secret::Secret,
    },
    ports::{
        program::{Programs, Selector, Transformer},
        provider::{Provider, Providers, SettingsError, Verifier},
        sealer::{Owner, Sealer},
        transport::{Transport, Transports},
    },
};

/// What compiling needs of the outside.
#[derive(Clone)]
pub struct Compiler {
    /// The provider registry.
    pub providers: Arc<dyn Providers>,
    /// The destination registry.
    pub transports: Arc<dyn Transports>,
    /// Opens what is sealed.
    pub sealer: Arc<dyn Sealer>,
    /// Compiles filters, keys and transformations.
    pub programs: Arc<dyn Programs>,
}

/// A path that accepts webhooks.
pub struct Route {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Whose events they are.
    pub integration: IntegrationId,
    /// Checks signatures.
    pub verifier: Arc<dyn Verifier>,
    /// The largest body, bytes, where the endpoint sets one.
    pub body_bytes_max: Option<u32>,
    /// Its integration's.
    pub backlog: Arc<Backlog>,
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

/// All of it at one version.
#[derive(Default)]
pub struct Snapshot {
    /// As configured.
    pub configuration: Arc<Configuration>,
    /// Active paths, with their leading slash.
    pub routes: HashMap<Box<str>, Arc<Route>>,
    /// Naming, by endpoint, inactive ones too: their events may still be in the log.
    pub namings: HashMap<EndpointId, Naming>,
    /// Plans by integration and subscription.
    pub plans: BTreeMap<(IntegrationId, SubscriptionId), Arc<Plan>>,
    /// How much of the log each integration's unfinished events hold.
    pub backlogs: HashMap<IntegrationId, Arc<Backlog>>,
    /// What cannot be used.
    pub faults: Vec<Fault>,
    /// When a secret expires next, milliseconds since 1970: time to compile again.
    pub next_expiry_ms: Option<u64>,
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
}

impl Compiler {
    /// Compiles a configuration; what did not change is taken from `before`. Never fails as a whole: what cannot be
    /// compiled is listed under `faults`, and its path answers as an unknown one.
    pub fn compile(&self, configuration: Arc<Configuration>, before: &Snapshot, now_ms: u64) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for id in configuration.integrations.keys() {
            snapshot.backlogs.insert(*id, before.backlogs.get(id).cloned().unwrap_or_default());
        }
        for endpoint in configuration.endpoints.values() {
            let Some(integration) = configuration.integrations.get(&endpoint.integration_id) else { continue };
            self.add_endpoint(&mut snapshot, before, integration, endpoint, now_ms);
        }
        for subscription in configuration.subscriptions.values() {
            let Some(integration) = configuration.integrations.get(&subscription.integration_id) else { continue };
            let Some(destination) = configuration.destinations.get(&subscription.destination_id) else { continue };
            let plan = self.plan(&mut snapshot.faults, before, integration, destination, subscription);
            snapshot.plans.insert((integration.id, subscription.id), plan);
        }
        snapshot.configuration = configuration;
        snapshot
    }

    fn add_endpoint(
        &self,
        snapshot: &mut Snapshot,
        before: &Snapshot,
        integration: &Integration,
        endpoint: &Arc<Endpoint>,
        now_ms: u64,
    ) {
        let Some(provider) = self.providers.get(&integration.provider) else {
            snapshot.faults.push(Fault {
                subject: format!("integration {}", integration.id),
                problem: format!("provider `{}` is not known to this hookmill", integration.provider),
            });
            return;
        };
        let unchanged = before.configuration.endpoints.get(&endpoint.id).is_some_and(|it| Arc::ptr_eq(it, endpoint));
        let naming = match before.namings.get(&endpoint.id) {
            Some(naming) if unchanged && naming.provider.name() == provider.name() => naming.clone(),
            _ => naming(endpoint, provider),
        };
        let settings = naming.settings.clone();
        snapshot.namings.insert(endpoint.id, naming);
        if !endpoint.active || !accepts(integration.status) {
            return;
        }
        let expiry = next_expiry(endpoint, now_ms);
        snapshot.next_expiry_ms = [snapshot.next_expiry_ms, expiry].into_iter().flatten().min();
        let made_from = (endpoint.meta.version, integration.meta.version, expiry);
        if let Some(route) = before.routes.get(endpoint.path.as_str()).filter(|route| route.made_from == made_from) {
            snapshot.routes.insert(endpoint.path.as_str().into(), route.clone());
            return;
        }
        match self.verifier(provider, &settings, endpoint, now_ms) {
            Ok(verifier) => {
                let route = Route {
                    endpoint: endpoint.id,
                    integration: integration.id,
                    verifier,
                    body_bytes_max: endpoint.body_bytes_max,
                    backlog: snapshot.backlogs.get(&integration.id).cloned().unwrap_or_default(),
                    made_from,
                };
                snapshot.routes.insert(endpoint.path.as_str().into(), Arc::new(route));
            }
            Err(error) => snapshot
                .faults
                .push(Fault { subject: format!("webhook endpoint {}", endpoint.id), problem: error.to_string() }),
        }
    }

    fn verifier(
        &self,
        provider: &'static dyn Provider,
        settings: &Map<String, Value>,
        endpoint: &Endpoint,
        now_ms: u64,
    ) -> Result<Arc<dyn Verifier>, SettingsError> {
        if !endpoint.verify_signature {
            let none = self.providers.get(UNVERIFIED).ok_or_else(|| {
                SettingsError::new("verify_signature", "this hookmill cannot accept unsigned requests")
            })?;
            return none.verifier(&Map::new(), &[]);
        }
        let mut secrets = Vec::with_capacity(endpoint.secrets.len());
        for secret in endpoint.secrets.iter().filter(|secret| secret.expires_at_ms.is_none_or(|at| at > now_ms)) {
            secrets.push(
                self.sealer
                    .open(Owner::EndpointSecret(endpoint.integration_id), &secret.sealed)
                    .map_err(|error| SettingsError::new("secret", error.to_string()))?,
            );
        }
        provider.verifier(settings, &secrets)
    }

    fn plan(
        &self,
        faults: &mut Vec<Fault>,
        before: &Snapshot,
        integration: &Integration,
        destination: &Arc<Destination>,
        subscription: &Arc<Subscription>,
    ) -> Arc<Plan> {
        let running =
            subscription.active && destination.status == DestinationStatus::Active && accepts(integration.status);
        let former = before.plans.get(&(integration.id, subscription.id));
        let same_destination = former.filter(|plan| same(&plan.destination, destination));
        let same_subscription = former.filter(|plan| same(&plan.subscription, subscription));
        if let (Some(plan), Some(_)) = (same_destination, same_subscription)
            && plan.running == running
        {
            note_faults(faults, plan);
            return plan.clone();
        }
        let transport = match same_destination {
            Some(plan) => plan.transport.clone(),
            None => self.transport(destination),
        };
        let (selector, transformer) = match same_subscription {
            Some(plan) => (plan.selector.clone(), plan.transformer.clone()),
            None => (self.selector(subscription), self.transformer(subscription)),
        };
        let plan = Plan {
            subscription: subscription.clone(),
            destination: destination.clone(),
            transport,
            selector,
            transformer,
            running,
        };
        note_faults(faults, &plan);
        Arc::new(plan)
    }

    fn transport(&self, destination: &Destination) -> Result<Arc<dyn Transport>, SettingsError> {
        let secret = self
            .sealer
            .open(Owner::SigningSecret(destination.id), &destination.signing_secret)
            .map_err(|error| SettingsError::new("signing_secret", error.to_string()))?;
        let credentials: Option<Secret> = destination
            .credentials
            .as_ref()
            .map(|sealed| self.sealer.open(Owner::DestinationCredentials(destination.id), sealed))
            .transpose()
            .map_err(|error| SettingsError::new("credentials", error.to_string()))?;
        self.transports.build(destination, &secret, credentials.as_ref())
    }

    fn selector(&self, subscription: &Subscription) -> Result<Option<Arc<dyn Selector>>, SettingsError> {
        let (filter, key) = (subscription.selection.filter.as_deref(), subscription.order.key());
        if filter.is_none() && key.is_none() {
            return Ok(None);
        }
        self.programs.selector(filter, key).map(Some)
    }

    fn transformer(&self, subscription: &Subscription) -> Result<Option<Arc<dyn Transformer>>, SettingsError> {
        self.programs.transformer(&subscription.transform, &subscription.headers)
    }
}

/// Nearly all resources are the very same ones as before.
fn same<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn note_faults(faults: &mut Vec<Fault>, plan: &Plan) {
    let mut note = |subject: String, error: &SettingsError| {
        faults.push(Fault { subject, problem: error.to_string() });
    };
    if let Err(error) = &plan.transport {
        note(format!("destination {}", plan.destination.id), error);
    }
    for error in [plan.selector.as_ref().err(), plan.transformer.as_ref().err()].into_iter().flatten() {
        note(format!("subscription {}", plan.subscription.id), error);
    }
}

fn naming(endpoint: &Endpoint, provider: &'static dyn Provider) -> Naming {
    let settings = Arc::new(effective_settings(endpoint));
    let dedup_window_ms = match endpoint.dedup_window_s {
        Some(seconds) => seconds.saturating_mul(1_000),
        None => u64::try_from(provider.retry_window().as_millis()).unwrap_or(u64::MAX),
    };
    // Where nothing is verified, anybody may send any id.
    let id_signed = endpoint.verify_signature && provider.signs_id(&settings);
    Naming { provider, settings, dedup_window_ms, id_signed }
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

/// An untested integration is in use at once: an operator who creates one expects the next webhook to arrive. A
/// failed one still accepts, so that nothing is lost while it is looked at; its deliveries wait in the log.
fn accepts(status: IntegrationStatus) -> bool {
    match status {
        IntegrationStatus::Active | IntegrationStatus::Pending | IntegrationStatus::Failed => true,
        IntegrationStatus::Inactive => false,
    }
}

fn next_expiry(endpoint: &Endpoint, now_ms: u64) -> Option<u64> {
    endpoint.secrets.iter().filter_map(|secret| secret.expires_at_ms).filter(|at| *at > now_ms).min()
}
