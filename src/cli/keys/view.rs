//! The key ring and its rotation, for people.

use std::fmt::Write;

use serde_json::Value;

use crate::{keys::Holdings, words::counted};

pub(super) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// The ring for people.
pub(super) fn table(ring: &Value) -> String {
    let keys = ring["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines = vec![format!("{:<10}{:<9}{:<26}{}", "ID", "STATE", "CREATED", "SEALED WITH IT")];
    for key in keys {
        let holdings: Option<Holdings> = serde_json::from_value(key["sealed"].clone()).ok();
        let sealed = match (holdings, key["retired_at"].as_str()) {
            (_, Some(at)) => format!("retired {at}"),
            (Some(holdings), None) => holdings.to_string(),
            (None, None) => "not counted (--sealed counts)".to_owned(),
        };
        lines.push(format!(
            "{:<10}{:<9}{:<26}{sealed}",
            text(&key["id"]),
            text(&key["state"]),
            text(&key["created_at"])
        ));
    }
    lines.push(format!("from {}", text(&ring["source"])));
    if !ring["rotation"].is_null() {
        lines.push(rotation_line(&ring["rotation"]));
    }
    lines.join("\n") + "\n"
}

pub(super) fn rotation_line(rotation: &Value) -> String {
    let mut line = format!(
        "rotation to {} {}: {} of {} looked at, {} sealed again",
        text(&rotation["to"]),
        text(&rotation["state"]),
        number(&rotation["changes_done"]),
        counted(number(&rotation["changes_total"]), "change"),
        counted(number(&rotation["sealed_again"]), "secret"),
    );
    if number(&rotation["damaged"]) > 0 {
        let places = rotation["damaged_at"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join("; ");
        let damaged = number(&rotation["damaged"]);
        let _ = write!(line, ", {damaged} damaged left as it was ({places})");
    }
    if let Some(failure) = rotation["failure"].as_str() {
        let _ = write!(line, "; stopped: {failure}");
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_says_what_a_key_is_and_what_needs_it() {
        let ring = json!({
            "source": "key file `k`",
            "keys": [
                {"id": "00000001", "state": "retired", "created_at": "a", "retired_at": "b"},
                {"id": "00000002", "state": "active", "created_at": "c", "retired_at": null, "sealed": {
                    "credentials": {"current": 1, "versions": 2}, "endpoint_secrets": {"current": 0, "versions": 0},
                    "signing_secrets": {"current": 0, "versions": 0},
                    "destination_credentials": {"current": 0, "versions": 0}, "other": 0, "damaged": 0}},
                {"id": "00000003", "state": "primary", "created_at": "d", "retired_at": null},
            ],
            "rotation": {"state": "running", "to": "00000003", "changes_total": 9, "changes_done": 4,
                         "sealed_again": 3, "damaged": 1, "damaged_at": ["integration 3"], "failure": null},
        });
        let table = table(&ring);
        for line in [
            "00000001  retired  a                         retired b",
            "00000002  active   c                         1 integration credential and 2 in versions",
            "00000003  primary  d                         not counted (--sealed counts)",
            "from key file `k`",
            "rotation to 00000003 running: 4 of 9 changes looked at, 3 secrets sealed again, 1 damaged left as it \
             was (integration 3)",
        ] {
            assert!(table.lines().any(|it| it == line), "{line}\n{table}");
        }
    }
}
