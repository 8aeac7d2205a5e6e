//! Each member of each request in the forms around the borders of its schema: what the document allows is taken, and what
//! it does not allow is refused at that member.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    Answer,
    documented::{REJECTION, at, filled, parsed},
    running,
};

/// Words of refusals that are about what stands, or about how members go together, which no schema tells.
const OF_OTHERS: [&str; 16] = [
    "which does not exist",
    "cannot be changed",
    "is already used by",
    "names tell them apart",
    "is not taken by",
    "stands beside a",
    "must be the `next` of",
    "must not exceed `",
    "goes with the ",
    "is empty; give `null`",
    "must not be empty; leave it out",
    "known are `mode`, `max`",
    // What programs, destinations and providers want is theirs to say.
    "cannot be checked now",
    "line 1, column ",
    "must begin with `",
    "must be `http`",
];
/// Ends of the places of texts in a language of their own, which a reader may refuse for what they say.
const LANGUAGES: [&str; 9] =
    ["/key", "/filter", "/program", "/provider", "/x-name", "/secret", "/secret_key", "/signing_secret", "/type"];

/// A value within a request, and where in it is what it tries.
pub(super) struct Try {
    pointer: String,
    pub(super) value: Value,
}

impl Try {
    fn here(value: impl Into<Value>) -> Self {
        Self { pointer: String::new(), value: value.into() }
    }
}

/// The smallest value that a schema allows.
fn least(document: &Value, schema: &Value) -> Value {
    let schema = at(document, schema);
    if let Some(first) = ["oneOf", "anyOf"].iter().find_map(|of| schema[of].as_array()?.first()) {
        return least(document, first);
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    match kinds(schema).first().copied() {
        Some("object") => least_object(document, schema),
        Some("array") => json!([]),
        Some("string") => text(schema, schema["minLength"].as_u64().unwrap_or(1)).into(),
        Some("integer" | "number") => schema["minimum"].as_f64().map_or(json!(1), |least| number(schema, least)),
        Some("boolean") => true.into(),
        _ => Value::Null,
    }
}

fn least_object(document: &Value, schema: &Value) -> Value {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let members = required.map(|name| (name.to_owned(), least(document, &schema["properties"][name])));
    members.collect::<Map<_, _>>().into()
}

pub(super) fn kinds(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn number(schema: &Value, value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "bounds are far smaller")]
    if kinds(schema).contains(&"integer") { json!(value as i64) } else { json!(value) }
}

/// A text of so many characters, or one that has the wanted form.
fn text(schema: &Value, chars: u64) -> String {
    let of_form = match (schema["format"].as_str(), schema["pattern"].as_str()) {
        (Some("date-time"), _) => "2026-01-31T08:00:00Z",
        (Some("uuid"), _) => "019ab3f0-0000-7000-8000-000000010000",
        (_, Some(pattern)) if pattern.starts_with("^whsec_") => "whsec_cGxhbnRlZC1zZWNyZXQtNDcxMS00NzEx",
        (_, Some(pattern)) if pattern.starts_with("^([45]") => "404",
        (_, Some(pattern)) if pattern.starts_with("^([0-9]+ ?(s") => "30 d",
        (_, Some("^[0-9a-f]{16}$")) => "0000019c12d5c000",
        (_, Some("^[A-Za-z0-9_-]{27}$")) => "AAAAAQGas_AAAHAAgAAAAAABAAA",
        (_, Some("^[A-Za-z0-9_-]{7}$")) => "aQAAAAE",
        (_, Some("^[0-9a-f]{1,16}-[0-9a-f]{1,16}$")) => "19b77b6cc00-2a",
        (_, Some("^[0-9a-f]{8}$")) => "5f0c21aa",
        _ => return "a".repeat(usize::try_from(chars).expect("it fits")),
    };
    of_form.to_owned()
}

/// Values in and around what a schema allows, for all that it consists of.
pub(super) fn around(document: &Value, schema: &Value) -> Vec<Try> {
    let schema = at(document, schema);
    let mut tries = Vec::new();
    for variant in ["oneOf", "anyOf"].iter().filter_map(|of| schema[of].as_array()).flatten() {
        tries.extend(around(document, variant));
    }
    for kind in kinds(schema) {
        match kind {
            "object" => tries.extend(around_object(document, schema)),
            "array" => {
                tries.push(Try::here(json!([])));
                for mut it in around(document, &schema["items"]) {
                    it.value = json!([it.value]);
                    it.pointer = format!("/0{}", it.pointer);
                    tries.push(it);
                }
                if let Some(most) = schema["maxItems"].as_u64() {
                    let item = least(document, &schema["items"]);
                    let items = |count: u64| Try::here((0..count).map(|_| item.clone()).collect::<Vec<_>>());
                    tries.extend([items(most), items(most + 1)]);
                }
            }
            "string" => {
                let names = schema["enum"].as_array().into_iter().flatten();
                tries.extend(names.map(|name| Try::here(name.clone())));
                let shortest = schema["minLength"].as_u64().unwrap_or(0);
                let longest = schema["maxLength"].as_u64();
                let lengths =
                    [Some(shortest), shortest.checked_sub(1), longest, longest.map(|most| most + 1), Some(20)];
                tries.extend(lengths.into_iter().flatten().map(|chars| Try::here(text(schema, chars))));
                let odd = ["", " ", "a\u{0}b", "a b", "é", "-"];
                tries.extend(odd.map(Try::here));
            }
            "integer" | "number" => {
                let bounds = [schema["minimum"].as_f64(), schema["maximum"].as_f64()];
                let near = bounds.into_iter().flatten().flat_map(|bound| [bound - 1.0, bound, bound + 1.0]);
                tries.extend(near.map(|value| Try::here(number(schema, value))));
                tries.extend([Try::here(7), Try::here(0.5), Try::here(-1)]);
            }
            "boolean" => tries.extend([Try::here(true), Try::here(false)]),
            _ => {}
        }
    }
    // What each of the other kinds is like.
    tries.extend([json!(null), json!("x"), json!(5), json!(true), json!([]), json!({})].map(Try::here));
    tries
}

fn around_object(document: &Value, schema: &Value) -> Vec<Try> {
    let mut tries = vec![Try::here(least_object(document, schema))];
    // What others read goes on in their own schemas.
    if schema["additionalProperties"] != true {
        tries.push(Try::here(with(least_object(document, schema), "zzzz", json!(0))));
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        for it in around(document, member) {
            tries.push(Try {
                pointer: format!("/{name}{}", it.pointer),
                value: with(least_object(document, schema), name, it.value),
            });
        }
    }
    if schema["additionalProperties"].is_object() {
        for it in around(document, &schema["additionalProperties"]) {
            tries.push(Try { pointer: format!("/x-name{}", it.pointer), value: json!({"x-name": it.value}) });
        }
    }
    tries
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

/// What is said against the value at a place, or against what it is part of.
fn faults<'a>(answer: &'a Answer, pointer: &str) -> Vec<&'a str> {
    let errors = answer.body["errors"].as_array().into_iter().flatten();
    let about = errors.filter(|fault| {
        let place = fault["pointer"].as_str().unwrap_or_default();
        let (longer, shorter) = if place.len() > pointer.len() { (place, pointer) } else { (pointer, place) };
        longer.strip_prefix(shorter).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    about.filter_map(|fault| fault["detail"].as_str()).collect()
}

/// Whether a value that the document allows may be refused so.
fn is_of_others(method: &str, pointer: &str, value: &Value, detail: &str) -> bool {
    // A patch may leave out what has to stand already; a provider says no more of a setting than that it is not known.
    method == "patch" && detail == "is missing"
        || detail == "is not known"
        || OF_OTHERS.iter().any(|words| detail.contains(words))
        || value.is_string() && LANGUAGES.iter().any(|end| pointer.ends_with(end))
}

#[tokio::test]
async fn what_the_document_allows_is_taken_and_nothing_else() {
    let document = parsed();
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            let Some(media) = operation["requestBody"]["content"].get("application/json") else { continue };
            let run = running().await;
            run.configure().await;
            let mut url = filled(&document, path, operation, crate::providers::DEFAULT);
            if url.contains(REJECTION) {
                url = url.replace(REJECTION, &run.rejection().await);
            }
            let schema = json!({"components": document["components"], "allOf": [media["schema"]]});
            let schema = jsonschema::draft202012::options().should_validate_formats(true).build(&schema);
            let schema = schema.expect("it is a schema");
            let members = at(&document, &media["schema"]);
            for (name, member) in members["properties"].as_object().into_iter().flatten() {
                for it in around(&document, member) {
                    let body = with(media["example"].clone(), name, it.value);
                    let pointer = format!("/{name}{}", it.pointer);
                    let answer = run.send(&method.to_ascii_uppercase(), &url, body.clone(), None).await;
                    let value = body.pointer(&pointer).unwrap_or(&Value::Null);
                    let mut said = faults(&answer, &pointer);
                    let is_allowed = schema.is_valid(&body);
                    if is_allowed {
                        said.retain(|detail| !is_of_others(method, &pointer, value, detail));
                    }
                    tried += 1;
                    if is_allowed != said.is_empty() || answer.status == StatusCode::INTERNAL_SERVER_ERROR {
                        let value: String = value.to_string().chars().take(60).collect();
                        wrong.push(format!("{method} {path} {pointer} = {value}: {} {said:?}", answer.status));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried}: {:#?}", wrong.len(), wrong);
}
