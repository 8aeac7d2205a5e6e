//! Values of the state's tree, each at most [`VALUE_BYTES_MAX`]: lists of ids and notes in a form of their own,
//! the rest in `MessagePack`, where a struct is an array and new fields come last with a default.
//!
//! Ids that follow each other differ by little in their sequence, not at all in their integration, and wholly in
//! their 16 random bits. So an id is stored as the difference of its sequence, and those bits: 4 to 6 bytes.

use hookmill_actors::{
    domain::{
        delivery::{DeadLetter, DeliveryRecord, Position},
        ids::{EndpointId, EventId, IntegrationId},
        limits::{ATTEMPTS_KEPT, IDENTITY_BYTES_MAX, REPLY_EXCERPT_BYTES},
    },
    ports::state_store::{Mark, Note},
};

use super::sled_db::VALUE_BYTES_MAX;

/// Bytes of a dead letter's error that are kept.
const DEAD_ERROR_BYTES: usize = 1_024;
/// Bytes of a mark's text that are kept.
const MARK_TEXT_BYTES: usize = 512;

/// Writes ids relative to each other.
#[derive(Default)]
pub(super) struct IdDeltas {
    sequence: u128,
    integration: u32,
}

/// The integration changes: its number follows.
const OTHER_INTEGRATION: u128 = 1;
/// The id goes back, or is not of the form that the log gives: its 16 bytes follow.
const WHOLE: u128 = 2;
/// No id begins so: a run has a time there.
pub(super) const NO_ID: u128 = WHOLE | OTHER_INTEGRATION;

impl IdDeltas {
    pub(super) fn write(&mut self, id: EventId, out: &mut Vec<u8>) {
        let (sequence, integration) = (id.sequence(), id.integration());
        let [.., high, low] = id.to_bytes();
        let random = u16::from_be_bytes([high, low]);
        match sequence.checked_sub(self.sequence) {
            Some(delta) if EventId::from_parts(sequence, integration, random) == id => {
                let other = integration.0 != self.integration;
                write_varint((delta << 2) | if other { OTHER_INTEGRATION } else { 0 }, out);
                if other {
                    out.extend(integration.0.to_be_bytes());
                }
                out.extend([high, low]);
            }
            _ => {
                write_varint(WHOLE, out);
                out.extend(id.to_bytes());
            }
        }
        (self.sequence, self.integration) = (sequence, integration.0);
    }

    pub(super) fn read(&mut self, rest: &mut &[u8]) -> Option<EventId> {
        let head = read_varint(rest)?;
        let id = if head & WHOLE == 0 {
            if head & OTHER_INTEGRATION != 0 {
                self.integration = u32::from_be_bytes(take(rest)?);
            }
            let sequence = self.sequence.checked_add(head >> 2)?;
            EventId::from_parts(sequence, IntegrationId(self.integration), u16::from_be_bytes(take(rest)?))
        } else {
            EventId::from_bytes(take(rest)?)
        };
        (self.sequence, self.integration) = (id.sequence(), id.integration().0);
        Some(id)
    }
}

/// Writes as many ids as fit `room` bytes and `fits` agrees to; returns how many, at least one of any.
fn write_ids(ids: &[EventId], out: &mut Vec<u8>, fits: impl Fn(usize, EventId) -> bool) -> usize {
    let mut deltas = IdDeltas::default();
    for (index, id) in ids.iter().enumerate() {
        let before = out.len();
        deltas.write(*id, out);
        if index > 0 && (out.len() > VALUE_BYTES_MAX || !fits(index, *id)) {
            out.truncate(before);
            return index;
        }
    }
    ids.len()
}

fn read_ids(mut rest: &[u8]) -> Option<Vec<EventId>> {
    let mut deltas = IdDeltas::default();
    let mut ids = Vec::new();
    while !rest.is_empty() {
        ids.push(deltas.read(&mut rest)?);
    }
    Some(ids)
}

/// A position's parts, the first with how many there are and `read_upto`. Open ids of one integration always fit
/// one; more are for what the bound on open ids does not foresee.
pub(super) fn encode_position(position: &Position) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let mut open = position.open.as_slice();
    loop {
        let mut part = Vec::new();
        if parts.is_empty() {
            part.push(0);
            part.extend(position.read_upto.to_bytes());
        }
        let taken = write_ids(open, &mut part, |_, _| true);
        parts.push(part);
        open = &open[taken..];
        if open.is_empty() {
            break;
        }
    }
    parts[0][0] = u8::try_from(parts.len()).expect("`IN_FLIGHT_MAX` open ids take far fewer than 255 parts");
    parts
}

/// How many parts the first says there are.
pub(super) fn position_parts(first: &[u8]) -> Option<u8> {
    first.first().copied().filter(|parts| *parts > 0)
}

/// The inverse of [`encode_position`].
pub(super) fn decode_position(first: &[u8], others: &[impl AsRef<[u8]>]) -> Option<Position> {
    let mut rest = first.get(1..)?;
    let read_upto = EventId::from_bytes(take(&mut rest)?);
    let mut open = read_ids(rest)?;
    for part in others {
        open.extend(read_ids(part.as_ref())?);
    }
    Some(Position { read_upto, open })
}

/// The notes of one integration in batches: the last event of each, and its value.
pub(super) fn encode_notes(notes: &[Note]) -> Vec<(EventId, Vec<u8>)> {
    let mut batches: Vec<(EventId, Vec<u8>)> = Vec::new();
    let mut writer = NoteWriter::default();
    for note in notes {
        if let Some((last, value)) = batches.last_mut().filter(|(last, _)| same_owner(*last, note.event)) {
            let before = value.len();
            writer.write(note, value);
            if value.len() <= VALUE_BYTES_MAX {
                *last = note.event;
                continue;
            }
            value.truncate(before);
        }
        writer = NoteWriter::default();
        let mut value = Vec::new();
        writer.write(note, &mut value);
        batches.push((note.event, value));
    }
    batches
}

fn same_owner(a: EventId, b: EventId) -> bool {
    a.integration() == b.integration()
}

pub(super) fn decode_notes(mut rest: &[u8]) -> Option<Vec<Note>> {
    let mut deltas = IdDeltas::default();
    let mut notes: Vec<Note> = Vec::new();
    while !rest.is_empty() {
        let event = deltas.read(&mut rest)?;
        let endpoint = match read_varint(&mut rest)? {
            0 => notes.last().and_then(|note: &Note| note.endpoint),
            1 => None,
            number => Some(EndpointId(u32::try_from(number - 2).ok()?)),
        };
        let event_type = match usize::try_from(read_varint(&mut rest)?).ok()? {
            0 => None,
            1 => notes.last()?.event_type.clone(),
            length => Some(read_text(&mut rest, length - 2)?),
        };
        let provider_id = match usize::try_from(read_varint(&mut rest)?).ok()? {
            0 => None,
            length => Some(read_text(&mut rest, length - 1)?),
        };
        notes.push(Note { event, endpoint, event_type, provider_id, ..Note::default() });
    }
    Some(notes)
}

#[derive(Default)]
struct NoteWriter<'a> {
    deltas: IdDeltas,
    last_endpoint: Option<EndpointId>,
    last_type: Option<&'a str>,
}

impl<'a> NoteWriter<'a> {
    /// An endpoint or a type that repeats, as most do, takes one byte.
    fn write(&mut self, note: &'a Note, out: &mut Vec<u8>) {
        self.deltas.write(note.event, out);
        let endpoint = note.endpoint.map_or(1, |endpoint| u128::from(endpoint.0) + 2);
        write_varint(if note.endpoint == self.last_endpoint { 0 } else { endpoint }, out);
        self.last_endpoint = note.endpoint;
        let event_type = note.event_type.as_deref().map(|text| clipped(text, IDENTITY_BYTES_MAX));
        match event_type {
            None => write_varint(0, out),
            Some(_) if event_type == self.last_type => write_varint(1, out),
            Some(text) => write_text(text, 2, out),
        }
        self.last_type = event_type;
        match &note.provider_id {
            None => write_varint(0, out),
            Some(text) => write_text(clipped(text, IDENTITY_BYTES_MAX), 1, out),
        }
    }
}

/// Bytes that stay of a text of an earlier attempt, at least.
const EARLIER_TEXT_BYTES: usize = 40;
/// Bytes that stay of the latest attempt's error, at least.
const LATEST_ERROR_BYTES: usize = 256;
/// Bytes that stay of a record's reason, at least: as much as an operator may write.
const REASON_BYTES: usize = 1_200;

/// A record. What makes it too long for one value is cut from its texts, the oldest attempt's first: whoever looks
/// wants the latest reply, and of the rest that it was no other.
pub(super) fn encode_record(record: &DeliveryRecord) -> Vec<u8> {
    let value = pack(record);
    if value.len() <= VALUE_BYTES_MAX {
        return value;
    }
    let mut record = record.clone();
    let surplus = record.latest.len().saturating_sub(ATTEMPTS_KEPT);
    record.latest.drain(..surplus);
    let mut too_long = pack(&record).len().saturating_sub(VALUE_BYTES_MAX);
    if let Some((latest, earlier)) = record.latest.split_last_mut() {
        for attempt in earlier {
            shorten(&mut attempt.reply, EARLIER_TEXT_BYTES, &mut too_long);
            shorten(&mut attempt.error, EARLIER_TEXT_BYTES, &mut too_long);
        }
        shorten(&mut latest.error, LATEST_ERROR_BYTES, &mut too_long);
        shorten(&mut latest.reply, REPLY_EXCERPT_BYTES, &mut too_long);
    }
    shorten(&mut record.reason, REASON_BYTES, &mut too_long);
    pack(&record)
}

/// Cuts a text by so many bytes, or to the least that stays of it; what remains to be cut elsewhere.
fn shorten(text: &mut Option<String>, bytes_min: usize, too_long: &mut usize) {
    let Some(text) = text else { return };
    let before = text.len();
    text.truncate(clipped(text, before.saturating_sub(*too_long).max(bytes_min)).len());
    *too_long = too_long.saturating_sub(before - text.len());
}

pub(super) fn decode_record(value: &[u8]) -> Option<DeliveryRecord> {
    rmp_serde::from_slice(value).ok()
}

/// A dead letter, its error cut to a bounded length.
pub(super) fn encode_dead_letter(letter: &DeadLetter) -> Vec<u8> {
    let error = clipped(&letter.error, DEAD_ERROR_BYTES);
    if error.len() == letter.error.len() {
        return pack(letter);
    }
    pack(&DeadLetter { error: error.to_owned(), ..letter.clone() })
}

pub(super) fn decode_dead_letter(value: &[u8]) -> Option<DeadLetter> {
    rmp_serde::from_slice(value).ok()
}

/// A mark; a text that is too long is cut.
pub(super) fn encode_mark(mark: &Mark) -> Vec<u8> {
    match mark {
        Mark::Unreadable(why) => pack(&Mark::Unreadable(clipped(why, MARK_TEXT_BYTES).into())),
        Mark::DuplicateOf(_) => pack(mark),
    }
}

pub(super) fn decode_mark(value: &[u8]) -> Option<Mark> {
    rmp_serde::from_slice(value).ok()
}

/// A value in `MessagePack`.
pub(super) fn pack(value: &impl serde::Serialize) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("plain data is written to memory without failing")
}

fn clipped(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// A text behind its length, which is stored `offset` higher.
fn write_text(text: &str, offset: u128, out: &mut Vec<u8>) {
    write_varint(text.len() as u128 + offset, out);
    out.extend(text.as_bytes());
}

fn read_text(rest: &mut &[u8], length: usize) -> Option<Box<str>> {
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(text).ok().map(Box::from)
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

/// LEB128: seven bits a byte, the lowest first.
pub(super) fn write_varint(mut value: u128, out: &mut Vec<u8>) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

pub(super) fn read_varint(rest: &mut &[u8]) -> Option<u128> {
    let mut value = 0u128;
    // A value here has at most 76 bits.
    for shift in (0..77).step_by(7) {
        let [byte] = take(rest)?;
        value |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use hookmill_actors::domain::{
        delivery::{Attempt, DeadReason, DeliveryStatus},
        ids::SubscriptionId,
        limits::{BATCH_EVENTS_MAX, IN_FLIGHT_MAX},
    };
    use proptest::prelude::*;

    use super::*;

    /// Ids as spread as ids of one integration can be: the sequence's whole range is used up.
    fn widest_ids(count: usize) -> Vec<EventId> {
        let step = (1u128 << 74) / count as u128;
        (0..count as u128).map(|n| EventId::from_parts((n + 1) * step - 1, IntegrationId(u32::MAX), u16::MAX)).collect()
    }

    pub(in crate::storage) fn any_ids() -> impl Strategy<Value = Vec<EventId>> {
        let id = prop_oneof![
            8 => (0u128..1 << 74, 0u32..3, any::<u16>())
                .prop_map(|(sequence, owner, random)| EventId::from_parts(sequence, IntegrationId(owner), random)),
            1 => any::<u128>().prop_map(EventId::from_u128),
            1 => Just(EventId::ZERO),
        ];
        proptest::collection::vec(id, 0..600)
    }

    proptest! {
        #[test]
        fn positions_survive_and_stay_small(ids in any_ids(), upto in any::<u128>()) {
            let position = Position { read_upto: EventId::from_u128(upto), open: ids };
            let parts = encode_position(&position);
            prop_assert!(parts.iter().all(|part| part.len() <= VALUE_BYTES_MAX));
            prop_assert_eq!(usize::from(position_parts(&parts[0]).unwrap()), parts.len());
            prop_assert_eq!(decode_position(&parts[0], &parts[1..]), Some(position));
        }

        #[test]
        fn notes_survive_and_stay_small(
            ids in any_ids(),
            texts in proptest::collection::vec(
                (proptest::option::of("[a-c]{0,128}"), proptest::option::of("[ä-ö]{0,64}"), proptest::option::of(0u32..3)),
                600,
            ),
        ) {
            let notes: Vec<Note> = ids.iter().zip(texts).map(|(event, (event_type, provider_id, endpoint))| Note {
                event: *event,
                endpoint: endpoint.map(EndpointId),
                event_type: event_type.map(Into::into),
                provider_id: provider_id.map(Into::into),
                ..Note::default()
            }).collect();
            let batches = encode_notes(&notes);
            let mut back = Vec::new();
            for (last, value) in &batches {
                prop_assert!(value.len() <= VALUE_BYTES_MAX);
                let batch = decode_notes(value).unwrap();
                prop_assert_eq!(batch.last().unwrap().event, *last);
                back.extend(batch);
            }
            prop_assert_eq!(back, notes);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_notes(&bytes);
            let _ = decode_position(&bytes, &[&bytes]);
            let _ = decode_record(&bytes);
            let _ = decode_dead_letter(&bytes);
            let _ = decode_mark(&bytes);
        }
    }

    #[test]
    fn a_full_position_is_one_value() {
        let position = Position { read_upto: EventId::MAX, open: widest_ids(IN_FLIGHT_MAX) };
        let parts = encode_position(&position);
        assert_eq!(parts.len(), 1, "{} bytes in the first", parts[0].len());
        assert_eq!(decode_position(&parts[0], &parts[1..]), Some(position));
    }

    #[test]
    fn the_longest_notes_stay_small() {
        let notes: Vec<Note> = widest_ids(BATCH_EVENTS_MAX)
            .into_iter()
            .enumerate()
            .map(|(n, event)| Note {
                event,
                endpoint: Some(EndpointId(u32::MAX)),
                event_type: Some(format!("{n:0>IDENTITY_BYTES_MAX$}").into()),
                provider_id: Some("y".repeat(IDENTITY_BYTES_MAX).into()),
                ..Note::default()
            })
            .collect();
        let batches = encode_notes(&notes);
        assert!(batches.iter().all(|(_, value)| value.len() <= VALUE_BYTES_MAX));
        let back: Vec<Note> = batches.iter().flat_map(|(_, value)| decode_notes(value).unwrap()).collect();
        assert_eq!(back, notes);
        let beyond = Note { event_type: Some("é".repeat(5_000).into()), ..notes[0].clone() };
        let cut = decode_notes(&encode_notes(&[beyond])[0].1).unwrap();
        assert_eq!(cut[0].event_type.as_deref(), Some("é".repeat(IDENTITY_BYTES_MAX / 2).as_str()));
    }

    #[test]
    fn the_latest_reply_stays_whole_and_the_oldest_is_cut_first() {
        let attempt = |error: &str| Attempt {
            at_ms: 1_700_000_000_000,
            duration_ms: 30_000,
            status: Some(500),
            error: Some(error.to_owned()),
            reply: Some("r".repeat(REPLY_EXCERPT_BYTES)),
        };
        let mut record = DeliveryRecord::new(1);
        record.latest = vec![attempt("answered 500 Internal Server Error"); ATTEMPTS_KEPT];
        let kept = |record: &DeliveryRecord| -> Vec<usize> {
            let value = encode_record(record);
            assert!(value.len() <= VALUE_BYTES_MAX && value.len() > VALUE_BYTES_MAX - 40, "{} bytes", value.len());
            let back = decode_record(&value).unwrap();
            assert!(back.latest.iter().all(|it| it.error == record.latest[0].error), "errors fit as they are");
            back.latest.iter().map(|it| it.reply.as_ref().unwrap().len()).collect()
        };
        let lengths = kept(&record);
        assert_eq!(lengths[..9], [EARLIER_TEXT_BYTES; 9], "{lengths:?}");
        assert!((EARLIER_TEXT_BYTES..REPLY_EXCERPT_BYTES).contains(&lengths[9]), "{lengths:?}");
        assert_eq!(lengths[10..], [REPLY_EXCERPT_BYTES; 2], "{lengths:?}");
        // Ever fewer attempts: nothing is cut that need not be.
        record.latest.truncate(4);
        assert_eq!(kept(&record)[1..], [REPLY_EXCERPT_BYTES; 3]);
        record.latest.truncate(3);
        assert_eq!(decode_record(&encode_record(&record)), Some(record));
    }

    #[test]
    fn a_record_of_fewer_fields_is_read() {
        let record = DeliveryRecord { attempts: 7, lane: Some(3), ..DeliveryRecord::new(9) };
        let whole = pack(&record);
        // The array's length stands first: the fields that came last are left off.
        for left_off in 1..=3u8 {
            let mut former = whole[..whole.len() - usize::from(left_off)].to_vec();
            former[0] -= left_off;
            assert_eq!(decode_record(&former), Some(record.clone()), "without {left_off}");
        }
    }

    #[test]
    fn the_longest_record_and_dead_letter_stay_small_and_keep_their_facts() {
        let mut record = DeliveryRecord::new(u64::MAX);
        (record.status, record.due_ms, record.attempts) = (DeliveryStatus::Retrying, Some(u64::MAX), u32::MAX);
        let attempt = Attempt {
            at_ms: u64::MAX,
            duration_ms: u32::MAX,
            status: Some(503),
            error: Some("é".repeat(9_000)),
            reply: Some("\u{fffd}".repeat(256)),
        };
        record.latest = vec![attempt; ATTEMPTS_KEPT];
        record.reason = Some("é".repeat(9_000));
        let value = encode_record(&record);
        assert!(value.len() <= VALUE_BYTES_MAX, "{} bytes", value.len());
        let back = decode_record(&value).unwrap();
        assert_eq!(back.latest.len(), ATTEMPTS_KEPT);
        let long = |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() >= EARLIER_TEXT_BYTES - 2);
        assert!(back.latest.iter().all(|attempt| long(&attempt.error) && long(&attempt.reply)));
        assert_eq!((back.status, back.due_ms, back.attempts), (record.status, record.due_ms, record.attempts));

        let letter = DeadLetter {
            event: EventId::MAX,
            subscription: SubscriptionId(u32::MAX),
            reason: DeadReason::AttemptsExhausted,
            error: "é".repeat(9_000),
            at_ms: u64::MAX,
            attempts: u32::MAX,
        };
        let value = encode_dead_letter(&letter);
        assert!(value.len() <= VALUE_BYTES_MAX);
        assert!(decode_dead_letter(&value).is_some_and(|back| letter.error.starts_with(&back.error)));
    }
}
