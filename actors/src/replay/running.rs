//! The steps of active bulk replays: counting what one covers, then making it due at its rate.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use ractor::ActorRef;
use tokio::time::Instant;

use super::{
    ReplayMsg, ReplayState,
    jobs::first_cursor,
    look::look,
    room::{Room, full, room},
    scan::{LOOK_MAX, scan},
};
use crate::{
    domain::{
        activity::{ActivityResult, Author},
        ids::{ReplayId, SubscriptionId},
        replay::{ReplayItem, ReplayJob, ReplayQuery, ReplayStatus, SAMPLE_MAX},
        standing::Standing,
    },
    metrics::add,
    ports::{event_log::LogError, state_store::StateOp},
    snapshot::Snapshot,
};

/// Progress that makes nothing due is stored no more often than this.
const STORE_EVERY: Duration = Duration::from_secs(1);
/// The first wait for room; it doubles while there is none.
pub(super) const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(1);
/// After the store or the log could not be read.
const WAIT_AFTER_ERROR: Duration = Duration::from_secs(1);

/// What a step decided.
struct Step {
    job: ReplayJob,
    ops: Vec<StateOp>,
    /// Whose queues got something.
    fed: HashMap<SubscriptionId, u64>,
    /// It found no room, or nothing to do yet.
    held: bool,
}

impl ReplayState {
    pub(super) async fn step(&mut self, me: &ActorRef<ReplayMsg>, id: ReplayId, turn: u64) {
        let Some(live) = self.jobs.get(&id).filter(|live| live.turn == turn) else { return };
        let stepped = match live.job.status {
            ReplayStatus::Planning => self.plan(live.job.clone()).await,
            ReplayStatus::Running => self.feed(live.job.clone()).await,
            _ => return,
        };
        let outcome = match stepped {
            Ok(step) => self.take(id, step).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(Some(at)) => self.schedule(me, id, at),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(replay = id.0, %error, "a step of a replay failed; it is tried again");
                self.schedule(me, id, Instant::now() + WAIT_AFTER_ERROR);
            }
        }
    }

    /// Counts the next part of what the job covers.
    async fn plan(&self, mut job: ReplayJob) -> Result<Step, LogError> {
        if job.cursor == first_cursor(&job.query) {
            // What was decided before is recorded once this is.
            self.wires.records.everything(&*self.ports.log);
            self.commit(Vec::new()).await?;
        }
        let snapshot = self.wires.config.current();
        if let Some(step) = self.without_subscription(&snapshot, &job) {
            return Ok(step);
        }
        let found = scan(&self.ports, &snapshot, &job, LOOK_MAX).await?;
        job.counts.planned += found.items.len() as u64;
        let room = SAMPLE_MAX.saturating_sub(job.sample.len());
        job.sample.extend(found.items.iter().take(room).map(|(item, _)| *item));
        job.cursor = found.cursor;
        job.note = if found.ahead_of_intake { "waits until its events are taken in".to_owned() } else { String::new() };
        if found.end {
            job.cursor = first_cursor(&job.query);
            job.status = if job.start { ReplayStatus::Running } else { ReplayStatus::Planned };
        }
        Ok(Step { job, ops: Vec::new(), fed: HashMap::new(), held: found.ahead_of_intake })
    }

    /// The last step where the subscription that all goes to was deleted, or the one whose events are asked for by
    /// where they stand: what that was is not known without it.
    fn without_subscription(&self, snapshot: &Snapshot, job: &ReplayJob) -> Option<Step> {
        let source = match &job.query {
            ReplayQuery::Events(filter) if filter.standing.is_some() => Some(filter.subscription),
            _ => None,
        };
        let gone = |id: &SubscriptionId| !snapshot.configuration.subscriptions.contains_key(id);
        let gone = job.only_target().filter(gone).or(source.filter(gone))?;
        let mut job = job.clone();
        job.end(ReplayStatus::Failed, format!("subscription {gone} was deleted"), self.ports.clock.now_ms());
        Some(Step { job, ops: Vec::new(), fed: HashMap::new(), held: false })
    }

    /// Makes the next batch due, as far as there is room for it.
    async fn feed(&self, mut job: ReplayJob) -> Result<Step, LogError> {
        let now_ms = self.ports.clock.now_ms();
        let snapshot = self.wires.config.current();
        if let Some(step) = self.without_subscription(&snapshot, &job) {
            return Ok(step);
        }
        let mut step = Step { ops: Vec::new(), fed: HashMap::new(), held: false, job: job.clone() };
        let Some(live) = self.jobs.get(&job.id) else { return Ok(step) };
        let batch = live.pace.batch();
        let found = scan(&self.ports, &snapshot, &job, batch).await?;
        let mut rooms: HashMap<SubscriptionId, usize> = HashMap::new();
        let mut taken: HashSet<ReplayItem> = HashSet::new();
        job.note.clear();
        // The plan is the bound: what a clock that was set back let in is not part of it.
        let mut left = job.counts.planned.saturating_sub(job.counts.replayed + job.counts.skipped);
        for (item, cursor) in found.items {
            if left == 0 {
                break;
            }
            let plan = snapshot.plans.get(&(item.event.integration(), item.subscription));
            let Some(plan) = plan.filter(|_| !taken.contains(&item)) else {
                (job.counts.skipped, job.cursor, left) = (job.counts.skipped + 1, cursor, left - 1);
                continue;
            };
            let free = match rooms.get(&item.subscription) {
                Some(free) => *free,
                None => match room(&self.ports, plan).await? {
                    Room::For(free) => free,
                    Room::None(why) => {
                        job.note = why;
                        0
                    }
                },
            };
            if free == 0 {
                if job.note.is_empty() {
                    job.note = full(item.subscription);
                }
                step.held = true;
                break;
            }
            let may = self.may_be_sent(&snapshot, &job, item).await?;
            rooms.insert(item.subscription, free - usize::from(may));
            if may {
                step.ops.push(self.again(item.subscription, item.event, now_ms).await?);
                *step.fed.entry(item.subscription).or_default() += 1;
                taken.insert(item);
                job.counts.replayed += 1;
            } else {
                job.counts.skipped += 1;
            }
            (job.cursor, left) = (cursor, left - 1);
        }
        if !step.held {
            step.held = found.ahead_of_intake;
            job.cursor = found.cursor;
            if found.end || left == 0 {
                job.end(ReplayStatus::Done, "", now_ms);
            }
        }
        if step.fed.keys().any(|subscription| self.is_gone(*subscription)) {
            // It was deleted meanwhile: the next step knows.
            return Ok(Step { ops: Vec::new(), fed: HashMap::new(), held: true, ..step });
        }
        step.job = job;
        Ok(step)
    }

    /// Whether a delivery may be sent again: its payload is there, and it is not on its way already.
    async fn may_be_sent(&self, snapshot: &Snapshot, job: &ReplayJob, item: ReplayItem) -> Result<bool, LogError> {
        let ReplayItem { subscription, event } = item;
        match self.ports.log.get(event).await {
            Ok(Some(_)) => {}
            Ok(None) | Err(LogError::Corrupt(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
        if matches!(job.query, ReplayQuery::DeadLetters(_)) && job.target.is_none() {
            return Ok(true);
        }
        let configured = snapshot.configuration.subscriptions.get(&subscription);
        let start_after = configured.map_or(event, |it| it.start_after);
        let found = look(&*self.ports.state, subscription, start_after, event, None).await?;
        Ok(found.standing.is_none_or(Standing::is_settled))
    }

    /// Stores what a step decided, where that matters, and says when the next one is.
    async fn take(&mut self, id: ReplayId, step: Step) -> Result<Option<Instant>, LogError> {
        let Step { job, ops, fed, held } = step;
        let Some(live) = self.jobs.get_mut(&id) else { return Ok(None) };
        let count: u64 = fed.values().sum();
        let turned = job.status != live.stored.status;
        let is_old = live.stored_at.elapsed() >= STORE_EVERY && job != live.stored;
        if count > 0 || turned || is_old {
            self.store(&job, ops).await?;
        } else {
            live.job = job.clone();
        }
        let due_ms = self.ports.clock.now_ms();
        for subscription in fed.into_keys() {
            self.wires.retry.schedule(subscription, due_ms);
        }
        add(&self.wires.counters.replayed, count);
        if job.status.has_ended() {
            self.ended(&job);
            return Ok(None);
        }
        let Some(live) = self.jobs.get_mut(&id) else { return Ok(None) };
        let now = Instant::now();
        live.pace.went(now, usize::try_from(count).unwrap_or(usize::MAX));
        if held {
            let wait = live.wait;
            live.wait = if count > 0 { WAIT_MIN } else { (wait * 2).min(WAIT_MAX) };
            return Ok(Some(live.pace.ready().max(now + wait)));
        }
        live.wait = WAIT_MIN;
        Ok((job.status == ReplayStatus::Running || job.status == ReplayStatus::Planning).then(|| match job.status {
            ReplayStatus::Running => live.pace.ready(),
            _ => now,
        }))
    }

    fn ended(&self, job: &ReplayJob) {
        let (action, result) = match job.status {
            ReplayStatus::Done => ("replay.done", ActivityResult::Ok),
            _ => ("replay.failed", ActivityResult::Failed),
        };
        let counts = job.counts;
        let detail = match job.note.as_str() {
            "" => format!("{} sent again, {} skipped", counts.replayed, counts.skipped),
            note => format!("{note}; {} sent again", counts.replayed),
        };
        self.note(Author::hookmill(), action, self.about(job), result, detail);
    }
}
