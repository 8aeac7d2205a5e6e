//! Bulk replays as the state holds them: one value each, in `MessagePack`.

use hookmill_actors::domain::replay::ReplayJob;

use super::values::pack;

/// Bytes of a job's free texts that are kept: what it was asked for is bounded where it is asked.
const TEXT_BYTES: usize = 512;

/// A job, its free texts cut to a bounded length.
pub(super) fn encode(job: &ReplayJob) -> Vec<u8> {
    let cut = |text: &str| text[..text.floor_char_boundary(TEXT_BYTES)].to_owned();
    if job.note.len() <= TEXT_BYTES && job.author.len() <= TEXT_BYTES {
        return pack(job);
    }
    pack(&ReplayJob { note: cut(&job.note), author: cut(&job.author), ..job.clone() })
}

pub(super) fn decode(value: &[u8]) -> Option<ReplayJob> {
    rmp_serde::from_slice(value).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use hookmill_actors::{
        domain::{
            delivery::DeadReason,
            ids::{EndpointId, EventId, IntegrationId, ReplayId, SubscriptionId},
            replay::{
                DeadLetterFilter, EventFilter, REPLAY_TYPES_BYTES_MAX, ReplayCounts, ReplayCursor, ReplayItem,
                ReplayQuery, ReplayStatus, SAMPLE_MAX,
            },
            standing::Standing,
        },
        ports::state_store::{StateOp, StateStore},
    };

    use super::*;
    use crate::storage::{
        LogPlace, StateView,
        commit::{decode_state, encode_state},
        sled_db::{CACHE_BYTES, StateDb, VALUE_BYTES_MAX},
        sled_state::SledState,
    };

    /// As large as one can be.
    fn largest(id: u32, query: ReplayQuery) -> ReplayJob {
        ReplayJob {
            id: ReplayId(id),
            author: "a".repeat(TEXT_BYTES),
            created_at_ms: u64::MAX,
            query,
            target: Some(SubscriptionId(u32::MAX)),
            rate_per_s: u32::MAX,
            status: ReplayStatus::Cancelled,
            upto: EventId::MAX,
            cursor: ReplayCursor { subscription: u32::MAX, event: EventId::MAX },
            counts: ReplayCounts { planned: u64::MAX, replayed: u64::MAX, skipped: u64::MAX },
            sample: vec![ReplayItem { subscription: SubscriptionId(u32::MAX), event: EventId::MAX }; SAMPLE_MAX],
            start: true,
            note: "n".repeat(TEXT_BYTES),
            ended_at_ms: Some(u64::MAX),
        }
    }

    fn events() -> ReplayQuery {
        ReplayQuery::Events(EventFilter {
            integration: IntegrationId(u32::MAX),
            subscription: SubscriptionId(u32::MAX),
            types: (0..16).map(|_| "t".repeat(REPLAY_TYPES_BYTES_MAX / 16)).collect(),
            endpoint: Some(EndpointId(u32::MAX)),
            standing: Some(Standing::Duplicate),
            from_ms: Some(u64::MAX),
            to_ms: Some(u64::MAX),
        })
    }

    fn dead_letters() -> ReplayQuery {
        ReplayQuery::DeadLetters(DeadLetterFilter {
            reason: Some(DeadReason::TransformFailed),
            ..DeadLetterFilter::default()
        })
    }

    #[test]
    fn the_largest_is_a_small_value_and_comes_back_whole() {
        for query in [events(), dead_letters()] {
            let job = largest(1, query);
            let value = encode(&job);
            assert!(value.len() <= VALUE_BYTES_MAX, "{} bytes", value.len());
            assert_eq!(decode(&value), Some(job));
        }
    }

    #[test]
    fn a_longer_text_is_cut_not_refused() {
        let job = ReplayJob { note: "\u{1f98a}".repeat(2_000), ..largest(1, events()) };
        let kept = decode(&encode(&job)).unwrap();
        assert!(!kept.note.is_empty() && kept.note.len() <= TEXT_BYTES);
        assert!(encode(&job).len() <= VALUE_BYTES_MAX);
    }

    #[tokio::test]
    async fn jobs_are_kept_changed_listed_and_forgotten_over_a_reopening() {
        let root = tempfile::tempdir().unwrap();
        let open = || SledState::open(StateDb::open(&root.path().join("state"), CACHE_BYTES).unwrap()).unwrap();
        let (one, two) = (largest(1, events()), largest(2, dead_letters()));
        let moved = ReplayJob { status: ReplayStatus::Running, ..one.clone() };
        let ops = [one, two.clone(), moved.clone()].map(|job| StateOp::Job(Box::new(job)));
        // As recovery would apply them, out of the log.
        let mut decoded = Vec::new();
        decode_state(&encode_state(&ops), &mut decoded).unwrap();
        assert_eq!(decoded, ops);
        let state = open();
        state.apply(&decoded, LogPlace { segment: 1, offset: 1 }).unwrap();
        state.sync().unwrap();
        drop(state);
        let state = open();
        assert_eq!(state.jobs().await, Ok(vec![moved.clone(), two]));
        assert_eq!(state.job(ReplayId(1)).await, Ok(Some(moved.clone())));
        state.apply(&[StateOp::JobGone { id: ReplayId(2) }], LogPlace { segment: 1, offset: 2 }).unwrap();
        assert_eq!((state.jobs().await, state.job(ReplayId(2)).await), (Ok(vec![moved]), Ok(None)));
    }
}
