# What is typed often. `just` lists it.

_default:
    @just --list

# Formats everything, also the modules that a macro declares, which `cargo fmt` does not find.
fmt:
    cargo fmt --all
    find src/providers -name '*.rs' -exec rustfmt --edition 2024 {} +

# What CI checks before it tests.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    shellcheck test.sh .ci/run loadtest/run.sh

# Tests; `just test storage::` runs some of them.
test *ARGS:
    cargo test --workspace --locked {{ARGS}}

# Durable accepts beside a bare hyper server; `just bench delivered --rate 6000` and others: `just bench --help`.
bench *ARGS:
    cargo bench --locked --bench throughput -- {{ARGS}}

# k6 with valid signatures against a release build; RATE=2000 DURATION=30s P99_MS=20 just load
load:
    cargo build --release --locked
    loadtest/run.sh "${CARGO_TARGET_DIR:-target}/release/hookmill"
