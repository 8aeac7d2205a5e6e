//! Addresses of servers, as settings write them: one strict reading for all kinds of destinations. Pure.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use hookmill_actors::ports::provider::SettingsError;
use hyper::Uri;

use super::egress::{Egress, connector::literal_address};

/// The longest URL, bytes.
const URL_BYTES_MAX: usize = 2048;
/// The longest host name that DNS can hold, bytes.
const HOST_BYTES_MAX: usize = 253;

/// A scheme and the port that it means.
pub(super) type Scheme = (&'static str, u16);

/// A server that a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// A name, or an address; one of IPv6 in brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Server {
    /// The server of a URL that [`parse`] took with the same schemes.
    pub(super) fn of(uri: &Uri, schemes: &[Scheme]) -> Self {
        let meant = schemes.iter().find(|(scheme, _)| uri.scheme_str() == Some(*scheme)).map_or(0, |(_, port)| *port);
        Self { host: uri.host().unwrap_or_default().to_owned(), port: uri.port_u16().unwrap_or(meant) }
    }

    /// Refuses an address that the egress rules deny. Names are judged when they are connected to.
    pub(super) fn check(&self, field: &str, egress: &Egress) -> Result<(), SettingsError> {
        match self.literal() {
            Some(target) => egress.check(target).map_err(|denied| SettingsError::new(field, denied.to_string())),
            None => Ok(()),
        }
    }

    fn literal(&self) -> Option<SocketAddr> {
        literal_address(&self.host).map(|address: IpAddr| SocketAddr::new(address, self.port))
    }
}

/// Reads an absolute URL of one of the schemes, with a host and without credentials. The texts never repeat it: its
/// query may hold a token.
pub(super) fn parse(field: &str, text: &str, schemes: &[Scheme]) -> Result<Uri, SettingsError> {
    let fault = |problem: String| SettingsError::new(field, problem);
    if text.len() > URL_BYTES_MAX {
        return Err(fault(format!("has {} bytes; at most {URL_BYTES_MAX} are allowed", text.len())));
    }
    let begins = |scheme: &str| text.strip_prefix(scheme).is_some_and(|rest| rest.starts_with("://"));
    if !schemes.iter().any(|(scheme, _)| begins(scheme)) {
        let known = schemes.iter().map(|(scheme, _)| format!("`{scheme}://`")).collect::<Vec<_>>().join(" or ");
        return Err(fault(format!("must begin with {known}")));
    }
    if text.contains('#') {
        return Err(fault("has a fragment (`#...`), which is never sent; leave it out".into()));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = "has a space, a control or a non-ASCII character; percent-encode it, or use punycode";
        return Err(fault(problem.into()));
    }
    let uri: Uri = text.parse().map_err(|error| fault(format!("is not a URL: {error}")))?;
    let authority = uri.authority().ok_or_else(|| fault("has no host".into()))?;
    if authority.as_str().contains('@') {
        let problem = "has a user name or password before `@`, which belongs into `credentials`; leave it out";
        return Err(fault(problem.into()));
    }
    check_host(authority.host()).map_err(fault)?;
    if port_text(&uri).is_some_and(|port| port.parse::<NonZeroU16>().is_err()) {
        return Err(fault("has a port that is no number from 1 to 65535".into()));
    }
    Ok(uri)
}

/// What follows the host and its colon. `Uri::port` is silent about a port that is no number.
fn port_text(uri: &Uri) -> Option<&str> {
    let authority = uri.authority()?;
    authority.as_str().strip_prefix(authority.host())?.strip_prefix(':')
}

fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("has no host".into());
    }
    if literal_address(host).is_some() {
        return Ok(());
    }
    if host.starts_with('[') {
        return Err("has brackets around what is no IPv6 address".into());
    }
    if host.len() > HOST_BYTES_MAX {
        return Err(format!("has a host of {} bytes; at most {HOST_BYTES_MAX} are allowed", host.len()));
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        return Err("has a host with characters other than letters, digits, `-`, `.` and `_`".into());
    }
    if is_odd_ipv4(host) {
        return Err("has a number for a host; write an IPv4 address as four decimal numbers".into());
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
    use super::*;

    const SCHEMES: [Scheme; 2] = [("redis", 6379), ("rediss", 6380)];

    #[test]
    fn a_server_has_the_port_of_its_scheme_or_its_own() {
        for (text, host, port) in [
            ("redis://cache.example", "cache.example", 6379),
            ("rediss://cache.example/", "cache.example", 6380),
            ("rediss://[::1]:7000", "[::1]", 7000),
        ] {
            let uri = parse("url", text, &SCHEMES).unwrap();
            assert_eq!(Server::of(&uri, &SCHEMES), Server { host: host.into(), port });
        }
        let refused = parse("url", "http://cache.example", &SCHEMES).unwrap_err();
        assert_eq!(refused.to_string(), "`url`: must begin with `redis://` or `rediss://`");
        let refused = parse("url", "redis://u:hush@cache.example", &SCHEMES).unwrap_err().to_string();
        assert!(refused.contains("credentials") && !refused.contains("hush"), "{refused}");
    }

    #[test]
    fn an_address_is_judged_before_anything_connects() {
        let uri = parse("url", "redis://169.254.169.254", &SCHEMES).unwrap();
        let refused = Server::of(&uri, &SCHEMES).check("url", &Egress::default()).unwrap_err();
        assert_eq!(refused.field, "url");
        assert!(refused.problem.contains("metadata"), "{refused}");
    }
}
