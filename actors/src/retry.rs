//! Waits until retries are due, then tells their delivery, which takes them from the state as its window
//! allows. In: due times on the [`RetryDesk`], from deliveries and replays. Out: `Due` to deliveries. Owns:
//! one timer. A crash loses nothing: the state holds every due time, and `pre_start` reads the next ones again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinHandle;

use crate::{
    delivery::DeliveryMsg,
    domain::ids::SubscriptionId,
    ports::{clock::Clock, state_store::StateStore},
    retry::due::Timetable,
    router::gate::Gate,
    tree::{
        Ports,
        mailbox::{Level, Post, Role},
        wires::{Slot, Wires},
    },
};

mod due;

/// Where due times are left for the retry actor: one a subscription, so that however many are left, one wake waits.
#[derive(Clone, Default)]
pub(crate) struct RetryDesk {
    timetable: Arc<Mutex<Timetable>>,
    gate: Gate,
    actor: Slot<RetryMsg>,
}

impl RetryDesk {
    /// Something of this subscription is due then, milliseconds since 1970.
    pub(crate) fn schedule(&self, subscription: SubscriptionId, due_ms: u64) {
        let mut timetable = self.timetable();
        let before = timetable.soonest();
        timetable.note(subscription, due_ms);
        let sooner = timetable.soonest() != before;
        drop(timetable);
        if sooner {
            self.wake();
        }
    }

    /// Whether the retry actor is alive.
    pub(crate) fn is_alive(&self) -> bool {
        self.actor.is_alive()
    }

    fn wake(&self) {
        if self.gate.enter() {
            self.actor.hint(RetryMsg::Wake);
        }
    }

    fn timetable(&self) -> MutexGuard<'_, Timetable> {
        self.timetable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What may be said to the retry actor.
pub(crate) enum RetryMsg {
    /// Something may be due, or is due sooner than was known.
    Wake,
}

/// The wall clock may be set while we sleep: look again at least so often.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// After a start, overdue retries of different subscriptions are spread over this, milliseconds.
const START_SPREAD_MS: u64 = 5_000;

pub(crate) struct RetryActor;

pub(crate) struct RetryState {
    clock: Arc<dyn Clock>,
    wires: Arc<Wires>,
    level: Arc<Level>,
    timer: Option<JoinHandle<()>>,
}

impl Actor for RetryActor {
    type Msg = RetryMsg;
    type State = RetryState;
    type Arguments = (Arc<Ports>, Arc<Wires>);

    async fn pre_start(
        &self,
        me: ActorRef<RetryMsg>,
        (ports, wires): Self::Arguments,
    ) -> Result<RetryState, ActorProcessingErr> {
        // First, so that what is scheduled while the times are read comes here too.
        let level = wires.mailboxes.open(Role::Retry, 0);
        wires.retry.actor.set(Post::new(me, level.clone()));
        // A wake that a predecessor did not take up is gone with its mailbox.
        wires.retry.gate.open();
        for (_, subscription) in wires.config.current().plans.keys() {
            if let Some(first) = next_due(ports.state.as_ref(), *subscription).await? {
                // What came due while nobody looked does not return all at once.
                let soonest = ports.clock.now_ms() + fastrand::u64(..START_SPREAD_MS);
                wires.retry.timetable().note(*subscription, first.max(soonest));
            }
        }
        let mut state = RetryState { clock: ports.clock.clone(), wires, level, timer: None };
        state.set_timer();
        Ok(state)
    }

    async fn handle(
        &self,
        _me: ActorRef<RetryMsg>,
        RetryMsg::Wake: RetryMsg,
        state: &mut RetryState,
    ) -> Result<(), ActorProcessingErr> {
        state.level.handled();
        state.wires.retry.gate.open();
        let due = state.wires.retry.timetable().take_due(state.clock.now_ms());
        for subscription in due {
            state.wires.deliveries.hint(subscription, DeliveryMsg::Due);
        }
        state.set_timer();
        Ok(())
    }

    async fn post_stop(&self, _me: ActorRef<RetryMsg>, state: &mut RetryState) -> Result<(), ActorProcessingErr> {
        if let Some(timer) = state.timer.take() {
            timer.abort();
        }
        Ok(())
    }
}

impl RetryState {
    fn set_timer(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let Some(soonest) = self.wires.retry.timetable().soonest() else { return };
        let wait = Duration::from_millis(soonest.saturating_sub(self.clock.now_ms())).min(SLEEP_MAX);
        let desk = self.wires.retry.clone();
        self.timer = Some(tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            desk.wake();
        }));
    }
}

async fn next_due(
    state: &dyn StateStore,
    subscription: SubscriptionId,
) -> Result<Option<u64>, crate::ports::event_log::LogError> {
    Ok(state.due(subscription, u64::MAX, 1).await?.first().map(|due| due.due_ms))
}
