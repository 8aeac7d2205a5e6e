//! The refusals as the document shows them: one response for each set of codes that operations refer to, with an example
//! of each code, made of the words that a client really hears.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use utoipa::{
    ToSchema,
    openapi::{
        Content, Ref, RefOr, Response, Schema,
        example::{Example, ExampleBuilder},
    },
};

use super::{
    doc::EVENT,
    operation::{header_ref, problem_content, shared_headers},
};
use crate::admin::problem::{Code, Fault, Problem, ProblemBody};

/// The schema of every problem, and what it refers to.
pub(super) fn schemas() -> Vec<(String, RefOr<Schema>)> {
    let mut schemas = vec![(ProblemBody::name().into_owned(), <ProblemBody as utoipa::PartialSchema>::schema())];
    ProblemBody::schemas(&mut schemas);
    schemas
}

/// The name of the response that stands for these codes.
pub(super) fn name(codes: &BTreeSet<Code>) -> String {
    codes.iter().map(|code| code.name()).collect::<Vec<_>>().join("-")
}

/// The response that stands for these codes, with a status that they all have where it is sent.
pub(super) fn response(status: StatusCode, codes: &BTreeSet<Code>) -> Response {
    let lines = codes.iter().map(|code| format!("`{}`: {}.", code.name(), code.title()));
    let mut response = Response::new(lines.collect::<Vec<_>>().join(" "));
    let mut content = Content::new(Some(Ref::from_schema_name(ProblemBody::name())));
    for code in codes {
        let example = if code.status() == status {
            RefOr::Ref(Ref::new(format!("#/components/examples/{}", code.name())))
        } else {
            RefOr::T(example(*code, Some(status)))
        };
        content.examples.insert(code.name().to_owned(), example);
    }
    response.content.extend([problem_content(content)]);
    response.headers = shared_headers(!codes.contains(&Code::Unauthorized) && !codes.contains(&Code::HostNotAllowed));
    if codes.iter().any(|code| told(*code).retry_after_s.is_some()) {
        response.headers.insert("retry-after".to_owned(), header_ref("RetryAfter"));
    }
    response
}

/// An example of every code there is.
pub(super) fn examples() -> BTreeMap<String, RefOr<Example>> {
    Code::ALL.iter().map(|code| (code.name().to_owned(), RefOr::T(example(*code, None)))).collect()
}

fn example(code: Code, status: Option<StatusCode>) -> Example {
    let problem = Problem { status, ..told(code) };
    let body = serde_json::to_value(problem.body()).expect("a problem is texts and numbers");
    ExampleBuilder::new().summary(code.title()).value(Some(body)).build()
}

/// A refusal with this code, as one may hear it.
fn told(code: Code) -> Problem {
    let waits = |retry_after_s, detail| Problem { retry_after_s: Some(retry_after_s), ..Problem::new(code, detail) };
    let detail = match code {
        Code::InvalidJson => "expected `,` or `}` at line 1 column 17",
        Code::InvalidRequest => "query parameter `limit` must be a whole number from 1 to 1000; it is `0`",
        Code::Unauthorized => "give `authorization: Bearer <token>` with a valid token",
        Code::ManagerRoleNeeded => "`grafana` has the role `viewer`; this needs `manager`",
        Code::AdminRoleNeeded => "`deploy` has the role `manager`; this needs `admin`",
        Code::OutOfScope => "this concerns everything, and `grafana` is for `integration:7` only",
        Code::NotFound => "integration 7 does not exist",
        Code::MethodNotAllowed => "`DELETE` is not possible here; see `allow`",
        Code::RequestTimeout => "the body was not complete after 10 s",
        Code::Conflict => "destination 3 is in use by subscription 4",
        Code::InProgress => return waits(1, "a request with this `idempotency-key` is under way; ask again later"),
        Code::OutcomeUnknown => "hookmill was stopped while it was done; look whether it was",
        Code::TaskUnderWay => {
            "`integration_management.test_all_active_integrations` is under way as run 7; it does not overlap with itself"
        }
        Code::VersionConflict => "integration 7 is at version 12; read it again and repeat the change",
        Code::PayloadTooLarge => "the body is larger than the admin API takes",
        Code::UnsupportedMediaType => "a write needs `content-type: application/json`",
        Code::HostNotAllowed => "`hookmill.example.com` is not in `admin.allowed_hosts`",
        Code::ValidationFailed => {
            let fault = |pointer: &str, detail: &str| Fault { pointer: pointer.to_owned(), detail: detail.to_owned() };
            return Problem::members(vec![
                fault("/name", "is missing"),
                fault("/environment", "must be a string; it is a number"),
            ]);
        }
        Code::KeyReused => {
            "this `idempotency-key` was given with another request; take a new one for each thing to be done"
        }
        Code::RateLimited => return waits(2, "`deploy` may make 6000 requests a minute; wait a moment"),
        Code::Busy => "4 destination tests are under way; try again shortly",
        Code::Internal => "the log has the cause, under this reply's `x-request-id`",
        Code::Corrupt => return Problem::new(code, format!("event {EVENT} does not match its checksum")),
        Code::Unavailable => "the configuration cannot be stored now; the log has the cause",
    };
    Problem::new(code, detail)
}
