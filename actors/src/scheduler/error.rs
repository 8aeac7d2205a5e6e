//! Why no run was begun.

use crate::{
    domain::{
        ids::{EventId, IntegrationId, TaskRunId},
        task::Task,
    },
    ports::event_log::LogError,
};

/// Why no run was begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// One is under way, and would overlap.
    #[error("`{task}` is under way{}; it does not overlap with itself", named(*run))]
    UnderWay {
        /// Which.
        task: Task,
        /// The run, where it is remembered.
        run: Option<TaskRunId>,
    },
    /// As many runs are under way as may be.
    #[error("{at_once} runs of `{task}` are under way; try again shortly")]
    Busy {
        /// Of which task.
        task: Task,
        /// How many.
        at_once: usize,
    },
    /// There is no such event.
    #[error("event {0} does not exist, or its retention has ended")]
    NoEvent(EventId),
    /// There is no such integration.
    #[error("integration {0} does not exist")]
    NoIntegration(IntegrationId),
    /// The scheduler does not answer.
    #[error("the scheduler is being restarted; try again")]
    Unavailable,
    /// The log did not say whether the event is there.
    #[error(transparent)]
    Log(#[from] LogError),
}

fn named(run: Option<TaskRunId>) -> String {
    run.map(|id| format!(" as run {id}")).unwrap_or_default()
}
