//! Child processes that never outlive this one, and what the kernel tells about them. All waits are bounded.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::{
    load::{LoadArgs, LoadReport, Progress},
    servers::Count,
};

/// How often something is looked at again while waiting for it.
const POLL: Duration = Duration::from_millis(2);
/// For a child of our own to listen, or to end after its load.
const CHILD_WAIT: Duration = Duration::from_secs(20);
/// The kernel counts CPU time in hundredths of a second on every platform Rust runs Linux on.
const TICKS_A_SECOND: f64 = 100.0;

/// Pids and directories that a signal must take along; `Drop` does it otherwise.
static LEFT_BEHIND: Mutex<LeftBehind> = Mutex::new(LeftBehind { pids: Vec::new(), directories: Vec::new() });

struct LeftBehind {
    pids: Vec<u32>,
    directories: Vec<PathBuf>,
}

fn left_behind() -> std::sync::MutexGuard<'static, LeftBehind> {
    LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends everything that was started when this process is told to stop, or after `time_limit`.
pub(crate) fn stop_on_signal(time_limit: Duration) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        let why = runtime.block_on(async {
            let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
                return "no signal handler";
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => "interrupted",
                _ = terminate.recv() => "terminated",
                () = tokio::time::sleep(time_limit) => "the time limit is over",
            }
        });
        let left = left_behind();
        for pid in &left.pids {
            let _ = signal("KILL", *pid);
        }
        for directory in &left.directories {
            let _ = fs::remove_dir_all(directory);
        }
        eprintln!("throughput: {why}; children and files are gone");
        std::process::exit(if why == "the time limit is over" { 124 } else { 130 });
    });
    Ok(())
}

/// A temporary directory that goes with this process, however it ends.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    /// Makes one below `parent`.
    pub(crate) fn below(parent: &Path) -> Result<Self> {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let directory = tempfile::Builder::new().prefix("throughput-").tempdir_in(parent)?;
        left_behind().directories.push(directory.path().to_owned());
        Ok(Self(directory))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        left_behind().directories.retain(|directory| directory != self.0.path());
    }
}

/// A child that is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts a program.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        left_behind().pids.push(child.id());
        Ok(Self { child })
    }

    /// Starts this executable again as another of its parts. It ends with its stdin at the latest.
    fn start_self(arguments: &[String], stdout: Stdio) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        Self::start(command.args(arguments).stdin(Stdio::piped()).stdout(stdout))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks it to stop and waits for that. Returns how it ended and how long it took.
    pub(crate) fn terminate(mut self, wait_max: Duration) -> Result<(ExitStatus, Duration)> {
        let began = Instant::now();
        signal("TERM", self.pid())?;
        match self.wait(wait_max)? {
            Some(status) => Ok((status, began.elapsed())),
            None => bail!("process {} did not stop within {wait_max:?} of SIGTERM", self.pid()),
        }
    }

    /// Kills it where it stands.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn wait(&mut self, wait_max: Duration) -> Result<Option<ExitStatus>> {
        let until = Instant::now() + wait_max;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            thread::sleep(POLL);
        }
    }

    /// CPU seconds it has used, user and system.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        parse_cpu_seconds(&stat).with_context(|| format!("unexpected /proc/{}/stat", self.pid()))
    }

    /// Its resident memory now and at its peak, MiB.
    pub(crate) fn memory_mib(&self) -> Result<(f64, f64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let of = |key| parse_kib(&status, key).map(|kib| kib / 1_024.0);
        of("VmRSS:").zip(of("VmHWM:")).with_context(|| format!("unexpected /proc/{}/status", self.pid()))
    }

    /// Waits until it uses hardly any CPU, so that what it left for later is not charged to its neighbour.
    pub(crate) fn settle(&self, wait_max: Duration) -> Result<()> {
        let until = Instant::now() + wait_max;
        let window = Duration::from_millis(300);
        loop {
            let before = self.cpu_seconds()?;
            thread::sleep(window);
            let used = self.cpu_seconds()? - before;
            if used < 0.1 * window.as_secs_f64() || Instant::now() >= until {
                return Ok(());
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        left_behind().pids.retain(|pid| *pid != self.child.id());
    }
}

/// Sends a signal by name. A process that is gone already is no error.
fn signal(name: &str, pid: u32) -> Result<()> {
    // The shell's own `kill`: small images have no program of that name.
    let script = format!("kill -{name} {pid} 2>/dev/null || true");
    let status = Command::new("sh").args(["-c", &script]).status().context("cannot start `sh` to send a signal")?;
    ensure!(status.success(), "cannot send SIG{name} to {pid}");
    Ok(())
}

/// A bare server or a sink that listens.
pub(crate) struct Server {
    /// The process.
    pub(crate) running: Running,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts the bare server.
    pub(crate) fn bare() -> Result<Self> {
        Self::start("bare", 2)
    }

    /// Starts the sink. One thread: a receiver that takes more of the machine would take it from hookmill.
    pub(crate) fn sink() -> Result<Self> {
        Self::start("sink", 1)
    }

    fn start(part: &str, threads: usize) -> Result<Self> {
        let address = free_address()?;
        let arguments = [part, "--listen", &address.to_string(), "--threads", &threads.to_string()].map(str::to_owned);
        let mut running = Running::start_self(&arguments, Stdio::null())?;
        wait_for_listener(&mut running, address)?;
        Ok(Self { running, address })
    }

    /// What a sink has counted.
    pub(crate) fn count(&self) -> Result<Count> {
        let (status, body) = crate::http::get(self.address, "/count")?;
        ensure!(status == 200, "the sink answered {status}");
        serde_json::from_slice(&body).context("the sink's count")
    }
}

/// A load process under way.
pub(crate) struct Load {
    running: Running,
    accepted: Arc<AtomicU64>,
    reader: thread::JoinHandle<Result<LoadReport>>,
    until: Instant,
}

impl Load {
    /// Starts the load generator.
    pub(crate) fn start(args: &LoadArgs) -> Result<Self> {
        let mut arguments = vec!["load".to_owned()];
        let options = [
            ("--target", args.target.to_string()),
            ("--connections", args.connections.to_string()),
            ("--seconds", args.seconds.to_string()),
            ("--warmup", args.warmup.to_string()),
            ("--rate", args.rate.to_string()),
            ("--requests", args.requests.to_string()),
            ("--body-bytes", args.body_bytes.to_string()),
            ("--threads", args.threads.to_string()),
            ("--paths", args.paths.to_string()),
            ("--first-path", args.first_path.to_string()),
        ];
        for (name, value) in options {
            arguments.extend([name.to_owned(), value]);
        }
        arguments.extend(args.sign_each.then(|| "--sign-each".to_owned()));
        arguments.extend(args.mixed_types.then(|| "--mixed-types".to_owned()));
        arguments.extend(args.progress.then(|| "--progress".to_owned()));
        let mut running = Running::start_self(&arguments, Stdio::piped())?;
        let stdout = running.child.stdout.take().context("the load process has a piped stdout")?;
        let accepted = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&accepted);
        let reader = thread::spawn(move || {
            let mut report = None;
            for line in BufReader::new(stdout).lines() {
                let line = line?;
                if let Ok(whole) = serde_json::from_str::<LoadReport>(&line) {
                    seen.store(whole.accepted, Ordering::Relaxed);
                    report = Some(whole);
                } else {
                    let progress: Progress = serde_json::from_str(&line).context("a line of the load process")?;
                    seen.store(progress.accepted, Ordering::Relaxed);
                }
            }
            report.context("the load process ended without a report; its error stands above")
        });
        let until = Instant::now() + Duration::from_secs_f64(args.warmup + args.seconds) + CHILD_WAIT;
        Ok(Self { running, accepted, reader, until })
    }

    /// 2xx replies so far, a moment old; only with `progress`.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&mut self) -> Result<bool> {
        Ok(self.running.ended()?.is_some())
    }

    /// Waits for its end and returns what came of it.
    pub(crate) fn finish(mut self) -> Result<LoadReport> {
        let wait = self.until.saturating_duration_since(Instant::now());
        let status = self.running.wait(wait)?.context("the load process did not end in time")?;
        let report = self.reader.join().map_err(|_| anyhow!("the reader of the load process panicked"))?;
        ensure!(status.success(), "the load process failed: {status}");
        report
    }
}

/// Sends a load and waits for its end.
pub(crate) fn load(args: &LoadArgs) -> Result<LoadReport> {
    Load::start(args)?.finish()
}

/// An address nobody listens on. Somebody else could take it before its user does; then that one fails to start.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn wait_for_listener(running: &mut Running, address: SocketAddr) -> Result<()> {
    let until = Instant::now() + CHILD_WAIT;
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        if let Some(status) = running.ended()? {
            bail!("the process that should listen on {address} ended: {status}");
        }
        ensure!(Instant::now() < until, "nobody listens on {address} after {CHILD_WAIT:?}");
        thread::sleep(POLL);
    }
    Ok(())
}

/// The last lines of a log file, for an error message.
pub(crate) fn tail(path: &Path, lines_max: usize) -> String {
    let Ok(file) = File::open(path) else { return String::new() };
    let mut lines = std::collections::VecDeque::new();
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        lines.push_back(line);
        if lines.len() > lines_max {
            lines.pop_front();
        }
    }
    Vec::from(lines).join("\n")
}

fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    // The command's name may hold spaces and brackets; the last bracket ends it. utime and stime are fields 14 and 15.
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_A_SECOND)
}

fn parse_kib(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "7 (odd) name (x)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 10";
        assert_eq!(parse_cpu_seconds(stat), Some(3.0));
        assert_eq!(parse_cpu_seconds("7 (short) S 1"), None);
    }

    #[test]
    fn memory_is_read_by_its_key() {
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(parse_kib(status, "VmRSS:"), Some(1_024.0));
        assert_eq!(parse_kib(status, "VmSwap:"), None);
    }

    #[test]
    fn a_child_is_killed_with_its_guard_and_measured_before() {
        let running = Running::start(Command::new("sleep").arg("60")).expect("sleep is everywhere");
        let pid = running.pid();
        assert!(running.memory_mib().expect("it lives").0 > 0.0);
        assert!(running.cpu_seconds().expect("it lives") < 1.0);
        drop(running);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(!left_behind().pids.contains(&pid));
    }

    #[test]
    fn a_child_that_is_asked_to_stop_does() {
        let running = Running::start(Command::new("sleep").arg("60")).expect("sleep is everywhere");
        let (status, _) = running.terminate(Duration::from_secs(10)).expect("it stops");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    }

    #[test]
    fn a_scratch_directory_goes_with_its_guard() {
        let parent = tempfile::tempdir().expect("a place for temporary files");
        let scratch = Scratch::below(parent.path()).expect("writable");
        let path = scratch.path().to_owned();
        assert!(path.is_dir() && left_behind().directories.contains(&path));
        drop(scratch);
        assert!(!path.exists() && !left_behind().directories.contains(&path));
    }
}
