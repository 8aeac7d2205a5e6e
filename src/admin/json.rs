//! JSON as the admin API takes it: one value, no member twice, no deeper than [`DEPTH_MAX`], nothing behind it.
//! A parser that takes the last of two equal members lets a check see one value and the program use another.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{
    form::Form,
    problem::{Code, Problem},
};

/// Nesting, at most.
pub(super) const DEPTH_MAX: usize = 64;
/// A body must be here by then; the API's bodies are small.
const BODY_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(10);
/// 2^63.
const NUMBER_MAX: f64 = 9_223_372_036_854_775_808.0;
/// Characters of a client's text repeated in an answer.
pub(super) const QUOTE_CHARS_MAX: usize = 64;

/// The body of a write, parsed. An empty body is refused.
pub(super) struct Json(pub(super) Value);

/// The body of a JSON Merge Patch (RFC 7396), parsed.
pub(super) struct MergePatch(pub(super) Value);

/// The body of an action that needs none: an empty one is an empty object.
pub(super) struct OptionalJson(pub(super) Value);

/// The body of an action that has no members: none, or an empty object.
pub(super) struct NoMembers;

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        require_json(request.headers())?;
        parse(&collect(request, state).await?).map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for MergePatch {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_typed(request.headers(), "application/merge-patch+json") {
            require_json(request.headers())?;
        }
        parse(&collect(request, state).await?).map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for NoMembers {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let OptionalJson(body) = OptionalJson::from_request(request, state).await?;
        Self::read(body)
    }
}

impl NoMembers {
    /// Of a body that is read already.
    pub(super) fn read(body: Value) -> Result<Self, Problem> {
        Form::new(body)?.finish(|| Some(Self))
    }
}

impl<S: Send + Sync> FromRequest<S> for OptionalJson {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let typed = require_json(request.headers());
        let body = collect(request, state).await?;
        if body.is_empty() {
            return Ok(Self(Value::Object(Map::new())));
        }
        typed?;
        parse(&body).map(Self)
    }
}

/// A page of another origin can send forms and text without asking first, but not this type: so it is demanded.
fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    if is_typed(headers, "application/json") {
        Ok(())
    } else {
        Err(Problem::new(Code::UnsupportedMediaType, "a write needs `content-type: application/json`"))
    }
}

fn is_typed(headers: &HeaderMap, wanted: &str) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
}

/// The whole body, where it comes in time and is not too large.
pub(super) async fn collect<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    match tokio::time::timeout(BODY_WAIT_MAX, Bytes::from_request(request, state)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(Problem::new(Code::PayloadTooLarge, "the body is larger than the admin API takes"))
        }
        Ok(Err(_)) => Err(Problem::new(Code::InvalidRequest, "the body broke off")),
        Err(_) => {
            let wait = BODY_WAIT_MAX.as_secs();
            Err(Problem::new(Code::RequestTimeout, format!("the body was not complete after {wait} s")))
        }
    }
}

/// Parses a body.
pub(super) fn parse(body: &[u8]) -> Result<Value, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    Strict { depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| Problem::new(Code::InvalidJson, error.to_string()))
}

/// Cuts and escapes a client's text for an answer or a log.
pub(super) fn quoted(text: &str) -> String {
    text.chars().take(QUOTE_CHARS_MAX).flat_map(char::escape_debug).collect()
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        // Whole numbers beyond 64 bits arrive here, already rounded: kept, they would be other numbers.
        if value.abs() >= NUMBER_MAX {
            return Err(E::custom("a number beyond 64 bits; write it as a string"));
        }
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!("member `{}` occurs twice", quoted(&name))));
            }
            let value = members.next_value_seed(inner)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_sound_is_taken_as_it_is(value in any_json()) {
            prop_assert_eq!(parse(value.to_string().as_bytes()), Ok(value));
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_member_given_twice_is_refused_at_any_depth(name in any::<String>(), levels in 0usize..60) {
            let name = Value::from(name).to_string();
            let twice = format!("{{{name}:1,{name}:1}}");
            let body = format!("{}{twice}{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
            prop_assert!(parse(body.as_bytes()).is_err());
        }

        #[test]
        fn nothing_may_stand_behind_the_value(tail in "[a-z0-9{\\[\"]{1,5}") {
            let body = format!("{{}}{tail}");
            prop_assert!(parse(body.as_bytes()).is_err());
        }
    }

    #[test]
    fn the_depth_is_bounded_exactly() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(DEPTH_MAX).as_bytes()).is_ok());
        let refused = parse(nested(DEPTH_MAX + 1).as_bytes()).expect_err("too deep");
        assert!(refused.detail.contains("nested deeper than 64 levels"), "{}", refused.detail);
        assert!(parse(nested(100_000).as_bytes()).is_err());
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (body, part) in [
            (r#"{"name":"a","name":"b"}"#, "member `name` occurs twice at line 1 column"),
            ("{} {}", "trailing characters"),
            ("", "EOF"),
            ("{'a':1}", "key must be a string"),
            ("1e999", "out of range"),
            ("123456789012345678901234567890", "beyond 64 bits"),
            ("-9223372036854775809", "beyond 64 bits"),
            ("\"\\ud800\"", "hex escape"),
        ] {
            let refused = parse(body.as_bytes()).expect_err(body);
            assert_eq!(refused.code, Code::InvalidJson);
            assert!(refused.detail.contains(part), "{body}: {}", refused.detail);
        }
        assert_eq!(parse(b" {\"a\": [1, -2, 0.5, null]} "), Ok(json!({"a": [1, -2, 0.5, null]})));
    }

    fn request(content_type: Option<&str>, body: &'static str) -> Request {
        let mut request = axum::http::Request::builder();
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        request.body(body.into()).expect("the request is well formed")
    }

    #[tokio::test]
    async fn a_write_must_say_that_it_is_json() {
        for right in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(Json::from_request(request(Some(right), "{}"), &()).await.is_ok(), "{right}");
        }
        for wrong in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonx")] {
            let refused = Json::from_request(request(wrong, "{}"), &()).await.err();
            assert_eq!(refused.map(|problem| problem.code), Some(Code::UnsupportedMediaType), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn an_action_may_come_without_a_body() {
        let empty = OptionalJson::from_request(request(None, ""), &()).await.expect("nothing is needed");
        assert_eq!(empty.0, json!({}));
        let untyped = OptionalJson::from_request(request(None, "{}"), &()).await.err();
        assert_eq!(untyped.map(|problem| problem.code), Some(Code::UnsupportedMediaType));
    }
}
