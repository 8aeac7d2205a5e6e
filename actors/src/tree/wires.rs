//! How the parts of the tree find each other: slots that a restarted actor puts itself into again.
//! Every message sent through a slot is a hint: what matters is in the log or the state, so a message to an actor
//! that is just being restarted may be lost.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use ractor::{ActorRef, Message, RpcReplyPort, rpc::CallResult};

use crate::{
    activity::ActivityMsg,
    configuration::ConfigHandle,
    domain::activity::Activity,
    integrations::IntegrationsMsg,
    metrics::{Counters, MetricsMsg},
    retry::RetryMsg,
    router::RouterMsg,
};

/// The present holder of a role.
pub(crate) struct Slot<T: Message>(Arc<ArcSwapOption<ActorRef<T>>>);

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
    pub(crate) fn set(&self, actor: ActorRef<T>) {
        self.0.store(Some(Arc::new(actor)));
    }

    /// A hint; lost when nobody holds the role at the moment.
    pub(crate) fn hint(&self, msg: T) {
        if let Some(actor) = self.0.load().as_ref() {
            let _ = actor.cast(msg);
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
}

/// Everybody's slots.
#[derive(Clone)]
pub(crate) struct Wires {
    pub(crate) config: ConfigHandle,
    pub(crate) router: Slot<RouterMsg>,
    pub(crate) integrations: Slot<IntegrationsMsg>,
    pub(crate) retry: Slot<RetryMsg>,
    pub(crate) activity: Slot<ActivityMsg>,
    pub(crate) metrics: Slot<MetricsMsg>,
    pub(crate) counters: Arc<Counters>,
}

impl Wires {
    pub(crate) fn new() -> Self {
        Self {
            config: ConfigHandle::new(Slot::default()),
            router: Slot::default(),
            integrations: Slot::default(),
            retry: Slot::default(),
            activity: Slot::default(),
            metrics: Slot::default(),
            counters: Arc::default(),
        }
    }

    /// Notes who did what.
    pub(crate) fn record(&self, activity: Activity) {
        self.activity.hint(ActivityMsg::Record(activity));
    }

    /// A new snapshot is published.
    pub(crate) fn configuration_changed(&self) {
        self.integrations.hint(IntegrationsMsg::Reconcile);
    }
}
