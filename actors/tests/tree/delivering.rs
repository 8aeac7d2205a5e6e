//! What is accepted arrives, once where nothing breaks.

use std::{collections::BTreeSet, time::Duration};

use hookmill_actors::{
    domain::{
        backoff::RetryPolicy,
        config::{Resource, ResourceKey},
        delivery::{DeadReason, DeliveryStatus},
        ids::EventId,
    },
    ports::{
        event_log::EventLog,
        state_store::{DeliveryState, StateStore},
        transport::Verdict,
    },
    testkit::scripted_transport::{ScriptedTransports, Step},
};

use crate::world::{World, quick_retries};

#[tokio::test(start_paused = true)]
async fn every_event_arrives_once_at_every_subscription() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let other = world.integration().await;
    let first = world.subscription(integration, RetryPolicy::default()).await;
    let second = world.subscription(integration, RetryPolicy::default()).await;
    let third = world.subscription(other, RetryPolicy::default()).await;
    let events = world.post_many(integration, 3_000).await;
    let others = world.post_many(other, 10).await;
    world.until(first, &events, DeliveryStatus::Delivered).await;
    world.until(second, &events, DeliveryStatus::Delivered).await;
    world.until(third, &others, DeliveryStatus::Delivered).await;
    for (subscription, sent) in [(first, &events), (second, &events), (third, &others)] {
        let mut arrived = world.arrivals(subscription);
        arrived.sort_unstable();
        assert_eq!(&arrived, sent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_try_has_the_time_at_which_it_succeeded() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    // The body says how many seconds it takes: the first ends after the last.
    world.transports.set_script(|_, consignment| {
        let seconds = std::str::from_utf8(&consignment.event.arrival.body).unwrap().parse().unwrap();
        Step::Answer(Verdict::Delivered, Duration::from_secs(seconds))
    });
    let began_ms = world.clock_ms();
    let mut took = Vec::new();
    for (body, took_ms) in [("60", 60_000), ("20", 20_000), ("40", 40_000)] {
        took.push((world.post(integration, body).await, took_ms));
    }
    for (event, took_ms) in took {
        world.until(subscription, &[event], DeliveryStatus::Delivered).await;
        let known = world.state.delivery(subscription, event).await.unwrap();
        let DeliveryState::Delivered { at_ms: Some(at_ms), attempt: Some(attempt) } = known else {
            panic!("{known:?}")
        };
        let tried = (attempt.at_ms - began_ms, u64::from(attempt.duration_ms), attempt.status);
        assert!(tried.0 <= 100 && (took_ms..took_ms + 100).contains(&tried.1) && tried.2 == Some(200), "{tried:?}");
        let late_ms = at_ms - began_ms - took_ms;
        assert!(late_ms <= 100, "recorded {late_ms} ms after it succeeded");
    }
}

#[tokio::test(start_paused = true)]
async fn the_window_is_never_passed_and_the_position_follows() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    let events = world.post_many(integration, 1_000).await;
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    let destination = world.handle().config().current().configuration.subscriptions[&subscription].destination_id;
    assert_eq!(world.transports.most_under_way(destination), 16);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let position = world.state.position(subscription).await.unwrap().expect("it was recorded");
    assert_eq!(Some(&position.read_upto), events.last());
    assert_eq!(position.open, Vec::<EventId>::new());
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_hangs_stops_nobody_else() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let hung = world.subscription(integration, RetryPolicy::default()).await;
    let healthy = world.subscription(integration, RetryPolicy::default()).await;
    let dead_end = world.handle().config().current().configuration.subscriptions[&hung].destination_id;
    world.transports.set_script(move |destination, _| {
        if destination == dead_end { Step::Hang } else { Step::Answer(Verdict::Delivered, Duration::from_millis(1)) }
    });
    let events = world.post_many(integration, 2_000).await;
    world.until(healthy, &events, DeliveryStatus::Delivered).await;
    assert_eq!(world.arrivals(hung).len(), 16, "only its window is under way; the rest waits in the log");
}

#[tokio::test(start_paused = true)]
async fn a_new_subscription_gets_only_what_comes_after_it() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    world.post_many(integration, 5).await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    let later = world.post_many(integration, 5).await;
    world.until(subscription, &later, DeliveryStatus::Delivered).await;
    assert_eq!(world.arrivals(subscription), later);
}

#[tokio::test(start_paused = true)]
async fn a_paused_subscription_goes_on_where_it_was() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    let set_active = |active| {
        move |resource: &mut Resource| {
            let Resource::Subscription(it) = resource else { unreachable!() };
            it.active = active;
        }
    };
    world.update(ResourceKey::Subscription(subscription), set_active(false)).await;
    let events = world.post_many(integration, 400).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.arrivals(subscription), []);
    world.update(ResourceKey::Subscription(subscription), set_active(true)).await;
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    assert_eq!(world.arrivals(subscription).len(), 400);
}

#[tokio::test(start_paused = true)]
async fn events_are_named_at_intake() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    let named = world.post(integration, "payment.failed").await;
    let with_id = world.post(integration, "refund.succeeded#re_1").await;
    world.until(subscription, &[named, with_id], DeliveryStatus::Delivered).await;
    let note = world.state.note(named).await.unwrap().expect("it was named");
    assert_eq!((note.event_type.as_deref(), note.provider_id.as_deref()), (Some("payment.failed"), None));
    let note = world.state.note(with_id).await.unwrap().expect("it was named");
    assert_eq!((note.event_type.as_deref(), note.provider_id.as_deref()), (Some("refund.succeeded"), Some("re_1")));
}

#[tokio::test(start_paused = true)]
async fn damaged_bytes_become_a_dead_letter_and_are_not_delivered() {
    let world = World::start(ScriptedTransports::new(|_, _| Step::Hang)).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    let hung = world.post_many(integration, 16).await;
    let damaged = world.post(integration, "a").await;
    world.log.damage(damaged);
    let world = world.crash_and_restart().await;
    world.transports.set_script(|_, _| Step::Answer(Verdict::Delivered, Duration::from_millis(1)));
    world.until(subscription, &[damaged], DeliveryStatus::Dead).await;
    let letter = world.state.dead_letter(subscription, damaged).await.unwrap().expect("it is there");
    assert_eq!(letter.reason, DeadReason::Corrupt);
    assert!(!world.arrivals(subscription).contains(&damaged));
    assert!(hung.iter().all(|event| world.arrivals(subscription).contains(event)));
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_everything_arrives_and_repeats_are_bounded_by_the_window() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[1])).await;
    let mut events = world.post_many(integration, 500).await;
    let mut world = world;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(7)).await;
        world = world.crash_and_restart().await;
        events.extend(world.post_many(integration, 100).await);
    }
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    let arrived = world.arrivals(subscription);
    assert_eq!(arrived.iter().copied().collect::<BTreeSet<_>>(), events.iter().copied().collect());
    let repeats = arrived.len() - events.len();
    assert!(repeats <= 5 * (16 + 2_048), "{repeats} repeats");
}

#[tokio::test(start_paused = true)]
async fn what_outlives_its_retention_is_a_dead_letter_not_a_loss() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    let finished = world.post_many(integration, 10).await;
    world.until(subscription, &finished, DeliveryStatus::Delivered).await;
    world
        .update(ResourceKey::Subscription(subscription), |resource| {
            let Resource::Subscription(it) = resource else { unreachable!() };
            it.active = false;
        })
        .await;
    let mut waiting = world.post_many(integration, 10).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    waiting.extend(world.post_many(integration, 10).await);
    tokio::time::sleep(Duration::from_secs(31 * 24 * 3600)).await;
    for event in &waiting {
        let letter = world.state.dead_letter(subscription, *event).await.unwrap().expect("it expired");
        assert_eq!(letter.reason, DeadReason::Expired);
        assert!(world.log.get(*event).await.unwrap().is_some(), "its payload can still be replayed");
    }
    for event in &finished {
        assert_eq!(world.log.get(*event).await.unwrap(), None, "finished events leave the log");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_rests_does_not_read_the_log_again_and_again() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    let rest = |resource: &mut Resource| {
        let Resource::Subscription(it) = resource else { unreachable!() };
        it.active = false;
        it.start_after = EventId::ZERO;
    };
    world.update(ResourceKey::Subscription(subscription), rest).await;
    world.post_many(integration, 600).await;
    let world = world.crash_and_restart().await;
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    // Retention looks at each intake and each position once a minute.
    assert!(world.log.reads() < 1_000, "{} reads in two hours of rest", world.log.reads());
}

#[tokio::test(start_paused = true)]
async fn starting_at_a_beginning_that_is_trimmed_away_costs_nothing() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let old = world.post_many(integration, 100).await;
    tokio::time::sleep(Duration::from_secs(31 * 24 * 3600)).await;
    assert_eq!(world.log.get(old[0]).await.unwrap(), None, "it is trimmed");
    let subscription = world.subscription(integration, RetryPolicy::default()).await;
    let from_the_beginning = |resource: &mut Resource| {
        let Resource::Subscription(it) = resource else { unreachable!() };
        it.start_after = EventId::ZERO;
    };
    world.update(ResourceKey::Subscription(subscription), from_the_beginning).await;
    let world = world.crash_and_restart().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(world.log.reads() < 1_000, "{} reads in an hour", world.log.reads());
    let fresh = world.post_many(integration, 10).await;
    world.until(subscription, &fresh, DeliveryStatus::Delivered).await;
}
