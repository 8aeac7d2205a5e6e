//! The keys that the store is sealed with, and how they change: add, rotate, retire. The same for a running server,
//! which is asked through the admin API, and for a data directory that nobody serves.
//!
//! The store keeps a check value of every key that may have sealed something in it. It is stored before the first
//! text is sealed with the key, and goes when the key is retired; so a start knows by a look whether its ring opens
//! everything. A rotation puts a new primary into the ring first, then seals again, a step at a time, whatever another
//! key has sealed. Both keys open meanwhile. A kill at any point costs the step under way: the next start sees a
//! rotation without an end, and goes over everything once more, which is quick where it was before.

mod census;
mod rotation;
mod sealed;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use hookmill_actors::{domain::activity::ActivityResult, ports::config_store::ConfigStoreError};

pub use self::{
    census::{Holdings, Tally},
    rotation::{Rotation, RotationState},
};
use crate::{
    secrets::{KeyId, KeyInfo, KeyRing, KeyRingError, KeyState, LiveRing, RingChangeError},
    storage::sled_config::SledConfig,
};

/// The name under which the store keeps the check values, one a line.
const CHECKS: &str = "key-check";

/// Why keys did not change. Nothing of them is different then.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The ring does not allow it.
    #[error(transparent)]
    Ring(#[from] RingChangeError),
    /// Something in the store opens with it only.
    #[error("{holdings} sealed with key `{key}`; `hookmill keys rotate` seals them with another one")]
    InUse {
        /// The key.
        key: KeyId,
        /// What.
        holdings: Holdings,
    },
    /// Another change of keys is under way.
    #[error("a rotation is under way; wait until it is done (`hookmill keys list` tells how far it is)")]
    Busy,
    /// The ring is somebody else's to write.
    #[error("the ring comes from {origin}, which hookmill cannot write: {what}")]
    ReadOnly {
        /// Where it comes from.
        origin: String,
        /// What to do there.
        what: &'static str,
    },
    /// The ring was not read or written.
    #[error(transparent)]
    Source(#[from] KeyRingError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ConfigStoreError),
}

const ADD_THERE: &str = "add a new key there first (`hookmill keys add --output FILE` writes a ring that has one as its \
                         primary), then ask for the rotation again";

/// A key, and what it seals.
#[derive(Clone, Debug)]
pub struct KeyReport {
    /// The key.
    pub info: KeyInfo,
    /// What is sealed with it; `None` where that was not asked for.
    pub holdings: Option<Holdings>,
}

/// A key was retired.
#[derive(Clone, Debug)]
pub struct Retired {
    /// The key.
    pub key: KeyId,
    /// What is left to do, where the ring is somebody else's to write.
    pub note: Option<String>,
}

/// The ring, and what is sealed with it. All of it blocks for the disk.
pub struct KeyKeeper {
    ring: Arc<LiveRing>,
    config: Arc<SledConfig>,
    /// Held for the whole of a change, but for a rotation's passes.
    changing: Mutex<()>,
    rotation: Mutex<Option<Rotation>>,
    running: AtomicBool,
}

impl KeyKeeper {
    /// Takes ring and store together.
    ///
    /// # Errors
    /// [`KeyRingError::WrongRing`] where the ring lacks a key that something is sealed with.
    pub fn open(ring: Arc<LiveRing>, config: Arc<SledConfig>) -> Result<Self, KeyRingError> {
        let rotation = Rotation::load(&config).map_err(store)?;
        let keeper = Self {
            ring,
            config,
            changing: Mutex::default(),
            rotation: Mutex::new(rotation),
            running: AtomicBool::new(false),
        };
        let ring = keeper.ring.current();
        keeper.take_over(&ring)?;
        Ok(keeper)
    }

    /// The ring in use.
    pub fn ring(&self) -> &Arc<LiveRing> {
        &self.ring
    }

    /// The keys, the oldest first; with what is sealed with each, which takes a look at everything.
    pub fn list(&self, count: bool) -> Result<Vec<KeyReport>, KeysError> {
        let ring = self.ring.current();
        let census = if count { Some(census::take(&self.config, &self.ring)?) } else { None };
        let report = |info: KeyInfo| {
            let holdings = census.as_ref().map(|census| census.get(&info.id).copied().unwrap_or_default());
            KeyReport { info, holdings }
        };
        Ok(ring.infos().into_iter().map(report).collect())
    }

    /// The last rotation, or the one under way.
    pub fn rotation(&self) -> Option<Rotation> {
        self.rotation_cell().clone()
    }

    /// Adds a new key that opens and does not seal.
    pub fn add(&self, now_ms: u64) -> Result<KeyId, KeysError> {
        let _changing = self.change()?;
        let added = self.ring.source().update(|ring| {
            let (ring, id) = ring.with_new_key(now_ms)?;
            self.take_over(&ring)?;
            Ok::<_, KeysError>((ring.clone(), (ring, id)))
        })?;
        let (ring, id) = added.ok_or_else(|| self.read_only(ADD_THERE))?;
        self.ring.replace(ring);
        Ok(id)
    }

    /// Takes the ring as its source has it now.
    pub fn reload(&self) -> Result<(), KeysError> {
        let _changing = self.change()?;
        let ring = self.read_source()?;
        self.take_over(&ring)?;
        self.ring.replace(ring);
        Ok(())
    }

    /// Retires a key that nothing is sealed with.
    pub fn retire(&self, key: KeyId, now_ms: u64) -> Result<Retired, KeysError> {
        let _changing = self.change()?;
        let ring = self.ring.current();
        // Asked first: counting takes a while.
        ring.with_retired(key, now_ms)?;
        let holdings = census::take(&self.config, &self.ring)?.get(&key).copied().unwrap_or_default();
        if !holdings.is_empty() {
            return Err(KeysError::InUse { key, holdings });
        }
        let written = self.ring.source().update(|ring| {
            let ring = ring.with_retired(key, now_ms)?;
            Ok::<_, KeysError>((ring.clone(), ring))
        })?;
        let note = match written {
            Some(ring) => {
                self.ring.replace(ring);
                None
            }
            None => Some(format!("nothing is sealed with it any more; now take it out of the {}", self.ring.source())),
        };
        let name = format!("v1:{key}:");
        let checks: Vec<String> = self.checks()?.into_iter().filter(|check| !check.starts_with(&name)).collect();
        self.store_checks(&checks)?;
        Ok(Retired { key, note })
    }

    /// Whether a rotation was begun, by whatever means, and not ended.
    pub fn needs_rotation(&self) -> Result<bool, KeysError> {
        let ring = self.ring.current();
        let checks = self.checks()?;
        let primary = ring.check_value();
        let settled =
            self.rotation_cell().as_ref().is_some_and(|it| it.to == ring.primary_id() && it.finished_at_ms.is_some());
        Ok(!settled && checks.iter().any(|check| *check != primary))
    }

    /// Puts another key in the primary's place: `to`, or the one that the source has there by now, or a new one. Then
    /// the rotation is to be run. One that was begun before and did not end is taken up instead.
    pub fn begin_rotation(&self, to: Option<KeyId>, author: &str, now_ms: u64) -> Result<Rotation, KeysError> {
        let _changing = self.change()?;
        let resumed = to.is_none_or(|to| to == self.ring.current().primary_id()) && self.needs_rotation()?;
        if !resumed {
            let ring = match self.ring.source().is_writable() {
                true => self.promoted_in_file(to, now_ms)?,
                false => self.promoted_elsewhere(to)?,
            };
            self.take_over(&ring)?;
            self.ring.replace(ring);
        }
        let rotation = Rotation::begun(self.ring.current().primary_id(), author, now_ms);
        rotation.store(&self.config)?;
        *self.rotation_cell() = Some(rotation.clone());
        Ok(rotation)
    }

    fn promoted_in_file(&self, to: Option<KeyId>, now_ms: u64) -> Result<KeyRing, KeysError> {
        let in_use = self.ring.current().primary_id();
        let made = self.ring.source().update(|ring| {
            let ring = match to {
                Some(to) if to == ring.primary_id() && to != in_use => ring,
                Some(to) => ring.with_primary(to)?,
                // Somebody put another key there by hand.
                None if ring.primary_id() != in_use => ring,
                None => {
                    let (ring, id) = ring.with_new_key(now_ms)?;
                    ring.with_primary(id)?
                }
            };
            Ok::<_, KeysError>((ring.clone(), ring))
        })?;
        made.ok_or_else(|| self.read_only(ADD_THERE))
    }

    fn promoted_elsewhere(&self, to: Option<KeyId>) -> Result<KeyRing, KeysError> {
        let ring = self.read_source()?;
        match to {
            Some(to) if to != ring.primary_id() => Err(self.read_only("make that key the primary there first")),
            _ if ring.primary_id() == self.ring.current().primary_id() => Err(self.read_only(ADD_THERE)),
            _ => Ok(ring),
        }
    }

    fn read_source(&self) -> Result<KeyRing, KeysError> {
        let source = self.ring.source();
        Ok(source.read()?.ok_or_else(|| match source {
            crate::secrets::KeySource::File(path) => KeyRingError::Missing(path.clone()),
            other => KeyRingError::Malformed { origin: other.to_string(), problem: "there is none".to_owned() },
        })?)
    }

    fn read_only(&self, what: &'static str) -> KeysError {
        KeysError::ReadOnly { origin: self.ring.source().to_string(), what }
    }

    /// Makes sure that a ring opens everything, and that the store knows its primary, before it is used.
    fn take_over(&self, ring: &KeyRing) -> Result<(), KeyRingError> {
        let stored = self.checks().map_err(store)?;
        let mut kept = verified(&stored, ring, &self.ring, &self.config)?;
        let primary = ring.check_value();
        if !kept.contains(&primary) {
            kept.push(primary);
        }
        if kept != stored {
            self.store_checks(&kept).map_err(store)?;
        }
        Ok(())
    }

    /// The keys that something may be sealed with.
    pub fn in_use(&self) -> Result<Vec<KeyId>, ConfigStoreError> {
        in_use(&self.config)
    }

    fn checks(&self) -> Result<Vec<String>, ConfigStoreError> {
        checks_of(&self.config)
    }

    fn store_checks(&self, checks: &[String]) -> Result<(), ConfigStoreError> {
        self.config.meta_put(CHECKS, checks.join("\n").as_bytes())
    }

    fn change(&self) -> Result<MutexGuard<'_, ()>, KeysError> {
        let guard = self.changing.try_lock().map_err(|_| KeysError::Busy)?;
        if self.running.load(Ordering::Acquire) { Err(KeysError::Busy) } else { Ok(guard) }
    }

    fn rotation_cell(&self) -> MutexGuard<'_, Option<Rotation>> {
        // It is replaced whole.
        self.rotation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys that something may be sealed with.
pub fn in_use(config: &SledConfig) -> Result<Vec<KeyId>, ConfigStoreError> {
    Ok(checks_of(config)?.iter().filter_map(|check| check.split(':').nth(1)?.parse().ok()).collect())
}

/// What is sealed with each key, where the ring has them all. Looks at everything and changes nothing.
///
/// # Errors
/// [`KeyRingError::WrongRing`] where the ring lacks a key that something is sealed with.
pub fn inspect(ring: &LiveRing, config: &SledConfig) -> Result<Vec<Holdings>, KeyRingError> {
    let checks = checks_of(config).map_err(store)?;
    verified(&checks, &ring.current(), ring, config)?;
    Ok(census::take(config, ring).map_err(store)?.into_values().collect())
}

/// The check values of which `ring` has the keys. A key that seals nothing is missed by nobody; `in_use` counts.
fn verified(
    checks: &[String],
    ring: &KeyRing,
    in_use: &LiveRing,
    config: &SledConfig,
) -> Result<Vec<String>, KeyRingError> {
    let mut kept = Vec::with_capacity(checks.len() + 1);
    for check in checks {
        let (key, found) = match ring.verify_check(check) {
            Ok(_) => {
                kept.push(check.clone());
                continue;
            }
            Err(KeyRingError::WrongRing { key, found, .. }) => (key, found),
            Err(error) => return Err(error),
        };
        let id: Option<KeyId> = key.parse().ok();
        let census = census::take(config, in_use).map_err(store)?;
        let holdings = id.and_then(|id| census.get(&id)).copied().unwrap_or_default();
        if id.is_none() || !holdings.is_untouched() {
            return Err(KeyRingError::WrongRing { key, found, holdings: format!(" ({holdings})") });
        }
        tracing::warn!(key, "the ring has no longer a key that nothing is sealed with; it is forgotten");
    }
    Ok(kept)
}

fn checks_of(config: &SledConfig) -> Result<Vec<String>, ConfigStoreError> {
    let stored = config.meta_get(CHECKS)?.unwrap_or_default();
    let text = String::from_utf8(stored)
        .map_err(|_| ConfigStoreError("the key check is not text; the store is damaged".to_owned()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn store(error: ConfigStoreError) -> KeyRingError {
    KeyRingError::Store(error.0)
}

impl KeyReport {
    /// Whether it can be retired, as far as is known.
    pub fn is_free(&self) -> bool {
        self.info.state == KeyState::Active && self.holdings.is_some_and(|holdings| holdings.is_empty())
    }
}

impl KeysError {
    /// Whether something stands against it; else something is broken.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Source(_) | Self::Store(_))
    }
}

/// How a change of keys went, for the audit log.
pub fn result_of<T>(outcome: &Result<T, KeysError>) -> ActivityResult {
    match outcome {
        Ok(_) => ActivityResult::Ok,
        Err(error) if error.is_refusal() => ActivityResult::Refused,
        Err(_) => ActivityResult::Failed,
    }
}
