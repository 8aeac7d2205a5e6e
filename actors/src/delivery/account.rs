//! A subscription's ledger as its delivery and the recorder share it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
};

use super::{
    DeliveryMsg, Pending,
    beginning::{Attempted, Done},
    ledger::{Commit, Ledger},
    outcome::millis,
    post::DeliveryPost,
};
use crate::{
    domain::{
        delivery::Position,
        ids::{EventId, SubscriptionId},
    },
    metrics::{Counters, add, gauges::SubscriptionGauges},
    ports::{
        clock::Clock,
        event_log::LogError,
        state_store::{FirstTry, StateOp},
        transport::Verdict,
    },
    recorder::{Account, RecordDesk, Standing},
    retry::RetryDesk,
    tree::{mailbox::Way, wires::Wires},
};

/// The delivery writes down what happens, the recorder takes it. Only what the delivery waits for costs it a message.
pub(crate) struct DeliveryAccount {
    subscription: SubscriptionId,
    standing: Standing,
    owner: DeliveryPost,
    retry: RetryDesk,
    records: RecordDesk,
    gauges: Arc<SubscriptionGauges>,
    counters: Arc<Counters>,
    clock: Arc<dyn Clock>,
    book: Mutex<Book>,
}

struct Book {
    ledger: Ledger,
    /// Commits on their way, oldest first, without their operations. Boxed: where thousands of subscriptions have one
    /// now and then, the room kept for the next ones is what costs.
    taken: VecDeque<Box<Commit>>,
    /// The actor waits for something to be recorded.
    tell: bool,
    /// Attempts under way.
    in_flight: usize,
    /// The actor waits for the end of any of them.
    hear_of_ends: bool,
    closed: bool,
}

impl DeliveryAccount {
    pub(super) fn new(subscription: SubscriptionId, owner: DeliveryPost, wires: &Wires, clock: Arc<dyn Clock>) -> Self {
        let book = Book {
            ledger: Ledger::new(Position::default()),
            taken: VecDeque::new(),
            tell: false,
            in_flight: 0,
            hear_of_ends: false,
            closed: false,
        };
        Self {
            subscription,
            standing: Standing::default(),
            owner,
            retry: wires.retry.clone(),
            records: wires.records.clone(),
            gauges: wires.gauges.of(subscription),
            counters: wires.counters.clone(),
            clock,
            book: Mutex::new(book),
        }
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
        self.book().need()
    }

    /// Asks the recorder to come. What must be recorded now is the actor's to hand in.
    pub(super) fn ask(self: &Arc<Self>, need: Need) {
        match need {
            Need::Nothing | Need::Now => {}
            Need::Later => self.records.later(self, false),
            Need::Soon => self.records.later(self, true),
        }
    }

    /// Attempts under way.
    pub(super) fn in_flight(&self) -> usize {
        self.book().in_flight
    }

    /// One more attempt is under way.
    pub(super) fn began(&self) {
        self.book().in_flight += 1;
    }

    /// One less, as the actor learned.
    pub(super) fn ended(&self) {
        self.book().in_flight -= 1;
    }

    /// Whether the actor waits for the end of any attempt. It is told once.
    pub(super) fn hear_of_ends(&self, hear: bool) {
        self.book().hear_of_ends = hear;
    }

    /// An attempt ended. Of most nothing follows but that it is to be recorded: that is done here, and costs the actor
    /// a turn only where it waits for it.
    pub(super) fn attempted(self: &Arc<Self>, done: Done) {
        let status =
            match &done {
                Done {
                    pending: Pending { record: None, lane: None, .. }, attempted: Attempted::Made(report), ..
                } if report.verdict == Verdict::Delivered => report.status,
                _ => return self.owner.cast(DeliveryMsg::Done(Box::new(done))),
            };
        let Done { pending: Pending { event, held, .. }, at_ms, took, .. } = done;
        let first_try = FirstTry { at_ms, duration_ms: millis(took), status };
        add(&self.counters.delivered, 1);
        let mut book = self.book();
        book.ledger.delivered(event.id, first_try);
        book.in_flight -= 1;
        let held_bytes = held.let_go();
        // Of a crashed actor, whose gauges are its successor's by now.
        if !book.closed {
            self.gauges.held_bytes.store(held_bytes, Relaxed);
            book.show(&self.gauges);
        }
        let need = book.need();
        let tell = std::mem::take(&mut book.hear_of_ends) || need == Need::Now;
        drop(book);
        if tell {
            self.owner.cast(DeliveryMsg::Ended);
        } else {
            self.ask(need);
        }
    }

    /// For whoever looks on.
    pub(super) fn show(&self, rests: bool, held_bytes: usize) {
        let book = self.book();
        self.gauges.held_bytes.store(held_bytes, Relaxed);
        self.gauges.credit.store(if rests { book.ledger.room() } else { 0 }, Relaxed);
        book.show(&self.gauges);
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
        add(&self.counters.delivered, 1);
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

impl Book {
    fn need(&self) -> Need {
        if self.ledger.commit_due() {
            Need::Now
        } else if !self.ledger.dirty() {
            Need::Nothing
        } else if self.ledger.hurries() {
            Need::Soon
        } else {
            Need::Later
        }
    }

    fn show(&self, gauges: &SubscriptionGauges) {
        gauges.in_flight.store(self.in_flight, Relaxed);
        gauges.open.store(self.ledger.open(), Relaxed);
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
        book.taken.push_back(Box::new(commit));
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
