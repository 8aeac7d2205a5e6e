//! The document as its readers need it: whole, with examples that hold.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{document, openapi_json};
use crate::admin::{problem::Code, routes, table::Need};

fn parsed() -> Value {
    serde_json::from_str(&openapi_json()).expect("it is JSON")
}

/// Path, method and operation.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().expect("there are paths");
    let mut all = Vec::new();
    for (path, item) in paths {
        let item = item.as_object().expect("an item");
        all.extend(item.iter().map(|(method, operation)| (path.clone(), method.clone(), operation)));
    }
    all
}

/// Every value, with the pointer to it.
fn walk<'a>(value: &'a Value, pointer: &str, see: &mut impl FnMut(&str, &'a Value)) {
    see(pointer, value);
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                walk(member, &format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")), see);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &format!("{pointer}/{index}"), see);
            }
        }
        _ => {}
    }
}

fn references(document: &Value) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    walk(document, "", &mut |_, value| found.extend(value.get("$ref").and_then(Value::as_str)));
    found
}

/// A schema as a document of its own, in which no object has members that it does not name.
fn closed(document: &Value, schema: &Value) -> Value {
    fn close(value: &mut Value, is_part: bool) {
        match value {
            Value::Object(members) => {
                for (name, member) in members.iter_mut() {
                    close(member, name == "allOf");
                }
                let plain = members.contains_key("properties") || members.contains_key("allOf");
                if plain && !is_part && !members.contains_key("additionalProperties") {
                    members.insert("unevaluatedProperties".to_owned(), false.into());
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| close(item, is_part)),
            _ => {}
        }
    }
    let mut schemas = document["components"]["schemas"].clone();
    // What others are made of must not be closed by itself.
    let mut parts = BTreeSet::new();
    walk(document, "", &mut |_, value| {
        for part in value.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            parts.extend(part["$ref"].as_str().and_then(|it| it.rsplit('/').next()));
        }
    });
    for (name, schema) in schemas.as_object_mut().expect("schemas") {
        close(schema, parts.contains(name.as_str()));
    }
    let mut root = schema.clone();
    close(&mut root, false);
    json!({"components": {"schemas": schemas}, "allOf": [root]})
}

fn validate(document: &Value, schema: &Value, example: &Value, place: &str) {
    let validator = jsonschema::draft202012::new(&closed(document, schema)).expect(place);
    let faults: Vec<String> =
        validator.iter_errors(example).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(faults.is_empty(), "the example of {place} is not what its schema says: {faults:#?}");
}

/// The examples of a media type.
fn examples<'a>(document: &'a Value, media: &'a Value) -> Vec<&'a Value> {
    let named = media["examples"].as_object().into_iter().flat_map(Map::values).map(|example| {
        let target = example["$ref"].as_str().map(|it| document.pointer(&it[1..]).expect("it resolves"));
        &target.unwrap_or(example)["value"]
    });
    media.get("example").into_iter().chain(named).collect()
}

#[test]
fn every_method_of_the_table_is_in_the_document_and_no_other() {
    let mut table = BTreeSet::new();
    for (path, methods) in routes() {
        table.extend(methods.described().iter().map(|it| (path.to_owned(), it.method.as_str().to_ascii_lowercase())));
    }
    let document = parsed();
    let told = operations(&document).into_iter().map(|(path, method, _)| (path, method)).collect();
    assert_eq!(table, told);
    assert_eq!(document["openapi"], "3.1.0");
}

#[test]
fn every_operation_says_what_it_is() {
    let document = parsed();
    let (mut ids, mut tags) = (BTreeMap::new(), BTreeSet::new());
    for (path, method, operation) in operations(&document) {
        let place = format!("{method} {path}");
        for member in ["operationId", "summary", "description"] {
            assert!(operation[member].as_str().is_some_and(|text| !text.is_empty()), "{place} has no {member}");
        }
        let id = operation["operationId"].as_str().expect("it has one");
        assert_eq!(ids.insert(id, place.clone()), None, "two operations are called {id}");
        tags.extend(operation["tags"].as_array().expect("tags").iter().filter_map(Value::as_str));
        for name in path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')) {
            let parameters = operation["parameters"].as_array().expect("parameters");
            let told = parameters.iter().filter(|it| it["name"] == name && it["in"] == "path").count();
            assert_eq!(told, 1, "{place} does not say once what `{name}` is");
        }
    }
    let listed: BTreeSet<&str> =
        document["tags"].as_array().expect("tags").iter().filter_map(|tag| tag["name"].as_str()).collect();
    assert_eq!(listed, tags, "the list of tags and those of the operations differ");
}

#[test]
fn every_body_has_an_example_that_its_schema_holds_for() {
    let document = parsed();
    for (path, method, operation) in operations(&document) {
        let place = format!("{method} {path}");
        let request = operation.get("requestBody");
        let replies = operation["responses"].as_object().expect("responses");
        assert!(replies.keys().any(|status| status.starts_with('2')), "{place} never succeeds");
        let told = replies.iter().filter(|(_, reply)| reply.get("$ref").is_none()).map(|(_, reply)| reply);
        for content in request.into_iter().chain(told).filter_map(|it| it["content"].as_object()) {
            let found: Vec<_> = content.values().flat_map(|media| examples(&document, media)).collect();
            assert!(!found.is_empty(), "{place} has a body without an example");
            for media in content.values() {
                for example in examples(&document, media) {
                    validate(&document, &media["schema"], example, &place);
                }
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_no_component_is_left_over() {
    let document = parsed();
    let references = references(&document);
    for reference in &references {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference} leads nowhere");
    }
    for (kind, components) in document["components"].as_object().expect("components") {
        for name in components.as_object().expect("by name").keys() {
            // They are referred to by name.
            let by_itself = kind == "securitySchemes" || kind == "examples";
            let used = by_itself || references.contains(format!("#/components/{kind}/{name}").as_str());
            assert!(used, "nothing refers to {kind}/{name}");
        }
    }
}

#[test]
fn every_code_has_an_example_and_an_operation_that_answers_with_it() {
    let document = parsed();
    let mut answered: BTreeSet<String> = BTreeSet::new();
    for (name, response) in document["components"]["responses"].as_object().expect("responses") {
        let media = &response["content"]["application/problem+json"];
        answered.extend(media["examples"].as_object().expect("examples").keys().cloned());
        for example in examples(&document, media) {
            validate(&document, &media["schema"], example, name);
        }
    }
    for code in Code::ALL {
        let example = &document["components"]["examples"][code.name()]["value"];
        assert_eq!((&example["code"], &example["status"]), (&code.name().into(), &code.status().as_u16().into()));
        // No operation is refused for what is none.
        assert_eq!(answered.contains(code.name()), *code != Code::MethodNotAllowed, "{}", code.name());
    }
}

#[test]
fn who_may_use_a_method_is_said() {
    let document = parsed();
    for (path, methods) in routes() {
        for described in methods.described() {
            let operation = &document["paths"][path][described.method.as_str().to_ascii_lowercase()];
            let refusals = operation["responses"].as_object().expect("responses");
            let open = described.need == Need::Open;
            assert_eq!(operation["security"] == json!([]), open, "{path}");
            assert_eq!(!refusals.contains_key("401"), open, "{path}");
            assert_eq!(!refusals.contains_key("429"), open, "{path}");
        }
    }
}

#[test]
fn secrets_go_in_and_do_not_come_out() {
    const SECRET: [&str; 5] = ["secret", "secret_key", "secrets", "signing_secret", "credentials"];
    /// What replies say of secrets that stand or where they are found, and those that show what was made, this once.
    const REPLIES: [&str; 9] = [
        "Destination",
        "DestinationWithSecret",
        "Holdings",
        "Integration",
        "PlannedChange",
        "ProviderGuide",
        "RotatedSecret",
        "Webhook",
        "WebhookWithSecret",
    ];
    let document = parsed();
    let mut asked = 0;
    walk(&document["components"]["schemas"], "", &mut |pointer, value| {
        let Some(properties) = value.get("properties").and_then(Value::as_object) else { return };
        for (name, property) in properties.iter().filter(|(name, _)| SECRET.contains(&name.as_str())) {
            let schema = pointer.split('/').nth(1).unwrap_or_default();
            let is_reply = REPLIES.contains(&schema);
            let goes_in = [&property["writeOnly"], &property["items"]["writeOnly"]].contains(&&Value::Bool(true));
            assert_eq!(goes_in, !is_reply, "{schema}: {name}");
            asked += usize::from(!is_reply);
        }
    });
    assert!(asked > 5, "{asked}");
}

#[test]
fn it_is_made_alike_each_time() {
    assert_eq!(document().to_json().expect("JSON"), document().to_json().expect("JSON"));
}
