//! How far a peer is trusted, and what each kind of peer may use.
//!
//! Comes in: what a layer knows of a peer: its address or stream, its credentials, the networks
//! that the operator trusts, the peers that the endpoint knows. Goes out: the peer's [`Standing`],
//! how far its address is proved ([`SourceProof`]), and the shares and limits below. Nothing here
//! counts: the endpoint, the readers of the sockets and the switchboard each count what they own.
//!
//! A flood from strangers must not keep other peers out. So strangers leave a part of each resource
//! to the others, and one source of strangers gets a part of theirs:
//!
//! | resource | left to others | one source of strangers | all strangers |
//! |---|---|---|---|
//! | messages a second | | [`MESSAGES_OF_A_SOURCE`] | [`MESSAGES_OF_STRANGERS`] |
//! | streams | [`RESERVED_STREAMS`] | [`STREAMS_OF_A_SOURCE`] | |
//! | streams that we open | | | [`RETURNED_STREAMS`] |
//! | transactions | [`RESERVED_TRANSACTIONS`] | [`TRANSACTIONS_OF_A_SOURCE`] | |
//! | dialogs | [`RESERVED_DIALOGS`] | | |
//! | calls | [`RESERVED_CALLS`] | [`CALLS_OF_A_SOURCE`] | |
//! | half-open calls | | [`HALF_OPEN_CALLS_OF_A_SOURCE`] | [`HALF_OPEN_CALLS`] |
//!
//! The bytes that may be sent to an unproven address are counted by the `allowance` of each dialog.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use ipnet::IpNet;

use super::path::{ConnectionId, Path, Transport, source_of};

/// How far a peer is trusted; a later variant is trusted further.
///
/// The readers of the sockets see addresses and streams only, so at them a peer is never
/// `Identified`. The switchboard places no trust in an address alone: there, a caller that is not
/// [identified](Self::is_identified) is a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing is known of the peer.
    Stranger,
    /// The peer sends from the address, or over the stream, of a known peer, but has not
    /// authenticated. Over UDP this address may be forged. For the endpoint these are the sources
    /// that phones have registered from; for the readers of the sockets also trunks and the peers
    /// of calls that are up.
    KnownSource,
    /// The peer is a user that has authenticated, or a trunk.
    Identified,
    /// The operator has listed the peer's network.
    Trusted,
}

impl Standing {
    /// Whether the peer itself is known, not only its address. It may send us a REFER.
    pub fn is_identified(self) -> bool {
        self >= Self::Identified
    }

    /// Whether a peer is who it seems to be before any message shows our tag. Over a stream the
    /// source address is not forged.
    pub fn is_proved(self, transport: Transport) -> bool {
        match self {
            Self::Stranger => false,
            Self::KnownSource => transport.is_reliable(),
            Self::Identified | Self::Trusted => true,
        }
    }
}

/// How far the caller of a call has proved its source address; a later variant is a better proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceProof {
    /// Not at all: the source address of a datagram can be forged.
    Forgeable,
    /// It has opened a stream, but has sent no message with our tag on it.
    Connected,
    /// It has sent a message with our tag: an ACK, a PRACK, or a request within the dialog.
    Heard,
}

impl SourceProof {
    /// The proof that lies in an INVITE itself.
    pub fn of_invite(transport: Transport) -> Self {
        if transport.is_reliable() { Self::Connected } else { Self::Forgeable }
    }

    /// Whether the call is half-open: a caller with a forged source address gets no further.
    pub fn is_half_open(self) -> bool {
        self != Self::Heard
    }
}

/// Whether the operator trusts the peer at this address.
pub fn is_trusted(networks: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

/// Whether the operator trusts the peer that this path leads to. The script of a foreign web page
/// is never trusted, whatever its address.
pub fn is_trusted_over(networks: &[IpNet], path: Path) -> bool {
    !path.is_foreign && is_trusted(networks, path.peer.ip())
}

/// The unit that is counted: an IPv4 address, or an IPv6 /64, which one host has to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SipSource(IpAddr);

impl SipSource {
    /// The address, or the first one of the network.
    pub fn ip(self) -> IpAddr {
        self.0
    }
}

impl From<IpAddr> for SipSource {
    fn from(ip: IpAddr) -> Self {
        Self(source_of(ip))
    }
}

impl fmt::Display for SipSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The peers that the endpoint knows and the operator has not listed, for the readers of the
/// sockets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KnownPeers {
    /// Sources of trunks, registered phones, and peers of calls that are up.
    pub sources: BTreeSet<SipSource>,
    /// Streams that phones have registered over. For the script of a foreign web page, the source
    /// address says nothing.
    pub streams: BTreeSet<ConnectionId>,
}

impl KnownPeers {
    /// The standing of a peer by its source.
    pub fn at(&self, source: SipSource) -> Standing {
        known_if(self.sources.contains(&source))
    }

    /// The standing of the script of a foreign web page by its stream.
    pub fn over(&self, stream: ConnectionId) -> Standing {
        known_if(self.streams.contains(&stream))
    }
}

fn known_if(is_known: bool) -> Standing {
    if is_known { Standing::KnownSource } else { Standing::Stranger }
}

/// One part in so many of a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(NonZeroUsize);

impl Share {
    const fn one_in(parts: usize) -> Self {
        Self(NonZeroUsize::new(parts).expect("a whole has parts"))
    }

    /// The share of `whole`, rounded down.
    pub fn of(self, whole: usize) -> usize {
        whole / self.0
    }

    /// The share of `whole`, but at least one: a small node serves one peer, too.
    pub fn at_least_one_of(self, whole: usize) -> usize {
        self.of(whole).max(1)
    }

    /// What is left of `whole` without the share.
    pub fn rest_of(self, whole: usize) -> usize {
        whole - self.of(whole)
    }
}

/// How many messages may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRate {
    /// Messages a second.
    pub per_second: NonZeroU32,
    /// Messages at once.
    pub burst: NonZeroU32,
}

impl MessageRate {
    const fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: NonZeroU32::new(per_second).expect("a rate is not zero"),
            burst: NonZeroU32::new(burst).expect("a burst is not zero"),
        }
    }
}

/// Capacity of the queue to one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimit {
    /// Messages.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
}

// -- messages --------------------------------------------------------------------------------

/// Of one source of strangers. A call takes about six messages, so this is the traffic of thirty
/// calls a second: more than an office behind one NAT makes, little for a scanner. The burst: every
/// phone of an office registers when the power is back.
pub const MESSAGES_OF_A_SOURCE: MessageRate = MessageRate::new(200, 400);
/// Of one source that the endpoint knows: a trunk with seventy new calls a second.
pub const MESSAGES_OF_A_KNOWN_SOURCE: MessageRate = MessageRate::new(500, 1_000);
/// Of all strangers together: about half of what one core can answer, so that the endpoint has
/// capacity for trusted peers.
pub const MESSAGES_OF_STRANGERS: MessageRate = MessageRate::new(5_000, 10_000);

// -- streams ---------------------------------------------------------------------------------

/// The part of all accepted streams that strangers leave to other peers.
pub const RESERVED_STREAMS: Share = Share::one_in(4);
/// Accepted streams of one source: enough for the phones of an office behind one NAT.
pub const STREAMS_OF_A_SOURCE: usize = 64;
/// The part of all accepted streams that may be closed already while their tasks, and their file
/// descriptors, are not gone yet.
pub const LEAVING_STREAMS: Share = Share::one_in(16);
/// The part of the streams that we open for answers to strangers, which may name any port.
pub const RETURNED_STREAMS: Share = Share::one_in(8);
/// To a stranger: four messages of the longest kind.
pub const QUEUE_TO_STRANGER: QueueLimit = QueueLimit { messages: 64, bytes: 256 << 10 };
/// To a peer that we have connected to, and to a trusted one. A trunk's stream carries all its
/// calls, and while it is being opened each of them may have something to send. A peer that does
/// not read is detected by the time that one message takes (`StreamLimits::write`), long before
/// this queue is full.
pub const QUEUE_TO_TRUNK: QueueLimit = QueueLimit { messages: 4_096, bytes: 8 << 20 };
/// Time without any received byte, not even a keep-alive, after which a stream is closed unless a
/// dialog, a registered phone or a trunk needs it.
pub const IDLE_STREAM: Duration = Duration::from_secs(600);
/// The same for a stranger, which has no other use for its stream.
pub const IDLE_STREAM_OF_STRANGER: Duration = Duration::from_secs(60);

// -- transactions and dialogs ----------------------------------------------------------------

/// The part of all transactions that strangers leave to other peers.
pub const RESERVED_TRANSACTIONS: Share = Share::one_in(4);
/// The part of all transactions that one source of strangers may use.
pub const TRANSACTIONS_OF_A_SOURCE: Share = Share::one_in(8);
/// The part of all dialogs that strangers leave to other peers.
pub const RESERVED_DIALOGS: Share = Share::one_in(4);

// -- calls -----------------------------------------------------------------------------------

/// The part of all calls that strangers leave to users, trunks, trusted peers and applications. It
/// was chosen apart from that of the dialogs, to which each INVITE adds one before its call is
/// admitted.
pub const RESERVED_CALLS: Share = Share::one_in(8);
/// The part of all calls that one stranger may use, which leaves space for three more like it.
pub const CALLS_OF_A_SOURCE: Share = Share::one_in(4);
/// The part of all calls that may be half-open calls of strangers.
pub const HALF_OPEN_CALLS: Share = Share::one_in(2);
/// The part of all calls that may be half-open calls of one stranger.
pub const HALF_OPEN_CALLS_OF_A_SOURCE: Share = Share::one_in(8);
/// More half-open calls than this part of all calls count as pressure.
pub const PRESSURE: Share = Share::one_in(4);
/// How long a call that came by datagram may be half-open under pressure. Without pressure, a
/// ringing call may be half-open until it is answered, and then for 64*T1 (RFC 3261 §13.3.1.4).
pub const HALF_OPEN_UNDER_PRESSURE: Duration = Duration::from_secs(8);
/// The part of all calls that may be displaced but not ended yet. A displaced call still takes
/// memory until its end is committed.
pub const LEAVING_CALLS: Share = Share::one_in(4);
/// In this time, strangers displace no more calls than may be half-open. Each such call costs its
/// application a row and two notifications, even if its source is forged.
pub const DISPLACEMENT_PERIOD: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_address_proves_something_only_over_a_stream() {
        use Standing::{Identified, KnownSource, Stranger, Trusted};
        let proved = |transport| {
            [Stranger, KnownSource, Identified, Trusted].map(|it| it.is_proved(transport))
        };
        assert_eq!(proved(Transport::Udp), [false, false, true, true]);
        assert_eq!(proved(Transport::Tcp), [false, true, true, true]);
        assert!(Identified.is_identified() && Trusted.is_identified());
        assert!(!Stranger.is_identified() && !KnownSource.is_identified());
    }

    #[test]
    fn the_addresses_of_one_ipv6_host_are_one_source() {
        let source = |text| SipSource::from(ip(text));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }

    #[test]
    fn a_web_page_is_not_trusted_by_its_address() {
        let networks = ["192.0.2.0/24".parse().unwrap()];
        let peer = "192.0.2.1:40000".parse().unwrap();
        let path = Path::udp("192.0.2.9:5060".parse().unwrap(), peer);
        assert!(is_trusted_over(&networks, path) && is_trusted(&networks, ip("::ffff:192.0.2.1")));
        assert!(!is_trusted_over(&networks, Path { is_foreign: true, ..path }));
        assert!(!is_trusted(&networks, ip("198.51.100.1")));
    }

    #[test]
    fn a_small_whole_has_shares_too() {
        let quarter = Share::one_in(4);
        assert_eq!((quarter.of(8), quarter.rest_of(8)), (2, 6));
        assert_eq!((quarter.of(3), quarter.at_least_one_of(3), quarter.rest_of(3)), (0, 1, 3));
    }
}
