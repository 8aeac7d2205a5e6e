//! Values of the state's tree, each at most [`VALUE_BYTES_MAX`]: lists of ids and notes in a form of their own,
//! the rest in `MessagePack`, where a struct is an array and new fields come last with a default.
//!
//! Ids that follow each other differ by little in their sequence, not at all in their integration, and wholly in
//! their 16 random bits. So an id is stored as the difference of its sequence, and those bits: 4 to 6 bytes.

use hookmill_actors::{
    domain::{
        delivery::{DeadLetter, DeliveryRecord, Position},
        ids::{EventId, IntegrationId},
        limits::{ATTEMPTS_KEPT, IDENTITY_BYTES_MAX, RUN_IDS_MAX},
    },
    ports::state_store::{Mark, Note},
};

use super::sled_db::VALUE_BYTES_MAX;

/// Ids of one run lie within so many milliseconds: a look-up walks back no further than that.
pub(super) const RUN_SPAN_MS: u64 = 1 << 16;
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
/// No id: a time follows. No id begins so, in runs that were written without times either.
const RECORDED_AT: u128 = WHOLE | OTHER_INTEGRATION;

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
            write_varint(RECORDED_AT, &mut value);
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
        if read_varint(&mut ahead)? == RECORDED_AT {
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
        let event_type = match usize::try_from(read_varint(&mut rest)?).ok()? {
            0 => None,
            1 => notes.last()?.event_type.clone(),
            length => Some(read_text(&mut rest, length - 2)?),
        };
        let provider_id = match usize::try_from(read_varint(&mut rest)?).ok()? {
            0 => None,
            length => Some(read_text(&mut rest, length - 1)?),
        };
        notes.push(Note { event, event_type, provider_id, ..Note::default() });
    }
    Some(notes)
}

#[derive(Default)]
struct NoteWriter<'a> {
    deltas: IdDeltas,
    last_type: Option<&'a str>,
}

impl<'a> NoteWriter<'a> {
    /// A type that repeats, as most do, takes one byte.
    fn write(&mut self, note: &'a Note, out: &mut Vec<u8>) {
        self.deltas.write(note.event, out);
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

/// A record; where its attempts' texts are too long for one value, all are cut to the same, shorter length.
pub(super) fn encode_record(record: &DeliveryRecord) -> Vec<u8> {
    let mut value = pack(record);
    if value.len() <= VALUE_BYTES_MAX {
        return value;
    }
    let mut record = record.clone();
    let surplus = record.latest.len().saturating_sub(ATTEMPTS_KEPT);
    record.latest.drain(..surplus);
    let mut text_bytes = VALUE_BYTES_MAX;
    while value.len() > VALUE_BYTES_MAX && text_bytes > 0 {
        text_bytes /= 2;
        for text in record.latest.iter_mut().flat_map(|attempt| [&mut attempt.error, &mut attempt.reply]).flatten() {
            text.truncate(clipped(text, text_bytes).len());
        }
        value = pack(&record);
    }
    value
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
fn write_varint(mut value: u128, out: &mut Vec<u8>) {
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

fn read_varint(rest: &mut &[u8]) -> Option<u128> {
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
mod tests {
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

    fn any_ids() -> impl Strategy<Value = Vec<EventId>> {
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
            let taken = write_ids(&ids, &mut plain, |_, _| true);
            let tries = ids[..taken].iter().map(|event| FirstTry { event: *event, at_ms: None }).collect();
            prop_assert_eq!(decode_run(&plain), Some(tries));
        }

        #[test]
        fn notes_survive_and_stay_small(
            ids in any_ids(),
            texts in proptest::collection::vec((proptest::option::of("[a-c]{0,128}"), proptest::option::of("[ä-ö]{0,64}")), 600),
        ) {
            let notes: Vec<Note> = ids.iter().zip(texts).map(|(event, (event_type, provider_id))| Note {
                event: *event,
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
            let _ = decode_run(&bytes);
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
    fn a_full_run_of_neighbours_takes_few_bytes() {
        let ids = (0..RUN_IDS_MAX as u128)
            .map(|n| EventId::from_parts((1_700_000_000_000 << 26) + n * 1_000_000, IntegrationId(7), u16::MAX));
        let tries: Vec<FirstTry> = ids.map(|event| FirstTry { event, at_ms: Some(1_700_000_000_000) }).collect();
        let (taken, value) = encode_run(&tries);
        assert_eq!(taken, RUN_IDS_MAX);
        assert!(value.len() < 7 * RUN_IDS_MAX, "{} bytes", value.len());
    }

    #[test]
    fn the_longest_notes_stay_small() {
        let notes: Vec<Note> = widest_ids(BATCH_EVENTS_MAX)
            .into_iter()
            .enumerate()
            .map(|(n, event)| Note {
                event,
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
        let value = encode_record(&record);
        assert!(value.len() <= VALUE_BYTES_MAX, "{} bytes", value.len());
        let back = decode_record(&value).unwrap();
        assert_eq!(back.latest.len(), ATTEMPTS_KEPT);
        assert!(back.latest.iter().all(|attempt| attempt.error.as_ref().is_some_and(|text| text.len() >= 100)));
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
