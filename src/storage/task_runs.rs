//! Runs of tasks as the state holds them: `MessagePack`, in as many values as it takes.

use hookmill_actors::{domain::task::TaskRun, ports::event_log::LogError};

use super::{changes::malformed, keys, values::pack};

/// Bytes of one part: a key and a value must stay far below the store's bound.
const PART_BYTES: usize = 3_800;
/// Parts of one run at most: the scheduler bounds what a run may say.
pub(super) const PARTS_MAX: u8 = 16;

/// A run's values, one a part. A run only ever grows: it ends with more to say than it began with.
pub(super) fn encode(run: &TaskRun) -> Vec<Vec<u8>> {
    let whole = pack(run);
    debug_assert!(whole.len() <= PART_BYTES * usize::from(PARTS_MAX), "a run of {} bytes", whole.len());
    whole.chunks(PART_BYTES).take(PARTS_MAX.into()).map(<[u8]>::to_vec).collect()
}

/// The runs that these keys and values hold, which come in the order of their keys.
pub(super) fn decode(
    items: impl Iterator<Item = Result<(sled::IVec, sled::IVec), LogError>>,
) -> Result<Vec<TaskRun>, LogError> {
    let (mut runs, mut number, mut whole) = (Vec::new(), None, Vec::new());
    let mut end = |number: Option<u32>, whole: &mut Vec<u8>| {
        let Some(number) = number else { return Ok(()) };
        let run = rmp_serde::from_slice(&std::mem::take(whole));
        runs.push(run.map_err(|_| malformed(&keys::number(keys::TASK_RUN, number)))?);
        Ok(())
    };
    for item in items {
        let (key, value) = item?;
        let owner = Some(keys::parse_parted(&key).ok_or_else(|| malformed(&key))?);
        if owner != number {
            end(number, &mut whole)?;
            number = owner;
        }
        whole.extend_from_slice(&value);
    }
    end(number, &mut whole)?;
    Ok(runs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use hookmill_actors::{
        domain::{
            ids::{EventId, IntegrationId, TaskRunId},
            task::{Task, TaskArguments, TaskStatus},
        },
        ports::state_store::{StateOp, StateStore},
        scheduler::{ERROR_BYTES_MAX, RESULT_BYTES_MAX},
    };
    use serde_json::json;

    use super::*;
    use crate::storage::{
        LogPlace, StateView,
        commit::{decode_state, encode_state},
        sled_db::{CACHE_BYTES, StateDb, VALUE_BYTES_MAX},
        sled_state::SledState,
    };

    fn begun(id: u32) -> TaskRun {
        TaskRun {
            id: TaskRunId(id),
            task: Task::TestAllActiveIntegrations,
            arguments: TaskArguments {
                event: Some(EventId::MAX),
                integration: Some(IntegrationId(u32::MAX)),
                limit: Some(u32::MAX),
            },
            author: Some("deploy".to_owned()),
            started_at_ms: u64::MAX,
            ended_at_ms: None,
            status: TaskStatus::Running,
            result: None,
            error: None,
        }
    }

    /// As much to say as one may have.
    fn ended(id: u32) -> TaskRun {
        let text = "\u{e4}".repeat((RESULT_BYTES_MAX - 16) / 2);
        TaskRun {
            ended_at_ms: Some(u64::MAX),
            status: TaskStatus::Failed,
            result: Some(json!({"text": text})),
            error: Some("e".repeat(ERROR_BYTES_MAX)),
            ..begun(id)
        }
    }

    #[test]
    fn the_largest_takes_no_more_parts_than_there_may_be() {
        let parts = encode(&ended(1));
        assert!(parts.len() > 1 && parts.len() <= usize::from(PARTS_MAX), "{} parts", parts.len());
        assert!(parts.iter().all(|part| part.len() <= VALUE_BYTES_MAX));
    }

    #[tokio::test]
    async fn runs_are_kept_ended_and_forgotten_over_a_reopening() {
        let root = tempfile::tempdir().unwrap();
        let open = || SledState::open(StateDb::open(&root.path().join("state"), CACHE_BYTES).unwrap()).unwrap();
        let ops = [begun(1), begun(2), ended(2), ended(300)].map(|run| StateOp::TaskRun(Box::new(run)));
        // As recovery would apply them, out of the log.
        let mut decoded = Vec::new();
        decode_state(&encode_state(&ops), &mut decoded).unwrap();
        assert_eq!(decoded, ops);
        let state = open();
        state.apply(&decoded, LogPlace { segment: 1, offset: 1 }).unwrap();
        state.sync().unwrap();
        drop(state);
        let state = open();
        assert_eq!(state.task_runs().await, Ok(vec![begun(1), ended(2), ended(300)]));
        let gone = [1, 300].map(|id| StateOp::TaskRunGone { id: TaskRunId(id) });
        state.apply(&gone, LogPlace { segment: 1, offset: 2 }).unwrap();
        assert_eq!(state.task_runs().await, Ok(vec![ended(2)]));
    }
}
