//! The two sockets of a leg: non-blocking, connected once the peer is known.
//!
//! Input: packets to send and their destinations. Output: datagrams and their sources. A connected
//! socket costs less, and the kernel drops the packets of strangers. The transport does not know
//! RTP, nor which address is the peer's.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
};

use super::ports::{PortLease, PortPair};

/// The sockets of one leg.
#[derive(Debug)]
pub struct Transport {
    /// `None` only if it could not be opened again.
    rtp: Option<UdpSocket>,
    rtcp: UdpSocket,
    local: SocketAddr,
    connected: Option<SocketAddr>,
    /// Dropped last, after the sockets are closed.
    lease: PortLease,
}

/// One of the two ports of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegPort {
    /// RTP, and RTCP where both share the port.
    Rtp,
    /// RTCP: the next port.
    Rtcp,
}

impl Transport {
    /// Takes over a pair of sockets.
    pub fn new(pair: PortPair) -> Self {
        let PortPair { rtp, rtcp, local, lease } = pair;
        Self { rtp: Some(rtp), rtcp, local, connected: None, lease }
    }

    /// The address of the RTP socket.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next datagram on this port, or `None` when there is none. Does not wait.
    pub fn receive(&self, port: LegPort, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let socket = match port {
            LegPort::Rtp => self.rtp.as_ref()?,
            LegPort::Rtcp => &self.rtcp,
        };
        let received = match socket.recv_from(buffer) {
            // The error is the answer to one of our packets; a datagram of the peer may be queued
            // behind it.
            Err(error) if is_icmp(&error) => socket.recv_from(buffer),
            received => received,
        };
        let received = received.ok()?;
        self.lease.note_heard();
        Some(received)
    }

    /// Sends from the RTP port. Returns whether the kernel took the packet; ICMP errors of the peer
    /// and full buffers count as lost packets.
    pub fn send(&self, packet: &[u8], to: SocketAddr) -> bool {
        let Some(socket) = &self.rtp else { return false };
        let send = || match self.connected {
            Some(connected) if connected == to => socket.send(packet),
            // The lock of the source has just moved, or there is none yet.
            _ => socket.send_to(packet, to),
        };
        // The next call on the socket, of any kind, reports an earlier ICMP error, so the packet is
        // sent again.
        send().or_else(|error| if is_icmp(&error) { send() } else { Err(error) }).is_ok()
    }

    /// Sends from the RTCP port; see [`send`](Self::send).
    pub fn send_rtcp(&self, packet: &[u8], to: SocketAddr) -> bool {
        self.rtcp.send_to(packet, to).is_ok()
    }

    /// Whether the kernel drops the packets of other sources.
    pub fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    /// From now on the kernel drops what does not come from `peer`. Datagrams that are already
    /// queued may still come from others.
    ///
    /// # Errors
    /// There is no route to `peer`.
    pub fn connect(&mut self, peer: SocketAddr) -> io::Result<()> {
        if let Some(socket) = &self.rtp {
            socket.connect(peer)?;
            self.connected = Some(peer);
        }
        Ok(())
    }

    /// Receives from all sources again. The standard library cannot disconnect a UDP socket, so it
    /// is opened again on the same port, which the lease keeps for us.
    ///
    /// # Errors
    /// Another program has taken the port in between.
    pub fn disconnect(&mut self) -> io::Result<()> {
        if self.connected.take().is_some() {
            self.rtp = None;
            let socket = UdpSocket::bind(self.local)?;
            socket.set_nonblocking(true)?;
            self.rtp = Some(socket);
        }
        Ok(())
    }
}

/// `address` in the form that a socket bound to `local` uses: IPv4 inside IPv6 if it receives both.
pub fn as_seen_from(address: SocketAddr, local: SocketAddr) -> SocketAddr {
    match (address.ip(), local.ip()) {
        (IpAddr::V4(ip), IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => {
            SocketAddr::new(ip.to_ipv6_mapped().into(), address.port())
        }
        _ => address,
    }
}

fn is_icmp(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;
    use crate::drivers::media::ports::{PortPool, PortRange};

    fn transport() -> Transport {
        let pool = PortPool::new(PortRange::Ephemeral, Duration::ZERO);
        Transport::new(pool.bind(Ipv4Addr::LOCALHOST.into()).unwrap())
    }

    fn peer() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
    }

    #[test]
    fn a_connected_socket_hears_the_peer_only_and_a_disconnected_one_everybody() {
        let (mut transport, peer, stranger) = (transport(), peer(), peer());
        let mut buffer = [0; 16];
        transport.connect(peer.local_addr().unwrap()).unwrap();
        stranger.send_to(b"stranger", transport.local).unwrap();
        peer.send_to(b"peer", transport.local).unwrap();
        assert_eq!(
            transport.receive(LegPort::Rtp, &mut buffer),
            Some((4, peer.local_addr().unwrap()))
        );
        assert_eq!(transport.receive(LegPort::Rtp, &mut buffer), None);
        transport.disconnect().unwrap();
        stranger.send_to(b"stranger", transport.local).unwrap();
        assert_eq!(
            transport.receive(LegPort::Rtp, &mut buffer),
            Some((8, stranger.local_addr().unwrap()))
        );
    }

    #[test]
    fn a_peer_that_has_closed_its_port_does_no_harm() {
        let (mut transport, gone) = (transport(), peer());
        let address = gone.local_addr().unwrap();
        transport.connect(address).unwrap();
        drop(gone);
        for _ in 0..3 {
            assert!(transport.send(b"packet", address));
            assert_eq!(transport.receive(LegPort::Rtp, &mut [0; 16]), None);
        }
        let again = UdpSocket::bind(address).unwrap();
        again.send_to(b"back", transport.local).unwrap();
        assert_eq!(transport.receive(LegPort::Rtp, &mut [0; 16]), Some((4, address)));
    }
}
