//! Delivers an integration's events to one destination. In: batches and wakes from the integration actor, `Due` from
//! the retry actor, plans from the supervisor. Out: attempts in bounded tasks, outcomes to the log, due times to the
//! retry actor. Owns: the subscription's position and its window. A crash loses nothing: what was in flight or not
//! yet recorded is delivered again.

use std::{
    collections::{HashSet, VecDeque},
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use futures_util::FutureExt;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::time::Instant;

use crate::{
    delivery::{due::DueItem, ledger::Ledger},
    domain::{
        delivery::DeliveryRecord,
        event::Event,
        ids::{DestinationId, EventId, SubscriptionId},
        limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, COMMIT_WAIT_MS},
    },
    integration::IntegrationMsg,
    metrics::add,
    ports::{
        event_log::{LogError, ReadBounds, Stored, id_of},
        transport::{AttemptReport, Consignment, Timings, Transport, Verdict},
    },
    retry::RetryMsg,
    snapshot::Plan,
    tree::{Ports, wires::Wires},
};

mod due;
mod ledger;
mod outcome;

/// What may be said to a delivery actor.
pub(crate) enum DeliveryMsg {
    /// The integration has taken in events up to this one: read them from the log.
    Wake { intake: EventId },
    /// These events follow directly on `prev`; sent only to one who announced credit there.
    Batch { prev: EventId, events: Vec<Stored>, intake: EventId },
    /// A read of the log came back.
    Read(Result<Vec<Stored>, LogError>),
    /// An attempt ended.
    Done(Box<Done>),
    /// The timer: outcomes have waited long enough.
    Flush,
    /// A commit came back: so many outcomes, these due entries, and the soonest of the new due times.
    Recorded { outcomes: usize, retried: Vec<EventId>, next_due_ms: Option<u64>, result: Result<(), LogError> },
    /// The retry actor: something is due.
    Due,
    /// Due deliveries were loaded; `more` when there may be others due now.
    DueLoaded { items: Result<Vec<DueItem>, LogError>, reserved: usize, more: bool },
    /// The timer after a failed read: try again.
    ReadAgain,
    /// The configuration of the subscription changed.
    Plan(Arc<Plan>),
    /// What is unfinished before this event has outlived its retention.
    Expire { before: EventId },
    /// Begin nothing new; answer when everything under way is recorded.
    Drain(RpcReplyPort<()>),
}

/// The end of an attempt.
pub(crate) struct Done {
    event: Arc<Event>,
    record: Option<DeliveryRecord>,
    /// Where it went: the plan may have changed since.
    destination: (DestinationId, u64),
    report: AttemptReport,
    at_ms: u64,
    took: Duration,
}

/// Payload bytes held for one subscription, about: read but not delivered, in flight included.
const HELD_BYTES_MAX: usize = 4 << 20;
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct DeliveryActor;

pub(crate) struct DeliveryArgs {
    pub(crate) plan: Arc<Plan>,
    pub(crate) intake: EventId,
    pub(crate) parent: ActorRef<IntegrationMsg>,
    pub(crate) ports: Ports,
    pub(crate) wires: Wires,
}

#[expect(clippy::struct_excessive_bools, reason = "each is one fact of the actor, and they combine freely")]
pub(crate) struct DeliveryState {
    id: SubscriptionId,
    plan: Arc<Plan>,
    parent: ActorRef<IntegrationMsg>,
    ports: Ports,
    wires: Wires,
    ledger: Ledger,
    intake: EventId,
    expire_before: EventId,
    queue: VecDeque<Arc<Event>>,
    held_bytes: usize,
    in_flight: usize,
    /// How far the read under way was to go.
    read_to: EventId,
    reading: bool,
    announced: bool,
    /// While it rests: how far the integration has come is asked for once, when something expires.
    ask_intake: bool,
    flush_timer: bool,
    due_waiting: bool,
    due_reserved: usize,
    due_in_flight: usize,
    retrying: HashSet<EventId>,
    retried: Vec<EventId>,
    next_due_ms: Option<u64>,
    failed: bool,
    draining: bool,
    drained: Option<RpcReplyPort<()>>,
}

impl Actor for DeliveryActor {
    type Msg = DeliveryMsg;
    type State = DeliveryState;
    type Arguments = DeliveryArgs;

    async fn pre_start(
        &self,
        me: ActorRef<DeliveryMsg>,
        args: DeliveryArgs,
    ) -> Result<DeliveryState, ActorProcessingErr> {
        let id = args.plan.subscription.id;
        // A predecessor that crashed may have commits on their way: read the position only after them.
        args.ports.log.commit(Vec::new())?.await?;
        let mut position = args.ports.state.position(id).await?.unwrap_or_default();
        position.read_upto = position.read_upto.max(args.plan.subscription.start_after);
        let open = position.open.clone();
        let mut state = DeliveryState {
            id,
            plan: args.plan,
            parent: args.parent,
            ports: args.ports,
            wires: args.wires,
            ledger: Ledger::new(position),
            intake: args.intake,
            expire_before: EventId::ZERO,
            queue: VecDeque::new(),
            held_bytes: 0,
            in_flight: 0,
            read_to: EventId::ZERO,
            reading: false,
            announced: false,
            ask_intake: false,
            flush_timer: false,
            due_waiting: true,
            due_reserved: 0,
            due_in_flight: 0,
            retrying: HashSet::new(),
            retried: Vec::new(),
            next_due_ms: None,
            failed: false,
            draining: false,
            drained: None,
        };
        for event in open {
            match state.ports.log.get(event).await {
                Ok(Some(event)) => state.enqueue(event),
                Ok(None) | Err(LogError::Corrupt(_)) => state.unreadable(event),
                Err(error) => return Err(error.into()),
            }
        }
        state.wires.deliveries.set(id, me.clone());
        state.pump(&me);
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<DeliveryMsg>,
        msg: DeliveryMsg,
        state: &mut DeliveryState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            DeliveryMsg::Wake { intake } => state.woken(intake),
            DeliveryMsg::Batch { prev, events, intake } => {
                state.woken(intake);
                state.take_batch(prev, events);
            }
            DeliveryMsg::Read(result) => {
                state.reading = false;
                state.take_read(&me, result);
            }
            DeliveryMsg::Done(done) => state.done(*done),
            DeliveryMsg::Flush => {
                state.flush_timer = false;
                state.commit(&me);
            }
            DeliveryMsg::Recorded { outcomes, retried, next_due_ms, result } => {
                state.recorded(outcomes, &retried, next_due_ms, result);
            }
            DeliveryMsg::Due => state.due_waiting = true,
            DeliveryMsg::DueLoaded { items, reserved, more } => state.take_due(&me, items, reserved, more),
            DeliveryMsg::ReadAgain => state.reading = false,
            DeliveryMsg::Plan(plan) => {
                state.plan = plan;
                state.due_waiting = true;
            }
            DeliveryMsg::Expire { before } => state.expire(before),
            DeliveryMsg::Drain(reply) => {
                state.draining = true;
                state.drained = Some(reply);
            }
        }
        state.pump(&me);
        Ok(())
    }
}

impl DeliveryState {
    /// Does whatever can be done now: begin attempts, load what is due, read on, commit, announce credit.
    fn pump(&mut self, me: &ActorRef<DeliveryMsg>) {
        if self.may_begin() {
            self.load_due(me);
        }
        while self.may_begin() && self.free_slots() > 0 {
            let Some(event) = self.queue.pop_front() else { break };
            self.begin(me, event, None, false);
        }
        self.read_on(me);
        if self.ledger.commit_due() {
            self.commit(me);
        } else if self.ledger.dirty() && !self.flush_timer {
            self.flush_timer = true;
            me.send_after(Duration::from_millis(COMMIT_WAIT_MS), || DeliveryMsg::Flush);
        }
        if self.in_flight == 0 && self.due_reserved == 0 && self.drained.is_some() {
            if self.ledger.clean() || self.failed {
                if let Some(reply) = self.drained.take() {
                    let _ = reply.send(());
                }
            } else {
                self.commit(me);
            }
        }
    }

    fn may_begin(&self) -> bool {
        self.runnable() && self.ledger.may_settle()
    }

    fn runnable(&self) -> bool {
        self.plan.running && self.plan.transport.is_ok() && !self.draining && !self.failed
    }

    fn window(&self) -> usize {
        usize::from(self.plan.subscription.in_flight_max).max(1)
    }

    /// Slots for events read from the log. While retries wait, a quarter of the window is left to them.
    fn free_slots(&self) -> usize {
        let window = self.window();
        let share = if self.due_waiting && window > 1 { window - (window / 4).max(1) } else { window };
        share.saturating_sub(self.in_flight + self.due_reserved)
    }

    fn begin(&mut self, me: &ActorRef<DeliveryMsg>, event: Arc<Event>, record: Option<DeliveryRecord>, replay: bool) {
        let Ok(transport) = &self.plan.transport else { return };
        self.in_flight += 1;
        add(&self.wires.counters.attempts, 1);
        let attempt = record.as_ref().map_or(0, |record| record.attempts) + 1;
        let consignment = Consignment { event: event.clone(), attempt, replay, event_type: None, rendered: None };
        let destination = (self.plan.destination.id, self.plan.destination.meta.version);
        let (transport, me, at_ms) = (transport.clone(), me.clone(), self.ports.clock.now_ms());
        tokio::spawn(async move {
            let began = Instant::now();
            let report = guarded(transport, consignment, at_ms).await;
            let done = Done { event, record, destination, report, at_ms, took: began.elapsed() };
            let _ = me.cast(DeliveryMsg::Done(Box::new(done)));
        });
    }

    fn woken(&mut self, intake: EventId) {
        self.intake = self.intake.max(intake);
        self.announced = false;
    }

    fn take_batch(&mut self, prev: EventId, events: Vec<Stored>) {
        let follows = events
            .first()
            .is_some_and(|first| prev <= self.ledger.read_upto() && id_of(first) > self.ledger.read_upto());
        if follows && !self.reading && events.len() <= self.ledger.room() {
            self.take_in(events);
        }
    }

    fn take_read(&mut self, me: &ActorRef<DeliveryMsg>, result: Result<Vec<Stored>, LogError>) {
        match result {
            Ok(events) if events.is_empty() => self.ledger.skip_to(self.read_to),
            Ok(events) => {
                let limit = self.read_limit();
                if events.first().is_some_and(|first| id_of(first) > limit) {
                    return self.ledger.skip_to(limit);
                }
                self.take_in(events.into_iter().take_while(|event| id_of(event) <= limit).collect());
            }
            Err(error) => {
                tracing::warn!(subscription = self.id.0, %error, "could not read the event log");
                self.reading = true;
                me.send_after(READ_AGAIN_AFTER, || DeliveryMsg::ReadAgain);
            }
        }
    }

    fn take_in(&mut self, events: Vec<Stored>) {
        for stored in events {
            self.ledger.read(id_of(&stored));
            match stored {
                Ok(event) if event.id < self.expire_before => self.expired(event.id),
                Ok(event) => self.enqueue(event),
                Err(id) => self.unreadable(id),
            }
        }
    }

    fn enqueue(&mut self, event: Arc<Event>) {
        self.held_bytes += event.arrival.body.len();
        self.queue.push_back(event);
    }

    /// How far may be read: to the intake, or while the subscription rests only what has expired.
    fn read_limit(&self) -> EventId {
        if self.runnable() { self.intake } else { self.intake.min(self.expire_before) }
    }

    fn read_on(&mut self, me: &ActorRef<DeliveryMsg>) {
        let room = self.ledger.room().min(BATCH_EVENTS_MAX);
        if self.reading || room == 0 || self.held_bytes >= HELD_BYTES_MAX || self.draining || self.failed {
            return;
        }
        let limit = self.read_limit();
        if self.ledger.read_upto() >= limit {
            let ask = if self.runnable() { !self.announced } else { std::mem::take(&mut self.ask_intake) };
            if ask {
                self.announced = true;
                let credit = if self.runnable() { room } else { 0 };
                let ready = IntegrationMsg::Ready { subscription: self.id, at: self.ledger.read_upto(), credit };
                let _ = self.parent.cast(ready);
            }
            return;
        }
        // Small reads cost as much as large ones: wait until a good part of the window is free.
        if !self.queue.is_empty() && room < BATCH_EVENTS_MAX / 4 {
            return;
        }
        self.reading = true;
        self.read_to = limit;
        let (log, me) = (self.ports.log.clone(), me.clone());
        let (integration, after) = (self.plan.subscription.integration_id, self.ledger.read_upto());
        tokio::spawn(async move {
            let bounds = ReadBounds { events_max: room, bytes_max: BATCH_BYTES_MAX };
            let result = log.read(integration, after, bounds).await;
            let _ = me.cast(DeliveryMsg::Read(result));
        });
    }

    fn commit(&mut self, me: &ActorRef<DeliveryMsg>) {
        if !self.ledger.dirty() || self.failed {
            return;
        }
        let (ops, outcomes) = self.ledger.take_commit(self.id);
        let retried = std::mem::take(&mut self.retried);
        let next_due_ms = self.next_due_ms.take();
        match self.ports.log.commit(ops) {
            Ok(committing) => {
                let me = me.clone();
                tokio::spawn(async move {
                    let result = committing.await;
                    let _ = me.cast(DeliveryMsg::Recorded { outcomes, retried, next_due_ms, result });
                });
            }
            Err(error) => self.log_failed(&error),
        }
    }

    fn recorded(
        &mut self,
        outcomes: usize,
        retried: &[EventId],
        next_due_ms: Option<u64>,
        result: Result<(), LogError>,
    ) {
        if let Err(error) = result {
            return self.log_failed(&error);
        }
        self.ledger.recorded(outcomes);
        for event in retried {
            self.retrying.remove(event);
        }
        if let Some(due_ms) = next_due_ms {
            self.wires.retry.hint(RetryMsg::Schedule { subscription: self.id, due_ms });
        }
    }

    /// Outcomes can no longer be recorded: make no further attempts, which could only be duplicates.
    fn log_failed(&mut self, error: &LogError) {
        if !self.failed {
            tracing::error!(subscription = self.id.0, %error, "outcomes cannot be recorded; deliveries stop");
        }
        self.failed = true;
        if let Some(reply) = self.drained.take() {
            let _ = reply.send(());
        }
    }

    fn count(counter: &AtomicU64) {
        add(counter, 1);
    }
}

/// A transport that panics costs an attempt, not the actor.
async fn guarded(transport: Arc<dyn Transport>, consignment: Consignment, at_ms: u64) -> AttemptReport {
    match AssertUnwindSafe(transport.attempt(consignment, at_ms)).catch_unwind().await {
        Ok(report) => report,
        Err(_) => AttemptReport {
            verdict: Verdict::Retry { after: None },
            status: None,
            error: Some("the transport panicked; this is a fault of hookmill".to_owned()),
            reply: None,
            timings: Timings::default(),
        },
    }
}
