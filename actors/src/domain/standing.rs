//! Where an event stands with a subscription, and what that is in the words that the module before hookmill had. Pure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    delivery::{DeliveryStatus, Position},
    ids::EventId,
};

/// Where an event stands with a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The subscription has not come so far.
    Pending,
    /// Read, and neither delivered nor failed yet.
    Processing,
    /// Failed; the next attempt has its time. Or an operator asked for it again, and it waits for its turn.
    Retrying,
    /// Waits behind a failed event of its order key.
    Parked,
    /// A 2xx came back.
    Delivered,
    /// The subscription does not select it.
    Filtered,
    /// The provider sent it before, as another event.
    Duplicate,
    /// In the dead letter.
    Dead,
    /// Taken out of the dead letter by an operator, or by the end of its retention.
    Discarded,
    /// The subscription went away before it was delivered.
    Cancelled,
}

/// What is kept of one delivery, as far as its standing depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// It was delivered at the first try.
    Delivered,
    /// A record with this status.
    Record(DeliveryStatus),
}

/// Where an event stands; `None` where it is not the subscription's, which began after it.
///
/// `position` must have been read *before* `kept`: what it lists as settled then has its outcome in `kept`, or has
/// none because it was never to be delivered.
pub fn standing(
    event: EventId,
    start_after: EventId,
    position: &Position,
    kept: Kept,
    duplicate: bool,
) -> Option<Standing> {
    Some(match kept {
        Kept::Delivered => Standing::Delivered,
        Kept::Record(status) => match status {
            DeliveryStatus::Pending => Standing::Processing,
            DeliveryStatus::Retrying => Standing::Retrying,
            DeliveryStatus::Delivered => Standing::Delivered,
            DeliveryStatus::Dead => Standing::Dead,
            DeliveryStatus::Cancelled => Standing::Cancelled,
            DeliveryStatus::Parked => Standing::Parked,
            DeliveryStatus::Discarded => Standing::Discarded,
        },
        Kept::Nothing if event <= start_after => return None,
        Kept::Nothing if position.open.binary_search(&event).is_ok() => Standing::Processing,
        Kept::Nothing if event > position.read_upto => Standing::Pending,
        Kept::Nothing if duplicate => Standing::Duplicate,
        Kept::Nothing => Standing::Filtered,
    })
}

impl Standing {
    /// Whether hookmill will do nothing more about it by itself.
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Pending | Self::Processing | Self::Retrying | Self::Parked)
    }

    /// The same in the words of the module before.
    pub fn processing(self) -> Processing {
        match self {
            Self::Pending | Self::Parked => Processing::Pending,
            Self::Processing | Self::Retrying => Processing::Processing,
            Self::Delivered | Self::Filtered | Self::Duplicate => Processing::Success,
            Self::Dead | Self::Discarded | Self::Cancelled => Processing::Failure,
        }
    }
}

/// How far an event is processed, in the words of the module before hookmill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Processing {
    /// Nothing was done yet.
    Pending,
    /// Something was done, and something is still to do.
    Processing,
    /// Done.
    Success,
    /// Done as far as hookmill can, and not as it should be.
    Failure,
}

impl Processing {
    /// Of an event, from its deliveries: it is processed when every one of them is done. `None` of them is success.
    pub fn of_all(deliveries: impl IntoIterator<Item = Self>) -> Self {
        let (mut pending, mut under_way, mut done, mut failed) = (false, false, false, false);
        for delivery in deliveries {
            match delivery {
                Self::Pending => pending = true,
                Self::Processing => under_way = true,
                Self::Success => done = true,
                Self::Failure => failed = true,
            }
        }
        match (pending, under_way) {
            (false, false) if failed => Self::Failure,
            (false, false) => Self::Success,
            (true, false) if !done && !failed => Self::Pending,
            _ => Self::Processing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::IntegrationId;

    fn id(n: u128) -> EventId {
        EventId::from_parts(n, IntegrationId(1), 0)
    }

    #[test]
    fn what_is_not_kept_is_told_by_the_position() {
        let position = Position { read_upto: id(50), open: vec![id(20), id(40)] };
        for (event, kept, duplicate, want) in [
            (5, Kept::Nothing, false, None),
            (5, Kept::Delivered, false, Some(Standing::Delivered)),
            (20, Kept::Nothing, false, Some(Standing::Processing)),
            (20, Kept::Nothing, true, Some(Standing::Processing)),
            (30, Kept::Nothing, false, Some(Standing::Filtered)),
            (30, Kept::Nothing, true, Some(Standing::Duplicate)),
            (30, Kept::Record(DeliveryStatus::Dead), true, Some(Standing::Dead)),
            (30, Kept::Record(DeliveryStatus::Pending), false, Some(Standing::Processing)),
            (60, Kept::Nothing, false, Some(Standing::Pending)),
            (60, Kept::Nothing, true, Some(Standing::Pending)),
            (60, Kept::Record(DeliveryStatus::Retrying), false, Some(Standing::Retrying)),
        ] {
            assert_eq!(standing(id(event), id(10), &position, kept, duplicate), want, "{event} {kept:?} {duplicate}");
        }
    }

    #[test]
    fn an_event_is_processed_when_every_delivery_is_done() {
        use super::Processing::{Failure, Pending, Processing, Success};
        for (deliveries, want) in [
            (vec![], Success),
            (vec![Success, Success], Success),
            (vec![Success, Failure], Failure),
            (vec![Pending, Pending], Pending),
            (vec![Pending, Success], Processing),
            (vec![Pending, Failure], Processing),
            (vec![Processing, Success, Failure], Processing),
            (vec![Processing], Processing),
        ] {
            assert_eq!(super::Processing::of_all(deliveries.clone()), want, "{deliveries:?}");
        }
    }
}
