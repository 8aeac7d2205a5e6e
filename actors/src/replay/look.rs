//! Looks up where an event stands with a subscription.

use crate::{
    domain::{
        delivery::{DeliveryRecord, Position},
        ids::{EventId, SubscriptionId},
        standing::{Kept, Standing, standing},
    },
    ports::{
        event_log::LogError,
        state_store::{DeliveryState, FirstTry, Mark, Note, StateStore},
    },
};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Where it stands; `None` where the event is not the subscription's.
    pub standing: Option<Standing>,
    /// Its record, where there is one.
    pub record: Option<DeliveryRecord>,
    /// When it was recorded that the first try succeeded, milliseconds since 1970; `None` where it did not, and where
    /// the time was not kept.
    pub first_try_at_ms: Option<u64>,
    /// That try; `None` where there was another, and where it was not kept.
    pub first_try: Option<FirstTry>,
}

/// Where an event stands with a subscription. `note` is what intake noted of the event.
pub async fn look(
    state: &dyn StateStore,
    subscription: SubscriptionId,
    start_after: EventId,
    event: EventId,
    note: Option<&Note>,
) -> Result<Look, LogError> {
    // The position first: what it says is settled has its outcome stored when the outcome is looked for.
    let position = state.position(subscription).await?.unwrap_or_default();
    look_at(state, subscription, start_after, &position, event, note).await
}

/// The same with a position that was read earlier.
pub(super) async fn look_at(
    state: &dyn StateStore,
    subscription: SubscriptionId,
    start_after: EventId,
    position: &Position,
    event: EventId,
    note: Option<&Note>,
) -> Result<Look, LogError> {
    Ok(look_of(state.delivery(subscription, event).await?, start_after, position, event, note))
}

/// The same with what is known already, for whoever looks at many events: of the delivery, read after the position.
pub fn look_of(
    delivery: DeliveryState,
    start_after: EventId,
    position: &Position,
    event: EventId,
    note: Option<&Note>,
) -> Look {
    let duplicate = note.is_some_and(|note| matches!(note.mark, Some(Mark::DuplicateOf(_))));
    let look = |kept, record, first_try_at_ms, first_try| {
        let standing = standing(event, start_after, position, kept, duplicate);
        Look { standing, record, first_try_at_ms, first_try }
    };
    match delivery {
        DeliveryState::Unknown => look(Kept::Nothing, None, None, None),
        DeliveryState::Delivered { at_ms, attempt } => look(Kept::Delivered, None, at_ms, attempt),
        DeliveryState::Record(record) => look(Kept::Record(record.status), Some(record), None, None),
    }
}
