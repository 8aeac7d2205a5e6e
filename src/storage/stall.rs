//! Finds work of the log's threads that never ends: a disk that does not answer, a lock that is never let go.
//!
//! A thread counts when it begins a piece of such work and when it ends it. [`StallWatch`] looks at the counts now and
//! then, and takes a piece for stalled that it has found under way too many times. It counts its own looks, and
//! compares no times: where the process or the machine stood still, it has not looked either. Work that may last is
//! not counted, or says that it goes on: opening, trimming, the filling of files.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tracing::{error, info, warn};

use super::health::Health;

/// Work that takes this long, or a sixth of the limit, is told.
const WARN_AFTER: Duration = Duration::from_secs(10);
const WARN_SHARE: u32 = 6;
/// Looks within that time.
const LOOKS: u32 = 10;

/// What a thread of the log does that waits for the disk, or for locks of sled's. One thread does a kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// `log-writer`: a commit, from its first byte until readers see it.
    Commit,
    /// `log-writer`: a commit's state.
    Apply,
    /// `log-state`.
    Sync,
    /// `log-space`.
    Prepare,
}

impl Work {
    const ALL: [Self; 4] = [Self::Commit, Self::Apply, Self::Sync, Self::Prepare];

    fn name(self) -> &'static str {
        match self {
            Self::Commit => "writing a commit to the log",
            Self::Apply => "applying a commit to the state",
            Self::Sync => "syncing the state",
            Self::Prepare => "preparing files of the log",
        }
    }

    /// Whether no event is stored before it ends.
    fn holds_up_events(self) -> bool {
        matches!(self, Self::Commit | Self::Apply)
    }
}

/// The beginnings and ends of each kind of work: odd while a piece of it is under way.
#[derive(Debug, Default)]
pub(crate) struct Pulses([AtomicU64; Work::ALL.len()]);

impl Pulses {
    /// A piece of work begins. It ends when what is returned is dropped.
    pub(crate) fn begin(&self, work: Work) -> Piece<'_> {
        let pulse = &self.0[work as usize];
        pulse.fetch_add(1, Relaxed);
        Piece(pulse)
    }
}

/// A piece of work under way.
#[must_use = "it ends when this is dropped"]
pub(crate) struct Piece<'a>(&'a AtomicU64);

impl Piece<'_> {
    /// It has come further: as if another piece began.
    pub(crate) fn goes_on(&self) {
        self.0.fetch_add(2, Relaxed);
    }
}

impl Drop for Piece<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Looks at what the log's threads do, and says so where it does not end. Whoever runs it must wait for nothing else.
#[derive(Debug)]
pub struct StallWatch {
    pulses: Arc<Pulses>,
    health: Arc<Health>,
    limit: Duration,
    /// Of each kind of work: the count at the last look, and for how long it has been the same piece.
    seen: [(u64, Duration); Work::ALL.len()],
    told: Option<Work>,
}

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Some work takes unusually long.
    Stalled {
        /// What it is.
        work: &'static str,
        /// How long it has taken so far.
        lasted: Duration,
    },
    /// It has ended after all.
    Ended,
    /// It has passed the limit, and the log has failed.
    Failed(String),
}

impl StallWatch {
    pub(crate) fn new(pulses: Arc<Pulses>, health: Arc<Health>, limit: Duration) -> Self {
        Self { pulses, health, limit, seen: Default::default(), told: None }
    }

    /// How often it must look.
    pub fn every(&self) -> Duration {
        self.warn_after() / LOOKS
    }

    /// Whether the log has failed, for this or another reason.
    pub fn has_failed(&self) -> bool {
        self.health.failure().is_some()
    }

    /// Looks, and returns what is new. Neither waits nor logs.
    pub fn look(&mut self) -> Option<Finding> {
        let every = self.every();
        for (seen, pulse) in self.seen.iter_mut().zip(&self.pulses.0) {
            let pulse = pulse.load(Relaxed);
            let is_same = pulse % 2 == 1 && pulse == seen.0;
            *seen = (pulse, if is_same { seen.1 + every } else { Duration::ZERO });
        }
        if self.has_failed() {
            return None;
        }
        let slow = Work::ALL.into_iter().zip(self.seen.map(|(_, lasted)| lasted));
        let slow = slow.filter(|(_, lasted)| *lasted >= self.warn_after());
        let holding_up = slow.clone().find(|(work, _)| work.holds_up_events());
        self.health.set_stalled(holding_up.map(|(work, _)| work.name()));
        let Some((work, lasted)) = slow.max_by_key(|(_, lasted)| *lasted) else {
            return self.told.take().map(|_| Finding::Ended);
        };
        if lasted >= self.limit {
            let (work, seconds) = (work.name(), self.limit.as_secs());
            let failure = format!("{work} has not ended within {seconds} s (setting `log.stall_limit`)");
            self.health.fail(&failure);
            return Some(Finding::Failed(failure));
        }
        let (work, lasted) = holding_up.unwrap_or((work, lasted));
        let is_news = self.told.replace(work) != Some(work);
        is_news.then(|| Finding::Stalled { work: work.name(), lasted })
    }

    #[cfg(test)]
    pub(crate) fn sees(&self, work: Work) -> bool {
        self.pulses.0[work as usize].load(Relaxed) % 2 == 1
    }

    fn warn_after(&self) -> Duration {
        WARN_AFTER.min(self.limit / WARN_SHARE)
    }
}

impl Finding {
    /// Says it in the log of the process, which may be on the disk that hangs.
    pub fn tell(&self) {
        match self {
            Self::Stalled { work, lasted } => {
                warn!(work, seconds = lasted.as_secs(), "the event log waits unusually long; look at the disk");
            }
            Self::Ended => info!("the event log goes on"),
            Self::Failed(failure) => error!(failure, "the event log failed; nothing is accepted any more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::LogHealth;

    const LIMIT: Duration = Duration::from_mins(1);

    fn watch() -> StallWatch {
        StallWatch::new(Arc::default(), Arc::default(), LIMIT)
    }

    /// Looks so many times; what was found, and at which look.
    fn looks(watch: &mut StallWatch, times: u32) -> Vec<(u32, Finding)> {
        (1..=times).filter_map(|look| watch.look().map(|found| (look, found))).collect()
    }

    fn stalled(work: Work, seconds: u64) -> Finding {
        Finding::Stalled { work: work.name(), lasted: Duration::from_secs(seconds) }
    }

    #[test]
    fn work_that_comes_on_is_no_stall_however_much_there_is() {
        let mut watch = watch();
        let pulses = Arc::clone(&watch.pulses);
        assert_eq!(watch.every(), Duration::from_secs(1));
        assert_eq!(looks(&mut watch, 100), [], "nobody works");
        for _ in 0..100 {
            let piece = pulses.begin(Work::Commit);
            assert_eq!(looks(&mut watch, 10), [], "each piece is shorter than what is told");
            drop(piece);
        }
        let filling = pulses.begin(Work::Prepare);
        for _ in 0..100 {
            filling.goes_on();
            assert_eq!(looks(&mut watch, 10), [], "one piece that goes on");
        }
        assert_eq!(*watch.health.subscribe().borrow(), LogHealth::Ready);
    }

    #[test]
    fn a_stall_is_told_then_ends_or_fails_the_log() {
        for (work, health) in [
            (Work::Commit, LogHealth::Stalled(Work::Commit.name())),
            (Work::Apply, LogHealth::Stalled(Work::Apply.name())),
            // Events are stored all the same.
            (Work::Sync, LogHealth::Ready),
            (Work::Prepare, LogHealth::Ready),
        ] {
            let mut watch = watch();
            let pulses = Arc::clone(&watch.pulses);
            let told = watch.health.subscribe();
            let piece = pulses.begin(work);
            assert_eq!(looks(&mut watch, 60), [(11, stalled(work, 10))]);
            assert_eq!(*told.borrow(), health);
            drop(piece);
            assert_eq!(looks(&mut watch, 100), [(1, Finding::Ended)]);
            assert_eq!(*told.borrow(), LogHealth::Ready);

            let _piece = pulses.begin(work);
            let failure = format!("{} has not ended within 60 s (setting `log.stall_limit`)", work.name());
            let found = looks(&mut watch, 100);
            assert_eq!(found, [(11, stalled(work, 10)), (61, Finding::Failed(failure.clone()))]);
            assert_eq!(*told.borrow(), LogHealth::Failed(failure.into()));
        }
    }

    #[test]
    fn what_holds_up_events_is_told_before_what_lasts_longer() {
        let mut watch = watch();
        let pulses = Arc::clone(&watch.pulses);
        let told = watch.health.subscribe();
        let syncing = pulses.begin(Work::Sync);
        assert_eq!(looks(&mut watch, 12), [(11, stalled(Work::Sync, 10))]);
        let applying = pulses.begin(Work::Apply);
        assert_eq!(looks(&mut watch, 11), [(11, stalled(Work::Apply, 10))]);
        assert_eq!(*told.borrow(), LogHealth::Stalled(Work::Apply.name()));
        drop(applying);
        assert_eq!(looks(&mut watch, 1), [(1, stalled(Work::Sync, 23))]);
        assert_eq!(*told.borrow(), LogHealth::Ready);
        drop(syncing);
        assert_eq!(looks(&mut watch, 1), [(1, Finding::Ended)]);
    }

    #[test]
    fn a_short_limit_is_told_early() {
        let mut watch = StallWatch::new(Arc::default(), Arc::default(), Duration::from_secs(6));
        let pulses = Arc::clone(&watch.pulses);
        assert_eq!(watch.every(), Duration::from_millis(100));
        let _piece = pulses.begin(Work::Commit);
        let found = looks(&mut watch, 61);
        assert_eq!(found.iter().map(|(look, _)| *look).collect::<Vec<_>>(), [11, 61]);
    }
}
