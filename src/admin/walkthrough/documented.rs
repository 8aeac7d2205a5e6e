//! Descriptions and behaviour: what a method says it knows, when it is given what it does not know, is what the document
//! says of it.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    super::{integrations, openapi::openapi_json, webhooks},
    Answer, Running, event_id, running, running_with,
    scopes::{events_of, job},
};

/// Like no name there is.
const UNKNOWN: &str = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz";
/// Of no request that was refused.
pub(super) const REJECTION: &str = "0000019c12d5c000";
/// Read before the rest is, as resources of their own.
const PARTS: [&str; 3] = ["webhook", "destination", "subscription"];

pub(super) fn parsed() -> Value {
    serde_json::from_str(&openapi_json()).expect("it is JSON")
}

/// Follows a reference.
pub(super) fn at<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).expect("it leads somewhere"),
        None => value,
    }
}

/// The parameters of an operation that are in its path, or its query.
pub(super) fn parameters<'a>(
    document: &'a Value,
    operation: &'a Value,
    place: &'static str,
) -> impl Iterator<Item = &'a Value> {
    let all = operation["parameters"].as_array().into_iter().flatten();
    all.map(|parameter| at(document, parameter)).filter(move |parameter| parameter["in"] == place)
}

/// The path with the document's own examples, of things that are there where any is.
pub(super) fn filled(document: &Value, path: &str, operation: &Value, provider: &str) -> String {
    let mut filled = path.to_owned();
    for parameter in parameters(document, operation, "path") {
        let name = parameter["name"].as_str().expect("a name");
        let example = match &parameter["example"] {
            _ if name == "name" => provider.to_owned(),
            Value::String(text) if text.contains("-7000-") => event_id(1, 1).to_string(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        filled = filled.replace(&format!("{{{name}}}"), &example);
    }
    filled
}

/// The names in "known are `a`, `b`".
fn known(detail: &str) -> BTreeSet<String> {
    if detail.ends_with("none are") {
        return BTreeSet::new();
    }
    let (_, names) =
        detail.split_once("known are ").unwrap_or_else(|| panic!("it does not say what it knows: {detail}"));
    names.split(", ").map(|name| name.trim_matches('`').to_owned()).filter(|name| !name.is_empty()).collect()
}

fn unknown_member(answer: &Answer) -> &str {
    let errors = answer.body["errors"].as_array().unwrap_or_else(|| panic!("it is not refused: {}", answer.text));
    let fault = errors.iter().find(|fault| fault["pointer"] == format!("/{UNKNOWN}").as_str());
    fault.and_then(|fault| fault["detail"].as_str()).unwrap_or_else(|| panic!("it is not refused: {}", answer.text))
}

impl Running {
    /// Members that a body may not hold though they are known, such as those that replies alone have.
    async fn refused_members(&self, method: &str, path: &str, names: &BTreeSet<String>) -> BTreeSet<String> {
        // Without members, some methods do what they are for.
        if names.is_empty() {
            return BTreeSet::new();
        }
        let body: Map<String, Value> = names.iter().map(|name| (name.clone(), 0.into())).collect();
        let answer = self.send(method, path, body.into(), None).await;
        let errors = answer.body["errors"].as_array().cloned().unwrap_or_default();
        let refused = errors.iter().filter(|fault| {
            fault["detail"].as_str().is_some_and(|text| text.contains("leave it out") && !text.contains("null"))
        });
        refused.filter_map(|fault| fault["pointer"].as_str()).map(|pointer| pointer[1..].to_owned()).collect()
    }
}

#[tokio::test]
async fn what_methods_know_is_what_the_document_says() {
    let run = running_with(&[], vec![job(1, events_of(1))]).await;
    run.configure().await;
    let provider = run.get("/api/v1/providers").await.body["items"][0]["name"].as_str().expect("a name").to_owned();
    let (document, rejection) = (parsed(), run.rejection().await);
    let (mut bodies, mut queries) = (0, 0);
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            let (method, place) = (method.to_ascii_uppercase(), format!("{method} {path}"));
            let url = filled(&document, path, operation, &provider).replace(REJECTION, &rejection);
            if let Some(body) = operation.get("requestBody") {
                let schema = at(&document, &body["content"]["application/json"]["schema"]);
                let told: BTreeSet<String> =
                    schema["properties"].as_object().into_iter().flat_map(Map::keys).cloned().collect();
                let answer = run.send(&method, &url, json!({UNKNOWN: 0}), None).await;
                assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{place}: {}", answer.text);
                let mut knows = known(unknown_member(&answer));
                if place == "post /api/v1/integrations" || place == "post /integration-management/integrations" {
                    knows.extend(PARTS.map(str::to_owned));
                }
                let more: BTreeSet<String> = knows.difference(&told).cloned().collect();
                let refused = run.refused_members(&method, &url, &more).await;
                let mut taken: BTreeSet<String> = knows.difference(&refused).cloned().collect();
                if method == "PUT" && path.starts_with("/integration-management") {
                    // Callers of the original send back what they read; nothing is done with it.
                    let of_replies = [integrations::READ_ONLY.as_slice(), &webhooks::READ_ONLY].concat();
                    taken.retain(|name| !of_replies.contains(&name.as_str()));
                }
                assert_eq!(taken, told, "{place} takes members (left) that the document does not say (right)");
                assert_eq!(schema["additionalProperties"], false, "{place}");
                bodies += 1;
            }
            let told: BTreeSet<String> = parameters(&document, operation, "query")
                .filter_map(|parameter| parameter["name"].as_str().map(str::to_owned))
                .collect();
            let answer = run.send(&method, &format!("{url}?{UNKNOWN}=0"), Value::Null, None).await;
            // Probes and browsers add what they like to what is open.
            if operation["security"] == json!([]) {
                assert!(answer.status.is_success() && told.is_empty(), "{place}: {}", answer.text);
                continue;
            }
            let detail = answer.body["detail"].as_str().unwrap_or_default();
            assert!(detail.contains(UNKNOWN), "{place} does not refuse an unknown parameter: {}", answer.text);
            assert_eq!(known(detail), told, "{place} takes parameters (left) that the document does not say (right)");
            queries += usize::from(!told.is_empty());
        }
    }
    assert!(bodies > 30 && queries > 12, "{bodies} bodies, {queries} with parameters");
}

#[tokio::test]
async fn the_document_and_its_page_are_open_and_load_nothing_from_elsewhere() {
    let run = running().await;
    let shown = run.send_as(None, "GET", "/api/v1/openapi.json", Value::Null).await;
    assert_eq!((shown.status, &shown.body["openapi"]), (StatusCode::OK, &json!("3.1.0")));
    let page = run.send_as(None, "GET", "/api/v1/docs", Value::Null).await;
    assert_eq!(page.status, StatusCode::OK);
    let policy = page.headers["content-security-policy"].to_str().expect("text");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    let links = page.text.split('"').filter(|text| text.contains('/') && text.contains('.'));
    let mut parts = 0;
    for link in links {
        assert!(link.starts_with("/api/v1/docs/"), "{link}");
        let part = run.send_as(None, "GET", link, Value::Null).await;
        assert_eq!(part.status, StatusCode::OK, "{link}");
        assert_eq!(part.headers["content-security-policy"], policy, "{link}");
        parts += 1;
    }
    assert!(parts >= 5, "{parts} parts");
    let start = run.send_as(None, "GET", "/api/v1/docs/swagger-initializer.js", Value::Null).await;
    assert!(start.text.contains("/api/v1/openapi.json"), "{}", start.text);
    for missing in ["/api/v1/docs/x", "/api/v1/docs/..%2fx"] {
        assert_eq!(run.send_as(None, "GET", missing, Value::Null).await.status, StatusCode::NOT_FOUND, "{missing}");
    }
}
