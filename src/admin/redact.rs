//! What replies must not show of what was stored: values whose name says that they are secret.

use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use crate::secrets::names;

/// What stands in place of a secret.
pub(super) const REDACTED: &str = "***";
/// What stands in place of a secret that is compared with another one.
pub(super) const CHANGED: &str = "changed";
pub(super) const UNCHANGED: &str = "unchanged";

/// Whether a header, query parameter or member of that name is likely to hold a secret.
pub(super) fn is_sensitive(name: &str) -> bool {
    const WHOLE: [&str; 5] = ["authorization", "proxy_authorization", "cookie", "set_cookie", "sig"];
    const PARTS: [&str; 12] = [
        "signature",
        "token",
        "secret",
        "password",
        "passwd",
        "passphrase",
        "credential",
        "api_key",
        "apikey",
        "private_key",
        "access_key",
        "hmac",
    ];
    let name = name.to_ascii_lowercase().replace('-', "_");
    WHOLE.contains(&name.as_str()) || name.ends_with("_sig") || PARTS.iter().any(|part| name.contains(part))
}

/// A query string with its sensitive values taken out.
pub(super) fn query(query: &str) -> String {
    let shown = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if is_sensitive(name) => format!("{name}={REDACTED}"),
        _ => pair.to_owned(),
    };
    query.split('&').map(shown).collect::<Vec<_>>().join("&")
}

/// Whether a text in settings is a secret, by the name of its member or as a URL.
fn is_secret(name: &str, text: &str) -> bool {
    !text.is_empty() && (names::is_secret(name) || names::url_holds_secret(text))
}

/// Settings with their secret texts taken out, at any depth.
pub(super) fn settings(settings: &Map<String, Value>) -> Map<String, Value> {
    settings.iter().map(|(name, value)| (name.clone(), member(name, value))).collect()
}

fn member(name: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if is_secret(name, text) => REDACTED.into(),
        Value::Object(members) => Value::Object(settings(members)),
        Value::Array(items) => items.iter().map(|item| member(name, item)).collect(),
        other => other.clone(),
    }
}

/// Settings with marks in place of their secret texts: whether each is the same as that of `other` at the same place.
pub(super) fn compared(settings: &Map<String, Value>, other: Option<&Map<String, Value>>) -> Map<String, Value> {
    fn member(name: &str, value: &Value, other: Option<&Value>) -> Value {
        match value {
            Value::String(text) if is_secret(name, text) => {
                let same =
                    other.and_then(Value::as_str).is_some_and(|other| text.as_bytes().ct_eq(other.as_bytes()).into());
                if same { UNCHANGED.into() } else { CHANGED.into() }
            }
            Value::Object(members) => Value::Object(compared(members, other.and_then(Value::as_object))),
            Value::Array(items) => {
                let other = |at| other.and_then(|other: &Value| other.get(at));
                items.iter().enumerate().map(|(at, item)| member(name, item, other(at))).collect()
            }
            plain => plain.clone(),
        }
    }
    let other = |name| other.and_then(|other| other.get(name));
    settings.iter().map(|(name, value)| (name.clone(), member(name, value, other(name)))).collect()
}

/// Where, at any depth, a secret text is: a JSON pointer below the settings.
pub(super) fn secret_within(settings: &Map<String, Value>) -> Option<String> {
    fn find(name: &str, value: &Value) -> Option<String> {
        match value {
            Value::String(text) => is_secret(name, text).then(String::new),
            Value::Object(members) => secret_within(members),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .find_map(|(index, item)| find(name, item).map(|inner| format!("/{index}{inner}"))),
            _ => None,
        }
    }
    settings.iter().find_map(|(name, value)| find(name, value).map(|inner| format!("/{}{inner}", escaped(name))))
}

/// Whether a reply was sent back as it was, with what it hides.
pub(super) fn is_redacted(settings: &Map<String, Value>) -> bool {
    redacted_within(settings).is_some()
}

/// Where, at any depth, something hidden was sent back: a JSON pointer.
pub(super) fn redacted_within(settings: &Map<String, Value>) -> Option<String> {
    fn within(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => (text == REDACTED).then(String::new),
            Value::Array(items) => {
                items.iter().enumerate().find_map(|(index, item)| within(item).map(|inner| format!("/{index}{inner}")))
            }
            Value::Object(members) => redacted_within(members),
            _ => None,
        }
    }
    settings.iter().find_map(|(name, value)| within(value).map(|inner| format!("/{}{inner}", escaped(name))))
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_tell_what_is_secret() {
        for secret in [
            "Authorization",
            "proxy-authorization",
            "Cookie",
            "x-api-key",
            "Stripe-Signature",
            "X-Hub-Signature-256",
            "x-gitlab-token",
            "X-Shopify-Hmac-Sha256",
            "paypal-transmission-sig",
            "webhook_secret",
            "access_token",
        ] {
            assert!(is_sensitive(secret), "{secret}");
        }
        for open in ["content-type", "user-agent", "x-github-event", "webhook-id", "host", "x-signed-by", "design"] {
            assert!(!is_sensitive(open), "{open}");
        }
    }

    #[test]
    fn values_go_and_names_stay() {
        assert_eq!(query("a=1&token=planted&b"), "a=1&token=***&b");
        assert_eq!(query(""), "");
        let Value::Object(given) =
            json!({"url": "https://x", "headers": {"X-Api-Key": "planted", "x-token": ["planted"]}})
        else {
            unreachable!("it is an object")
        };
        let shown = Value::Object(settings(&given));
        assert_eq!(shown, json!({"url": "https://x", "headers": {"X-Api-Key": "***", "x-token": ["***"]}}));
        assert!(is_redacted(&settings(&given)) && !is_redacted(&given));
        assert_eq!(redacted_within(&settings(&given)).as_deref(), Some("/headers/X-Api-Key"));
    }

    #[test]
    fn a_secret_in_the_open_is_found_wherever_it_is() {
        let find = |value: Value| secret_within(value.as_object().expect("it is an object"));
        assert_eq!(find(json!({"webhook_secret": "x"})).as_deref(), Some("/webhook_secret"));
        assert_eq!(find(json!({"a": [{"b/c": {"API-KEY": "x"}}]})).as_deref(), Some("/a/0/b~1c/API-KEY"));
        assert_eq!(find(json!({"token": ["", "x"]})).as_deref(), Some("/token/1"));
        assert_eq!(find(json!({"a": ["https://x", "https://u:p@x"]})).as_deref(), Some("/a/1"));
        assert_eq!(find(json!({"token_url": "https://x", "api_key": "", "tokens": 3})), None);
    }

    proptest::proptest! {
        #[test]
        fn what_is_accepted_in_the_open_is_shown_in_full(
            names in proptest::collection::vec("[a-z_]{0,6}(secret|token|url|api_key)?", 1..5),
            text in "[a-z]{0,3}",
        ) {
            let mut given = Map::new();
            for name in names {
                given = Map::from_iter([(name.clone(), json!([text, given])), ("x".to_owned(), json!(text))]);
            }
            proptest::prop_assert_eq!(secret_within(&given).is_none(), settings(&given) == given);
        }
    }
}
