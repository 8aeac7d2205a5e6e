//! What one verification costs: it stands between a sender and its 2xx. Bodies of 1.5 KB, one secret.

use std::{hint::black_box, net::IpAddr, sync::Arc};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hookmill::providers::registry;
use hookmill_actors::{
    domain::headers::HeaderBlock,
    ports::provider::{InboundRequest, Providers, Verifier},
};
use serde_json::{Map, Value, json};

const NOW_MS: u64 = 1_768_465_800_000;
const BODY_BYTES: usize = 1_500;

/// A verifier and a request that it accepts.
struct Case {
    verifier: Arc<dyn Verifier>,
    headers: HeaderBlock,
    body: Vec<u8>,
}

impl Case {
    fn new(provider: &str, settings: &Map<String, Value>) -> Self {
        let provider = registry().get(provider).expect("registered");
        let secret = provider.new_secret(&[7; 32]);
        let body = vec![b'a'; BODY_BYTES];
        let signed = provider.sign(settings, &secret, "msg_1", &body, NOW_MS).expect("signs");
        // As many lines as a provider behind a proxy sends.
        let around = ["host", "user-agent", "accept", "content-type", "content-length", "x-forwarded-for", "via"];
        let around = around.into_iter().map(|name| (name, b"some header value".as_slice()));
        let signature = signed.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let headers = HeaderBlock::from_lines(around.chain(signature));
        Self { verifier: provider.verifier(settings, &[secret]).expect("compiles"), headers, body }
    }

    fn request(&self) -> InboundRequest<'_> {
        InboundRequest {
            method: "POST",
            target: "/webhooks/receive/bench",
            headers: &self.headers,
            body: &self.body,
            peer: IpAddr::from([127, 0, 0, 1]),
        }
    }
}

fn verify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify");
    group.throughput(Throughput::Bytes(BODY_BYTES as u64));
    let mut cases: Vec<(String, Case)> =
        registry().names().into_iter().map(|name| (name.to_owned(), Case::new(name, &Map::new()))).collect();
    for algorithm in ["sha1", "sha512"] {
        let settings = Map::from_iter([("algorithm".to_owned(), json!(algorithm))]);
        cases.push((format!("generic_hmac/{algorithm}"), Case::new("generic_hmac", &settings)));
    }
    for (name, case) in &cases {
        assert!(case.verifier.verify(&case.request(), NOW_MS).is_ok(), "{name} refuses what it signed");
        group.bench_with_input(BenchmarkId::from_parameter(name), case, |bencher, case| {
            bencher.iter(|| black_box(case.verifier.verify(black_box(&case.request()), NOW_MS)));
        });
    }
    group.finish();
}

criterion_group!(benches, verify);
criterion_main!(benches);
