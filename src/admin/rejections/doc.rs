//! Rejections in the document. The requests' types say the parameters and members that [`super`] reads.

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{Accepted, AcceptedMany, Item, View};
use crate::admin::{
    events::doc::verification,
    openapi::{Doc, EVENT, id, with},
    paging::{LimitParam, SinceUntil, Slice},
    problem::Code,
    verification::Verification,
};

const ID: &str = "0000019c12d5c000";
const PATTERN: &str = "^[0-9a-f]{16}$";

fn item() -> Value {
    json!({
        "id": ID,
        "at": "2026-01-31T08:00:00Z",
        "integration_id": 1,
        "endpoint_id": 1,
        "cause": "invalid_signature",
        "reason": "the signature does not match the body",
        "peer": "203.0.113.7",
        "size": 17,
        "body_complete": true,
        "event_id": null,
    })
}

fn example() -> Value {
    let more = json!({
        "accepted_at": null,
        "method": "POST",
        "path": "/webhooks/receive/payments/events",
        "query": "",
        "headers": [{"name": "content-type", "value": "application/json"}],
        "body": "{\"amount\": 100}\n",
        "body_base64": null,
    });
    with(item(), more)
}

/// What its sender was told.
#[derive(ToSchema)]
#[schema(as = RejectionCause, rename_all = "snake_case")]
#[expect(dead_code, reason = "it is read from a table; this says its form")]
enum Cause {
    MissingSignature,
    InvalidSignature,
    HandshakeRefused,
    MethodNotAllowed,
    SlowRequest,
    BodyTooLarge,
    BadRequest,
    TooManyHops,
}

/// What the list may be narrowed by.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct ListParams {
    /// The `next` of the page before.
    #[param(pattern = "^[0-9a-f]{16}$", required = false)]
    before: String,
    #[param(schema_with = id, required = false)]
    endpoint_id: (),
    #[param(schema_with = id, required = false)]
    integration_id: (),
    #[param(required = false)]
    cause: Cause,
    /// Whether an event was made of it.
    #[param(required = false)]
    accepted: bool,
}

/// How a rejection is accepted.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct Acceptance {
    /// Even where its signature does not hold.
    #[schema(required = false)]
    unverified: bool,
}

/// Which rejections are accepted; an endpoint or an integration must be named.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct AcceptanceOfMany {
    #[schema(minimum = 1, required = false)]
    endpoint_id: u32,
    #[schema(minimum = 1, required = false)]
    integration_id: u32,
    #[schema(required = false)]
    cause: Cause,
    #[schema(format = DateTime, required = false)]
    since: String,
    #[schema(format = DateTime, required = false)]
    until: String,
    /// Even where their signatures do not hold.
    #[schema(required = false)]
    unverified: bool,
    /// The `next` of the call before.
    #[schema(pattern = "^[0-9a-f]{16}$", required = false)]
    after: String,
}

pub(in crate::admin) fn list() -> Doc {
    Doc::new("list_rejections", "Refused requests, newest first")
        .query::<LimitParam>()
        .query::<ListParams>()
        .query::<SinceUntil>()
        .list::<Slice<Item>, Item>(json!({"items": [item()], "limit": 100, "next": null}))
}

pub(in crate::admin) fn one() -> Doc {
    Doc::new("get_rejection", "One refused request")
        .segment_like("id", PATTERN, ID)
        .reply::<View>(StatusCode::OK, example())
}

pub(in crate::admin) fn explain() -> Doc {
    Doc::new("explain_rejection", "Whether its signature holds with the secrets of now, and what would make it hold")
        .segment_like("id", PATTERN, ID)
        .reply::<Verification>(StatusCode::OK, verification())
        .refused(&[Code::Busy, Code::Conflict])
}

pub(in crate::admin) fn accept() -> Doc {
    Doc::new("accept_rejection", "Makes an event of a refused request, once")
        .about("Its signature must hold with the secrets of now, unless `unverified` says otherwise.")
        .segment_like("id", PATTERN, ID)
        .optional_body::<Acceptance>(json!({"unverified": true}))
        .reply::<Accepted>(StatusCode::OK, json!({"id": ID, "event_id": EVENT, "verified": false}))
}

pub(in crate::admin) fn accept_many() -> Doc {
    Doc::new("accept_rejections", "Makes events of refused requests, oldest first, a bounded number a call")
        .body::<AcceptanceOfMany>(json!({"endpoint_id": 1, "cause": "invalid_signature"}))
        .reply::<AcceptedMany>(
            StatusCode::OK,
            json!({
                "accepted": [{"id": ID, "event_id": EVENT, "verified": true}],
                "left": [{"id": "0000019c12d5c001", "code": "conflict", "detail": "a `GET` is no webhook"}],
                "next": null,
            }),
        )
}
