//! Values that hold a run: deliveries of a subscription that succeeded at their first try, and when that was recorded.

use hookmill_actors::domain::{ids::EventId, limits::RUN_IDS_MAX};

use super::{
    sled_db::VALUE_BYTES_MAX,
    values::{IdDeltas, NO_ID, read_varint, write_varint},
};

/// Ids of one run lie within so many milliseconds: a look-up walks back no further than that.
pub(super) const RUN_SPAN_MS: u64 = 1 << 16;

/// A delivery that succeeded at its first try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FirstTry {
    pub(super) event: EventId,
    /// When that was recorded; `None` where it was not kept.
    pub(super) at_ms: Option<u64>,
}

/// The beginning of an ascending list that makes one run: how many, and its value. A time stands before the first of
/// those that it holds for: nearly always one for all, as a run is made by one commit.
pub(super) fn encode_run(tries: &[FirstTry]) -> (usize, Vec<u8>) {
    let mut value = Vec::new();
    let mut deltas = IdDeltas::default();
    let first_ms = tries.first().map_or(0, |first| first.event.millis());
    let mut time = None;
    for (index, FirstTry { event, at_ms }) in tries.iter().enumerate() {
        let before = value.len();
        if *at_ms != time {
            time = *at_ms;
            write_varint(NO_ID, &mut value);
            write_varint(at_ms.map_or(0, |at_ms| u128::from(at_ms) + 1), &mut value);
        }
        deltas.write(*event, &mut value);
        let fits = value.len() <= VALUE_BYTES_MAX
            && index < RUN_IDS_MAX
            && event.millis().saturating_sub(first_ms) <= RUN_SPAN_MS;
        if index > 0 && !fits {
            value.truncate(before);
            return (index, value);
        }
    }
    (tries.len(), value)
}

/// The inverse of [`encode_run`].
pub(super) fn decode_run(mut rest: &[u8]) -> Option<Vec<FirstTry>> {
    let mut deltas = IdDeltas::default();
    let (mut tries, mut at_ms) = (Vec::new(), None);
    while !rest.is_empty() {
        let mut ahead = rest;
        if read_varint(&mut ahead)? == NO_ID {
            at_ms = match read_varint(&mut ahead)? {
                0 => None,
                time => Some(u64::try_from(time - 1).ok()?),
            };
            rest = ahead;
        } else {
            tries.push(FirstTry { event: deltas.read(&mut rest)?, at_ms });
        }
    }
    Some(tries)
}

#[cfg(test)]
mod tests {
    use hookmill_actors::domain::ids::IntegrationId;
    use proptest::prelude::*;

    use super::{super::values::tests::any_ids, *};

    proptest! {
        #[test]
        fn runs_survive_and_stay_small(
            mut ids in any_ids(), times in proptest::collection::vec(proptest::option::of(any::<u64>()), 1..8),
        ) {
            ids.sort();
            ids.dedup();
            let times = times.iter().flat_map(|at_ms| [*at_ms; 9]).cycle();
            let tries: Vec<FirstTry> = ids.into_iter().zip(times).map(|(event, at_ms)| FirstTry { event, at_ms }).collect();
            let mut back = Vec::new();
            let mut rest = tries.as_slice();
            while !rest.is_empty() {
                let (taken, value) = encode_run(rest);
                prop_assert!(value.len() <= VALUE_BYTES_MAX && taken > 0 && taken <= RUN_IDS_MAX);
                prop_assert!(rest[taken - 1].event.millis() - rest[0].event.millis() <= RUN_SPAN_MS);
                back.extend(decode_run(&value).unwrap());
                rest = &rest[taken..];
            }
            prop_assert_eq!(back, tries);
        }

        #[test]
        fn a_run_without_times_is_read_as_ever(mut ids in any_ids()) {
            ids.sort();
            let mut plain = Vec::new();
            let mut deltas = IdDeltas::default();
            for id in &ids {
                deltas.write(*id, &mut plain);
            }
            let tries = ids.iter().map(|event| FirstTry { event: *event, at_ms: None }).collect();
            prop_assert_eq!(decode_run(&plain), Some(tries));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_run(&bytes);
        }
    }

    #[test]
    fn a_full_run_of_neighbours_takes_few_bytes() {
        let ids = (0..RUN_IDS_MAX as u128)
            .map(|n| EventId::from_parts((1_700_000_000_000 << 26) + n * 1_000_000, IntegrationId(7), u16::MAX));
        let tries: Vec<FirstTry> = ids.map(|event| FirstTry { event, at_ms: Some(1_700_000_000_000) }).collect();
        let (taken, value) = encode_run(&tries);
        assert_eq!(taken, RUN_IDS_MAX);
        assert!(value.len() < 7 * RUN_IDS_MAX, "{} bytes", value.len());
    }
}
