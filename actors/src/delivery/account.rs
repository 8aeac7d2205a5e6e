//! A subscription's ledger as its delivery actor and the recorder share it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    DeliveryMsg,
    ledger::{Commit, Ledger},
};
use crate::{
    domain::{
        delivery::Position,
        ids::{EventId, SubscriptionId},
    },
    ports::{
        clock::Clock,
        event_log::LogError,
        state_store::{FirstTry, StateOp},
    },
    recorder::{Account, Standing},
    retry::RetryDesk,
    tree::mailbox::Post,
};

/// The actor writes down what happens, the recorder takes it. Only what the actor waits for costs it a message.
pub(crate) struct DeliveryAccount {
    subscription: SubscriptionId,
    standing: Standing,
    owner: Post<DeliveryMsg>,
    retry: RetryDesk,
    clock: Arc<dyn Clock>,
    book: Mutex<Book>,
}

struct Book {
    ledger: Ledger,
    /// Commits on their way, oldest first, without their operations.
    taken: VecDeque<Commit>,
    /// The actor waits for something to be recorded.
    tell: bool,
    closed: bool,
}

impl DeliveryAccount {
    pub(super) fn new(
        subscription: SubscriptionId,
        owner: Post<DeliveryMsg>,
        retry: RetryDesk,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let book =
            Book { ledger: Ledger::new(Position::default()), taken: VecDeque::new(), tell: false, closed: false };
        Self { subscription, standing: Standing::default(), owner, retry, clock, book: Mutex::new(book) }
    }

    /// Goes on from a recorded position.
    pub(super) fn begin(&self, position: Position) {
        self.book().ledger = Ledger::new(position);
    }

    /// See [`Ledger::read_upto`].
    pub(super) fn read_upto(&self) -> EventId {
        self.book().ledger.read_upto()
    }

    /// See [`Ledger::open`].
    pub(super) fn open(&self) -> usize {
        self.book().ledger.open()
    }

    /// See [`Ledger::room`]. While too much is unrecorded, the actor hears of the next commit.
    pub(super) fn room(&self) -> usize {
        let mut book = self.book();
        book.tell |= !book.ledger.may_settle();
        book.ledger.room()
    }

    /// See [`Ledger::may_settle`]. While not, the actor hears of the next commit.
    pub(super) fn may_settle(&self) -> bool {
        let mut book = self.book();
        let may = book.ledger.may_settle();
        book.tell |= !may;
        may
    }

    /// See [`Ledger::clean`]. While not, the actor hears of the next commit.
    pub(super) fn clean(&self) -> bool {
        let mut book = self.book();
        let clean = book.ledger.clean();
        book.tell |= !clean;
        clean
    }

    /// Whether there is anything to record, and whether at once, soon, or with all others.
    pub(super) fn need(&self) -> Need {
        let book = self.book();
        if book.ledger.commit_due() {
            Need::Now
        } else if !book.ledger.dirty() {
            Need::Nothing
        } else if book.ledger.hurries() {
            Need::Soon
        } else {
            Need::Later
        }
    }

    /// See [`Ledger::read`].
    pub(super) fn read(&self, event: EventId) {
        self.book().ledger.read(event);
    }

    /// See [`Ledger::skip_to`].
    pub(super) fn skip_to(&self, event: EventId) {
        self.book().ledger.skip_to(event);
    }

    /// See [`Ledger::delivered`].
    pub(super) fn delivered(&self, event: EventId, attempt: FirstTry) {
        self.book().ledger.delivered(event, attempt);
    }

    /// See [`Ledger::settled`].
    pub(super) fn settled(&self, event: EventId, ops: impl IntoIterator<Item = StateOp>) {
        self.book().ledger.settled(event, ops);
    }

    /// See [`Ledger::noted`].
    pub(super) fn noted(&self, op: StateOp) {
        self.book().ledger.noted(op);
    }

    /// See [`Ledger::retried`].
    pub(super) fn retried(&self, event: EventId) {
        self.book().ledger.retried(event);
    }

    /// See [`Ledger::next_due`].
    pub(super) fn next_due(&self, due_ms: u64) {
        self.book().ledger.next_due(due_ms);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // The ledger panics only where it is at fault already; what it holds then is delivered again.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a ledger asks of the recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    Later,
    Soon,
    Now,
}

impl Account for DeliveryAccount {
    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn take(&self) -> Vec<StateOp> {
        let mut book = self.book();
        if book.closed || !book.ledger.dirty() {
            return Vec::new();
        }
        let mut commit = book.ledger.take_commit(self.subscription, self.clock.now_ms());
        let ops = std::mem::take(&mut commit.ops);
        book.taken.push_back(commit);
        ops
    }

    fn recorded(&self, result: &Result<(), LogError>) {
        let mut book = self.book();
        let Some(commit) = book.taken.pop_front() else { return };
        if let Err(error) = result {
            drop(book);
            return self.owner.cast(DeliveryMsg::NotRecorded(error.clone()));
        }
        book.ledger.recorded(commit.outcomes);
        let tell = std::mem::take(&mut book.tell);
        drop(book);
        // First: what is due at once must not be held for one that is still being made.
        if tell || !commit.retried.is_empty() {
            self.owner.cast(DeliveryMsg::Recorded { retried: commit.retried });
        }
        if let Some(due_ms) = commit.next_due_ms {
            self.retry.schedule(self.subscription, due_ms);
        }
    }

    fn close(&self) {
        self.book().closed = true;
    }
}
