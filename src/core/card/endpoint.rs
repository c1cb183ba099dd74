//! Where a node can be dialled, and where nobody should be made to dial.
//!
//! A card is another member's bytes: an address on it must not turn a node
//! against the machine it runs on or its cloud's metadata service. A name can
//! point anywhere, so that [`EndpointPolicy::allows_address`] is asked again for
//! each address that a name resolves to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::reject::Rejection;

/// `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The machine.
    pub host: Host,
    /// From 1.
    pub port: u16,
}

/// A machine by name or address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A lower-case domain name.
    Name(String),
    /// An address; IPv6 stands in brackets.
    Address(IpAddr),
}

impl Endpoint {
    /// Reads `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
    ///
    /// # Errors
    /// [`Rejection::Invalid`].
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| invalid("it reads host:port"))?;
        let canonical_port = !port.is_empty()
            && !port.starts_with('0')
            && port.bytes().all(|digit| digit.is_ascii_digit());
        let port = port.parse().ok().filter(|_| canonical_port);
        Ok(Self {
            host: Host::parse(host)?,
            port: port.ok_or_else(|| invalid("its port is not within 1 to 65535"))?,
        })
    }
}

impl Host {
    fn parse(text: &str) -> Result<Self, Rejection> {
        let bracketed = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Some(address) = bracketed {
            return address
                .parse::<Ipv6Addr>()
                .map(|address| Self::Address(address.into()))
                .map_err(|_| invalid("what stands in brackets is no IPv6 address"));
        }
        // A last label that begins with a digit is an address, as the URL standard
        // has it: "127.1" and "0x7f.1" must not pass as names.
        let last = text.rsplit('.').next().unwrap_or_default();
        if last.starts_with(|c: char| c.is_ascii_digit()) {
            return text
                .parse::<Ipv4Addr>()
                .map(|address| Self::Address(address.into()))
                .map_err(|_| invalid("its host is neither a name nor an IPv4 address"));
        }
        if text.len() <= 253 && text.split('.').all(is_label) {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err(invalid("its host is no lower-case domain name"))
        }
    }
}

fn is_label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(address) => std::net::SocketAddr::new(*address, self.port).fmt(f),
        }
    }
}

/// Which endpoints this node accepts on cards and dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndpointPolicy {
    /// None on loopback, link-local or metadata addresses.
    #[default]
    Public,
    /// Any: for a trial on one machine.
    AllowLocal,
}

/// Names of cloud metadata services.
const METADATA_NAMES: [&str; 2] = ["metadata.google.internal", "metadata.goog"];
/// Metadata services outside the link-local range: Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// The metadata service of AWS over IPv6.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);

impl EndpointPolicy {
    /// Refuses an endpoint whose host says by itself that it is local.
    ///
    /// # Errors
    /// [`Rejection::Invalid`].
    pub fn check(self, endpoint: &Endpoint) -> Result<(), Rejection> {
        let allowed = match (&endpoint.host, self) {
            (_, Self::AllowLocal) => true,
            (Host::Address(address), Self::Public) => self.allows_address(*address),
            (Host::Name(name), Self::Public) => {
                name != "localhost"
                    && !name.ends_with(".localhost")
                    && !METADATA_NAMES.contains(&name.as_str())
            }
        };
        if allowed {
            Ok(())
        } else {
            Err(invalid(format!(
                "{endpoint} is on a loopback, link-local or metadata address"
            )))
        }
    }

    /// Whether this node may dial `address`. Ask for every address that a name
    /// resolves to.
    #[must_use]
    pub fn allows_address(self, address: IpAddr) -> bool {
        match self {
            Self::AllowLocal => true,
            Self::Public => match address.to_canonical() {
                IpAddr::V4(v4) => is_public_v4(v4),
                IpAddr::V6(v6) => is_public_v6(v6),
            },
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !(address.is_loopback()
        || address.is_link_local()
        || address.octets().starts_with(&[0])
        || address.is_multicast()
        || address.is_broadcast()
        || METADATA_V4.contains(&address))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Ways to write an IPv4 address as an IPv6 one: NAT64 (RFC 6052), and the
    // compatible form (RFC 4291), in which ::1 and :: lie too.
    let embedded = match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    };
    !(address.is_loopback()
        || address.is_unicast_link_local()
        || address.is_unspecified()
        || address.is_multicast()
        || address == METADATA_V6)
        && embedded.is_none_or(is_public_v4)
}

fn invalid(why: impl Into<String>) -> Rejection {
    Rejection::invalid("endpoint", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_back_as_written() {
        for text in [
            "node.north.example:7443",
            "192.0.2.7:1",
            "[2001:db8::1]:65535",
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), text);
        }
        for bad in [
            "north.example",
            "north.example:0",
            "north.example:65536",
            "north.example:+1",
            "north.example:01",
            "North.example:1",
            "-a.example:1",
            "a..example:1",
            ":1",
            "127.1:1",
            "0x7f000001:1",
            "2130706433:1",
            "127.0.0.01:1",
            "2001:db8::1:1",
            "[127.0.0.1]:1",
            "https://a.example:1",
            "a.example/x:1",
            "a.0x7f:1",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn endpoints_on_loopback_link_local_or_metadata_are_refused_unless_allowed() {
        for local in [
            "localhost:1",
            "a.localhost:1",
            "127.0.0.1:1",
            "127.8.8.8:1",
            "0.0.0.0:1",
            "169.254.169.254:1",
            "169.254.1.1:1",
            "[::1]:1",
            "[::]:1",
            "[fe80::1]:1",
            "[::ffff:127.0.0.1]:1",
            "[::ffff:169.254.169.254]:1",
            "[fd00:ec2::254]:1",
            "[64:ff9b::7f00:1]:1",
            "[::7f00:1]:1",
            "100.100.100.200:1",
            "168.63.129.16:1",
            "metadata.google.internal:1",
        ] {
            let endpoint = Endpoint::parse(local).unwrap();
            assert!(EndpointPolicy::Public.check(&endpoint).is_err(), "{local}");
            assert!(
                EndpointPolicy::AllowLocal.check(&endpoint).is_ok(),
                "{local}"
            );
        }
        for public in [
            "north.example:1",
            "10.0.0.1:1",
            "[2001:db8::1]:1",
            "[fd12::1]:1",
        ] {
            let endpoint = Endpoint::parse(public).unwrap();
            assert!(EndpointPolicy::Public.check(&endpoint).is_ok(), "{public}");
        }
    }
}
