//! What one destination, or one subscription, was asked to bear in one life, beside what it may be asked.

use std::{collections::VecDeque, time::Duration};

use crate::domain::{
    backoff::RetryPolicy,
    shaping::{Concurrency, DestinationLimits, Rate},
};

/// Attempts against a rate. Time is that of the run.
#[derive(Clone, Debug, Default)]
pub(super) struct Paced {
    begun: VecDeque<Duration>,
}

/// So many attempts are looked back at.
const LOOK_BACK: usize = 200;

impl Paced {
    /// What came before says nothing any more: an attempt began later than it was allowed to.
    pub(super) fn forget(&mut self) {
        self.begun.clear();
    }

    /// An attempt begins. An error says that there were too many.
    pub(super) fn begin(&mut self, rate: Rate, now: Duration) -> Result<(), String> {
        if self.begun.len() == LOOK_BACK {
            self.begun.pop_front();
        }
        self.begun.push_back(now);
        let at_once = f64::from(rate.burst.unwrap_or(rate.per_second).max(1));
        for (count, from) in (1u32..).zip(self.begun.iter().rev()) {
            let within = now.saturating_sub(*from);
            let allowed = at_once + within.as_secs_f64() * f64::from(rate.per_second) * 1.01 + 0.01;
            if f64::from(count) > allowed {
                return Err(format!("{count} attempts within {within:?}, the rate is {rate:?}"));
            }
        }
        Ok(())
    }
}

/// What begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) retry: bool,
    pub(super) replay: bool,
    /// It was admitted some time before.
    pub(super) late: bool,
}

/// What a destination bore in the present life.
#[derive(Clone, Debug, Default)]
pub(super) struct Borne {
    paced: Paced,
    since: Option<Duration>,
    first: u32,
    retries: u32,
    under_way: u32,
    bad_in_a_row: u32,
    bad: u32,
    opened: bool,
    /// The breaker lets nothing through between these.
    closed: Option<(Duration, Duration)>,
}

impl Borne {
    /// As for a rate.
    pub(super) fn forget(&mut self) {
        self.paced.forget();
    }

    /// An attempt begins. `unseen`: first attempts, at most, that were admitted and came to nothing before this.
    pub(super) fn begin(
        &mut self,
        limits: &DestinationLimits,
        Begun { retry, replay, late }: Begun,
        unseen: u32,
        now: Duration,
    ) -> Result<(), String> {
        let since = *self.since.get_or_insert(now);
        self.under_way += 1;
        if let Some(rate) = limits.rate.filter(|_| !late) {
            self.paced.begin(rate, now)?;
        }
        if let Some(Concurrency::Fixed { max } | Concurrency::Adaptive { max, .. }) = limits.concurrency
            && self.under_way > u32::from(max)
        {
            return Err(format!("{} under way, {max} are allowed", self.under_way));
        }
        if retry {
            self.retries += 1;
        } else if !replay {
            self.first += 1;
        }
        let (budget, lasted) = (limits.retry_budget, now.saturating_sub(since));
        let floor = budget.floor_per_second;
        let allowed =
            budget.share * f64::from(self.first + unseen) + floor * lasted.as_secs_f64() * 1.01 + floor.ceil().max(1.0);
        if f64::from(self.retries) > allowed + 0.01 {
            return Err(format!(
                "{} retries beside {} first attempts in {:?}, {budget:?}",
                self.retries, self.first, lasted
            ));
        }
        // What was admitted before may begin in the same instant.
        if !late && self.closed.is_some_and(|(since, until)| now > since && now < until) {
            return Err("its breaker has just opened".to_owned());
        }
        Ok(())
    }

    /// An attempt ends; `bad`: it speaks against the destination's health. Only the first opening is foretold: what
    /// comes after it depends on which attempts were probes.
    pub(super) fn end(&mut self, limits: &DestinationLimits, bad: bool, now: Duration) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.opened || !limits.breaker.enabled {
            return;
        }
        self.bad_in_a_row = if bad { self.bad_in_a_row + 1 } else { 0 };
        self.bad += u32::from(bad);
        let may_open_by_rate =
            f64::from(self.bad) >= limits.breaker.error_rate * f64::from(limits.breaker.attempts_min);
        if may_open_by_rate {
            // Whether it has depends on when the attempts ended: from here on nothing is foretold.
            self.opened = true;
        } else if self.bad_in_a_row >= limits.breaker.consecutive_failures {
            self.opened = true;
            // It is spread by a tenth.
            self.closed = Some((now, now + Duration::from_secs(u64::from(limits.breaker.open_s)).mul_f64(0.89)));
        }
    }
}

/// Attempts that a retry policy allows.
pub(super) fn attempts_max(retry: &RetryPolicy) -> u32 {
    match &retry.exponential {
        Some(exponential) => exponential.attempts_max,
        None => u32::try_from(retry.schedule_s.len()).unwrap_or(u32::MAX).saturating_add(1),
    }
}
