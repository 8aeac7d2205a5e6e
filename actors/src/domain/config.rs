//! What operators configure: integrations, webhook endpoints, destinations, subscriptions; and their history.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    backoff::RetryPolicy,
    ids::{DestinationId, EndpointId, EventId, IntegrationId, SubscriptionId},
    order::Order,
    secret::Sealed,
    selection::Selection,
    shaping::{DestinationLimits, Rate},
    transform::Transform,
};

/// When and under which configuration version a resource was made and last changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The configuration version of its last change; one counter for the whole configuration.
    pub version: u64,
    /// Milliseconds since 1970.
    pub created_at_ms: u64,
    /// Milliseconds since 1970.
    pub updated_at_ms: u64,
    /// Whether it was made from documents, so that documents without it may delete it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub applied: bool,
}

/// The family of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the contract's")]
pub enum IntegrationType {
    PaymentGateway,
    SmsProvider,
    EmailProvider,
    Analytics,
    Crm,
    Monitoring,
    Authentication,
    Storage,
    Custom,
}

/// Whether an integration works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntegrationStatus {
    /// In use.
    Active,
    /// Switched off by an operator: its paths answer 404, its deliveries rest.
    Inactive,
    /// Created, not yet tested; in use.
    Pending,
    /// Its actor gave up. (What is shown is `failed` also where its connection tests say so, which is stored elsewhere.)
    Failed,
}

/// Where an integration is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the contract's")]
pub enum Environment {
    Development,
    Staging,
    Production,
}

impl Environment {
    /// All there are, by name.
    pub const NAMES: [(&'static str, Self); 3] =
        [("development", Self::Development), ("staging", Self::Staging), ("production", Self::Production)];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

/// One connection to a third party.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Integration {
    /// Number, never reused.
    pub id: IntegrationId,
    /// Name, 1 to 255 characters.
    pub name: String,
    /// The provider's family.
    #[serde(rename = "type")]
    pub kind: IntegrationType,
    /// The scheme it speaks: a name of the provider registry.
    pub provider: String,
    /// Free text.
    pub description: Option<String>,
    /// Where it is used.
    pub environment: Environment,
    /// Whether it works.
    pub status: IntegrationStatus,
    /// Provider settings that are no secret.
    pub configuration: Map<String, Value>,
    /// The credentials, a JSON object, sealed.
    pub credentials: Option<Sealed>,
    /// When it was made and changed.
    #[serde(flatten)]
    pub meta: Meta,
}

/// One secret of an endpoint; several are active during a rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSecret {
    /// The secret, sealed for its integration.
    pub sealed: Sealed,
    /// A short hash that tells secrets apart without showing them.
    pub fingerprint: String,
    /// After this it no longer verifies, milliseconds since 1970; `None` while current.
    pub expires_at_ms: Option<u64>,
}

/// A public path of an integration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Number, never reused.
    pub id: EndpointId,
    /// The integration that its events belong to.
    pub integration_id: IntegrationId,
    /// Name, 1 to 255 characters.
    pub name: String,
    /// Free text, up to 1,000 characters.
    pub description: Option<String>,
    /// Path below `/webhooks/receive`, with a leading slash, unique.
    pub path: String,
    /// An inactive path answers as an unknown one.
    pub active: bool,
    /// `false` accepts unsigned requests: an explicit, visible choice.
    pub verify_signature: bool,
    /// The header that carries the signature, where the provider lets one choose.
    pub signature_header: Option<String>,
    /// The provider's verification settings for this path.
    pub verification: Map<String, Value>,
    /// Active secrets, the current one first.
    pub secrets: Vec<EndpointSecret>,
    /// The largest body accepted here, bytes; `None` takes the server's.
    pub body_bytes_max: Option<u32>,
    /// An event whose provider's id was seen within so long is a duplicate, seconds; 0: none is, `None`: as long as
    /// its provider retries.
    #[serde(default)]
    pub dedup_window_s: Option<u64>,
    /// Webhooks that are accepted here; further ones are answered 429. `None`: no limit.
    #[serde(default)]
    pub rate_limit: Option<Rate>,
    /// When it was made and changed.
    #[serde(flatten)]
    pub meta: Meta,
}

/// Whether a destination takes deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DestinationStatus {
    /// Takes deliveries.
    Active,
    /// Rests until an operator sets it active; its backlog waits in the log.
    Paused,
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// Number, never reused.
    pub id: DestinationId,
    /// Name, 1 to 255 characters.
    pub name: String,
    /// A name of the destination registry: `http`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it takes deliveries.
    pub status: DestinationStatus,
    /// Why it is paused, where hookmill did it.
    pub status_reason: Option<String>,
    /// The kind's settings; for `http`: `url` and timeouts.
    pub settings: Map<String, Value>,
    /// The key its deliveries are signed with (`whsec_...`), sealed.
    pub signing_secret: Sealed,
    /// A short hash of it.
    pub signing_fingerprint: String,
    /// What its kind needs to sign in there, a JSON object, sealed.
    #[serde(default)]
    pub credentials: Option<Sealed>,
    /// What it is asked to bear, over all its subscriptions.
    #[serde(default)]
    pub limits: DestinationLimits,
    /// When it was made and changed.
    #[serde(flatten)]
    pub meta: Meta,
}

/// Which events of an integration go to a destination, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    /// Number, never reused.
    pub id: SubscriptionId,
    /// Whose events.
    pub integration_id: IntegrationId,
    /// Where to.
    pub destination_id: DestinationId,
    /// Name, 1 to 255 characters.
    pub name: String,
    /// An inactive subscription reads nothing; its backlog waits in the log.
    pub active: bool,
    /// Deliveries under way at once, 1 to `IN_FLIGHT_MAX`.
    pub in_flight_max: u16,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Events up to this one are not its: set at creation, durable.
    pub start_after: EventId,
    /// Which of them.
    #[serde(default)]
    pub selection: Selection,
    /// What is sent of them.
    #[serde(default)]
    pub transform: Transform,
    /// Headers to add to each delivery: names, and templates of their values.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// In which order.
    #[serde(default)]
    pub order: Order,
    /// Attempts a second of this subscription alone; `None`: only its destination's limit.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// What was accepted longer ago than this is not worth delivering and becomes a dead letter, seconds.
    #[serde(default)]
    pub expires_after_s: Option<u64>,
    /// When it was made and changed.
    #[serde(flatten)]
    pub meta: Meta,
}

/// Any resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "resource", rename_all = "snake_case")]
pub enum Resource {
    /// See [`Integration`].
    Integration(Integration),
    /// See [`Endpoint`].
    Endpoint(Endpoint),
    /// See [`Destination`].
    Destination(Destination),
    /// See [`Subscription`].
    Subscription(Subscription),
}

/// Which resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
#[expect(missing_docs, reason = "named after what they identify")]
pub enum ResourceKey {
    Integration(IntegrationId),
    Endpoint(EndpointId),
    Destination(DestinationId),
    Subscription(SubscriptionId),
}

impl std::fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integration(id) => write!(f, "integration {id}"),
            Self::Endpoint(id) => write!(f, "webhook endpoint {id}"),
            Self::Destination(id) => write!(f, "destination {id}"),
            Self::Subscription(id) => write!(f, "subscription {id}"),
        }
    }
}

impl Resource {
    /// Its key.
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Integration(it) => ResourceKey::Integration(it.id),
            Self::Endpoint(it) => ResourceKey::Endpoint(it.id),
            Self::Destination(it) => ResourceKey::Destination(it.id),
            Self::Subscription(it) => ResourceKey::Subscription(it.id),
        }
    }

    /// When it was made and changed.
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Integration(it) => &it.meta,
            Self::Endpoint(it) => &it.meta,
            Self::Destination(it) => &it.meta,
            Self::Subscription(it) => &it.meta,
        }
    }

    /// For the configuration actor, which stamps every change.
    pub(crate) fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Self::Integration(it) => &mut it.meta,
            Self::Endpoint(it) => &mut it.meta,
            Self::Destination(it) => &mut it.meta,
            Self::Subscription(it) => &mut it.meta,
        }
    }
}

/// One change of one resource: `resource` is what stands afterwards, `None` when it was deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The configuration version that the change made.
    pub version: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Who: a token's name, or a part of hookmill.
    pub author: String,
    /// What the author says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What was changed.
    pub key: ResourceKey,
    /// What stands afterwards.
    pub resource: Option<Resource>,
    /// A deleted integration or endpoint that may come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

/// What is kept of a deleted integration or endpoint, so that nobody takes its place before it is gone for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The configuration version that deleted it.
    pub version: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Whose it was, of an endpoint.
    pub integration: Option<IntegrationId>,
    /// Its path, of an endpoint: reserved.
    pub path: Option<String>,
}

/// A map whose copies share what they have in common: a copy costs a pointer, a change of it a step for each doubling of
/// the entries.
pub type SharedMap<K, V> = rpds::RedBlackTreeMapSync<K, V>;

/// All that is configured at one version. Versions share what did not change between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    /// The version of the last change.
    pub version: u64,
    /// By id.
    pub integrations: SharedMap<IntegrationId, Arc<Integration>>,
    /// By id.
    pub endpoints: SharedMap<EndpointId, Arc<Endpoint>>,
    /// By id.
    pub destinations: SharedMap<DestinationId, Arc<Destination>>,
    /// By id.
    pub subscriptions: SharedMap<SubscriptionId, Arc<Subscription>>,
    /// What is deleted and may come back; integrations and endpoints only.
    pub deleted: SharedMap<ResourceKey, Arc<Kept>>,
    /// The highest id ever given, by kind: integrations, endpoints, destinations, subscriptions.
    pub last_ids: [u32; 4],
}

impl Configuration {
    /// The resource of that key.
    pub fn get(&self, key: ResourceKey) -> Option<Resource> {
        match key {
            ResourceKey::Integration(id) => owned(self.integrations.get(&id)).map(Resource::Integration),
            ResourceKey::Endpoint(id) => owned(self.endpoints.get(&id)).map(Resource::Endpoint),
            ResourceKey::Destination(id) => owned(self.destinations.get(&id)).map(Resource::Destination),
            ResourceKey::Subscription(id) => owned(self.subscriptions.get(&id)).map(Resource::Subscription),
        }
    }

    /// The configuration version that a resource stands at.
    pub fn version_of(&self, key: ResourceKey) -> Option<u64> {
        let meta = match key {
            ResourceKey::Integration(id) => self.integrations.get(&id).map(|it| it.meta),
            ResourceKey::Endpoint(id) => self.endpoints.get(&id).map(|it| it.meta),
            ResourceKey::Destination(id) => self.destinations.get(&id).map(|it| it.meta),
            ResourceKey::Subscription(id) => self.subscriptions.get(&id).map(|it| it.meta),
        };
        meta.map(|meta| meta.version)
    }

    /// Takes a change in, without checks: what was stored is replayed with this too.
    pub fn apply(&mut self, change: &Change) {
        self.version = self.version.max(change.version);
        let (slot, id) = match change.key {
            ResourceKey::Integration(id) => (0, id.0),
            ResourceKey::Endpoint(id) => (1, id.0),
            ResourceKey::Destination(id) => (2, id.0),
            ResourceKey::Subscription(id) => (3, id.0),
        };
        self.last_ids[slot] = self.last_ids[slot].max(id);
        match change.kept.as_ref().filter(|_| change.resource.is_none()) {
            Some(kept) => self.deleted.insert_mut(change.key, Arc::new(kept.clone())),
            None => drop(self.deleted.remove_mut(&change.key)),
        }
        match &change.resource {
            Some(Resource::Integration(it)) => self.integrations.insert_mut(it.id, Arc::new(it.clone())),
            Some(Resource::Endpoint(it)) => self.endpoints.insert_mut(it.id, Arc::new(it.clone())),
            Some(Resource::Destination(it)) => self.destinations.insert_mut(it.id, Arc::new(it.clone())),
            Some(Resource::Subscription(it)) => self.subscriptions.insert_mut(it.id, Arc::new(it.clone())),
            None => match change.key {
                ResourceKey::Integration(id) => drop(self.integrations.remove_mut(&id)),
                ResourceKey::Endpoint(id) => drop(self.endpoints.remove_mut(&id)),
                ResourceKey::Destination(id) => drop(self.destinations.remove_mut(&id)),
                ResourceKey::Subscription(id) => drop(self.subscriptions.remove_mut(&id)),
            },
        }
    }
}

fn owned<T: Clone>(shared: Option<&Arc<T>>) -> Option<T> {
    shared.map(|it| T::clone(it))
}
