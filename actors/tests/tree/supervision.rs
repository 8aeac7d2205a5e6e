//! Crashes cost their cause, and nothing is lost by them.

use std::time::Duration;

use hookmill_actors::{
    domain::{
        backoff::RetryPolicy,
        config::{IntegrationStatus, Resource, ResourceKey},
        delivery::DeliveryStatus,
        ids::IntegrationId,
    },
    ports::transport::Verdict,
    testkit::scripted_transport::{ScriptedTransports, Step},
    tree::RestartError,
};

use crate::world::{World, quick_retries};

#[tokio::test(start_paused = true)]
async fn a_transport_that_panics_costs_an_attempt() {
    let world = World::start(ScriptedTransports::new(|_, consignment| match consignment.attempt {
        1 => Step::Panic,
        _ => Step::Answer(Verdict::Delivered, Duration::from_millis(1)),
    }))
    .await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[1])).await;
    let events = world.post_many(integration, 20).await;
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    assert_eq!(world.handle().counters().totals().restarts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_records_what_is_under_way_and_begins_nothing_new() {
    let world =
        World::start(ScriptedTransports::new(|_, _| Step::Answer(Verdict::Delivered, Duration::from_secs(2)))).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    let events = world.post_many(integration, 100).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (state, transports) = (world.state.clone(), world.transports.clone());
    world.tree.stop(Duration::from_secs(10)).await;
    assert_eq!(transports.seen().len(), 16);
    let mut delivered = 0;
    for event in &events {
        use hookmill_actors::ports::state_store::{DeliveryState, StateStore};
        let known = state.delivery(subscription, *event).await.unwrap();
        delivered += usize::from(matches!(known, DeliveryState::Delivered { .. }));
    }
    assert_eq!(delivered, 16, "what was under way is recorded");
}

#[tokio::test(start_paused = true)]
async fn every_change_is_in_the_audit_log_and_a_healthy_tree_is_ready() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    world.subscription(integration, RetryPolicy::default()).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let actions: Vec<String> =
        world.config.newest_activities(10).into_iter().map(|entry| entry.activity.action).collect();
    assert_eq!(
        actions,
        ["subscription.created", "destination.created", "webhook_endpoint.created", "integration.created"]
    );
    assert_eq!(world.handle().readiness(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_integration_that_keeps_crashing_is_parked_and_comes_back_with_everything() {
    let world = World::start(ScriptedTransports::default()).await;
    let broken = world.integration().await;
    let healthy = world.integration().await;
    let broken_subscription = world.subscription(broken, RetryPolicy::default()).await;
    let healthy_subscription = world.subscription(healthy, RetryPolicy::default()).await;
    world.log.break_reads(Some(broken));
    let events = world.post_many(broken, 300).await;
    let others = world.post_many(healthy, 300).await;
    world.until(healthy_subscription, &others, DeliveryStatus::Delivered).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let status = |world: &World| world.handle().config().current().configuration.integrations[&broken].status;
    assert_eq!(status(&world), IntegrationStatus::Failed);
    let totals = world.handle().counters().totals();
    assert_eq!((totals.integrations_failed, totals.restarts), (1, 6), "five restarts within the window, then no more");

    let actions: Vec<String> =
        world.config.newest_activities(3).into_iter().map(|entry| entry.activity.action).collect();
    assert!(actions.contains(&"integration.failed".to_owned()), "{actions:?}");

    world.log.break_reads(None);
    world.handle().restart("operator", broken).await.expect("it exists");
    assert_eq!(status(&world), IntegrationStatus::Active);
    world.until(broken_subscription, &events, DeliveryStatus::Delivered).await;
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_keeps_crashing_rests_alone_and_comes_back_with_everything() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let broken = world.subscription(integration, RetryPolicy::default()).await;
    let healthy = world.subscription(integration, RetryPolicy::default()).await;
    let configuration = world.handle().config().current().configuration.clone();
    let destination = configuration.subscriptions[&broken].destination_id;
    world.transports.break_before_attempts(Some(destination));
    let mut events = Vec::new();
    for _ in 0..100 {
        events.extend(world.post_many(integration, 3).await);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    world.until(healthy, &events, DeliveryStatus::Delivered).await;
    let mut arrived = world.arrivals(healthy);
    arrived.sort_unstable();
    assert_eq!(arrived, events, "its sibling's crashes are none of its own");
    let totals = world.handle().counters().totals();
    assert_eq!((totals.deliveries_failed, totals.restarts), (1, 6), "five restarts within the window, then no more");
    let status = world.handle().config().current().configuration.integrations[&integration].status;
    assert_eq!(status, IntegrationStatus::Active);
    let newest = world.config.newest_activities(1).remove(0).activity;
    assert_eq!((newest.action.as_str(), newest.subject), ("subscription.failed", format!("subscription {broken}")));

    world.transports.break_before_attempts(None);
    world
        .update(ResourceKey::Subscription(broken), |resource| {
            let Resource::Subscription(it) = resource else { unreachable!() };
            it.name.push('!');
        })
        .await;
    world.until(broken, &events, DeliveryStatus::Delivered).await;
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_crashes_once_leaves_no_trace() {
    let world =
        World::start(ScriptedTransports::new(|_, _| Step::Answer(Verdict::Delivered, Duration::from_millis(40)))).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    let configuration = world.handle().config().current().configuration.clone();
    let mut events = world.post_many(integration, 50).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    // What is under way ends in the time of its successor.
    world.transports.break_before_attempts(Some(configuration.subscriptions[&subscription].destination_id));
    tokio::time::sleep(Duration::from_millis(30)).await;
    world.transports.break_before_attempts(None);
    events.extend(world.post_many(integration, 50).await);
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    assert_eq!(world.handle().counters().totals().restarts, 1);
    let gauges = world.handle().subscription_gauges();
    let gauge = gauges.iter().find(|view| view.subscription_id == subscription).expect("it runs");
    assert_eq!((gauge.in_flight, gauge.queued, gauge.open), (0, 0, 0), "{gauge:?}");
    for mailbox in world.handle().mailboxes() {
        assert_eq!((mailbox.passed, mailbox.waiting_max), (0, 0), "{mailbox:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_a_slow_destination_without_beginning_anything_at_the_others() {
    let world = World::start(ScriptedTransports::new(|destination, _| match destination.0 {
        1 => Step::Answer(Verdict::Delivered, Duration::from_secs(5)),
        _ => Step::Answer(Verdict::Delivered, Duration::from_millis(100)),
    }))
    .await;
    let integration = world.integration().await;
    world.subscription(integration, RetryPolicy::default()).await;
    let quick = world.subscription(integration, RetryPolicy::default()).await;
    world.post_many(integration, 2_000).await;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    let before = world.arrivals(quick).len();
    let transports = world.transports.clone();
    world.tree.stop(Duration::from_secs(20)).await;
    let after = transports.seen().iter().filter(|seen| seen.destination.0 == 2).count();
    assert!(after <= before + 16, "{before} before the stop, {after} after");
}

#[tokio::test(start_paused = true)]
async fn a_running_integration_is_restarted_without_losing_or_repeating_anything() {
    let world =
        World::start(ScriptedTransports::new(|_, _| Step::Answer(Verdict::Delivered, Duration::from_millis(40)))).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    let events = world.post_many(integration, 500).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.handle().restart("operator", integration).await.expect("it runs");
    assert_eq!(
        world.handle().restart("operator", integration).await,
        Err(RestartError::UnderWay(integration)),
        "what is under way ends first"
    );
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    let mut arrived = world.arrivals(subscription);
    arrived.sort_unstable();
    assert_eq!(arrived, events, "each once");
    assert_eq!(world.handle().counters().totals().restarts, 1);
    world.handle().restart("operator", integration).await.expect("the first one has ended");
    let newest = world.config.newest_activities(1).remove(0).activity;
    assert_eq!((newest.action.as_str(), newest.actor.as_str()), ("integration.restarted", "operator"));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_or_switched_off_is_not_restarted() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    world
        .update(ResourceKey::Integration(integration), |resource| {
            let Resource::Integration(it) = resource else { unreachable!() };
            it.status = IntegrationStatus::Inactive;
        })
        .await;
    let restart = async |id| world.handle().restart("operator", id).await;
    assert_eq!(restart(integration).await, Err(RestartError::Inactive(integration)));
    assert_eq!(restart(IntegrationId(99)).await, Err(RestartError::NotFound(IntegrationId(99))));
}
