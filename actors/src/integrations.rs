//! Starts, stops and restarts the integration actors. In: `Reconcile` when the configuration changed, `Renew` when an
//! operator wants an integration started again. Out: the configuration actor hears when an integration keeps crashing.
//! Owns: who runs. A crash stops every integration; they go on from their recorded positions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus, RpcReplyPort, SpawnErr, SupervisionEvent};
use tokio::time::Instant;

use crate::{
    domain::{
        config::IntegrationStatus,
        ids::{IntegrationId, SubscriptionId},
    },
    integration::{IntegrationActor, IntegrationArgs, IntegrationMsg, cancel_due},
    metrics::add,
    ports::event_log::LogError,
    recorder::Owner,
    router::gate::Gate,
    tree::{
        Ports, fault,
        mailbox::{Post, Role, Way},
        restart::{AfterCrash, RestartBudget, RestartLimit},
        wires::Wires,
    },
};

/// Where the configuration actor notes of which integrations anything changed. Bounded by their number.
#[derive(Default)]
pub(crate) struct ChangeBoard {
    changed: Mutex<BTreeSet<IntegrationId>>,
    gate: Gate,
}

impl ChangeBoard {
    /// After the snapshot is published. Whether the supervisor has to be told: it is not told yet.
    #[must_use]
    pub(crate) fn note(&self, integrations: BTreeSet<IntegrationId>) -> bool {
        if integrations.is_empty() {
            return false;
        }
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).extend(integrations);
        self.gate.enter()
    }

    /// Before the snapshot is looked at.
    fn take(&self) -> BTreeSet<IntegrationId> {
        self.gate.open();
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What may be said to the supervisor of the integrations.
pub(crate) enum IntegrationsMsg {
    /// The configuration changed; the board says of whom.
    Reconcile,
    /// The timer after a crash: start this integration again.
    Restart(IntegrationId),
    /// An operator wants it stopped and started again, with a fresh restart budget.
    Renew(IntegrationId, RpcReplyPort<Renewal>),
    /// It was stopped for a renewal.
    Stopped(IntegrationId),
    /// Answer when all deliveries under way are recorded.
    Drain(RpcReplyPort<()>),
}

/// What became of a wish for a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// It is on its way: what is under way ends first.
    Begun,
    /// An earlier one has not ended.
    UnderWay,
    /// There is no such integration.
    Unknown,
}

pub(crate) struct IntegrationsActor;

#[derive(Clone)]
pub(crate) struct IntegrationsArgs {
    pub(crate) ports: Arc<Ports>,
    pub(crate) wires: Arc<Wires>,
    pub(crate) limit: RestartLimit,
}

pub(crate) struct IntegrationsState {
    args: IntegrationsArgs,
    children: BTreeMap<IntegrationId, Child>,
}

struct Child {
    actor: Option<Post<IntegrationMsg>>,
    reconcile: Gate,
    budget: RestartBudget,
    /// It kept crashing.
    parked: bool,
    /// It is being stopped, to be started again.
    renewing: bool,
}

impl Actor for IntegrationsActor {
    type Msg = IntegrationsMsg;
    type State = IntegrationsState;
    type Arguments = IntegrationsArgs;

    async fn pre_start(
        &self,
        me: ActorRef<IntegrationsMsg>,
        args: IntegrationsArgs,
    ) -> Result<IntegrationsState, ActorProcessingErr> {
        args.wires.integrations.set(me.clone());
        args.wires.changed.take();
        let all = args.wires.config.current().configuration.integrations.keys().copied().collect();
        tokio::spawn(cancel_forgotten(args.ports.clone(), args.wires.clone()));
        let mut state = IntegrationsState { args, children: BTreeMap::new() };
        state.reconcile(&me, all).await;
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<IntegrationsMsg>,
        msg: IntegrationsMsg,
        state: &mut IntegrationsState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            IntegrationsMsg::Reconcile => {
                let changed = state.args.wires.changed.take();
                state.reconcile(&me, changed).await;
            }
            IntegrationsMsg::Restart(id) => state.start(&me, [id].into()).await,
            IntegrationsMsg::Renew(id, reply) => drop(reply.send(state.renew(&me, id))),
            IntegrationsMsg::Stopped(id) => state.stopped(&me, id).await,
            IntegrationsMsg::Drain(reply) => state.drain(reply),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<IntegrationsMsg>,
        event: SupervisionEvent,
        state: &mut IntegrationsState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(who, error) => state.crashed(&me, &who, &fault::of_failed(&error)),
            SupervisionEvent::ActorTerminated(who, ..) => state.ended(&me, &who).await,
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

impl Child {
    fn new(limit: RestartLimit) -> Self {
        let budget = RestartBudget::new(limit);
        Self { actor: None, reconcile: Gate::default(), budget, parked: false, renewing: false }
    }

    /// However often the configuration changes, one hint of it waits.
    fn reconcile(&self) {
        if let Some(actor) = &self.actor
            && self.reconcile.enter()
        {
            actor.cast(IntegrationMsg::Reconcile);
        }
    }
}

impl IntegrationsState {
    async fn reconcile(&mut self, me: &ActorRef<IntegrationsMsg>, changed: BTreeSet<IntegrationId>) {
        let snapshot = self.args.wires.config.current();
        let mut start = BTreeSet::new();
        for id in changed {
            let Some(integration) = snapshot.configuration.integrations.get(&id) else {
                self.remove(id);
                continue;
            };
            let failed = integration.status == IntegrationStatus::Failed;
            match self.children.get_mut(&id) {
                Some(child) if child.actor.is_some() => child.reconcile(),
                // An operator set a failed integration active again: that is a fresh start.
                Some(child) if child.parked && !failed => {
                    *child = Child::new(self.args.limit);
                    start.insert(id);
                }
                // It starts again by itself, or rests.
                Some(_) => {}
                None => {
                    self.children.insert(id, Child { parked: failed, ..Child::new(self.args.limit) });
                    if !failed {
                        start.insert(id);
                    }
                }
            }
        }
        self.start(me, start).await;
    }

    /// It is configured no more.
    fn remove(&mut self, id: IntegrationId) {
        let Some(child) = self.children.remove(&id) else { return };
        self.args.wires.intakes.remove(id);
        self.args.wires.records.forget(&*self.args.ports.log, Owner::Integration(id));
        // First, as it cancels the retries of the subscriptions that went with it.
        child.reconcile();
        if let Some(actor) = &child.actor {
            let _ = actor.actor().drain();
        }
    }

    /// Starts those that do not run, side by side: each waits for the log and the state.
    async fn start(&mut self, me: &ActorRef<IntegrationsMsg>, ids: BTreeSet<IntegrationId>) {
        let mut waiting = ids.into_iter().filter(|id| {
            let child = self.children.get(id);
            child.is_some_and(|child| child.actor.is_none() && !child.parked)
        });
        let spawn = |id: IntegrationId| {
            let IntegrationsArgs { ports, wires, limit } = self.args.clone();
            let level = wires.mailboxes.open(Role::Integration, id.0);
            let args = IntegrationArgs { level, reconcile: Gate::default(), id, ports, wires, limit };
            spawn(args, me.get_cell())
        };
        let mut starting: FuturesUnordered<_> = waiting.by_ref().take(STARTING_MAX).map(spawn).collect();
        let mut started: Vec<Started> = Vec::new();
        while let Some(one) = starting.next().await {
            started.push(one);
            starting.extend(waiting.next().map(spawn));
        }
        drop(starting);
        for Started { id, reconcile, spawned } in started {
            match spawned {
                Ok(actor) => {
                    if let Some(child) = self.children.get_mut(&id) {
                        (child.actor, child.reconcile) = (Some(actor), reconcile);
                    }
                }
                Err(error) => self.restart_or_park(me, id, &fault::of_start(&error)),
            }
        }
    }

    /// What is under way ends and is recorded first, so that a restart makes no duplicates.
    fn renew(&mut self, me: &ActorRef<IntegrationsMsg>, id: IntegrationId) -> Renewal {
        let Some(child) = self.children.get_mut(&id) else { return Renewal::Unknown };
        if child.renewing {
            return Renewal::UnderWay;
        }
        child.renewing = true;
        let (actor, me) = (child.actor.clone(), me.clone());
        tokio::spawn(async move {
            if let Some(actor) = actor {
                let _ = actor.call(IntegrationMsg::Drain, RENEW_DRAIN_MAX).await;
                let _ = actor.actor().stop_and_wait(Some("restarted by an operator".to_owned()), RENEW_STOP_MAX).await;
            }
            let _ = me.cast(IntegrationsMsg::Stopped(id));
        });
        Renewal::Begun
    }

    async fn stopped(&mut self, me: &ActorRef<IntegrationsMsg>, id: IntegrationId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if child.actor.as_ref().is_some_and(|actor| actor.actor().get_status() != ActorStatus::Stopped) {
            // It crashed and was started again while it was to be stopped: that is as good.
            child.renewing = false;
            return;
        }
        *child = Child::new(self.args.limit);
        add(&self.args.wires.counters.restarts, 1);
        self.start(me, [id].into()).await;
    }

    fn crashed(&mut self, me: &ActorRef<IntegrationsMsg>, who: &ActorCell, error: &str) {
        if let Some(id) = self.whose(who) {
            self.restart_or_park(me, id, error);
        }
    }

    /// One ended by being told to, but is configured: its renewal did not wait for it any longer.
    async fn ended(&mut self, me: &ActorRef<IntegrationsMsg>, who: &ActorCell) {
        let Some(id) = self.whose(who) else { return };
        if let Some(child) = self.children.get_mut(&id).filter(|child| !child.renewing) {
            *child = Child::new(self.args.limit);
            self.start(me, [id].into()).await;
        }
    }

    fn whose(&self, who: &ActorCell) -> Option<IntegrationId> {
        let is_its = |child: &Child| child.actor.as_ref().is_some_and(|actor| actor.actor().get_id() == who.get_id());
        self.children.iter().find(|(_, child)| is_its(child)).map(|(id, _)| *id)
    }

    fn restart_or_park(&mut self, me: &ActorRef<IntegrationsMsg>, id: IntegrationId, error: &str) {
        let Some(child) = self.children.get_mut(&id) else { return };
        child.actor = None;
        child.renewing = false;
        add(&self.args.wires.counters.restarts, 1);
        match child.budget.crashed(Instant::now()) {
            AfterCrash::Restart(wait) => {
                tracing::error!(integration = id.0, error, ?wait, "integration actor crashed; it is started again");
                me.send_after(wait, move || IntegrationsMsg::Restart(id));
            }
            AfterCrash::GiveUp => {
                child.parked = true;
                self.args.wires.intakes.remove(id);
                add(&self.args.wires.counters.integrations_failed, 1);
                self.args.wires.config.fail(id, error.to_owned());
            }
        }
    }

    fn drain(&self, reply: RpcReplyPort<()>) {
        let actors: Vec<_> = self.children.values().filter_map(|child| child.actor.clone()).collect();
        tokio::spawn(async move {
            let waits: Vec<_> = actors
                .into_iter()
                .map(|actor| tokio::spawn(async move { drop(actor.call(IntegrationMsg::Drain, DRAIN_MAX).await) }))
                .collect();
            for wait in waits {
                let _ = wait.await;
            }
            let _ = reply.send(());
        });
    }
}

/// Cancels what waits for subscriptions that were deleted right before a crash.
async fn cancel_forgotten(ports: Arc<Ports>, wires: Arc<Wires>) {
    let mut after = SubscriptionId(0);
    let cancelled = async {
        while let Some(subscription) = ports.state.next_waiting(after).await? {
            if !wires.config.current().configuration.subscriptions.contains_key(&subscription) {
                cancel_due(&ports, subscription).await?;
            }
            after = subscription;
        }
        Ok::<(), LogError>(())
    };
    if let Err(error) = cancelled.await {
        tracing::warn!(%error, "retries of deleted subscriptions may remain; the next start looks for them again");
    }
}

/// How a start went.
struct Started {
    id: IntegrationId,
    reconcile: Gate,
    spawned: Result<Post<IntegrationMsg>, SpawnErr>,
}

async fn spawn(args: IntegrationArgs, supervisor: ActorCell) -> Started {
    let (id, level, reconcile) = (args.id, args.level.clone(), args.reconcile.clone());
    let spawned = Actor::spawn_linked(None, IntegrationActor, args, supervisor).await;
    Started { id, reconcile, spawned: spawned.map(|(actor, _)| Post::new(actor, level)) }
}

/// Integrations that start at once: enough that their reads and commits travel together, few enough that the first
/// ones are not held up by thousands.
const STARTING_MAX: usize = 64;

/// What is still under way after this is made again by the successor.
const RENEW_DRAIN_MAX: Option<Duration> = Some(Duration::from_secs(40));
const RENEW_STOP_MAX: Option<Duration> = Some(Duration::from_secs(5));

/// Longer than any destination's total timeout may be; whoever stops hookmill waits less.
const DRAIN_MAX: Option<Duration> = Some(Duration::from_secs(180));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_much_changes_one_hint_waits_and_nothing_is_lost() {
        let board = ChangeBoard::default();
        assert!(!board.note(BTreeSet::new()), "nothing changed");
        assert!(board.note([IntegrationId(1)].into()));
        assert!(!board.note([IntegrationId(2), IntegrationId(1)].into()), "a hint waits already");
        assert_eq!(board.take(), [IntegrationId(1), IntegrationId(2)].into());
        assert!(board.note([IntegrationId(3)].into()));
        assert_eq!(board.take(), [IntegrationId(3)].into());
    }
}
