//! A bulk replay covers what stood where its query says when it was made: not what came there since, and all of what
//! did, recorded or about to be.

use std::time::Duration;

use hookmill_actors::{
    domain::{
        config::{Resource, ResourceKey},
        delivery::DeliveryStatus,
        ids::{EventId, IntegrationId, SubscriptionId},
        order::{OnFailure, Order},
        replay::{EventFilter, ReplayQuery, ReplayStatus},
        standing::Standing,
    },
    ports::transport::{Consignment, Verdict},
    replay::{NewReplay, ReplayCommand},
    testkit::scripted_transport::{ScriptedTransports, Step},
};

use crate::{
    replaying::{FAIL, OK, command, create, dead_letters, events_of, replayed_events, until},
    world::{World, quick_retries},
};

const REFUSED: Step = Step::Answer(Verdict::Refused, Duration::from_millis(1));

fn says(consignment: &Consignment, text: &str) -> bool {
    consignment.event.arrival.body.windows(text.len()).any(|window| window == text.as_bytes())
}

fn standing(integration: IntegrationId, subscription: SubscriptionId, standing: Standing) -> NewReplay {
    let filter = EventFilter { standing: Some(standing), ..events_of(integration, subscription) };
    NewReplay { query: ReplayQuery::Events(filter), target: None, rate_per_s: 1_000, start: false }
}

/// Plans, lets `meanwhile` happen, and runs. Returns what was sent again.
async fn replayed(world: &World, wanted: NewReplay, meanwhile: impl AsyncFnOnce(&World)) -> Vec<EventId> {
    let id = create(world, wanted).await;
    until(world, id, ReplayStatus::Planned).await;
    meanwhile(world).await;
    command(world, id, ReplayCommand::Start).await;
    until(world, id, ReplayStatus::Done).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    replayed_events(world)
}

#[tokio::test(start_paused = true)]
async fn what_is_discarded_later_takes_the_place_of_nothing_that_was() {
    let world = World::start(ScriptedTransports::new(|_, _| REFUSED)).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[])).await;
    let (late, early) = (world.post(integration, "1").await, world.post(integration, "2").await);
    world.until(subscription, &[late, early], DeliveryStatus::Dead).await;
    world.handle().discard("operator", subscription, early, "a test order").await.expect("it is dead");
    let wanted = standing(integration, subscription, Standing::Discarded);
    let sent = replayed(&world, wanted, async |world: &World| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.handle().discard("operator", subscription, late, "another").await.expect("it is dead");
    })
    .await;
    assert_eq!(sent, [early]);
}

#[tokio::test(start_paused = true)]
async fn what_expires_later_takes_the_place_of_nothing_that_was_dead() {
    let script = |_, consignment: &Consignment| if says(consignment, "slow") { FAIL } else { REFUSED };
    let world = World::start(ScriptedTransports::new(script)).await;
    let integration = world.integration().await;
    let subscription =
        world.subscription_with(integration, quick_retries(&[100]), |it| it.expires_after_s = Some(50)).await;
    let (late, early) = (world.post(integration, "slow").await, world.post(integration, "dead").await);
    world.until(subscription, &[late], DeliveryStatus::Retrying).await;
    world.until(subscription, &[early], DeliveryStatus::Dead).await;
    let wanted = standing(integration, subscription, Standing::Dead);
    let sent = replayed(&world, wanted, async |world: &World| {
        world.until(subscription, &[late], DeliveryStatus::Dead).await;
    })
    .await;
    assert_eq!(sent, [early]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_ends_later_takes_the_place_of_nothing_that_was_delivered() {
    let script = |_, consignment: &Consignment| match (says(consignment, "slow"), consignment.attempt) {
        (true, 1) => FAIL,
        (true, 2) => Step::Answer(Verdict::Delivered, Duration::from_secs(20)),
        _ => OK,
    };
    let world = World::start(ScriptedTransports::new(script)).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[1])).await;
    let (late, early) = (world.post(integration, "slow").await, world.post(integration, "quick").await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.arrivals(subscription), [late, early, late], "its second attempt is under way");
    let wanted = standing(integration, subscription, Standing::Delivered);
    let sent = replayed(&world, wanted, async |world: &World| {
        world.until(subscription, &[late], DeliveryStatus::Delivered).await;
    })
    .await;
    assert_eq!(sent, [early]);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_about_to_be_recorded_is_planned_too() {
    let script = |_, consignment: &Consignment| match says(consignment, "slow") {
        true => Step::Answer(Verdict::Refused, Duration::from_secs(10)),
        false => REFUSED,
    };
    let world = World::start(ScriptedTransports::new(script)).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[])).await;
    let slow = world.post(integration, "slow").await;
    let quick = world.post(integration, "quick").await;
    world.until(subscription, &[quick], DeliveryStatus::Dead).await;
    // Its attempt ends; nothing of that is in the log yet.
    let ends_ms = slow.millis() + 10_000;
    while world.clock_ms() < ends_ms + 10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(world.status(subscription, slow).await, DeliveryStatus::Pending);
    let id = create(&world, dead_letters(1_000, true)).await;
    let job = until(&world, id, ReplayStatus::Done).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((job.counts.planned, job.counts.replayed), (2, 2));
    assert_eq!(replayed_events(&world), [slow, quick]);
}

/// An event that failed once and was delivered then has kept its key in its record; sent again, it must not take the
/// place of the one that holds the key back.
#[tokio::test(start_paused = true)]
async fn a_delivered_event_that_is_sent_again_holds_nobody_back_after_a_restart() {
    let fails = |bad: &'static str| move |_, consignment: &Consignment| if says(consignment, bad) { FAIL } else { OK };
    let world = World::start(ScriptedTransports::new(fails("first"))).await;
    let integration = world.integration().await;
    let order = Order::FifoByKey { key: "upto :".to_owned(), on_failure: OnFailure::Park };
    let subscription = world.subscription_with(integration, quick_retries(&[60; 5]), |it| it.order = order).await;
    let first = world.post(integration, "ann:first").await;
    world.until(subscription, &[first], DeliveryStatus::Retrying).await;
    world.transports.set_script(fails("second"));
    world.until(subscription, &[first], DeliveryStatus::Delivered).await;
    let second = world.post(integration, "ann:second").await;
    let third = world.post(integration, "ann:third").await;
    world.until(subscription, &[third], DeliveryStatus::Parked).await;
    let active = |active: bool| {
        move |resource: &mut Resource| {
            let Resource::Subscription(it) = resource else { unreachable!() };
            it.active = active;
        }
    };
    let key = ResourceKey::Subscription(subscription);
    world.update(key, active(false)).await;
    world.handle().replay_event("operator", subscription, first).await.expect("it is settled");
    let world = world.crash_and_restart().await;
    world.update(key, active(true)).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.status(subscription, third).await, DeliveryStatus::Parked, "the second still holds it back");
    world.transports.set_script(|_, _| OK);
    world.until(subscription, &[third], DeliveryStatus::Delivered).await;
    assert_eq!(world.delivered(subscription), [first, first, second, third]);
}

#[tokio::test(start_paused = true)]
async fn where_events_stood_is_not_known_without_their_subscription() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    world.post_many(integration, 3).await;
    let [source, target] = [(); 2].map(|()| world.subscription(integration, quick_retries(&[])));
    let (source, target) = (source.await, target.await);
    let after = world.post_many(integration, 2).await;
    world.until(source, &after, DeliveryStatus::Delivered).await;
    let wanted = NewReplay { target: Some(target), start: true, ..standing(integration, source, Standing::Filtered) };
    let id = create(&world, wanted).await;
    world.delete(ResourceKey::Subscription(source)).await;
    let job = until(&world, id, ReplayStatus::Failed).await;
    assert_eq!(job.note, format!("subscription {source} was deleted"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(replayed_events(&world), [], "what came before the source began was never filtered");
}
