//! Starts, stops and restarts the integration actors. In: `Reconcile` when the configuration changed.
//! Out: the configuration actor hears when an integration keeps crashing. Owns: who runs.
//! A crash stops every integration; they go on from their recorded positions.

use std::{collections::BTreeMap, time::Duration};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::time::Instant;

use crate::{
    domain::{config::IntegrationStatus, ids::IntegrationId},
    integration::{IntegrationActor, IntegrationArgs, IntegrationMsg},
    metrics::add,
    router::gate::Gate,
    tree::{
        Ports,
        mailbox::{Post, Role},
        restart::{AfterCrash, RestartBudget, RestartLimit},
        wires::Wires,
    },
};

/// What may be said to the supervisor of the integrations.
pub(crate) enum IntegrationsMsg {
    /// The configuration changed.
    Reconcile,
    /// The timer after a crash: start this integration again.
    Restart(IntegrationId),
    /// Answer when all deliveries under way are recorded.
    Drain(RpcReplyPort<()>),
}

pub(crate) struct IntegrationsActor;

#[derive(Clone)]
pub(crate) struct IntegrationsArgs {
    pub(crate) ports: Ports,
    pub(crate) wires: Wires,
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
    parked: bool,
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
        let mut state = IntegrationsState { args, children: BTreeMap::new() };
        state.reconcile(&me).await;
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<IntegrationsMsg>,
        msg: IntegrationsMsg,
        state: &mut IntegrationsState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            IntegrationsMsg::Reconcile => state.reconcile(&me).await,
            IntegrationsMsg::Restart(id) => state.start(&me, id).await,
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
            SupervisionEvent::ActorFailed(who, error) => state.crashed(&me, &who, &error.to_string()),
            SupervisionEvent::ActorTerminated(..)
            | SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

impl Child {
    fn new(limit: RestartLimit, parked: bool) -> Self {
        Self { actor: None, reconcile: Gate::default(), budget: RestartBudget::new(limit), parked }
    }

    /// However often the configuration changes, one hint of it waits.
    fn reconcile(&self, actor: &Post<IntegrationMsg>) {
        if self.reconcile.enter() {
            actor.cast(IntegrationMsg::Reconcile);
        }
    }
}

impl IntegrationsState {
    async fn reconcile(&mut self, me: &ActorRef<IntegrationsMsg>) {
        let snapshot = self.args.wires.config.current();
        let configured = &snapshot.configuration.integrations;
        self.children.retain(|id, child| {
            let stays = configured.contains_key(id);
            if !stays {
                self.args.wires.intakes.remove(*id);
                if let Some(actor) = &child.actor {
                    // Reconcile first: it cancels the retries of the subscriptions that went with it.
                    child.reconcile(actor);
                    let _ = actor.actor().drain();
                }
            }
            stays
        });
        for (id, integration) in configured {
            if let Some(child) = self.children.get_mut(id) {
                if let Some(actor) = &child.actor {
                    child.reconcile(actor);
                    continue;
                }
                // An operator set a failed integration active again: that is a fresh start.
                if !child.parked || integration.status == IntegrationStatus::Failed {
                    continue;
                }
            } else if integration.status == IntegrationStatus::Failed {
                let child = Child::new(self.args.limit, true);
                self.children.insert(*id, child);
                continue;
            }
            let child = Child::new(self.args.limit, false);
            self.children.insert(*id, child);
            self.start(me, *id).await;
        }
    }

    async fn start(&mut self, me: &ActorRef<IntegrationsMsg>, id: IntegrationId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        child.reconcile = Gate::default();
        let level = self.args.wires.mailboxes.open(Role::Integration, id.0);
        let args = IntegrationArgs {
            level: level.clone(),
            reconcile: child.reconcile.clone(),
            id,
            ports: self.args.ports.clone(),
            wires: self.args.wires.clone(),
            limit: self.args.limit,
        };
        match Actor::spawn_linked(None, IntegrationActor, args, me.get_cell()).await {
            Ok((actor, _)) => child.actor = Some(Post::new(actor, level)),
            Err(error) => self.restart_or_park(me, id, &error.to_string()),
        }
    }

    fn crashed(&mut self, me: &ActorRef<IntegrationsMsg>, who: &ActorCell, error: &str) {
        let crashed = self
            .children
            .iter()
            .find(|(_, child)| child.actor.as_ref().is_some_and(|actor| actor.actor().get_id() == who.get_id()))
            .map(|(id, _)| *id);
        if let Some(id) = crashed {
            self.restart_or_park(me, id, error);
        }
    }

    fn restart_or_park(&mut self, me: &ActorRef<IntegrationsMsg>, id: IntegrationId, error: &str) {
        let Some(child) = self.children.get_mut(&id) else { return };
        child.actor = None;
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

/// Longer than any destination's total timeout may be; whoever stops hookmill waits less.
const DRAIN_MAX: Option<Duration> = Some(Duration::from_secs(180));
