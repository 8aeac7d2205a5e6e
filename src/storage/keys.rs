//! Keys of the state's tree: one letter, then what it is about, numbers big-endian so that ranges sort as ids do.
//!
//! | key | value |
//! | --- | --- |
//! | `a` | the place in the log that was applied, save for what stands in memory |
//! | `b` | the place in the log up to which that was written, too |
//! | `d` subscription, event | a delivery's record |
//! | `e` event, subscription | nothing: the event is due, dead or parked for that subscription |
//! | `i` integration | its intake position |
//! | `j` number | a bulk replay |
//! | `k` endpoint, last event | a batch of dedup keys |
//! | `l` subscription, lane, event | a byte that says whether the event is parked: those held in the lane |
//! | `m` integration, event | the event's mark |
//! | `n` integration, last event | a batch of notes |
//! | `p` subscription, part | its position; parts above 0 only when it does not fit one value |
//! | `q` subscription, due time, event | nothing: the due queue |
//! | `r` subscription, first event | a run of deliveries that succeeded at their first try |
//! | `t` number, part | a run of a task; parts above 0 only where it does not fit one value |
//! | `x` subscription, event | a dead letter |

use hookmill_actors::{
    domain::ids::{EventId, IntegrationId, ReplayId, SubscriptionId, TaskRunId},
    ports::state_store::{Due, InLane},
};

pub(super) const APPLIED: [u8; 1] = [b'a'];
pub(super) const POSITIONS: [u8; 1] = [b'b'];
pub(super) const RECORD: u8 = b'd';
pub(super) const NEEDED: u8 = b'e';
pub(super) const SEEN: u8 = b'k';
pub(super) const LANE: u8 = b'l';
pub(super) const MARK: u8 = b'm';
pub(super) const NOTES: u8 = b'n';
pub(super) const DUE: u8 = b'q';
pub(super) const RUN: u8 = b'r';
pub(super) const DEAD: u8 = b'x';
pub(super) const JOB: u8 = b'j';
pub(super) const TASK_RUN: u8 = b't';

/// Bytes of a key of the form: letter, number, event.
const OWNED_BYTES: usize = 1 + 4 + 16;

pub(super) fn intake(integration: IntegrationId) -> [u8; 5] {
    number(b'i', integration.0)
}

pub(super) fn position(subscription: SubscriptionId, part: u8) -> [u8; 6] {
    parted(b'p', subscription.0, part)
}

pub(super) fn task_run(id: TaskRunId, part: u8) -> [u8; 6] {
    parted(TASK_RUN, id.0, part)
}

fn parted(letter: u8, owner: u32, part: u8) -> [u8; 6] {
    let mut key = [0; 6];
    key[..5].copy_from_slice(&number(letter, owner));
    key[5] = part;
    key
}

/// Whose a [`parted`] key is.
pub(super) fn parse_parted(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*key.get(1..)?.first_chunk::<4>()?))
}

/// `d`, `k`, `m`, `n`, `r` and `x` keys: of a subscription, integration or endpoint, for an event.
pub(super) fn owned(letter: u8, owner: u32, event: EventId) -> [u8; OWNED_BYTES] {
    let mut key = [0; OWNED_BYTES];
    key[..5].copy_from_slice(&number(letter, owner));
    key[5..].copy_from_slice(&event.to_bytes());
    key
}

pub(super) fn job(id: ReplayId) -> [u8; 5] {
    number(JOB, id.0)
}

/// The owner and the event of an [`owned`] key.
pub(super) fn parse_owned(key: &[u8]) -> Option<(u32, EventId)> {
    let (owner, event) = key.get(1..)?.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*owner), EventId::from_bytes(event.try_into().ok()?)))
}

pub(super) fn due(subscription: SubscriptionId, due: Due) -> [u8; 29] {
    ordered(DUE, subscription, due.due_ms, due.event)
}

pub(super) fn parse_due(key: &[u8]) -> Option<Due> {
    parse_ordered(key).map(|(due_ms, event)| Due { due_ms, event })
}

pub(super) fn lane(subscription: SubscriptionId, held: InLane) -> [u8; 29] {
    ordered(LANE, subscription, held.lane, held.event)
}

pub(super) fn parse_lane(key: &[u8]) -> Option<InLane> {
    parse_ordered(key).map(|(lane, event)| InLane { lane, event })
}

/// `l` and `q` keys: of a subscription, by a number, for an event.
pub(super) fn ordered(letter: u8, subscription: SubscriptionId, by: u64, event: EventId) -> [u8; 29] {
    let mut key = [0; 29];
    key[..5].copy_from_slice(&number(letter, subscription.0));
    key[5..13].copy_from_slice(&by.to_be_bytes());
    key[13..].copy_from_slice(&event.to_bytes());
    key
}

fn parse_ordered(key: &[u8]) -> Option<(u64, EventId)> {
    let (by, event) = key.get(5..)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*by), EventId::from_bytes(event.try_into().ok()?)))
}

/// Whose an `l` or `q` key is.
pub(super) fn parse_subscription(key: &[u8]) -> Option<SubscriptionId> {
    Some(SubscriptionId(u32::from_be_bytes(*key.get(1..)?.first_chunk::<4>()?)))
}

pub(super) fn needed(event: EventId, subscription: SubscriptionId) -> [u8; 21] {
    let mut key = [0; 21];
    key[0] = NEEDED;
    key[1..17].copy_from_slice(&event.to_bytes());
    key[17..].copy_from_slice(&subscription.0.to_be_bytes());
    key
}

pub(super) fn parse_needed(key: &[u8]) -> Option<EventId> {
    Some(EventId::from_bytes(*key.get(1..)?.first_chunk::<16>()?))
}

pub(super) fn number(letter: u8, number: u32) -> [u8; 5] {
    let [a, b, c, d] = number.to_be_bytes();
    [letter, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_sort_as_what_they_are_made_of(
            a in (any::<u32>(), any::<u64>(), any::<u128>()), b in (any::<u32>(), any::<u64>(), any::<u128>()),
        ) {
            let event = |it: (u32, u64, u128)| EventId::from_u128(it.2);
            let due_of = |it| Due { due_ms: it, event: EventId::ZERO };
            prop_assert_eq!(
                owned(RUN, a.0, event(a)).cmp(&owned(RUN, b.0, event(b))),
                (a.0, event(a)).cmp(&(b.0, event(b)))
            );
            prop_assert_eq!(
                due(SubscriptionId(1), due_of(a.1)).cmp(&due(SubscriptionId(1), due_of(b.1))),
                a.1.cmp(&b.1)
            );
            prop_assert_eq!(parse_owned(&owned(DEAD, a.0, event(a))), Some((a.0, event(a))));
            let entry = Due { due_ms: a.1, event: event(a) };
            prop_assert_eq!(parse_due(&due(SubscriptionId(a.0), entry)), Some(entry));
            let held = InLane { lane: a.1, event: event(a) };
            prop_assert_eq!(parse_lane(&lane(SubscriptionId(a.0), held)), Some(held));
            prop_assert_eq!(parse_needed(&needed(event(a), SubscriptionId(a.0))), Some(event(a)));
        }
    }

    #[test]
    fn short_keys_are_refused() {
        assert_eq!(parse_owned(b"d"), None);
        assert_eq!(parse_due(b"q1234"), None);
        assert_eq!(parse_needed(b""), None);
    }
}
