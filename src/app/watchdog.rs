//! A thread that waits for nobody: it finds stalls of the event log, and ends the process where it does not end by
//! itself. A thread that waits for a disk cannot be ended; a process can.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::Builder,
    time::Duration,
};

use anyhow::Context;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::storage::StallWatch;

/// A line of the log may take so long to write, as it may go to the disk that hangs.
const TELLING_MAX: Duration = Duration::from_secs(1);

/// Watches until it is dropped.
pub(super) struct Watchdog(#[expect(dead_code, reason = "its thread ends when this is dropped")] Sender<()>);

impl Watchdog {
    /// From now on, `is_stopping` says that the process is to end.
    pub(super) fn start(stalls: StallWatch, end: EndBounds, is_stopping: Arc<AtomicBool>) -> anyhow::Result<Self> {
        let (alive, dropped) = bounded(0);
        Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || watch(stalls, Overdue::new(end), &is_stopping, &dropped))
            .context("no thread for the watchdog")?;
        Ok(Self(alive))
    }
}

fn watch(mut stalls: StallWatch, mut overdue: Overdue, is_stopping: &AtomicBool, dropped: &Receiver<()>) {
    let every = stalls.every();
    while dropped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
        if let Some(finding) = stalls.look() {
            aside(move || finding.tell());
        }
        if overdue.after(every, stalls.has_failed(), is_stopping.load(Relaxed)) {
            aside(|| {
                tracing::error!(
                    "hookmill ends although some of its threads hang, on the disk or on a lock. Look at the disk, then start \
                     again: nothing that was acknowledged is lost, and a start repairs the rest"
                );
            });
            process::exit(1);
        }
    }
}

/// How long the end of the process may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndBounds {
    /// Once the log has failed.
    pub(super) after_failure: Duration,
    /// Once it was told to stop.
    pub(super) after_stop: Duration,
}

/// Counts how long the end takes: in looks, so that a process that stands still has the rest of its time afterwards.
struct Overdue {
    bounds: EndBounds,
    failed_for: Duration,
    stopping_for: Duration,
}

impl Overdue {
    fn new(bounds: EndBounds) -> Self {
        Self { bounds, failed_for: Duration::ZERO, stopping_for: Duration::ZERO }
    }

    /// Whether it takes too long, another `step` later.
    fn after(&mut self, step: Duration, has_failed: bool, is_stopping: bool) -> bool {
        self.failed_for += if has_failed { step } else { Duration::ZERO };
        self.stopping_for += if is_stopping { step } else { Duration::ZERO };
        self.failed_for > self.bounds.after_failure || self.stopping_for > self.bounds.after_stop
    }
}

/// Runs what may hang on a thread of its own, and waits for it a moment only.
fn aside(work: impl FnOnce() + Send + 'static) {
    let (done, ended) = bounded::<()>(0);
    let spawned = Builder::new().name("watchdog-log".to_owned()).spawn(move || {
        work();
        drop(done);
    });
    if spawned.is_ok() {
        let _ = ended.recv_timeout(TELLING_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Instant};

    use super::*;

    const STEP: Duration = Duration::from_secs(1);

    #[test]
    fn an_end_is_overdue_after_its_bound_and_never_before() {
        // When it fails and when it is told to stop, in steps; the step at which it is overdue.
        for (fails_at, stops_at, overdue_at) in [
            (None, None, None),
            (Some(1), None, Some(4)),
            (None, Some(1), Some(11)),
            (Some(5), Some(1), Some(8)),
            (Some(10), Some(1), Some(11)),
        ] {
            let bounds = EndBounds { after_failure: 3 * STEP, after_stop: 10 * STEP };
            let mut overdue = Overdue::new(bounds);
            let is_since = |at: Option<u32>, step| at.is_some_and(|at| at <= step);
            let found = (1..=20).find(|step| overdue.after(STEP, is_since(fails_at, *step), is_since(stops_at, *step)));
            assert_eq!(found, overdue_at, "fails at {fails_at:?}, stops at {stops_at:?}");
        }
    }

    #[test]
    fn a_log_line_that_hangs_holds_nobody_up() {
        let (let_go, held) = mpsc::sync_channel::<()>(0);
        let began = Instant::now();
        aside(move || assert!(held.recv().is_err(), "it is let go"));
        assert!(began.elapsed() >= TELLING_MAX);
        drop(let_go);
    }
}
