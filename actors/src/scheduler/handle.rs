//! The tasks as the outside asks for them.

use std::{sync::Arc, time::Duration};

use super::{SchedulerMsg, TaskError, TaskState};
use crate::{
    activity,
    domain::{
        activity::{Activity, ActivityResult},
        ids::{EventId, IntegrationId},
        task::{Task, TaskArguments, TaskRun},
    },
    ports::event_log::LogError,
    tree::TreeHandle,
};

/// It begins a run and does not wait for it.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);

impl TreeHandle {
    /// Every task, as it stands.
    pub fn tasks(&self) -> Vec<TaskState> {
        self.wires.tasks.states()
    }

    /// One task, as it stands.
    pub fn task(&self, task: Task) -> TaskState {
        self.wires.tasks.state(task)
    }

    /// The runs of a task that are remembered, newest first.
    pub fn task_runs(&self, task: Task) -> Vec<Arc<TaskRun>> {
        self.wires.tasks.runs(task)
    }

    /// Begins a run now, which goes on when this returns. What `arguments` name must be there.
    pub async fn run_task(
        &self,
        author: &str,
        task: Task,
        arguments: TaskArguments,
    ) -> Result<Arc<TaskRun>, TaskError> {
        if let Some(id) = arguments.integration {
            self.ensure_integration(id)?;
        }
        if let Some(id) = arguments.event {
            self.ensure_event(id).await?;
        }
        let name = author.to_owned();
        let ask = |reply| SchedulerMsg::Run { task, arguments, author: name, reply };
        let run = self.wires.scheduler.call(ask, ANSWER_WAIT_MAX).await.unwrap_or(Err(TaskError::Unavailable))?;
        self.wires.record(Activity {
            at_ms: run.started_at_ms,
            actor: author.to_owned(),
            source: activity::source(),
            action: "task.run".to_owned(),
            subject: format!("task {task}"),
            integration: arguments.integration.or(arguments.event.map(EventId::integration)),
            result: ActivityResult::Ok,
            detail: format!("run {}", run.id),
        });
        Ok(run)
    }

    fn ensure_integration(&self, id: IntegrationId) -> Result<(), TaskError> {
        let is_there = self.config().current().configuration.integrations.contains_key(&id);
        is_there.then_some(()).ok_or(TaskError::NoIntegration(id))
    }

    async fn ensure_event(&self, id: EventId) -> Result<(), TaskError> {
        match self.ports().log.get(id).await {
            Ok(Some(_)) | Err(LogError::Corrupt(_)) => Ok(()),
            Ok(None) => Err(TaskError::NoEvent(id)),
            Err(error) => Err(error.into()),
        }
    }
}
