//! One integration: takes its events in, in order, once each, and hands them to its deliveries. In: wakes from the
//! router, what is sent to its deliveries, changes from the supervisor. Out: notes to the log. Owns: the intake position
//! and its deliveries, each with a restart budget of its own. A crash loses nothing: intake and deliveries go on from
//! their recorded positions.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, future::join_all};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    delivery::{
        Delivery, DeliveryArgs, DeliveryMsg,
        post::{DeliveryPost, Incarnation},
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
        event_log::{LogError, id_of},
        state_store::Note,
    },
    recorder::Owner,
    router::gate::Gate,
    snapshot::Plan,
    tree::{
        Ports,
        beside::here_or_beside,
        fault,
        mailbox::{Level, Post, Role, Way},
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
    /// The timer after a failed read: try again.
    ReadAgain,
    /// A commit of notes that is waited for came back, or one failed.
    Recorded(Result<(), LogError>),
    /// The configuration changed.
    Reconcile,
    /// For one of its deliveries.
    Delivery(Incarnation, DeliveryMsg),
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
    /// How many deliveries were started.
    incarnations: u32,
    /// It is being stopped: no delivery begins again.
    draining: bool,
    marks: RecentMarks,
    keys: RecentKeys,
}

/// A delivery as its integration sees it.
struct Child {
    plan: Arc<Plan>,
    running: Option<Delivery>,
    budget: RestartBudget,
    /// It kept crashing; its next change of configuration starts it again.
    parked: bool,
}

impl Child {
    /// A turn of the delivery, if it runs. A panic costs this delivery alone: it starts again from its recorded position.
    fn has_turn(&mut self, turn: impl FnOnce(&mut Delivery)) -> std::thread::Result<()> {
        let Some(delivery) = &mut self.running else { return Ok(()) };
        catch_unwind(AssertUnwindSafe(|| turn(delivery)))
    }
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
        let gate = Gate::default();
        args.wires.intakes.set(args.id, (me.clone(), gate.clone()));
        let mut state = IntegrationState {
            me,
            args,
            gate,
            intake,
            account,
            reading: false,
            more: true,
            deliveries: BTreeMap::new(),
            incarnations: 0,
            draining: false,
            marks,
            keys,
        };
        // Boxed: the room for it would be kept for as long as the actor lives.
        Box::pin(state.reconcile()).await;
        state.read_on()?;
        Ok(state)
    }

    async fn handle(
        &self,
        _me: ActorRef<IntegrationMsg>,
        msg: IntegrationMsg,
        state: &mut IntegrationState,
    ) -> Result<(), ActorProcessingErr> {
        if !matches!(msg, IntegrationMsg::Delivery(..)) {
            state.args.level.handled();
        }
        match msg {
            IntegrationMsg::Delivery(to, msg) => {
                state.pass_on(to, msg);
                return Ok(());
            }
            IntegrationMsg::Wake => {
                state.gate.open();
                state.more = true;
            }
            IntegrationMsg::Read(result) => {
                state.reading = false;
                state.take_in(result);
            }
            IntegrationMsg::ReadPanicked => return Err(READ_PANICKED.into()),
            IntegrationMsg::ReadAgain => state.reading = false,
            IntegrationMsg::Recorded(result) => result?,
            IntegrationMsg::Reconcile => {
                state.args.reconcile.open();
                // What is rare is boxed: an actor's future is as large as the largest of what it may wait for.
                Box::pin(state.reconcile()).await;
            }
            IntegrationMsg::Restart(subscription) => Box::pin(state.start(subscription)).await,
            IntegrationMsg::Drain(reply) => state.drain(reply),
        }
        state.read_on()
    }
}

impl IntegrationState {
    /// Takes in what there is. What is at hand and little is looked at right here, which costs nobody a turn; the rest
    /// beside the actor.
    fn read_on(&mut self) -> Result<(), ActorProcessingErr> {
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
            match here_or_beside(&self.me, taking_in, read) {
                Some(Ok(result)) => self.take_in(result),
                Some(Err(_)) => return Err(READ_PANICKED.into()),
                None => self.reading = true,
            }
        }
        Ok(())
    }

    fn take_in(&mut self, result: Result<TakenIn, LogError>) {
        let TakenIn { events, notes, all } = match result {
            Ok(taken_in) => taken_in,
            Err(error) => {
                tracing::warn!(integration = self.args.id.0, %error, "could not take in the next events");
                self.reading = true;
                self.more = true;
                self.me.send_after(READ_AGAIN_AFTER, || IntegrationMsg::ReadAgain);
                return;
            }
        };
        let Some(last) = events.last().map(id_of) else { return };
        // Where there may be more, an empty read ends the round.
        self.more |= !all;
        let prev = std::mem::replace(&mut self.intake, last);
        self.note(events.len(), notes);
        self.each_delivery(|delivery| delivery.taken_in(prev, &events));
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

    async fn reconcile(&mut self) {
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
                    if child.running.is_some() {
                        self.one_delivery(id, |delivery| delivery.replan(plan));
                    } else if std::mem::take(&mut child.parked) {
                        child.budget = RestartBudget::new(self.args.limit);
                        self.start(id).await;
                    }
                }
                None => {
                    let budget = RestartBudget::new(self.args.limit);
                    let child = Child { plan, running: None, budget, parked: false };
                    self.deliveries.insert(id, Box::new(child));
                    self.start(id).await;
                }
            }
        }
    }

    async fn start(&mut self, subscription: SubscriptionId) {
        let Some(child) = self.deliveries.get_mut(&subscription).filter(|_| !self.draining) else { return };
        self.incarnations = self.incarnations.wrapping_add(1);
        let to = Incarnation { subscription, number: self.incarnations };
        let level = self.args.wires.mailboxes.open(Role::Delivery, subscription.0);
        let args = DeliveryArgs {
            me: DeliveryPost::new(self.me.actor().clone(), to, level),
            plan: child.plan.clone(),
            intake: self.intake,
            marks: self.marks.clone(),
            ports: self.args.ports.clone(),
            wires: self.args.wires.clone(),
        };
        match AssertUnwindSafe(Delivery::open(args)).catch_unwind().await {
            Ok(Ok(delivery)) => {
                child.running = Some(delivery);
                self.one_delivery(subscription, Delivery::pump);
            }
            Ok(Err(error)) => self.restart_or_park(subscription, &error.to_string()),
            Err(_) => self.restart_or_park(subscription, fault::PANICKED),
        }
    }

    /// A message to one of the deliveries; lost where it has crashed since.
    fn pass_on(&mut self, to: Incarnation, msg: DeliveryMsg) {
        self.one_delivery(to.subscription, |delivery| {
            if delivery.incarnation() == to {
                delivery.handle(msg);
            }
        });
    }

    fn each_delivery(&mut self, mut turn: impl FnMut(&mut Delivery)) {
        let mut crashed = Vec::new();
        for (id, child) in &mut self.deliveries {
            if child.has_turn(&mut turn).is_err() {
                crashed.push(*id);
            }
        }
        for id in crashed {
            self.restart_or_park(id, fault::PANICKED);
        }
    }

    fn one_delivery(&mut self, id: SubscriptionId, turn: impl FnOnce(&mut Delivery)) {
        if self.deliveries.get_mut(&id).is_some_and(|child| child.has_turn(turn).is_err()) {
            self.restart_or_park(id, fault::PANICKED);
        }
    }

    /// The subscription was deleted: its retries are cancelled, its dead letters stay to be looked at.
    fn remove(&mut self, subscription: SubscriptionId) {
        self.args.wires.deliveries.remove(subscription);
        self.args.wires.paces.forget(subscription);
        self.args.wires.records.forget(&*self.args.ports.log, Owner::Subscription(subscription));
        if self.deliveries.remove(&subscription).is_none() {
            return;
        }
        let ports = self.args.ports.clone();
        tokio::spawn(async move {
            if let Err(error) = cancel_due(&ports, subscription).await {
                tracing::warn!(subscription = subscription.0, %error, "retries of a deleted subscription remain");
            }
        });
    }

    /// A delivery that keeps crashing rests alone: its siblings have nothing to do with its fault.
    fn restart_or_park(&mut self, id: SubscriptionId, error: &str) {
        let Some(child) = self.deliveries.get_mut(&id) else { return };
        child.running = None;
        self.args.wires.deliveries.remove(id);
        add(&self.args.wires.counters.restarts, 1);
        match child.budget.crashed(Instant::now()) {
            AfterCrash::Restart(wait) => {
                tracing::error!(subscription = id.0, error, ?wait, "a delivery crashed; it is started again");
                self.me.send_after(wait, move || IntegrationMsg::Restart(id));
            }
            AfterCrash::GiveUp => {
                child.parked = true;
                add(&self.args.wires.counters.deliveries_failed, 1);
                tracing::error!(subscription = id.0, error, "a delivery keeps crashing; it rests until it is changed");
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

    fn drain(&mut self, reply: RpcReplyPort<()>) {
        self.draining = true;
        let mut waits = Vec::with_capacity(self.deliveries.len());
        // All at once: none may begin anything while another still waits for its destination.
        self.each_delivery(|delivery| {
            let (drained, wait) = oneshot::channel();
            waits.push(wait);
            delivery.drain(drained);
        });
        tokio::spawn(async move {
            join_all(waits).await;
            let _ = reply.send(());
        });
    }
}
