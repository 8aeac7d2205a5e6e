//! Destinations in the document. The requests' types say the members that [`super`] reads.

use axum::http::StatusCode;
use hookmill_actors::domain::{
    config::DestinationStatus,
    ids::EventId,
    shaping::{BreakerPolicy, Concurrency, Rate, RetryBudget},
};
use serde_json::{Map, Value, json};
use utoipa::{
    IntoParams, ToSchema,
    openapi::schema::{Object, ObjectBuilder, SchemaType, Type},
};

use super::{Shown, View, test::Outcome};
use crate::admin::{
    openapi::{Doc, EVENT, line, merged_members, or_null, part_of, patch_of, sealed_members},
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
    #[param(schema_with = line::<255>, required = false)]
    r#type: (),
}

/// A new destination.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
pub(in crate::admin) struct NewDestination {
    #[schema(schema_with = line::<255>)]
    name: (),
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
    #[schema(schema_with = credentials, required = false)]
    credentials: (),
    limits: Option<LimitsChange>,
    /// Made where it is left out; sealed, and never shown again.
    #[schema(pattern = "^whsec_[A-Za-z0-9+/]{32,86}={0,2}$", write_only, required = false)]
    signing_secret: String,
}

/// What a destination is asked to bear: `null` takes a member back to its default, and what is not given stays.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct LimitsChange {
    rate: Option<Rate>,
    concurrency: Option<NewConcurrency>,
    retry_budget: Option<RetryBudget>,
    breaker: Option<BreakerPolicy>,
}

/// Attempts under way at once: always so many, or as many as latency and refusals let it find out.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
enum NewConcurrency {
    Fixed {
        #[schema(required = false)]
        mode: Fixed,
        #[schema(minimum = 1, maximum = 10_000)]
        max: u16,
    },
    Adaptive {
        mode: Adaptive,
        #[schema(minimum = 1, maximum = 10_000, required = false)]
        min: u16,
        #[schema(minimum = 1, maximum = 10_000)]
        max: u16,
    },
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "it is read from a table; this says its form")]
enum Fixed {
    Fixed,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "it is read from a table; this says its form")]
enum Adaptive {
    Adaptive,
}

/// The objects of a destination that a patch is merged with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct Merged {
    limits: Option<LimitsPatch>,
    #[schema(schema_with = merged_credentials)]
    credentials: (),
}

/// What a destination is asked to bear, merged with what stands.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct LimitsPatch {
    #[schema(schema_with = patch_of::<Rate>, required = false)]
    rate: (),
    #[schema(schema_with = concurrency_patch, required = false)]
    concurrency: (),
    #[schema(schema_with = patch_of::<RetryBudget>, required = false)]
    retry_budget: (),
    #[schema(schema_with = patch_of::<BreakerPolicy>, required = false)]
    breaker: (),
}

/// Another secret to sign with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct SigningSecret {
    /// Made where it is left out.
    #[schema(pattern = "^whsec_[A-Za-z0-9+/]{32,86}={0,2}$", write_only, required = false)]
    signing_secret: String,
}

/// What a test sends.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct TestSample {
    /// A stored event, sent as it arrived.
    #[schema(required = false)]
    event_id: EventId,
    #[schema(schema_with = line::<128>, required = false)]
    event_type: (),
    #[schema(schema_with = line::<255>, required = false)]
    content_type: (),
    #[schema(schema_with = body, required = false)]
    body: (),
}

/// A destination that is not stored, and what its test sends.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct UnsavedTest {
    #[schema(schema_with = unsaved)]
    destination: (),
}

/// Without a mode it is fixed.
fn concurrency_patch() -> Object {
    let mut patch = patch_of::<Concurrency>();
    if let Some(mode) = patch.properties.get_mut("mode") {
        *mode = or_null(mode.clone());
    }
    patch
}

/// Anything but `null`.
fn body() -> Object {
    let kinds = [Type::String, Type::Object, Type::Array, Type::Number, Type::Boolean];
    let body = ObjectBuilder::new().schema_type(SchemaType::from_iter(kinds));
    body.description(Some("A text, or JSON.")).build()
}

/// Texts by name.
fn credentials() -> Object {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
    let mut credentials = sealed_members();
    credentials.additional_properties = Some(Box::new(text.into()));
    credentials
}

/// `null` takes one away.
fn merged_credentials() -> Object {
    let text = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null])).min_length(Some(1));
    let mut credentials = merged_members();
    credentials.additional_properties = Some(Box::new(text.into()));
    credentials
}

fn unsaved() -> Object {
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
            "DestinationPatch",
            &["signing_secret"],
            json!({"limits": {"rate": {"per_second": 80}}}),
        )
        .with_members::<Merged>()
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
        .with_members::<TestSample>()
        .reply::<Outcome>(StatusCode::OK, tested())
        .refused(&[Code::Corrupt, Code::NotFound])
}
