//! The scheduler's tasks, and their runs.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::Value;
use utoipa::ToSchema;

use super::ids::{EventId, IntegrationId, TaskRunId};

/// What the scheduler does, by schedule or when asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// Tests every integration that is not switched off.
    TestAllActiveIntegrations,
    /// Wakes what should have been processed and is not.
    ProcessPendingWebhookEvents,
    /// Counts what is configured and what came.
    CollectIntegrationMetrics,
    /// Tests one integration.
    TestIntegrationConnection,
    /// Wakes the deliveries of one event.
    ProcessWebhookEvent,
    /// Removes finished events that have outlived their retention, or for which there is no room.
    TrimEventLog,
    /// Measures what unfinished events hold of the log.
    MeasureBacklogs,
    /// Forgets dedup keys whose window is over, or for which there is no room.
    ForgetDedupKeys,
    /// Takes dead letters away that have outlived their retention.
    ForgetDeadLetters,
    /// Forgets activities that have outlived their retention.
    ForgetActivities,
}

/// What a run of a task must be given, or may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// An event.
    Event,
    /// An integration.
    Integration,
    /// How many events, where it is to be another number than the one that is set.
    Limit,
}

impl Task {
    /// All there are, in the order that they are shown in.
    pub const ALL: [Self; 10] = [
        Self::TestAllActiveIntegrations,
        Self::ProcessPendingWebhookEvents,
        Self::CollectIntegrationMetrics,
        Self::TestIntegrationConnection,
        Self::ProcessWebhookEvent,
        Self::TrimEventLog,
        Self::MeasureBacklogs,
        Self::ForgetDedupKeys,
        Self::ForgetDeadLetters,
        Self::ForgetActivities,
    ];

    /// Its name: those of the module before hookmill as they were.
    pub fn name(self) -> &'static str {
        match self {
            Self::TestAllActiveIntegrations => "integration_management.test_all_active_integrations",
            Self::ProcessPendingWebhookEvents => "integration_management.process_pending_webhook_events",
            Self::CollectIntegrationMetrics => "integration_management.collect_integration_metrics",
            Self::TestIntegrationConnection => "integration_management.test_integration_connection",
            Self::ProcessWebhookEvent => "integration_management.process_webhook_event",
            Self::TrimEventLog => "maintenance.trim_event_log",
            Self::MeasureBacklogs => "maintenance.measure_backlogs",
            Self::ForgetDedupKeys => "maintenance.forget_dedup_keys",
            Self::ForgetDeadLetters => "maintenance.forget_dead_letters",
            Self::ForgetActivities => "maintenance.forget_activities",
        }
    }

    /// Its name without what stands before the point.
    pub fn short_name(self) -> &'static str {
        self.name().rsplit('.').next().unwrap_or_default()
    }

    /// What it does, for people.
    pub fn about(self) -> &'static str {
        match self {
            Self::TestAllActiveIntegrations => "Tests the connection of every integration that is not switched off",
            Self::ProcessPendingWebhookEvents => {
                "Looks for events that are neither done nor under way, wakes what can go on, and says what waits for what"
            }
            Self::CollectIntegrationMetrics => "Counts integrations, webhooks and events, for `GET /api/v1/metrics`",
            Self::TestIntegrationConnection => "Tests the connection of one integration",
            Self::ProcessWebhookEvent => {
                "Looks where one event stands, and tries those of its deliveries now that can go on or wait for a retry"
            }
            Self::TrimEventLog => "Removes finished events beyond `log.retention` and `log.bytes_max`",
            Self::MeasureBacklogs => "Measures what unfinished events hold of the log, for `backlog_full`",
            Self::ForgetDedupKeys => {
                "Forgets dedup keys whose window is over, or that are more than `log.dedup_keys_max`"
            }
            Self::ForgetDeadLetters => "Takes dead letters away beyond `retention.dead_letters`",
            Self::ForgetActivities => "Forgets activities beyond `retention.activities`",
        }
    }

    /// What a run is given.
    pub fn takes(self) -> Takes {
        match self {
            Self::ProcessWebhookEvent => Takes::Event,
            Self::TestIntegrationConnection => Takes::Integration,
            Self::ProcessPendingWebhookEvents => Takes::Limit,
            _ => Takes::Nothing,
        }
    }

    /// Whether it keeps hookmill itself in order. It runs so often that only what operators asked for is remembered.
    pub fn is_maintenance(self) -> bool {
        self.name().starts_with("maintenance.")
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such task")]
pub struct UnknownTask;

impl FromStr for Task {
    type Err = UnknownTask;

    /// Its name, with or without what stands before the point.
    fn from_str(text: &str) -> Result<Self, UnknownTask> {
        let is_named = |task: &Self| task.name() == text || task.short_name() == text;
        Self::ALL.into_iter().find(is_named).ok_or(UnknownTask)
    }
}

impl Serialize for Task {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Task {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What a run works on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskArguments {
    /// One event.
    pub event: Option<EventId>,
    /// One integration.
    pub integration: Option<IntegrationId>,
    /// So many events.
    pub limit: Option<u32>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TaskRunStatus)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// It is under way.
    Running,
    /// It did what it is for; what it found may be bad all the same.
    Succeeded,
    /// It could not do it.
    Failed,
    /// hookmill stopped meanwhile.
    Interrupted,
}

/// One run of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRun {
    /// Its number; 0 where it is not remembered.
    pub id: TaskRunId,
    /// Of which task.
    pub task: Task,
    /// What it works on.
    pub arguments: TaskArguments,
    /// Whose token asked for it; `None`: the schedule did.
    pub author: Option<String>,
    /// When it began, milliseconds since 1970.
    pub started_at_ms: u64,
    /// When it ended, milliseconds since 1970; `None` while it runs, and where it was interrupted.
    pub ended_at_ms: Option<u64>,
    /// Where it stands.
    pub status: TaskStatus,
    /// What it did and found, an object; `None` where it did not end well.
    #[serde(with = "as_text")]
    pub result: Option<Value>,
    /// Why it did not end well.
    pub error: Option<String>,
}

impl TaskRun {
    /// Whether it is remembered.
    pub fn is_kept(&self) -> bool {
        self.id != TaskRunId(0)
    }
}

/// JSON within other formats, which have not all of its kinds.
mod as_text {
    use super::{Deserialize, Deserializer, Error, Serialize, Serializer, Value};

    #[expect(clippy::ref_option, reason = "serde hands it over so")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Value::to_string).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| serde_json::from_str(&text)).transpose().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_known_by_its_whole_name_and_by_the_end_of_it() {
        for task in Task::ALL {
            assert_eq!(task.name().parse(), Ok(task));
            assert_eq!(task.short_name().parse(), Ok(task), "no two have the same end");
        }
        for wrong in ["", "process_webhook_event.", "maintenance", "other.process_webhook_event"] {
            assert_eq!(wrong.parse::<Task>(), Err(UnknownTask), "{wrong}");
        }
    }
}
