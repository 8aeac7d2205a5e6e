//! One integration: takes its events in, in order, once each, and hands them to its deliveries. In: wakes from the
//! router. Out: notes to the log, batches and wakes to its deliveries, which it starts and restarts. Owns: the intake
//! position. A crash loses nothing: intake goes on from its recorded position.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::join_all};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::time::Instant;

use crate::{
    delivery::{
        DeliveryActor, DeliveryArgs, DeliveryMsg,
        handover::{Handover, Offer},
    },
    domain::{
        activity::{Activity, ActivityResult},
        ids::{EventId, IntegrationId, SubscriptionId},
    },
    integration::{
        account::IntakeAccount,
        dedup::RecentKeys,
        intake::{Intake, TakenIn},
        marks::RecentMarks,
    },
    metrics::add,
    ports::{
        event_log::{LogError, Stored, id_of},
        state_store::Note,
    },
    recorder::Owner,
    router::gate::Gate,
    snapshot::Plan,
    tree::{
        Ports,
        beside::here_or_beside,
        fault,
        mailbox::{Level, Post, Role},
        restart::{AfterCrash, RestartBudget, RestartLimit},
        wires::Wires,
    },
};

mod account;
mod dedup;
mod intake;
pub(crate) mod marks;

pub(crate) use self::intake::cancel_due;

/// What may be said to an integration actor.
pub(crate) enum IntegrationMsg {
    /// The router: the log has more for you. Never more than one waiting.
    Wake,
    /// The next events were read and looked at.
    Read(Result<TakenIn, LogError>),
    /// Reading or looking at the next events panicked.
    ReadPanicked,
    /// It runs: see what there is.
    Begin,
    /// The timer after a failed read: try again.
    ReadAgain,
    /// A commit of notes that is waited for came back, or one failed.
    Recorded(Result<(), LogError>),
    /// The configuration changed.
    Reconcile,
    /// The timer after a crash: start this delivery again.
    Restart(SubscriptionId),
    /// Answer when all deliveries under way are recorded.
    Drain(RpcReplyPort<()>),
}

fn read(result: std::thread::Result<Result<TakenIn, LogError>>) -> IntegrationMsg {
    result.map_or(IntegrationMsg::ReadPanicked, IntegrationMsg::Read)
}

const READ_PANICKED: &str = "taking in the next events panicked";
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A restart after a crash.
const MESSAGES_A_DELIVERY: usize = 1;

pub(crate) struct IntegrationActor;

pub(crate) struct IntegrationArgs {
    pub(crate) id: IntegrationId,
    pub(crate) ports: Arc<Ports>,
    pub(crate) wires: Arc<Wires>,
    pub(crate) limit: RestartLimit,
    pub(crate) level: Arc<Level>,
    /// Passed by each `Reconcile`, so that only one waits.
    pub(crate) reconcile: Gate,
}

pub(crate) struct IntegrationState {
    me: Post<IntegrationMsg>,
    args: IntegrationArgs,
    gate: Gate,
    intake: EventId,
    account: Arc<IntakeAccount>,
    reading: bool,
    more: bool,
    /// Boxed: a map's node has room for eleven.
    deliveries: BTreeMap<SubscriptionId, Box<Child>>,
    marks: RecentMarks,
    keys: RecentKeys,
}

/// A delivery as its integration sees it.
struct Child {
    plan: Arc<Plan>,
    running: Option<Running>,
    budget: RestartBudget,
    /// It kept crashing; its next change of configuration starts it again.
    parked: bool,
}

struct Running {
    actor: Post<DeliveryMsg>,
    handover: Arc<Handover>,
}

impl Actor for IntegrationActor {
    type Msg = IntegrationMsg;
    type State = IntegrationState;
    type Arguments = IntegrationArgs;

    async fn pre_start(
        &self,
        me: ActorRef<IntegrationMsg>,
        args: IntegrationArgs,
    ) -> Result<IntegrationState, ActorProcessingErr> {
        let me = Post::new(me, args.level.clone());
        let (marks, keys) = (RecentMarks::default(), RecentKeys::default());
        let account = Arc::new(IntakeAccount::new(args.id, me.clone(), marks.clone(), keys.clone()));
        // A predecessor that crashed may have commits on their way: no more of them, and read the position only after.
        args.wires.records.open(Owner::Integration(args.id), &account);
        args.ports.log.commit(Vec::new())?.await?;
        let intake = args.ports.state.intake(args.id).await?;
        marks.begin(intake);
        let gate = args.wires.intakes.set(args.id, me.clone());
        let mut state = IntegrationState {
            me: me.clone(),
            args,
            gate,
            intake,
            account,
            reading: false,
            more: true,
            deliveries: BTreeMap::new(),
            marks,
            keys,
        };
        // Boxed: the room for it would be kept for as long as the actor lives.
        Box::pin(state.reconcile(&me)).await;
        // Not here: an actor that fails before it runs leaves its deliveries behind.
        me.cast(IntegrationMsg::Begin);
        Ok(state)
    }

    async fn handle(
        &self,
        _me: ActorRef<IntegrationMsg>,
        msg: IntegrationMsg,
        state: &mut IntegrationState,
    ) -> Result<(), ActorProcessingErr> {
        state.args.level.handled();
        let me = state.me.clone();
        match msg {
            IntegrationMsg::Wake => {
                state.gate.open();
                state.more = true;
            }
            IntegrationMsg::Read(result) => {
                state.reading = false;
                state.take_in(&me, result);
            }
            IntegrationMsg::ReadPanicked => return Err(READ_PANICKED.into()),
            IntegrationMsg::Begin => {}
            IntegrationMsg::ReadAgain => state.reading = false,
            IntegrationMsg::Recorded(result) => result?,
            IntegrationMsg::Reconcile => {
                state.args.reconcile.open();
                // What is rare is boxed: an actor's future is as large as the largest of what it may wait for.
                Box::pin(state.reconcile(&me)).await;
            }
            IntegrationMsg::Restart(subscription) => Box::pin(state.start(&me, subscription)).await,
            IntegrationMsg::Drain(reply) => state.drain(reply),
        }
        state.read_on(&me).await
    }

    async fn handle_supervisor_evt(
        &self,
        _me: ActorRef<IntegrationMsg>,
        event: SupervisionEvent,
        state: &mut IntegrationState,
    ) -> Result<(), ActorProcessingErr> {
        let me = state.me.clone();
        match event {
            SupervisionEvent::ActorFailed(who, error) => state.crashed(&me, &who, &fault::of_failed(&error)),
            SupervisionEvent::ActorTerminated(..)
            | SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

impl IntegrationState {
    /// Takes in what there is. What is at hand and little is looked at right here, which costs nobody a turn; the rest
    /// beside the actor.
    async fn read_on(&mut self, me: &Post<IntegrationMsg>) -> Result<(), ActorProcessingErr> {
        while !self.reading && self.more && self.account.may_take_in() {
            self.more = false;
            let intake = Intake {
                ports: self.args.ports.clone(),
                // Never kept: a snapshot holds what is of its version alone, and thousands of them would.
                snapshot: self.args.wires.config.current(),
                integration: self.args.id,
                recent: self.keys.clone(),
            };
            let after = self.intake;
            let taking_in = Box::pin(async move { AssertUnwindSafe(intake.after(after)).catch_unwind().await });
            match here_or_beside(me, taking_in, read).await {
                Some(Ok(result)) => self.take_in(me, result),
                Some(Err(_)) => return Err(READ_PANICKED.into()),
                None => self.reading = true,
            }
        }
        Ok(())
    }

    fn take_in(&mut self, me: &Post<IntegrationMsg>, result: Result<TakenIn, LogError>) {
        let TakenIn { events, notes } = match result {
            Ok(taken_in) => taken_in,
            Err(error) => {
                tracing::warn!(integration = self.args.id.0, %error, "could not take in the next events");
                self.reading = true;
                self.more = true;
                me.send_after(READ_AGAIN_AFTER, || IntegrationMsg::ReadAgain);
                return;
            }
        };
        let (Some(first), Some(last)) = (events.first().map(id_of), events.last().map(id_of)) else { return };
        // There may be more: an empty read ends the round.
        self.more = true;
        let prev = std::mem::replace(&mut self.intake, last);
        self.note(events.len(), notes);
        for child in self.deliveries.values() {
            child.offer(prev, first, last, &events);
        }
    }

    /// Notes wait for company: the store pays for each commit, however small.
    fn note(&mut self, events: usize, notes: Vec<Note>) {
        add(&self.args.wires.counters.taken_in, events as u64);
        // Before anybody may read these events, or the next ones are looked at.
        self.marks.hold(&notes);
        self.keys.hold(&notes);
        // A subscription passes a marked event for good: after a crash the mark must be there if its position is, as
        // the same look may then find otherwise. Commits keep their order, so it is enough to hand it in first.
        let marked = notes.iter().any(|note| note.mark.is_some());
        let much = self.account.note(events, self.intake, notes);
        if marked || much {
            self.args.wires.records.now(&*self.args.ports.log, &self.account);
        } else {
            self.args.wires.records.later(&self.account, false);
        }
    }

    async fn reconcile(&mut self, me: &Post<IntegrationMsg>) {
        let snapshot = self.args.wires.config.current();
        let plans: BTreeMap<SubscriptionId, Arc<Plan>> =
            snapshot.plans_of(self.args.id).map(|plan| (plan.subscription.id, plan.clone())).collect();
        let gone: Vec<SubscriptionId> = self.deliveries.keys().filter(|id| !plans.contains_key(id)).copied().collect();
        for id in gone {
            self.remove(id);
        }
        self.args.level.allow(plans.len() * MESSAGES_A_DELIVERY);
        for (id, plan) in plans {
            match self.deliveries.get_mut(&id) {
                Some(child) if Arc::ptr_eq(&child.plan, &plan) => {}
                Some(child) => {
                    child.plan = plan.clone();
                    if let Some(Running { actor, .. }) = &child.running {
                        actor.cast(DeliveryMsg::Plan(plan));
                    } else if std::mem::take(&mut child.parked) {
                        child.budget = RestartBudget::new(self.args.limit);
                        self.start(me, id).await;
                    }
                }
                None => {
                    let budget = RestartBudget::new(self.args.limit);
                    let child = Child { plan, running: None, budget, parked: false };
                    self.deliveries.insert(id, Box::new(child));
                    self.start(me, id).await;
                }
            }
        }
    }

    async fn start(&mut self, me: &Post<IntegrationMsg>, subscription: SubscriptionId) {
        let Some(child) = self.deliveries.get_mut(&subscription) else { return };
        let level = self.args.wires.mailboxes.open(Role::Delivery, subscription.0);
        let handover = Arc::new(Handover::new(self.intake));
        let args = DeliveryArgs {
            level: level.clone(),
            plan: child.plan.clone(),
            handover: handover.clone(),
            marks: self.marks.clone(),
            ports: self.args.ports.clone(),
            wires: self.args.wires.clone(),
        };
        match Actor::spawn_linked(None, DeliveryActor, args, me.actor().get_cell()).await {
            Ok((actor, _)) => child.running = Some(Running { actor: Post::new(actor, level), handover }),
            Err(error) => self.restart_or_park(me, subscription, &fault::of_start(&error)),
        }
    }

    /// The subscription was deleted: its retries are cancelled, its dead letters stay to be looked at.
    fn remove(&mut self, subscription: SubscriptionId) {
        self.args.wires.deliveries.remove(subscription);
        self.args.wires.paces.forget(subscription);
        self.args.wires.records.forget(&*self.args.ports.log, Owner::Subscription(subscription));
        let Some(child) = self.deliveries.remove(&subscription) else { return };
        if let Some(Running { actor, .. }) = child.running {
            actor.actor().stop(Some("subscription deleted".to_owned()));
        }
        let ports = self.args.ports.clone();
        tokio::spawn(async move {
            if let Err(error) = cancel_due(&ports, subscription).await {
                tracing::warn!(subscription = subscription.0, %error, "retries of a deleted subscription remain");
            }
        });
    }

    fn crashed(&mut self, me: &Post<IntegrationMsg>, who: &ActorCell, error: &str) {
        let crashed = self
            .deliveries
            .iter()
            .find(|(_, child)| child.running.as_ref().is_some_and(|it| it.actor.actor().get_id() == who.get_id()))
            .map(|(id, _)| *id);
        if let Some(id) = crashed {
            self.restart_or_park(me, id, error);
        }
    }

    /// A delivery that keeps crashing rests alone: its siblings have nothing to do with its fault.
    fn restart_or_park(&mut self, me: &Post<IntegrationMsg>, id: SubscriptionId, error: &str) {
        let Some(child) = self.deliveries.get_mut(&id) else { return };
        child.running = None;
        self.args.wires.deliveries.remove(id);
        add(&self.args.wires.counters.restarts, 1);
        match child.budget.crashed(Instant::now()) {
            AfterCrash::Restart(wait) => {
                tracing::error!(subscription = id.0, error, ?wait, "delivery actor crashed; it is started again");
                me.send_after(wait, move || IntegrationMsg::Restart(id));
            }
            AfterCrash::GiveUp => {
                child.parked = true;
                add(&self.args.wires.counters.deliveries_failed, 1);
                tracing::error!(
                    subscription = id.0,
                    error,
                    "delivery actor keeps crashing; it rests until it is changed"
                );
                self.args.wires.record(Activity {
                    at_ms: self.args.ports.clock.now_ms(),
                    actor: "hookmill".to_owned(),
                    source: None,
                    action: "subscription.failed".to_owned(),
                    subject: format!("subscription {id}"),
                    integration: Some(self.args.id),
                    result: ActivityResult::Failed,
                    detail: "its delivery keeps crashing; its backlog waits in the log, and any change of it starts it again"
                        .to_owned(),
                });
            }
        }
    }

    fn drain(&self, reply: RpcReplyPort<()>) {
        let actors: Vec<_> =
            self.deliveries.values().filter_map(|child| Some(child.running.as_ref()?.actor.clone())).collect();
        tokio::spawn(async move {
            // All at once: none may begin anything while another still waits for its destination.
            join_all(actors.iter().map(|actor| actor.call(DeliveryMsg::Drain, None))).await;
            let _ = reply.send(());
        });
    }
}

impl Child {
    /// Hands a batch on to a delivery that stands right before it and has credit; wakes any other that rests.
    fn offer(&self, prev: EventId, first: EventId, last: EventId, events: &[Stored]) {
        let Some(Running { actor, handover }) = &self.running else { return };
        match handover.offer(prev, first, last, events.len()) {
            Offer::Batch => actor.cast(DeliveryMsg::Batch { prev, events: events.to_vec() }),
            Offer::Wake => actor.cast(DeliveryMsg::Wake),
            Offer::Nothing => {}
        }
    }
}
