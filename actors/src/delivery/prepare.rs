//! What a subscription does with an event before any attempt: leave it out, put it in a lane, or give it up. Pure.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{
    domain::{
        delivery::DeadReason,
        event::{Event, Identity},
        order::Order,
    },
    ports::{
        program::{ProgramFault, Selected, Selector, Subject},
        state_store::Mark,
    },
    snapshot::{Naming, Plan, Snapshot},
};

/// What becomes of an event for one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is delivered, in the order of its lane where there is one.
    Deliver { lane: Option<u64> },
    /// The selection leaves it out.
    Filtered,
    /// It was there before.
    Duplicate,
    /// It cannot be delivered.
    Dead(DeadReason, String),
}

/// A subscription's selection at one version of the configuration.
#[derive(Clone)]
pub(super) struct Sieve {
    plan: Arc<Plan>,
    snapshot: Arc<Snapshot>,
}

/// The lane of all events where there is one order for all.
const ONLY_LANE: u64 = 0;

impl Sieve {
    pub(super) fn new(plan: Arc<Plan>, snapshot: Arc<Snapshot>) -> Self {
        Self { plan, snapshot }
    }

    /// Whether a program decides.
    pub(super) fn runs_program(&self) -> bool {
        matches!(self.plan.selector, Ok(Some(_)))
    }

    /// Decides about one event. May run programs and parse: never called where a sender waits.
    pub(super) fn fate(&self, event: &Arc<Event>, mark: Option<&Mark>) -> Fate {
        match mark {
            Some(Mark::DuplicateOf(_)) => return Fate::Duplicate,
            Some(Mark::Unreadable(why)) => return Fate::Dead(DeadReason::ProviderFailed, why.to_string()),
            None => {}
        }
        let only_lane = match self.plan.subscription.order {
            Order::Parallel | Order::FifoByKey { .. } => None,
            Order::Fifo { .. } => Some(ONLY_LANE),
        };
        let selection = &self.plan.subscription.selection;
        if selection.takes_all() && self.plan.subscription.order.key().is_none() {
            return Fate::Deliver { lane: only_lane };
        }
        let subject = match self.subject(event) {
            Ok(subject) => subject,
            Err(fault) => return Fate::Dead(DeadReason::ProviderFailed, fault.to_string()),
        };
        if !selection.takes_type(subject.identity.event_type.as_deref()) {
            return Fate::Filtered;
        }
        // A selector that does not compile keeps the whole subscription from running.
        let Ok(Some(selector)) = &self.plan.selector else { return Fate::Deliver { lane: only_lane } };
        match guarded(selector.as_ref(), &subject) {
            Ok(Selected::No) => Fate::Filtered,
            Ok(Selected::Yes { key }) => Fate::Deliver { lane: key.map(|key| lane_of(&key)).or(only_lane) },
            Err(fault) => Fate::Dead(DeadReason::FilterFailed, fault.to_string()),
        }
    }

    /// The event as programs see it.
    pub(super) fn subject(&self, event: &Arc<Event>) -> Result<Subject, ProgramFault> {
        let id = event.id.integration();
        let name = self.snapshot.configuration.integrations.get(&id).map_or("", |integration| &integration.name);
        let naming = self.snapshot.namings.get(&event.arrival.endpoint).cloned();
        let identity = naming.as_ref().map_or_else(|| Ok(Identity::default()), |naming| identify(naming, event))?;
        Ok(Subject {
            event: event.clone(),
            identity,
            integration: (id, name.into()),
            subscription: self.plan.subscription.id,
            naming,
        })
    }
}

fn identify(naming: &Naming, event: &Event) -> Result<Identity, ProgramFault> {
    catch_unwind(AssertUnwindSafe(|| naming.provider.identify(&naming.settings, event)))
        .map_err(|_| ProgramFault("the provider panicked while naming the event".to_owned()))
}

/// A program that panics costs one event.
fn guarded(selector: &dyn Selector, subject: &Subject) -> Result<Selected, ProgramFault> {
    catch_unwind(AssertUnwindSafe(|| selector.select(subject)))
        .unwrap_or_else(|_| Err(ProgramFault("the expression's engine panicked".to_owned())))
}

/// A key's lane: FNV-1a, 64 bits. Records keep it, so it must be the same in every version; two keys that share a lane
/// only wait for each other.
fn lane_of(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_the_same_in_every_version() {
        // The published test vectors of FNV-1a.
        assert_eq!(lane_of(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(lane_of("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(lane_of("foobar"), 0x8594_4171_f739_67e8);
    }
}
