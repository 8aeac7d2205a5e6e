//! The dead letter: `/api/v1/deadletters`. What needs an operator, and the way to send it again.

pub(super) mod doc;

use axum::{http::StatusCode, response::Response};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hookmill_actors::{
    domain::{
        config::Configuration,
        delivery::{DeadLetter, DeadReason},
        ids::{EventId, IntegrationId, SubscriptionId},
        replay::DeadLetterFilter,
    },
    replay::{Discarded, Letters, letters},
    tree::ReplayError,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    access::{Author, State},
    fields::{line, moment, number, one_of, string},
    form::Form,
    json::{Json, NoMembers, OptionalJson, quoted},
    paging::{Params, Slice},
    problem::{Code, Problem},
    resource::{Segments, json, time},
};

/// A dead letter as replies show it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
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
    #[schema(format = DateTime)]
    at: String,
    event_url: String,
}

/// Why a dead letter is there, by name.
pub(super) const REASONS: [(&str, DeadReason); 8] = [
    ("attempts_exhausted", DeadReason::AttemptsExhausted),
    ("refused", DeadReason::Refused),
    ("expired", DeadReason::Expired),
    ("corrupt", DeadReason::Corrupt),
    ("filter_failed", DeadReason::FilterFailed),
    ("transform_failed", DeadReason::TransformFailed),
    ("provider_failed", DeadReason::ProviderFailed),
    ("poison", DeadReason::Poison),
];
/// Characters of the reason that an operator gives for a discard.
const REASON_CHARS_MAX: usize = 300;

/// `GET /api/v1/deadletters`: by subscription and event, after `after`. A page may be empty and yet have a `next`: one
/// request looks at a bounded number of letters.
pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let limit = params.limit()?;
    let filter = DeadLetterFilter {
        integration: params.id("integration_id")?.map(IntegrationId),
        subscription: params.id("subscription_id")?.map(SubscriptionId),
        reason: params.one_of("reason", &REASONS)?,
        from_ms: params.moment("from")?,
        to_ms: params.moment("to")?,
    };
    let after = params.text("after")?.map(|text| Place::parse(&text)).transpose()?;
    params.finish()?;
    let Letters { letters, next } =
        letters(&*api.tree.ports().state, &filter, after.map(|Place(whose, event)| (whose, event)), limit).await?;
    let snapshot = api.tree.config().current();
    let sight = api.sight(&snapshot.configuration);
    let seen = letters.into_iter().filter(|letter| sight.events_of(letter.event.integration()));
    let items = seen.map(|letter| view(letter, &snapshot.configuration)).collect();
    let next = next.map(|(subscription, event)| Place(subscription, api.place_of(event)).to_string());
    Ok(json(StatusCode::OK, &Slice { items, limit, next }))
}

/// Reads which dead letters are meant, as a member of a body.
pub(super) fn filter(form: &mut Form) -> DeadLetterFilter {
    DeadLetterFilter {
        integration: form.optional(&["integration_id"], number(1..=u32::MAX)).map(IntegrationId),
        subscription: form.optional(&["subscription_id"], number(1..=u32::MAX)).map(SubscriptionId),
        reason: form.optional(&["reason"], one_of(&REASONS)),
        from_ms: form.optional(&["from"], moment),
        to_ms: form.optional(&["to"], moment),
    }
}

impl Api {
    async fn letter(&self, subscription: SubscriptionId, event: EventId) -> Result<DeadLetter, Problem> {
        let letter = self.tree.ports().state.dead_letter(subscription, event).await?;
        letter.ok_or_else(|| ReplayError::NotFound { event, subscription }.into())
    }
}

/// `GET /api/v1/deadletters/{subscription_id}/{event_id}`
pub(super) async fn one(
    State(api): State<Api>,
    Segments((subscription, event)): Segments<(SubscriptionId, EventId)>,
) -> Result<Response, Problem> {
    let letter = api.letter(subscription, event).await?;
    Ok(json(StatusCode::OK, &view(letter, &api.tree.config().current().configuration)))
}

#[derive(Serialize, ToSchema)]
#[schema(as = QueuedDelivery)]
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
    api.letter(subscription, event).await?;
    NoMembers::read(body)?;
    api.tree.replay(&author, subscription, event).await?;
    Ok(json(StatusCode::ACCEPTED, &Queued { status: "queued", subscription_id: subscription, event_id: event }))
}

#[derive(Serialize, ToSchema)]
#[schema(as = DiscardedDelivery)]
struct DiscardedView {
    status: &'static str,
    subscription_id: SubscriptionId,
    event_id: EventId,
}

/// `POST /api/v1/deadletters/{subscription_id}/{event_id}/discard`: it will not be delivered, for the reason given.
pub(super) async fn discard(
    State(api): State<Api>,
    Author(author): Author,
    Segments((subscription, event)): Segments<(SubscriptionId, EventId)>,
    Json(body): Json,
) -> Result<Response, Problem> {
    api.letter(subscription, event).await?;
    let mut form = Form::new(body)?;
    let reason = form.required(&["reason"], line(1..=REASON_CHARS_MAX));
    let reason = form.finish(|| reason)?;
    api.tree.discard(&author, subscription, event, &reason).await?;
    Ok(json(StatusCode::OK, &DiscardedView { status: "discarded", subscription_id: subscription, event_id: event }))
}

#[derive(Serialize, ToSchema)]
#[schema(as = DiscardedDeliveries)]
struct DiscardedMany {
    discarded: u64,
    /// For `after` of the next call; `null` when nothing is left.
    next: Option<String>,
}

/// `POST /api/v1/deadletters/discard`: those that `query` means, a bounded number a call; called again with `after`
/// until `next` is `null`.
pub(super) async fn discard_many(
    State(api): State<Api>,
    Author(author): Author,
    Json(body): Json,
) -> Result<Response, Problem> {
    let mut form = Form::new(body)?;
    let reason = form.required(&["reason"], line(1..=REASON_CHARS_MAX));
    let after = form.optional(&["after"], |value| Place::read(&string(value)?));
    let filter = form.nested("query", filter);
    if filter.is_none() {
        form.fault("query", "is missing or no object; write `{}` for every dead letter there is");
    }
    let (reason, filter) = form.finish(|| reason.zip(filter))?;
    api.must_see_letters(&filter)?;
    let after = after.map(|Place(subscription, event)| (subscription, event));
    let Discarded { discarded, next } = api.tree.discard_many(&author, filter, after, &reason).await?;
    let next = next.map(|(subscription, event)| Place(subscription, event).to_string());
    Ok(json(StatusCode::OK, &DiscardedMany { discarded, next }))
}

/// A place in the order of dead letters; opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(SubscriptionId, EventId);

impl Place {
    fn parse(text: &str) -> Result<Self, Problem> {
        Self::read(text)
            .map_err(|detail| Problem::new(Code::InvalidRequest, format!("query parameter `after` {detail}")))
    }

    fn read(text: &str) -> Result<Self, String> {
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        let parts = bytes.split_first_chunk::<4>().and_then(|(subscription, event)| {
            let event = EventId::from_bytes(event.try_into().ok()?);
            Some(Self(SubscriptionId(u32::from_be_bytes(*subscription)), event))
        });
        parts.ok_or_else(|| format!("must be the `next` of an earlier reply; it is `{}`", quoted(text)))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = [self.0.0.to_be_bytes().as_slice(), self.1.to_bytes().as_slice()].concat();
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
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
        let filter = DeadLetterFilter { subscription: subscription.map(SubscriptionId), ..DeadLetterFilter::default() };
        let mut after = None;
        let mut pages = Vec::new();
        loop {
            let Letters { letters, next } = letters(&state, &filter, after, limit).await.expect("in memory");
            pages.push(letters.iter().map(|letter| letter.subscription.0).collect());
            let Some(next) = next else { return pages };
            let Place(subscription, event) =
                Place::parse(&Place(next.0, next.1).to_string()).expect("it was made here");
            after = Some((subscription, event));
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
        let filter = DeadLetterFilter { subscription: Some(SubscriptionId(2)), ..DeadLetterFilter::default() };
        for (cursor, found) in [(1, 3), (2, 3), (3, 0)] {
            let after = Some((SubscriptionId(cursor), EventId::ZERO));
            let Letters { letters, .. } = letters(&state(), &filter, after, 10).await.expect("in memory");
            assert_eq!(letters.len(), found, "{cursor}");
        }
    }

    #[tokio::test]
    async fn one_request_looks_at_a_bounded_number_and_says_where_to_go_on() {
        let many = (0..3_000).map(|n| letter(1, n)).map(|it| ((it.subscription, it.event), it)).collect();
        let state = MemoryState { dead: many, ..MemoryState::default() };
        let none = DeadLetterFilter { reason: Some(DeadReason::Poison), ..DeadLetterFilter::default() };
        let (mut after, mut pages) = (None, 0);
        loop {
            let Letters { letters, next } = letters(&state, &none, after, 10).await.expect("in memory");
            assert!(letters.is_empty() && (next.is_none() || next > after), "{next:?} after {after:?}");
            pages += 1;
            match next {
                Some(_) => after = next,
                None => break,
            }
        }
        assert!((2..=6).contains(&pages), "{pages} requests for 3,000 letters");
    }

    #[test]
    fn a_cursor_is_what_a_reply_gave() {
        for wrong in ["", "3", "3:", "AAAA", "3:019ab3f0-0000-7000-8000-000000010000", "AAAAAQAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_dead_letter_outlives_its_subscription() {
        let mut configuration = Configuration::default();
        let orphan = serde_json::to_value(view(letter(4, 1), &configuration)).expect("a view is JSON");
        assert!(orphan["subscription"].is_null() && orphan["destination_id"].is_null());
        configuration.subscriptions.insert_mut(SubscriptionId(4), subscription(4, 1, EventId::ZERO).into());
        let held = serde_json::to_value(view(letter(4, 1), &configuration)).expect("a view is JSON");
        assert_eq!((&held["subscription"], &held["reason"]), (&"s".into(), &"attempts_exhausted".into()));
    }
}
