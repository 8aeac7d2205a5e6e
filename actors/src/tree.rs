//! The supervised tree: who starts whom, who is restarted, and how the outside talks to it.

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    activity::{self, ActivityActor},
    configuration::{ConfigActor, ConfigArgs, ConfigError, ConfigHandle, Write},
    domain::{
        activity::{Activity, ActivityResult},
        config::{Integration, IntegrationStatus, Resource, ResourceKey},
        ids::{DestinationId, IntegrationId, SubscriptionId},
    },
    flow::GateView,
    integrations::{IntegrationsActor, IntegrationsArgs, IntegrationsMsg, Renewal},
    metrics::{
        Counters, MetricsActor, MetricsMsg, Report, add,
        gauges::{SubscriptionView, WaitingFor},
    },
    ports::{
        clock::Clock, config_store::ConfigStore, connection_tester::ConnectionTester, event_log::EventLog,
        state_store::StateStore,
    },
    recorder::RecorderActor,
    replay::{ReplayActor, ReplayArgs},
    retry::RetryActor,
    router::{CommitBoard, RouterActor},
    scheduler::{Retention, SchedulerActor, SchedulerArgs, TaskOptions},
    snapshot::Compiler,
    tree::{
        mailbox::MailboxView,
        restart::{AfterCrash, RestartBudget, RestartLimit},
        wires::Wires,
    },
};

pub use crate::replay::ReplayError;

pub(crate) mod beside;
pub(crate) mod fault;
pub mod mailbox;
pub mod restart;
pub(crate) mod wires;

/// All that the tree needs of the outside.
#[derive(Clone)]
pub struct Ports {
    /// Events.
    pub log: Arc<dyn EventLog>,
    /// What is known about events.
    pub state: Arc<dyn StateStore>,
    /// Configuration.
    pub config: Arc<dyn ConfigStore>,
    /// Makes verifiers and transports.
    pub compiler: Compiler,
    /// Asks the third parties that integrations belong to.
    pub connections: Arc<dyn ConnectionTester>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
}

/// What an operator may turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeOptions {
    /// How many restarts are too many, at every level.
    pub restarts: RestartLimit,
    /// How much is kept, and for how long.
    pub retention: Retention,
    /// How long a deleted integration or endpoint may come back.
    pub deletion_grace: Duration,
    /// When tasks run.
    pub tasks: TaskOptions,
}

/// The tree did not come up.
#[derive(Debug, thiserror::Error)]
#[error("the actor tree did not start: {0}")]
pub struct StartError(#[from] SpawnErr);

/// A running tree.
pub struct Tree {
    handle: TreeHandle,
    root: ActorRef<RootMsg>,
    ended: JoinHandle<()>,
}

impl Tree {
    /// Starts everything on the current runtime. `board` is the one that the log tells of its commits.
    pub async fn start(ports: Ports, options: TreeOptions, board: Arc<CommitBoard>) -> Result<Self, StartError> {
        let (ports, wires) = (Arc::new(ports), Arc::new(Wires::new(board)));
        wires.config.set_deletion_grace(options.deletion_grace);
        let args = RootArgs { ports: ports.clone(), wires: wires.clone(), options };
        let (root, ended) = Actor::spawn(None, RootActor, args).await?;
        Ok(Self { handle: TreeHandle { ports, wires }, root, ended })
    }

    /// How the outside talks to it.
    pub fn handle(&self) -> &TreeHandle {
        &self.handle
    }

    /// Lets deliveries under way end and records them, waiting no longer than this; then stops everything.
    pub async fn stop(self, wait_max: Duration) {
        if self.handle.wires.integrations.call(IntegrationsMsg::Drain, wait_max).await.is_none() {
            tracing::warn!("some deliveries were still under way; they are made again after the next start");
        }
        let _ = self.root.stop_and_wait(None, Some(Duration::from_secs(5))).await;
    }

    /// Whether it has given up.
    pub fn has_ended(&self) -> bool {
        self.ended.is_finished()
    }

    /// Resolves when the tree has given up: one of its parts keeps crashing.
    pub async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }
}

/// Why an integration was not restarted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestartError {
    /// There is none.
    #[error("{} does not exist", ResourceKey::Integration(*.0))]
    NotFound(IntegrationId),
    /// It was switched off.
    #[error("{} is inactive; set its `status` to `active` to use it", ResourceKey::Integration(*.0))]
    Inactive(IntegrationId),
    /// An earlier restart has not ended.
    #[error("{} is being restarted already; what is under way ends first", ResourceKey::Integration(*.0))]
    UnderWay(IntegrationId),
    /// The supervisor did not answer.
    #[error("the integrations' supervisor does not answer now; try again")]
    Unavailable,
    /// Its status could not be set.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// How the outside talks to a running tree.
#[derive(Clone)]
pub struct TreeHandle {
    ports: Arc<Ports>,
    pub(crate) wires: Arc<Wires>,
}

impl TreeHandle {
    /// Configuration: read and change.
    pub fn config(&self) -> &ConfigHandle {
        &self.wires.config
    }

    /// The ports that the tree runs on.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The counters that everybody adds to.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.wires.counters
    }

    /// Totals and rates.
    pub async fn report(&self) -> Report {
        self.wires.metrics.call(MetricsMsg::Report, Duration::from_secs(1)).await.unwrap_or_default()
    }

    /// What a destination is asked to bear now; `None` where there is no such destination.
    pub fn destination_flow(&self, destination: DestinationId) -> Option<GateView> {
        let snapshot = self.config().current();
        let destination = snapshot.configuration.destinations.get(&destination)?;
        let now = Instant::now();
        Some(self.wires.gates.of(destination, now).view(now))
    }

    /// What each destination that was sent something is asked to bear now, by id.
    pub fn destination_flows(&self) -> Vec<(DestinationId, GateView)> {
        self.wires.gates.views(Instant::now())
    }

    /// What each subscription holds and waits for, by id.
    pub fn subscription_gauges(&self) -> Vec<SubscriptionView> {
        self.wires.gauges.views()
    }

    /// What keeps a subscription's next attempt from beginning.
    pub fn waiting_for(&self, subscription: SubscriptionId) -> WaitingFor {
        self.wires.gauges.waiting_for(subscription)
    }

    /// How full the mailboxes on an event's way are.
    pub fn mailboxes(&self) -> Vec<MailboxView> {
        self.wires.mailboxes.views()
    }

    /// Which parts are not up, in words; empty when all are.
    pub fn readiness(&self) -> Vec<String> {
        let parts = [
            ("configuration", self.wires.config.is_alive()),
            ("router", self.wires.router.is_alive()),
            ("integrations", self.wires.integrations.is_alive()),
            ("recorder", self.wires.records.is_alive()),
            ("retry", self.wires.retry.is_alive()),
            ("replay", self.wires.replays.is_alive()),
        ];
        parts.iter().filter(|(_, alive)| !alive).map(|(part, _)| format!("the {part} actor is not running")).collect()
    }

    /// Stops an integration and its deliveries and starts them again from their recorded positions, each with a fresh
    /// restart budget; a failed integration becomes active. Returns once that is on its way.
    pub async fn restart(&self, author: &str, id: IntegrationId) -> Result<(), RestartError> {
        let current = self.config().current();
        let integration = current.configuration.integrations.get(&id).ok_or(RestartError::NotFound(id))?;
        match integration.status {
            IntegrationStatus::Inactive => return Err(RestartError::Inactive(id)),
            IntegrationStatus::Failed => {
                let active = Integration { status: IntegrationStatus::Active, ..Integration::clone(integration) };
                let write = Write {
                    key: ResourceKey::Integration(id),
                    expected_version: Some(integration.meta.version),
                    resource: Some(Resource::Integration(active)),
                };
                // The supervisor starts what is active again.
                self.config().write(author, vec![write]).await?;
            }
            IntegrationStatus::Active | IntegrationStatus::Pending => {
                let asked = |reply| IntegrationsMsg::Renew(id, reply);
                match self.wires.integrations.call(asked, RESTART_ANSWER_MAX).await {
                    Some(Renewal::Begun) => {}
                    Some(Renewal::UnderWay) => return Err(RestartError::UnderWay(id)),
                    Some(Renewal::Unknown) => return Err(RestartError::NotFound(id)),
                    None => return Err(RestartError::Unavailable),
                }
            }
        }
        self.wires.record(Activity {
            at_ms: self.ports.clock.now_ms(),
            actor: author.to_owned(),
            source: activity::source(),
            action: "integration.restarted".to_owned(),
            subject: ResourceKey::Integration(id).to_string(),
            integration: Some(id),
            result: ActivityResult::Ok,
            detail: format!("its status was {:?}", integration.status).to_lowercase(),
        });
        Ok(())
    }
}

/// The supervisor may be starting thousands.
const RESTART_ANSWER_MAX: Duration = Duration::from_secs(10);

/// What may be said to the root.
enum RootMsg {
    /// The timer after a crash: start this part again.
    Restart(Part),
}

/// The root's children, in the order they are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Activity,
    Metrics,
    Config,
    Recorder,
    Retry,
    Router,
    Integrations,
    Replays,
    Scheduler,
}

const PARTS: [Part; 9] = [
    Part::Activity,
    Part::Metrics,
    Part::Config,
    Part::Recorder,
    Part::Retry,
    Part::Router,
    Part::Integrations,
    Part::Replays,
    Part::Scheduler,
];

struct RootActor;

struct RootArgs {
    ports: Arc<Ports>,
    wires: Arc<Wires>,
    options: TreeOptions,
}

struct RootState {
    args: RootArgs,
    children: Vec<(Part, ActorCell)>,
    budget: RestartBudget,
}

impl Actor for RootActor {
    type Msg = RootMsg;
    type State = RootState;
    type Arguments = RootArgs;

    async fn pre_start(&self, me: ActorRef<RootMsg>, args: RootArgs) -> Result<RootState, ActorProcessingErr> {
        let budget = RestartBudget::new(args.options.restarts);
        let mut state = RootState { args, children: Vec::new(), budget };
        for part in PARTS {
            state.start(&me, part).await?;
        }
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<RootMsg>,
        RootMsg::Restart(part): RootMsg,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match state.start(&me, part).await {
            Ok(()) => Ok(()),
            Err(error) => state.crashed(&me, part, &fault::of_start(&error)),
        }
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<RootMsg>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(who, error) => match state.forget(&who) {
                Some(part) => state.crashed(&me, part, &fault::of_failed(&error)),
                None => Ok(()),
            },
            SupervisionEvent::ActorTerminated(..)
            | SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
        }
    }
}

impl RootState {
    async fn start(&mut self, me: &ActorRef<RootMsg>, part: Part) -> Result<(), SpawnErr> {
        let (ports, wires, root) = (self.args.ports.clone(), self.args.wires.clone(), me.get_cell());
        let options = &self.args.options;
        let cell = match part {
            Part::Activity => linked(ActivityActor, (ports.config.clone(), wires), root).await?,
            Part::Metrics => linked(MetricsActor, (ports.clock.clone(), wires), root).await?,
            Part::Config => {
                let Ports { config: store, compiler, clock, .. } = (*ports).clone();
                let args = ConfigArgs { store, compiler, clock, wires };
                linked(ConfigActor, args, root).await?
            }
            Part::Recorder => linked(RecorderActor, (ports.log.clone(), wires), root).await?,
            Part::Retry => linked(RetryActor, (ports, wires), root).await?,
            Part::Router => linked(RouterActor, wires, root).await?,
            Part::Integrations => {
                linked(IntegrationsActor, IntegrationsArgs { ports, wires, limit: options.restarts }, root).await?
            }
            Part::Replays => linked(ReplayActor, ReplayArgs { ports, wires }, root).await?,
            Part::Scheduler => {
                let (retention, options) = (options.retention, options.tasks.clone());
                linked(SchedulerActor, SchedulerArgs { ports, wires, retention, options }, root).await?
            }
        };
        self.children.push((part, cell));
        Ok(())
    }

    fn forget(&mut self, who: &ActorCell) -> Option<Part> {
        let index = self.children.iter().position(|(_, cell)| cell.get_id() == who.get_id())?;
        Some(self.children.swap_remove(index).0)
    }

    fn crashed(&mut self, me: &ActorRef<RootMsg>, part: Part, error: &str) -> Result<(), ActorProcessingErr> {
        add(&self.args.wires.counters.restarts, 1);
        match self.budget.crashed(Instant::now()) {
            AfterCrash::Restart(wait) => {
                tracing::error!(?part, error, ?wait, "a part of the tree crashed; it is started again");
                me.send_after(wait, move || RootMsg::Restart(part));
                Ok(())
            }
            AfterCrash::GiveUp => Err(format!("{part:?} keeps crashing: {error}").into()),
        }
    }
}

async fn linked<A: Actor>(actor: A, args: A::Arguments, root: ActorCell) -> Result<ActorCell, SpawnErr> {
    let (actor, _) = Actor::spawn_linked(None, actor, args, root).await?;
    Ok(actor.get_cell())
}
