//! Which way a message came, and goes back (RFC 3261 §18, RFC 3581).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
    /// A stream within TLS.
    Tls,
    /// WebSocket (RFC 7118).
    Ws,
    /// WebSocket within TLS (RFC 7118).
    Wss,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Udp, Self::Tcp, Self::Tls, Self::Ws, Self::Wss];

    /// The name in a Via header field.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// The transport of this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| name.eq_ignore_ascii_case(transport.name()))
    }

    /// Nothing is lost on the way, so nothing is sent twice (RFC 3261 §17).
    pub fn is_reliable(self) -> bool {
        self != Self::Udp
    }

    /// Nobody on the way can read or change what is said.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// RFC 3261 §19.1.2, RFC 7118 §5.2: the port of a URI that names none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

/// One stream between us and a peer; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Both ends of one hop. Responses go back the way the request came, as RFC 3581 §4 asks for when
/// `rport` is there; we do so always, because peers behind a NAT hear us no other way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    /// The other side's address, as seen by our socket.
    pub peer: SocketAddr,
    /// Our own address, as the peer reaches it; never unspecified (0.0.0.0 or ::). Over a stream that
    /// we opened, the port is that of our listener, where the peer can come back to; without one, the
    /// port that the stream leaves from.
    pub local: SocketAddr,
    /// What lies between.
    pub transport: Transport,
    /// The stream, if there is one already. When it has gone, or was never there, another one to the
    /// same peer is taken, or opened; for a response, to the port that the request's Via names (RFC 3261
    /// §18.2.2).
    pub connection: Option<ConnectionId>,
    /// A script of some web page is there, in whoever's browser: where that is says nothing of who it is
    /// (RFC 6455 §10.2).
    pub is_foreign: bool,
}

impl Path {
    /// The way of datagrams between two addresses.
    pub fn udp(local: SocketAddr, peer: SocketAddr) -> Self {
        Self { peer, local, transport: Transport::Udp, connection: None, is_foreign: false }
    }

    /// Our host as the peer is told it: the `advertised` one, unless that is of another family than the
    /// one that was reached. RTP is bound to that, and who speaks IPv6 may have no IPv4.
    pub fn told_host(&self, advertised: Option<IpAddr>) -> IpAddr {
        let reached = self.local.ip().to_canonical();
        advertised.filter(|ip| ip.is_ipv4() == reached.is_ipv4()).unwrap_or(reached)
    }
}

/// Bytes to send, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Sent from `path.local` to `path.peer`.
    pub path: Path,
    /// One message.
    pub bytes: Bytes,
}

/// What counts as one source: an IPv4 address, or an IPv6 /64, which one host has to itself (RFC 7934).
pub fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// An address that is of no use outside its own network.
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_address_is_told_to_peers_of_its_family() {
        let told = |local: &str, advertised: &str| {
            let local = SocketAddr::new(local.parse().unwrap(), 5060);
            let path = Path::udp(local, local);
            path.told_host(Some(advertised.parse().unwrap())).to_string()
        };
        assert_eq!(told("10.0.0.1", "192.0.2.1"), "192.0.2.1");
        assert_eq!(told("::ffff:10.0.0.1", "192.0.2.1"), "192.0.2.1");
        assert_eq!(told("2001:db8::1", "192.0.2.1"), "2001:db8::1");
        assert_eq!(told("2001:db8::1", "2001:db8::2"), "2001:db8::2");
        assert_eq!(told("10.0.0.1", "2001:db8::2"), "10.0.0.1");
        assert_eq!(told("::ffff:10.0.0.1", "2001:db8::2"), "10.0.0.1");
    }
}
