//! Dead letters that will not be delivered leave: by an operator with a reason, or at the end of their retention.

use std::time::Duration;

use hookmill_actors::{
    domain::{
        config::{Resource, ResourceKey},
        delivery::{DeadReason, DeliveryStatus},
        order::{OnFailure, Order},
        replay::DeadLetterFilter,
        task::Task,
    },
    ports::{
        event_log::EventLog,
        state_store::{DeliveryState, StateStore},
    },
    replay::ReplayError,
    scheduler::Retention,
    testkit::scripted_transport::ScriptedTransports,
    tree::TreeOptions,
};
use serde_json::json;

use crate::{
    replaying::{Down, FAIL, OK},
    world::{World, quick_retries},
};

#[tokio::test(start_paused = true)]
async fn a_discarded_letter_keeps_its_reason_and_lets_its_lane_go_on() {
    let world = World::start(ScriptedTransports::new(|_, consignment| {
        if consignment.event.arrival.body.as_ref() == b"bad" { FAIL } else { OK }
    }))
    .await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[])).await;
    world
        .update(ResourceKey::Subscription(subscription), |resource| {
            let Resource::Subscription(it) = resource else { unreachable!() };
            it.order = Order::Fifo { on_failure: OnFailure::Block };
        })
        .await;
    let bad = world.post(integration, "bad").await;
    let behind = world.post_many(integration, 3).await;
    world.until(subscription, &[bad], DeliveryStatus::Dead).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.arrivals(subscription), [bad], "the others wait for an operator");
    world.handle().discard("operator", subscription, bad, "a test order").await.expect("it is dead");
    world.until(subscription, &behind, DeliveryStatus::Delivered).await;
    assert_eq!(world.status(subscription, bad).await, DeliveryStatus::Discarded);
    let DeliveryState::Record(record) = world.state.delivery(subscription, bad).await.unwrap() else {
        panic!("it has a record");
    };
    assert_eq!(record.reason.as_deref(), Some("a test order"));
    assert_eq!(world.state.dead_letter(subscription, bad).await, Ok(None));
    let again = world.handle().discard("operator", subscription, bad, "again").await;
    assert_eq!(again, Err(ReplayError::NotFound { event: bad, subscription }));
    let entries = world.config.newest_activities(10);
    let noted = entries.iter().find(|entry| entry.activity.action == "dead_letter.discarded").expect("it is noted");
    assert_eq!((noted.activity.actor.as_str(), noted.activity.detail.as_str()), ("operator", "a test order"));
}

#[tokio::test(start_paused = true)]
async fn letters_are_discarded_by_query_a_bounded_number_a_call() {
    let it = Down::start().await;
    it.dead(600).await;
    let other = it.world.subscription(it.integration, quick_retries(&[])).await;
    let kept = it.world.post_many(it.integration, 5).await;
    it.world.until(other, &kept, DeliveryStatus::Dead).await;
    it.world.until(it.subscription, &kept, DeliveryStatus::Dead).await;
    let filter = DeadLetterFilter {
        subscription: Some(it.subscription),
        reason: Some(DeadReason::AttemptsExhausted),
        ..DeadLetterFilter::default()
    };
    let (mut after, mut calls) = (None, Vec::new());
    loop {
        let done =
            it.world.handle().discard_many("operator", filter.clone(), after, "moved away").await.expect("valid");
        calls.push(done.discarded);
        after = done.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(calls, [256, 256, 93]);
    assert_eq!(it.world.state.counts().await.unwrap().dead, 5, "the other subscription's stay");
}

#[tokio::test(start_paused = true)]
async fn letters_leave_after_their_retention_with_one_activity_and_not_by_a_jump_of_the_clock() {
    let options = TreeOptions {
        retention: Retention {
            age_max: Duration::from_secs(3_600),
            dead_letters_age_max: Duration::from_secs(24 * 3_600),
            ..Retention::default()
        },
        ..TreeOptions::default()
    };
    let it = Down::start_with(options).await;
    let old = it.dead(600).await;
    it.world.clock.jump(60 * 24 * 3_600_000);
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    assert_eq!(it.world.state.counts().await.unwrap().dead, 600, "a clock that jumped removes nothing");
    let last = || it.world.handle().task(Task::ForgetDeadLetters).last.expect("it runs every quarter of an hour");
    assert!(last().result.as_ref().is_some_and(|result| result["rests"].is_string()));
    it.world.clock.jump(-60 * 24 * 3_600_000);
    tokio::time::sleep(Duration::from_secs(22 * 3_600)).await;
    let young = it.dead(5).await;
    assert_eq!(it.world.state.counts().await.unwrap().dead, 605);
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    for event in &old {
        assert_eq!(it.world.status(it.subscription, *event).await, DeliveryStatus::Discarded);
    }
    for event in &young {
        assert_eq!(it.world.status(it.subscription, *event).await, DeliveryStatus::Dead);
    }
    assert_eq!(it.world.handle().counters().totals().dead_letters_expired, 600);
    assert_eq!(last().result, Some(json!({"forgotten": 0})), "all went in an earlier run");
    let entries = it.world.config.newest_activities(100);
    let noted: Vec<_> = entries.iter().filter(|entry| entry.activity.action == "dead_letters.expired").collect();
    assert_eq!(noted.len(), 1);
    assert!(noted[0].activity.detail.starts_with("600 "), "{}", noted[0].activity.detail);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(it.world.log.get(old[0]).await, Ok(None), "its payload goes with it");
}
