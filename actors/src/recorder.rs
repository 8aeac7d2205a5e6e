//! Commits what integrations and deliveries have settled, for all of them together: where each of thousands has one
//! event, they share commits, and being recorded costs none of them a turn. In: accounts that have something, through
//! the [`RecordDesk`]. Out: commits to the log; to the accounts, that a commit is durable. Owns: one timer. A crash
//! loses nothing: the queue is on the desk, and what is not recorded is delivered again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    domain::{
        ids::{IntegrationId, SubscriptionId},
        limits::COMMIT_WAIT_MS,
    },
    ports::{
        event_log::{EventLog, LogError},
        state_store::StateOp,
    },
    router::gate::Gate,
    tree::wires::{Slot, Wires},
};

/// Accounts in one commit, at most: what is written for senders at the same time waits for no more than these.
const ACCOUNTS_A_COMMIT: usize = 128;
/// A commit of so many operations takes no further account.
const OPS_A_COMMIT: usize = 4_096;
/// Between two such commits. Where more accounts have something than fit, each has more by the time its turn comes,
/// for the same price.
const PAUSE: Duration = Duration::from_millis(25);
/// Commits under way, at most: those behind them wait at the desk, where they grow.
const UNDER_WAY_MAX: usize = 16;

/// What somebody has settled that is not yet recorded. Shared by its owner, who adds, and the recorder, who takes.
pub(crate) trait Account: Send + Sync {
    /// Where it stands at the desk.
    fn standing(&self) -> &Standing;

    /// All that was settled since the last time, as one change of the state; empty where there is nothing.
    fn take(&self) -> Vec<StateOp>;

    /// The commit with what was taken first, of all that was taken and not yet heard of, came back.
    fn recorded(&self, result: &Result<(), LogError>);

    /// Its owner is gone: nothing of it is taken any more.
    fn close(&self);
}

/// Whether an account waits at the desk. It stands in each of the two lines once at most.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    waits: Gate,
    hurries: Gate,
}

impl Standing {
    /// It stands in that line no more. To be said before it is taken: what is added from here on asks again.
    fn leave(&self, hurried: bool) {
        if hurried { self.hurries.open() } else { self.waits.open() }
    }
}

/// Whose account it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Integration(IntegrationId),
    Subscription(SubscriptionId),
}

/// Where accounts wait to be recorded. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct RecordDesk(Arc<Desk>);

#[derive(Default)]
struct Desk {
    lines: Mutex<Lines>,
    /// Held from taking what is to be committed until it is in the log's queue: commits of one account keep their order.
    /// Has the accounts that are open.
    open: Mutex<BTreeMap<Owner, Weak<dyn Account>>>,
    under_way: AtomicUsize,
    gate: Gate,
    actor: Slot<RecorderMsg>,
}

type Waiting = (Instant, Arc<dyn Account>);

#[derive(Default)]
struct Lines {
    waiting: VecDeque<Waiting>,
    /// They wait no longer than they must, however many others there are.
    hurried: VecDeque<Waiting>,
}

impl RecordDesk {
    /// From now on this is the owner's account. Nothing of an earlier one is committed after this returns.
    pub(crate) fn open(&self, owner: Owner, account: &Arc<impl Account + 'static>) {
        let account: Arc<dyn Account> = account.clone();
        let before = lock(&self.0.open).insert(owner, Arc::downgrade(&account));
        if let Some(before) = before.and_then(|before| before.upgrade()) {
            before.close();
        }
    }

    /// The owner is gone for good. What it had settled is recorded, and nothing after that.
    pub(crate) fn forget(&self, log: &dyn EventLog, owner: Owner) {
        let before = lock(&self.0.open).remove(&owner).and_then(|before| before.upgrade());
        if let Some(before) = before {
            self.commit(log, [before.clone()]);
            before.close();
        }
    }

    /// Records what the account has after a moment, together with others; one that hurries, as soon as that moment is
    /// over. To be called whenever it has something: it takes one place only.
    pub(crate) fn later(&self, account: &Arc<impl Account + 'static>, hurries: bool) {
        let standing = account.standing();
        let gate = if hurries { &standing.hurries } else { &standing.waits };
        if !gate.enter() {
            return;
        }
        let mut lines = lock(&self.0.lines);
        let line = if hurries { &mut lines.hurried } else { &mut lines.waiting };
        let first = line.is_empty();
        line.push_back((Instant::now(), account.clone()));
        drop(lines);
        if first {
            self.wake();
        }
    }

    /// Records what the account has now.
    pub(crate) fn now(&self, log: &dyn EventLog, account: &Arc<impl Account + 'static>) {
        self.commit(log, [account.clone() as Arc<dyn Account>]);
    }

    /// Records what all accounts have now.
    pub(crate) fn everything(&self, log: &dyn EventLog) {
        let lines = std::mem::take(&mut *lock(&self.0.lines));
        let lines = [(lines.hurried, true), (lines.waiting, false)];
        let waiting = lines.into_iter().flat_map(|(line, hurries)| line.into_iter().map(move |one| (one, hurries)));
        let all = waiting.map(|((_, account), hurries)| {
            account.standing().leave(hurries);
            account
        });
        self.commit(log, all);
    }

    /// Hands in what these have, as one commit where it is not too much. The accounts hear when it is durable.
    fn commit(&self, log: &dyn EventLog, accounts: impl IntoIterator<Item = Arc<dyn Account>>) {
        let _order = lock(&self.0.open);
        let mut ops = Vec::new();
        let mut taken = Vec::new();
        for account in accounts {
            let own = account.take();
            if own.is_empty() {
                continue;
            }
            ops.extend(own);
            taken.push(account);
            if ops.len() >= OPS_A_COMMIT {
                self.hand_in(log, std::mem::take(&mut ops), std::mem::take(&mut taken));
            }
        }
        if !taken.is_empty() {
            self.hand_in(log, ops, taken);
        }
    }

    fn hand_in(&self, log: &dyn EventLog, ops: Vec<StateOp>, accounts: Vec<Arc<dyn Account>>) {
        let committing = log.commit(ops);
        self.0.under_way.fetch_add(1, Relaxed);
        let desk = self.clone();
        tokio::spawn(async move {
            let result = match committing {
                Ok(committing) => committing.await,
                Err(error) => Err(error),
            };
            for account in accounts {
                account.recorded(&result);
            }
            if desk.0.under_way.fetch_sub(1, Relaxed) == UNDER_WAY_MAX {
                desk.wake();
            }
        });
    }

    /// Those whose moment is over, oldest first, those that hurry before all; as many as one commit takes.
    fn due(&self, now: Instant) -> Vec<Arc<dyn Account>> {
        let mut lines = lock(&self.0.lines);
        let Lines { waiting, hurried } = &mut *lines;
        let mut due = Vec::new();
        while due.len() < ACCOUNTS_A_COMMIT {
            let (line, hurries) = if is_due(hurried, now) {
                (&mut *hurried, true)
            } else if is_due(waiting, now) {
                (&mut *waiting, false)
            } else {
                break;
            };
            let Some((_, account)) = line.pop_front() else { break };
            account.standing().leave(hurries);
            due.push(account);
        }
        due
    }

    /// When the next moment is over.
    fn next(&self) -> Option<Instant> {
        let lines = lock(&self.0.lines);
        let firsts = [lines.hurried.front(), lines.waiting.front()];
        firsts.into_iter().flatten().map(|(since, _)| *since + MOMENT).min()
    }

    /// Whether the recorder is alive.
    pub(crate) fn is_alive(&self) -> bool {
        self.0.actor.is_alive()
    }

    fn wake(&self) {
        if self.0.gate.enter() {
            self.0.actor.hint(RecorderMsg::Wake);
        }
    }
}

const MOMENT: Duration = Duration::from_millis(COMMIT_WAIT_MS);

fn is_due(line: &VecDeque<Waiting>, now: Instant) -> bool {
    line.front().is_some_and(|(since, _)| *since + MOMENT <= now)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these is whole by itself: a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What may be said to the recorder.
pub(crate) enum RecorderMsg {
    /// Somebody waits, or has waited long enough.
    Wake,
}

pub(crate) struct RecorderActor;

pub(crate) struct RecorderState {
    log: Arc<dyn EventLog>,
    desk: RecordDesk,
    rests_until: Instant,
    timer: Option<JoinHandle<()>>,
}

impl Actor for RecorderActor {
    type Msg = RecorderMsg;
    type State = RecorderState;
    type Arguments = (Arc<dyn EventLog>, Arc<Wires>);

    async fn pre_start(
        &self,
        me: ActorRef<RecorderMsg>,
        (log, wires): Self::Arguments,
    ) -> Result<RecorderState, ActorProcessingErr> {
        let desk = wires.records.clone();
        desk.0.actor.set(me);
        // A wake that a predecessor did not take up is gone with its mailbox.
        desk.0.gate.open();
        let mut state = RecorderState { log, desk, rests_until: Instant::now(), timer: None };
        state.set_timer();
        Ok(state)
    }

    async fn handle(
        &self,
        _me: ActorRef<RecorderMsg>,
        RecorderMsg::Wake: RecorderMsg,
        state: &mut RecorderState,
    ) -> Result<(), ActorProcessingErr> {
        state.desk.0.gate.open();
        state.commit_some();
        state.set_timer();
        Ok(())
    }

    async fn post_stop(&self, _me: ActorRef<RecorderMsg>, state: &mut RecorderState) -> Result<(), ActorProcessingErr> {
        if let Some(timer) = state.timer.take() {
            timer.abort();
        }
        Ok(())
    }
}

impl RecorderState {
    fn is_full(&self) -> bool {
        self.desk.0.under_way.load(Relaxed) >= UNDER_WAY_MAX
    }

    fn commit_some(&mut self) {
        let now = Instant::now();
        if now < self.rests_until || self.is_full() {
            return;
        }
        let due = self.desk.due(now);
        if !due.is_empty() {
            self.desk.commit(&*self.log, due);
            self.rests_until = now + PAUSE;
        }
    }

    /// While too much is under way, the end of a commit wakes instead.
    fn set_timer(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let Some(next) = self.desk.next().filter(|_| !self.is_full()) else { return };
        let (desk, at) = (self.desk.clone(), next.max(self.rests_until));
        self.timer = Some(tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            desk.wake();
        }));
    }
}
