//! Only what is selected is delivered, as it is asked for; what a program fails on is a dead letter.

use std::time::Duration;

use hookmill_actors::{
    domain::{
        backoff::{Exponential, RetryPolicy, StatusPattern},
        config::{Resource, ResourceKey},
        delivery::{DeadReason, DeliveryStatus},
        ids::{EventId, SubscriptionId},
        order::{OnFailure, Order},
        selection::Selection,
        transform::Transform,
    },
    ports::{
        state_store::{DeliveryState, StateStore},
        transport::Verdict,
    },
    testkit::scripted_transport::{ScriptedTransports, Step},
};

use crate::world::{World, quick_retries};

fn types(patterns: &[&str]) -> Selection {
    Selection { types: patterns.iter().map(|&pattern| pattern.to_owned()).collect(), filter: None }
}

fn filter(text: &str) -> Selection {
    Selection { types: Vec::new(), filter: Some(text.to_owned()) }
}

async fn reason(world: &World, subscription: SubscriptionId, event: EventId) -> Option<DeadReason> {
    world.state.dead_letter(subscription, event).await.expect("the state answers").map(|letter| letter.reason)
}

#[tokio::test(start_paused = true)]
async fn only_the_types_that_fit_are_delivered_and_the_position_passes_the_rest() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let payments = types(&["payment.*"]);
    let subscription = world.subscription_with(integration, quick_retries(&[]), |it| it.selection = payments).await;
    let all = world.subscription(integration, quick_retries(&[])).await;
    let (mut wanted, mut rest) = (Vec::new(), Vec::new());
    for _ in 0..400 {
        wanted.push(world.post(integration, "payment.failed").await);
        rest.push(world.post(integration, "refund.succeeded").await);
    }
    world.until(subscription, &wanted, DeliveryStatus::Delivered).await;
    world.until(all, &rest, DeliveryStatus::Delivered).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut arrived = world.arrivals(subscription);
    arrived.sort_unstable();
    assert_eq!(arrived, wanted);
    let position = world.state.position(subscription).await.unwrap().expect("it was recorded");
    assert_eq!((Some(&position.read_upto), position.open.len()), (rest.last(), 0));
    let totals = world.handle().counters().totals();
    assert_eq!((totals.filtered, totals.delivered), (400, 1_200));
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_fails_or_panics_costs_that_event_alone() {
    for program in ["fault", "panic"] {
        let world = World::start(ScriptedTransports::default()).await;
        let integration = world.integration().await;
        let broken = filter(program);
        let subscription = world.subscription_with(integration, quick_retries(&[]), |it| it.selection = broken).await;
        let healthy =
            world.subscription_with(integration, quick_retries(&[]), |it| it.selection = filter("has a")).await;
        let event = world.post(integration, "a").await;
        let other = world.post(integration, "b").await;
        world.until(subscription, &[event, other], DeliveryStatus::Dead).await;
        assert_eq!(reason(&world, subscription, event).await, Some(DeadReason::FilterFailed));
        world.until(healthy, &[event], DeliveryStatus::Delivered).await;
        assert_eq!(world.arrivals(healthy), [event]);
        assert_eq!(world.handle().counters().totals().restarts, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_transformation_changes_what_is_sent_and_its_failure_is_a_dead_letter() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let program = Transform::Jq { program: ".".to_owned() };
    let subscription = world.subscription_with(integration, quick_retries(&[1]), |it| it.transform = program).await;
    let event = world.post(integration, "loud").await;
    let broken = world.post(integration, "a fault").await;
    world.until(subscription, &[event], DeliveryStatus::Delivered).await;
    world.until(subscription, &[broken], DeliveryStatus::Dead).await;
    assert_eq!(reason(&world, subscription, broken).await, Some(DeadReason::TransformFailed));
    let bodies: Vec<_> = world.transports.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, ["LOUD"]);
}

#[tokio::test(start_paused = true)]
async fn a_transformation_whose_engine_is_away_waits_for_it_and_spends_no_attempt() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let program = Transform::Jq { program: ".".to_owned() };
    let order = Order::Fifo { on_failure: OnFailure::Block };
    let subscription = world
        .subscription_with(integration, quick_retries(&[]), |it| (it.transform, it.order) = (program, order))
        .await;
    world.programs.set_available(false);
    let events = [world.post(integration, "a").await, world.post(integration, "b").await];
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(world.arrivals(subscription), []);
    let known = world.state.delivery(subscription, events[0]).await.unwrap();
    let DeliveryState::Record(record) = known else { panic!("{known:?}") };
    assert_eq!((record.status, record.attempts, record.latest.len()), (DeliveryStatus::Retrying, 0, 0));
    assert!(record.reason.as_ref().is_some_and(|reason| reason.contains("no process can be started")), "{record:?}");
    // 1, 2, 4 ... seconds, then once a minute, each spread over its second half.
    assert!((60..=125).contains(&record.postponed), "{record:?}");
    let totals = world.handle().counters().totals();
    assert_eq!((totals.engine_unavailable, totals.dead), (u64::from(record.postponed), 0), "the other waits behind it");

    let world = world.crash_and_restart().await;
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    assert_eq!(world.delivered(subscription), events);
    let known = world.state.delivery(subscription, events[0]).await.unwrap();
    let DeliveryState::Record(record) = known else { panic!("{known:?}") };
    assert_eq!((record.attempts, record.reason, record.postponed), (1, None, 0), "only what was sent is an attempt");
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_it_is_worth_becomes_a_dead_letter_at_its_turn_and_while_resting() {
    let world =
        World::start(ScriptedTransports::new(|_, _| Step::Answer(Verdict::Retry { after: None }, Duration::ZERO)))
            .await;
    let integration = world.integration().await;
    let subscription =
        world.subscription_with(integration, quick_retries(&[40, 40]), |it| it.expires_after_s = Some(30)).await;
    let tried = world.post(integration, "a").await;
    world.until(subscription, &[tried], DeliveryStatus::Dead).await;
    assert_eq!(reason(&world, subscription, tried).await, Some(DeadReason::Expired));
    assert_eq!(world.arrivals(subscription).len(), 1);
    let rest = |resource: &mut Resource| {
        let Resource::Subscription(it) = resource else { unreachable!() };
        it.active = false;
    };
    world.update(ResourceKey::Subscription(subscription), rest).await;
    let waiting = world.post(integration, "b").await;
    world.until(subscription, &[waiting], DeliveryStatus::Dead).await;
    assert_eq!(reason(&world, subscription, waiting).await, Some(DeadReason::Expired));
    assert_eq!(world.arrivals(subscription).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn some_statuses_go_straight_to_the_dead_letter() {
    let world =
        World::start(ScriptedTransports::new(|_, _| Step::Answer(Verdict::Retry { after: None }, Duration::ZERO)))
            .await;
    let integration = world.integration().await;
    let retry = RetryPolicy { dead_statuses: vec![StatusPattern::Class(5)], ..quick_retries(&[1, 1]) };
    let subscription = world.subscription(integration, retry).await;
    let event = world.post(integration, "a").await;
    world.until(subscription, &[event], DeliveryStatus::Dead).await;
    assert_eq!(reason(&world, subscription, event).await, Some(DeadReason::Refused));
    assert_eq!(world.arrivals(subscription).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn exponential_waits_end_with_their_attempts_and_age_ends_them_sooner() {
    let failing = || ScriptedTransports::new(|_, _| Step::Answer(Verdict::Retry { after: None }, Duration::ZERO));
    let exponential = Exponential { first_s: 2, wait_max_s: 3_600, attempts_max: 8 };
    for age_max_s in [None, Some(60)] {
        let world = World::start(failing()).await;
        let integration = world.integration().await;
        let retry = RetryPolicy { exponential: Some(exponential), age_max_s, ..RetryPolicy::default() };
        let subscription = world.subscription(integration, retry).await;
        let event = world.post(integration, "a").await;
        world.until(subscription, &[event], DeliveryStatus::Dead).await;
        let seen = world.transports.seen();
        if let Some(age) = age_max_s {
            let first = seen[0].at_ms;
            assert!(seen.iter().all(|seen| seen.at_ms - first < age * 1_000));
        } else {
            assert_eq!(seen.len(), 8);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_under_way_at_every_crash_is_found_out_and_the_others_are_not() {
    // Every attempt on the poisonous one takes the process down while it is under way.
    let world = World::start(ScriptedTransports::new(|_, consignment| {
        if consignment.event.arrival.body.as_ref() == b"poison" {
            Step::Hang
        } else {
            Step::Answer(Verdict::Delivered, Duration::from_secs(1))
        }
    }))
    .await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[1])).await;
    let mut innocent = world.post_many(integration, 5).await;
    let poison = world.post(integration, "poison").await;
    innocent.extend(world.post_many(integration, 5).await);
    let mut world = world;
    let mut crashes = 0;
    while world.status(subscription, poison).await != DeliveryStatus::Dead {
        crashes += 1;
        assert!(crashes < 40, "it is never found out");
        // At first the others are under way, too.
        tokio::time::sleep(Duration::from_millis(if crashes < 4 { 700 } else { 4_000 })).await;
        world = world.crash_and_restart().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(reason(&world, subscription, poison).await, Some(DeadReason::Poison));
    world.until(subscription, &innocent, DeliveryStatus::Delivered).await;
}
