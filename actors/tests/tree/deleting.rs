//! Deleted integrations and endpoints may come back for a while; then they are gone, with their history.

use std::time::Duration;

use hookmill_actors::{
    configuration::{ConfigError, Rollback, Write},
    domain::{
        activity::{ActivityBounds, ActivityFilter, ActivityPlace},
        backoff::RetryPolicy,
        config::{Configuration, Resource, ResourceKey},
        delivery::DeliveryStatus,
        ids::{EndpointId, IntegrationId},
        version::Origin,
    },
    ports::{config_store::ConfigStore, event_log::EventLog},
    testkit::scripted_transport::ScriptedTransports,
    tree::TreeOptions,
};

use crate::{replaying::OK, world::World};

const GRACE: Duration = Duration::from_hours(24);
const NEARLY: Duration = Duration::from_mins(24 * 60 - 1);

async fn world() -> World {
    let options = TreeOptions { deletion_grace: GRACE, ..TreeOptions::default() };
    World::start_with(ScriptedTransports::new(|_, _| OK), options).await
}

fn configuration(world: &World) -> Configuration {
    Configuration::clone(&world.handle().config().current().configuration)
}

/// Another integration's endpoint with the first one's path.
async fn take_path(world: &World, integration: IntegrationId, of: &Resource) -> Result<(), ConfigError> {
    let Resource::Endpoint(mut endpoint) = of.clone() else { unreachable!("it is an endpoint") };
    endpoint.id = EndpointId(77);
    endpoint.integration_id = integration;
    let resource = Some(Resource::Endpoint(endpoint));
    let write = Write { key: ResourceKey::Endpoint(EndpointId(77)), expected_version: None, resource };
    world.handle().config().write("test", vec![write]).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_place_is_kept_for_the_grace_and_free_after_it() {
    let world = world().await;
    let (first, second) = (world.integration().await, world.integration().await);
    let (key, path) = (ResourceKey::Integration(first), ResourceKey::Endpoint(EndpointId(first.0)));
    let endpoint = configuration(&world).get(path).expect("it is configured");
    world.delete(key).await;
    assert!(configuration(&world).get(key).is_none() && configuration(&world).get(path).is_none());
    let refused = take_path(&world, second, &endpoint).await;
    assert_eq!(refused, Err(ConfigError::Reserved { by: EndpointId(first.0) }));

    let world = world.crash_and_restart().await;
    tokio::time::sleep(NEARLY).await;
    assert_eq!(configuration(&world).deleted.size(), 2);
    assert!(take_path(&world, second, &endpoint).await.is_err(), "reserved after a restart too");
    assert!(!world.config.versions(first, None, 9).await.expect("memory").is_empty());
    tokio::time::sleep(Duration::from_secs(3_700)).await;
    assert_eq!(configuration(&world).deleted.size(), 0);
    assert!(world.config.versions(first, None, 9).await.expect("memory").is_empty(), "the history goes with it");
    assert!(!world.config.versions(second, None, 9).await.expect("memory").is_empty());
    assert_eq!(take_path(&world, second, &endpoint).await, Ok(()));
    assert_eq!(world.config.load().await.expect("memory"), configuration(&world));
    let bounds = ActivityBounds { before: ActivityPlace::END, found_max: 100, looked_at_max: 100 };
    let activities = world.config.activities(&ActivityFilter::default(), bounds).await.expect("memory").entries;
    let purged: Vec<_> = activities.iter().filter(|entry| entry.activity.action.ends_with(".purged")).collect();
    assert_eq!(purged.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_costs_nothing_that_may_come_back() {
    let world = world().await;
    let first = world.integration().await;
    world.delete(ResourceKey::Integration(first)).await;
    tokio::time::sleep(Duration::from_secs(7_200)).await;
    world.clock.jump(365 * 24 * 3_600_000);
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    assert_eq!(configuration(&world).deleted.size(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_delivers_what_arrives_then() {
    let world = world().await;
    let first = world.integration().await;
    let subscription = world.subscription(first, RetryPolicy::default()).await;
    let before = world.post(first, "payment.succeeded").await;
    world.until(subscription, &[before], DeliveryStatus::Delivered).await;
    let number = configuration(&world).version;
    world.delete(ResourceKey::Integration(first)).await;
    let meanwhile = world.post(first, "payment.succeeded").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let resume_after = world.log.last_committed();
    let rollback = Rollback { integration: first, number, expected: None, resume_after };
    world.handle().config().roll_back(Origin::of("test"), rollback).await.expect("nothing stands against it");
    assert_eq!(configuration(&world).deleted.size(), 0);
    let after = world.post(first, "payment.succeeded").await;
    world.until(subscription, &[after], DeliveryStatus::Delivered).await;
    assert_eq!(world.status(subscription, meanwhile).await, DeliveryStatus::Pending, "it was not for it");
}
