//! Making bulk replays, and what operators do about them.

use std::time::Duration;

use ractor::ActorRef;
use tokio::time::Instant;

use super::{Live, NewReplay, ReplayCommand, ReplayError, ReplayMsg, ReplayState, pace::Pace, running::WAIT_MIN};
use crate::{
    domain::{
        activity::{ActivityResult, Author},
        config::Configuration,
        ids::{EventId, IntegrationId, ReplayId, SubscriptionId},
        limits::{REPLAY_RATE_MAX, REPLAYS_ACTIVE_MAX, REPLAYS_MAX},
        replay::{
            EventFilter, REPLAY_TYPES_BYTES_MAX, ReplayCounts, ReplayCursor, ReplayJob, ReplayQuery, ReplayStatus,
        },
    },
    ports::{event_log::LogError, state_store::StateOp},
};

/// Within this, deliveries hear of the attempts that have ended. A plan is not made earlier: what it did not find
/// yet, though it stood there when the job was made, would take the place of something else.
pub(super) const HEARD_WITHIN: Duration = Duration::from_millis(200);

impl Live {
    pub(super) fn new(job: ReplayJob) -> Self {
        let now = Instant::now();
        Self { stored: job.clone(), stored_at: now, turn: 0, pace: Pace::new(job.rate_per_s, now), wait: WAIT_MIN, job }
    }
}

impl ReplayState {
    pub(super) async fn create(
        &mut self,
        me: &ActorRef<ReplayMsg>,
        author: Author,
        wanted: NewReplay,
    ) -> Result<ReplayJob, ReplayError> {
        let NewReplay { query, target, rate_per_s, start } = wanted;
        validate(&self.wires.config.current().configuration, &query, target)?;
        if !(1..=REPLAY_RATE_MAX).contains(&rate_per_s) {
            let detail = format!("must be from 1 to {REPLAY_RATE_MAX}; it is {rate_per_s}");
            return Err(ReplayError::Invalid { field: "rate_per_s", detail });
        }
        self.ensure_may_begin()?;
        let mut ops = self.make_place()?;
        let id = self.jobs.last_key_value().map_or(1, |(last, _)| last.0 + 1);
        let job = ReplayJob {
            id: ReplayId(id),
            author: author.name.clone(),
            created_at_ms: self.ports.clock.now_ms(),
            upto: self.upto(&query).await?,
            cursor: first_cursor(&query),
            query,
            target,
            rate_per_s,
            status: ReplayStatus::Planning,
            counts: ReplayCounts::default(),
            sample: Vec::new(),
            start,
            note: String::new(),
            ended_at_ms: None,
        };
        ops.push(StateOp::Job(Box::new(job.clone())));
        let gone: Vec<ReplayId> = ops
            .iter()
            .filter_map(|op| match op {
                StateOp::JobGone { id } => Some(*id),
                _ => None,
            })
            .collect();
        self.commit(ops).await?;
        for id in gone {
            self.jobs.remove(&id);
        }
        self.jobs.insert(job.id, Live::new(job.clone()));
        self.schedule(me, job.id, Instant::now() + HEARD_WITHIN);
        self.note(author, "replay.created", self.about(&job), ActivityResult::Ok, "");
        Ok(job)
    }

    pub(super) async fn command(
        &mut self,
        me: &ActorRef<ReplayMsg>,
        author: Author,
        id: ReplayId,
        command: ReplayCommand,
    ) -> Result<ReplayJob, ReplayError> {
        let Some(live) = self.jobs.get(&id) else { return Err(ReplayError::NoJob(id)) };
        let mut job = live.job.clone();
        let refused = |right| Err(ReplayError::WrongStatus { id, status: job.status, right });
        let (status, action) = match (command, job.status) {
            (ReplayCommand::Start, ReplayStatus::Planning) => {
                job.start = true;
                (ReplayStatus::Planning, "replay.started")
            }
            (ReplayCommand::Start, ReplayStatus::Planned) => (ReplayStatus::Running, "replay.started"),
            (ReplayCommand::Pause, ReplayStatus::Running) => (ReplayStatus::Paused, "replay.paused"),
            (ReplayCommand::Resume, ReplayStatus::Paused) => (ReplayStatus::Running, "replay.resumed"),
            (ReplayCommand::Cancel, status) if !status.has_ended() => (ReplayStatus::Cancelled, "replay.cancelled"),
            (ReplayCommand::Start, _) => return refused("only one that is planned can be started"),
            (ReplayCommand::Pause, _) => return refused("only one that is running can be paused"),
            (ReplayCommand::Resume, _) => return refused("only one that is paused can be resumed"),
            (ReplayCommand::Cancel, _) => return refused("it has ended"),
        };
        let begins = status == ReplayStatus::Running;
        if begins {
            self.ensure_may_begin()?;
        }
        job.status = status;
        job.note.clear();
        if status == ReplayStatus::Cancelled {
            job.end(status, format!("cancelled by {author}"), self.ports.clock.now_ms());
        }
        self.store(&job, Vec::new()).await?;
        if begins && let Some(live) = self.jobs.get_mut(&id) {
            live.pace = Pace::new(job.rate_per_s, Instant::now());
            live.wait = WAIT_MIN;
            self.schedule(me, id, Instant::now());
        }
        self.note(author, action, self.about(&job), ActivityResult::Ok, "");
        Ok(job)
    }

    /// Stores a job together with what it does, and takes it as the one in force.
    pub(super) async fn store(&mut self, job: &ReplayJob, mut ops: Vec<StateOp>) -> Result<(), LogError> {
        ops.push(StateOp::Job(Box::new(job.clone())));
        self.commit(ops).await?;
        if let Some(live) = self.jobs.get_mut(&job.id) {
            live.job = job.clone();
            live.stored = job.clone();
            live.stored_at = Instant::now();
        }
        Ok(())
    }

    /// Sets a job's timer; any earlier one is stale.
    pub(super) fn schedule(&mut self, me: &ActorRef<ReplayMsg>, id: ReplayId, at: Instant) {
        let Some(live) = self.jobs.get_mut(&id) else { return };
        live.turn += 1;
        let turn = live.turn;
        let wait = at.saturating_duration_since(Instant::now());
        if wait == Duration::ZERO {
            let _ = me.cast(ReplayMsg::Step { id, turn });
        } else {
            me.send_after(wait, move || ReplayMsg::Step { id, turn });
        }
    }

    fn ensure_may_begin(&self) -> Result<(), ReplayError> {
        match self.jobs.values().filter(|live| live.job.status.is_active()).count() {
            active if active >= REPLAYS_ACTIVE_MAX => Err(ReplayError::TooMany(active)),
            _ => Ok(()),
        }
    }

    /// The oldest that ended goes when there are as many as there may be.
    fn make_place(&self) -> Result<Vec<StateOp>, ReplayError> {
        if self.jobs.len() < REPLAYS_MAX {
            return Ok(Vec::new());
        }
        let ended = self.jobs.values().find(|live| live.job.status.has_ended());
        let oldest = ended.ok_or(ReplayError::TooMany(self.jobs.len()))?;
        Ok(vec![StateOp::JobGone { id: oldest.job.id }])
    }

    /// The last event that a query made now may cover.
    async fn upto(&self, query: &ReplayQuery) -> Result<EventId, LogError> {
        let ReplayQuery::Events(filter) = query else { return Ok(self.ports.log.last_committed()) };
        let before = filter.to_ms.map_or(EventId::MAX, EventId::at_millis);
        let newest = self.ports.log.latest(Some(filter.integration), before, 1).await?;
        let newest = newest.first().copied().unwrap_or(EventId::ZERO);
        if filter.standing.is_none() {
            return Ok(newest);
        }
        // Where an event stands is fixed only once its subscription has settled everything up to it.
        let position = self.ports.state.position(filter.subscription).await?.unwrap_or_default();
        let settled = position.open.first().map_or(position.read_upto, |open| just_before(*open));
        Ok(newest.min(settled))
    }
}

/// Where a query's scan begins.
pub(super) fn first_cursor(query: &ReplayQuery) -> ReplayCursor {
    let from_ms = match query {
        ReplayQuery::DeadLetters(_) => None,
        ReplayQuery::Events(filter) => filter.from_ms,
    };
    let event = from_ms.map_or(EventId::ZERO, |from_ms| just_before(EventId::at_millis(from_ms)));
    ReplayCursor { subscription: 0, event }
}

fn just_before(event: EventId) -> EventId {
    EventId::from_u128(event.as_u128().saturating_sub(1))
}

fn validate(
    configuration: &Configuration,
    query: &ReplayQuery,
    target: Option<SubscriptionId>,
) -> Result<(), ReplayError> {
    let owner = |field, id: SubscriptionId| -> Result<IntegrationId, ReplayError> {
        let found = configuration.subscriptions.get(&id).map(|subscription| subscription.integration_id);
        found.ok_or_else(|| invalid(field, format!("names subscription {id}, which does not exist")))
    };
    let target_of = target.map(|target| owner("target_subscription_id", target)).transpose()?;
    let of = match query {
        ReplayQuery::DeadLetters(filter) => {
            // Two subscriptions may hold letters of one event, and a third shall get it once.
            if target.is_some() && filter.subscription.is_none() {
                let detail = "is missing: it says whose dead letters go to the other subscription";
                return Err(invalid("subscription_id", detail));
            }
            // The letters of a deleted subscription may still go to another.
            let whose = filter.subscription.and_then(|id| configuration.subscriptions.get(&id));
            whose.map(|subscription| subscription.integration_id)
        }
        ReplayQuery::Events(filter) => {
            validate_events(filter)?;
            let integration = owner("subscription_id", filter.subscription)?;
            if integration != filter.integration {
                return Err(invalid("subscription_id", format!("is not one of integration {}", filter.integration)));
            }
            Some(integration)
        }
    };
    match (target_of, of) {
        (Some(target_of), Some(of)) if target_of != of => {
            Err(invalid("target_subscription_id", format!("must be a subscription of integration {of}")))
        }
        _ => Ok(()),
    }
}

fn validate_events(filter: &EventFilter) -> Result<(), ReplayError> {
    filter.selection().validate_types().map_err(|detail| invalid("types", detail))?;
    let bytes: usize = filter.types.iter().map(String::len).sum();
    if bytes > REPLAY_TYPES_BYTES_MAX {
        let detail = format!("has {bytes} bytes of patterns; at most {REPLAY_TYPES_BYTES_MAX} are allowed");
        return Err(invalid("types", detail));
    }
    if filter.standing.is_some_and(|standing| !standing.is_settled()) {
        let detail = "must be one that deliveries stay in, such as `delivered`, `dead` or `filtered`; what is on its way \
                      needs no replay";
        return Err(invalid("status", detail));
    }
    Ok(())
}

fn invalid(field: &'static str, detail: impl Into<String>) -> ReplayError {
    ReplayError::Invalid { field, detail: detail.into() }
}
