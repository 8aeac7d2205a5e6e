//! Subscriptions in the document. The requests' types say the members that [`super`] reads.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use hookmill_actors::domain::{
    backoff::{DEAD_STATUSES_MAX, Exponential, SCHEDULE_MAX, WAIT_MAX_S},
    ids::EventId,
    order::Order,
    selection::Selection,
    shaping::Rate,
    transform::Transform,
};
use serde_json::{Value, json};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        KnownFormat, Schema,
        schema::{AnyOfBuilder, Array, ArrayBuilder, ObjectBuilder, SchemaFormat, Type},
    },
};

use super::{View, dry_run::View as DryRun};
use crate::admin::{
    openapi::{Doc, EVENT, id, line, patch_of},
    paging::{Active, SearchParam, WindowParams, Windowed},
    problem::Code,
};

/// A subscription as replies show it.
pub(in crate::admin) fn example() -> Value {
    json!({
        "id": 1,
        "integration_id": 1,
        "destination_id": 1,
        "name": "Payments to billing",
        "active": true,
        "is_active": true,
        "in_flight_max": 16,
        "retry": {"schedule_s": [5, 300, 1_800], "retry_after_max_s": 86_400},
        "selection": {"types": ["payment.*"], "filter": "body.amount > 0"},
        "order": {"mode": "fifo_by_key", "key": "body.customer.id", "on_failure": "park"},
        "transform": {"kind": "none"},
        "headers": {"x-source": "hookmill"},
        "rate": null,
        "expires_after_s": null,
        "start_after": null,
        "version": 6,
        "created_at": "2026-01-30T08:00:00Z",
        "updated_at": "2026-01-30T08:00:00Z",
    })
}

/// What the list may be narrowed by.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct ListParams {
    #[param(schema_with = id, required = false)]
    integration_id: (),
    #[param(schema_with = id, required = false)]
    destination_id: (),
}

/// A new subscription.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
pub(in crate::admin) struct NewSubscription {
    #[schema(minimum = 1)]
    integration_id: u32,
    #[schema(minimum = 1)]
    destination_id: u32,
    #[schema(schema_with = line::<255>)]
    name: (),
    #[schema(required = false)]
    active: bool,
    /// The same as `active`.
    #[schema(deprecated, required = false)]
    is_active: bool,
    /// Deliveries under way at once.
    #[schema(minimum = 1, maximum = 256, required = false)]
    in_flight_max: u16,
    #[schema(required = false)]
    retry: RetryChange,
    #[schema(schema_with = start, required = false)]
    start: (),
    selection: Option<Selection>,
    order: Option<Order>,
    transform: Option<Transform>,
    /// Names and templates.
    headers: Option<BTreeMap<String, String>>,
    rate: Option<Rate>,
    /// An event that was accepted longer ago is not delivered, seconds.
    #[schema(minimum = 1, maximum = 31_536_000)]
    expires_after_s: Option<u64>,
}

/// How it retries; what is not given stays, or is as the settings say.
#[derive(ToSchema)]
#[schema(as = NewRetryPolicy)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct RetryChange {
    #[schema(schema_with = waits, required = false)]
    schedule_s: (),
    exponential: Option<Exponential>,
    #[schema(minimum = 1, maximum = 31_536_000)]
    age_max_s: Option<u64>,
    #[schema(schema_with = dead_statuses, required = false)]
    dead_statuses: (),
    #[schema(minimum = 0, maximum = 2_592_000, required = false)]
    retry_after_max_s: u64,
}

/// The objects of a subscription that a patch is merged with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct Merged {
    #[schema(required = false)]
    retry: MergedRetry,
    #[schema(schema_with = patch_of::<Order>)]
    order: (),
    #[schema(schema_with = patch_of::<Transform>)]
    transform: (),
    /// Names and templates; `null` takes one away.
    headers: Option<BTreeMap<String, Option<String>>>,
    #[schema(schema_with = patch_of::<Rate>)]
    rate: (),
}

/// How it retries; what is not given stays.
#[derive(ToSchema)]
#[schema(as = RetryPolicyPatch)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct MergedRetry {
    #[schema(schema_with = waits, required = false)]
    schedule_s: (),
    #[schema(schema_with = patch_of::<Exponential>, required = false)]
    exponential: (),
    #[schema(minimum = 1, maximum = 31_536_000)]
    age_max_s: Option<u64>,
    #[schema(schema_with = dead_statuses, required = false)]
    dead_statuses: (),
    #[schema(minimum = 0, maximum = 2_592_000, required = false)]
    retry_after_max_s: u64,
}

fn integer(bounds: std::ops::RangeInclusive<u64>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(*bounds.start())).maximum(Some(*bounds.end()))
}

fn waits() -> Array {
    let about = "Waits between attempts, seconds: the first attempt is made at once, then one follows each wait.";
    let waits = ArrayBuilder::new().items(integer(0..=WAIT_MAX_S)).max_items(Some(SCHEDULE_MAX));
    waits.description(Some(about)).build()
}

fn dead_statuses() -> Array {
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^([45][0-9]{2}|4xx|5xx)$"));
    let statuses = ArrayBuilder::new().items(AnyOfBuilder::new().item(integer(400..=599)).item(text));
    let about = "Statuses that go straight to the dead letter: `400`, or a class, `4xx`.";
    statuses.max_items(Some(DEAD_STATUSES_MAX)).description(Some(about)).build()
}

fn start() -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    AnyOfBuilder::new()
        .item(text().enum_values(Some(["now", "beginning"])))
        .item(text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))))
        .description(Some("With which events it begins: `now`, `beginning`, or those after a time."))
        .into()
}

/// What would become of events.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct DryRunRequest {
    /// The subscription to begin with; or else an `integration_id`.
    #[schema(minimum = 1, required = false)]
    subscription_id: u32,
    #[schema(minimum = 1, required = false)]
    integration_id: u32,
    selection: Option<Selection>,
    order: Option<Order>,
    transform: Option<Transform>,
    headers: Option<BTreeMap<String, String>>,
    /// Stored events; where neither these nor samples are given, the latest.
    #[schema(max_items = 20, required = false)]
    event_ids: Vec<EventId>,
    #[schema(max_items = 20, required = false)]
    samples: Vec<DryRunSample>,
}

/// An event that is not stored.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct DryRunSample {
    #[schema(required = false)]
    r#type: String,
    #[schema(required = false)]
    provider_id: String,
    #[schema(minimum = 1, required = false)]
    endpoint_id: u32,
    #[schema(required = false)]
    query: String,
    #[schema(required = false)]
    headers: BTreeMap<String, String>,
    /// JSON; does not go with `body_text`.
    #[schema(value_type = Value, required = false)]
    body: Value,
    #[schema(required = false)]
    body_text: String,
}

pub(in crate::admin) fn list() -> Doc {
    let page = json!({"items": [example()], "total": 1, "skip": 0, "limit": 100, "next_cursor": null});
    Doc::new("list_subscriptions", "Subscriptions")
        .query::<WindowParams>()
        .query::<SearchParam>()
        .query::<ListParams>()
        .query::<Active>()
        .list::<Windowed<View>, View>(page)
}

pub(in crate::admin) fn create() -> Doc {
    Doc::new("create_subscription", "Makes a subscription")
        .body::<NewSubscription>(json!({
            "integration_id": 1,
            "destination_id": 1,
            "name": "Payments to billing",
            "selection": {"types": ["payment.*"], "filter": "body.amount > 0"},
        }))
        .reply::<View>(StatusCode::CREATED, example())
        .tagged()
        .located()
}

pub(in crate::admin) fn one() -> Doc {
    Doc::new("get_subscription", "One subscription").reply::<View>(StatusCode::OK, example()).tagged()
}

pub(in crate::admin) fn update() -> Doc {
    Doc::new("update_subscription", "Changes a subscription")
        .about("Members that are not given stay.")
        .conditional()
        .change::<NewSubscription>("SubscriptionChange", &["start"], json!({"in_flight_max": 32}))
        .reply::<View>(StatusCode::OK, example())
        .tagged()
}

pub(in crate::admin) fn merge() -> Doc {
    Doc::new("patch_subscription", "Changes a subscription, its objects member by member")
        .about("As `PUT`, but objects are merged with what stands (RFC 7396).")
        .conditional()
        .change::<NewSubscription>("SubscriptionPatch", &["start"], json!({"retry": {"retry_after_max_s": 3_600}}))
        .with_members::<Merged>()
        .merge_patch()
        .reply::<View>(StatusCode::OK, example())
        .tagged()
}

pub(in crate::admin) fn delete() -> Doc {
    Doc::new("delete_subscription", "Deletes a subscription").conditional().done()
}

pub(in crate::admin) fn dry_run() -> Doc {
    Doc::new("dry_run_subscription", "What a subscription would do with events")
        .about("Nothing is stored or sent.")
        .body::<DryRunRequest>(json!({
            "integration_id": 1,
            "selection": {"filter": "body.amount > 0"},
            "samples": [{"type": "payment.succeeded", "body": {"amount": 100}}],
        }))
        .reply::<DryRun>(
            StatusCode::OK,
            json!({"items": [
                {"event_id": null, "event_type": "payment.succeeded", "selected": true},
                {
                    "event_id": EVENT,
                    "event_type": "payment.failed",
                    "selected": false,
                    "because": "filter",
                    "detail": "the filter does not hold",
                },
            ]}),
        )
        .refused(&[Code::NotFound])
}
