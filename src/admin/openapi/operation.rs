//! Makes an operation of a method's [`Doc`] and of what the route table says of it: who may use it, how it may be
//! refused, which headers it heeds and answers with.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{Method, StatusCode};
use utoipa::openapi::{
    Content, Header, Object, Ref, RefOr, Required, Response,
    path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
    request_body::RequestBodyBuilder,
    schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type},
    security::SecurityRequirement,
};

use super::{
    doc::{Doc, Reply},
    parts::id,
    problems,
};
use crate::admin::{
    original,
    problem::Code,
    table::{Described, Need},
};

/// The name of the one way to sign in.
pub(super) const BEARER: &str = "token";
const IF_MATCH: &str = "IfMatch";
const IDEMPOTENCY_KEY: &str = "IdempotencyKey";
const COMMENT: &str = "Comment";
/// Headers of every reply to a request that is signed in.
const RATE_LIMIT: [(&str, &str); 3] = [
    ("x-ratelimit-limit", "RateLimitLimit"),
    ("x-ratelimit-remaining", "RateLimitRemaining"),
    ("x-ratelimit-reset", "RateLimitReset"),
];

/// The operation, and the sets of codes that its refusals refer to.
pub(super) fn operation(
    path: &str,
    Described { method, need, doc: _ }: &Described,
    doc: Doc,
) -> (Operation, Vec<(StatusCode, BTreeSet<Code>)>) {
    let refusals = refusals(path, method, *need, &doc);
    let parameters = parameters(path, method, &doc);
    // Names are of the whole document.
    let id = if original::owns(path) { format!("original_{}", doc.id) } else { doc.id.to_owned() };
    let mut operation = OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(doc.summary))
        .description(Some(description(*need, doc.about)))
        .tag(tag(path))
        .securities(Some(match need {
            Need::Open => Vec::new(),
            Need::Role(_) => vec![SecurityRequirement::new::<_, [&str; 0], &str>(BEARER, [])],
        }));
    if let Some(body) = doc.body {
        let mut request =
            RequestBodyBuilder::new().required(Some(if body.required { Required::True } else { Required::False }));
        for media_type in body.media_types {
            request = request.content(*media_type, body.content.clone());
        }
        operation = operation.request_body(Some(request.build()));
    }
    for reply in doc.replies {
        let status = reply.status;
        operation = operation.response(status.as_str(), response(reply, *need));
    }
    for (status, codes) in &refusals {
        operation = operation.response(status.as_str(), Ref::from_response_name(problems::name(codes)));
    }
    let mut operation = operation.build();
    operation.parameters = Some(parameters);
    (operation, refusals)
}

fn description(need: Need, about: &str) -> String {
    let need = match need {
        Need::Open => "For everybody.".to_owned(),
        Need::Role(role) => format!("For tokens with role `{role}` or above."),
    };
    if about.is_empty() { need } else { format!("{about}\n\n{need}") }
}

/// Its collection.
fn tag(path: &str) -> String {
    if original::owns(path) {
        return "integration-management".to_owned();
    }
    let segment = path.trim_start_matches("/api/v1").split('/').nth(1).unwrap_or_default();
    match segment {
        "healthz" | "readyz" => "health",
        "docs" | "openapi.json" => "documentation",
        collection => collection,
    }
    .to_owned()
}

fn parameters(path: &str, method: &Method, doc: &Doc) -> Vec<RefOr<Parameter>> {
    let told = |name: &str| doc.parameters.iter().any(|it| it.name == name && it.parameter_in == ParameterIn::Path);
    let numbers = names(path).filter(|name| !told(name)).map(|name| number(name).into());
    let mut parameters: Vec<RefOr<Parameter>> = numbers.collect();
    parameters.extend(doc.parameters.iter().cloned().map(RefOr::T));
    let mut shared = |name: &str| parameters.push(RefOr::Ref(Ref::new(format!("#/components/parameters/{name}"))));
    if doc.conditional {
        shared(IF_MATCH);
    }
    if *method == Method::POST {
        shared(IDEMPOTENCY_KEY);
    }
    if *method != Method::GET {
        shared(COMMENT);
    }
    parameters
}

/// The names of a path's parameters.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

fn number(name: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(id()))
        .example(Some(1.into()))
        .build()
}

fn integer() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(0))
}

fn response(reply: Reply, need: Need) -> Response {
    let mut response = Response::new(reply.status.canonical_reason().unwrap_or_default());
    for (media_type, content) in reply.contents {
        response.content.insert(media_type.to_owned(), RefOr::T(content));
    }
    response.headers = shared_headers(matches!(need, Need::Role(_)));
    if reply.tagged {
        response.headers.insert("etag".to_owned(), header_ref("ETag"));
    }
    if reply.located {
        response.headers.insert("location".to_owned(), header_ref("Location"));
    }
    response
}

/// Those of every reply, and those of a request that is signed in.
pub(super) fn shared_headers(signed_in: bool) -> BTreeMap<String, RefOr<Header>> {
    let mut headers = BTreeMap::from([("x-request-id".to_owned(), header_ref("RequestId"))]);
    if signed_in {
        headers.extend(RATE_LIMIT.map(|(name, component)| (name.to_owned(), header_ref(component))));
    }
    headers
}

pub(super) fn header_ref(component: &str) -> RefOr<Header> {
    RefOr::Ref(Ref::new(format!("#/components/headers/{component}")))
}

/// What operations refer to, by name.
pub(super) fn header_components() -> impl Iterator<Item = (String, RefOr<Header>)> {
    let header = |schema: ObjectBuilder, description: &str| {
        let mut header = Header::new(Object::from(schema));
        header.description = Some(description.to_owned());
        header
    };
    let text = |pattern: &str| ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
    [
        ("RequestId", header(text("^[0-9a-f]{16}$"), "Names the request in hookmill's own log.")),
        ("RateLimitLimit", header(integer(), "Requests that the token may make a minute.")),
        ("RateLimitRemaining", header(integer(), "How many of them it may make now.")),
        ("RateLimitReset", header(integer(), "When it may make all of them again, Unix seconds.")),
        ("RetryAfter", header(integer(), "Seconds to wait before trying again.")),
        ("ETag", header(text("^\"[0-9]+\"$"), "The version, to be given back as `If-Match`.")),
        ("Location", header(text("^/"), "Where what was made is.")),
    ]
    .into_iter()
    .map(|(name, header)| (name.to_owned(), RefOr::T(header)))
}

/// The header parameters, by name.
pub(super) fn parameter_components() -> impl Iterator<Item = (String, RefOr<Parameter>)> {
    let header = |name: &str, schema: ObjectBuilder, example: Option<&str>, description: &str| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .schema(Some(schema.schema_type(Type::String)))
            .description(Some(description))
            .example(example.map(Into::into))
            .build()
    };
    let text = ObjectBuilder::new;
    [
        (
            IF_MATCH,
            header(
                "If-Match",
                text().pattern(Some(r#"^(\*|"[0-9]{1,18}")$"#)),
                Some("*"),
                "The `ETag` of what the change is based on; without it, or with `*`, whatever stands is changed.",
            ),
        ),
        (
            IDEMPOTENCY_KEY,
            header(
                "Idempotency-Key",
                text().pattern(Some("^[!-~]{1,255}$")).max_length(Some(255)),
                // Each request has its own.
                None,
                "Given again with the same request within 24 hours, the first reply comes again and nothing is done twice.",
            ),
        ),
        (
            COMMENT,
            header(
                "Hookmill-Comment",
                text().pattern(Some("^[!-~]([ -~]{0,498}[!-~])?$")).max_length(Some(500)),
                Some("new account, HK-12"),
                "What the author says of the change; it stays with the version that the change makes.",
            ),
        ),
    ]
    .into_iter()
    .map(|(name, parameter)| (name.to_owned(), RefOr::T(parameter)))
}

/// By status, every code that the method may answer with.
fn refusals(path: &str, method: &Method, need: Need, doc: &Doc) -> Vec<(StatusCode, BTreeSet<Code>)> {
    let mut codes = vec![Code::InvalidRequest, Code::HostNotAllowed, Code::Internal, Code::Unavailable];
    if matches!(need, Need::Role(_)) {
        codes.extend([Code::Unauthorized, Code::RateLimited, Code::OutOfScope]);
    }
    if let Need::Role(role) = need {
        codes.extend(crate::admin::access::refusal_of(role));
    }
    if names(path).next().is_some() {
        codes.push(Code::NotFound);
    }
    // Idempotency reads the body of any `POST`.
    if doc.body.is_some() || *method == Method::POST {
        codes.extend([Code::PayloadTooLarge, Code::RequestTimeout]);
    }
    if doc.body.is_some() {
        codes.extend([Code::InvalidJson, Code::UnsupportedMediaType, Code::ValidationFailed]);
    }
    if *method != Method::GET {
        codes.push(Code::Conflict);
    }
    if *method == Method::POST {
        codes.extend([Code::InProgress, Code::OutcomeUnknown, Code::KeyReused, Code::Busy]);
    }
    if doc.conditional {
        codes.push(Code::VersionConflict);
    }
    codes.extend(&doc.refusals);
    let mut by_status: BTreeMap<u16, BTreeSet<Code>> = BTreeMap::new();
    for code in codes {
        let status = if original::owns(path) { original::status_of(code) } else { code.status() };
        by_status.entry(status.as_u16()).or_default().insert(code);
    }
    // The original's words are put around the handlers, not around what keeps replies for a second time.
    if original::owns(path) && *method == Method::POST {
        by_status.entry(StatusCode::CONFLICT.as_u16()).or_default().insert(Code::Conflict);
    }
    // A reply with that status of its own (health tells its reasons) is told by the method itself.
    let told = |status: u16| doc.replies.iter().any(|reply| reply.status.as_u16() == status);
    by_status
        .into_iter()
        .filter(|(status, _)| !told(*status))
        .map(|(status, codes)| (StatusCode::from_u16(status).expect("it came from one"), codes))
        .collect()
}

/// The content of a problem's response.
pub(super) fn problem_content(content: Content) -> (String, RefOr<Content>) {
    ("application/problem+json".to_owned(), RefOr::T(content))
}
