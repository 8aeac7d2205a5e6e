// Webhooks of three schemes with valid signatures, at a fixed rate. `run.sh` sets up the gateway that it needs;
// README.md says how to read the result. Every setting comes from the environment and has a default below.

import crypto from "k6/crypto";
import exec from "k6/execution";
import http from "k6/http";
import { check } from "k6";

function setting(name, fallback) {
  return __ENV[name] || fallback;
}

const BASE_URL = setting("BASE_URL", "http://127.0.0.1:8080");
const RATE = Number(setting("RATE", "500"));
const DURATION = setting("DURATION", "10s");
const P99_MS = Number(setting("P99_MS", "250"));
const VUS = Number(setting("VUS", "64"));
const BODY_BYTES = Number(setting("BODY_BYTES", "1536"));
const STRIPE_SECRET = setting("STRIPE_SECRET", "whsec_load_0123456789abcdef0123456789abcdef");
const GITHUB_SECRET = setting("GITHUB_SECRET", "github-load-0123456789abcdef0123456789abcdef");
const GENERIC_SECRET = setting("GENERIC_SECRET", "generic-load-0123456789abcdef0123456789abcdef");

// One entry a scheme; iterations take turns.
const SCHEMES = [
  {
    name: "stripe",
    path: setting("STRIPE_PATH", "/webhooks/receive/load/stripe"),
    body: (n) => padded({ id: `evt_${n}`, object: "event", type: "payment_intent.succeeded", livemode: false }),
    sign: (body) => {
      const at = Math.floor(Date.now() / 1000);
      const signature = crypto.hmac("sha256", STRIPE_SECRET, `${at}.${body}`, "hex");
      return { "Stripe-Signature": `t=${at},v1=${signature}` };
    },
  },
  {
    name: "github",
    path: setting("GITHUB_PATH", "/webhooks/receive/load/github"),
    body: (n) => padded({ action: "opened", number: n, repository: { full_name: "octo/mill" } }),
    sign: (body, n) => ({
      "X-GitHub-Event": "pull_request",
      "X-GitHub-Delivery": `load-${n}`,
      "X-Hub-Signature-256": `sha256=${crypto.hmac("sha256", GITHUB_SECRET, body, "hex")}`,
    }),
  },
  {
    name: "generic_hmac",
    path: setting("GENERIC_PATH", "/webhooks/receive/load/generic"),
    body: (n) => padded({ id: n, type: "load.tick" }),
    sign: (body) => ({ "X-Signature": crypto.hmac("sha256", GENERIC_SECRET, body, "hex") }),
  },
];

const thresholds = {
  http_req_failed: ["rate<0.001"],
  http_req_duration: [`p(99)<${P99_MS}`],
  checks: ["rate==1"],
  // More would mean that the load was not the one asked for.
  dropped_iterations: ["rate<1"],
};
for (const scheme of SCHEMES) {
  // Named, so that each scheme has a line of its own in the summary.
  thresholds[`http_req_duration{scheme:${scheme.name}}`] = [`p(99)<${P99_MS}`];
}

export const options = {
  scenarios: {
    ingress: {
      executor: "constant-arrival-rate",
      rate: RATE,
      timeUnit: "1s",
      duration: DURATION,
      preAllocatedVUs: VUS,
      maxVUs: 4 * VUS,
    },
  },
  thresholds,
  summaryTrendStats: ["avg", "min", "med", "p(95)", "p(99)", "max"],
};

// Different for each run against the same gateway, so that no event is a duplicate of an earlier run's.
export function setup() {
  return { run: Date.now() };
}

export default function ({ run }) {
  const n = exec.scenario.iterationInTest;
  const scheme = SCHEMES[n % SCHEMES.length];
  const id = `${run}-${n}`;
  const body = scheme.body(id);
  const response = http.post(BASE_URL + scheme.path, body, {
    headers: { "Content-Type": "application/json", ...scheme.sign(body, id) },
    tags: { scheme: scheme.name },
    timeout: "10s",
  });
  check(response, {
    "accepted with 200": (it) => it.status === 200,
    "told the event's id": (it) => it.status === 200 && Boolean(it.json("event_id")),
  });
}

function padded(event) {
  const bare = JSON.stringify({ ...event, data: "" });
  return JSON.stringify({ ...event, data: "x".repeat(Math.max(0, BODY_BYTES - bare.length)) });
}
