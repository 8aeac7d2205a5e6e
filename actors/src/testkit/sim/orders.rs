//! What operators asked to have sent again or taken away, and whether what became durable is exactly that.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;

use super::programs::part;
use crate::{
    domain::{
        config::Configuration,
        delivery::{DeadLetter, DeliveryRecord, DeliveryStatus},
        event::Event,
        ids::{EventId, ReplayId, SubscriptionId},
        replay::{DeadLetterFilter, EventFilter, ReplayJob, ReplayQuery, ReplayStatus},
        standing::{Kept, Standing, standing},
    },
    ports::state_store::{DeliveryState, Mark, StateOp, StateStore},
    testkit::memory_state::MemoryState,
};

type Key = (SubscriptionId, EventId);

/// What the disk holds when a commit comes.
pub(super) struct Before<'a> {
    pub(super) state: &'a MemoryState,
    pub(super) configuration: &'a Configuration,
    /// Payloads that are still stored.
    pub(super) events: &'a BTreeMap<EventId, std::sync::Arc<Event>>,
}

/// What a discard is about.
#[derive(Clone, Debug)]
pub(super) enum Discard {
    One(Key),
    Many(DeadLetterFilter),
}

/// Everything asked for in a run, and what became of it.
#[derive(Default)]
pub(super) struct Orders {
    /// Single replays, asked for and not yet seen.
    singles: BTreeMap<Key, u32>,
    /// By reason: no two are the same.
    discards: BTreeMap<String, Discard>,
    jobs: BTreeMap<ReplayId, Job>,
    /// Times that a delivery was made due again.
    again: BTreeMap<Key, u32>,
    /// Times that one of these was recorded as delivered.
    delivered: BTreeMap<Key, u32>,
    wrong: Option<String>,
    /// The clock was set: no time can be compared with another.
    pub(super) timeless: bool,
}

/// A bulk replay as the disk saw it.
struct Job {
    stored: ReplayJob,
    /// What its query said when it was made.
    covers: BTreeSet<Key>,
    /// What it may leave out, or send though it did not stand there yet: what changed meanwhile.
    open: BTreeSet<Key>,
    sent: BTreeSet<Key>,
    /// What it should have sent, once it is done.
    missing: Vec<Key>,
}

/// The reason of what outlives the dead letters' retention.
const RETENTION_REASON: &str = "its retention in the dead letter ended";

impl Orders {
    pub(super) fn single(&mut self, key: Key) {
        *self.singles.entry(key).or_default() += 1;
    }

    pub(super) fn discard(&mut self, reason: String, what: Discard) {
        self.discards.insert(reason, what);
    }

    /// Times that a delivery was made due again.
    pub(super) fn again(&self, key: Key) -> u32 {
        self.again.get(&key).copied().unwrap_or(0)
    }

    /// Deliveries that were ever made due again, and how often they were recorded as delivered then.
    pub(super) fn all_again(&self) -> impl Iterator<Item = (Key, u32)> {
        self.again.keys().map(|key| (*key, self.delivered.get(key).copied().unwrap_or(0)))
    }

    /// Jobs, and what each that is done should have sent and did not.
    pub(super) fn jobs(&self) -> impl Iterator<Item = (&ReplayJob, &[Key])> {
        self.jobs.values().map(|job| (&job.stored, job.missing.as_slice()))
    }

    pub(super) fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }

    fn breaks(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    /// A commit is about to be applied.
    pub(super) fn committed(&mut self, ops: &[StateOp], before: &Before<'_>) {
        let stored = ops.iter().find_map(|op| match op {
            StateOp::Job(job) => Some(job.as_ref()),
            _ => None,
        });
        let mut fed = Vec::new();
        for op in ops {
            match op {
                StateOp::Delivery { subscription, event, record } => {
                    let key = (*subscription, *event);
                    let known = delivery(before.state, key);
                    if is_again(&known, record) {
                        fed.push(key);
                        self.sent_again(key, &known, before);
                    }
                    self.judge(key, &known, record, before);
                }
                StateOp::JobGone { id } => drop(self.jobs.remove(id)),
                _ => {}
            }
        }
        match stored {
            Some(job) => self.job(job, &fed, before),
            None => {
                for key in &fed {
                    self.one(*key);
                }
            }
        }
        self.note_changes(ops, stored.map(|job| job.id));
    }

    /// A settled delivery was made due again.
    fn sent_again(&mut self, key: Key, known: &DeliveryState, before: &Before<'_>) {
        *self.again.entry(key).or_default() += 1;
        let (subscription, event) = key;
        let start_after = start_after(before.configuration, subscription).unwrap_or(EventId::MAX);
        if stands(before.state, key, start_after, known).is_some_and(|it| !it.is_settled()) {
            self.breaks(format!("subscription {subscription}, event {event}: replayed while on its way: {known:?}"));
        }
    }

    fn one(&mut self, key: Key) {
        match self.singles.get_mut(&key) {
            Some(asked) if *asked > 0 => *asked -= 1,
            _ => self.breaks(format!("{key:?}: replayed, and nobody asked for it")),
        }
    }

    /// What a record says about replays and discards.
    fn judge(&mut self, key: Key, known: &DeliveryState, record: &DeliveryRecord, before: &Before<'_>) {
        let (subscription, event) = key;
        let cancelled = matches!(known, DeliveryState::Record(old) if old.status == DeliveryStatus::Cancelled);
        let goes_on =
            matches!(record.status, DeliveryStatus::Retrying | DeliveryStatus::Parked | DeliveryStatus::Pending);
        if cancelled && goes_on {
            self.breaks(format!("subscription {subscription}, event {event}: on its way again after it was cancelled"));
        }
        match record.status {
            DeliveryStatus::Delivered if record.replay && !is_delivered(known) => {
                *self.delivered.entry(key).or_default() += 1;
            }
            DeliveryStatus::Discarded => {
                let letter =
                    before.state.dead_letter(subscription, event).now_or_never().and_then(Result::ok).flatten();
                if let Err(why) = self.may_be_discarded(key, letter.as_ref(), record.reason.as_deref()) {
                    self.breaks(format!("subscription {subscription}, event {event}: discarded, {why}"));
                }
            }
            _ => {}
        }
    }

    fn may_be_discarded(&self, key: Key, letter: Option<&DeadLetter>, reason: Option<&str>) -> Result<(), String> {
        let letter = letter.ok_or("and it was no dead letter")?;
        let reason = reason.ok_or("and no reason is kept")?;
        let fits = match self.discards.get(reason) {
            Some(Discard::One(asked)) => *asked == key,
            Some(Discard::Many(filter)) => filter.passes(letter),
            None => reason == RETENTION_REASON,
        };
        if fits { Ok(()) } else { Err(format!("and nobody asked for that: {reason}, {letter:?}")) }
    }

    /// A job is stored, with what it makes due.
    fn job(&mut self, job: &ReplayJob, fed: &[Key], before: &Before<'_>) {
        let Some(known) = self.jobs.get(&job.id) else {
            let (covers, open) = covered(job, before);
            let (sent, missing) = (BTreeSet::new(), Vec::new());
            self.jobs.insert(job.id, Job { stored: job.clone(), covers, open, sent, missing });
            if !fed.is_empty() || job.status != ReplayStatus::Planning {
                self.breaks(format!("replay {}: it is made as {:?} and sends {fed:?}", job.id, job.status));
            }
            return;
        };
        if let Err(why) = known.follows(job, fed, self.timeless, before) {
            return self.breaks(format!("replay {}: {why}", job.id));
        }
        if let Some(known) = self.jobs.get_mut(&job.id) {
            known.stored = job.clone();
            known.sent.extend(fed);
            if job.status == ReplayStatus::Done && !self.timeless {
                known.missing = known.owed(before).filter(|item| !known.sent.contains(item)).copied().collect();
            }
        }
    }

    /// What is changed by others is not what active jobs found any more.
    fn note_changes(&mut self, ops: &[StateOp], by: Option<ReplayId>) {
        let jobs = self.jobs.values_mut().filter(|it| Some(it.stored.id) != by && !it.stored.status.has_ended());
        for job in jobs {
            for op in ops {
                match op {
                    StateOp::Delivery { subscription, event, record } => {
                        job.changed((*subscription, *event));
                        job.may_cover_delivered((*subscription, *event), record);
                    }
                    StateOp::Delivered { subscription, events, .. } => {
                        for event in events {
                            job.changed((*subscription, *event));
                        }
                    }
                    StateOp::Dead(letter) => job.may_cover(letter),
                    _ => {}
                }
            }
        }
    }
}

impl Job {
    /// What it must not leave out.
    fn owed(&self, before: &Before<'_>) -> impl Iterator<Item = &Key> {
        let stored = |(_, event): &&Key| before.events.contains_key(event);
        self.covers.iter().filter(|item| !self.open.contains(item)).filter(stored)
    }

    /// Whether this may be stored after what is.
    fn follows(&self, job: &ReplayJob, fed: &[Key], timeless: bool, before: &Before<'_>) -> Result<(), String> {
        let old = &self.stored;
        let same = (&old.query, old.target, old.upto, old.created_at_ms, old.rate_per_s);
        if same != (&job.query, job.target, job.upto, job.created_at_ms, job.rate_per_s) {
            return Err(format!("another took its place: {job:?}"));
        }
        if old.status.has_ended() {
            return Err(format!("it was {:?}, and is stored again as {:?} with {fed:?}", old.status, job.status));
        }
        if !fed.is_empty() && old.status != ReplayStatus::Running {
            return Err(format!("it is {:?} and sends {fed:?}", old.status));
        }
        if job.counts.replayed != old.counts.replayed + fed.len() as u64 {
            return Err(format!("it counts {:?} after {:?} and sends {fed:?}", job.counts, old.counts));
        }
        if job.counts.replayed > job.counts.planned {
            return Err(format!("it sends more than was planned: {:?}", job.counts));
        }
        if timeless {
            return Ok(());
        }
        let planned = usize::try_from(job.counts.planned).unwrap_or(usize::MAX);
        let is_planned = old.status == ReplayStatus::Planning
            && !matches!(job.status, ReplayStatus::Planning | ReplayStatus::Cancelled | ReplayStatus::Failed);
        if is_planned && !(self.owed(before).count()..=self.covers.len()).contains(&planned) {
            return Err(format!("it plans {planned}, and its query covered {:?}", self.covers));
        }
        if let Some(item) = fed.iter().find(|item| self.sent.contains(item)) {
            return Err(format!("it sends {item:?} twice"));
        }
        match fed.iter().find(|item| !self.covers.contains(item)) {
            Some(item) => Err(format!("it sends {item:?}, which its query did not cover: {job:?}")),
            None => Ok(()),
        }
    }

    /// A delivery changed that it may cover, or that is where it sends to.
    fn changed(&mut self, (subscription, event): Key) {
        let to = match (self.stored.target, source(&self.stored)) {
            (Some(target), Some(source)) if subscription == source || subscription == target => target,
            (Some(_), _) => return,
            (None, _) => subscription,
        };
        self.open.insert((to, event));
    }

    /// A letter that came there before the job was made, and is recorded only now.
    fn may_cover(&mut self, letter: &DeadLetter) {
        let early = letter.at_ms <= self.stored.created_at_ms && letter.event <= self.stored.upto;
        let fits = match &self.stored.query {
            ReplayQuery::DeadLetters(filter) => filter.passes(letter),
            ReplayQuery::Events(filter) => {
                filter.subscription == letter.subscription && filter.standing == Some(Standing::Dead)
            }
        };
        if early && fits {
            self.may_send((letter.subscription, letter.event));
        }
    }

    /// A delivery that ended before the job was made, and is recorded only now.
    fn may_cover_delivered(&mut self, (subscription, event): Key, record: &DeliveryRecord) {
        let ReplayQuery::Events(filter) = &self.stored.query else { return };
        let ended_ms = record.latest.last().map(|attempt| attempt.at_ms + u64::from(attempt.duration_ms));
        let early = ended_ms.is_some_and(|ended_ms| ended_ms <= self.stored.created_at_ms) && event <= self.stored.upto;
        let delivered = record.status == DeliveryStatus::Delivered && filter.standing == Some(Standing::Delivered);
        if early && delivered && filter.subscription == subscription {
            self.may_send((subscription, event));
        }
    }

    fn may_send(&mut self, (subscription, event): Key) {
        let item = (self.stored.target.unwrap_or(subscription), event);
        self.covers.insert(item);
        self.open.insert(item);
    }
}

/// Whose deliveries the query is about, where that is one subscription.
pub(super) fn source(job: &ReplayJob) -> Option<SubscriptionId> {
    match &job.query {
        ReplayQuery::DeadLetters(filter) => filter.subscription,
        ReplayQuery::Events(filter) => Some(filter.subscription),
    }
}

/// What a new job covers, and what of it may be left out because it is on its way.
fn covered(job: &ReplayJob, before: &Before<'_>) -> (BTreeSet<Key>, BTreeSet<Key>) {
    let of = |key: Key| (job.target.unwrap_or(key.0), key.1);
    let covers: BTreeSet<Key> = match &job.query {
        ReplayQuery::DeadLetters(filter) => {
            let letters = before.state.dead_letters(None, usize::MAX).now_or_never().and_then(Result::ok);
            let letters = letters.unwrap_or_default().into_iter();
            let stand = letters.filter(|it| filter.passes(it) && it.at_ms <= job.created_at_ms && it.event <= job.upto);
            stand.map(|letter| of((letter.subscription, letter.event))).collect()
        }
        ReplayQuery::Events(filter) => {
            let own = before.events.range(..=job.upto).filter(|(_, event)| fits(filter, event, before));
            own.map(|(event, _)| of((filter.subscription, *event))).collect()
        }
    };
    let on_its_way = |key: &&Key| {
        let key = **key;
        let start_after = start_after(before.configuration, key.0).unwrap_or(EventId::MAX);
        stands(before.state, key, start_after, &delivery(before.state, key)).is_some_and(|it| !it.is_settled())
    };
    let open = covers.iter().filter(on_its_way).copied().collect();
    (covers, open)
}

fn fits(filter: &EventFilter, event: &Event, before: &Before<'_>) -> bool {
    let body = &event.arrival.body;
    let event_type = part(body, 1).filter(|_| !body.ends_with(b"boom"));
    let key = (filter.subscription, event.id);
    let start_after = start_after(before.configuration, filter.subscription).unwrap_or(EventId::ZERO);
    event.id.integration() == filter.integration
        && filter.from_ms.is_none_or(|from| event.id.millis() >= from)
        && filter.to_ms.is_none_or(|to| event.id.millis() < to)
        && filter.endpoint.is_none_or(|endpoint| event.arrival.endpoint == endpoint)
        && filter.selection().takes_type(event_type)
        && filter
            .standing
            .is_none_or(|wanted| stands(before.state, key, start_after, &delivery(before.state, key)) == Some(wanted))
}

fn start_after(configuration: &Configuration, subscription: SubscriptionId) -> Option<EventId> {
    configuration.subscriptions.get(&subscription).map(|it| it.start_after)
}

fn stands(
    state: &MemoryState,
    (subscription, event): Key,
    start_after: EventId,
    known: &DeliveryState,
) -> Option<Standing> {
    let position = state.position(subscription).now_or_never().and_then(Result::ok).flatten().unwrap_or_default();
    let note = state.note(event).now_or_never().and_then(Result::ok).flatten();
    let duplicate = note.is_some_and(|note| matches!(note.mark, Some(Mark::DuplicateOf(_))));
    let kept = match known {
        DeliveryState::Unknown => Kept::Nothing,
        DeliveryState::Delivered { .. } => Kept::Delivered,
        DeliveryState::Record(record) => Kept::Record(record.status),
    };
    standing(event, start_after, &position, kept, duplicate)
}

fn delivery(state: &MemoryState, (subscription, event): Key) -> DeliveryState {
    let read = state.delivery(subscription, event).now_or_never();
    read.and_then(Result::ok).unwrap_or(DeliveryState::Unknown)
}

/// Whether the record makes a delivery due again, rather than saying how its attempts go.
fn is_again(known: &DeliveryState, record: &DeliveryRecord) -> bool {
    let begins = record.replay && record.status == DeliveryStatus::Retrying && record.attempts == 0;
    begins && !matches!(known, DeliveryState::Record(old) if old.replay && old.status == DeliveryStatus::Retrying)
}

fn is_delivered(known: &DeliveryState) -> bool {
    match known {
        DeliveryState::Delivered { .. } => true,
        DeliveryState::Record(record) => record.status == DeliveryStatus::Delivered,
        DeliveryState::Unknown => false,
    }
}
