//! All sockets of one node: binds them, starts their readers, and finds the socket that a message
//! leaves by.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    accept::StreamListener,
    connect::{self, Target},
    connections::{Connections, Origin, Sent},
    rates::Rates,
    settings::{SignallingConfig, SipListener, StartError},
    stream::{Inbound, Streams},
    tls::TlsConfigs,
    udp::UdpListener,
};
use aftertone_core::proto::sip::{
    path::{ConnectionId, Path, Transport},
    standing::KnownPeers,
    transmit::{NextHop, Transmit},
};

/// Host names that are remembered for outgoing TLS. With more, an entry is dropped: most are no
/// longer in use.
const MAX_HOSTS: usize = 4_096;

/// All sockets of a node, for sending.
#[derive(Debug)]
pub(super) struct Network {
    datagrams: Vec<UdpListener>,
    streams: Arc<Streams>,
    /// The addresses that streams are accepted on.
    stream_listeners: Vec<SipListener>,
    client: ClientPort,
    /// The host that the certificate at an address must name.
    hosts: BTreeMap<SocketAddr, String>,
}

/// The bound sockets and their readers.
pub(super) struct Bound {
    pub network: Network,
    /// The bound addresses, in the order of the configuration.
    pub listeners: Vec<SipListener>,
    pub readers: JoinSet<()>,
    /// The source port of outgoing streams for which there is no listener.
    pub client_port: u16,
}

/// Settings that can change while calls are up.
#[derive(Debug)]
pub(super) struct Reloadable {
    pub tls: watch::Receiver<TlsConfigs>,
    pub trusted: watch::Receiver<Vec<ipnet::IpNet>>,
    pub known: watch::Receiver<Arc<KnownPeers>>,
}

impl Network {
    /// Binds the configured addresses. Everything that is read goes to `inbound`, until `cancel`.
    pub(super) fn bind(
        config: &SignallingConfig,
        reloadable: Reloadable,
        inbound: mpsc::Sender<Inbound>,
        cancel: CancellationToken,
    ) -> Result<Bound, StartError> {
        let has_certificate = config.tls.identity.is_some();
        let rates = Arc::new(Rates::new(reloadable.trusted, reloadable.known));
        let streams = Arc::new(Streams {
            limits: config.limits,
            connections: Connections::new(config.limits),
            rates: Arc::clone(&rates),
            inbound: inbound.clone(),
            tls: reloadable.tls,
            web_origins: config.web_origins.clone(),
            cancel: cancel.clone(),
            tasks: TaskTracker::new(),
        });
        let (mut datagrams, mut accepting) = (Vec::new(), Vec::new());
        let mut listeners = Vec::new();
        for listener in config.listen.iter().copied() {
            let bind_error = |source| StartError::Bind { listener, source };
            let only_v6 = leaves_ipv4(listener, &config.listen);
            if listener.transport.is_secure() && !has_certificate {
                return Err(StartError::NoCertificate { listener });
            }
            if listener.transport == Transport::Udp {
                let socket = UdpListener::bind(listener.address, only_v6).map_err(bind_error)?;
                listeners.push(SipListener { address: socket.bound(), ..listener });
                datagrams.push(socket);
            } else {
                let socket = StreamListener::bind(listener, only_v6).map_err(bind_error)?;
                listeners.push(socket.bound());
                accepting.push(socket);
            }
        }
        // Reading begins only after everything is bound.
        let mut readers = JoinSet::new();
        for listener in &datagrams {
            let (rates, inbound) = (Arc::clone(&rates), inbound.clone());
            readers.spawn(listener.clone().read(rates, inbound, cancel.clone()));
        }
        let stream_listeners = accepting.iter().map(StreamListener::bound).collect();
        for listener in accepting {
            readers.spawn(listener.accept(Arc::clone(&streams)));
        }
        let client = ClientPort::reserve().map_err(StartError::NoPort)?;
        let client_port = client.number;
        let hosts = BTreeMap::new();
        let network = Self { datagrams, streams, stream_listeners, client, hosts };
        Ok(Bound { network, listeners, readers, client_port })
    }

    /// Sends one message by its path.
    ///
    /// # Errors
    /// The path, when no socket leads there. A later failure comes back as
    /// [`Inbound::Undelivered`].
    pub(super) async fn send(&self, transmit: Transmit) -> Result<(), Path> {
        let path = transmit.path;
        if path.transport == Transport::Udp {
            let fittest = self
                .datagrams
                .iter()
                .filter_map(|listener| Some((listener.fitness(path.local)?, listener)))
                .max_by_key(|(fitness, _)| *fitness);
            let Some((_, listener)) = fittest else {
                warn!(local = %path.local, "no SIP socket for this address");
                return Err(path);
            };
            return listener.send(&transmit.bytes, path.local, path.peer).await.map_err(|error| {
                debug!(peer = %path.peer, local = %path.local, %error, "no way for datagrams");
                path
            });
        }
        match self.streams.connections.send(transmit, self.host_of(path)) {
            Sent::Queued => Ok(()),
            Sent::GivenUp(path) => Err(path),
            Sent::NoConnection(transmit) => self.open_for(transmit),
        }
    }

    /// A request of ours on this path got no answer for `silence`. If nothing else came by its
    /// stream either, the stream is dead, whatever the system says, and the next request opens
    /// another.
    pub(super) fn give_up_silent(&self, path: Path, silence: Duration) {
        self.streams.connections.give_up_silent(path, self.host_of(path), silence);
    }

    /// Sends nothing more over this stream; it ends after the queued messages are written. Returns
    /// the peer of the stream, unless another stream leads there.
    pub(super) fn close(&self, id: ConnectionId) -> Option<(Transport, SocketAddr)> {
        let peer = self.streams.connections.peer_reached_by(id);
        self.streams.connections.close(id);
        peer
    }

    /// Tells the table of streams which peers the endpoint knows, and which streams it needs.
    pub(super) fn introduce(&self, known: Arc<KnownPeers>, needed: &BTreeSet<ConnectionId>) {
        self.streams.connections.introduce(known, needed);
    }

    /// Over TLS, the peer at `peer` must show a certificate for `host`.
    pub(super) fn know_host(&mut self, peer: SocketAddr, host: String) {
        if self.hosts.len() >= MAX_HOSTS && !self.hosts.contains_key(&peer) {
            self.hosts.pop_first();
        }
        self.hosts.insert(peer, host);
    }

    /// Waits until every stream has ended; they end on `cancel`.
    pub(super) async fn ended(&self) {
        self.streams.tasks.close();
        self.streams.tasks.wait().await;
    }

    /// Opens a stream for a message. The message, and those that follow it, wait in the queue
    /// meanwhile.
    fn open_for(&self, mut transmit: Transmit) -> Result<(), Path> {
        let asked = transmit.path;
        let (transport, local) = (asked.transport, asked.local);
        if !matches!(transport, Transport::Tcp | Transport::Tls) {
            debug!(peer = %asked.peer, transport = transport.name(), "the connection has gone");
            return Err(asked);
        }
        // A stranger may name any port.
        let origin = if asked.sender.is_some() { Origin::Returned } else { Origin::Opened };
        let known = || self.host_of(asked).map(str::to_owned);
        let (origin, host) = match &transmit.next_hop {
            NextHop::SentBy { port, host } => {
                let peer = SocketAddr::new(asked.peer.ip(), *port);
                transmit.path = Path { peer, connection: None, ..asked };
                (Origin::Returned, host.as_deref().map(str::to_owned))
            }
            NextHop::Host(name) => (origin, known().or_else(|| Some(name.as_ref().to_owned()))),
            NextHop::Peer => (origin, known()),
        };
        let path = transmit.path;
        let connections = &self.streams.connections;
        // There may already be a stream to the address that the message goes to.
        if path.peer != asked.peer || host.as_deref() != self.host_of(asked) {
            transmit = match connections.send(transmit, host.as_deref()) {
                Sent::Queued => return Ok(()),
                Sent::GivenUp(_) => return Err(asked),
                Sent::NoConnection(transmit) => transmit,
            };
        }
        let Some(connection) = connections.open(transport, path.peer, origin, host.clone()) else {
            warn!(peer = %path.peer, "too many SIP connections were opened; no more are");
            return Err(asked);
        };
        let target = Target {
            transport,
            peer: path.peer,
            from: local.ip(),
            listener_port: self.listener_port(transport, local.ip()),
            client_port: self.client.number,
            host: host.clone(),
        };
        // The stream is the newest to this peer, and its queue is empty: only an enormous message
        // does not fit.
        match connections.send(transmit, host.as_deref()) {
            Sent::Queued => {}
            Sent::GivenUp(_) | Sent::NoConnection(_) => return Err(asked),
        }
        let streams = Arc::clone(&self.streams);
        self.streams.tasks.spawn(async move { connect::run(target, connection, &streams).await });
        Ok(())
    }

    /// The host that the certificate at the other end must name.
    fn host_of(&self, path: Path) -> Option<&str> {
        if path.transport.is_secure() {
            self.hosts.get(&path.peer).map(String::as_str)
        } else {
            None
        }
    }

    /// The port on which a peer that we have connected to can reach us.
    fn listener_port(&self, transport: Transport, local: IpAddr) -> Option<u16> {
        let fitness = |listener: &&SipListener| match listener.address.ip() {
            ip if ip == local => 2,
            ip if ip.is_unspecified() => 1,
            _ => 0,
        };
        self.stream_listeners
            .iter()
            .filter(|listener| listener.transport == transport)
            .max_by_key(fitness)
            .map(|listener| listener.address.port())
    }
}

/// A port that this node holds without listening on it. Outgoing streams of a transport without a
/// listener leave from it, so that Contact can name the address that the peer sees before there is
/// a stream.
#[derive(Debug)]
struct ClientPort {
    number: u16,
    _socket: Socket,
}

impl ClientPort {
    fn reserve() -> io::Result<Self> {
        let reserve = |address: SocketAddr| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            // Streams that leave from this port set the same option.
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(false)?;
            }
            socket.bind(&address.into())?;
            let bound = socket.local_addr()?.as_socket();
            let number = bound.map(|bound| bound.port()).ok_or(io::ErrorKind::Unsupported)?;
            Ok(Self { number, _socket: socket })
        };
        // A host without IPv6 has IPv4.
        reserve((Ipv6Addr::UNSPECIFIED, 0).into())
            .or_else(|_: io::Error| reserve((Ipv4Addr::UNSPECIFIED, 0).into()))
    }
}

/// `[::]` takes IPv4 too, unless another listener has that port on IPv4.
fn leaves_ipv4(listener: SipListener, all: &[SipListener]) -> bool {
    listener.address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        && listener.address.port() != 0
        && all.iter().any(|other| {
            let shares_socket =
                (other.transport == Transport::Udp) == (listener.transport == Transport::Udp);
            shares_socket
                && other.address.is_ipv4()
                && other.address.port() == listener.address.port()
        })
}
