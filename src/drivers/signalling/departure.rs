//! The local address and port that a message to a given peer leaves from.
//!
//! Comes in: our listeners, and the peer. Goes out: the address that the peer sees, which Via,
//! Contact and the media address follow. This module sends nothing; it asks the kernel for its
//! routes.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use super::{
    settings::SipListener,
    udp::{local_address, route_to},
};
use aftertone_core::proto::sip::{locate::Available, path::Transport};

/// Our addresses, as outgoing calls need them; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Departures {
    listeners: Arc<[SipListener]>,
    /// The source port of outgoing streams for which there is no listener.
    client_port: u16,
}

impl Departures {
    pub(super) fn new(listeners: &[SipListener], client_port: u16) -> Self {
        Self { listeners: listeners.into(), client_port }
    }

    /// The transports that we can send by. A stream that we open needs no listener: the peer sends
    /// its answers and its own requests over it.
    pub(super) fn available(&self) -> Vec<Available> {
        Transport::ALL
            .into_iter()
            .map(|transport| {
                let leads = |is_ipv6| {
                    let mut all = self.listeners.iter();
                    all.any(|it| {
                        (it.transport == transport || is_client(transport)) && sends_to(it, is_ipv6)
                    })
                };
                Available { transport, by_ipv4: leads(false), by_ipv6: leads(true) }
            })
            .filter(|available| available.by_ipv4 || available.by_ipv6)
            .collect()
    }

    /// The local address that `peer` sees; `None` when no listener leads there.
    pub(super) fn local(&self, transport: Transport, peer: SocketAddr) -> Option<SocketAddr> {
        let source = route_to(peer).ok()?;
        let speak_it: Vec<SipListener> =
            self.listeners.iter().filter(|it| it.transport == transport).copied().collect();
        if let Some(listener) = fittest(&speak_it, source, peer.ip()) {
            return local_address(listener.address, peer);
        }
        if !is_client(transport) {
            return None;
        }
        let listener = fittest(&self.listeners, source, peer.ip())?;
        let local = local_address(listener.address, peer)?;
        // Not the listener's port, where another transport is spoken. After a call over TLS, a
        // Contact with that port would bring the peer's requests back unencrypted.
        Some(SocketAddr::new(local.ip(), self.client_port))
    }
}

/// Transports over which we open streams.
fn is_client(transport: Transport) -> bool {
    matches!(transport, Transport::Tcp | Transport::Tls)
}

fn sends_to(listener: &SipListener, is_ipv6: bool) -> bool {
    let ip = listener.address.ip();
    // A listener on all IPv6 addresses takes IPv4 as well.
    ip.is_ipv6() == is_ipv6 || ip == IpAddr::from(Ipv6Addr::UNSPECIFIED)
}

/// The listener at the source address that the kernel would use; else one on all addresses; else
/// the first. A loopback address reaches this host only.
fn fittest(listeners: &[SipListener], source: IpAddr, peer: IpAddr) -> Option<SipListener> {
    let misfit = |listener: &&SipListener| match listener.address.ip() {
        ip if ip == source => 0,
        ip if ip.is_unspecified() => 1,
        _ => 2,
    };
    listeners
        .iter()
        .filter(|listener| sends_to(listener, peer.is_ipv6()))
        .filter(|listener| peer.is_loopback() || !listener.address.ip().is_loopback())
        .min_by_key(misfit)
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(addresses: &[&str]) -> Vec<SipListener> {
        let listener = |address: &&str| SipListener {
            transport: Transport::Udp,
            address: address.parse().unwrap(),
        };
        addresses.iter().map(listener).collect()
    }

    fn chosen(addresses: &[&str], source: &str, peer: &str) -> Option<String> {
        let all = listeners(addresses);
        fittest(&all, source.parse().unwrap(), peer.parse().unwrap())
            .map(|listener| listener.address.to_string())
    }

    #[test]
    fn a_message_leaves_from_the_address_that_leads_there() {
        let both = ["127.0.0.1:5060", "10.0.0.1:5060", "192.0.2.1:5060", "[::1]:5060"];
        assert_eq!(chosen(&both, "10.0.0.1", "10.0.0.9").unwrap(), "10.0.0.1:5060");
        assert_eq!(chosen(&both, "192.0.2.1", "198.51.100.1").unwrap(), "192.0.2.1:5060");
        assert_eq!(chosen(&both, "127.0.0.1", "127.0.0.9").unwrap(), "127.0.0.1:5060");
        assert_eq!(chosen(&both, "::1", "::1").unwrap(), "[::1]:5060");
        // The kernel would use an address that we do not listen on.
        assert_eq!(chosen(&both, "10.9.9.9", "198.51.100.1").unwrap(), "10.0.0.1:5060");
        let any = ["10.0.0.1:5060", "0.0.0.0:5070"];
        assert_eq!(chosen(&any, "192.0.2.1", "198.51.100.1").unwrap(), "0.0.0.0:5070");
        assert_eq!(chosen(&["[::]:5060"], "10.0.0.1", "10.0.0.9").unwrap(), "[::]:5060");
    }

    #[test]
    fn the_loopback_address_leads_to_this_host_only() {
        assert_eq!(chosen(&["127.0.0.1:5060", "[::1]:5060"], "10.0.0.1", "10.0.0.9"), None);
        assert_eq!(chosen(&["[2001:db8::1]:5060"], "10.0.0.1", "10.0.0.9"), None);
    }

    #[test]
    fn streams_leave_without_a_listener_of_their_own() {
        let departures = Departures::new(&listeners(&["127.0.0.1:5060"]), 40_000);
        let peer = "127.0.0.1:5061".parse().unwrap();
        let local = |transport| departures.local(transport, peer);
        assert_eq!(local(Transport::Udp), Some("127.0.0.1:5060".parse().unwrap()));
        assert_eq!(local(Transport::Tls), Some("127.0.0.1:40000".parse().unwrap()));
        assert_eq!(local(Transport::Ws), None);
        let speaks: Vec<_> = departures.available().iter().map(|it| it.transport).collect();
        assert_eq!(speaks, [Transport::Udp, Transport::Tcp, Transport::Tls]);
        assert!(departures.available().iter().all(|it| it.by_ipv4 && !it.by_ipv6));
    }
}
