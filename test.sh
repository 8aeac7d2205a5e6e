#!/usr/bin/env bash
# Everything that must hold, from a clean clone: unit, integration and doc tests, the benches' own checks, and a
# short load with signed webhooks. One profile, so that dependencies are built once.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
target=${CARGO_TARGET_DIR:-$PWD/target}

bash .ci/setup

echo "== examples in the documentation"
cargo test --workspace --doc --locked
echo "== tests, and the benches' own checks"
cargo test --workspace --all-targets --locked
echo "== load: signed webhooks against the same build"
RATE=${RATE:-200} DURATION=${DURATION:-5s} P99_MS=${P99_MS:-1000} loadtest/run.sh "$target/debug/hookmill"
echo "== all passed"
