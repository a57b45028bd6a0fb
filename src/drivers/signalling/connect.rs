//! Opens connections. Messages for the peer wait meanwhile, and are reported as undelivered when it
//! fails.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tracing::{debug, info};

use super::{
    accept::{canonical, tune},
    connections::Connection,
    stream::{self, Streams},
};
use aftertone_core::proto::sip::path::{Path, Transport};

/// The peer to connect to, and how.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// TCP or TLS.
    pub transport: Transport,
    /// Its address.
    pub peer: SocketAddr,
    /// The source address that the peer should see, if this host has it.
    pub from: IpAddr,
    /// The port where the peer can reach us; `None` when we do not listen.
    pub listener_port: Option<u16>,
    /// The source port when we do not listen.
    pub client_port: u16,
    /// The host whose certificate is expected; `None` expects one for the address.
    pub host: Option<String>,
}

/// Connects, then serves the connection until it ends.
pub(super) async fn run(target: Target, connection: Connection, streams: &Streams) {
    let opened = tokio::select! {
        () = streams.cancel.cancelled() => return,
        () = connection.given_up.cancelled() => Err(io::Error::other("too much waits for it")),
        opened = timeout(streams.limits.connect, open(&target, streams)) => {
            opened.unwrap_or_else(|late| Err(late.into()))
        }
    };
    let (stream, local) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let (peer, transport) = (target.peer, target.transport.name());
            info!(%peer, transport, %error, "SIP connection could not be opened");
            return streams.report_undelivered(connection.into_undelivered()).await;
        }
    };
    debug!(peer = %target.peer, transport = target.transport.name(), "SIP connection is open");
    let port = target.listener_port.unwrap_or(local.port());
    let (transport, connection_id) = (target.transport, Some(connection.id));
    let path = Path::udp(SocketAddr::new(local.ip(), port), target.peer);
    let path = Path { transport, connection: connection_id, ..path };
    stream::run(stream, connection, path, streams, None).await;
}

/// A stream of either kind.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

async fn open(target: &Target, streams: &Streams) -> io::Result<(Box<dyn Duplex>, SocketAddr)> {
    let stream = match target.listener_port {
        Some(_) => connect(target.peer, target.from, 0).await?,
        // Another stream to the same peer may use this source port, or have used it a moment ago.
        None => match connect(target.peer, target.from, target.client_port).await {
            Err(error) if is_taken(&error) => connect(target.peer, target.from, 0).await?,
            connected => connected?,
        },
    };
    tune(&stream)?;
    let local = canonical(stream.local_addr()?);
    if !target.transport.is_secure() {
        return Ok((Box::new(stream), local));
    }
    let config = streams.tls.borrow().client.clone();
    let config = config.ok_or_else(|| io::Error::other("no certificates are trusted"))?;
    let name = match &target.host {
        Some(host) => ServerName::try_from(host.clone()).map_err(io::Error::other)?,
        None => ServerName::from(target.peer.ip()),
    };
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok((Box::new(stream), local))
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

async fn connect(peer: SocketAddr, from: IpAddr, port: u16) -> io::Result<TcpStream> {
    let socket = match peer {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if port != 0 {
        socket.set_reuseaddr(true)?;
    }
    if from.is_ipv4() == peer.is_ipv4() && !from.is_unspecified() {
        // Binding fails for an address that this host does not have, such as an advertised one:
        // then the system chooses.
        if let Err(error) = socket.bind(SocketAddr::new(from, port)) {
            debug!(%from, %error, "the system chooses the address");
        }
    }
    socket.connect(peer).await
}
