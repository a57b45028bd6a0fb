//! Where the requests of a dialog go: Request-URI, Route, and the next hop (RFC 3261 §12.2.1.1).
//!
//! Users, trunks and trusted peers say where they want to be asked, by Record-Route and Contact.
//! What a stranger says there stands in the request and decides no more than a port: its requests
//! go back to the host where its own messages come from: otherwise it could have us send to any
//! host (§26.3.2.4).

use std::net::SocketAddr;

use super::{Dialog, heading::Heading};
use crate::proto::sip::{
    message::NameAddr,
    path::{ConnectionId, Path, Transport},
    uri::Uri,
};

impl Dialog {
    /// The endpoint does not know the caller.
    pub fn is_of_stranger(&self) -> bool {
        self.heading == Heading::Source
    }

    /// Where a request to the peer is sent to.
    pub fn next_hop(&self) -> Path {
        self.hops().0
    }

    /// Where it is sent to when nobody is there; `None` when there is one way only.
    pub fn other_hop(&self) -> Option<Path> {
        self.hops().1
    }

    /// The Request-URI and the Route header fields of a request to the peer (§12.2.1.1).
    pub(super) fn routed(&self) -> (Uri, Vec<NameAddr>) {
        match self.route_set.split_first() {
            None => (self.remote_target.clone(), Vec::new()),
            Some((first, _)) if first.uri().has_param("lr") => {
                (self.remote_target.clone(), self.route_set.clone())
            }
            // A strict router wants its own URI as Request-URI, and the target at the end.
            Some((first, rest)) => {
                let mut routes = rest.to_vec();
                routes.push(NameAddr::from(self.remote_target.clone()));
                (first.uri().clone(), routes)
            }
        }
    }

    /// A stream has gone.
    pub fn stream_lost(&mut self, connection: ConnectionId) {
        if self.path.connection == Some(connection) {
            self.lost = Some(connection);
        }
    }

    /// The peer's own messages come this way from now on.
    pub(super) fn follow(&mut self, path: Path) {
        self.is_own_stream &= path.connection == self.path.connection;
        self.path = path;
    }

    /// The stream that the peer's newest message came by has gone.
    pub(super) fn has_lost_stream(&self) -> bool {
        self.path.connection.is_some() && self.path.connection == self.lost
    }

    /// The way that the next hop names, and that of the peer's own messages; the better one
    /// first. A stream that is there leads to its host whatever the port: that of a stream which
    /// the peer opened is not the one where it listens (RFC 3261 §18, RFC 5923). Names are not
    /// resolved: then, and when the peer is our neighbour, its own way is the right one, through
    /// any NAT.
    fn hops(&self) -> (Path, Option<Path>) {
        let uri = match (self.heading, self.route_set.first()) {
            (Heading::Source, route) => {
                return self.own_way(route.map_or(&self.remote_target, NameAddr::uri));
            }
            (Heading::Path, None) => return self.own_way(&self.remote_target),
            (Heading::Path | Heading::Contact, Some(route)) => route.uri(),
            (Heading::Contact, None) => &self.remote_target,
        };
        let Some(ip) = uri.ip_addr() else { return (self.path, None) };
        let transport = match uri.param("transport").and_then(Transport::from_name) {
            // RFC 3261 §26.2.2: TLS, over which of them it says.
            Some(Transport::Tcp) | None if uri.is_sips() => Transport::Tls,
            Some(transport) => transport,
            None => Transport::Udp,
        };
        let peer = SocketAddr::new(ip, uri.port().unwrap_or(transport.default_port()));
        if (peer, transport) == (self.path.peer, self.path.transport) {
            return (self.path, None);
        }
        let named = Path { peer, sender: None, transport, connection: None, ..self.path };
        let has_stream = self.path.connection.is_some();
        match has_stream && (ip, transport) == (self.path.peer.ip(), self.path.transport) {
            true if self.has_lost_stream() && !self.is_own_stream => (named, None),
            true => (self.path, Some(named)),
            false => (named, has_stream.then_some(self.path)),
        }
    }

    /// The way of the peer's own messages. Where it says that its next hop `uri` is at another
    /// port, datagrams go there at once, if it sends them from another port than it listens on; a
    /// stream is opened to there when the one that the messages came by is gone, for the port at
    /// the other end of that was one of the stream.
    fn own_way(&self, uri: &Uri) -> (Path, Option<Path>) {
        let path = self.path;
        let is_stranger = self.is_of_stranger();
        if path.transport == Transport::Udp {
            // A stranger that sends from where it listens is there, whatever else it names.
            let listens_here = is_stranger && path.source() == path.peer;
            let named = path.to_named_port(uri).filter(|_| !listens_here);
            return (named.unwrap_or(path), None);
        }
        let named = match path.to_listener(uri).filter(|_| !self.is_own_stream) {
            Some(named) if !is_stranger => named,
            // Such streams have a limit of their own.
            Some(named) if named.peer.ip() == path.peer.ip() => {
                Path { sender: Some(path.peer), ..named }
            }
            Some(_) | None => return (path, None),
        };
        match self.has_lost_stream() {
            true => (named, None),
            false => (path, Some(named)),
        }
    }
}
