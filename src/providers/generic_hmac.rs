//! Any HMAC over a configurable text, for the many providers that differ only in names and separators.
//! Without settings: `X-Signature`, lower-case hex HMAC-SHA256 of the body.

use std::sync::Arc;

use hookmill_actors::{
    domain::{
        event::{Event, Identity},
        secret::Secret,
    },
    ports::provider::{
        Guide, InboundRequest, Provider, Refusal, Reply, SettingsError, SignedRequest, Verified, Verifier,
    },
};
use hyper::header::HeaderName;
use serde::Deserialize;
use serde_json::{Map, Value};

use self::handshake::Handshake;
use super::{
    members::Members,
    payload,
    signature::{self, Algorithm, Encoding, Key, Signatures, TOLERANCE_S_DEFAULT, TimestampUnit, Tolerance},
    template::{Fill, Part, Template},
};

mod handshake;

/// The registry's entry.
pub(super) const PROVIDER: &dyn Provider = &GenericHmac;

/// The member of a challenge that Slack and those who followed it use.
const HANDSHAKE_FIELD_DEFAULT: &str = "challenge";

struct GenericHmac;

/// As the operator writes them; see [`Members::MEMBERS`] for what each must be.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    header: String,
    algorithm: Algorithm,
    encoding: Encoding,
    prefix: Option<String>,
    separator: Option<String>,
    template: String,
    timestamp_header: Option<String>,
    timestamp_unit: TimestampUnit,
    tolerance_s: Option<u64>,
    id_header: Option<String>,
    public_url: Option<String>,
    secret_encoding: SecretEncoding,
    handshake: handshake::Kind,
    handshake_field: Option<String>,
    verify_token: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            header: "X-Signature".into(),
            algorithm: Algorithm::Sha256,
            encoding: Encoding::Hex,
            prefix: None,
            separator: None,
            template: "{body}".into(),
            timestamp_header: None,
            timestamp_unit: TimestampUnit::Seconds,
            tolerance_s: None,
            id_header: None,
            public_url: None,
            secret_encoding: SecretEncoding::Utf8,
            handshake: handshake::Kind::None,
            handshake_field: None,
            verify_token: None,
        }
    }
}

const OPTIONAL_HEADER: &str = r#"{"type":["string","null"],"pattern":"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"}"#;

impl Members for Settings {
    const MEMBERS: &'static [(&'static str, &'static str, &'static str)] = &[
        (
            "header",
            "the name of the header that carries the signature",
            r#"{"type":"string","pattern":"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$","default":"X-Signature"}"#,
        ),
        (
            "algorithm",
            "`sha1`, `sha256`, `sha384` or `sha512`",
            r#"{"enum":["sha1","sha256","sha384","sha512"],"default":"sha256"}"#,
        ),
        ("encoding", "`hex`, `base64` or `base64url`", r#"{"enum":["hex","base64","base64url"],"default":"hex"}"#),
        (
            "prefix",
            "a text that stands before every signature, such as `sha256=`",
            r#"{"type":["string","null"],"examples":["sha256="]}"#,
        ),
        (
            "separator",
            "a text between several signatures, such as `,`",
            r#"{"type":["string","null"],"minLength":1,"examples":[","]}"#,
        ),
        (
            "template",
            "the signed text, with {body}, {timestamp}, {id}, {url}, {method} or {path} in it",
            r#"{"type":"string","default":"{body}"}"#,
        ),
        ("timestamp_header", "the name of a header", OPTIONAL_HEADER),
        ("timestamp_unit", "`s` or `ms`", r#"{"enum":["s","ms"],"default":"s"}"#),
        (
            "tolerance_s",
            "a number of seconds, 1 to 86400",
            r#"{"type":["integer","null"],"minimum":1,"maximum":86400}"#,
        ),
        ("id_header", "the name of a header", OPTIONAL_HEADER),
        (
            "public_url",
            "a text such as `https://hooks.example.com`",
            r#"{"type":["string","null"],"pattern":"^https?://","examples":["https://hooks.example.com"]}"#,
        ),
        ("secret_encoding", "`utf8`, `hex` or `base64`", r#"{"enum":["utf8","hex","base64"],"default":"utf8"}"#),
        (
            "handshake",
            "`none`, `hub.challenge`, `echo_json` or `crc`",
            r#"{"enum":["none","hub.challenge","echo_json","crc"],"default":"none"}"#,
        ),
        ("handshake_field", "the name of a JSON member", r#"{"type":["string","null"]}"#),
        ("verify_token", "a text", r#"{"type":["string","null"]}"#),
    ];
}

/// How a secret's text stands for its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SecretEncoding {
    Utf8,
    Hex,
    Base64,
}

impl SecretEncoding {
    fn decode(self, secret: &Secret) -> Option<Secret> {
        match self {
            Self::Utf8 => Some(secret.clone()),
            Self::Hex => hex::decode(secret.expose()).ok().map(Secret::new),
            Self::Base64 => signature::base64_key(secret.expose()),
        }
        .filter(|key| !key.is_empty())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "text",
            Self::Hex => "hex",
            Self::Base64 => "base64",
        }
    }
}

/// Settings that were checked, names in lower case.
struct Scheme {
    header: String,
    algorithm: Algorithm,
    encoding: Encoding,
    prefix: Vec<u8>,
    separator: Option<Vec<u8>>,
    template: Template,
    timestamp: Option<Timestamp>,
    id_header: Option<String>,
    public_url: Vec<u8>,
    secret_encoding: SecretEncoding,
    handshake: Handshake,
}

struct Timestamp {
    header: String,
    unit: TimestampUnit,
    tolerance: Tolerance,
}

impl Scheme {
    fn compile(settings: &Map<String, Value>) -> Result<Self, SettingsError> {
        let settings = Settings::read(settings)?;
        let template =
            Template::parse(&settings.template).map_err(|problem| SettingsError::new("template", problem))?;
        let timestamp = timestamp(&settings)?;
        let id_header = settings.id_header.as_deref().map(|name| header_name("id_header", name)).transpose()?;
        let public_url = settings.public_url.as_deref().map(public_url).transpose()?;
        let prefix = settings.prefix.unwrap_or_default();
        if let Some(separator) = &settings.separator
            && (separator.is_empty() || prefix.contains(separator.as_str()))
        {
            return Err(SettingsError::new("separator", "must not be empty, nor part of `prefix`"));
        }

        let needs = [
            (Part::Timestamp, timestamp.is_some(), "{timestamp}", "timestamp_header"),
            (Part::Id, id_header.is_some(), "{id}", "id_header"),
            (Part::Url, public_url.is_some(), "{url}", "public_url"),
        ];
        for (part, is_set, placeholder, member) in needs {
            if template.has(&part) && !is_set {
                return Err(SettingsError::new("template", format!("holds {placeholder}, so `{member}` must be set")));
            }
        }
        if timestamp.is_some() && !template.has(&Part::Timestamp) {
            let problem = "must hold {timestamp}: what is not signed proves no age";
            return Err(SettingsError::new("template", problem));
        }
        Ok(Self {
            header: header_name("header", &settings.header)?,
            algorithm: settings.algorithm,
            encoding: settings.encoding,
            prefix: prefix.into_bytes(),
            separator: settings.separator.map(String::into_bytes),
            template,
            timestamp,
            id_header,
            public_url: public_url.unwrap_or_default(),
            secret_encoding: settings.secret_encoding,
            handshake: Handshake::new(settings.handshake, settings.handshake_field, settings.verify_token)?,
        })
    }

    /// A secret's bytes; `index` is its place in the list.
    fn decode(&self, index: usize, secret: &Secret) -> Result<Secret, SettingsError> {
        self.secret_encoding.decode(secret).ok_or_else(|| {
            let problem = format!("is not {}, as `secret_encoding` says", self.secret_encoding.name());
            SettingsError::new(format!("secrets[{index}]"), problem)
        })
    }
}

fn header_name(member: &str, text: &str) -> Result<String, SettingsError> {
    HeaderName::from_bytes(text.as_bytes())
        .map(|name| name.as_str().to_owned())
        .map_err(|_| SettingsError::new(member, "must be the name of a header, such as `X-Signature`"))
}

fn timestamp(settings: &Settings) -> Result<Option<Timestamp>, SettingsError> {
    let Some(header) = &settings.timestamp_header else {
        return match settings.tolerance_s {
            None => Ok(None),
            Some(_) => Err(SettingsError::new("tolerance_s", "needs `timestamp_header`: without it nothing is dated")),
        };
    };
    Ok(Some(Timestamp {
        header: header_name("timestamp_header", header)?,
        unit: settings.timestamp_unit,
        tolerance: Tolerance::new(settings.tolerance_s.unwrap_or(TOLERANCE_S_DEFAULT))?,
    }))
}

/// The request's target is appended to it as it came, so it must end before the path.
fn public_url(text: &str) -> Result<Vec<u8>, SettingsError> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let is_base = !rest.is_empty()
        && !rest.ends_with('/')
        && !rest.contains(|c: char| c.is_whitespace() || c.is_control() || c == '?' || c == '#');
    if is_base {
        Ok(text.as_bytes().to_vec())
    } else {
        let problem = "must be like `https://hooks.example.com`, without a slash at its end: the path follows";
        Err(SettingsError::new("public_url", problem))
    }
}

struct Compiled {
    scheme: Scheme,
    keys: Vec<Key>,
    /// The current secret as HMAC-SHA256 key, whatever the signatures use: a `crc` handshake says so.
    crc_key: Key,
}

impl Verifier for Compiled {
    fn verify(&self, request: &InboundRequest<'_>, now_ms: u64) -> Result<Verified, Refusal> {
        let scheme = &self.scheme;
        let header = signature::signature_header(request, &scheme.header)?;
        let signatures = self.parse(header)?;
        let mut fill = Fill::of_request(request, &scheme.public_url);
        if let Some(timestamp) = &scheme.timestamp {
            fill.timestamp = signature::companion_header(request, &timestamp.header)?;
            timestamp.tolerance.check(fill.timestamp, timestamp.unit, now_ms)?;
        }
        if let Some(name) = &scheme.id_header {
            fill.id = signature::companion_header(request, name)?;
            if scheme.template.splits_id(fill.id) {
                return Err(Refusal::Malformed(format!("`{name}` holds the text that ends it in the template")));
            }
        }
        let secret_index = signature::matching_key(&self.keys, &scheme.template.slices(fill), signatures.as_slice())?;
        Ok(Verified { secret_index })
    }

    fn handshake(&self, request: &InboundRequest<'_>) -> Option<Reply> {
        self.scheme.handshake.answer(request, &self.crc_key)
    }

    fn answers_get(&self) -> bool {
        self.scheme.handshake.answers_get()
    }
}

impl Compiled {
    /// The header's well-formed signatures, at least one.
    fn parse(&self, header: &[u8]) -> Result<Signatures, Refusal> {
        let scheme = &self.scheme;
        let digest_bytes = self.keys[0].digest_bytes();
        let decode = |element: &[u8]| scheme.encoding.decode(element.strip_prefix(&*scheme.prefix)?, digest_bytes);
        let mut signatures = Signatures::new();
        let mut rest = Some(header);
        while let Some(text) = rest {
            let (element, after) = match &scheme.separator {
                Some(separator) => split_once(text, separator),
                None => (text, None),
            };
            rest = after;
            let element = if scheme.separator.is_some() { element.trim_ascii() } else { element };
            if let Some(digest) = decode(element) {
                signatures.push(digest)?;
            }
        }
        if signatures.as_slice().is_empty() {
            return Err(Refusal::Malformed(format!(
                "`{}` is not {}a digest of {digest_bytes} bytes in {}",
                scheme.header,
                if scheme.prefix.is_empty() { "" } else { "the configured prefix and " },
                match scheme.encoding {
                    Encoding::Hex => "hex",
                    Encoding::Base64 => "base64",
                    Encoding::Base64Url => "base64url",
                }
            )));
        }
        Ok(signatures)
    }
}

/// What stands before the separator, and what after it, where it occurs.
fn split_once<'a>(text: &'a [u8], separator: &[u8]) -> (&'a [u8], Option<&'a [u8]>) {
    match text.windows(separator.len()).position(|window| window == separator) {
        Some(place) => (&text[..place], Some(&text[place + separator.len()..])),
        None => (text, None),
    }
}

impl Provider for GenericHmac {
    fn name(&self) -> &'static str {
        "generic_hmac"
    }

    fn summary(&self) -> &'static str {
        "any HMAC: header, algorithm, encoding and signed text are settings"
    }

    fn settings_schema(&self) -> Value {
        Settings::schema()
    }

    fn guide(&self) -> Guide {
        Guide {
            secret: "At the provider, beside the webhook; some let one choose it. How its text stands for bytes is `secret_encoding`; \
                     `POST /api/v1/providers/generic_hmac/verify` with a request of theirs finds settings that hold.",
            url: "Wherever the provider lets one enter a webhook's or callback's URL.",
            reference: "https://www.rfc-editor.org/rfc/rfc2104",
        }
    }

    fn verifier(&self, settings: &Map<String, Value>, secrets: &[Secret]) -> Result<Arc<dyn Verifier>, SettingsError> {
        let scheme = Scheme::compile(settings)?;
        signature::check_secrets(secrets)?;
        let secrets = secrets
            .iter()
            .enumerate()
            .map(|(index, secret)| scheme.decode(index, secret))
            .collect::<Result<Vec<_>, _>>()?;
        let keys = secrets.iter().map(|secret| Key::new(scheme.algorithm, secret.expose())).collect();
        let crc_key = Key::new(Algorithm::Sha256, secrets[0].expose());
        Ok(Arc::new(Compiled { scheme, keys, crc_key }))
    }

    /// The id is in `id_header` where that is set, else the body's `id`.
    fn identify(&self, settings: &Map<String, Value>, event: &Event) -> Identity {
        let [id, kind] = payload::members(&event.arrival.body, ["id", "type"]);
        let provider_id = match settings.get("id_header").and_then(Value::as_str) {
            Some(name) => payload::id(payload::header(event, &name.to_ascii_lowercase())),
            None => payload::id(id),
        };
        Identity { event_type: payload::event_type(kind), provider_id }
    }

    /// The body is always signed, a header where the template names the id.
    fn signs_id(&self, settings: &Map<String, Value>) -> bool {
        settings.get("id_header").is_none()
            || Scheme::compile(settings).is_ok_and(|scheme| scheme.template.has(&Part::Id))
    }

    fn sign(
        &self,
        settings: &Map<String, Value>,
        secret: &Secret,
        id: &str,
        body: &[u8],
        now_ms: u64,
    ) -> Result<SignedRequest, SettingsError> {
        let scheme = Scheme::compile(settings)?;
        signature::check_secrets(std::slice::from_ref(secret))?;
        if scheme.template.has(&Part::Url) || scheme.template.has(&Part::Path) {
            return Err(SettingsError::new(
                "template",
                "holds {url} or {path}, which are not known when a sample is signed",
            ));
        }
        let timestamp = scheme.timestamp.as_ref().map(|timestamp| timestamp.unit.write(now_ms)).unwrap_or_default();
        let fill = Fill { timestamp: timestamp.as_bytes(), id: id.as_bytes(), ..Fill::of_post(body) };
        let key = Key::new(scheme.algorithm, scheme.decode(0, secret)?.expose());
        let digest = key.digest(scheme.template.slices(fill));
        let prefix = String::from_utf8_lossy(&scheme.prefix);
        let mut headers = vec![(scheme.header, format!("{prefix}{}", scheme.encoding.encode(digest.as_bytes())))];
        headers.extend(scheme.timestamp.map(|it| (it.header, timestamp)));
        headers.extend(scheme.id_header.map(|name| (name, id.to_owned())));
        Ok(SignedRequest { headers })
    }

    fn sample(&self, id: &str) -> (&'static str, Vec<u8>) {
        ("application/json", payload::fill(SAMPLE, id))
    }

    fn new_secret(&self, random: &[u8; 32]) -> Secret {
        Secret::new(format!("whsec_{}", Encoding::Base64Url.encode(random)))
    }
}

const SAMPLE: &str = r#"{"id":"EVENT_ID","type":"message.delivered","api_version":"2025-11-01","created_at":"2026-01-15T08:30:00.412Z","account_id":"acc_7Q2M9ZKD41","environment":"test","data":{"message_id":"sms_01KF0M7R6QX3T9ZB5W2E8YHDGN","direction":"outbound","channel":"sms","from":"ASHGROVE","to":"+353850000042","country":"IE","network":{"mcc":"272","mnc":"01","name":"Vodafone IE"},"body":{"text":"Your table for 4 is booked: Friday 16 January, 19:30. Reply C to cancel.","encoding":"gsm7","segments":1,"characters":73},"status":"delivered","status_history":[{"status":"accepted","at":"2026-01-15T08:29:56.001Z"},{"status":"queued","at":"2026-01-15T08:29:56.037Z"},{"status":"sent","at":"2026-01-15T08:29:57.220Z"},{"status":"delivered","at":"2026-01-15T08:30:00.398Z"}],"error":null,"price":{"amount":"0.0561","currency":"EUR"},"client_reference":"booking-20260116-0042","tags":["booking","confirmation"],"callback":{"url":"https://hooks.ashgrove.example/webhooks/receive/sms","attempt":1}},"links":{"self":"https://api.sms.example/v1/messages/sms_01KF0M7R6QX3T9ZB5W2E8YHDGN"}}"#;

#[cfg(test)]
mod tests;
