//! One life of the tree: it starts on what the disk holds, things happen to it, and it ends well or badly.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Features, World,
    destinations::Mood,
    disk::{Manners, SimLog},
    programs::{SimPrograms, SimProviders},
    scenario,
};
use crate::{
    configuration::{Kind, Write},
    domain::{
        config::{Destination, DestinationStatus, Integration, IntegrationStatus, Resource, ResourceKey, Subscription},
        event::{Arrival, NewEvent},
        headers::HeaderBlock,
        ids::{DestinationId, EndpointId, IntegrationId},
    },
    ports::{
        clock::Clock,
        event_log::{EventLog, LogError},
    },
    router::CommitBoard,
    snapshot::Compiler,
    testkit::{
        stubs::{OpenSealer, ThirdParties},
        test_clock::TestClock,
    },
    tree::{Ports, StartError, Tree, TreeHandle, TreeOptions},
};

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Stopped,
    Killed,
}

/// A running tree and what it runs on.
pub(super) struct Life {
    pub(super) tree: Tree,
    pub(super) log: SimLog,
    pub(super) clock: Arc<TestClock>,
    pub(super) rng: fastrand::Rng,
    pub(super) features: Features,
}

/// What keeps a life from going on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    /// The tree gave up or did not come up.
    #[error("the tree gave up")]
    GaveUp,
    /// The log takes no more.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Life {
    pub(super) async fn start(
        world: &World,
        manners: Manners,
        rng: fastrand::Rng,
    ) -> (SimLog, Result<Self, StartError>) {
        let clock = Arc::new(TestClock::default());
        let since = i64::try_from(world.wall_ms).unwrap_or(i64::MAX) - i64::try_from(clock.now_ms()).unwrap_or(0);
        clock.jump(since);
        let board = Arc::new(CommitBoard::default());
        let mut own = rng.clone();
        let log = SimLog::open(world.watch.disk.clone(), board.clone(), clock.clone(), manners, own.fork());
        let ports = Ports {
            log: Arc::new(log.clone()),
            state: Arc::new(log.state()),
            config: Arc::new(world.watch.disk.config.clone()),
            compiler: Compiler {
                providers: Arc::new(SimProviders),
                transports: Arc::new(world.destinations.clone()),
                sealer: Arc::new(OpenSealer),
                programs: Arc::new(SimPrograms),
            },
            connections: Arc::new(ThirdParties::default()),
            clock: clock.clone(),
        };
        let options = TreeOptions { retention: world.scenario.retention, ..TreeOptions::default() };
        let started = Tree::start(ports, options, board).await;
        let features = world.features;
        (log.clone(), started.map(|tree| Self { tree, log, clock, rng: own, features }))
    }

    pub(super) fn handle(&self) -> &TreeHandle {
        self.tree.handle()
    }

    /// Everything that is configured at the beginning of a run.
    pub(super) async fn configure(&mut self, world: &World) -> Result<(), Cut> {
        for _ in 0..world.scenario.integrations {
            let ResourceKey::Integration(id) = self.handle().config().reserve(Kind::Integration) else { continue };
            let endpoint = scenario::endpoint(id, &mut self.rng, self.features);
            self.write(world, vec![Resource::Integration(scenario::integration(id)), Resource::Endpoint(endpoint)])
                .await;
            for _ in 0..self.rng.u32(1..=3) {
                self.subscribe(world, id).await;
            }
        }
        Ok(())
    }

    /// A new subscription, to a destination of its own or to one that it shares.
    async fn subscribe(&mut self, world: &World, integration: IntegrationId) {
        let config = self.handle().config().clone();
        let configuration = config.current().configuration.clone();
        let shared: Vec<DestinationId> =
            configuration.destinations.values().filter(|it| it.name == "shared").map(|it| it.id).collect();
        let share = self.rng.u8(..3) == 0;
        let mut resources = Vec::new();
        let destination = match self.rng.choice(shared).filter(|_| share) {
            Some(destination) => destination,
            None => {
                let ResourceKey::Destination(id) = config.reserve(Kind::Destination) else { return };
                let mut destination = scenario::destination(id, &mut self.rng, self.features);
                if share {
                    "shared".clone_into(&mut destination.name);
                }
                resources.push(Resource::Destination(destination));
                id
            }
        };
        let ResourceKey::Subscription(id) = config.reserve(Kind::Subscription) else { return };
        let start = self.log.last_committed();
        let to = (destination, share);
        let subscription = scenario::subscription(id, integration, to, start, &mut self.rng, self.features);
        resources.push(Resource::Subscription(subscription));
        self.write(world, resources).await;
    }

    /// Writes resources, and tells the watch what stands.
    pub(super) async fn write(&self, world: &World, resources: Vec<Resource>) {
        let current = self.handle().config().current().configuration.clone();
        let writes: Vec<Write> = resources
            .into_iter()
            .map(|resource| Write {
                key: resource.key(),
                expected_version: current.get(resource.key()).map(|it| it.meta().version),
                resource: Some(resource),
            })
            .collect();
        let keys: Vec<ResourceKey> = writes.iter().map(|write| write.key).collect();
        // Known before it is in force: it may act at once.
        world.watch.set_changing(true);
        for write in &writes {
            match &write.resource {
                Some(Resource::Subscription(subscription)) => world.watch.configured(subscription, false),
                Some(Resource::Destination(destination)) => {
                    world.watch.limited(destination);
                    if destination.status == DestinationStatus::Active {
                        world.watch.roused(|subscription| subscription.destination_id == destination.id);
                    }
                }
                Some(Resource::Integration(integration)) if integration.status == IntegrationStatus::Active => {
                    world.watch.roused(|subscription| subscription.integration_id == integration.id);
                }
                _ => {}
            }
        }
        let written = self.handle().config().write("simulation", writes).await;
        world.watch.note(format!("write {keys:?}: {:?}", written.is_ok()));
        self.tell(world);
        world.watch.set_changing(false);
    }

    /// What the subscriptions may do now.
    fn tell(&self, world: &World) {
        let snapshot = self.handle().config().current();
        for plan in snapshot.plans.values() {
            world.watch.configured(&plan.subscription, !plan.running);
        }
    }

    async fn delete(&self, world: &World, subscription: &Subscription) {
        let write = Write {
            key: ResourceKey::Subscription(subscription.id),
            expected_version: Some(subscription.meta.version),
            resource: None,
        };
        let deleted = self.handle().config().write("simulation", vec![write]).await.is_ok();
        world.watch.note(format!("delete subscription {}: {deleted}", subscription.id));
        if deleted {
            world.watch.deleted(subscription.id);
        }
    }

    /// Things happen, until the life ends.
    pub(super) async fn happen(&mut self, world: &mut World) -> Result<End, Cut> {
        for _ in 0..world.scenario.steps {
            let longest = *self.rng.choice([0, 5, 200, 5_000, 60_000]).get_or_insert(0);
            let pause = self.rng.u64(..=longest);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if self.gave_up() {
                return Err(Cut::GaveUp);
            }
            self.step(world).await?;
            world.watch.look_at_orders();
        }
        let wait = self.rng.u64(..=2_000);
        Ok(match self.rng.u8(..4) {
            0 => End::Stopped,
            1 => {
                world.watch.note("the log fails");
                self.log.fail();
                tokio::time::sleep(Duration::from_millis(wait)).await;
                End::Killed
            }
            _ => {
                tokio::time::sleep(Duration::from_millis(wait / 20)).await;
                End::Killed
            }
        })
    }

    fn gave_up(&self) -> bool {
        !self.handle().readiness().is_empty() && self.tree.has_ended()
    }

    async fn step(&mut self, world: &mut World) -> Result<(), Cut> {
        match self.rng.u8(..20) {
            0..=9 => self.post(world)?,
            10..=13 => self.change_mood(world),
            14 | 15 => self.operate(world).await,
            16 if world.scenario.clock_jumps => {
                let by_ms = self.rng.i64(-600_000..=600_000);
                world.watch.note(format!("the clock jumps by {by_ms} ms"));
                world.watch.jumped();
                self.clock.jump(by_ms);
            }
            16..=19 => self.reconfigure(world).await,
            _ => {}
        }
        Ok(())
    }

    fn post(&mut self, world: &mut World) -> Result<(), Cut> {
        let integration = IntegrationId(self.rng.u32(1..=world.scenario.integrations));
        let count = match self.rng.u8(..10) {
            0 => self.rng.u32(20..=120),
            _ => self.rng.u32(1..=8),
        };
        world.watch.note(format!("post {count} to {integration}"));
        for _ in 0..count {
            world.serial += 1;
            // A provider that heard no answer sends the same again.
            let body =
                match self.rng.choice(&world.sent).filter(|_| self.features.dedup && world.serial.is_multiple_of(5)) {
                    Some(body) => body.clone(),
                    None => scenario::body(world.serial, &mut self.rng, self.features),
                };
            if body.ends_with("fault") || body.ends_with("boom") {
                world.watch.faulty();
            }
            world.sent.push(body.clone());
            let arrival = Arrival {
                endpoint: EndpointId(integration.0),
                received_at_ms: self.clock.now_ms(),
                accepted_version: 1,
                peer: Ipv4Addr::LOCALHOST.into(),
                hops: 0,
                query: "".into(),
                headers: HeaderBlock::default(),
                body: Bytes::from(body),
            };
            let committing = self.log.append(NewEvent { integration, arrival })?;
            let watch = world.watch.clone();
            tokio::spawn(async move {
                if let Ok(id) = committing.await {
                    watch.acknowledged(id);
                }
            });
        }
        Ok(())
    }

    fn change_mood(&mut self, world: &World) {
        let destinations: Vec<DestinationId> =
            self.handle().config().current().configuration.destinations.keys().copied().collect();
        let Some(destination) = self.rng.choice(destinations) else { return };
        let mut moods = vec![
            Mood::Quick,
            Mood::Quick,
            Mood::Slow,
            Mood::Moody,
            Mood::Moody,
            Mood::Answers(500),
            Mood::Answers(503),
        ];
        moods.extend([Mood::Answers(400), Mood::Answers(429), Mood::Answers(410), Mood::Hangs, Mood::Panics]);
        let Some(mood) = self.rng.choice(moods) else { return };
        world.watch.note(format!("destination {destination} becomes {mood:?}"));
        world.destinations.set_mood(destination, mood);
    }

    async fn reconfigure(&mut self, world: &World) {
        let configuration = self.handle().config().current().configuration.clone();
        let Some(mut subscription) =
            self.rng.choice(configuration.subscriptions.values().map(|it| Subscription::clone(it)))
        else {
            return;
        };
        let Some(mut destination) =
            self.rng.choice(configuration.destinations.values().map(|it| Destination::clone(it)))
        else {
            return;
        };
        let Some(mut integration) =
            self.rng.choice(configuration.integrations.values().map(|it| Integration::clone(it)))
        else {
            return;
        };
        match self.rng.u8(..12) {
            0..=2 => {
                subscription.active = !subscription.active;
                self.write(world, vec![Resource::Subscription(subscription)]).await;
            }
            3 | 4 => {
                destination.status = match destination.status {
                    DestinationStatus::Active => DestinationStatus::Paused,
                    DestinationStatus::Paused => DestinationStatus::Active,
                };
                self.write(world, vec![Resource::Destination(destination)]).await;
            }
            5 => {
                integration.status = match integration.status {
                    IntegrationStatus::Inactive => IntegrationStatus::Active,
                    _ => IntegrationStatus::Inactive,
                };
                self.write(world, vec![Resource::Integration(integration)]).await;
            }
            6 => {
                self.delete(world, &subscription).await;
                self.subscribe(world, subscription.integration_id).await;
            }
            7 | 8 => {
                subscription.in_flight_max = *self.rng.choice([1, 3, 8, 32]).get_or_insert(8);
                self.write(world, vec![Resource::Subscription(subscription)]).await;
            }
            9 if self.features.order_changes => {
                subscription.order = scenario::order(&mut self.rng, self.features);
                self.write(world, vec![Resource::Subscription(subscription)]).await;
            }
            10 => {
                let restarted = self.handle().restart("operator", integration.id).await;
                world.watch.note(format!("restart integration {}: {}", integration.id, restarted.is_ok()));
            }
            _ => self.subscribe(world, integration.id).await,
        }
    }

    /// The world is kind again, and operators do their part.
    pub(super) async fn heal(&mut self, world: &mut World) {
        world.watch.note("everything heals");
        world.destinations.heal();
        self.log.set_manners(Manners { commit_ms_max: 5, read_ms_max: 0, reads_failing: 0 });
        self.care(world).await;
    }
}
