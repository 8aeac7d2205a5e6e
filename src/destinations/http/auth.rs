//! How an `http` destination knows us, beside the signature that every delivery has: by a fixed header, or by an
//! HMAC of the operator's choice over what is sent. Pure.

use hookmill_actors::ports::provider::SettingsError;
use hyper::{
    HeaderMap, Uri,
    header::{HeaderName, HeaderValue},
};

use super::{
    super::members::{Credentials, Members, fault_of},
    settings::{AUTH_HEADER, auth_header, basic, secret_value},
};
use crate::providers::{
    signature::{Algorithm, Encoding, Key},
    template::{Fill, Template},
};

const AUTH: &str = "auth";
const MEMBERS: [&str; 7] = ["type", "header", "algorithm", "encoding", "prefix", "template", "timestamp_header"];
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 1..=4096;
/// A shorter key is guessed from one delivery.
const HMAC_KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=1024;

const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("sha256", Algorithm::Sha256),
    ("sha384", Algorithm::Sha384),
    ("sha512", Algorithm::Sha512),
    ("sha1", Algorithm::Sha1),
];
const ENCODINGS: [(&str, Encoding); 3] =
    [("hex", Encoding::Hex), ("base64", Encoding::Base64), ("base64url", Encoding::Base64Url)];

#[derive(Clone, Copy)]
enum Type {
    None,
    Bearer,
    Basic,
    ApiKey,
    Hmac,
}

const TYPES: [(&str, Type); 5] = [
    ("none", Type::None),
    ("bearer", Type::Bearer),
    ("basic", Type::Basic),
    ("api_key", Type::ApiKey),
    ("hmac", Type::Hmac),
];

/// What it adds to a request.
pub(super) enum Auth {
    /// Nothing.
    None,
    /// The same header each time.
    Fixed(HeaderName, HeaderValue),
    /// An HMAC over the request.
    Hmac(Box<Scheme>),
}

/// An HMAC as an operator describes it.
pub(super) struct Scheme {
    header: HeaderName,
    timestamp_header: Option<HeaderName>,
    prefix: String,
    encoding: Encoding,
    template: Template,
    key: Key,
    /// Scheme and authority, for a template's `{url}`.
    origin: String,
    target: String,
}

/// What one attempt has to be signed.
#[derive(Clone, Copy)]
pub(super) struct Signed<'a> {
    /// `webhook-id`.
    pub(super) id: &'a [u8],
    /// `webhook-timestamp`: seconds since 1970.
    pub(super) timestamp: &'a [u8],
    pub(super) method: &'a [u8],
    pub(super) body: &'a [u8],
}

impl Auth {
    /// Reads `auth` and takes the credentials that it needs.
    pub(super) fn parse(
        members: &Members<'_>,
        credentials: &mut Credentials,
        uri: &Uri,
    ) -> Result<Self, SettingsError> {
        let Some(auth) = members.within(AUTH, &MEMBERS)? else { return Ok(Self::None) };
        let Some(kind) = auth.choice("type", &TYPES)? else {
            let known = TYPES.map(|(name, _)| format!("`{name}`")).join(", ");
            return Err(auth.fault("type", format!("is missing; give one of {known}")));
        };
        let fitting: &[&str] = match kind {
            Type::None | Type::Bearer | Type::Basic => &["type"],
            Type::ApiKey => &["type", "header", "prefix"],
            Type::Hmac => &MEMBERS,
        };
        if let Some(other) = MEMBERS.iter().find(|name| !fitting.contains(name) && auth.has(name)) {
            return Err(auth.fault(other, format!("means nothing for this type, which takes {}", fitting.join(", "))));
        }
        match kind {
            Type::None => Ok(Self::None),
            Type::Bearer => {
                let token = credentials.need("token", SECRET_BYTES, "`auth` of type `bearer`")?;
                Ok(Self::Fixed(AUTH_HEADER, secret_value(&[b"Bearer ", token.expose()].concat(), "token")?))
            }
            Type::Basic => {
                let user = credentials.need("username", 1..=255, "`auth` of type `basic`")?;
                let password = credentials.need("password", SECRET_BYTES, "`auth` of type `basic`")?;
                if user.expose().contains(&b':') {
                    return Err(fault_of("username", "holds a colon, which Basic authentication cannot carry"));
                }
                Ok(Self::Fixed(AUTH_HEADER, secret_value(&basic(&user, &password), "password")?))
            }
            Type::ApiKey => {
                let header = auth_header(&auth, "header", None)?;
                let key = credentials.need("api_key", SECRET_BYTES, "`auth` of type `api_key`")?;
                let prefix = auth.text("prefix", 0..=64)?.unwrap_or_default();
                Ok(Self::Fixed(header, secret_value(&[prefix.as_bytes(), key.expose()].concat(), "api_key")?))
            }
            Type::Hmac => Scheme::parse(&auth, credentials, uri).map(|scheme| Self::Hmac(Box::new(scheme))),
        }
    }

    /// The header it sets.
    pub(super) fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::None => None,
            Self::Fixed(name, _) => Some(name),
            Self::Hmac(scheme) => Some(&scheme.header),
        }
    }

    /// Adds its headers.
    pub(super) fn apply(&self, headers: &mut HeaderMap, signed: Signed<'_>) {
        match self {
            Self::None => {}
            Self::Fixed(name, value) => {
                headers.insert(name.clone(), value.clone());
            }
            Self::Hmac(scheme) => scheme.apply(headers, signed),
        }
    }
}

impl Scheme {
    fn parse(auth: &Members<'_>, credentials: &mut Credentials, uri: &Uri) -> Result<Self, SettingsError> {
        const DEFAULT_HEADER: HeaderName = HeaderName::from_static("x-signature");
        let secret = credentials.need("secret", HMAC_KEY_BYTES, "`auth` of type `hmac`")?;
        let algorithm = auth.choice("algorithm", &ALGORITHMS)?.unwrap_or(Algorithm::Sha256);
        let template = auth.raw("template", 1..=usize::MAX)?.unwrap_or("{body}");
        let template = Template::parse(template).map_err(|problem| auth.fault("template", problem))?;
        let prefix = auth.text("prefix", 0..=64)?.unwrap_or_default();
        if !prefix.is_ascii() {
            return Err(auth.fault("prefix", "must be ASCII: it begins a header's value"));
        }
        let timestamp_header = match auth.has("timestamp_header") {
            true => Some(auth_header(auth, "timestamp_header", None)?),
            false => None,
        };
        let header = auth_header(auth, "header", Some(&DEFAULT_HEADER))?;
        if timestamp_header.as_ref() == Some(&header) {
            return Err(auth.fault("timestamp_header", "is the same as `auth.header`"));
        }
        Ok(Self {
            header,
            timestamp_header,
            prefix: prefix.to_owned(),
            encoding: auth.choice("encoding", &ENCODINGS)?.unwrap_or(Encoding::Hex),
            template,
            key: Key::new(algorithm, secret.expose()),
            origin: format!(
                "{}://{}",
                uri.scheme_str().unwrap_or_default(),
                uri.authority().map(hyper::http::uri::Authority::as_str).unwrap_or_default()
            ),
            target: uri.path_and_query().map_or_else(String::new, ToString::to_string),
        })
    }

    fn apply(&self, headers: &mut HeaderMap, signed: Signed<'_>) {
        let fill = Fill {
            body: signed.body,
            timestamp: signed.timestamp,
            id: signed.id,
            public_url: self.origin.as_bytes(),
            target: self.target.as_bytes(),
            method: signed.method,
        };
        let digest = self.key.digest(self.template.slices(fill));
        let value = format!("{}{}", self.prefix, self.encoding.encode(digest.as_bytes()));
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(self.header.clone(), value);
        }
        if let Some(name) = &self.timestamp_header
            && let Ok(value) = HeaderValue::from_bytes(signed.timestamp)
        {
            headers.insert(name.clone(), value);
        }
    }
}
