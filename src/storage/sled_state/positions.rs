//! Positions and successes that were applied and stand in memory until many are written at once.
//!
//! A position replaces the one before it, and successes at the first try join into runs. With thousands of integrations
//! every commit brings some of most, and to write each into the tree costs as much as what was delivered. So the tree's
//! are behind: up to where they were written stands under a key of its own, and a start applies those of later commits
//! again from the log.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hookmill_actors::{
    domain::{
        delivery::Position,
        ids::{EventId, IntegrationId, SubscriptionId},
        limits::RUN_IDS_MAX,
    },
    ports::{event_log::LogError, state_store::StateOp},
};

use super::{Shared, Walk};
use crate::storage::{
    LogPlace,
    changes::{Changes, successes},
    keys,
    runs::Success,
    values,
};

/// How long they stand in memory.
const BEHIND_MAX: Duration = Duration::from_secs(10);
/// How many are replaced at most before they are written: a start after a crash applies as many again.
const TAKEN_MAX: u64 = 1_000_000;
/// How many successes stand in memory, a few MiB; where there are more they are written as they come.
const SUCCESSES_MAX: usize = 1 << 16;
/// Of how many owners they are written while commits wait: about a millisecond.
const STEP: usize = 64;

/// Those that stand in memory.
pub(super) struct Positions(Mutex<Latest>);

struct Latest {
    intakes: BTreeMap<IntegrationId, EventId>,
    subscriptions: BTreeMap<SubscriptionId, Standing>,
    /// How many successes there are.
    held: usize,
    taken: u64,
    written: Instant,
}

/// What stands of a subscription.
#[derive(Default)]
struct Standing {
    position: Option<Position>,
    successes: Vec<Success>,
}

/// Whose a position is.
#[derive(Clone, Copy)]
enum Owner {
    Intake(IntegrationId),
    Subscription(SubscriptionId),
}

impl Default for Positions {
    fn default() -> Self {
        Self(Mutex::new(Latest {
            intakes: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            held: 0,
            taken: 0,
            written: Instant::now(),
        }))
    }
}

impl Positions {
    fn lock(&self) -> MutexGuard<'_, Latest> {
        // Each change of it is whole by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the successes of a commit, before its positions: whoever sees a position finds what it stands for.
    /// Returns the operations that are to be written now; of a subscription with many successes they are among them, as
    /// they make runs by themselves.
    pub(super) fn hold<'o>(&self, ops: &'o [StateOp]) -> Vec<&'o StateOp> {
        let Latest { subscriptions, held, .. } = &mut *self.lock();
        let must_be_written = |op: &&StateOp| {
            let StateOp::Delivered { subscription, events, .. } = op else { return true };
            let own = subscriptions.get(subscription).map_or(0, |standing| standing.successes.len());
            if own + events.len() > RUN_IDS_MAX || *held + events.len() > SUCCESSES_MAX {
                return true;
            }
            *held += events.len();
            subscriptions.entry(*subscription).or_default().successes.extend(successes(op));
            false
        };
        ops.iter().filter(must_be_written).collect()
    }

    /// What is known in memory of a delivery.
    pub(super) fn success(&self, subscription: SubscriptionId, event: EventId) -> Option<Success> {
        self.lock().subscriptions.get(&subscription)?.successes.iter().find(|success| success.event == event).copied()
    }

    /// Takes over the positions of a commit.
    pub(super) fn take(&self, ops: &[StateOp]) {
        let latest = &mut *self.lock();
        for op in ops {
            match op {
                StateOp::Intake { integration, upto, .. } => drop(latest.intakes.insert(*integration, *upto)),
                StateOp::Position { subscription, position } => {
                    latest.subscriptions.entry(*subscription).or_default().position = Some(position.clone());
                }
                _ => continue,
            }
            latest.taken += 1;
        }
    }

    pub(super) fn intake(&self, integration: IntegrationId) -> Option<EventId> {
        self.lock().intakes.get(&integration).copied()
    }

    pub(super) fn subscription(&self, subscription: SubscriptionId) -> Option<Position> {
        self.lock().subscriptions.get(&subscription)?.position.clone()
    }

    /// Whether it is time to write them.
    pub(super) fn ripe(&self) -> bool {
        let latest = self.lock();
        let many = latest.taken >= TAKEN_MAX || latest.held >= SUCCESSES_MAX / 2;
        many || latest.written.elapsed() >= BEHIND_MAX
    }

    /// Whether any stand in memory.
    pub(super) fn any(&self) -> bool {
        let latest = self.lock();
        !(latest.intakes.is_empty() && latest.subscriptions.is_empty())
    }

    fn owners(&self) -> Vec<Owner> {
        let latest = self.lock();
        let intakes = latest.intakes.keys().map(|id| Owner::Intake(*id));
        intakes.chain(latest.subscriptions.keys().map(|id| Owner::Subscription(*id))).collect()
    }

    fn put(&self, changes: &mut Changes<'_>, owners: &[Owner]) -> Result<(), LogError> {
        for owner in owners {
            match owner {
                Owner::Intake(id) => {
                    if let Some(upto) = self.intake(*id) {
                        changes.put(&keys::intake(*id), upto.to_bytes().to_vec());
                    }
                }
                Owner::Subscription(id) => {
                    let parts = self.subscription(*id).as_ref().map(values::encode_position).unwrap_or_default();
                    for (part, value) in (0..).zip(parts) {
                        changes.put(&keys::position(*id, part), value);
                    }
                    // Not under the lock: what runs there are is read from the tree.
                    let successes = self.lock().subscriptions.get(id).map(|standing| standing.successes.clone());
                    changes.add_run(*id, successes.unwrap_or_default())?;
                }
            }
        }
        Ok(())
    }

    fn forget(&self, owners: &[Owner]) {
        let latest = &mut *self.lock();
        for owner in owners {
            match owner {
                Owner::Intake(id) => drop(latest.intakes.remove(id)),
                Owner::Subscription(id) => {
                    latest.held -= latest.subscriptions.remove(id).map_or(0, |standing| standing.successes.len());
                }
            }
        }
    }
}

impl Shared {
    /// In a tree of the format before they were never behind.
    pub(super) fn begin_positions(&self) -> Result<(), LogError> {
        match self.place(&keys::POSITIONS)? {
            Some(_) => Ok(()),
            None => self.write_positions(),
        }
    }

    /// Writes all that stand in memory. Commits go on between steps.
    pub(super) fn write_positions(&self) -> Result<(), LogError> {
        let upto = {
            // Between two commits, as what is in the tree has its positions in memory then.
            let _writing = self.writing();
            let latest = &mut *self.positions.lock();
            (latest.taken, latest.written) = (0, Instant::now());
            self.applied()?
        };
        for step in self.positions.owners().chunks(STEP) {
            self.write_step(&mut self.writing(), step)?;
        }
        self.positions_written(&mut self.writing(), upto)
    }

    /// Writes all that stand in memory while no commit does. Few should be left.
    pub(super) fn write_positions_within(&self, writing: &mut Option<Walk>) -> Result<(), LogError> {
        self.write_step(writing, &self.positions.owners())?;
        self.positions_written(writing, self.applied()?)
    }

    /// Writes these as they stand now, from memory into the tree within one turn: no commit replaces them in between, and
    /// nobody else who writes has an older one in hand.
    fn write_step(&self, writing: &mut Option<Walk>, owners: &[Owner]) -> Result<(), LogError> {
        self.change_within(writing, |changes| self.positions.put(changes, owners))?;
        self.positions.forget(owners);
        Ok(())
    }

    fn positions_written(&self, writing: &mut Option<Walk>, upto: LogPlace) -> Result<(), LogError> {
        // Somebody else who began later was done before: the log may be trimmed up to there.
        if self.place(&keys::POSITIONS)?.is_some_and(|written| written >= upto) {
            return Ok(());
        }
        self.change_within(writing, |changes| {
            changes.put(&keys::POSITIONS, values::pack(&upto));
            Ok(())
        })
    }
}
