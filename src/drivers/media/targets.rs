//! Addresses to which RTP must never go, whatever a peer's description says: those of many hosts,
//! of no host, and our own.
//!
//! Input: an address that a peer has named. Output: whether packets may go there. This module sends
//! nothing.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use super::ports::PortRange;

/// RFC 863; any port would do.
const DISCARD: u16 = 9;

/// Our own addresses and ports. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Targets {
    own: Arc<Own>,
}

#[derive(Debug)]
struct Own {
    rtp: PortRange,
    sip: Vec<u16>,
    advertised: Option<IpAddr>,
}

/// The ends between which a leg's packets go.
#[derive(Debug, Clone)]
pub struct Way {
    /// The address of our socket.
    pub local: SocketAddr,
    /// The host that the peer's SIP comes from, if that is known.
    pub host: Option<IpAddr>,
    /// Our own addresses and ports.
    pub targets: Targets,
}

impl Targets {
    /// Our RTP ports, our SIP ports, and the address that we advertise to peers if it is not one of
    /// this host's.
    pub fn new(rtp: PortRange, sip: Vec<u16>, advertised: Option<IpAddr>) -> Self {
        Self { own: Arc::new(Own { rtp, sip, advertised }) }
    }

    fn is_our_port(&self, port: u16) -> bool {
        self.own.rtp.contains(port) || self.own.sip.contains(&port)
    }

    fn is_our_host(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.own.advertised == Some(ip) || is_own(ip)
    }
}

impl Way {
    /// Whether RTP may be sent to `address`: a single host, with a port, and nothing of our own. A
    /// program on this host may name other sockets of this host; a peer elsewhere has no reason to.
    pub fn may_lead_to(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        let is_one_host = !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast;
        if !is_one_host || address.port() == 0 || address == self.local {
            return false;
        }
        let is_suspect = ip.is_loopback() || self.targets.is_our_port(address.port());
        !is_suspect || self.is_local_peer() || !self.targets.is_our_host(ip)
    }

    fn is_local_peer(&self) -> bool {
        let host = self.host.unwrap_or(self.local.ip()).to_canonical();
        host.is_loopback() || self.targets.is_our_host(host)
    }
}

/// Whether an address is this host's own: then the source address of a route to it is the same
/// address. Nothing is sent to find this out.
fn is_own(ip: IpAddr) -> bool {
    let any = match ip {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let source = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((ip, DISCARD))?;
        Ok(socket.local_addr()?.ip())
    };
    source().is_ok_and(|source| source == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: PortRange = PortRange::Between { first: 20_000, last: 20_999 };

    fn way(local: &str, host: &str) -> Way {
        Way {
            local: local.parse().unwrap(),
            host: Some(host.parse().unwrap()),
            targets: Targets::new(RANGE, vec![5060], Some("203.0.113.9".parse().unwrap())),
        }
    }

    #[test]
    fn nothing_goes_to_many_to_nobody_or_to_the_leg_itself() {
        let way = way("198.51.100.7:4000", "203.0.113.1");
        for address in [
            "224.0.0.1:4000",
            "255.255.255.255:4000",
            "0.0.0.0:4000",
            "198.51.100.8:0",
            "198.51.100.7:4000",
            "[ff02::1]:4000",
            "[::]:4000",
            "[::ffff:224.0.0.1]:4000",
        ] {
            assert!(!way.may_lead_to(address.parse().unwrap()), "{address}");
        }
        for address in ["198.51.100.8:4000", "198.51.100.8:5060", "198.51.100.8:20000"] {
            assert!(way.may_lead_to(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_peer_elsewhere_cannot_name_what_is_ours() {
        // 203.0.113.9 is our advertised address.
        for local in ["198.51.100.7:4000", "[::]:4000"] {
            let way = way(local, "203.0.113.1");
            for address in [
                "127.0.0.1:4002",
                "127.8.9.1:4002",
                "[::1]:4002",
                "[::ffff:127.0.0.1]:4002",
                "127.0.0.1:20500",
                "203.0.113.9:5060",
                "203.0.113.9:20500",
                "203.0.113.9:20999",
            ] {
                assert!(!way.may_lead_to(address.parse().unwrap()), "{address}");
            }
            assert!(way.may_lead_to("203.0.113.9:30000".parse().unwrap()), "another's port there");
        }
    }

    #[test]
    fn a_program_on_this_host_can_name_its_own_sockets() {
        for (local, host) in [("127.0.0.1:4000", "127.0.0.1"), ("[::]:4000", "::ffff:127.0.0.1")] {
            let way = way(local, host);
            assert!(way.may_lead_to("127.0.0.1:20500".parse().unwrap()));
            assert!(way.may_lead_to("127.0.0.1:4002".parse().unwrap()));
            assert!(!way.may_lead_to(way.local));
        }
    }
}
