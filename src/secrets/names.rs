//! Which members of settings hold a secret: by their names, and in URLs by where it stands. Pure.
//!
//! Settings are shown to everybody who may read them, and stored in clear; what is found here belongs into credentials.

use hyper::Uri;

/// Whether a member of that name in settings holds a secret. Settings are chosen by operators, and a `token_url` must stay
/// readable, so a name counts by its end.
pub(crate) fn is_secret(name: &str) -> bool {
    const WHOLE: [&str; 4] = ["authorization", "proxy_authorization", "cookie", "secret_key"];
    const ENDS: [&str; 8] = ["secret", "password", "passwd", "token", "api_key", "apikey", "private_key", "access_key"];
    let name = name.to_ascii_lowercase().replace('-', "_");
    WHOLE.contains(&name.as_str()) || ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether a text is a URL with a user or password, or with a query parameter that is named as secrets are.
pub(crate) fn url_holds_secret(text: &str) -> bool {
    let Ok(url) = text.parse::<Uri>() else { return false };
    let has_user = url.authority().is_some_and(|authority| authority.as_str().contains('@'));
    url.scheme().is_some() && (has_user || url.query().is_some_and(query_holds_secret))
}

/// The same for what follows the `?`.
pub(crate) fn query_holds_secret(query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes()).any(|(name, value)| {
        !value.is_empty() && (is_secret(&name) || ["sig", "signature"].contains(&&*name.to_ascii_lowercase()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_tell_what_is_secret_in_them() {
        for url in [
            "https://user:planted@example.com/",
            "nats://planted@example.com",
            "https://example.com/a?b=1&access_token=planted",
            "https://example.com/?API-Key=planted",
            "https://example.com/?to%6ben=planted",
            "https://example.com/?sig=planted",
        ] {
            assert!(url_holds_secret(url), "{url}");
        }
        for url in [
            "https://example.com/a@b?token_url=c&tenant=d",
            "https://example.com/?token=",
            "somebody@example.com",
            "what is ?token=x",
            "/a?token=x",
            "",
        ] {
            assert!(!url_holds_secret(url), "{url}");
        }
    }
}
