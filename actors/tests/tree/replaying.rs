//! What was delivered, filtered or given up is sent again: one by one, or in bulk, by a plan, at a rate, and exactly
//! what the plan covered, whatever happens meanwhile.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hookmill_actors::{
    domain::{
        config::{Resource, ResourceKey},
        delivery::DeliveryStatus,
        ids::{EventId, IntegrationId, ReplayId, SubscriptionId},
        replay::{DeadLetterFilter, EventFilter, ReplayJob, ReplayQuery, ReplayStatus},
        standing::Standing,
    },
    ports::{clock::Clock, state_store::StateStore, transport::Verdict},
    replay::{NewReplay, ReplayCommand, ReplayError},
    scheduler::Retention,
    testkit::scripted_transport::{ScriptedTransports, Seen, Step},
    tree::TreeOptions,
};

use crate::world::{World, quick_retries};

pub(crate) const FAIL: Step = Step::Answer(Verdict::Retry { after: None }, Duration::from_millis(1));
pub(crate) const OK: Step = Step::Answer(Verdict::Delivered, Duration::from_millis(1));

/// A world whose destinations are down until told otherwise.
pub(crate) struct Down {
    pub(crate) world: World,
    outage: Arc<AtomicBool>,
    pub(crate) integration: IntegrationId,
    pub(crate) subscription: SubscriptionId,
}

impl Down {
    pub(crate) async fn start() -> Self {
        Self::start_with(TreeOptions::default()).await
    }

    pub(crate) async fn start_with(options: TreeOptions) -> Self {
        let down = Arc::new(AtomicBool::new(true));
        let is_down = down.clone();
        let script = move |_, _: &_| if is_down.load(Ordering::Relaxed) { FAIL } else { OK };
        let world = World::start_with(ScriptedTransports::new(script), options).await;
        let integration = world.integration().await;
        let subscription = world.subscription(integration, quick_retries(&[])).await;
        Self { world, outage: down, integration, subscription }
    }

    /// So many events that stand in the dead letter.
    pub(crate) async fn dead(&self, count: usize) -> Vec<EventId> {
        let events = self.world.post_many(self.integration, count).await;
        self.world.until(self.subscription, &events, DeliveryStatus::Dead).await;
        events
    }

    fn up(&self) {
        self.outage.store(false, Ordering::Relaxed);
    }
}

pub(crate) fn dead_letters(rate_per_s: u32, start: bool) -> NewReplay {
    NewReplay { query: ReplayQuery::DeadLetters(DeadLetterFilter::default()), target: None, rate_per_s, start }
}

pub(crate) fn events_of(integration: IntegrationId, subscription: SubscriptionId) -> EventFilter {
    EventFilter {
        integration,
        subscription,
        types: Vec::new(),
        endpoint: None,
        standing: None,
        from_ms: None,
        to_ms: None,
    }
}

fn events(filter: EventFilter, target: Option<SubscriptionId>) -> NewReplay {
    NewReplay { query: ReplayQuery::Events(filter), target, rate_per_s: 1_000, start: true }
}

pub(crate) async fn create(world: &World, wanted: NewReplay) -> ReplayId {
    world.handle().create_replay("operator", wanted).await.expect("a valid replay").id
}

async fn job(world: &World, id: ReplayId) -> ReplayJob {
    world.state.job(id).await.expect("the state answers").expect("it is remembered")
}

pub(crate) async fn until(world: &World, id: ReplayId, wanted: ReplayStatus) -> ReplayJob {
    for _ in 0..20_000 {
        let job = job(world, id).await;
        if job.status == wanted {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the replay did not become {wanted:?}: {:?}", job(world, id).await);
}

pub(crate) async fn command(world: &World, id: ReplayId, command: ReplayCommand) -> ReplayStatus {
    world.handle().command_replay("operator", id, command).await.expect("it is possible now").status
}

fn replays(world: &World) -> Vec<Seen> {
    world.transports.seen().into_iter().filter(|seen| seen.replay).collect()
}

pub(crate) fn replayed_events(world: &World) -> Vec<EventId> {
    replays(world).iter().map(|seen| seen.event).collect()
}

fn activities(world: &World) -> Vec<String> {
    let entries = world.config.newest_activities(1_000);
    entries.into_iter().rev().map(|entry| entry.activity.action).collect()
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_how_many_and_which_before_anything_is_sent() {
    let it = Down::start().await;
    let dead = it.dead(1_500).await;
    it.up();
    let id = create(&it.world, dead_letters(100, false)).await;
    let planned = until(&it.world, id, ReplayStatus::Planned).await;
    assert_eq!((planned.counts.planned, planned.remaining_s()), (1_500, 15));
    let sample: Vec<EventId> = planned.sample.iter().map(|item| item.event).collect();
    assert_eq!(sample, dead[..10]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(replays(&it.world).len(), 0, "it waits for its start");

    assert_eq!(command(&it.world, id, ReplayCommand::Start).await, ReplayStatus::Running);
    let done = until(&it.world, id, ReplayStatus::Done).await;
    assert_eq!((done.counts.replayed, done.counts.skipped), (1_500, 0));
    it.world.until(it.subscription, &dead, DeliveryStatus::Delivered).await;
    assert_eq!(replayed_events(&it.world).len(), 1_500);
    assert_eq!(it.world.state.counts().await.unwrap().dead, 0);
    let noted = activities(&it.world);
    for action in ["replay.created", "replay.started", "replay.done"] {
        assert!(noted.iter().any(|it| it == action), "{action}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_the_plan_is_not_part_of_it() {
    let it = Down::start().await;
    let dead = it.dead(20).await;
    let id = create(&it.world, dead_letters(1_000, false)).await;
    until(&it.world, id, ReplayStatus::Planned).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let later = it.dead(20).await;
    // One is sent by hand meanwhile and dies again: what stands there now is not what the plan covered.
    it.world.handle().replay("operator", it.subscription, dead[3]).await.expect("it is dead");
    it.world.until(it.subscription, &dead[3..4], DeliveryStatus::Dead).await;
    it.up();
    it.world.handle().replay("operator", it.subscription, dead[4]).await.expect("it is dead");
    it.world.until(it.subscription, &dead[4..5], DeliveryStatus::Delivered).await;
    let by_hand = replays(&it.world).len();
    command(&it.world, id, ReplayCommand::Start).await;
    let done = until(&it.world, id, ReplayStatus::Done).await;
    assert_eq!((done.counts.planned, done.counts.replayed, done.counts.skipped), (20, 18, 2));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let sent: BTreeSet<EventId> = replayed_events(&it.world)[by_hand..].iter().copied().collect();
    let covered: BTreeSet<EventId> = dead.iter().copied().filter(|event| ![dead[3], dead[4]].contains(event)).collect();
    assert_eq!(sent, covered);
    for event in &later {
        assert_eq!(it.world.status(it.subscription, *event).await, DeliveryStatus::Dead);
    }
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_held() {
    let it = Down::start().await;
    it.dead(200).await;
    it.up();
    let began = it.world.clock.now_ms();
    let id = create(&it.world, dead_letters(10, true)).await;
    until(&it.world, id, ReplayStatus::Done).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let at: Vec<u64> = replays(&it.world).iter().map(|seen| seen.at_ms - began).collect();
    assert_eq!(at.len(), 200);
    let took = at.last().unwrap() - at.first().unwrap();
    assert!((19_000..22_000).contains(&took), "200 at 10 a second took {took} ms");
    for (index, from) in at.iter().enumerate() {
        let within = at[index..].iter().take_while(|later| *later - from < 1_000).count();
        assert!(within <= 12, "{within} within a second");
    }
}

#[tokio::test(start_paused = true)]
async fn it_pauses_resumes_and_is_cancelled() {
    let it = Down::start().await;
    let dead = it.dead(300).await;
    it.up();
    let id = create(&it.world, dead_letters(10, true)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(command(&it.world, id, ReplayCommand::Pause).await, ReplayStatus::Paused);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = replays(&it.world).len();
    assert!((40..=60).contains(&before), "{before} after five seconds at 10 a second");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(replays(&it.world).len(), before, "it rests");
    let again = it.world.handle().command_replay("operator", id, ReplayCommand::Pause).await;
    assert!(matches!(again, Err(ReplayError::WrongStatus { .. })));

    command(&it.world, id, ReplayCommand::Resume).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let resumed = replays(&it.world).len() - before;
    assert!((40..=65).contains(&resumed), "{resumed} in five seconds after ten minutes of rest: no burst");
    assert_eq!(command(&it.world, id, ReplayCommand::Cancel).await, ReplayStatus::Cancelled);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let sent = replays(&it.world).len();
    let cancelled = job(&it.world, id).await;
    assert_eq!(cancelled.counts.replayed, sent as u64, "what was due is delivered, nothing else");
    let standing = it.world.state.counts().await.unwrap().dead;
    assert_eq!(standing, (dead.len() - sent) as u64);
    for command in [ReplayCommand::Start, ReplayCommand::Pause, ReplayCommand::Resume, ReplayCommand::Cancel] {
        let refused = it.world.handle().command_replay("operator", id, command).await;
        assert!(matches!(refused, Err(ReplayError::WrongStatus { .. })), "{command:?}");
    }
    let unknown = it.world.handle().command_replay("operator", ReplayId(99), ReplayCommand::Cancel).await;
    assert_eq!(unknown, Err(ReplayError::NoJob(ReplayId(99))));
}

#[tokio::test(start_paused = true)]
async fn crashes_in_the_middle_neither_repeat_nor_lose_any() {
    let it = Down::start().await;
    let dead = it.dead(200).await;
    it.up();
    let id = create(&it.world, dead_letters(20, true)).await;
    let Down { mut world, subscription, .. } = it;
    for _ in 0..8 {
        // Between two batches, with what the last one sent recorded: no delivery is under way.
        tokio::time::sleep(Duration::from_millis(1_080)).await;
        world = world.crash_and_restart().await;
    }
    let done = until(&world, id, ReplayStatus::Done).await;
    world.until(subscription, &dead, DeliveryStatus::Delivered).await;
    assert_eq!((done.counts.planned, done.counts.replayed, done.counts.skipped), (200, 200, 0));
    let sent = replayed_events(&world);
    assert_eq!(sent.iter().copied().collect::<BTreeSet<_>>(), dead.iter().copied().collect());
    assert_eq!(sent.len(), 200, "each exactly once");
}

#[tokio::test(start_paused = true)]
async fn a_plan_and_a_pause_outlive_a_crash() {
    let it = Down::start().await;
    it.dead(50).await;
    it.up();
    let planned = create(&it.world, dead_letters(10, false)).await;
    let paused = create(&it.world, dead_letters(10, true)).await;
    until(&it.world, planned, ReplayStatus::Planned).await;
    until(&it.world, paused, ReplayStatus::Running).await;
    command(&it.world, paused, ReplayCommand::Pause).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = replays(&it.world).len();
    let world = it.world.crash_and_restart().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(job(&world, planned).await.status, ReplayStatus::Planned);
    assert_eq!(job(&world, paused).await.status, ReplayStatus::Paused);
    assert_eq!(replays(&world).len(), before);
    let third = create(&world, dead_letters(10, false)).await;
    assert_eq!(third.0, paused.0 + 1, "numbers go on");
}

#[tokio::test(start_paused = true)]
async fn stored_events_go_to_another_subscription_by_type_and_time() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let first = world.subscription(integration, quick_retries(&[])).await;
    let early = world.post(integration, "payment.failed").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let from_ms = world.clock.now_ms();
    let mut wanted = Vec::new();
    for _ in 0..300 {
        wanted.push(world.post(integration, "payment.failed").await);
        world.post(integration, "refund.succeeded").await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let to_ms = world.clock.now_ms();
    let late = world.post(integration, "payment.failed").await;
    world.until(first, &[early, late], DeliveryStatus::Delivered).await;
    let second = world.subscription(integration, quick_retries(&[])).await;
    let filter = EventFilter {
        types: vec!["payment.*".to_owned()],
        from_ms: Some(from_ms),
        to_ms: Some(to_ms),
        ..events_of(integration, first)
    };
    let id = create(&world, events(filter, Some(second))).await;
    let done = until(&world, id, ReplayStatus::Done).await;
    assert_eq!((done.counts.planned, done.counts.replayed), (300, 300));
    world.until(second, &wanted, DeliveryStatus::Delivered).await;
    assert_eq!(world.arrivals(second), wanted);
    assert!(replays(&world).iter().all(|seen| seen.attempt == 1));
    assert_eq!(world.arrivals(first).len(), 602, "the first subscription gets nothing again");
}

#[tokio::test(start_paused = true)]
async fn filtered_events_are_found_and_those_on_their_way_are_skipped() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[3_600])).await;
    let key = ResourceKey::Subscription(subscription);
    let takes = |pattern: &'static str| {
        move |resource: &mut Resource| {
            let Resource::Subscription(it) = resource else { unreachable!() };
            it.selection.types = vec![pattern.to_owned()];
        }
    };
    world.update(key, takes("payment.*")).await;
    let payment = world.post(integration, "payment.failed").await;
    let refund = world.post(integration, "refund.succeeded").await;
    world.until(subscription, &[payment], DeliveryStatus::Delivered).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let filter = EventFilter { standing: Some(Standing::Filtered), ..events_of(integration, subscription) };
    let id = create(&world, events(filter, None)).await;
    until(&world, id, ReplayStatus::Done).await;
    world.until(subscription, &[refund], DeliveryStatus::Delivered).await;
    assert_eq!(replayed_events(&world), [refund]);

    world.transports.set_script(|_, _| FAIL);
    let failing = world.post(integration, "payment.failed").await;
    world.until(subscription, &[failing], DeliveryStatus::Retrying).await;
    let by_hand = world.handle().replay_event("operator", subscription, failing).await;
    assert_eq!(by_hand, Err(ReplayError::OnItsWay { event: failing, subscription }));
    world.transports.set_script(|_, _| OK);
    let id = create(&world, events(events_of(integration, subscription), None)).await;
    let done = until(&world, id, ReplayStatus::Done).await;
    assert_eq!((done.counts.planned, done.counts.replayed, done.counts.skipped), (3, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn live_events_go_first() {
    let it = Down::start().await;
    let dead = it.dead(3_000).await;
    it.world.transports.set_script(|_, _| Step::Answer(Verdict::Delivered, Duration::from_millis(500)));
    let id = create(&it.world, dead_letters(5_000, true)).await;
    until(&it.world, id, ReplayStatus::Running).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let due = it.world.state.counts().await.unwrap().due;
    assert!(due <= 256, "{due} are due: the rest waits in the dead letter");
    let waiting = job(&it.world, id).await;
    assert!(waiting.note.contains("are due already"), "{:?}", waiting.note);
    let fresh = it.world.post_many(it.integration, 48).await;
    let began = tokio::time::Instant::now();
    it.world.until(it.subscription, &fresh, DeliveryStatus::Delivered).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?} for four windows of half a second", began.elapsed());
    until(&it.world, id, ReplayStatus::Done).await;
    it.world.until(it.subscription, &dead, DeliveryStatus::Delivered).await;
    assert_eq!(replayed_events(&it.world).len(), 3_000);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_falls_behind_gets_no_replays_until_it_catches_up() {
    let it = Down::start().await;
    it.dead(500).await;
    // 16 at once, a second each: more comes in than can go out.
    it.world.transports.set_script(|_, _| Step::Answer(Verdict::Delivered, Duration::from_secs(1)));
    let mut live = Vec::new();
    for _ in 0..40 {
        live.extend(it.world.post_many(it.integration, 20).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let id = create(&it.world, dead_letters(100, true)).await;
    for _ in 0..20 {
        live.extend(it.world.post_many(it.integration, 20).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let held = job(&it.world, id).await;
    assert!(held.note.contains("yields to live events"), "{held:?}");
    assert!(held.counts.replayed <= 20, "{held:?}");
    until(&it.world, id, ReplayStatus::Done).await;
    it.world.until(it.subscription, &live, DeliveryStatus::Delivered).await;
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_a_subscription_that_rests_and_fails_with_one_that_is_deleted() {
    let it = Down::start().await;
    it.dead(10).await;
    it.up();
    let key = ResourceKey::Subscription(it.subscription);
    let set_active = |active| {
        move |resource: &mut Resource| {
            let Resource::Subscription(it) = resource else { unreachable!() };
            it.active = active;
        }
    };
    it.world.update(key, set_active(false)).await;
    let filter = DeadLetterFilter { subscription: Some(it.subscription), ..DeadLetterFilter::default() };
    let one = NewReplay { query: ReplayQuery::DeadLetters(filter), ..dead_letters(5, true) };
    let id = create(&it.world, one.clone()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let waiting = job(&it.world, id).await;
    assert_eq!((waiting.status, waiting.counts.replayed), (ReplayStatus::Running, 0));
    assert!(waiting.note.contains("it is not active"), "{:?}", waiting.note);
    it.world.update(key, set_active(true)).await;
    until(&it.world, id, ReplayStatus::Done).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(replayed_events(&it.world).len(), 10);

    it.outage.store(true, Ordering::Relaxed);
    it.dead(10).await;
    it.world.update(key, set_active(false)).await;
    let id = create(&it.world, one).await;
    until(&it.world, id, ReplayStatus::Running).await;
    it.world.delete(key).await;
    let failed = until(&it.world, id, ReplayStatus::Failed).await;
    assert!(failed.note.contains("was deleted"), "{:?}", failed.note);
    let dangling = NewReplay { target: Some(it.subscription), ..dead_letters(5, true) };
    let refused = it.world.handle().create_replay("operator", dangling).await;
    assert!(matches!(refused, Err(ReplayError::Invalid { field: "target_subscription_id", .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_is_damaged_is_skipped_and_counted() {
    let it = Down::start().await;
    let dead = it.dead(5).await;
    it.up();
    it.world.log.damage(dead[2]);
    let id = create(&it.world, dead_letters(100, true)).await;
    let done = until(&it.world, id, ReplayStatus::Done).await;
    assert_eq!((done.counts.planned, done.counts.replayed, done.counts.skipped), (5, 4, 1));
    assert!(it.world.state.dead_letter(it.subscription, dead[2]).await.unwrap().is_some(), "it stays to be looked at");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_are_active_at_once_and_a_crowd_is_refused() {
    let it = Down::start().await;
    it.dead(10).await;
    let key = ResourceKey::Subscription(it.subscription);
    it.world
        .update(key, |resource| {
            let Resource::Subscription(it) = resource else { unreachable!() };
            it.active = false;
        })
        .await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(create(&it.world, dead_letters(1, true)).await);
    }
    let refused = it.world.handle().create_replay("operator", dead_letters(1, true)).await;
    assert_eq!(refused, Err(ReplayError::TooMany(8)));
    command(&it.world, ids[0], ReplayCommand::Cancel).await;
    create(&it.world, dead_letters(1, true)).await;
}

#[tokio::test(start_paused = true)]
async fn a_query_that_cannot_be_meant_is_refused_with_its_member() {
    let it = Down::start().await;
    let other = it.world.integration().await;
    let foreign = it.world.subscription(other, quick_retries(&[])).await;
    let filter = |subscription| DeadLetterFilter { subscription, ..DeadLetterFilter::default() };
    let letters =
        |filter, target| NewReplay { query: ReplayQuery::DeadLetters(filter), target, ..dead_letters(5, false) };
    let stored = |filter| events(filter, None);
    let own = events_of(it.integration, it.subscription);
    for (wanted, field) in [
        (letters(filter(None), Some(it.subscription)), "subscription_id"),
        (letters(filter(Some(it.subscription)), Some(foreign)), "target_subscription_id"),
        (stored(events_of(it.integration, foreign)), "subscription_id"),
        (stored(events_of(it.integration, SubscriptionId(99))), "subscription_id"),
        (stored(EventFilter { types: vec![String::new()], ..own.clone() }), "types"),
        (stored(EventFilter { types: vec!["x".repeat(128); 9], ..own.clone() }), "types"),
        (stored(EventFilter { standing: Some(Standing::Retrying), ..own.clone() }), "status"),
        (dead_letters(0, false), "rate_per_s"),
    ] {
        match it.world.handle().create_replay("operator", wanted.clone()).await {
            Err(ReplayError::Invalid { field: found, .. }) => assert_eq!(found, field, "{wanted:?}"),
            other => panic!("{wanted:?}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_stored_event_can_be_sent_again_by_hand() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let first = world.subscription(integration, quick_retries(&[])).await;
    let event = world.post(integration, "a").await;
    world.until(first, &[event], DeliveryStatus::Delivered).await;
    let second = world.subscription(integration, quick_retries(&[])).await;
    world.handle().replay_event("operator", first, event).await.expect("it was delivered");
    world.handle().replay_event("operator", second, event).await.expect("it was never its");
    world.until(second, &[event], DeliveryStatus::Delivered).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((world.arrivals(first), world.arrivals(second)), (vec![event, event], vec![event]));
    let foreign_integration = world.integration().await;
    let foreign = world.subscription(foreign_integration, quick_retries(&[])).await;
    let handle = world.handle();
    let refused = handle.replay_event("operator", foreign, event).await;
    assert_eq!(refused, Err(ReplayError::OtherIntegration { event, subscription: foreign }));
    let gone = EventId::at_millis(5);
    assert_eq!(handle.replay_event("operator", first, gone).await, Err(ReplayError::EventGone(gone)));
    let nobody = SubscriptionId(99);
    assert_eq!(handle.replay_event("operator", nobody, event).await, Err(ReplayError::SubscriptionGone(nobody)));
    assert_eq!(activities(&world).iter().filter(|action| *action == "event.replayed").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_trimmed_since_the_plan_is_skipped_and_counted() {
    let options = TreeOptions {
        retention: Retention { age_max: Duration::from_secs(3_600), ..Retention::default() },
        ..TreeOptions::default()
    };
    let world = World::start_with(ScriptedTransports::default(), options).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[])).await;
    let old = world.post_many(integration, 20).await;
    world.until(subscription, &old, DeliveryStatus::Delivered).await;
    tokio::time::sleep(Duration::from_secs(3_000)).await;
    let young = world.post_many(integration, 10).await;
    world.until(subscription, &young, DeliveryStatus::Delivered).await;
    let wanted = NewReplay { start: false, ..events(events_of(integration, subscription), None) };
    let id = create(&world, wanted).await;
    assert_eq!(until(&world, id, ReplayStatus::Planned).await.counts.planned, 30);
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    command(&world, id, ReplayCommand::Start).await;
    let done = until(&world, id, ReplayStatus::Done).await;
    assert_eq!((done.counts.replayed, done.counts.skipped), (10, 20));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(replayed_events(&world), young);
}
