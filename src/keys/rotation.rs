//! Sealing everything again with the primary, step by step.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use hookmill_actors::ports::{
    config_store::ConfigStoreError,
    sealer::{SealError, SealedPart},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{KeyKeeper, KeysError, sealed::Place};
use crate::{
    secrets::KeyId,
    storage::sled_config::{PassPlace, SledConfig},
};

/// The name under which the store keeps the last rotation.
const NAME: &str = "key-rotation";
/// Changes a step: one sync for each, and a few milliseconds during which nobody else changes the configuration.
const STEP: usize = 64;
/// The disk is the event log's as well: a step rests for as long as it took, up to this.
const REST_MAX: Duration = Duration::from_millis(20);
/// Texts that do not open and are named.
const NAMED_MAX: usize = 20;

/// How a rotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RotationState {
    /// Under way.
    Running,
    /// Begun and not ended: it goes on at the next start, or when it is asked for again.
    Interrupted,
    /// Everything that opens is sealed with the new key.
    Done,
}

/// A rotation, as the store keeps it and replies show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The key that seals from then on.
    pub to: KeyId,
    /// Who asked for it.
    pub author: String,
    /// When it was begun, or taken up again, milliseconds since 1970.
    pub started_at_ms: u64,
    /// When it was done, milliseconds since 1970.
    pub finished_at_ms: Option<u64>,
    /// Changes to look at: what stands, and all versions.
    pub changes_total: u64,
    /// Those that were looked at.
    pub changes_done: u64,
    /// Secrets that were sealed again.
    pub sealed_again: u64,
    /// Secrets that did not open before, and do not now.
    pub damaged: u64,
    /// Where the first of them are.
    pub damaged_at: Vec<String>,
    /// Why it stopped, where it did.
    pub failure: Option<String>,
}

impl Rotation {
    pub(super) fn begun(to: KeyId, author: &str, now_ms: u64) -> Self {
        Self {
            to,
            author: author.to_owned(),
            started_at_ms: now_ms,
            finished_at_ms: None,
            changes_total: 0,
            changes_done: 0,
            sealed_again: 0,
            damaged: 0,
            damaged_at: Vec::new(),
            failure: None,
        }
    }

    pub(super) fn load(config: &SledConfig) -> Result<Option<Self>, ConfigStoreError> {
        let Some(json) = config.meta_get(NAME)? else { return Ok(None) };
        let malformed = |_| ConfigStoreError(format!("the document `{NAME}` is malformed"));
        serde_json::from_slice(&json).map(Some).map_err(malformed)
    }

    pub(super) fn store(&self, config: &SledConfig) -> Result<(), ConfigStoreError> {
        let json = serde_json::to_vec(self).map_err(|error| ConfigStoreError(error.to_string()))?;
        config.meta_put(NAME, &json)
    }
}

impl KeyKeeper {
    /// How the last rotation stands.
    pub fn rotation_state(&self) -> Option<RotationState> {
        let rotation = self.rotation()?;
        Some(match rotation.finished_at_ms {
            Some(_) => RotationState::Done,
            None if self.running.load(Ordering::Acquire) => RotationState::Running,
            None => RotationState::Interrupted,
        })
    }

    /// Runs the rotation that was begun, to its end or until `stop`: whatever another key than the primary has sealed
    /// is sealed again. `told` hears of every step.
    ///
    /// # Errors
    /// The store's; what was done stays, and the rotation can be run again.
    pub fn run_rotation(
        &self,
        stop: &AtomicBool,
        clock: impl Fn() -> u64,
        mut told: impl FnMut(&Rotation),
    ) -> Result<RotationState, KeysError> {
        let _running = Running::begin(&self.running).ok_or(KeysError::Busy)?;
        let outcome = self.seal_again(stop, &mut told);
        if let Err(error) = &outcome {
            self.note(|rotation| rotation.failure = Some(error.to_string()));
        }
        if !outcome? {
            return Ok(RotationState::Interrupted);
        }
        self.note(|rotation| rotation.finished_at_ms = Some(clock()));
        let rotation = self.rotation();
        if let Some(rotation) = &rotation {
            rotation.store(&self.config)?;
            told(rotation);
        }
        Ok(RotationState::Done)
    }

    /// Whether it came to the end.
    fn seal_again(&self, stop: &AtomicBool, told: &mut impl FnMut(&Rotation)) -> Result<bool, ConfigStoreError> {
        let total = self.config.count_changes()?;
        self.note(|rotation| {
            (rotation.changes_total, rotation.changes_done, rotation.failure) = (total, 0, None);
            (rotation.damaged, rotation.damaged_at) = (0, Vec::new());
        });
        for kind in Place::ALL {
            let mut place = PassPlace::default();
            loop {
                if stop.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                let began = Instant::now();
                let mut work = Step::default();
                let mut edit = |part: SealedPart<'_>, at: &dyn Fn() -> String| work.seal_again(self, part, at);
                let Some((next, seen)) = kind.edit(&self.config, &place, STEP, &mut edit)? else { break };
                place = next;
                let seen = if matches!(kind, Place::Changes(_)) { seen as u64 } else { 0 };
                self.note(|rotation| work.add_to(rotation, seen));
                if let Some(rotation) = self.rotation() {
                    told(&rotation);
                }
                if work.sealed_again > 0 {
                    std::thread::sleep(began.elapsed().min(REST_MAX));
                }
            }
        }
        Ok(true)
    }

    fn note(&self, change: impl FnOnce(&mut Rotation)) {
        if let Some(rotation) = &mut *self.rotation_cell() {
            change(rotation);
        }
    }
}

/// What one step did.
#[derive(Default)]
struct Step {
    sealed_again: u64,
    damaged: u64,
    damaged_at: Vec<String>,
}

impl Step {
    fn seal_again(&mut self, keeper: &KeyKeeper, mut part: SealedPart<'_>, at: &dyn Fn() -> String) -> bool {
        match part.renew(&*keeper.ring) {
            Ok(renewed) => {
                self.sealed_again += u64::from(renewed);
                renewed
            }
            Err(SealError::UnknownKey(_) | SealError::Refused | SealError::Malformed) => {
                self.damaged += 1;
                self.damaged_at.push(at());
                false
            }
        }
    }

    fn add_to(self: &Step, rotation: &mut Rotation, seen: u64) {
        rotation.changes_done += seen;
        rotation.sealed_again += self.sealed_again;
        rotation.damaged += self.damaged;
        let room = NAMED_MAX.saturating_sub(rotation.damaged_at.len());
        rotation.damaged_at.extend(self.damaged_at.iter().take(room).cloned());
    }
}

/// One rotation at a time.
struct Running<'a>(&'a AtomicBool);

impl<'a> Running<'a> {
    fn begin(running: &'a AtomicBool) -> Option<Self> {
        let was_running = running.swap(true, Ordering::AcqRel);
        // Not `then_some`: a guard that is made and dropped would end the other's run.
        (!was_running).then(|| Self(running))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
