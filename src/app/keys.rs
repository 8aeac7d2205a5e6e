//! The keys of a running server, as the admin API asks for them: beside the store, what is configured in memory is
//! sealed again, and a rotation runs in the background.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use hookmill_actors::{
    activity,
    domain::activity::{Activity, ActivityResult},
    ports::clock::Clock,
    tree::TreeHandle,
};
use tokio::task::JoinHandle;

use crate::{
    admin::{KeyAdmin, KeysView},
    connections::Connections,
    keys::{KeyKeeper, KeysError, Retired, Rotation, RotationState, result_of},
    secrets::{KeyId, KeyRingError},
    words::counted,
};

/// What did it where nobody asked: a rotation that goes on after a start.
const SELF: &str = "hookmill";

/// See the module. Clones share everything.
#[derive(Clone)]
pub(super) struct KeyService {
    keeper: Arc<KeyKeeper>,
    tree: TreeHandle,
    connections: Connections,
    clock: Arc<dyn Clock>,
    stop: Arc<AtomicBool>,
    rotating: Arc<std::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl KeyService {
    /// Takes a rotation up that an earlier run did not end.
    pub(super) async fn start(
        keeper: Arc<KeyKeeper>,
        tree: TreeHandle,
        connections: Connections,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let (stop, rotating) = (Arc::default(), Arc::default());
        let service = Self { keeper, tree, connections, clock, stop, rotating };
        if service.blocking(KeyKeeper::needs_rotation).await? {
            let rotation = service.begin(SELF.to_owned(), None).await?;
            tracing::info!(to = %rotation.to, "a rotation of keys goes on");
            service.run();
        }
        Ok(service)
    }

    /// Ends after the step under way; the next start goes on.
    pub(super) async fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let rotating = self.rotating.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(rotating) = rotating {
            let _ = rotating.await;
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&KeyKeeper) -> Result<T, KeysError> + Send + 'static,
    ) -> Result<T, KeysError> {
        let keeper = self.keeper.clone();
        tokio::task::spawn_blocking(move || work(&keeper))
            .await
            .unwrap_or_else(|_| Err(KeyRingError::Store("the task was stopped before it was done".to_owned()).into()))
    }

    async fn begin(&self, author: String, to: Option<KeyId>) -> Result<Rotation, KeysError> {
        let now_ms = self.clock.now_ms();
        let rotation = self.blocking(move |keeper| keeper.begin_rotation(to, &author, now_ms)).await?;
        // Before the store: what is written from memory is then sealed with the new key, too.
        self.reseal().await;
        Ok(rotation)
    }

    /// What is in memory is sealed again at every write of it anyway; so a configuration actor that is just being
    /// restarted holds nothing up.
    async fn reseal(&self) {
        self.connections.reseal();
        if let Err(error) = self.tree.config().reseal().await {
            tracing::warn!(%error, "the configuration in memory keeps its seals until it is next changed");
        }
    }

    fn run(&self) {
        let service = self.clone();
        let task = tokio::spawn(async move {
            let (stop, clock) = (service.stop.clone(), service.clock.clone());
            let run = move |keeper: &KeyKeeper| keeper.run_rotation(&stop, || clock.now_ms(), |_| ());
            let ended = service.blocking(run).await;
            // The configuration actor may have been restarted with what it found before the pass came there.
            service.reseal().await;
            service.tell(&ended).await;
        });
        *self.rotating.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(task);
    }

    async fn tell(&self, ended: &Result<RotationState, KeysError>) {
        let Some(rotation) = self.keeper.rotation() else { return };
        let counts = format!(
            "{} sealed again in {} of {}, {} damaged",
            counted(rotation.sealed_again, "secret"),
            rotation.changes_done,
            counted(rotation.changes_total, "change"),
            rotation.damaged
        );
        match ended {
            Ok(RotationState::Done) => tracing::info!(to = %rotation.to, counts, "keys rotated"),
            Ok(_) => return tracing::info!(to = %rotation.to, counts, "the rotation goes on after the next start"),
            Err(error) => tracing::error!(%error, counts, "the rotation of keys stopped; ask for it again"),
        }
        let detail = match ended {
            Ok(_) => counts,
            Err(error) => format!("{counts}; {error}"),
        };
        self.note(rotation.author, "keys.rotated", rotation.to.to_string(), result_of(ended), detail).await;
    }

    async fn note(&self, actor: String, action: &str, key: String, result: ActivityResult, detail: String) {
        let activity = Activity {
            at_ms: self.clock.now_ms(),
            actor,
            source: activity::source(),
            action: action.to_owned(),
            subject: format!("key {key}"),
            integration: None,
            result,
            detail,
        };
        if let Err(error) = self.tree.ports().config.record_activity(vec![activity]).await {
            tracing::error!(%error, "an activity could not be stored");
        }
    }
}

#[async_trait]
impl KeyAdmin for KeyService {
    async fn view(&self, count: bool) -> Result<KeysView, KeysError> {
        let view = move |keeper: &KeyKeeper| {
            let (keys, rotation) = (keeper.list(count)?, keeper.rotation().zip(keeper.rotation_state()));
            Ok(KeysView { source: keeper.ring().source().to_string(), keys, rotation })
        };
        self.blocking(view).await
    }

    async fn add(&self, author: &str) -> Result<KeyId, KeysError> {
        let now_ms = self.clock.now_ms();
        let id = self.blocking(move |keeper| keeper.add(now_ms)).await?;
        self.note(author.to_owned(), "keys.added", id.to_string(), ActivityResult::Ok, String::new()).await;
        Ok(id)
    }

    async fn reload(&self, author: &str) -> Result<(), KeysError> {
        self.blocking(KeyKeeper::reload).await?;
        let primary = self.keeper.ring().current().primary_id();
        let detail = "the ring was read again; this is its primary".to_owned();
        self.note(author.to_owned(), "keys.reloaded", primary.to_string(), ActivityResult::Ok, detail).await;
        Ok(())
    }

    async fn rotate(&self, author: &str, to: Option<KeyId>) -> Result<Rotation, KeysError> {
        let rotation = self.begin(author.to_owned(), to).await?;
        self.run();
        self.note(author.to_owned(), "keys.rotation_begun", rotation.to.to_string(), ActivityResult::Ok, String::new())
            .await;
        Ok(rotation)
    }

    async fn retire(&self, author: &str, key: KeyId) -> Result<Retired, KeysError> {
        // Whatever may stand in memory with the old seal does no longer.
        self.reseal().await;
        let now_ms = self.clock.now_ms();
        let retired = self.blocking(move |keeper| keeper.retire(key, now_ms)).await?;
        let detail = retired.note.clone().unwrap_or_default();
        self.note(author.to_owned(), "keys.retired", key.to_string(), ActivityResult::Ok, detail).await;
        Ok(retired)
    }
}
