//! A tree with one integration and as many destinations as a test wants.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use hookmill_actors::{
    configuration::{Kind, Write},
    domain::{
        backoff::RetryPolicy,
        config::{
            Destination, DestinationStatus, Endpoint, Environment, Integration, IntegrationStatus, IntegrationType,
            Meta, Resource, ResourceKey, Subscription,
        },
        delivery::DeliveryStatus,
        event::{Arrival, NewEvent},
        headers::HeaderBlock,
        ids::{EndpointId, EventId, IntegrationId, SubscriptionId},
        order::Order,
        secret::Sealed,
        selection::Selection,
        shaping::{BreakerPolicy, DestinationLimits, RetryBudget},
        transform::Transform,
    },
    ports::{
        clock::Clock,
        event_log::EventLog,
        state_store::{DeliveryState, StateStore},
    },
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
    tree::{Ports, Tree, TreeHandle, TreeOptions},
};

pub(crate) struct World {
    pub(crate) tree: Tree,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) state: MemoryState,
    pub(crate) config: MemoryConfig,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) transports: ScriptedTransports,
    pub(crate) programs: TextPrograms,
    pub(crate) third_parties: ThirdParties,
    options: TreeOptions,
}

impl World {
    pub(crate) async fn start(transports: ScriptedTransports) -> Self {
        Self::start_with(transports, TreeOptions::default()).await
    }

    pub(crate) async fn start_with(transports: ScriptedTransports, options: TreeOptions) -> Self {
        let clock = Arc::new(TestClock::default());
        let state = MemoryState::default();
        let board = Arc::new(CommitBoard::default());
        let log = Arc::new(MemoryLog::new(state.clone(), board.clone(), clock.clone()));
        Self::on(log, state, MemoryConfig::default(), clock, transports, board, options).await
    }

    /// On a log whose commits nobody hears of.
    pub(crate) async fn start_deaf(transports: ScriptedTransports) -> Self {
        let (clock, state) = (Arc::new(TestClock::default()), MemoryState::default());
        let log = Arc::new(MemoryLog::new(state.clone(), Arc::new(CommitBoard::default()), clock.clone()));
        let (config, board, options) = (MemoryConfig::default(), Arc::default(), TreeOptions::default());
        Self::on(log, state, config, clock, transports, board, options).await
    }

    async fn on(
        log: Arc<MemoryLog>,
        state: MemoryState,
        config: MemoryConfig,
        clock: Arc<TestClock>,
        transports: ScriptedTransports,
        board: Arc<CommitBoard>,
        options: TreeOptions,
    ) -> Self {
        let (programs, third_parties) = (TextPrograms::default(), ThirdParties::default());
        let compiler = Compiler {
            providers: Arc::new(OneProvider),
            transports: Arc::new(transports.clone()),
            sealer: Arc::new(OpenSealer),
            programs: Arc::new(programs.clone()),
        };
        let ports = Ports {
            log: log.clone(),
            state: Arc::new(state.clone()),
            config: Arc::new(config.clone()),
            compiler,
            connections: Arc::new(third_parties.clone()),
            clock: clock.clone(),
        };
        let tree = Tree::start(ports, options.clone(), board).await.expect("the tree starts");
        Self { tree, log, state, config, clock, transports, programs, third_parties, options }
    }

    /// As after a crash: everything in memory is gone, the stores stay.
    pub(crate) async fn crash_and_restart(self) -> Self {
        let kept = self.state.snapshot();
        let board = Arc::new(CommitBoard::default());
        let log = Arc::new(self.log.reopened(kept.clone(), board.clone()));
        let (config, clock, transports) = (self.config.clone(), self.clock.clone(), self.transports.clone());
        self.tree.stop(Duration::ZERO).await;
        Self::on(log, kept, config, clock, transports, board, self.options).await
    }

    pub(crate) fn clock_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(crate) fn handle(&self) -> &TreeHandle {
        self.tree.handle()
    }

    pub(crate) async fn write(&self, resource: Resource) {
        let write = Write { key: resource.key(), expected_version: None, resource: Some(resource) };
        self.handle().config().write("test", vec![write]).await.expect("a valid resource");
    }

    /// Changes a resource as an operator would.
    pub(crate) async fn update(&self, key: ResourceKey, change: impl FnOnce(&mut Resource)) {
        let mut resource = self.handle().config().current().configuration.get(key).expect("it is configured");
        let expected_version = Some(resource.meta().version);
        change(&mut resource);
        let write = Write { key, expected_version, resource: Some(resource) };
        self.handle().config().write("test", vec![write]).await.expect("a valid change");
    }

    pub(crate) async fn delete(&self, key: ResourceKey) {
        let version = self.handle().config().current().configuration.get(key).expect("configured").meta().version;
        let write = Write { key, expected_version: Some(version), resource: None };
        self.handle().config().write("test", vec![write]).await.expect("a valid delete");
    }

    pub(crate) async fn integration(&self) -> IntegrationId {
        let ResourceKey::Integration(id) = self.handle().config().reserve(Kind::Integration) else { unreachable!() };
        self.write(Resource::Integration(Integration {
            id,
            name: format!("integration {id}"),
            kind: IntegrationType::Custom,
            provider: "none".to_owned(),
            description: None,
            environment: Environment::Development,
            status: IntegrationStatus::Active,
            configuration: serde_json::Map::new(),
            credentials: None,
            meta: Meta::default(),
        }))
        .await;
        self.write(Resource::Endpoint(Endpoint {
            id: EndpointId(id.0),
            integration_id: id,
            name: "endpoint".to_owned(),
            description: None,
            path: format!("/{id}"),
            active: true,
            verify_signature: false,
            signature_header: None,
            verification: serde_json::Map::new(),
            secrets: Vec::new(),
            body_bytes_max: None,
            dedup_window_s: None,
            rate_limit: None,
            meta: Meta::default(),
        }))
        .await;
        id
    }

    pub(crate) async fn subscription(&self, integration: IntegrationId, retry: RetryPolicy) -> SubscriptionId {
        self.subscription_with(integration, retry, |_| {}).await
    }

    /// A subscription with a destination of its own; `change` sees it before it is written.
    pub(crate) async fn subscription_with(
        &self,
        integration: IntegrationId,
        retry: RetryPolicy,
        change: impl FnOnce(&mut Subscription),
    ) -> SubscriptionId {
        let config = self.handle().config();
        let ResourceKey::Destination(destination) = config.reserve(Kind::Destination) else { unreachable!() };
        let ResourceKey::Subscription(id) = config.reserve(Kind::Subscription) else { unreachable!() };
        self.write(Resource::Destination(Destination {
            id: destination,
            name: "destination".to_owned(),
            kind: "http".to_owned(),
            status: DestinationStatus::Active,
            status_reason: None,
            settings: serde_json::Map::new(),
            signing_secret: Sealed("secret".to_owned()),
            signing_fingerprint: String::new(),
            credentials: None,
            limits: no_limits(),
            meta: Meta::default(),
        }))
        .await;
        let mut subscription = Subscription {
            id,
            integration_id: integration,
            destination_id: destination,
            name: "subscription".to_owned(),
            active: true,
            in_flight_max: 16,
            retry,
            start_after: self.log.last_committed(),
            selection: Selection::default(),
            transform: Transform::default(),
            headers: BTreeMap::new(),
            order: Order::default(),
            rate: None,
            expires_after_s: None,
            meta: Meta::default(),
        };
        change(&mut subscription);
        self.write(Resource::Subscription(subscription)).await;
        id
    }

    pub(crate) async fn post(&self, integration: IntegrationId, body: &'static str) -> EventId {
        let event = NewEvent {
            integration,
            arrival: Arrival {
                endpoint: EndpointId(integration.0),
                received_at_ms: self.clock.now_ms(),
                accepted_version: 1,
                peer: Ipv4Addr::LOCALHOST.into(),
                hops: 0,
                query: "".into(),
                headers: HeaderBlock::default(),
                body: Bytes::from_static(body.as_bytes()),
            },
        };
        // As the ingress does.
        if let Some(backlog) = self.handle().config().current().backlogs.get(&integration) {
            backlog.appended(body.len() as u64);
        }
        self.log.append(event).expect("there is room").await.expect("it is durable")
    }

    pub(crate) async fn post_many(&self, integration: IntegrationId, count: usize) -> Vec<EventId> {
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            ids.push(self.post(integration, "payment.succeeded").await);
        }
        ids
    }

    pub(crate) async fn status(&self, subscription: SubscriptionId, event: EventId) -> DeliveryStatus {
        match self.state.delivery(subscription, event).await.expect("the state answers") {
            DeliveryState::Unknown => DeliveryStatus::Pending,
            DeliveryState::Delivered { .. } => DeliveryStatus::Delivered,
            DeliveryState::Record(record) => record.status,
        }
    }

    /// Lets time pass until all of these deliveries stand there.
    pub(crate) async fn until(&self, subscription: SubscriptionId, events: &[EventId], wanted: DeliveryStatus) {
        for round in 0..200_000 {
            let mut all = true;
            for event in events {
                all &= self.status(subscription, *event).await == wanted;
            }
            if all {
                return;
            }
            tokio::time::sleep(Duration::from_millis(if round < 200 { 500 } else { 10_000 })).await;
        }
        panic!("the deliveries did not become {wanted:?}");
    }

    /// The events in the order in which their deliveries succeeded, as the destination saw them.
    pub(crate) fn delivered(&self, subscription: SubscriptionId) -> Vec<EventId> {
        let configuration = self.handle().config().current().configuration.clone();
        let destination = configuration.subscriptions[&subscription].destination_id;
        let seen = self.transports.seen();
        seen.iter().filter(|seen| seen.destination == destination && seen.delivered).map(|seen| seen.event).collect()
    }

    /// The events that a destination saw, in order, repeats included.
    pub(crate) fn arrivals(&self, subscription: SubscriptionId) -> Vec<EventId> {
        let configuration = self.handle().config().current().configuration.clone();
        let destination = configuration.subscriptions[&subscription].destination_id;
        self.transports.seen().iter().filter(|seen| seen.destination == destination).map(|seen| seen.event).collect()
    }
}

/// A destination that is asked to bear whatever comes.
fn no_limits() -> DestinationLimits {
    DestinationLimits {
        retry_budget: RetryBudget { share: 10.0, floor_per_second: 100_000.0 },
        breaker: BreakerPolicy { enabled: false, ..BreakerPolicy::default() },
        ..DestinationLimits::default()
    }
}

/// A schedule of short waits.
pub(crate) fn quick_retries(waits: &[u64]) -> RetryPolicy {
    RetryPolicy { schedule_s: waits.to_vec(), ..RetryPolicy::default() }
}
