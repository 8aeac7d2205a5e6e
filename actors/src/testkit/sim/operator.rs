//! What operators do beside configuring: send again, take away, and care for what waits for them.

use super::{World, life::Life, orders::Discard};
use crate::{
    domain::{
        config::{
            Configuration, Destination, DestinationStatus, Integration, IntegrationStatus, Resource, Subscription,
        },
        delivery::{DeadLetter, DeadReason},
        ids::{EndpointId, EventId, ReplayId, SubscriptionId},
        order::{OnFailure, Order},
        replay::{DeadLetterFilter, EventFilter, ReplayJob, ReplayQuery, ReplayStatus},
        standing::Standing,
    },
    ports::{clock::Clock, event_log::EventLog, state_store::StateStore},
    replay::{NewReplay, ReplayCommand},
};

const OPERATOR: &str = "operator";
/// More letters than any run has.
const LETTERS_MAX: usize = 100_000;

impl Life {
    pub(super) async fn operate(&mut self, world: &mut World) {
        if !self.features.replays {
            return self.replay_letter(world).await;
        }
        match self.rng.u8(..13) {
            0 | 1 => self.replay_letter(world).await,
            2 | 3 => self.replay_event(world).await,
            4..=6 => self.create_job(world).await,
            7..=9 => self.command_job(world).await,
            10 | 11 => self.discard_letter(world).await,
            _ => self.discard_letters(world).await,
        }
    }

    async fn a_letter(&mut self) -> Option<DeadLetter> {
        let letters = self.handle().ports().state.dead_letters(None, 50).await.ok()?;
        self.rng.choice(letters)
    }

    async fn replay_letter(&mut self, world: &World) {
        let Some(letter) = self.a_letter().await else { return };
        self.replay(world, letter.subscription, letter.event).await;
    }

    /// A dead letter again.
    async fn replay(&self, world: &World, subscription: SubscriptionId, event: EventId) {
        // Asked for from the moment that it is written down, acknowledged or not.
        world.watch.disk.orders(|orders| orders.single((subscription, event)));
        let replayed = self.handle().replay(OPERATOR, subscription, event).await;
        world.watch.note(format!("replay {subscription} {event}: {}", replayed.is_ok()));
    }

    /// Any event, to any subscription.
    async fn replay_event(&mut self, world: &World) {
        let Some(event) = self.rng.choice(world.watch.disk.accepted()).map(|event| event.id) else { return };
        let configuration = self.handle().config().current().configuration.clone();
        let own = configuration.subscriptions.values().filter(|it| it.integration_id == event.integration());
        let own: Vec<SubscriptionId> = own.map(|it| it.id).collect();
        let Some(subscription) = self.rng.choice(own) else { return };
        world.watch.disk.orders(|orders| orders.single((subscription, event)));
        let replayed = self.handle().replay_event(OPERATOR, subscription, event).await;
        world.watch.note(format!("replay event {subscription} {event}: {replayed:?}"));
    }

    async fn create_job(&mut self, world: &World) {
        let configuration = self.handle().config().current().configuration.clone();
        let known: Vec<Subscription> = world.watch.seen().known.values().map(|it| it.subscription.clone()).collect();
        // Deleted ones may have left letters.
        let Some(of) = self.rng.choice(known) else { return };
        let beside = configuration.subscriptions.values().filter(|it| it.integration_id == of.integration_id);
        let beside: Vec<SubscriptionId> = beside.map(|it| it.id).collect();
        let query = if self.rng.bool() {
            ReplayQuery::DeadLetters(self.letter_filter(Some(&of)))
        } else {
            ReplayQuery::Events(self.event_filter(&of))
        };
        let wanted = NewReplay {
            query,
            target: self.rng.choice(beside).filter(|_| self.rng.u8(..3) == 0),
            rate_per_s: *self.rng.choice([1, 5, 40, 1_000]).get_or_insert(1),
            start: self.rng.u8(..4) > 0,
        };
        let newest = self.log.last_committed();
        let created = self.handle().create_replay(OPERATOR, wanted.clone()).await;
        world.watch.note(format!("create {wanted:?}: {created:?}"));
        let Ok(job) = created else { return };
        let stored = world.watch.disk.state.job(job.id).await.ok().flatten();
        if stored.is_none() {
            world.watch.breaks(format!("replay {} was acknowledged, and is not on the disk", job.id));
        }
        if matches!(job.query, ReplayQuery::DeadLetters(_)) && job.upto < newest {
            world.watch.breaks(format!("replay {} ends before what was stored when it was made", job.id));
        }
    }

    fn letter_filter(&mut self, of: Option<&Subscription>) -> DeadLetterFilter {
        let now_ms = self.clock.now_ms();
        let reasons =
            [DeadReason::AttemptsExhausted, DeadReason::Refused, DeadReason::Expired, DeadReason::FilterFailed];
        let of = of.filter(|_| self.rng.u8(..4) > 0);
        DeadLetterFilter {
            integration: of.map(|it| it.integration_id).filter(|_| self.rng.bool()),
            subscription: of.map(|it| it.id),
            reason: self.rng.choice(reasons).filter(|_| self.rng.u8(..4) == 0),
            from_ms: (self.rng.u8(..4) == 0).then(|| now_ms - self.rng.u64(..=120_000)),
            to_ms: (self.rng.u8(..4) == 0).then(|| now_ms - self.rng.u64(..=60_000)),
        }
    }

    fn event_filter(&mut self, of: &Subscription) -> EventFilter {
        let now_ms = self.clock.now_ms();
        let standings = [
            Standing::Delivered,
            Standing::Delivered,
            Standing::Dead,
            Standing::Filtered,
            Standing::Duplicate,
            Standing::Discarded,
        ];
        let types = [vec!["pay.*".to_owned()], vec!["ping".to_owned()], Vec::new(), Vec::new()];
        EventFilter {
            integration: of.integration_id,
            subscription: of.id,
            types: self.rng.choice(types).unwrap_or_default(),
            endpoint: Some(EndpointId(of.integration_id.0)).filter(|_| self.rng.bool()),
            standing: self.rng.choice(standings).filter(|_| self.rng.u8(..4) > 0),
            from_ms: self.rng.bool().then(|| now_ms - self.rng.u64(..=600_000)),
            to_ms: (self.rng.u8(..4) == 0).then(|| now_ms - self.rng.u64(..=60_000)),
        }
    }

    async fn command_job(&mut self, world: &World) {
        let jobs = self.jobs().await;
        let going: Vec<ReplayId> = jobs.iter().filter(|job| !job.status.has_ended()).map(|job| job.id).collect();
        let Some(id) = self.rng.choice(going) else { return };
        let commands = [
            ReplayCommand::Start,
            ReplayCommand::Start,
            ReplayCommand::Pause,
            ReplayCommand::Resume,
            ReplayCommand::Cancel,
        ];
        let Some(command) = self.rng.choice(commands) else { return };
        self.command(world, id, command).await;
    }

    async fn command(&self, world: &World, id: ReplayId, command: ReplayCommand) {
        let done = self.handle().command_replay(OPERATOR, id, command).await;
        world.watch.note(format!("replay {id}: {command:?}: {:?}", done.map(|job| job.status)));
    }

    async fn jobs(&self) -> Vec<ReplayJob> {
        self.handle().ports().state.jobs().await.unwrap_or_default()
    }

    async fn discard_letter(&mut self, world: &mut World) {
        let Some(letter) = self.a_letter().await else { return };
        self.discard(world, letter.subscription, letter.event).await;
    }

    async fn discard(&self, world: &mut World, subscription: SubscriptionId, event: EventId) {
        world.serial += 1;
        let reason = format!("reason {}", world.serial);
        world.watch.disk.orders(|orders| orders.discard(reason.clone(), Discard::One((subscription, event))));
        let discarded = self.handle().discard(OPERATOR, subscription, event, &reason).await;
        world.watch.note(format!("discard {subscription} {event}, {reason}: {discarded:?}"));
        if discarded.is_ok() {
            world.reasons.push(reason);
        }
    }

    async fn discard_letters(&mut self, world: &mut World) {
        let known: Vec<Subscription> = world.watch.seen().known.values().map(|it| it.subscription.clone()).collect();
        let of = self.rng.choice(known);
        let filter = self.letter_filter(of.as_ref());
        world.serial += 1;
        let reason = format!("reason {}", world.serial);
        world.watch.disk.orders(|orders| orders.discard(reason.clone(), Discard::Many(filter.clone())));
        let stood = world.watch.disk.state.dead_letters(None, LETTERS_MAX).await.unwrap_or_default();
        let (mut after, mut discarded) = (None, 0);
        loop {
            let Ok(some) = self.handle().discard_many(OPERATOR, filter.clone(), after, &reason).await else { return };
            discarded += some.discarded;
            after = some.next;
            if after.is_none() {
                break;
            }
        }
        world.watch.note(format!("discard {filter:?}, {reason}: {discarded}"));
        if discarded > 0 {
            world.reasons.push(reason);
        }
        let left = world.watch.disk.state.dead_letters(None, LETTERS_MAX).await.unwrap_or_default();
        if let Some(letter) = stood.iter().find(|letter| filter.passes(letter) && left.contains(letter)) {
            world.watch.breaks(format!("a discard left {letter:?}, which passes {filter:?}"));
        }
    }

    /// What an operator who watches would do: switch on what rests, send again what holds others back.
    pub(super) async fn care(&self, world: &mut World) {
        let configuration = self.handle().config().current().configuration.clone();
        let mut changed = Vec::new();
        for integration in configuration.integrations.values().filter(|it| it.status != IntegrationStatus::Active) {
            let active = Integration { status: IntegrationStatus::Active, ..Integration::clone(integration) };
            changed.push(Resource::Integration(active));
        }
        for destination in configuration.destinations.values().filter(|it| it.status != DestinationStatus::Active) {
            let status = DestinationStatus::Active;
            changed.push(Resource::Destination(Destination { status, ..Destination::clone(destination) }));
        }
        for subscription in configuration.subscriptions.values().filter(|it| !it.active) {
            changed.push(Resource::Subscription(Subscription { active: true, ..Subscription::clone(subscription) }));
        }
        if !changed.is_empty() {
            self.write(world, changed).await;
        }
        for job in self.jobs().await {
            match job.status {
                ReplayStatus::Planned => self.command(world, job.id, ReplayCommand::Start).await,
                ReplayStatus::Paused => self.command(world, job.id, ReplayCommand::Resume).await,
                _ => {}
            }
        }
        self.free_orders(world, &configuration).await;
    }

    /// What holds an order back is sent again; where that is hopeless, it is taken away, or the order gives way.
    async fn free_orders(&self, world: &mut World, configuration: &Configuration) {
        let Ok(letters) = self.handle().ports().state.dead_letters(None, usize::MAX).await else { return };
        for letter in letters {
            let Some(subscription) = configuration.subscriptions.get(&letter.subscription) else { continue };
            let blocks = subscription.order.on_failure() == Some(OnFailure::Block);
            let hopeless =
                world.watch.disk.accepted_event(letter.event).is_none_or(|event| {
                    event.arrival.body.ends_with(b"fault") || event.arrival.body.ends_with(b"boom")
                });
            if blocks && hopeless && self.features.replays && letter.event.sequence() % 2 == 0 {
                self.discard(world, letter.subscription, letter.event).await;
                continue;
            }
            if blocks && hopeless {
                let order = match &subscription.order {
                    Order::FifoByKey { key, .. } => Order::FifoByKey { key: key.clone(), on_failure: OnFailure::Park },
                    _ => Order::Fifo { on_failure: OnFailure::Park },
                };
                self.write(
                    world,
                    vec![Resource::Subscription(Subscription { order, ..Subscription::clone(subscription) })],
                )
                .await;
                return;
            }
            if blocks {
                self.replay(world, letter.subscription, letter.event).await;
            }
        }
    }
}
