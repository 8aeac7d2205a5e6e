//! Events that are neither done nor under way: where they are, what they wait for, and a wake for those that wait for
//! nothing. Looks and wakes only, but for the retry of an event that an operator names, which is made due at once; what
//! becomes of a delivery is its actor's own.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::details::{name_of, that_fit};
use crate::{
    delivery::DeliveryMsg,
    domain::{
        delivery::DeliveryStatus,
        ids::{EventId, IntegrationId, SubscriptionId},
        standing::{Processing, Standing},
    },
    integration::IntegrationMsg,
    metrics::gauges::{SubscriptionView, WaitingFor},
    ports::{
        event_log::LogError,
        state_store::{DeliveryState as Known, StateOp, StateStore},
    },
    replay::look,
    snapshot::{Plan, Snapshot},
    tree::{Ports, wires::Wires},
};

/// What came or was due more recently than this is not waiting yet, milliseconds: outcomes are recorded in groups.
const FRESH_MS: u64 = 2_000;

/// What keeps a delivery from going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Waits {
    /// The time of its next attempt.
    Retry,
    /// An earlier event of its order that failed.
    Order,
    /// What flow tells: its destination, its subscription's rate, or something that is not active.
    #[serde(untagged)]
    Flow(WaitingFor),
}

/// Where an unfinished delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// It is being worked on.
    UnderWay,
    /// It cannot go on yet.
    Waits(Waits),
    /// Nothing is known to keep it.
    Idle,
}

/// The tree as one run sees it.
pub(super) struct Pending<'a> {
    ports: &'a Ports,
    wires: &'a Wires,
    snapshot: std::sync::Arc<Snapshot>,
    gauges: BTreeMap<SubscriptionId, SubscriptionView>,
    now_ms: u64,
}

impl<'a> Pending<'a> {
    pub(super) fn new(ports: &'a Ports, wires: &'a Wires) -> Self {
        let gauges = wires.gauges.views().into_iter().map(|view| (view.subscription_id, view)).collect();
        Self { ports, wires, snapshot: wires.config.current(), gauges, now_ms: ports.clock.now_ms() }
    }

    /// Of a delivery that could go on since then, milliseconds since 1970.
    fn stand(&self, plan: &Plan, since_ms: u64) -> Stand {
        let id = plan.subscription.id;
        let Some(view) = self.gauges.get(&id).filter(|_| plan.running && self.wires.deliveries.holds(id)) else {
            return Stand::Waits(Waits::Flow(WaitingFor::Activation));
        };
        match view.waiting_for {
            WaitingFor::Nothing if view.in_flight > 0 => Stand::UnderWay,
            WaitingFor::Nothing if since_ms.saturating_add(FRESH_MS) > self.now_ms => Stand::UnderWay,
            WaitingFor::Nothing => Stand::Idle,
            other => Stand::Waits(Waits::Flow(other)),
        }
    }

    /// The same of one whose next attempt has its time.
    fn stand_due(&self, plan: &Plan, due_ms: u64) -> Stand {
        if due_ms > self.now_ms { Stand::Waits(Waits::Retry) } else { self.stand(plan, due_ms) }
    }

    /// The same of an event that its integration has not taken in.
    fn stand_untaken(&self, event: EventId) -> Stand {
        match self.wires.intakes.holds(event.integration()) {
            false => Stand::Waits(Waits::Flow(WaitingFor::Activation)),
            true if event.millis().saturating_add(FRESH_MS) > self.now_ms => Stand::UnderWay,
            true => Stand::Idle,
        }
    }

    fn wake_integration(&self, id: IntegrationId) {
        self.wires.intakes.wake(id, || IntegrationMsg::Wake);
    }

    /// It reads on, takes what is due and begins what it may: all that its actor would do by itself.
    fn wake_subscription(&self, id: SubscriptionId) {
        self.wires.deliveries.hint(id, DeliveryMsg::Wake);
        self.wires.deliveries.hint(id, DeliveryMsg::Due);
    }

    /// Makes a retry due now that is not due yet; whether it is. What somebody else makes of it at the same time stands.
    async fn pull_forward(
        &self,
        subscription: SubscriptionId,
        event: EventId,
        due_ms: Option<u64>,
    ) -> Result<bool, LogError> {
        let now_ms = self.ports.clock.now_ms();
        let is_far = due_ms.is_some_and(|due_ms| due_ms > now_ms.saturating_add(FRESH_MS));
        if !is_far || !self.wires.deliveries.holds(subscription) {
            return Ok(false);
        }
        self.ports.log.commit(vec![StateOp::Forward { subscription, event, at_ms: now_ms }])?.await?;
        self.wires.retry.schedule(subscription, now_ms);
        Ok(true)
    }
}

/// A delivery that is neither done nor under way, as a result shows it.
#[derive(Serialize)]
struct Found {
    event_id: EventId,
    integration_id: IntegrationId,
    /// `None`: its integration has not taken it in.
    subscription_id: Option<SubscriptionId>,
    standing: Standing,
    /// `None`: nothing is known to keep it, so it was woken.
    waiting_for: Option<Waits>,
}

/// What a sweep has found so far: no more than `limit` of each subscription, and of all those the oldest.
struct Sweep {
    limit: usize,
    looked_at: usize,
    under_way: usize,
    woken: usize,
    waiting: BTreeMap<String, usize>,
    oldest: BTreeMap<(EventId, Option<SubscriptionId>), Found>,
}

impl Sweep {
    /// Whether it is idle.
    fn add(&mut self, event: EventId, subscription: Option<SubscriptionId>, standing: Standing, stand: Stand) -> bool {
        self.looked_at += 1;
        let waiting_for = match stand {
            Stand::UnderWay => {
                self.under_way += 1;
                return false;
            }
            Stand::Idle => {
                self.woken += 1;
                None
            }
            Stand::Waits(what) => {
                *self.waiting.entry(name_of(what)).or_default() += 1;
                Some(what)
            }
        };
        let found = Found {
            event_id: event,
            integration_id: event.integration(),
            subscription_id: subscription,
            standing,
            waiting_for,
        };
        self.oldest.insert((event, subscription), found);
        if self.oldest.len() > self.limit {
            self.oldest.pop_last();
        }
        stand == Stand::Idle
    }
}

/// Looks at `limit` unfinished events of each subscription, oldest first, and wakes each integration and subscription that
/// has any with nothing to wait for. An object: how many deliveries were `looked_at`, are `under_way`, were `woken`, and
/// are `waiting`, by what for; `events` are the `limit` oldest that are not under way.
pub(super) async fn sweep(pending: &Pending<'_>, limit: u32) -> Result<Value, LogError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut sweep =
        Sweep { limit, looked_at: 0, under_way: 0, woken: 0, waiting: BTreeMap::new(), oldest: BTreeMap::new() };
    for integration in pending.snapshot.configuration.integrations.keys() {
        let intake = pending.ports.state.intake(*integration).await?;
        let mut idle = false;
        for event in pending.ports.log.following(Some(*integration), intake, limit).await? {
            idle |= sweep.add(event, None, Standing::Pending, pending.stand_untaken(event));
        }
        if idle {
            pending.wake_integration(*integration);
        }
        for plan in pending.snapshot.plans_of(*integration) {
            if of_subscription(pending, plan, intake, &mut sweep).await? {
                pending.wake_subscription(plan.subscription.id);
            }
        }
    }
    let Sweep { looked_at, under_way, woken, waiting, oldest, .. } = sweep;
    let (events, events_left_out) = that_fit(oldest.into_values());
    Ok(json!({
        "limit": limit,
        "looked_at": looked_at,
        "under_way": under_way,
        "woken": woken,
        "waiting": waiting,
        "events": events,
        "events_left_out": events_left_out,
    }))
}

/// Whether any of a subscription's unfinished deliveries is idle.
async fn of_subscription(
    pending: &Pending<'_>,
    plan: &Plan,
    intake: EventId,
    sweep: &mut Sweep,
) -> Result<bool, LogError> {
    let Pending { ports, .. } = pending;
    let (id, limit, mut idle) = (plan.subscription.id, sweep.limit, false);
    let position = ports.state.position(id).await?.unwrap_or_default();
    for event in position.open.iter().take(limit) {
        idle |= sweep.add(*event, Some(id), Standing::Processing, pending.stand(plan, event.millis()));
    }
    let read_upto = position.read_upto.max(plan.subscription.start_after);
    if read_upto < intake {
        let unread = ports.log.following(Some(plan.subscription.integration_id), read_upto, limit).await?;
        for event in unread.into_iter().filter(|event| *event <= intake) {
            idle |= sweep.add(event, Some(id), Standing::Pending, pending.stand(plan, event.millis()));
        }
    }
    for due in ports.state.due(id, u64::MAX, limit).await? {
        idle |= sweep.add(due.event, Some(id), Standing::Retrying, pending.stand_due(plan, due.due_ms));
    }
    if pending.gauges.get(&id).is_some_and(|view| view.parked > 0) {
        for event in parked(&*ports.state, id, limit).await? {
            sweep.add(event, Some(id), Standing::Parked, Stand::Waits(Waits::Order));
        }
    }
    Ok(idle)
}

async fn parked(state: &dyn StateStore, id: SubscriptionId, limit: usize) -> Result<Vec<EventId>, LogError> {
    let mut held: Vec<EventId> = state.lanes(id).await?.into_iter().map(|held| held.event).collect();
    held.sort_unstable();
    let known = state.deliveries(id, &held).await?;
    let is_parked = |known: &Known| matches!(known, Known::Record(record) if record.status == DeliveryStatus::Parked);
    Ok(held.into_iter().zip(known).filter(|(_, known)| is_parked(known)).map(|(event, _)| event).take(limit).collect())
}

/// A delivery of the event that was asked about, as a result shows it.
#[derive(Serialize)]
struct Delivery {
    subscription_id: SubscriptionId,
    standing: Standing,
    /// What keeps it; `None` where it is done, under way, or free to go on.
    waiting_for: Option<Waits>,
    woken: bool,
    /// To its next attempt, seconds.
    next_attempt_in_s: Option<u64>,
}

/// Looks where an event stands and wakes those of its deliveries that wait for nothing but the time of their next attempt,
/// which is now. An object: the event's `status`, in the words of the module before hookmill; how many were `woken`; its
/// `deliveries`.
pub(super) async fn one_event(pending: &Pending<'_>, event: EventId) -> Result<Value, LogError> {
    let Pending { ports, .. } = pending;
    let integration = event.integration();
    let note = ports.state.note(event).await?;
    let intake = ports.state.intake(integration).await?;
    let mut deliveries = Vec::new();
    for plan in pending.snapshot.plans_of(integration) {
        let (id, start_after) = (plan.subscription.id, plan.subscription.start_after);
        let look = look(&*ports.state, id, start_after, event, note.as_ref()).await?;
        let Some(standing) = look.standing else { continue };
        let (mut woken, mut due_ms) = (false, None);
        let stand = match (standing, look.record) {
            (Standing::Pending | Standing::Processing, _) => pending.stand(plan, event.millis()),
            (Standing::Retrying, Some(record)) => {
                due_ms = record.due_ms;
                woken = plan.running && pending.pull_forward(id, event, due_ms).await?;
                if woken {
                    due_ms = Some(pending.now_ms);
                }
                // Its destination may keep it all the same.
                pending.stand_due(plan, due_ms.unwrap_or(0))
            }
            (Standing::Parked, _) => Stand::Waits(Waits::Order),
            _ => Stand::UnderWay,
        };
        if stand == Stand::Idle {
            pending.wake_subscription(id);
            woken = true;
        }
        deliveries.push(Delivery {
            subscription_id: id,
            standing,
            waiting_for: if let Stand::Waits(what) = stand { Some(what) } else { None },
            woken,
            next_attempt_in_s: due_ms.map(|due_ms| due_ms.saturating_sub(pending.now_ms).div_ceil(1_000)),
        });
    }
    let is_untaken = intake < event;
    let woken = if is_untaken && pending.stand_untaken(event) == Stand::Idle {
        pending.wake_integration(integration);
        1
    } else {
        deliveries.iter().filter(|delivery| delivery.woken).count()
    };
    let status = match (is_untaken, deliveries.is_empty()) {
        (true, true) => Processing::Pending,
        _ => Processing::of_all(deliveries.iter().map(|delivery| delivery.standing.processing())),
    };
    let (deliveries, deliveries_left_out) = that_fit(deliveries);
    Ok(json!({
        "event_id": event,
        "status": status,
        "woken": woken,
        "deliveries": deliveries,
        "deliveries_left_out": deliveries_left_out,
    }))
}
