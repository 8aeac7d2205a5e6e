//! Removal of dedup keys: of those whose window is over, and of the oldest where there are too many.
//!
//! Their keys begin with the endpoint and sort by event, so what goes stands first.

use hookmill_actors::{
    domain::ids::{EndpointId, EventId},
    ports::{
        event_log::LogError,
        state_store::{Forgotten, Remembered},
    },
};

use super::{Shared, malformed};
use crate::storage::{keys, seen};

/// Values looked at while commits wait.
const STEP_VALUES: usize = 64;

pub(super) fn forget(shared: &Shared, remembered: &Remembered) -> Result<Forgotten, LogError> {
    shared.db.check()?;
    let surplus_upto = shared.index().surplus_upto(remembered.keys_max);
    let mut forgotten = Forgotten::default();
    let mut next_endpoint = Some(0);
    while let Some(endpoint) = next_endpoint {
        let first = keys::owned(keys::SEEN, endpoint, EventId::ZERO);
        let last = keys::owned(keys::SEEN, u32::MAX, EventId::MAX);
        let Some(item) = shared.range(&first, &last).next() else { break };
        let (key, _) = item?;
        let (endpoint, _) = keys::parse_owned(&key).ok_or_else(|| malformed(&key))?;
        let endpoint = EndpointId(endpoint);
        let outdated_upto = remembered.after.get(&endpoint).copied().unwrap_or(EventId::MAX);
        while step(shared, endpoint, outdated_upto, outdated_upto.max(surplus_upto), &mut forgotten)? {}
        next_endpoint = endpoint.0.checked_add(1);
    }
    Ok(forgotten)
}

/// Looks at an endpoint's first values; whether there may be more that go.
fn step(
    shared: &Shared,
    endpoint: EndpointId,
    outdated_upto: EventId,
    upto: EventId,
    forgotten: &mut Forgotten,
) -> Result<bool, LogError> {
    let mut gone_whole = 0;
    shared.change(|changes| {
        let first = keys::owned(keys::SEEN, endpoint.0, EventId::ZERO);
        let last = keys::owned(keys::SEEN, endpoint.0, EventId::MAX);
        for item in shared.range(&first, &last).take(STEP_VALUES) {
            let (key, value) = item?;
            let seen = seen::decode(&value).ok_or_else(|| malformed(&key))?;
            let (gone, kept) = seen.split_at(seen.partition_point(|seen| seen.event <= upto));
            if !gone.is_empty() {
                let outdated = gone.partition_point(|seen| seen.event <= outdated_upto);
                forgotten.outdated += outdated as u64;
                forgotten.displaced += (gone.len() - outdated) as u64;
                changes.forget(endpoint, &key, gone, kept);
            }
            if !kept.is_empty() {
                break;
            }
            gone_whole += 1;
        }
        Ok(())
    })?;
    Ok(gone_whole == STEP_VALUES)
}
