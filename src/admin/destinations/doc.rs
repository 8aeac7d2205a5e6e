//! Destinations in the document. The requests' types say the members that [`super`] reads.

use axum::http::StatusCode;
use hookmill_actors::domain::{
    config::DestinationStatus,
    ids::EventId,
    shaping::{BreakerPolicy, Concurrency, Rate, RetryBudget},
};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{Shown, View, test::Outcome};
use crate::admin::{
    openapi::{Doc, EVENT, part_of, sealed_members},
    paging::{SearchParam, WindowParams, Windowed},
    problem::Code,
};

/// A destination as replies show it.
pub(in crate::admin) fn example() -> Value {
    json!({
        "id": 1,
        "name": "Billing",
        "type": "http",
        "status": "active",
        "status_reason": null,
        "settings": {"url": "https://billing.example.com/hooks"},
        "credentials": null,
        "limits": {
            "rate": {"per_second": 50, "burst": null},
            "concurrency": {"mode": "fixed", "max": 8},
            "retry_budget": {"share": 0.2, "floor_per_second": 1.0},
            "breaker": {
                "enabled": true,
                "consecutive_failures": 5,
                "error_rate": 0.5,
                "attempts_min": 20,
                "window_s": 30,
                "open_s": 30,
                "open_max_s": 300,
                "probes": 1,
            },
        },
        "signing_fingerprint": "baa5a096",
        "version": 5,
        "created_at": "2026-01-30T08:00:00Z",
        "updated_at": "2026-01-30T08:00:00Z",
    })
}

/// The same with the secret that was made for it.
pub(in crate::admin) fn with_secret() -> Value {
    let mut destination = example();
    destination["signing_secret"] = "whsec_an_example_no_secret".into();
    destination
}

/// What the list may be narrowed by.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct ListParams {
    #[param(required = false)]
    status: DestinationStatus,
    #[param(required = false)]
    r#type: String,
}

/// A new destination.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
pub(in crate::admin) struct NewDestination {
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    /// Default `http`.
    #[schema(required = false)]
    r#type: String,
    #[schema(required = false)]
    status: DestinationStatus,
    /// As its type wants them; what `http` wants is its `url`, and `store` wants none.
    #[schema(value_type = Object, required = false)]
    settings: Map<String, Value>,
    /// What it needs to sign in: sealed, and never shown again. Given again when `url` or `proxy` comes to name another
    /// server.
    #[schema(schema_with = sealed_members, required = false)]
    credentials: (),
    limits: Option<LimitsChange>,
    /// Made where it is left out; sealed, and never shown again.
    #[schema(max_length = 128, write_only, required = false)]
    signing_secret: String,
}

/// What a destination is asked to bear: `null` takes a member back to its default, and what is not given stays.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct LimitsChange {
    rate: Option<Rate>,
    concurrency: Option<Concurrency>,
    retry_budget: Option<RetryBudget>,
    breaker: Option<BreakerPolicy>,
}

/// Another secret to sign with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct SigningSecret {
    /// Made where it is left out.
    #[schema(max_length = 128, write_only, required = false)]
    signing_secret: String,
}

/// What a test sends.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct TestSample {
    /// A stored event, sent as it arrived.
    #[schema(required = false)]
    event_id: EventId,
    #[schema(min_length = 1, required = false)]
    event_type: String,
    #[schema(min_length = 1, max_length = 255, required = false)]
    content_type: String,
    /// A text, or JSON.
    #[schema(value_type = Value, required = false)]
    body: Value,
}

/// A destination that is not stored, and what its test sends.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct UnsavedTest {
    #[schema(schema_with = unsaved)]
    destination: (),
    /// A stored event, sent as it arrived.
    #[schema(required = false)]
    event_id: EventId,
    #[schema(min_length = 1, required = false)]
    event_type: String,
    #[schema(min_length = 1, max_length = 255, required = false)]
    content_type: String,
    /// A text, or JSON.
    #[schema(value_type = Value, required = false)]
    body: Value,
}

fn unsaved() -> utoipa::openapi::schema::Object {
    part_of::<NewDestination>(&[])
}

fn tested() -> Value {
    json!({
        "verdict": "delivered",
        "status": 204,
        "error": null,
        "reply": null,
        "webhook_id": EVENT,
        "timings_ms": {"connected": 1.204, "answered": 3.117, "total": 3.29},
    })
}

pub(in crate::admin) fn list() -> Doc {
    let page = json!({"items": [example()], "total": 1, "skip": 0, "limit": 100, "next_cursor": null});
    Doc::new("list_destinations", "Destinations")
        .query::<WindowParams>()
        .query::<SearchParam>()
        .query::<ListParams>()
        .list::<Windowed<View>, View>(page)
}

pub(in crate::admin) fn create() -> Doc {
    Doc::new("create_destination", "Makes a destination")
        .about("A signing secret that hookmill makes is in this reply, and never again.")
        .body::<NewDestination>(json!({
            "name": "Billing",
            "type": "http",
            "settings": {"url": "https://billing.example.com/hooks"},
            "limits": {"rate": {"per_second": 50}},
        }))
        .reply::<Shown>(StatusCode::CREATED, with_secret())
        .tagged()
        .located()
}

pub(in crate::admin) fn one() -> Doc {
    Doc::new("get_destination", "One destination").reply::<View>(StatusCode::OK, example()).tagged()
}

pub(in crate::admin) fn update() -> Doc {
    Doc::new("update_destination", "Changes a destination")
        .about("Members that are not given stay.")
        .conditional()
        .change::<NewDestination>("DestinationChange", &["signing_secret"], json!({"status": "active"}))
        .reply::<View>(StatusCode::OK, example())
        .tagged()
}

pub(in crate::admin) fn merge() -> Doc {
    Doc::new("patch_destination", "Changes a destination, its objects member by member")
        .about("As `PUT`, but objects are merged with what stands (RFC 7396).")
        .conditional()
        .change::<NewDestination>(
            "DestinationChange",
            &["signing_secret"],
            json!({"limits": {"rate": {"per_second": 80}}}),
        )
        .merge_patch()
        .reply::<View>(StatusCode::OK, example())
        .tagged()
}

pub(in crate::admin) fn delete() -> Doc {
    Doc::new("delete_destination", "Deletes a destination that no subscription uses").conditional().done()
}

pub(in crate::admin) fn rotate_secret() -> Doc {
    Doc::new("rotate_destination_secret", "Signs with another secret from now on")
        .about("A secret that hookmill makes is in this reply, and never again.")
        .conditional()
        .optional_body::<SigningSecret>(json!({}))
        .reply::<Shown>(StatusCode::OK, with_secret())
        .tagged()
}

pub(in crate::admin) fn test() -> Doc {
    Doc::new("test_destination", "Makes one attempt with a sample event, which is not stored")
        .about("It is 200 whatever comes of it; `verdict` tells.")
        .optional_body::<TestSample>(json!({"event_type": "payment.succeeded", "body": {"amount": 100}}))
        .reply::<Outcome>(StatusCode::OK, tested())
        .refused(&[Code::Corrupt])
}

pub(in crate::admin) fn test_unsaved() -> Doc {
    Doc::new("test_unsaved_destination", "Makes one attempt at a destination that is not stored")
        .about("It is 200 whatever comes of it; `verdict` tells.")
        .body::<UnsavedTest>(json!({"destination": {"settings": {"url": "https://billing.example.com/hooks"}}}))
        .reply::<Outcome>(StatusCode::OK, tested())
        .refused(&[Code::Corrupt, Code::NotFound])
}
