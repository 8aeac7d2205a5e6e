//! What each subscription holds and waits for at the moment: written by its delivery, read by whoever asks.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
};

use serde::Serialize;
use utoipa::ToSchema;

use crate::{domain::ids::SubscriptionId, flow::Wait};

macro_rules! gauges {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A subscription's gauges. The delivery sets them; a crash leaves the last values until it is back.
        #[derive(Debug, Default)]
        pub(crate) struct SubscriptionGauges {
            $($(#[$doc])* pub(crate) $name: AtomicUsize,)*
            waiting: AtomicU8,
        }

        /// A subscription's gauges at one moment.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
        #[schema(as = SubscriptionGauges)]
        pub struct SubscriptionView {
            /// Whose.
            pub subscription_id: SubscriptionId,
            $($(#[$doc])* pub $name: usize,)*
            /// What keeps the next attempt from beginning.
            pub waiting_for: WaitingFor,
        }

        impl SubscriptionGauges {
            fn view(&self, subscription_id: SubscriptionId) -> SubscriptionView {
                SubscriptionView {
                    subscription_id,
                    $($name: self.$name.load(Relaxed),)*
                    waiting_for: WaitingFor::from_number(self.waiting.load(Relaxed)),
                }
            }
        }
    };
}

gauges! {
    /// Attempts that may be under way at once.
    window,
    /// Attempts under way.
    in_flight,
    /// Deliveries in memory that are not under way.
    queued,
    /// Events read that have neither outcome nor due entry yet.
    open,
    /// Payload bytes in memory, about.
    held_bytes,
    /// Deliveries that wait behind a failed one of their order key.
    parked,
    /// Events that the integration may hand over; 0 while the delivery has others to read.
    credit,
}

/// What keeps an attempt from beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitingFor {
    /// Nothing: what there is, is under way.
    Nothing,
    /// Another attempt to the destination must end first.
    Room,
    /// The destination's rate, or the subscription's own.
    Rate,
    /// The destination's circuit breaker is open.
    Breaker,
    /// The destination's retry budget.
    Budget,
    /// Its subscription, integration or destination is not active, or one of them cannot be used as it is.
    Activation,
}

const ALL: [WaitingFor; 6] = [
    WaitingFor::Nothing,
    WaitingFor::Room,
    WaitingFor::Rate,
    WaitingFor::Breaker,
    WaitingFor::Budget,
    WaitingFor::Activation,
];

impl WaitingFor {
    fn from_number(number: u8) -> Self {
        ALL.get(usize::from(number)).copied().unwrap_or(Self::Nothing)
    }
}

impl From<Wait> for WaitingFor {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Breaker(_) => Self::Breaker,
            Wait::Budget(_) => Self::Budget,
            Wait::Rate(_) => Self::Rate,
            Wait::ForRoom => Self::Room,
        }
    }
}

impl SubscriptionGauges {
    /// From now on this is what the next attempt waits for.
    pub(crate) fn waits_for(&self, what: WaitingFor) {
        self.waiting.store(what as u8, Relaxed);
    }
}

/// Everybody's gauges.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauges(Arc<RwLock<HashMap<SubscriptionId, Arc<SubscriptionGauges>>>>);

impl Gauges {
    /// The subscription's gauges; the same ones for a restarted actor.
    pub(crate) fn of(&self, subscription: SubscriptionId) -> Arc<SubscriptionGauges> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(subscription).or_default().clone()
    }

    /// Forgets subscriptions that are not there any more.
    pub(crate) fn retain(&self, exists: impl Fn(SubscriptionId) -> bool) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|id, _| exists(*id));
    }

    /// What that one waits for; nothing where it has not begun.
    pub(crate) fn waiting_for(&self, subscription: SubscriptionId) -> WaitingFor {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let gauges = all.get(&subscription);
        gauges.map_or(WaitingFor::Nothing, |gauges| WaitingFor::from_number(gauges.waiting.load(Relaxed)))
    }

    /// What all show, by id.
    pub(crate) fn views(&self) -> Vec<SubscriptionView> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut views: Vec<SubscriptionView> = all.iter().map(|(id, gauges)| gauges.view(*id)).collect();
        views.sort_unstable_by_key(|view| view.subscription_id);
        views
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_shown_and_a_restarted_actor_finds_its_own() {
        let gauges = Gauges::default();
        let (one, two) = (SubscriptionId(1), SubscriptionId(2));
        gauges.of(two).window.store(7, Relaxed);
        for what in ALL {
            gauges.of(one).waits_for(what);
            let views = gauges.views();
            assert_eq!((views[0].subscription_id, views[0].waiting_for), (one, what));
            assert_eq!((gauges.waiting_for(one), gauges.waiting_for(SubscriptionId(3))), (what, WaitingFor::Nothing));
            assert_eq!((views[1].subscription_id, views[1].window), (two, 7));
        }
        gauges.retain(|id| id == two);
        assert_eq!(gauges.views().len(), 1);
    }
}
