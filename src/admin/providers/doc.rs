//! Providers in the document. The request's type says the members that [`super`] reads.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use utoipa::{
    ToSchema,
    openapi::schema::{Array, ArrayBuilder, ObjectBuilder, Type},
};

use super::{List, View};
use crate::admin::{events::doc::verification, openapi::Doc, verification::Verification};

const NAME: &str = crate::providers::DEFAULT;

/// A request and what its signature is to be checked with. `body` or `body_base64` must be given, and not both.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct SignedRequest {
    /// Header names, each with its value or a list of them.
    #[schema(value_type = std::collections::BTreeMap<String, HeaderValues>)]
    headers: Map<String, Value>,
    #[schema(required = false)]
    body: String,
    #[schema(pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$", required = false)]
    body_base64: String,
    #[schema(min_length = 1, max_length = 4_096, write_only, required = false)]
    secret: String,
    #[schema(schema_with = secrets, required = false)]
    secrets: (),
    #[schema(value_type = Object, required = false)]
    settings: Map<String, Value>,
    /// As of when; else now.
    #[schema(format = DateTime, required = false)]
    at: String,
    #[schema(required = false)]
    method: SignedMethod,
    /// Path and query.
    #[schema(required = false)]
    target: String,
}

fn secrets() -> Array {
    let secret = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(4_096));
    ArrayBuilder::new().items(secret.write_only(true)).max_items(Some(10)).build()
}

#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
enum HeaderValues {
    One(String),
    Several(Vec<String>),
}

#[derive(ToSchema)]
#[schema(rename_all = "UPPERCASE")]
#[expect(dead_code, reason = "it is read from a table; this says its form")]
enum SignedMethod {
    Post,
    Get,
}

pub(in crate::admin) fn list() -> Doc {
    Doc::new("list_providers", "Providers").reply::<List>(
        StatusCode::OK,
        json!({"items": [{"name": NAME, "summary": "HMAC over the body, configurable"}], "total": 1}),
    )
}

pub(in crate::admin) fn one() -> Doc {
    Doc::new("get_provider", "One provider, and how it is set up").segment::<String>("name", NAME).reply::<View>(
        StatusCode::OK,
        json!({
            "name": NAME,
            "summary": "HMAC over the body, configurable",
            "retry_window_s": 259_200,
            "settings_schema": {"type": "object"},
            "guide": {
                "secret": "Where the sender shows it",
                "url": "Where the sender asks for it",
                "reference": "https://www.rfc-editor.org/rfc/rfc2104",
            },
            "sample": {"content_type": "application/json", "body": "{}"},
        }),
    )
}

pub(in crate::admin) fn verify() -> Doc {
    Doc::new("verify_signature", "Whether a request's signature holds, and if not, why")
        .about("Nothing of it is stored or logged.")
        .segment::<String>("name", NAME)
        .body::<SignedRequest>(json!({
            "headers": {"x-signature": "00"},
            "body": "{}",
            "secret": "an example, no secret",
        }))
        .reply::<Verification>(StatusCode::OK, verification())
}
