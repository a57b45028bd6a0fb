//! The remote target of a dialog (RFC 3261 §12.1): Request-URI, route set and next hop of our
//! requests, and what changes when the peer moves.
//!
//! Comes in: the Contact and Record-Route of the message that made the dialog; target refreshes;
//! the path of each message that shows our tag. Goes out: where a request goes, how much may be
//! sent there, and whether it may be repeated.
//!
//! Users, trunks and trusted peers choose the next hop by Record-Route and Contact. For a stranger
//! these only fill the request, and at most choose the port: its requests go back to the host that
//! its own messages come from. Otherwise a stranger could make us send to any host (§26.3.2.4).

use std::net::SocketAddr;

use super::{
    allowance::Allowance,
    hop_rule::{DirectHop, HopRule},
};
use crate::proto::sip::{
    message::{NameAddr, Request, Response},
    path::{ConnectionId, Path, Transport},
    standing::Standing,
    transaction::Origin,
    uri::Uri,
};

/// Where the requests of one dialog go.
#[derive(Debug)]
pub(in crate::proto::sip) struct RemoteTarget {
    /// The peer's URI (§12.1): its Contact.
    uri: Uri,
    /// Record-Route proxies that our requests visit, the next one first (§12.1).
    route_set: Vec<NameAddr>,
    rule: HopRule,
    /// Path to the peer: that of the INVITE at first. A target refresh changes it, and so does a
    /// message of the peer after its stream is lost. For a stranger, each message that shows our
    /// tag changes it.
    path: Path,
    /// The connection of `path`, once it is lost.
    lost: Option<ConnectionId>,
    /// We opened the connection of `path`, so its remote port is where the peer listens and we can
    /// open it again.
    is_own_stream: bool,
    /// The caller is not identified, and no message has shown our tag yet.
    is_half_open: bool,
    /// The address that has answered the newest answered request of ours: its port is one that
    /// hears us.
    answered: Option<SocketAddr>,
    /// Bytes that may be sent to `path`.
    pub allowance: Allowance,
}

impl RemoteTarget {
    /// The target of a caller (§12.1.1). `uri` is the Contact of its `invite`, which took `path`
    /// and has a size of `heard` bytes.
    pub(crate) fn of_caller(
        invite: &Request,
        uri: Uri,
        (path, heard): (Path, usize),
        caller: Standing,
    ) -> Self {
        let rule = HopRule::of_caller(caller, path, invite.vias().len() > 1);
        let is_limited = rule.told().is_some() && !path.transport.is_reliable();
        Self {
            uri,
            route_set: invite.record_routes().to_vec(),
            rule,
            path,
            lost: None,
            is_own_stream: false,
            is_half_open: !caller.is_identified(),
            answered: None,
            allowance: if is_limited { Allowance::of(heard) } else { Allowance::Unlimited },
        }
    }

    /// The target that `response` names for the requests after our INVITE (§12.1.2), which took
    /// `path`.
    pub(crate) fn of_callee(origin: &Origin, response: &Response, path: Path) -> Self {
        let contact = response.contacts().first().map(|contact| contact.uri().clone());
        let uri = contact.unwrap_or_else(|| origin.uri.clone());
        // A Contact or Record-Route that cannot be read leads nowhere: use the path instead.
        let hop = match response.dialog_fault() {
            Some(_) => DirectHop::Path,
            None => DirectHop::of_callee(&uri, path),
        };
        Self {
            uri,
            route_set: response.record_routes().iter().rev().cloned().collect(),
            rule: HopRule::Proved(hop),
            path,
            lost: None,
            is_own_stream: false,
            is_half_open: false,
            answered: None,
            allowance: Allowance::Unlimited,
        }
    }

    /// Records whether we opened the stream that the INVITE was sent over; without meaning over
    /// UDP.
    pub(crate) fn set_own_stream(&mut self, is_own_stream: bool) {
        self.is_own_stream = is_own_stream;
    }

    // -- what the peer sends -----------------------------------------------------------------

    /// The peer has sent a target refresh: it is reached at another address from now on (§12.2.2).
    pub(crate) fn refresh(&mut self, contact: Option<&Uri>, path: Path) {
        if let Some(contact) = contact {
            self.uri = contact.clone();
        }
        self.follow(path);
    }

    /// A message of `bytes` bytes that shows our tag came over `path`. Returns true for the first
    /// such message of a caller that is not identified.
    ///
    /// Requests to a stranger go to `path` from now on: its proxy may have dropped out, or a NAT
    /// may have given it another address. An address that our tag was not sent to is unproven,
    /// because the caller can pass the tag on to others or forge the source of this message. A port
    /// that the stranger only names is unproven too, because other hosts may share its address.
    ///
    /// The tag of a call from the address of a registered phone was sent to that address, so the
    /// message shows that the INVITE came from there, whatever path the message took. Of phones
    /// that register through a proxy, the address is the proxy's.
    pub(crate) fn heard_from(&mut self, path: Path, bytes: usize) -> bool {
        match self.rule {
            HopRule::Forgeable { proved, .. } => {
                self.rule = HopRule::Proved(proved);
                self.allowance = Allowance::Unlimited;
            }
            HopRule::Stranger { told } => {
                if path.transport.is_reliable() || path.leads_to(told) {
                    self.allowance = Allowance::Unlimited;
                } else if path.leads_to(self.path.peer) {
                    self.allowance.hear(bytes);
                } else {
                    self.allowance = Allowance::of(bytes);
                }
                self.follow(path);
            }
            // The peer has opened a new connection.
            HopRule::Proved(_) if self.has_lost_stream() => self.follow(path),
            HopRule::Proved(_) => {}
        }
        std::mem::take(&mut self.is_half_open)
    }

    /// A message of `bytes` bytes came that does not show our tag, or that repeats an earlier one.
    pub(crate) fn heard_again(&mut self, path: Path, bytes: usize) {
        if path.peer == self.path.peer {
            self.allowance.hear(bytes);
        }
    }

    /// A response to a request of ours came over `path`: the peer at that address and port receives
    /// our messages. It says nothing about the other ports of its host, which may be other peers
    /// behind the same NAT. A phone may respond from the port that it sends from.
    pub(crate) fn answered_from(&mut self, path: Path) {
        if path.peer == self.path.peer || path.peer == self.path.source() {
            self.allowance = Allowance::Unlimited;
        }
        self.answered = Some(path.peer);
    }

    /// A connection was lost.
    pub(crate) fn stream_lost(&mut self, connection: ConnectionId) {
        if self.path.connection == Some(connection) {
            self.lost = Some(connection);
        }
    }

    // -- what is known -----------------------------------------------------------------------

    /// The path to the peer.
    pub(crate) fn path(&self) -> Path {
        self.path
    }

    /// The peer's URI.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether no message has shown our tag yet, and the caller is not identified.
    pub(crate) fn is_half_open(&self) -> bool {
        self.is_half_open
    }

    /// Whether the peer's address is unproven, so that only a limited number of bytes may be sent
    /// there.
    pub(crate) fn is_unproven(&self) -> bool {
        self.allowance.is_limited()
    }

    /// Whether requests go only to the host that the peer's messages come from: the peer is a
    /// stranger, or may be one.
    pub(crate) fn is_bound_to_source(&self) -> bool {
        self.rule.told().is_some()
    }

    /// Whether `path` is neither where a stranger's newest message came from nor where our tag was
    /// sent. The source of such a message may be forged.
    pub(crate) fn is_elsewhere(&self, path: Path) -> bool {
        let is_here = path.leads_to(self.path.peer)
            || self.rule.told().is_none_or(|told| path.leads_to(told));
        !path.transport.is_reliable() && !is_here
    }

    /// Whether the peer is behind a NAT: its datagrams come from elsewhere than its Contact says.
    pub(crate) fn is_behind_nat(&self) -> bool {
        let transport = self.path.transport;
        let reached = self.next_hop().peer;
        let is_direct =
            self.rule != HopRule::Proved(DirectHop::Contact) && self.route_set.is_empty();
        let port = self.uri.port().unwrap_or(transport.default_port());
        let is_at_peer = self.uri.ip_addr() == Some(reached.ip()) && port == reached.port();
        transport == Transport::Udp && !self.is_unproven() && is_direct && !is_at_peer
    }

    /// Whether a request of ours may be repeated on `way` until it is answered. A stranger may name
    /// any port of its host in its Contact. Until something answers from that port, a request to it
    /// is sent only once: the port may belong to another peer behind the same NAT.
    pub(crate) fn may_repeat(&self, way: Path) -> bool {
        let is_proved = self.path.transport == Transport::Udp && self.path.peer == way.peer;
        let is_heard = is_proved || self.answered == Some(way.peer);
        let is_reached = !self.is_bound_to_source() || way.transport.is_reliable() || is_heard;
        !self.is_unproven() && is_reached
    }

    // -- our requests ------------------------------------------------------------------------

    /// The Request-URI and the Route header fields of a request to the peer (§12.2.1.1).
    pub(super) fn routed(&self) -> (Uri, Vec<NameAddr>) {
        match self.route_set.split_first() {
            None => (self.uri.clone(), Vec::new()),
            Some((first, _)) if first.uri().has_param("lr") => {
                (self.uri.clone(), self.route_set.clone())
            }
            // A strict router expects its own URI as Request-URI, and the target at the end of the
            // Route.
            Some((first, rest)) => {
                let mut routes = rest.to_vec();
                routes.push(NameAddr::from(self.uri.clone()));
                (first.uri().clone(), routes)
            }
        }
    }

    /// The Request-URI of a request to the peer.
    pub(crate) fn request_uri(&self) -> Uri {
        self.routed().0
    }

    /// The URI of the next hop of a request to the peer: its first proxy, or the peer itself
    /// (§8.1.2).
    pub(crate) fn next_hop_uri(&self) -> &Uri {
        self.route_set.first().map_or(&self.uri, NameAddr::uri)
    }

    /// The path that a request to the peer takes.
    pub(crate) fn next_hop(&self) -> Path {
        self.hops().first().copied().unwrap_or(self.path)
    }

    /// The paths that a request to the peer can take, the best one first: those to the next hop
    /// that the peer names, and that of the peer's own messages. There is at least one.
    ///
    /// An open stream is used for its host whatever the port: the remote port of a stream that the
    /// peer opened is not the port where it listens (RFC 3261 §18, RFC 5923). Host names are not
    /// resolved. For a host name, and for a next hop that is the peer itself, the path of the
    /// peer's own messages is the right one, through any NAT.
    pub(crate) fn hops(&self) -> Vec<Path> {
        let uri = match (self.rule, self.route_set.first()) {
            (HopRule::Stranger { .. } | HopRule::Forgeable { .. }, route) => {
                return self.own_way(route.map_or(&self.uri, NameAddr::uri));
            }
            (HopRule::Proved(DirectHop::Path), None) => return self.own_way(&self.uri),
            (HopRule::Proved(_), Some(route)) => route.uri(),
            (HopRule::Proved(DirectHop::Contact), None) => &self.uri,
        };
        let Some(ip) = uri.ip_addr() else { return self.own_way(uri) };
        let transport = match uri.param("transport").and_then(Transport::from_name) {
            // RFC 3261 §26.2.2: SIPS means TLS, over the transport that the URI names.
            Some(Transport::Tcp) | None if uri.is_sips() => Transport::Tls,
            Some(transport) => transport,
            // What came over TLS does not go on in clear.
            None if self.path.transport.is_secure() => self.path.transport,
            None => Transport::Udp,
        };
        let peer = SocketAddr::new(ip, uri.port().unwrap_or(transport.default_port()));
        if (peer, transport) == (self.path.peer, self.path.transport) {
            return vec![self.path];
        }
        let named = Path { peer, sender: None, transport, connection: None, ..self.path };
        let has_stream = self.path.connection.is_some();
        match has_stream && (ip, transport) == (self.path.peer.ip(), self.path.transport) {
            true if self.has_lost_stream() && !self.is_own_stream => vec![named],
            true => vec![self.path, named],
            false if has_stream => vec![named, self.path],
            false => vec![named],
        }
    }

    /// The path of the peer's own messages, corrected by the port that its next hop `uri` names.
    /// Over UDP the named port is used at once if the peer sends from another port than it listens
    /// on. Over a stream, the named port is used once the stream is lost, because the remote port
    /// of the stream was only good for that stream.
    fn own_way(&self, uri: &Uri) -> Vec<Path> {
        let path = self.path;
        let is_bound = self.is_bound_to_source();
        if path.transport == Transport::Udp {
            // A stranger that sends from the port where it listens is reached there, whatever port
            // it names.
            let listens_here = is_bound && path.source() == path.peer;
            let named = path.to_named_port(uri).filter(|_| !listens_here);
            return vec![named.unwrap_or(path)];
        }
        let mut named = if self.is_own_stream { Vec::new() } else { path.to_listeners(uri) };
        if is_bound {
            named.retain(|named| named.peer.ip() == path.peer.ip());
            // `sender` marks streams to strangers; these have a limit of their own.
            named.iter_mut().for_each(|named| named.sender = Some(path.peer));
        }
        if named.is_empty() || !self.has_lost_stream() {
            named.insert(0, path);
        }
        named
    }

    /// Sets the path to the peer.
    fn follow(&mut self, path: Path) {
        self.is_own_stream &= path.connection == self.path.connection;
        self.path = path;
    }

    /// Whether the connection of `path` was lost.
    fn has_lost_stream(&self) -> bool {
        self.path.connection.is_some() && self.path.connection == self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::{message::Message, wire::parse_datagram};

    const HEARD: usize = 600;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn path(peer: &str) -> Path {
        Path::udp(address("192.0.2.9:5060"), address(peer))
    }

    fn over_tcp(peer: &str, connection: u64) -> Path {
        let connection = Some(ConnectionId(connection));
        Path { transport: Transport::Tcp, connection, ..path(peer) }
    }

    /// The target of a caller at `path` with a Contact at 198.51.100.7.
    fn called(caller: Standing, path: Path, headers: &str) -> RemoteTarget {
        let text = format!(
            "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK1\r\n{headers}\
             From: <sip:c@c>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\r\n"
        );
        let Message::Request(invite) = parse_datagram(text.as_bytes()).unwrap() else {
            unreachable!("it is a request")
        };
        let contact = "sip:c@198.51.100.7:5070".parse().unwrap();
        RemoteTarget::of_caller(&invite, contact, (path, HEARD), caller)
    }

    #[test]
    fn requests_to_a_stranger_go_where_it_was_heard_whatever_it_names() {
        let here = path("203.0.113.1:5060");
        for headers in ["", "Record-Route: <sip:198.51.100.8;lr>\r\n"] {
            let mut target = called(Standing::Stranger, here, headers);
            assert_eq!(target.hops(), [here]);
            assert!(target.is_bound_to_source() && target.is_unproven());
            assert!(target.heard_from(here, 1), "the first message with our tag");
            assert!(!target.is_unproven() && !target.heard_from(here, 1));
        }
        let mut target = called(Standing::Stranger, here, "");
        let there = path("203.0.113.2:5060");
        assert!(target.is_elsewhere(there));
        target.heard_from(there, 100);
        assert_eq!((target.hops(), target.allowance.room()), (vec![there], Some(150)));
    }

    #[test]
    fn a_caller_at_the_address_of_a_phone_is_a_stranger_until_it_shows_our_tag() {
        let here = path("203.0.113.1:5060");
        let mut target = called(Standing::KnownSource, here, "Via: SIP/2.0/UDP d;branch=1\r\n");
        assert!(target.is_bound_to_source() && target.is_unproven());
        assert!(target.heard_from(path("203.0.113.2:5060"), 1));
        assert!(!target.is_bound_to_source() && !target.is_unproven());
        assert_eq!(target.next_hop().peer, address("198.51.100.7:5070"), "it came by a proxy");
    }

    #[test]
    fn a_known_caller_chooses_the_next_hop() {
        let here = path("203.0.113.1:5060");
        let target = called(Standing::Identified, here, "");
        assert_eq!(target.next_hop(), here, "through its NAT");
        let route = "Record-Route: <sip:198.51.100.8;lr>\r\n";
        let target = called(Standing::Identified, here, route);
        assert_eq!(target.next_hop().peer, address("198.51.100.8:5060"));
        assert_eq!(target.request_uri().to_string(), "sip:c@198.51.100.7:5070");
        let target = called(Standing::Identified, here, "Record-Route: <sip:198.51.100.8>\r\n");
        let (uri, routes) = target.routed();
        assert_eq!(uri.to_string(), "sip:198.51.100.8", "a strict router expects its own URI");
        assert_eq!(routes[0].uri().to_string(), "sip:c@198.51.100.7:5070");
    }

    #[test]
    fn a_peer_that_opens_another_stream_is_followed_once_the_first_is_lost() {
        let (first, second) = (over_tcp("203.0.113.1:40000", 1), over_tcp("203.0.113.1:40001", 2));
        let mut target = called(Standing::Identified, first, "");
        target.heard_from(second, 1);
        assert_eq!(target.path(), first);
        target.stream_lost(ConnectionId(2));
        target.heard_from(second, 1);
        assert_eq!(target.path(), first);
        target.stream_lost(ConnectionId(1));
        target.heard_from(second, 1);
        assert_eq!(target.path(), second);
    }
}
