//! Sees every attempt as it begins and ends, and says what must not have happened.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{
    disk::Disk,
    limits::{Begun, Borne, Paced, attempts_max},
    rules::{follows, lane, may_be_sent},
};
use crate::{
    domain::{
        config::{Destination, Subscription},
        event::Event,
        ids::{DestinationId, EventId, SubscriptionId},
        limits::SUSPECT_CRASHES,
        order::OnFailure,
        shaping::DestinationLimits,
    },
    metrics::Counters,
    ports::state_store::{DeliveryState, StateStore},
};

/// A subscription as the scenario knows it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) subscription: Subscription,
    /// Its order was the same all the time.
    pub(super) one_order: bool,
    /// The widest window it ever had.
    pub(super) window_max: usize,
    pub(super) deleted: bool,
    /// Since when nothing may begin, time of the whole run.
    pub(super) rests_since: Option<Duration>,
}

/// One delivery as the destination saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    pub(super) attempts: u32,
    /// The rank of the first attempt, other than a replay, that the destination took, whatever it answered.
    pub(super) first_taken: Option<u64>,
    /// In which life hookmill last heard that it was delivered, and how often it had been made due again by then.
    pub(super) delivered_in: Option<(u32, u32)>,
    pub(super) failed: bool,
    /// It failed so that it may have been given up, whether or not that was still written down.
    pub(super) spent: bool,
    /// Attempts marked as a replay that the destination took.
    pub(super) replays_taken: u32,
    under_way: u32,
}

/// What happened, one line each.
#[derive(Default)]
pub(super) struct Trace {
    lines: Vec<String>,
    /// What comes after a broken invariant follows from it.
    closed: bool,
    hash: u64,
}

impl Trace {
    fn add(&mut self, line: String) {
        if self.closed {
            return;
        }
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.lines.push(line);
    }
}

/// Everything that is watched. One a run; it outlives the lives.
pub(super) struct Watch {
    pub(super) disk: Disk,
    seen: Mutex<Seen>,
}

#[derive(Default)]
pub(super) struct Seen {
    trace: Trace,
    broken: Option<String>,
    pub(super) known: BTreeMap<SubscriptionId, Known>,
    pub(super) stories: BTreeMap<(SubscriptionId, EventId), Story>,
    limits: BTreeMap<DestinationId, DestinationLimits>,
    borne: BTreeMap<DestinationId, Borne>,
    paced: BTreeMap<SubscriptionId, Paced>,
    /// Events that cannot be rendered, by how many were sent.
    faulty: u32,
    pub(super) life: u32,
    pub(super) lived: Duration,
    life_began: Option<Instant>,
    /// A change of the configuration is on its way: it may be in force or not.
    changing: bool,
    counters: Option<Arc<Counters>>,
    /// Until then the wall clock is not what due times were made with.
    jumped_until: Duration,
    pub(super) ever_jumped: bool,
    /// Lives that ended otherwise than by a stop, and actors that crashed.
    pub(super) crashes: u64,
    taken: u64,
    pub(super) attempts: u64,
}

/// Suspects of one subscription that may be under way at once.
const SUSPECTS_TOGETHER_MAX: usize = 16;
/// A change of the configuration reaches the deliveries within this.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

impl Seen {
    fn now(&self) -> Duration {
        self.lived + self.life_began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    fn restarts(&self) -> u64 {
        self.counters.as_ref().map_or(0, |counters| counters.restarts.load(Ordering::Relaxed))
    }

    fn breaks(&mut self, what: String) {
        let now = self.now();
        self.trace.add(format!("{now:?} BROKEN {what}"));
        self.trace.closed = true;
        self.broken.get_or_insert(what);
    }
}

impl Watch {
    pub(super) fn new(disk: Disk) -> Self {
        Self { disk, seen: Mutex::default() }
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line into the trace.
    pub(super) fn note(&self, line: impl std::fmt::Display) {
        let mut seen = self.seen();
        let now = seen.now();
        seen.trace.add(format!("{now:?} {line}"));
    }

    /// An invariant does not hold.
    pub(super) fn breaks(&self, what: String) {
        self.seen().breaks(what);
    }

    pub(super) fn broken(&self) -> Option<String> {
        self.seen().broken.clone()
    }

    /// Attempts, and crashes of the process and of actors.
    pub(super) fn counts(&self) -> (u64, u64) {
        let seen = self.seen();
        (seen.attempts, seen.crashes)
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.seen().trace.hash
    }

    pub(super) fn course(&self) -> Vec<String> {
        std::mem::take(&mut self.seen().trace.lines)
    }

    /// A life begins, on the current runtime.
    pub(super) fn begin_life(&self, life: u32) {
        let mut seen = self.seen();
        seen.life = life;
        seen.life_began = Some(Instant::now());
        seen.changing = false;
    }

    /// Its tree has started.
    pub(super) fn count_by(&self, counters: Arc<Counters>) {
        self.seen().counters = Some(counters);
    }

    /// A life is over, and nobody runs for `downtime`.
    pub(super) fn end_life(&self, crashed: bool, lasted: Duration, downtime: Duration) {
        let mut seen = self.seen();
        seen.crashes += seen.restarts() + u64::from(crashed);
        seen.counters = None;
        seen.life_began = None;
        seen.borne.clear();
        seen.paced.clear();
        seen.lived += lasted + downtime;
        for story in seen.stories.values_mut() {
            story.under_way = 0;
        }
    }

    pub(super) fn jumped(&self) {
        let mut seen = self.seen();
        seen.ever_jumped = true;
        seen.jumped_until = seen.now() + Duration::from_secs(120);
        drop(seen);
        self.disk.times_mean_nothing();
    }

    /// From now on, or no longer, a change of the configuration may come into force.
    pub(super) fn set_changing(&self, changing: bool) {
        self.seen().changing = changing;
    }

    /// The subscription stands so from now on.
    pub(super) fn configured(&self, subscription: &Subscription, rests: bool) {
        let mut seen = self.seen();
        let now = seen.now();
        let window = usize::from(subscription.in_flight_max);
        let known = seen.known.entry(subscription.id).or_insert_with(|| Known {
            subscription: subscription.clone(),
            one_order: true,
            window_max: window,
            deleted: false,
            rests_since: None,
        });
        known.one_order &= known.subscription.order == subscription.order;
        known.window_max = known.window_max.max(window);
        known.subscription = subscription.clone();
        known.rests_since = if rests { known.rests_since.or(Some(now)) } else { None };
    }

    /// What makes these subscriptions rest may be taken away: they may run before it is known that they do, and rest
    /// again by then.
    pub(super) fn roused(&self, which: impl Fn(&Subscription) -> bool) {
        let mut seen = self.seen();
        for known in seen.known.values_mut().filter(|known| !known.deleted && which(&known.subscription)) {
            known.rests_since = None;
        }
    }

    /// The destination is limited so from now on.
    pub(super) fn limited(&self, destination: &Destination) {
        self.seen().limits.insert(destination.id, destination.limits);
    }

    pub(super) fn deleted(&self, id: SubscriptionId) {
        let mut seen = self.seen();
        let now = seen.now();
        if let Some(known) = seen.known.get_mut(&id) {
            known.deleted = true;
            known.rests_since = known.rests_since.or(Some(now));
        }
    }

    /// Whose events go to this destination, where only one subscription's do.
    pub(super) fn only_subscription(&self, destination: DestinationId) -> Option<SubscriptionId> {
        let seen = self.seen();
        seen.known.values().find(|known| known.subscription.destination_id == destination).map(|it| it.subscription.id)
    }

    /// An event that cannot be rendered is sent.
    pub(super) fn faulty(&self) {
        self.seen().faulty += 1;
    }

    /// A sender was told that its event is stored.
    pub(super) fn acknowledged(&self, event: EventId) {
        if self.disk.accepted_event(event).is_none() {
            self.breaks(format!("event {event} was acknowledged, and is not on the disk"));
        }
    }

    /// What became durable of what operators asked for, where that is not what they asked for.
    pub(super) fn look_at_orders(&self) {
        if let Some(wrong) = self.disk.wrong_order() {
            self.breaks(wrong);
        }
    }

    /// What is on the disk about a delivery.
    pub(super) fn durable(&self, subscription: SubscriptionId, event: EventId) -> DeliveryState {
        let read = self.disk.state.delivery(subscription, event).now_or_never();
        read.and_then(Result::ok).unwrap_or(DeliveryState::Unknown)
    }

    /// An attempt begins.
    pub(super) fn attempt_begins(&self, id: SubscriptionId, event: &Event, attempt: u32, replay: bool, wall_ms: u64) {
        let durable = self.durable(id, event.id);
        let accepted = self.disk.accepted_event(event.id);
        let made_due = self.disk.times_again(id, event.id);
        self.look_at_orders();
        let mut seen = self.seen();
        let now = seen.now();
        seen.attempts += 1;
        seen.trace.add(format!("{now:?} begin {id} {} attempt {attempt} replay {replay}", event.id));
        let what = format!("subscription {id}, event {}, attempt {attempt}", event.id);
        if accepted.as_deref() != Some(event) {
            seen.breaks(format!("{what}: it was never accepted so"));
        }
        let Some(known) = seen.known.get(&id).cloned() else {
            return seen.breaks(format!("{what}: there is no such subscription"));
        };
        if let Err(why) = may_be_sent(&known.subscription, event, replay) {
            seen.breaks(format!("{what}: {why}"));
        }
        if !seen.changing && known.rests_since.is_some_and(|since| now > since + HEARD_WITHIN) {
            seen.breaks(format!("{what}: the subscription rests"));
        }
        let steady = now > seen.jumped_until;
        if let Err(why) = follows(&known.subscription, &durable, attempt, replay, steady.then_some(wall_ms)) {
            seen.breaks(format!("{what}: {why}"));
        }
        let (life, restarts) = (seen.life, seen.restarts());
        let retry = &known.subscription.retry;
        // A status that is not retried, or an age limit, may make any attempt the last.
        let early = !retry.dead_statuses.is_empty() || retry.age_max_s.is_some();
        let last_attempt = if early { 1 } else { attempts_max(retry) };
        let story = seen.stories.entry((id, event.id)).or_default();
        let again = story.delivered_in == Some((life, made_due));
        story.attempts += 1;
        story.spent |= attempt >= last_attempt;
        story.under_way += 1;
        if restarts == 0 && again {
            seen.breaks(format!("{what}: it was delivered before, and nothing broke since"));
        }
        seen.check_window(&self.disk, &known, restarts);
        // A suspect waits for a note on the disk after it was admitted.
        let late = matches!(&durable, DeliveryState::Record(record) if record.crashes >= SUSPECT_CRASHES);
        let begun = Begun { retry: attempt > 1 && !replay, replay, late };
        seen.check_limits(&self.disk, &known, begun, &what);
        if late {
            // Nor does its own time say when the next one may begin.
            seen.forget_pace(&known);
        }
    }

    /// The destination took what was sent.
    pub(super) fn taken(&self, subscription: SubscriptionId, event: EventId, replay: bool) {
        let mut seen = self.seen();
        seen.taken += 1;
        let rank = seen.taken;
        let story = seen.stories.entry((subscription, event)).or_default();
        if replay {
            story.replays_taken += 1;
        } else {
            story.first_taken.get_or_insert(rank);
        }
    }

    /// The attempt's end, as hookmill hears it; `None`: it panicked. `bad`: it speaks against the destination's health.
    pub(super) fn attempt_ends(
        &self,
        subscription: SubscriptionId,
        event: EventId,
        delivered: Option<bool>,
        bad: bool,
    ) {
        let made_due = self.disk.times_again(subscription, event);
        let mut seen = self.seen();
        seen.note_end(subscription, bad);
        let (now, life) = (seen.now(), seen.life);
        seen.trace.add(format!("{now:?} end {subscription} {event} delivered {delivered:?}"));
        let story = seen.stories.entry((subscription, event)).or_default();
        story.under_way = story.under_way.saturating_sub(1);
        match delivered {
            Some(true) => story.delivered_in = Some((life, made_due)),
            Some(false) | None => story.failed = true,
        }
    }
}

impl Seen {
    fn check_limits(&mut self, disk: &Disk, known: &Known, begun: Begun, what: &str) {
        let (now, restarts) = (self.now(), self.restarts());
        let subscription = &known.subscription;
        let limits = self.limits.get(&subscription.destination_id).copied().unwrap_or_default();
        // What could not be rendered was a first attempt that nobody saw, in every life that took it up, of every
        // subscription that shares the destination.
        let sharing = self.known.values().filter(|it| it.subscription.destination_id == subscription.destination_id);
        let not_rendered = self.faulty * (self.life + 1) * u32::try_from(sharing.count()).unwrap_or(u32::MAX);
        let unseen = not_rendered + self.not_noted(disk, subscription.destination_id);
        let borne = self.borne.entry(subscription.destination_id).or_default();
        if let Err(why) = borne.begin(&limits, begun, unseen, now) {
            self.breaks(format!("destination {}, {what}: {why}", subscription.destination_id));
        }
        if let Some(rate) = subscription.rate
            && let Err(why) = self.paced.entry(subscription.id).or_default().begin(rate, now)
            // A restarted actor begins anew.
            && restarts == 0
            && !begun.late
        {
            self.breaks(format!("{what}: {why}"));
        }
    }

    /// First attempts, at most, that their destination admitted and that wait for a note on the disk, as suspects do.
    fn not_noted(&self, disk: &Disk, destination: DestinationId) -> u32 {
        let starts = u64::from(self.life) + self.restarts() + 1;
        if starts + 1 < u64::from(SUSPECT_CRASHES) {
            return 0;
        }
        let own = self.known.values().filter(|known| known.subscription.destination_id == destination);
        let waiting = own.map(|known| {
            let id = known.subscription.id;
            let position = disk.state.position(id).now_or_never().and_then(Result::ok).flatten().unwrap_or_default();
            let suspects = position.open.iter().filter(|event| {
                let idle = self.stories.get(&(id, **event)).is_none_or(|story| story.under_way == 0);
                let read = disk.state.delivery(id, **event).now_or_never().and_then(Result::ok);
                // The count of the start under way may not be on the disk yet.
                idle && matches!(read, Some(DeliveryState::Record(record)) if record.crashes + 1 >= SUSPECT_CRASHES)
            });
            suspects.count().min(SUSPECTS_TOGETHER_MAX)
        });
        u32::try_from(waiting.sum::<usize>()).unwrap_or(u32::MAX)
    }

    fn forget_pace(&mut self, known: &Known) {
        self.borne.entry(known.subscription.destination_id).or_default().forget();
        self.paced.entry(known.subscription.id).or_default().forget();
    }

    fn note_end(&mut self, subscription: SubscriptionId, bad: bool) {
        let now = self.now();
        let Some(known) = self.known.get(&subscription) else { return };
        let destination = known.subscription.destination_id;
        let limits = self.limits.get(&destination).copied().unwrap_or_default();
        self.borne.entry(destination).or_default().end(&limits, bad, now);
    }

    /// How many are under way at once, in all and of one lane. What a crashed actor began goes on beside its successor.
    fn check_window(&mut self, disk: &Disk, known: &Known, restarts: u64) {
        let id = known.subscription.id;
        let own = self.stories.range((id, EventId::ZERO)..=(id, EventId::MAX));
        let under_way: Vec<(EventId, u32)> =
            own.filter(|(_, story)| story.under_way > 0).map(|((_, event), story)| (*event, story.under_way)).collect();
        if restarts > 0 {
            return;
        }
        if under_way.iter().any(|(_, times)| *times > 1) {
            self.breaks(format!("subscription {id}: an event is under way twice: {under_way:?}"));
        }
        if known.one_order {
            let mut lanes = std::collections::BTreeSet::new();
            for (event, _) in &under_way {
                let Some(stored) = disk.accepted_event(*event) else { continue };
                let Some((lane, on_failure)) = lane(&known.subscription, &stored) else { continue };
                // What was passed over, or died and was sent again, goes beside the others.
                let aside = self.stories.get(&(id, *event)).is_some_and(|story| story.failed);
                let again = disk.ever_dead(id, *event) || disk.times_again(id, *event) > 0;
                let free = again || (on_failure == OnFailure::Skip && aside);
                if !free && !lanes.insert(lane) {
                    self.breaks(format!("subscription {id}: two of one order key are under way: {under_way:?}"));
                    break;
                }
            }
        }
        if under_way.len() > known.window_max {
            self.breaks(format!(
                "subscription {id}: {} under way, the window is {}",
                under_way.len(),
                known.window_max
            ));
        }
    }
}
