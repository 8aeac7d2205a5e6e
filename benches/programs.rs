//! What selecting costs an event: filters and keys over a payment of about 1 KiB, as a provider sends it.
//! At 10,000 events/s each microsecond here is one hundredth of a core.

use std::{hint::black_box, net::Ipv4Addr, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use hookmill::{
    programs::{Engines, ProgramOptions},
    providers::registry,
};
use hookmill_actors::{
    domain::{
        event::{Arrival, Event, Identity},
        headers::HeaderBlock,
        ids::{EndpointId, EventId, IntegrationId, SubscriptionId},
    },
    ports::{
        program::{Programs, Subject},
        provider::Providers,
    },
};

fn payment() -> Subject {
    let provider = registry().get("stripe").expect("it is registered");
    let (content_type, body) = provider.sample("evt_3SpQ7mLk2eZvKYlo1kV0wq7M");
    Subject {
        event: Arc::new(Event {
            id: EventId::at_millis(1_767_225_600_000),
            arrival: Arrival {
                endpoint: EndpointId(1),
                received_at_ms: 1_767_225_600_000,
                accepted_version: 1,
                peer: Ipv4Addr::LOCALHOST.into(),
                hops: 0,
                query: "".into(),
                headers: HeaderBlock::from_lines([("content-type", content_type.as_bytes())]),
                body: body.into(),
            },
        }),
        identity: Identity { event_type: Some("payment_intent.succeeded".into()), provider_id: None },
        integration: (IntegrationId(1), "shop".into()),
        subscription: SubscriptionId(1),
        naming: None,
    }
}

fn selecting(c: &mut Criterion) {
    let engines = Engines::new(ProgramOptions::default());
    let subject = payment();
    let mut group = c.benchmark_group("selecting");
    for (name, filter, key) in [
        ("type", Some("event.type == 'payment_intent.succeeded'"), None),
        ("body", Some("body.data.object.amount > 1000 && body.data.object.currency == 'eur'"), None),
        ("body, has and matches", Some("has(body.data.object.customer) && body.id.matches('^evt_')"), None),
        ("body, a loop", Some("body.data.object.payment_method_types.exists(it, it == 'card')"), None),
        ("whole body", Some("size(body) == 9"), None),
        ("body with a key", Some("body.data.object.amount > 1000"), Some("body.data.object.customer")),
    ] {
        let selector = engines.selector(filter, key).expect("it compiles");
        selector.select(&subject).expect("it holds or not");
        group.bench_function(name, |b| b.iter(|| selector.select(black_box(&subject))));
    }
    group.finish();
}

criterion_group!(benches, selecting);
criterion_main!(benches);
