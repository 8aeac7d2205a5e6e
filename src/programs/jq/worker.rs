//! The worker's side: `hookmill jq-worker`. Limits itself before it reads anything, then answers one request after
//! the other until its standard input ends. Owns nothing; its death costs the request in hand.

use std::{
    io::{self, BufReader, Read, Write},
    process::ExitCode,
};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

use super::{
    engine,
    wire::{Answer, HELLO, Request},
};
use crate::secrets::forbid_core_dumps;

/// What one worker may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Address space, bytes.
    pub(crate) memory_bytes: u64,
    /// Processor time for one request, seconds: for a worker whose parent can no longer kill it.
    pub(crate) cpu_s: u64,
    /// One value that comes out, bytes.
    pub(crate) output_bytes: usize,
}

/// Answers requests until there are no more.
pub(crate) fn serve(limits: Limits) -> ExitCode {
    match limit(limits).and_then(|()| answer_all(limits, &mut io::stdin().lock(), &mut io::stdout().lock())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// No more memory, no files, no processes, no dumps.
fn limit(limits: Limits) -> io::Result<()> {
    // What is open stays open: standard input, output and error.
    const OPEN_FILES: u64 = 3;
    forbid_core_dumps()?;
    for (resource, most) in [
        (Resource::As, limits.memory_bytes),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Fsize, 0),
        (Resource::Nproc, 0),
    ] {
        let most = Some(getrlimit(resource).maximum.map_or(most, |hard| hard.min(most)));
        setrlimit(resource, Rlimit { current: most, maximum: most })?;
    }
    Ok(())
}

/// So much more processor time from now on.
fn allow_time(seconds: u64) -> io::Result<()> {
    let used = u64::try_from(clock_gettime(ClockId::ProcessCPUTime).tv_sec).unwrap_or(0);
    let hard = getrlimit(Resource::Cpu).maximum;
    // One more, as the limit counts whole seconds.
    let soft = used + seconds + 1;
    let current = Some(hard.map_or(soft, |hard| hard.min(soft)));
    Ok(setrlimit(Resource::Cpu, Rlimit { current, maximum: hard })?)
}

fn answer_all(limits: Limits, input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    let mut cache = engine::Cache::default();
    let mut input = BufReader::new(input);
    output.write_all(HELLO)?;
    output.flush()?;
    while let Some(request) = Request::read(&mut input)? {
        allow_time(limits.cpu_s)?;
        answer(limits, &mut cache, &request).write(output)?;
    }
    Ok(())
}

fn answer(limits: Limits, cache: &mut engine::Cache, request: &Request) -> Answer {
    let made = match request {
        Request::Check { program } => cache.get(program).map(|_| Vec::new()),
        Request::Run { program, input, variables } => {
            cache.get(program).and_then(|program| engine::run(program, input, variables, limits.output_bytes))
        }
    };
    made.map_or_else(Answer::Fault, Answer::Done)
}
