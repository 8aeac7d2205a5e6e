//! The configuration with who belongs to whom in it, so that a change looks at what it concerns and at nothing else.
//! Pure. A copy shares all of it.

use std::collections::BTreeSet;

use rpds::{HashTrieMapSync, RedBlackTreeSetSync};

use crate::{
    domain::{
        config::{Change, Configuration, Endpoint, Kept, Resource, ResourceKey, Subscription},
        ids::{DestinationId, EndpointId, IntegrationId, SubscriptionId},
    },
    snapshot::Touched,
};

/// A configuration and its relations, which agree with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Linked {
    configuration: Configuration,
    paths: HashTrieMapSync<Box<str>, EndpointId>,
    endpoints: RedBlackTreeSetSync<(IntegrationId, EndpointId)>,
    subscriptions: RedBlackTreeSetSync<(IntegrationId, SubscriptionId)>,
    users: RedBlackTreeSetSync<(DestinationId, SubscriptionId)>,
    /// Paths of deleted endpoints that may come back.
    reserved: HashTrieMapSync<Box<str>, EndpointId>,
    /// What is deleted and may come back, by when it was deleted, milliseconds since 1970.
    deleted: RedBlackTreeSetSync<(u64, ResourceKey)>,
}

impl Linked {
    pub(super) fn new(configuration: Configuration) -> Self {
        let mut linked = Self::default();
        for endpoint in configuration.endpoints.values() {
            linked.link_endpoint(endpoint);
        }
        for subscription in configuration.subscriptions.values() {
            linked.link_subscription(subscription);
        }
        for (key, kept) in &configuration.deleted {
            linked.keep(*key, kept);
        }
        Self { configuration, ..linked }
    }

    pub(super) fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Takes a change in, as [`Configuration::apply`] does.
    pub(super) fn apply(&mut self, change: &Change) {
        if let Some(kept) = self.configuration.deleted.get(&change.key) {
            self.deleted.remove_mut(&(kept.at_ms, change.key));
            if let (Some(path), ResourceKey::Endpoint(id)) = (&kept.path, change.key)
                && self.reserved.get(path.as_str()) == Some(&id)
            {
                self.reserved.remove_mut(path.as_str());
            }
        }
        match change.key {
            ResourceKey::Endpoint(id) => {
                if let Some(former) = self.configuration.endpoints.get(&id).cloned() {
                    self.unlink_endpoint(&former);
                }
            }
            ResourceKey::Subscription(id) => {
                if let Some(former) = self.configuration.subscriptions.get(&id).cloned() {
                    self.subscriptions.remove_mut(&(former.integration_id, id));
                    self.users.remove_mut(&(former.destination_id, id));
                }
            }
            ResourceKey::Integration(_) | ResourceKey::Destination(_) => {}
        }
        match &change.resource {
            Some(Resource::Endpoint(endpoint)) => self.link_endpoint(endpoint),
            Some(Resource::Subscription(subscription)) => self.link_subscription(subscription),
            Some(Resource::Integration(_) | Resource::Destination(_)) | None => {}
        }
        self.configuration.apply(change);
        if let Some(kept) = self.configuration.deleted.get(&change.key).cloned() {
            self.keep(change.key, &kept);
        }
    }

    fn keep(&mut self, key: ResourceKey, kept: &Kept) {
        self.deleted.insert_mut((kept.at_ms, key));
        if let (Some(path), ResourceKey::Endpoint(id)) = (&kept.path, key) {
            self.reserved.insert_mut(path.as_str().into(), id);
        }
    }

    /// The deleted endpoint that a path is reserved for.
    pub(super) fn reserved_for(&self, path: &str) -> Option<EndpointId> {
        self.reserved.get(path).copied()
    }

    /// What is deleted and may come back, and when it was deleted, milliseconds since 1970; what is longest deleted first.
    pub(super) fn deleted(&self) -> impl Iterator<Item = (u64, ResourceKey)> {
        self.deleted.iter().copied()
    }

    /// Leaves an endpoint without its path until it is written next.
    pub(super) fn vacate(&mut self, endpoint: EndpointId) {
        if let Some(endpoint) = self.configuration.endpoints.get(&endpoint).cloned()
            && self.endpoint_at(&endpoint.path) == Some(endpoint.id)
        {
            self.paths.remove_mut(endpoint.path.as_str());
        }
    }

    /// Whose path it is.
    pub(super) fn endpoint_at(&self, path: &str) -> Option<EndpointId> {
        self.paths.get(path).copied()
    }

    pub(super) fn endpoints_of(&self, integration: IntegrationId) -> impl Iterator<Item = EndpointId> {
        let all = (integration, EndpointId(0))..=(integration, EndpointId(u32::MAX));
        self.endpoints.range(all).map(|(_, endpoint)| *endpoint)
    }

    pub(super) fn subscriptions_of(&self, integration: IntegrationId) -> impl Iterator<Item = SubscriptionId> {
        let all = (integration, SubscriptionId(0))..=(integration, SubscriptionId(u32::MAX));
        self.subscriptions.range(all).map(|(_, subscription)| *subscription)
    }

    /// The destinations that an integration's subscriptions deliver to.
    pub(super) fn destinations_of(&self, integration: IntegrationId) -> BTreeSet<DestinationId> {
        let subscriptions = self.subscriptions_of(integration);
        subscriptions.filter_map(|id| self.configuration.subscriptions.get(&id)).map(|it| it.destination_id).collect()
    }

    /// Whether any of an integration's subscriptions delivers to a destination.
    pub(super) fn delivers_to(&self, integration: IntegrationId, destination: DestinationId) -> bool {
        let subscriptions = self.subscriptions_of(integration);
        let mut subscriptions = subscriptions.filter_map(|id| self.configuration.subscriptions.get(&id));
        subscriptions.any(|it| it.destination_id == destination)
    }

    /// The subscriptions that deliver to a destination.
    pub(super) fn users_of(&self, destination: DestinationId) -> impl Iterator<Item = SubscriptionId> {
        let all = (destination, SubscriptionId(0))..=(destination, SubscriptionId(u32::MAX));
        self.users.range(all).map(|(_, subscription)| *subscription)
    }

    /// The integration that a resource belongs to; of a destination: the one that uses it, where it is one.
    pub(super) fn owner_of(&self, key: ResourceKey) -> Option<IntegrationId> {
        let of = |id: &SubscriptionId| self.configuration.subscriptions.get(id).map(|it| it.integration_id);
        match key {
            ResourceKey::Integration(id) => Some(id),
            ResourceKey::Endpoint(id) => self.configuration.endpoints.get(&id).map(|it| it.integration_id),
            ResourceKey::Subscription(id) => of(&id),
            ResourceKey::Destination(id) => {
                let first = self.users_of(id).next().as_ref().and_then(of);
                first.filter(|first| self.users_of(id).all(|user| of(&user) == Some(*first)))
            }
        }
    }

    /// What is otherwise than in `before`, which these changes were made to.
    pub(super) fn touched(&self, before: &Self, changes: &[Change]) -> Touched {
        let mut touched = Touched::default();
        for change in changes {
            match change.key {
                ResourceKey::Integration(id) => {
                    touched.integrations.insert(id);
                    touched.endpoints.extend(self.endpoints_of(id));
                    touched.subscriptions.extend(self.subscriptions_of(id));
                }
                ResourceKey::Endpoint(id) => drop(touched.endpoints.insert(id)),
                ResourceKey::Destination(id) => touched.subscriptions.extend(self.users_of(id)),
                ResourceKey::Subscription(id) => drop(touched.subscriptions.insert(id)),
            }
        }
        // A resource may have moved from one integration to another.
        for configuration in [&before.configuration, &self.configuration] {
            touched.integrations.extend(owners(configuration, &touched.endpoints, &touched.subscriptions));
        }
        touched
    }

    fn link_endpoint(&mut self, endpoint: &Endpoint) {
        self.paths.insert_mut(endpoint.path.as_str().into(), endpoint.id);
        self.endpoints.insert_mut((endpoint.integration_id, endpoint.id));
    }

    fn unlink_endpoint(&mut self, endpoint: &Endpoint) {
        if self.endpoint_at(&endpoint.path) == Some(endpoint.id) {
            self.paths.remove_mut(endpoint.path.as_str());
        }
        self.endpoints.remove_mut(&(endpoint.integration_id, endpoint.id));
    }

    fn link_subscription(&mut self, subscription: &Subscription) {
        self.subscriptions.insert_mut((subscription.integration_id, subscription.id));
        self.users.insert_mut((subscription.destination_id, subscription.id));
    }
}

/// The integrations that these belong to, where they exist.
fn owners(
    configuration: &Configuration,
    endpoints: &BTreeSet<EndpointId>,
    subscriptions: &BTreeSet<SubscriptionId>,
) -> Vec<IntegrationId> {
    let endpoints = endpoints.iter().filter_map(|id| configuration.endpoints.get(id)).map(|it| it.integration_id);
    let subscriptions =
        subscriptions.iter().filter_map(|id| configuration.subscriptions.get(id)).map(|it| it.integration_id);
    endpoints.chain(subscriptions).collect()
}
