//! SIP over UDP: one reader task per socket, and sending.
//!
//! Comes in: datagrams. Goes out: each with its [`Path`], where our own address is the one that the
//! peer has sent to, also when the socket listens on all addresses. The reader parses no message.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket},
    sync::Arc,
};

use bytes::Bytes;
use nix::libc::EMSGSIZE;
use socket2::{Domain, Socket, Type};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::{
    datagram::{Datagrams, Received, is_unreachable},
    rates::Rates,
    stream::Inbound,
};
use aftertone_core::proto::sip::path::Path;

/// The longest datagram that UDP can carry.
const MAX_DATAGRAM_BYTES: usize = 65_535;
/// Failures in a row after which a reader reports that the socket is lost.
const MAX_FAILURES: u32 = 1_000;

/// Space for some thousand requests.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A bound socket.
#[derive(Debug, Clone)]
pub(super) struct UdpListener {
    socket: Arc<Datagrams>,
}

impl UdpListener {
    /// Binds `address`; port 0 takes a free one. With `only_v6`, IPv4 is left to another listener.
    pub(super) fn bind(address: SocketAddr, only_v6: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        // A burst of calls must not be lost while the reader is late. The system may grant less;
        // that is no reason not to start.
        if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
            debug!(%error, "the receive buffer stays as it is");
        }
        if only_v6 {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        Ok(Self { socket: Arc::new(Datagrams::new(socket)?) })
    }

    /// The address that was bound.
    pub(super) fn bound(&self) -> SocketAddr {
        self.socket.bound()
    }

    /// How well this socket fits for sending from `local`; `None` when it does not fit.
    pub(super) fn fitness(&self, local: SocketAddr) -> Option<u8> {
        let bound = self.bound();
        if bound.port() != local.port() {
            return None;
        }
        match (bound.ip(), local.ip()) {
            (bound, local) if bound == local => Some(2),
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(_)) => Some(1),
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), _) => Some(0),
            _ => None,
        }
    }

    /// Sends one message from `local`, an address of this socket. A message that finds the send
    /// buffer full is lost, as any datagram may be; the SIP timers send it again.
    ///
    /// # Errors
    /// When no message can leave by this path, now or later (RFC 3261 §18.4).
    pub(super) async fn send(
        &self,
        bytes: &[u8],
        local: SocketAddr,
        peer: SocketAddr,
    ) -> io::Result<()> {
        match self.socket.send(bytes, local.ip(), peer).await {
            Err(error) if is_no_way(&error) => Err(error),
            Err(error) => {
                debug!(%peer, %error, "SIP datagram could not be sent");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Reads until `cancel`. The channel and the socket's buffer absorb bursts; when both are full,
    /// the kernel drops datagrams, and the peers send them again.
    pub(super) async fn read(
        self,
        rates: Arc<Rates>,
        inbound: mpsc::Sender<Inbound>,
        cancel: CancellationToken,
    ) {
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        let mut failures = 0;
        loop {
            let received = tokio::select! {
                () = cancel.cancelled() => return,
                received = self.socket.receive(&mut buffer) => received,
            };
            let (length, peer, at) = match received {
                Ok(Received::Datagram { length, peer, at }) => (length, peer, at),
                Ok(Received::Refused(peer)) => {
                    debug!(%peer, "no process takes SIP datagrams there");
                    let lost = Inbound::Undelivered(Path::udp(self.bound(), peer));
                    if inbound.send(lost).await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(error) if failures < MAX_FAILURES => {
                    failures += 1;
                    debug!(%error, "SIP socket could not be read");
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(error) => {
                    error!(address = %self.bound(), %error, "SIP socket is lost");
                    return;
                }
            };
            failures = 0;
            if rates.take(peer.ip()).is_err() {
                continue;
            }
            let Some(bytes) = buffer.get(..length) else { continue };
            let local = match at {
                Some(ip) => Some(SocketAddr::new(ip, self.bound().port())),
                None => local_address(self.bound(), peer),
            };
            let Some(local) = local else {
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

/// No message can leave by this path: there is no route, or the message is too long for it.
fn is_no_way(error: &io::Error) -> bool {
    is_unreachable(error)
        || matches!(
            error.kind(),
            io::ErrorKind::NetworkDown
                | io::ErrorKind::AddrNotAvailable
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::Unsupported
        )
        || error.raw_os_error() == Some(EMSGSIZE)
}

/// The address at which `peer` reaches a socket that is bound to `bound`.
pub(super) fn local_address(bound: SocketAddr, peer: SocketAddr) -> Option<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return Some(bound);
    }
    Some(SocketAddr::new(route_to(peer).ok()?, bound.port()))
}

/// Asks the kernel which source address it would use. Connecting a UDP socket sends nothing.
pub(super) fn route_to(peer: SocketAddr) -> io::Result<IpAddr> {
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
        let peer = "127.0.0.1:40000".parse().unwrap();
        let local = local_address("0.0.0.0:5060".parse().unwrap(), peer);
        assert_eq!(local, Some("127.0.0.1:5060".parse().unwrap()));
        let bound = "192.0.2.7:5060".parse().unwrap();
        assert_eq!(
            local_address(bound, peer),
            Some(bound),
            "a socket on one address tells that one"
        );
    }
}
