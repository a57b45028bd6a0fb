//! The API's listener: how many connections there are, and how long one may be still.
//!
//! axum runs the connections. What it has no setting for is done here, below HTTP: a connection on
//! which nothing moves in either direction for a while is closed, and there are never more than a
//! fixed number. A client that sends its head byte by byte holds one of these places, not more.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, serve::Listener};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, Sleep, sleep},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};
use tokio_util::{either::Either, sync::CancellationToken};
use tracing::debug;

/// How many connections may be open; further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 4096;

/// How long nothing may move. Longer than a request may take, so that only the client can cause it.
const MAX_IDLE: Duration = Duration::from_secs(75);

/// How long a handshake of TLS may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What TLS handshakes show, as it is now; `None` for plain HTTP.
pub type Identity = Option<watch::Receiver<Arc<ServerConfig>>>;

/// Serves the API until `cancel`, then lets the requests that run come to their end.
///
/// # Errors
/// The listener has failed.
pub async fn serve(
    listener: TcpListener,
    identity: Identity,
    router: Router,
    cancel: CancellationToken,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = Connections { listener, identity, places, handshakes: JoinSet::new() };
    axum::serve(connections, router).with_graceful_shutdown(cancel.cancelled_owned()).await
}

/// A listener that gives out a bounded number of connections. Handshakes run beside each other, so
/// that a slow one holds up nobody.
struct Connections {
    listener: TcpListener,
    identity: Identity,
    places: Arc<Semaphore>,
    handshakes: JoinSet<Option<(Stream, SocketAddr)>>,
}

/// With TLS or without.
type Stream = Connection<Either<TcpStream, Box<TlsStream<TcpStream>>>>;

impl Connections {
    /// The next client; it holds a place from now on.
    async fn next(
        places: &Arc<Semaphore>,
        listener: &mut TcpListener,
    ) -> (OwnedSemaphorePermit, TcpStream, SocketAddr) {
        let place = Arc::clone(places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        // axum's own accept waits and tries again when the system has no descriptors left.
        let (stream, peer) = Listener::accept(listener).await;
        if let Err(cause) = stream.set_nodelay(true) {
            debug!(%cause, "TCP_NODELAY could not be set");
        }
        (place, stream, peer)
    }
}

impl Listener for Connections {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                Some(shaken) = self.handshakes.join_next(), if !self.handshakes.is_empty() => {
                    if let Ok(Some(accepted)) = shaken {
                        return accepted;
                    }
                }
                (place, stream, peer) = Self::next(&self.places, &mut self.listener) => {
                    let Some(identity) = &self.identity else {
                        return (Connection::new(Either::Left(stream), MAX_IDLE, Some(place)), peer);
                    };
                    let acceptor = TlsAcceptor::from(Arc::clone(&identity.borrow()));
                    self.handshakes.spawn(async move {
                        let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
                        match shaken {
                            Ok(Ok(stream)) => {
                                let stream = Either::Right(Box::new(stream));
                                Some((Connection::new(stream, MAX_IDLE, Some(place)), peer))
                            }
                            Ok(Err(cause)) => {
                                debug!(%cause, %peer, "A TLS handshake has failed");
                                None
                            }
                            Err(_) => {
                                debug!(%peer, "A TLS handshake took too long");
                                None
                            }
                        }
                    });
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A stream that fails when nothing has moved for too long.
struct Connection<S> {
    stream: S,
    max_idle: Duration,
    idle: Pin<Box<Sleep>>,
    /// Given back when the connection is dropped.
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Connection<S> {
    fn new(stream: S, max_idle: Duration, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { stream, max_idle, idle: Box::pin(sleep(max_idle)), _place: place }
    }

    /// Restarts the clock when something has moved, and looks at it when nothing has.
    fn watched<T>(
        &mut self,
        context: &mut Context<'_>,
        moved: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            let deadline = Instant::now() + self.max_idle;
            self.idle.as_mut().reset(deadline);
            return moved;
        }
        match self.idle.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watched(context, moved)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.watched(context, moved)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A flush that is ready has moved nothing; one that is not waits for the client.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() { flushed } else { self.watched(context, flushed) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.watched(context, moved)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::api::fake::{CALL, Fake, TOKEN};

    #[tokio::test(start_paused = true)]
    async fn a_still_connection_fails_and_a_moving_one_does_not() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut connection = Connection::new(ours, Duration::from_secs(10), None);
        let mut byte = [0];
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(9)).await;
            theirs.write_all(b"x").await.unwrap();
            connection.read_exact(&mut byte).await.unwrap();
        }
        let began = Instant::now();
        let failed = connection.read(&mut byte).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn responses_on_the_wire_are_dated_and_have_a_length() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let server = tokio::spawn(serve(listener, None, Fake::new().router(), cancel.clone()));

        let keep_alive = format!("POST /v1.0/communications/calls/{CALL}/keepAlive");
        let table = [
            ("GET /v1.0/communications/calls", "wrong", "401", "content-length: "),
            // Clients read what has neither a body nor a length until the connection ends.
            (&keep_alive, TOKEN, "200", "content-length: 0\r\n"),
        ];
        for (asked, token, status, length) in table {
            let mut client = TcpStream::connect(address).await.unwrap();
            let request = format!(
                "{asked} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
                 Authorization: Bearer {token}\r\n\r\n"
            );
            client.write_all(request.as_bytes()).await.unwrap();
            let mut response = String::new();
            client.read_to_string(&mut response).await.unwrap();
            let response = response.to_lowercase();
            assert!(response.starts_with(&format!("http/1.1 {status} ")), "{response}");
            for header in ["date: ", "request-id: ", "client-request-id: ", length] {
                assert!(response.contains(&format!("\r\n{header}")), "{header}: {response}");
            }
        }

        cancel.cancel();
        server.await.unwrap().unwrap();
    }
}
