//! Headers that a subscription adds: names, and templates of their values (`{{event.id}}`).

use std::{collections::BTreeMap, fmt::Write};

use hookmill_actors::ports::{program::Subject, provider::SettingsError};
use serde_json::Value;

use super::{body, excerpt, facts};

/// Headers of one subscription, at most.
const HEADERS_MAX: usize = 32;
/// Bytes of a header's name, at most.
const NAME_BYTES_MAX: usize = 128;
/// Bytes of a template and of the value made from it, at most; a longer value is cut.
const VALUE_BYTES_MAX: usize = 1_024;
/// Where all headers of a subscription stand in it.
const FIELD: &str = "headers";

/// Names that mean something on the connection or to the receiver's trust, so that no template may set them.
const RESERVED: [&str; 21] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "traceparent",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];
/// Beginnings of names that are hookmill's or `CloudEvents`'.
const RESERVED_PREFIXES: [&str; 3] = ["webhook-", "hookmill-", "ce-"];

/// What a template may name, as it is told to people.
const PLACES: &str = "`event.id`, `event.type`, `event.provider_id`, `event.received_at`, `integration.id`, \
                      `integration.name`, `subscription.id`, `header.NAME`, `body.MEMBER.MEMBER`";

/// A compiled header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeaderTemplate {
    name: String,
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Place),
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    EventId,
    EventType,
    ProviderId,
    ReceivedAt,
    IntegrationId,
    IntegrationName,
    SubscriptionId,
    Header(String),
    Body(Vec<String>),
}

/// Compiles all of a subscription's headers; a fault names the header.
pub(super) fn compile(headers: &BTreeMap<String, String>) -> Result<Vec<HeaderTemplate>, SettingsError> {
    if headers.len() > HEADERS_MAX {
        let problem = format!("has {} headers; at most {HEADERS_MAX} are allowed", headers.len());
        return Err(SettingsError::new(FIELD, problem));
    }
    let mut compiled: Vec<HeaderTemplate> = Vec::with_capacity(headers.len());
    for (name, template) in headers {
        let fault = |problem: String| SettingsError::new(format!("{FIELD}.{name}"), problem);
        let lower = name.to_ascii_lowercase();
        check_name(&lower).map_err(fault)?;
        if compiled.iter().any(|other| other.name == lower) {
            return Err(fault("stands there twice; upper and lower case make no difference".to_owned()));
        }
        compiled.push(HeaderTemplate { name: lower, parts: parse(template).map_err(fault)? });
    }
    Ok(compiled)
}

fn check_name(name: &str) -> Result<(), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(token) {
        return Err(format!(
            "is no header name; it has 1 to {NAME_BYTES_MAX} letters, digits and `-`, such as `x-event-type`"
        ));
    }
    if ["authorization", "proxy-authorization", "cookie"].contains(&name) {
        return Err("is a credential; set it in the destination's credentials, where it is sealed".to_owned());
    }
    if RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err("is set by hookmill itself; choose another name, such as `x-event-type`".to_owned());
    }
    Ok(())
}

fn parse(template: &str) -> Result<Vec<Part>, String> {
    if template.len() > VALUE_BYTES_MAX {
        return Err(format!("is {} bytes long; at most {VALUE_BYTES_MAX} are allowed", template.len()));
    }
    if template.chars().any(char::is_control) {
        return Err("has control characters; a header is one line of text".to_owned());
    }
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((text, behind)) = rest.split_once("{{") {
        let (place, behind) = behind.split_once("}}").ok_or("has `{{` without `}}`")?;
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
        parts.push(Part::Place(place_of(place.trim())?));
        rest = behind;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

fn place_of(text: &str) -> Result<Place, String> {
    let unknown = || format!("`{{{{{}}}}}` is not known; known are {PLACES}", excerpt(text));
    match text {
        "event.id" => Ok(Place::EventId),
        "event.type" => Ok(Place::EventType),
        "event.provider_id" => Ok(Place::ProviderId),
        "event.received_at" => Ok(Place::ReceivedAt),
        "integration.id" => Ok(Place::IntegrationId),
        "integration.name" => Ok(Place::IntegrationName),
        "subscription.id" => Ok(Place::SubscriptionId),
        _ => match text.split_once('.') {
            Some(("header", name)) if !name.is_empty() => Ok(Place::Header(name.to_ascii_lowercase())),
            Some(("body", path)) if path.split('.').all(|name| !name.is_empty()) => {
                Ok(Place::Body(path.split('.').map(str::to_owned).collect()))
            }
            _ => Err(unknown()),
        },
    }
}

/// The headers of one event. What a template names and the event does not have is empty; a header that is empty
/// as a whole is left out.
pub(super) fn render(headers: &[HeaderTemplate], subject: &Subject) -> Vec<(String, String)> {
    let asks_for_body = |part: &Part| matches!(part, Part::Place(Place::Body(_)));
    let body = headers.iter().any(|header| header.parts.iter().any(asks_for_body)).then(|| body::value(&subject.event));
    let body = body.flatten().unwrap_or_default();
    headers
        .iter()
        .map(|header| (header.name.clone(), value(header, subject, &body)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

fn value(header: &HeaderTemplate, subject: &Subject, body: &Value) -> String {
    let mut text = String::new();
    for part in &header.parts {
        match part {
            Part::Text(part) => text.push_str(part),
            Part::Place(place) => text.push_str(&place.read(subject, body)),
        }
    }
    safe(&text)
}

impl Place {
    fn read(&self, subject: &Subject, body: &Value) -> String {
        match self {
            Self::EventId => subject.event.id.to_string(),
            Self::EventType => subject.identity.event_type.as_deref().unwrap_or_default().to_owned(),
            Self::ProviderId => subject.identity.provider_id.as_deref().unwrap_or_default().to_owned(),
            Self::ReceivedAt => facts::time(subject.event.arrival.received_at_ms),
            Self::IntegrationId => subject.integration.0.to_string(),
            Self::IntegrationName => subject.integration.1.to_string(),
            Self::SubscriptionId => subject.subscription.to_string(),
            Self::Header(name) => facts::headers(&subject.event.arrival.headers, |other| other == name)
                .next()
                .map(|(_, value)| value.into_owned())
                .unwrap_or_default(),
            Self::Body(path) => match path.iter().try_fold(body, |value, name| value.get(name)) {
                Some(Value::String(text)) => text.clone(),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                _ => String::new(),
            },
        }
    }
}

/// A value that cannot break out of its line: control characters become spaces, what is not ASCII is
/// percent-encoded, what is too long is cut.
fn safe(text: &str) -> String {
    let mut value = String::new();
    let mut bytes = [0; 4];
    for char in text.trim().chars() {
        let part = if char.is_ascii_control() {
            " ".to_owned()
        } else if char.is_ascii() {
            char.to_string()
        } else {
            char.encode_utf8(&mut bytes).bytes().fold(String::new(), |mut encoded, byte| {
                let _ = write!(encoded, "%{byte:02X}");
                encoded
            })
        };
        if value.len() + part.len() > VALUE_BYTES_MAX {
            break;
        }
        value.push_str(&part);
    }
    value.truncate(value.trim_end().len());
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::testing::with_headers, *};

    fn compiled(name: &str, template: &str) -> Result<Vec<HeaderTemplate>, SettingsError> {
        compile(&BTreeMap::from([(name.to_owned(), template.to_owned())]))
    }

    fn rendered(template: &str) -> Option<String> {
        let subject = with_headers(
            &[("X-Shop", "ashgrove"), ("X-Two", "1"), ("X-Two", "2")],
            r#"{"data":{"id":"d1","n":7,"list":[1]},"name":"Zoë\r\nx-evil: 1"}"#.as_bytes(),
        );
        let mut headers = render(&compiled("X-Made", template).expect("it compiles"), &subject);
        assert!(headers.len() <= 1);
        headers.pop().map(|(name, value)| {
            assert_eq!(name, "x-made");
            value
        })
    }

    #[test]
    fn templates_are_filled_in() {
        for (template, want) in [
            ("plain", Some("plain")),
            ("{{event.type}}/{{ integration.id }}", Some("payment.succeeded/7")),
            ("{{integration.name}} {{subscription.id}}", Some("shop 9")),
            ("{{event.received_at}}", Some("2026-01-01T00:00:00Z")),
            ("{{header.X-SHOP}}", Some("ashgrove")),
            ("{{header.x-two}}", Some("1, 2")),
            ("{{body.data.id}}-{{body.data.n}}", Some("d1-7")),
            ("{{body.name}}", Some("Zo%C3%AB  x-evil: 1")),
            ("{{body.data.list}}{{body.data}}{{body.nothing.here}}", None),
            ("{{header.absent}}", None),
        ] {
            assert_eq!(rendered(template).as_deref(), want, "{template}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_at_the_header() {
        for (name, template, words) in [
            ("x-a", "{{event.tpye}}", "known are `event.id`"),
            ("x-a", "{{body.}}", "not known"),
            ("x-a", "{{event.id", "without `}}`"),
            ("x-a", "a\nb", "control characters"),
            ("x a", "v", "no header name"),
            ("", "v", "no header name"),
            ("Webhook-Id", "v", "set by hookmill"),
            ("hookmill-x", "v", "set by hookmill"),
            ("ce-type", "v", "set by hookmill"),
            ("Content-Length", "0", "set by hookmill"),
            ("authorization", "Bearer x", "credentials"),
        ] {
            let fault = compiled(name, template).expect_err(name);
            assert_eq!(fault.field, format!("headers.{name}"));
            assert!(fault.problem.contains(words), "{name}: {fault}");
        }
        let twice = BTreeMap::from([("X-A".to_owned(), String::new()), ("x-a".to_owned(), String::new())]);
        assert!(compile(&twice).is_err());
        let many = (0..=HEADERS_MAX).map(|number| (format!("x-{number}"), String::new())).collect();
        assert!(compile(&many).is_err_and(|fault| fault.field == "headers"));
    }

    proptest! {
        #[test]
        fn any_value_is_safe_in_a_header(text in any::<String>()) {
            let value = safe(&text);
            prop_assert!(value.len() <= VALUE_BYTES_MAX);
            prop_assert!(value.bytes().all(|byte| matches!(byte, 0x20..=0x7e)));
            prop_assert_eq!(value.trim(), value.as_str());
        }

        #[test]
        fn any_template_compiles_or_is_refused(template in ".{0,40}") {
            let _ = compiled("x-a", &template);
        }
    }
}
