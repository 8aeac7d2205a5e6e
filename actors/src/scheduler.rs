//! The tasks, each one a line of a table. In: its own timers, operators who want a run now. Out: `Expire` and wakes to
//! deliveries, trims to the log, the state of each backlog to the ingress, tests of connections. Owns when each task runs
//! next; what the runs did is in the [`book`] and, as far as it is remembered, in the state. A crash delays a task by its
//! period; runs are made beside the actor and go on.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use serde_json::Value;
use tokio::time::Instant;

use self::{
    book::Order,
    connection_round::{test_all, test_one},
    counts::counted,
    pending::{Pending, one_event, sweep},
};
pub use self::{
    book::{Cadence, ERROR_BYTES_MAX, RESULT_BYTES_MAX, RUNS_MAX, TaskState},
    error::TaskError,
    maintenance::Retention,
    schedule::{Schedule, ScheduleError},
};
use crate::{
    domain::task::{Task, TaskArguments, TaskRun},
    ports::{event_log::LogError, state_store::StateOp},
    tree::{Ports, wires::Wires},
};

pub(crate) mod book;
pub(crate) mod clock_watch;
mod connection_round;
mod counts;
mod details;
mod error;
mod handle;
pub(crate) mod maintenance;
mod pending;
mod schedule;

/// When tasks run, and within which bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskOptions {
    /// When all connections are tested.
    pub test_all_active_integrations: Schedule,
    /// When events that wait are looked for.
    pub process_pending_webhook_events: Schedule,
    /// When the counts of [`Task::CollectIntegrationMetrics`] are made.
    pub collect_integration_metrics: Schedule,
    /// A run by schedule is put off by up to this, at random.
    pub put_off_max: Duration,
    /// Connections tested at once.
    pub tests_concurrent_max: usize,
    /// Testing all of them ends after this; what was not tested by then is skipped.
    pub tests_deadline: Duration,
    /// Events that are looked for, where a run is given no other number.
    pub pending_limit: u32,
}

impl Default for TaskOptions {
    fn default() -> Self {
        let schedule = |text: &str| text.parse().expect("the defaults are cron expressions");
        Self {
            test_all_active_integrations: schedule("0 */6 * * *"),
            process_pending_webhook_events: schedule("*/5 * * * *"),
            collect_integration_metrics: schedule("*/15 * * * *"),
            put_off_max: Duration::from_secs(30),
            tests_concurrent_max: 64,
            tests_deadline: Duration::from_mins(30),
            pending_limit: 100,
        }
    }
}

impl TaskOptions {
    /// The tasks that have a schedule.
    fn scheduled(&self) -> [(Task, &Schedule); SCHEDULED] {
        [
            (Task::TestAllActiveIntegrations, &self.test_all_active_integrations),
            (Task::ProcessPendingWebhookEvents, &self.process_pending_webhook_events),
            (Task::CollectIntegrationMetrics, &self.collect_integration_metrics),
        ]
    }
}

/// The tasks that keep hookmill in order, each with its period.
const MAINTENANCE: [(Task, Duration); 5] = [
    (Task::TrimEventLog, Duration::from_secs(60)),
    (Task::MeasureBacklogs, Duration::from_secs(2)),
    (Task::ForgetDedupKeys, Duration::from_secs(10)),
    (Task::ForgetDeadLetters, Duration::from_secs(15 * 60)),
    (Task::ForgetActivities, Duration::from_secs(15 * 60)),
];

/// How many tasks have a schedule.
const SCHEDULED: usize = 3;
/// What is due by schedule is looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// All backlogs that may have changed are measured so often, for people.
const ALL_BACKLOGS_EVERY: Duration = Duration::from_secs(30);
/// Dedup keys whose window is over are looked for so often; too many of them are noticed sooner.
const OUTDATED_KEYS_EVERY: Duration = Duration::from_secs(60);

/// What may be said to the scheduler.
pub(crate) enum SchedulerMsg {
    /// The timer of a task that keeps hookmill in order.
    Maintain(Task),
    /// The timer: look for what is due by schedule.
    Look,
    /// An operator wants a run now.
    Run { task: Task, arguments: TaskArguments, author: String, reply: Reply },
}

/// Answered once the run is remembered, and under way.
type Reply = RpcReplyPort<Result<Arc<TaskRun>, TaskError>>;

pub(crate) struct SchedulerActor;

pub(crate) struct SchedulerArgs {
    pub(crate) ports: Arc<Ports>,
    pub(crate) wires: Arc<Wires>,
    pub(crate) retention: Retention,
    pub(crate) options: TaskOptions,
}

pub(crate) struct SchedulerState {
    ports: Arc<Ports>,
    wires: Arc<Wires>,
    retention: Retention,
    options: TaskOptions,
    /// When each task with a schedule runs next, milliseconds since 1970.
    next_ms: [Option<u64>; SCHEDULED],
    looked_at_ms: u64,
    all_backlogs_at: Instant,
    outdated_keys_at: Instant,
}

impl Actor for SchedulerActor {
    type Msg = SchedulerMsg;
    type State = SchedulerState;
    type Arguments = SchedulerArgs;

    async fn pre_start(
        &self,
        me: ActorRef<SchedulerMsg>,
        SchedulerArgs { ports, wires, retention, options }: SchedulerArgs,
    ) -> Result<SchedulerState, ActorProcessingErr> {
        if !wires.tasks.is_loaded() {
            let interrupted = wires.tasks.load(ports.state.task_runs().await?);
            keep(&ports, interrupted).await;
        }
        for (task, period) in MAINTENANCE {
            wires.tasks.plan(task, Cadence::Every(period), None);
            me.send_interval(period, move || SchedulerMsg::Maintain(task));
        }
        me.send_interval(LOOK_EVERY, || SchedulerMsg::Look);
        let (now, now_ms) = (Instant::now(), ports.clock.now_ms());
        wires.clock_trust.holds(now_ms);
        wires.scheduler.set(me);
        let mut state = SchedulerState {
            ports,
            wires,
            retention,
            options,
            next_ms: [None; SCHEDULED],
            looked_at_ms: now_ms,
            all_backlogs_at: now,
            outdated_keys_at: now,
        };
        for index in 0..state.next_ms.len() {
            state.plan(index, now_ms);
        }
        // What is full was so before the start: its senders should hear it soon.
        state.maintain(Task::MeasureBacklogs);
        Ok(state)
    }

    async fn handle(
        &self,
        _me: ActorRef<SchedulerMsg>,
        msg: SchedulerMsg,
        state: &mut SchedulerState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            SchedulerMsg::Maintain(task) => state.maintain(task),
            SchedulerMsg::Look => state.look(),
            SchedulerMsg::Run { task, arguments, author, reply } => {
                match state.begin(Order { task, arguments, author: Some(author) }, true) {
                    Ok(work) => drop(tokio::spawn(work.carried_out(Some(reply)))),
                    Err(refused) => drop(reply.send(Err(refused))),
                }
            }
        }
        Ok(())
    }
}

impl SchedulerState {
    /// Runs a task by its period, unless its last run is still under way.
    fn maintain(&mut self, task: Task) {
        let due = |last: &mut Instant, period| {
            let is_due = last.elapsed() >= period;
            if is_due {
                *last = Instant::now();
            }
            is_due
        };
        let thorough = match task {
            Task::MeasureBacklogs => due(&mut self.all_backlogs_at, ALL_BACKLOGS_EVERY),
            Task::ForgetDedupKeys => due(&mut self.outdated_keys_at, OUTDATED_KEYS_EVERY),
            _ => true,
        };
        if let Ok(work) = self.begin(by_itself(task), thorough) {
            tokio::spawn(work.carried_out(None));
        }
    }

    /// Runs what is due by schedule.
    fn look(&mut self) {
        let now_ms = self.ports.clock.now_ms();
        // With a clock that was set back, what is planned may be far away.
        let is_set_back = now_ms < self.looked_at_ms;
        self.looked_at_ms = now_ms;
        for index in 0..self.next_ms.len() {
            let is_due = self.next_ms[index].is_some_and(|next_ms| next_ms <= now_ms);
            if is_due {
                let (task, _) = self.options.scheduled()[index];
                match self.begin(by_itself(task), true) {
                    Ok(work) => drop(tokio::spawn(work.carried_out(None))),
                    Err(refused) => tracing::warn!(%refused, "a task is not run, though it is its time"),
                }
            }
            if is_due || is_set_back {
                self.plan(index, now_ms);
            }
        }
    }

    fn plan(&mut self, index: usize, now_ms: u64) {
        let (task, schedule) = self.options.scheduled()[index];
        let next_ms = schedule.next_spread(now_ms, self.options.put_off_max, fastrand::f64());
        let cadence = match next_ms {
            Some(_) => Cadence::Cron(schedule.to_string()),
            None => Cadence::OnDemand,
        };
        self.wires.tasks.plan(task, cadence, next_ms);
        self.next_ms[index] = next_ms;
    }

    /// Begins a run; what is to be done for it is done beside the actor.
    fn begin(&self, order: Order, thorough: bool) -> Result<Work, TaskError> {
        Ok(Work {
            run: self.wires.tasks.begin(order, self.ports.clock.now_ms())?,
            ports: self.ports.clone(),
            wires: self.wires.clone(),
            retention: self.retention,
            options: self.options.clone(),
            thorough,
        })
    }
}

fn by_itself(task: Task) -> Order {
    Order { task, arguments: TaskArguments::default(), author: None }
}

/// A run with what it needs.
struct Work {
    run: Arc<TaskRun>,
    ports: Arc<Ports>,
    wires: Arc<Wires>,
    retention: Retention,
    options: TaskOptions,
    /// Whether what is seldom done belongs to it.
    thorough: bool,
}

impl Work {
    async fn carried_out(self, reply: Option<Reply>) {
        let run = &self.run;
        if run.is_kept() {
            keep(&self.ports, vec![StateOp::TaskRun(Box::new(TaskRun::clone(run)))]).await;
        }
        if let Some(reply) = reply {
            // Who asked may have gone; the run goes on all the same.
            drop(reply.send(Ok(run.clone())));
        }
        let outcome = AssertUnwindSafe(self.done()).catch_unwind().await;
        let outcome = outcome.unwrap_or_else(|_| Err("it panicked; hookmill's log says where".to_owned()));
        if let Err(error) = &outcome {
            tracing::warn!(task = %run.task, error, "a task failed");
        }
        let ops = self.wires.tasks.end(run, outcome, self.ports.clock.now_ms());
        keep(&self.ports, ops).await;
    }

    async fn done(&self) -> Result<Value, String> {
        let Self { run, ports, wires, options, .. } = self;
        let TaskArguments { event, integration, limit } = run.arguments;
        let limit = limit.unwrap_or(options.pending_limit);
        let done = match run.task {
            Task::TestAllActiveIntegrations => {
                Ok(test_all(ports, wires, options.tests_concurrent_max, options.tests_deadline).await)
            }
            Task::TestIntegrationConnection => return test_one(ports, wires, integration.ok_or(NOT_GIVEN)?).await,
            Task::ProcessPendingWebhookEvents => sweep(&Pending::new(ports, wires), limit).await,
            Task::ProcessWebhookEvent => one_event(&Pending::new(ports, wires), event.ok_or(NOT_GIVEN)?).await,
            Task::CollectIntegrationMetrics => counted(ports, wires).await,
            Task::TrimEventLog => self.trim().await,
            Task::MeasureBacklogs => self.measure_backlogs().await,
            Task::ForgetDedupKeys => self.forget_keys().await,
            Task::ForgetDeadLetters => return self.forget_dead_letters().await,
            Task::ForgetActivities => self.forget_activities().await,
        };
        done.map_err(|error: LogError| error.to_string())
    }
}

const NOT_GIVEN: &str = "it was not said for what";

/// Hands in what is to be remembered; what cannot be is only told.
async fn keep(ports: &Ports, ops: Vec<StateOp>) {
    if ops.is_empty() {
        return;
    }
    let kept = match ports.log.commit(ops) {
        Ok(committing) => committing.await,
        Err(error) => Err(error),
    };
    if let Err(error) = kept {
        tracing::warn!(%error, "what a task did could not be stored");
    }
}
