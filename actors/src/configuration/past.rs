//! An integration as it stood at one of its versions.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    domain::{
        config::{Change, Destination, Endpoint, Integration, Resource, ResourceKey, Subscription},
        ids::{DestinationId, IntegrationId},
        version::Version,
    },
    ports::config_store::{ConfigStore, ConfigStoreError},
};

/// What a version consists of, credentials sealed as they were; each list by id.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// What is told of the version.
    pub version: Version,
    /// `None` where the version is its deletion; nothing else is there then.
    pub integration: Option<Integration>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// The destinations that its subscriptions deliver to.
    pub destinations: Vec<Destination>,
    /// Its subscriptions.
    pub subscriptions: Vec<Subscription>,
}

impl Past {
    /// Reads a version; `None` where the integration has none of that number. Reads as many resources as an integration
    /// may have, at most.
    pub async fn read(
        store: &Arc<dyn ConfigStore>,
        integration: IntegrationId,
        number: u64,
    ) -> Result<Option<Self>, ConfigStoreError> {
        let newest = store.versions(integration, number.checked_add(1), 1).await?;
        let Some(version) = newest.into_iter().find(|version| version.number == number) else { return Ok(None) };
        let parts = store.parts(integration, number).await?.unwrap_or_default();
        let mut past = Self {
            version,
            integration: None,
            endpoints: Vec::new(),
            destinations: Vec::new(),
            subscriptions: Vec::new(),
        };
        past.take(store.as_of(parts).await?);
        let named: BTreeSet<DestinationId> = past.subscriptions.iter().map(|it| it.destination_id).collect();
        let named = named.into_iter().map(|id| (ResourceKey::Destination(id), number));
        past.take(store.as_of(named.collect()).await?);
        Ok(Some(past))
    }

    fn take(&mut self, changes: Vec<Option<Change>>) {
        for resource in changes.into_iter().flatten().filter_map(|change| change.resource) {
            match resource {
                Resource::Integration(it) => self.integration = Some(it),
                Resource::Endpoint(it) => self.endpoints.push(it),
                Resource::Destination(it) => self.destinations.push(it),
                Resource::Subscription(it) => self.subscriptions.push(it),
            }
        }
    }
}
