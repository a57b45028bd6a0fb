//! The API's listener: limits the number of connections, and how slow one may be.
//!
//! hyper runs the connections and limits the head of each request: its size, and its time, which
//! counts from the moment when the connection becomes idle. This module adds limits below HTTP that
//! hyper does not offer: each address has only a share of the connections, a TLS handshake has a
//! deadline, and a client that reads its answer too slowly is disconnected. Bodies are limited
//! where they are read.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, extract::Request, response::Response};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::{TowerToHyperService, TowerToHyperServiceFuture},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, Sleep, sleep},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_util::{either::Either, sync::CancellationToken};
use tracing::{debug, error, warn};

use super::{exchange::Peer, wrong_secrets::source};

/// Maximum size of a request's head, and of the data that a connection reads ahead of a body.
const MAX_BUFFER: usize = 32 * 1024;

/// Socket buffer for an answer that its client does not read yet. It is also the granularity with
/// which we see the client's progress.
const SEND_BUFFER: usize = 64 * 1024;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long we wait when the process has no file descriptor left.
const NO_DESCRIPTORS: Duration = Duration::from_secs(1);

/// The current TLS configuration; `None` for plain HTTP.
pub type Identity = Option<watch::Receiver<Arc<ServerConfig>>>;

/// Limits on the resources that clients use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeLimits {
    /// Maximum number of simultaneous connections; further ones wait in the listen queue.
    pub connections: usize,
    /// Maximum number of simultaneous connections of one address; further ones are closed.
    pub connections_of_a_source: usize,
    /// How long the head of a request may take, counted from the end of the previous request.
    pub head: Duration,
    /// How long a client may lag in reading an answer.
    pub behind: Duration,
    /// The rate at which it has to read, in bytes per second.
    pub rate: u32,
}

impl ServeLimits {
    /// Limits that leave most of the process's file descriptors for calls.
    pub fn within(open_files: usize) -> Self {
        let limits = Self::default();
        let connections = limits.connections.min(open_files / 4);
        Self { connections, connections_of_a_source: connections.div_ceil(4), ..limits }
    }
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_of_a_source: 1024,
            head: Duration::from_secs(10),
            behind: Duration::from_secs(75),
            rate: 1024,
        }
    }
}

/// Serves the API until `cancel`, then lets running requests finish.
pub async fn serve(
    listener: TcpListener,
    identity: Identity,
    router: Router,
    limits: ServeLimits,
    cancel: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(MAX_BUFFER);
    let mut connections = JoinSet::new();
    let service = Places {
        all: Arc::new(Semaphore::new(limits.connections)),
        sources: Arc::default(),
        of_a_source: limits.connections_of_a_source,
    };
    loop {
        let (place, stream, peer) = tokio::select! {
            () = cancel.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(panic) = ended {
                    error!(%panic, "A connection of the API has panicked");
                }
                continue;
            }
            Some(accepted) = service.next(&listener) => accepted,
        };
        let acceptor = identity.as_ref().map(|shown| TlsAcceptor::from(shown.borrow().clone()));
        let (http, cancel) = (http.clone(), cancel.clone());
        let service = OfPeer { inner: TowerToHyperService::new(router.clone()), peer: peer.ip() };
        connections.spawn(async move {
            let Some(stream) = shaken(stream, acceptor, peer, &cancel).await else { return };
            let stream = TokioIo::new(Paced::new(stream, limits));
            let mut connection = pin!(http.serve_connection(stream, service));
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = cancel.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(cause) = ended {
                debug!(%cause, %peer, "A connection of the API has failed");
            }
            drop(place);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The limits on connections, in total and per address.
struct Places {
    all: Arc<Semaphore>,
    sources: Arc<Mutex<HashMap<IpAddr, usize>>>,
    of_a_source: usize,
}

/// The slot of a connection; dropping it frees the slot.
struct ConnectionSlot {
    sources: Arc<Mutex<HashMap<IpAddr, usize>>>,
    source: IpAddr,
    _one_of_all: OwnedSemaphorePermit,
}

impl Places {
    /// Accepts the next client and gives it a slot. `None` when accepting failed, or when the
    /// client's address has too many connections.
    async fn next(
        &self,
        listener: &TcpListener,
    ) -> Option<(ConnectionSlot, TcpStream, SocketAddr)> {
        let place = Arc::clone(&self.all).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
                // These three errors concern the client's connection only. Otherwise no file
                // descriptor is free, and no event tells when one is again.
                if ![ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind())
                {
                    warn!(%error, "A connection of the API cannot be taken");
                    sleep(NO_DESCRIPTORS).await;
                }
                return None;
            }
        };
        let Some(place) = self.of(peer.ip(), place) else {
            debug!(%peer, "It has too many connections");
            return None;
        };
        let set = stream.set_nodelay(true);
        if let Err(cause) = set.and(SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)) {
            debug!(%cause, "A socket's options could not be set");
        }
        Some((place, stream, peer))
    }

    fn of(&self, ip: IpAddr, place: OwnedSemaphorePermit) -> Option<ConnectionSlot> {
        let source = source(ip);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(source).or_default();
        if *count >= self.of_a_source {
            return None;
        }
        *count += 1;
        Some(ConnectionSlot { sources: Arc::clone(&self.sources), source, _one_of_all: place })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

/// A stream with or without TLS.
type ApiStream = Either<TcpStream, Box<tokio_rustls::server::TlsStream<TcpStream>>>;

/// The stream after the TLS handshake; `None` when the handshake failed.
async fn shaken(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    peer: SocketAddr,
    cancel: &CancellationToken,
) -> Option<ApiStream> {
    let Some(acceptor) = acceptor else { return Some(Either::Left(stream)) };
    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
    match cancel.run_until_cancelled(handshake).await? {
        Ok(Ok(stream)) => Some(Either::Right(Box::new(stream))),
        Ok(Err(cause)) => {
            debug!(%cause, %peer, "A TLS handshake has failed");
            None
        }
        Err(_) => {
            debug!(%peer, "A TLS handshake took too long");
            None
        }
    }
}

/// Adds the client's address to each request.
struct OfPeer {
    inner: TowerToHyperService<Router>,
    peer: IpAddr,
}

impl Service<Request<Incoming>> for OfPeer {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = TowerToHyperServiceFuture<Router, Request<Incoming>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Peer(self.peer));
        self.inner.call(request)
    }
}

/// A stream that fails when the other side reads too slowly.
struct Paced<S> {
    stream: S,
    limits: ServeLimits,
    /// Deadline for the other side to read something; reset to the full allowance when writing
    /// first has to wait.
    due: Pin<Box<Sleep>>,
    is_behind: bool,
}

impl<S> Paced<S> {
    fn new(stream: S, limits: ServeLimits) -> Self {
        Self { stream, limits, due: Box::pin(sleep(limits.behind)), is_behind: false }
    }

    /// Checks the deadline when nothing could be written.
    fn waited(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.is_behind {
            self.is_behind = true;
            self.due.as_mut().reset(Instant::now() + self.limits.behind);
        }
        self.due.as_mut().poll(context).map(|()| io::ErrorKind::TimedOut.into())
    }

    /// Bytes that were written extend the deadline.
    fn taken(&mut self, bytes: usize) {
        if !self.is_behind {
            return;
        }
        let earned = Duration::from_secs_f64(bytes as f64 / f64::from(self.limits.rate.max(1)));
        let whole = Instant::now() + self.limits.behind;
        match self.due.deadline() + earned {
            due if due < whole => self.due.as_mut().reset(due),
            _ => self.is_behind = false,
        }
    }

    fn judged(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => self.taken(bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => return self.waited(context).map(Err),
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.judged(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending => self.waited(context).map(Err),
            flushed => flushed,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(context) {
            Poll::Pending => self.waited(context).map(Err),
            shut => shut,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.judged(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::service::api::fake::{CALL, Fake, TOKEN};

    /// A server, its address, and the token that ends it.
    struct Served {
        address: SocketAddr,
        cancel: CancellationToken,
        server: tokio::task::JoinHandle<()>,
    }

    impl Served {
        async fn new(limits: ServeLimits) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let cancel = CancellationToken::new();
            let router = Fake::new().router();
            let server = tokio::spawn(serve(listener, None, router, limits, cancel.clone()));
            Self { address, cancel, server }
        }

        async fn client(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        async fn end(self) {
            self.cancel.cancel();
            self.server.await.unwrap();
        }
    }

    const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";

    /// Whether the server answers. It does not if it has closed the connection.
    async fn is_answered(client: &mut TcpStream) -> bool {
        let mut start = [0; 12];
        client.write_all(HEALTH).await.is_ok()
            && client.read_exact(&mut start).await.is_ok()
            && &start == b"HTTP/1.1 200"
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_an_answer_too_slowly_is_given_up() {
        let limits =
            ServeLimits { behind: Duration::from_secs(10), rate: 4, ..ServeLimits::default() };
        // One byte every nine seconds used to be enough to hold a slot forever.
        for (pause, bytes, holds) in [(9, 1, false), (9, 36, true), (11, 64, false)] {
            let (ours, mut theirs) = tokio::io::duplex(64);
            let writing = tokio::spawn(async move {
                let mut ours = Paced::new(ours, limits);
                loop {
                    if let Err(error) = ours.write_all(&[0; 64]).await {
                        return error.kind();
                    }
                }
            });
            let mut taken = vec![0; bytes];
            for _ in 0..20 {
                sleep(Duration::from_secs(pause)).await;
                if theirs.read_exact(&mut taken).await.is_err() {
                    break;
                }
            }
            assert_eq!(!writing.is_finished(), holds, "{bytes} bytes in {pause} s");
            if !holds {
                assert_eq!(writing.await.unwrap(), io::ErrorKind::TimedOut);
            }
        }
    }

    #[tokio::test]
    async fn a_head_that_comes_byte_by_byte_does_not_hold_a_place() {
        let head = Duration::from_millis(300);
        let served = Served::new(ServeLimits { head, ..ServeLimits::default() }).await;
        let mut client = served.client().await;
        client.write_all(b"GET /healthz HTTP/1.1\r\nx: ").await.unwrap();
        let (mut reading, mut writing) = client.split();
        let mut answer = Vec::new();
        let dripping = async {
            while writing.write_all(b"x").await.is_ok() {
                sleep(head / 10).await;
            }
        };
        tokio::select! {
            _ = reading.read_to_end(&mut answer) => {}
            () = dripping => {}
        }
        // A client that sends nothing at all is disconnected as well.
        let mut silent = served.client().await;
        assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0);
        served.end().await;
    }

    #[tokio::test]
    async fn a_head_of_any_size_is_not_read() {
        let served = Served::new(ServeLimits::default()).await;
        let mut client = served.client().await;
        client.write_all(b"GET /healthz HTTP/1.1\r\nx: ").await.unwrap();
        let mut sent = 0;
        while client.write_all(&[b'x'; 1024]).await.is_ok() && sent < 10 * MAX_BUFFER {
            sent += 1024;
        }
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert!(sent < 10 * MAX_BUFFER, "all was read");
        served.end().await;
    }

    #[tokio::test]
    async fn an_address_has_its_share_of_the_places() {
        let limits = ServeLimits { connections_of_a_source: 2, ..ServeLimits::default() };
        let served = Served::new(limits).await;
        let (mut one, mut two) = (served.client().await, served.client().await);
        assert!(is_answered(&mut one).await && is_answered(&mut two).await);
        assert!(!is_answered(&mut served.client().await).await);
        drop(one);
        // The server has not yet noticed that the connection is closed.
        while !is_answered(&mut served.client().await).await {
            tokio::task::yield_now().await;
        }
        drop(two);
        served.end().await;
    }

    #[test]
    fn the_limits_leave_files_for_calls() {
        let small = ServeLimits::within(1024);
        assert_eq!((small.connections, small.connections_of_a_source), (256, 64));
        assert_eq!(ServeLimits::within(1 << 20), ServeLimits::default());
    }

    #[tokio::test]
    async fn responses_on_the_wire_are_dated_and_have_a_length() {
        let served = Served::new(ServeLimits::default()).await;

        let keep_alive = format!("POST /v1.0/communications/calls/{CALL}/keepAlive");
        let table = [
            ("GET /v1.0/communications/calls", "wrong", "401", "content-length: "),
            // Without a length, clients read until the connection ends, even if there is no body.
            (&keep_alive, TOKEN, "200", "content-length: 0\r\n"),
        ];
        for (asked, token, status, length) in table {
            let mut client = served.client().await;
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

        served.end().await;
    }
}
