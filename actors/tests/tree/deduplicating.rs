//! What a provider sends again is stored, marked, and not delivered again. A body `type#id` carries the provider's id.

use std::time::Duration;

use hookmill_actors::{
    domain::{
        backoff::RetryPolicy,
        config::{Resource, ResourceKey},
        delivery::{DeadReason, DeliveryStatus},
        ids::{EndpointId, EventId, IntegrationId},
    },
    ports::{
        state_store::{Mark, StateStore},
        transport::Verdict,
    },
    testkit::scripted_transport::{ScriptedTransports, Step},
};

use crate::world::{World, quick_retries};

const DELIVERED: Step = Step::Answer(Verdict::Delivered, Duration::from_millis(1));

/// Waits until intake has recorded the event; the event it is a duplicate of.
async fn first_of(world: &World, event: EventId) -> Option<EventId> {
    while world.state.intake(event.integration()).await.expect("the state answers") < event {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    match world.state.note(event).await.expect("the state answers").and_then(|note| note.mark) {
        Some(Mark::DuplicateOf(first)) => Some(first),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

async fn set_window(world: &World, integration: IntegrationId, seconds: Option<u64>) {
    let endpoint = ResourceKey::Endpoint(EndpointId(integration.0));
    let change = |resource: &mut Resource| {
        let Resource::Endpoint(it) = resource else { unreachable!() };
        it.dedup_window_s = seconds;
    };
    world.update(endpoint, change).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_resend_is_marked_and_not_delivered() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let other = world.integration().await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    let others = world.subscription(other, RetryPolicy::default()).await;
    let first = world.post(integration, "paid#1").await;
    let resent = world.post(integration, "paid#1").await;
    let next = world.post(integration, "paid#2").await;
    let other_body = world.post(integration, "refunded#1").await;
    let elsewhere = world.post(other, "paid#1").await;
    let nameless = world.post_many(integration, 2).await;
    world.until(others, &[elsewhere], DeliveryStatus::Delivered).await;
    world.until(subscription, &[first, next, other_body, nameless[0], nameless[1]], DeliveryStatus::Delivered).await;
    let late = world.post(integration, "paid#1").await;
    assert_eq!(first_of(&world, resent).await, Some(first));
    assert_eq!(first_of(&world, late).await, Some(first));
    for event in [first, next, other_body, elsewhere, nameless[0], nameless[1]] {
        assert_eq!(first_of(&world, event).await, None);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let arrived = world.arrivals(subscription);
    assert_eq!(arrived.len(), 5, "{arrived:?}");
    assert!(!arrived.contains(&resent) && !arrived.contains(&late));
}

#[tokio::test(start_paused = true)]
async fn a_crash_forgets_no_key_and_makes_nothing_its_own_duplicate() {
    let mut world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[1])).await;
    let (mut firsts, mut resent) = (Vec::new(), Vec::new());
    for (round, body) in ["a#1", "a#2", "a#3", "a#4", "a#5", "a#6"].into_iter().enumerate() {
        firsts.push(world.post(integration, body).await);
        // Before it is taken in, before it is recorded, and after that.
        tokio::time::sleep(Duration::from_millis([0, 7, 80][round % 3])).await;
        world = world.crash_and_restart().await;
        resent.push(world.post(integration, body).await);
        tokio::time::sleep(Duration::from_millis([80, 7, 0][round % 3])).await;
        world = world.crash_and_restart().await;
    }
    world.until(subscription, &firsts, DeliveryStatus::Delivered).await;
    for (first, resent) in firsts.iter().zip(&resent) {
        assert_eq!(first_of(&world, *first).await, None);
        assert_eq!(first_of(&world, *resent).await, Some(*first));
    }
    assert!(world.arrivals(subscription).iter().all(|event| firsts.contains(event)));
}

#[tokio::test(start_paused = true)]
async fn the_window_is_the_endpoints() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let first = world.post(integration, "paid#1").await;
    tokio::time::sleep(Duration::from_hours(71)).await;
    let within = world.post(integration, "paid#1").await;
    assert_eq!(first_of(&world, within).await, Some(first));
    tokio::time::sleep(Duration::from_hours(2)).await;
    let beyond = world.post(integration, "paid#1").await;
    assert_eq!(first_of(&world, beyond).await, None, "the provider has given up for an hour");
    set_window(&world, integration, Some(60)).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    let later = world.post(integration, "paid#1").await;
    assert_eq!(first_of(&world, later).await, None);
    set_window(&world, integration, Some(0)).await;
    let unasked = world.post(integration, "paid#1").await;
    assert_eq!(first_of(&world, unasked).await, None);
    assert_eq!(world.state.note(unasked).await.unwrap().and_then(|note| note.provider_id).as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_resend_of_what_came_to_nothing_is_delivered_once() {
    let world = World::start(ScriptedTransports::new(|_, _| Step::Answer(Verdict::Refused, Duration::ZERO))).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[])).await;
    let first = world.post(integration, "paid#1").await;
    world.until(subscription, &[first], DeliveryStatus::Dead).await;
    world.transports.set_script(|_, _| DELIVERED);
    let second = world.post(integration, "paid#1").await;
    world.until(subscription, &[second], DeliveryStatus::Delivered).await;
    let third = world.post(integration, "paid#1").await;
    assert_eq!(first_of(&world, second).await, None);
    assert_eq!(first_of(&world, third).await, Some(second), "the resend's key stands in place of the first's");
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscription_finds_the_marks_in_the_state() {
    let world = World::start(ScriptedTransports::new(|_, _| Step::Hang)).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[1])).await;
    world.post_many(integration, 16).await;
    let first = world.post(integration, "paid#1").await;
    let resent = world.post(integration, "paid#1").await;
    assert_eq!(first_of(&world, resent).await, Some(first));
    let world = world.crash_and_restart().await;
    world.transports.set_script(|_, _| DELIVERED);
    world.until(subscription, &[first], DeliveryStatus::Delivered).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!world.arrivals(subscription).contains(&resent));
}

#[tokio::test(start_paused = true)]
async fn what_no_provider_can_read_is_a_dead_letter_and_stops_nobody() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    let unreadable = world.post(integration, "panic").await;
    let after = world.post(integration, "paid#1").await;
    world.until(subscription, &[after], DeliveryStatus::Delivered).await;
    world.until(subscription, &[unreadable], DeliveryStatus::Dead).await;
    let note = world.state.note(unreadable).await.unwrap().expect("it is marked");
    assert!(matches!(note.mark, Some(Mark::Unreadable(why)) if why.contains("`none` panicked")));
    let letter = world.state.dead_letter(subscription, unreadable).await.unwrap().expect("it is there");
    assert_eq!(letter.reason, DeadReason::ProviderFailed);
    assert_eq!(world.handle().counters().totals().restarts, 0);
}
