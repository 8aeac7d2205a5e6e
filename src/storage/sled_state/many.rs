//! Looks up many events at once: what lies close together stands in the same values, and each is read once.

use std::collections::{BTreeMap, HashMap};

use hookmill_actors::{
    domain::ids::{EventId, SubscriptionId},
    ports::{
        event_log::LogError,
        state_store::{DeliveryState, Note},
    },
};

use super::{
    super::{changes::malformed, keys, runs, values},
    Shared,
};

/// What is known of deliveries of a subscription, in the order of the events.
pub(super) fn deliveries(
    shared: &Shared,
    subscription: SubscriptionId,
    events: &[EventId],
) -> Result<Vec<DeliveryState>, LogError> {
    let mut found = vec![DeliveryState::Unknown; events.len()];
    // Those without a record, each with its places in `events`.
    let mut rest: BTreeMap<EventId, Vec<usize>> = BTreeMap::new();
    for (place, event) in events.iter().enumerate() {
        let key = keys::owned(keys::RECORD, subscription.0, *event);
        match shared.get(&key)? {
            Some(value) => {
                let record = values::decode_record(&value).ok_or_else(|| malformed(&key))?;
                found[place] = DeliveryState::Record(record);
            }
            None => rest.entry(*event).or_default().push(place),
        }
    }
    while let Some(newest) = rest.last_key_value().map(|(event, _)| *event) {
        let last = keys::owned(keys::RUN, subscription.0, newest);
        for item in shared.range(&keys::owned(keys::RUN, subscription.0, EventId::ZERO), &last).rev() {
            let (key, value) = item?;
            let (_, first) = keys::parse_owned(&key).ok_or_else(|| malformed(&key))?;
            // Runs may overlap: what was slow begins a run beside that of its later neighbours. None spans more than
            // this, so of what is newer nothing is known.
            let ended = EventId::at_millis(first.millis() + runs::RUN_SPAN_MS + 1);
            rest.split_off(&ended);
            match rest.last_key_value() {
                None => break,
                // A stretch without any of them is passed at once.
                Some((newest, _)) if *newest < first => break,
                Some(_) => {}
            }
            for settled in runs::decode_run(&value).ok_or_else(|| malformed(&key))? {
                for place in rest.remove(&settled.event).unwrap_or_default() {
                    found[place] = DeliveryState::Delivered { at_ms: settled.at_ms, attempt: settled.attempt };
                }
            }
        }
        // The walk came to the first run: nothing is left to be found.
        if rest.last_key_value().is_some_and(|(event, _)| *event == newest) {
            break;
        }
    }
    Ok(found)
}

/// What intake noted of events, in their order.
pub(super) fn notes(shared: &Shared, events: &[EventId]) -> Result<Vec<Option<Note>>, LogError> {
    shared.db.check()?;
    // The last batch that was read of each integration.
    let mut batches: HashMap<u32, Vec<Note>> = HashMap::new();
    let mut found = Vec::with_capacity(events.len());
    for event in events {
        let owner = event.integration().0;
        let batch = batches.entry(owner).or_default();
        let holds =
            batch.first().zip(batch.last()).is_some_and(|(first, last)| (first.event..=last.event).contains(event));
        if !holds {
            let (first, last) =
                (keys::owned(keys::NOTES, owner, *event), keys::owned(keys::NOTES, owner, EventId::MAX));
            *batch = match shared.range(&first, &last).next().transpose()? {
                Some((key, value)) => values::decode_notes(&value).ok_or_else(|| malformed(&key))?,
                None => Vec::new(),
            };
        }
        let mut note = batch.iter().find(|note| note.event == *event).cloned();
        if let Some(note) = &mut note {
            let key = keys::owned(keys::MARK, owner, *event);
            if let Some(value) = shared.get(&key)? {
                note.mark = Some(values::decode_mark(&value).ok_or_else(|| malformed(&key))?);
            }
        }
        found.push(note);
    }
    Ok(found)
}
