//! The path of a message: its transport, both addresses and its stream (RFC 3261 §18, RFC 3581).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::uri::{Uri, Via};

/// A transport protocol.
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

    /// Whether nothing is lost on the way, so that messages are never sent twice (RFC 3261 §17).
    pub fn is_reliable(self) -> bool {
        self != Self::Udp
    }

    /// Whether the transport is encrypted, so that no third party can read or change messages.
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

/// One stream between us and a peer; an id is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Both ends of one hop. Responses take the path of the request, as RFC 3581 §4 says when `rport`
/// is there, and as peers behind a NAT need it. A peer may send datagrams from another port than it
/// listens on. If it is at the host that its Via names, it is answered at the port that its Via
/// names (RFC 3261 §18.2.2): see [`Path::answering`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    /// The address of the other side: the source address that our socket has seen, unless `sender`
    /// is given.
    pub peer: SocketAddr,
    /// The source address of the message, if the port of `peer` is one that the other side only
    /// names. The other side is at the host that it names, and has not asked for answers at its
    /// source port. On the path of a stream that we open to the port which a stranger names: the
    /// remote address of the stranger's own stream.
    pub sender: Option<SocketAddr>,
    /// Our own address, as the peer reaches it; never unspecified (0.0.0.0 or ::). Over a stream
    /// that we opened, the port is that of our listener, to which the peer can connect; without a
    /// listener, it is the local port of the stream.
    pub local: SocketAddr,
    /// The transport between them.
    pub transport: Transport,
    /// The stream, if one is open. When it is lost, or none is open yet, another stream to the same
    /// peer is used or opened; for a response, a stream to the port that the request's Via names
    /// (RFC 3261 §18.2.2).
    pub connection: Option<ConnectionId>,
    /// The message comes from the script of a foreign web page in some user's browser, so its
    /// address says nothing about who sent it (RFC 6455 §10.2).
    pub is_foreign: bool,
}

impl Path {
    /// The path of a dialog whose INVITE took this path and was answered over `answered`. If both
    /// use the same stream transport, it is `answered`; else it is the path of the INVITE.
    pub fn way_of_answer(self, answered: Self) -> Self {
        if self.transport == answered.transport && self.transport.is_reliable() {
            answered
        } else {
            self
        }
    }

    /// A UDP path between two addresses.
    pub fn udp(local: SocketAddr, peer: SocketAddr) -> Self {
        let transport = Transport::Udp;
        Self { peer, sender: None, local, transport, connection: None, is_foreign: false }
    }

    /// The path of the response to a request that took this path with `via` on top. Over UDP,
    /// without `rport`, it leads to the port of sent-by (RFC 3261 §18.2.2), if sent-by holds the
    /// source address of the request. A peer with any other address in sent-by is behind a NAT,
    /// which lets datagrams in only to the port that it has sent from. A peer with a host name
    /// there may be behind a NAT.
    pub fn answering(self, via: &Via) -> Self {
        let is_here = via.ip_addr().is_some_and(|ip| is_same_host(ip, self.peer.ip()));
        let port = via.port.unwrap_or(self.transport.default_port());
        if self.transport != Transport::Udp || via.rport.is_some() || !is_here || port == 0 {
            return self;
        }
        Self { peer: at_port(self.peer, port), sender: Some(self.peer), ..self }
    }

    /// The source address of the message.
    pub fn source(&self) -> SocketAddr {
        self.sender.unwrap_or(self.peer)
    }

    /// Whether this path leads to the peer that was reached at `known`: to the same host, and also
    /// to the same port if the other side only names its port. Many hosts may share one address.
    pub fn leads_to(&self, known: SocketAddr) -> bool {
        let is_heard_there = self.peer == self.source() || self.peer.port() == known.port();
        self.peer.ip() == known.ip() && is_heard_there
    }

    /// The UDP path to the port that a Contact names, for a peer that names the port where it
    /// listens. `None` when the peer names no such port, or the Contact names another host or
    /// transport.
    pub fn to_named_port(&self, contact: &Uri) -> Option<Self> {
        self.sender?;
        let is_here = contact.ip_addr().is_some_and(|ip| is_same_host(ip, self.peer.ip()));
        let is_udp = match contact.param("transport") {
            None => !contact.is_sips(),
            Some(name) => Transport::from_name(name) == Some(Transport::Udp),
        };
        let port = contact.port().unwrap_or(Transport::Udp.default_port());
        let is_named = is_here && is_udp && port != 0 && self.transport == Transport::Udp;
        is_named.then(|| Self { peer: at_port(self.peer, port), ..*self })
    }

    /// The paths to the address that a Contact or Route names, the best one first, for use once the
    /// stream of this path is lost (RFC 3261 §18.1.1). A host name counts as the host of this path:
    /// names are not resolved.
    ///
    /// The paths take new streams, and stay on TLS if this one does. Datagrams go to the host of
    /// this path alone: a UDP phone sends its long requests over TCP. A URI without `transport` may
    /// mean both, so TCP comes first: it tells when the peer does not listen there. There is no path
    /// when the address is that of this path, or when we cannot reach it: a browser accepts no
    /// connections (RFC 7118 §5), and a peer behind a NAT names an address that cannot be reached
    /// from here.
    pub fn to_listeners(self, uri: &Uri) -> Vec<Self> {
        let named = uri.param("transport").map(Transport::from_name);
        let transports = match (named, self.transport) {
            (None, _) if uri.is_sips() => vec![Transport::Tls],
            (None, Transport::Tcp) => vec![Transport::Tcp, Transport::Udp],
            (None, transport) => vec![transport],
            // RFC 3261 §26.2.2: SIPS means TLS.
            (Some(Some(Transport::Tcp)), _) if uri.is_sips() => vec![Transport::Tls],
            (Some(Some(Transport::Udp)), _) if uri.is_sips() => Vec::new(),
            (Some(transport), _) => transport.into_iter().collect(),
        };
        transports.into_iter().filter_map(|transport| self.to_listener(uri, transport)).collect()
    }

    fn to_listener(self, uri: &Uri, transport: Transport) -> Option<Self> {
        let is_opened = |transport| matches!(transport, Transport::Tcp | Transport::Tls);
        let is_as_secure = transport.is_secure() || !self.transport.is_secure();
        let here = self.peer.ip();
        let ip = uri.ip_addr().or_else(|| uri.host().map(|_| here))?;
        let port = uri.port().unwrap_or(transport.default_port());
        let leads_nowhere = ip.is_unspecified()
            || ip.is_multicast()
            || ip.is_ipv4() != here.is_ipv4()
            || (ip.is_loopback() && !here.is_loopback())
            || (is_private(ip) && !is_private(here));
        let is_here = is_same_host(ip, here);
        let is_reached = match transport {
            Transport::Udp => is_here,
            _ => is_opened(transport) && (is_here || !leads_nowhere),
        };
        if !is_opened(self.transport) || !is_as_secure || !is_reached {
            return None;
        }
        let peer = if is_here { at_port(self.peer, port) } else { SocketAddr::new(ip, port) };
        let is_elsewhere = port != 0 && (peer, transport) != (self.peer, self.transport);
        let named = Self { peer, sender: None, transport, connection: None, ..self };
        is_elsewhere.then_some(named)
    }

    /// Our host as we tell it to the peer: the `advertised` address, unless it is of another family
    /// than the address that the peer reached. RTP is bound to the latter, and a peer that uses
    /// IPv6 may have no IPv4.
    pub fn told_host(&self, advertised: Option<IpAddr>) -> IpAddr {
        let reached = self.local.ip().to_canonical();
        advertised.filter(|ip| ip.is_ipv4() == reached.is_ipv4()).unwrap_or(reached)
    }
}

/// Whether both addresses are the same. An IPv4 address equals the IPv6 address that it is mapped
/// to.
fn is_same_host(one: IpAddr, other: IpAddr) -> bool {
    one.to_canonical() == other.to_canonical()
}

/// The same host at another port; a link-local address keeps its interface.
fn at_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// The unit in which sources are counted: an IPv4 address, or an IPv6 /64, which belongs to one
/// host (RFC 7934).
pub fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Whether the address is of no use outside its own network.
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

    fn path_from(peer: &str) -> Path {
        let peer: SocketAddr = peer.parse().unwrap();
        let local = if peer.is_ipv4() { "192.0.2.1:5060" } else { "[2001:db8::1]:5060" };
        Path::udp(local.parse().unwrap(), peer)
    }

    #[test]
    fn who_names_its_port_at_its_own_address_is_answered_there() {
        for (from, via, to) in [
            ("192.0.2.10:49152", "192.0.2.10:5060", "192.0.2.10:5060"),
            ("192.0.2.10:49152", "192.0.2.10", "192.0.2.10:5060"),
            ("192.0.2.10:49152", "192.0.2.10:5070;received=198.51.100.1", "192.0.2.10:5070"),
            ("[2001:db8::9]:49152", "[2001:DB8::9]:5062", "[2001:db8::9]:5062"),
            ("[2001:db8::9]:49152", "[2001:db8:0::9]", "[2001:db8::9]:5060"),
            ("192.0.2.10:49152", "[::ffff:192.0.2.10]:5062", "192.0.2.10:5062"),
            // The peer asks for the answer at its source port.
            ("192.0.2.10:49152", "192.0.2.10:5060;rport", "192.0.2.10:49152"),
            ("192.0.2.10:49152", "192.0.2.10:5060;rport=7", "192.0.2.10:49152"),
            // The peer is behind a NAT, or may be.
            ("192.0.2.10:49152", "10.0.0.10:5060", "192.0.2.10:49152"),
            ("192.0.2.10:49152", "10.0.0.10:5060;received=192.0.2.10", "192.0.2.10:49152"),
            ("192.0.2.10:49152", "phone.example:5060", "192.0.2.10:49152"),
            ("[2001:db8::9]:49152", "[2001:db8::8]:5060", "[2001:db8::9]:49152"),
            ("192.0.2.10:49152", "192.0.2.10:0", "192.0.2.10:49152"),
        ] {
            let way = path_from(from);
            let back = way.answering(&format!("SIP/2.0/UDP {via};branch=1").parse().unwrap());
            assert_eq!(back.peer, to.parse().unwrap(), "{from} {via}");
            assert_eq!(back.source(), way.peer);
        }
        let stream = Path { transport: Transport::Tcp, ..path_from("192.0.2.10:49152") };
        let via = "SIP/2.0/TCP 192.0.2.10:5060;branch=1".parse().unwrap();
        assert_eq!(stream.answering(&via), stream);
    }

    #[test]
    fn a_port_of_the_same_host_is_the_same_place_only_if_something_came_from_it() {
        let via = "SIP/2.0/UDP 192.0.2.10:5060".parse().unwrap();
        let named = path_from("192.0.2.10:49152").answering(&via);
        let at = |text: &str| text.parse().unwrap();
        assert!(named.leads_to(at("192.0.2.10:5060")) && !named.leads_to(at("192.0.2.10:49152")));
        let heard = path_from("192.0.2.10:49152");
        assert!(heard.leads_to(at("192.0.2.10:5060")) && !heard.leads_to(at("192.0.2.11:49152")));
    }

    #[test]
    fn datagrams_go_to_a_named_port_of_the_same_host_alone() {
        let via = "SIP/2.0/UDP 192.0.2.10:5060".parse().unwrap();
        let named = path_from("192.0.2.10:49152").answering(&via);
        let to = |path: Path, contact: &str| {
            path.to_named_port(&contact.parse().unwrap()).map(|path| path.peer.to_string())
        };
        let expected = Some("192.0.2.10:5070".to_owned());
        for contact in ["sip:a@192.0.2.10:5070", "sip:a@192.0.2.10:5070;transport=udp"] {
            assert_eq!(to(named, contact), expected, "{contact}");
            assert_eq!(
                to(path_from("192.0.2.10:49152"), contact),
                None,
                "it asks for its own port"
            );
        }
        assert_eq!(to(named, "sip:a@192.0.2.10").unwrap(), "192.0.2.10:5060");
        for elsewhere in [
            "sip:a@192.0.2.11:5070",
            "sip:a@phone.example:5070",
            "sip:a@192.0.2.10:5070;transport=tcp",
            "sips:a@192.0.2.10:5070",
            "sip:a@192.0.2.10:0",
            "tel:+4930",
        ] {
            assert_eq!(to(named, elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn a_stream_that_is_gone_is_followed_by_one_to_the_port_that_is_named() {
        let over = |transport, contact: &str| {
            let connection = Some(ConnectionId(1));
            let path = Path { transport, connection, ..path_from("192.0.2.10:40000") };
            let named = path.to_listeners(&contact.parse().unwrap()).into_iter().map(|to| {
                assert_eq!((to.connection, to.local), (None, path.local));
                format!("{} {}", to.transport.name(), to.peer)
            });
            named.collect::<Vec<_>>().join(", ")
        };
        let (tcp, tls) = (Transport::Tcp, Transport::Tls);
        for (transport, contact, expected) in [
            (tcp, "sip:a@192.0.2.10:5062;transport=tcp", "TCP 192.0.2.10:5062"),
            (tcp, "sip:a@192.0.2.10", "TCP 192.0.2.10:5060, UDP 192.0.2.10:5060"),
            (tcp, "sip:a@192.0.2.10:5062;transport=udp", "UDP 192.0.2.10:5062"),
            (tcp, "sip:a@192.0.2.10:40000", "UDP 192.0.2.10:40000"),
            (tcp, "sip:a@192.0.2.77:5062", "TCP 192.0.2.77:5062"),
            (tcp, "sip:a@phone.example:5062;transport=tcp", "TCP 192.0.2.10:5062"),
            (tcp, "sip:a@phone.example;transport=udp", "UDP 192.0.2.10:5060"),
            (tcp, "sips:a@phone.example;transport=tcp", "TLS 192.0.2.10:5061"),
            (tls, "sip:a@phone.example:5071", "TLS 192.0.2.10:5071"),
            (tcp, "sips:a@192.0.2.10", "TLS 192.0.2.10:5061"),
            (tls, "sip:a@192.0.2.10;transport=TLS", "TLS 192.0.2.10:5061"),
            (tls, "sip:a@192.0.2.10:5071", "TLS 192.0.2.10:5071"),
            (tls, "sips:a@192.0.2.10:5071;transport=tcp", "TLS 192.0.2.10:5071"),
            (tcp, "sip:a@192.0.2.77:5062;transport=tcp", "TCP 192.0.2.77:5062"),
        ] {
            assert_eq!(over(transport, contact), expected, "{contact}");
        }
        for (transport, contact) in [
            (tcp, "sip:a@192.0.2.10:40000;transport=tcp"),
            (tcp, "sip:a@192.0.2.77:5062;transport=udp"),
            (tcp, "sips:a@192.0.2.10:5062;transport=udp"),
            (tls, "sip:a@192.0.2.10:5062;transport=udp"),
            (tcp, "sip:a@192.0.2.10:0"),
            (tcp, "sip:a@192.0.2.10:80;transport=ws"),
            (tcp, "sip:a@10.0.0.10:5062;transport=tcp"),
            (tcp, "sip:a@127.0.0.1:5062;transport=tcp"),
            (tcp, "sip:a@0.0.0.0:5062;transport=tcp"),
            (tcp, "tel:+4930"),
            (tcp, "sip:a@phone.example:40000;transport=tcp"),
            (Transport::Ws, "sip:a@phone.example:5062"),
            (tls, "sip:a@192.0.2.10:5062;transport=tcp"),
            (Transport::Ws, "sip:a@192.0.2.10:5062;transport=tcp"),
            (Transport::Wss, "sips:a@192.0.2.10:5062"),
            (Transport::Udp, "sip:a@192.0.2.10:5062;transport=tcp"),
        ] {
            assert_eq!(over(transport, contact), "", "{transport:?} {contact}");
        }
    }
}
