//! The settings of an `http` destination: one reading of them, for the admin API and for the transport. Pure.

use std::{net::SocketAddr, num::NonZeroU16, time::Duration};

use hookmill_actors::ports::provider::SettingsError;
use hyper::Uri;
use serde_json::{Map, Value};

use super::super::egress::connector::{literal_address, port_of};

/// The longest URL, bytes.
const URL_BYTES_MAX: usize = 2048;
/// The longest host name that DNS can hold, bytes.
const HOST_BYTES_MAX: usize = 253;
/// What the timeouts may be, milliseconds.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=120_000;

const URL: &str = "url";
const TIMEOUT: &str = "timeout_ms";
const CONNECT_TIMEOUT: &str = "connect_timeout_ms";
const MEMBERS: [&str; 3] = [URL, TIMEOUT, CONNECT_TIMEOUT];

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

/// Settings that hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HttpSettings {
    /// Absolute, `http` or `https`, with a host.
    pub(super) uri: Uri,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
}

impl HttpSettings {
    /// Reads them; an unknown member is an error. The texts never repeat the URL: its query may hold a token.
    pub(super) fn parse(settings: &Map<String, Value>, defaults: HttpDefaults) -> Result<Self, SettingsError> {
        if let Some(unknown) = settings.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
            let name: String = unknown.chars().take(64).collect();
            return Err(SettingsError::new(
                name,
                format!("an http destination has no such setting; it has {}", MEMBERS.join(", ")),
            ));
        }
        Ok(Self {
            uri: parse_url(settings.get(URL))?,
            timeout: parse_timeout(settings, TIMEOUT, defaults.timeout)?,
            connect_timeout: parse_timeout(settings, CONNECT_TIMEOUT, defaults.connect_timeout)?,
        })
    }

    /// The address and port to connect to, where the URL spells the address out.
    pub(super) fn literal_target(&self) -> Option<SocketAddr> {
        literal_address(self.uri.host()?).map(|address| SocketAddr::new(address, port_of(&self.uri)))
    }
}

/// A fault of the URL.
pub(super) fn url_fault(problem: impl Into<String>) -> SettingsError {
    SettingsError::new(URL, problem)
}

fn parse_timeout(
    settings: &Map<String, Value>,
    member: &'static str,
    default: Duration,
) -> Result<Duration, SettingsError> {
    let Some(value) = settings.get(member) else { return Ok(default) };
    value.as_u64().filter(|millis| TIMEOUT_MS.contains(millis)).map(Duration::from_millis).ok_or_else(|| {
        let (min, max) = (TIMEOUT_MS.start(), TIMEOUT_MS.end());
        SettingsError::new(member, format!("must be a whole number of milliseconds from {min} to {max}"))
    })
}

fn parse_url(value: Option<&Value>) -> Result<Uri, SettingsError> {
    let text = match value {
        Some(Value::String(text)) => text,
        Some(_) => return Err(url_fault("must be a string")),
        None => return Err(url_fault("is missing; give the address to post to, such as https://example.com/hooks")),
    };
    if text.len() > URL_BYTES_MAX {
        return Err(url_fault(format!("has {} bytes; at most {URL_BYTES_MAX} are allowed", text.len())));
    }
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return Err(url_fault("must begin with `http://` or `https://`"));
    }
    if text.contains('#') {
        return Err(url_fault("has a fragment (`#...`), which is never sent; leave it out"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(url_fault("has a space, a control or a non-ASCII character; percent-encode it, or use punycode"));
    }
    let uri: Uri = text.parse().map_err(|error| url_fault(format!("is not a URL: {error}")))?;
    let authority = uri.authority().ok_or_else(|| url_fault("has no host"))?;
    if authority.as_str().contains('@') {
        return Err(url_fault("has a user name or password before `@`, which is not supported; leave it out"));
    }
    check_host(authority.host())?;
    if port_text(&uri).is_some_and(|port| port.parse::<NonZeroU16>().is_err()) {
        return Err(url_fault("has a port that is no number from 1 to 65535"));
    }
    Ok(uri)
}

/// What follows the host and its colon. `Uri::port` is silent about a port that is no number.
fn port_text(uri: &Uri) -> Option<&str> {
    let authority = uri.authority()?;
    authority.as_str().strip_prefix(authority.host())?.strip_prefix(':')
}

fn check_host(host: &str) -> Result<(), SettingsError> {
    if host.is_empty() {
        return Err(url_fault("has no host"));
    }
    if literal_address(host).is_some() {
        return Ok(());
    }
    if host.starts_with('[') {
        return Err(url_fault("has brackets around what is no IPv6 address"));
    }
    if host.len() > HOST_BYTES_MAX {
        return Err(url_fault(format!("has a host of {} bytes; at most {HOST_BYTES_MAX} are allowed", host.len())));
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        return Err(url_fault("has a host with characters other than letters, digits, `-`, `.` and `_`"));
    }
    if is_odd_ipv4(host) {
        return Err(url_fault("has a number for a host; write an IPv4 address as four decimal numbers"));
    }
    Ok(())
}

/// Whether resolvers and browsers would read the host as an IPv4 address in one of its loose spellings: its last
/// label is a number (WHATWG URL, "ends in a number").
fn is_odd_ipv4(host: &str) -> bool {
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(settings: Value) -> Result<HttpSettings, SettingsError> {
        let Value::Object(settings) = settings else { panic!("settings are an object") };
        HttpSettings::parse(&settings, HttpDefaults::default())
    }

    #[test]
    fn takes_urls_and_fills_in_defaults() {
        for url in [
            "https://example.com",
            "http://example.com:8080/hooks/a?token=b&c",
            "https://[2606:4700::1111]:8443/x",
            "http://93.184.216.34/",
            "https://xn--bcher-kva.example./",
            "http://my_service:80/",
        ] {
            let settings = parse(json!({ "url": url })).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(settings.timeout, Duration::from_secs(15));
            assert_eq!(settings.connect_timeout, Duration::from_secs(5));
        }
        let settings = parse(json!({ "url": "https://1.2.3.4/", "timeout_ms": 100, "connect_timeout_ms": 120_000 }));
        let settings = settings.unwrap();
        assert_eq!((settings.timeout.as_millis(), settings.connect_timeout.as_millis()), (100, 120_000));
        assert_eq!(settings.literal_target(), Some("1.2.3.4:443".parse().unwrap()));
    }

    #[test]
    fn names_the_member_at_fault_and_what_would_be_right() {
        let long = format!("http://a/{}", "x".repeat(2048));
        let long_host = format!("http://{}.example/", "x".repeat(250));
        let cases = [
            (json!({}), "url", "missing"),
            (json!({ "url": 5 }), "url", "string"),
            (json!({ "url": long }), "url", "2048"),
            (json!({ "url": long_host }), "url", "253"),
            (json!({ "url": "ftp://a/" }), "url", "`http://` or `https://`"),
            (json!({ "url": "/hooks" }), "url", "`http://` or `https://`"),
            (json!({ "url": "http://" }), "url", "not a URL"),
            (json!({ "url": "http:///x" }), "url", "not a URL"),
            (json!({ "url": "http://:80/" }), "url", "no host"),
            (json!({ "url": "http://a/#b" }), "url", "fragment"),
            (json!({ "url": "http://u:p@a/" }), "url", "before `@`"),
            (json!({ "url": "http://u@a/" }), "url", "before `@`"),
            (json!({ "url": "http://a b/" }), "url", "percent-encode"),
            (json!({ "url": "http://a/\r\nx: y" }), "url", "percent-encode"),
            (json!({ "url": "http://bücher.example/" }), "url", "punycode"),
            (json!({ "url": "http://2130706433/" }), "url", "four decimal numbers"),
            (json!({ "url": "http://0x7f000001/" }), "url", "four decimal numbers"),
            (json!({ "url": "http://0x7f.1/" }), "url", "four decimal numbers"),
            (json!({ "url": "http://127.0.0.1./" }), "url", "four decimal numbers"),
            (json!({ "url": "http://[fe80::1%25eth0]/" }), "url", ""),
            (json!({ "url": "http://a%2eb/" }), "url", ""),
            (json!({ "url": "http://a:0/" }), "url", "1 to 65535"),
            (json!({ "url": "http://a:/" }), "url", "1 to 65535"),
            (json!({ "url": "http://a:70000/" }), "url", ""),
            (json!({ "url": "http://a/", "timeout_ms": 99 }), "timeout_ms", "100 to 120000"),
            (json!({ "url": "http://a/", "timeout_ms": "5s" }), "timeout_ms", "100 to 120000"),
            (json!({ "url": "http://a/", "connect_timeout_ms": 120_001 }), "connect_timeout_ms", "100 to 120000"),
            (json!({ "url": "http://a/", "connect_timeout_ms": -1 }), "connect_timeout_ms", "100 to 120000"),
            (json!({ "url": "http://a/", "headers": {} }), "headers", "url, timeout_ms, connect_timeout_ms"),
        ];
        for (settings, field, problem) in cases {
            let error = parse(settings.clone()).expect_err(&settings.to_string());
            assert_eq!(error.field, field, "{settings}");
            assert!(error.problem.contains(problem), "{settings}: {error}");
        }
    }

    #[test]
    fn an_error_never_repeats_the_url() {
        for url in ["http://a/?token=hush#x", "http://hush:hush@a/", "http://a /?hush"] {
            assert!(!parse(json!({ "url": url })).unwrap_err().to_string().contains("hush"), "{url}");
        }
    }
}
