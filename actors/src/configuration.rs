//! The only writer of configuration. In: `Write` from the admin API and the tree. Out: one immutable snapshot,
//! published for everybody, and a hint to the integrations supervisor. Owns: the current configuration.
//! A crash loses nothing: the store holds every version, and a change is in force only once it is stored.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::{
    activity,
    domain::{
        activity::{Activity, ActivityResult},
        config::{
            Change, Destination, DestinationStatus, Endpoint, Integration, IntegrationStatus, Resource, ResourceKey,
        },
        ids::{DestinationId, EndpointId, EventId, IntegrationId, SubscriptionId},
        version::Origin,
    },
    ports::{clock::Clock, config_store::ConfigStore, sealer},
    snapshot::{Compiler, Snapshot, Touched},
    tree::wires::{Slot, Wires},
};

mod error;
mod graves;
mod linked;
mod past;
mod rollback;
mod rules;
#[cfg(test)]
mod tests;
mod versions;

pub use self::{error::ConfigError, past::Past};
use self::{linked::Linked, rules::Deletion};

/// One wanted change.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// What to change. A new resource has an id from [`ConfigHandle::reserve`].
    pub key: ResourceKey,
    /// The version the change is based on; `None` for a new resource.
    pub expected_version: Option<u64>,
    /// What shall stand afterwards; `None` deletes. The `meta` is stamped by the configuration actor.
    pub resource: Option<Resource>,
}

/// A wish to have an integration as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollback {
    /// Which.
    pub integration: IntegrationId,
    /// To which of its versions.
    pub number: u64,
    /// Its newest version must be one of these.
    pub expected: Option<Vec<u64>>,
    /// A subscription that comes back begins after this event.
    pub resume_after: EventId,
}

/// What may be said to the configuration actor.
pub enum ConfigMsg {
    /// Make these changes, all or none, as one version.
    Write {
        /// Who wants them, and why.
        origin: Origin,
        /// The changes.
        writes: Vec<Write>,
        /// The changes as made, cascades included.
        reply: RpcReplyPort<Result<Vec<Change>, ConfigError>>,
    },
    /// Say whether these changes could be made; nothing is changed.
    Check {
        /// The changes.
        writes: Vec<Write>,
        /// The changes as they would be made, cascades included.
        reply: RpcReplyPort<Result<Vec<Change>, ConfigError>>,
    },
    /// Make an integration what it was at one of its versions, all or nothing.
    Rollback {
        /// Who wants it, and why.
        origin: Origin,
        /// To what.
        rollback: Rollback,
        /// The changes as made; none where it is so already.
        reply: RpcReplyPort<Result<Vec<Change>, ConfigError>>,
    },
    /// Delete an integration or an endpoint for good, whether it is deleted already or not.
    Purge {
        /// Who wants it, and why.
        origin: Origin,
        /// What.
        key: ResourceKey,
        /// The versions that it may stand at; `None`: any.
        expected: Option<Vec<u64>>,
        /// The changes as made.
        reply: RpcReplyPort<Result<Vec<Change>, ConfigError>>,
    },
    /// The grace of something deleted may have passed.
    Expire,
    /// A destination wants no more (410): rest until an operator says otherwise.
    Pause {
        /// Which.
        destination: DestinationId,
        /// As it was when it said so; what an operator changed since stands.
        version: u64,
        /// Why, for people.
        reason: String,
    },
    /// An integration's actor gave up.
    Fail {
        /// Which.
        integration: IntegrationId,
        /// Why, for people.
        reason: String,
    },
    /// Another key seals from now on: what is configured is sealed again with it, in memory. Versions stay, because
    /// nothing that anybody configured changes.
    Reseal {
        /// It is done.
        reply: RpcReplyPort<()>,
    },
    /// A secret has expired: compile its endpoint again.
    Recompile {
        /// When it was to, milliseconds since 1970: which timer this is.
        at_ms: u64,
    },
}

/// How others reach the configuration: reads without a lock, writes through the actor.
#[derive(Clone)]
pub struct ConfigHandle {
    slot: Slot<ConfigMsg>,
    published: Arc<ArcSwap<Snapshot>>,
    last_ids: Arc<[AtomicU32; 4]>,
    grace_ms: Arc<AtomicU64>,
}

/// A kind of resource, for [`ConfigHandle::reserve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the resources")]
pub enum Kind {
    Integration,
    Endpoint,
    Destination,
    Subscription,
}

impl ConfigHandle {
    pub(crate) fn new(slot: Slot<ConfigMsg>) -> Self {
        Self {
            slot,
            published: Arc::new(ArcSwap::from_pointee(Snapshot::default())),
            last_ids: Arc::new([const { AtomicU32::new(0) }; 4]),
            grace_ms: Arc::default(),
        }
    }

    /// The snapshot in force.
    pub fn current(&self) -> Arc<Snapshot> {
        self.published.load_full()
    }

    /// The cell that snapshots are published in, for the hot path.
    pub fn published(&self) -> Arc<ArcSwap<Snapshot>> {
        self.published.clone()
    }

    /// An id that no resource of that kind ever had, so that secrets can be sealed for it before it is written.
    pub fn reserve(&self, kind: Kind) -> ResourceKey {
        let id = self.last_ids[kind as usize].fetch_add(1, Ordering::Relaxed) + 1;
        match kind {
            Kind::Integration => ResourceKey::Integration(IntegrationId(id)),
            Kind::Endpoint => ResourceKey::Endpoint(EndpointId(id)),
            Kind::Destination => ResourceKey::Destination(DestinationId(id)),
            Kind::Subscription => ResourceKey::Subscription(SubscriptionId(id)),
        }
    }

    /// How long a deleted integration or endpoint may come back, milliseconds; 0: not at all.
    pub fn deletion_grace_ms(&self) -> u64 {
        self.grace_ms.load(Ordering::Relaxed)
    }

    /// Before anything starts.
    pub(crate) fn set_deletion_grace(&self, grace: Duration) {
        self.grace_ms.store(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Deletes an integration or an endpoint for good, whether it is deleted already or not; of an integration the history
    /// goes too.
    pub async fn purge(
        &self,
        origin: Origin,
        key: ResourceKey,
        expected: Option<Vec<u64>>,
    ) -> Result<Vec<Change>, ConfigError> {
        let origin = here(origin);
        self.slot
            .call(|reply| ConfigMsg::Purge { origin, key, expected, reply }, WRITE_WAIT_MAX)
            .await
            .unwrap_or(Err(ConfigError::Unavailable))
    }

    /// A destination wants no more.
    pub(crate) fn pause(&self, destination: DestinationId, version: u64, reason: String) {
        self.slot.hint(ConfigMsg::Pause { destination, version, reason });
    }

    /// An integration's actor gave up.
    pub(crate) fn fail(&self, integration: IntegrationId, reason: String) {
        self.slot.hint(ConfigMsg::Fail { integration, reason });
    }

    /// Whether changes can be made now.
    pub(crate) fn is_alive(&self) -> bool {
        self.slot.is_alive()
    }

    /// Makes changes, all or none, as one version; they are stored and in force when this returns.
    pub async fn write(&self, author: &str, writes: Vec<Write>) -> Result<Vec<Change>, ConfigError> {
        self.write_as(Origin::of(author), writes).await
    }

    /// The same with what the author says of it.
    pub async fn write_as(&self, origin: Origin, writes: Vec<Write>) -> Result<Vec<Change>, ConfigError> {
        let origin = here(origin);
        self.slot
            .call(|reply| ConfigMsg::Write { origin, writes, reply }, WRITE_WAIT_MAX)
            .await
            .unwrap_or(Err(ConfigError::Unavailable))
    }

    /// Makes an integration what it was at one of its versions, as one new version, all or nothing; no change where it
    /// is so already.
    pub async fn roll_back(&self, origin: Origin, rollback: Rollback) -> Result<Vec<Change>, ConfigError> {
        let origin = here(origin);
        self.slot
            .call(|reply| ConfigMsg::Rollback { origin, rollback, reply }, WRITE_WAIT_MAX)
            .await
            .unwrap_or(Err(ConfigError::Unavailable))
    }

    /// Has what is in force sealed again with the key that seals now. What is written from now on is so anyway.
    pub async fn reseal(&self) -> Result<(), ConfigError> {
        self.slot.call(|reply| ConfigMsg::Reseal { reply }, WRITE_WAIT_MAX).await.ok_or(ConfigError::Unavailable)
    }

    /// What [`Self::write`] would say; nothing is changed.
    pub async fn check(&self, writes: Vec<Write>) -> Result<Vec<Change>, ConfigError> {
        self.slot
            .call(|reply| ConfigMsg::Check { writes, reply }, WRITE_WAIT_MAX)
            .await
            .unwrap_or(Err(ConfigError::Unavailable))
    }
}

/// From where the request comes that this task works on.
fn here(origin: Origin) -> Origin {
    Origin { author: activity::author(&origin.author.name), ..origin }
}

/// As long as a request of the admin API may take: hundreds may write at once, and a caller must not hang on a dead disk.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(30);

pub(crate) struct ConfigActor;

pub(crate) struct ConfigArgs {
    pub(crate) store: Arc<dyn ConfigStore>,
    pub(crate) compiler: Compiler,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) wires: Arc<Wires>,
}

pub(crate) struct ConfigState {
    args: ConfigArgs,
    current: Linked,
    /// When the next `Recompile` comes, milliseconds since 1970.
    timer_ms: Option<u64>,
    /// Whether an `Expire` is on its way.
    expiring: bool,
}

impl Actor for ConfigActor {
    type Msg = ConfigMsg;
    type State = ConfigState;
    type Arguments = ConfigArgs;

    async fn pre_start(&self, me: ActorRef<ConfigMsg>, args: ConfigArgs) -> Result<Self::State, ActorProcessingErr> {
        let configuration = args.store.load().await?;
        for (last, stored) in args.wires.config.last_ids.iter().zip(configuration.last_ids) {
            last.fetch_max(stored, Ordering::Relaxed);
        }
        let mut state = ConfigState { args, current: Linked::new(configuration), timer_ms: None, expiring: false };
        state.publish_all(&me);
        state.args.wires.config.slot.set(me);
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<ConfigMsg>,
        msg: ConfigMsg,
        state: &mut ConfigState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            ConfigMsg::Write { origin, writes, reply } => {
                let made = state.write(&me, &origin, writes).await;
                // The caller may have stopped waiting; the change stands all the same.
                let _ = reply.send(made);
            }
            ConfigMsg::Check { writes, reply } => {
                let (origin, now_ms) = (Origin::of("hookmill"), state.args.clock.now_ms());
                let made = rules::changes(&state.current, writes, &origin, state.deletion(), now_ms);
                let _ = reply.send(made.map(|(changes, _)| changes));
            }
            ConfigMsg::Rollback { origin, rollback, reply } => {
                let made = state.roll_back(&me, &origin, &rollback).await;
                let _ = reply.send(made);
            }
            ConfigMsg::Purge { origin, key, expected, reply } => {
                let made = state.purge(&me, &origin, key, expected.as_deref()).await;
                let _ = reply.send(made);
            }
            ConfigMsg::Expire => state.expire(&me).await,
            ConfigMsg::Pause { destination, version, reason } => state.pause(&me, destination, version, reason).await,
            ConfigMsg::Fail { integration, reason } => state.fail(&me, integration, reason).await,
            ConfigMsg::Reseal { reply } => {
                state.reseal(&me);
                let _ = reply.send(());
            }
            ConfigMsg::Recompile { at_ms } => {
                // An earlier one may have been set since; then this one was set again when that one came.
                state.timer_ms = state.timer_ms.filter(|timer| *timer != at_ms);
                state.publish(&me, Touched::default());
            }
        }
        Ok(())
    }
}

impl ConfigState {
    async fn write(
        &mut self,
        me: &ActorRef<ConfigMsg>,
        origin: &Origin,
        writes: Vec<Write>,
    ) -> Result<Vec<Change>, ConfigError> {
        let deletion = self.deletion();
        let changes = self.write_with(me, origin, writes, deletion).await?;
        if deletion == Deletion::Final {
            self.forget_deleted(&changes).await;
        }
        Ok(changes)
    }

    /// What a deletion is, where nobody says otherwise.
    fn deletion(&self) -> Deletion {
        if self.args.wires.config.deletion_grace_ms() > 0 { Deletion::Kept } else { Deletion::Final }
    }

    async fn write_with(
        &mut self,
        me: &ActorRef<ConfigMsg>,
        origin: &Origin,
        mut writes: Vec<Write>,
        deletion: Deletion,
    ) -> Result<Vec<Change>, ConfigError> {
        let now_ms = self.args.clock.now_ms();
        // A change may be based on what was read before the last rotation of keys.
        for resource in writes.iter_mut().filter_map(|write| write.resource.as_mut()) {
            sealer::renew(&*self.args.compiler.sealer, resource);
        }
        let (changes, next) = rules::changes(&self.current, writes, origin, deletion, now_ms)?;
        self.make(me, origin, &changes, next).await?;
        Ok(changes)
    }

    /// Stores changes and puts in force what they made.
    async fn make(
        &mut self,
        me: &ActorRef<ConfigMsg>,
        origin: &Origin,
        changes: &[Change],
        next: Linked,
    ) -> Result<(), ConfigError> {
        let touched = next.touched(&self.current, changes);
        let versions = versions::of(&self.current, &next, changes, &touched.integrations);
        self.args.store.commit(changes.to_vec(), versions).await?;
        let before = std::mem::replace(&mut self.current, next);
        self.publish(me, touched);
        let version = self.current.configuration().version;
        let mut activities = Vec::with_capacity(changes.len());
        for change in changes {
            let kept = before.configuration().deleted.get(&change.key);
            let activity = activity(change, kept.is_some(), version);
            let turned = turned(&before, change).map(|turn| {
                let kind = kind(change.key);
                Activity { action: format!("{kind}.status_changed"), detail: turn, ..activity.clone() }
            });
            let integration = self.current.owner_of(change.key).or_else(|| before.owner_of(change.key));
            let integration = integration.or_else(|| kept.and_then(|kept| kept.integration));
            let noted = std::iter::once(activity).chain(turned);
            activities.extend(noted.map(|it| Activity { source: origin.author.source, integration, ..it }));
        }
        self.args.wires.record_all(activities);
        Ok(())
    }

    fn reseal(&mut self, me: &ActorRef<ConfigMsg>) {
        let configuration = self.current.configuration();
        let (version, at_ms) = (configuration.version, self.args.clock.now_ms());
        let integrations = configuration.integrations.values().map(|it| Resource::Integration(Integration::clone(it)));
        let endpoints = configuration.endpoints.values().map(|it| Resource::Endpoint(Endpoint::clone(it)));
        let destinations = configuration.destinations.values().map(|it| Resource::Destination(Destination::clone(it)));
        let mut renewed: Vec<Resource> = integrations.chain(endpoints).chain(destinations).collect();
        renewed.retain_mut(|resource| sealer::renew(&*self.args.compiler.sealer, resource));
        for resource in renewed {
            let (key, author) = (resource.key(), String::new());
            let resource = Some(resource);
            self.current.apply(&Change { version, at_ms, author, comment: None, key, resource, kept: None });
        }
        self.publish(me, Touched::default());
    }

    async fn roll_back(
        &mut self,
        me: &ActorRef<ConfigMsg>,
        origin: &Origin,
        rollback: &Rollback,
    ) -> Result<Vec<Change>, ConfigError> {
        let Rollback { integration, number, expected, resume_after } = rollback;
        let store = self.args.store.clone();
        let newest = store.versions(*integration, None, 1).await?.first().map(|version| version.number);
        let key = ResourceKey::Integration(*integration);
        let actual = newest.ok_or(ConfigError::NotFound(key))?;
        if let Some(expected) = expected.as_ref().filter(|expected| !expected.contains(&actual)) {
            return Err(ConfigError::Conflict { key, expected: expected.first().copied().unwrap_or_default(), actual });
        }
        let past = Past::read(&store, *integration, *number).await?;
        let past = past.ok_or(ConfigError::NoVersion { integration: *integration, number: *number })?;
        if past.integration.is_none() {
            return Err(ConfigError::IsDeletion { integration: *integration, number: *number });
        }
        let known: BTreeSet<DestinationId> = past.destinations.iter().map(|it| it.id).collect();
        let others = self.current.destinations_of(*integration).into_iter().filter(|id| !known.contains(id));
        let others: Vec<DestinationId> = others.collect();
        let then = store.as_of(others.iter().map(|id| (ResourceKey::Destination(*id), *number)).collect()).await?;
        let was_there = then.iter().map(|change| change.as_ref().is_some_and(|change| change.resource.is_some()));
        let young = others.iter().zip(was_there).filter(|(_, there)| !there).map(|(id, _)| *id).collect();
        let writes = rollback::writes(&self.current, *integration, past, &young, *resume_after)?;
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        // What goes stands in the versions that have it, so nothing of it is kept beside them.
        self.write_with(me, origin, writes, Deletion::Final).await
    }

    /// Publishes what was loaded. A predecessor may have stored a change that it did not live to publish.
    fn publish_all(&mut self, me: &ActorRef<ConfigMsg>) {
        let before = self.args.wires.config.current();
        let configuration = Arc::new(self.current.configuration().clone());
        let mut touched = Touched::all(&configuration);
        touched.integrations.extend(before.configuration.integrations.keys());
        let next = self.args.compiler.compile(configuration, &before, self.args.clock.now_ms());
        self.put_in_force(me, &before, next, touched);
    }

    fn publish(&mut self, me: &ActorRef<ConfigMsg>, mut touched: Touched) {
        let now_ms = self.args.clock.now_ms();
        let before = self.args.wires.config.current();
        touched.endpoints.extend(before.expired(now_ms));
        let configuration = Arc::new(self.current.configuration().clone());
        let next = self.args.compiler.recompile(configuration, &before, &touched, now_ms);
        self.put_in_force(me, &before, next, touched);
    }

    fn put_in_force(&mut self, me: &ActorRef<ConfigMsg>, before: &Snapshot, next: Snapshot, touched: Touched) {
        let endpoints = touched.endpoints.iter().copied().map(ResourceKey::Endpoint);
        let subscriptions = touched.subscriptions.iter().copied().map(ResourceKey::Subscription);
        for fault in endpoints.chain(subscriptions).flat_map(|part| next.new_faults(before, part)) {
            tracing::warn!(subject = fault.subject, problem = fault.problem, "configured but not usable");
        }
        if let Some(at_ms) = next.next_expiry_ms().filter(|at_ms| self.timer_ms.is_none_or(|timer| *at_ms < timer)) {
            let wait_ms = at_ms.saturating_sub(self.args.clock.now_ms()) + 1;
            me.send_after(Duration::from_millis(wait_ms), move || ConfigMsg::Recompile { at_ms });
            self.timer_ms = Some(at_ms);
        }
        self.args.wires.config.published.store(Arc::new(next));
        self.await_expiry(me);
        self.args.wires.configuration_changed(touched.integrations);
    }

    async fn pause(&mut self, me: &ActorRef<ConfigMsg>, id: DestinationId, version: u64, reason: String) {
        let Some(destination) = self.current.configuration().destinations.get(&id) else { return };
        let mut destination = Destination::clone(destination);
        if destination.status == DestinationStatus::Paused || destination.meta.version != version {
            return;
        }
        destination.status = DestinationStatus::Paused;
        destination.status_reason = Some(reason);
        let write = Write {
            key: ResourceKey::Destination(id),
            expected_version: Some(destination.meta.version),
            resource: Some(Resource::Destination(destination)),
        };
        if let Err(error) = self.write(me, &Origin::of("hookmill"), vec![write]).await {
            tracing::error!(destination = id.0, %error, "could not pause a destination that answered 410");
        }
    }

    async fn fail(&mut self, me: &ActorRef<ConfigMsg>, id: IntegrationId, reason: String) {
        let Some(integration) = self.current.configuration().integrations.get(&id) else { return };
        if integration.status == IntegrationStatus::Inactive {
            // An operator switched it off: a crash must not switch its paths on again.
            tracing::error!(integration = id.0, reason, "the actor of an inactive integration kept crashing");
            return;
        }
        let mut integration = Integration::clone(integration);
        integration.status = IntegrationStatus::Failed;
        let write = Write {
            key: ResourceKey::Integration(id),
            expected_version: Some(integration.meta.version),
            resource: Some(Resource::Integration(integration)),
        };
        tracing::error!(integration = id.0, reason, "integration failed: its actor kept crashing");
        if let Err(error) = self.write(me, &Origin::of("hookmill"), vec![write]).await {
            tracing::error!(integration = id.0, %error, "could not record that an integration failed");
        }
        self.args.wires.record(Activity {
            at_ms: self.args.clock.now_ms(),
            actor: "hookmill".to_owned(),
            source: None,
            action: "integration.failed".to_owned(),
            subject: ResourceKey::Integration(id).to_string(),
            integration: Some(id),
            result: ActivityResult::Failed,
            detail: format!("its actor kept crashing; its events wait in the log until it is restarted: {reason}"),
        });
    }
}

fn kind(key: ResourceKey) -> &'static str {
    match key {
        ResourceKey::Integration(_) => "integration",
        ResourceKey::Endpoint(_) => "webhook_endpoint",
        ResourceKey::Destination(_) => "destination",
        ResourceKey::Subscription(_) => "subscription",
    }
}

/// How a change switched something on or off, in words.
fn turned(before: &Linked, change: &Change) -> Option<String> {
    let status = |resource: &Resource| match resource {
        Resource::Integration(it) => format!("{:?}", it.status).to_lowercase(),
        Resource::Destination(it) => format!("{:?}", it.status).to_lowercase(),
        Resource::Endpoint(it) => if it.active { "active" } else { "inactive" }.to_owned(),
        Resource::Subscription(it) => if it.active { "active" } else { "inactive" }.to_owned(),
    };
    let former = before.configuration().get(change.key)?;
    let (from, to) = (status(&former), status(change.resource.as_ref()?));
    (from != to).then(|| format!("from {from} to {to}"))
}

fn activity(change: &Change, was_deleted: bool, version: u64) -> Activity {
    let kind = kind(change.key);
    let verb = match &change.resource {
        None if was_deleted => "purged",
        None => "deleted",
        Some(_) if was_deleted => "restored",
        Some(resource) if resource.meta().created_at_ms == change.at_ms => "created",
        Some(_) => "updated",
    };
    Activity {
        at_ms: change.at_ms,
        actor: change.author.clone(),
        source: None,
        action: format!("{kind}.{verb}"),
        subject: change.key.to_string(),
        integration: None,
        result: ActivityResult::Ok,
        detail: format!("configuration version {version}"),
    }
}
