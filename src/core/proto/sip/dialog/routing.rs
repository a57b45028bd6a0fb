//! Where the requests of a dialog go: Request-URI, Route and next hop (RFC 3261 §12.2.1.1).
//!
//! Users, trunks and trusted peers choose the next hop by Record-Route and Contact. For a stranger
//! these only fill the request, and at most choose the port: its requests go back to the host that
//! its own messages come from. Otherwise a stranger could make us send to any host (§26.3.2.4).

use std::net::SocketAddr;

use super::{Dialog, heading::Heading};
use crate::proto::sip::{
    message::NameAddr,
    path::{ConnectionId, Path, Transport},
    uri::Uri,
};

impl Dialog {
    /// Whether the caller is a stranger.
    pub fn is_of_stranger(&self) -> bool {
        self.heading == Heading::Source
    }

    /// The path that a request to the peer takes.
    pub fn next_hop(&self) -> Path {
        self.hops().first().copied().unwrap_or(self.path)
    }

    /// The Request-URI and the Route header fields of a request to the peer (§12.2.1.1).
    pub(super) fn routed(&self) -> (Uri, Vec<NameAddr>) {
        match self.route_set.split_first() {
            None => (self.remote_target.clone(), Vec::new()),
            Some((first, _)) if first.uri().has_param("lr") => {
                (self.remote_target.clone(), self.route_set.clone())
            }
            // A strict router expects its own URI as Request-URI, and the target at the end of the
            // Route.
            Some((first, rest)) => {
                let mut routes = rest.to_vec();
                routes.push(NameAddr::from(self.remote_target.clone()));
                (first.uri().clone(), routes)
            }
        }
    }

    /// A connection was lost.
    pub fn stream_lost(&mut self, connection: ConnectionId) {
        if self.path.connection == Some(connection) {
            self.lost = Some(connection);
        }
    }

    /// Sets the path to the peer.
    pub(super) fn follow(&mut self, path: Path) {
        self.is_own_stream &= path.connection == self.path.connection;
        self.path = path;
    }

    /// Whether the connection of `path` was lost.
    pub(super) fn has_lost_stream(&self) -> bool {
        self.path.connection.is_some() && self.path.connection == self.lost
    }

    /// The paths that a request to the peer can take, the best one first: those to the next hop that
    /// the peer names, and that of the peer's own messages. There is at least one.
    ///
    /// An open stream is used for its host whatever the port: the remote port of a stream that the
    /// peer opened is not the port where it listens (RFC 3261 §18, RFC 5923). Host names are not
    /// resolved. For a host name, and for a next hop that is the peer itself, the path of the
    /// peer's own messages is the right one, through any NAT.
    pub fn hops(&self) -> Vec<Path> {
        let uri = match (self.heading, self.route_set.first()) {
            (Heading::Source, route) => {
                return self.own_way(route.map_or(&self.remote_target, NameAddr::uri));
            }
            (Heading::Path, None) => return self.own_way(&self.remote_target),
            (Heading::Path | Heading::Contact, Some(route)) => route.uri(),
            (Heading::Contact, None) => &self.remote_target,
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
    /// on. Over a stream, the named port is used once the stream is lost, because the remote port of
    /// the stream was only good for that stream.
    fn own_way(&self, uri: &Uri) -> Vec<Path> {
        let path = self.path;
        let is_stranger = self.is_of_stranger();
        if path.transport == Transport::Udp {
            // A stranger that sends from the port where it listens is reached there, whatever port
            // it names.
            let listens_here = is_stranger && path.source() == path.peer;
            let named = path.to_named_port(uri).filter(|_| !listens_here);
            return vec![named.unwrap_or(path)];
        }
        let mut named = match self.is_own_stream {
            true => Vec::new(),
            false => path.to_listeners(uri),
        };
        if is_stranger {
            named.retain(|named| named.peer.ip() == path.peer.ip());
            // `sender` marks streams to strangers; these have a limit of their own.
            named.iter_mut().for_each(|named| named.sender = Some(path.peer));
        }
        if named.is_empty() || !self.has_lost_stream() {
            named.insert(0, path);
        }
        named
    }
}
