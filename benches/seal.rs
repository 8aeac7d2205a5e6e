//! What it costs to seal and open one secret, key derivation included. Off the ingress' path: secrets are opened
//! once for each configuration snapshot.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hookmill::secrets::KeyRing;
use hookmill_actors::{
    domain::{ids::IntegrationId, secret::Secret},
    ports::sealer::{Owner, Sealer},
};

fn seal(c: &mut Criterion) {
    let ring = KeyRing::generate(0);
    let owner = Owner::EndpointSecret(IntegrationId(1));
    let secret = Secret::new([7; 64]);
    let sealed = ring.seal(owner, &secret);
    c.bench_function("seal 64 B", |b| b.iter(|| ring.seal(owner, black_box(&secret))));
    c.bench_function("open 64 B", |b| b.iter(|| ring.open(owner, black_box(&sealed))));
    c.bench_function("fingerprint 64 B", |b| b.iter(|| ring.fingerprint(black_box(&secret))));
}

criterion_group!(benches, seal);
criterion_main!(benches);
