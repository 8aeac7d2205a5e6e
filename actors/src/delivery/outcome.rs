//! What follows from an attempt: an outcome, another attempt, or the dead letter.

use std::time::Duration;

use super::{DeliveryState, Done};
use crate::{
    domain::{
        backoff::Next,
        delivery::{Attempt, DeadLetter, DeadReason, DeliveryRecord, DeliveryStatus},
        ids::{DestinationId, EventId},
    },
    ports::{state_store::StateOp, transport::Verdict},
};

impl DeliveryState {
    pub(super) fn done(&mut self, done: Done) {
        self.in_flight -= 1;
        let Done { event, record, destination, report, at_ms, took } = done;
        let id = event.id;
        self.held_bytes = self.held_bytes.saturating_sub(event.arrival.body.len());
        self.due_in_flight -= usize::from(record.is_some());
        if report.verdict == Verdict::Delivered {
            Self::count(&self.wires.counters.delivered);
            if record.is_none() {
                return self.ledger.delivered(id);
            }
        } else {
            Self::count(&self.wires.counters.attempts_failed);
        }
        let first = record.is_none();
        let mut record = record.unwrap_or_else(|| DeliveryRecord::new(self.plan.version()));
        record.push(Attempt {
            at_ms,
            duration_ms: u32::try_from(took.as_millis()).unwrap_or(u32::MAX),
            status: report.status,
            error: report.error.clone(),
            reply: report.reply,
        });
        record.due_ms = None;
        let error = report.error.unwrap_or_else(|| "failed".to_owned());
        let dead = match report.verdict {
            Verdict::Delivered => {
                record.status = DeliveryStatus::Delivered;
                None
            }
            Verdict::Refused => Some(DeadReason::Refused),
            Verdict::Retry { after } => self.schedule(&mut record, after),
            Verdict::Gone => {
                self.pause(destination);
                self.schedule(&mut record, None)
            }
        };
        if !first {
            self.retried.push(id);
        }
        match dead {
            Some(reason) => self.bury(id, record, reason, error),
            None => {
                let delivery = StateOp::Delivery { subscription: self.id, event: id, record };
                self.ledger.settled(id, [delivery]);
            }
        }
    }

    /// Sets the time of the next attempt, or says that there is none.
    fn schedule(&mut self, record: &mut DeliveryRecord, after: Option<Duration>) -> Option<DeadReason> {
        match self.plan.subscription.retry.next(record.attempts, after, fastrand::f64()) {
            Next::GiveUp => Some(DeadReason::AttemptsExhausted),
            Next::After(wait) => {
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                let due_ms = self.ports.clock.now_ms().saturating_add(wait_ms);
                record.status = DeliveryStatus::Retrying;
                record.due_ms = Some(due_ms);
                self.next_due_ms = Some(self.next_due_ms.map_or(due_ms, |known| known.min(due_ms)));
                Self::count(&self.wires.counters.retried);
                None
            }
        }
    }

    fn pause(&self, (destination, version): (DestinationId, u64)) {
        let reason = "answered 410 Gone: it wants no more events; set its status to active to resume";
        self.wires.config.pause(destination, version, reason.to_owned());
    }

    fn bury(&mut self, event: EventId, mut record: DeliveryRecord, reason: DeadReason, error: String) {
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
    pub(super) fn unreadable(&mut self, event: EventId) {
        tracing::error!(subscription = self.id.0, %event, "an event's stored bytes are damaged or gone");
        let record = DeliveryRecord::new(self.plan.version());
        self.bury(event, record, DeadReason::Corrupt, "its stored bytes are damaged or gone".to_owned());
    }

    /// A due delivery whose event cannot be read.
    pub(super) fn unreadable_due(&mut self, event: EventId, record: DeliveryRecord) {
        tracing::error!(subscription = self.id.0, %event, "an event's stored bytes are damaged or gone");
        self.retried.push(event);
        self.bury(event, record, DeadReason::Corrupt, "its stored bytes are damaged or gone".to_owned());
    }

    pub(super) fn expired(&mut self, event: EventId) {
        let record = DeliveryRecord::new(self.plan.version());
        self.bury(event, record, DeadReason::Expired, "it was not delivered within its retention".to_owned());
    }

    /// Everything unfinished before `before` goes to the dead letter; what is in flight ends as it ends.
    pub(super) fn expire(&mut self, before: EventId) {
        self.expire_before = self.expire_before.max(before);
        self.ask_intake = true;
        while let Some(event) = self.queue.front().filter(|event| event.id < before) {
            let id = event.id;
            self.held_bytes = self.held_bytes.saturating_sub(event.arrival.body.len());
            self.queue.pop_front();
            self.expired(id);
        }
    }
}
