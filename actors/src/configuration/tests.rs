//! Whatever changes are made one after the other, what they leave is what a compilation from nothing makes.

mod history;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use serde_json::Map;

use super::{rules::Deletion, *};
use crate::{
    domain::{
        backoff::RetryPolicy,
        config::{Configuration, Endpoint, EndpointSecret, Environment, IntegrationType, Meta, Subscription},
        ids::EventId,
        order::Order,
        secret::{Sealed, Secret},
        selection::Selection,
        shaping::{DestinationLimits, Rate},
        transform::Transform,
    },
    ports::{
        provider::SettingsError,
        transport::{Transport, Transports},
    },
    snapshot::Fault,
    testkit::{
        scripted_transport::ScriptedTransports,
        stubs::{OneProvider, OpenSealer, TextPrograms},
    },
};

/// Builds no transport of the kind `broken`.
struct SomeTransports(ScriptedTransports);

impl Transports for SomeTransports {
    fn build(
        &self,
        destination: &Destination,
        signing_secret: &Secret,
        credentials: Option<&Secret>,
    ) -> Result<Arc<dyn Transport>, SettingsError> {
        match destination.kind.as_str() {
            "broken" => Err(SettingsError::new("url", "is none")),
            _ => self.0.build(destination, signing_secret, credentials),
        }
    }
}

fn compiler() -> Compiler {
    Compiler {
        providers: Arc::new(OneProvider),
        transports: Arc::new(SomeTransports(ScriptedTransports::default())),
        sealer: Arc::new(OpenSealer),
        programs: Arc::new(TextPrograms::default()),
    }
}

/// One wanted change: what is not there is made, what is there is changed, or deleted.
#[derive(Clone, Copy, Debug)]
struct Step {
    kind: u8,
    id: u32,
    integration: u32,
    destination: u32,
    /// A path, a status, a kind, or a time at which a secret expires.
    choice: u8,
    delete: bool,
    /// Written together with the next one.
    joined: bool,
    /// Milliseconds that pass before.
    wait_ms: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..4u8, 1..4u32, 1..4u32, 1..4u32, any::<u8>(), prop::bool::weighted(0.2), any::<bool>(), 0..40u64);
    let step = step.prop_map(|(kind, id, integration, destination, choice, delete, joined, wait_ms)| Step {
        kind,
        id,
        integration,
        destination,
        choice,
        delete,
        joined,
        wait_ms,
    });
    prop::collection::vec(step, 1..60)
}

fn resource(step: Step, now_ms: u64) -> Resource {
    let (name, meta, choice) = (format!("{}", step.choice), Meta::default(), step.choice);
    match step.kind {
        0 => Resource::Integration(Integration {
            id: IntegrationId(step.id),
            name,
            kind: IntegrationType::Custom,
            provider: if choice % 5 == 0 { "gone" } else { "none" }.to_owned(),
            description: None,
            environment: Environment::Production,
            status: if choice % 3 == 0 { IntegrationStatus::Inactive } else { IntegrationStatus::Active },
            configuration: Map::new(),
            credentials: None,
            meta,
        }),
        1 => Resource::Endpoint(Endpoint {
            id: EndpointId(step.id),
            integration_id: IntegrationId(step.integration),
            name,
            description: None,
            path: format!("/{}", choice % 4),
            active: choice % 7 != 0,
            verify_signature: choice % 2 == 0,
            signature_header: None,
            verification: Map::new(),
            secrets: [None, Some(now_ms + u64::from(choice))]
                .map(|expires_at_ms| EndpointSecret {
                    sealed: Sealed("secret".to_owned()),
                    fingerprint: String::new(),
                    expires_at_ms,
                })
                .into(),
            body_bytes_max: Some(choice.into()),
            dedup_window_s: None,
            rate_limit: (choice % 6 == 0).then_some(Rate { per_second: 3, burst: None }),
            meta,
        }),
        2 => Resource::Destination(Destination {
            id: DestinationId(step.id),
            name,
            kind: if choice % 4 == 0 { "broken" } else { "http" }.to_owned(),
            status: if choice % 3 == 0 { DestinationStatus::Paused } else { DestinationStatus::Active },
            status_reason: None,
            settings: Map::new(),
            signing_secret: Sealed("secret".to_owned()),
            signing_fingerprint: String::new(),
            credentials: None,
            limits: DestinationLimits::default(),
            meta,
        }),
        _ => Resource::Subscription(Subscription {
            id: SubscriptionId(step.id),
            integration_id: IntegrationId(step.integration),
            destination_id: DestinationId(step.destination),
            name,
            active: choice % 3 != 0,
            in_flight_max: 16,
            retry: RetryPolicy::default(),
            start_after: EventId::ZERO,
            selection: Selection::default(),
            transform: Transform::default(),
            headers: BTreeMap::new(),
            order: Order::default(),
            rate: None,
            expires_after_s: None,
            meta,
        }),
    }
}

fn write(step: Step, standing: &Configuration, now_ms: u64) -> Write {
    let resource = resource(step, now_ms);
    let key = resource.key();
    let expected_version = standing.get(key).map(|it| it.meta().version);
    Write { key, expected_version, resource: (!step.delete).then_some(resource) }
}

/// Whose it is, the limit of its requests, and what it says of itself.
type SeenRoute = (EndpointId, IntegrationId, Option<u32>, [bool; 2]);

/// What can be seen of a snapshot. Backlogs are told by their place in memory: a route counts into its integration's.
#[derive(Debug, PartialEq)]
struct Seen<'a> {
    configuration: &'a Configuration,
    routes: BTreeMap<&'a str, SeenRoute>,
    namings: Vec<(EndpointId, &'static str, u64, bool)>,
    plans: Vec<(IntegrationId, SubscriptionId, &'a Subscription, &'a Destination, [bool; 4])>,
    backlogs: Vec<IntegrationId>,
    faults: Vec<&'a Fault>,
    next_expiry_ms: Option<u64>,
}

fn seen(snapshot: &Snapshot) -> Seen<'_> {
    Seen {
        configuration: &snapshot.configuration,
        routes: snapshot
            .routes
            .iter()
            .map(|(path, route)| {
                let own = snapshot.backlogs.get(&route.integration).is_some_and(|own| Arc::ptr_eq(own, &route.backlog));
                let which = (route.endpoint, route.integration, route.body_bytes_max, [own, route.allowance.is_some()]);
                (&**path, which)
            })
            .collect(),
        namings: snapshot
            .namings
            .iter()
            .map(|(id, naming)| (*id, naming.provider.name(), naming.dedup_window_ms, naming.id_signed))
            .collect(),
        plans: snapshot
            .plans
            .iter()
            .map(|((integration, id), plan)| {
                let usable = [plan.transport.is_ok(), plan.selector.is_ok(), plan.transformer.is_ok(), plan.running];
                (*integration, *id, &*plan.subscription, &*plan.destination, usable)
            })
            .collect(),
        backlogs: snapshot.backlogs.keys().copied().collect(),
        faults: snapshot.faults().collect(),
        next_expiry_ms: snapshot.next_expiry_ms(),
    }
}

proptest! {
    #[test]
    fn change_by_change_comes_to_the_same_as_from_nothing(steps in steps()) {
        let compiler = compiler();
        let (mut current, mut snapshot, mut now_ms) = (Linked::default(), Snapshot::default(), 1_000);
        let mut writes = Vec::new();
        for step in steps {
            now_ms += step.wait_ms;
            writes.push(write(step, current.configuration(), now_ms));
            if step.joined {
                continue;
            }
            let (changes, next) = match rules::changes(&current, std::mem::take(&mut writes), &Origin::of("test"), Deletion::Kept, now_ms) {
                Ok(made) => made,
                Err(_) => (Vec::new(), current.clone()),
            };
            let mut touched = next.touched(&current, &changes);
            touched.endpoints.extend(snapshot.expired(now_ms));
            current = next;
            let configuration = Arc::new(current.configuration().clone());
            let former = std::mem::take(&mut snapshot);
            snapshot = compiler.recompile(configuration.clone(), &former, &touched, now_ms);
            let whole = compiler.compile(configuration, &Snapshot::default(), now_ms);
            prop_assert_eq!(seen(&snapshot), seen(&whole));
            // Whoever is not said to be touched goes on with what it had.
            for ((integration, id), plan) in &snapshot.plans {
                let had = former.plans.get(&(*integration, *id));
                let same = had.is_some_and(|had| Arc::ptr_eq(had, plan));
                prop_assert!(same || touched.integrations.contains(integration));
            }
            for ((integration, id), _) in &former.plans {
                let gone = snapshot.plans.get(&(*integration, *id)).is_none();
                prop_assert!(!gone || touched.integrations.contains(integration));
            }
            prop_assert!(Linked::new(Configuration::clone(&snapshot.configuration)) == current);
        }
    }

    #[test]
    fn a_change_touches_what_it_concerns_alone(steps in steps()) {
        let mut current = Linked::default();
        for step in steps {
            let write = write(step, current.configuration(), 1_000);
            let Ok((changes, next)) = rules::changes(&current, vec![write], &Origin::of("test"), Deletion::Kept, 1_000) else { continue };
            let touched = next.touched(&current, &changes);
            let (old, new) = (current.configuration(), next.configuration());
            let integrations: BTreeSet<IntegrationId> = changes
                .iter()
                .flat_map(|change| match change.key {
                    ResourceKey::Integration(id) => vec![id],
                    ResourceKey::Endpoint(id) => {
                        [old, new].iter().filter_map(|it| it.endpoints.get(&id)).map(|it| it.integration_id).collect()
                    }
                    ResourceKey::Subscription(id) => {
                        let both = [old, new];
                        both.iter().filter_map(|it| it.subscriptions.get(&id)).map(|it| it.integration_id).collect()
                    }
                    ResourceKey::Destination(id) => {
                        let users = new.subscriptions.values().filter(|it| it.destination_id == id);
                        users.map(|it| it.integration_id).collect()
                    }
                })
                .collect();
            prop_assert_eq!(touched.integrations, integrations);
            current = next;
        }
    }
}

#[test]
fn a_limit_goes_on_as_far_used_as_it_is_until_it_changes() {
    let step = |kind, choice| Step {
        kind,
        id: 1,
        integration: 1,
        destination: 1,
        choice,
        delete: false,
        joined: false,
        wait_ms: 0,
    };
    let mut version = 0;
    let mut compiled = |before: &Snapshot, path: &str, rate_limit| {
        version += 1;
        let mut configuration = Configuration::default();
        for resource in [resource(step(0, 1), 0), resource(step(1, 2), 0)] {
            let mut resource = resource;
            resource.meta_mut().version = version;
            if let Resource::Endpoint(endpoint) = &mut resource {
                (endpoint.path, endpoint.rate_limit) = (path.to_owned(), rate_limit);
            }
            let (key, author) = (resource.key(), String::new());
            configuration.apply(&Change {
                version,
                at_ms: 0,
                author,
                comment: None,
                key,
                resource: Some(resource),
                kept: None,
            });
        }
        compiler().compile(Arc::new(configuration), before, 0)
    };
    let left = |snapshot: &Snapshot, path: &str| {
        let allowance = snapshot.routes.get(path).expect("it is active").allowance.clone()?;
        allowance.take(tokio::time::Instant::now()).ok().map(|taken| taken.remaining)
    };
    let some = |burst| Some(Rate { per_second: 1, burst: Some(burst) });
    let first = compiled(&Snapshot::default(), "/a", some(5));
    assert_eq!((left(&first, "/a"), left(&first, "/a")), (Some(4), Some(3)));
    let moved = compiled(&first, "/b", some(5));
    assert_eq!(left(&moved, "/b"), Some(2), "another path, the same limit");
    let wider = compiled(&moved, "/b", some(9));
    assert_eq!(left(&wider, "/b"), Some(8), "another limit begins anew");
    assert_eq!(left(&compiled(&wider, "/b", None), "/b"), None);
}
