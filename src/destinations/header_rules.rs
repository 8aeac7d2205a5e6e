//! Which header lines operators may add to what is sent, and which are hookmill's or the connection's own. Pure.

use hyper::header::{HeaderName, HeaderValue};

/// Set by whoever speaks HTTP; a second one would change where a request ends or who sees it.
const CONNECTION: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
];
/// Beginnings of names that hookmill gives a meaning to.
const OWN: [&str; 3] = ["webhook-", "hookmill-", "proxy-"];
/// Says that what is sent is a destination test. The one name of ours that a subscription's header may carry: a test
/// adds it as such.
pub(super) const TEST: &str = "hookmill-test";
/// Names, and parts of names, that tell of a secret.
const SECRET_NAMES: [&str; 3] = ["authorization", "cookie", "set-cookie"];
const SECRET_PARTS: [&str; 6] = ["token", "secret", "password", "api-key", "apikey", "access-key"];

/// A header that is sent beside hookmill's own, checked; the words say what is wrong with it.
pub(super) fn added(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "is no name of a header".to_owned())?;
    let plain = parsed.as_str();
    if plain != TEST && (CONNECTION.contains(&plain) || OWN.iter().any(|own| plain.starts_with(own)))
        || plain == super::trace::TRACEPARENT
    {
        return Err("is set by hookmill itself; leave it out".to_owned());
    }
    let value = HeaderValue::from_str(value)
        .map_err(|_| "has a value with characters that no header may hold; visible ASCII is allowed".to_owned())?;
    Ok((parsed, value))
}

/// Whether a header of that name is likely to hold a secret.
pub(super) fn is_secret(name: &HeaderName) -> bool {
    let name = name.as_str();
    SECRET_NAMES.contains(&name) || SECRET_PARTS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_connection_or_to_hookmill_is_refused() {
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "webhook-id",
            "hookmill-hops",
            "Proxy-Authorization",
            "traceparent",
        ] {
            assert_eq!(added(name, "x"), Err("is set by hookmill itself; leave it out".to_owned()), "{name}");
        }
        for (name, value) in [("x y", "1"), ("", "1"), ("x", "a\r\nb: c"), ("x", "a\u{0}")] {
            assert!(added(name, value).is_err(), "{name}: {value:?}");
        }
        assert!(added("X-Team", "billing").is_ok() && added(TEST, "true").is_ok());
    }

    #[test]
    fn secrets_are_told_by_their_names() {
        let secret = |name: &'static str| is_secret(&HeaderName::from_static(name));
        assert!(secret("authorization") && secret("x-api-key") && secret("x-gitlab-token") && secret("cookie"));
        assert!(!secret("x-team") && !secret("accept"));
    }
}
