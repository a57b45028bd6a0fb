//! A UDP socket that reports the local address of each datagram, sends from a given local address,
//! and learns which of its datagrams could not be delivered (IP_PKTINFO and IP_RECVERR of ip(7)).
//!
//! A socket on all addresses has no address of its own. The kernel would answer from the address
//! that its routes prefer, and a peer that has sent to another address of ours would not recognise
//! the answer.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, RawFd},
};

use nix::{
    errno::Errno,
    libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
        setsockopt, sockopt,
    },
};
use socket2::Socket;
use tokio::{io::Interest, net::UdpSocket};

use super::accept::canonical;

/// Space for the control message of a datagram: an address, or an error with the address of the
/// host that reports it.
const CONTROL_BYTES: usize = 256;
/// A send fails once for each earlier datagram that could not be delivered.
const MAX_FORMER_ERRORS: usize = 4;

/// A bound socket.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    bound: SocketAddr,
}

/// What a socket receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// A datagram.
    Datagram {
        length: usize,
        /// Its source address.
        peer: SocketAddr,
        /// The local address that it was sent to, if the kernel reports one that is not multicast.
        at: Option<IpAddr>,
    },
    /// An earlier datagram to this peer could not be delivered (RFC 3261 §18.4): its host, its
    /// network or its port is not reachable.
    Refused(SocketAddr),
}

impl Datagrams {
    /// Takes a socket that is bound and non-blocking.
    pub(super) fn new(socket: Socket) -> io::Result<Self> {
        let bound = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        match bound {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        #[cfg(target_os = "linux")]
        {
            // A dual-stack socket gets the errors of both address families.
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            if bound.is_ipv6() {
                setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
            }
        }
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, bound })
    }

    /// The bound address.
    pub(super) fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Waits for the next datagram, or for the report that one of ours was not delivered.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let fd = self.socket.as_raw_fd();
        let interest = Interest::READABLE | Interest::ERROR;
        self.socket
            .async_io(interest, || match receive_now(fd, buffer) {
                Ok(received) => Ok(received),
                Err(error) => {
                    refused_now(fd).map_or(Err(error), |peer| Ok(Received::Refused(peer)))
                }
            })
            .await
    }

    /// Sends a datagram. A socket on all addresses uses `from` as its source address, another one
    /// the address it is bound to.
    pub(super) async fn send(
        &self,
        bytes: &[u8],
        from: IpAddr,
        peer: SocketAddr,
    ) -> io::Result<()> {
        let mut former = 0;
        loop {
            let sent =
                self.socket.async_io(Interest::WRITABLE, || self.send_now(bytes, from, peer)).await;
            match sent {
                // The error may be about an earlier datagram, and this one did not go out.
                Err(error) if is_unreachable(&error) && former < MAX_FORMER_ERRORS => former += 1,
                sent => return sent,
            }
        }
    }

    fn send_now(&self, bytes: &[u8], from: IpAddr, peer: SocketAddr) -> io::Result<()> {
        let to = SockaddrStorage::from(match (self.bound, peer) {
            // A dual-stack socket takes IPv4 peers in their mapped form only.
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            _ => peer,
        });
        let (v4, v6);
        let source = match (self.bound.ip(), from) {
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(from)) => {
                let ipi_spec_dst = in_addr { s_addr: u32::from_ne_bytes(from.octets()) };
                v4 = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: in_addr { s_addr: 0 } };
                Some(ControlMessage::Ipv4PacketInfo(&v4))
            }
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), from) => {
                let from = match from {
                    IpAddr::V4(from) => from.to_ipv6_mapped(),
                    IpAddr::V6(from) => from,
                };
                let ipi6_addr = in6_addr { s6_addr: from.octets() };
                v6 = in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
                Some(ControlMessage::Ipv6PacketInfo(&v6))
            }
            _ => None,
        };
        let parts = [IoSlice::new(bytes)];
        let fd = self.socket.as_raw_fd();
        sendmsg(fd, &parts, source.as_slice(), MsgFlags::MSG_DONTWAIT, Some(&to))?;
        Ok(())
    }
}

/// The peer's host, network or port is not reachable.
pub(super) fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

fn receive_now(fd: RawFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = [0; CONTROL_BYTES];
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags)?;
    let told = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
        _ => None,
    });
    let peer = received.address.and_then(address_of).ok_or(Errno::EAFNOSUPPORT)?;
    let at = told.map(|ip| ip.to_canonical()).filter(|ip| !ip.is_multicast());
    Ok(Received::Datagram { length: received.bytes, peer, at })
}

/// The peer of the next datagram of ours that could not be delivered.
#[cfg(target_os = "linux")]
fn refused_now(fd: RawFd) -> Option<SocketAddr> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_ERRQUEUE;
    loop {
        let mut control = [0; CONTROL_BYTES];
        let told = recvmsg::<SockaddrStorage>(fd, &mut [], Some(&mut control), flags).ok()?;
        let errno = told.cmsgs().ok()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4RecvErr(error, _)
            | ControlMessageOwned::Ipv6RecvErr(error, _) => i32::try_from(error.ee_errno).ok(),
            _ => None,
        });
        // Other errors are skipped, such as "too long": the kernel then fragments the next
        // datagram.
        if errno.is_some_and(|errno| is_unreachable(&io::Error::from_raw_os_error(errno))) {
            return told.address.and_then(address_of);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn refused_now(_: RawFd) -> Option<SocketAddr> {
    None
}

fn address_of(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from(*v4));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from(*v6))).map(canonical)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::{Domain, Type};
    use tokio::time::timeout;

    use super::*;

    fn bind(address: &str) -> Datagrams {
        let address: SocketAddr = address.parse().unwrap();
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.bind(&address.into()).unwrap();
        Datagrams::new(socket).unwrap()
    }

    async fn receive(socket: &Datagrams) -> Received {
        let mut buffer = [0; 64];
        timeout(Duration::from_secs(20), socket.receive(&mut buffer)).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_datagram_tells_where_it_arrived_and_the_answer_leaves_from_there() {
        for any in ["0.0.0.0:0", "[::]:0"] {
            let socket = bind(any);
            let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let asked: SocketAddr = ([127, 0, 0, 2], socket.bound().port()).into();
            peer.send_to(b"hello", asked).await.unwrap();
            let from = peer.local_addr().unwrap();
            let expected = Received::Datagram { length: 5, peer: from, at: Some(asked.ip()) };
            assert_eq!(receive(&socket).await, expected, "{any}");

            socket.send(b"here", asked.ip(), from).await.unwrap();
            let mut buffer = [0; 64];
            let (length, answered) = peer.recv_from(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..length], answered), (&b"here"[..], asked), "{any}");
        }
    }

    #[tokio::test]
    async fn it_is_told_when_nobody_is_there() {
        for (any, from) in
            [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::1]:0", "::1")]
        {
            let (socket, from) = (bind(any), from.parse::<IpAddr>().unwrap());
            let nobody = UdpSocket::bind((from, 0)).await.unwrap().local_addr().unwrap();
            let somebody = UdpSocket::bind((from, 0)).await.unwrap();
            socket.send(b"hello", from, nobody).await.unwrap();
            assert_eq!(receive(&socket).await, Received::Refused(nobody), "{any}");
            // The error of one datagram does not fail the next one.
            socket.send(b"hello", from, nobody).await.unwrap();
            tokio::task::yield_now().await;
            socket.send(b"hello", from, somebody.local_addr().unwrap()).await.unwrap();
            assert_eq!(somebody.recv(&mut [0; 64]).await.unwrap(), 5, "{any}");
            assert_eq!(receive(&socket).await, Received::Refused(nobody), "{any}");
        }
    }
}
