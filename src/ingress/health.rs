//! `/healthz`: the process lives. `/readyz`: webhooks sent now would be stored.

use hyper::{Method, StatusCode};

use super::{
    Shared,
    reply::{Refused, Reply, json, without_body},
};

/// Answers `GET` and `HEAD` of a health path; `None` when it is none.
pub(super) fn answer(shared: &Shared, method: &Method, path: &str) -> Option<Result<Reply, Refused>> {
    let make: fn(&Shared) -> Reply = match path {
        "/healthz" => alive,
        "/readyz" => ready,
        _ => return None,
    };
    Some(match *method {
        Method::GET => Ok(make(shared)),
        Method::HEAD => {
            let mut reply = make(shared);
            without_body(&mut reply);
            Ok(reply)
        }
        _ => Err(Refused::Method("GET, HEAD")),
    })
}

fn alive(_: &Shared) -> Reply {
    json(StatusCode::OK, r#"{"status":"alive"}"#)
}

fn ready(shared: &Shared) -> Reply {
    let mut reasons = shared.readiness.reasons();
    if shared.drain.has_begun() {
        reasons.push("draining".to_owned());
    }
    if reasons.is_empty() {
        return json(StatusCode::OK, r#"{"status":"ready"}"#);
    }
    let document = serde_json::json!({ "status": "not_ready", "reasons": reasons });
    json(StatusCode::SERVICE_UNAVAILABLE, document.to_string())
}
