//! The audit log's writer. In: `Record` from whoever did something. Out: the configuration store.
//! Owns nothing; a crash may lose entries of the last moment, which were logged too.

use std::{net::IpAddr, sync::Arc};

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::{
    domain::activity::{Activity, Author},
    ports::config_store::ConfigStore,
    tree::wires::Wires,
};

tokio::task_local! {
    static SOURCE: IpAddr;
}

/// Does a request's work: whatever it asks of the tree is noted as asked from this address.
pub async fn from_source<T>(source: IpAddr, work: impl Future<Output = T>) -> T {
    SOURCE.scope(source, work).await
}

/// Where the request came from that this task works on; `None` where it works on none.
pub fn source() -> Option<IpAddr> {
    SOURCE.try_with(|source| *source).ok()
}

/// Who asks, in a task that works on a request.
pub(crate) fn author(name: &str) -> Author {
    Author { name: name.to_owned(), source: source() }
}

/// What may be said to the activity actor.
pub(crate) enum ActivityMsg {
    /// Keep these.
    Record(Vec<Activity>),
}

pub(crate) struct ActivityActor;

impl Actor for ActivityActor {
    type Msg = ActivityMsg;
    type State = Arc<dyn ConfigStore>;
    type Arguments = (Arc<dyn ConfigStore>, Arc<Wires>);

    async fn pre_start(
        &self,
        me: ActorRef<ActivityMsg>,
        (store, wires): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        wires.activity.set(me);
        Ok(store)
    }

    async fn handle(
        &self,
        _me: ActorRef<ActivityMsg>,
        ActivityMsg::Record(activities): ActivityMsg,
        store: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        for activity in &activities {
            tracing::info!(
                actor = activity.actor,
                source = activity.source.map(tracing::field::display),
                action = activity.action,
                subject = activity.subject,
                result = ?activity.result,
                "activity"
            );
        }
        if let Err(error) = store.record_activity(activities).await {
            tracing::error!(%error, "activities could not be stored");
        }
        Ok(())
    }
}
