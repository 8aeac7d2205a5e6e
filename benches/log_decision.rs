//! Where should payloads live: in sled 0.34.7, or in segment files? Four tests decide; this program runs them.
//!
//! `cargo bench --bench log_decision -- --help`

#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use hookmill::storage::{Applied, LogOptions, LogPlace, SegmentLog, StateView, StoreDir};
use hookmill_actors::{
    domain::{
        event::{Arrival, NewEvent},
        headers::HeaderBlock,
        ids::{EndpointId, EventId, IntegrationId},
    },
    ports::{
        clock::Clock,
        event_log::{CommitListener, Committing, EventLog as _, LogError, ReadBounds, TrimRequest},
        state_store::StateOp,
    },
};
use tokio::runtime::Runtime;

/// Compares sled with segment files as the home of payloads.
#[derive(Parser, Clone, Debug)]
struct Arguments {
    /// Which test.
    #[arg(long, value_enum, default_value = "all")]
    test: Test,
    /// Which store; all when not named.
    #[arg(long, value_enum)]
    store: Option<Kind>,
    /// Seconds of each load.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Bytes of each body.
    #[arg(long, default_value_t = 1_500)]
    body: usize,
    /// Megabytes written in the churn test; a tenth of them is kept.
    #[arg(long, default_value_t = 2_000)]
    churn_mb: u64,
    /// Kills in the kill test.
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// Milliseconds of load before each kill, at least; up to 700 more.
    #[arg(long, default_value_t = 300)]
    kill_after_ms: u64,
    /// Where to work; a new directory in it is made and removed.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// The load that the kill test kills.
    #[arg(long, hide = true)]
    child: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Test {
    All,
    /// Durable appends, 64 and 256 at a time.
    Throughput,
    /// 10,000 integrations written at once, then read one by one.
    Integrations,
    /// kill -9 of a process under load: is everything acknowledged there?
    Kill,
    /// Space taken against what is live.
    Churn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Segment files.
    Segments,
    /// sled, one value an event.
    SledOne,
    /// sled, several events in a value of at most 7 KB.
    SledPacked,
}

const KINDS: [Kind; 3] = [Kind::Segments, Kind::SledOne, Kind::SledPacked];

/// What the tests ask of a store.
trait Store: Send + Sync {
    fn append(&self, event: NewEvent) -> Result<Committing<EventId>, LogError>;
    /// An integration's events; `None` where the layout has no way but to read everything.
    fn backlog(&self, runtime: &Runtime, integration: IntegrationId) -> Option<usize>;
    fn has(&self, runtime: &Runtime, id: EventId) -> bool;
    /// Keeps about so many bytes of the newest events.
    fn trim(&self, runtime: &Runtime, bytes: u64, body: usize);
    fn close(self: Arc<Self>);
}

fn open(kind: Kind, dir: &Path) -> Result<Arc<dyn Store>> {
    Ok(match kind {
        Kind::Segments => {
            let store = StoreDir::open(dir)?;
            let options = LogOptions { reserve_bytes: 0, ..LogOptions::default() };
            let log = SegmentLog::open(options, store, Arc::new(NoState::at(dir)), Arc::new(Nobody), Arc::new(Wall))?;
            Arc::new(Segments(log))
        }
        Kind::SledOne => Arc::new(Sled::open(dir, 1)?),
        Kind::SledPacked => Arc::new(Sled::open(dir, 7_000)?),
    })
}

struct Segments(Arc<SegmentLog>);

impl Store for Segments {
    fn append(&self, event: NewEvent) -> Result<Committing<EventId>, LogError> {
        self.0.append(event)
    }

    fn backlog(&self, runtime: &Runtime, integration: IntegrationId) -> Option<usize> {
        let bounds = ReadBounds { events_max: 256, bytes_max: 1 << 20 };
        let (mut after, mut count) = (EventId::ZERO, 0);
        loop {
            let read = runtime.block_on(self.0.read(integration, after, bounds)).expect("it reads");
            let Some(last) = read.last() else { return Some(count) };
            after = last.as_ref().expect("nothing is damaged").id;
            count += read.len();
        }
    }

    fn has(&self, runtime: &Runtime, id: EventId) -> bool {
        runtime.block_on(self.0.get(id)).expect("it reads").is_some()
    }

    fn trim(&self, runtime: &Runtime, bytes: u64, _: usize) {
        let request = TrimRequest { finished_upto: EventId::MAX, received_before_ms: 0, bytes_max: bytes };
        runtime.block_on(self.0.trim(request)).expect("it trims");
    }

    fn close(self: Arc<Self>) {
        self.0.close_blocking().expect("it closes");
    }
}

/// No state: the place that the log came to, kept beside it.
struct NoState {
    upto: Mutex<LogPlace>,
    file: PathBuf,
}

impl NoState {
    fn at(dir: &Path) -> Self {
        let file = dir.with_extension("state");
        let upto = std::fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str(&text).ok());
        Self { upto: Mutex::new(upto.unwrap_or_default()), file }
    }
}

impl StateView for NoState {
    fn applied(&self) -> Result<Applied, LogError> {
        Ok(Applied::whole(*self.upto.lock().expect("no panic")))
    }

    fn apply(&self, _: &[StateOp], upto: LogPlace) -> Result<(), LogError> {
        *self.upto.lock().expect("no panic") = upto;
        Ok(())
    }

    fn sync(&self) -> Result<LogPlace, LogError> {
        let upto = self.applied()?.all;
        let beside = self.file.with_extension("new");
        let text = serde_json::to_string(&upto).expect("two numbers");
        std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &self.file)).expect("it writes");
        Ok(upto)
    }

    fn needed(&self, _: EventId, _: EventId, _: usize) -> Result<Vec<EventId>, LogError> {
        Ok(Vec::new())
    }

    fn is_needed(&self, _: EventId) -> Result<bool, LogError> {
        Ok(false)
    }

    fn prune(&self, _: EventId) -> Result<u64, LogError> {
        Ok(0)
    }
}

struct Nobody;

impl CommitListener for Nobody {
    fn committed(&self, _: &[(IntegrationId, EventId)]) {}
}

struct Wall;

impl Clock for Wall {
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

type SledRequest = (NewEvent, tokio::sync::oneshot::Sender<Result<EventId, LogError>>);

/// sled, with a writer thread of the same shape: take what is there, one batch, `flush`, `sync_data` on a second
/// handle of its file (its `flush` alone does not fsync), answer all.
///
/// One value an event: key (integration, id). Packed: key (first id), values of (id, body) up to the bound.
struct Sled {
    requests: crossbeam_channel::Sender<SledRequest>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    db: sled::Db,
    value_bytes_max: usize,
    order: Arc<Mutex<VecDeque<Vec<u8>>>>,
}

impl Sled {
    fn open(dir: &Path, value_bytes_max: usize) -> Result<Self> {
        let db = sled::Config::new().path(dir).cache_capacity(64 << 20).flush_every_ms(None).open()?;
        let file = File::options().write(true).open(dir.join("db"))?;
        let (requests, received) = crossbeam_channel::bounded::<SledRequest>(16_384);
        let order = Arc::default();
        let writer = {
            let (db, order) = (db.clone(), Arc::clone(&order));
            std::thread::spawn(move || {
                let mut last = 0;
                while let Ok(first) = received.recv() {
                    let requests: Vec<_> = std::iter::once(first).chain(received.try_iter().take(4_096)).collect();
                    commit(&db, &file, requests, &mut last, value_bytes_max, &order);
                }
            })
        };
        Ok(Self { requests, writer: Mutex::new(Some(writer)), db, value_bytes_max, order })
    }
}

fn commit(
    db: &sled::Db,
    file: &File,
    requests: Vec<SledRequest>,
    last: &mut u128,
    value_bytes_max: usize,
    order: &Mutex<VecDeque<Vec<u8>>>,
) {
    let mut batch = sled::Batch::default();
    let mut keys = Vec::new();
    let mut packed: (Vec<u8>, Vec<u8>) = Default::default();
    let mut answers = Vec::with_capacity(requests.len());
    let now = Wall.now_ms();
    for (event, reply) in requests {
        *last = EventId::next_sequence(now, *last);
        let id = EventId::from_parts(*last, event.integration, 0);
        let body = &event.arrival.body;
        if value_bytes_max == 1 {
            let key = [&event.integration.0.to_be_bytes()[..], &id.to_bytes()].concat();
            keys.push(key.clone());
            batch.insert(key, &body[..]);
        } else {
            if packed.1.len() + body.len() + 20 > value_bytes_max && !packed.1.is_empty() {
                let (key, value) = std::mem::take(&mut packed);
                keys.push(key.clone());
                batch.insert(key, value);
            }
            if packed.1.is_empty() {
                packed.0 = id.to_bytes().to_vec();
            }
            packed.1.extend_from_slice(&id.to_bytes());
            packed.1.extend_from_slice(&u32::try_from(body.len()).expect("small").to_le_bytes());
            packed.1.extend_from_slice(body);
        }
        answers.push((id, reply));
    }
    if !packed.1.is_empty() {
        keys.push(packed.0.clone());
        batch.insert(packed.0, packed.1);
    }
    db.apply_batch(batch).expect("it writes");
    db.flush().expect("it flushes");
    file.sync_data().expect("it syncs");
    order.lock().expect("no panic").extend(keys);
    for (id, reply) in answers {
        let _ = reply.send(Ok(id));
    }
}

impl Store for Sled {
    fn append(&self, event: NewEvent) -> Result<Committing<EventId>, LogError> {
        let (reply, committing) = Committing::new();
        self.requests.try_send((event, reply)).map_err(|_| LogError::QueueFull)?;
        Ok(committing)
    }

    fn backlog(&self, _: &Runtime, integration: IntegrationId) -> Option<usize> {
        (self.value_bytes_max == 1).then(|| self.db.scan_prefix(integration.0.to_be_bytes()).flatten().count())
    }

    fn has(&self, _: &Runtime, id: EventId) -> bool {
        if self.value_bytes_max == 1 {
            let key = [&id.integration().0.to_be_bytes()[..], &id.to_bytes()].concat();
            return self.db.get(key).expect("it reads").is_some();
        }
        let at = self.db.range(..=id.to_bytes().to_vec()).next_back();
        at.is_some_and(|item| item.expect("it reads").1.windows(16).any(|part| part == id.to_bytes()))
    }

    fn trim(&self, _: &Runtime, bytes: u64, body: usize) {
        let each = if self.value_bytes_max == 1 { body } else { self.value_bytes_max / (body + 20) * body };
        let keep = usize::try_from(bytes).unwrap_or(usize::MAX) / each;
        let gone: Vec<_> = {
            let mut order = self.order.lock().expect("no panic");
            let count = order.len().saturating_sub(keep);
            order.drain(..count).collect()
        };
        for keys in gone.chunks(1_000) {
            let mut batch = sled::Batch::default();
            for key in keys {
                batch.remove(key.as_slice());
            }
            self.db.apply_batch(batch).expect("it writes");
        }
    }

    fn close(self: Arc<Self>) {
        let writer = self.writer.lock().expect("no panic").take();
        let sled = Arc::into_inner(self);
        drop(sled.map(|sled| (sled.requests, sled.db)));
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

fn event(integration: u32, body: &Bytes) -> NewEvent {
    NewEvent {
        integration: IntegrationId(integration),
        arrival: Arrival {
            endpoint: EndpointId(1),
            received_at_ms: Wall.now_ms(),
            accepted_version: 1,
            peer: IpAddr::from([127, 0, 0, 1]),
            hops: 0,
            query: "".into(),
            headers: HeaderBlock::from_lines([("content-type", b"application/json".as_slice())]),
            body: body.clone(),
        },
    }
}

fn random_body(bytes: usize) -> Bytes {
    std::iter::repeat_with(|| fastrand::u8(..)).take(bytes).collect()
}

/// Appenders that each wait for their answer, until told. Returns events, and each one's wait in microseconds.
async fn load(
    store: &Arc<dyn Store>,
    appenders: u32,
    integrations: u32,
    body: usize,
    stop: &Arc<AtomicBool>,
    acked: impl Fn(EventId) + Send + Sync + Clone + 'static,
) -> Vec<u32> {
    let tasks: Vec<_> = (0..appenders)
        .map(|appender| {
            let (store, stop, acked) = (Arc::clone(store), Arc::clone(stop), acked.clone());
            tokio::spawn(async move {
                let body = random_body(body);
                let mut waits = Vec::new();
                let mut integration = appender;
                while !stop.load(Relaxed) {
                    integration = (integration + appenders) % integrations;
                    let began = Instant::now();
                    let committing = match store.append(event(integration, &body)) {
                        Ok(committing) => committing,
                        Err(LogError::QueueFull) => {
                            tokio::task::yield_now().await;
                            continue;
                        }
                        Err(error) => panic!("{error}"),
                    };
                    acked(committing.await.expect("it stores"));
                    waits.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
                waits
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("no panic"));
    }
    all
}

fn timed_load(
    runtime: &Runtime,
    store: &Arc<dyn Store>,
    appenders: u32,
    integrations: u32,
    arguments: &Arguments,
) -> String {
    let stop = Arc::new(AtomicBool::new(false));
    let timer = Arc::clone(&stop);
    let seconds = arguments.seconds;
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(seconds));
        timer.store(true, Relaxed);
    });
    let began = Instant::now();
    let mut waits = runtime.block_on(load(store, appenders, integrations, arguments.body, &stop, |_| {}));
    let took = began.elapsed().as_secs_f64();
    waits.sort_unstable();
    let percentile = |p: usize| f64::from(waits.get(waits.len() * p / 100).copied().unwrap_or(0)) / 1_000.0;
    format!(
        "{:.0} events/s, {:.0} MB/s, p50 {:.2} ms, p99 {:.2} ms",
        waits.len() as f64 / took,
        (waits.len() * arguments.body) as f64 / took / 1e6,
        percentile(50),
        percentile(99)
    )
}

fn throughput(runtime: &Runtime, kind: Kind, dir: &Path, arguments: &Arguments) -> Result<()> {
    for appenders in [64, 256] {
        let path = dir.join(format!("throughput-{appenders}"));
        let store = open(kind, &path)?;
        row(
            "throughput",
            kind,
            &format!("{appenders} appenders: {}", timed_load(runtime, &store, appenders, 100, arguments)),
        );
        store.close();
        std::fs::remove_dir_all(path)?;
    }
    Ok(())
}

fn integrations(runtime: &Runtime, kind: Kind, dir: &Path, arguments: &Arguments) -> Result<()> {
    let store = open(kind, &dir.join("integrations"))?;
    let written = timed_load(runtime, &store, 256, 10_000, arguments);
    let began = Instant::now();
    let mut events = 0;
    for integration in (0..10_000).step_by(10) {
        let Some(count) = store.backlog(runtime, IntegrationId(integration)) else {
            row("integrations", kind, &format!("{written}; no read by integration without an index of its own"));
            store.close();
            return Ok(());
        };
        events += count;
    }
    let took = began.elapsed();
    let each = took.as_secs_f64() * 1e6 / events.max(1) as f64;
    let one = took.as_secs_f64() * 1e6 / 1_000.0;
    row("integrations", kind, &format!("{written}; backlog read: {one:.0} us an integration, {each:.1} us an event"));
    // Everything of one integration in long batches: what a reader that lags pays for an event.
    if kind == Kind::Segments {
        let deep = dir.join("deep");
        let store = open(kind, &deep)?;
        timed_load(runtime, &store, 256, 1, arguments);
        let began = Instant::now();
        let events = store.backlog(runtime, IntegrationId(0)).unwrap_or(0);
        let each = began.elapsed().as_secs_f64() * 1e6 / events.max(1) as f64;
        row("integrations", kind, &format!("one integration's {events} events: {each:.1} us an event"));
        store.close();
        let began = Instant::now();
        open(kind, &deep)?.close();
        row(
            "start",
            kind,
            &format!(
                "open and close after a clean stop, {events} events: {:.0} ms",
                began.elapsed().as_secs_f64() * 1e3
            ),
        );
    }
    store.close();
    Ok(())
}

fn churn(runtime: &Runtime, kind: Kind, dir: &Path, arguments: &Arguments) -> Result<()> {
    let path = dir.join("churn");
    let store = open(kind, &path)?;
    let total = arguments.churn_mb * 1_000_000;
    let live = total / 10;
    let written = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let body = arguments.body;
    let loading = {
        let (store, written, stop, halt) =
            (Arc::clone(&store), Arc::clone(&written), Arc::clone(&stop), Arc::clone(&stop));
        runtime.spawn(async move {
            let count = move |_| {
                if written.fetch_add(body as u64, Relaxed) >= total {
                    halt.store(true, Relaxed);
                }
            };
            load(&store, 256, 100, body, &stop, count).await
        })
    };
    let began = Instant::now();
    let mut most = 0;
    let mut ended = None;
    while !loading.is_finished() {
        std::thread::sleep(Duration::from_millis(100));
        store.trim(runtime, live, body);
        most = most.max(disk_bytes(&path)?);
        if began.elapsed() > Duration::from_mins(3) {
            stop.store(true, Relaxed);
            ended = Some("stopped after 180 s; ");
        }
    }
    runtime.block_on(loading)?;
    let after = disk_bytes(&path)?;
    let ratio = |bytes: u64| bytes as f64 / live as f64;
    row(
        "churn",
        kind,
        &format!(
            "{}{:.2} GB through {:.0} MB live in {:.0} s: at most {:.2}x, at the end {:.2}x on disk",
            ended.unwrap_or_default(),
            written.load(Relaxed) as f64 / 1e9,
            live as f64 / 1e6,
            began.elapsed().as_secs_f64(),
            ratio(most),
            ratio(after)
        ),
    );
    store.close();
    std::fs::remove_dir_all(path)?;
    Ok(())
}

/// Bytes that the files in a directory take, by blocks.
fn disk_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let Ok(entry) = entry else { continue };
        // A file may go while it is looked at.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

fn kill(runtime: &Runtime, kind: Kind, dir: &Path, arguments: &Arguments) -> Result<()> {
    let (mut acked, mut lost, mut not_opened, mut slowest) = (0, 0, 0, Duration::ZERO);
    for turn in 0..arguments.kills {
        let path = dir.join(format!("kill-{turn}"));
        let name = kind.to_possible_value().context("every kind has a name")?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--child", "--store", name.get_name(), "--body", &arguments.body.to_string(), "--dir"])
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("piped")?;
        let reading = std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.filter_map(|line| line.parse::<EventId>().ok()).collect::<Vec<_>>()
        });
        std::thread::sleep(Duration::from_millis(arguments.kill_after_ms + fastrand::u64(..700)));
        child.kill()?;
        child.wait()?;
        let ids = reading.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        let began = Instant::now();
        match open(kind, &path) {
            Ok(store) => {
                slowest = slowest.max(began.elapsed());
                lost += ids.iter().filter(|id| !store.has(runtime, **id)).count();
                store.close();
            }
            Err(error) => {
                eprintln!("not opened: {error:#}");
                not_opened += 1;
            }
        }
        acked += ids.len();
        std::fs::remove_dir_all(path)?;
    }
    row(
        "kill -9",
        kind,
        &format!(
            "{} kills, {acked} acknowledged: {lost} lost, {not_opened} stores not opened, slowest open {:.0} ms",
            arguments.kills,
            slowest.as_secs_f64() * 1e3
        ),
    );
    Ok(())
}

/// The process that is killed: prints each id once it is acknowledged.
fn child(kind: Kind, arguments: &Arguments) -> Result<()> {
    std::fs::create_dir_all(&arguments.dir)?;
    let runtime = runtime()?;
    let store = open(kind, &arguments.dir)?;
    let print = |id: EventId| {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{id}");
    };
    runtime.block_on(load(&store, 64, 100, arguments.body, &Arc::default(), print));
    Ok(())
}

fn row(test: &str, kind: Kind, result: &str) {
    let mut out = std::io::stdout().lock();
    let name = kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let _ = writeln!(out, "| {test} | {name} | {result} |");
}

type Run = fn(&Runtime, Kind, &Path, &Arguments) -> Result<()>;

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.child {
        let Some(kind) = arguments.store else { bail!("`--child` needs `--store`") };
        return child(kind, &arguments);
    }
    if !arguments.bench {
        // `cargo test` runs benches too; minutes of load and gigabytes of churn are asked for by name only.
        return Ok(());
    }
    let runtime = runtime()?;
    writeln!(std::io::stdout(), "| test | store | result |\n| --- | --- | --- |")?;
    let tests: [(Test, Run); 4] =
        [(Test::Throughput, throughput), (Test::Integrations, integrations), (Test::Kill, kill), (Test::Churn, churn)];
    for (test, run) in tests {
        for kind in KINDS {
            let wanted = arguments.test == Test::All || arguments.test == test;
            if wanted && arguments.store.is_none_or(|store| store == kind) {
                let dir = tempfile::tempdir_in(&arguments.dir)?;
                run(&runtime, kind, dir.path(), &arguments)?;
            }
        }
    }
    Ok(())
}
