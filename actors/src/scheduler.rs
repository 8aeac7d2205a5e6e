//! The periodic tasks, each one a line of a table. In: its own timers. Out: `Expire` to deliveries, trims to the log,
//! the state of each backlog to the ingress. Owns nothing that matters; a crash delays a task by its period.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Release},
        },
    },
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;

use crate::{
    backlog,
    delivery::DeliveryMsg,
    domain::{
        activity::{Activity, ActivityResult},
        ids::{EventId, IntegrationId},
    },
    metrics::add,
    ports::{
        event_log::{LogError, ReadBounds, TrimRequest, id_of},
        state_store::Remembered,
    },
    tree::{Ports, wires::Wires},
};

pub(crate) mod clock_watch;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Finished events are removed after this; what is unfinished then goes to the dead letter.
    pub age_max: Duration,
    /// The oldest finished events are removed while the log is larger, bytes.
    pub bytes_max: u64,
    /// An integration whose unfinished events hold more than this accepts nothing for now, bytes.
    pub backlog_bytes_max: u64,
    /// Beyond so many dedup keys the oldest are forgotten.
    pub dedup_keys_max: u64,
    /// Activities are forgotten after this.
    pub activities_age_max: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let bytes_max = 10 << 30;
        Self {
            age_max: Duration::from_secs(30 * 24 * 3600),
            bytes_max,
            backlog_bytes_max: bytes_max / 4,
            dedup_keys_max: 3_000_000,
            activities_age_max: Duration::from_secs(400 * 24 * 3600),
        }
    }
}

/// What may be said to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchedulerMsg {
    /// Remove what has outlived its retention.
    Retention,
    /// Measure the backlogs that may be too large.
    Backlogs,
    /// Forget dedup keys.
    DedupKeys,
    /// Forget activities that have outlived their retention.
    Activities,
}

/// Every periodic task with its period.
const TASKS: &[(SchedulerMsg, Duration)] = &[
    (SchedulerMsg::Retention, Duration::from_secs(60)),
    (SchedulerMsg::Backlogs, Duration::from_secs(2)),
    (SchedulerMsg::DedupKeys, Duration::from_secs(10)),
    (SchedulerMsg::Activities, Duration::from_secs(15 * 60)),
];

/// All backlogs that may have changed are measured so often, for people.
const ALL_BACKLOGS_EVERY: Duration = Duration::from_secs(30);
/// Dedup keys whose window is over are looked for so often; too many of them are noticed sooner.
const OUTDATED_KEYS_EVERY: Duration = Duration::from_secs(60);

pub(crate) struct SchedulerActor;

pub(crate) struct SchedulerState {
    ports: Ports,
    wires: Wires,
    retention: Retention,
    trimming: Turnstile,
    measuring: Turnstile,
    forgetting: Turnstile,
    forgetting_activities: Turnstile,
    all_backlogs_at: Instant,
    outdated_keys_at: Instant,
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
        let now = Instant::now();
        let mut state = SchedulerState {
            ports,
            wires,
            retention,
            trimming: Turnstile::default(),
            measuring: Turnstile::default(),
            forgetting: Turnstile::default(),
            forgetting_activities: Turnstile::default(),
            all_backlogs_at: now,
            outdated_keys_at: now,
        };
        // What is full was so before the start: its senders should hear it soon.
        state.backlogs();
        Ok(state)
    }

    async fn handle(
        &self,
        _me: ActorRef<SchedulerMsg>,
        msg: SchedulerMsg,
        state: &mut SchedulerState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            SchedulerMsg::Retention => state.retention(),
            SchedulerMsg::Backlogs => state.backlogs(),
            SchedulerMsg::DedupKeys => state.dedup_keys(),
            SchedulerMsg::Activities => state.activities(),
        }
        Ok(())
    }
}

/// Lets one run of a task through at a time, however the one before it ended.
#[derive(Clone, Debug, Default)]
struct Turnstile(Arc<AtomicBool>);

impl Turnstile {
    /// Runs the task beside the actor, unless the last run is still under way.
    fn run(&self, task: impl Future<Output = Result<(), LogError>> + Send + 'static, what: &'static str) {
        if self.0.swap(true, AcqRel) {
            return;
        }
        let inside = Inside(self.0.clone());
        tokio::spawn(async move {
            let _inside = inside;
            if let Err(error) = task.await {
                tracing::warn!(%error, "{what}");
            }
        });
    }
}

/// Frees the turnstile when it goes, a panic included.
struct Inside(Arc<AtomicBool>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.store(false, Release);
    }
}

impl SchedulerState {
    fn retention(&mut self) {
        let Some(now_ms) = self.trusted_now_ms() else {
            tracing::warn!("the wall clock jumped; retention and expiry rest until it has been steady for an hour");
            return;
        };
        let age_ms = u64::try_from(self.retention.age_max.as_millis()).unwrap_or(u64::MAX);
        let received_before_ms = now_ms.saturating_sub(age_ms);
        let before = EventId::at_millis(received_before_ms);
        for subscription in self.wires.deliveries.keys() {
            self.wires.deliveries.hint(subscription, DeliveryMsg::Expire { before });
        }
        let (ports, wires, bytes_max) = (self.ports.clone(), self.wires.clone(), self.retention.bytes_max);
        let task = async move { trim(&ports, &wires, received_before_ms, bytes_max).await };
        self.trimming.run(task, "the event log could not be trimmed");
    }

    fn backlogs(&mut self) {
        let all = self.all_backlogs_at.elapsed() >= ALL_BACKLOGS_EVERY;
        if all {
            self.all_backlogs_at = Instant::now();
        }
        let (ports, wires, bytes_max) = (self.ports.clone(), self.wires.clone(), self.retention.backlog_bytes_max);
        let task = async move { measure_backlogs(&ports, &wires, bytes_max, all).await };
        self.measuring.run(task, "backlogs could not be measured");
    }

    fn dedup_keys(&mut self) {
        let Some(now_ms) = self.trusted_now_ms() else { return };
        let outdated = self.outdated_keys_at.elapsed() >= OUTDATED_KEYS_EVERY;
        if outdated {
            self.outdated_keys_at = Instant::now();
        }
        let (ports, wires, keys_max) = (self.ports.clone(), self.wires.clone(), self.retention.dedup_keys_max);
        let task = async move { forget_keys(&ports, &wires, now_ms, keys_max, outdated).await };
        self.forgetting.run(task, "dedup keys could not be forgotten");
    }

    fn activities(&self) {
        let Some(now_ms) = self.trusted_now_ms() else { return };
        let age_ms = u64::try_from(self.retention.activities_age_max.as_millis()).unwrap_or(u64::MAX);
        let (store, before_ms) = (self.ports.config.clone(), now_ms.saturating_sub(age_ms));
        let task = async move {
            let mut forgotten = 0;
            loop {
                match store.forget_activities(before_ms).await {
                    Ok(0) => break,
                    Ok(went) => forgotten += went,
                    Err(error) => return Err(LogError::Failed(error.to_string().into())),
                }
            }
            if forgotten > 0 {
                tracing::info!(forgotten, "activities have outlived their retention");
            }
            Ok(())
        };
        self.forgetting_activities.run(task, "activities could not be forgotten");
    }

    fn trusted_now_ms(&self) -> Option<u64> {
        let now_ms = self.ports.clock.now_ms();
        self.wires.clock_trust.holds(now_ms).then_some(now_ms)
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
///
/// A subscription that is made while the trim runs, to begin with the oldest events, begins with the oldest that are
/// left, as it would had it been made a moment later.
pub(crate) async fn finished_upto(ports: &Ports, wires: &Wires) -> Result<EventId, LogError> {
    let mut upto = ports.log.last_committed();
    let snapshot = wires.config.current();
    for integration in snapshot.configuration.integrations.keys() {
        let after = backlog::unfinished_after(ports, &snapshot, *integration).await?;
        upto = upto.min(before_next(ports, *integration, after).await?);
    }
    Ok(upto)
}

async fn before_next(ports: &Ports, integration: IntegrationId, after: EventId) -> Result<EventId, LogError> {
    let next = ports.log.read(integration, after, ReadBounds { events_max: 1, bytes_max: 1 }).await?;
    Ok(match next.first() {
        Some(stored) => EventId::from_u128(id_of(stored).as_u128().saturating_sub(1)),
        None => EventId::MAX,
    })
}

async fn measure_backlogs(ports: &Ports, wires: &Wires, bytes_max: u64, all: bool) -> Result<(), LogError> {
    let snapshot = wires.config.current();
    for turn in backlog::measure(ports, &snapshot, bytes_max, all).await? {
        let backlog::Turn { integration, full, bytes } = turn;
        let (action, result, detail) = if full {
            tracing::error!(
                integration = integration.0,
                bytes,
                bytes_max,
                "an integration's backlog has reached its share of the log; its endpoints answer 503"
            );
            let detail = format!("its unfinished events hold {bytes} bytes of the log, more than {bytes_max}");
            ("integration.backlog_full", ActivityResult::Failed, detail)
        } else {
            tracing::info!(integration = integration.0, bytes, "an integration's backlog has room again");
            ("integration.backlog_cleared", ActivityResult::Ok, format!("its unfinished events hold {bytes} bytes"))
        };
        wires.record(Activity {
            at_ms: ports.clock.now_ms(),
            actor: "hookmill".to_owned(),
            source: None,
            action: action.to_owned(),
            subject: format!("integration {integration}"),
            integration: Some(integration),
            result,
            detail,
        });
    }
    Ok(())
}

async fn forget_keys(ports: &Ports, wires: &Wires, now_ms: u64, keys_max: u64, outdated: bool) -> Result<(), LogError> {
    let keys = ports.state.counts().await?.dedup_keys;
    if keys == 0 || !outdated && keys <= keys_max {
        return Ok(());
    }
    let snapshot = wires.config.current();
    let start = |window_ms: u64| EventId::at_millis(now_ms.saturating_sub(window_ms));
    let after = snapshot.namings.iter().map(|(endpoint, naming)| (*endpoint, start(naming.dedup_window_ms))).collect();
    let forgotten = ports.state.forget_seen(Remembered { after, keys_max }).await?;
    if forgotten.displaced > 0 {
        add(&wires.counters.dedup_forgotten, forgotten.displaced);
        tracing::warn!(
            keys = forgotten.displaced,
            keys_max,
            "there are too many dedup keys; the oldest were forgotten, so a late resend may be delivered again"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[tokio::test]
    async fn one_run_at_a_time_and_a_panic_does_not_stop_the_next() {
        let (turnstile, runs) = (Turnstile::default(), Arc::new(AtomicUsize::new(0)));
        let run = |after: bool| {
            let runs = runs.clone();
            let task = async move {
                runs.fetch_add(1, Relaxed);
                assert!(after, "a fault of the test");
                std::future::pending().await
            };
            turnstile.run(task, "");
        };
        run(false);
        run(true);
        tokio::task::yield_now().await;
        assert_eq!(runs.load(Relaxed), 1, "the first is under way when the second asks");
        run(true);
        run(true);
        tokio::task::yield_now().await;
        assert_eq!(runs.load(Relaxed), 2);
    }
}
