//! Versions in the document. The types of parameters say what [`super`] reads.

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::{Difference, Head, Whole};
use crate::admin::{
    destinations, integrations,
    openapi::{Doc, id},
    paging::{LimitParam, Slice},
    problem::Code,
    subscriptions, webhooks,
};

fn head() -> Value {
    json!({
        "version": 7,
        "at": "2026-01-31T08:00:00Z",
        "author": "deploy",
        "comment": "new account",
        "changes": [{"kind": "integration", "id": 1, "change": "updated"}],
    })
}

fn whole() -> Value {
    let mut integration = integrations::doc::example();
    for found_out in ["last_health_check", "health_status", "last_connection_test", "connection_test"] {
        integration[found_out] = Value::Null;
    }
    let mut whole = head();
    whole["integration"] = integration;
    whole["webhooks"] = json!([webhooks::doc::example()]);
    whole["destinations"] = json!([destinations::doc::example()]);
    whole["subscriptions"] = json!([subscriptions::doc::example()]);
    whole
}

/// Where the list goes on.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct Before {
    /// The `next` of the page before: the number of a version.
    #[param(schema_with = id, required = false)]
    before: (),
}

/// What a version is compared with.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct Against {
    /// The number of a version; else the one before.
    #[param(schema_with = id, required = false)]
    against: (),
}

pub(in crate::admin) fn list() -> Doc {
    Doc::new("list_versions", "An integration's versions, newest first; of a deleted one too")
        .query::<LimitParam>()
        .query::<Before>()
        .list::<Slice<Head>, Head>(json!({"items": [head()], "limit": 100, "next": null}))
        .tagged()
}

pub(in crate::admin) fn one() -> Doc {
    Doc::new("get_version", "A version with everything that stood at it")
        .reply::<Whole>(StatusCode::OK, whole())
        .tagged()
}

pub(in crate::admin) fn difference() -> Doc {
    Doc::new("diff_version", "How a version differs from the one before, or from another")
        .about("Of a secret it tells `changed` or `unchanged`.")
        .query::<Against>()
        .reply::<Difference>(
            StatusCode::OK,
            json!({
                "version": 7,
                "against": 6,
                "patch": [{"op": "replace", "path": "/integration/description", "value": "Production account"}],
            }),
        )
}

pub(in crate::admin) fn roll_back() -> Doc {
    Doc::new("roll_back_version", "Makes a new version that equals this one")
        .about("`If-Match` names the newest version, as the list's `ETag` does. Where nothing differs, none is made.")
        .conditional()
        .empty_body()
        .reply::<Whole>(StatusCode::OK, whole())
        .tagged()
        .refused(&[Code::ValidationFailed])
}
