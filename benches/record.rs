//! What it costs to make and to read one stored record of 1.5 KB: `encode` runs on the ingress' thread before the
//! reply, `put` on the log's one writer, `decode` once for each reader.

use std::{hint::black_box, net::Ipv4Addr};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hookmill::storage::record::{Payload, RECORD_HEADER_BYTES, RecordHeader, RecordKind, decode_event};
use hookmill_actors::domain::{
    event::Arrival,
    headers::HeaderBlock,
    ids::{EndpointId, EventId},
};

const SALT: u64 = 7;

fn arrival() -> Arrival {
    let lines: [(&str, &[u8]); 5] = [
        ("host", b"hooks.example.com"),
        ("content-type", b"application/json"),
        ("user-agent", b"Stripe/1.0 (+https://stripe.com/docs/webhooks)"),
        ("content-length", b"1536"),
        ("stripe-signature", &[b'5'; 100]),
    ];
    Arrival {
        endpoint: EndpointId(1),
        received_at_ms: 1_760_000_000_000,
        accepted_version: 4,
        peer: Ipv4Addr::LOCALHOST.into(),
        hops: 0,
        query: "".into(),
        headers: HeaderBlock::from_lines(lines),
        body: Bytes::from(vec![b'x'; 1_536]),
    }
}

fn record(c: &mut Criterion) {
    let arrival = arrival();
    let payload = Payload::encode(arrival.clone());
    let id = EventId::at_millis(1_760_000_000_000);
    let mut stored = Vec::new();
    payload.put(&mut stored, RecordKind::Event, id, SALT);
    let stored = Bytes::from(stored);
    let header = RecordHeader::decode(&stored, SALT).expect("it was just written");

    c.bench_function("encode 1.5 KB", |b| {
        b.iter_batched(|| arrival.clone(), |arrival| Payload::encode(black_box(arrival)), BatchSize::SmallInput);
    });
    let mut buffer = Vec::with_capacity(4_096);
    c.bench_function("put 1.5 KB", |b| {
        b.iter(|| {
            buffer.clear();
            payload.put(black_box(&mut buffer), RecordKind::Event, id, SALT);
        });
    });
    c.bench_function("decode 1.5 KB", |b| {
        b.iter(|| {
            let header = RecordHeader::decode(black_box(&stored), SALT).unwrap_or(header);
            decode_event(&header, &stored.slice(RECORD_HEADER_BYTES..))
        });
    });
}

criterion_group!(benches, record);
criterion_main!(benches);
