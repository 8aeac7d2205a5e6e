//! What may be sent, in which order, and what may follow on what. Pure.

use super::{
    limits::attempts_max,
    programs::{part, passes},
};
use crate::{
    domain::{
        config::Subscription,
        delivery::{DeliveryRecord, DeliveryStatus},
        event::Event,
        order::{OnFailure, Order},
    },
    ports::state_store::DeliveryState,
};

/// Whether the subscription may send this event at all. What an operator wants sent again need not be selected.
pub(super) fn may_be_sent(subscription: &Subscription, event: &Event, replay: bool) -> Result<(), &'static str> {
    if event.id.integration() != subscription.integration_id {
        return Err("it belongs to another integration");
    }
    if event.id <= subscription.start_after && !replay {
        return Err("it came before the subscription's start");
    }
    match replay || selects(subscription, event) {
        true => Ok(()),
        false => Err("the selection leaves it out"),
    }
}

/// Whether the subscription takes the event; faulty ones count as taken.
pub(super) fn selects(subscription: &Subscription, event: &Event) -> bool {
    let body = &event.arrival.body;
    let selection = &subscription.selection;
    if body.ends_with(b"boom") {
        return true;
    }
    selection.takes_type(part(body, 1))
        && (body.ends_with(b"fault") || selection.filter.as_deref().is_none_or(|filter| passes(filter, body)))
}

/// The lane of an event, where the subscription keeps an order, and what a failure means in it.
pub(super) fn lane(subscription: &Subscription, event: &Event) -> Option<(String, OnFailure)> {
    match &subscription.order {
        Order::Parallel => None,
        Order::Fifo { on_failure } => Some((String::new(), *on_failure)),
        Order::FifoByKey { on_failure, .. } => Some((part(&event.arrival.body, 0)?.to_owned(), *on_failure)),
    }
}

/// Whether an attempt may follow on what is recorded. `wall_ms` is given where due times can be compared with it.
pub(super) fn follows(
    subscription: &Subscription,
    durable: &DeliveryState,
    attempt: u32,
    replay: bool,
    wall_ms: Option<u64>,
) -> Result<(), String> {
    let record = match durable {
        DeliveryState::Delivered { .. } => return Err("it is recorded as delivered".to_owned()),
        DeliveryState::Unknown if attempt == 1 && !replay => return Ok(()),
        DeliveryState::Unknown => return Err("nothing is recorded of earlier attempts".to_owned()),
        DeliveryState::Record(record) => record,
    };
    let DeliveryRecord { status, attempts, due_ms, .. } = record;
    match status {
        DeliveryStatus::Pending | DeliveryStatus::Retrying | DeliveryStatus::Parked => {}
        settled => return Err(format!("it is recorded as {settled:?}")),
    }
    if record.replay != replay {
        return Err(format!("as a replay: {replay}; recorded as one: {}", record.replay));
    }
    if *attempts + 1 != attempt {
        return Err(format!("{attempts} attempts are recorded"));
    }
    let allowed = attempts_max(&subscription.retry);
    if attempt > allowed {
        return Err(format!("{allowed} attempts are allowed"));
    }
    if let (Some(due_ms), Some(wall_ms)) = (due_ms, wall_ms)
        && wall_ms < *due_ms
    {
        return Err(format!("it is due in {} ms", due_ms - wall_ms));
    }
    Ok(())
}
