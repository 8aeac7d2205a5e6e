//! What is settled is recorded soon, together, and in order.

use std::time::Duration;

use hookmill_actors::{
    domain::{backoff::RetryPolicy, delivery::DeliveryStatus},
    ports::{state_store::StateStore, transport::Verdict},
    testkit::scripted_transport::{ScriptedTransports, Step},
};

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn many_integrations_with_one_event_each_share_commits() {
    const INTEGRATIONS: usize = 300;
    let world = World::start(ScriptedTransports::default()).await;
    let mut ways = Vec::new();
    for _ in 0..INTEGRATIONS {
        let integration = world.integration().await;
        ways.push((integration, world.subscription(integration, RetryPolicy::default()).await));
    }
    let before = world.log.commits();
    let mut events = Vec::new();
    for (integration, _) in &ways {
        events.push(world.post(*integration, "payment.succeeded").await);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for ((integration, subscription), event) in ways.into_iter().zip(events) {
        assert_eq!(world.status(subscription, event).await, DeliveryStatus::Delivered);
        assert_eq!(world.state.intake(integration).await.unwrap(), event);
        assert_eq!(world.state.position(subscription).await.unwrap().map(|position| position.read_upto), Some(event));
    }
    let commits = world.log.commits() - before;
    assert!(commits <= INTEGRATIONS / 10, "{commits} commits for {INTEGRATIONS} intakes and as many deliveries");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_recorded_and_due_again_on_time_however_many_others_have_something() {
    let world = World::start(ScriptedTransports::new(|destination, consignment| {
        let verdict = if destination.0 == 1 && consignment.attempt == 1 {
            Verdict::Retry { after: None }
        } else {
            Verdict::Delivered
        };
        Step::Answer(verdict, Duration::from_millis(1))
    }))
    .await;
    let failing = world.integration().await;
    let schedule = RetryPolicy { schedule_s: vec![1], ..RetryPolicy::default() };
    let subscription = world.subscription(failing, schedule).await;
    let mut others = Vec::new();
    for _ in 0..400 {
        let integration = world.integration().await;
        world.subscription(integration, RetryPolicy::default()).await;
        others.push(integration);
    }
    for integration in &others {
        world.post(*integration, "payment.succeeded").await;
    }
    let event = world.post(failing, "payment.succeeded").await;
    // At most the explicit schedule's jitter of a fifth, and the moment that outcomes wait.
    tokio::time::sleep(Duration::from_millis(1_350)).await;
    assert_eq!(world.status(subscription, event).await, DeliveryStatus::Delivered);
}
