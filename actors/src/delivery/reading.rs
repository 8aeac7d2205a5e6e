//! From the log to the lanes: reading as far as intake has come, looking at each event, and letting go what expired.

use std::sync::Arc;

use super::{
    Delivery, DeliveryMsg, Pending, READ_AGAIN_AFTER,
    lanes::Pushed,
    prepare::{Fate, Sieve},
};
use crate::{
    domain::{
        delivery::{DeadReason, DeliveryRecord, DeliveryStatus},
        event::Event,
        ids::{EventId, IntegrationId},
        limits::BATCH_EVENTS_MAX,
    },
    integration::marks::{Known, RecentMarks},
    ports::{
        event_log::{LogError, ReadBounds, Stored, id_of},
        state_store::{Mark, StateOp},
    },
    tree::{Ports, mailbox::Way},
};

/// An event that was looked at.
pub(crate) enum Prepared {
    /// It is delivered, in the order of its lane where there is one.
    Deliver { event: Arc<Event>, lane: Option<u64> },
    /// It is left out.
    Filtered(EventId),
    /// It was there before.
    Duplicate(EventId),
    /// It cannot be delivered.
    Dead { event: EventId, reason: DeadReason, error: String },
}

/// Events are looked at in runs of so many; others get a turn in between.
const LOOK_RUN: usize = 32;

/// What looking at events needs, so that it can be done beside the actor.
struct Look {
    sieve: Sieve,
    ports: Arc<Ports>,
    marks: RecentMarks,
    integration: IntegrationId,
}

impl Look {
    /// Every event with its fate. `after` is where they were read from.
    async fn at(&self, after: EventId, events: Vec<Stored>) -> Result<Vec<Prepared>, LogError> {
        let Some(last) = events.last().map(id_of) else { return Ok(Vec::new()) };
        let marks = self.marks_between(after, last).await?;
        let mut prepared = Vec::with_capacity(events.len());
        for (index, stored) in events.into_iter().enumerate() {
            if index % LOOK_RUN == LOOK_RUN - 1 {
                tokio::task::yield_now().await;
            }
            prepared.push(self.at_one(stored, &marks));
        }
        Ok(prepared)
    }

    /// The same without waiting, where there are few events, no program is asked and all that is known of them is in memory.
    /// A program takes the turns of its siblings.
    fn at_once(&self, after: EventId, events: &[Stored]) -> Option<Vec<Prepared>> {
        let little = events.len() < LOOK_RUN && !self.sieve.runs_program();
        let last = events.last().map(id_of).filter(|_| little)?;
        let Known { marks, all } = self.marks.between(after, last);
        all.then(|| events.iter().map(|stored| self.at_one(stored.clone(), &marks)).collect())
    }

    fn at_one(&self, stored: Stored, marks: &[(EventId, Mark)]) -> Prepared {
        match stored {
            Ok(event) => match self.sieve.fate(&event, mark_of(marks, event.id)) {
                Fate::Deliver { lane } => Prepared::Deliver { event, lane },
                Fate::Filtered => Prepared::Filtered(event.id),
                Fate::Duplicate => Prepared::Duplicate(event.id),
                Fate::Dead(reason, error) => Prepared::Dead { event: event.id, reason, error },
            },
            Err(event) => Prepared::Dead { event, reason: DeadReason::Corrupt, error: CORRUPT.to_owned() },
        }
    }

    /// Recent ones first: a mark leaves them only once the state has it.
    async fn marks_between(&self, after: EventId, upto: EventId) -> Result<Vec<(EventId, Mark)>, LogError> {
        let Known { mut marks, all } = self.marks.between(after, upto);
        if !all {
            marks.extend(self.ports.state.marks(self.integration, after, upto).await?);
            marks.sort_by_key(|(event, _)| *event);
        }
        Ok(marks)
    }
}

fn mark_of(marks: &[(EventId, Mark)], event: EventId) -> Option<&Mark> {
    marks.binary_search_by_key(&event, |(marked, _)| *marked).ok().map(|index| &marks[index].1)
}

pub(super) const CORRUPT: &str = "its stored bytes are damaged or gone";

impl Delivery {
    /// The integration has taken in the events that follow on `prev`. Whoever has nothing else to read is handed them;
    /// whoever is busy reads them from the log in its own time.
    pub(crate) fn taken_in(&mut self, prev: EventId, events: &[Stored]) {
        let Some(last) = events.last().map(id_of) else { return };
        self.intake = last;
        if std::mem::take(&mut self.rests) && self.runnable() {
            self.take_batch(prev, events);
            self.pump();
        }
    }

    fn look(&self) -> Look {
        Look {
            sieve: self.sieve(),
            ports: self.ports.clone(),
            marks: self.marks.clone(),
            integration: self.plan.subscription.integration_id,
        }
    }

    pub(super) fn sieve(&self) -> Sieve {
        Sieve::new(self.plan.clone(), self.wires.config.current())
    }

    fn take_batch(&mut self, prev: EventId, events: &[Stored]) {
        let (Some(first), Some(last)) = (events.first().map(id_of), events.last().map(id_of)) else { return };
        let upto = self.ledger.read_upto();
        if prev > upto || first <= upto || self.reading || events.len() > self.ledger.room() {
            return;
        }
        if !self.holding.fits(events.iter().flatten()) {
            return;
        }
        let look = self.look();
        if let Some(prepared) = look.at_once(upto, events) {
            return self.take_prepared(last, Ok(prepared));
        }
        self.reading = true;
        let (me, events) = (self.me.clone(), events.to_vec());
        tokio::spawn(async move {
            let result = look.at(upto, events).await;
            me.cast(DeliveryMsg::Prepared { upto: last, result });
        });
    }

    pub(super) fn take_prepared(&mut self, upto: EventId, result: Result<Vec<Prepared>, LogError>) {
        self.reading = false;
        match result {
            Ok(events) if events.is_empty() => self.ledger.skip_to(upto),
            Ok(events) => {
                for prepared in events {
                    self.take(prepared);
                }
            }
            Err(error) => {
                tracing::warn!(subscription = self.id.0, %error, "could not read the event log");
                self.reading = true;
                self.me.send_after(READ_AGAIN_AFTER, || DeliveryMsg::ReadAgain);
            }
        }
    }

    fn take(&mut self, prepared: Prepared) {
        match prepared {
            Prepared::Deliver { event, lane } => {
                self.ledger.read(event.id);
                if event.id < self.expire_before {
                    self.bury_expired(event.id, None);
                } else {
                    self.enqueue(event, lane, None);
                }
            }
            Prepared::Filtered(event) => {
                Self::count(&self.wires.counters.filtered);
                self.ledger.skip_to(event);
            }
            Prepared::Duplicate(event) => {
                Self::count(&self.wires.counters.duplicates);
                self.ledger.skip_to(event);
            }
            Prepared::Dead { event, reason, error } => {
                self.ledger.read(event);
                if reason == DeadReason::Corrupt {
                    tracing::error!(subscription = self.id.0, %event, "an event's stored bytes are damaged or gone");
                } else {
                    Self::count(&self.wires.counters.program_faults);
                }
                self.bury(event, DeliveryRecord::new(self.plan.version()), reason, error);
            }
        }
    }

    /// Puts a delivery where it is begun from, in its order.
    pub(super) fn enqueue(&mut self, event: Arc<Event>, lane: Option<u64>, record: Option<DeliveryRecord>) {
        let (id, held) = (event.id, self.holding.hold(&event));
        let pending = Pending { event, lane, record: record.map(Box::new), due: false, held };
        if let Pushed::Parked(pending) = self.lanes.push(lane, id, pending, self.may_park()) {
            self.park(pending);
        }
    }

    /// Records that a delivery waits behind a failed one; its payload leaves memory.
    pub(super) fn park(&mut self, pending: Pending) {
        Self::count(&self.wires.counters.parked);
        let mut record = pending.record.map_or_else(|| DeliveryRecord::new(self.plan.version()), |record| *record);
        record.status = DeliveryStatus::Parked;
        record.lane = pending.lane;
        record.due_ms = None;
        let delivery = StateOp::Delivery { subscription: self.id, event: pending.event.id, record };
        self.ledger.settled(pending.event.id, [delivery]);
    }

    /// How far may be read: to the intake, or while the subscription rests only what has expired.
    fn read_limit(&self) -> EventId {
        if self.runnable() { self.intake } else { self.intake.min(self.expire_before) }
    }

    pub(super) fn read_on(&mut self) {
        let room = self.ledger.room().min(BATCH_EVENTS_MAX);
        let bytes_max = self.holding.room();
        if self.reading || room == 0 || bytes_max == 0 || self.draining || self.failed {
            return;
        }
        let after = self.ledger.read_upto();
        if self.may_rest(after) {
            return;
        }
        let limit = self.read_limit();
        if after >= limit {
            return;
        }
        // Small reads cost as much as large ones: wait until a good part of the window is free.
        if self.lanes.ready() > 0 && room < BATCH_EVENTS_MAX / 4 {
            return;
        }
        self.reading = true;
        let (look, log, me) = (self.look(), self.ports.log.clone(), self.me.clone());
        tokio::spawn(async move {
            let bounds = ReadBounds { events_max: room, bytes_max };
            let result = match log.read(look.integration, after, bounds).await {
                Ok(mut events) => {
                    let within = events.partition_point(|event| id_of(event) <= limit);
                    events.truncate(within);
                    look.at(after, events).await
                }
                Err(error) => Err(error),
            };
            me.cast(DeliveryMsg::Prepared { upto: limit, result });
        });
    }

    /// Whether it has read all there is, and is handed what comes next. A subscription that does not run is not.
    fn may_rest(&mut self, at: EventId) -> bool {
        self.rests = self.runnable() && at >= self.intake;
        self.rests
    }

    /// Everything unfinished before `before`, or older than the subscription's own expiry, goes to the dead letter;
    /// what is in flight ends as it ends.
    pub(super) fn expire(&mut self, before: EventId) {
        self.expire_before = self.expire_before.max(before);
        let now_ms = self.ports.clock.now_ms();
        if let Some(seconds) = self.plan.subscription.expires_after_s
            && self.wires.clock_trust.holds(now_ms)
        {
            let own = EventId::at_millis(now_ms.saturating_sub(seconds.saturating_mul(1_000)));
            self.expire_before = self.expire_before.max(own);
        }
        let before = self.expire_before;
        loop {
            let expired = self.lanes.take_ready(|pending| pending.event.id < before);
            if expired.is_empty() {
                return;
            }
            for pending in expired {
                self.let_expire(pending);
            }
        }
    }
}
