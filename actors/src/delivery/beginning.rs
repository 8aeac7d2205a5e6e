//! Beginning attempts: as many as the window, the subscription's own rate and the destination's gate allow.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{Delivery, DeliveryMsg, Pending, prepare::Sieve};
use crate::{
    domain::{
        delivery::DeliveryRecord,
        event::Event,
        ids::{DestinationId, EventId},
    },
    flow::{Ended, Permit, Try, Wait},
    metrics::add,
    ports::{
        event_log::{Committing, LogError},
        program::{ProgramFault, RenderFault, Rendered, Subject, Transformer},
        state_store::StateOp,
        transport::{AttemptReport, Consignment, Timings, Transport, Verdict},
    },
    tree::mailbox::Way,
};

/// The end of an attempt.
pub(crate) struct Done {
    pub(super) pending: Pending,
    /// Where it went: the plan may have changed since.
    pub(super) destination: (DestinationId, u64),
    pub(super) attempted: Attempted,
    pub(super) at_ms: u64,
    pub(super) took: Duration,
}

/// How far an attempt came.
pub(super) enum Attempted {
    /// The destination was asked.
    Made(AttemptReport),
    /// There was nothing to send: the transformation failed on this event, or could not be run.
    NotRendered(RenderFault),
    /// It could not be noted beforehand, as a suspect's must be.
    NotNoted(LogError),
}

/// Whoever waits for room at a destination looks again after this, should the hint be lost with a crashed actor.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(1);

impl Delivery {
    pub(super) fn begin_all(&mut self) {
        if !self.may_begin() {
            return self.leave_line();
        }
        self.load_due();
        self.begin_due();
        self.unpark_some();
        self.begin_ready();
        if self.lanes.ready() == 0 && self.due_ready.is_empty() {
            self.leave_line();
        }
    }

    /// Whoever has nothing to send lets the next one in.
    pub(super) fn leave_line(&mut self) {
        self.waits = None;
        if std::mem::take(&mut self.in_line) {
            for waiting in self.gate.leave(self.id, Instant::now()) {
                self.wires.deliveries.hint(waiting, DeliveryMsg::Room);
            }
        }
    }

    fn may_begin(&self) -> bool {
        self.runnable() && self.ledger.may_settle()
    }

    /// Slots for events read from the log. While retries wait, a quarter of the window is left to them.
    fn free_slots(&self) -> usize {
        let window = self.window();
        let share = if self.due_waiting && window > 1 { window - (window / 4).max(1) } else { window };
        share.saturating_sub(self.ledger.in_flight() + self.due_reserved)
    }

    fn begin_ready(&mut self) {
        while self.may_begin() && self.free_slots() > 0 {
            let Some(pending) = self.lanes.pop() else { return };
            if self.must_wait(&pending) {
                return self.lanes.unpop(pending);
            }
            if self.is_expired(&pending.event) {
                self.let_expire(pending);
                continue;
            }
            let Some(permit) = self.admit(Try::First) else { return self.lanes.unpop(pending) };
            self.begin(pending, permit);
        }
    }

    fn begin_due(&mut self) {
        while self.may_begin() && self.ledger.in_flight() < self.window() {
            let Some(pending) = self.due_ready.pop_front() else { return };
            if self.must_wait(&pending) {
                return self.due_ready.push_front(pending);
            }
            let due_ms = pending.record.as_ref().and_then(|record| record.due_ms);
            if let Some(due_ms) = due_ms.filter(|due_ms| *due_ms > self.ports.clock.now_ms()) {
                // The clock was set back since it was loaded.
                self.put_back(&pending, due_ms);
                continue;
            }
            let replay = pending.record.as_ref().is_some_and(|record| record.replay);
            // Whoever asks for an old event again wants it.
            if !replay && self.is_expired(&pending.event) {
                self.let_expire(pending);
                continue;
            }
            let attempt = if replay { Try::Replay } else { Try::Retry };
            let Some(permit) = self.admit(attempt) else { return self.due_ready.push_front(pending) };
            self.begin(pending, permit);
        }
    }

    /// It stays due.
    fn put_back(&mut self, pending: &Pending, due_ms: u64) {
        self.retrying.remove(&pending.event.id);
        self.wires.retry.schedule(self.id, due_ms);
    }

    /// The more crashes a suspect has seen, the fewer go beside it, at last nothing: so a crash says who caused it, and
    /// what was only near it does not wait long.
    fn must_wait(&self, pending: &Pending) -> bool {
        let together = pending.suspects_together();
        self.alone
            || (pending.suspect() && (self.suspects >= together || (together == 1 && self.ledger.in_flight() > 0)))
    }

    /// Asks the subscription's own rate, then its destination's gate. Where either says later, the alarm is set.
    fn admit(&mut self, attempt: Try) -> Option<Permit> {
        let now = Instant::now();
        let pace = self.pace.clone();
        let mut pace = pace.as_ref().map(|pace| pace.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(Err(at)) = pace.as_mut().map(|pace| pace.peek(1, now)) {
            self.waits = Some(Wait::Rate(at));
            self.set_alarm(at);
            return None;
        }
        match self.gate.begin(attempt, self.id, now) {
            Ok(permit) => {
                if let Some(pace) = &mut pace {
                    let _ = pace.check(now);
                }
                self.in_line = false;
                self.waits = None;
                Some(permit)
            }
            Err(wait) => {
                self.in_line |= matches!(wait, Wait::ForRoom | Wait::Rate(_));
                if matches!(wait, Wait::Budget(_)) && !matches!(self.waits, Some(Wait::Budget(_))) {
                    add(&self.wires.counters.retry_budget_waits, 1);
                }
                self.waits = Some(wait);
                self.set_alarm(wait.until().unwrap_or(now + ROOM_WAIT_MAX));
                None
            }
        }
    }

    fn set_alarm(&mut self, at: Instant) {
        if let Some((earlier, timer)) = &self.alarm {
            if *earlier <= at {
                return;
            }
            timer.abort();
        }
        let me = self.me.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            me.cast(DeliveryMsg::Alarm);
        });
        self.alarm = Some((at, timer));
    }

    fn begin(&mut self, mut pending: Pending, permit: Permit) {
        let Ok(transport) = self.plan.transport.clone() else { return };
        self.ledger.began();
        self.due_in_flight += usize::from(pending.due);
        add(&self.wires.counters.attempts, 1);
        let noted = pending.suspect().then(|| self.note_suspect(&mut pending));
        let transformer = self.plan.transformer.as_ref().ok().and_then(Clone::clone);
        let needs_subject = transformer.is_some() || transport.names_events();
        let attempt = Attempt {
            transport,
            transformer,
            sieve: needs_subject.then(|| self.sieve()),
            noted,
            at_ms: self.ports.clock.now_ms(),
        };
        let destination = (self.plan.destination.id, self.plan.destination.meta.version);
        let (ledger, deliveries) = (self.ledger.clone(), self.wires.deliveries.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            let at_ms = attempt.at_ms;
            let attempted = attempt.make(&pending).await;
            let took = began.elapsed();
            for waiting in permit.end(ended(&attempted), took, Instant::now()) {
                deliveries.hint(waiting, DeliveryMsg::Room);
            }
            ledger.attempted(Done { pending, destination, attempted, at_ms, took });
        });
    }

    /// Notes, before the attempt, that a suspect is about to be made.
    fn note_suspect(&mut self, pending: &mut Pending) -> Result<Committing<()>, LogError> {
        self.alone = pending.suspects_together() == 1;
        self.suspects += 1;
        // What was noted of it before comes first.
        self.commit();
        let record = pending.record.get_or_insert_with(|| Box::new(DeliveryRecord::new(self.plan.version())));
        record.crashes = record.crashes.saturating_add(1);
        let op = StateOp::Delivery { subscription: self.id, event: pending.event.id, record: (**record).clone() };
        self.ports.log.commit(vec![op])
    }

    /// Whether the event is no longer worth an attempt.
    pub(super) fn is_expired(&self, event: &Event) -> bool {
        let own = self.plan.subscription.expires_after_s.into_iter();
        let limit = own.chain(self.plan.subscription.retry.age_max_s).min();
        event.id < self.expire_before
            || limit.is_some_and(|seconds| {
                let now_ms = self.ports.clock.now_ms();
                let age_ms = now_ms.saturating_sub(event.arrival.received_at_ms);
                age_ms >= seconds.saturating_mul(1_000) && self.wires.clock_trust.holds(now_ms)
            })
    }

    fn unpark_some(&mut self) {
        while self.lanes.ready() < self.window() {
            let Some((lane, event)) = self.unparking.pop_front() else { return };
            let (log, me) = (self.ports.log.clone(), self.me.clone());
            tokio::spawn(async move {
                let payload = match log.get(event).await {
                    Err(LogError::Corrupt(_)) => Ok(None),
                    read => read,
                };
                me.cast(DeliveryMsg::Unparked { lane, event, payload });
            });
        }
    }

    pub(super) fn take_unparked(&mut self, lane: u64, event: EventId, payload: Result<Option<Arc<Event>>, LogError>) {
        match payload {
            Ok(Some(event)) => {
                let held = self.holding.hold(&event);
                let record = DeliveryRecord { lane: Some(lane), ..DeliveryRecord::new(self.plan.version()) };
                self.lanes.loaded(Pending {
                    event,
                    lane: Some(lane),
                    record: Some(Box::new(record)),
                    due: false,
                    held,
                });
            }
            Ok(None) => {
                self.bury_corrupt(event, DeliveryRecord::new(self.plan.version()));
                self.free_lane(Some(lane));
            }
            Err(error) => {
                tracing::warn!(subscription = self.id.0, %event, %error, "could not read a parked event");
                self.unparking.push_front((lane, event));
                self.set_alarm(Instant::now() + super::READ_AGAIN_AFTER);
            }
        }
    }
}

/// One attempt, to be made beside the actor.
struct Attempt {
    transport: Arc<dyn Transport>,
    transformer: Option<Arc<dyn Transformer>>,
    /// Where the event must be looked at: for the transformation, or for its type.
    sieve: Option<Sieve>,
    noted: Option<Result<Committing<()>, LogError>>,
    at_ms: u64,
}

impl Attempt {
    async fn make(self, pending: &Pending) -> Attempted {
        match self.noted {
            Some(Ok(committing)) => {
                if let Err(error) = committing.await {
                    return Attempted::NotNoted(error);
                }
            }
            Some(Err(error)) => return Attempted::NotNoted(error),
            None => {}
        }
        let subject = match self.sieve.map(|sieve| sieve.subject(&pending.event)).transpose() {
            Ok(subject) => subject,
            Err(fault) => return Attempted::NotRendered(fault.into()),
        };
        let rendered = match (&self.transformer, &subject) {
            (Some(transformer), Some(subject)) => match render(transformer.as_ref(), subject).await {
                Ok(rendered) => Some(Arc::new(rendered)),
                Err(fault) => return Attempted::NotRendered(fault),
            },
            _ => None,
        };
        let record = pending.record.as_ref();
        let consignment = Consignment {
            event: pending.event.clone(),
            attempt: record.map_or(0, |record| record.attempts) + 1,
            replay: record.is_some_and(|record| record.replay),
            event_type: subject.and_then(|subject| subject.identity.event_type),
            rendered,
        };
        Attempted::Made(guarded(self.transport, consignment, self.at_ms).await)
    }
}

/// An engine that panics costs one event.
async fn render(transformer: &dyn Transformer, subject: &Subject) -> Result<Rendered, RenderFault> {
    AssertUnwindSafe(transformer.render(subject))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(ProgramFault("the transformation's engine panicked".to_owned()).into()))
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

/// What an attempt says about the destination's health.
fn ended(attempted: &Attempted) -> Ended {
    let Attempted::Made(report) = attempted else { return Ended::Abandoned };
    match (report.verdict, report.status) {
        (Verdict::Delivered, _) => Ended::Delivered,
        (_, Some(429)) => Ended::Throttled,
        (_, Some(503)) => Ended::Overloaded,
        (_, Some(500..)) => Ended::Failed,
        (_, None) => Ended::Unanswered,
        (_, Some(_)) => Ended::Answered,
    }
}
