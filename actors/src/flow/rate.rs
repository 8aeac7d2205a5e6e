//! So many a second, with a burst: governor's cell rate algorithm on the instants that callers hand in, so that paused
//! time holds for it too. Pure.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};
use tokio::time::Instant;

use crate::domain::{ids::SubscriptionId, shaping::Rate};

/// A rate and how much of it is used up.
#[derive(Debug)]
pub(crate) struct Pace {
    limiter: RateLimiter<NotKeyed, Memory, Handed, NoOpMiddleware<Duration>>,
    memory: Memory,
    epoch: Instant,
    period: Duration,
    burst: NonZeroU32,
}

impl Pace {
    /// Starts with its whole burst.
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        let per_second = rate.per_second.max(1);
        Self::every(Duration::from_secs(1) / per_second, rate.burst.unwrap_or(per_second), now)
    }

    /// One a period, with a burst.
    pub(super) fn every(period: Duration, burst: u32, now: Instant) -> Self {
        let period = period.max(Duration::from_nanos(1));
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(period).expect("the period is not zero").allow_burst(burst);
        let memory = Memory::default();
        Self { limiter: RateLimiter::new(quota, memory.clone(), Handed::default()), memory, epoch: now, period, burst }
    }

    /// Takes one if there is one; else says when there will be.
    pub(crate) fn check(&mut self, now: Instant) -> Result<(), Instant> {
        self.set_clock(now);
        self.limiter.check().map_err(|until| self.instant(until.earliest_possible()))
    }

    /// As [`Self::check`], for somebody behind whom `ahead` others have a claim on theirs.
    pub(super) fn check_behind(&mut self, ahead: u32, now: Instant) -> Result<(), Instant> {
        if ahead > 0 {
            self.peek(ahead.saturating_add(1), now)?;
        }
        self.check(now)
    }

    /// Whether `count` could be taken now, or when; takes nothing.
    pub(crate) fn peek(&mut self, count: u32, now: Instant) -> Result<(), Instant> {
        self.set_clock(now);
        let asked = NonZeroU32::new(count.min(self.burst.get())).unwrap_or(NonZeroU32::MIN);
        // What does not fit into the burst comes one a period after it.
        let beyond = count.saturating_sub(self.burst.get());
        let before = self.memory.0.load(Relaxed);
        let ready = match self.limiter.check_n(asked) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(self.instant(until.earliest_possible())),
            Err(_) => Err(now + self.period),
        };
        self.memory.0.store(before, Relaxed);
        match ready {
            Ok(()) if beyond == 0 => Ok(()),
            Ok(()) => Err(now + self.period * beyond),
            Err(at) => Err(at + self.period * beyond),
        }
    }

    fn set_clock(&self, now: Instant) {
        // Whoever waited for a lock may come with an older instant than whoever went before.
        let since = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        self.limiter.clock().0.fetch_max(since, Relaxed);
    }

    fn instant(&self, since: Duration) -> Instant {
        self.epoch + since
    }
}

/// The rates of subscriptions: a delivery that starts again goes on where its predecessor was.
#[derive(Clone, Default)]
pub(crate) struct Paces(Arc<Mutex<HashMap<SubscriptionId, (Rate, SharedPace)>>>);

/// A pace that outlives whoever asks it.
pub(crate) type SharedPace = Arc<Mutex<Pace>>;

impl Paces {
    /// The subscription's pace, begun anew where its rate changed; `None` where it has no rate.
    pub(crate) fn of(&self, subscription: SubscriptionId, rate: Option<Rate>, now: Instant) -> Option<SharedPace> {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rate) = rate else {
            paces.remove(&subscription);
            return None;
        };
        match paces.get(&subscription) {
            Some((same, pace)) if *same == rate => Some(pace.clone()),
            _ => {
                let pace = Arc::new(Mutex::new(Pace::new(rate, now)));
                paces.insert(subscription, (rate, pace.clone()));
                Some(pace)
            }
        }
    }

    /// Forgets a subscription that is not there any more.
    pub(crate) fn forget(&self, subscription: SubscriptionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&subscription);
    }
}

/// A clock that shows what it was set to.
#[derive(Debug, Default)]
struct Handed(AtomicU64);

impl Clock for Handed {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }
}

/// governor's state, kept where it can be put back after a peek: when the next cell is due, nanoseconds; 0: at once.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<AtomicU64>);

impl StateStore for Memory {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // Nobody else writes meanwhile: every caller holds the `Pace` exclusively.
        let due = self.0.load(Relaxed);
        let (outcome, due) = measure((due > 0).then(|| Nanos::from(due)))?;
        self.0.store(due.as_u64(), Relaxed);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace(per_second: u32, burst: Option<u32>, now: Instant) -> Pace {
        Pace::new(Rate { per_second, burst }, now)
    }

    #[test]
    fn without_a_burst_a_second_of_it_may_come_at_once() {
        let now = Instant::now();
        let mut pace = pace(3, None, now);
        assert_eq!([(); 3].map(|()| pace.check(now)), [Ok(()); 3]);
        let until = pace.check(now).expect_err("the burst is used up");
        assert!(until > now + Duration::from_millis(333) && until <= now + Duration::from_millis(334));
        assert_eq!(pace.check(until), Ok(()));
    }

    #[test]
    fn a_peek_takes_nothing() {
        let now = Instant::now();
        let mut pace = pace(10, Some(2), now);
        for _ in 0..100 {
            assert_eq!(pace.peek(2, now), Ok(()));
        }
        assert_eq!(pace.peek(4, now), Err(now + Duration::from_millis(200)));
        assert_eq!([(); 2].map(|()| pace.check(now)), [Ok(()); 2]);
        assert_eq!(pace.check_behind(1, now), Err(now + Duration::from_millis(200)));
        assert_eq!(pace.check_behind(0, now + Duration::from_millis(100)), Ok(()));
    }

    #[test]
    fn an_older_instant_is_taken_for_the_latest_one() {
        let now = Instant::now();
        let mut pace = pace(10, Some(1), now);
        assert_eq!(pace.check(now + Duration::from_secs(1)), Ok(()));
        assert_eq!(pace.check(now), Err(now + Duration::from_millis(1_100)));
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_its_share_and_a_burst(
            per_second in 1u32..2_000, burst in prop::option::of(1u32..50),
            waits_us in prop::collection::vec(0u64..20_000, 1..400),
        ) {
            let begin = Instant::now();
            let mut pace = pace(per_second, burst, begin);
            let allowed_at_once = f64::from(burst.unwrap_or(per_second));
            let mut now = begin;
            let mut taken: Vec<Instant> = Vec::new();
            for wait in waits_us {
                now += Duration::from_micros(wait);
                match pace.check(now) {
                    Ok(()) => taken.push(now),
                    Err(until) => {
                        prop_assert!(until > now);
                        // It is the earliest: a moment before, the answer is still no.
                        prop_assert!(pace.peek(1, until - Duration::from_nanos(1)).is_err());
                        prop_assert_eq!(pace.peek(1, until), Ok(()));
                        now = until;
                    }
                }
            }
            for (index, from) in taken.iter().enumerate() {
                for (more, to) in taken[index..].iter().enumerate() {
                    let share = (*to - *from).as_secs_f64() * f64::from(per_second) * 1.001;
                    let count = u32::try_from(more + 1).expect("a few hundred");
                    prop_assert!(f64::from(count) <= share + allowed_at_once + 0.001);
                }
            }
        }
    }
}
