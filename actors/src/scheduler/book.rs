//! What the tasks did, do and will do: written by the scheduler and by the runs, read by whoever asks. It also sees to it
//! that no task overlaps with itself. In memory it goes with hookmill; what of it is remembered comes back from the state.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;

use super::TaskError;
use crate::{
    domain::{
        ids::TaskRunId,
        task::{Takes, Task, TaskArguments, TaskRun, TaskStatus},
    },
    ports::state_store::StateOp,
};

/// Runs that are remembered of each task; the oldest goes for a new one.
pub const RUNS_MAX: usize = 50;
/// Bytes of what a run says it did, as JSON: a remembered run is a few small values of the state.
pub const RESULT_BYTES_MAX: usize = 32 << 10;
/// Bytes of why a run did not end well.
pub const ERROR_BYTES_MAX: usize = 512;
/// Runs of one task at once, each for something else.
const ON_DEMAND_MAX: usize = 8;

/// When a task runs by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cadence {
    /// Not at all.
    OnDemand,
    /// At the times of a cron expression.
    Cron(String),
    /// So often.
    Every(Duration),
}

/// A task as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskState {
    /// Which.
    pub task: Task,
    /// When it runs by itself.
    pub cadence: Cadence,
    /// When it runs next by itself, milliseconds since 1970.
    pub next_at_ms: Option<u64>,
    /// How many of its runs are under way.
    pub under_way: usize,
    /// Its last run that began.
    pub last: Option<Arc<TaskRun>>,
}

/// What shall be run.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) task: Task,
    pub(crate) arguments: TaskArguments,
    /// Whose token asks for it; `None`: the schedule does.
    pub(crate) author: Option<String>,
}

/// See the module. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskBook(Arc<Mutex<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    is_loaded: bool,
    last_id: u32,
    plans: BTreeMap<Task, (Cadence, Option<u64>)>,
    under_way: Vec<Arc<TaskRun>>,
    latest: BTreeMap<Task, Arc<TaskRun>>,
    kept: BTreeMap<TaskRunId, Arc<TaskRun>>,
}

impl TaskBook {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what is remembered was taken in.
    pub(crate) fn is_loaded(&self) -> bool {
        self.pages().is_loaded
    }

    /// Takes in what is remembered. What was under way when hookmill stopped is told as that, from now on in the state too.
    pub(crate) fn load(&self, runs: Vec<TaskRun>) -> Vec<StateOp> {
        let mut ops = Vec::new();
        let mut pages = self.pages();
        pages.is_loaded = true;
        for mut run in runs {
            if run.status == TaskStatus::Running {
                run.status = TaskStatus::Interrupted;
                run.error = Some("hookmill stopped while it was under way".to_owned());
                ops.push(StateOp::TaskRun(Box::new(run.clone())));
            }
            let run = Arc::new(run);
            pages.last_id = pages.last_id.max(run.id.0);
            pages.latest.insert(run.task, run.clone());
            pages.kept.insert(run.id, run);
        }
        ops
    }

    /// From now on a task runs so.
    pub(crate) fn plan(&self, task: Task, cadence: Cadence, next_at_ms: Option<u64>) {
        self.pages().plans.insert(task, (cadence, next_at_ms));
    }

    /// Begins a run, unless that would overlap.
    pub(crate) fn begin(&self, order: Order, now_ms: u64) -> Result<Arc<TaskRun>, TaskError> {
        let Order { task, arguments, author } = order;
        let mut pages = self.pages();
        // What is for one thing may be done for another at the same time.
        let is_for_one = matches!(task.takes(), Takes::Event | Takes::Integration);
        let overlaps = |run: &&Arc<TaskRun>| run.task == task && (!is_for_one || run.arguments == arguments);
        if let Some(run) = pages.under_way.iter().find(overlaps) {
            return Err(TaskError::UnderWay { task, run: run.is_kept().then_some(run.id) });
        }
        if pages.under_way.iter().filter(|run| run.task == task).count() >= ON_DEMAND_MAX {
            return Err(TaskError::Busy { task, at_once: ON_DEMAND_MAX });
        }
        let mut id = TaskRunId(0);
        if author.is_some() || !task.is_maintenance() {
            pages.last_id += 1;
            id = TaskRunId(pages.last_id);
        }
        let run = Arc::new(TaskRun {
            id,
            task,
            arguments,
            author,
            started_at_ms: now_ms,
            ended_at_ms: None,
            status: TaskStatus::Running,
            result: None,
            error: None,
        });
        pages.under_way.push(run.clone());
        pages.put(&run);
        Ok(run)
    }

    /// Ends a run. What the state is to remember and to forget, oldest first.
    pub(crate) fn end(&self, begun: &Arc<TaskRun>, outcome: Result<Value, String>, now_ms: u64) -> Vec<StateOp> {
        let mut run = TaskRun { ended_at_ms: Some(now_ms), ..TaskRun::clone(begun) };
        let too_large = |result: &Value| result.to_string().len() > RESULT_BYTES_MAX;
        match outcome {
            Ok(result) if too_large(&result) => {
                run.status = TaskStatus::Failed;
                run.error = Some(format!("it said more than the {RESULT_BYTES_MAX} bytes that are kept"));
            }
            Ok(result) => {
                run.status = TaskStatus::Succeeded;
                run.result = Some(result);
            }
            Err(mut error) => {
                error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
                run.status = TaskStatus::Failed;
                run.error = Some(error);
            }
        }
        let run = Arc::new(run);
        let mut pages = self.pages();
        pages.under_way.retain(|it| !Arc::ptr_eq(it, begun));
        pages.put(&run);
        if !run.is_kept() {
            return Vec::new();
        }
        let mut ops = vec![StateOp::TaskRun(Box::new(TaskRun::clone(&run)))];
        ops.extend(pages.forget_oldest(run.task).map(|id| StateOp::TaskRunGone { id }));
        ops
    }

    /// Every task.
    pub(crate) fn states(&self) -> Vec<TaskState> {
        let pages = self.pages();
        Task::ALL.into_iter().map(|task| pages.state(task)).collect()
    }

    /// One task.
    pub(crate) fn state(&self, task: Task) -> TaskState {
        self.pages().state(task)
    }

    /// The remembered runs of a task, newest first.
    pub(crate) fn runs(&self, task: Task) -> Vec<Arc<TaskRun>> {
        self.pages().kept.values().rev().filter(|run| run.task == task).cloned().collect()
    }
}

impl Pages {
    fn put(&mut self, run: &Arc<TaskRun>) {
        self.latest.insert(run.task, run.clone());
        if run.is_kept() {
            self.kept.insert(run.id, run.clone());
        }
    }

    fn forget_oldest(&mut self, task: Task) -> Option<TaskRunId> {
        let of_task = self.kept.values().filter(|run| run.task == task);
        let is_over = of_task.clone().count() > RUNS_MAX;
        let oldest = of_task.filter(|run| run.status != TaskStatus::Running).map(|run| run.id).next();
        let gone = oldest.filter(|_| is_over)?;
        self.kept.remove(&gone);
        Some(gone)
    }

    fn state(&self, task: Task) -> TaskState {
        let (cadence, planned_ms) = self.plans.get(&task).cloned().unwrap_or((Cadence::OnDemand, None));
        let last = self.latest.get(&task).cloned();
        let next_at_ms = match (&cadence, &last) {
            (Cadence::Every(period), Some(last)) => {
                let period_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
                Some(last.started_at_ms.saturating_add(period_ms))
            }
            _ => planned_ms,
        };
        let under_way = self.under_way.iter().filter(|run| run.task == task).count();
        TaskState { task, cadence, next_at_ms, under_way, last }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::ids::IntegrationId;

    fn order(task: Task, author: Option<&str>) -> Order {
        Order { task, arguments: TaskArguments::default(), author: author.map(str::to_owned) }
    }

    fn of_integration(id: u32) -> Order {
        let arguments = TaskArguments { integration: Some(IntegrationId(id)), ..TaskArguments::default() };
        Order { arguments, ..order(Task::TestIntegrationConnection, Some("deploy")) }
    }

    #[test]
    fn no_task_overlaps_with_itself_and_what_is_for_one_thing_overlaps_with_that_alone() {
        let book = TaskBook::default();
        let sweep = book.begin(order(Task::ProcessPendingWebhookEvents, None), 1).expect("the first");
        let again = book.begin(order(Task::ProcessPendingWebhookEvents, Some("deploy")), 2);
        let task = Task::ProcessPendingWebhookEvents;
        assert_eq!(again, Err(TaskError::UnderWay { task, run: Some(TaskRunId(1)) }));
        book.begin(order(Task::TestAllActiveIntegrations, None), 2).expect("another task");
        book.end(&sweep, Ok(json!({})), 3);
        book.begin(order(Task::ProcessPendingWebhookEvents, None), 4).expect("the first has ended");
        for id in 0..8 {
            book.begin(of_integration(id), 5).expect("each is another");
        }
        assert!(matches!(book.begin(of_integration(3), 6), Err(TaskError::UnderWay { .. })));
        assert!(matches!(book.begin(of_integration(9), 6), Err(TaskError::Busy { at_once: 8, .. })));
    }

    #[test]
    fn the_oldest_goes_for_a_new_one_and_maintenance_is_remembered_only_where_somebody_asked() {
        let book = TaskBook::default();
        for number in 1..=60 {
            let run = book.begin(order(Task::ProcessPendingWebhookEvents, None), number).expect("the last has ended");
            let ops = book.end(&run, Err("x".repeat(1_000)), number + 1);
            let gone = ops.iter().any(|op| matches!(op, StateOp::TaskRunGone { .. }));
            assert_eq!(gone, number > 50, "{number}");
        }
        let runs = book.runs(Task::ProcessPendingWebhookEvents);
        assert_eq!((runs.len(), runs[0].id, runs[49].id), (RUNS_MAX, TaskRunId(60), TaskRunId(11)));
        assert_eq!(runs[0].error.as_ref().map(String::len), Some(ERROR_BYTES_MAX));
        let by_itself = book.begin(order(Task::TrimEventLog, None), 100).expect("it is not under way");
        assert_eq!(book.end(&by_itself, Ok(json!({})), 101), []);
        assert_eq!(book.runs(Task::TrimEventLog), []);
        let asked = book.begin(order(Task::TrimEventLog, Some("deploy")), 200).expect("it has ended");
        assert_eq!(book.end(&asked, Ok(json!({"text": "x".repeat(RESULT_BYTES_MAX)})), 201).len(), 1);
        let kept = book.runs(Task::TrimEventLog);
        assert_eq!((kept.len(), kept[0].status), (1, TaskStatus::Failed), "it said too much");
        book.plan(Task::TrimEventLog, Cadence::Every(Duration::from_millis(50)), None);
        assert_eq!(book.state(Task::TrimEventLog).next_at_ms, Some(250));
    }

    #[test]
    fn what_was_under_way_at_a_stop_was_interrupted() {
        let (before, after) = (TaskBook::default(), TaskBook::default());
        let ended = before.begin(order(Task::TestAllActiveIntegrations, None), 1).expect("the first");
        let ops = before.end(&ended, Ok(json!({"total": 0})), 2);
        let under_way = before.begin(order(Task::TestAllActiveIntegrations, None), 3).expect("the first has ended");
        let StateOp::TaskRun(ended) = &ops[0] else { panic!("{ops:?}") };
        let fixed = after.load(vec![TaskRun::clone(ended), TaskRun::clone(&under_way)]);
        assert!(matches!(&fixed[..], [StateOp::TaskRun(run)] if run.status == TaskStatus::Interrupted), "{fixed:?}");
        let state = after.state(Task::TestAllActiveIntegrations);
        assert_eq!((state.under_way, state.last.map(|run| run.id)), (0, Some(TaskRunId(2))));
        let next = after.begin(order(Task::TestAllActiveIntegrations, None), 4).expect("nothing is under way");
        assert_eq!(next.id, TaskRunId(3), "no number is given twice");
    }
}
