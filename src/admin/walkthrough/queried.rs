//! Each parameter of each request in the forms around the borders of its schema, as [`super::allowed`] has it for
//! members: in a query, what the document allows is taken, and what it does not allow is refused by that parameter's
//! name; in a path, what it does not allow is not there.

use axum::http::{StatusCode, header};
use serde_json::{Value, json};

use super::{
    Answer,
    allowed::{around, kinds},
    documented::{at, filled, parameters, parsed},
    running,
};

/// Spellings that are taken beside `true` and `false`.
const TRUE: [&str; 4] = ["true", "1", "yes", "on"];
const FALSE: [&str; 4] = ["false", "0", "no", "off"];
/// Forms that are near to what some schema allows.
const NEAR: [&str; 34] = [
    "0",
    "00",
    "+5",
    " 5",
    "5 ",
    "5.0",
    "1e2",
    "0x10",
    "4294967295",
    "4294967296",
    "18446744073709551616",
    "TRUE",
    "Yes",
    "off",
    "2",
    "tru",
    "true,false",
    "2026-01-31T08:00:00Z",
    "2026-01-31t08:00:00z",
    "2026-01-31T08:00:00.123456789Z",
    "2026-01-31T08:00:00+05:30",
    "2026-01-31T08:00:00",
    "2026-01-31",
    "2026-02-30T08:00:00Z",
    "1969-12-31T23:59:59Z",
    "9999-12-31T23:59:59Z",
    "yesterday",
    "pending,success",
    "pending,",
    "a,b , c",
    ",",
    "a.*,b.*,c.*,d.*,e.*,f.*,g.*,h.*,i.*,j.*,k.*,l.*,m.*,n.*,o.*,p.*,q.*",
    "\u{202e}x",
    "漢字",
];
/// Words of refusals of texts that the schema's pattern fits and that another list, or another language, made.
const OF_OTHERS: [&str; 4] = ["must be the `next", "line 1, column ", "is empty; leave it out", "gives no truth value"];

/// A text as its reader understands it.
fn understood(schema: &Value, text: &str) -> Value {
    let lower = text.to_ascii_lowercase();
    let kinds = kinds(schema);
    let name = schema["enum"].as_array().into_iter().flatten().find(|name| name.as_str() == Some(&lower));
    // Names are taken in upper case too.
    let is_of_names = schema["pattern"].as_str().is_some_and(|it| it.starts_with("^(pending"));
    match text.parse::<u64>() {
        Ok(number) if kinds.contains(&"integer") && !text.starts_with('+') => number.into(),
        _ if kinds.contains(&"boolean") && TRUE.contains(&&*lower) => true.into(),
        _ if kinds.contains(&"boolean") && FALSE.contains(&&*lower) => false.into(),
        _ if is_of_names => lower.into(),
        _ => name.cloned().unwrap_or_else(|| text.into()),
    }
}

/// Whether a value is one that a schema of the document allows.
fn validator(document: &Value, schema: &Value) -> jsonschema::Validator {
    let schema = json!({"components": document["components"], "allOf": [schema]});
    jsonschema::draft202012::options().should_validate_formats(true).build(&schema).expect("it is a schema")
}

/// What is tried of a parameter.
fn texts(document: &Value, schema: &Value) -> Vec<String> {
    let near = NEAR.iter().map(|text| (*text).to_owned());
    let borders = around(document, schema).into_iter().map(|it| match it.value {
        Value::String(text) => text,
        other => other.to_string(),
    });
    let mut texts: Vec<String> = near.chain(borders).collect();
    texts.extend(texts.clone().iter().map(|text| text.to_ascii_uppercase()).take(200));
    texts.sort_unstable();
    texts.dedup();
    texts
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat()
}

/// What is said against a parameter.
fn refusal<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let detail = answer.body["detail"].as_str().filter(|_| answer.status == StatusCode::BAD_REQUEST)?;
    detail.strip_prefix(&format!("query parameter `{name}` "))
}

#[tokio::test]
async fn a_query_is_taken_where_the_document_allows_it_and_nowhere_else() {
    let document = parsed();
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            let queried: Vec<&Value> = parameters(&document, operation, "query").collect();
            if queried.is_empty() {
                continue;
            }
            let mut run = running().await;
            run.configure().await;
            let url = filled(&document, path, operation, crate::providers::DEFAULT);
            let method = method.to_ascii_uppercase();
            for parameter in queried {
                let (name, schema) = (parameter["name"].as_str().expect("a name"), &parameter["schema"]);
                let validator = validator(&document, schema);
                for text in texts(&document, schema) {
                    let query = format!("{name}={}", encoded(&text));
                    let answer = run.send(&method, &format!("{url}?{query}"), Value::Null, None).await;
                    let said = refusal(&answer, name);
                    let is_allowed = validator.is_valid(&understood(at(&document, schema), &text));
                    let is_of_others = said.is_some_and(|said| OF_OTHERS.iter().any(|words| said.contains(words)));
                    tried += 1;
                    if method == "DELETE" && answer.status.is_success() {
                        run = running().await;
                        run.configure().await;
                    }
                    let is_right = if is_allowed { said.is_none() || is_of_others } else { said.is_some() };
                    if !is_right || answer.status.is_server_error() {
                        let text: String = text.chars().take(60).collect();
                        wrong.push(format!("{method} {path} {name} = {text:?}: {} {said:?}", answer.status));
                    }
                }
                let twice = run.send(&method, &format!("{url}?{name}=1&{name}=1"), Value::Null, None).await;
                assert_eq!(refusal(&twice, name), Some("occurs more than once"), "{method} {path}: {}", twice.text);
                for nothing in [name.to_owned(), format!("{name}="), format!("&{name}=&")] {
                    let answer = run.send(&method, &format!("{url}?{nothing}"), Value::Null, None).await;
                    assert!(refusal(&answer, name).is_some(), "{method} {path}?{nothing}: {}", answer.text);
                }
                for nonsense in [format!("{name}=%ff"), format!("{name}=%C3%28"), "%ff=1".to_owned()] {
                    let answer = run.send(&method, &format!("{url}?{nonsense}"), Value::Null, None).await;
                    let place = format!("{method} {path}?{nonsense}: {}", answer.text);
                    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{place}");
                    assert!(answer.text.contains("percent-encoded"), "{place}");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried}: {:#?}", wrong.len(), wrong);
    assert!(tried > 3_000, "{tried}");
}

#[tokio::test]
async fn a_path_that_the_document_does_not_allow_is_not_there() {
    let document = parsed();
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            let run = running().await;
            run.configure().await;
            let method = method.to_ascii_uppercase();
            for parameter in parameters(&document, operation, "path") {
                let (name, schema) = (parameter["name"].as_str().expect("a name"), &parameter["schema"]);
                let validator = validator(&document, schema);
                let one = format!("{{{name}}}");
                let mut texts = texts(&document, schema);
                // A sign is of no number, and nothing else begins with it.
                let is_number = kinds(at(&document, schema)).contains(&"integer");
                texts.retain(|text| !text.is_empty() && (is_number || !text.starts_with('+')));
                let allowed = |text: &str| validator.is_valid(&understood(at(&document, schema), text));
                let segments = texts.iter().map(|text| (allowed(text), encoded(text)));
                let nonsense =
                    [(false, "%ff"), (allowed("\0"), "%00"), (allowed("%zz"), "%zz"), (allowed("../"), "%2e%2e%2f")];
                let nonsense = nonsense.into_iter().map(|(is_allowed, segment)| (is_allowed, segment.to_owned()));
                for (is_allowed, segment) in segments.chain(nonsense) {
                    let url = filled(&document, &path.replace(&one, &segment), operation, crate::providers::DEFAULT);
                    let body = operation.get("requestBody").map_or(Value::Null, |_| json!({}));
                    let answer = run.send(&method, &url, body, None).await;
                    let kind = answer.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
                    let is_missing = answer.status == StatusCode::NOT_FOUND;
                    tried += 1;
                    let is_right = match is_allowed {
                        true => answer.body["detail"] != "the path holds an id that is none",
                        false => is_missing && kind == Some("application/problem+json"),
                    };
                    if !is_right || answer.status.is_server_error() {
                        wrong.push(format!("{method} {url}: {} {}", answer.status, answer.text));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried}: {:#?}", wrong.len(), wrong);
    assert!(tried > 3_000, "{tried}");
}
