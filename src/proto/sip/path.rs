//! Which way a message came, and goes back (RFC 3261 §18, RFC 3581).

use std::net::SocketAddr;

use bytes::Bytes;

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
}

impl Transport {
    /// The name in a Via header field.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
        }
    }
}

/// Both ends of one hop. Responses go back the way the request came, as RFC 3581 §4 asks for when
/// `rport` is there; we do so always, because peers behind a NAT hear us no other way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    /// The other side's address, as seen by our socket.
    pub peer: SocketAddr,
    /// Our own address, as the peer reaches it; never unspecified (0.0.0.0 or ::).
    pub local: SocketAddr,
    /// What lies between.
    pub transport: Transport,
}

/// Bytes to send, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Sent from `path.local` to `path.peer`.
    pub path: Path,
    /// One message.
    pub bytes: Bytes,
}
