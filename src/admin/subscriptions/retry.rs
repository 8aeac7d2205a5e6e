//! `retry`: when failed deliveries are tried again.

use hookmill_actors::domain::backoff::{
    AGE_MAX_S, ATTEMPTS_MAX, DEAD_STATUSES_MAX, Exponential, RetryPolicy, SCHEDULE_MAX, StatusPattern, WAIT_MAX_S,
};
use serde_json::Value;

use crate::admin::{
    fields::{list, number, string},
    form::{Change, Form},
};

/// The retry policy's members that were given.
#[derive(Default)]
pub(super) struct RetryPatch {
    schedule_s: Option<Vec<u64>>,
    exponential: Change<Exponential>,
    age_max_s: Change<u64>,
    dead_statuses: Option<Vec<StatusPattern>>,
    retry_after_max_s: Option<u64>,
}

impl RetryPatch {
    pub(super) fn read(form: &mut Form) -> Self {
        form.nested("retry", |form| Self {
            schedule_s: form.optional(&["schedule_s"], list(SCHEDULE_MAX, number(0..=WAIT_MAX_S))),
            exponential: form.clearable_nested("exponential", exponential),
            age_max_s: form.clearable(&["age_max_s"], number(1..=AGE_MAX_S)),
            dead_statuses: form.optional(&["dead_statuses"], list(DEAD_STATUSES_MAX, status)),
            retry_after_max_s: form.optional(&["retry_after_max_s"], number(0..=WAIT_MAX_S)),
        })
        .unwrap_or_default()
    }

    pub(super) fn applied_to(&self, current: &RetryPolicy) -> RetryPolicy {
        let mut next = current.clone();
        if let Some(schedule_s) = &self.schedule_s {
            next.schedule_s.clone_from(schedule_s);
        }
        self.exponential.apply_to(&mut next.exponential);
        self.age_max_s.apply_to(&mut next.age_max_s);
        if let Some(dead_statuses) = &self.dead_statuses {
            next.dead_statuses.clone_from(dead_statuses);
        }
        next.retry_after_max_s = self.retry_after_max_s.unwrap_or(next.retry_after_max_s);
        next
    }
}

fn exponential(form: &mut Form) -> Option<Exponential> {
    let first_s = form.required(&["first_s"], number(1..=WAIT_MAX_S));
    let wait_max_s = form.required(&["wait_max_s"], number(1..=WAIT_MAX_S));
    let attempts_max = form.required(&["attempts_max"], number(1..=ATTEMPTS_MAX));
    if let (Some(first), Some(most)) = (first_s, wait_max_s)
        && first > most
    {
        form.fault("wait_max_s", format!("must not be shorter than `first_s`; it is {most}, and that is {first}"));
    }
    Some(Exponential { first_s: first_s?, wait_max_s: wait_max_s?, attempts_max: attempts_max? })
}

/// `422`, `"422"` or `"4xx"`.
fn status(value: Value) -> Result<StatusPattern, String> {
    let text = if value.is_u64() { value.to_string() } else { string(value)? };
    StatusPattern::try_from(text)
}
