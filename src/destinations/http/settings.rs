//! The settings of an `http` destination: one reading of them, for the admin API and for the transport. No I/O.

use std::time::Duration;

use hookmill_actors::{domain::secret::Secret, ports::provider::SettingsError};
use hyper::{
    Method, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT},
};
use serde_json::{Map, Value};

use super::{
    super::{
        header_rules,
        members::{CA, Credentials, Members, fault_of},
        url::{self, Scheme, Server},
    },
    auth::Auth,
    client::{PROXY_CREDENTIALS, Peer},
    reply::Withheld,
};
use crate::secrets::names;

/// The kind's name.
pub(super) const NAME: &str = "http";

const URL: &str = "url";
const QUERY: &str = "query";
const QUERY_BYTES: std::ops::RangeInclusive<usize> = 1..=1024;
const PROXY: &str = "proxy";
const HEADERS: &str = "headers";
const MEMBERS: [&str; 8] = [URL, "method", HEADERS, "auth", CA, PROXY, "timeout_ms", "connect_timeout_ms"];
const METHODS: [(&str, u8); 4] = [("POST", 0), ("PUT", 1), ("PATCH", 2), ("DELETE", 3)];
const SCHEMES: [Scheme; 2] = [("http", 80), ("https", 443)];
/// A proxy is spoken to in plain HTTP; what goes through a tunnel is TLS all the same.
const PROXY_SCHEMES: [Scheme; 1] = [("http", 80)];

/// Headers that a destination adds at most, and bytes of one value.
const HEADERS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 1024;
/// What holds for destinations that do not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpDefaults {
    /// For a whole attempt, from the name's resolution to the end of the reply.
    pub timeout: Duration,
    /// For opening a connection: name resolution, TCP and TLS.
    pub connect_timeout: Duration,
}

impl Default for HttpDefaults {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(15), connect_timeout: Duration::from_secs(5) }
    }
}

/// Settings that hold, with the credentials they need.
pub(super) struct HttpSettings {
    /// Absolute, `http` or `https`, with a host.
    pub(super) uri: Uri,
    pub(super) method: Method,
    /// Sent with every request.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) auth: Auth,
    /// What a reply must not repeat.
    pub(super) withheld: Withheld,
    /// How the other side is reached, where that is special.
    pub(super) peer: Peer,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
}

impl HttpSettings {
    /// Reads them; an unknown member is an error. The texts never repeat the URL: its query may hold a token.
    pub(super) fn parse(
        settings: &Map<String, Value>,
        mut credentials: Credentials,
        defaults: HttpDefaults,
    ) -> Result<Self, SettingsError> {
        let members = Members::new(NAME, settings, &MEMBERS)?;
        let mut withheld = Withheld::new(credentials.all().cloned());
        let text =
            members.required(URL, 0..=usize::MAX, "the address to post to, such as https://example.com/hooks")?;
        let uri = with_query(url::parse(URL, text, &SCHEMES)?, &mut credentials)?;
        let method = match members.choice("method", &METHODS)? {
            None | Some(0) => Method::POST,
            Some(1) => Method::PUT,
            Some(2) => Method::PATCH,
            Some(_) => Method::DELETE,
        };
        let auth = Auth::parse(&members, &mut credentials, &uri)?;
        if let Auth::Fixed(_, value) = &auth {
            withheld.add_last_word(value.as_bytes());
        }
        let this = Self {
            method,
            headers: headers(&members)?,
            auth,
            withheld,
            peer: peer(&members, &mut credentials, &uri)?,
            timeout: members.timeout("timeout_ms", defaults.timeout)?,
            connect_timeout: members.timeout("connect_timeout_ms", defaults.connect_timeout)?,
            uri,
        };
        credentials.finish(NAME)?;
        if let Some((name, _)) = this.headers.iter().find(|(name, _)| this.auth.header() == Some(name)) {
            return Err(members.fault(&format!("{HEADERS}.{name}"), "is set by `auth`; leave it out"));
        }
        Ok(this)
    }

    /// The servers it connects to, or has connected to, by the member that names each.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&'static str, Server)> {
        let proxy = self.peer.proxy.as_ref().map(|proxy| (PROXY, Server::of(&proxy.uri, &PROXY_SCHEMES)));
        std::iter::once((URL, Server::of(&self.uri, &SCHEMES))).chain(proxy)
    }
}

/// The URL with what `credentials` have of its query: what stands in settings is shown.
fn with_query(uri: Uri, credentials: &mut Credentials) -> Result<Uri, SettingsError> {
    if uri.query().is_some_and(names::query_holds_secret) {
        let problem = "has a query parameter that looks like a secret, which settings would show; give it as \
                       `credentials.query`, such as `token=...`";
        return Err(SettingsError::new(URL, problem));
    }
    let Some(query) = credentials.take(QUERY, QUERY_BYTES)? else { return Ok(uri) };
    let fault = || fault_of(QUERY, "is no query of a URL, such as `token=...`; percent-encode what it may not hold");
    let text = query.expose_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
    let text = text.ok_or_else(fault)?;
    let whole = zeroize::Zeroizing::new(format!("{uri}{}{text}", if uri.query().is_some() { '&' } else { '?' }));
    whole.parse().map_err(|_| fault())
}

fn headers(members: &Members<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, SettingsError> {
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (given, value) in members.texts(HEADERS, HEADERS_MAX)? {
        let shown: String = given.chars().filter(|char| !char.is_control()).take(64).collect();
        let fault = |problem: String| members.fault(&format!("{HEADERS}.{shown}"), problem);
        let (name, value) = header_rules::added(given, value).map_err(fault)?;
        if value.len() > HEADER_BYTES_MAX {
            return Err(fault(format!("has {} bytes; at most {HEADER_BYTES_MAX} are allowed", value.len())));
        }
        if name == CONTENT_TYPE {
            return Err(fault("comes from the event, or from the subscription's transformation; leave it out".into()));
        }
        if header_rules::is_secret(&name) {
            let problem = "looks like a secret, which settings would show; use `auth` (`bearer`, `basic`, `api_key`) \
                           and `credentials`";
            return Err(fault(problem.into()));
        }
        if headers.iter().any(|(known, _)| *known == name) {
            return Err(fault("is given twice, in different spellings".into()));
        }
        headers.push((name, value));
    }
    Ok(headers)
}

fn peer(members: &Members<'_>, credentials: &mut Credentials, uri: &Uri) -> Result<Peer, SettingsError> {
    let ca = members.authorities()?;
    let (user, password) = PROXY_CREDENTIALS;
    let proxy = match members.text(PROXY, 1..=usize::MAX)? {
        Some(text) => {
            let proxy = url::parse(PROXY, text, &PROXY_SCHEMES)?;
            if proxy.path() != "/" || proxy.query().is_some() {
                return Err(members.fault(PROXY, "has a path or a query; give scheme, host and port only"));
            }
            let user = credentials.take(user, 1..=255)?;
            let password = credentials.take(password, 1..=255)?;
            Some((proxy, user, password))
        }
        None => None,
    };
    Peer::new(uri, ca, credentials, proxy)
}

/// A header's value that holds a secret: marked, so that nothing prints it.
pub(super) fn secret_value(text: &[u8], member: &'static str) -> Result<HeaderValue, SettingsError> {
    let mut value = HeaderValue::from_bytes(text)
        .map_err(|_| fault_of(member, "holds a character that no header may hold, such as a line end"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A header that `auth` may set.
pub(super) fn auth_header(
    members: &Members<'_>,
    member: &str,
    default: Option<&HeaderName>,
) -> Result<HeaderName, SettingsError> {
    let Some(text) = members.text(member, 1..=128)? else {
        return default.cloned().ok_or_else(|| members.fault(member, "is missing; give the header's name"));
    };
    match header_rules::added(text, "") {
        Ok((name, _)) if name == CONTENT_TYPE || name == USER_AGENT => {
            Err(members.fault(member, "is a header of another meaning"))
        }
        Ok((name, _)) => Ok(name),
        Err(problem) => Err(members.fault(member, problem)),
    }
}

/// `Basic` credentials (RFC 7617).
pub(in crate::destinations) fn basic(user: &Secret, password: &Secret) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut pair = zeroize::Zeroizing::new(Vec::with_capacity(user.expose().len() + password.expose().len() + 1));
    pair.extend_from_slice(user.expose());
    pair.push(b':');
    pair.extend_from_slice(password.expose());
    format!("Basic {}", STANDARD.encode(&*pair)).into_bytes()
}

/// The header of `bearer` and `basic`.
pub(super) const AUTH_HEADER: HeaderName = AUTHORIZATION;

#[cfg(test)]
mod tests;
