//! The way to a delivery: through the mailbox of its integration's actor.

use std::sync::Arc;

use ractor::ActorRef;

use super::DeliveryMsg;
use crate::{
    domain::ids::SubscriptionId,
    integration::IntegrationMsg,
    tree::mailbox::{Level, Way},
};

/// One delivery between two crashes. What was sent to an earlier one is not for its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation {
    pub(crate) subscription: SubscriptionId,
    pub(crate) number: u32,
}

/// Sends to one delivery, and counts what it sends.
#[derive(Clone)]
pub(crate) struct DeliveryPost {
    integration: ActorRef<IntegrationMsg>,
    to: Incarnation,
    level: Arc<Level>,
}

impl DeliveryPost {
    /// `level` counts what waits for this delivery, apart from all else in the integration's mailbox.
    pub(crate) fn new(integration: ActorRef<IntegrationMsg>, to: Incarnation, level: Arc<Level>) -> Self {
        Self { integration, to, level }
    }

    /// To whom.
    pub(crate) fn to(&self) -> Incarnation {
        self.to
    }

    /// The delivery takes a message up.
    pub(super) fn handled(&self) {
        self.level.handled();
    }
}

impl Way for DeliveryPost {
    type Msg = DeliveryMsg;

    fn cast(&self, msg: DeliveryMsg) {
        self.level.sent();
        if self.integration.cast(IntegrationMsg::Delivery(self.to, msg)).is_err() {
            self.level.not_sent();
        }
    }
}
