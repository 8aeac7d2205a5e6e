//! Dead letters in the document. The requests' types say the parameters and members that [`super`] reads.

use axum::http::StatusCode;
use hookmill_actors::domain::{delivery::DeadReason, ids::EventId};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{DiscardedMany, DiscardedView, Queued, View};
use crate::admin::{
    openapi::{Doc, EVENT, id, line},
    paging::{LimitParam, Slice},
    problem::Code,
};

fn example() -> Value {
    json!({
        "subscription_id": 1,
        "event_id": EVENT,
        "integration_id": 1,
        "subscription": "Payments to billing",
        "destination_id": 1,
        "reason": "attempts_exhausted",
        "error": "status 503",
        "attempts": 10,
        "at": "2026-01-31T08:00:00Z",
        "event_url": "/api/v1/events/019ab3f0-0000-7000-8000-000000010000",
    })
}

/// What the list may be narrowed by.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct ListParams {
    /// The `next` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{27}$", required = false)]
    after: String,
    #[param(schema_with = id, required = false)]
    integration_id: (),
    #[param(schema_with = id, required = false)]
    subscription_id: (),
    #[param(required = false)]
    reason: DeadReason,
    /// Not before this time.
    #[param(value_type = String, format = DateTime, required = false)]
    from: String,
    /// Before this time.
    #[param(value_type = String, format = DateTime, required = false)]
    to: String,
}

/// Which dead letters; every member narrows.
#[derive(ToSchema)]
#[schema(as = DeadLetterQuery)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct Query {
    #[schema(minimum = 1, required = false)]
    integration_id: u32,
    #[schema(minimum = 1, required = false)]
    subscription_id: u32,
    #[schema(required = false)]
    reason: DeadReason,
    /// Not before this time.
    #[schema(format = DateTime, required = false)]
    from: String,
    /// Before this time.
    #[schema(format = DateTime, required = false)]
    to: String,
}

/// Why a dead letter will not be delivered.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct Discard {
    #[schema(schema_with = line::<300>)]
    reason: (),
}

/// Which dead letters will not be delivered, and why.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct DiscardMany {
    #[schema(schema_with = line::<300>)]
    reason: (),
    #[schema(inline)]
    query: Query,
    /// The `next` of the call before.
    #[schema(pattern = "^[A-Za-z0-9_-]{27}$", required = false)]
    after: String,
}

pub(in crate::admin) fn list() -> Doc {
    Doc::new("list_dead_letters", "Dead letters, by subscription and event")
        .about("A page may be empty and yet have a `next`: one request looks at a bounded number of them.")
        .query::<LimitParam>()
        .query::<ListParams>()
        .list::<Slice<View>, View>(json!({"items": [example()], "limit": 100, "next": null}))
}

fn named(id: &'static str, summary: &'static str) -> Doc {
    Doc::new(id, summary).segment::<EventId>("event_id", EVENT)
}

pub(in crate::admin) fn one() -> Doc {
    named("get_dead_letter", "One dead letter").reply::<View>(StatusCode::OK, example())
}

pub(in crate::admin) fn replay() -> Doc {
    named("replay_dead_letter", "Delivers a dead letter again, under the same `webhook-id`")
        .empty_body()
        .reply::<Queued>(StatusCode::ACCEPTED, json!({"status": "queued", "subscription_id": 1, "event_id": EVENT}))
}

pub(in crate::admin) fn discard() -> Doc {
    named("discard_dead_letter", "Gives a dead letter up")
        .body::<Discard>(json!({"reason": "paid by hand"}))
        .reply::<DiscardedView>(StatusCode::OK, json!({"status": "discarded", "subscription_id": 1, "event_id": EVENT}))
        .refused(&[Code::Corrupt])
}

pub(in crate::admin) fn discard_many() -> Doc {
    Doc::new("discard_dead_letters", "Gives dead letters up, a bounded number a call")
        .about("Call it again with `after` until `next` is `null`.")
        .body::<DiscardMany>(json!({"reason": "paid by hand", "query": {"subscription_id": 1}}))
        .reply::<DiscardedMany>(StatusCode::OK, json!({"discarded": 17, "next": null}))
}
