//! What the bytes of an event are to a program: JSON, a form, or nothing it can look into.

use std::borrow::Cow;

use hookmill_actors::domain::event::Event;
use serde_json::{Map, Value};

/// Levels of nesting that programs look into, at most: what they run on recurses.
pub(super) const DEPTH_MAX: usize = 64;
/// The words for a body beyond that.
pub(super) const TOO_DEEP: &str = "the body is nested more than 64 levels deep";
/// Members of a form or a query that are read, at most.
const FORM_MEMBERS_MAX: usize = 1_000;

/// A body by its kind; whether JSON is well formed is found out by reading it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body<'a> {
    /// JSON by its first byte, whatever its content type says: half of the providers say something else.
    Json(&'a [u8]),
    /// `application/x-www-form-urlencoded`.
    Form(&'a [u8]),
    /// Anything else.
    Other,
}

impl<'a> Body<'a> {
    /// Of an event.
    pub(super) fn of(event: &'a Event) -> Self {
        let bytes: &[u8] = &event.arrival.body;
        let media_type = event.content_type().and_then(|text| text.split(';').next()).unwrap_or_default().trim();
        let is_form = media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded");
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        match bytes.trim_ascii_start().first() {
            // A form's names have their brackets encoded; curl calls whatever it posts a form.
            first if is_form && !matches!(first, Some(b'{' | b'[')) => Self::Form(bytes),
            Some(b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => Self::Json(bytes),
            _ => Self::Other,
        }
    }
}

/// The decoded members of a form or a query string, in order.
pub(super) fn form(bytes: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(bytes).take(FORM_MEMBERS_MAX)
}

/// The whole body as JSON: a form as an object of texts, `null` where it is neither. `None` where it is nested
/// deeper than [`DEPTH_MAX`].
pub(super) fn value(event: &Event) -> Option<Value> {
    match Body::of(event) {
        Body::Json(bytes) => match depth(bytes) {
            depth if depth > DEPTH_MAX => None,
            _ => Some(serde_json::from_slice(bytes).unwrap_or(Value::Null)),
        },
        Body::Form(bytes) => {
            let members = form(bytes).map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())));
            Some(Value::Object(members.collect::<Map<_, _>>()))
        }
        Body::Other => Some(Value::Null),
    }
}

/// How deep JSON is nested, without recursion. Of other bytes it is some number.
pub(super) fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use hookmill_actors::domain::headers::HeaderBlock;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn nesting(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(nesting).max().unwrap_or(0),
            Value::Object(members) => 1 + members.values().map(nesting).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<i64>().prop_map(Value::from), "[\\[\\]{}\"\\\\a]{0,6}".prop_map(Value::from)];
        leaf.prop_recursive(6, 40, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::vec(("[\\[{\"a]{0,3}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn depth_is_the_nesting(value in json()) {
            prop_assert_eq!(depth(value.to_string().as_bytes()), nesting(&value));
        }
    }

    #[test]
    fn json_that_is_called_a_form_is_json() {
        let of = |body: &'static str| {
            let mut event = crate::programs::testing::subject(body.as_bytes()).event.as_ref().clone();
            let form: &[u8] = b"application/x-www-form-urlencoded";
            event.arrival.headers = HeaderBlock::from_lines([("content-type", form)]);
            value(&event)
        };
        assert_eq!(of(r#"{"a":1}"#), Some(json!({"a": 1})));
        assert_eq!(of("a=%7B"), Some(json!({"a": "{"})));
        assert_eq!(of(""), Some(json!({})));
    }

    #[test]
    fn a_form_is_decoded() {
        let members: Vec<_> = form(b"a=1&b=%C3%A4+x&c").collect();
        assert_eq!(members, [("a".into(), "1".into()), ("b".into(), "ä x".into()), ("c".into(), "".into())]);
    }
}
