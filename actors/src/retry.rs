//! Waits until retries are due, then tells their delivery actor, which takes them from the state as its window
//! allows. In: `Schedule` from delivery actors and replays. Out: `Due` to delivery actors. Owns: one time a
//! subscription. A crash loses nothing: the state holds every due time, and `pre_start` reads the next ones again.

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinHandle;

use crate::{
    delivery::DeliveryMsg,
    domain::ids::SubscriptionId,
    ports::{clock::Clock, state_store::StateStore},
    retry::due::Timetable,
    tree::{Ports, wires::Wires},
};

mod due;

/// What may be said to the retry actor.
pub(crate) enum RetryMsg {
    /// Something of this subscription is due then.
    Schedule {
        /// Whose.
        subscription: SubscriptionId,
        /// Milliseconds since 1970.
        due_ms: u64,
    },
    /// The timer: something may be due.
    Wake,
}

/// The wall clock may be set while we sleep: look again at least so often.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// After a start, overdue retries of different subscriptions are spread over this, milliseconds.
const START_SPREAD_MS: u64 = 5_000;

pub(crate) struct RetryActor;

pub(crate) struct RetryState {
    clock: Arc<dyn Clock>,
    wires: Wires,
    timetable: Timetable,
    timer: Option<JoinHandle<()>>,
    wakes_at_ms: u64,
}

impl Actor for RetryActor {
    type Msg = RetryMsg;
    type State = RetryState;
    type Arguments = (Ports, Wires);

    async fn pre_start(
        &self,
        me: ActorRef<RetryMsg>,
        (ports, wires): Self::Arguments,
    ) -> Result<RetryState, ActorProcessingErr> {
        // First, so that what is scheduled while the times are read comes here too.
        wires.retry.set(me.clone());
        let mut timetable = Timetable::default();
        for (_, subscription) in wires.config.current().plans.keys() {
            if let Some(first) = next_due(ports.state.as_ref(), *subscription).await? {
                // What came due while nobody looked does not return all at once.
                let soonest = ports.clock.now_ms() + fastrand::u64(..START_SPREAD_MS);
                timetable.note(*subscription, first.max(soonest));
            }
        }
        let mut state = RetryState { clock: ports.clock, wires, timetable, timer: None, wakes_at_ms: u64::MAX };
        state.set_timer(&me);
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<RetryMsg>,
        msg: RetryMsg,
        state: &mut RetryState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            RetryMsg::Schedule { subscription, due_ms } => state.timetable.note(subscription, due_ms),
            RetryMsg::Wake => state.wakes_at_ms = u64::MAX,
        }
        for subscription in state.timetable.take_due(state.clock.now_ms()) {
            state.wires.deliveries.hint(subscription, DeliveryMsg::Due);
        }
        state.set_timer(&me);
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
    fn set_timer(&mut self, me: &ActorRef<RetryMsg>) {
        let Some(soonest) = self.timetable.soonest() else { return };
        if self.wakes_at_ms <= soonest {
            return;
        }
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let now_ms = self.clock.now_ms();
        let wait = Duration::from_millis(soonest.saturating_sub(now_ms)).min(SLEEP_MAX);
        self.wakes_at_ms = soonest;
        let me = me.clone();
        self.timer = Some(tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = me.cast(RetryMsg::Wake);
        }));
    }
}

async fn next_due(
    state: &dyn StateStore,
    subscription: SubscriptionId,
) -> Result<Option<u64>, crate::ports::event_log::LogError> {
    Ok(state.due(subscription, u64::MAX, 1).await?.first().map(|due| due.due_ms))
}
