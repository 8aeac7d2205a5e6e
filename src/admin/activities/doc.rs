//! The audit log in the document. The type of its parameters says what [`super`] reads.

use axum::http::StatusCode;
use hookmill_actors::domain::activity::ActivityResult;
use serde_json::json;
use utoipa::IntoParams;

use super::ActivityView;
use crate::admin::{
    openapi::{Doc, id, line},
    paging::{LimitParam, SinceUntil, Slice},
    problem::Code,
};

/// Where the list goes on.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct Before {
    /// The `next` of the page before.
    #[param(pattern = "^[0-9a-f]{1,16}-[0-9a-f]{1,16}$", required = false)]
    before: String,
}

/// What the log may be narrowed by.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct Narrowing {
    #[param(schema_with = id, required = false)]
    integration_id: (),
    #[param(schema_with = line::<255>, required = false)]
    author: (),
    #[param(schema_with = line::<255>, required = false)]
    action: (),
    #[param(required = false)]
    result: ActivityResult,
}

pub(in crate::admin) fn list() -> Doc {
    Doc::new("list_activities", "The audit log, newest first")
        .about("A page may be short or empty and yet have a `next`: one request looks at a bounded number of entries.")
        .query::<LimitParam>()
        .query::<Before>()
        .query::<Narrowing>()
        .query::<SinceUntil>()
        .list::<Slice<ActivityView>, ActivityView>(json!({
            "items": [{
                "number": 42,
                "at": "2026-01-31T08:00:00Z",
                "author": "deploy",
                "source": "192.0.2.4",
                "action": "integration.updated",
                "subject": "integration 1",
                "integration_id": 1,
                "result": "ok",
                "detail": "",
            }],
            "limit": 100,
            "next": null,
        }))
}

pub(in crate::admin) fn export() -> Doc {
    Doc::new("export_activities", "The audit log, one JSON object a line")
        .query::<Narrowing>()
        .query::<SinceUntil>()
        .text(StatusCode::OK, &["application/x-ndjson"], "{\"number\": 42, \"action\": \"integration.updated\"}\n")
        .refused(&[Code::Busy])
}
