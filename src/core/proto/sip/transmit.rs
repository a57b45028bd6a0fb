//! Messages to send: the bytes, their path, and where a stream has to lead that is opened for them.
//!
//! Comes in: the path, and what the message says of its next hop: the topmost Via of the request
//! that a response answers, or the URI that a request goes to. Goes out: all that the sockets have
//! to know of a message, so that they never read one of ours.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    path::{Path, Transport},
    uri::{NameAddr, Uri, Via},
};

/// Bytes to send, their path, and their next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Sent from `path.local` to `path.peer`.
    pub path: Path,
    /// Where a new stream leads if no stream of `path` is open.
    pub next_hop: NextHop,
    /// One message.
    pub bytes: Bytes,
}

impl Transmit {
    /// A response to the request with `via` on top.
    pub(super) fn response(path: Path, via: &Via, bytes: Bytes) -> Self {
        Self { path, next_hop: NextHop::of_response(path, via), bytes }
    }

    /// A request whose next hop is at `uri`: see [`NextHop::uri`].
    pub(super) fn request(path: Path, uri: &Uri, bytes: Bytes) -> Self {
        Self { path, next_hop: NextHop::of_request(path, uri), bytes }
    }

    /// Bytes that are no SIP message, such as a keep-alive.
    pub(super) fn raw(path: Path, bytes: Bytes) -> Self {
        Self { path, next_hop: NextHop::Peer, bytes }
    }
}

/// The next hop of a message, as far as its path does not say it: where a stream leads that is
/// opened for the message, and the name that the certificate at the other end must be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// The peer of the path, by its address. So it is with datagrams, and with WebSockets: we open
    /// none (RFC 7118 §5).
    Peer,
    /// Sent-by of the request that a response answers: after the stream of the request has gone,
    /// the response goes to the address that the request came from, and to this port (RFC 3261
    /// §18.2.2). The source port of the request belongs to the stream that has gone.
    SentBy {
        /// The port in the topmost Via, or the default port of the transport; may be 0.
        port: u16,
        /// Over TLS, the host name in the topmost Via; `None` if it is an address.
        host: Option<Arc<str>>,
    },
    /// The host name that a request over TLS goes to (RFC 3261 §8.1.2), and for which a certificate
    /// is expected (RFC 5922 §7.1). The name was not resolved: the request goes to the peer of the
    /// path.
    Host(Arc<str>),
}

impl NextHop {
    /// The next hop of a response that takes `path`, to the request with `via` on top.
    pub(super) fn of_response(path: Path, via: &Via) -> Self {
        let host = match path.transport {
            Transport::Udp | Transport::Ws | Transport::Wss => return Self::Peer,
            Transport::Tcp => None,
            Transport::Tls => via.ip_addr().is_none().then(|| Arc::from(via.host.as_str())),
        };
        Self::SentBy { port: via.port.unwrap_or(path.transport.default_port()), host }
    }

    /// The next hop of a request that takes `path` to `uri`: see [`Self::uri`].
    pub(super) fn of_request(path: Path, uri: &Uri) -> Self {
        match uri.host() {
            Some(name) if path.transport == Transport::Tls && uri.ip_addr().is_none() => {
                Self::Host(name.into())
            }
            _ => Self::Peer,
        }
    }

    /// RFC 3261 §8.1.2: a request goes to its first Route if that is a loose router, and else to
    /// its Request-URI.
    pub(super) fn uri<'a>(request_uri: &'a Uri, routes: &'a [NameAddr]) -> &'a Uri {
        let route = routes.first().map(NameAddr::uri);
        route.filter(|uri| uri.has_param("lr")).unwrap_or(request_uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(transport: Transport) -> Path {
        let (local, peer) = ("192.0.2.1:5060", "192.0.2.10:40000");
        Path { transport, ..Path::udp(local.parse().unwrap(), peer.parse().unwrap()) }
    }

    #[test]
    fn a_response_goes_to_the_port_in_via_and_over_tls_to_its_host_name() {
        let (udp, tcp, tls) = (Transport::Udp, Transport::Tcp, Transport::Tls);
        for (transport, sent_by, expected) in [
            (tcp, "192.0.2.10:5062", Some((5062, None))),
            (tcp, "phone.example:5062", Some((5062, None))),
            (tcp, "phone.example", Some((5060, None))),
            (tls, "phone.example:5071", Some((5071, Some("phone.example")))),
            (tls, "phone.example", Some((5061, Some("phone.example")))),
            (tls, "192.0.2.10:5071", Some((5071, None))),
            (tls, "[2001:db8::1]", Some((5061, None))),
            (udp, "phone.example:5062", None),
            (Transport::Ws, "phone.invalid", None),
            (Transport::Wss, "phone.invalid", None),
        ] {
            let via = format!("SIP/2.0/{} {sent_by};branch=1", transport.name());
            let via: Via = via.parse().unwrap();
            let expected = expected.map_or(NextHop::Peer, |(port, host)| NextHop::SentBy {
                port,
                host: host.map(Arc::from),
            });
            assert_eq!(NextHop::of_response(over(transport), &via), expected, "{via}");
        }
    }

    #[test]
    fn a_request_over_tls_goes_to_the_name_of_its_first_route_or_of_its_request_uri() {
        let name = |transport, uri: &str, routes: &[&str]| {
            let uri = uri.parse().unwrap();
            let routes: Vec<NameAddr> = routes.iter().map(|route| route.parse().unwrap()).collect();
            match NextHop::of_request(over(transport), NextHop::uri(&uri, &routes)) {
                NextHop::Host(name) => name.to_string(),
                NextHop::Peer => String::new(),
                sent_by @ NextHop::SentBy { .. } => panic!("{sent_by:?}"),
            }
        };
        let phone = "sip:phone@phone.example";
        let (loose, strict) = ("<sip:proxy.example;lr>", "<sip:strict.example>");
        let tls = Transport::Tls;
        assert_eq!(name(tls, phone, &[]), "phone.example");
        assert_eq!(name(tls, phone, &[loose, strict]), "proxy.example");
        assert_eq!(name(tls, phone, &[strict, loose]), "phone.example");
        assert_eq!(name(tls, phone, &["<sip:192.0.2.20;lr>"]), "");
        for address in ["sip:phone@192.0.2.10", "sip:phone@[2001:db8::1]:5061", "tel:+4930"] {
            assert_eq!(name(tls, address, &[]), "", "{address}");
        }
        for transport in [Transport::Udp, Transport::Tcp, Transport::Ws, Transport::Wss] {
            assert_eq!(name(transport, phone, &[loose]), "", "{transport:?}");
        }
    }
}
