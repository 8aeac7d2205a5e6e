//! Tokens in the document. The requests' types say the parameters and members that [`super`] reads.

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        Schema,
        schema::{AnyOfBuilder, Array, ArrayBuilder, ObjectBuilder, Type},
    },
};

use super::{Made, View};
use crate::{
    admin::{
        openapi::{Doc, line},
        paging::{PageParams, Paged},
        problem::Code,
    },
    tokens::{Role, TokenState},
};

fn example() -> Value {
    json!({
        "id": 1,
        "name": "deploy",
        "role": "manager",
        "scopes": ["environment:staging", "integration:1"],
        "status": "active",
        "created_at": "2026-01-30T08:00:00Z",
        "created_by": "admin",
        "expires_at": "2027-01-30T08:00:00Z",
        "last_used_at": "2026-01-31T08:00:00Z",
        "revoked_at": null,
    })
}

/// What the list may be narrowed by.
#[derive(IntoParams)]
#[expect(dead_code, reason = "parameters are read one by one; this says their form")]
struct ListParams {
    #[param(required = false)]
    status: TokenState,
    #[param(required = false)]
    role: Role,
}

/// A new token.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read member by member; this says their form")]
struct NewToken {
    #[schema(schema_with = line::<64>)]
    name: (),
    role: Role,
    #[schema(schema_with = scopes, required = false)]
    scopes: (),
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    #[schema(schema_with = life, required = false)]
    expires_in: (),
}

fn scopes() -> Array {
    let scope = "^(integration:[1-9][0-9]{0,9}|environment:(development|staging|production))$";
    let scope = ObjectBuilder::new().schema_type(Type::String).pattern(Some(scope));
    let about = "Such as `integration:7` or `environment:staging`; where it is left out, it is for all that its maker's is for.";
    ArrayBuilder::new().items(scope).max_items(Some(64)).description(Some(about)).build()
}

fn life() -> Schema {
    let units = "(s|sec|seconds?|m|min|minutes?|h|hr|hours?|d|days?|w|weeks?|M|months?|y|years?)";
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(format!("^([0-9]+ ?{units} ?)+$")));
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(60)).maximum(Some(315_360_000));
    let about = "How long it is valid, such as `30d`, or seconds; does not go with `expires_at`.";
    let null = ObjectBuilder::new().schema_type(Type::Null);
    AnyOfBuilder::new().item(text).item(seconds).item(null).description(Some(about)).into()
}

pub(in crate::admin) fn list() -> Doc {
    Doc::new("list_tokens", "Tokens")
        .query::<PageParams>()
        .query::<ListParams>()
        .list::<Paged<View>, View>(json!({"items": [example()], "total": 1, "skip": 0, "limit": 100}))
}

pub(in crate::admin) fn create() -> Doc {
    let mut made = example();
    made["token"] = "hmk_an_example_no_token".into();
    Doc::new("create_token", "Makes a token")
        .about("The token is in this reply, and never again. Nobody gives away more than he has, nor for longer.")
        .body::<NewToken>(json!({"name": "deploy", "role": "manager", "expires_in": "365d"}))
        .reply::<Made>(StatusCode::CREATED, made)
        .located()
        .refused(&[Code::AdminRoleNeeded])
}

pub(in crate::admin) fn own() -> Doc {
    Doc::new("get_own_token", "What the token of this request may do").reply::<View>(StatusCode::OK, example())
}

pub(in crate::admin) fn one() -> Doc {
    Doc::new("get_token", "One token").reply::<View>(StatusCode::OK, example())
}

pub(in crate::admin) fn revoke() -> Doc {
    Doc::new("revoke_token", "Revokes a token, at once").done()
}
