//! Lists and searches over a million stored events while webhooks come in: how long they take, and what the senders of
//! webhooks notice of them. Each turn with searches stands between two without, so that all see the same machine; how far
//! these two differ from each other is how far anything differs for no reason of ours.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::{
    gateway::{Admin, Gateway, path},
    histogram::Histogram,
    load::{LoadArgs, LoadReport},
    process::{Load, Scratch, load},
    report::{load_json, median, table},
    wire::{SECRET, TYPES},
};

/// Each with two endpoints, a destination and a subscription.
const INTEGRATIONS: u64 = 4;
const ENDPOINTS: u64 = 2 * INTEGRATIONS;
/// Places deep in the store that searches begin at.
const PLACES: u32 = 64;
/// Threads that search, so that a slow answer delays only itself.
const SEARCHERS: usize = 8;

/// How much.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SearchArgs {
    /// Events that are stored before.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Webhooks a second, each signed anew.
    #[arg(long, default_value_t = 5_000.0)]
    rate: f64,
    /// Lists and searches a second.
    #[arg(long, default_value_t = 20.0)]
    searches: f64,
    /// Turns with searches, and twice as many without.
    #[arg(long, default_value_t = 4)]
    rounds: u32,
    /// Seconds of each turn.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Keep-alive connections of the sender.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of each webhook's body.
    #[arg(long, default_value_t = 1_536)]
    body_bytes: usize,
    /// Keep the filled store there, or take one that is there.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

/// Measures and prints.
pub(crate) fn run(args: &SearchArgs, binary: &Path, directory: &Path) -> Result<Value> {
    let scratch = Scratch::below(directory)?;
    let data = args.store.clone().unwrap_or_else(|| scratch.path().join("data"));
    let is_filled = data.exists();
    let (gateway, ready) = Gateway::start(binary, &data)?;
    if !is_filled {
        configure(&gateway)?;
        fill(args, &gateway)?;
    }
    println!("ready after {} ms", ready.as_millis());
    let admin = gateway.admin();
    let queries = Arc::new(Queries::read(admin)?);
    let (mut before, mut beside, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let mut found = BTreeMap::new();
    for round in 0..args.rounds {
        for (name, reports) in [("before", &mut before), ("with searches", &mut beside), ("after", &mut after)] {
            gateway.running.settle(Duration::from_secs(20))?;
            let under_way = Load::start(&load_args(args, &gateway, args.rate, 0))?;
            if name == "with searches" {
                thread::sleep(Duration::from_secs(1));
                search(args, admin, &queries, &mut found)?;
            }
            let report = under_way.finish()?;
            let (p50, p99) = (report.latency.permille(500), report.latency.permille(990));
            println!("round {}, {name}: p50 {p50} us, p99 {p99} us, max {} us", round + 1, report.latency.max());
            if let Some(faults) = report.faults() {
                println!("! {faults}");
            }
            reports.push(report);
        }
    }
    let (_, peak_mib) = gateway.running.memory_mib()?;
    gateway.stop()?;
    Ok(told(&found, [&before, &beside, &after], peak_mib))
}

/// Integrations whose events are kept by the store itself; what has the rare type becomes a dead letter of the first.
fn configure(gateway: &Gateway) -> Result<()> {
    for number in 0..INTEGRATIONS {
        let mut body = json!({
            "name": format!("bench {number}"), "type": "custom", "provider": "generic_hmac", "environment": "development",
            "webhook": {"path": path(2 * number), "secret": SECRET},
            "destination": {"type": "store", "settings": {}},
            "subscription": {"in_flight_max": 64},
        });
        if number == 0 {
            let filter = format!("body.type != '{}' || body.none > 1", TYPES[2]);
            body["subscription"]["selection"] = json!({"filter": filter});
        }
        let integration = gateway.create("integrations", &body)?;
        let endpoint =
            json!({"integration_id": integration, "name": "second", "path": path(2 * number + 1), "secret": SECRET});
        gateway.create("webhooks", &endpoint)?;
    }
    Ok(())
}

fn fill(args: &SearchArgs, gateway: &Gateway) -> Result<()> {
    let filled = load(&LoadArgs { seconds: 900.0, warmup: 0.0, ..load_args(args, gateway, 0.0, args.events) })?;
    ensure!(filled.accepted >= args.events, "not every event was accepted: {:?}", filled.faults());
    println!("{} events stored at {:.0} /s", filled.accepted, filled.per_second());
    gateway.running.settle(Duration::from_mins(2))
}

fn load_args(args: &SearchArgs, gateway: &Gateway, rate: f64, requests: u64) -> LoadArgs {
    LoadArgs {
        target: gateway.ingress,
        connections: args.connections,
        seconds: args.seconds,
        warmup: 1.0,
        rate,
        requests,
        body_bytes: args.body_bytes,
        sign_each: true,
        paths: ENDPOINTS,
        first_path: 0,
        mixed_types: true,
        threads: 1,
        progress: false,
    }
}

/// What can be asked about, as the store has it.
struct Queries {
    places: Vec<Place>,
}

/// A stored event somewhere.
struct Place {
    event: String,
    provider_id: String,
    /// When it was received, and a minute of the store's life later.
    since: String,
    until: String,
}

impl Queries {
    fn read(admin: Admin) -> Result<Self> {
        let at = |item: &Value| -> Result<jiff::Timestamp> {
            Ok(item["received_at"].as_str().context("an event without time")?.parse()?)
        };
        let newest = admin.get("/events?limit=1")?["items"][0].clone();
        let oldest = (0..).map(|minutes| at(&newest).map(|at| at - jiff::SignedDuration::from_mins(minutes)));
        let mut first = at(&newest)?;
        for moment in oldest {
            let moment = moment?;
            if admin.get(&format!("/events?limit=1&until={moment}"))?["items"] == json!([]) {
                break;
            }
            first = moment;
        }
        let span = at(&newest)?.duration_since(first);
        let places = (1..=PLACES).map(|place| {
            let until = first + span * i32::try_from(place)? / i32::try_from(PLACES)?;
            let items = admin.get(&format!("/events?limit=1&until={until}"))?["items"].take();
            let item = &items[0];
            Ok(Place {
                event: item["id"].as_str().context("an event without id")?.to_owned(),
                provider_id: item["provider_id"].as_str().context("an event that was not named")?.to_owned(),
                since: (at(item)? - span / 100).to_string(),
                until: until.to_string(),
            })
        });
        Ok(Self { places: places.collect::<Result<_>>()? })
    }

    /// What is asked next: what kind of question it is, and where it is put.
    fn at(&self, number: usize) -> (&'static str, String) {
        let round = number / KINDS.len();
        let place = &self.places[round * 29 % self.places.len()];
        let kind = KINDS[number % KINDS.len()];
        let (integration, endpoint) = (round as u64 % INTEGRATIONS + 1, round as u64 % ENDPOINTS + 1);
        let path = kind
            .1
            .replace("INTEGRATION", &integration.to_string())
            .replace("ENDPOINT", &endpoint.to_string())
            .replace("PROVIDER_ID", &place.provider_id)
            .replace("EVENT", &place.event)
            .replace("SINCE", &place.since)
            .replace("UNTIL", &place.until);
        (kind.0, path)
    }
}

/// Kinds of lists and searches, asked for in turn, each over the whole store.
const KINDS: [(&str, &str); 27] = [
    ("newest", "/events"),
    ("newest 1,000", "/events?limit=1000"),
    ("a page deep in", "/events?before=EVENT"),
    ("integration", "/events?integration_id=INTEGRATION"),
    ("integration, deep in", "/events?integration_id=INTEGRATION&before=EVENT"),
    ("endpoint", "/events?endpoint_id=ENDPOINT"),
    ("endpoint, deep in", "/events?endpoint_id=ENDPOINT&before=EVENT"),
    ("type", "/events?type=bench.tock"),
    ("type, deep in", "/events?type=bench.tick&before=EVENT"),
    ("rare type", "/events?type=bench.rare"),
    ("absent type", "/events?type=bench.none"),
    ("types and endpoint", "/events?type=bench.rare,bench.none&endpoint_id=ENDPOINT"),
    ("provider's id", "/events?provider_event_id=PROVIDER_ID"),
    ("absent provider's id", "/events?provider_event_id=evt_none"),
    ("provider's id and integration", "/events?provider_event_id=PROVIDER_ID&integration_id=INTEGRATION"),
    ("time", "/events?since=SINCE&until=UNTIL"),
    ("time, integration and type", "/events?since=SINCE&until=UNTIL&integration_id=INTEGRATION&type=bench.tock"),
    ("status success", "/events?status=success"),
    ("status success, deep in", "/events?status=success&before=EVENT"),
    ("status failure", "/events?status=failure"),
    ("status failure, deep in", "/events?status=failure&before=EVENT"),
    ("status failure and integration", "/events?status=failure&integration_id=INTEGRATION"),
    ("status failure and type", "/events?status=failure&type=bench.tick"),
    ("status pending", "/events?status=pending,processing"),
    ("dead letters", "/deadletters?integration_id=INTEGRATION"),
    ("activities", "/activities?action=integration."),
    ("rejections", "/rejections?endpoint_id=ENDPOINT"),
];

/// Asks at fixed times, whether or not answers keep up; a question that is late counts from when it was due.
fn search(
    args: &SearchArgs,
    admin: Admin,
    queries: &Arc<Queries>,
    found: &mut BTreeMap<&'static str, Histogram>,
) -> Result<()> {
    let begun = Instant::now();
    let interval = Duration::from_secs_f64(1.0 / args.searches);
    let end = Duration::from_secs_f64(args.seconds);
    let next =
        Arc::new(Mutex::new(found.values().map(|times| usize::try_from(times.count()).unwrap_or(0)).sum::<usize>()));
    let first = *next.lock().unwrap_or_else(PoisonError::into_inner);
    let searchers: Vec<_> = (0..SEARCHERS)
        .map(|_| {
            let (queries, next) = (queries.clone(), next.clone());
            thread::spawn(move || -> Result<Vec<(&'static str, u64)>> {
                let mut took = Vec::new();
                loop {
                    let number = {
                        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
                        *next += 1;
                        *next - 1
                    };
                    let due = interval * u32::try_from(number - first)?;
                    if due >= end {
                        return Ok(took);
                    }
                    let due = begun + due;
                    let wait = due.saturating_duration_since(Instant::now());
                    let from = if wait.is_zero() {
                        due
                    } else {
                        thread::sleep(wait);
                        Instant::now()
                    };
                    let (kind, path) = queries.at(number);
                    admin.get(&path)?;
                    took.push((kind, u64::try_from(from.elapsed().as_micros())?));
                }
            })
        })
        .collect();
    for searcher in searchers {
        let took = searcher.join().map_err(|_| anyhow!("a thread that searches panicked"))??;
        for (kind, micros) in took {
            found.entry(kind).or_default().record(micros);
        }
    }
    Ok(())
}

/// Prints two tables and the ratios; `turns` are those before, with and after searches.
#[expect(clippy::cast_precision_loss, reason = "microseconds of a reply stay far below 2^52")]
fn told(found: &BTreeMap<&'static str, Histogram>, turns: [&[LoadReport]; 3], peak_mib: f64) -> Value {
    let mut all = Histogram::default();
    for times in found.values() {
        all.merge(times);
    }
    let row = |name: &str, times: &Histogram| {
        let at = |micros: u64| format!("{:.1}", micros as f64 / 1e3);
        vec![
            name.to_owned(),
            times.count().to_string(),
            at(times.permille(500)),
            at(times.permille(990)),
            at(times.max()),
        ]
    };
    let kinds = KINDS.iter().filter_map(|(name, _)| Some(row(name, found.get(name)?)));
    let rows: Vec<Vec<String>> = kinds.chain([row("all", &all)]).collect();
    println!();
    table(&["asked for", "asked", "p50 ms", "p99 ms", "max ms"], &rows);

    let p99 = |report: &LoadReport| report.latency.permille(990) as f64;
    let rows = ["before searches", "with searches", "after searches"].into_iter().zip(turns).map(|(name, turns)| {
        let of = |value: fn(&LoadReport) -> f64| median(&turns.iter().map(value).collect::<Vec<f64>>());
        vec![
            name.to_owned(),
            format!("{:.0}", of(LoadReport::per_second)),
            format!("{:.0}", of(|report| report.latency.permille(500) as f64)),
            format!("{:.0}", of(|report| report.latency.permille(990) as f64)),
            format!("{:.0}", of(|report| report.latency.permille(999) as f64)),
            format!("{:.0}", of(|report| report.latency.max() as f64)),
        ]
    });
    println!();
    table(
        &["webhooks, median turn", "accepted/s", "p50 us", "p99 us", "p99.9 us", "max us"],
        &rows.collect::<Vec<_>>(),
    );

    let [before, beside, after] = turns;
    let without = || before.iter().zip(after).map(|(before, after)| (p99(before), p99(after)));
    let ratios: Vec<f64> = beside
        .iter()
        .zip(without())
        .map(|(beside, (before, after))| p99(beside) / f64::midpoint(before, after).max(1.0))
        .collect();
    let control: Vec<f64> = without().map(|(before, after)| before.max(after) / before.min(after).max(1.0)).collect();
    println!("\np99 with searches to the mean without, each round and median: {}", in_order(&ratios));
    println!("p99 of the two without, the larger to the smaller:            {}", in_order(&control));
    println!("peak memory {peak_mib:.0} MiB\n");
    let by_kind: serde_json::Map<String, Value> = found
        .iter()
        .map(|(name, times)| ((*name).to_owned(), json!({"asked": times.count(), "p50_us": times.permille(500), "p99_us": times.permille(990), "max_us": times.max()})))
        .collect();
    let [before, beside, after] = turns.map(|turns| turns.iter().map(load_json).collect::<Vec<_>>());
    json!({
        "searches": by_kind, "searches_p99_us": all.permille(990), "before": before, "with": beside, "after": after,
        "p99_ratios": ratios, "control_ratios": control, "peak_mib": peak_mib,
    })
}

fn in_order(ratios: &[f64]) -> String {
    let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    format!("{}; {:.2}", each.join(", "), median(ratios))
}
