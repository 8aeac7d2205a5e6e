//! `limits`: what a destination is asked to bear. A member that is given replaces that one as a whole, `null` takes it
//! back to its default, and what is not given stays. Pure.

use std::ops::RangeInclusive;

use hookmill_actors::domain::shaping::{BreakerPolicy, Concurrency, DestinationLimits, RATE_MAX, Rate, RetryBudget};
use serde_json::Value;

use super::super::{
    fields::{boolean, number, one_of},
    form::{Change, Form},
};

/// Attempts at once that make sense for one process.
const CONCURRENCY: RangeInclusive<u16> = 1..=10_000;
const SHARE: RangeInclusive<f64> = 0.0..=10.0;
/// A rate of 0 would open a breaker that nothing failed at.
const ERROR_RATE: RangeInclusive<f64> = 0.01..=1.0;
const COUNT: RangeInclusive<u32> = 1..=1_000_000;
const WINDOW_S: RangeInclusive<u32> = 1..=3_600;
const OPEN_S: RangeInclusive<u32> = 1..=86_400;
const PROBES: RangeInclusive<u32> = 1..=1_000;

/// What a request says of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LimitsPatch {
    rate: Change<Rate>,
    concurrency: Change<Concurrency>,
    retry_budget: Change<RetryBudget>,
    breaker: Change<BreakerPolicy>,
}

impl LimitsPatch {
    /// Reads the member `limits`.
    pub(super) fn read(form: &mut Form) -> Change<Self> {
        form.clearable_nested("limits", |form| {
            Some(Self {
                rate: form.clearable_nested("rate", rate),
                concurrency: form.clearable_nested("concurrency", concurrency),
                retry_budget: form.clearable_nested("retry_budget", |form| Some(retry_budget(form))),
                breaker: form.clearable_nested("breaker", |form| Some(breaker(form))),
            })
        })
    }

    /// Takes effect on limits that stand.
    pub(super) fn apply_to(&self, limits: &mut DestinationLimits) {
        self.rate.apply_to(&mut limits.rate);
        self.concurrency.apply_to(&mut limits.concurrency);
        set(&self.retry_budget, &mut limits.retry_budget);
        set(&self.breaker, &mut limits.breaker);
    }
}

fn set<T: Clone + Default>(change: &Change<T>, member: &mut T) {
    match change {
        Change::Keep => {}
        Change::Clear => *member = T::default(),
        Change::Set(value) => *member = value.clone(),
    }
}

/// Attempts a second; `None` where it is at fault.
pub(in crate::admin) fn rate(form: &mut Form) -> Option<Rate> {
    let per_second = form.required(&["per_second"], number::<u32>(1..=RATE_MAX));
    let burst = form.clearable(&["burst"], number::<u32>(1..=RATE_MAX)).into_option();
    Some(Rate { per_second: per_second?, burst })
}

#[derive(Clone, Copy)]
enum Mode {
    Fixed,
    Adaptive,
}

fn concurrency(form: &mut Form) -> Option<Concurrency> {
    let mode = form.optional(&["mode"], one_of(&[("fixed", Mode::Fixed), ("adaptive", Mode::Adaptive)]));
    let max = form.required(&["max"], number::<u16>(CONCURRENCY));
    match mode.unwrap_or(Mode::Fixed) {
        Mode::Fixed => Some(Concurrency::Fixed { max: max? }),
        Mode::Adaptive => {
            let min = form.optional(&["min"], number::<u16>(CONCURRENCY)).unwrap_or(1);
            if max.is_some_and(|max| min > max) {
                form.fault("min", "must not exceed `max`");
            }
            Some(Concurrency::Adaptive { min, max: max? })
        }
    }
}

fn retry_budget(form: &mut Form) -> RetryBudget {
    let default = RetryBudget::default();
    RetryBudget {
        share: form.optional(&["share"], fraction(SHARE)).unwrap_or(default.share),
        floor_per_second: form
            .optional(&["floor_per_second"], fraction(0.0..=f64::from(RATE_MAX)))
            .unwrap_or(default.floor_per_second),
    }
}

fn breaker(form: &mut Form) -> BreakerPolicy {
    let default = BreakerPolicy::default();
    let mut count = |name, range, otherwise| form.optional(&[name], number::<u32>(range)).unwrap_or(otherwise);
    let consecutive_failures = count("consecutive_failures", COUNT, default.consecutive_failures);
    let attempts_min = count("attempts_min", COUNT, default.attempts_min);
    let window_s = count("window_s", WINDOW_S, default.window_s);
    let open_s = count("open_s", OPEN_S, default.open_s);
    let open_max_s = count("open_max_s", OPEN_S, default.open_max_s.max(open_s));
    let probes = count("probes", PROBES, default.probes);
    if open_s > open_max_s {
        form.fault("open_s", "must not exceed `open_max_s`");
    }
    BreakerPolicy {
        enabled: form.optional(&["enabled"], boolean).unwrap_or(default.enabled),
        consecutive_failures,
        error_rate: form.optional(&["error_rate"], fraction(ERROR_RATE)).unwrap_or(default.error_rate),
        attempts_min,
        window_s,
        open_s,
        open_max_s,
        probes,
    }
}

/// A number within bounds, not only a whole one.
fn fraction(range: RangeInclusive<f64>) -> impl FnOnce(Value) -> Result<f64, String> {
    move |value| match value.as_f64() {
        Some(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("must be a number from {} to {}", range.start(), range.end())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(limits: &Value) -> Result<Change<LimitsPatch>, Vec<String>> {
        let mut form = Form::new(json!({ "limits": limits })).expect("an object");
        let patch = LimitsPatch::read(&mut form);
        form.finish(|| Some(patch)).map_err(|problem| problem.faults.into_iter().map(|fault| fault.pointer).collect())
    }

    fn applied(limits: &Value, current: DestinationLimits) -> DestinationLimits {
        let mut next = current;
        match read(limits).expect("they are right") {
            Change::Set(patch) => patch.apply_to(&mut next),
            Change::Clear => next = DestinationLimits::default(),
            Change::Keep => {}
        }
        next
    }

    #[test]
    fn what_is_given_is_replaced_what_is_null_is_reset_and_the_rest_stays() {
        let some = applied(
            &json!({"rate": {"per_second": 50}, "concurrency": {"mode": "adaptive", "min": 2, "max": 64},
                    "retry_budget": {"share": 0.25}, "breaker": {"open_s": 600, "error_rate": 0.9}}),
            DestinationLimits::default(),
        );
        assert_eq!(some.rate, Some(Rate { per_second: 50, burst: None }));
        assert_eq!(some.concurrency, Some(Concurrency::Adaptive { min: 2, max: 64 }));
        assert_eq!(some.retry_budget, RetryBudget { share: 0.25, ..RetryBudget::default() });
        assert_eq!((some.breaker.open_s, some.breaker.open_max_s), (600, 600));

        let next = applied(&json!({"rate": null, "breaker": null, "concurrency": {"max": 3}}), some);
        assert_eq!((next.rate, next.breaker), (None, BreakerPolicy::default()));
        assert_eq!(next.concurrency, Some(Concurrency::Fixed { max: 3 }));
        assert_eq!(next.retry_budget, some.retry_budget);
        assert_eq!(applied(&json!(null), some), DestinationLimits::default());
        assert_eq!(applied(&json!({}), some), some);
    }

    #[test]
    fn every_fault_has_its_pointer() {
        for (limits, pointer) in [
            (json!(5), "/limits"),
            (json!({"rates": {}}), "/limits/rates"),
            (json!({"rate": 5}), "/limits/rate"),
            (json!({"rate": {}}), "/limits/rate/per_second"),
            (json!({"rate": {"per_second": 0}}), "/limits/rate/per_second"),
            (json!({"rate": {"per_second": 1, "burst": 0}}), "/limits/rate/burst"),
            (json!({"concurrency": {"max": 0}}), "/limits/concurrency/max"),
            (json!({"concurrency": {"mode": "auto", "max": 1}}), "/limits/concurrency/mode"),
            (json!({"concurrency": {"mode": "adaptive", "min": 9, "max": 8}}), "/limits/concurrency/min"),
            (json!({"concurrency": {"mode": "fixed", "min": 1, "max": 8}}), "/limits/concurrency/min"),
            (json!({"retry_budget": {"share": 10.5}}), "/limits/retry_budget/share"),
            (json!({"retry_budget": {"floor_per_second": -1}}), "/limits/retry_budget/floor_per_second"),
            (json!({"breaker": {"error_rate": 0}}), "/limits/breaker/error_rate"),
            (json!({"breaker": {"error_rate": "half"}}), "/limits/breaker/error_rate"),
            (json!({"breaker": {"open_s": 60, "open_max_s": 30}}), "/limits/breaker/open_s"),
            (json!({"breaker": {"probes": 1.5}}), "/limits/breaker/probes"),
        ] {
            assert_eq!(read(&limits).expect_err(&limits.to_string()), [pointer], "{limits}");
        }
    }
}
