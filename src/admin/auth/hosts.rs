//! Which host names the API answers to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::{extract::Request, http::header};

use super::super::{
    json::quoted,
    problem::{Code, Problem},
};

/// The host names that the API answers to. A page that has its own name resolve to our address (DNS rebinding) sends
/// that name, and is turned away.
pub(in super::super) struct Hosts {
    bound: IpAddr,
    allowed: Vec<String>,
}

impl Hosts {
    pub(in super::super) fn new(bound: IpAddr, allowed: &[String]) -> Self {
        Self { bound, allowed: allowed.iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect() }
    }

    pub(super) fn check(&self, request: &Request) -> Result<(), Problem> {
        let mut lines = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (lines.next(), lines.next()) else {
            return Err(Problem::new(Code::InvalidRequest, "exactly one `host` header is needed"));
        };
        let host = host.to_str().unwrap_or_default();
        let target = request.uri().authority().map(axum::http::uri::Authority::as_str);
        if std::iter::once(host).chain(target).all(|authority| self.answers_to(authority)) {
            return Ok(());
        }
        let detail = format!("`{}` is not in `admin.allowed_hosts`", quoted(host));
        Err(Problem::new(Code::HostNotAllowed, detail))
    }

    fn answers_to(&self, authority: &str) -> bool {
        let Some(name) = host_of(authority) else { return false };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if self.allowed.contains(&name) || name == "localhost" {
            return true;
        }
        match address(&name) {
            // Bound to every address, there is no telling which is ours; an address cannot be rebound by DNS.
            Some(address) => address.is_loopback() || address == self.bound || self.bound.is_unspecified(),
            None => false,
        }
    }
}

/// The host of `host:port`, still with the brackets of an IPv6 address.
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = match authority.rfind(']') {
        Some(end) => authority.split_at(end + 1),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_is_sound = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    (port_is_sound && !host.is_empty()).then_some(host)
}

fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}
