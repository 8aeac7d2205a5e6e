//! What the unfinished events of an integration may take of the log.

use std::time::Duration;

use hookmill_actors::{
    domain::{
        backoff::RetryPolicy,
        config::{Resource, ResourceKey},
        delivery::DeliveryStatus,
        ids::{EventId, IntegrationId},
    },
    ports::{state_store::StateStore, transport::Verdict},
    scheduler::Retention,
    testkit::scripted_transport::{ScriptedTransports, Step},
    tree::TreeOptions,
};

use crate::world::World;

const BODY_BYTES: u64 = "payment.succeeded".len() as u64;

/// So many events may be unfinished.
async fn world_for(events: u64, retention: Retention) -> World {
    let retention = Retention { backlog_bytes_max: events * BODY_BYTES, ..retention };
    let options = TreeOptions { retention, ..TreeOptions::default() };
    World::start_with(ScriptedTransports::new(|_, _| Step::Hang), options).await
}

fn is_full(world: &World, integration: IntegrationId) -> bool {
    world.handle().config().current().backlogs[&integration].is_full()
}

fn bytes(world: &World, integration: IntegrationId) -> u64 {
    world.handle().config().current().backlogs[&integration].bytes()
}

const SOON: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn one_that_holds_its_share_is_full_until_it_is_well_below_and_the_others_are_not() {
    let world = world_for(100, Retention::default()).await;
    let (hung, other) = (world.integration().await, world.integration().await);
    let subscription = world.subscription(hung, RetryPolicy::default()).await;
    world.post_many(other, 1_000).await;
    let mut events = world.post_many(hung, 100).await;
    tokio::time::sleep(SOON).await;
    assert!(!is_full(&world, hung), "it holds its share and no more");
    assert!(!is_full(&world, other), "nothing of it is unfinished");
    events.push(world.post(hung, "payment.succeeded").await);
    tokio::time::sleep(SOON).await;
    assert!(is_full(&world, hung) && !is_full(&world, other));
    assert_eq!((bytes(&world, hung), bytes(&world, other)), (101 * BODY_BYTES, 0));

    let world = world.crash_and_restart().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(is_full(&world, hung), "it is measured at the start");
    world.transports.set_script(|_, _| Step::Answer(Verdict::Delivered, Duration::from_millis(1)));
    // What hangs would hang for ever.
    let world = world.crash_and_restart().await;
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    tokio::time::sleep(SOON).await;
    assert!(!is_full(&world, hung));
    assert_eq!(bytes(&world, hung), 0);
    let activities = world.config.newest_activities(100);
    let mut told = activities.iter().map(|entry| entry.activity.action.as_str()).filter(|it| it.contains("backlog"));
    assert_eq!(told.next(), Some("integration.backlog_cleared"));
    assert!(told.next().is_some() && told.all(|action| action == "integration.backlog_full"));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_retry_or_is_dead_is_no_backlog() {
    let world = world_for(50, Retention::default()).await;
    let integration = world.integration().await;
    world.transports.set_script(|_, consignment| match consignment.event.id.as_u128() % 2 {
        0 => Step::Answer(Verdict::Refused, Duration::ZERO),
        _ => Step::Answer(Verdict::Retry { after: None }, Duration::ZERO),
    });
    world.subscription(integration, RetryPolicy::default()).await;
    world.post_many(integration, 500).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(!is_full(&world, integration));
    assert_eq!(bytes(&world, integration), 0);
}

#[tokio::test(start_paused = true)]
async fn a_paused_subscription_holds_what_it_has_not_read() {
    let world = world_for(50, Retention::default()).await;
    let integration = world.integration().await;
    world.transports.set_script(|_, _| Step::Answer(Verdict::Delivered, Duration::from_millis(1)));
    let running = world.subscription(integration, RetryPolicy::default()).await;
    let paused = world.subscription_with(integration, RetryPolicy::default(), |it| it.active = false).await;
    let events = world.post_many(integration, 60).await;
    world.until(running, &events, DeliveryStatus::Delivered).await;
    tokio::time::sleep(SOON).await;
    assert!(is_full(&world, integration));
    let resume = |resource: &mut Resource| {
        let Resource::Subscription(it) = resource else { unreachable!() };
        it.active = true;
    };
    world.update(ResourceKey::Subscription(paused), resume).await;
    world.until(paused, &events, DeliveryStatus::Delivered).await;
    tokio::time::sleep(SOON).await;
    assert!(!is_full(&world, integration));
}

#[tokio::test(start_paused = true)]
async fn dedup_keys_go_with_their_window_and_the_oldest_when_there_are_too_many() {
    let retention = Retention { dedup_keys_max: 3, ..Retention::default() };
    let world = world_for(1_000, retention).await;
    let integration = world.integration().await;
    let mut events: Vec<EventId> = Vec::new();
    for body in ["a#1", "a#2", "a#3"] {
        events.push(world.post(integration, body).await);
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(world.state.counts().await.unwrap().dedup_keys, 3);
    events.push(world.post(integration, "a#4").await);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(world.state.counts().await.unwrap().dedup_keys, 3);
    assert_eq!(world.handle().counters().totals().dedup_forgotten, 1);
    tokio::time::sleep(Duration::from_hours(3 * 24) + Duration::from_secs(61)).await;
    assert_eq!(world.state.counts().await.unwrap().dedup_keys, 0);
    assert_eq!(world.handle().counters().totals().dedup_forgotten, 1, "their time was over");
}
