//! The periodic tasks, each one a line of a table. In: its own timers. Out: `Expire` to deliveries, trims to the log.
//! Owns nothing that matters; a crash delays a task by its period.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::{
    delivery::DeliveryMsg,
    domain::ids::EventId,
    ports::event_log::{LogError, ReadBounds, TrimRequest, id_of},
    tree::{Ports, wires::Wires},
};

pub(crate) mod clock_watch;

/// How long events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Finished events are removed after this; what is unfinished then goes to the dead letter.
    pub age_max: Duration,
    /// The oldest finished events are removed while the log is larger, bytes.
    pub bytes_max: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age_max: Duration::from_secs(30 * 24 * 3600), bytes_max: 10 << 30 }
    }
}

/// What may be said to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchedulerMsg {
    /// Remove what has outlived its retention.
    Retention,
    /// The retention task ended.
    RetentionDone,
}

/// Every periodic task with its period.
const TASKS: &[(SchedulerMsg, Duration)] = &[(SchedulerMsg::Retention, Duration::from_secs(60))];

pub(crate) struct SchedulerActor;

pub(crate) struct SchedulerState {
    ports: Ports,
    wires: Wires,
    retention: Retention,
    busy: bool,
}

impl Actor for SchedulerActor {
    type Msg = SchedulerMsg;
    type State = SchedulerState;
    type Arguments = (Ports, Wires, Retention);

    async fn pre_start(
        &self,
        me: ActorRef<SchedulerMsg>,
        (ports, wires, retention): Self::Arguments,
    ) -> Result<SchedulerState, ActorProcessingErr> {
        for (task, period) in TASKS {
            me.send_interval(*period, || *task);
        }
        wires.clock_trust.holds(ports.clock.now_ms());
        Ok(SchedulerState { ports, wires, retention, busy: false })
    }

    async fn handle(
        &self,
        me: ActorRef<SchedulerMsg>,
        msg: SchedulerMsg,
        state: &mut SchedulerState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            SchedulerMsg::Retention => state.retention(&me),
            SchedulerMsg::RetentionDone => state.busy = false,
        }
        Ok(())
    }
}

impl SchedulerState {
    fn retention(&mut self, me: &ActorRef<SchedulerMsg>) {
        let now_ms = self.ports.clock.now_ms();
        if !self.wires.clock_trust.holds(now_ms) {
            tracing::warn!("the wall clock jumped; retention and expiry rest until it has been steady for an hour");
            return;
        }
        if std::mem::replace(&mut self.busy, true) {
            return;
        }
        let age_ms = u64::try_from(self.retention.age_max.as_millis()).unwrap_or(u64::MAX);
        let received_before_ms = now_ms.saturating_sub(age_ms);
        let before = EventId::at_millis(received_before_ms);
        for subscription in self.wires.deliveries.keys() {
            self.wires.deliveries.hint(subscription, DeliveryMsg::Expire { before });
        }
        let (ports, wires, me, bytes_max) =
            (self.ports.clone(), self.wires.clone(), me.clone(), self.retention.bytes_max);
        tokio::spawn(async move {
            if let Err(error) = trim(&ports, &wires, received_before_ms, bytes_max).await {
                tracing::warn!(%error, "the event log could not be trimmed");
            }
            let _ = me.cast(SchedulerMsg::RetentionDone);
        });
    }
}

async fn trim(ports: &Ports, wires: &Wires, received_before_ms: u64, bytes_max: u64) -> Result<(), LogError> {
    let finished_upto = finished_upto(ports, wires).await?;
    let trimmed = ports.log.trim(TrimRequest { finished_upto, received_before_ms, bytes_max }).await?;
    if trimmed.events > 0 {
        tracing::info!(events = trimmed.events, kept = trimmed.kept, bytes = trimmed.bytes, "trimmed the event log");
    }
    Ok(())
}

/// The last event before the first that some intake or subscription still has to read or has open.
pub(crate) async fn finished_upto(ports: &Ports, wires: &Wires) -> Result<EventId, LogError> {
    let mut upto = ports.log.last_committed();
    let snapshot = wires.config.current();
    for integration in snapshot.configuration.integrations.keys() {
        let intake = ports.state.intake(*integration).await?;
        upto = upto.min(before_next(ports, *integration, intake).await?);
    }
    for ((integration, subscription), plan) in &snapshot.plans {
        let position = ports.state.position(*subscription).await?.unwrap_or_default();
        if let Some(open) = position.open.first() {
            upto = upto.min(just_before(*open));
        }
        let read_upto = position.read_upto.max(plan.subscription.start_after);
        upto = upto.min(before_next(ports, *integration, read_upto).await?);
    }
    Ok(upto)
}

async fn before_next(
    ports: &Ports,
    integration: crate::domain::ids::IntegrationId,
    after: EventId,
) -> Result<EventId, LogError> {
    let next = ports.log.read(integration, after, ReadBounds { events_max: 1, bytes_max: 1 }).await?;
    Ok(match next.first() {
        Some(stored) => just_before(id_of(stored)),
        None => EventId::MAX,
    })
}

fn just_before(id: EventId) -> EventId {
    EventId::from_u128(id.as_u128().saturating_sub(1))
}
