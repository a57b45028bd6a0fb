//! Accepts connections: counts them, does their TLS and WebSocket handshakes, and serves them in
//! tasks.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    sync::Arc,
    time::Duration,
};

#[cfg(target_os = "linux")]
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::{
    connections::{Admission, JudgedBy},
    settings::SipListener,
    stream::{self, Streams},
    websocket,
};
use aftertone_core::proto::sip::path::{Path, Transport};

/// Connections that wait to be accepted: what systems allow by default.
const BACKLOG: i32 = 1_024;
/// Pause after a failure that does not pass at once, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// After this silence the system sends the first keep-alive probe, so that a stream does not
/// outlive the peer's host; [`ASK_AGAIN`] is the time between probes.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// How long sent data may stay unacknowledged by the peer's host (RFC 5482): less than the 32 s
/// after which a request of ours is given up, so that the next one opens another stream.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MS: u32 = 25_000;

/// A bound socket that accepts streams.
#[derive(Debug)]
pub(super) struct StreamListener {
    listener: TcpListener,
    bound: SipListener,
}

impl StreamListener {
    /// Binds an address; port 0 takes a free one. With `only_v6`, IPv4 is left to another listener.
    pub(super) fn bind(
        SipListener { transport, address }: SipListener,
        only_v6: bool,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // A restart must not wait for connections of the previous process.
        socket.set_reuse_address(true)?;
        if only_v6 {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let bound = SipListener { transport, address: listener.local_addr()? };
        Ok(Self { listener, bound })
    }

    /// The address that was bound.
    pub(super) fn bound(&self) -> SipListener {
        self.bound
    }

    /// Accepts until `streams.cancel`, whatever fails.
    pub(super) async fn accept(self, streams: Arc<Streams>) {
        loop {
            let accepted = tokio::select! {
                () = streams.cancel.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer, &streams),
                Err(error) if is_of_the_peer(&error) => {
                    debug!(%error, "a connection was over before it began");
                }
                Err(error) => {
                    warn!(listener = %self.bound, %error, "no connections can be accepted");
                    tokio::select! {
                        () = streams.cancel.cancelled() => return,
                        () = sleep(PAUSE) => {}
                    }
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr, streams: &Arc<Streams>) {
        let peer = canonical(peer);
        // A handshake costs more than a message.
        if streams.rates.take(peer.ip()).is_err() {
            return;
        }
        let judged_by =
            if streams.rates.is_trusted(peer.ip()) { JudgedBy::Operator } else { JudgedBy::Source };
        let Some(admission) = streams.connections.admit(peer.ip(), judged_by) else {
            debug!(%peer, "too many connections; another one is refused");
            return;
        };
        let (transport, shared) = (self.bound.transport, Arc::clone(streams));
        streams.tasks.spawn(async move {
            let served = tokio::select! {
                () = shared.cancel.cancelled() => Ok(()),
                served = serve(stream, peer, transport, &shared, admission) => served,
            };
            if let Err(error) = served {
                debug!(%peer, transport = transport.name(), %error, "no connection came about");
            }
        });
    }
}

/// Does the handshake, then serves the connection.
async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    transport: Transport,
    streams: &Streams,
    admission: Admission,
) -> io::Result<()> {
    let first_by = Instant::now() + streams.limits.message;
    let local = canonical(stream.local_addr()?);
    tune(&stream)?;
    let path = Path { transport, ..Path::udp(local, peer) };
    if !transport.is_secure() {
        return talk(stream, path, streams, admission, first_by).await;
    }
    let config = streams.tls.borrow().server_of(transport);
    let config = config.ok_or_else(|| io::Error::other("there is no certificate"))?;
    let stream = shake(&admission, first_by, TlsAcceptor::from(config).accept(stream)).await??;
    talk(stream, path, streams, admission, first_by).await
}

async fn talk<S>(
    stream: S,
    path: Path,
    streams: &Streams,
    admission: Admission,
    first_by: Instant,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let begin = |admission: &Admission, path: Path| {
        let connection = streams.connections.begin(admission, path.transport, path.peer);
        let path = Path { connection: Some(connection.id), ..path };
        (connection, path)
    };
    match path.transport {
        Transport::Ws | Transport::Wss => {
            let handshake = websocket::accept(stream, &streams.web_origins);
            let shaken = shake(&admission, first_by, handshake).await?;
            let (socket, is_foreign) = shaken.map_err(io::Error::other)?;
            let admission =
                if is_foreign { admit_page(admission, path, streams)? } else { admission };
            let (connection, path) = begin(&admission, Path { is_foreign, ..path });
            websocket::run(socket, connection, path, streams, first_by).await;
        }
        Transport::Udp | Transport::Tcp | Transport::Tls => {
            let (connection, path) = begin(&admission, path);
            stream::run(stream, connection, path, streams, Some(first_by)).await;
        }
    }
    Ok(())
}

/// Exchanges the admission of a source address for that of a foreign web page.
fn admit_page(admission: Admission, path: Path, streams: &Streams) -> io::Result<Admission> {
    drop(admission);
    let admission = streams.connections.admit(path.peer.ip(), JudgedBy::Stream);
    admission.ok_or_else(|| io::Error::other("too many connections"))
}

/// Runs a handshake within its time, and only as long as no other peer gets its place.
async fn shake<T>(
    admission: &Admission,
    first_by: Instant,
    handshake: impl Future<Output = T>,
) -> io::Result<T> {
    tokio::select! {
        () = admission.given_up.cancelled() => Err(io::Error::other("its place went to another")),
        shaken = timeout_at(first_by, handshake) => Ok(shaken?),
    }
}

/// Socket options of every stream: messages are sent at once, and dead peers are noticed.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    setsockopt(stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS)?;
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(ASK_AGAIN);
    SockRef::from(stream).set_tcp_keepalive(&keep_alive)
}

/// Turns IPv4-mapped IPv6 addresses, as a dual-stack socket reports them, into IPv4 addresses. A
/// link-local address keeps its scope id: without it no answer reaches it.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match (address.ip().to_canonical(), address) {
        (IpAddr::V6(ip), SocketAddr::V6(v6)) => {
            SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into()
        }
        (ip, _) => SocketAddr::new(ip, address.port()),
    }
}

/// Whether the failure concerns one connection only.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_keeps_its_link() {
        let link_local = "[fe80::1%3]:5060".parse().unwrap();
        assert_eq!(canonical(link_local), link_local);
        let mapped = "[::ffff:192.0.2.1]:5060".parse().unwrap();
        assert_eq!(canonical(mapped), "192.0.2.1:5060".parse().unwrap());
        let labelled = SocketAddrV6::new("2001:db8::1".parse().unwrap(), 5060, 7, 0).into();
        assert_eq!(canonical(labelled), "[2001:db8::1]:5060".parse().unwrap());
    }
}
