//! The load generator, a process of its own: keep-alive connections that send pre-built requests at full speed, or
//! paced. It shares the machine's cores with the server under test, so it does as little as it can: one thread,
//! one write and one read a request, no timer and no allocation a request.
//!
//! Prints a JSON line many times a second with what was accepted so far if asked to, and one [`LoadReport`] at the end.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, Write as _},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{JoinSet, LocalSet},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    histogram::Histogram,
    wire::{Request, parse_reply},
};

/// Whoever has not been answered this long after the end is counted as unanswered.
const LAST_REPLY_WAIT: Duration = Duration::from_secs(10);
/// A connection that failed is opened again after this.
const RECONNECT_WAIT: Duration = Duration::from_millis(20);
/// Between two lines of progress: the backlog of a fast load is as wrong as this is long.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);
/// Kinds of failures kept apart; the rest is one kind.
const FAILURE_KINDS_MAX: usize = 16;

/// What to send.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// The server.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Seconds that count.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Seconds before them that do not.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup: f64,
    /// Requests a second over all connections; 0: as fast as replies come.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) rate: f64,
    /// Stop after this many requests; 0: when the time is over.
    #[arg(long, default_value_t = 0)]
    pub(crate) requests: u64,
    /// Bytes of each body.
    #[arg(long, default_value_t = 1_536)]
    pub(crate) body_bytes: usize,
    /// Make and sign each event anew; otherwise each connection repeats one.
    #[arg(long)]
    pub(crate) sign_each: bool,
    /// Paths that take turns.
    #[arg(long, default_value_t = 1)]
    pub(crate) paths: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    pub(crate) first_path: u64,
    /// Give the events several types; only with `--sign-each`.
    #[arg(long)]
    pub(crate) mixed_types: bool,
    /// Threads that share the connections.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Print what was accepted so far, many times a second.
    #[arg(long)]
    pub(crate) progress: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LoadReport {
    /// Seconds that counted.
    pub(crate) seconds: f64,
    /// Replies within them.
    pub(crate) replies: u64,
    /// 2xx replies over the whole run, before and after the seconds that count too.
    pub(crate) accepted: u64,
    /// Requests written over the whole run.
    pub(crate) sent: u64,
    /// Replies by status, over the whole run.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Connections that failed, by cause.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Microseconds from sending, or from when a paced request should have been sent, to the whole reply.
    pub(crate) latency: Histogram,
}

/// A line of progress.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// 2xx replies so far.
    pub(crate) accepted: u64,
}

impl LoadReport {
    /// Replies a second.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub(crate) fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.replies as f64 / self.seconds } else { 0.0 }
    }

    /// Replies that were not 2xx.
    pub(crate) fn refused(&self) -> u64 {
        self.statuses.iter().filter(|(status, _)| !(200..300).contains(*status)).map(|(_, count)| count).sum()
    }

    /// Requests that were written and never answered: nobody knows what became of them.
    pub(crate) fn unanswered(&self) -> u64 {
        self.sent.saturating_sub(self.statuses.values().sum())
    }

    /// What went wrong, as text; `None` if every request was answered with 2xx.
    pub(crate) fn faults(&self) -> Option<String> {
        let mut parts: Vec<String> = self
            .statuses
            .iter()
            .filter(|(status, _)| !(200..300).contains(*status))
            .map(|(status, count)| format!("{count} x status {status}"))
            .collect();
        parts.extend(self.failures.iter().map(|(cause, count)| format!("{count} x {cause}")));
        if self.unanswered() > 0 {
            parts.push(format!("{} unanswered", self.unanswered()));
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// Adds what another thread, or another round, did at the same `seconds`.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.replies += other.replies;
        self.accepted += other.accepted;
        self.sent += other.sent;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (cause, count) in &other.failures {
            *self.failures.entry(cause.clone()).or_default() += count;
        }
        self.latency.merge(&other.latency);
    }

    fn answered(&mut self, status: u16) {
        *self.statuses.entry(status).or_default() += 1;
        if (200..300).contains(&status) {
            self.accepted += 1;
        }
    }

    fn failed(&mut self, error: &anyhow::Error) {
        let cause = format!("{error:#}");
        let known = self.failures.contains_key(&cause) || self.failures.len() < FAILURE_KINDS_MAX;
        *self.failures.entry(if known { cause } else { "other failures".to_owned() }).or_default() += 1;
    }
}

/// Sends the load and prints the report to stdout.
pub(crate) fn run(args: &LoadArgs) -> Result<()> {
    let threads = args.threads.clamp(1, args.connections.max(1));
    ensure!(args.connections > 0, "at least one connection is needed");
    ensure!(args.seconds.is_finite() && args.seconds > 0.0, "`--seconds` must be more than 0");
    let plan = Arc::new(Plan::new(args, threads)?);
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let plan = Arc::clone(&plan);
            thread::spawn(move || run_thread(&plan, thread))
        })
        .collect();
    let mut report = LoadReport { seconds: args.seconds, ..LoadReport::default() };
    for worker in workers {
        report.merge(&worker.join().map_err(|_| anyhow!("a thread of the load generator panicked"))??);
    }
    if plan.requests_max < u64::MAX {
        // The run ended with its last request, not with its time.
        report.seconds = report.seconds.min(plan.start.elapsed().as_secs_f64());
    }
    print_line(&report)
}

/// What all connections follow.
struct Plan {
    args: LoadArgs,
    threads: usize,
    request: Request,
    start: Instant,
    /// Replies count from here on.
    from: Instant,
    end: Instant,
    /// Between two requests of one connection; `None` at full speed.
    interval: Option<Duration>,
    requests_max: u64,
    /// The number in the first body: another one for each load, as an event that comes again is a duplicate.
    first_number: u64,
    /// Numbers of requests, given out in order.
    next: AtomicU64,
    /// 2xx replies of all threads, for the lines of progress.
    accepted: AtomicU64,
}

impl Plan {
    fn new(args: &LoadArgs, threads: usize) -> Result<Self> {
        let connections = u32::try_from(args.connections).context("too many connections")?;
        let start = Instant::now();
        let from = start + Duration::try_from_secs_f64(args.warmup).context("`--warmup` is no duration")?;
        Ok(Self {
            request: Request::new(&args.target.to_string(), args.body_bytes)?,
            threads,
            start,
            from,
            end: from + Duration::try_from_secs_f64(args.seconds).context("`--seconds` is no duration")?,
            interval: (args.rate > 0.0).then(|| Duration::from_secs_f64(f64::from(connections) / args.rate)),
            requests_max: if args.requests == 0 { u64::MAX } else { args.requests },
            first_number: wall_us(),
            next: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            args: args.clone(),
        })
    }

    /// The next request's number, unless there have been enough.
    fn take_number(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.requests_max).then_some(number)
    }
}

fn run_thread(plan: &Arc<Plan>, thread: usize) -> Result<LoadReport> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = Rc::new(RefCell::new(LoadReport::default()));
    LocalSet::new().block_on(&runtime, async {
        let mut connections = JoinSet::new();
        for index in (thread..plan.args.connections).step_by(plan.threads) {
            let connection = drive(Arc::clone(plan), index, Rc::clone(&report));
            let bounded = timeout_at(plan.end + LAST_REPLY_WAIT, connection);
            connections.spawn_local(async move { bounded.await.is_ok() });
        }
        let progress = (plan.args.progress && thread == 0).then(|| tokio::task::spawn_local(tell(Arc::clone(plan))));
        while let Some(ended) = connections.join_next().await {
            ended.context("a connection's task panicked")?;
        }
        if let Some(progress) = progress {
            progress.abort();
        }
        anyhow::Ok(())
    })?;
    let report = report.borrow().clone();
    Ok(report)
}

async fn tell(plan: Arc<Plan>) {
    loop {
        sleep(PROGRESS_EVERY).await;
        if print_line(&Progress { accepted: plan.accepted.load(Ordering::Relaxed) }).is_err() {
            return; // nobody listens any more
        }
    }
}

/// Keeps one connection busy until the end, opening it again when it fails.
async fn drive(plan: Arc<Plan>, index: usize, report: Rc<RefCell<LoadReport>>) {
    let mut lane = Lane { request: plan.request.clone(), pace: Pace::new(&plan, index), plan, report };
    // Each lane repeats an event of its own.
    lane.request.stamp(lane.plan.first_number + index as u64, wall_us());
    loop {
        match lane.connection().await {
            Ok(Ended::Done) => return,
            Ok(Ended::Closed) => {}
            Err(error) => {
                lane.report.borrow_mut().failed(&error);
                sleep(RECONNECT_WAIT).await;
            }
        }
        if Instant::now() >= lane.plan.end {
            return;
        }
    }
}

/// Why a connection was left.
enum Ended {
    /// Time is over, or there are no requests left.
    Done,
    /// The server asked for another connection.
    Closed,
}

struct Lane {
    plan: Arc<Plan>,
    request: Request,
    pace: Pace,
    report: Rc<RefCell<LoadReport>>,
}

impl Lane {
    async fn connection(&mut self) -> Result<Ended> {
        let mut stream = TcpStream::connect(self.plan.args.target).await.context("connect")?;
        stream.set_nodelay(true)?;
        let mut buffer = Vec::with_capacity(4 * 1024);
        let mut now = Instant::now();
        loop {
            if now >= self.plan.end {
                return Ok(Ended::Done);
            }
            let Some(began) = self.pace.wait(now, self.plan.end).await else { return Ok(Ended::Done) };
            let Some(number) = self.plan.take_number() else { return Ok(Ended::Done) };
            self.request.address(self.plan.args.first_path + number % self.plan.args.paths.max(1));
            if self.plan.args.sign_each {
                if self.plan.args.mixed_types {
                    self.request.name(number);
                }
                self.request.stamp(self.plan.first_number + number, wall_us());
            }
            stream.write_all(self.request.bytes()).await.context("write")?;
            self.report.borrow_mut().sent += 1;
            let (status, close) = read_reply(&mut stream, &mut buffer).await?;
            now = Instant::now();
            self.count(status, began, now);
            if close {
                return Ok(Ended::Closed);
            }
        }
    }

    fn count(&self, status: u16, began: Instant, now: Instant) {
        let mut report = self.report.borrow_mut();
        report.answered(status);
        if (200..300).contains(&status) {
            self.plan.accepted.fetch_add(1, Ordering::Relaxed);
        }
        if now >= self.plan.from && now < self.plan.end {
            report.replies += 1;
            let latency = now.saturating_duration_since(began).as_micros();
            report.latency.record(u64::try_from(latency).unwrap_or(u64::MAX));
        }
    }
}

/// Reads one whole reply; what belongs to none yet stays in the buffer.
async fn read_reply(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(u16, bool)> {
    buffer.clear();
    loop {
        let read = stream.read_buf(buffer).await.context("read")?;
        ensure!(read > 0, "the server closed the connection before its reply");
        if let Some(reply) = parse_reply(buffer)?
            && buffer.len() >= reply.end
        {
            ensure!(buffer.len() == reply.end, "{} bytes after the reply", buffer.len() - reply.end);
            return Ok((reply.status, reply.close));
        }
    }
}

/// When a connection sends.
enum Pace {
    FullSpeed,
    /// At fixed times, whether or not the server keeps up.
    Fixed {
        due: Instant,
        interval: Duration,
    },
}

impl Pace {
    fn new(plan: &Plan, index: usize) -> Self {
        let Some(interval) = plan.interval else { return Self::FullSpeed };
        let share = interval / u32::try_from(plan.args.connections).unwrap_or(u32::MAX);
        // Connections take turns, so that the load is even and not one burst an interval.
        Self::Fixed { due: plan.start + share * u32::try_from(index).unwrap_or(0), interval }
    }

    /// Waits for the next request's time and returns when its latency began; `None` when that is after the end.
    ///
    /// A connection that is late because of the server counts from when it should have sent. One that slept counts
    /// from when it woke: the timer's millisecond is not the server's.
    async fn wait(&mut self, now: Instant, end: Instant) -> Option<Instant> {
        let Self::Fixed { due, interval } = self else { return Some(now) };
        let this = *due;
        *due += *interval;
        if this >= end {
            return None;
        }
        if this <= now {
            return Some(this);
        }
        sleep_until(this).await;
        Some(Instant::now())
    }
}

/// Wall time that sender and sink share, microseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "two processes compare it, so it must be the machine's own clock")]
pub(crate) fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn print_line(value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    io::stdout().lock().write_all(&line)?;
    Ok(())
}
