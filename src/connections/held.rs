//! Changes that take force only once their connection test has passed: each integration has at most one, kept with its
//! standing. The next change of the integration, by whomever, cancels it; a failed test leaves it where it can be seen,
//! and the old configuration in force.

use std::{net::IpAddr, sync::Arc};

use hookmill_actors::{
    activity,
    configuration::{ConfigError, ConfigHandle, Write},
    domain::{
        activity::{Activity, ActivityResult, Author},
        config::{Integration, Resource, ResourceKey},
        ids::IntegrationId,
        version::Origin,
    },
    ports::{
        config_store::ConfigStore,
        sealer::{Owner, SealedPart},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::{Connections, Outcome, Shared, Test, UnderWay, record_activity};

/// A change that waits for its test, or whose test failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The version that it changes.
    pub base_version: u64,
    /// What shall stand.
    pub integration: Integration,
    /// Who wants it.
    pub author: String,
    /// From which address.
    pub source: Option<IpAddr>,
    /// What the author says of it.
    pub comment: Option<String>,
    /// Since when, milliseconds since 1970.
    pub at_ms: u64,
    /// Why it is not in force: its test, once that has failed.
    pub failed: Option<Test>,
}

impl Held {
    /// The credentials that it shall have.
    pub(super) fn sealed_part(&mut self) -> Option<SealedPart<'_>> {
        let owner = Owner::Credentials(self.integration.id);
        self.integration.credentials.as_mut().map(|sealed| SealedPart { owner, sealed, fingerprint: None })
    }
}

impl Connections {
    /// Seals again, in memory, what another key than the one that seals now has sealed. The store is a rotation's to go
    /// over; what is written from memory later is sealed with the new key, too.
    pub fn reseal(&self) {
        for entry in self.0.entries().values_mut() {
            entry.record.reseal(&*self.0.ports.sealer);
        }
    }

    /// The change that waits for its test, or whose test failed; none that was cancelled.
    pub fn held(&self, integration: &Integration) -> Option<Held> {
        let entries = self.0.entries();
        let held = entries.get(&integration.id)?.record.held.as_ref()?;
        (held.base_version == integration.meta.version).then(|| Held::clone(held))
    }

    /// Keeps a change of `current` until its test has passed; replaces one that was kept before. Durable when it returns.
    pub async fn hold(&self, origin: Origin, current: &Integration, wanted: Integration) -> Result<(), String> {
        self.0.note(&Arc::new(current.clone()));
        let held = Held {
            base_version: current.meta.version,
            integration: wanted,
            author: origin.author.name,
            source: origin.author.source.or_else(activity::source),
            comment: origin.comment,
            at_ms: self.0.ports.clock.now_ms(),
            failed: None,
        };
        self.0.keep_held(current.id, Some(held)).await
    }

    /// Tests what waits for it.
    pub(super) fn start_held(&self, config: &ConfigHandle, audit: &Arc<dyn ConfigStore>) {
        for id in self.0.waiting() {
            let Ok(place) = self.0.places.clone().try_acquire_owned() else { return };
            if !self.0.under_way().insert(id) {
                continue;
            }
            let (this, config, audit) = (self.clone(), config.clone(), audit.clone());
            tokio::spawn(async move { this.try_held(id, config, audit, place).await });
        }
    }

    async fn try_held(
        self,
        id: IntegrationId,
        config: ConfigHandle,
        audit: Arc<dyn ConfigStore>,
        _place: OwnedSemaphorePermit,
    ) {
        let _under_way = UnderWay(&self.0, id);
        let held = self.0.entries().get(&id).and_then(|entry| entry.record.held.clone());
        let Some(held) = held else { return };
        let (subject, test) = self.0.made(&held.integration).await;
        // Another change may have taken its place, or cancelled it.
        if self.0.entries().get(&id).is_none_or(|entry| entry.record.held.as_ref() != Some(&held)) {
            return;
        }
        let mut entry = told(&held, id, &test);
        let left = if test.outcome == Outcome::Failed {
            Some(Held { failed: Some(test), ..*held })
        } else {
            match put_in_force(&config, &held).await {
                Ok(()) => {
                    self.0.put_in_force(id, subject, test);
                    None
                }
                // Somebody was faster: that cancels it.
                Err(ConfigError::Conflict { .. } | ConfigError::NotFound(_)) => return,
                Err(error) => {
                    let reason = format!("its test passed, but it could not be stored: {error}");
                    entry.result = ActivityResult::Failed;
                    entry.detail = json!({"reason": reason}).to_string();
                    Some(Held { failed: Some(Test { outcome: Outcome::Failed, reason, ..test }), ..*held })
                }
            }
        };
        if let Err(error) = self.0.keep_held(id, left).await {
            tracing::error!(integration = id.0, error, "what became of a held change could not be stored");
        }
        record_activity(&*audit, entry).await;
    }
}

async fn put_in_force(config: &ConfigHandle, held: &Held) -> Result<(), ConfigError> {
    let write = Write {
        key: ResourceKey::Integration(held.integration.id),
        expected_version: Some(held.base_version),
        resource: Some(Resource::Integration(held.integration.clone())),
    };
    let author = Author { name: held.author.clone(), source: held.source };
    let origin = Origin { author, comment: held.comment.clone() };
    let write = config.write_as(origin, vec![write]);
    // As the request that asked for it would have written it.
    let written = match held.source {
        Some(source) => activity::from_source(source, write).await,
        None => write.await,
    };
    written.map(drop)
}

fn told(held: &Held, id: IntegrationId, test: &Test) -> Activity {
    let (action, result) = match test.outcome {
        Outcome::Failed => ("integration.activation_failed", ActivityResult::Failed),
        Outcome::Passed | Outcome::NothingToTest => ("integration.activated", ActivityResult::Ok),
    };
    Activity {
        at_ms: test.at_ms,
        actor: held.author.clone(),
        source: held.source,
        action: action.to_owned(),
        subject: ResourceKey::Integration(id).to_string(),
        integration: Some(id),
        result,
        detail: json!({"outcome": test.outcome, "reason": test.reason}).to_string(),
    }
}

impl Shared {
    /// Those whose change has not been tested.
    fn waiting(&self) -> Vec<IntegrationId> {
        let waits = |entry: &super::Entry| entry.record.held.as_ref().is_some_and(|held| held.failed.is_none());
        self.entries().iter().filter(|(_, entry)| waits(entry)).map(|(id, _)| *id).collect()
    }

    /// Its test counts as the integration's own.
    fn put_in_force(&self, id: IntegrationId, subject: String, test: Test) {
        if let Some(entry) = self.entries().get_mut(&id) {
            entry.record.standing.changed(subject, test.at_ms);
            entry.record.standing.tested(test, &self.options.cadence, fastrand::f64());
        }
    }

    async fn keep_held(self: &Arc<Self>, id: IntegrationId, held: Option<Held>) -> Result<(), String> {
        {
            let mut entries = self.entries();
            let Some(entry) = entries.get_mut(&id) else { return Ok(()) };
            // One that was asked for meanwhile stays.
            let newer = entry.record.held.as_ref().map(|held| held.at_ms);
            if held.as_ref().zip(newer).is_some_and(|(held, newer)| held.at_ms < newer) {
                return Ok(());
            }
            entry.record.held = held.map(Box::new);
        }
        self.keep(id).await
    }

    /// What another change has cancelled goes. Blocks for the disk.
    pub(super) fn cancel_held(&self, integration: &Integration) {
        let record = {
            let mut entries = self.entries();
            let Some(entry) = entries.get_mut(&integration.id) else { return };
            if entry.record.held.as_ref().is_none_or(|held| held.base_version == integration.meta.version) {
                return;
            }
            entry.record.held = None;
            entry.record.clone()
        };
        if let Err(error) = self.put(integration.id, &record) {
            tracing::error!(integration = integration.id.0, error, "a cancelled change could not be removed");
        }
    }
}
