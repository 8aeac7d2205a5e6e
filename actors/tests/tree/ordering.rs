//! Order is kept where it is asked for, and what fails holds back only what must wait for it.

use std::{
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
        ids::EventId,
        order::{OnFailure, Order},
    },
    ports::{event_log::EventLog, transport::Verdict},
    testkit::scripted_transport::{ScriptedTransports, Step},
};

use crate::world::{World, quick_retries};

const TOOK: Duration = Duration::from_millis(3);

fn by_customer(on_failure: OnFailure) -> Order {
    Order::FifoByKey { key: "upto :".to_owned(), on_failure }
}

/// Takes everything but what contains `bad` while the switch is on.
fn refusing_bad(on: &Arc<AtomicBool>) -> ScriptedTransports {
    let on = on.clone();
    ScriptedTransports::new(move |_, consignment| {
        let bad = consignment.event.arrival.body.windows(3).any(|window| window == b"bad");
        if bad && on.load(Ordering::Relaxed) {
            Step::Answer(Verdict::Retry { after: None }, TOOK)
        } else {
            Step::Answer(Verdict::Delivered, TOOK)
        }
    })
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(start_paused = true)]
async fn fifo_delivers_one_at_a_time_in_the_order_of_acceptance() {
    let world = World::start(ScriptedTransports::new(|_, consignment| {
        let slow = u64::from(consignment.event.id.to_bytes()[15]) % 20;
        Step::Answer(Verdict::Delivered, Duration::from_millis(slow))
    }))
    .await;
    let integration = world.integration().await;
    let order = Order::Fifo { on_failure: OnFailure::Block };
    let subscription = world.subscription_with(integration, quick_retries(&[1]), |it| it.order = order).await;
    let events = world.post_many(integration, 600).await;
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    assert_eq!(world.arrivals(subscription), events);
    let destination = world.handle().config().current().configuration.subscriptions[&subscription].destination_id;
    assert_eq!(world.transports.most_under_way(destination), 1);
}

#[tokio::test(start_paused = true)]
async fn fifo_that_blocks_never_passes_a_failed_event_not_even_a_dead_one() {
    let on = Arc::new(AtomicBool::new(true));
    let world = World::start(refusing_bad(&on)).await;
    let integration = world.integration().await;
    let order = Order::Fifo { on_failure: OnFailure::Block };
    let subscription = world.subscription_with(integration, quick_retries(&[1, 1]), |it| it.order = order).await;
    let first = world.post(integration, "good").await;
    let bad = world.post(integration, "bad").await;
    let after = world.post_many(integration, 700).await;
    world.until(subscription, &[bad], DeliveryStatus::Dead).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.delivered(subscription), [first]);
    let world = world.crash_and_restart().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.delivered(subscription), [first], "a restart passes nothing either");
    on.store(false, Ordering::Relaxed);
    world.handle().replay("operator", subscription, bad).await.expect("it is dead");
    world.until(subscription, &after, DeliveryStatus::Delivered).await;
    let expected: Vec<EventId> = [first, bad].into_iter().chain(after).collect();
    assert_eq!(world.delivered(subscription), expected);
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_holds_back_only_itself_and_keeps_its_order() {
    let on = Arc::new(AtomicBool::new(true));
    let world = World::start(refusing_bad(&on)).await;
    let integration = world.integration().await;
    let order = by_customer(OnFailure::Block);
    let subscription = world.subscription_with(integration, quick_retries(&[60; 20]), |it| it.order = order).await;
    let bad = world.post(integration, "ann:bad").await;
    let (mut ann, mut bob) = (Vec::new(), Vec::new());
    for _ in 0..400 {
        ann.push(world.post(integration, "ann:good").await);
        bob.push(world.post(integration, "bob:good").await);
    }
    world.until(subscription, &bob, DeliveryStatus::Delivered).await;
    assert_eq!(world.delivered(subscription), bob, "more of one key than the window holds, and the other goes on");
    world.until(subscription, &ann, DeliveryStatus::Parked).await;
    on.store(false, Ordering::Relaxed);
    world.until(subscription, &ann, DeliveryStatus::Delivered).await;
    let expected: Vec<EventId> = bob.into_iter().chain([bad]).chain(ann).collect();
    assert_eq!(world.delivered(subscription), expected);
}

#[tokio::test(start_paused = true)]
async fn parked_deliveries_survive_a_crash_in_their_order() {
    let on = Arc::new(AtomicBool::new(true));
    let world = World::start(refusing_bad(&on)).await;
    let integration = world.integration().await;
    let order = by_customer(OnFailure::Block);
    let subscription = world.subscription_with(integration, quick_retries(&[60; 20]), |it| it.order = order).await;
    let bad = world.post(integration, "ann:bad").await;
    let mut ann = Vec::new();
    for _ in 0..300 {
        ann.push(world.post(integration, "ann:good").await);
    }
    world.until(subscription, &ann, DeliveryStatus::Parked).await;
    let world = world.crash_and_restart().await;
    for _ in 0..50 {
        ann.push(world.post(integration, "ann:good").await);
    }
    on.store(false, Ordering::Relaxed);
    eventually("some of the lane is delivered", || world.delivered(subscription).len() > 20).await;
    let world = world.crash_and_restart().await;
    world.until(subscription, &ann, DeliveryStatus::Delivered).await;
    // What was under way at the crash comes twice, in its place.
    let mut delivered = world.delivered(subscription);
    let firsts: Vec<EventId> = [bad].into_iter().chain(ann).collect();
    let repeats = delivered.len() - firsts.len();
    assert!(repeats <= 2_048, "{repeats} repeats");
    delivered.sort_unstable();
    delivered.dedup();
    assert_eq!(delivered, firsts);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_parks_goes_on_once_its_failed_event_is_dead() {
    let on = Arc::new(AtomicBool::new(true));
    let world = World::start(refusing_bad(&on)).await;
    let integration = world.integration().await;
    let order = by_customer(OnFailure::Park);
    let subscription = world.subscription_with(integration, quick_retries(&[5, 5]), |it| it.order = order).await;
    let bad = world.post(integration, "ann:bad").await;
    let mut ann = Vec::new();
    for _ in 0..10 {
        ann.push(world.post(integration, "ann:good").await);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.delivered(subscription), [], "it is still retried");
    world.until(subscription, &[bad], DeliveryStatus::Dead).await;
    world.until(subscription, &ann, DeliveryStatus::Delivered).await;
    assert_eq!(world.delivered(subscription), ann);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_skips_does_not_wait_for_retries() {
    let on = Arc::new(AtomicBool::new(true));
    let world = World::start(refusing_bad(&on)).await;
    let integration = world.integration().await;
    let order = by_customer(OnFailure::Skip);
    let subscription = world.subscription_with(integration, quick_retries(&[60; 5]), |it| it.order = order).await;
    let bad = world.post(integration, "ann:bad").await;
    let good = world.post(integration, "ann:good").await;
    world.until(subscription, &[good], DeliveryStatus::Delivered).await;
    assert_eq!(world.status(subscription, bad).await, DeliveryStatus::Retrying);
    on.store(false, Ordering::Relaxed);
    world.until(subscription, &[bad], DeliveryStatus::Delivered).await;
}

#[tokio::test(start_paused = true)]
async fn what_blocks_goes_on_when_the_order_no_longer_asks_for_it() {
    let on = Arc::new(AtomicBool::new(true));
    let world = World::start(refusing_bad(&on)).await;
    let integration = world.integration().await;
    let order = by_customer(OnFailure::Block);
    let subscription = world.subscription_with(integration, quick_retries(&[1]), |it| it.order = order).await;
    let bad = world.post(integration, "ann:bad").await;
    let good = world.post(integration, "ann:good").await;
    world.until(subscription, &[bad], DeliveryStatus::Dead).await;
    world.until(subscription, &[good], DeliveryStatus::Parked).await;
    let key = ResourceKey::Subscription(subscription);
    let parallel = |resource: &mut Resource| {
        let Resource::Subscription(it) = resource else { unreachable!() };
        it.order = Order::Parallel;
    };
    world.update(key, parallel).await;
    world.until(subscription, &[good], DeliveryStatus::Delivered).await;
}

#[tokio::test(start_paused = true)]
async fn the_payload_of_a_parked_delivery_outlives_the_trim() {
    let on = Arc::new(AtomicBool::new(true));
    let world = World::start(refusing_bad(&on)).await;
    let integration = world.integration().await;
    let order = by_customer(OnFailure::Block);
    let subscription = world.subscription_with(integration, quick_retries(&[3600; 60]), |it| it.order = order).await;
    world.post(integration, "ann:bad").await;
    let parked = world.post(integration, "ann:good").await;
    world.until(subscription, &[parked], DeliveryStatus::Parked).await;
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert!(world.log.get(parked).await.unwrap().is_some());
    on.store(false, Ordering::Relaxed);
    world.until(subscription, &[parked], DeliveryStatus::Delivered).await;
}

/// After a change of the order two failed events of one key may be due: one sent again out of the dead letter, which
/// holds the key back since the restart, and one that failed meanwhile.
#[tokio::test(start_paused = true)]
async fn what_expires_without_holding_its_key_back_lets_nobody_pass() {
    let world = World::start(refusing_bad(&Arc::new(AtomicBool::new(true)))).await;
    let integration = world.integration().await;
    let order = by_customer(OnFailure::Block);
    let subscription = world.subscription_with(integration, quick_retries(&[]), |it| it.order = order).await;
    let key = ResourceKey::Subscription(subscription);
    let dead = world.post(integration, "ann:bad 1").await;
    world.until(subscription, &[dead], DeliveryStatus::Dead).await;
    let park = |resource: &mut Resource| {
        let Resource::Subscription(it) = resource else { unreachable!() };
        (it.order, it.retry) = (by_customer(OnFailure::Park), quick_retries(&[5]));
        it.expires_after_s = Some(300);
    };
    world.update(key, park).await;
    let failed = world.post(integration, "ann:bad 2").await;
    world.until(subscription, &[failed], DeliveryStatus::Retrying).await;
    let rest = |active: bool| {
        move |resource: &mut Resource| {
            let Resource::Subscription(it) = resource else { unreachable!() };
            it.active = active;
        }
    };
    world.update(key, rest(false)).await;
    world.handle().replay("operator", subscription, dead).await.expect("it is dead");
    let world = world.crash_and_restart().await;
    world.transports.set_script(|_, _| Step::Answer(Verdict::Delivered, Duration::from_secs(20)));
    tokio::time::sleep(Duration::from_secs(600)).await;
    let behind = world.post(integration, "ann:good").await;
    world.update(key, rest(true)).await;
    world.until(subscription, &[failed], DeliveryStatus::Dead).await;
    world.until(subscription, &[dead, behind], DeliveryStatus::Delivered).await;
    assert_eq!(world.delivered(subscription), [dead, behind]);
    let destination = world.handle().config().current().configuration.subscriptions[&subscription].destination_id;
    assert_eq!(world.transports.most_under_way(destination), 1, "one of a key at a time");
}
