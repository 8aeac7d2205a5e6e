//! What fails is tried again at its time, then stands in the dead letter until an operator sends it again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hookmill_actors::{
    domain::{
        backoff::RetryPolicy,
        config::{DestinationStatus, Resource, ResourceKey},
        delivery::{DeadReason, DeliveryStatus},
        ids::{EventId, SubscriptionId},
    },
    metrics::gauges::WaitingFor,
    ports::{
        state_store::{DeliveryState, StateStore},
        transport::Verdict,
    },
    testkit::scripted_transport::{ScriptedTransports, Step},
    tree::ReplayError,
};

use crate::world::{World, quick_retries};

const FAIL: Step = Step::Answer(Verdict::Retry { after: None }, Duration::from_millis(1));
const OK: Step = Step::Answer(Verdict::Delivered, Duration::from_millis(1));

fn fails_until(attempt: u32) -> ScriptedTransports {
    ScriptedTransports::new(move |_, consignment| if consignment.attempt < attempt { FAIL } else { OK })
}

#[tokio::test(start_paused = true)]
async fn retries_follow_the_default_schedule_within_its_jitter() {
    let world = World::start(ScriptedTransports::new(|_, _| FAIL)).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    let event = world.post(integration, "a").await;
    world.until(subscription, &[event], DeliveryStatus::Dead).await;
    let seen = world.transports.seen();
    assert_eq!(seen.iter().map(|seen| seen.attempt).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    for (pair, planned) in seen.windows(2).zip(RetryPolicy::default().schedule_s) {
        let waited_ms = pair[1].at_ms - pair[0].at_ms;
        assert!(waited_ms >= planned * 800, "waited {waited_ms} ms of {planned} s");
        assert!(waited_ms <= planned * 1_200 + 200, "waited {waited_ms} ms of {planned} s");
    }
    let letter = world.state.dead_letter(subscription, event).await.unwrap().expect("it is there");
    assert_eq!((letter.reason, letter.attempts), (DeadReason::AttemptsExhausted, 10));
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_succeeds_later_keeps_its_story() {
    let world = World::start(fails_until(3)).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[5, 60, 600])).await;
    let event = world.post(integration, "a").await;
    world.until(subscription, &[event], DeliveryStatus::Delivered).await;
    let DeliveryState::Record(record) = world.state.delivery(subscription, event).await.unwrap() else {
        panic!("a delivery that failed first has a record");
    };
    assert_eq!(record.attempts, 3);
    assert_eq!(
        record.latest.iter().map(|attempt| attempt.status).collect::<Vec<_>>(),
        [Some(500), Some(500), Some(200)]
    );
    assert_eq!(world.state.counts().await.unwrap().due, 0);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for() {
    let transports = ScriptedTransports::new(|_, consignment| match consignment.attempt {
        1 => Step::Answer(Verdict::Retry { after: Some(Duration::from_secs(90)) }, Duration::from_millis(1)),
        _ => OK,
    });
    let world = World::start(transports).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[1, 1])).await;
    let event = world.post(integration, "a").await;
    world.until(subscription, &[event], DeliveryStatus::Delivered).await;
    let seen = world.transports.seen();
    let waited_ms = seen[1].at_ms - seen[0].at_ms;
    assert!((90_000..90_300).contains(&waited_ms), "waited {waited_ms} ms");
}

#[tokio::test(start_paused = true)]
async fn a_restart_neither_hurries_nor_forgets_a_retry() {
    let world = World::start(fails_until(2)).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[1_000])).await;
    let events = world.post_many(integration, 50).await;
    world.until(subscription, &events, DeliveryStatus::Retrying).await;
    let world = world.crash_and_restart().await;
    tokio::time::sleep(Duration::from_secs(700)).await;
    assert_eq!(world.transports.seen().len(), 50, "nothing is due yet");
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    assert_eq!(world.transports.seen().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_retries_pass_through_the_window_while_new_events_go_on() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let world =
        World::start(ScriptedTransports::new(move |_, _| if is_down.load(Ordering::Relaxed) { FAIL } else { OK }))
            .await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[60])).await;
    let failed = world.post_many(integration, 3_000).await;
    world.until(subscription, &failed, DeliveryStatus::Retrying).await;
    down.store(false, Ordering::Relaxed);
    let fresh = world.post_many(integration, 500).await;
    world.until(subscription, &fresh, DeliveryStatus::Delivered).await;
    world.until(subscription, &failed, DeliveryStatus::Delivered).await;
    assert_eq!(world.arrivals(subscription).len(), 3_000 * 2 + 500);
    let destination = world.handle().config().current().configuration.subscriptions[&subscription].destination_id;
    assert!(world.transports.most_under_way(destination) <= 16);
}

#[tokio::test(start_paused = true)]
async fn a_replayed_dead_letter_has_fresh_attempts_and_says_that_it_is_one() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let world =
        World::start(ScriptedTransports::new(move |_, _| if is_down.load(Ordering::Relaxed) { FAIL } else { OK }))
            .await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[])).await;
    let event = world.post(integration, "a").await;
    world.until(subscription, &[event], DeliveryStatus::Dead).await;
    down.store(false, Ordering::Relaxed);
    world.handle().replay("operator", subscription, event).await.expect("it is a dead letter");
    world.until(subscription, &[event], DeliveryStatus::Delivered).await;
    let last = world.transports.seen().pop().expect("it was sent");
    assert_eq!((last.event, last.attempt, last.replay), (event, 1, true));
    assert_eq!(world.state.counts().await.unwrap().dead, 0);
    let again = world.handle().replay("operator", subscription, event).await;
    assert_eq!(again, Err(ReplayError::NotFound { event, subscription }));
    let unknown = world.handle().replay("operator", SubscriptionId(99), EventId::ZERO).await;
    assert!(matches!(unknown, Err(ReplayError::NotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn gone_pauses_the_destination_until_an_operator_says_otherwise() {
    let gone = Arc::new(AtomicBool::new(true));
    let is_gone = gone.clone();
    let world = World::start(ScriptedTransports::new(move |_, _| {
        if is_gone.load(Ordering::Relaxed) { Step::Answer(Verdict::Gone, Duration::from_millis(1)) } else { OK }
    }))
    .await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[1, 1, 1])).await;
    let destination = world.handle().config().current().configuration.subscriptions[&subscription].destination_id;
    let events = world.post_many(integration, 200).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let paused = world.handle().config().current().configuration.destinations[&destination].clone();
    assert_eq!(paused.status, DestinationStatus::Paused);
    assert!(paused.status_reason.as_ref().is_some_and(|reason| reason.contains("410")));
    let tried = world.transports.seen().len();
    assert!(tried <= 64, "{tried} attempts at a destination that wants none");
    let waits_for = || world.handle().subscription_gauges().first().map(|view| view.waiting_for);
    assert_eq!(waits_for(), Some(WaitingFor::Activation));
    gone.store(false, Ordering::Relaxed);
    world
        .update(ResourceKey::Destination(destination), |resource| {
            let Resource::Destination(it) = resource else { unreachable!() };
            it.status = DestinationStatus::Active;
        })
        .await;
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    assert_eq!(waits_for(), Some(WaitingFor::Nothing));
}

#[tokio::test(start_paused = true)]
async fn deleting_a_subscription_cancels_its_retries() {
    let world = World::start(ScriptedTransports::new(|_, _| FAIL)).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[3_600])).await;
    let events = world.post_many(integration, 600).await;
    world.until(subscription, &events, DeliveryStatus::Retrying).await;
    world.delete(ResourceKey::Subscription(subscription)).await;
    world.until(subscription, &events, DeliveryStatus::Cancelled).await;
    let attempts = world.transports.seen().len();
    tokio::time::sleep(Duration::from_secs(10_000)).await;
    assert_eq!(world.transports.seen().len(), attempts);
    assert_eq!(world.state.counts().await.unwrap().due, 0);
}

#[tokio::test(start_paused = true)]
async fn a_crash_right_after_the_deletion_leaves_no_retries_behind() {
    let world = World::start(ScriptedTransports::new(|_, _| FAIL)).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[3_600])).await;
    let events = world.post_many(integration, 300).await;
    world.until(subscription, &events, DeliveryStatus::Retrying).await;
    world.delete(ResourceKey::Subscription(subscription)).await;
    let world = world.crash_and_restart().await;
    world.until(subscription, &events, DeliveryStatus::Cancelled).await;
    assert_eq!(world.state.counts().await.unwrap().due, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_right_before_the_deletion_is_on_record() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[60])).await;
    let events = world.post_many(integration, 20).await;
    while world.transports.seen().len() < events.len() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(2)).await;
    world.delete(ResourceKey::Subscription(subscription)).await;
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
}

#[tokio::test(start_paused = true)]
async fn new_events_go_on_while_thousands_of_slow_retries_are_made() {
    let failing = Arc::new(AtomicBool::new(true));
    let is_failing = failing.clone();
    let world = World::start(ScriptedTransports::new(move |_, _| match is_failing.load(Ordering::Relaxed) {
        true => FAIL,
        false => Step::Answer(Verdict::Delivered, Duration::from_secs(1)),
    }))
    .await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[60])).await;
    let failed = world.post_many(integration, 2_000).await;
    world.until(subscription, &failed, DeliveryStatus::Retrying).await;
    failing.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(75)).await;
    let fresh = world.post_many(integration, 24).await;
    let began = tokio::time::Instant::now();
    world.until(subscription, &fresh, DeliveryStatus::Delivered).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?} for two windows of a second each", began.elapsed());
    world.until(subscription, &failed, DeliveryStatus::Delivered).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_410_does_not_pause_what_an_operator_has_mended_since() {
    let world = World::start(ScriptedTransports::new(|_, consignment| match consignment.attempt {
        1 => Step::Answer(Verdict::Gone, Duration::from_secs(10)),
        _ => OK,
    }))
    .await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[1])).await;
    let event = world.post(integration, "a").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let destination = world.handle().config().current().configuration.subscriptions[&subscription].destination_id;
    world
        .update(ResourceKey::Destination(destination), |resource| {
            let Resource::Destination(it) = resource else { unreachable!() };
            it.name = "mended".to_owned();
        })
        .await;
    world.until(subscription, &[event], DeliveryStatus::Delivered).await;
    let status = world.handle().config().current().configuration.destinations[&destination].status;
    assert_eq!(status, DestinationStatus::Active);
}
