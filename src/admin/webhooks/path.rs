//! The forms of an endpoint's path and of a header's name.

use hookmill_actors::ports::provider::Provider;
use serde_json::{Map, Value};

use super::super::fields::string;

/// Path with its leading slash.
const PATH_CHARS_MAX: usize = 255;
const HEADER_NAME_CHARS_MAX: usize = 128;

/// A path in its canonical form: one leading slash, whole segments, letters that no proxy rewrites.
pub(super) fn path(value: Value) -> Result<String, String> {
    let text = string(value)?;
    let path = format!("/{}", text.strip_prefix('/').unwrap_or(&text));
    if path.chars().count() > PATH_CHARS_MAX {
        return Err(format!("must be at most {PATH_CHARS_MAX} characters long, its leading slash included"));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if let Some(odd) = path.chars().find(|char| !u8::try_from(*char).is_ok_and(allowed)) {
        return Err(format!("must consist of letters, digits and `-._~/`; it has `{}`", odd.escape_debug()));
    }
    if path[1..].split('/').any(|segment| ["", ".", ".."].contains(&segment)) {
        return Err("must not have empty, `.` or `..` segments, nor a slash at its end".to_owned());
    }
    Ok(path)
}

/// A header's name (RFC 9110, section 5.1).
pub(super) fn header_name(value: Value) -> Result<String, String> {
    let name = string(value)?;
    if name.len() > HEADER_NAME_CHARS_MAX || axum::http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(format!("must be a header name of at most {HEADER_NAME_CHARS_MAX} characters"));
    }
    Ok(name)
}

/// Whether a scheme that has its header fixed signs in that one: naming it says nothing new, so it is no setting. Callers of
/// the original name it for every provider.
pub(super) fn is_its_own(provider: &dyn Provider, header: &str) -> bool {
    if provider.settings_schema().pointer("/properties/header").is_some() {
        return false;
    }
    let signed = provider.sign(&Map::new(), &provider.new_secret(&[0; 32]), "id", b"{}", 0);
    signed.is_ok_and(|signed| signed.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(header)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_have_one_form() {
        for (given, stored) in
            [("stripe", "/stripe"), ("/stripe", "/stripe"), ("/a/b-c._~D9", "/a/b-c._~D9"), ("..a", "/..a")]
        {
            assert_eq!(path(json!(given)).as_deref(), Ok(stored));
        }
        for wrong in
            ["", "/", "//a", "a/", "a//b", "a/../b", "./a", "a b", "a%20b", "a?b", "ä", "a\n", &"a".repeat(255)]
        {
            assert!(path(json!(wrong)).is_err(), "{wrong}");
        }
        assert!(path(json!("a".repeat(254))).is_ok());
    }

    proptest! {
        #[test]
        fn a_stored_path_is_canonical_or_refused(text in "\\PC{0,40}|[-a-z._~/]{0,20}") {
            if let Ok(stored) = path(json!(text)) {
                prop_assert!(stored.starts_with('/') && stored.len() > 1 && stored.len() <= 255);
                prop_assert_eq!(path(json!(stored.clone())), Ok(stored));
            }
        }
    }
}
