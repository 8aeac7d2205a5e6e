//! The workers: a few, started when they are first needed, each at one request at a time, replaced when they die.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::Duration,
};

use bytes::Bytes;
use hookmill_actors::ports::program::{ProgramFault, RenderFault};
use tokio::sync::{Semaphore, oneshot};

use super::{
    super::ProgramOptions,
    process::{Death, Worker},
    wire::{Answer, Request},
};

/// Programs known to compile that are remembered, by hash.
const CHECKED_MAX: usize = 16_384;
/// For a worker to start; on a busy machine that takes longer than a program may.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module.
pub(in crate::programs) struct Pool {
    options: Arc<ProgramOptions>,
    /// As many as workers may run at once. Fair: who waits longest is next.
    permits: Semaphore,
    idle: Mutex<Vec<Worker>>,
    /// Compiles for [`Pool::check`], so that configuration does not wait for events.
    checker: Mutex<Option<Worker>>,
    checked: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl Pool {
    /// Starts nothing yet.
    pub(in crate::programs) fn new(options: ProgramOptions) -> Self {
        Self {
            permits: Semaphore::new(options.workers),
            options: Arc::new(options),
            idle: Mutex::default(),
            checker: Mutex::default(),
            checked: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// The bounds that it keeps.
    pub(in crate::programs) fn options(&self) -> &ProgramOptions {
        &self.options
    }

    /// Whether a program compiles; blocks for the few milliseconds that takes, and at most until a worker's limit on
    /// processor time ends it.
    pub(in crate::programs) fn check(&self, program: &str) -> Result<(), String> {
        let hash = self.hasher.hash_one(program);
        if lock(&self.checked).contains(&hash) {
            return Ok(());
        }
        let mut checker = lock(&self.checker);
        let worker = checker.get_or_insert_with(|| Worker::start(&self.options));
        let (reply, answer) = mpsc::sync_channel(1);
        let request = Request::Check { program: program.into() };
        worker.ask(
            request,
            Box::new(move |it| {
                let _ = reply.send(it);
            }),
        );
        let answer = answer.recv_timeout(START_TIMEOUT + self.options.deadline);
        if !matches!(answer, Ok(Ok(_))) {
            *checker = None;
        }
        drop(checker);
        match answer {
            Ok(Ok(Answer::Done(_))) => {
                let mut known = lock(&self.checked);
                if known.len() == CHECKED_MAX {
                    known.clear();
                }
                known.insert(hash);
                Ok(())
            }
            Ok(Ok(Answer::Fault(problem))) => Err(problem),
            Ok(Err(Death::AtWork(cause))) => Err(format!("cannot be compiled: {cause}")),
            Ok(Err(Death::NotStarted(reason))) => Err(format!("cannot be checked now: {reason}")),
            Err(_) => Err("cannot be checked now: the jq worker does not answer".to_owned()),
        }
    }

    /// Runs a program on an event, in its turn.
    pub(super) async fn run(&self, request: Request) -> Result<Bytes, RenderFault> {
        let _permit = self.permits.acquire().await;
        loop {
            let idle = lock(&self.idle).pop();
            let mut worker = match idle {
                Some(worker) => worker,
                None => self.started().await.map_err(RenderFault::EngineUnavailable)?,
            };
            let answer = ask(&worker, request.clone(), self.options.deadline).await;
            let fault = match answer {
                Some(Ok(answer)) => {
                    worker.served += 1;
                    lock(&self.idle).push(worker);
                    match answer {
                        Answer::Done(value) => return Ok(value.into()),
                        Answer::Fault(problem) => problem,
                    }
                }
                // It may have died of what others left in its memory, or been killed by the system.
                Some(Err(Death::AtWork(_))) if worker.served > 1 => continue,
                Some(Err(Death::AtWork(cause))) => format!("the jq program was stopped: {cause}"),
                Some(Err(Death::NotStarted(reason))) => return Err(RenderFault::EngineUnavailable(reason)),
                None => format!("the jq program was stopped: it ran longer than {:?}", self.options.deadline),
            };
            return Err(ProgramFault(fault).into());
        }
    }

    /// A worker that is ready: the deadline of an event does not count its start.
    async fn started(&self) -> Result<Worker, String> {
        let mut worker = Worker::start(&self.options);
        let ready = ask(&worker, Request::Check { program: b".".to_vec() }, START_TIMEOUT).await;
        match ready {
            Some(Ok(_)) => {
                worker.served = 1;
                Ok(worker)
            }
            Some(Err(Death::NotStarted(reason))) => Err(reason),
            Some(Err(Death::AtWork(cause))) => Err(format!("a jq worker did not start: {cause}")),
            None => Err("a jq worker did not start in time".to_owned()),
        }
    }
}

/// `None` when there is no answer in time. The worker is then to be dropped, which kills it.
async fn ask(worker: &Worker, request: Request, timeout: Duration) -> Option<Result<Answer, Death>> {
    let (reply, answer) = oneshot::channel();
    worker.ask(
        request,
        Box::new(move |it| {
            let _ = reply.send(it);
        }),
    );
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(answer)) => Some(answer),
        // Without a thread there is no worker.
        Ok(Err(_)) => Some(Err(Death::NotStarted("no thread for a jq worker".to_owned()))),
        Err(_) => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
