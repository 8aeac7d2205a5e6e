//! Which addresses deliveries may reach. Destinations are named by users, so without these rules hookmill would
//! post to the internal network, to a cloud's metadata service or to itself on anybody's behalf (SSRF).
//! [`Egress::check`] judges one address; [`connector`] opens every outgoing connection and asks it each time.

pub(super) mod connector;
mod resolver;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The egress rules of this process.
#[derive(Debug, Default)]
pub struct Egress {
    allow: Vec<IpNet>,
    own: OwnAddresses,
}

/// Why an address is not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// A listener of this process: events would go round in a circle, or reach the admin API.
    #[error("{0} is hookmill's own address, which is never delivered to")]
    Own(SocketAddr),
    /// Not a public address, and the deployment does not allow it.
    #[error("{address} is {range} and not in `egress.allow`")]
    Range {
        /// As it would be connected to.
        address: IpAddr,
        /// What it is, with its article.
        range: &'static str,
    },
}

impl Egress {
    /// `allow` (the setting `egress.allow`) opens ranges that are denied by default; IPv4 ranges hold for
    /// IPv4-mapped IPv6 addresses too. `own` stays denied whatever it says.
    pub fn new(allow: Vec<IpNet>, own: OwnAddresses) -> Self {
        Self { allow, own }
    }

    /// Whether a connection to `target` may be opened.
    pub fn check(&self, target: SocketAddr) -> Result<(), Denied> {
        let address = target.ip().to_canonical();
        if self.own.contains(SocketAddr::new(address, target.port())) {
            return Err(Denied::Own(target));
        }
        match range_of(address) {
            Some(range) if !self.allow.iter().any(|net| net.contains(&address)) => {
                Err(Denied::Range { address, range })
            }
            _ => Ok(()),
        }
    }

    /// Those of a name's addresses that may be connected to, in order. Denied ones are left out, and are an error
    /// when no other is there; a name that also leads to ourselves is denied whole.
    fn select(&self, addresses: &[IpAddr], port: u16) -> Result<Vec<SocketAddr>, Denied> {
        let mut targets = Vec::with_capacity(addresses.len());
        let mut first_denied = None;
        for address in addresses {
            let target = SocketAddr::new(*address, port);
            match self.check(target) {
                Ok(()) => targets.push(target),
                Err(denied @ Denied::Own(_)) => return Err(denied),
                Err(denied) => first_denied = first_denied.or(Some(denied)),
            }
        }
        match first_denied {
            Some(denied) if targets.is_empty() => Err(denied),
            _ => Ok(targets),
        }
    }
}

/// The addresses that this process listens on. Clones share them, so that they can be told once they are bound.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses(Arc<ArcSwap<Vec<SocketAddr>>>);

impl OwnAddresses {
    /// Takes the listeners' local addresses, ports as they were bound.
    pub fn new(bound: impl IntoIterator<Item = SocketAddr>) -> Self {
        let own = Self::default();
        own.set(bound);
        own
    }

    /// Replaces what is known.
    pub fn set(&self, bound: impl IntoIterator<Item = SocketAddr>) {
        self.0.store(Arc::new(bound.into_iter().collect()));
    }

    /// Whether a connection to `target` (canonical) would come out at one of our listeners.
    fn contains(&self, target: SocketAddr) -> bool {
        let bound = self.0.load();
        bound.iter().any(|bound| bound.port() == target.port() && reaches(bound.ip().to_canonical(), target.ip()))
    }
}

/// A listener on all addresses is reached by each of this machine's, whatever the family. Connecting to the
/// unspecified address ends at the loopback one.
fn reaches(bound: IpAddr, target: IpAddr) -> bool {
    match (bound.is_unspecified(), target.is_unspecified()) {
        (true, true) => true,
        (true, false) => target.is_loopback() || is_of_this_machine(target),
        (false, true) => bound.is_loopback(),
        (false, false) => bound == target,
    }
}

/// Interfaces come and go, so they are read each time; that is only when the port is one of ours.
/// Where they cannot be read, an address counts as ours.
fn is_of_this_machine(address: IpAddr) -> bool {
    if_addrs::get_if_addrs().map_or(true, |interfaces| interfaces.iter().any(|interface| interface.ip() == address))
}

/// What an address is when it is not a public unicast one, with its article.
fn range_of(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => range_of_v4(address),
        IpAddr::V6(address) => range_of_v6(address),
    }
}

fn range_of_v4(address: Ipv4Addr) -> Option<&'static str> {
    DENIED_V4.iter().find(|(net, _)| net.contains(&address)).map(|(_, range)| *range)
}

/// Addresses that carry an IPv4 one are what that one is. Everything else outside of `2000::/3`, which alone is
/// assigned as global unicast, is denied without naming each block.
fn range_of_v6(address: Ipv6Addr) -> Option<&'static str> {
    if let Some(carried) = carried_v4(address) {
        return range_of_v4(carried);
    }
    match DENIED_V6.iter().find(|(net, _)| net.contains(&address)) {
        Some((_, range)) => Some(range),
        None if GLOBAL_UNICAST.contains(&address) => None,
        None => Some("an address outside of the global unicast range"),
    }
}

/// The IPv4 address that a mapped (RFC 4291), NAT64 (RFC 6052) or 6to4 (RFC 3056) address leads to.
fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let v4_at = |at: usize| Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]);
    if MAPPED.contains(&address) || NAT64.contains(&address) {
        Some(v4_at(12))
    } else if SIX_TO_FOUR.contains(&address) {
        Some(v4_at(2))
    } else {
        None
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(head: [u16; 4], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(head[0], head[1], head[2], head[3], 0, 0, 0, 0), prefix)
}

const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0], 96);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0], 16);
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0], 3);

/// IANA's special-purpose IPv4 registry without its globally reachable entries; the clouds' metadata services
/// first, so that an error names them. Azure's lies among public addresses.
const DENIED_V4: [(Ipv4Net, &str); 20] = [
    (v4(169, 254, 169, 254, 32), "a cloud metadata service"),
    (v4(168, 63, 129, 16, 32), "a cloud metadata service"),
    (v4(100, 100, 100, 200, 32), "a cloud metadata service"),
    (v4(192, 0, 0, 192, 32), "a cloud metadata service"),
    (v4(127, 0, 0, 0, 8), "a loopback address"),
    (v4(10, 0, 0, 0, 8), "a private address"),
    (v4(172, 16, 0, 0, 12), "a private address"),
    (v4(192, 168, 0, 0, 16), "a private address"),
    (v4(169, 254, 0, 0, 16), "a link-local address"),
    (v4(100, 64, 0, 0, 10), "an address shared behind a provider's NAT"),
    (v4(0, 0, 0, 0, 8), "an unspecified address"),
    (v4(224, 0, 0, 0, 4), "a multicast address"),
    (v4(255, 255, 255, 255, 32), "the broadcast address"),
    (v4(240, 0, 0, 0, 4), "a reserved address"),
    (v4(192, 0, 0, 0, 24), "a reserved address"),
    (v4(192, 88, 99, 0, 24), "a reserved address"),
    (v4(192, 0, 2, 0, 24), "an address for documentation"),
    (v4(198, 51, 100, 0, 24), "an address for documentation"),
    (v4(203, 0, 113, 0, 24), "an address for documentation"),
    (v4(198, 18, 0, 0, 15), "an address for benchmarks"),
];

/// The ranges worth a name of their own, and those within global unicast that are not public. `::/96` holds the
/// loopback, the unspecified and the IPv4-compatible addresses; `2001::/23` holds Teredo and protocol assignments.
const DENIED_V6: [(Ipv6Net, &str); 10] = [
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128), "a cloud metadata service"),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "a loopback address"),
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), "an unspecified address"),
    (v6([0; 4], 96), "an IPv4-compatible address"),
    (v6([0xfe80, 0, 0, 0], 10), "a link-local address"),
    (v6([0xfc00, 0, 0, 0], 7), "a private address"),
    (v6([0xff00, 0, 0, 0], 8), "a multicast address"),
    (v6([0x2001, 0, 0, 0], 23), "a reserved address"),
    (v6([0x2001, 0xdb8, 0, 0], 32), "an address for documentation"),
    (v6([0x3fff, 0, 0, 0], 20), "an address for documentation"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(address: &str, port: u16) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), port)
    }

    fn egress(allow: &[&str], own: &[SocketAddr]) -> Egress {
        Egress::new(allow.iter().map(|net| net.parse().unwrap()).collect(), OwnAddresses::new(own.iter().copied()))
    }

    #[test]
    fn denies_every_address_that_is_not_public() {
        let rules = egress(&[], &[]);
        #[rustfmt::skip]
        let denied = [
            "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254", "100.100.100.200",
            "127.0.0.1", "127.255.0.9", "169.254.0.1", "169.254.169.254", "168.63.129.16", "172.16.0.1",
            "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.7", "192.88.99.1", "192.168.1.1", "198.18.0.1",
            "198.19.255.255", "198.51.100.1", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1",
            "255.255.255.255", "::", "::1", "::7f00:1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::808:808", "100::1",
            "2001::1", "2001:2::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::1", "2002:a00:1::", "3fff::1",
            "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fdff::1", "fe80::1", "febf::1", "fec0::1", "ff02::1",
        ];
        for address in denied {
            assert!(matches!(rules.check(at(address, 443)), Err(Denied::Range { .. })), "{address}");
        }
        #[rustfmt::skip]
        let public = [
            "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
            "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255",
            "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "2606:4700::1111", "2a00::1",
            "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1",
        ];
        for address in public {
            assert_eq!(rules.check(at(address, 443)), Ok(()), "{address}");
        }
    }

    #[test]
    fn says_what_is_denied_and_which_setting_would_allow_it() {
        let error = egress(&[], &[]).check(at("::ffff:169.254.169.254", 80)).unwrap_err();
        assert_eq!(error.to_string(), "169.254.169.254 is a cloud metadata service and not in `egress.allow`");
    }

    #[test]
    fn the_allow_list_opens_what_it_names_and_nothing_else() {
        let rules = egress(&["10.1.0.0/16", "fd12::/16"], &[]);
        assert_eq!(rules.check(at("10.1.2.3", 80)), Ok(()));
        assert_eq!(rules.check(at("::ffff:10.1.2.3", 80)), Ok(()));
        assert_eq!(rules.check(at("fd12::9", 80)), Ok(()));
        assert!(rules.check(at("10.2.0.1", 80)).is_err());
        assert!(rules.check(at("64:ff9b::10.1.2.3", 80)).is_err(), "another network's 10.1.2.3");
        assert!(egress(&["::/0"], &[]).check(at("::ffff:10.0.0.1", 80)).is_err(), "a mapped address is an IPv4 one");
    }

    #[test]
    fn own_addresses_stay_denied_whatever_is_allowed() {
        let everything = ["0.0.0.0/0", "::/0"];
        let rules = egress(&everything, &[at("127.0.0.1", 8080), at("::1", 8081), at("10.0.0.5", 8082)]);
        #[rustfmt::skip]
        let own = [
            ("127.0.0.1", 8080), ("::ffff:127.0.0.1", 8080), ("0.0.0.0", 8080), ("::", 8080), ("::1", 8081),
            ("10.0.0.5", 8082), ("::ffff:10.0.0.5", 8082),
        ];
        for (address, port) in own {
            assert_eq!(rules.check(at(address, port)), Err(Denied::Own(at(address, port))), "{address} {port}");
        }
        for (address, port) in [("127.0.0.1", 8081), ("127.0.0.2", 8080), ("10.0.0.6", 8082), ("8.8.8.8", 8080)] {
            assert_eq!(rules.check(at(address, port)), Ok(()), "{address} {port}");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_owns_each_of_the_machines() {
        for wildcard in ["0.0.0.0", "::"] {
            let rules = egress(&["0.0.0.0/0", "::/0"], &[at(wildcard, 8080)]);
            let interfaces = if_addrs::get_if_addrs().unwrap();
            let machine = interfaces.iter().map(if_addrs::Interface::ip);
            for address in machine.chain(["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::"].map(|a| a.parse().unwrap()))
            {
                let target = SocketAddr::new(address, 8080);
                assert_eq!(rules.check(target), Err(Denied::Own(target)));
                assert_eq!(rules.check(SocketAddr::new(address, 8081)), Ok(()));
            }
            assert_eq!(rules.check(at("8.8.8.8", 8080)), Ok(()));
        }
    }

    #[test]
    fn of_a_names_addresses_only_the_permitted_are_left() {
        let rules = egress(&["127.0.0.0/8"], &[at("127.0.0.1", 8080)]);
        let select = |addresses: &[&str], port| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            rules.select(&addresses, port)
        };
        let mixed = ["10.0.0.1", "8.8.8.8", "fe80::1", "127.0.0.1"];
        assert_eq!(select(&mixed, 80), Ok(vec![at("8.8.8.8", 80), at("127.0.0.1", 80)]));
        assert_eq!(select(&mixed, 8080), Err(Denied::Own(at("127.0.0.1", 8080))), "though 8.8.8.8 is permitted");
        assert!(matches!(select(&["10.0.0.1", "fe80::1"], 80), Err(Denied::Range { range: "a private address", .. })));
    }

    proptest! {
        #[test]
        fn a_denied_address_stays_denied_in_every_form(pick in 0..DENIED_V4.len(), host in any::<u32>(), port in any::<u16>(), rest in any::<u64>()) {
            let (net, _) = DENIED_V4[pick];
            let address = Ipv4Addr::from_bits(net.network().to_bits() | (host & net.hostmask().to_bits()));
            let low = u128::from(address.to_bits());
            let forms = [
                IpAddr::V4(address),
                IpAddr::V6(address.to_ipv6_mapped()),
                IpAddr::V6(Ipv6Addr::from_bits(low)),
                IpAddr::V6(Ipv6Addr::from_bits(NAT64.network().to_bits() | low)),
                IpAddr::V6(Ipv6Addr::from_bits(SIX_TO_FOUR.network().to_bits() | (low << 80) | u128::from(rest))),
            ];
            let rules = egress(&[], &[]);
            for form in forms {
                prop_assert!(rules.check(SocketAddr::new(form, port)).is_err(), "{}", form);
            }
        }

        #[test]
        fn outside_of_global_unicast_only_carried_public_addresses_pass(bits in any::<u128>()) {
            let address = Ipv6Addr::from_bits(bits);
            let passes = egress(&[], &[]).check(SocketAddr::new(address.into(), 443)).is_ok();
            prop_assert!(!passes || GLOBAL_UNICAST.contains(&address) || MAPPED.contains(&address) || NAT64.contains(&address));
        }
    }
}
