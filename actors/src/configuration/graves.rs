//! Deleting for good: once the grace of something deleted has passed, or because an operator says so.

use std::time::Duration;

use ractor::ActorRef;

use super::{ConfigError, ConfigMsg, ConfigState, Write, rules::Deletion};
use crate::domain::{
    config::{Change, ResourceKey},
    ids::IntegrationId,
    version::Origin,
};

/// Deleted for good in one go; what more there is comes after.
const EXPIRED_AT_ONCE: usize = 1_000;
/// Longer than this no timer is set: a machine that sleeps wakes up with its timers late.
const LOOK_AFTER_MAX: Duration = Duration::from_hours(1);

impl ConfigState {
    /// Deletes for good, by way of deleting, so that a crash in between leaves what the grace ends.
    pub(super) async fn purge(
        &mut self,
        me: &ActorRef<ConfigMsg>,
        origin: &Origin,
        key: ResourceKey,
        expected: Option<&[u64]>,
    ) -> Result<Vec<Change>, ConfigError> {
        let mut made = Vec::new();
        let configuration = self.current.configuration();
        let actual = configuration.version_of(key);
        let stands = actual.or_else(|| configuration.deleted.get(&key).map(|kept| kept.version));
        let stands = stands.ok_or(ConfigError::NotFound(key))?;
        if let Some(expected) = expected.filter(|expected| !expected.contains(&stands)) {
            let expected = expected.first().copied().unwrap_or_default();
            return Err(ConfigError::Conflict { key, expected, actual: stands });
        }
        if actual.is_some() {
            let write = Write { key, expected_version: actual, resource: None };
            made = self.write_with(me, origin, vec![write], Deletion::Kept).await?;
        }
        if self.current.configuration().deleted.contains_key(&key) {
            made.extend(self.bury(me, origin, &[key]).await?);
        }
        Ok(made)
    }

    /// What is deleted for so long that it does not come back.
    pub(super) async fn expire(&mut self, me: &ActorRef<ConfigMsg>) {
        self.expiring = false;
        let (now_ms, grace_ms) = (self.args.clock.now_ms(), self.args.wires.config.deletion_grace_ms());
        // A clock that is set ahead by mistake must not cost what operators may still want.
        if self.args.wires.clock_trust.holds(now_ms) {
            let over = self.current.deleted().take_while(|(at_ms, _)| at_ms.saturating_add(grace_ms) <= now_ms);
            let over: Vec<ResourceKey> = over.map(|(_, key)| key).take(EXPIRED_AT_ONCE).collect();
            if !over.is_empty() {
                let comment = Some("deleted for good: the grace has passed".to_owned());
                let origin = Origin { comment, ..Origin::of("hookmill") };
                if let Err(error) = self.bury(me, &origin, &over).await {
                    tracing::error!(%error, "what was deleted long ago cannot be removed now; it is tried again");
                }
            }
        }
        self.await_expiry(me);
    }

    /// Removes what is left of the deleted. The history goes first: what is left reserves its place until that is gone.
    async fn bury(
        &mut self,
        me: &ActorRef<ConfigMsg>,
        origin: &Origin,
        keys: &[ResourceKey],
    ) -> Result<Vec<Change>, ConfigError> {
        let mut all = keys.to_vec();
        for key in keys {
            let ResourceKey::Integration(id) = key else { continue };
            let of_it = self.current.configuration().deleted.iter().filter(|(_, kept)| kept.integration == Some(*id));
            all.extend(of_it.map(|(key, _)| *key));
            self.args.store.forget(*id).await?;
        }
        all.sort_unstable();
        all.dedup();
        let (version, at_ms) = (self.current.configuration().version + 1, self.args.clock.now_ms());
        let change = |key| Change {
            version,
            at_ms,
            author: origin.author.name.clone(),
            comment: origin.comment.clone(),
            key,
            resource: None,
            kept: None,
        };
        let changes: Vec<Change> = all.into_iter().map(change).collect();
        let mut next = self.current.clone();
        for change in &changes {
            next.apply(change);
        }
        self.make(me, origin, &changes, next).await?;
        Ok(changes)
    }

    /// The history of integrations that were deleted for good at once.
    pub(super) async fn forget_deleted(&self, changes: &[Change]) {
        for change in changes.iter().filter(|change| change.resource.is_none()) {
            let ResourceKey::Integration(id) = change.key else { continue };
            self.forget(id).await;
        }
    }

    async fn forget(&self, id: IntegrationId) {
        if let Err(error) = self.args.store.forget(id).await {
            tracing::error!(integration = id.0, %error, "the history of a deleted integration remains");
        }
    }

    /// Sets the next look at what is deleted, unless one is on its way.
    pub(super) fn await_expiry(&mut self, me: &ActorRef<ConfigMsg>) {
        let Some((at_ms, _)) = self.current.deleted().next().filter(|_| !self.expiring) else { return };
        let over_ms = at_ms.saturating_add(self.args.wires.config.deletion_grace_ms());
        let wait = Duration::from_millis(over_ms.saturating_sub(self.args.clock.now_ms()));
        // Not at once again where the clock is not trusted.
        let wait = wait.clamp(Duration::from_secs(1), LOOK_AFTER_MAX);
        me.send_after(wait, || ConfigMsg::Expire);
        self.expiring = true;
    }
}
