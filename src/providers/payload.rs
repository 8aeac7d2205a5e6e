//! Reads a few top-level members from a stored body without building a tree of it. Whatever the body is,
//! the worst that comes of it is nothing.

use std::{borrow::Cow, fmt};

use hookmill_actors::domain::{event::Event, headers::Single, limits::IDENTITY_BYTES_MAX};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The text of each named top-level member: a string as it is, an integer in digits; `None` for any other
/// value, a missing member, or a body that is no JSON object. Of a repeated member the first counts.
pub(super) fn members<'a, const N: usize>(body: &'a [u8], names: [&str; N]) -> [Option<Cow<'a, str>>; N] {
    read(body, names).map_or_else(|| [const { None }; N], |(values, _)| values)
}

/// As [`members`], with the number of members that the object has.
pub(super) fn read<'a, const N: usize>(body: &'a [u8], names: [&str; N]) -> Option<([Option<Cow<'a, str>>; N], usize)> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let values = deserializer.deserialize_map(Pick { names }).ok()?;
    deserializer.end().ok()?;
    Some(values)
}

/// A provider's id: as it is or not at all, since a cut one could be another event's.
pub(super) fn id(text: Option<Cow<'_, str>>) -> Option<Box<str>> {
    text.filter(|text| text.len() <= IDENTITY_BYTES_MAX && printable(text))
        .map(|text| text.into_owned().into_boxed_str())
}

/// A provider's name of an event, cut where it is too long.
pub(super) fn event_type(text: Option<Cow<'_, str>>) -> Option<Box<str>> {
    text.filter(|text| printable(text)).map(|text| text[..text.floor_char_boundary(IDENTITY_BYTES_MAX)].into())
}

/// The text of a header that occurs once; `name` in lower case.
pub(super) fn header<'a>(event: &'a Event, name: &'a str) -> Option<Cow<'a, str>> {
    match event.arrival.headers.single(name) {
        Single::Value(value) => std::str::from_utf8(value).ok().map(Cow::Borrowed),
        Single::Absent | Single::Repeated => None,
    }
}

/// A sample's text with `EVENT_ID` replaced.
pub(super) fn fill(sample: &str, id: &str) -> Vec<u8> {
    let quoted = serde_json::Value::from(id).to_string();
    sample.replace("\"EVENT_ID\"", &quoted).into_bytes()
}

/// What goes into indexes, logs and headers must not break a line.
fn printable(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

struct Pick<'n, const N: usize> {
    names: [&'n str; N],
}

impl<'de, const N: usize> Visitor<'de> for Pick<'_, N> {
    type Value = ([Option<Cow<'de, str>>; N], usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [const { None }; N];
        let mut seen = [false; N];
        let mut count = 0usize;
        while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
            count += 1;
            match self.names.iter().position(|wanted| name.as_deref() == Some(wanted)) {
                Some(place) if !seen[place] => {
                    seen[place] = true;
                    values[place] = map.next_value::<Text<'de>>()?.0;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok((values, count))
    }
}

/// A string or an integer as text; anything else is read over.
struct Text<'de>(Option<Cow<'de, str>>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Some(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Some(Cow::Owned(text.to_owned()))))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Text(Some(Cow::Owned(number.to_string()))))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Text(Some(Cow::Owned(number.to_string()))))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Text(None))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Text(None))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Text(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Text(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text(None))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use bytes::Bytes;
    use hookmill_actors::domain::{
        event::Arrival,
        headers::HeaderBlock,
        ids::{EndpointId, EventId},
    };
    use proptest::prelude::*;

    use super::*;

    /// A stored event, for the providers' tests.
    pub(in super::super) fn event(headers: &[(&str, &str)], body: &[u8]) -> Event {
        Event {
            id: EventId::ZERO,
            arrival: Arrival {
                endpoint: EndpointId(1),
                received_at_ms: 0,
                accepted_version: 0,
                peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
                hops: 0,
                query: "".into(),
                headers: HeaderBlock::from_lines(headers.iter().map(|(name, value)| (*name, value.as_bytes()))),
                body: Bytes::copy_from_slice(body),
            },
        }
    }

    fn id_and_type(body: &str) -> (Option<String>, Option<String>) {
        let [id, kind] = members(body.as_bytes(), ["id", "type"]);
        (id.map(Cow::into_owned), kind.map(Cow::into_owned))
    }

    #[test]
    fn reads_the_named_members_and_nothing_else() {
        let some = |text: &str| Some(text.to_owned());
        let table = [
            (r#"{"id":"evt_1","data":{"id":"inner","type":[1]},"type":"a.b"}"#, (some("evt_1"), some("a.b"))),
            (r#"{"id":17,"type":-4}"#, (some("17"), some("-4"))),
            (r#"{"id":{"a":1},"type":[{"type":"x"}]}"#, (None, None)),
            (r#"{"id":null,"type":true}"#, (None, None)),
            (r#"{"id":1.5,"type":"x"}"#, (None, some("x"))),
            (r#"{"id":"first","id":"second"}"#, (some("first"), None)),
            (r#"{"\u0069d":"escaped\n"}"#, (some("escaped\n"), None)),
            ("\u{feff}{\"id\":\"after a byte order mark\"}", (some("after a byte order mark"), None)),
            (r#"[{"id":"x"}]"#, (None, None)),
            (r#"{"id":"cut"#, (None, None)),
            (r#"{"id":"x"} trailing"#, (None, None)),
            ("payload=%7B%7D", (None, None)),
            ("", (None, None)),
        ];
        for (body, want) in table {
            assert_eq!(id_and_type(body), want, "{body}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        for member in ["deep", "type"] {
            let body = format!(r#"{{"id":"x","{member}":{}{}}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
            assert_eq!(id_and_type(&body), (Some("x".to_owned()), None));
        }
    }

    #[test]
    fn identities_are_bounded() {
        let long = "ä".repeat(IDENTITY_BYTES_MAX);
        assert_eq!(id(Some(Cow::Borrowed(&long))), None, "a cut id could be another event's");
        assert_eq!(event_type(Some(Cow::Borrowed(&long))).expect("cut").len(), IDENTITY_BYTES_MAX);
        assert_eq!(id(Some(Cow::Borrowed("a\nb"))), None);
        assert_eq!(event_type(Some(Cow::Borrowed(""))), None);
        assert_eq!(id(Some(Cow::Borrowed("evt_1"))).as_deref(), Some("evt_1"));
    }

    proptest! {
        #[test]
        fn any_body_is_survived(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = members(&body, ["id", "type"]);
        }
    }
}
