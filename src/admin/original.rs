//! The paths of the module that hookmill replaces, `/integration-management/...`, so that its callers move over by
//! changing a host name. They are served by the handlers of `/api/v1`; here is only what the two contracts say
//! differently. Where they contradict each other, the original's holds; hookmill's further members stay.
//!
//! Its receiver, `POST /integration-management/webhooks/receive/{path}`, is the ingress'.

mod doc;

use axum::{
    body::{Body, to_bytes},
    http::{StatusCode, header},
    middleware::map_response_with_state,
    response::{IntoResponse, Response},
};
use hookmill_actors::domain::config::{Endpoint, Integration};
use serde_json::{Map, Value};

use super::{
    Api, Shared,
    access::{Author, State},
    change::update,
    connection_tests, integrations,
    json::{Json, OptionalJson},
    paging::Params,
    problem::{Code, Problem},
    resource::{Configured, IfMatch, Managed, Segments, delete, json, list, one},
    setup, status,
    table::{Methods, get, post},
    tools::Tools,
    webhooks,
};
use crate::tokens::Role::{Admin, Manager, Viewer};

/// What callers know a missing resource by.
const NO_INTEGRATION: &str = "Integration not found";
const NO_WEBHOOK: &str = "Webhook endpoint not found";

/// Whether a path is the original's.
pub(super) fn owns(path: &str) -> bool {
    path.starts_with("/integration-management/")
}

/// The status of a refusal: the original knows 400 for what stands against a change.
pub(super) fn status_of(code: Code) -> StatusCode {
    if code == Code::Conflict { StatusCode::BAD_REQUEST } else { code.status() }
}

/// The original's routes but for its receiver.
pub(super) fn routes() -> Vec<(&'static str, Methods<Shared>)> {
    let integrations =
        |methods: Methods<Shared>| methods.shaped(|it| it.layer(map_response_with_state(NO_INTEGRATION, shape)));
    let webhooks = |methods: Methods<Shared>| methods.shaped(|it| it.layer(map_response_with_state(NO_WEBHOOK, shape)));
    vec![
        (
            "/integration-management/integrations",
            integrations(
                get(Viewer, list::<Integration>, doc::list_integrations)
                    .post(Manager, create_integration, doc::create_integration)
                    .scoped(),
            ),
        ),
        (
            "/integration-management/integrations/{id}",
            integrations(
                get(Viewer, integrations::one, integrations::doc::one)
                    .put(Manager, update_integration, doc::update_integration)
                    .delete(Admin, delete::<Integration>, doc::delete_integration),
            ),
        ),
        (
            "/integration-management/integrations/{id}/status",
            integrations(get(Viewer, status::of_integration, status::doc::of_integration)),
        ),
        (
            "/integration-management/integrations/{id}/test",
            integrations(post(Manager, connection_tests::test, connection_tests::doc::test)),
        ),
        (
            "/integration-management/webhooks",
            webhooks(
                get(Viewer, list_webhooks, webhooks::doc::list_bare)
                    .post(Manager, create_webhook, doc::create_webhook)
                    .scoped(),
            ),
        ),
        (
            "/integration-management/webhooks/{id}",
            webhooks(
                get(Viewer, one::<Endpoint>, webhooks::doc::one)
                    .put(Manager, update_webhook, doc::update_webhook)
                    .delete(Manager, delete::<Endpoint>, doc::delete_webhook),
            ),
        ),
        (
            "/integration-management/webhooks/{id}/rotate-secret",
            webhooks(post(Manager, rotate_secret, webhooks::doc::rotate_secret)),
        ),
    ]
}

async fn create_integration(State(api): State<Api>, author: Author, Json(body): Json) -> Result<Response, Problem> {
    let body = with_scheme(without_nulls(body), &api.tools);
    setup::create(State(api), author, Json(body)).await
}

/// The original's `configuration.provider` is free text. Where it names no scheme, the signatures are those that the
/// original verified.
fn with_scheme(mut body: Value, tools: &Tools) -> Value {
    if let Value::Object(members) = &mut body
        && !members.contains_key("provider")
        && let Some(named) = members.get("configuration").and_then(|it| it.get("provider")).and_then(Value::as_str)
    {
        let named = named.to_ascii_lowercase();
        let scheme = if tools.provider(&named).is_ok() { named } else { crate::providers::DEFAULT.to_owned() };
        members.insert("provider".to_owned(), scheme.into());
    }
    body
}

async fn update_integration(
    State(api): State<Api>,
    author: Author,
    Segments(id): Segments<u32>,
    condition: IfMatch,
    Json(body): Json,
) -> Result<Response, Problem> {
    let mut body = sent_back(body);
    // What hookmill finds out itself may be sent back as it was read, but not be set.
    let shown = api.find::<Integration>(id)?.view(&api.tools).status_name();
    if let Value::Object(members) = &mut body
        && members.get("status").and_then(Value::as_str).is_some_and(|status| status.eq_ignore_ascii_case(shown))
    {
        members.remove("status");
    }
    update::<Integration>(State(api), author, Segments(id), condition, Json(body)).await
}

/// `GET /integration-management/webhooks`: a bare array of all, not paged.
async fn list_webhooks(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let filter = Endpoint::filter(&mut params)?;
    params.finish()?;
    let snapshot = api.tree.config().current();
    let sight = api.sight(&snapshot.configuration);
    let seen = Endpoint::all(&snapshot.configuration, None).filter(|it| sight.key(Endpoint::key(it.id.0)));
    let matching = seen.filter(|endpoint| endpoint.passes(&filter, &api.tools));
    let shown: Vec<_> = matching.map(|endpoint| endpoint.view(&api.tools)).collect();
    Ok(json(StatusCode::OK, &shown))
}

async fn create_webhook(api: State<Api>, author: Author, Json(body): Json) -> Result<Response, Problem> {
    webhooks::create(api, author, Json(without_nulls(body))).await
}

async fn update_webhook(
    api: State<Api>,
    author: Author,
    id: Segments<u32>,
    condition: IfMatch,
    Json(body): Json,
) -> Result<Response, Problem> {
    update::<Endpoint>(api, author, id, condition, Json(sent_back(body))).await
}

/// The former secret ends at once, unless `grace_s` says otherwise: callers of the original rely on that.
async fn rotate_secret(
    api: State<Api>,
    author: Author,
    id: Segments<u32>,
    condition: IfMatch,
    OptionalJson(mut body): OptionalJson,
) -> Result<Response, Problem> {
    if let Value::Object(members) = &mut body {
        members.entry("grace_s").or_insert_with(|| 0.into());
    }
    webhooks::rotate_secret(api, author, id, condition, OptionalJson(body)).await
}

/// The original takes `null` for a member that is not given.
fn without_nulls(mut body: Value) -> Value {
    if let Value::Object(members) = &mut body {
        members.retain(|_, value| !value.is_null());
    }
    body
}

/// A change without what its caller only sends back: the original ignores members that replies alone have.
fn sent_back(body: Value) -> Value {
    let mut body = without_nulls(body);
    if let Value::Object(members) = &mut body {
        let of_replies = [integrations::READ_ONLY.as_slice(), &webhooks::READ_ONLY].concat();
        members.retain(|name, _| !of_replies.contains(&name.as_str()));
    }
    body
}

/// A reply in the original's words.
async fn shape(axum::extract::State(missing): axum::extract::State<&'static str>, response: Response) -> Response {
    match response.extensions().get::<Problem>() {
        Some(problem) => refusal(problem.clone(), missing).into_response(),
        None => without_credentials(response).await,
    }
}

/// The original has words of its own for what is not there.
fn refusal(problem: Problem, missing: &str) -> Problem {
    match problem.code {
        Code::NotFound => Problem { detail: missing.to_owned(), ..problem },
        code => Problem { status: Some(status_of(code)), ..problem },
    }
}

/// In the original `credentials` are only ever sent to it: what is read and sent back must not become credentials.
async fn without_credentials(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    // A reply of hookmill's own, in memory already.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return Problem::internal(&"a reply broke off").into_response();
    };
    let Ok(mut reply) = serde_json::from_slice::<Value>(&bytes) else {
        return Response::from_parts(parts, bytes.into());
    };
    let removed = match &mut reply {
        Value::Object(members) => remove_credentials(members),
        _ => false,
    };
    if !removed {
        return Response::from_parts(parts, bytes.into());
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(reply.to_string()))
}

fn remove_credentials(members: &mut Map<String, Value>) -> bool {
    let mut removed = members.remove("credentials").is_some();
    if let Some(Value::Array(items)) = members.get_mut("items") {
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            removed |= item.remove("credentials").is_some();
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_read_may_be_sent_back() {
        let read =
            json!({"id": 3, "name": "shop", "description": null, "created_at": "x", "secrets": [], "path": "/a"});
        assert_eq!(sent_back(read), json!({"name": "shop", "path": "/a"}));
        assert_eq!(without_nulls(json!({"id": 3, "secret": null})), json!({"id": 3}));
        assert_eq!(sent_back(json!([null])), json!([null]), "what is no object is refused by whoever reads it");
    }

    #[test]
    fn what_stands_against_a_change_is_400_and_its_code_stays() {
        let conflict = refusal(Problem::new(Code::Conflict, "taken"), NO_WEBHOOK).into_response();
        assert_eq!(conflict.status(), StatusCode::BAD_REQUEST);
        let missing = refusal(Problem::not_found(Endpoint::key(3)), NO_WEBHOOK);
        assert_eq!((missing.code, missing.detail.as_str()), (Code::NotFound, "Webhook endpoint not found"));
    }

    #[test]
    fn credentials_are_in_no_reply() {
        let mut list = json!({"items": [{"id": 1, "credentials": {"fingerprint": "x"}}], "total": 1});
        assert!(list.as_object_mut().is_some_and(remove_credentials));
        assert_eq!(list, json!({"items": [{"id": 1}], "total": 1}));
    }
}
