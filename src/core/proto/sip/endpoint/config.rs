//! How the endpoint describes itself, and the addresses in its messages.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;

use crate::proto::sip::{
    digest::Algorithm,
    path::{Path, Transport},
    transmit::Transmit,
    uri::Uri,
    validate,
};

/// How an endpoint describes itself, and its limits.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// The Server and User-Agent header fields.
    pub server_name: String,
    /// The user part of our Contact.
    pub contact_user: String,
    /// The address in Contact and Via; `None`: the local address that the peer reached.
    pub advertised: Option<IpAddr>,
    /// The realm of our challenges (RFC 3261 §22.1).
    pub realm: String,
    /// The domain of our users; if empty, our address.
    pub domain: String,
    /// The digest algorithms that our challenges offer; if empty, all.
    pub digest: Vec<Algorithm>,
    /// The port of our TCP listener. With it, requests too long for a datagram go over TCP
    /// (§18.1.1).
    pub tcp_port: Option<u16>,
    /// The addresses of our UDP listeners. Datagrams that follow a lost stream leave from them.
    pub udp_listeners: Vec<SocketAddr>,
    /// New requests get 503 while this many transactions are open.
    pub max_transactions: usize,
    /// New calls get 503 while this many dialogs are open.
    pub max_dialogs: usize,
    /// The Retry-After value of a 503.
    pub retry_after: Duration,
}

/// RFC 3261 §18.1.1: a longer request goes over a stream, if we have a TCP listener.
const MAX_DATAGRAM_REQUEST: usize = 1_300;
/// A call has two transactions, INVITE and BYE, and each is kept for 64*T1 after its end. This
/// limit suffices for a thousand calls a second.
const MAX_TRANSACTIONS: usize = 65_536;

impl EndpointConfig {
    /// The default configuration.
    pub fn new(server_name: String) -> Self {
        Self {
            server_name,
            contact_user: "aftertone".to_owned(),
            advertised: None,
            realm: "aftertone".to_owned(),
            domain: String::new(),
            digest: Vec::new(),
            tcp_port: None,
            udp_listeners: Vec::new(),
            max_transactions: MAX_TRANSACTIONS,
            max_dialogs: 5_000,
            retry_after: Duration::from_secs(10),
        }
    }

    /// Our Contact URI in a dialog, with the address that the peer reached or the advertised one.
    /// It is a SIPS URI only over TLS or WSS: over another transport a SIPS URI could not be
    /// reached, although §12.1.1 asks for one.
    pub(super) fn contact(&self, is_sips: bool, path: Path) -> String {
        let user = &self.contact_user;
        match path.transport {
            Transport::Tls if is_sips => format!("sips:{user}@{}", self.sent_by(path)),
            // RFC 7118 §5.2.
            Transport::Wss if is_sips => format!("sips:{user}@{};transport=ws", self.sent_by(path)),
            _ => self.contact_of(user, path),
        }
    }

    /// Our SIP URI with this user part, which has to be escaped already, as by `Uri`.
    pub(super) fn contact_of(&self, user: &str, path: Path) -> String {
        let transport = match path.transport {
            Transport::Udp => String::new(),
            other => format!(";transport={}", other.name().to_ascii_lowercase()),
        };
        format!("sip:{user}@{}{transport}", self.sent_by(path))
    }

    /// Whether a URI that came over `path` is at our domain, or at the address where we were
    /// reached. Without a configured domain any host name counts as ours, because the sender has
    /// reached us by it.
    pub(super) fn is_home(&self, uri: &Uri, path: Path) -> bool {
        let is_name = match uri.ip_addr() {
            Some(ip) if ip == path.local.ip() || Some(ip) == self.advertised => return true,
            ip => ip.is_none(),
        };
        match self.domain.as_str() {
            "" => is_name,
            domain => uri.host().is_some_and(|host| {
                host.trim_end_matches('.').eq_ignore_ascii_case(domain.trim_end_matches('.'))
            }),
        }
    }

    /// The extensions that we understand.
    pub(super) fn supported(&self) -> &'static str {
        validate::SUPPORTED_TAGS
    }

    /// Our host and port for Via and Contact; IPv6 in brackets.
    pub(super) fn sent_by(&self, path: Path) -> String {
        SocketAddr::new(path.told_host(self.advertised), path.local.port()).to_string()
    }

    /// Builds a request for `way`, whose next hop is at `next_hop`. `build` gets the path that is
    /// used in the end: TCP if the request is too long for a datagram, there is a listener, and
    /// `may_stream` is set. The second value tells whether that is so.
    pub(super) fn packed(
        &self,
        (way, next_hop): (Path, &Uri),
        may_stream: bool,
        build: impl Fn(Path) -> Bytes,
    ) -> (Transmit, bool) {
        let way = self.leaving_listener(way);
        let bytes = build(way);
        let is_long = way.transport == Transport::Udp && bytes.len() > MAX_DATAGRAM_REQUEST;
        match self.tcp_port.filter(|_| is_long && may_stream) {
            None => (Transmit::request(way, next_hop, bytes), false),
            Some(port) => {
                let path = over_tcp(way, port);
                (Transmit::request(path, next_hop, build(path)), true)
            }
        }
    }

    /// The same path from the port of a UDP listener of ours. A path that was made of a stream's
    /// has the port of a stream.
    pub(super) fn leaving_listener(&self, way: Path) -> Path {
        let fits = |ip: IpAddr| ip == way.local.ip() || ip.is_unspecified();
        let fitting = self.udp_listeners.iter().filter(|listener| fits(listener.ip()));
        let ports: Vec<u16> = fitting.map(SocketAddr::port).collect();
        let is_bound = way.transport != Transport::Udp || ports.contains(&way.local.port());
        match ports.first().filter(|_| !is_bound) {
            Some(port) => Path { local: SocketAddr::new(way.local.ip(), *port), ..way },
            None => way,
        }
    }
}

/// The same next hop over TCP.
fn over_tcp(path: Path, port: u16) -> Path {
    let mut local = path.local;
    local.set_port(port);
    Path { sender: None, local, transport: Transport::Tcp, connection: None, ..path }
}
