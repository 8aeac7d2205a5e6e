//! How many requests a token may make or a path may take: governor's cell rate algorithm without a lock, on the instants
//! that callers hand in. Pure.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

use crate::domain::shaping::Rate;

/// So many at once, refilled evenly.
pub struct Allowance {
    limiter: RateLimiter<NotKeyed, InMemoryState, Handed, StateInformationMiddleware>,
    epoch: Instant,
    limit: NonZeroU32,
    period: Duration,
}

/// What was taken, and what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many could be had at once after a pause.
    pub limit: u32,
    /// How many could be had at once now.
    pub remaining: u32,
    /// How long until there are `limit` again, if none is taken meanwhile.
    pub full_in: Duration,
}

/// There was none left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// The most that can be had at once.
    pub limit: u32,
    /// How long until there is one.
    pub one_in: Duration,
    /// How long until there are `limit` again.
    pub full_in: Duration,
}

impl Allowance {
    /// `limit` at once, one more each `period`. Starts full.
    pub fn new(limit: NonZeroU32, period: Duration, now: Instant) -> Self {
        let period = period.max(Duration::from_nanos(1));
        let quota = Quota::with_period(period).expect("the period is not zero").allow_burst(limit);
        let limiter = RateLimiter::direct_with_clock(quota, Handed::default());
        Self { limiter: limiter.with_middleware(), epoch: now, limit, period }
    }

    /// So many a minute, all of them at once if need be.
    pub fn per_minute(limit: NonZeroU32, now: Instant) -> Self {
        Self::new(limit, Duration::from_secs(60) / limit.get(), now)
    }

    /// As a rate says.
    pub fn of(rate: Rate, now: Instant) -> Self {
        let per_second = NonZeroU32::new(rate.per_second).unwrap_or(NonZeroU32::MIN);
        let burst = rate.burst.and_then(NonZeroU32::new).unwrap_or(per_second);
        Self::new(burst, Duration::from_secs(1) / per_second.get(), now)
    }

    /// Takes one if there is one. Waits for nobody and allocates nothing.
    pub fn take(&self, now: Instant) -> Result<Taken, Spent> {
        let limit = self.limit.get();
        // Of two that come at once, the later one may be here first.
        let since = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        self.limiter.clock().0.fetch_max(since, Relaxed);
        match self.limiter.check() {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity().min(limit);
                Ok(Taken { limit, remaining, full_in: self.period * (limit - remaining) })
            }
            Err(until) => {
                let one_in = until.wait_time_from(self.limiter.clock().now());
                Err(Spent { limit, one_in, full_in: one_in + self.period * (limit - 1) })
            }
        }
    }
}

impl std::fmt::Debug for Allowance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Allowance").field("limit", &self.limit).field("period", &self.period).finish_non_exhaustive()
    }
}

/// A clock that shows what it was set to, nanoseconds.
#[derive(Debug, Default)]
struct Handed(AtomicU64);

impl Clone for Handed {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Relaxed)))
    }
}

impl Clock for Handed {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicUsize};

    use proptest::prelude::*;

    use super::*;

    fn count(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).expect("it is not zero")
    }

    #[test]
    fn it_says_what_is_left_and_when_there_is_more() {
        let now = Instant::now();
        let allowance = Allowance::per_minute(count(60), now);
        for remaining in (0..60).rev() {
            let full_in = Duration::from_secs(60 - u64::from(remaining));
            assert_eq!(allowance.take(now), Ok(Taken { limit: 60, remaining, full_in }));
        }
        let spent = Spent { limit: 60, one_in: Duration::from_secs(1), full_in: Duration::from_secs(60) };
        assert_eq!(allowance.take(now), Err(spent));
        let later = now + Duration::from_secs(1);
        assert_eq!(allowance.take(later).map(|taken| taken.remaining), Ok(0));
        assert!(allowance.take(now).is_err(), "an instant that lies back gives nothing again");
        let rested = later + Duration::from_secs(3_600);
        assert_eq!(allowance.take(rested).map(|taken| taken.remaining), Ok(59));
    }

    #[test]
    fn a_rate_has_the_burst_that_it_says() {
        let now = Instant::now();
        for (rate, limit) in [
            (Rate { per_second: 5, burst: None }, 5),
            (Rate { per_second: 5, burst: Some(20) }, 20),
            (Rate { per_second: 5, burst: Some(1) }, 1),
        ] {
            let allowance = Allowance::of(rate, now);
            let taken = (0..100).take_while(|_| allowance.take(now).is_ok()).count();
            assert_eq!(taken, limit, "{rate:?}");
            let later = now + Duration::from_millis(200);
            assert!(allowance.take(later).is_ok() && allowance.take(later).is_err(), "{rate:?}");
        }
    }

    #[test]
    fn many_at_once_get_no_more_than_there_is() {
        let now = Instant::now();
        let (allowance, got) = (Arc::new(Allowance::per_minute(count(1_000), now)), Arc::new(AtomicUsize::new(0)));
        let takers = (0..4).map(|_| {
            let (allowance, got) = (allowance.clone(), got.clone());
            std::thread::spawn(move || {
                for _ in 0..1_000 {
                    got.fetch_add(usize::from(allowance.take(now).is_ok()), Relaxed);
                }
            })
        });
        takers.collect::<Vec<_>>().into_iter().for_each(|taker| taker.join().expect("it only counts"));
        assert_eq!(got.load(Relaxed), 1_000);
    }

    proptest! {
        /// Whoever waits as long as he was told gets one, and not before; and the rate holds over any stretch.
        #[test]
        fn waiting_as_told_is_enough(limit in 1u32..50, period_ms in 1u64..2_000, waits in proptest::collection::vec(0u64..500, 1..60)) {
            let start = Instant::now();
            let period = Duration::from_millis(period_ms);
            let allowance = Allowance::new(count(limit), period, start);
            let (mut now, mut got) = (start, 0u128);
            for wait in waits {
                now += Duration::from_millis(wait);
                if let Err(spent) = allowance.take(now) {
                    prop_assert!(spent.one_in > Duration::ZERO && spent.one_in <= period);
                    prop_assert!(allowance.take(now + spent.one_in - Duration::from_nanos(1)).is_err());
                    now += spent.one_in;
                    prop_assert!(allowance.take(now).is_ok());
                }
                got += 1;
                let most = u128::from(limit) + (now - start).as_nanos() / period.as_nanos();
                prop_assert!(got <= most, "{got} of {most}");
            }
        }
    }
}
