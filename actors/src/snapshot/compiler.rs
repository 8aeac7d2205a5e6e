//! From a configuration to its snapshot. Pure, but for the ports that open secrets and build what is compiled.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{Fault, Naming, Plan, Route, Snapshot, Touched, UNVERIFIED, effective_settings};
use crate::{
    allowance::Allowance,
    domain::{
        config::{
            Configuration, Destination, DestinationStatus, Endpoint, Integration, IntegrationStatus, ResourceKey,
            Subscription,
        },
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

impl Compiler {
    /// Compiles a configuration; what did not change is taken from `before`. Never fails as a whole: what cannot be
    /// compiled is listed under `faults`, and its path answers as an unknown one.
    pub fn compile(&self, configuration: Arc<Configuration>, before: &Snapshot, now_ms: u64) -> Snapshot {
        let touched = Touched::all(&configuration);
        self.add(Snapshot::default(), configuration, before, &touched, now_ms)
    }

    /// Compiles what changed since `before`: as [`Compiler::compile`], for what `touched` names alone.
    pub(crate) fn recompile(
        &self,
        configuration: Arc<Configuration>,
        before: &Snapshot,
        touched: &Touched,
        now_ms: u64,
    ) -> Snapshot {
        let mut snapshot = before.clone();
        let former = &before.configuration;
        for id in touched.integrations.iter().filter(|id| !configuration.integrations.contains_key(id)) {
            snapshot.backlogs.remove_mut(id);
        }
        // First all of these: one may take the path that another one leaves.
        for endpoint in touched.endpoints.iter().filter_map(|id| former.endpoints.get(id)) {
            snapshot.forget_endpoint(endpoint);
        }
        for subscription in touched.subscriptions.iter().filter_map(|id| former.subscriptions.get(id)) {
            snapshot.forget_subscription(subscription);
        }
        self.add(snapshot, configuration, before, touched, now_ms)
    }

    fn add(
        &self,
        mut snapshot: Snapshot,
        configuration: Arc<Configuration>,
        before: &Snapshot,
        touched: &Touched,
        now_ms: u64,
    ) -> Snapshot {
        for id in touched.integrations.iter().filter(|id| configuration.integrations.contains_key(id)) {
            snapshot.backlogs.insert_mut(*id, before.backlogs.get(id).cloned().unwrap_or_default());
        }
        for endpoint in touched.endpoints.iter().filter_map(|id| configuration.endpoints.get(id)) {
            let Some(integration) = configuration.integrations.get(&endpoint.integration_id) else { continue };
            self.add_endpoint(&mut snapshot, before, integration, endpoint, now_ms);
        }
        for subscription in touched.subscriptions.iter().filter_map(|id| configuration.subscriptions.get(id)) {
            let Some(integration) = configuration.integrations.get(&subscription.integration_id) else { continue };
            let Some(destination) = configuration.destinations.get(&subscription.destination_id) else { continue };
            let plan = self.plan(before, integration, destination, subscription);
            let faults = faults_of(&plan);
            if !faults.is_empty() {
                snapshot.faults.insert_mut(ResourceKey::Subscription(subscription.id), faults);
            }
            snapshot.plans.insert_mut((integration.id, subscription.id), plan);
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
        let fault = |snapshot: &mut Snapshot, subject: String, problem: String| {
            snapshot.faults.insert_mut(ResourceKey::Endpoint(endpoint.id), vec![Fault { subject, problem }]);
        };
        let Some(provider) = self.providers.get(&integration.provider) else {
            let problem = format!("provider `{}` is not known to this hookmill", integration.provider);
            return fault(snapshot, format!("integration {}", integration.id), problem);
        };
        let unchanged = before.configuration.endpoints.get(&endpoint.id).is_some_and(|it| Arc::ptr_eq(it, endpoint));
        let naming = match before.namings.get(&endpoint.id) {
            Some(naming) if unchanged && naming.provider.name() == provider.name() => naming.clone(),
            _ => naming(endpoint, provider),
        };
        let settings = naming.settings.clone();
        snapshot.namings.insert_mut(endpoint.id, naming);
        if !endpoint.active || !accepts(integration.status) {
            return;
        }
        let expiry = next_expiry(endpoint, now_ms);
        if let Some(at_ms) = expiry {
            snapshot.expiries.insert_mut((at_ms, endpoint.id));
        }
        let made_from = (endpoint.meta.version, integration.meta.version, expiry);
        if let Some(route) = before.routes.get(endpoint.path.as_str()).filter(|route| route.made_from == made_from) {
            snapshot.routes.insert_mut(endpoint.path.as_str().into(), route.clone());
            return;
        }
        match self.verifier(provider, &settings, endpoint, now_ms) {
            Ok(verifier) => {
                let route = Route {
                    endpoint: endpoint.id,
                    integration: integration.id,
                    verifier,
                    signature_header: settings
                        .get("header")
                        .and_then(Value::as_str)
                        .map(|header| header.to_ascii_lowercase().into()),
                    body_bytes_max: endpoint.body_bytes_max,
                    backlog: snapshot.backlogs.get(&integration.id).cloned().unwrap_or_default(),
                    allowance: allowance(endpoint, before),
                    made_from,
                };
                snapshot.routes.insert_mut(endpoint.path.as_str().into(), Arc::new(route));
            }
            Err(error) => fault(snapshot, format!("webhook endpoint {}", endpoint.id), error.to_string()),
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
        Arc::new(Plan {
            subscription: subscription.clone(),
            destination: destination.clone(),
            transport,
            selector,
            transformer,
            running,
        })
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

fn faults_of(plan: &Plan) -> Vec<Fault> {
    let destination = plan.transport.as_ref().err().map(|error| (ResourceKey::Destination(plan.destination.id), error));
    let programs = [plan.selector.as_ref().err(), plan.transformer.as_ref().err()];
    let programs = programs.into_iter().flatten().map(|error| (ResourceKey::Subscription(plan.subscription.id), error));
    let fault = |(subject, error): (ResourceKey, &SettingsError)| Fault {
        subject: subject.to_string(),
        problem: error.to_string(),
    };
    destination.into_iter().chain(programs).map(fault).collect()
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

/// A limit that did not change goes on as far used as it is.
fn allowance(endpoint: &Endpoint, before: &Snapshot) -> Option<Arc<Allowance>> {
    let rate = endpoint.rate_limit?;
    let former = before.configuration.endpoints.get(&endpoint.id).filter(|former| former.rate_limit == Some(rate));
    let route = former.and_then(|former| before.routes.get(former.path.as_str()));
    let same = route.filter(|route| route.endpoint == endpoint.id).and_then(|route| route.allowance.clone());
    same.or_else(|| Some(Arc::new(Allowance::of(rate, Instant::now()))))
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
