//! A destination is never asked to bear more than it should, by all its subscriptions together.

use std::{
    collections::BTreeMap,
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
        ids::{DestinationId, SubscriptionId},
        shaping::{BreakerPolicy, Concurrency, DestinationLimits, Rate, RetryBudget},
    },
    ports::transport::Verdict,
    testkit::scripted_transport::{ScriptedTransports, Step},
};

use crate::world::{World, quick_retries};

pub(crate) async fn limit(world: &World, subscription: SubscriptionId, limits: DestinationLimits) -> DestinationId {
    let destination = world.handle().config().current().configuration.subscriptions[&subscription].destination_id;
    world
        .update(ResourceKey::Destination(destination), |resource| {
            let Resource::Destination(it) = resource else { unreachable!() };
            it.limits = limits;
        })
        .await;
    destination
}

fn without_breaker() -> DestinationLimits {
    DestinationLimits {
        breaker: BreakerPolicy { enabled: false, ..BreakerPolicy::default() },
        ..DestinationLimits::default()
    }
}

/// The most attempts that began within any `window_ms`.
fn most_within(times_ms: &[u64], window_ms: u64) -> usize {
    let mut most = 0;
    let mut from = 0;
    for (index, at) in times_ms.iter().enumerate() {
        while times_ms[from] + window_ms <= *at {
            from += 1;
        }
        most = most.max(index + 1 - from);
    }
    most
}

#[tokio::test(start_paused = true)]
async fn a_destinations_rate_and_concurrency_hold_over_all_its_subscriptions_and_none_starves() {
    let world =
        World::start(ScriptedTransports::new(|_, _| Step::Answer(Verdict::Delivered, Duration::from_millis(40)))).await;
    let (one, other) = (world.integration().await, world.integration().await);
    let first = world.subscription(one, quick_retries(&[])).await;
    let limits = DestinationLimits {
        rate: Some(Rate { per_second: 100, burst: Some(10) }),
        concurrency: Some(Concurrency::Fixed { max: 3 }),
        ..without_breaker()
    };
    let destination = limit(&world, first, limits).await;
    let second = world.subscription_with(other, quick_retries(&[]), |it| it.destination_id = destination).await;
    let (a, b) = (world.post_many(one, 400).await, world.post_many(other, 400).await);
    let began = world.clock_ms();
    world.until(first, &a, DeliveryStatus::Delivered).await;
    world.until(second, &b, DeliveryStatus::Delivered).await;
    assert_eq!(world.transports.most_under_way(destination), 3);
    let seen: Vec<_> = world.transports.seen().into_iter().filter(|seen| seen.destination == destination).collect();
    let times: Vec<u64> = seen.iter().map(|seen| seen.at_ms).collect();
    assert!(most_within(&times, 1_000) <= 110, "{} within a second", most_within(&times, 1_000));
    let took_ms = times.last().unwrap() - began;
    assert!(took_ms < 15_000, "800 at 75 a second took {took_ms} ms");
    // While both have something to send, they take turns.
    let turns: Vec<bool> = seen.iter().map(|seen| seen.event.integration() == one).collect();
    let shares: Vec<usize> = turns[..600].chunks(100).map(|turns| turns.iter().filter(|one| **one).count()).collect();
    assert!(shares.iter().all(|share| (25..=75).contains(share)), "{shares:?} of each 100 are the first one's");
}

#[tokio::test(start_paused = true)]
async fn a_subscriptions_own_rate_holds() {
    let world = World::start(ScriptedTransports::default()).await;
    let integration = world.integration().await;
    let rate = Rate { per_second: 50, burst: Some(5) };
    let slow = world.subscription_with(integration, quick_retries(&[]), |it| it.rate = Some(rate)).await;
    let fast = world.subscription(integration, quick_retries(&[])).await;
    let events = world.post_many(integration, 300).await;
    world.until(fast, &events, DeliveryStatus::Delivered).await;
    assert!(world.arrivals(slow).len() < 100);
    world.until(slow, &events, DeliveryStatus::Delivered).await;
    let destination = world.handle().config().current().configuration.subscriptions[&slow].destination_id;
    let seen = world.transports.seen();
    let times: Vec<u64> = seen.iter().filter(|seen| seen.destination == destination).map(|seen| seen.at_ms).collect();
    assert!(most_within(&times, 1_000) <= 55);
    assert!(times[299] - times[0] < 6_500, "it is used, not only kept");
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_spends_no_attempts_and_closes_again_by_itself() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let world = World::start(ScriptedTransports::new(move |_, _| match is_down.load(Ordering::Relaxed) {
        true => Step::Answer(Verdict::Retry { after: None }, Duration::from_millis(5)),
        false => Step::Answer(Verdict::Delivered, Duration::from_millis(5)),
    }))
    .await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[600])).await;
    let breaker =
        BreakerPolicy { consecutive_failures: 10, open_s: 10, open_max_s: 60, probes: 2, ..BreakerPolicy::default() };
    limit(&world, subscription, DestinationLimits { breaker, ..DestinationLimits::default() }).await;
    let events = world.post_many(integration, 1_000).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let spent = world.transports.seen().len();
    assert!((10..60).contains(&spent), "{spent} attempts in five minutes of outage");
    down.store(false, Ordering::Relaxed);
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    let mut attempts: BTreeMap<_, usize> = BTreeMap::new();
    for seen in world.transports.seen() {
        *attempts.entry(seen.event).or_default() += 1;
    }
    assert!(attempts.values().filter(|count| **count > 1).count() <= spent);
}

#[tokio::test(start_paused = true)]
async fn retries_stay_within_their_share_of_the_traffic() {
    let world = World::start(ScriptedTransports::new(|_, consignment| match consignment.attempt {
        1 => Step::Answer(Verdict::Retry { after: None }, Duration::from_millis(1)),
        _ => Step::Answer(Verdict::Delivered, Duration::from_millis(1)),
    }))
    .await;
    let integration = world.integration().await;
    let subscription = world.subscription(integration, quick_retries(&[1])).await;
    let budget = RetryBudget { share: 0.1, floor_per_second: 5.0 };
    limit(&world, subscription, DestinationLimits { retry_budget: budget, ..without_breaker() }).await;
    let began_ms = world.clock_ms();
    let events = world.post_many(integration, 1_000).await;
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    let seen = world.transports.seen();
    for (index, last) in seen.iter().enumerate() {
        let retries = seen[..=index].iter().filter(|seen| seen.attempt > 1).count();
        let firsts = index + 1 - retries;
        let elapsed_ms = usize::try_from(last.at_ms - began_ms).expect("a short test");
        // A tenth of the first attempts, five a second, and what both may have saved.
        let most = firsts / 10 + 5 * elapsed_ms / 1_000 + 5 + 2;
        assert!(retries <= most, "{retries} retries after {firsts} first attempts");
    }
}

#[tokio::test(start_paused = true)]
async fn adaptive_concurrency_finds_what_a_destination_bears() {
    // More than eight at once, and it asks for less.
    let under_way = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let world = World::start(ScriptedTransports::new(move |_, _| {
        let now = under_way.fetch_add(1, Ordering::Relaxed) + 1;
        let under_way = under_way.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            under_way.fetch_sub(1, Ordering::Relaxed);
        });
        if now > 8 {
            Step::AnswerWith(503, Verdict::Retry { after: None }, Duration::from_millis(20))
        } else {
            Step::Answer(Verdict::Delivered, Duration::from_millis(20))
        }
    }))
    .await;
    let integration = world.integration().await;
    let subscription = world.subscription_with(integration, quick_retries(&[1; 60]), |it| it.in_flight_max = 64).await;
    let limits = DestinationLimits {
        concurrency: Some(Concurrency::Adaptive { min: 1, max: 64 }),
        retry_budget: RetryBudget { share: 1.0, floor_per_second: 1_000.0 },
        ..without_breaker()
    };
    limit(&world, subscription, limits).await;
    let events = world.post_many(integration, 6_000).await;
    world.until(subscription, &events, DeliveryStatus::Delivered).await;
    let seen = world.transports.seen();
    let wasted = seen.len() - 6_000;
    assert!(wasted < 1_500, "{wasted} attempts were refused");
    let took_ms = seen.last().unwrap().at_ms - seen[0].at_ms;
    // Eight at once of 20 ms each are 400 a second.
    assert!(took_ms < 2 * 15_000, "{took_ms} ms");
}
