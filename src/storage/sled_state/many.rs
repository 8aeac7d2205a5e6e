//! Looks up many events at once: what lies close together stands in the same values, and each is read once.

use std::{collections::HashMap, ops::RangeInclusive};

use hookmill_actors::{
    domain::ids::{EventId, SubscriptionId},
    ports::{
        event_log::LogError,
        state_store::{DeliveryState, Note},
    },
};

use super::{
    super::{
        changes::malformed,
        keys,
        runs::{self, Success},
        values,
    },
    Shared,
};

/// What is known of deliveries of a subscription, in the order of the events.
pub(super) fn deliveries(
    shared: &Shared,
    subscription: SubscriptionId,
    events: &[EventId],
) -> Result<Vec<DeliveryState>, LogError> {
    // Before anything else: a success is stored together with the position that passes it, so what this one does not
    // pass is in no run that has to be found.
    let position = shared.position(subscription)?;
    let may_be_in_run = |event: &EventId| {
        position.as_ref().is_none_or(|it| *event <= it.read_upto && it.open.binary_search(event).is_err())
    };
    let mut found = vec![DeliveryState::Unknown; events.len()];
    let mut records = Sparse::new(shared, keys::RECORD, subscription.0);
    // Those without a record, each with its place in `events`.
    let mut rest = Vec::new();
    for (place, event) in events.iter().enumerate() {
        match records.get(*event)? {
            Some(value) => {
                let key = keys::owned(keys::RECORD, subscription.0, *event);
                let record = values::decode_record(value).ok_or_else(|| malformed(&key))?;
                found[place] = DeliveryState::Record(record);
            }
            None if !may_be_in_run(event) => {}
            // Before the tree, into which they go from here.
            None => match shared.positions.success(subscription, *event) {
                Some(Success { at_ms, attempt, .. }) => found[place] = DeliveryState::Delivered { at_ms, attempt },
                None => rest.push((*event, place)),
            },
        }
    }
    rest.sort_unstable();
    find_in_runs(shared, subscription, rest, &mut found)?;
    Ok(found)
}

/// Walks back over the runs for deliveries, ascending, each with its place in `found`.
fn find_in_runs(
    shared: &Shared,
    subscription: SubscriptionId,
    mut rest: Vec<(EventId, usize)>,
    found: &mut [DeliveryState],
) -> Result<(), LogError> {
    while let Some((newest, _)) = rest.last().copied() {
        let last = keys::owned(keys::RUN, subscription.0, newest);
        for item in shared.range(&keys::owned(keys::RUN, subscription.0, EventId::ZERO), &last).rev() {
            let (key, value) = item?;
            let (_, first) = keys::parse_owned(&key).ok_or_else(|| malformed(&key))?;
            // Runs may overlap: what was slow begins a run beside that of its later neighbours. None spans more than
            // this, so of what is newer nothing is known.
            let ended = EventId::at_millis(first.millis() + runs::RUN_SPAN_MS + 1);
            let is_done =
                |(event, place): &(EventId, usize)| *event >= ended || !matches!(found[*place], DeliveryState::Unknown);
            while rest.last().is_some_and(is_done) {
                rest.pop();
            }
            match rest.last() {
                None => return Ok(()),
                // A stretch without any of them is passed at once.
                Some((newest, _)) if *newest < first => break,
                Some(_) => {}
            }
            let mut from = rest.partition_point(|(event, _)| *event < first);
            for settled in runs::decode_run(&value).ok_or_else(|| malformed(&key))? {
                from += rest[from..].iter().take_while(|(event, _)| *event < settled.event).count();
                for (_, place) in rest[from..].iter().take_while(|(event, _)| *event == settled.event) {
                    found[*place] = DeliveryState::Delivered { at_ms: settled.at_ms, attempt: settled.attempt };
                }
            }
        }
        // The walk came to the first run: nothing is left to be found.
        if rest.last().is_some_and(|(event, _)| *event == newest) {
            break;
        }
    }
    Ok(())
}

/// What intake noted of events, in their order.
pub(super) fn notes(shared: &Shared, events: &[EventId]) -> Result<Vec<Option<Note>>, LogError> {
    shared.db.check()?;
    // The last batch that was read of each integration, and its marks.
    let mut owners: HashMap<u32, (Vec<Note>, Sparse<'_>)> = HashMap::new();
    let mut found = Vec::with_capacity(events.len());
    for event in events {
        let owner = event.integration().0;
        let (batch, marks) =
            owners.entry(owner).or_insert_with(|| (Vec::new(), Sparse::new(shared, keys::MARK, owner)));
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
        if let Some(note) = &mut note
            && let Some(value) = marks.get(*event)?
        {
            let key = keys::owned(keys::MARK, owner, *event);
            note.mark = Some(values::decode_mark(value).ok_or_else(|| malformed(&key))?);
        }
        found.push(note);
    }
    Ok(found)
}

/// Looks up events under one letter and owner, where few of them have a value: a look that finds none before an event
/// answers for the whole stretch.
struct Sparse<'a> {
    shared: &'a Shared,
    letter: u8,
    owner: u32,
    /// Of all events in here only the first has a value.
    stretch: RangeInclusive<EventId>,
    value: Option<sled::IVec>,
}

impl<'a> Sparse<'a> {
    fn new(shared: &'a Shared, letter: u8, owner: u32) -> Self {
        Self { shared, letter, owner, stretch: EventId::MAX..=EventId::ZERO, value: None }
    }

    fn get(&mut self, event: EventId) -> Result<Option<&sled::IVec>, LogError> {
        if !self.stretch.contains(&event) {
            let key = |event| keys::owned(self.letter, self.owner, event);
            let (first, value) = match self.shared.range(&key(EventId::ZERO), &key(event)).next_back().transpose()? {
                Some((key, value)) => (keys::parse_owned(&key).ok_or_else(|| malformed(&key))?.1, Some(value)),
                None => (EventId::ZERO, None),
            };
            self.stretch = first..=event;
            self.value = value;
        }
        Ok(self.value.as_ref().filter(|_| *self.stretch.start() == event))
    }
}
