//! A commit: what one sync makes durable. Header, records of events and kept payloads, state operations.
//!
//! The log is a sequence of commits, numbered without a gap. Each begins at a multiple of [`COMMIT_ALIGN`] in its
//! segment and names the id before and after it, so that a lost or foreign one is seen. Its header is checked by the
//! segment's salt; its records by their own checksums; its state by the one in the header.

use bytes::{Buf, BufMut};
use hookmill_actors::{domain::ids::EventId, ports::state_store::StateOp};

use super::record::salted_crc;

/// Commits begin at multiples of this, so that a search for a later one can step.
pub(crate) const COMMIT_ALIGN: usize = 64;
/// Bytes of a commit before its records.
pub(crate) const COMMIT_HEADER_BYTES: usize = 88;
const MAGIC: u32 = u32::from_le_bytes(*b"HMCO");

/// What stands before a commit's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitHeader {
    /// Counts without a gap from 1.
    pub(crate) number: u64,
    /// Segments before this one are trimmed, or about to be.
    pub(crate) oldest_segment: u64,
    /// Bytes of all records.
    pub(crate) records_bytes: u32,
    /// Bytes of state after them.
    pub(crate) state_bytes: u32,
    /// Checksum of the state.
    pub(crate) state_crc: u32,
    /// Records of events.
    pub(crate) events: u32,
    /// Records of kept payloads.
    pub(crate) kept: u32,
    /// The last id before this commit.
    pub(crate) prev_last: EventId,
    /// The last id given out, by this commit or before it.
    pub(crate) last: EventId,
}

impl CommitHeader {
    /// Fills in the header's place at the start of a commit.
    pub(crate) fn encode(&self, salt: u64, place: &mut [u8]) {
        let mut rest = &mut place[..COMMIT_HEADER_BYTES];
        rest.put_u32_le(MAGIC);
        rest.put_u32_le(0);
        rest.put_u64_le(salt);
        rest.put_u64_le(self.number);
        rest.put_u64_le(self.oldest_segment);
        rest.put_u32_le(self.records_bytes);
        rest.put_u32_le(self.state_bytes);
        rest.put_u32_le(self.state_crc);
        rest.put_u32_le(self.events);
        rest.put_u32_le(self.kept);
        rest.put_u128(self.prev_last.as_u128());
        rest.put_u128(self.last.as_u128());
        let crc = salted_crc(salt, &place[..COMMIT_HEADER_BYTES - 4]);
        place[COMMIT_HEADER_BYTES - 4..COMMIT_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the header at the start of `bytes`; `None` when there is none of this segment.
    pub(crate) fn decode(bytes: &[u8], salt: u64) -> Option<Self> {
        let (mut header, _) = bytes.split_at_checked(COMMIT_HEADER_BYTES)?;
        let whole = header;
        if header.get_u32_le() != MAGIC {
            return None;
        }
        header.advance(4);
        if header.get_u64_le() != salt {
            return None;
        }
        let commit = Self {
            number: header.get_u64_le(),
            oldest_segment: header.get_u64_le(),
            records_bytes: header.get_u32_le(),
            state_bytes: header.get_u32_le(),
            state_crc: header.get_u32_le(),
            events: header.get_u32_le(),
            kept: header.get_u32_le(),
            prev_last: EventId::from_u128(header.get_u128()),
            last: EventId::from_u128(header.get_u128()),
        };
        (header.get_u32_le() == salted_crc(salt, &whole[..COMMIT_HEADER_BYTES - 4])).then_some(commit)
    }

    /// Bytes of the commit without the padding.
    pub(crate) fn content_bytes(&self) -> u64 {
        COMMIT_HEADER_BYTES as u64 + u64::from(self.records_bytes) + u64::from(self.state_bytes)
    }

    /// Bytes from this commit's start to the next one's.
    pub(crate) fn stride(&self) -> u64 {
        self.content_bytes().next_multiple_of(COMMIT_ALIGN as u64)
    }
}

/// Encodes one request's operations; a commit's state is a sequence of these.
pub(crate) fn encode_state(ops: &[StateOp]) -> Vec<u8> {
    rmp_serde::to_vec(ops).expect("state operations always encode into memory")
}

/// Appends the operations of a commit's state to `ops`.
pub(crate) fn decode_state(mut bytes: &[u8], ops: &mut Vec<StateOp>) -> Result<(), rmp_serde::decode::Error> {
    while !bytes.is_empty() {
        ops.extend(rmp_serde::from_read::<_, Vec<StateOp>>(&mut bytes)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hookmill_actors::{
        domain::{
            delivery::{Attempt, DeadLetter, DeadReason, DeliveryRecord, DeliveryStatus, Position},
            ids::{IntegrationId, SubscriptionId},
        },
        ports::state_store::{FirstTry, Note},
    };
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_survives_and_every_flipped_bit_is_seen(
            number in any::<u64>(), oldest in any::<u64>(), lengths in any::<[u32; 5]>(),
            prev in any::<u128>(), last in any::<u128>(), salt in any::<u64>(), bit in 0usize..COMMIT_HEADER_BYTES * 8,
        ) {
            let header = CommitHeader {
                number, oldest_segment: oldest, records_bytes: lengths[0], state_bytes: lengths[1],
                state_crc: lengths[2], events: lengths[3], kept: lengths[4],
                prev_last: EventId::from_u128(prev), last: EventId::from_u128(last),
            };
            let mut bytes = vec![0; COMMIT_HEADER_BYTES];
            header.encode(salt, &mut bytes);
            prop_assert_eq!(CommitHeader::decode(&bytes, salt), Some(header));
            prop_assert_eq!(CommitHeader::decode(&bytes, salt.wrapping_add(1)), None);
            // The reserved word is covered by the checksum as well.
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(CommitHeader::decode(&bytes, salt), None);
        }
    }

    #[test]
    fn state_of_several_requests_is_read_back_in_order() {
        let event = EventId::from_parts(77, IntegrationId(1), 2);
        let record = DeliveryRecord {
            status: DeliveryStatus::Retrying,
            attempts: 1,
            latest: vec![Attempt {
                at_ms: 1,
                duration_ms: 2,
                status: Some(500),
                error: None,
                reply: Some("no".into()),
            }],
            due_ms: Some(9),
            ..DeliveryRecord::new(4)
        };
        let dead = DeadLetter {
            event,
            subscription: SubscriptionId(1),
            reason: DeadReason::Refused,
            error: "gone".into(),
            at_ms: 3,
            attempts: 1,
        };
        let note = Note { event, event_type: Some("a.b".into()), ..Note::default() };
        let first = vec![
            StateOp::Intake { integration: IntegrationId(1), upto: event, notes: vec![note] },
            StateOp::Position {
                subscription: SubscriptionId(1),
                position: Position { read_upto: event, open: vec![event] },
            },
        ];
        let second = vec![
            StateOp::Delivered {
                subscription: SubscriptionId(1),
                events: vec![event],
                at_ms: Some(7),
                attempts: vec![FirstTry { at_ms: 6, duration_ms: 1, status: None }],
            },
            StateOp::Delivery { subscription: SubscriptionId(1), event, record },
            StateOp::Dead(dead),
        ];
        let bytes = [encode_state(&first), encode_state(&second)].concat();
        let mut ops = Vec::new();
        decode_state(&bytes, &mut ops).unwrap();
        assert_eq!(ops, [first, second].concat());
        assert!(decode_state(&bytes[..bytes.len() - 1], &mut Vec::new()).is_err());
    }

    #[test]
    fn what_was_written_without_a_time_is_read() {
        #[derive(serde::Serialize)]
        enum Former {
            Delivered { subscription: SubscriptionId, events: Vec<EventId> },
        }
        let (subscription, events) = (SubscriptionId(1), vec![EventId::MAX]);
        let bytes = rmp_serde::to_vec(&[Former::Delivered { subscription, events: events.clone() }]).unwrap();
        let mut ops = Vec::new();
        decode_state(&bytes, &mut ops).unwrap();
        assert_eq!(ops, [StateOp::Delivered { subscription, events, at_ms: None, attempts: Vec::new() }]);
    }
}
