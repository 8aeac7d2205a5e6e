//! `order` and `rate`: in which order, and how fast, events are delivered.

use hookmill_actors::domain::{
    order::{OnFailure, Order},
    shaping::Rate,
};

use crate::admin::{
    destinations::rate,
    fields::{one_of, string},
    form::{Change, Form},
};

#[derive(Clone, Copy)]
enum Mode {
    Parallel,
    Fifo,
    FifoByKey,
}

const MODES: [(&str, Mode); 3] = [("parallel", Mode::Parallel), ("fifo", Mode::Fifo), ("fifo_by_key", Mode::FifoByKey)];
const ON_FAILURE: [(&str, OnFailure); 3] =
    [("block", OnFailure::Block), ("skip", OnFailure::Skip), ("park", OnFailure::Park)];

/// Given anew as a whole; `null` is `parallel`.
pub(super) fn read(form: &mut Form) -> Change<Order> {
    form.clearable_nested("order", |form| {
        let mode = form.required(&["mode"], one_of(&MODES))?;
        let on_failure = form.optional(&["on_failure"], one_of(&ON_FAILURE));
        let key = form.optional(&["key"], string);
        match mode {
            Mode::Parallel => {
                if on_failure.is_some() {
                    form.fault("on_failure", "has no meaning where nothing is in order; leave it out");
                }
                refuse_key(form, key.as_deref());
                Some(Order::Parallel)
            }
            Mode::Fifo => {
                refuse_key(form, key.as_deref());
                Some(Order::Fifo { on_failure: on_failure.unwrap_or_default() })
            }
            Mode::FifoByKey => {
                if key.is_none() {
                    form.fault("key", "is missing; it is an expression such as `body.customer.id`");
                }
                Some(Order::FifoByKey { key: key?, on_failure: on_failure.unwrap_or_default() })
            }
        }
    })
}

fn refuse_key(form: &mut Form, key: Option<&str>) {
    if key.is_some() {
        form.fault("key", "goes with the mode `fifo_by_key` only");
    }
}

/// `null`: only the destination's.
pub(super) fn read_rate(form: &mut Form) -> Change<Rate> {
    form.clearable_nested("rate", rate)
}
