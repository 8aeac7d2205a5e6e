//! A plan on the screen: what is made, changed and deleted, coloured where colours are wanted.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cli::{
    note, print,
    show::{colours, escaped},
};

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

/// Shows all that is otherwise, and how many there are of each.
pub(super) fn show(plan: &Value) -> anyhow::Result<()> {
    let mut text = String::new();
    let mut has_secrets = false;
    for change in plan["changes"].as_array().into_iter().flatten() {
        let (mark, colour) = match change["action"].as_str() {
            Some("create") => ('+', GREEN),
            Some("update") => ('~', YELLOW),
            Some("delete") => ('-', RED),
            _ => continue,
        };
        let _ = writeln!(text, "{}", painted(&format!("{mark} {}", title(change)), colour));
        for member in change["members"].as_array().into_iter().flatten() {
            lines_of(member, &mut text);
        }
        for secret in change["secrets"].as_array().into_iter().flatten() {
            let pointer = secret["pointer"].as_str().unwrap_or_default();
            let deed = secret["change"].as_str().unwrap_or_default();
            let _ = writeln!(text, "    {}: ***, {}", name(pointer), painted(&escaped(deed), YELLOW));
        }
        for (member, secret) in change["made"].as_object().into_iter().flatten() {
            has_secrets = true;
            let _ = writeln!(text, "    {}: {}", escaped(member), escaped(secret.as_str().unwrap_or_default()));
        }
    }
    let count = |deed: &str| plan["summary"][deed].as_u64().unwrap_or_default();
    let (created, updated, deleted, same) = (count("create"), count("update"), count("delete"), count("unchanged"));
    let is_dry = plan["dry_run"] == true;
    if created + updated + deleted == 0 {
        let _ = writeln!(text, "nothing to change: {same} as it should be");
    } else if is_dry {
        let _ = writeln!(text, "{created} to create, {updated} to change, {deleted} to delete, {same} unchanged");
    } else {
        let version = plan["version"].as_u64().unwrap_or_default();
        let _ = writeln!(
            text,
            "{created} created, {updated} changed, {deleted} deleted, {same} unchanged: version {version}"
        );
    }
    print(text)?;
    if has_secrets {
        note("the secrets above are shown this once: keep them now");
    }
    Ok(())
}

/// What a change is about: `webhook Shop/orders`.
pub(super) fn title(change: &Value) -> String {
    let text = |member: &str| change[member].as_str().map(escaped);
    let (kind, name) = (text("kind").unwrap_or_default(), text("name").unwrap_or_default());
    match text("integration") {
        Some(integration) => format!("{kind} {integration}/{name}"),
        None => format!("{kind} {name}"),
    }
}

fn lines_of(member: &Value, text: &mut String) {
    let name = name(member["pointer"].as_str().unwrap_or_default());
    match (&member["from"], &member["to"]) {
        (Value::Null, to) => {
            let _ = writeln!(text, "    {name}: {}", painted(&value(to), GREEN));
        }
        (from, Value::Null) => {
            let _ = writeln!(text, "    {name}: {}", painted(&value(from), RED));
        }
        (from, to) => {
            let _ = writeln!(text, "    {name}: {} -> {}", painted(&value(from), RED), painted(&value(to), GREEN));
        }
    }
}

fn name(pointer: &str) -> String {
    escaped(&pointer.trim_start_matches('/').replace('/', "."))
}

fn value(value: &Value) -> String {
    escaped(&value.to_string())
}

fn painted(text: &str, colour: &str) -> String {
    if colours() { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
}
