//! The whole state as it was after one commit, while commits go on.
//!
//! The tree is walked in the order of its keys, a step at a time. A commit that changes what the walk has not come to
//! first hands over what stood there; so each step shows the tree as it was at the beginning.

use std::{collections::BTreeMap, sync::Arc};

use hookmill_actors::ports::event_log::LogError;

use super::{Shared, SledState};
use crate::storage::{LogPlace, export::Encoder};

/// Keys that are walked over while commits wait: about a millisecond.
const STEP_KEYS: usize = 1_000;
/// What may change ahead of the walk, bytes: it is held in memory.
const AHEAD_BYTES_MAX: usize = 256 << 20;

/// A walk under way.
pub(super) struct Walk {
    /// Keys before this one were shown.
    next: Vec<u8>,
    /// What changed ahead: as it was at the beginning.
    before: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
    lost: bool,
}

impl Walk {
    /// Keeps what a commit is about to change.
    pub(super) fn keep<'k, V: AsRef<[u8]>>(
        &mut self,
        keys: impl Iterator<Item = &'k [u8]>,
        stands: impl Fn(&[u8]) -> Result<Option<V>, LogError>,
    ) -> Result<(), LogError> {
        if self.lost {
            return Ok(());
        }
        for key in keys.filter(|key| *key >= &self.next[..]) {
            if !self.before.contains_key(key) {
                let value = stands(key)?.map(|value| value.as_ref().to_vec());
                self.bytes += key.len() + value.as_ref().map_or(0, Vec::len) + 64;
                self.before.insert(key.to_vec(), value);
            }
        }
        if self.bytes > AHEAD_BYTES_MAX {
            (self.lost, self.before) = (true, BTreeMap::new());
        }
        Ok(())
    }
}

/// The state after one commit, as a stream; see [`crate::storage::export`].
pub struct StateExport {
    shared: Arc<Shared>,
    encoder: Encoder,
    applied: LogPlace,
    ended: bool,
}

impl SledState {
    /// Begins an export. One at a time.
    pub fn export(&self) -> Result<StateExport, LogError> {
        let shared = self.0.clone();
        // Where the log was not opened after a crash, what it has to apply again is not in memory: its place stays.
        if shared.positions.any() {
            shared.write_positions()?;
        }
        let mut walking = shared.writing();
        if walking.is_some() {
            return Err(LogError::Failed("another export of the state is under way".into()));
        }
        if shared.positions.any() {
            shared.write_positions_within(&mut walking)?;
        }
        let applied = shared.applied()?;
        *walking = Some(Walk { next: Vec::new(), before: BTreeMap::new(), bytes: 0, lost: false });
        drop(walking);
        let mut encoder = Encoder::new();
        encoder.tree(shared.tree.name().as_ref());
        Ok(StateExport { shared, encoder, applied, ended: false })
    }
}

impl StateExport {
    /// The end of the commit whose state this is.
    pub fn applied(&self) -> LogPlace {
        self.applied
    }

    /// The next bytes; `None` at the end. Blocks for the disk.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        while !self.ended && !self.encoder.is_full() {
            self.step()?;
        }
        let chunk = self.encoder.take();
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    fn step(&mut self) -> Result<(), LogError> {
        let shared = &*self.shared;
        let mut walking = shared.writing();
        let walk = walking.as_mut().ok_or(LogError::Closed)?;
        if walk.lost {
            let problem = "too much of the state changed during the export; try again when there is less traffic";
            return Err(LogError::Failed(problem.into()));
        }
        let mut shown: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for item in shared.tree.range(&walk.next[..]..).take(STEP_KEYS) {
            let (key, value) = shared.db.guard(item)?;
            shown.insert(key.to_vec(), value.to_vec());
        }
        let last = shown.last_key_value().filter(|_| shown.len() == STEP_KEYS).map(|(key, _)| key.clone());
        // What stood there before takes the place of what stands there now.
        let (passed, ahead) = match &last {
            Some(last) => {
                walk.next = [&last[..], &[0]].concat();
                let ahead = walk.before.split_off(&walk.next);
                (std::mem::replace(&mut walk.before, ahead), false)
            }
            None => (std::mem::take(&mut walk.before), true),
        };
        if ahead {
            *walking = None;
            self.ended = true;
        }
        drop(walking);
        for (key, value) in passed {
            match value {
                Some(value) => drop(shown.insert(key, value)),
                None => drop(shown.remove(&key)),
            }
        }
        for (key, value) in shown {
            self.encoder.record(&key, &value);
        }
        if self.ended {
            self.encoder.end();
        }
        Ok(())
    }
}

impl Drop for StateExport {
    fn drop(&mut self) {
        if !self.ended {
            *self.shared.writing() = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use hookmill_actors::{
        domain::{
            delivery::{DeadLetter, DeadReason, Position},
            ids::{EventId, IntegrationId, SubscriptionId},
        },
        ports::state_store::StateOp,
    };

    use super::*;
    use crate::storage::{
        Applied, StateView,
        export::import,
        sled_db::{CACHE_BYTES, StateDb},
    };

    fn open(root: &tempfile::TempDir, name: &str) -> (StateDb, SledState) {
        let db = StateDb::open(&root.path().join(name), CACHE_BYTES).unwrap();
        (db.clone(), SledState::open(db).unwrap())
    }

    fn event(n: u128) -> EventId {
        EventId::from_parts(n << 26, IntegrationId(1), 0)
    }

    fn dead(n: u128) -> StateOp {
        StateOp::Dead(DeadLetter {
            event: event(n),
            subscription: SubscriptionId(1),
            reason: DeadReason::AttemptsExhausted,
            error: format!("letter {n}"),
            at_ms: 1,
            attempts: 1,
        })
    }

    fn position(n: u128) -> StateOp {
        let position = Position { read_upto: event(n), open: vec![event(n)] };
        StateOp::Position { subscription: SubscriptionId(u32::try_from(n % 97).unwrap()), position }
    }

    fn all(state: &SledState) -> Vec<(Vec<u8>, Vec<u8>)> {
        state.0.tree.iter().map(|item| item.unwrap()).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    fn place(offset: u64) -> LogPlace {
        LogPlace { segment: 1, offset }
    }

    #[test]
    fn what_is_exported_is_the_state_of_one_commit_whatever_is_committed_meanwhile() {
        let root = tempfile::tempdir().unwrap();
        let (_db, state) = open(&root, "a");
        for n in 0..40 {
            let ops: Vec<StateOp> = (0..100).map(|m| dead(n * 100 + m)).collect();
            state.apply(&ops, place(u64::try_from(n).unwrap() + 1)).unwrap();
        }
        state.apply(&[position(3)], place(41)).unwrap();
        let mut export = state.export().unwrap();
        let then = all(&state);
        assert!(state.0.positions.subscription(SubscriptionId(3)).is_none(), "an export has all positions");
        assert_eq!(export.applied(), place(41));
        assert!(matches!(state.export(), Err(LogError::Failed(_))), "one at a time");
        let (mut stream, mut n) = (Vec::new(), 4_000u128);
        while let Some(chunk) = export.next_chunk().unwrap() {
            stream.extend(chunk);
            // New keys, other values, keys before and behind the walk.
            for _ in 0..20 {
                n += 1;
                state.apply(&[dead(n), position(n), dead(n % 4_000)], place(u64::try_from(n).unwrap())).unwrap();
            }
            let settled = hookmill_actors::domain::delivery::DeliveryRecord::new(1);
            let gone = event((n * 7) % 4_000);
            let op = StateOp::Delivery { subscription: SubscriptionId(1), event: gone, record: settled };
            n += 1;
            state.apply(&[op], place(u64::try_from(n).unwrap())).unwrap();
            state.0.write_positions().unwrap();
        }
        assert_ne!(all(&state), then);
        let (db, copy) = open(&root, "b");
        drop(copy);
        assert_eq!(import(&db, &mut &stream[..]).unwrap(), then.len() as u64);
        let copy = SledState::open(db).unwrap();
        assert_eq!(all(&copy), then);
        assert_eq!(copy.applied().unwrap(), Applied::whole(place(41)));
        drop(export);
        assert!(state.export().is_ok());
    }

    #[test]
    fn an_export_that_is_given_up_makes_room_for_another() {
        let root = tempfile::tempdir().unwrap();
        let (_db, state) = open(&root, "a");
        drop(state.export().unwrap());
        let mut export = state.export().unwrap();
        while export.next_chunk().unwrap().is_some() {}
    }
}
