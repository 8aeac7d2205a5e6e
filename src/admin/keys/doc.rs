//! The key ring in the document. The requests' types say the parameters and members that [`super`] reads.

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{Key, RetiredView, Ring, RotationView};
use crate::admin::openapi::Doc;

const ID: &str = "5f0c21aa";

fn key() -> Value {
    json!({"id": ID, "state": "active", "created_at": "2026-01-30T08:00:00Z", "retired_at": null})
}

fn ring() -> Value {
    json!({"source": "file", "keys": [key()], "rotation": rotation("done")})
}

fn rotation(state: &str) -> Value {
    json!({
        "state": state,
        "to": ID,
        "author": "admin",
        "started_at": "2026-01-31T08:00:00Z",
        "finished_at": null,
        "changes_total": 120,
        "changes_done": 0,
        "sealed_again": 0,
        "damaged": 0,
        "damaged_at": [],
        "failure": null,
    })
}

/// What is told of the keys.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct ListParams {
    /// With what is sealed with each, which takes a look at everything.
    #[param(required = false)]
    sealed: bool,
}

/// Which key takes the primary's place.
#[derive(ToSchema)]
#[schema(as = NewRotation)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct Rotation {
    /// One of the ring; else a new one.
    #[schema(pattern = "^[0-9a-f]{8}$", required = false)]
    to: String,
}

pub(in crate::admin) fn list() -> Doc {
    Doc::new("list_keys", "The key ring: ids, states and times, never a key")
        .query::<ListParams>()
        .reply::<Ring>(StatusCode::OK, ring())
}

pub(in crate::admin) fn add() -> Doc {
    Doc::new("add_key", "Adds a new key, which opens and does not seal")
        .empty_body()
        .reply::<Key>(StatusCode::CREATED, key())
}

pub(in crate::admin) fn reload() -> Doc {
    Doc::new("reload_keys", "Reads the ring again where it comes from")
        .empty_body()
        .reply::<Ring>(StatusCode::OK, ring())
}

pub(in crate::admin) fn rotate() -> Doc {
    Doc::new("rotate_keys", "Seals everything again with another key")
        .about("Done in the background; `GET /api/v1/keys` tells how far it is.")
        .optional_body::<Rotation>(json!({}))
        .reply::<RotationView>(StatusCode::ACCEPTED, rotation("running"))
        .refused(&[crate::admin::problem::Code::NotFound])
}

pub(in crate::admin) fn retire() -> Doc {
    Doc::new("retire_key", "Retires a key that nothing is sealed with")
        .segment_like("id", "^[0-9a-f]{8}$", ID)
        .empty_body()
        .reply::<RetiredView>(StatusCode::OK, json!({"id": ID, "state": "retired"}))
}
