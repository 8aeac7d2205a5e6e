//! `credentials`: what a destination needs to sign in. They come in, are sealed, and are never shown again but by
//! their names. Pure.

use hookmill_actors::{domain::config::Destination, domain::secret::Secret, ports::sealer::Owner};
use hyper::Uri;
use serde_json::{Map, Value};

use super::super::{fields::kind, problem::Problem, redact::REDACTED, tools::Tools};

/// Settings that name who is told them.
const SERVERS: [&str; 2] = ["url", "proxy"];
const MEMBERS_MAX: usize = 16;
const BYTES_MAX: usize = 32 * 1024;

/// An object of texts, as JSON. No error repeats any of it.
pub(super) fn credentials(value: Value) -> Result<Secret, String> {
    let Value::Object(members) = value else {
        return Err(format!("must be an object of names and secret texts; it is {}", kind(&value)));
    };
    if members.is_empty() {
        return Err("is empty; give `null` to remove what is stored".to_owned());
    }
    if members.len() > MEMBERS_MAX {
        return Err(format!("has {} members; at most {MEMBERS_MAX} are allowed", members.len()));
    }
    for (name, value) in &members {
        let shown: String = name.chars().filter(|char| !char.is_control()).take(64).collect();
        match value {
            Value::String(text) if text == REDACTED => {
                return Err(format!(
                    "holds `{REDACTED}` in `{shown}`, which a reply shows in place of a secret; give all of them, or \
                     leave `credentials` out to keep what is stored"
                ));
            }
            Value::String(text) if text.is_empty() => return Err(format!("has an empty text in `{shown}`")),
            Value::String(_) => {}
            other => return Err(format!("must hold texts only; `{shown}` is {}", kind(other))),
        }
    }
    let json = serde_json::to_vec(&members).map_err(|_| "is no JSON".to_owned())?;
    if json.len() > BYTES_MAX {
        return Err(format!("is {} bytes as JSON; at most {BYTES_MAX} are allowed", json.len()));
    }
    Ok(Secret::new(json))
}

/// What stands in the store, opened.
pub(super) fn stored(destination: &Destination, tools: &Tools) -> Result<Option<Secret>, String> {
    let open = |sealed| tools.sealer.open(Owner::DestinationCredentials(destination.id), sealed);
    destination.credentials.as_ref().map(open).transpose().map_err(|error| error.to_string())
}

/// The same for a request that needs them.
pub(in crate::admin) fn needed(destination: &Destination, tools: &Tools) -> Result<Option<Secret>, Problem> {
    stored(destination, tools).map_err(|error| {
        Problem::member("/credentials", format!("what is stored cannot be read ({error}); give them again"))
    })
}

/// Refuses that what is stored goes to another server than it was given for: whoever may change a destination would
/// learn it there.
pub(in crate::admin) fn stay(current: &Destination, kind: &str, settings: &Map<String, Value>) -> Result<(), Problem> {
    if current.credentials.is_none() || tell_the_same(current, kind, settings) {
        return Ok(());
    }
    Err(Problem::member("/credentials", "were given for another server; give them again, or `null` to remove them"))
}

/// Whether a destination with these settings tells its credentials to the same servers.
pub(super) fn tell_the_same(current: &Destination, kind: &str, settings: &Map<String, Value>) -> bool {
    current.kind == kind && SERVERS.iter().all(|name| server(&current.settings, name) == server(settings, name))
}

/// Scheme, host and port, as they are written.
fn server(settings: &Map<String, Value>, member: &str) -> Option<(String, String)> {
    let uri: Uri = settings.get(member)?.as_str()?.parse().ok()?;
    Some((uri.scheme_str()?.to_ascii_lowercase(), uri.authority()?.as_str().to_ascii_lowercase()))
}

/// Their names, each with what stands in place of a secret.
pub(super) fn shown(secret: &Secret) -> Map<String, Value> {
    let members: Map<String, Value> = serde_json::from_slice(secret.expose()).unwrap_or_default();
    members.into_iter().map(|(name, _)| (name, REDACTED.into())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_words_repeat_a_secret() {
        for (given, says) in [
            (json!("hush"), "must be an object"),
            (json!({}), "`null`"),
            (json!({"a": 5}), "`a` is a number"),
            (json!({"a": "hush", "b": "***"}), "`b`"),
            (json!({"a": ""}), "empty text"),
            (json!({"a": "hush".repeat(9_000)}), "32768"),
            (json!((0..17).map(|n| (n.to_string(), "hush".into())).collect::<Map<_, _>>()), "17 members"),
        ] {
            let words = credentials(given).expect_err(says);
            assert!(words.contains(says) && !words.contains("hush"), "{words}");
        }
        let secret = credentials(json!({"token": "hush"})).expect("it is right");
        assert_eq!(Value::Object(shown(&secret)), json!({"token": "***"}));
    }
}
