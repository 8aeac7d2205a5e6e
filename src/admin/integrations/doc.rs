//! Integrations in the document. The requests' types say the members that [`super`] reads.

use axum::http::StatusCode;
use hookmill_actors::domain::config::{Environment, IntegrationStatus, IntegrationType};
use serde_json::{Map, Value, json};
use utoipa::{
    IntoParams, ToSchema,
    openapi::schema::{Object, ObjectBuilder, Type},
};

use super::{Detail, TYPES, View};
use crate::admin::{
    deleted::{DeletedParam, Deletion},
    destinations::doc::{self as destinations, NewDestination},
    openapi::{Doc, line, merged_members, part_of, prose, sealed_members},
    paging::{SearchParam, WindowParams, Windowed},
    setup::Made,
    subscriptions::doc::{self as subscriptions, NewSubscription},
    webhooks::doc::{self as webhooks, NewWebhook},
};

/// An integration as replies show it.
pub(in crate::admin) fn example() -> Value {
    json!({
        "id": 1,
        "name": "Card payments",
        "type": "payment_gateway",
        "provider": crate::providers::DEFAULT,
        "description": "Production account",
        "environment": "production",
        "status": "active",
        "configuration": {"region": "eu"},
        "credentials": {"fingerprint": "9f86d081"},
        "version": 3,
        "last_health_check": "2026-01-31T08:00:00Z",
        "health_status": "healthy",
        "last_connection_test": "2026-01-31T08:00:00Z",
        "connection_test": connection_test(),
        "pending_version": null,
        "created_at": "2026-01-30T08:00:00Z",
        "updated_at": "2026-01-31T07:59:58Z",
    })
}

/// A connection test that passed.
pub(in crate::admin) fn connection_test() -> Value {
    json!({
        "at": "2026-01-31T08:00:00Z",
        "outcome": "passed",
        "reason": "200 from https://api.example.com/health",
        "status": 200,
        "duration_ms": 84,
    })
}

/// What the list may be narrowed by.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
pub(in crate::admin) struct ListParams {
    #[param(required = false)]
    r#type: IntegrationType,
    #[param(required = false)]
    status: IntegrationStatus,
    #[param(required = false)]
    environment: Environment,
}

/// A new integration, and what is made with it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct NewIntegration {
    #[schema(schema_with = line::<255>)]
    name: (),
    #[schema(schema_with = types)]
    r#type: (),
    environment: Environment,
    /// One of `GET /api/v1/providers`; where it is left out, the one that is configured by hand.
    #[schema(required = false)]
    provider: String,
    #[schema(schema_with = prose::<1_000>, required = false)]
    description: (),
    /// Shown to everybody who may read; a secret in it is refused.
    #[schema(value_type = Option<Object>)]
    configuration: Option<Map<String, Value>>,
    /// Sealed, and never shown again.
    #[schema(schema_with = sealed_members, required = false)]
    credentials: (),
    #[schema(required = false)]
    activate: Activate,
    /// A webhook endpoint of it; its name is the integration's, unless it has one.
    #[schema(schema_with = webhook_part, required = false)]
    webhook: (),
    /// A destination for its events.
    #[schema(schema_with = destination_part, required = false)]
    destination: (),
    /// How they are delivered there.
    #[schema(schema_with = subscription_part, required = false)]
    subscription: (),
}

/// The short names are taken too.
fn types() -> Object {
    let names = TYPES.map(|(name, _)| name);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()
}

fn webhook_part() -> Object {
    part_of::<NewWebhook>(&["integration_id"])
}

fn destination_part() -> Object {
    part_of::<NewDestination>(&[])
}

fn subscription_part() -> Object {
    part_of::<NewSubscription>(&["integration_id", "destination_id"])
}

/// A change of an integration: members that are not given stay.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct IntegrationChange {
    #[schema(schema_with = line::<255>, required = false)]
    name: (),
    #[schema(schema_with = types, required = false)]
    r#type: (),
    #[schema(required = false)]
    environment: Environment,
    /// As it is; it cannot be changed.
    #[schema(required = false)]
    provider: String,
    #[schema(schema_with = prose::<1_000>, required = false)]
    description: (),
    #[schema(required = false)]
    status: StatusToSet,
    #[schema(value_type = Option<Object>)]
    configuration: Option<Map<String, Value>>,
    /// Sealed, and never shown again.
    #[schema(schema_with = sealed_members, required = false)]
    credentials: (),
    #[schema(required = false)]
    activate: Activate,
}

/// The objects of an integration that a patch is merged with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct Merged {
    #[schema(schema_with = merged_members)]
    credentials: (),
}

/// When a change takes force.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "it is read from a table; this says its form")]
enum Activate {
    Now,
    /// Once its connection test has passed.
    AfterTest,
}

/// A state that an operator may set.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "it is read from a table; this says its form")]
enum StatusToSet {
    Active,
    Inactive,
}

fn change() -> Value {
    json!({"description": "Production account, since January", "configuration": {"region": "eu"}})
}

pub(in crate::admin) fn list() -> Doc {
    let page = json!({"items": [example()], "total": 1, "skip": 0, "limit": 100, "next_cursor": null});
    Doc::new("list_integrations", "Integrations")
        .about("With `deleted=true` each item has `deleted_at` and `restorable_until` beside its other members.")
        .query::<WindowParams>()
        .query::<SearchParam>()
        .query::<ListParams>()
        .query::<DeletedParam>()
        .list::<Windowed<View>, View>(page)
}

pub(in crate::admin) fn create() -> Doc {
    let mut made = example();
    made["webhook"] = webhooks::with_secret();
    made["destination"] = destinations::with_secret();
    made["subscription"] = subscriptions::example();
    Doc::new("create_integration", "Makes an integration")
        .about("With `webhook` and `destination` the whole way of an event is made at once, all or nothing.")
        .body::<NewIntegration>(json!({
            "name": "Card payments",
            "type": "payment_gateway",
            "provider": crate::providers::DEFAULT,
            "environment": "production",
            "credentials": {"api_key": "an example, no key"},
            "webhook": {"name": "Events"},
            "destination": {"name": "Billing", "settings": {"url": "https://billing.example.com/hooks"}},
            "subscription": {"name": "Payments to billing"},
        }))
        .reply::<Made>(StatusCode::CREATED, made)
        .tagged()
        .located()
}

pub(in crate::admin) fn one() -> Doc {
    let mut one = example();
    one["latest_version"] = 5.into();
    Doc::new("get_integration", "One integration").reply::<Detail>(StatusCode::OK, one).tagged()
}

pub(in crate::admin) fn update() -> Doc {
    Doc::new("update_integration", "Changes an integration")
        .about(
            "Members that are not given stay. With `activate: after_test` it is 202, and nothing is changed until the \
            connection test of what is wanted has passed.",
        )
        .conditional()
        .body::<IntegrationChange>(change())
        .reply::<View>(StatusCode::OK, example())
        .tagged()
        .reply::<View>(StatusCode::ACCEPTED, example())
        .tagged()
}

pub(in crate::admin) fn merge() -> Doc {
    Doc::new("patch_integration", "Changes an integration, its objects member by member")
        .about("As `PUT`, but `configuration` and `credentials` are merged with what stands (RFC 7396).")
        .conditional()
        .change::<IntegrationChange>("IntegrationPatch", &[], change())
        .with_members::<Merged>()
        .merge_patch()
        .reply::<View>(StatusCode::OK, example())
        .tagged()
        .reply::<View>(StatusCode::ACCEPTED, example())
        .tagged()
}

pub(in crate::admin) fn delete() -> Doc {
    Doc::new("delete_integration", "Deletes an integration")
        .about("For a while it may come back, with all that belongs to it: `POST .../restore`.")
        .conditional()
        .query::<Deletion>()
        .done()
}

pub(in crate::admin) fn restore() -> Doc {
    Doc::new("restore_integration", "Brings a deleted integration back, with all that it had")
        .empty_body()
        .reply::<View>(StatusCode::OK, example())
        .tagged()
}

pub(in crate::admin) fn restart() -> Doc {
    Doc::new("restart_integration", "Brings a failed integration back, or starts a running one again")
        .empty_body()
        .reply::<crate::admin::restart::Restarting>(
        StatusCode::ACCEPTED,
        json!({"status": "restarting", "integration_id": 1}),
    )
}
