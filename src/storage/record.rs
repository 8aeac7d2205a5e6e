//! The stored form of one event: a small header that the writer stamps, then what the ingress encoded.
//!
//! ```text
//! version u8 | kind u8 | 0 u16 | envelope bytes u32 | payload bytes u32 | payload crc u32 | id 16 | header crc u32
//! envelope: MessagePack of the arrival's facts, the header block as it is
//! body: as received
//! ```
//! Numbers are little-endian, the id is big-endian. The payload is envelope and body; its checksum is made on the
//! sender's thread. The header's checksum begins with the segment's salt, so that bytes left in a recycled file
//! never read as a record. A record can be read and judged alone.

use std::net::IpAddr;

use bytes::{Buf, BufMut, Bytes};
use hookmill_actors::domain::{
    event::{Arrival, Event},
    headers::HeaderBlock,
    ids::{EndpointId, EventId},
};
use serde::{Deserialize, Serialize};

/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 36;
const RECORD_VERSION: u8 = 1;

/// Why a record is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// It was accepted here.
    Event,
    /// It was copied here when its own segment went, because a dead letter or a due retry needs it.
    Kept,
}

/// What the writer knows of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Why it is here.
    pub kind: RecordKind,
    /// The event.
    pub id: EventId,
    /// Of the payload, from its start.
    pub envelope_bytes: u32,
    /// Envelope and body.
    pub payload_bytes: u32,
    /// Of envelope and body.
    pub payload_crc: u32,
}

impl RecordHeader {
    /// The bytes, checked by the segment's salt.
    pub fn encode(&self, salt: u64) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        let mut rest = &mut bytes[..];
        rest.put_u8(RECORD_VERSION);
        rest.put_u8(match self.kind {
            RecordKind::Event => 1,
            RecordKind::Kept => 2,
        });
        rest.put_u16_le(0);
        rest.put_u32_le(self.envelope_bytes);
        rest.put_u32_le(self.payload_bytes);
        rest.put_u32_le(self.payload_crc);
        rest.put_u128(self.id.as_u128());
        let crc = salted_crc(salt, &bytes[..RECORD_HEADER_BYTES - 4]);
        bytes[RECORD_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header at the start of `bytes`; `None` when it is not whole, or of another segment.
    pub fn decode(bytes: &[u8], salt: u64) -> Option<Self> {
        let (mut header, _) = bytes.split_at_checked(RECORD_HEADER_BYTES)?;
        let crc = salted_crc(salt, &header[..RECORD_HEADER_BYTES - 4]);
        if header.get_u8() != RECORD_VERSION {
            return None;
        }
        let kind = match header.get_u8() {
            1 => RecordKind::Event,
            2 => RecordKind::Kept,
            _ => return None,
        };
        header.advance(2);
        let record = Self {
            kind,
            envelope_bytes: header.get_u32_le(),
            payload_bytes: header.get_u32_le(),
            payload_crc: header.get_u32_le(),
            id: EventId::from_u128(header.get_u128()),
        };
        (header.get_u32_le() == crc && record.envelope_bytes <= record.payload_bytes).then_some(record)
    }

    /// Bytes of the whole record.
    pub fn record_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.payload_bytes as usize
    }
}

/// An event's payload, ready to be copied into a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    envelope: Vec<u8>,
    body: Bytes,
    crc: u32,
}

/// The facts of an arrival in `MessagePack`, as an array: later versions may add to its end.
#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    endpoint: EndpointId,
    received_at_ms: u64,
    accepted_version: u64,
    peer: IpAddr,
    hops: u8,
    query: &'a str,
    #[serde(borrow, with = "serde_bytes")]
    headers: &'a [u8],
}

impl Payload {
    /// Encodes and sums an arrival. The body is not copied.
    pub fn encode(arrival: Arrival) -> Self {
        let envelope = Envelope {
            endpoint: arrival.endpoint,
            received_at_ms: arrival.received_at_ms,
            accepted_version: arrival.accepted_version,
            peer: arrival.peer,
            hops: arrival.hops,
            query: &arrival.query,
            headers: arrival.headers.as_bytes(),
        };
        let mut bytes = Vec::with_capacity(64 + arrival.query.len() + arrival.headers.as_bytes().len());
        rmp_serde::encode::write(&mut bytes, &envelope).expect("numbers, text and bytes always encode into memory");
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes);
        crc.update(&arrival.body);
        Self { envelope: bytes, body: arrival.body, crc: crc.finalize() }
    }

    /// Takes a stored payload to be copied elsewhere. One that does not match its checksum leaves nothing but a
    /// record that reads as damaged: the loss stays visible, and no wrong byte gets a right checksum.
    pub fn copied(header: &RecordHeader, payload: &Bytes) -> Self {
        if payload.len() != header.payload_bytes as usize || crc32fast::hash(payload) != header.payload_crc {
            return Self::lost();
        }
        let envelope = payload.slice(..header.envelope_bytes as usize).to_vec();
        Self { envelope, body: payload.slice(header.envelope_bytes as usize..), crc: header.payload_crc }
    }

    /// What stands for a payload that cannot be read any more: an empty envelope does not decode.
    pub fn lost() -> Self {
        Self { envelope: Vec::new(), body: Bytes::new(), crc: crc32fast::hash(&[]) }
    }

    /// Bytes of the record that this payload makes.
    pub fn record_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.envelope.len() + self.body.len()
    }

    /// Appends the record to a commit.
    pub fn put(&self, buffer: &mut Vec<u8>, kind: RecordKind, id: EventId, salt: u64) {
        let length = |bytes: usize| u32::try_from(bytes).expect("records are bounded far below 4 GiB when appended");
        let header = RecordHeader {
            kind,
            id,
            envelope_bytes: length(self.envelope.len()),
            payload_bytes: length(self.envelope.len() + self.body.len()),
            payload_crc: self.crc,
        };
        buffer.extend_from_slice(&header.encode(salt));
        buffer.extend_from_slice(&self.envelope);
        buffer.extend_from_slice(&self.body);
    }
}

/// Reads the event of a record whose header was decoded; `None` when its payload is damaged.
pub fn decode_event(header: &RecordHeader, payload: &Bytes) -> Option<Event> {
    if payload.len() != header.payload_bytes as usize || crc32fast::hash(payload) != header.payload_crc {
        return None;
    }
    let (envelope, _) = payload.split_at_checked(header.envelope_bytes as usize)?;
    let envelope: Envelope<'_> = rmp_serde::from_slice(envelope).ok()?;
    let arrival = Arrival {
        endpoint: envelope.endpoint,
        received_at_ms: envelope.received_at_ms,
        accepted_version: envelope.accepted_version,
        peer: envelope.peer,
        hops: envelope.hops,
        query: envelope.query.into(),
        headers: HeaderBlock::from_bytes(payload.slice_ref(envelope.headers))?,
        body: payload.slice(header.envelope_bytes as usize..),
    };
    Some(Event { id: header.id, arrival })
}

/// A checksum that differs between segments for the same bytes.
pub fn salted_crc(salt: u64, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

#[cfg(test)]
pub(crate) mod tests {
    use hookmill_actors::domain::ids::IntegrationId;
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn arrival(body: impl Into<Bytes>) -> Arrival {
        Arrival {
            endpoint: EndpointId(7),
            received_at_ms: 1_700_000_000_000,
            accepted_version: 3,
            peer: IpAddr::from([192, 0, 2, 1]),
            hops: 0,
            query: "a=1".into(),
            headers: HeaderBlock::from_lines([("content-type", b"application/json".as_slice())]),
            body: body.into(),
        }
    }

    proptest! {
        #[test]
        fn an_event_survives(
            body in proptest::collection::vec(any::<u8>(), 0..2_000), query in ".{0,40}", v6 in any::<[u8; 16]>(),
            endpoint in any::<u32>(), received in any::<u64>(), version in any::<u64>(), hops in any::<u8>(),
            value in proptest::collection::vec(any::<u8>(), 0..60), salt in any::<u64>(), sequence in any::<u64>(),
        ) {
            let arrival = Arrival {
                endpoint: EndpointId(endpoint), received_at_ms: received, accepted_version: version,
                peer: IpAddr::from(v6), hops, query: query.into(),
                headers: HeaderBlock::from_lines([("x-a", value.as_slice())]), body: body.into(),
            };
            let id = EventId::from_parts(sequence.into(), IntegrationId(9), 5);
            let payload = Payload::encode(arrival.clone());
            let mut record = Vec::new();
            payload.put(&mut record, RecordKind::Event, id, salt);
            prop_assert_eq!(record.len(), payload.record_bytes());
            let header = RecordHeader::decode(&record, salt).expect("whole");
            prop_assert_eq!(header.record_bytes(), record.len());
            let event = decode_event(&header, &Bytes::from(record).slice(RECORD_HEADER_BYTES..));
            prop_assert_eq!(event, Some(Event { id, arrival }));
        }

        #[test]
        fn every_flipped_bit_is_seen(body in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let id = EventId::from_parts(1, IntegrationId(9), 5);
            let mut record = Vec::new();
            Payload::encode(arrival(body)).put(&mut record, RecordKind::Event, id, 11);
            let at = at.index(record.len());
            record[at] ^= 1 << bit;
            let event = RecordHeader::decode(&record, 11)
                .and_then(|header| decode_event(&header, &Bytes::from(record).slice(RECORD_HEADER_BYTES..)));
            prop_assert_eq!(event, None);
        }
    }

    #[test]
    fn a_record_of_another_segment_is_none() {
        let mut record = Vec::new();
        Payload::encode(arrival("x")).put(&mut record, RecordKind::Event, EventId::at_millis(1), 1);
        assert!(RecordHeader::decode(&record, 1).is_some());
        assert!(RecordHeader::decode(&record, 2).is_none());
    }
}
