//! Webhook endpoints in the document. The requests' types say the members that [`super`] reads.

use axum::http::StatusCode;
use hookmill_actors::domain::shaping::Rate;
use serde_json::{Map, Value, json};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        Schema,
        schema::{AnyOfBuilder, ObjectBuilder, Type},
    },
};

use super::{Shown, View, rotation::Rotated};
use crate::admin::{
    deleted::{DeletedParam, Deletion},
    openapi::{Doc, id, line, prose},
    paging::{Active, SearchParam, WindowParams, Windowed},
};

/// A webhook endpoint as replies show it.
pub(in crate::admin) fn example() -> Value {
    json!({
        "id": 1,
        "integration_id": 1,
        "name": "Events",
        "description": null,
        "path": "/payments/events",
        "url_path": "/webhooks/receive/payments/events",
        "active": true,
        "is_active": true,
        "verify_signature": true,
        "signature_header": "x-signature",
        "verification": {},
        "secrets": [{"fingerprint": "2c26b46b", "expires_at": null}],
        "body_bytes_max": null,
        "dedup_window_s": null,
        "rate_limit": {"per_second": 100, "burst": 200},
        "version": 4,
        "created_at": "2026-01-30T08:00:00Z",
        "updated_at": "2026-01-30T08:00:00Z",
    })
}

/// The same with the secret that was made for it.
pub(in crate::admin) fn with_secret() -> Value {
    let mut webhook = example();
    webhook["secret"] = "an example, no secret".into();
    webhook
}

/// What the list may be narrowed by.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct Narrowing {
    #[param(schema_with = id, required = false)]
    integration_id: (),
}

/// A new webhook endpoint.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
pub(in crate::admin) struct NewWebhook {
    #[schema(minimum = 1)]
    integration_id: u32,
    #[schema(schema_with = line::<255>)]
    name: (),
    #[schema(schema_with = prose::<1_000>, required = false)]
    description: (),
    #[schema(schema_with = path, required = false)]
    path: (),
    /// Made where it is left out; sealed, and never shown again.
    #[schema(min_length = 8, max_length = 512, write_only, required = false)]
    secret: String,
    /// The same as `secret`.
    #[schema(min_length = 8, max_length = 512, write_only, deprecated, required = false)]
    secret_key: String,
    #[schema(required = false)]
    active: bool,
    /// The same as `active`.
    #[schema(deprecated, required = false)]
    is_active: bool,
    #[schema(required = false)]
    verify_signature: bool,
    #[schema(pattern = "^[A-Za-z0-9-]+$", max_length = 128)]
    signature_header: Option<String>,
    /// As the provider's `settings_schema` says.
    #[schema(value_type = Option<Object>)]
    verification: Option<Map<String, Value>>,
    #[schema(minimum = 1_024, maximum = 67_108_864)]
    body_bytes_max: Option<u32>,
    /// `null`: as long as the provider sends again.
    #[schema(minimum = 0, maximum = 7_776_000)]
    dedup_window_s: Option<u64>,
    rate_limit: Option<Rate>,
}

/// No segment is `.` or `..`, and with its leading slash it is no longer than it may be.
fn path() -> Schema {
    let segment = r"(\.?[A-Za-z0-9_~-][A-Za-z0-9._~-]*|\.\.[A-Za-z0-9._~-]+)";
    let text = |leading: &str, chars_max| {
        let text = ObjectBuilder::new().schema_type(Type::String).max_length(Some(chars_max));
        text.pattern(Some(format!("^{leading}{segment}(/{segment})*$")))
    };
    let path = AnyOfBuilder::new().item(text("/", 255)).item(text("", 254));
    path.description(Some("Below `/webhooks/receive`; made where it is left out.")).into()
}

/// A new secret for an endpoint.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct SecretRotation {
    /// Made where it is left out.
    #[schema(min_length = 8, max_length = 512, write_only, required = false)]
    secret: String,
    /// The same as `secret`.
    #[schema(min_length = 8, max_length = 512, write_only, deprecated, required = false)]
    secret_key: String,
    /// How long the former secret goes on, seconds.
    #[schema(minimum = 0, maximum = 2_592_000, required = false)]
    grace_s: u64,
}

pub(in crate::admin) fn list() -> Doc {
    let page = json!({"items": [example()], "total": 1, "skip": 0, "limit": 100, "next_cursor": null});
    Doc::new("list_webhooks", "Webhook endpoints")
        .about("With `deleted=true` each item has `deleted_at` and `restorable_until` beside its other members.")
        .query::<WindowParams>()
        .query::<SearchParam>()
        .query::<Narrowing>()
        .query::<Active>()
        .query::<DeletedParam>()
        .list::<Windowed<View>, View>(page)
}

/// The original's list: all of them, bare.
pub(in crate::admin) fn list_bare() -> Doc {
    Doc::new("list_webhooks", "Webhook endpoints")
        .query::<SearchParam>()
        .query::<Narrowing>()
        .query::<Active>()
        .list::<Vec<View>, View>(json!([example()]))
}

pub(in crate::admin) fn create() -> Doc {
    Doc::new("create_webhook", "Makes a webhook endpoint")
        .about("A secret that hookmill makes is in this reply, and never again.")
        .body::<NewWebhook>(json!({"integration_id": 1, "name": "Events", "rate_limit": {"per_second": 100}}))
        .reply::<Shown>(StatusCode::CREATED, with_secret())
        .tagged()
        .located()
}

pub(in crate::admin) fn one() -> Doc {
    Doc::new("get_webhook", "One webhook endpoint").reply::<View>(StatusCode::OK, example()).tagged()
}

pub(in crate::admin) fn update() -> Doc {
    Doc::new("update_webhook", "Changes a webhook endpoint")
        .about("Members that are not given stay. A new `secret` replaces all former ones at once.")
        .conditional()
        .change::<NewWebhook>("WebhookChange", &[], json!({"name": "All events"}))
        .reply::<View>(StatusCode::OK, example())
        .tagged()
}

pub(in crate::admin) fn merge() -> Doc {
    Doc::new("patch_webhook", "Changes a webhook endpoint, its objects member by member")
        .about("As `PUT`, but `verification` is merged with what stands (RFC 7396).")
        .conditional()
        .change::<NewWebhook>("WebhookChange", &[], json!({"rate_limit": null}))
        .merge_patch()
        .reply::<View>(StatusCode::OK, example())
        .tagged()
}

pub(in crate::admin) fn delete() -> Doc {
    Doc::new("delete_webhook", "Deletes a webhook endpoint")
        .about("For a while it may come back, and its path stays reserved: `POST .../restore`.")
        .conditional()
        .query::<Deletion>()
        .done()
}

pub(in crate::admin) fn restore() -> Doc {
    Doc::new("restore_webhook", "Brings a deleted webhook endpoint back")
        .empty_body()
        .reply::<View>(StatusCode::OK, example())
        .tagged()
}

pub(in crate::admin) fn rotate_secret() -> Doc {
    Doc::new("rotate_webhook_secret", "Gives a webhook endpoint a new secret")
        .about("The former one goes on for `grace_s`. A secret that hookmill makes is in this reply, and never again.")
        .conditional()
        .optional_body::<SecretRotation>(json!({"grace_s": 3_600}))
        .reply::<Rotated>(
            StatusCode::OK,
            json!({
                "secret": "an example, no secret",
                "secrets": [
                    {"fingerprint": "fcde2b2e", "expires_at": null},
                    {"fingerprint": "2c26b46b", "expires_at": "2026-01-31T09:00:00Z"},
                ],
                "version": 6,
            }),
        )
        .tagged()
}
