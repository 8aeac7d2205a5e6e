//! What replies must not show of what was stored: values whose name says that they are secret.

use serde_json::{Map, Value};

/// What stands in place of a secret.
pub(super) const REDACTED: &str = "***";

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

/// Settings with their sensitive texts taken out, at any depth.
pub(super) fn settings(settings: &Map<String, Value>) -> Map<String, Value> {
    settings.iter().map(|(name, value)| (name.clone(), member(name, value))).collect()
}

fn member(name: &str, value: &Value) -> Value {
    match value {
        Value::String(_) if is_sensitive(name) => REDACTED.into(),
        Value::Object(members) => Value::Object(settings(members)),
        Value::Array(items) => items.iter().map(|item| member(name, item)).collect(),
        other => other.clone(),
    }
}

/// The first text, at any depth, that looks like a secret by its name: `(pointer below the object)`.
pub(super) fn secret_within(settings: &Map<String, Value>) -> Option<String> {
    const ENDS: [&str; 8] = ["secret", "password", "passwd", "token", "api_key", "apikey", "private_key", "access_key"];
    let looks_secret = |name: &str| {
        let name = name.to_ascii_lowercase().replace('-', "_");
        ENDS.iter().any(|end| name.ends_with(end)) || name.ends_with("secret_key")
    };
    settings.iter().find_map(|(name, value)| match value {
        Value::String(text) if looks_secret(name) && !text.is_empty() => Some(format!("/{}", escaped(name))),
        Value::Object(members) => secret_within(members).map(|inner| format!("/{}{inner}", escaped(name))),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| item.as_object().map(|members| (index, members)))
            .find_map(|(index, members)| {
                secret_within(members).map(|inner| format!("/{}/{index}{inner}", escaped(name)))
            }),
        _ => None,
    })
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
            json!({"url": "https://x", "headers": {"X-Api-Key": "planted", "x-tokens": ["planted"]}})
        else {
            unreachable!("it is an object")
        };
        let shown = Value::Object(settings(&given));
        assert_eq!(shown, json!({"url": "https://x", "headers": {"X-Api-Key": "***", "x-tokens": ["***"]}}));
    }

    #[test]
    fn a_secret_in_the_open_is_found_wherever_it_is() {
        let find = |value: Value| secret_within(value.as_object().expect("it is an object"));
        assert_eq!(find(json!({"webhook_secret": "x"})).as_deref(), Some("/webhook_secret"));
        assert_eq!(find(json!({"a": [{"b/c": {"API-KEY": "x"}}]})).as_deref(), Some("/a/0/b~1c/API-KEY"));
        assert_eq!(find(json!({"token_url": "https://x", "api_key": "", "tokens": 3})), None);
    }
}
