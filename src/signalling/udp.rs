//! SIP over UDP: one reader task per socket, and the way back out.
//!
//! Comes in: datagrams. Goes out: each with its [`Path`], where our own address is the one that the
//! peer reaches, also when the socket listens on all addresses. It reads no message, and answers STUN
//! keep-alives.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket},
    sync::Arc,
};

use bytes::Bytes;
use socket2::{Domain, Socket, Type};
use tokio::{net::UdpSocket, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::{accept::canonical, rates::Rates, stream::Inbound};
use crate::proto::sip::{path::Path, stun};

/// The longest datagram that UDP can carry.
const MAX_DATAGRAM_BYTES: usize = 65_535;
/// How many peers' routes are remembered before they are looked up anew.
const MAX_ROUTES: usize = 4_096;
/// How many failures in a row a reader bears before it says that the socket is lost.
const MAX_FAILURES: u32 = 1_000;

/// Room for some thousand requests.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A bound socket.
#[derive(Debug, Clone)]
pub(super) struct UdpListener {
    socket: Arc<UdpSocket>,
    bound: SocketAddr,
}

impl UdpListener {
    /// Binds `address`; port 0 takes a free one. With `only_v6` IPv4 is left to another listener.
    pub fn bind(address: SocketAddr, only_v6: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        // A burst of calls must not be lost while the reader is late. The system gives what it
        // allows; less is no reason not to start.
        if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
            debug!(%error, "the receive buffer stays as it is");
        }
        if only_v6 {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let bound = socket.local_addr()?;
        Ok(Self { socket: Arc::new(socket), bound })
    }

    /// The address that was bound.
    pub fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// How well this socket suits for sending from `local`; `None` when it does not.
    pub fn fitness(&self, local: SocketAddr) -> Option<u8> {
        if self.bound.port() != local.port() {
            return None;
        }
        match (self.bound.ip(), local.ip()) {
            (bound, local) if bound == local => Some(2),
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(_)) => Some(1),
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), _) => Some(0),
            _ => None,
        }
    }

    /// Sends one message. What does not go out is lost, as any datagram may be: the timers see to it.
    pub async fn send(&self, bytes: &[u8], peer: SocketAddr) {
        let to = match (self.bound, peer) {
            // A dual-stack socket takes IPv4 peers in their mapped form only.
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            _ => peer,
        };
        if let Err(error) = self.socket.send_to(bytes, to).await {
            debug!(%peer, %error, "SIP datagram could not be sent");
        }
    }

    /// Reads until `cancel`. The channel and the socket's buffer behind it take up bursts; when both
    /// are full the kernel drops, and the peers send again.
    pub async fn read(
        self,
        rates: Arc<Rates>,
        inbound: mpsc::Sender<Inbound>,
        cancel: CancellationToken,
    ) {
        let mut routes = Routes::new(self.bound);
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        let mut failures = 0;
        loop {
            let received = tokio::select! {
                () = cancel.cancelled() => return,
                received = self.socket.recv_from(&mut buffer) => received,
            };
            let (length, from) = match received {
                Ok(received) => received,
                Err(error) if failures < MAX_FAILURES => {
                    failures += 1;
                    debug!(%error, "SIP socket could not be read");
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(error) => {
                    error!(address = %self.bound, %error, "SIP socket is lost");
                    return;
                }
            };
            failures = 0;
            let peer = canonical(from);
            if rates.take(peer.ip()).is_err() {
                continue;
            }
            let Some(bytes) = buffer.get(..length) else { continue };
            if let Some(answer) = stun::answer(bytes, peer) {
                // One that finds no room is lost, as any datagram may be.
                let _ = self.socket.try_send_to(&answer, from);
                continue;
            }
            let Some(local) = routes.local_address(peer) else {
                debug!(%peer, "no way back to this peer; its datagram is dropped");
                continue;
            };
            let bytes = Bytes::copy_from_slice(bytes);
            let message = Inbound::Message { path: Path::udp(local, peer), bytes };
            if inbound.send(message).await.is_err() {
                return;
            }
        }
    }
}

/// Finds which of our addresses a peer reaches.
#[derive(Debug)]
struct Routes {
    bound: SocketAddr,
    known: BTreeMap<IpAddr, IpAddr>,
}

impl Routes {
    fn new(bound: SocketAddr) -> Self {
        Self { bound, known: BTreeMap::new() }
    }

    fn local_address(&mut self, peer: SocketAddr) -> Option<SocketAddr> {
        if !self.bound.ip().is_unspecified() {
            return Some(self.bound);
        }
        if let Some(ip) = self.known.get(&peer.ip()) {
            return Some(SocketAddr::new(*ip, self.bound.port()));
        }
        let ip = route_to(peer).ok()?;
        if self.known.len() >= MAX_ROUTES {
            self.known.clear();
        }
        self.known.insert(peer.ip(), ip);
        Some(SocketAddr::new(ip, self.bound.port()))
    }
}

/// The address that `peer` reaches a socket at that is bound to `bound`.
pub(super) fn local_address(bound: SocketAddr, peer: SocketAddr) -> Option<SocketAddr> {
    Routes::new(bound).local_address(peer)
}

/// Asks the kernel which address it would send from. Connecting a UDP socket sends nothing.
fn route_to(peer: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let probe = StdUdpSocket::bind((any, 0))?;
    probe.connect(peer)?;
    Ok(probe.local_addr()?.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_on_all_addresses_tells_the_one_that_the_peer_reaches() {
        let mut routes = Routes::new("0.0.0.0:5060".parse().unwrap());
        let local = routes.local_address("127.0.0.1:40000".parse().unwrap());
        assert_eq!(local, Some("127.0.0.1:5060".parse().unwrap()));
    }

    #[test]
    fn a_socket_on_one_address_tells_that_one() {
        let bound = "192.0.2.7:5060".parse().unwrap();
        let mut routes = Routes::new(bound);
        assert_eq!(routes.local_address("127.0.0.1:40000".parse().unwrap()), Some(bound));
    }

    #[test]
    fn remembered_routes_are_bounded() {
        let mut routes = Routes::new("0.0.0.0:5060".parse().unwrap());
        for index in 0..=MAX_ROUTES {
            let [a, b] = u16::try_from(index).unwrap().to_be_bytes();
            routes.known.insert(IpAddr::from([10, 0, a, b]), IpAddr::from([10, 9, 9, 9]));
        }
        routes.local_address("127.0.0.1:40000".parse().unwrap());
        assert_eq!(routes.known.len(), 1);
    }
}
