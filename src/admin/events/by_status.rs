//! What became of events, looked up for one after the other. No index says which stand at a wanted status.

use std::collections::{BTreeMap, HashMap};

use hookmill_actors::{
    domain::{
        config::{Configuration, Subscription},
        delivery::Position,
        ids::{EventId, IntegrationId},
        standing::{Processing, Standing},
    },
    ports::{event_log::LogError, state_store::StateStore},
    replay::look_of,
};

/// What an event's status is called.
pub(super) const STATUSES: [(&str, Processing); 4] = [
    ("pending", Processing::Pending),
    ("processing", Processing::Processing),
    ("success", Processing::Success),
    ("failure", Processing::Failure),
];

/// Deliveries that are looked up for the items of one page: a hundred subscriptions of each of a hundred events.
const DELIVERIES_MAX: usize = 10_000;

/// Looks up one event after the other. Positions are read once, and before any outcome: what they say is settled has
/// its outcome stored.
pub(super) struct Lookup<'a> {
    state: &'a dyn StateStore,
    configuration: &'a Configuration,
    known: HashMap<IntegrationId, Known<'a>>,
}

struct Known<'a> {
    intake: EventId,
    subscriptions: Vec<(&'a Subscription, Position)>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(state: &'a dyn StateStore, configuration: &'a Configuration) -> Self {
        Self { state, configuration, known: HashMap::new() }
    }

    /// The same as [`Lookup::statuses`], for the first of these events that have at most [`DELIVERIES_MAX`] deliveries
    /// together; `None` for the rest.
    pub(super) async fn statuses_of_page(&mut self, events: &[EventId]) -> Result<Vec<Option<Processing>>, LogError> {
        let mut counts: HashMap<IntegrationId, usize> = events.iter().map(|event| (event.integration(), 0)).collect();
        for subscription in self.configuration.subscriptions.values() {
            if let Some(count) = counts.get_mut(&subscription.integration_id) {
                *count += 1;
            }
        }
        let mut deliveries = 0;
        let has_room = |event: &&EventId| {
            deliveries += counts[&event.integration()];
            deliveries <= DELIVERIES_MAX
        };
        let first = events.iter().take_while(has_room).count();
        let statuses = self.statuses(&events[..first]).await?;
        let rest = events[first..].iter().map(|_| None);
        Ok(statuses.into_iter().map(Some).chain(rest).collect())
    }

    /// The statuses that the events' own pages tell, in their order.
    pub(super) async fn statuses(&mut self, events: &[EventId]) -> Result<Vec<Processing>, LogError> {
        let mut standings: Vec<Vec<Standing>> = vec![Vec::new(); events.len()];
        let mut of: BTreeMap<IntegrationId, Vec<usize>> = BTreeMap::new();
        for (place, event) in events.iter().enumerate() {
            of.entry(event.integration()).or_default().push(place);
        }
        self.learn(of.keys()).await?;
        for (integration, places) in &of {
            let Some(known) = self.known.get(integration) else { continue };
            let own: Vec<EventId> = places.iter().map(|place| events[*place]).collect();
            for (subscription, position) in &known.subscriptions {
                let deliveries = self.state.deliveries(subscription.id, &own).await?;
                for (place, delivery) in places.iter().zip(deliveries) {
                    // Without its note a duplicate counts as left out by the selection: either way it is done with.
                    let look = look_of(delivery, subscription.start_after, position, events[*place], None);
                    standings[*place].extend(look.standing);
                }
            }
        }
        let status = |(event, standings): (&EventId, Vec<Standing>)| match standings.as_slice() {
            [] if self.known.get(&event.integration()).is_some_and(|known| known.intake >= *event) => {
                Processing::Success
            }
            [] => Processing::Pending,
            some => Processing::of_all(some.iter().map(|standing| standing.processing())),
        };
        Ok(events.iter().zip(standings).map(status).collect())
    }

    /// Reads what is not known yet of these integrations, in one walk over all subscriptions.
    async fn learn(&mut self, integrations: impl Iterator<Item = &IntegrationId>) -> Result<(), LogError> {
        let mut learned = HashMap::new();
        for integration in integrations.filter(|id| !self.known.contains_key(id)) {
            let intake = self.state.intake(*integration).await?;
            learned.insert(*integration, Known { intake, subscriptions: Vec::new() });
        }
        if learned.is_empty() {
            return Ok(());
        }
        for subscription in self.configuration.subscriptions.values() {
            if let Some(known) = learned.get_mut(&subscription.integration_id) {
                let position = self.state.position(subscription.id).await?.unwrap_or_default();
                known.subscriptions.push((&**subscription, position));
            }
        }
        self.known.extend(learned);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use axum::body::Bytes;
    use hookmill_actors::{
        domain::{
            delivery::{DeliveryRecord, DeliveryStatus},
            event::{Arrival, NewEvent},
            headers::HeaderBlock,
            ids::{EndpointId, SubscriptionId},
        },
        metrics::gauges::WaitingFor,
        ports::{
            event_log::EventLog,
            state_store::{Mark, Note, NoteFilter, StateOp},
        },
        router::CommitBoard,
        testkit::{memory_log::MemoryLog, memory_state::MemoryState},
    };
    use proptest::prelude::*;

    use super::{
        super::{
            super::{subscriptions::tests::subscription, testing::FixedClock},
            scan::{self, Bounds, Criteria},
            story,
        },
        *,
    };

    const SHOP: IntegrationId = IntegrationId(1);
    const ALL: [Processing; 4] =
        [Processing::Pending, Processing::Processing, Processing::Success, Processing::Failure];

    /// A log with an event of each of these integrations, and their ids.
    async fn log(state: &MemoryState, integrations: impl Iterator<Item = u32>) -> (MemoryLog, Vec<EventId>) {
        let log = MemoryLog::new(state.clone(), Arc::new(CommitBoard::default()), Arc::new(FixedClock(1_000)));
        let mut ids = Vec::new();
        for integration in integrations {
            let arrival = Arrival {
                endpoint: EndpointId(1),
                received_at_ms: 1_000,
                accepted_version: 1,
                peer: [192, 0, 2, 1].into(),
                hops: 0,
                query: "".into(),
                headers: HeaderBlock::default(),
                body: Bytes::new(),
            };
            let event = NewEvent { integration: IntegrationId(integration), arrival };
            ids.push(log.append(event).expect("there is room").await.expect("it is in memory"));
        }
        (log, ids)
    }

    fn whole(found: usize) -> Bounds {
        Bounds { found, looked_at: 10_000, bytes: usize::MAX, time: Duration::from_secs(3_600) }
    }

    /// What was found, and where the next request goes on.
    type Found = (Vec<(EventId, Processing)>, Option<EventId>);

    async fn find(
        ports: (&dyn EventLog, &dyn StateStore),
        configuration: &Configuration,
        integration: Option<IntegrationId>,
        wanted: &[Processing],
        before: EventId,
        bounds: Bounds,
    ) -> Result<Found, LogError> {
        let criteria = Criteria {
            noted: NoteFilter { integration, ..NoteFilter::default() },
            statuses: Some(wanted.to_vec()),
            ..Criteria::default()
        };
        let found = scan::find(ports, configuration, &criteria, before, bounds).await?;
        assert!(found.scanned.events <= bounds.looked_at);
        let with_status = |(id, status): (EventId, Option<Processing>)| (id, status.expect("it was asked for"));
        Ok((found.events.into_iter().map(with_status).collect(), found.next))
    }

    /// Subscriptions 1 and 2 are of the shop, the second from event `start` on; nobody subscribes to integration 2.
    fn configuration(start: EventId) -> Configuration {
        let mut configuration = Configuration::default();
        for (number, start_after) in [(1, EventId::ZERO), (2, start)] {
            configuration.subscriptions.insert_mut(SubscriptionId(number), subscription(number, 1, start_after).into());
        }
        configuration
    }

    fn outcome(number: u32, event: EventId, kind: u8) -> Option<StateOp> {
        let status = match kind {
            0 => return None,
            1 => {
                let subscription = SubscriptionId(number);
                return Some(StateOp::Delivered {
                    subscription,
                    events: vec![event],
                    at_ms: None,
                    attempts: Vec::new(),
                });
            }
            2 => DeliveryStatus::Retrying,
            3 => DeliveryStatus::Dead,
            4 => DeliveryStatus::Parked,
            _ => DeliveryStatus::Delivered,
        };
        let record = DeliveryRecord { status, ..DeliveryRecord::new(1) };
        Some(StateOp::Delivery { subscription: SubscriptionId(number), event, record })
    }

    fn position(number: u32, read_upto: EventId, open: Vec<EventId>) -> StateOp {
        StateOp::Position { subscription: SubscriptionId(number), position: Position { read_upto, open } }
    }

    proptest! {
        /// Page by page, however short the pages: each event whose own page tells the wanted status is found once,
        /// newest first.
        #[test]
        fn pages_find_what_the_events_own_pages_tell(
            events in proptest::collection::vec((1u32..3, 0u8..6, 0u8..6, any::<bool>()), 1..60),
            read in [0usize..60, 0usize..60], taken_in in 0usize..60, start in 0usize..60,
            wanted in proptest::sample::subsequence(ALL.to_vec(), 1..4), only_shop in any::<bool>(),
            found_most in 1usize..5, looked_at in 1usize..9,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let state = MemoryState::default();
                let (log, ids) = log(&state, events.iter().map(|(of, ..)| *of)).await;
                let upto = |at: usize| ids[at % ids.len()];
                for (event, (_, first, second, duplicate)) in ids.iter().zip(&events) {
                    let mark = duplicate.then(|| Mark::DuplicateOf(ids[0]));
                    let notes = vec![Note { event: *event, mark, ..Note::default() }];
                    state.apply(&[StateOp::Intake { integration: event.integration(), upto: upto(taken_in), notes }]);
                    let outcomes = [outcome(1, *event, *first), outcome(2, *event, *second)];
                    state.apply(&outcomes.into_iter().flatten().collect::<Vec<_>>());
                }
                for (number, read) in (1..).zip(read.map(upto)) {
                    let open = ids.iter().copied().filter(|id| *id <= read).step_by(3).collect();
                    state.apply(&[position(number, read, open)]);
                }
                let configuration = configuration(upto(start));
                let integration = only_shop.then_some(SHOP);
                let mut want = Vec::new();
                for event in ids.iter().rev().filter(|id| !only_shop || id.integration() == SHOP) {
                    let note = state.note(*event).await.unwrap();
                    let status = story::of(&state, &configuration, *event, note.as_ref(), |_| WaitingFor::Nothing).await.unwrap().status();
                    want.extend(wanted.contains(&status).then_some((*event, status)));
                }
                let (mut found, mut before) = (Vec::new(), EventId::MAX);
                loop {
                    let bounds = Bounds { looked_at, ..whole(found_most) };
                    let page = find((&log, &state), &configuration, integration, &wanted, before, bounds).await.unwrap();
                    prop_assert!(page.0.len() <= found_most);
                    found.extend(page.0);
                    let Some(next) = page.1 else { break };
                    prop_assert!(next < before, "a page goes on");
                    before = next;
                }
                prop_assert_eq!(found, want);
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn a_page_with_too_many_deliveries_tells_the_first_statuses() {
        let state = MemoryState::default();
        let (_, ids) = log(&state, [1, 1, 2].into_iter()).await;
        let mut configuration = Configuration::default();
        let count = u32::try_from(DELIVERIES_MAX / 2 + 1).unwrap();
        for number in 1..=count {
            let made = subscription(number, 1, EventId::ZERO);
            configuration.subscriptions.insert_mut(SubscriptionId(number), made.into());
        }
        state.apply(&[position(count, ids[1], vec![ids[1]])]);
        let page = [ids[2], ids[1], ids[0]];
        let told = Lookup::new(&state, &configuration).statuses_of_page(&page).await.unwrap();
        assert_eq!(told, [Some(Processing::Pending), Some(Processing::Processing), None]);
    }

    #[tokio::test]
    async fn a_request_ends_in_time_and_says_where() {
        let state = MemoryState::default();
        let (log, ids) = log(&state, [1; 10].into_iter()).await;
        let configuration = configuration(EventId::ZERO);
        let bounds = Bounds { time: Duration::ZERO, ..whole(10) };
        let ports: (&dyn EventLog, &dyn StateStore) = (&log, &state);
        let found = find(ports, &configuration, None, &[Processing::Failure], EventId::MAX, bounds).await;
        assert_eq!(found, Ok((Vec::new(), Some(ids[9]))), "one is looked at all the same");
    }
}
