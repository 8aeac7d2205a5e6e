//! What became of an event: with each subscription, attempt by attempt, and in all. The members of the module before
//! hookmill (`status`, `processing_attempts`, `error_message`, `processed_at`) stand beside hookmill's own.

use hookmill_actors::{
    domain::{
        config::{Configuration, Subscription},
        delivery::{Attempt, DeadLetter, DeadReason},
        ids::{EventId, SubscriptionId},
        standing::{Processing, Standing},
    },
    metrics::gauges::WaitingFor,
    ports::{
        event_log::LogError,
        state_store::{FirstTry, Note, StateStore},
    },
    replay::{Look, look},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::time;
use crate::admin::deadletters::REASONS;

/// What became of an event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventStory)]
pub(super) struct Story {
    /// `pending`, `processing`, `success` or `failure`: it is processed when every subscription is done with it.
    status: Processing,
    /// Of all deliveries.
    processing_attempts: u32,
    /// Of the first delivery that failed for good.
    error_message: Option<String>,
    /// When the last delivery was done; `null` while one is not, and where the time of one was not kept.
    #[schema(format = DateTime)]
    processed_at: Option<String>,
    deliveries: Vec<DeliveryView>,
}

#[cfg(test)]
impl Story {
    pub(super) fn status(&self) -> Processing {
        self.status
    }
}

impl Default for Story {
    fn default() -> Self {
        told(Processing::Success, Vec::new())
    }
}

/// What became of an event for one subscription.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(super) struct DeliveryView {
    subscription_id: u32,
    subscription: String,
    destination_id: u32,
    status: Standing,
    processing_status: Processing,
    /// Attempts since it was accepted, or last replayed.
    attempts: u32,
    /// Oldest first.
    latest_attempts: Vec<AttemptView>,
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    replay: bool,
    /// Of a dead one the `reason` of its dead letter; of a discarded one the operator's; of one that waits, what for,
    /// where that is not the destination.
    reason: Option<String>,
    /// Of one that is `pending`, `processing` or `retrying`: what keeps its subscription's next attempt from beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<WaitingFor>,
    /// Why it is not delivered, where it will not be.
    error_message: Option<String>,
    /// When it was done; `null` while it is not.
    #[schema(format = DateTime)]
    processed_at: Option<String>,
    #[serde(skip)]
    processed_at_ms: Option<u64>,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Attempt)]
struct AttemptView {
    #[schema(format = DateTime)]
    at: String,
    duration_ms: u32,
    status: Option<u16>,
    error: Option<String>,
    reply: Option<String>,
}

/// The event's story. Subscriptions that began after it are left out, unless it was replayed to them.
/// `waiting_for` says what a subscription waits for at the moment.
pub(super) async fn of(
    state: &dyn StateStore,
    configuration: &Configuration,
    event: EventId,
    note: Option<&Note>,
    waiting_for: impl Fn(SubscriptionId) -> WaitingFor,
) -> Result<Story, LogError> {
    let mut deliveries = Vec::new();
    for subscription in configuration.subscriptions.values() {
        if subscription.integration_id != event.integration() {
            continue;
        }
        let look = look(state, subscription.id, subscription.start_after, event, note).await?;
        let Some(standing) = look.standing else { continue };
        let letter = match standing {
            Standing::Dead => state.dead_letter(subscription.id, event).await?,
            _ => None,
        };
        let mut told = delivery(subscription, standing, look, letter.as_ref());
        if matches!(standing, Standing::Pending | Standing::Processing | Standing::Retrying) {
            told.waiting_for = Some(waiting_for(subscription.id)).filter(|what| *what != WaitingFor::Nothing);
        }
        deliveries.push(told);
    }
    let taken_in =
        if state.intake(event.integration()).await? >= event { Processing::Success } else { Processing::Pending };
    Ok(told(taken_in, deliveries))
}

/// `of_none` is the status of an event that nobody subscribes to.
fn told(of_none: Processing, deliveries: Vec<DeliveryView>) -> Story {
    let status = match deliveries.as_slice() {
        [] => of_none,
        some => Processing::of_all(some.iter().map(|delivery| delivery.processing_status)),
    };
    let is_done = matches!(status, Processing::Success | Processing::Failure);
    // Filtered and duplicate events were done with when they were read: nothing happened that has a time.
    let mut timed = deliveries.iter().filter(|it| !matches!(it.status, Standing::Filtered | Standing::Duplicate));
    let last_ms = timed.try_fold(None, |last: Option<u64>, delivery| {
        delivery.processed_at_ms.map(|at_ms| Some(last.map_or(at_ms, |last| last.max(at_ms))))
    });
    Story {
        status,
        processing_attempts: deliveries.iter().fold(0, |sum, delivery| sum.saturating_add(delivery.attempts)),
        error_message: deliveries.iter().find_map(|delivery| delivery.error_message.clone()),
        processed_at: last_ms.flatten().filter(|_| is_done).map(time),
        deliveries,
    }
}

fn delivery(
    subscription: &Subscription,
    standing: Standing,
    Look { record, first_try_at_ms, first_try, .. }: Look,
    letter: Option<&DeadLetter>,
) -> DeliveryView {
    let attempts = match (&record, standing) {
        (Some(record), _) => record.attempts,
        (None, Standing::Delivered) => 1,
        (None, _) => 0,
    };
    let (reason, replay, due_ms) =
        record.as_ref().map_or((None, false, None), |it| (it.reason.clone(), it.replay, it.due_ms));
    let latest = record.map_or_else(|| first_try.map(succeeded).into_iter().collect(), |record| record.latest);
    let error_message = match standing {
        Standing::Dead => letter.map(|it| it.error.clone()).or_else(|| last_error(&latest)),
        Standing::Discarded => Some(format!("discarded: {}", reason.as_deref().unwrap_or("no reason was given"))),
        Standing::Cancelled => Some("its subscription was deleted before it was delivered".to_owned()),
        _ => None,
    };
    let reason = match standing {
        Standing::Dead => letter.and_then(|it| reason_name(it.reason)).map(str::to_owned),
        Standing::Parked => Some(BEHIND.to_owned()),
        _ => reason,
    };
    let ended_ms = latest.last().map(|attempt| attempt.at_ms.saturating_add(u64::from(attempt.duration_ms)));
    let processed_at_ms = match standing {
        Standing::Dead => letter.map(|it| it.at_ms).or(ended_ms),
        Standing::Delivered => ended_ms.or(first_try_at_ms),
        _ => None,
    };
    DeliveryView {
        subscription_id: subscription.id.0,
        subscription: subscription.name.clone(),
        destination_id: subscription.destination_id.0,
        status: standing,
        processing_status: standing.processing(),
        attempts,
        latest_attempts: latest.into_iter().map(attempt).collect(),
        next_attempt_at: due_ms.filter(|_| !standing.is_settled()).map(time),
        replay,
        reason,
        waiting_for: None,
        error_message,
        processed_at: processed_at_ms.map(time),
        processed_at_ms,
    }
}

fn reason_name(reason: DeadReason) -> Option<&'static str> {
    REASONS.iter().find(|(_, it)| *it == reason).map(|(name, _)| *name)
}

/// Why a parked delivery waits.
const BEHIND: &str = "an earlier event of its order is not settled yet";

fn last_error(attempts: &[Attempt]) -> Option<String> {
    attempts.last().and_then(|attempt| attempt.error.clone())
}

fn succeeded(FirstTry { at_ms, duration_ms, status }: FirstTry) -> Attempt {
    Attempt { at_ms, duration_ms, status, error: None, reply: None }
}

fn attempt(attempt: Attempt) -> AttemptView {
    AttemptView {
        at: time(attempt.at_ms),
        duration_ms: attempt.duration_ms,
        status: attempt.status,
        error: attempt.error,
        reply: attempt.reply,
    }
}

#[cfg(test)]
mod tests {
    use hookmill_actors::{
        domain::{
            delivery::{DeliveryRecord, DeliveryStatus, Position},
            ids::IntegrationId,
        },
        ports::state_store::{Mark, StateOp},
        testkit::memory_state::MemoryState,
    };

    use super::{super::super::subscriptions::tests::subscription, *};

    fn id(sequence: u128) -> EventId {
        EventId::from_parts(sequence, IntegrationId(1), 7)
    }

    fn record(status: DeliveryStatus, error: Option<&str>) -> DeliveryRecord {
        let mut record = DeliveryRecord { status, ..DeliveryRecord::new(1) };
        let error = error.map(str::to_owned);
        record.push(Attempt { at_ms: 1_000, duration_ms: 500, status: Some(500), error, reply: None });
        record
    }

    fn taken_in(note: Note) -> StateOp {
        StateOp::Intake { integration: IntegrationId(1), upto: id(90), notes: vec![note] }
    }

    fn read_upto(number: u32, sequence: u128) -> StateOp {
        let position = Position { read_upto: id(sequence), open: vec![id(sequence)] };
        StateOp::Position { subscription: SubscriptionId(number), position }
    }

    async fn story(numbers: &[(u32, u128)], ops: &[StateOp]) -> Story {
        let state = MemoryState::default();
        state.apply(ops);
        let mut configuration = Configuration::default();
        for (number, start_after) in numbers {
            let made = subscription(*number, 1, id(*start_after));
            configuration.subscriptions.insert_mut(SubscriptionId(*number), made.into());
        }
        let foreign = subscription(99, 2, EventId::ZERO);
        configuration.subscriptions.insert_mut(SubscriptionId(99), foreign.into());
        let note = state.note(id(50)).await.expect("in memory");
        let waiting_for = |subscription| match subscription {
            SubscriptionId(1 | 2 | 4 | 9) => WaitingFor::Breaker,
            _ => WaitingFor::Nothing,
        };
        of(&state, &configuration, id(50), note.as_ref(), waiting_for).await.expect("in memory")
    }

    fn op(number: u32, record: DeliveryRecord) -> StateOp {
        StateOp::Delivery { subscription: SubscriptionId(number), event: id(50), record }
    }

    #[tokio::test]
    async fn each_subscription_tells_where_it_stands() {
        let retrying = DeliveryRecord {
            due_ms: Some(0),
            reason: Some("waits for its engine".to_owned()),
            ..record(DeliveryStatus::Retrying, Some("answered 500"))
        };
        let discarded =
            DeliveryRecord { reason: Some("a test order".to_owned()), ..record(DeliveryStatus::Discarded, Some("x")) };
        let ops = [
            taken_in(Note { event: id(50), event_type: Some("a".into()), ..Note::default() }),
            StateOp::Delivered {
                subscription: SubscriptionId(1),
                events: vec![id(50)],
                at_ms: None,
                attempts: Vec::new(),
            },
            op(2, retrying),
            read_upto(3, 40),
            read_upto(4, 50),
            read_upto(5, 80),
            op(6, discarded),
            op(8, record(DeliveryStatus::Delivered, None)),
            op(9, DeliveryRecord { status: DeliveryStatus::Parked, ..DeliveryRecord::new(1) }),
        ];
        let all = [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 60), (8, 60), (9, 0)];
        let story = story(&all, &ops).await;
        let told: Vec<_> = story.deliveries.iter().map(|it| (it.subscription_id, it.status, it.attempts)).collect();
        assert_eq!(
            told,
            [
                (1, Standing::Delivered, 1),
                (2, Standing::Retrying, 1),
                (3, Standing::Pending, 0),
                (4, Standing::Processing, 0),
                (5, Standing::Filtered, 0),
                (6, Standing::Discarded, 1),
                (8, Standing::Delivered, 1),
                (9, Standing::Parked, 0),
            ],
            "7 began later; 8 did too, and got it by a replay"
        );
        assert_eq!(story.deliveries[1].next_attempt_at.as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(story.deliveries[1].latest_attempts[0].status, Some(500));
        let reasons: Vec<_> = story.deliveries.iter().filter_map(|it| it.reason.as_deref()).collect();
        assert_eq!(reasons, ["waits for its engine", "a test order", BEHIND]);
        let waiting = story.deliveries.iter().filter(|it| it.waiting_for == Some(WaitingFor::Breaker));
        let waiting: Vec<u32> = waiting.map(|it| it.subscription_id).collect();
        assert_eq!(waiting, [2, 4], "what is delivered or parked does not wait for the breaker");
        assert_eq!(story.error_message.as_deref(), Some("discarded: a test order"));
        assert_eq!((story.status, story.processed_at), (Processing::Processing, None));
        assert_eq!(story.processing_attempts, 4);
    }

    #[tokio::test]
    async fn it_is_processed_when_every_subscription_is_done() {
        let letter = DeadLetter {
            event: id(50),
            subscription: SubscriptionId(2),
            reason: DeadReason::AttemptsExhausted,
            error: "answered 500".to_owned(),
            at_ms: 9_000,
            attempts: 1,
        };
        let note = || taken_in(Note { event: id(50), event_type: Some("a".into()), ..Note::default() });
        let delivered = op(1, record(DeliveryStatus::Delivered, None));
        let dead = op(2, record(DeliveryStatus::Dead, Some("answered 500")));
        let ops = [note(), delivered.clone(), dead, StateOp::Dead(letter), read_upto(3, 80)];
        let failed = story(&[(1, 0), (2, 0), (3, 0)], &ops).await;
        assert_eq!((failed.status, failed.error_message.as_deref()), (Processing::Failure, Some("answered 500")));
        assert_eq!(failed.processed_at.as_deref(), Some("1970-01-01T00:00:09Z"));
        assert_eq!(failed.deliveries[1].reason.as_deref(), Some("attempts_exhausted"), "as its dead letter says");
        let done = story(&[(1, 0), (3, 0)], &[note(), delivered, read_upto(3, 80)]).await;
        assert_eq!((done.status, done.processed_at.as_deref()), (Processing::Success, Some("1970-01-01T00:00:01.5Z")));
        let first_try = |number, at_ms| {
            let subscription = SubscriptionId(number);
            StateOp::Delivered { subscription, events: vec![id(50)], at_ms, attempts: Vec::new() }
        };
        let attempts = vec![FirstTry { at_ms: 900, duration_ms: 70, status: Some(202) }];
        let kept =
            StateOp::Delivered { subscription: SubscriptionId(1), events: vec![id(50)], at_ms: Some(1_000), attempts };
        let told = story(&[(1, 0)], &[note(), kept]).await;
        let shown: Vec<_> = told.deliveries[0].latest_attempts.iter().map(|it| (it.duration_ms, it.status)).collect();
        assert_eq!((shown, told.processed_at.as_deref()), (vec![(70, Some(202))], Some("1970-01-01T00:00:00.97Z")));
        let timed = [note(), first_try(1, Some(2_000)), first_try(2, Some(3_000))];
        let told = story(&[(1, 0), (2, 0)], &timed).await;
        assert_eq!(told.deliveries[0].processed_at.as_deref(), Some("1970-01-01T00:00:02Z"));
        assert_eq!(told.processed_at.as_deref(), Some("1970-01-01T00:00:03Z"), "the last of them");
        let untimed = [note(), first_try(1, Some(2_000)), first_try(2, None)];
        assert_eq!(story(&[(1, 0), (2, 0)], &untimed).await.processed_at, None, "nobody knows which was the last");
    }

    #[tokio::test]
    async fn a_duplicate_is_done_and_an_event_without_subscriptions_is_done_once_taken_in() {
        let mark = Some(Mark::DuplicateOf(id(10)));
        let duplicate = taken_in(Note { event: id(50), mark, ..Note::default() });
        let told = story(&[(1, 0)], &[duplicate, read_upto(1, 80)]).await;
        assert_eq!((told.status, told.deliveries[0].status), (Processing::Success, Standing::Duplicate));
        let note = Note { event: id(50), ..Note::default() };
        assert_eq!(story(&[], &[taken_in(note)]).await.status, Processing::Success);
        assert_eq!(story(&[], &[]).await.status, Processing::Pending);
    }
}
