//! The settings of the signalling module, and what can be wrong with them.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use crate::drivers::tls::TlsError;
use aftertone_core::proto::sip::{
    digest::Algorithm,
    path::Transport,
    standing::{IDLE_STREAM, IDLE_STREAM_OF_STRANGER, STREAMS_OF_A_SOURCE},
};

/// The settings of the signalling module.
#[derive(Debug, Clone)]
pub struct SignallingConfig {
    /// The addresses that SIP listens on; port 0 takes a free one.
    pub listen: Vec<SipListener>,
    /// The address in Contact and Via; `None` uses the one that the peer reached.
    pub advertised: Option<IpAddr>,
    /// Value of the Server and User-Agent header fields.
    pub server_name: String,
    /// The realm of our challenges.
    pub realm: String,
    /// The domain of our users; empty means our address.
    pub domain: String,
    /// The digest algorithms that our challenges offer; empty means all.
    pub digest: Vec<Algorithm>,
    /// The users that may register.
    pub users: Vec<User>,
    /// Certificates.
    pub tls: TlsFiles,
    /// Peers that are never rate-limited, and whose connections are not counted.
    pub trusted_peers: Vec<IpNet>,
    /// Origins of the web pages whose scripts may speak SIP over a WebSocket, as browsers write
    /// them. Empty allows all pages, but then their source address gives them no trust.
    pub web_origins: Vec<String>,
    /// Limits of streams.
    pub limits: StreamLimits,
}

/// A user that may register phones.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The user part of the address of record.
    pub name: String,
    /// The password of digest authentication.
    pub password: String,
}

impl fmt::Debug for User {
    /// Leaves out the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A transport and an address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipListener {
    /// The transport.
    pub transport: Transport,
    /// The address.
    pub address: SocketAddr,
}

impl fmt::Display for SipListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport.name().to_ascii_lowercase(), self.address)
    }
}

/// PEM files for TLS and secure WebSockets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate with its chain, and its key. Listeners need them; a server that we connect
    /// to gets the certificate when it asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The authorities of client certificates over TLS; `None` requests no certificate. Browsers
    /// have none, so WebSockets never request one.
    pub client_ca: Option<PathBuf>,
    /// The authorities of the servers that we connect to; `None` uses the system's trusted
    /// authorities.
    pub server_ca: Option<PathBuf>,
}

/// Limits of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Accepted connections that are open at a time. Each costs a file descriptor, and up to 400
    /// KiB when its peer is slow in both directions. Connections of trusted peers are not counted;
    /// strangers leave the share `RESERVED_STREAMS` of these places to others.
    pub connections: usize,
    /// The same for one source: an IPv4 address, or an IPv6 /64, which one host has to itself.
    /// Enough for the phones of an office behind one NAT.
    pub connections_of_a_source: usize,
    /// Connections that we have opened.
    pub opened: usize,
    /// Time from the connection to its first message, TLS and WebSocket handshakes included; and
    /// from the first byte of a message to its last.
    pub message: Duration,
    /// Time without any received byte, not even a keep-alive, after which a connection is closed
    /// unless a dialog, a registered phone or a trunk needs it.
    pub idle: Duration,
    /// The same for the connection of a stranger, which has no other use for it.
    pub idle_of_strangers: Duration,
    /// Time for connecting and the TLS handshake of a connection that we open.
    pub connect: Duration,
    /// Time for writing one message.
    pub write: Duration,
}

impl StreamLimits {
    /// Limits for a process that may hold `open_files` files. Three in eight of them are for
    /// streams, so that strangers cannot take the files that calls and recordings need.
    pub fn within(open_files: usize) -> Self {
        let limits = Self::default();
        Self {
            connections: limits.connections.min(open_files / 4),
            opened: limits.opened.min(open_files / 8),
            ..limits
        }
    }
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            connections_of_a_source: STREAMS_OF_A_SOURCE,
            opened: 1_024,
            message: Duration::from_secs(10),
            idle: IDLE_STREAM,
            idle_of_strangers: IDLE_STREAM_OF_STRANGER,
            connect: Duration::from_secs(5),
            write: Duration::from_secs(10),
        }
    }
}

/// Why signalling cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("{listener}")]
    Bind {
        /// The address.
        listener: SipListener,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A secure listener without a certificate.
    #[error("{listener} needs a certificate and its key")]
    NoCertificate {
        /// The listener.
        listener: SipListener,
    },
    /// No port is free for outgoing streams.
    #[error("no port for outgoing connections")]
    NoPort(#[source] io::Error),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_may_hold_few_files_accepts_few_streams() {
        let few = StreamLimits::within(1_024);
        assert_eq!((few.connections, few.opened), (256, 128));
        assert_eq!(StreamLimits::within(65_536), StreamLimits::default());
    }
}
