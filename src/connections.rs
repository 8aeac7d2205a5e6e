//! Connection tests: whether the third party that an integration belongs to answers, asked when an integration is made
//! or changed, every few hours, and more often while it fails. What they find is information. It never keeps a webhook
//! from being accepted or delivered, and it is no part of the configuration: a test makes no version.
//!
//! In: the published configuration, looked at four times a second, so that whoever changes it is heard; `POST .../test`.
//! Out: one `GET` at a time to each third party, through [`Ask`]; the audit log. Owns: each integration's [`Standing`],
//! in memory and in [`Records`]. A crash costs the tests under way, which are made again.

mod adapter;
mod held;
mod kept;
mod standing;
mod tester;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use hookmill_actors::{
    activity,
    configuration::ConfigHandle,
    domain::{
        activity::{Activity, ActivityResult},
        config::{Configuration, Integration, IntegrationStatus, IntegrationType, ResourceKey},
        ids::IntegrationId,
        secret::Secret,
    },
    ports::{
        clock::Clock,
        config_store::ConfigStore,
        sealer::{Owner, Sealer},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use utoipa::ToSchema;

use self::adapter::{Plan, plan};
pub use self::{
    adapter::{Request, SignIn},
    held::Held,
    kept::{KeptRecords, edit_held},
    standing::{Cadence, Health, Outcome, Standing, Test},
    tester::Tester,
};
use crate::destinations::status_words;

/// Tests that operators run at once: each holds a request for as long as a peer likes.
const OPERATOR_TESTS_MAX: usize = 8;
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What is due is looked for once in so many ticks, and after a change: it costs a pass over all integrations.
const DUE_EVERY_TICKS: u32 = 4;
/// Bytes of a reason that are kept.
const REASON_BYTES_MAX: usize = 300;

/// What an operator may turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// When tests are made.
    pub cadence: Cadence,
    /// Tests under way at once, beside those that operators run.
    pub concurrent_max: usize,
    /// One test at most.
    pub timeout: Duration,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self { cadence: Cadence::default(), concurrent_max: 64, timeout: Duration::from_secs(10) }
    }
}

/// Asks a third party.
#[async_trait]
pub trait Ask: Send + Sync {
    /// The status that came; else why none did, in words that hold no secret.
    async fn ask(&self, request: &Request, timeout: Duration) -> Result<u16, String>;
}

/// Where standings are kept. All of it blocks for the disk.
pub trait Records: Send + Sync {
    /// All that is kept.
    fn all(&self) -> Result<Vec<(IntegrationId, Vec<u8>)>, String>;
    /// Keeps; durable when it returns. The record is made while nobody else writes, so that a rotation of keys sees what
    /// is sealed in it, or is over.
    fn put(&self, id: IntegrationId, record: &dyn Fn() -> Vec<u8>) -> Result<(), String>;
    /// Forgets.
    fn remove(&self, id: IntegrationId) -> Result<(), String>;
}

/// What connection tests need of the outside.
#[derive(Clone)]
pub struct ConnectionPorts {
    /// Asks third parties.
    pub ask: Arc<dyn Ask>,
    /// Keeps standings.
    pub records: Arc<dyn Records>,
    /// Opens credentials.
    pub sealer: Arc<dyn Sealer>,
    /// A short keyed hash that tells secrets apart without showing them.
    pub fingerprint: Arc<dyn Fn(&Secret) -> String + Send + Sync>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
}

/// The connection tests. Clones share them.
#[derive(Clone)]
pub struct Connections(Arc<Shared>);

struct Shared {
    options: ConnectionOptions,
    ports: ConnectionPorts,
    entries: Mutex<HashMap<IntegrationId, Entry>>,
    under_way: Mutex<HashSet<IntegrationId>>,
    /// Made since the start, by type and outcome.
    made: Mutex<BTreeMap<(&'static str, Outcome), u64>>,
    places: Arc<Semaphore>,
    operators: Arc<Semaphore>,
}

/// An integration, as far as its tests go.
#[derive(Default)]
struct Entry {
    /// As it was last looked at.
    seen: Option<Arc<Integration>>,
    record: Record,
}

/// What is kept of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    standing: Standing,
    #[serde(default)]
    held: Option<Box<Held>>,
}

impl Record {
    /// Seals again what another key than the one that seals now has sealed. What does not open stays as it is: its test
    /// tells of it.
    fn reseal(&mut self, sealer: &dyn Sealer) {
        if let Some(mut part) = self.held.as_mut().and_then(|held| held.sealed_part()) {
            let _ = part.renew(sealer);
        }
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts, numbers and JSON")
    }
}

/// How many tests of a type ended so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TestCount {
    /// The integrations' type.
    pub r#type: &'static str,
    /// `passed`, `failed`, `nothing_to_test`.
    pub status: &'static str,
    /// Since the start.
    pub count: u64,
}

/// Too many operators test at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{OPERATOR_TESTS_MAX} connection tests are under way; try again shortly")]
pub struct Busy;

impl Connections {
    /// With what was kept. Blocks for the disk.
    pub fn load(options: ConnectionOptions, ports: ConnectionPorts) -> Result<Self, String> {
        let mut entries = HashMap::new();
        for (id, record) in ports.records.all()? {
            // A record that cannot be read is as good as none: the integration is tested again.
            let record = serde_json::from_slice(&record).unwrap_or_else(|error| {
                tracing::warn!(integration = id.0, %error, "what was kept of a connection test cannot be read");
                Record::default()
            });
            entries.insert(id, Entry { seen: None, record });
        }
        Ok(Self(Arc::new(Shared {
            places: Arc::new(Semaphore::new(options.concurrent_max)),
            operators: Arc::new(Semaphore::new(OPERATOR_TESTS_MAX)),
            options,
            ports,
            entries: Mutex::new(entries),
            under_way: Mutex::default(),
            made: Mutex::default(),
        })))
    }

    /// Where an integration stands.
    pub fn standing(&self, id: IntegrationId) -> Standing {
        self.0.entries().get(&id).map(|entry| entry.record.standing.clone()).unwrap_or_default()
    }

    /// An integration's status: what its operator and its actor say first, then what its tests say.
    pub fn status(&self, integration: &Integration) -> IntegrationStatus {
        if matches!(integration.status, IntegrationStatus::Inactive | IntegrationStatus::Failed) {
            return integration.status;
        }
        let entries = self.0.entries();
        let entry = entries.get(&integration.id);
        match entry.map_or(Health::Pending, |entry| entry.record.standing.health) {
            Health::Pending => integration.status,
            Health::Active => IntegrationStatus::Active,
            // Set active a moment ago, and not yet looked at since.
            Health::Failed
                if integration.status == IntegrationStatus::Active
                    && entry.is_some_and(|entry| entry.is_behind(integration)) =>
            {
                IntegrationStatus::Active
            }
            Health::Failed => IntegrationStatus::Failed,
        }
    }

    /// Tests made since the start.
    pub fn counts(&self) -> Vec<TestCount> {
        let made = self.0.made.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |((kind, outcome), count): (&(&'static str, Outcome), &u64)| TestCount {
            r#type: kind,
            status: outcome.name(),
            count: *count,
        };
        made.iter().map(count).collect()
    }

    /// Tests an integration now, as it is configured.
    pub async fn test(&self, integration: &Integration) -> Result<Test, Busy> {
        let _place = self.0.operators.clone().try_acquire_owned().map_err(|_| Busy)?;
        // It may have been made or changed since the last look.
        self.0.note(&Arc::new(integration.clone()));
        let (subject, test) = self.0.made(integration).await;
        self.0.take_in(integration, &subject, &test).await;
        Ok(test)
    }

    /// Makes the tests that are due, until the future is dropped. `audit` hears of changed outcomes.
    pub async fn run(self, config: ConfigHandle, audit: Arc<dyn ConfigStore>) {
        let mut version = None;
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for tick in (0..DUE_EVERY_TICKS).cycle() {
            ticks.tick().await;
            let snapshot = config.current();
            let configuration = snapshot.configuration.clone();
            let changed = version != Some(configuration.version);
            if changed {
                version = Some(configuration.version);
                let (this, configuration) = (self.clone(), configuration.clone());
                // Credentials are opened and records removed: not on the threads that answer.
                if tokio::task::spawn_blocking(move || this.0.look(&configuration)).await.is_err() {
                    tracing::error!("the look at the configuration for connection tests panicked");
                }
            }
            if changed || tick == 0 {
                self.start_held(&config, &audit);
                self.start_due(&configuration, &audit);
            }
        }
    }

    fn start_due(&self, configuration: &Configuration, audit: &Arc<dyn ConfigStore>) {
        for id in self.0.due(configuration) {
            let Ok(place) = self.0.places.clone().try_acquire_owned() else { return };
            let Some(integration) = configuration.integrations.get(&id).cloned() else { continue };
            if !self.0.under_way().insert(id) {
                continue;
            }
            let (this, audit) = (self.clone(), audit.clone());
            tokio::spawn(async move { this.test_beside(integration, audit, place).await });
        }
    }

    async fn test_beside(
        self,
        integration: Arc<Integration>,
        audit: Arc<dyn ConfigStore>,
        _place: OwnedSemaphorePermit,
    ) {
        let _under_way = UnderWay(&self.0, integration.id);
        self.test_by_itself(&integration, &*audit).await;
    }

    /// Makes a test that nobody waits for; `audit` hears of it where its outcome is another than before.
    async fn test_by_itself(&self, integration: &Arc<Integration>, audit: &dyn ConfigStore) -> Test {
        let work = async {
            let (subject, test) = self.0.made(integration).await;
            if self.0.take_in(integration, &subject, &test).await {
                record_activity(audit, tested("hookmill".to_owned(), integration.id, &test)).await;
            }
            test
        };
        if let Ok(test) = AssertUnwindSafe(work).catch_unwind().await {
            return test;
        }
        // It is due at once again; the next look must not find it so for ever.
        let at_ms = self.0.ports.clock.now_ms();
        let reason = "the test itself failed; hookmill's log has the cause".to_owned();
        let test = Test { at_ms, outcome: Outcome::Failed, reason, status: None, duration_ms: 0 };
        let subject = self.standing(integration.id).subject;
        self.0.take_in(integration, &subject, &test).await;
        test
    }
}

/// What the audit log says of a test.
pub fn tested(actor: String, id: IntegrationId, test: &Test) -> Activity {
    Activity {
        at_ms: test.at_ms,
        actor,
        source: activity::source(),
        action: "integration.tested".to_owned(),
        subject: ResourceKey::Integration(id).to_string(),
        integration: Some(id),
        result: if test.outcome == Outcome::Failed { ActivityResult::Failed } else { ActivityResult::Ok },
        detail: json!({"outcome": test.outcome, "reason": test.reason}).to_string(),
    }
}

async fn record_activity(audit: &dyn ConfigStore, activity: Activity) {
    if let Err(error) = audit.record_activity(vec![activity]).await {
        tracing::error!(%error, "an activity could not be stored");
    }
}

/// Frees the integration for its next test, however this one ended.
struct UnderWay<'a>(&'a Shared, IntegrationId);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way().remove(&self.1);
    }
}

impl Entry {
    fn is_behind(&self, integration: &Integration) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.meta.version < integration.meta.version)
    }
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, HashMap<IntegrationId, Entry>> {
        // Entries are replaced whole, so what panicked under it left nothing half done.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> MutexGuard<'_, HashSet<IntegrationId>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what changed since the last look.
    fn look(&self, configuration: &Configuration) {
        for integration in configuration.integrations.values() {
            self.note(integration);
            self.cancel_held(integration);
        }
        let gone: Vec<IntegrationId> =
            self.entries().keys().filter(|id| !configuration.integrations.contains_key(id)).copied().collect();
        for id in gone {
            self.entries().remove(&id);
            if let Err(error) = self.ports.records.remove(id) {
                tracing::warn!(integration = id.0, error, "what was kept of connection tests could not be removed");
            }
        }
    }

    fn note(&self, integration: &Arc<Integration>) {
        let seen = self.entries().get(&integration.id).and_then(|entry| entry.seen.clone());
        if seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, integration)) {
            return;
        }
        let (subject, now_ms) = (self.subject(integration), self.ports.clock.now_ms());
        let mut entries = self.entries();
        let entry = entries.entry(integration.id).or_default();
        if entry.record.standing.subject != subject {
            entry.record.standing.changed(subject, now_ms);
        }
        let was_off = seen.is_some_and(|seen| seen.status != IntegrationStatus::Active);
        if was_off && integration.status == IntegrationStatus::Active {
            entry.record.standing.set_active(now_ms);
        }
        entry.seen = Some(integration.clone());
    }

    /// Who is to be tested, those that wait longest first.
    fn due(&self, configuration: &Configuration) -> Vec<IntegrationId> {
        let now_ms = self.ports.clock.now_ms();
        let rests = |id: &IntegrationId| {
            let integration = configuration.integrations.get(id);
            integration.is_none_or(|integration| integration.status == IntegrationStatus::Inactive)
        };
        let entries = self.entries();
        let mut due: Vec<(u64, IntegrationId)> = entries
            .iter()
            .filter(|(id, entry)| entry.record.standing.is_due(now_ms, &self.options.cadence) && !rests(id))
            .map(|(id, entry)| (entry.record.standing.next_at_ms.unwrap_or(0), *id))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// Tells what is tested apart, without showing it.
    fn subject(&self, integration: &Integration) -> String {
        let credentials = self.credentials(integration).map_or_else(
            // What does not open is another thing to test than what does.
            String::into_bytes,
            |members| serde_json::to_vec(&members).unwrap_or_default(),
        );
        let configuration = serde_json::to_vec(&integration.configuration).unwrap_or_default();
        let length = u64::try_from(configuration.len()).unwrap_or(u64::MAX).to_be_bytes();
        let kind = type_name(integration.kind).as_bytes();
        (self.ports.fingerprint)(&Secret::new([kind, &length, &configuration, &credentials].concat()))
    }

    /// Opened; empty where there are none.
    fn credentials(&self, integration: &Integration) -> Result<Map<String, Value>, String> {
        let Some(sealed) = &integration.credentials else { return Ok(Map::new()) };
        let opened = self
            .ports
            .sealer
            .open(Owner::Credentials(integration.id), sealed)
            .map_err(|error| format!("the stored credentials cannot be opened: {error}"))?;
        serde_json::from_slice(opened.expose()).map_err(|_| "the stored credentials are no object".to_owned())
    }

    /// Makes a test of what is configured there, and says what was tested.
    async fn made(&self, integration: &Integration) -> (String, Test) {
        let subject = self.subject(integration);
        let planned = match self.credentials(integration) {
            Ok(credentials) => plan(integration, &credentials),
            Err(problem) => Plan::Fault(problem),
        };
        let began = Instant::now();
        let (outcome, status, mut reason) = match planned {
            Plan::Nothing(why) => (Outcome::NothingToTest, None, format!("nothing to test: {why}")),
            Plan::Fault(why) => (Outcome::Failed, None, why),
            Plan::Ask(request) => match self.ports.ask.ask(&request, self.options.timeout).await {
                Ok(status) if request.passes.contains(&status) => (Outcome::Passed, Some(status), status_words(status)),
                Ok(status) => (Outcome::Failed, Some(status), status_words(status)),
                Err(why) => (Outcome::Failed, None, why),
            },
        };
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        *self
            .made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((type_name(integration.kind), outcome))
            .or_default() += 1;
        (subject, Test { at_ms: self.ports.clock.now_ms(), outcome, reason, status, duration_ms })
    }

    /// Whether the outcome is another than before. What was changed meanwhile is tested again, and this forgotten.
    async fn take_in(self: &Arc<Self>, integration: &Integration, subject: &str, test: &Test) -> bool {
        let id = integration.id;
        let turned = {
            let mut entries = self.entries();
            let Some(entry) = entries.get_mut(&id) else { return false };
            if entry.record.standing.subject != subject {
                return false;
            }
            entry.record.standing.tested(test.clone(), &self.options.cadence, fastrand::f64())
        };
        if let Err(error) = self.keep(id).await {
            tracing::error!(integration = id.0, error, "a connection test could not be stored");
        }
        turned
    }

    /// Stores what is known of an integration; durable when it returns.
    async fn keep(self: &Arc<Self>, id: IntegrationId) -> Result<(), String> {
        let Some(record) = self.entries().get(&id).map(|entry| entry.record.clone()) else { return Ok(()) };
        let this = self.clone();
        let put = tokio::task::spawn_blocking(move || this.put(id, &record)).await;
        put.unwrap_or_else(|_| Err("hookmill stops".to_owned()))
    }

    fn put(&self, id: IntegrationId, record: &Record) -> Result<(), String> {
        self.ports.records.put(id, &|| {
            let mut record = record.clone();
            record.reseal(&*self.ports.sealer);
            record.to_json()
        })
    }
}

fn type_name(kind: IntegrationType) -> &'static str {
    match kind {
        IntegrationType::PaymentGateway => "payment_gateway",
        IntegrationType::SmsProvider => "sms_provider",
        IntegrationType::EmailProvider => "email_provider",
        IntegrationType::Analytics => "analytics",
        IntegrationType::Crm => "crm",
        IntegrationType::Monitoring => "monitoring",
        IntegrationType::Authentication => "authentication",
        IntegrationType::Storage => "storage",
        IntegrationType::Custom => "custom",
    }
}

#[cfg(test)]
mod tests;
