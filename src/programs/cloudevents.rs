//! `CloudEvents` 1.0 over HTTP (<https://github.com/cloudevents/spec>, JSON event format and HTTP protocol binding).

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use hookmill_actors::ports::program::{ProgramFault, Rendered, Subject};
use serde::Serialize;
use serde_json::value::RawValue;

use super::facts;

const SPEC_VERSION: &str = "1.0";
/// The type of an event that its provider gave no name.
pub(super) const UNNAMED: &str = "hookmill.event";

struct Attributes<'a> {
    id: String,
    source: String,
    event_type: &'a str,
    time: String,
}

impl<'a> Attributes<'a> {
    fn of(subject: &'a Subject) -> Self {
        let arrival = &subject.event.arrival;
        Self {
            id: subject.event.id.to_string(),
            source: format!("/integrations/{}/endpoints/{}", subject.integration.0, arrival.endpoint),
            event_type: subject.identity.event_type.as_deref().unwrap_or(UNNAMED),
            time: facts::time(arrival.received_at_ms),
        }
    }
}

/// Attributes in `ce-` headers; the body and its content type as they came.
pub(super) fn binary(subject: &Subject) -> Rendered {
    let attributes = Attributes::of(subject);
    let header = |name: &str, value: &str| (name.to_owned(), header_value(value));
    Rendered {
        content_type: None,
        headers: vec![
            header("ce-specversion", SPEC_VERSION),
            header("ce-id", &attributes.id),
            header("ce-source", &attributes.source),
            header("ce-type", attributes.event_type),
            header("ce-time", &attributes.time),
        ],
        body: subject.event.arrival.body.clone(),
    }
}

#[derive(Serialize)]
struct Structured<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    r#type: &'a str,
    time: String,
    datacontenttype: &'a str,
    #[serde(flatten)]
    data: Data<'a>,
}

/// The data of an event in JSON: as it is, as text, or in base64.
#[derive(Serialize)]
pub(super) enum Data<'a> {
    #[serde(rename = "data")]
    Json(&'a RawValue),
    #[serde(rename = "data")]
    Text(&'a str),
    #[serde(rename = "data_base64")]
    Base64(String),
}

/// One JSON object with the body under `data`, or under `data_base64` where it is neither JSON nor text.
pub(super) fn structured(subject: &Subject) -> Result<Rendered, ProgramFault> {
    let Attributes { id, source, event_type, time } = Attributes::of(subject);
    let (datacontenttype, data) = data(subject);
    let event = Structured { specversion: SPEC_VERSION, id, source, r#type: event_type, time, datacontenttype, data };
    let body = serde_json::to_vec(&event).map_err(|error| ProgramFault(format!("no CloudEvents event: {error}")))?;
    Ok(Rendered {
        content_type: Some("application/cloudevents+json".to_owned()),
        headers: Vec::new(),
        body: body.into(),
    })
}

/// The body with its content type, which is guessed where the request had none.
pub(super) fn data(subject: &Subject) -> (&str, Data<'_>) {
    let body: &[u8] = &subject.event.arrival.body;
    // Kept as it is written: numbers of any length, members in their order.
    let json = || serde_json::from_slice::<&RawValue>(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)).ok();
    let base64 = || Data::Base64(STANDARD.encode(body));
    let Some(content_type) = subject.event.content_type() else {
        return match json() {
            Some(json) => ("application/json", Data::Json(json)),
            None => ("application/octet-stream", base64()),
        };
    };
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let data = if media_type.ends_with("/json") || media_type.ends_with("+json") {
        json().map_or_else(base64, Data::Json)
    } else if is_text(&media_type) {
        std::str::from_utf8(body).map_or_else(|_| base64(), Data::Text)
    } else {
        base64()
    };
    (content_type, data)
}

fn is_text(media_type: &str) -> bool {
    media_type.starts_with("text/")
        || media_type.ends_with("+xml")
        || ["application/xml", "application/x-www-form-urlencoded"].contains(&media_type)
}

/// A value as the HTTP binding writes it (3.1.3.2): space, `"`, `%` and all but printable ASCII percent-encoded.
pub(super) fn header_value(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, 0x21..=0x7e) && byte != b'"' && byte != b'%' {
            value.push(char::from(byte));
        } else {
            let _ = write!(value, "%{byte:02X}");
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::testing::{subject, with_headers},
        *,
    };

    fn rendered(headers: &[(&str, &str)], body: &[u8]) -> Value {
        let rendered = structured(&with_headers(headers, body)).expect("it is rendered");
        assert_eq!(rendered.content_type.as_deref(), Some("application/cloudevents+json"));
        serde_json::from_slice(&rendered.body).expect("it is JSON")
    }

    #[test]
    fn binary_leaves_the_body_and_puts_the_rest_into_headers() {
        let subject = subject(br#"{"a":1}"#);
        let rendered = binary(&subject);
        assert_eq!(rendered.body.as_ptr(), subject.event.arrival.body.as_ptr(), "the bytes are shared");
        let headers: Vec<(&str, &str)> = rendered.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let id = subject.event.id.to_string();
        assert_eq!(
            headers,
            [
                ("ce-specversion", "1.0"),
                ("ce-id", id.as_str()),
                ("ce-source", "/integrations/7/endpoints/3"),
                ("ce-type", "payment.succeeded"),
                ("ce-time", "2026-01-01T00:00:00Z"),
            ]
        );
    }

    #[test]
    fn header_values_are_encoded_as_the_binding_says() {
        // The specification's own example, and the characters that it names.
        assert_eq!(header_value("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(header_value("a\"b%c\r\n~"), "a%22b%25c%0D%0A~");
    }

    #[test]
    fn data_is_json_text_or_base64() {
        let json = [("content-type", "application/vnd.x+json; charset=utf-8")];
        let event = rendered(&json, br#"{"n": 12345678901234567890123}"#);
        assert_eq!(event["datacontenttype"], "application/vnd.x+json; charset=utf-8");
        assert!(event.get("data").is_some() && event.get("data_base64").is_none());
        assert_eq!(rendered(&json, b"{cut")["data_base64"], "e2N1dA==");
        assert_eq!(rendered(&[("content-type", "text/plain")], "ä".as_bytes())["data"], "ä");
        assert_eq!(rendered(&[("content-type", "text/plain")], b"\xff")["data_base64"], "/w==");
        assert_eq!(rendered(&[("content-type", "image/png")], b"{}")["data_base64"], "e30=");
        let guessed = rendered(&[], b"[1]");
        assert_eq!((&guessed["datacontenttype"], &guessed["data"]), (&json!("application/json"), &json!([1])));
        assert_eq!(guessed["specversion"], "1.0");
    }

    #[test]
    fn numbers_stay_as_they_are_written() {
        let rendered = structured(&subject(br#"{"n": 1.50e2}"#)).expect("it is rendered");
        assert!(std::str::from_utf8(&rendered.body).expect("text").contains(r#""data":{"n": 1.50e2}"#));
    }
}
