//! What a change of the configuration costs among many integrations: an endpoint, a destination and a subscription
//! each. The real configuration actor, rules, compiler and supervisor, on a log and a state in memory; the
//! configuration is in memory too, then in sled.
//!
//! `cargo bench --bench configuration [-- INTEGRATIONS]`, 10,000 by default.

#![expect(clippy::print_stdout, reason = "its output is the report")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hookmill::storage::{sled_config::SledConfig, sled_db::StateDb};
use hookmill_actors::{
    configuration::{Kind, Write},
    domain::{
        backoff::RetryPolicy,
        config::{
            Change, Destination, DestinationStatus, Endpoint, Environment, Integration, IntegrationStatus,
            IntegrationType, Meta, Resource, ResourceKey, Subscription,
        },
        ids::{DestinationId, EndpointId, EventId, IntegrationId, SubscriptionId},
        order::Order,
        secret::Sealed,
        selection::Selection,
        shaping::DestinationLimits,
        transform::Transform,
    },
    ports::config_store::ConfigStore,
    router::CommitBoard,
    snapshot::Compiler,
    testkit::{
        memory_config::MemoryConfig,
        memory_log::MemoryLog,
        memory_state::MemoryState,
        scripted_transport::ScriptedTransports,
        stubs::{OneProvider, OpenSealer, TextPrograms, ThirdParties},
        test_clock::TestClock,
    },
    tree::{Ports, Tree, TreeOptions},
};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Map;

const CACHE_BYTES: u64 = 16 << 20;
/// Changes of each kind.
const CHANGES: u32 = 500;

/// What is changed, and its key by its number.
type Alteration = (&'static str, fn(u32) -> ResourceKey);

const ALTERATIONS: [Alteration; 3] = [
    ("integration renamed", |id| ResourceKey::Integration(IntegrationId(id))),
    ("endpoint moved", |id| ResourceKey::Endpoint(EndpointId(id))),
    ("subscription altered", |id| ResourceKey::Subscription(SubscriptionId(id))),
];

fn main() {
    // `cargo test` runs this as a check, without `--bench`.
    let checked_only = !std::env::args().any(|argument| argument == "--bench");
    let named = std::env::args().find_map(|argument| argument.parse().ok());
    let integrations = named.unwrap_or(if checked_only { 20 } else { 10_000 });
    let changes = if checked_only { 5 } else { CHANGES };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(measure("in memory", Arc::new(MemoryConfig::default()), integrations, changes));
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let db = StateDb::open(&root.path().join("state"), CACHE_BYTES).expect("it opens");
    let store = SledConfig::open(db).expect("it is whole");
    runtime.block_on(measure("in sled", Arc::new(store), integrations, changes));
}

async fn measure(place: &str, store: Arc<dyn ConfigStore>, integrations: u32, changes: u32) {
    println!("{integrations} integrations, configuration {place}");
    fill(&*store, integrations).await;
    let before = resident_bytes();
    let begun = Meter::start();
    let tree = start(store).await;
    let seconds = begun.elapsed.elapsed().as_secs_f64();
    settle().await;
    let memory = resident_bytes().saturating_sub(before) >> 20;
    println!("  a start                {seconds:.2} s, {memory} MiB");

    let config = tree.handle().config();
    let begun = Meter::start();
    for _ in 0..changes {
        let number = |kind| match config.reserve(kind) {
            ResourceKey::Integration(IntegrationId(id))
            | ResourceKey::Endpoint(EndpointId(id))
            | ResourceKey::Destination(DestinationId(id))
            | ResourceKey::Subscription(SubscriptionId(id)) => id,
        };
        let id = number(Kind::Integration);
        for kind in [Kind::Endpoint, Kind::Destination, Kind::Subscription] {
            assert_eq!(number(kind), id, "all kinds count alike here");
        }
        let write =
            |resource: Resource| Write { key: resource.key(), expected_version: None, resource: Some(resource) };
        config.write("bench", resources(id).map(write).into()).await.expect("it is made");
    }
    begun.told("created", changes).await;

    for (what, key) in ALTERATIONS {
        let begun = Meter::start();
        for number in 0..changes {
            let key = key(1 + number * 7_919 % integrations);
            let mut resource = config.current().configuration.get(key).expect("it is configured");
            let expected_version = Some(resource.meta().version);
            alter(&mut resource);
            let write = Write { key, expected_version, resource: Some(resource) };
            config.write("bench", vec![write]).await.expect("it is changed");
        }
        begun.told(what, changes).await;
    }
    let begun = Meter::start();
    for number in 0..changes {
        let key = ResourceKey::Integration(IntegrationId(integrations + 1 + number));
        let version = config.current().configuration.get(key).expect("it was made").meta().version;
        let write = Write { key, expected_version: Some(version), resource: None };
        config.write("bench", vec![write]).await.expect("it is deleted");
    }
    begun.told("deleted", changes).await;
    println!("  at the end             {} MiB", resident_bytes().saturating_sub(before) >> 20);
    tree.stop(Duration::from_secs(5)).await;
}

fn alter(resource: &mut Resource) {
    match resource {
        Resource::Integration(it) => it.name.push('+'),
        Resource::Endpoint(it) => it.path.push('+'),
        Resource::Destination(it) => it.name.push('+'),
        Resource::Subscription(it) => it.in_flight_max = it.in_flight_max % 64 + 1,
    }
}

async fn start(config: Arc<dyn ConfigStore>) -> Tree {
    let clock = Arc::new(TestClock::default());
    let state = MemoryState::default();
    let board = Arc::new(CommitBoard::default());
    let log = Arc::new(MemoryLog::new(state.clone(), board.clone(), clock.clone()));
    let compiler = Compiler {
        providers: Arc::new(OneProvider),
        transports: Arc::new(ScriptedTransports::default()),
        sealer: Arc::new(OpenSealer),
        programs: Arc::new(TextPrograms::default()),
    };
    let connections = Arc::new(ThirdParties::default());
    let ports = Ports { log, state: Arc::new(state), config, compiler, connections, clock };
    Tree::start(ports, TreeOptions::default(), board).await.expect("the tree starts")
}

/// As if they had been made one after the other, without the waiting.
async fn fill(store: &dyn ConfigStore, integrations: u32) {
    let ids: Vec<u32> = (1..=integrations).collect();
    for (version, ids) in (1..).zip(ids.chunks(100)) {
        let change = |mut resource: Resource| {
            let meta = Meta { version, created_at_ms: 1, updated_at_ms: 1, applied: false };
            match &mut resource {
                Resource::Integration(it) => it.meta = meta,
                Resource::Endpoint(it) => it.meta = meta,
                Resource::Destination(it) => it.meta = meta,
                Resource::Subscription(it) => it.meta = meta,
            }
            Change {
                version,
                at_ms: 1,
                author: "bench".to_owned(),
                comment: None,
                key: resource.key(),
                resource: Some(resource),
                kept: None,
            }
        };
        let changes = ids.iter().flat_map(|id| resources(*id)).map(change).collect();
        store.commit(changes, Vec::new()).await.expect("it is stored");
    }
}

/// An integration and what belongs to it, all with the same number.
fn resources(id: u32) -> [Resource; 4] {
    let meta = Meta::default();
    let integration = Integration {
        id: IntegrationId(id),
        name: format!("integration {id}"),
        kind: IntegrationType::Custom,
        provider: "none".to_owned(),
        description: None,
        environment: Environment::Production,
        status: IntegrationStatus::Active,
        configuration: Map::new(),
        credentials: None,
        meta,
    };
    let endpoint = Endpoint {
        id: EndpointId(id),
        integration_id: IntegrationId(id),
        name: "endpoint".to_owned(),
        description: None,
        path: format!("/{id}"),
        active: true,
        verify_signature: true,
        signature_header: None,
        verification: Map::new(),
        secrets: Vec::new(),
        body_bytes_max: None,
        dedup_window_s: None,
        rate_limit: None,
        meta,
    };
    let destination = Destination {
        id: DestinationId(id),
        name: "destination".to_owned(),
        kind: "http".to_owned(),
        status: DestinationStatus::Active,
        status_reason: None,
        settings: Map::new(),
        signing_secret: Sealed("a secret of the usual length for one".to_owned()),
        signing_fingerprint: "0123456789abcdef".to_owned(),
        credentials: None,
        limits: DestinationLimits::default(),
        meta,
    };
    let subscription = Subscription {
        id: SubscriptionId(id),
        integration_id: IntegrationId(id),
        destination_id: DestinationId(id),
        name: "subscription".to_owned(),
        active: true,
        in_flight_max: 16,
        retry: RetryPolicy::default(),
        start_after: EventId::ZERO,
        selection: Selection::default(),
        transform: Transform::default(),
        headers: BTreeMap::new(),
        order: Order::default(),
        rate: None,
        expires_after_s: None,
        meta,
    };
    [
        Resource::Integration(integration),
        Resource::Endpoint(endpoint),
        Resource::Destination(destination),
        Resource::Subscription(subscription),
    ]
}

struct Meter {
    elapsed: Instant,
    cpu: Duration,
}

impl Meter {
    fn start() -> Self {
        Self { elapsed: Instant::now(), cpu: cpu() }
    }

    /// What each change took until it was in force, and the CPU that it cost with all that follows of it.
    async fn told(self, what: &str, changes: u32) {
        let elapsed = self.elapsed.elapsed();
        settle().await;
        let spent = cpu().saturating_sub(self.cpu);
        let each = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(changes);
        println!("  {what:<22} {:.3} ms, {:.3} ms of CPU", each(elapsed), each(spent));
    }
}

/// Waits until the actors have nothing to do any more.
async fn settle() {
    loop {
        let before = cpu();
        tokio::time::sleep(Duration::from_millis(100)).await;
        if cpu().saturating_sub(before) < Duration::from_millis(5) {
            return;
        }
    }
}

/// CPU time of this process.
fn cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or_default())
}

/// Of this process, where the system tells.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4_096
}
