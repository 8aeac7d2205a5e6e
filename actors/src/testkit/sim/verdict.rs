//! What must hold of every delivery once the world has been kind for long enough.

use std::collections::BTreeMap;

use futures_util::FutureExt;

use super::{
    World,
    orders::source,
    rules::{lane, selects},
    watch::{Known, Story},
};
use crate::{
    domain::{
        delivery::{DeadReason, DeliveryStatus},
        event::Event,
        ids::{EventId, SubscriptionId},
        limits::POISON_CRASHES,
        order::OnFailure,
        replay::ReplayStatus,
    },
    ports::state_store::{DeliveryState, Mark, StateStore},
};

/// Where a delivery stands.
enum Standing {
    Settled,
    /// It may still come to something.
    Unsettled(String),
    /// It never will, or should not have come to this.
    Wrong(String),
}

/// The first delivery that is not settled, in words.
pub(super) fn unsettled(world: &World) -> Option<String> {
    let deliveries = deliveries(world).find_map(|(id, event, standing)| match standing {
        Standing::Settled => None,
        Standing::Unsettled(why) | Standing::Wrong(why) => Some(format!("subscription {id}, event {event}: {why}")),
    });
    deliveries.or_else(|| unsettled_replay(world))
}

/// A bulk replay that has not ended, or an event from before a subscription's start that is still on its way to it.
fn unsettled_replay(world: &World) -> Option<String> {
    let (going, again) = world.watch.disk.orders(|orders| {
        let going = orders.jobs().find(|(job, _)| !job.status.has_ended()).map(|(job, _)| format!("still {job:?}"));
        (going, orders.all_again().map(|(key, _)| key).collect::<Vec<_>>())
    });
    let known = world.watch.seen().known.clone();
    let early = again.into_iter().filter(|(id, event)| {
        known.get(id).is_some_and(|known| !known.deleted && *event <= known.subscription.start_after)
    });
    going.or_else(|| early.map(|key| (key, world.watch.durable(key.0, key.1))).find_map(still_due))
}

fn still_due(((id, event), durable): ((SubscriptionId, EventId), DeliveryState)) -> Option<String> {
    let DeliveryState::Record(record) = durable else {
        return Some(format!("{id} {event}: its replay left no record"));
    };
    let settled = matches!(record.status, DeliveryStatus::Delivered | DeliveryStatus::Dead | DeliveryStatus::Discarded);
    (!settled).then(|| format!("subscription {id}, event {event}, from before its start: still {record:?}"))
}

/// The first invariant that does not hold at the end.
pub(super) fn broken(world: &World) -> Option<String> {
    unsettled(world).or_else(|| disorder(world)).or_else(|| half_replayed(world)).or_else(|| forgotten_reason(world))
}

/// A bulk replay that left something out, or a delivery that was replayed and never came as a replay.
fn half_replayed(world: &World) -> Option<String> {
    let deleted = |id: SubscriptionId| world.watch.seen().known.get(&id).is_none_or(|known| known.deleted);
    world.watch.disk.orders(|orders| {
        for (job, missing) in orders.jobs() {
            if let Some(item) = missing.iter().find(|(target, _)| !deleted(*target)) {
                return Some(format!("replay {} is done and left out {item:?}: {job:?}", job.id));
            }
            let needs = [job.only_target(), source(job)];
            if job.status == ReplayStatus::Failed && !needs.into_iter().flatten().any(deleted) {
                return Some(format!("replay {} failed for no reason: {}", job.id, job.note));
            }
        }
        let taken = |key| world.watch.seen().stories.get(&key).map_or(0, |story| story.replays_taken);
        orders.all_again().find(|(key, delivered)| taken(*key) < *delivered).map(|((id, event), delivered)| {
            format!("subscription {id}, event {event}: recorded as replayed {delivered} times, taken fewer times")
        })
    })
}

/// A discard whose reason is not in the activity log.
fn forgotten_reason(world: &World) -> Option<String> {
    let log = world.watch.disk.config.newest_activities(usize::MAX);
    let kept = |reason: &String| log.iter().any(|entry| entry.activity.detail == *reason);
    world.reasons.iter().find(|reason| !kept(reason)).map(|reason| format!("no activity has `{reason}`"))
}

fn deliveries(world: &World) -> impl Iterator<Item = (SubscriptionId, EventId, Standing)> {
    let known: Vec<Known> = world.watch.seen().known.values().filter(|known| !known.deleted).cloned().collect();
    let accepted = world.watch.disk.accepted();
    known.into_iter().flat_map(move |known| {
        let own: Vec<_> = accepted
            .iter()
            .filter(|event| {
                event.id.integration() == known.subscription.integration_id && event.id > known.subscription.start_after
            })
            .map(|event| (known.subscription.id, event.id, standing(world, &known, event)))
            .collect();
        own
    })
}

fn standing(world: &World, known: &Known, event: &Event) -> Standing {
    let id = known.subscription.id;
    let story = world.watch.seen().stories.get(&(id, event.id)).cloned().unwrap_or_default();
    let record = match world.watch.durable(id, event.id) {
        DeliveryState::Delivered { .. } => return delivered(&story),
        DeliveryState::Record(record) => record,
        DeliveryState::Unknown => return unknown(world, known, event, &story),
    };
    match record.status {
        DeliveryStatus::Delivered => delivered(&story),
        DeliveryStatus::Dead => dead(world, known, event, &story),
        DeliveryStatus::Pending | DeliveryStatus::Retrying | DeliveryStatus::Parked => {
            Standing::Unsettled(format!("still {record:?}"))
        }
        // Each discard was looked at when it was recorded.
        DeliveryStatus::Discarded => Standing::Settled,
        DeliveryStatus::Cancelled => Standing::Wrong("cancelled, and nobody asked for that".to_owned()),
    }
}

fn delivered(story: &Story) -> Standing {
    match story.first_taken.is_some() || story.replays_taken > 0 {
        true => Standing::Settled,
        false => Standing::Wrong("recorded as delivered, and the destination never took it".to_owned()),
    }
}

fn unknown(world: &World, known: &Known, event: &Event, story: &Story) -> Standing {
    let position = world.watch.disk.state.position(known.subscription.id).now_or_never().and_then(Result::ok).flatten();
    let passed = position.is_some_and(|position| position.read_upto >= event.id && !position.open.contains(&event.id));
    if !passed {
        return Standing::Unsettled("not taken up".to_owned());
    }
    if !selects(&known.subscription, event) {
        return Standing::Settled;
    }
    let note = world.watch.disk.state.note(event.id).now_or_never().and_then(Result::ok).flatten();
    if let Some(Mark::DuplicateOf(first)) = note.and_then(|note| note.mark) {
        return match duplicate(world, event, first) {
            Ok(()) => Standing::Settled,
            Err(why) => Standing::Wrong(why),
        };
    }
    let body = String::from_utf8_lossy(&event.arrival.body);
    Standing::Wrong(format!("lost: the position has passed `{body}`, and nothing is recorded; {story:?}"))
}

/// Whether the event may be called a duplicate of that one.
fn duplicate(world: &World, event: &Event, first: EventId) -> Result<(), String> {
    if first >= event.id {
        return Err(format!("a duplicate of {first}, which came no earlier"));
    }
    let Some(earlier) = world.watch.disk.accepted_event(first) else {
        return Err(format!("a duplicate of {first}, which was never accepted"));
    };
    let named = |event: &Event| {
        let id = super::programs::part(&event.arrival.body, 2).map(str::to_owned);
        (event.arrival.endpoint, id)
    };
    match named(event) == named(&earlier) {
        true => Ok(()),
        false => Err(format!("a duplicate of {first}, which has another id")),
    }
}

fn dead(world: &World, known: &Known, event: &Event, story: &Story) -> Standing {
    let id = known.subscription.id;
    let letter = world.watch.disk.state.dead_letter(id, event.id).now_or_never().and_then(Result::ok).flatten();
    let Some(letter) = letter else {
        return Standing::Wrong("recorded as dead, and not in the dead letter".to_owned());
    };
    let body = &event.arrival.body;
    let faulty = body.ends_with(b"fault") || body.ends_with(b"boom");
    let subscription = &known.subscription;
    let crashes = world.watch.seen().crashes;
    let fits = match letter.reason {
        DeadReason::AttemptsExhausted => story.failed || crashes > 0,
        DeadReason::Refused => !subscription.retry.dead_statuses.is_empty(),
        DeadReason::Expired => {
            let aged = subscription.expires_after_s.is_some() || subscription.retry.age_max_s.is_some();
            aged || world.scenario.retention.age_max.as_secs() < 24 * 3_600
        }
        DeadReason::FilterFailed | DeadReason::TransformFailed | DeadReason::ProviderFailed => faulty,
        DeadReason::Poison => crashes >= u64::from(POISON_CRASHES),
        DeadReason::Corrupt => false,
    };
    match fits {
        true => Standing::Settled,
        false => Standing::Wrong(format!("dead as {:?}, for no reason: {}; {story:?}", letter.reason, letter.error)),
    }
}

/// Events of one order key whose first deliveries came the wrong way round.
fn disorder(world: &World) -> Option<String> {
    let seen = world.watch.seen();
    for known in seen.known.values().filter(|known| known.one_order) {
        let id = known.subscription.id;
        let mut latest: BTreeMap<String, (u64, EventId)> = BTreeMap::new();
        for ((_, event), story) in seen.stories.range((id, EventId::ZERO)..=(id, EventId::MAX)) {
            let Some(rank) = story.first_taken else { continue };
            let Some(stored) = world.watch.disk.accepted_event(*event) else { continue };
            let Some((lane, on_failure)) = lane(&known.subscription, &stored) else { continue };
            // What was given up, or failed where that lets others pass, has lost its place.
            let passed = on_failure == OnFailure::Skip || story.spent;
            if world.watch.disk.ever_dead(id, *event) || (passed && story.failed) {
                continue;
            }
            if let Some((earlier_rank, earlier)) = latest.get(&lane)
                && *earlier_rank > rank
            {
                return Some(format!(
                    "subscription {id} ({:?}): event {event} of `{lane}` was delivered before {earlier}",
                    known.subscription.order
                ));
            }
            latest.insert(lane, (rank, *event));
        }
    }
    None
}
