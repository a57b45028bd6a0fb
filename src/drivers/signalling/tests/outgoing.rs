//! Streams that we open.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::peers::{Authority, config};
use crate::drivers::signalling::{
    SignallingConfig, StreamLimits, TlsFiles,
    network::{Bound, Network, Reloadable},
    stream::Inbound,
    tls::TlsConfigs,
};
use aftertone_core::proto::sip::{
    path::{ConnectionId, Path, Transport},
    transmit::{NextHop, Transmit},
};

const SOON: Duration = Duration::from_secs(20);

/// All sockets of a node, without its endpoint.
struct Sockets {
    network: Network,
    inbound: mpsc::Receiver<Inbound>,
    local: SocketAddr,
    client_port: u16,
    _readers: JoinSet<()>,
    _cancel: tokio_util::sync::DropGuard,
}

impl Sockets {
    fn bind(config: &SignallingConfig) -> Self {
        let (sender, inbound) = mpsc::channel(1_024);
        let cancel = CancellationToken::new();
        let reloadable = Reloadable {
            tls: watch::channel(TlsConfigs::load(&config.tls).unwrap()).1,
            trusted: watch::channel(Vec::new()).1,
            known: watch::channel(Default::default()).1,
        };
        let Bound { network, listeners, readers, client_port } =
            Network::bind(config, reloadable, sender, cancel.clone()).unwrap();
        let local = listeners[0].address;
        let _cancel = cancel.drop_guard();
        Self { network, inbound, local, client_port, _readers: readers, _cancel }
    }

    fn path(&self, transport: Transport, peer: SocketAddr) -> Path {
        Path { transport, ..Path::udp(self.local, peer) }
    }

    async fn send(&self, path: Path, text: &'static str) -> Result<(), Path> {
        self.network.send(raw(path, Bytes::from_static(text.as_bytes()))).await
    }

    async fn hear(&mut self) -> Inbound {
        timeout(SOON, self.inbound.recv()).await.unwrap().unwrap()
    }
}

fn raw(path: Path, bytes: Bytes) -> Transmit {
    Transmit { path, next_hop: NextHop::Peer, bytes }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(SOON, listener.accept()).await.unwrap().unwrap().0
}

/// An address without a listener.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_stream_is_opened_once_and_used_again() {
    let mut node = Sockets::bind(&config(&[Transport::Tcp]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = node.path(Transport::Tcp, listener.local_addr().unwrap());
    // Two messages before the peer has accepted, one over a stream that has gone.
    node.send(path, "one ").await.unwrap();
    node.send(path, "two ").await.unwrap();
    let gone = Path { connection: Some(ConnectionId(99)), ..path };
    node.send(gone, "three").await.unwrap();
    let mut peer = accept(&listener).await;
    let mut text = [0; 13];
    peer.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"one two three");

    peer.write_all(b"SIP/2.0 200 OK\r\nl: 0\r\n\r\n").await.unwrap();
    let Inbound::Message { path: back, .. } = node.hear().await else { panic!("no message") };
    assert_eq!((back.peer, back.local), (path.peer, node.local), "the port of our listener");
    assert!(back.connection.is_some());
}

#[tokio::test]
async fn a_connection_that_is_refused_is_reported_for_each_message() {
    let mut node = Sockets::bind(&config(&[Transport::Tcp]));
    let path = node.path(Transport::Tcp, nobody().await);
    let other = Path { connection: Some(ConnectionId(99)), ..path };
    node.send(path, "one").await.unwrap();
    node.send(other, "two").await.unwrap();
    for expected in [path, other] {
        let Inbound::Undelivered(path) = node.hear().await else { panic!("not reported") };
        assert_eq!(path, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_shake_hands_is_not_waited_for() {
    let mut node = Sockets::bind(&config(&[Transport::Tcp]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = node.path(Transport::Tls, listener.local_addr().unwrap());
    node.send(path, "one").await.unwrap();
    assert!(matches!(node.hear().await, Inbound::Undelivered(lost) if lost == path));
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_given_up_and_all_is_reported() {
    let mut node = Sockets::bind(&config(&[Transport::Tcp]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = node.path(Transport::Tcp, listener.local_addr().unwrap());
    node.send(path, "hello").await.unwrap();
    let _peer = accept(&listener).await;
    let long = Bytes::from(vec![b'x'; 60_000]);
    let mut attempts = 0;
    while node.network.send(raw(path, long.clone())).await.is_ok() {
        attempts += 1;
        assert!(attempts < 100_000, "the peer was never given up");
        tokio::task::yield_now().await;
    }
    assert!(matches!(node.hear().await, Inbound::Undelivered(lost) if lost == path));
}

#[tokio::test]
async fn a_stream_of_which_none_are_accepted_leaves_from_a_port_that_is_known_before() {
    let mut node = Sockets::bind(&config(&[Transport::Udp]));
    let local: SocketAddr = ([127, 0, 0, 1], node.client_port).into();
    for text in ["one", "two"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let path = node.path(Transport::Tcp, listener.local_addr().unwrap());
        node.send(path, text).await.unwrap();
        let mut peer = accept(&listener).await;
        assert_eq!(peer.peer_addr().unwrap(), local, "{text}");
        peer.write_all(b"SIP/2.0 200 OK\r\nl: 0\r\n\r\n").await.unwrap();
        let Inbound::Message { path: back, .. } = node.hear().await else { panic!("no message") };
        assert_eq!(back.local, local, "{text}");
        drop(peer);
        while !matches!(node.hear().await, Inbound::Ended(_)) {}
    }
    assert!(TcpStream::connect(local).await.is_err(), "nobody listens there");
}

#[tokio::test]
async fn what_cannot_go_out_as_a_datagram_is_reported() {
    let mut node = Sockets::bind(&config(&[Transport::Udp]));
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let path = node.path(Transport::Udp, nobody);
    node.send(path, "one").await.unwrap();
    let Inbound::Undelivered(lost) = node.hear().await else { panic!("not reported") };
    assert_eq!((lost.transport, lost.peer), (Transport::Udp, nobody));

    let somebody = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let path = node.path(Transport::Udp, somebody.local_addr().unwrap());
    let too_long = Bytes::from(vec![b'x'; 65_530]);
    assert_eq!(node.network.send(raw(path, too_long)).await, Err(path));
    node.send(path, "short").await.unwrap();
    assert_eq!(timeout(SOON, somebody.recv(&mut [0; 64])).await.unwrap().unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_no_more_is_given_up() {
    let mut node = Sockets::bind(&config(&[Transport::Tcp]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = node.path(Transport::Tcp, listener.local_addr().unwrap());
    let mut ping = [0; 4];
    node.send(path, "\r\n\r\n").await.unwrap();
    let mut peer = accept(&listener).await;
    peer.read_exact(&mut ping).await.unwrap();
    // Many peers do not answer with pongs.
    tokio::time::sleep(Duration::from_secs(60)).await;
    node.send(path, "\r\n\r\n").await.unwrap();
    peer.read_exact(&mut ping).await.unwrap();
    peer.write_all(b"\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let pinged = Instant::now();
    node.send(path, "\r\n\r\n").await.unwrap();
    peer.read_exact(&mut ping).await.unwrap();
    assert_eq!(peer.read(&mut ping).await.unwrap(), 0, "it is closed");
    assert!(matches!(node.hear().await, Inbound::Ended(_)));
    let after = pinged.elapsed();
    assert!((10..12).contains(&after.as_secs()), "{after:?}");
}

#[tokio::test]
async fn all_calls_of_a_trunk_wait_while_its_stream_is_opened() {
    let authority = Authority::new();
    let mut config = config(&[Transport::Tcp]);
    config.tls = authority.client();
    let node = Sockets::bind(&config);
    let server = TlsConfigs::load(&authority.server()).unwrap();
    let acceptor = TlsAcceptor::from(server.server_of(Transport::Tls).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = node.path(Transport::Tls, listener.local_addr().unwrap());
    let invite = Bytes::from(vec![b'i'; 1_500]);
    let calls = 1_000;
    for _ in 0..calls {
        node.network.send(raw(path, invite.clone())).await.unwrap();
    }
    let mut peer = acceptor.accept(accept(&listener).await).await.unwrap();
    let mut heard = vec![0; calls * invite.len()];
    timeout(SOON, peer.read_exact(&mut heard)).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_room_while_a_stream_is_opened_is_reported_at_once() {
    let mut node = Sockets::bind(&config(&[Transport::Tcp]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = node.path(Transport::Tls, listener.local_addr().unwrap());
    let began = Instant::now();
    let mut waiting = 0;
    while node.send(path, "one").await.is_ok() {
        waiting += 1;
        assert!(waiting < 100_000, "it is never full");
    }
    for _ in 0..waiting {
        assert!(matches!(node.hear().await, Inbound::Undelivered(lost) if lost == path));
    }
    assert!(began.elapsed() < StreamLimits::default().connect);
}

#[tokio::test]
async fn a_websocket_that_has_gone_cannot_be_opened_by_us() {
    let node = Sockets::bind(&config(&[Transport::Ws]));
    let path = node.path(Transport::Ws, nobody().await);
    assert_eq!(node.send(path, "one").await, Err(path));
}

/// A node, and the TLS of a provider whose certificate the node trusts.
fn node_and_provider() -> (Sockets, TlsAcceptor) {
    let authority = Authority::new();
    let mut config = config(&[Transport::Tcp]);
    config.tls = authority.client();
    let identity = Some(authority.certificate("sip.provider.example"));
    let server = TlsConfigs::load(&TlsFiles { identity, ..TlsFiles::default() }).unwrap();
    (Sockets::bind(&config), TlsAcceptor::from(server.server_of(Transport::Tls).unwrap()))
}

#[tokio::test]
async fn over_tls_the_peer_must_be_who_its_message_says() {
    let name = "sip.provider.example";
    for is_response in [true, false] {
        let (node, acceptor) = node_and_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listens = listener.local_addr().unwrap();
        let (peer, connection, next_hop) = if is_response {
            let next_hop = NextHop::SentBy { port: listens.port(), host: Some(name.into()) };
            (nobody().await, Some(ConnectionId(99)), next_hop)
        } else {
            (listens, None, NextHop::Host(name.into()))
        };
        let path = Path { connection, ..node.path(Transport::Tls, peer) };
        let bytes = Bytes::from_static(b"one");
        node.network.send(Transmit { path, next_hop, bytes }).await.unwrap();
        let mut peer = acceptor.accept(accept(&listener).await).await.unwrap();
        let mut text = [0; 3];
        peer.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"one");
    }
}

#[tokio::test]
async fn over_tls_the_peer_must_be_who_it_is_said_to_be() {
    let (mut node, acceptor) = node_and_provider();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = node.path(Transport::Tls, listener.local_addr().unwrap());

    // Without a name, the certificate must be for the address.
    node.send(path, "one").await.unwrap();
    assert!(acceptor.accept(accept(&listener).await).await.is_err());
    assert!(matches!(node.hear().await, Inbound::Undelivered(lost) if lost == path));

    node.network.know_host(path.peer, "sip.provider.example".to_owned());
    node.send(path, "two").await.unwrap();
    let mut peer = acceptor.accept(accept(&listener).await).await.unwrap();
    let mut text = [0; 3];
    peer.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"two");
}
