//! The tests as a whole, over ports in memory, a scripted third party and paused time.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hookmill_actors::{
    domain::{
        activity::{ActivityBounds, ActivityFilter, ActivityPlace},
        config::{Environment, Meta},
        secret::Sealed,
    },
    ports::sealer::SealError,
    testkit::{memory_config::MemoryConfig, test_clock::TestClock},
};
use tokio::time::sleep;

use super::*;

/// Answers each integration as the script says, by its name in the URL; `slow` never does.
#[derive(Default)]
struct Scripted {
    answers: Mutex<HashMap<String, Result<u16, String>>>,
    asked: Mutex<Vec<String>>,
    at_once: AtomicUsize,
    at_once_max: AtomicUsize,
}

#[async_trait]
impl Ask for Scripted {
    async fn ask(&self, request: &Request, timeout: Duration) -> Result<u16, String> {
        let at_once = self.at_once.fetch_add(1, Relaxed) + 1;
        self.at_once_max.fetch_max(at_once, Relaxed);
        let host = request.url.split('/').nth(2).expect("it has a host").to_owned();
        self.asked.lock().expect("nobody panicked").push(host.clone());
        let answer = self.answers.lock().expect("nobody panicked").get(&host).cloned();
        if host == "panics" {
            self.at_once.fetch_sub(1, Relaxed);
            panic!("a fault of the test");
        }
        if answer.is_none() {
            sleep(timeout).await;
        }
        self.at_once.fetch_sub(1, Relaxed);
        answer.unwrap_or_else(|| Err("no answer".to_owned()))
    }
}

#[derive(Default)]
struct MemoryRecords(Mutex<BTreeMap<IntegrationId, Vec<u8>>>);

impl Records for MemoryRecords {
    fn all(&self) -> Result<Vec<(IntegrationId, Vec<u8>)>, String> {
        Ok(self.0.lock().expect("nobody panicked").clone().into_iter().collect())
    }

    fn put(&self, id: IntegrationId, record: &dyn Fn() -> Vec<u8>) -> Result<(), String> {
        self.0.lock().expect("nobody panicked").insert(id, record());
        Ok(())
    }

    fn remove(&self, id: IntegrationId) -> Result<(), String> {
        self.0.lock().expect("nobody panicked").remove(&id);
        Ok(())
    }
}

/// Opens what is plain; refuses `broken`.
struct Plain;

impl Sealer for Plain {
    fn seal(&self, _: Owner, secret: &Secret) -> Sealed {
        Sealed(secret.expose_str().unwrap_or_default().to_owned())
    }

    fn open(&self, _: Owner, sealed: &Sealed) -> Result<Secret, SealError> {
        if sealed.0 == "broken" { Err(SealError::Refused) } else { Ok(Secret::new(sealed.0.clone())) }
    }
}

struct World {
    connections: Connections,
    third: Arc<Scripted>,
    records: Arc<MemoryRecords>,
    audit: MemoryConfig,
    configuration: Configuration,
}

impl World {
    fn new() -> Self {
        Self::with(ConnectionOptions::default(), Arc::default())
    }

    fn with(options: ConnectionOptions, records: Arc<MemoryRecords>) -> Self {
        let third = Arc::new(Scripted::default());
        let ports = ConnectionPorts {
            ask: third.clone(),
            records: records.clone(),
            sealer: Arc::new(Plain),
            fingerprint: Arc::new(|secret| hex::encode(secret.expose())),
            clock: Arc::new(TestClock::default()),
        };
        let connections = Connections::load(options, ports).expect("the records are readable");
        let (audit, configuration) = (MemoryConfig::default(), Configuration::default());
        Self { connections, third, records, audit, configuration }
    }

    /// Integration `id`, whose third party is `host`.
    fn configure(&mut self, id: u32, host: &str, change: impl FnOnce(&mut Integration)) {
        let mut integration = Integration {
            id: IntegrationId(id),
            name: host.to_owned(),
            kind: IntegrationType::Custom,
            provider: "none".to_owned(),
            description: None,
            environment: Environment::Production,
            status: IntegrationStatus::Pending,
            configuration: Map::from_iter([("health_check_url".to_owned(), format!("https://{host}/").into())]),
            credentials: None,
            meta: Meta::default(),
        };
        change(&mut integration);
        self.configuration.version += 1;
        integration.meta.version = self.configuration.version;
        self.configuration.integrations.insert_mut(integration.id, Arc::new(integration));
    }

    fn answers(&self, host: &str, answer: Result<u16, &str>) {
        self.third.answers.lock().expect("nobody panicked").insert(host.to_owned(), answer.map_err(str::to_owned));
    }

    /// What [`Connections::run`] does, for so long.
    async fn pass(&self, time: Duration) {
        let audit: Arc<dyn ConfigStore> = Arc::new(self.audit.clone());
        let end = Instant::now() + time;
        self.connections.0.look(&self.configuration);
        while Instant::now() < end {
            self.connections.start_due(&self.configuration, &audit);
            sleep(LOOK_EVERY).await;
        }
    }

    fn status(&self, id: u32) -> IntegrationStatus {
        self.connections.status(&self.configuration.integrations[&IntegrationId(id)])
    }

    fn standing(&self, id: u32) -> Standing {
        self.connections.standing(IntegrationId(id))
    }

    async fn activities(&self) -> Vec<String> {
        let bounds = ActivityBounds { before: ActivityPlace::END, found_max: 100, looked_at_max: 100 };
        let all = self.audit.activities(&ActivityFilter::default(), bounds).await.expect("it is in memory");
        all.entries.into_iter().rev().map(|entry| entry.activity.detail).collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn what_is_made_is_tested_at_once_and_its_result_survives_a_restart() {
    let mut world = World::new();
    world.answers("well", Ok(204));
    world.answers("ill", Ok(503));
    world.configure(1, "well", |_| {});
    world.configure(2, "ill", |_| {});
    world.configure(3, "x", |it| it.configuration.clear());
    assert_eq!([1, 2, 3].map(|id| world.status(id)), [IntegrationStatus::Pending; 3]);
    world.pass(SECOND).await;
    let statuses = [IntegrationStatus::Active, IntegrationStatus::Failed, IntegrationStatus::Active];
    assert_eq!([1, 2, 3].map(|id| world.status(id)), statuses);
    let last = |world: &World, id| world.standing(id).last.expect("it was tested");
    assert_eq!((last(&world, 1).outcome, last(&world, 1).status), (Outcome::Passed, Some(204)));
    assert_eq!(last(&world, 2).reason, "it answered 503 Service Unavailable");
    assert_eq!(last(&world, 3).outcome, Outcome::NothingToTest);
    assert!(last(&world, 3).reason.starts_with("nothing to test: "), "{}", last(&world, 3).reason);
    assert_eq!(world.activities().await.len(), 3);

    let again = World {
        configuration: world.configuration.clone(),
        ..World::with(ConnectionOptions::default(), world.records.clone())
    };
    again.pass(Duration::from_millis(10)).await;
    assert_eq!([1, 2, 3].map(|id| again.status(id)), statuses);
    assert_eq!(*again.third.asked.lock().expect("nobody panicked"), Vec::<String>::new(), "nothing changed");
}

#[tokio::test(start_paused = true)]
async fn a_live_one_is_damped_then_failed_and_comes_back_by_itself() {
    let mut world = World::new();
    world.answers("shop", Ok(200));
    world.configure(1, "shop", |_| {});
    world.pass(SECOND).await;
    world.answers("shop", Err("connection refused"));
    // Six hours, spread by a tenth.
    world.pass(Duration::from_secs(24_000)).await;
    let standing = world.standing(1);
    assert!(standing.failures >= 3 && world.status(1) == IntegrationStatus::Failed, "{standing:?}");
    world.answers("shop", Ok(200));
    world.pass(Duration::from_secs(4_000)).await;
    assert_eq!((world.status(1), world.standing(1).failures), (IntegrationStatus::Active, 0));
    let told = world.activities().await;
    // Passed, first failure, failed for good, passed again.
    assert_eq!(told.len(), 4, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn an_inactive_one_is_left_alone_and_set_active_is_believed_and_tested() {
    let mut world = World::new();
    world.answers("shop", Ok(500));
    world.configure(1, "shop", |_| {});
    world.pass(SECOND).await;
    world.configure(1, "shop", |it| it.status = IntegrationStatus::Inactive);
    world.pass(Duration::from_secs(10_000)).await;
    assert_eq!(world.third.asked.lock().expect("nobody panicked").len(), 1);
    assert_eq!(world.status(1), IntegrationStatus::Inactive);
    let test =
        world.connections.test(&world.configuration.integrations[&IntegrationId(1)]).await.expect("there is room");
    assert_eq!((test.outcome, world.status(1)), (Outcome::Failed, IntegrationStatus::Inactive));
    world.configure(1, "shop", |it| it.status = IntegrationStatus::Active);
    assert_eq!(world.status(1), IntegrationStatus::Active, "before anybody looked");
    world.pass(SECOND).await;
    assert_eq!((world.status(1), world.standing(1).failures), (IntegrationStatus::Active, 1));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_what_is_tested_is_tested_and_another_is_not() {
    let mut world = World::new();
    for host in ["one", "two"] {
        world.answers(host, Ok(200));
    }
    let asked = |world: &World| world.third.asked.lock().expect("nobody panicked").len();
    world.configure(1, "one", |_| {});
    world.pass(SECOND).await;
    world.configure(1, "one", |it| it.description = Some("d".to_owned()));
    world.pass(SECOND).await;
    assert_eq!(asked(&world), 1);
    world.configure(1, "one", |it| it.credentials = Some(Sealed(r#"{"token":"t"}"#.to_owned())));
    world.pass(SECOND).await;
    assert_eq!(asked(&world), 2);
    world.configure(1, "two", |_| {});
    world.pass(SECOND).await;
    assert_eq!(asked(&world), 3);
    world.configure(1, "two", |it| it.credentials = Some(Sealed("broken".to_owned())));
    world.pass(SECOND).await;
    assert_eq!(asked(&world), 3, "nobody is asked without the credentials");
    let last = world.standing(1).last.expect("it was tested");
    assert!(last.reason.starts_with("the stored credentials cannot be opened"), "{}", last.reason);
    world.configuration.integrations.remove_mut(&IntegrationId(1));
    world.pass(SECOND).await;
    assert!(world.records.all().expect("it is in memory").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_dead_hosts_take_minutes_and_hold_no_more_than_their_places() {
    let mut world = World::new();
    for id in 1..=1_000 {
        world.configure(id, &format!("dead-{id}"), |_| {});
    }
    world.pass(Duration::from_secs(170)).await;
    assert!((1..=1_000).all(|id| world.standing(id).last.is_some()));
    assert!(world.third.at_once_max.load(Relaxed) <= ConnectionOptions::default().concurrent_max);
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_its_test_and_operators_have_places_of_their_own() {
    let mut world = World::new();
    world.configure(1, "panics", |_| {});
    world.configure(2, "slow", |_| {});
    world.pass(Duration::from_secs(12)).await;
    assert_eq!(world.status(1), IntegrationStatus::Failed);
    assert!(world.standing(1).last.is_some_and(|last| last.reason.contains("hookmill's log")));
    let slow = world.configuration.integrations[&IntegrationId(2)].clone();
    let tests: Vec<_> = (0..OPERATOR_TESTS_MAX)
        .map(|_| {
            let (connections, slow) = (world.connections.clone(), slow.clone());
            tokio::spawn(async move { connections.test(&slow).await })
        })
        .collect();
    sleep(SECOND).await;
    assert_eq!(world.connections.test(&slow).await, Err(Busy));
    for test in tests {
        assert!(test.await.is_ok_and(|test| test.is_ok()));
    }
    let counted: u64 = world.connections.counts().iter().map(|count| count.count).sum();
    assert!(counted > OPERATOR_TESTS_MAX as u64, "{:?}", world.connections.counts());
}
