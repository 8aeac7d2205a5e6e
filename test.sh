#!/usr/bin/env bash
# Everything that must hold, from a clean clone: unit, integration and doc tests, the benches' own checks, and a
# short load with signed webhooks. One profile, so that dependencies are built once.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
target=${CARGO_TARGET_DIR:-$PWD/target}

# Name of the Debian package for each thing that is not there.
missing=()
command -v curl >/dev/null || missing+=(curl)
command -v git >/dev/null || missing+=(git)
command -v cc >/dev/null || missing+=(build-essential)
command -v python3 >/dev/null || missing+=(python3)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
      echo "test.sh: these Debian packages are missing, and there is no sudo: ${missing[*]}" >&2
      exit 1
    }
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    ca-certificates "${missing[@]}"
fi
command -v cargo >/dev/null || {
  echo "test.sh: cargo is missing; rustup (https://rustup.rs) installs it, and then what rust-toolchain.toml names" >&2
  exit 1
}

echo "== tests, and the benches' own checks"
cargo test --workspace --all-targets --locked
echo "== examples in the documentation"
cargo test --workspace --doc --locked
echo "== load: signed webhooks against the same build"
cargo build --locked --bin hookmill
RATE=${RATE:-200} DURATION=${DURATION:-5s} P99_MS=${P99_MS:-1000} loadtest/run.sh "$target/debug/hookmill"
echo "== all passed"
