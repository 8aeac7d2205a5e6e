//! The dead letter: `/api/v1/deadletters`. What needs an operator, and the way to send it again.

use axum::{extract::State, http::StatusCode, response::Response};
use hookmill_actors::{
    domain::{
        config::Configuration,
        delivery::{DeadLetter, DeadReason},
        ids::{EventId, SubscriptionId},
    },
    ports::{event_log::LogError, state_store::StateStore},
};
use serde::Serialize;

use super::{
    Api,
    auth::Author,
    form::Form,
    json::{OptionalJson, quoted},
    paging::{Params, Slice},
    problem::{Code, Problem},
    resource::{Segments, json, time},
};

/// A dead letter as replies show it.
#[derive(Debug, Serialize)]
struct View {
    subscription_id: u32,
    event_id: EventId,
    integration_id: u32,
    /// `null` where the subscription was deleted.
    subscription: Option<String>,
    destination_id: Option<u32>,
    reason: DeadReason,
    error: String,
    attempts: u32,
    at: String,
    event_url: String,
}

/// `GET /api/v1/deadletters`: by subscription and event, after `after`.
pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let limit = params.limit()?;
    let subscription = params.parsed("subscription_id", "a number")?.map(SubscriptionId);
    let after = params.text("after")?.map(|text| Place::parse(&text)).transpose()?;
    params.finish()?;
    let (letters, next) = slice(&*api.tree.ports().state, subscription, after, limit).await?;
    let snapshot = api.tree.config().current();
    let items = letters.into_iter().map(|letter| view(letter, &snapshot.configuration)).collect();
    Ok(json(StatusCode::OK, &Slice { items, limit, next: next.map(|place| place.to_string()) }))
}

/// `GET /api/v1/deadletters/{subscription_id}/{event_id}`
pub(super) async fn one(
    State(api): State<Api>,
    Segments((subscription, event)): Segments<(SubscriptionId, EventId)>,
) -> Result<Response, Problem> {
    let letter = api.tree.ports().state.dead_letter(subscription, event).await?.ok_or_else(|| {
        Problem::new(
            Code::NotFound,
            format!("there is no dead letter of event {event} for subscription {subscription}"),
        )
    })?;
    Ok(json(StatusCode::OK, &view(letter, &api.tree.config().current().configuration)))
}

#[derive(Serialize)]
struct Queued {
    status: &'static str,
    subscription_id: SubscriptionId,
    event_id: EventId,
}

/// `POST /api/v1/deadletters/{subscription_id}/{event_id}/replay`: it is delivered again under the same `webhook-id`.
pub(super) async fn replay(
    State(api): State<Api>,
    Author(author): Author,
    Segments((subscription, event)): Segments<(SubscriptionId, EventId)>,
    OptionalJson(body): OptionalJson,
) -> Result<Response, Problem> {
    Form::new(body)?.finish(|| Some(()))?;
    api.tree.replay(&author, subscription, event).await?;
    Ok(json(StatusCode::ACCEPTED, &Queued { status: "queued", subscription_id: subscription, event_id: event }))
}

/// A place in the order of dead letters: `3:019ab3f0-...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(SubscriptionId, EventId);

impl Place {
    fn parse(text: &str) -> Result<Self, Problem> {
        let parts = text.split_once(':').and_then(|(subscription, event)| {
            Some(Self(SubscriptionId(subscription.parse().ok()?), event.parse().ok()?))
        });
        parts.ok_or_else(|| {
            let detail =
                format!("query parameter `after` must be the `next` of an earlier reply; it is `{}`", quoted(text));
            Problem::new(Code::InvalidRequest, detail)
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

/// A part of the list, and where the following part begins.
async fn slice(
    state: &dyn StateStore,
    subscription: Option<SubscriptionId>,
    after: Option<Place>,
    limit: usize,
) -> Result<(Vec<DeadLetter>, Option<Place>), LogError> {
    let first = subscription.map(|subscription| Place(subscription, EventId::ZERO));
    let after = match (first, after) {
        // A cursor of another subscription's list is behind or beyond this one's.
        (Some(first), Some(after)) if after.0 < first.0 => Some(first),
        (first, after) => after.or(first),
    };
    let mut letters = state.dead_letters(after.map(|place| (place.0, place.1)), limit).await?;
    let read = letters.len();
    if let Some(subscription) = subscription {
        letters.retain(|letter| letter.subscription == subscription);
    }
    let is_last = read < limit || letters.len() < read;
    let next = letters.last().map(|letter| Place(letter.subscription, letter.event));
    Ok((letters, if is_last { None } else { next }))
}

fn view(letter: DeadLetter, configuration: &Configuration) -> View {
    let subscription = configuration.subscriptions.get(&letter.subscription);
    View {
        subscription_id: letter.subscription.0,
        event_id: letter.event,
        integration_id: letter.event.integration().0,
        subscription: subscription.map(|subscription| subscription.name.clone()),
        destination_id: subscription.map(|subscription| subscription.destination_id.0),
        reason: letter.reason,
        error: letter.error,
        attempts: letter.attempts,
        at: time(letter.at_ms),
        event_url: format!("/api/v1/events/{}", letter.event),
    }
}

#[cfg(test)]
mod tests {
    use hookmill_actors::domain::ids::IntegrationId;

    use super::{
        super::{subscriptions::tests::subscription, testing::MemoryState},
        *,
    };

    fn letter(subscription: u32, sequence: u128) -> DeadLetter {
        DeadLetter {
            event: EventId::from_parts(sequence, IntegrationId(1), 0),
            subscription: SubscriptionId(subscription),
            reason: DeadReason::AttemptsExhausted,
            error: "500".to_owned(),
            at_ms: 0,
            attempts: 10,
        }
    }

    fn state() -> MemoryState {
        let letters = [letter(1, 1), letter(1, 2), letter(2, 1), letter(2, 2), letter(2, 3), letter(3, 1)];
        MemoryState {
            dead: letters.into_iter().map(|it| ((it.subscription, it.event), it)).collect(),
            ..MemoryState::default()
        }
    }

    async fn walk(subscription: Option<u32>, limit: usize) -> Vec<Vec<u32>> {
        let state = state();
        let mut after = None;
        let mut pages = Vec::new();
        loop {
            let (letters, next) =
                slice(&state, subscription.map(SubscriptionId), after, limit).await.expect("in memory");
            pages.push(letters.iter().map(|letter| letter.subscription.0).collect());
            match next {
                Some(next) => after = Some(Place::parse(&next.to_string()).expect("it was made here")),
                None => return pages,
            }
        }
    }

    #[tokio::test]
    async fn pages_meet_without_gap_or_overlap() {
        assert_eq!(walk(None, 4).await, [vec![1, 1, 2, 2], vec![2, 3]]);
        assert_eq!(walk(None, 100).await, [vec![1, 1, 2, 2, 2, 3]]);
        assert_eq!(walk(Some(2), 2).await, [vec![2, 2], vec![2]]);
        assert_eq!(walk(Some(2), 3).await.concat(), [2, 2, 2]);
        assert_eq!(walk(Some(9), 2).await, [Vec::<u32>::new()]);
    }

    #[tokio::test]
    async fn a_foreign_cursor_lists_nothing_of_others() {
        let place = |subscription| Some(Place(SubscriptionId(subscription), EventId::ZERO));
        for (cursor, found) in [(1, 3), (2, 3), (3, 0)] {
            let (letters, _) = slice(&state(), Some(SubscriptionId(2)), place(cursor), 10).await.expect("in memory");
            assert_eq!(letters.len(), found, "{cursor}");
        }
    }

    #[test]
    fn a_cursor_is_what_a_reply_gave() {
        for wrong in ["", "3", "3:", "x:019ab3f0-0000-7000-8000-000000010000", ":019ab3f0-0000-7000-8000-000000010000"]
        {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_dead_letter_outlives_its_subscription() {
        let mut configuration = Configuration::default();
        let orphan = serde_json::to_value(view(letter(4, 1), &configuration)).expect("a view is JSON");
        assert!(orphan["subscription"].is_null() && orphan["destination_id"].is_null());
        configuration.subscriptions.insert(SubscriptionId(4), subscription(4, 1, EventId::ZERO).into());
        let held = serde_json::to_value(view(letter(4, 1), &configuration)).expect("a view is JSON");
        assert_eq!((&held["subscription"], &held["reason"]), (&"s".into(), &"attempts_exhausted".into()));
    }
}
