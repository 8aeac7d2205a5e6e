//! How the parts of the tree find each other: slots that a restarted actor puts itself into again.
//! Every message sent through a slot is a hint: what matters is in the log or the state, so a message to an actor
//! that is just being restarted may be lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use ractor::{Message, RpcReplyPort, rpc::CallResult};

use crate::{
    activity::ActivityMsg,
    configuration::ConfigHandle,
    delivery::{holding::Holdings, post::DeliveryPost, unavailable::OutageLog},
    domain::{
        activity::Activity,
        ids::{IntegrationId, SubscriptionId},
    },
    flow::{Gates, Paces},
    integration::IntegrationMsg,
    integrations::{ChangeBoard, IntegrationsMsg},
    metrics::{Counters, MetricsMsg, gauges::Gauges},
    recorder::RecordDesk,
    replay::ReplayMsg,
    retry::RetryDesk,
    router::{CommitBoard, RouterMsg, gate::Gate},
    scheduler::{SchedulerMsg, book::TaskBook, clock_watch::ClockTrust},
    tree::mailbox::{Mailboxes, Post, Way},
};

/// The present holder of a role.
pub(crate) struct Slot<T: Message>(Arc<ArcSwapOption<Post<T>>>);

impl<T: Message> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Message> Default for Slot<T> {
    fn default() -> Self {
        Self(Arc::new(ArcSwapOption::empty()))
    }
}

impl<T: Message> Slot<T> {
    /// From now on messages go to this actor.
    pub(crate) fn set(&self, actor: impl Into<Post<T>>) {
        self.0.store(Some(Arc::new(actor.into())));
    }

    /// A hint; lost when nobody holds the role at the moment.
    pub(crate) fn hint(&self, msg: T) {
        if let Some(actor) = self.0.load().as_ref() {
            actor.cast(msg);
        }
    }

    /// A question; `None` when nobody answers in time.
    pub(crate) async fn call<R: Send + 'static>(
        &self,
        build: impl FnOnce(RpcReplyPort<R>) -> T,
        wait_max: Duration,
    ) -> Option<R> {
        let actor = self.0.load_full()?;
        match actor.call(build, Some(wait_max)).await {
            Ok(CallResult::Success(answer)) => Some(answer),
            Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => None,
        }
    }

    /// Whether somebody holds the role and is alive.
    pub(crate) fn is_alive(&self) -> bool {
        self.0.load().as_ref().is_some_and(|actor| actor.actor().get_status() == ractor::ActorStatus::Running)
    }
}

/// The present holders of a role that exists once a key. The lock is held for a look-up only.
pub(crate) struct Roll<K, W>(Arc<RwLock<BTreeMap<K, W>>>);

impl<K, W> Clone for Roll<K, W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, W> Default for Roll<K, W> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Ord + Copy, W> Roll<K, W> {
    /// From now on messages for the key go this way.
    pub(crate) fn set(&self, key: K, holder: W) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, holder);
    }

    /// Nobody answers for the key any more.
    pub(crate) fn remove(&self, key: K) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Whether somebody answers for the key, or will again.
    pub(crate) fn holds(&self, key: K) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains_key(&key)
    }

    /// Every key that has a holder.
    pub(crate) fn keys(&self) -> Vec<K> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

impl<K: Ord + Copy, W: Way> Roll<K, W> {
    /// A hint to the holder.
    pub(crate) fn hint(&self, key: K, msg: W::Msg) {
        if let Some(holder) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            holder.cast(msg);
        }
    }
}

impl<K: Ord + Copy, W: Way> Roll<K, (W, Gate)> {
    /// A hint of which the holder never has more than one waiting.
    pub(crate) fn wake(&self, key: K, build: impl FnOnce() -> W::Msg) {
        if let Some((holder, gate)) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key)
            && gate.enter()
        {
            holder.cast(build());
        }
    }
}

/// Everybody's slots.
#[derive(Clone)]
pub(crate) struct Wires {
    pub(crate) config: ConfigHandle,
    pub(crate) board: Arc<CommitBoard>,
    pub(crate) router: Slot<RouterMsg>,
    pub(crate) integrations: Slot<IntegrationsMsg>,
    pub(crate) changed: Arc<ChangeBoard>,
    /// Each with the gate that its wakes pass.
    pub(crate) intakes: Roll<IntegrationId, (Post<IntegrationMsg>, Gate)>,
    pub(crate) deliveries: Roll<SubscriptionId, DeliveryPost>,
    pub(crate) records: RecordDesk,
    pub(crate) retry: RetryDesk,
    pub(crate) replays: Slot<ReplayMsg>,
    pub(crate) scheduler: Slot<SchedulerMsg>,
    pub(crate) tasks: TaskBook,
    pub(crate) activity: Slot<ActivityMsg>,
    pub(crate) metrics: Slot<MetricsMsg>,
    pub(crate) gates: Gates,
    pub(crate) paces: Paces,
    pub(crate) gauges: Gauges,
    pub(crate) holdings: Holdings,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) clock_trust: ClockTrust,
    pub(crate) outages: OutageLog,
    pub(crate) counters: Arc<Counters>,
}

impl Wires {
    pub(crate) fn new(board: Arc<CommitBoard>) -> Self {
        Self {
            config: ConfigHandle::new(Slot::default()),
            router: board.router(),
            board,
            integrations: Slot::default(),
            changed: Arc::default(),
            intakes: Roll::default(),
            deliveries: Roll::default(),
            records: RecordDesk::default(),
            retry: RetryDesk::default(),
            replays: Slot::default(),
            scheduler: Slot::default(),
            tasks: TaskBook::default(),
            activity: Slot::default(),
            metrics: Slot::default(),
            gates: Gates::default(),
            paces: Paces::default(),
            gauges: Gauges::default(),
            holdings: Holdings::default(),
            mailboxes: Mailboxes::default(),
            clock_trust: ClockTrust::default(),
            outages: OutageLog::default(),
            counters: Arc::default(),
        }
    }

    /// Notes who did what.
    pub(crate) fn record(&self, activity: Activity) {
        self.record_all(vec![activity]);
    }

    /// Notes what was done at once; stored at once, too.
    pub(crate) fn record_all(&self, activities: Vec<Activity>) {
        self.activity.hint(ActivityMsg::Record(activities));
    }

    /// A new snapshot is published, in which these integrations are otherwise than before.
    pub(crate) fn configuration_changed(&self, integrations: BTreeSet<IntegrationId>) {
        if self.changed.note(integrations) {
            self.integrations.hint(IntegrationsMsg::Reconcile);
        }
    }
}
