//! Removal of what is known of events that are gone from the log: notes, marks, runs and settled records.
//!
//! Their keys begin with an owner, so each owner's lowest keys are sought and nothing that stays is walked over, save
//! what is kept because a dead letter or a due retry needs the event.

use std::collections::BTreeSet;

use hookmill_actors::{
    domain::{
        delivery::DeliveryStatus,
        ids::{EventId, SubscriptionId},
    },
    ports::event_log::LogError,
};

use super::{Shared, malformed};
use crate::storage::{
    keys,
    runs::{self, Success},
    values,
};

/// Keys looked at while commits wait.
const STEP_KEYS: usize = 256;

/// One key that may go, and what to do about it.
enum Fate {
    Stays,
    Goes,
    /// Notes of which these are still needed, under the last one's key.
    Notes(EventId, Vec<u8>),
    /// What of a run is still needed.
    Run(Vec<Success>),
}

pub(super) fn prune(shared: &Shared, upto: EventId) -> Result<u64, LogError> {
    let mut gone = 0;
    for letter in [keys::NOTES, keys::MARK, keys::RUN, keys::RECORD] {
        let mut next_owner = Some(0);
        while let Some(owner) = next_owner {
            let first = keys::owned(letter, owner, EventId::ZERO);
            let last = keys::owned(letter, u32::MAX, EventId::MAX);
            let Some(item) = shared.range(&first, &last).next() else { break };
            let (key, _) = item?;
            let (owner, mut from) = keys::parse_owned(&key).ok_or_else(|| malformed(&key))?;
            while from <= upto {
                let (step_gone, last_seen) = prune_step(shared, letter, owner, from, upto)?;
                gone += step_gone;
                match last_seen.and_then(|event| event.as_u128().checked_add(1)) {
                    Some(after) => from = EventId::from_u128(after),
                    None => break,
                }
            }
            next_owner = owner.checked_add(1);
        }
    }
    Ok(gone)
}

/// Looks at up to [`STEP_KEYS`] keys of an owner. How many went, and the last key seen if there may be more.
fn prune_step(
    shared: &Shared,
    letter: u8,
    owner: u32,
    from: EventId,
    upto: EventId,
) -> Result<(u64, Option<EventId>), LogError> {
    let (mut gone, mut seen, mut last_seen) = (0, 0, None);
    shared.change(|changes| {
        let (first, last) = (keys::owned(letter, owner, from), keys::owned(letter, owner, upto));
        for item in shared.range(&first, &last).take(STEP_KEYS) {
            let (key, _) = item?;
            let (_, event) = keys::parse_owned(&key).ok_or_else(|| malformed(&key))?;
            (seen, last_seen) = (seen + 1, Some(event));
            // As this step has it: what is left of one run may have joined another.
            let Some(value) = changes.get(&key)? else { continue };
            let fate = match letter {
                keys::NOTES => fate_of_notes(shared, &value)?,
                keys::RUN => fate_of_run(shared, &value, upto)?,
                keys::MARK => fate_of_mark(shared, event)?,
                _ => fate_of_record(shared, event, &value)?,
            };
            match fate.ok_or_else(|| malformed(&key))? {
                Fate::Stays => {}
                Fate::Goes => {
                    changes.remove(&key);
                    gone += 1;
                }
                Fate::Notes(last, value) => {
                    changes.remove(&key);
                    changes.put(&keys::owned(letter, owner, last), value);
                }
                Fate::Run(successes) => {
                    changes.remove(&key);
                    changes.add_run(SubscriptionId(owner), successes)?;
                }
            }
        }
        Ok(())
    })?;
    Ok((gone, last_seen.filter(|_| seen == STEP_KEYS)))
}

fn fate_of_notes(shared: &Shared, value: &[u8]) -> Result<Option<Fate>, LogError> {
    let Some(mut notes) = values::decode_notes(value) else { return Ok(None) };
    let needed = needed_among(shared, notes.iter().map(|note| note.event))?;
    let before = notes.len();
    notes.retain(|note| needed.contains(&note.event));
    Ok(Some(match values::encode_notes(&notes).pop() {
        None => Fate::Goes,
        Some(_) if notes.len() == before => Fate::Stays,
        Some((last, value)) => Fate::Notes(last, value),
    }))
}

fn fate_of_run(shared: &Shared, value: &[u8], upto: EventId) -> Result<Option<Fate>, LogError> {
    let Some(mut successes) = runs::decode_run(value) else { return Ok(None) };
    if successes.last().is_some_and(|last| last.event > upto) {
        return Ok(Some(Fate::Stays));
    }
    let needed = needed_among(shared, successes.iter().map(|it| it.event))?;
    let before = successes.len();
    successes.retain(|it| needed.contains(&it.event));
    Ok(Some(match successes.len() {
        0 => Fate::Goes,
        kept if kept == before => Fate::Stays,
        _ => Fate::Run(successes),
    }))
}

/// A mark goes after its note, which says less without it.
fn fate_of_mark(shared: &Shared, event: EventId) -> Result<Option<Fate>, LogError> {
    Ok(Some(if shared.note(event)?.is_some() { Fate::Stays } else { Fate::Goes }))
}

/// A record that is not settled is somebody's: it never goes.
fn fate_of_record(shared: &Shared, event: EventId, value: &[u8]) -> Result<Option<Fate>, LogError> {
    let Some(record) = values::decode_record(value) else { return Ok(None) };
    let settled =
        matches!(record.status, DeliveryStatus::Delivered | DeliveryStatus::Cancelled | DeliveryStatus::Discarded);
    let goes = settled && shared.needed(event, event, 1)?.is_empty();
    Ok(Some(if goes { Fate::Goes } else { Fate::Stays }))
}

/// Which of these ascending events are needed. One look-up steps over all that lie before the next needed one.
fn needed_among(shared: &Shared, events: impl Iterator<Item = EventId>) -> Result<BTreeSet<EventId>, LogError> {
    let mut among = BTreeSet::new();
    let mut next = EventId::ZERO;
    for event in events {
        if next < event {
            next = shared.needed(event, EventId::MAX, 1)?.first().copied().unwrap_or(EventId::MAX);
        }
        if next == event {
            among.insert(event);
        }
    }
    Ok(among)
}
