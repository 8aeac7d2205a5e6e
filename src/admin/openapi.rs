//! The `OpenAPI` document of the admin API, and the page that shows it. It is made of the route table: a method cannot
//! be served without being described ([`doc`]), and what all have in common is added in one place ([`operation`],
//! [`problems`]). Tests hold descriptions and behaviour together: what a method answers to members and parameters that
//! it does not know must be what the document says it knows, and of each member it must take what the document allows and
//! nothing else.

mod doc;
mod operation;
mod page;
mod parts;
mod problems;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{
    body::Bytes,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use utoipa::{
    ToSchema,
    openapi::{
        Components, HttpMethod, Info, License, OpenApi, OpenApiBuilder, PathItem, Paths, RefOr, Schema,
        schema::AdditionalProperties,
        security::{Http, HttpAuthScheme, SecurityScheme},
        tag::{Tag, TagBuilder},
    },
};

pub(super) use self::{
    doc::{Describe, Doc, EVENT},
    page::{PREFIX as DOCS_PREFIX, asset, describe_asset, describe_page, page},
    parts::{id, line, merged_members, or_null, part_of, patch_of, prose, sealed_members, whole, with},
};
use super::routes;

/// Where the document is.
pub(super) const PATH: &str = "/api/v1/openapi.json";
const TITLE: &str = "hookmill admin API";
const ABOUT: &str = "Configures a hookmill webhook gateway and tells what became of its events.\n\n\
    Sign in with `authorization: Bearer <token>`; `hookmill tokens create` makes one. A refusal is \
    `application/problem+json` (RFC 9457) with a stable `code`: switch on that. `HEAD` is answered wherever `GET` is. \
    A list is read on with the `next` or `next_cursor` of its last reply. Times are RFC 3339 in \
    UTC. Names such as `active` are taken in upper case too, and in a query `1`, `yes` and `on` for `true`. A query \
    parameter may be there once; one that is not known is refused. What a path names is looked for before the body is \
    checked: where it is not there, the answer is `404`, whatever the body says.";
/// The collections, in the order that they are shown in.
const TAGS: [(&str, &str); 20] = [
    ("integrations", "Connections to third parties, with all that belongs to them."),
    ("webhooks", "Public paths that an integration's provider posts to."),
    ("destinations", "Where events go."),
    ("subscriptions", "Which events of an integration go to which destination, and how."),
    ("events", "Accepted webhooks, and what became of them."),
    ("deadletters", "Deliveries that will not be tried again by themselves."),
    ("replays", "Deliveries in bulk, again."),
    ("rejections", "Requests that the ingress refused."),
    ("providers", "The schemes that hookmill speaks."),
    ("activities", "The audit log."),
    ("apply", "The configuration as documents: what shall stand."),
    ("export", "The configuration as documents: what stands."),
    ("tokens", "Who may use this API."),
    ("keys", "What secrets are sealed with."),
    ("backup", "What `hookmill backup` asks of a running server."),
    ("tasks", "What hookmill does by schedule, and what came of it."),
    ("metrics", "Counts and gauges."),
    ("health", "For machines; open."),
    ("documentation", "This document; open."),
    ("integration-management", "The paths of the module that hookmill replaces."),
];

/// As it is served, without spaces.
static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| document().to_json().expect("the document has text keys only").into());

/// The document as JSON text, for people and tools alike.
pub fn openapi_json() -> String {
    document().to_pretty_json().expect("the document has text keys only") + "\n"
}

/// `GET /api/v1/openapi.json`
pub(super) async fn show() -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], DOCUMENT.clone())
        .into_response()
}

pub(super) fn describe_show() -> Doc {
    Doc::new("show_openapi", "This document")
        .reply::<OpenApiDocument>(StatusCode::OK, json!({"openapi": "3.1.0", "info": {}, "paths": {}}))
}

/// An `OpenAPI` document.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the document is made by others; this says its form")]
struct OpenApiDocument {
    openapi: String,
    #[schema(value_type = Object)]
    info: serde_json::Value,
    #[schema(value_type = Object)]
    paths: serde_json::Value,
}

/// Makes the document of the route table.
fn document() -> OpenApi {
    let mut paths = Paths::new();
    let mut components = Components::new();
    add(&mut components.schemas, problems::schemas());
    for (path, methods) in routes() {
        for described in methods.described() {
            let mut doc = (described.doc)();
            add(&mut components.schemas, std::mem::take(&mut doc.schemas));
            let (operation, refusals) = operation::operation(path, described, doc);
            for (status, codes) in refusals {
                let response = problems::response(status, &codes);
                components.responses.insert(problems::name(&codes), RefOr::T(response));
            }
            let method = match described.method.as_str() {
                "GET" => HttpMethod::Get,
                "POST" => HttpMethod::Post,
                "PUT" => HttpMethod::Put,
                "PATCH" => HttpMethod::Patch,
                "DELETE" => HttpMethod::Delete,
                other => unreachable!("the table knows no {other}"),
            };
            paths.paths.entry(path.to_owned()).or_default().merge_operations(PathItem::new(method, operation));
        }
    }
    components.examples = problems::examples();
    components.headers = operation::header_components().collect();
    components.parameters = operation::parameter_components().collect();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme(operation::BEARER, bearer);
    let mut info = Info::new(TITLE, env!("CARGO_PKG_VERSION"));
    info.description = Some(ABOUT.to_owned());
    let mut license = License::new(env!("CARGO_PKG_LICENSE"));
    license.identifier = Some(env!("CARGO_PKG_LICENSE").to_owned());
    info.license = Some(license);
    let tags: Vec<Tag> =
        TAGS.iter().map(|(name, text)| TagBuilder::new().name(*name).description(Some(*text)).build()).collect();
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components)).tags(Some(tags)).build()
}

/// No variant of an object has members that it does not name.
fn closed(mut schema: RefOr<Schema>) -> RefOr<Schema> {
    if let RefOr::T(Schema::OneOf(one_of)) = &mut schema {
        for variant in &mut one_of.items {
            if let RefOr::T(Schema::Object(object)) = variant
                && !object.properties.is_empty()
            {
                object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
            }
        }
    }
    schema
}

/// A schema's name means one thing.
fn add(known: &mut BTreeMap<String, RefOr<Schema>>, schemas: Vec<(String, RefOr<Schema>)>) {
    for (name, schema) in schemas {
        let schema = closed(schema);
        let former = known.insert(name.clone(), schema.clone());
        debug_assert!(former.is_none_or(|former| former == schema), "two schemas are called {name}");
    }
}
