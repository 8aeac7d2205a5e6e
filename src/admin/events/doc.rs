//! Events in the document. The requests' types say the parameters and members that [`super`] reads.

use axum::http::StatusCode;
use hookmill_actors::domain::ids::EventId;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{Listed, Queued, View};
use crate::admin::{
    openapi::{Doc, EVENT, id, line, with},
    paging::{LimitParam, SinceUntil},
    problem::Code,
    verification::Verification,
};

fn item() -> Value {
    json!({
        "id": EVENT,
        "integration_id": 1,
        "endpoint_id": 1,
        "received_at": "2026-01-31T08:00:00Z",
        "event_type": "payment.succeeded",
        "provider_id": "evt_1",
        "duplicate_of": null,
        "size": 17,
        "status": "success",
    })
}

fn example() -> Value {
    let more = json!({
        "accepted_version": 6,
        "peer": "203.0.113.7",
        "hops": 0,
        "query": "",
        "content_type": "application/json",
        "headers": [
            {"name": "content-type", "value": "application/json"},
            {"name": "x-signature", "value": "***"},
        ],
        "body": "{\"amount\": 100}\n",
        "body_base64": null,
        "body_url": "/api/v1/events/019ab3f0-0000-7000-8000-000000010000/body",
        "processing_attempts": 2,
        "error_message": null,
        "processed_at": "2026-01-31T08:00:05Z",
        "deliveries": [{
            "subscription_id": 1,
            "subscription": "Payments to billing",
            "destination_id": 1,
            "status": "delivered",
            "processing_status": "success",
            "attempts": 2,
            "latest_attempts": [{
                "at": "2026-01-31T08:00:00Z",
                "duration_ms": 12,
                "status": 503,
                "error": null,
                "reply": "busy",
            }],
            "next_attempt_at": null,
            "replay": false,
            "reason": null,
            "error_message": null,
            "processed_at": "2026-01-31T08:00:05Z",
        }],
    });
    with(item(), more)
}

/// A signature that was checked.
pub(in crate::admin) fn verification() -> Value {
    json!({
        "provider": crate::providers::DEFAULT,
        "as_of": "2026-01-31T08:00:00Z",
        "holds": false,
        "signed_at": null,
        "reason": "mismatch",
        "detail": "the signature does not match the body",
        "likely": ["it holds with the secret that ended at 2026-01-30T08:00:00Z"],
    })
}

/// What an index answers, and a filter over the events themselves.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct Narrowing {
    #[param(schema_with = id, required = false)]
    integration_id: (),
    #[param(schema_with = id, required = false)]
    endpoint_id: (),
    /// Names of types, or patterns such as `payment.*`, separated by commas, at most 16.
    #[param(pattern = r"^\s*[^\s,][^,]{0,127}(,\s*[^\s,][^,]{0,127}){0,15}$", required = false)]
    r#type: String,
    #[param(schema_with = line::<255>, required = false)]
    provider_event_id: (),
    /// A CEL expression such as `body.amount > 100`.
    #[param(min_length = 1, max_length = 4_096, required = false)]
    r#where: String,
}

/// Where the list begins, and what becomes of events.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct ListParams {
    /// Older than this one: the `next` of the page before.
    #[param(required = false)]
    before: EventId,
    /// `pending`, `processing`, `success`, `failure`; several are separated by commas.
    #[param(
        pattern = "^(pending|processing|success|failure)(,(pending|processing|success|failure))*$",
        required = false
    )]
    status: String,
}

/// Where the stream goes on.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct After {
    /// After this one; without it, with what comes from now on. The header `Last-Event-ID` says the same.
    #[param(required = false)]
    after: EventId,
}

/// To whom an event is sent.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct EventReplay {
    #[schema(minimum = 1)]
    subscription_id: u32,
}

pub(in crate::admin) fn list() -> Doc {
    Doc::new("list_events", "Events, newest first")
        .about(
            "Integration, endpoint, type, provider's id and time are answered by an index. Where it is asked for by \
            `status` or `where`, a page may be short or empty and yet have a `next`: one request looks at a bounded \
            number of events.",
        )
        .query::<LimitParam>()
        .query::<ListParams>()
        .query::<Narrowing>()
        .query::<SinceUntil>()
        .reply::<Listed>(StatusCode::OK, json!({"items": [item()], "limit": 100, "next": null}))
        .refused(&[Code::Busy])
}

pub(in crate::admin) fn follow() -> Doc {
    Doc::new("follow_events", "Events as they come, as server-sent events")
        .about("Each is an `event` whose `data` is an item of the list, and whose `id` is where to go on.")
        .query::<After>()
        .query::<Narrowing>()
        .text(StatusCode::OK, &["text/event-stream"], "retry: 2000\n\n")
        .refused(&[Code::Busy])
}

pub(in crate::admin) fn one() -> Doc {
    Doc::new("get_event", "One event, and what became of it")
        .segment::<EventId>("id", EVENT)
        .reply::<View>(StatusCode::OK, example())
        .refused(&[Code::Corrupt])
}

pub(in crate::admin) fn body() -> Doc {
    Doc::new("get_event_body", "The body as it came, byte by byte")
        .segment::<EventId>("id", EVENT)
        .text(StatusCode::OK, &["application/octet-stream"], "{\"amount\": 100}\n")
        .refused(&[Code::Corrupt])
}

pub(in crate::admin) fn replay() -> Doc {
    Doc::new("replay_event", "Sends an event to a subscription, again or for the first time")
        .segment::<EventId>("id", EVENT)
        .body::<EventReplay>(json!({"subscription_id": 1}))
        .reply::<Queued>(StatusCode::ACCEPTED, json!({"status": "queued", "subscription_id": 1, "event_id": EVENT}))
        .refused(&[Code::Corrupt])
}

pub(in crate::admin) fn verify() -> Doc {
    Doc::new("verify_event", "Whether an event's signature holds as of the time it came, and if not, why")
        .segment::<EventId>("id", EVENT)
        .reply::<Verification>(StatusCode::OK, verification())
        .refused(&[Code::Corrupt])
}
