//! Values that hold a run: deliveries of a subscription that succeeded at their first try, and when that was recorded.

use hookmill_actors::{
    domain::{ids::EventId, limits::RUN_IDS_MAX},
    ports::state_store::FirstTry,
};

use super::{
    sled_db::VALUE_BYTES_MAX,
    values::{IdDeltas, NO_ID, read_varint, write_varint},
};

/// Ids of one run lie within so many milliseconds: a look-up walks back no further than that.
pub(super) const RUN_SPAN_MS: u64 = 1 << 16;

/// A delivery that succeeded at its first try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Success {
    pub(super) event: EventId,
    /// When that was recorded; `None` where it was not kept.
    pub(super) at_ms: Option<u64>,
    /// `None` where it was not kept.
    pub(super) attempt: Option<FirstTry>,
}

/// No time is so late: from here on each id is followed by its attempt, or, with one more, by none.
const WITH_ATTEMPTS: u128 = (1 << 64) + 1;
const WITHOUT_ATTEMPTS: u128 = WITH_ATTEMPTS + 1;

/// The beginning of an ascending list that makes one run: how many, and its value. A time stands before the first of
/// those that it holds for: nearly always one for all, as a run is made by one commit.
pub(super) fn encode_run(successes: &[Success]) -> (usize, Vec<u8>) {
    let mut value = Vec::new();
    let mut deltas = IdDeltas::default();
    let first_ms = successes.first().map_or(0, |first| first.event.millis());
    let (mut time, mut with_attempts, mut began_ms) = (None, false, 0);
    for (index, Success { event, at_ms, attempt }) in successes.iter().enumerate() {
        let before = value.len();
        if *at_ms != time {
            time = *at_ms;
            write_varint(NO_ID, &mut value);
            write_varint(at_ms.map_or(0, |at_ms| u128::from(at_ms) + 1), &mut value);
        }
        if attempt.is_some() != with_attempts {
            with_attempts = attempt.is_some();
            write_varint(NO_ID, &mut value);
            write_varint(if with_attempts { WITH_ATTEMPTS } else { WITHOUT_ATTEMPTS }, &mut value);
        }
        deltas.write(*event, &mut value);
        if let Some(FirstTry { at_ms, duration_ms, status }) = attempt {
            // Attempts of neighbours begin together: a wrapping difference is small either way.
            write_varint(zigzag(at_ms.wrapping_sub(began_ms)), &mut value);
            write_varint(u128::from(*duration_ms), &mut value);
            write_varint(status.map_or(0, |status| u128::from(status) + 1), &mut value);
            began_ms = *at_ms;
        }
        let fits = value.len() <= VALUE_BYTES_MAX
            && index < RUN_IDS_MAX
            && event.millis().saturating_sub(first_ms) <= RUN_SPAN_MS;
        if index > 0 && !fits {
            value.truncate(before);
            return (index, value);
        }
    }
    (successes.len(), value)
}

/// The inverse of [`encode_run`].
pub(super) fn decode_run(mut rest: &[u8]) -> Option<Vec<Success>> {
    let mut deltas = IdDeltas::default();
    let (mut successes, mut time, mut with_attempts, mut began_ms) = (Vec::new(), None, false, 0_u64);
    while !rest.is_empty() {
        let mut ahead = rest;
        if read_varint(&mut ahead)? == NO_ID {
            match read_varint(&mut ahead)? {
                0 => time = None,
                WITH_ATTEMPTS => with_attempts = true,
                WITHOUT_ATTEMPTS => with_attempts = false,
                at_ms => time = Some(u64::try_from(at_ms - 1).ok()?),
            }
            rest = ahead;
            continue;
        }
        let event = deltas.read(&mut rest)?;
        let attempt = if with_attempts {
            began_ms = began_ms.wrapping_add(unzigzag(read_varint(&mut rest)?)?);
            let duration_ms = u32::try_from(read_varint(&mut rest)?).ok()?;
            let status = match read_varint(&mut rest)? {
                0 => None,
                status => Some(u16::try_from(status - 1).ok()?),
            };
            Some(FirstTry { at_ms: began_ms, duration_ms, status })
        } else {
            None
        };
        successes.push(Success { event, at_ms: time, attempt });
    }
    Some(successes)
}

/// A difference of either sign, small where its absolute value is (as Protocol Buffers have it).
fn zigzag(difference: u64) -> u128 {
    u128::from((difference << 1) ^ 0_u64.wrapping_sub(difference >> 63))
}

fn unzigzag(coded: u128) -> Option<u64> {
    let coded = u64::try_from(coded).ok()?;
    Some((coded >> 1) ^ 0_u64.wrapping_sub(coded & 1))
}

#[cfg(test)]
mod tests {
    use hookmill_actors::domain::ids::IntegrationId;
    use proptest::prelude::*;

    use super::{super::values::tests::any_ids, *};

    fn any_attempt() -> impl Strategy<Value = Option<FirstTry>> {
        let attempt = |(at_ms, duration_ms, status)| FirstTry { at_ms, duration_ms, status };
        proptest::option::of(any::<(u64, u32, Option<u16>)>().prop_map(attempt))
    }

    proptest! {
        #[test]
        fn runs_survive_and_stay_small(
            mut ids in any_ids(), times in proptest::collection::vec((any::<Option<u64>>(), any_attempt()), 1..8),
        ) {
            ids.sort();
            ids.dedup();
            let times = times.iter().flat_map(|time| [*time; 9]).cycle();
            let successes: Vec<Success> =
                ids.into_iter().zip(times).map(|(event, (at_ms, attempt))| Success { event, at_ms, attempt }).collect();
            let mut back = Vec::new();
            let mut rest = successes.as_slice();
            while !rest.is_empty() {
                let (taken, value) = encode_run(rest);
                prop_assert!(value.len() <= VALUE_BYTES_MAX && taken > 0 && taken <= RUN_IDS_MAX);
                prop_assert!(rest[taken - 1].event.millis() - rest[0].event.millis() <= RUN_SPAN_MS);
                back.extend(decode_run(&value).unwrap());
                rest = &rest[taken..];
            }
            prop_assert_eq!(back, successes);
        }

        #[test]
        fn a_run_without_times_is_read_as_ever(mut ids in any_ids()) {
            ids.sort();
            let mut plain = Vec::new();
            let mut deltas = IdDeltas::default();
            for id in &ids {
                deltas.write(*id, &mut plain);
            }
            let successes = ids.iter().map(|event| Success { event: *event, at_ms: None, attempt: None }).collect();
            prop_assert_eq!(decode_run(&plain), Some(successes));
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
        let attempt = |n: u64| FirstTry { at_ms: 1_700_000_000_000 + n % 7, duration_ms: 100, status: Some(204) };
        let successes: Vec<Success> = ids
            .zip(0..)
            .map(|(event, n)| Success { event, at_ms: Some(1_700_000_000_000), attempt: Some(attempt(n)) })
            .collect();
        let (taken, value) = encode_run(&successes);
        assert_eq!(taken, RUN_IDS_MAX);
        assert!(value.len() < 11 * RUN_IDS_MAX, "{} bytes", value.len());
    }
}
