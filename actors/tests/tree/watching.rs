//! What an operator sees of flow: breakers, gates and mailboxes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hookmill_actors::{
    domain::{
        activity::ActivityResult,
        config::{Resource, ResourceKey},
        delivery::DeliveryStatus,
        shaping::{BreakerPolicy, DestinationLimits},
    },
    flow::BreakerState,
    metrics::gauges::{SubscriptionView, WaitingFor},
    ports::transport::Verdict,
    testkit::scripted_transport::{ScriptedTransports, Step},
};

use crate::world::{World, quick_retries};

fn breaker_news(world: &World) -> Vec<(String, ActivityResult)> {
    let mut entries = world.config.newest_activities(1_000);
    entries.reverse();
    let news = entries.into_iter().filter(|entry| entry.activity.action.starts_with("destination.breaker_"));
    news.map(|entry| (entry.activity.action, entry.activity.result)).collect()
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_seen_in_the_flow_the_counters_and_once_in_the_audit_log() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let world = World::start(ScriptedTransports::new(move |_, _| match is_down.load(Ordering::Relaxed) {
        true => Step::Answer(Verdict::Retry { after: None }, Duration::from_millis(5)),
        false => Step::Answer(Verdict::Delivered, Duration::from_millis(5)),
    }))
    .await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[20; 200])).await;
    let destination = world.handle().config().current().configuration.subscriptions[&subscription].destination_id;
    let breaker = BreakerPolicy { consecutive_failures: 5, open_s: 5, open_max_s: 10, ..BreakerPolicy::default() };
    world
        .update(ResourceKey::Destination(destination), |resource| {
            let Resource::Destination(it) = resource else { unreachable!() };
            it.limits = DestinationLimits { breaker, ..DestinationLimits::default() };
        })
        .await;
    let flow = || world.handle().destination_flow(destination).expect("it exists");
    assert_eq!(flow().breaker.state, BreakerState::Closed);

    let events = world.post_many(integration, 100).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(flow().breaker.state, BreakerState::Open);
    assert!(flow().breaker.consecutive_failures >= 5);
    assert!(flow().breaker.reopens_in_ms.is_some_and(|wait| (1..=5_500).contains(&wait)), "{:?}", flow().breaker);
    let opened = ("destination.breaker_opened".to_owned(), ActivityResult::Failed);
    assert_eq!(breaker_news(&world), std::slice::from_ref(&opened));

    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(world.handle().counters().totals().breaker_opened >= 8, "each failed probe opens it again");
    assert_eq!(breaker_news(&world), std::slice::from_ref(&opened), "it was told of already");

    down.store(false, Ordering::Relaxed);
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.handle().counters().totals().breaker_closed, 1);
    assert_eq!(breaker_news(&world), [opened, ("destination.breaker_closed".to_owned(), ActivityResult::Ok)]);
    assert_eq!((flow().breaker.state, flow().concurrency.in_use), (BreakerState::Closed, 0));

    assert_eq!(world.handle().destination_flows().len(), 1);
    world.delete(ResourceKey::Subscription(subscription)).await;
    world.delete(ResourceKey::Destination(destination)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.handle().destination_flow(destination), None);
    assert_eq!(world.handle().destination_flows(), []);
}

#[tokio::test(start_paused = true)]
async fn no_mailbox_passes_its_bound_however_much_comes_at_once() {
    let world = World::start(ScriptedTransports::new(|_, consignment| match consignment.attempt {
        1 => Step::Answer(Verdict::Retry { after: None }, Duration::from_millis(1)),
        _ => Step::Answer(Verdict::Delivered, Duration::from_millis(1)),
    }))
    .await;
    let integration = world.integration().await;
    let mut subscriptions = Vec::new();
    for _ in 0..20 {
        subscriptions.push(world.subscription(integration, quick_retries(&[1; 5])).await);
    }
    let events = world.post_many(integration, 500).await;
    for subscription in subscriptions {
        world.until(subscription, &events, DeliveryStatus::Delivered).await;
    }
    for mailbox in world.handle().mailboxes() {
        assert_eq!(mailbox.passed, 0, "{mailbox:?}");
        assert!(mailbox.highest <= mailbox.bound && mailbox.waiting_max == 0, "{mailbox:?}");
        // Whoever has one uses it.
        assert_eq!(mailbox.highest > 0, mailbox.actors > 0, "{mailbox:?}");
    }
    assert!(world.handle().mailboxes().iter().any(|mailbox| mailbox.actors > 0));
}

#[tokio::test(start_paused = true)]
async fn at_rest_the_gauges_say_so_though_the_actor_is_not_told_of_each_end() {
    let world = World::start(ScriptedTransports::new(|_, consignment| {
        let millis = u64::from(consignment.event.id.to_bytes()[9] % 7);
        Step::Answer(Verdict::Delivered, Duration::from_millis(millis))
    }))
    .await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[1; 5])).await;
    for burst in [1, 1, 40, 1, 300] {
        let events = world.post_many(integration, burst).await;
        world.until(subscription, &events, DeliveryStatus::Delivered).await;
        let gauges = world.handle().subscription_gauges();
        let [SubscriptionView { in_flight, queued, open, held_bytes, waiting_for, credit, .. }] = gauges[..] else {
            panic!("one subscription: {gauges:?}");
        };
        assert_eq!((in_flight, queued, open, held_bytes, waiting_for), (0, 0, 0, 0, WaitingFor::Nothing), "{burst}");
        assert!(credit > 0, "the next events may be handed over");
    }
}
