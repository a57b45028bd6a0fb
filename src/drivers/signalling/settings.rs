//! What the signalling room needs to know, and what can be wrong with it.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use crate::drivers::tls::TlsError;
use aftertone_core::proto::sip::{digest::Algorithm, path::Transport};

/// What the signalling room needs to know.
#[derive(Debug, Clone)]
pub struct SignallingConfig {
    /// Where SIP is spoken; port 0 takes a free one.
    pub listen: Vec<SipListener>,
    /// The address that Contact and Via tell; `None` tells the one that the peer reached.
    pub advertised: Option<IpAddr>,
    /// Server and User-Agent header field.
    pub server_name: String,
    /// The realm of our challenges.
    pub realm: String,
    /// The domain of our users; empty: our address.
    pub domain: String,
    /// What our challenges offer; none = all.
    pub digest: Vec<Algorithm>,
    /// Who may register.
    pub users: Vec<User>,
    /// Certificates.
    pub tls: TlsFiles,
    /// Peers that are never slowed or refused for their number.
    pub trusted_peers: Vec<IpNet>,
    /// Pages whose scripts may speak SIP over a WebSocket, as browsers write their origin. Empty: those of
    /// all, but where they are says nothing of who they are.
    pub web_origins: Vec<String>,
    /// What streams may cost.
    pub limits: StreamLimits,
}

/// Somebody who may register phones.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The user part of the address of record.
    pub name: String,
    /// Proves who calls.
    pub password: String,
}

impl fmt::Debug for User {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An address that SIP is spoken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipListener {
    /// What is spoken.
    pub transport: Transport,
    /// Where.
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
    /// Our certificate with its chain, and its key. Listeners need them; to servers that we connect
    /// to they are shown when asked for.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Who must have issued the certificates of those who connect over TLS; `None` asks for none, and
    /// browsers, which have none, are never asked.
    pub client_ca: Option<PathBuf>,
    /// Who must have issued the certificates of those whom we connect to; `None` trusts whom the
    /// system trusts.
    pub server_ca: Option<PathBuf>,
}

/// What streams may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Accepted connections that are open at a time. Each costs a file descriptor and up to 400 KiB
    /// when its peer is slow both ways. Peers that are trusted are not counted; strangers get three in
    /// four of them.
    pub connections: usize,
    /// The same for one source: an IPv4 address, or an IPv6 /64, which one host has to itself. Room
    /// for the phones of an office behind one NAT.
    pub connections_of_a_source: usize,
    /// Connections that we have opened.
    pub opened: usize,
    /// From the connection to its first message, TLS and WebSocket handshakes included; and from the
    /// first byte of a message to its last.
    pub message: Duration,
    /// A connection over which nothing has come for so long, not even a keep-alive, is closed if no
    /// dialog goes over it.
    pub idle: Duration,
    /// The same for the connection of a stranger, who would have no other use for it.
    pub idle_of_strangers: Duration,
    /// For connecting and the TLS handshake, when we open.
    pub connect: Duration,
    /// For one message of ours to be taken by the peer.
    pub write: Duration,
}

impl StreamLimits {
    /// Limits for a process that may hold `open_files` files. Three in eight of them are for streams,
    /// so that strangers cannot take what calls and recordings need.
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
            connections_of_a_source: 64,
            opened: 1_024,
            message: Duration::from_secs(10),
            idle: Duration::from_secs(600),
            idle_of_strangers: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            write: Duration::from_secs(10),
        }
    }
}

/// Why signalling cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("{listener}")]
    Bind {
        /// Which one.
        listener: SipListener,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A secure listener without a certificate.
    #[error("{listener} needs a certificate and its key")]
    NoCertificate {
        /// Which one.
        listener: SipListener,
    },
    /// There is no port that streams could leave from.
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
