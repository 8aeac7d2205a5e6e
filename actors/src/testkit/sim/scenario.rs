//! What a seed decides before anything runs: who is configured, and how unkind the world is.

use std::{collections::BTreeMap, time::Duration};

use super::{Features, disk::Manners};
use crate::{
    domain::{
        backoff::{Exponential, RetryPolicy, StatusPattern},
        config::{
            Destination, DestinationStatus, Endpoint, Environment, Integration, IntegrationStatus, IntegrationType,
            Meta, Subscription,
        },
        ids::{DestinationId, EndpointId, EventId, IntegrationId, SubscriptionId},
        order::{OnFailure, Order},
        secret::Sealed,
        selection::Selection,
        shaping::{BreakerPolicy, Concurrency, DestinationLimits, Rate, RetryBudget},
        transform::Transform,
    },
    scheduler::Retention,
};

/// The frame of a run.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) integrations: u32,
    /// Lives that end before the last one begins.
    pub(super) lives: u32,
    /// What is done in one life.
    pub(super) steps: u32,
    pub(super) manners: Manners,
    pub(super) retention: Retention,
    pub(super) clock_jumps: bool,
}

impl Scenario {
    pub(super) fn new(rng: &mut fastrand::Rng, features: Features) -> Self {
        let manners = match rng.u8(..4) {
            0 => Manners { commit_ms_max: 0, read_ms_max: 0, reads_failing: 0 },
            1 => Manners { commit_ms_max: 60, read_ms_max: 40, reads_failing: 0 },
            2 => Manners {
                commit_ms_max: 30,
                read_ms_max: 10,
                reads_failing: if features.failing_reads { 4 } else { 0 },
            },
            _ => Manners { commit_ms_max: 30, read_ms_max: 10, reads_failing: 0 },
        };
        let age_max = if rng.u8(..4) == 0 { Duration::from_secs(1_800) } else { Duration::from_secs(30 * 24 * 3_600) };
        Self {
            integrations: rng.u32(1..=3),
            lives: rng.u32(1..=4),
            steps: rng.u32(5..=25),
            manners,
            retention: Retention {
                age_max,
                dead_letters_age_max: match features.replays && rng.u8(..5) == 0 {
                    true => Duration::from_secs(1_200),
                    false => Retention::default().dead_letters_age_max,
                },
                ..Retention::default()
            },
            clock_jumps: features.clock_jumps && rng.u8(..5) == 0,
        }
    }
}

pub(super) fn integration(id: IntegrationId) -> Integration {
    Integration {
        id,
        name: format!("integration {id}"),
        kind: IntegrationType::Custom,
        provider: "none".to_owned(),
        description: None,
        environment: Environment::Development,
        status: IntegrationStatus::Active,
        configuration: serde_json::Map::new(),
        credentials: None,
        meta: Meta::default(),
    }
}

pub(super) fn endpoint(id: IntegrationId, rng: &mut fastrand::Rng, features: Features) -> Endpoint {
    Endpoint {
        id: EndpointId(id.0),
        integration_id: id,
        name: "endpoint".to_owned(),
        description: None,
        path: format!("/{id}"),
        active: true,
        verify_signature: false,
        signature_header: None,
        verification: serde_json::Map::new(),
        secrets: Vec::new(),
        body_bytes_max: None,
        dedup_window_s: features.dedup.then(|| rng.u64(30..=3_600)),
        rate_limit: None,
        meta: Meta::default(),
    }
}

fn rate(rng: &mut fastrand::Rng) -> Rate {
    Rate { per_second: rng.u32(1..=20), burst: rng.bool().then(|| rng.u32(1..=5)) }
}

fn limits(rng: &mut fastrand::Rng, features: Features) -> DestinationLimits {
    if !features.limits {
        return DestinationLimits::default();
    }
    let concurrency = match rng.u8(..4) {
        0 => Some(Concurrency::Fixed { max: rng.u16(1..=6) }),
        1 => Some(Concurrency::Adaptive { min: 1, max: rng.u16(1..=20) }),
        _ => None,
    };
    let breaker = BreakerPolicy {
        enabled: rng.u8(..3) > 0,
        consecutive_failures: rng.u32(2..=20),
        attempts_min: rng.u32(4..=50),
        open_s: rng.u32(1..=10),
        open_max_s: 60,
        probes: rng.u32(1..=3),
        ..BreakerPolicy::default()
    };
    let floor_per_second = if rng.bool() { 10.0 } else { 0.25 };
    let retry_budget = RetryBudget { share: [0.0, 0.2, 1.0][rng.usize(..3)], floor_per_second };
    DestinationLimits { rate: (rng.u8(..4) == 0).then(|| rate(rng)), concurrency, retry_budget, breaker }
}

pub(super) fn destination(id: DestinationId, rng: &mut fastrand::Rng, features: Features) -> Destination {
    Destination {
        id,
        name: "destination".to_owned(),
        kind: "http".to_owned(),
        status: DestinationStatus::Active,
        status_reason: None,
        settings: serde_json::Map::new(),
        signing_secret: Sealed("secret".to_owned()),
        signing_fingerprint: String::new(),
        credentials: None,
        limits: limits(rng, features),
        meta: Meta::default(),
    }
}

fn retry(rng: &mut fastrand::Rng, features: Features) -> RetryPolicy {
    let waits = [0, 1, 2, 5, 30];
    let exponential = (rng.u8(..4) == 0).then(|| Exponential {
        first_s: rng.u64(1..=4),
        wait_max_s: rng.u64(4..=60),
        attempts_max: rng.u32(2..=6),
    });
    RetryPolicy {
        schedule_s: (0..rng.usize(0..=5)).map(|_| waits[rng.usize(..waits.len())]).collect(),
        exponential,
        age_max_s: (features.expiry && rng.u8(..8) == 0).then(|| rng.u64(20..=600)),
        dead_statuses: if rng.u8(..5) == 0 { vec![StatusPattern::Status(400)] } else { Vec::new() },
        retry_after_max_s: 30,
    }
}

fn on_failure(rng: &mut fastrand::Rng) -> OnFailure {
    match rng.u8(..3) {
        0 => OnFailure::Block,
        1 => OnFailure::Skip,
        _ => OnFailure::Park,
    }
}

pub(super) fn order(rng: &mut fastrand::Rng, features: Features) -> Order {
    if !features.order {
        return Order::Parallel;
    }
    match rng.u8(..3) {
        0 => Order::Parallel,
        1 => Order::Fifo { on_failure: on_failure(rng) },
        _ => Order::FifoByKey { key: "the key".to_owned(), on_failure: on_failure(rng) },
    }
}

fn selection(rng: &mut fastrand::Rng, features: Features) -> Selection {
    if !features.selection {
        return Selection::default();
    }
    let types = match rng.u8(..4) {
        0 => vec!["pay.*".to_owned()],
        1 => vec!["ping".to_owned(), "*.bad".to_owned()],
        _ => Vec::new(),
    };
    Selection { types, filter: (rng.u8(..4) == 0).then(|| "has 1".to_owned()) }
}

/// A subscription. One that shares its destination is rendered, so that what arrives says whose it is.
pub(super) fn subscription(
    id: SubscriptionId,
    integration: IntegrationId,
    (destination, shared): (DestinationId, bool),
    start_after: EventId,
    rng: &mut fastrand::Rng,
    features: Features,
) -> Subscription {
    let rendered = shared || (features.transform && rng.u8(..3) == 0);
    Subscription {
        id,
        integration_id: integration,
        destination_id: destination,
        name: "subscription".to_owned(),
        active: true,
        in_flight_max: *rng.choice([1, 2, 4, 16, 64]).get_or_insert(16),
        retry: retry(rng, features),
        start_after,
        selection: selection(rng, features),
        transform: if rendered { Transform::Canonical } else { Transform::None },
        headers: BTreeMap::new(),
        order: order(rng, features),
        rate: (features.limits && rng.u8(..5) == 0).then(|| rate(rng)),
        expires_after_s: (features.expiry && rng.u8(..6) == 0).then(|| rng.u64(20..=600)),
        meta: Meta::default(),
    }
}

/// A body that says what the stubs make of it.
pub(super) fn body(serial: u64, rng: &mut fastrand::Rng, features: Features) -> String {
    let key = rng.u8(..4);
    let name = ["pay.ok", "pay.bad", "ping"][rng.usize(..3)];
    let provider_id = rng.u16(..if features.dedup { 40 } else { u16::MAX });
    let end = match rng.u8(..100) {
        0 if features.faults => " fault",
        1 if features.faults => " boom",
        _ => "",
    };
    format!("k{key}:{name}:p{provider_id}:{serial}{end}")
}
