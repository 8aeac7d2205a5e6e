//! What is not there is told before what is wrong with a request about it, by every method alike.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{
    documented::{parameters, parsed},
    running,
};

/// A value of a path's parameter that nothing has.
fn unknown(parameter: &Value) -> String {
    match &parameter["example"] {
        Value::String(text) => text.replace(|char: char| char.is_ascii_hexdigit(), "0"),
        _ => "4000000000".to_owned(),
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_before_what_is_wrong_with_the_body() {
    let document = parsed();
    let run = running().await;
    run.configure().await;
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            // The backups and keys of these tests know every id.
            let is_theirs = ["/api/v1/backup/", "/api/v1/keys/"].iter().any(|them| path.starts_with(them));
            if operation.get("requestBody").is_none() || is_theirs {
                continue;
            }
            let mut url = path.clone();
            for parameter in parameters(&document, operation, "path") {
                let name = parameter["name"].as_str().expect("a name");
                url = url.replace(&format!("{{{name}}}"), &unknown(parameter));
            }
            if url == *path {
                continue;
            }
            for body in [json!({"zzzz": 0}), json!([])] {
                let answer = run.send(&method.to_ascii_uppercase(), &url, body, None).await;
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {url}: {}", answer.text);
            }
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
}
