//! Sends stored events again, one by one or in bulk, and takes dead letters away. In: requests of operators and of
//! the scheduler, its own timers. Out: due entries to the log, hints to the retry actor and to deliveries, activities.
//! Owns: bulk replays, as their stored jobs say. It is the only one that changes a delivery that is settled, so that
//! what it looked at still holds when it commits. A crash loses nothing: each step is one commit of its due entries
//! *and* of how far the job has come, and `pre_start` goes on from there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::time::Instant;

pub use self::{
    error::ReplayError,
    look::{Look, look, look_of},
    scan::{Letters, letters},
};
use self::{jobs::HEARD_WITHIN, pace::Pace, retention::Sweep};
use crate::{
    domain::{
        activity::{Activity, ActivityResult, Author},
        ids::{EventId, IntegrationId, ReplayId, SubscriptionId},
        replay::{DeadLetterFilter, ReplayJob, ReplayQuery},
    },
    ports::{event_log::LogError, state_store::StateOp},
    tree::{Ports, wires::Wires},
};

mod error;
mod handle;
mod jobs;
mod look;
mod pace;
mod retention;
mod room;
mod running;
mod scan;
mod single;

/// A bulk replay that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReplay {
    /// What is sent again.
    pub query: ReplayQuery,
    /// Where to; `None`: dead letters to their own subscriptions, events to the one that the query is about.
    pub target: Option<SubscriptionId>,
    /// Deliveries a second, 1 to `REPLAY_RATE_MAX`.
    pub rate_per_s: u32,
    /// Whether it starts as soon as it is planned.
    pub start: bool,
}

/// What may be done about a bulk replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayCommand {
    /// Begin to send what was planned, or as soon as it is.
    Start,
    /// Send no more until resumed.
    Pause,
    /// Go on.
    Resume,
    /// End it; what is already due is still delivered.
    Cancel,
}

/// Which deliveries one replay by hand may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One that stands in the dead letter.
    DeadLetter,
    /// Any that is settled, and any that was never to be.
    AnyStored,
}

/// What one call of a bulk discard did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discarded {
    /// Letters that went.
    pub discarded: u64,
    /// Where the next call goes on; `None` when nothing is left to look at.
    pub next: Option<(SubscriptionId, EventId)>,
}

/// What may be said to the replay actor.
pub(crate) enum ReplayMsg {
    /// Send one delivery again.
    One {
        author: Author,
        subscription: SubscriptionId,
        event: EventId,
        scope: Scope,
        reply: RpcReplyPort<Result<(), ReplayError>>,
    },
    /// Take one letter out of the dead letter.
    Discard {
        author: Author,
        subscription: SubscriptionId,
        event: EventId,
        reason: String,
        reply: RpcReplyPort<Result<(), ReplayError>>,
    },
    /// Take out those that pass, as far as one call goes.
    DiscardMany {
        author: Author,
        filter: Box<DeadLetterFilter>,
        after: Option<(SubscriptionId, EventId)>,
        reason: String,
        reply: RpcReplyPort<Result<Discarded, ReplayError>>,
    },
    /// Plan a bulk replay.
    Create { author: Author, wanted: Box<NewReplay>, reply: RpcReplyPort<Result<ReplayJob, ReplayError>> },
    /// Do something about one.
    Command {
        author: Author,
        id: ReplayId,
        command: ReplayCommand,
        reply: RpcReplyPort<Result<ReplayJob, ReplayError>>,
    },
    /// The timer of an active one: its next step. One of an earlier turn is stale.
    Step { id: ReplayId, turn: u64 },
    /// Take away the letters that have outlived this retention; answered with how many there were.
    Sweep { age_max: Duration, reply: RpcReplyPort<Result<u64, LogError>> },
    /// Go on with that.
    SweepOn(Sweep),
}

pub(crate) struct ReplayActor;

pub(crate) struct ReplayArgs {
    pub(crate) ports: Arc<Ports>,
    pub(crate) wires: Arc<Wires>,
}

pub(crate) struct ReplayState {
    ports: Arc<Ports>,
    wires: Arc<Wires>,
    jobs: BTreeMap<ReplayId, Live>,
}

/// A bulk replay and what of it is not stored.
struct Live {
    job: ReplayJob,
    /// As it was stored last.
    stored: ReplayJob,
    stored_at: Instant,
    /// Counts its timers, so that one from before a pause is known.
    turn: u64,
    pace: Pace,
    /// The wait after finding no room; grows while there is none.
    wait: Duration,
}

impl Actor for ReplayActor {
    type Msg = ReplayMsg;
    type State = ReplayState;
    type Arguments = ReplayArgs;

    async fn pre_start(&self, me: ActorRef<ReplayMsg>, args: ReplayArgs) -> Result<ReplayState, ActorProcessingErr> {
        let ReplayArgs { ports, wires } = args;
        // A predecessor that crashed may have commits on their way.
        ports.log.commit(Vec::new())?.await?;
        let jobs = ports.state.jobs().await?;
        let jobs = jobs.into_iter().map(|job| (job.id, Live::new(job))).collect();
        let mut state = ReplayState { ports, wires, jobs };
        let active: Vec<ReplayId> =
            state.jobs.iter().filter(|(_, live)| live.job.status.is_active()).map(|(id, _)| *id).collect();
        for id in active {
            state.schedule(&me, id, Instant::now() + HEARD_WITHIN);
        }
        state.wires.replays.set(me);
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<ReplayMsg>,
        msg: ReplayMsg,
        state: &mut ReplayState,
    ) -> Result<(), ActorProcessingErr> {
        // Who asked may have gone; what was asked for is done all the same.
        match msg {
            ReplayMsg::One { author, subscription, event, scope, reply } => {
                drop(reply.send(state.one(author, subscription, event, scope).await));
            }
            ReplayMsg::Discard { author, subscription, event, reason, reply } => {
                drop(reply.send(state.discard(author, subscription, event, reason).await));
            }
            ReplayMsg::DiscardMany { author, filter, after, reason, reply } => {
                drop(reply.send(state.discard_many(author, &filter, after, &reason).await));
            }
            ReplayMsg::Create { author, wanted, reply } => {
                drop(reply.send(state.create(&me, author, *wanted).await));
            }
            ReplayMsg::Command { author, id, command, reply } => {
                drop(reply.send(state.command(&me, author, id, command).await));
            }
            ReplayMsg::Step { id, turn } => state.step(&me, id, turn).await,
            ReplayMsg::Sweep { age_max, reply } => state.sweep(&me, age_max, reply).await,
            ReplayMsg::SweepOn(sweep) => state.sweep_on(&me, sweep).await,
        }
        Ok(())
    }
}

impl ReplayState {
    async fn commit(&self, ops: Vec<StateOp>) -> Result<(), LogError> {
        self.ports.log.commit(ops)?.await
    }

    /// Notes what was done to what, which may be of one integration.
    fn note(
        &self,
        author: Author,
        action: &str,
        (subject, integration): (String, Option<IntegrationId>),
        result: ActivityResult,
        detail: impl Into<String>,
    ) {
        self.wires.record(Activity {
            at_ms: self.ports.clock.now_ms(),
            actor: author.name,
            source: author.source,
            action: action.to_owned(),
            subject,
            integration,
            result,
            detail: detail.into(),
        });
    }

    /// A bulk replay, as an activity's subject.
    fn about(&self, job: &ReplayJob) -> (String, Option<IntegrationId>) {
        let of = |subscription: &SubscriptionId| {
            self.wires.config.current().configuration.subscriptions.get(subscription).map(|it| it.integration_id)
        };
        let integration = match &job.query {
            ReplayQuery::Events(filter) => Some(filter.integration),
            ReplayQuery::DeadLetters(filter) => filter.subscription.as_ref().and_then(of),
        };
        (format!("replay {}", job.id), integration)
    }
}
