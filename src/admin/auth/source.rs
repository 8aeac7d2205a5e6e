//! Where a request came from: its TCP peer, or whom a trusted proxy names. Pure.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";
/// More proxies than this before one another are nobody's network.
const HOPS_MAX: usize = 16;

/// Proxies whose word on where a request came from is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub(in super::super) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// The nearest address that is no trusted proxy. Each proxy appends whom it heard from, so the list is read from
    /// its end, and what lies beyond the first stranger is only the stranger's word.
    pub(super) fn source(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut source = peer.to_canonical();
        let lines = headers.get_all(FORWARDED_FOR).iter().collect::<Vec<_>>();
        let entries = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for entry in entries.take(HOPS_MAX) {
            if !self.trusts(source) {
                break;
            }
            let Some(before) = address(entry) else { break };
            source = before;
        }
        source
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// An address, with a port or without.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    parsed.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn source(trusted: &[&str], peer: &str, lines: &[&'static str]) -> String {
        let trusted = trusted.iter().map(|network| network.parse().expect("a network")).collect();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
        }
        TrustedProxies::new(trusted).source(peer.parse().expect("an address"), &headers).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        const PROXY: &[&str] = &["10.0.0.0/8"];
        for (trusted, peer, lines, want) in [
            (&[][..], "10.0.0.1", &["192.0.2.7"][..], "10.0.0.1"),
            (PROXY, "192.0.2.1", &["192.0.2.7"], "192.0.2.1"),
            (PROXY, "10.0.0.1", &[], "10.0.0.1"),
            (PROXY, "10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
            (PROXY, "::ffff:10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
            (PROXY, "10.0.0.1", &["198.51.100.9, 192.0.2.7"], "192.0.2.7"),
            (PROXY, "10.0.0.1", &["198.51.100.9, 192.0.2.7, 10.2.0.1"], "192.0.2.7"),
            (PROXY, "10.0.0.1", &["198.51.100.9", "192.0.2.7, 10.2.0.1"], "192.0.2.7"),
            (PROXY, "10.0.0.1", &["192.0.2.7:4711"], "192.0.2.7"),
            (PROXY, "10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            (PROXY, "10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            (PROXY, "10.0.0.1", &["192.0.2.7, unknown"], "10.0.0.1"),
            (PROXY, "10.0.0.1", &["192.0.2.7, unknown, 10.3.0.1"], "10.3.0.1"),
            (PROXY, "10.0.0.1", &["10.1.1.1"], "10.1.1.1"),
        ] {
            assert_eq!(source(trusted, peer, lines), want, "{trusted:?} {peer} {lines:?}");
        }
    }
}
