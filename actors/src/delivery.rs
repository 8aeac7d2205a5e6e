//! Delivers an integration's events to one destination, in turns of the integration's actor. In: events and plans from
//! the integration, `Due` from the retry actor, `Room` from others that share the destination. Out: attempts in bounded
//! tasks, outcomes to the log, due times to the retry actor. Owns: the subscription's position, its window and its
//! order. A crash loses nothing: what was in flight or not yet recorded is delivered again.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::oneshot, task::JoinHandle, time::Instant};

use crate::{
    delivery::{
        account::{DeliveryAccount, Need},
        beginning::Done,
        due::DueItem,
        holding::{Held, Holding},
        lanes::Lanes,
        post::{DeliveryPost, Incarnation},
        reading::Prepared,
    },
    domain::{
        delivery::DeliveryRecord,
        event::Event,
        ids::{EventId, SubscriptionId},
        limits::SUSPECT_CRASHES,
        order::{OnFailure, Order},
    },
    flow::{Gate, SharedPace, Wait},
    integration::marks::RecentMarks,
    metrics::{
        add,
        gauges::{SubscriptionGauges, WaitingFor},
    },
    ports::event_log::LogError,
    snapshot::Plan,
    tree::{Ports, wires::Wires},
};

mod account;
mod beginning;
mod due;
pub(crate) mod holding;
mod lanes;
mod ledger;
mod opening;
mod outcome;
pub(crate) mod post;
mod prepare;
mod reading;
pub(crate) mod unavailable;

/// What may be said to a delivery.
pub(crate) enum DeliveryMsg {
    /// See whether anything was overlooked.
    Wake,
    /// Events were read and looked at, up to `upto` where there were none.
    Prepared { upto: EventId, result: Result<Vec<Prepared>, LogError> },
    /// An attempt ended, and something follows from how.
    Done(Box<Done>),
    /// Attempts have ended from which nothing else follows; it is waited for.
    Ended,
    /// A commit is durable that somebody waits for; these are due no more, or at another time.
    Recorded { retried: Vec<EventId> },
    /// A commit failed.
    NotRecorded(LogError),
    /// The retry actor: something is due.
    Due,
    /// Due deliveries were loaded; `more` when there may be others due now.
    DueLoaded { items: Result<Vec<DueItem>, LogError>, reserved: usize, more: bool },
    /// A parked delivery's event was read again.
    Unparked { lane: u64, event: EventId, payload: Result<Option<Arc<Event>>, LogError> },
    /// An operator took this event out of the dead letter: what it held back goes on.
    Released { event: EventId },
    /// The destination may take more.
    Room,
    /// The timer: what was refused for now may be allowed.
    Alarm,
    /// The timer after a failed read: try again.
    ReadAgain,
    /// What is unfinished before this event has outlived its retention.
    Expire { before: EventId },
}

/// A delivery in memory that is not under way.
#[derive(Debug)]
struct Pending {
    event: Arc<Event>,
    lane: Option<u64>,
    /// What is known of it; `None` before its first attempt. Boxed: of most there is none.
    record: Option<Box<DeliveryRecord>>,
    /// It stands in the due queue until its outcome is recorded.
    due: bool,
    /// It counts as held in memory, wherever it goes.
    held: Held,
}

impl Pending {
    /// It was unsettled at several crashes: it may be the cause.
    fn suspect(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.crashes >= SUSPECT_CRASHES)
    }

    /// How many suspects may be under way with it, itself included.
    fn suspects_together(&self) -> usize {
        match self.record.as_ref().map_or(0, |record| record.crashes) {
            ..=SUSPECT_CRASHES => 16,
            crashes if crashes == SUSPECT_CRASHES + 1 => 4,
            _ => 1,
        }
    }
}

const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct DeliveryArgs {
    pub(crate) me: DeliveryPost,
    pub(crate) plan: Arc<Plan>,
    /// How far the integration has taken events in.
    pub(crate) intake: EventId,
    pub(crate) marks: RecentMarks,
    pub(crate) ports: Arc<Ports>,
    pub(crate) wires: Arc<Wires>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is one fact of the actor, and they combine freely")]
pub(crate) struct Delivery {
    id: SubscriptionId,
    plan: Arc<Plan>,
    me: DeliveryPost,
    gauges: Arc<SubscriptionGauges>,
    ports: Arc<Ports>,
    wires: Arc<Wires>,
    marks: RecentMarks,
    gate: Arc<Gate>,
    pace: Option<SharedPace>,
    /// It waits in the destination's line.
    in_line: bool,
    /// Why the last attempt that was to begin did not; `None` when one has begun since.
    waits: Option<Wait>,
    alarm: Option<(Instant, JoinHandle<()>)>,
    ledger: Arc<DeliveryAccount>,
    lanes: Lanes<Pending>,
    unparking: VecDeque<(u64, EventId)>,
    intake: EventId,
    expire_before: EventId,
    holding: Holding,
    /// One that may take hookmill down is under way: nothing else is.
    alone: bool,
    suspects: usize,
    reading: bool,
    /// It has read all that was taken in, and is handed what comes next.
    rests: bool,
    started: Instant,
    due_waiting: bool,
    due_reserved: usize,
    due_in_flight: usize,
    due_ready: VecDeque<Pending>,
    retrying: HashSet<EventId>,
    failed: bool,
    draining: bool,
    drained: Vec<oneshot::Sender<()>>,
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some((_, timer)) = self.alarm.take() {
            timer.abort();
        }
        // What ends from now on is for the recorder, not for whoever is gone.
        self.ledger.hear_of_ends(false);
        self.ledger.ask(Need::Later);
    }
}

impl Delivery {
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.me.to()
    }

    /// Takes up a message.
    pub(crate) fn handle(&mut self, msg: DeliveryMsg) {
        self.me.handled();
        match msg {
            DeliveryMsg::Prepared { upto, result } => self.take_prepared(upto, result),
            DeliveryMsg::Done(done) => self.done(*done),
            DeliveryMsg::Recorded { retried } => self.recorded(&retried),
            DeliveryMsg::NotRecorded(error) => self.log_failed(&error),
            DeliveryMsg::Due => self.due_waiting = true,
            DeliveryMsg::DueLoaded { items, reserved, more } => self.take_due(items, reserved, more),
            DeliveryMsg::Unparked { lane, event, payload } => self.take_unparked(lane, event, payload),
            DeliveryMsg::Released { event } => self.released(event),
            DeliveryMsg::Wake | DeliveryMsg::Ended | DeliveryMsg::Room => {}
            DeliveryMsg::Alarm => self.alarm = None,
            DeliveryMsg::ReadAgain => self.reading = false,
            DeliveryMsg::Expire { before } => self.expire(before),
        }
        self.pump();
    }

    /// Does whatever can be done now: begin attempts, load what is due, read on, commit, rest.
    pub(crate) fn pump(&mut self) {
        // Until it is known whether anything waits for them: what ends meanwhile is not overlooked.
        self.ledger.hear_of_ends(true);
        self.begin_all();
        self.read_on();
        match self.ledger.need() {
            Need::Now => self.commit(),
            need => self.ledger.ask(need),
        }
        if self.ledger.in_flight() == 0 && self.due_reserved == 0 && !self.drained.is_empty() {
            if self.failed || self.ledger.clean() {
                self.tell_drained();
            } else {
                self.commit();
            }
        }
        if !self.waits_for_ends() {
            self.ledger.hear_of_ends(false);
        }
        self.show();
    }

    /// Whether the end of any attempt may let something else begin.
    fn waits_for_ends(&self) -> bool {
        let occupied = self.rests || self.reading;
        let queued = self.lanes.ready() > 0 || !self.due_ready.is_empty() || !self.unparking.is_empty();
        !occupied || queued || self.due_waiting || self.draining
    }

    /// For whoever looks on.
    fn show(&self) {
        let gauges = &self.gauges;
        gauges.window.store(self.window(), Relaxed);
        gauges.queued.store(self.lanes.ready() + self.due_ready.len(), Relaxed);
        gauges.parked.store(self.lanes.parked(), Relaxed);
        self.ledger.show(self.rests, self.holding.bytes());
        let behind = self.ledger.open() > 0 || self.is_behind() || !self.due_ready.is_empty();
        gauges.waits_for(match self.waits {
            Some(wait) => wait.into(),
            None if behind && !self.runnable() => WaitingFor::Activation,
            None => WaitingFor::Nothing,
        });
    }

    fn runnable(&self) -> bool {
        let plan = &self.plan;
        let usable = plan.transport.is_ok() && plan.selector.is_ok() && plan.transformer.is_ok();
        plan.running && usable && !self.draining && !self.failed
    }

    /// Whether the integration has taken in more than was read.
    fn is_behind(&self) -> bool {
        self.ledger.read_upto() < self.intake
    }

    fn window(&self) -> usize {
        usize::from(self.plan.subscription.in_flight_max).max(1)
    }

    /// What a failed event means for those behind it. Lanes that an earlier order left behind are emptied as if the
    /// order were still kept.
    fn on_failure(&self) -> OnFailure {
        self.plan.subscription.order.on_failure().unwrap_or(OnFailure::Park)
    }

    /// One order for all needs no parking: at a failed event the position itself waits.
    fn may_park(&self) -> bool {
        !matches!(self.plan.subscription.order, Order::Fifo { .. })
    }

    /// The configuration of the subscription changed.
    pub(crate) fn replan(&mut self, plan: Arc<Plan>) {
        let now = Instant::now();
        self.leave_line();
        self.gate = self.wires.gates.of(&plan.destination, now);
        self.pace = self.wires.paces.of(self.id, plan.subscription.rate, now);
        let blocked = self.on_failure() == OnFailure::Block;
        self.plan = plan;
        self.due_waiting = true;
        if blocked && self.on_failure() != OnFailure::Block {
            self.release_dead();
        }
        self.pump();
    }

    /// Begins nothing new; answers when everything under way is recorded.
    pub(crate) fn drain(&mut self, reply: oneshot::Sender<()>) {
        self.draining = true;
        self.drained.push(reply);
        self.clear_suspicion();
        self.pump();
    }

    fn commit(&self) {
        if !self.failed {
            self.wires.records.now(&*self.ports.log, &self.ledger);
        }
    }

    fn recorded(&mut self, retried: &[EventId]) {
        for event in retried {
            self.retrying.remove(event);
        }
        // One of them may have been made due again meanwhile, by an operator.
        self.due_waiting |= !retried.is_empty();
    }

    /// Outcomes can no longer be recorded: make no further attempts, which could only be duplicates.
    fn log_failed(&mut self, error: &LogError) {
        if !self.failed {
            tracing::error!(subscription = self.id.0, %error, "outcomes cannot be recorded; deliveries stop");
        }
        self.failed = true;
        self.tell_drained();
    }

    fn tell_drained(&mut self) {
        for reply in self.drained.drain(..) {
            let _ = reply.send(());
        }
    }

    fn count(counter: &AtomicU64) {
        add(counter, 1);
    }
}
