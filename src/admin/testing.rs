//! Ports for the tests of the admin API's parts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use hookmill_actors::{
    domain::{
        activity::{Activity, ActivityBounds, ActivityFilter, ActivityPage},
        config::{Change, Configuration, Destination, ResourceKey},
        delivery::{DeadLetter, Position},
        event::{Event, Identity},
        ids::{EventId, IntegrationId, ReplayId, SubscriptionId},
        replay::ReplayJob,
        secret::{Sealed, Secret},
        task::TaskRun,
        version::{NewVersion, Parts, Version},
    },
    ports::{
        clock::Clock,
        config_store::{ConfigStore, ConfigStoreError},
        event_log::LogError,
        provider::{InboundRequest, Provider, Providers, Refusal, SettingsError, SignedRequest, Verified, Verifier},
        sealer::{Owner, SealError, Sealer},
        state_store::{
            DedupKey, DeliveryState, Due, Forgotten, InLane, Mark, Note, NoteFilter, Remembered, StateCounts,
            StateStore,
        },
        transport::{AttemptReport, Consignment, Timings, Verdict},
    },
    testkit::test_clock::TestClock,
};
use serde_json::{Map, Value};

use super::{
    backup::{BackupAdmin, Chunks},
    idempotency::{Replies, ReplyPorts},
    keys::{KeyAdmin, KeysView},
    tools::{DestinationRules, Keys, SecretTools, Tools},
};
use crate::connections::{Ask, ConnectionOptions, ConnectionPorts, Connections, Records, Request};
use crate::{
    backup::{BackupError, Begun, EndMark, Part},
    keys::{Holdings, KeysError, Retired, Rotation, Tally},
    replies::{ReplyStore, StoredReply},
    secrets::{KeyId, RingChangeError, TokenHash},
    tokens::{TokenRegistry, memory::MemoryTokens},
};

pub(super) const TOKEN: &str = "hm_valid";

/// One token with every right, and a place for others.
pub(super) fn one_token() -> Arc<TokenRegistry> {
    tokens_with(6_000)
}

/// The same, with so many requests a minute.
pub(super) fn tokens_with(requests_per_minute: u32) -> Arc<TokenRegistry> {
    let (hash, store) = (TokenHash::of(TOKEN.as_bytes()), Arc::new(MemoryTokens::default()));
    let requests_per_minute = requests_per_minute.try_into().expect("it is not zero");
    let registry = TokenRegistry::open(hash, requests_per_minute, store, Arc::new(FixedClock(1_000)));
    Arc::new(registry.expect("it is in memory"))
}

pub(super) struct FixedClock(pub(super) u64);

impl Clock for FixedClock {
    fn now_ms(&self) -> u64 {
        self.0
    }
}

/// Keeps the audit log only.
#[derive(Default)]
pub(super) struct MemoryAudit(Mutex<Vec<Activity>>);

impl MemoryAudit {
    pub(super) fn entries(&self) -> Vec<Activity> {
        self.0.lock().expect("nobody panicked").clone()
    }
}

#[async_trait]
impl ConfigStore for MemoryAudit {
    async fn load(&self) -> Result<Configuration, ConfigStoreError> {
        Ok(Configuration::default())
    }

    async fn commit(&self, _changes: Vec<Change>, _versions: Vec<NewVersion>) -> Result<(), ConfigStoreError> {
        Ok(())
    }

    async fn history(&self, _key: ResourceKey, _limit: usize) -> Result<Vec<Change>, ConfigStoreError> {
        Ok(Vec::new())
    }

    async fn as_of(&self, keys: Vec<(ResourceKey, u64)>) -> Result<Vec<Option<Change>>, ConfigStoreError> {
        Ok(vec![None; keys.len()])
    }

    async fn versions(&self, _: IntegrationId, _: Option<u64>, _: usize) -> Result<Vec<Version>, ConfigStoreError> {
        Ok(Vec::new())
    }

    async fn parts(&self, _: IntegrationId, _: u64) -> Result<Option<Parts>, ConfigStoreError> {
        Ok(None)
    }

    async fn forget(&self, _: IntegrationId) -> Result<(), ConfigStoreError> {
        Ok(())
    }

    async fn record_activity(&self, entries: Vec<Activity>) -> Result<(), ConfigStoreError> {
        self.0.lock().expect("nobody panicked").extend(entries);
        Ok(())
    }

    async fn activities(&self, _: &ActivityFilter, _: ActivityBounds) -> Result<ActivityPage, ConfigStoreError> {
        Ok(ActivityPage::default())
    }

    async fn forget_activities(&self, _before_ms: u64) -> Result<u64, ConfigStoreError> {
        Ok(0)
    }
}

/// Knows deliveries, dead letters and replays only.
#[derive(Default)]
pub(super) struct MemoryState {
    pub(super) deliveries: BTreeMap<(SubscriptionId, EventId), DeliveryState>,
    pub(super) dead: BTreeMap<(SubscriptionId, EventId), DeadLetter>,
    pub(super) jobs: Vec<ReplayJob>,
}

#[async_trait]
impl StateStore for MemoryState {
    async fn intake(&self, _integration: IntegrationId) -> Result<EventId, LogError> {
        Ok(EventId::ZERO)
    }

    async fn position(&self, _subscription: SubscriptionId) -> Result<Option<Position>, LogError> {
        Ok(None)
    }

    async fn due(&self, _subscription: SubscriptionId, _until_ms: u64, _limit: usize) -> Result<Vec<Due>, LogError> {
        Ok(Vec::new())
    }

    async fn delivery(&self, subscription: SubscriptionId, event: EventId) -> Result<DeliveryState, LogError> {
        Ok(self.deliveries.get(&(subscription, event)).cloned().unwrap_or(DeliveryState::Unknown))
    }

    async fn lanes(&self, _subscription: SubscriptionId) -> Result<Vec<InLane>, LogError> {
        Ok(Vec::new())
    }

    async fn next_waiting(&self, _after: SubscriptionId) -> Result<Option<SubscriptionId>, LogError> {
        Ok(None)
    }

    async fn marks(
        &self,
        _integration: IntegrationId,
        _after: EventId,
        _upto: EventId,
    ) -> Result<Vec<(EventId, Mark)>, LogError> {
        Ok(Vec::new())
    }

    async fn seen(&self, keys: &[(DedupKey, EventId)]) -> Result<Vec<Option<EventId>>, LogError> {
        Ok(vec![None; keys.len()])
    }

    async fn forget_seen(&self, _remembered: Remembered) -> Result<Forgotten, LogError> {
        Ok(Forgotten::default())
    }

    async fn note(&self, _event: EventId) -> Result<Option<Note>, LogError> {
        Ok(None)
    }

    async fn noted(
        &self,
        _filter: &NoteFilter,
        _span: (EventId, EventId),
        _limit: usize,
    ) -> Result<(Vec<EventId>, Option<EventId>), LogError> {
        Ok((Vec::new(), None))
    }

    async fn dead_letters(
        &self,
        after: Option<(SubscriptionId, EventId)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogError> {
        let beyond = self.dead.iter().filter(|(place, _)| after.is_none_or(|after| **place > after));
        Ok(beyond.take(limit).map(|(_, letter)| letter.clone()).collect())
    }

    async fn dead_letter(&self, subscription: SubscriptionId, event: EventId) -> Result<Option<DeadLetter>, LogError> {
        Ok(self.dead.get(&(subscription, event)).cloned())
    }

    async fn jobs(&self) -> Result<Vec<ReplayJob>, LogError> {
        Ok(self.jobs.clone())
    }

    async fn task_runs(&self) -> Result<Vec<TaskRun>, LogError> {
        Ok(Vec::new())
    }

    async fn job(&self, id: ReplayId) -> Result<Option<ReplayJob>, LogError> {
        Ok(self.jobs.iter().find(|job| job.id == id).cloned())
    }

    async fn counts(&self) -> Result<StateCounts, LogError> {
        Ok(StateCounts::default())
    }
}

/// Seals by hex, with the owner in front, so that a test can see who it was sealed for.
struct HexSealer;

impl Sealer for HexSealer {
    fn seal(&self, owner: Owner, secret: &Secret) -> Sealed {
        Sealed(format!("{owner:?}|{}", hex::encode(secret.expose())))
    }

    fn open(&self, owner: Owner, sealed: &Sealed) -> Result<Secret, SealError> {
        let (for_whom, secret) = sealed.0.split_once('|').ok_or(SealError::Malformed)?;
        if for_whom != format!("{owner:?}") {
            return Err(SealError::Refused);
        }
        hex::decode(secret).map(Secret::new).map_err(|_| SealError::Malformed)
    }
}

/// Takes secrets that begin with `whsec_`, and the settings `header` and `tolerance_s`.
struct Strict;
/// Takes neither secrets nor settings.
struct Unverified;

struct Nothing;

impl Verifier for Nothing {
    fn verify(&self, _request: &InboundRequest<'_>, _now_ms: u64) -> Result<Verified, Refusal> {
        Err(Refusal::Mismatch)
    }
}

impl Provider for Strict {
    fn name(&self) -> &'static str {
        "generic_hmac"
    }

    fn summary(&self) -> &'static str {
        "for tests"
    }

    fn verifier(&self, settings: &Map<String, Value>, secrets: &[Secret]) -> Result<Arc<dyn Verifier>, SettingsError> {
        if let Some(unknown) = settings.keys().find(|name| !["header", "tolerance_s"].contains(&name.as_str())) {
            return Err(SettingsError::new(unknown, "is not known"));
        }
        if secrets.is_empty() {
            return Err(SettingsError::new("secrets", "there is none; at least one is needed"));
        }
        match secrets.iter().position(|secret| !secret.expose().starts_with(b"whsec_")) {
            Some(index) => Err(SettingsError::new(format!("secrets[{index}]"), "must begin with `whsec_`")),
            None => Ok(Arc::new(Nothing)),
        }
    }

    fn identify(&self, _settings: &Map<String, Value>, _event: &Event) -> Identity {
        Identity::default()
    }

    fn sign(
        &self,
        _settings: &Map<String, Value>,
        _secret: &Secret,
        _id: &str,
        _body: &[u8],
        _now_ms: u64,
    ) -> Result<SignedRequest, SettingsError> {
        Ok(SignedRequest { headers: Vec::new() })
    }

    fn sample(&self, _id: &str) -> (&'static str, Vec<u8>) {
        ("application/json", b"{}".to_vec())
    }

    fn new_secret(&self, random: &[u8; 32]) -> Secret {
        Secret::new(format!("whsec_{}", hex::encode(random)))
    }
}

impl Provider for Unverified {
    fn name(&self) -> &'static str {
        "none"
    }

    fn summary(&self) -> &'static str {
        "for tests"
    }

    fn verifier(&self, settings: &Map<String, Value>, secrets: &[Secret]) -> Result<Arc<dyn Verifier>, SettingsError> {
        if !settings.is_empty() || !secrets.is_empty() {
            return Err(SettingsError::new("verification", "takes nothing"));
        }
        Ok(Arc::new(Nothing))
    }

    fn identify(&self, _settings: &Map<String, Value>, _event: &Event) -> Identity {
        Identity::default()
    }

    fn sign(
        &self,
        _settings: &Map<String, Value>,
        _secret: &Secret,
        _id: &str,
        _body: &[u8],
        _now_ms: u64,
    ) -> Result<SignedRequest, SettingsError> {
        Ok(SignedRequest { headers: Vec::new() })
    }

    fn sample(&self, _id: &str) -> (&'static str, Vec<u8>) {
        ("application/json", b"{}".to_vec())
    }

    fn new_secret(&self, random: &[u8; 32]) -> Secret {
        Secret::new(*random)
    }
}

struct TwoProviders;

impl Providers for TwoProviders {
    fn get(&self, name: &str) -> Option<&'static dyn Provider> {
        match name {
            "generic_hmac" => Some(&Strict),
            "none" => Some(&Unverified),
            _ => None,
        }
    }

    fn names(&self) -> Vec<&'static str> {
        vec!["generic_hmac", "none"]
    }
}

struct HttpsOnly;

#[async_trait]
impl DestinationRules for HttpsOnly {
    fn validate(
        &self,
        kind: &str,
        settings: &Map<String, Value>,
        credentials: Option<&Secret>,
    ) -> Result<(), SettingsError> {
        if kind != "http" {
            return Err(SettingsError::new("type", "must be `http`"));
        }
        match settings.get("url").and_then(Value::as_str) {
            Some(url) if url.starts_with("https://") => {}
            _ => return Err(SettingsError::new("url", "must begin with `https://`")),
        }
        let members: Map<String, Value> =
            credentials.and_then(|it| serde_json::from_slice(it.expose()).ok()).unwrap_or_default();
        match members.keys().find(|name| *name != "token") {
            Some(other) => Err(SettingsError::new(format!("credentials.{other}"), "is not known")),
            None => Ok(()),
        }
    }

    async fn attempt(
        &self,
        _destination: &Destination,
        _keys: Keys,
        consignment: Consignment,
        _now_ms: u64,
    ) -> Result<AttemptReport, SettingsError> {
        let rendered = consignment.rendered.map(|rendered| format!("{:?}", rendered.headers));
        Ok(AttemptReport {
            verdict: Verdict::Retry { after: Some(Duration::from_secs(7)) },
            status: Some(503),
            error: rendered,
            reply: Some(String::from_utf8_lossy(&consignment.event.arrival.body).into_owned()),
            timings: Timings { connected: Some(Duration::from_micros(1_500)), answered: None },
        })
    }
}

/// Counts instead of being random.
#[derive(Default)]
struct Counting(Mutex<u8>);

impl SecretTools for Counting {
    fn random(&self) -> [u8; 32] {
        let mut last = self.0.lock().expect("nobody panicked");
        *last = last.wrapping_add(1);
        [*last; 32]
    }

    fn fingerprint(&self, secret: &Secret) -> String {
        format!("{:08x}", crc32fast::hash(secret.expose()))
    }
}

/// Answers as the host's name says: `status-503.example` with 503, any other not at all.
struct ByName;

#[async_trait]
impl Ask for ByName {
    async fn ask(&self, request: &Request, _timeout: Duration) -> Result<u16, String> {
        let status = request.url.split_once("//status-").and_then(|(_, rest)| rest.get(..3)?.parse().ok());
        status.ok_or_else(|| "connection refused".to_owned())
    }
}

struct NoRecords;

impl Records for NoRecords {
    fn all(&self) -> Result<Vec<(IntegrationId, Vec<u8>)>, String> {
        Ok(Vec::new())
    }

    fn put(&self, _: IntegrationId, _: &dyn Fn() -> Vec<u8>) -> Result<(), String> {
        Ok(())
    }

    fn remove(&self, _: IntegrationId) -> Result<(), String> {
        Ok(())
    }
}

/// Connection tests that are kept nowhere.
fn connections() -> Connections {
    let ports = ConnectionPorts {
        ask: Arc::new(ByName),
        records: Arc::new(NoRecords),
        sealer: Arc::new(HexSealer),
        fingerprint: Arc::new(|secret| hex::encode(secret.expose())),
        clock: Arc::new(FixedClock(1_767_225_600_000)),
    };
    Connections::load(ConnectionOptions::default(), ports).expect("there is nothing to read")
}

pub(super) fn tools() -> Tools {
    Tools {
        sealer: Arc::new(HexSealer),
        providers: Arc::new(TwoProviders),
        destinations: Arc::new(HttpsOnly),
        secrets: Arc::new(Counting::default()),
        connections: connections(),
    }
}

/// Replies in memory.
#[derive(Default)]
pub(super) struct MemoryReplies(pub(super) Mutex<BTreeMap<u64, StoredReply>>);

impl ReplyStore for MemoryReplies {
    fn all(&self) -> Result<Vec<(u64, StoredReply)>, String> {
        Ok(self.0.lock().expect("nobody panicked").clone().into_iter().collect())
    }

    fn put(&self, forgotten: &[u64], number: u64, reply: &dyn Fn() -> StoredReply) -> Result<(), String> {
        self.remove(forgotten)?;
        self.0.lock().expect("nobody panicked").insert(number, reply());
        Ok(())
    }

    fn remove(&self, numbers: &[u64]) -> Result<(), String> {
        self.0.lock().expect("nobody panicked").retain(|number, _| !numbers.contains(number));
        Ok(())
    }
}

/// Where replies are kept in a store, with the clock of tokio's time.
pub(super) fn reply_ports(store: Arc<MemoryReplies>) -> ReplyPorts {
    ReplyPorts { store, sealer: Arc::new(HexSealer), clock: Arc::new(TestClock::default()) }
}

/// As a first start has them.
pub(super) fn no_replies() -> Replies {
    Replies::load(reply_ports(Arc::default())).expect("there is nothing to read")
}

/// A ring that nothing can be done with.
pub(super) struct NoKeys;

#[async_trait]
impl KeyAdmin for NoKeys {
    async fn view(&self, _count: bool) -> Result<KeysView, KeysError> {
        Ok(KeysView { source: "nowhere".to_owned(), keys: Vec::new(), rotation: None })
    }

    async fn add(&self, _author: &str) -> Result<KeyId, KeysError> {
        Err(KeysError::ReadOnly { origin: "nowhere".to_owned(), what: "give up" })
    }

    async fn reload(&self, _author: &str) -> Result<(), KeysError> {
        Ok(())
    }

    async fn rotate(&self, _author: &str, to: Option<KeyId>) -> Result<Rotation, KeysError> {
        Err(to.map_or(KeysError::Busy, |id| RingChangeError::NoSuchKey(id).into()))
    }

    async fn retire(&self, _author: &str, key: KeyId) -> Result<Retired, KeysError> {
        let holdings = Holdings { credentials: Tally { current: 1, versions: 2 }, ..Holdings::default() };
        Err(KeysError::InUse { key, holdings })
    }
}

/// A store that is never backed up.
pub(super) struct NoBackup;

#[async_trait]
impl BackupAdmin for NoBackup {
    async fn begin(&self, _author: &str) -> Result<Begun, BackupError> {
        Err(BackupError::Busy)
    }

    async fn renew(&self, _id: &str) -> Result<Begun, BackupError> {
        Err(BackupError::Over)
    }

    async fn end(&self, _id: &str) -> Result<EndMark, BackupError> {
        Err(BackupError::Over)
    }

    async fn stream(&self, _id: &str, part: Part) -> Result<Chunks, BackupError> {
        match part {
            Part::State => {}
            Part::Segment(_) | Part::Index(_) => return Err(BackupError::NoSegment),
            Part::Configuration | Part::Rejections => return Err(BackupError::NoEnd),
        }
        let (send, chunks) = tokio::sync::mpsc::channel(2);
        for chunk in ["one ", "two"] {
            send.try_send(Ok(chunk.into())).expect("there is room");
        }
        Ok(chunks)
    }

    async fn release(&self, _author: &str, _id: &str) -> Result<(), BackupError> {
        Err(BackupError::Over)
    }
}
