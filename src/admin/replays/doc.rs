//! Replays in the document. The requests' types say the parameters and members that [`super`] reads.

use axum::http::StatusCode;
use hookmill_actors::domain::{delivery::DeadReason, replay::ReplayStatus, selection::TYPE_PATTERNS_MAX};
use serde_json::{Value, json};
use utoipa::{
    IntoParams, ToSchema,
    openapi::schema::{Array, ArrayBuilder},
};

use super::View;
use crate::admin::{
    openapi::{Doc, EVENT, line},
    paging::{PageParams, Paged},
    problem::Code,
};

fn example() -> Value {
    json!({
        "id": 1,
        "status": "planned",
        "author": "admin",
        "created_at": "2026-01-31T08:00:00Z",
        "ended_at": null,
        "query": {
            "source": "dead_letters",
            "integration_id": null,
            "subscription_id": 1,
            "reason": null,
            "from": null,
            "to": null,
        },
        "target_subscription_id": null,
        "rate_per_s": 100,
        "start": false,
        "upto_event_id": EVENT,
        "plan": {
            "complete": true,
            "deliveries": 17,
            "sample": [{"subscription_id": 1, "event_id": EVENT}],
            "takes_s": 1,
        },
        "progress": {"replayed": 0, "skipped": 0, "remaining": 17, "remaining_s": 1},
        "note": null,
        "url": "/api/v1/replays/1",
    })
}

/// What the list may be narrowed by.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct ListParams {
    #[param(required = false)]
    status: ReplayStatus,
}

/// A replay that is wanted.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct NewReplay {
    query: QueryAsked,
    /// `null`: to the subscription that the query finds them with.
    #[schema(minimum = 1)]
    target_subscription_id: Option<u32>,
    #[schema(minimum = 1, maximum = 5_000, required = false)]
    rate_per_s: u32,
    /// It starts as soon as it is planned.
    #[schema(required = false)]
    start: bool,
}

/// What a replay covers.
#[derive(ToSchema)]
#[schema(as = NewReplayQuery)]
#[serde(tag = "source", rename_all = "snake_case")]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
enum QueryAsked {
    DeadLetters {
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
    },
    Events {
        #[schema(minimum = 1)]
        integration_id: u32,
        #[schema(minimum = 1)]
        subscription_id: u32,
        #[schema(schema_with = types, required = false)]
        types: (),
        #[schema(minimum = 1, required = false)]
        endpoint_id: u32,
        #[schema(required = false)]
        status: Standing,
        /// Not before this time.
        #[schema(format = DateTime, required = false)]
        from: String,
        /// Before this time.
        #[schema(format = DateTime, required = false)]
        to: String,
    },
}

fn types() -> Array {
    let about = "Patterns such as `payment.*`.";
    ArrayBuilder::new().items(line::<128>()).max_items(Some(TYPE_PATTERNS_MAX)).description(Some(about)).build()
}

#[derive(ToSchema)]
#[schema(as = ReplayStanding, rename_all = "snake_case")]
#[expect(dead_code, reason = "it is read from a table; this says its form")]
enum Standing {
    Any,
    Delivered,
    Dead,
    Filtered,
    Duplicate,
    Discarded,
    Cancelled,
}

#[derive(ToSchema)]
#[schema(as = ReplayCommand, rename_all = "snake_case")]
#[expect(dead_code, reason = "it is a part of a path; this says its form")]
enum Command {
    Start,
    Pause,
    Resume,
    Cancel,
}

pub(in crate::admin) fn list() -> Doc {
    Doc::new("list_replays", "Replays, newest first")
        .query::<PageParams>()
        .query::<ListParams>()
        .list::<Paged<View>, View>(json!({"items": [example()], "total": 1, "skip": 0, "limit": 100}))
}

pub(in crate::admin) fn create() -> Doc {
    Doc::new("create_replay", "Plans a replay")
        .about("It says how many, which and how long; with `start` it starts as soon as it is planned.")
        .body::<NewReplay>(json!({"query": {"source": "dead_letters", "subscription_id": 1}, "rate_per_s": 100}))
        .reply::<View>(StatusCode::CREATED, example())
        .located()
        .refused(&[Code::NotFound])
}

pub(in crate::admin) fn one() -> Doc {
    Doc::new("get_replay", "One replay").reply::<View>(StatusCode::OK, example())
}

pub(in crate::admin) fn command() -> Doc {
    Doc::new("command_replay", "Starts, pauses, resumes or cancels a replay")
        .segment::<Command>("command", "start")
        .empty_body()
        .reply::<View>(StatusCode::OK, example())
}
