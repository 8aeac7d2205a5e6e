//! One worker process and the thread that talks to it. Whoever holds the [`Worker`] may kill it at any time.

use std::{
    io::{BufReader, BufWriter, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use super::{
    super::ProgramOptions,
    wire::{Answer, HELLO, Request},
};

/// Why a worker does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// It could not be started.
    NotStarted(String),
    /// It died at work, in words.
    AtWork(&'static str),
}

/// How often, and how far apart, a worker that should end is looked at before it is killed.
const END_CHECKS: usize = 100;
const END_CHECK_WAIT: Duration = Duration::from_millis(5);

type Reply = Box<dyn FnOnce(Result<Answer, Death>) + Send>;

struct Job {
    request: Request,
    reply: Reply,
}

/// A worker that takes one request at a time.
pub(super) struct Worker {
    jobs: mpsc::SyncSender<Job>,
    process: Process,
    /// Requests that it has answered.
    pub(super) served: u64,
}

impl Worker {
    /// Starts one; what goes wrong with it is the answer to its first request.
    pub(super) fn start(options: &Arc<ProgramOptions>) -> Self {
        let (jobs, waiting) = mpsc::sync_channel::<Job>(1);
        let process = Process::default();
        let (options, mine) = (options.clone(), process.clone());
        // Where no thread can be had, `waiting` is dropped, and so every request is answered.
        let _ = std::thread::Builder::new().name("jq".to_owned()).spawn(move || talk(&options, &mine, &waiting));
        Self { jobs, process, served: 0 }
    }

    /// Hands it a request; `reply` is called once, unless the thread could not be started: then it is dropped.
    pub(super) fn ask(&self, request: Request, reply: Reply) {
        // An error means that the thread has gone, and takes `reply` with it.
        let _ = self.jobs.try_send(Job { request, reply });
    }
}

impl Drop for Worker {
    /// An idle worker ends with its input; one at work is killed.
    fn drop(&mut self) {
        self.process.kill();
    }
}

/// The process, once it runs.
#[derive(Clone, Default)]
struct Process(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    child: Option<Child>,
    killed: bool,
}

impl Process {
    fn started(&self, mut child: Child) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.killed {
            let _ = child.kill();
        }
        state.child = Some(child);
    }

    fn kill(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.killed = true;
        if let Some(child) = &mut state.child {
            // It may have ended by itself.
            let _ = child.kill();
        }
    }

    /// Waits for its end, so that no zombie stays: its pipes are closed, so it has ended or is about to. What does
    /// not end is killed.
    fn end(&self) -> Option<ExitStatus> {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner).child.take()?;
        for _ in 0..END_CHECKS {
            if let Ok(Some(status)) = child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(END_CHECK_WAIT);
        }
        child.kill().and_then(|()| child.wait()).ok()
    }
}

fn talk(options: &ProgramOptions, process: &Process, waiting: &mpsc::Receiver<Job>) {
    let mut pipes = start(options, process);
    while let Ok(Job { request, reply }) = waiting.recv() {
        let answer = match &mut pipes {
            Ok((input, output)) => request.write(input).and_then(|()| Answer::read(output)).ok(),
            Err(reason) => {
                reply(Err(Death::NotStarted(reason.clone())));
                break;
            }
        };
        match answer {
            Some(answer) => reply(Ok(answer)),
            None => {
                drop(pipes);
                reply(Err(Death::AtWork(cause(process.end()))));
                return;
            }
        }
    }
    // Its input ends here, and it with it.
    drop(pipes);
    process.end();
}

type Pipes = (BufWriter<ChildStdin>, BufReader<ChildStdout>);

fn start(options: &ProgramOptions, process: &Process) -> Result<Pipes, String> {
    let limits = [
        ("--memory-bytes", options.memory_bytes),
        ("--cpu-s", options.deadline.as_secs() + 1),
        ("--output-bytes", options.output_bytes_max as u64),
    ];
    let mut child = Command::new(&options.worker)
        .arg("jq-worker")
        .args(limits.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]))
        .env_clear()
        // The heap takes what it needs and reserves nothing, so that the limit of the address space is one of memory.
        .env("MIMALLOC_DISALLOW_ARENA_ALLOC", "1")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("`{}` cannot be started as a jq worker: {error}", options.worker.display()))?;
    let pipes = child.stdin.take().zip(child.stdout.take());
    process.started(child);
    let (input, output) = pipes.ok_or("a jq worker was started without pipes")?;
    let mut output = BufReader::new(output);
    let mut hello = [0; HELLO.len()];
    match output.read_exact(&mut hello) {
        Ok(()) if hello == *HELLO => Ok((BufWriter::new(input), output)),
        _ => Err(format!(
            "`{}` does not answer as a jq worker; it must be hookmill's binary, and `programs.memory_bytes` large \
             enough to start it",
            options.worker.display()
        )),
    }
}

/// The likely cause, from how it ended.
fn cause(ended: Option<ExitStatus>) -> &'static str {
    use rustix::process::Signal;
    let signal = ended.and_then(|status| status.signal()).unwrap_or(0);
    if signal == Signal::ABORT.as_raw() {
        "it needed more memory than it may have"
    } else if signal == Signal::XCPU.as_raw() {
        "it ran longer than it may"
    } else if signal == Signal::SEGV.as_raw() || signal == Signal::BUS.as_raw() {
        "it recursed too deep"
    } else {
        "its worker ended"
    }
}
