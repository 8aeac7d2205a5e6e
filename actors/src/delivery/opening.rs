//! Taking up where the last holder of a subscription left off: its position, its lanes, and what may have taken it down.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use super::{Delivery, DeliveryArgs, account::DeliveryAccount, lanes::Lanes, prepare::Fate};
use crate::{
    domain::{
        delivery::{DeliveryRecord, DeliveryStatus},
        ids::EventId,
        limits::{POISON_CRASHES, SUSPECT_CRASHES},
        order::OnFailure,
    },
    ports::{
        event_log::LogError,
        state_store::{DeliveryState as Known, StateOp},
    },
    recorder::Owner,
};

/// Records of parked deliveries that are read at once.
const RESTORED_AT_ONCE: usize = 256;

impl Delivery {
    pub(crate) async fn open(args: DeliveryArgs) -> Result<Self, LogError> {
        let DeliveryArgs { me, plan, intake, marks, ports, wires } = args;
        let id = plan.subscription.id;
        let ledger = Arc::new(DeliveryAccount::new(id, me.clone(), &wires, ports.clock.clone()));
        // A predecessor that crashed may have commits on their way: no more of them, and read the position only after.
        wires.records.open(Owner::Subscription(id), &ledger);
        ports.log.commit(Vec::new())?.await?;
        let mut position = ports.state.position(id).await?.unwrap_or_default();
        position.read_upto = position.read_upto.max(plan.subscription.start_after);
        let open = position.open.clone();
        ledger.begin(position);
        let now = Instant::now();
        let mut state = Self {
            id,
            gate: wires.gates.of(&plan.destination, now),
            pace: wires.paces.of(id, plan.subscription.rate, now),
            gauges: wires.gauges.of(id),
            holding: wires.holdings.open(),
            me,
            plan,
            ports,
            wires,
            marks,
            in_line: false,
            waits: None,
            alarm: None,
            ledger,
            lanes: Lanes::default(),
            unparking: VecDeque::new(),
            intake,
            expire_before: EventId::ZERO,
            alone: false,
            suspects: 0,
            reading: false,
            rests: false,
            started: now,
            due_waiting: true,
            due_reserved: 0,
            due_in_flight: 0,
            due_ready: VecDeque::new(),
            retrying: HashSet::new(),
            failed: false,
            draining: false,
            drained: Vec::new(),
        };
        // Before the lanes are read: of what is released meanwhile it hears.
        state.wires.deliveries.set(id, state.me.clone());
        // What is parked is older than what is open in its lane.
        state.restore_lanes().await?;
        for event in open {
            state.reopen(event).await?;
        }
        Ok(state)
    }

    async fn restore_lanes(&mut self) -> Result<(), LogError> {
        let mut lanes: BTreeMap<u64, Vec<EventId>> = BTreeMap::new();
        for held in self.ports.state.lanes(self.id).await? {
            lanes.entry(held.lane).or_default().push(held.event);
        }
        for (lane, events) in lanes {
            let (mut held, mut parked) = (None, VecDeque::new());
            let mut known = Vec::with_capacity(events.len());
            for events in events.chunks(RESTORED_AT_ONCE) {
                known.extend(self.ports.state.deliveries(self.id, events).await?);
            }
            for (event, known) in events.into_iter().zip(known) {
                let Known::Record(record) = known else { continue };
                match record.status {
                    DeliveryStatus::Parked => parked.push_back(event),
                    DeliveryStatus::Retrying if parked.is_empty() => held = held.or(Some((event, false))),
                    DeliveryStatus::Dead if parked.is_empty() && self.on_failure() == OnFailure::Block => {
                        held = held.or(Some((event, true)));
                    }
                    _ => {}
                }
            }
            if let Some(event) = self.lanes.restore(lane, held, parked) {
                self.unparking.push_back((lane, event));
            }
        }
        Ok(())
    }

    /// An event that was neither settled nor due: it may have been under way at a crash.
    async fn reopen(&mut self, event: EventId) -> Result<(), LogError> {
        let mut record = match self.ports.state.delivery(self.id, event).await? {
            Known::Record(record) => record,
            Known::Delivered { .. } | Known::Unknown => DeliveryRecord::new(self.plan.version()),
        };
        if record.crashes >= POISON_CRASHES {
            self.bury_poison(event, record);
            return Ok(());
        }
        let payload = match self.ports.log.get(event).await {
            Ok(Some(payload)) => payload,
            Ok(None) | Err(LogError::Corrupt(_)) => {
                self.bury_corrupt(event, record);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if record.crashes < SUSPECT_CRASHES {
            record.crashes += 1;
            self.ledger.noted(StateOp::Delivery { subscription: self.id, event, record: record.clone() });
        }
        // It was selected when it was read first, and stays so.
        let lane = match self.sieve().fate(&payload, None) {
            Fate::Deliver { lane } => lane,
            Fate::Filtered | Fate::Duplicate | Fate::Dead(..) => None,
        };
        self.enqueue(payload, lane, Some(record));
        Ok(())
    }

    /// A clean end: what was not under way is no suspect.
    pub(super) fn clear_suspicion(&mut self) {
        let waiting = self.lanes.deliveries().chain(&mut self.due_ready);
        for pending in waiting {
            if let Some(record) = pending.record.as_mut().filter(|record| record.crashes > 0) {
                record.crashes = 0;
                let op =
                    StateOp::Delivery { subscription: self.id, event: pending.event.id, record: (**record).clone() };
                self.ledger.noted(op);
            }
        }
    }

    /// The order no longer waits for dead letters: what they held back goes on.
    pub(super) fn release_dead(&mut self) {
        for event in self.lanes.held_dead() {
            self.released(event);
        }
    }
}
