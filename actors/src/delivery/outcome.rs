//! What follows from an attempt: an outcome, another attempt, or the dead letter; and what it means for the lane.

use std::time::Duration;

use super::{
    Delivery, Pending,
    beginning::{Attempted, Done},
    reading::CORRUPT,
};
use crate::{
    domain::{
        backoff::Next,
        delivery::{Attempt, DeadLetter, DeadReason, DeliveryRecord, DeliveryStatus},
        event::Event,
        ids::{DestinationId, EventId},
        order::OnFailure,
    },
    ports::{
        program::RenderFault,
        state_store::{FirstTry, StateOp},
        transport::{AttemptReport, Verdict},
    },
};

/// Where a delivery stands after an attempt that did not deliver it.
#[derive(Clone, Copy)]
enum After {
    Retry,
    Dead(DeadReason),
}

impl Delivery {
    pub(super) fn done(&mut self, done: Done) {
        let Done { pending, destination, attempted, at_ms, took } = done;
        self.ledger.ended();
        self.due_in_flight -= usize::from(pending.due);
        if pending.suspect() {
            self.alone = false;
            self.suspects -= 1;
        }
        let lane = self.held_lane(&pending);
        let Pending { event, record, due, .. } = pending;
        let record = record.map(|record| *record);
        if due {
            self.ledger.retried(event.id);
        }
        match attempted {
            Attempted::Made(AttemptReport { verdict: Verdict::Delivered, status, .. }) if record.is_none() => {
                self.ledger.delivered(event.id, FirstTry { at_ms, duration_ms: millis(took), status });
                self.free_lane(lane);
            }
            Attempted::Made(report) => {
                let mut record = record.unwrap_or_else(|| DeliveryRecord::new(self.plan.version()));
                record.push(Attempt {
                    at_ms,
                    duration_ms: millis(took),
                    status: report.status,
                    error: report.error.clone(),
                    reply: report.reply.clone(),
                });
                self.judge(&event, lane, record, destination, report);
            }
            Attempted::NotRendered(RenderFault::EngineUnavailable(reason)) => {
                let mut record = record.unwrap_or_else(|| DeliveryRecord::new(self.plan.version()));
                self.postpone(&mut record, &reason);
                self.fail(event.id, lane, record, After::Retry, reason);
            }
            Attempted::NotRendered(RenderFault::Program(fault)) => {
                Self::count(&self.wires.counters.program_faults);
                let mut record = record.unwrap_or_else(|| DeliveryRecord::new(self.plan.version()));
                (record.reason, record.postponed) = (None, 0);
                self.fail(event.id, lane, record, After::Dead(DeadReason::TransformFailed), fault.to_string());
            }
            Attempted::NotNoted(error) => self.log_failed(&error),
        }
    }

    fn judge(
        &mut self,
        event: &Event,
        lane: Option<u64>,
        mut record: DeliveryRecord,
        destination: (DestinationId, u64),
        report: AttemptReport,
    ) {
        record.due_ms = None;
        record.crashes = 0;
        (record.reason, record.postponed) = (None, 0);
        let refused = report.status.is_some_and(|status| {
            self.plan.subscription.retry.dead_statuses.iter().any(|pattern| pattern.fits(status))
        });
        let after = match report.verdict {
            Verdict::Delivered => {
                Self::count(&self.wires.counters.delivered);
                record.status = DeliveryStatus::Delivered;
                let delivery = StateOp::Delivery { subscription: self.id, event: event.id, record };
                self.ledger.settled(event.id, [delivery]);
                return self.free_lane(lane);
            }
            Verdict::Retry { .. } if refused => After::Dead(DeadReason::Refused),
            Verdict::Retry { after } => self.schedule(event, &mut record, after),
            Verdict::Refused => After::Dead(DeadReason::Refused),
            Verdict::Gone => {
                self.pause(destination);
                self.schedule(event, &mut record, None)
            }
        };
        Self::count(&self.wires.counters.attempts_failed);
        self.fail(event.id, lane, record, after, report.error.unwrap_or_else(|| "failed".to_owned()));
    }

    /// Records a failure and lets the lane go on, or not.
    fn fail(&mut self, event: EventId, lane: Option<u64>, mut record: DeliveryRecord, after: After, error: String) {
        let on_failure = self.on_failure();
        let holds = match after {
            After::Retry => on_failure != OnFailure::Skip,
            After::Dead(_) => on_failure == OnFailure::Block && self.plan.subscription.order.on_failure().is_some(),
        };
        record.lane = lane.filter(|_| holds);
        match after {
            After::Dead(reason) => self.bury(event, record, reason, error),
            After::Retry => {
                let delivery = StateOp::Delivery { subscription: self.id, event, record };
                self.ledger.settled(event, [delivery]);
            }
        }
        match lane {
            Some(lane) if holds => {
                let dead = matches!(after, After::Dead(_));
                for pending in self.lanes.hold(lane, (event, dead), self.may_park(), |pending| pending.event.id) {
                    self.park(pending);
                }
            }
            _ => self.free_lane(lane),
        }
    }

    /// Sets the time of the next attempt, or says that there is none.
    fn schedule(&mut self, event: &Event, record: &mut DeliveryRecord, after: Option<Duration>) -> After {
        let retry = &self.plan.subscription.retry;
        match retry.next(record.attempts, after, fastrand::f64()) {
            Next::GiveUp => After::Dead(DeadReason::AttemptsExhausted),
            Next::After(wait) => {
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                let due_ms = self.ports.clock.now_ms().saturating_add(wait_ms);
                let age_ms = due_ms.saturating_sub(event.arrival.received_at_ms);
                let too_old = |seconds: u64| age_ms >= seconds.saturating_mul(1_000);
                if !record.replay && retry.age_max_s.is_some_and(too_old) {
                    return After::Dead(DeadReason::AttemptsExhausted);
                }
                record.status = DeliveryStatus::Retrying;
                record.due_ms = Some(due_ms);
                self.ledger.next_due(due_ms);
                Self::count(&self.wires.counters.retried);
                After::Retry
            }
        }
    }

    fn pause(&self, (destination, version): (DestinationId, u64)) {
        let reason = "answered 410 Gone: it wants no more events; set its status to active to resume";
        self.wires.config.pause(destination, version, reason.to_owned());
    }

    pub(super) fn bury(&mut self, event: EventId, mut record: DeliveryRecord, reason: DeadReason, error: String) {
        record.status = DeliveryStatus::Dead;
        record.due_ms = None;
        Self::count(&self.wires.counters.dead);
        let letter = DeadLetter {
            event,
            subscription: self.id,
            reason,
            error,
            at_ms: self.ports.clock.now_ms(),
            attempts: record.attempts,
        };
        let delivery = StateOp::Delivery { subscription: self.id, event, record };
        self.ledger.settled(event, [delivery, StateOp::Dead(letter)]);
    }

    /// The stored bytes of an event fail their checksum or are gone: never deliver them, never pass in silence.
    pub(super) fn bury_corrupt(&mut self, event: EventId, mut record: DeliveryRecord) {
        tracing::error!(subscription = self.id.0, %event, "an event's stored bytes are damaged or gone");
        record.lane = None;
        self.bury(event, record, DeadReason::Corrupt, CORRUPT.to_owned());
    }

    /// A delivery in memory is not begun any more.
    pub(super) fn let_expire(&mut self, pending: Pending) {
        if pending.due {
            self.ledger.retried(pending.event.id);
        }
        let lane = self.held_lane(&pending);
        self.bury_expired(pending.event.id, pending.record.map(|record| *record));
        self.free_lane(lane);
    }

    /// The lane that waits for this delivery. What was due may have been released meanwhile, or another of its key
    /// holds the lane since a change of the order: then nobody waits for it.
    fn held_lane(&self, pending: &Pending) -> Option<u64> {
        pending.lane.filter(|lane| !pending.due || self.lanes.held_by(pending.event.id) == Some(*lane))
    }

    pub(super) fn bury_expired(&mut self, event: EventId, record: Option<DeliveryRecord>) {
        Self::count(&self.wires.counters.expired);
        let mut record = record.unwrap_or_else(|| DeliveryRecord::new(self.plan.version()));
        // What is not worth delivering is not worth waiting for either.
        record.lane = None;
        self.bury(event, record, DeadReason::Expired, "it was not delivered within the time it is worth it".to_owned());
    }

    pub(super) fn bury_poison(&mut self, event: EventId, mut record: DeliveryRecord) {
        Self::count(&self.wires.counters.poison);
        tracing::error!(subscription = self.id.0, %event, crashes = record.crashes, "an event was under way at each of several crashes");
        record.lane = None;
        let error = format!("hookmill crashed {} times in a row while it was under way", record.crashes);
        self.bury(event, record, DeadReason::Poison, error);
    }

    /// The one of the lane that was under way, or held it back, does so no more.
    pub(super) fn free_lane(&mut self, lane: Option<u64>) {
        if let Some(lane) = lane
            && let Some(event) = self.lanes.free(lane)
        {
            self.unparking.push_back((lane, event));
        }
    }

    /// An operator took it out of the dead letter.
    pub(super) fn released(&mut self, event: EventId) {
        let lane = self.lanes.held_by(event);
        self.free_lane(lane);
    }
}

pub(super) fn millis(took: Duration) -> u32 {
    u32::try_from(took.as_millis()).unwrap_or(u32::MAX)
}
