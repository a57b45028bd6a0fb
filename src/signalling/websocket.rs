//! SIP over WebSocket (RFC 7118): one message per WebSocket message, text or binary.
//!
//! Only clients connect; we never do. A message needs no Content-Length here, because the WebSocket
//! knows where it ends.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Error, Message, Utf8Bytes,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderValue, StatusCode, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tracing::debug;

use super::{
    connections::{Connection, Queued},
    stream::{Inbound, ReadEnd, Streams},
};
use crate::proto::sip::{
    framing::{PING, PONG},
    path::Path,
    wire::MAX_MESSAGE,
};

/// RFC 7118 §4: the subprotocol that both sides must agree on.
const SUBPROTOCOL: &str = "sip";
/// Read and written at once; a connection costs twice this.
const BUFFER_BYTES: usize = 8 << 10;
/// What may wait to be written before the connection is over: longer than any message.
const MAX_UNWRITTEN_BYTES: usize = 256 << 10;

/// A WebSocket whose bytes are counted.
pub(super) type Socket<S> = (WebSocketStream<Counted<S>>, Arc<AtomicU64>);

/// Shakes hands. A client that does not offer the subprotocol gets 400 (RFC 7118 §4.1).
pub(super) async fn accept<S>(stream: S) -> Result<Socket<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(MAX_UNWRITTEN_BYTES)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let count = Arc::new(AtomicU64::new(0));
    let stream = Counted { stream, count: Arc::clone(&count) };
    let socket = accept_hdr_async_with_config(stream, agree, Some(config)).await?;
    Ok((socket, count))
}

#[expect(clippy::result_large_err, reason = "the library wants it so")]
fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let is_offered = request
        .headers()
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|protocol| protocol.trim().eq_ignore_ascii_case(SUBPROTOCOL));
    if !is_offered {
        let mut refusal = ErrorResponse::new(Some("the subprotocol is \"sip\"\n".to_owned()));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return Err(refusal);
    }
    let agreed = HeaderValue::from_static(SUBPROTOCOL);
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, agreed);
    Ok(response)
}

/// Why a WebSocket is served no further.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed")]
    Closed,
    #[error("nothing more is wanted from it")]
    Finished,
    #[error("a message is not complete in time")]
    TooSlow,
    #[error("the peer does not read")]
    NotRead,
    #[error(transparent)]
    Socket(#[from] Error),
    #[error(transparent)]
    Heard(#[from] ReadEnd),
}

impl End {
    /// What the peer is told (RFC 6455 §7.4.1).
    fn code(&self) -> Option<CloseCode> {
        match self {
            Self::Finished => Some(CloseCode::Normal),
            Self::TooSlow => Some(CloseCode::Policy),
            Self::Socket(Error::Capacity(_)) => Some(CloseCode::Size),
            Self::Socket(Error::Protocol(_)) => Some(CloseCode::Protocol),
            Self::Socket(Error::Utf8(_)) => Some(CloseCode::Invalid),
            Self::Closed | Self::NotRead | Self::Socket(_) | Self::Heard(_) => None,
        }
    }
}

/// Serves a WebSocket until it is over. A message is to come before `first_by`.
pub(super) async fn run<S>(
    (socket, count): Socket<S>,
    connection: Connection,
    path: Path,
    streams: &Streams,
    first_by: Instant,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let given_up = connection.given_up.clone();
    let mut session = Session { socket, count, connection, path, streams, in_flight: None };
    let end = tokio::select! {
        () = streams.cancel.cancelled() => return,
        () = given_up.cancelled() => End::NotRead,
        end = session.serve(first_by) => end,
    };
    debug!(peer = %path.peer, transport = path.transport.name(), %end, "WebSocket has ended");
    if let Some(code) = end.code() {
        let frame = CloseFrame { code, reason: Utf8Bytes::default() };
        // A peer that does not take the farewell has lost nothing.
        let _ = timeout(streams.limits.write, session.socket.close(Some(frame))).await;
    }
    let queued = session.connection.into_undelivered();
    streams.report_undelivered(session.in_flight.into_iter().chain(queued)).await;
}

/// A WebSocket that is up.
struct Session<'a, S> {
    socket: WebSocketStream<Counted<S>>,
    count: Arc<AtomicU64>,
    connection: Connection,
    path: Path,
    streams: &'a Streams,
    /// The way of the message that is being written.
    in_flight: Option<Path>,
}

/// What woke the session.
enum Wake {
    Read(Option<Result<Message, Error>>),
    Queued(Option<Queued>),
    Tick,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<'_, S> {
    async fn serve(&mut self, first_by: Instant) -> End {
        match self.talk(first_by).await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn talk(&mut self, first_by: Instant) -> Result<End, End> {
        let limits = self.streams.limits;
        let mut first_by = Some(first_by);
        let mut tick_at = first_by.unwrap_or_else(Instant::now);
        let mut idle_since = Instant::now();
        // How much had come with the last message, and whether more had at the last tick.
        let (mut counted, mut is_within_message) = (0, false);
        loop {
            let wake = tokio::select! {
                read = self.socket.next() => Wake::Read(read),
                queued = self.connection.queue.recv() => Wake::Queued(queued),
                () = sleep_until(tick_at) => Wake::Tick,
            };
            match wake {
                Wake::Read(None) => return Ok(End::Closed),
                Wake::Read(Some(message)) => {
                    let message = message?;
                    self.streams.pace(self.path).await;
                    let bytes = match message {
                        Message::Text(text) => Some(Bytes::from(text)),
                        Message::Binary(bytes) => Some(bytes),
                        // Pings and closes are answered below us.
                        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => None,
                        Message::Frame(_) => None,
                    };
                    match bytes {
                        Some(bytes) if bytes.as_ref() == PING => {
                            self.write(Bytes::from_static(PONG)).await?
                        }
                        Some(bytes) => {
                            first_by = None;
                            let message = Inbound::Message { path: self.path, bytes };
                            self.streams.report(message).await?;
                        }
                        None => {}
                    }
                    counted = self.count.load(Ordering::Relaxed);
                    is_within_message = false;
                    idle_since = Instant::now();
                }
                Wake::Queued(None) => return Ok(End::Finished),
                Wake::Queued(Some(Queued::Pong)) => self.write(Bytes::from_static(PONG)).await?,
                Wake::Queued(Some(Queued::Message(transmit, _room))) => {
                    self.in_flight = Some(transmit.path);
                    self.write(transmit.bytes).await?;
                    self.in_flight = None;
                }
                Wake::Tick => {
                    let has_more = self.count.load(Ordering::Relaxed) > counted;
                    if first_by.is_some() || (has_more && is_within_message) {
                        return Err(End::TooSlow);
                    }
                    is_within_message = has_more;
                    if idle_since.elapsed() >= limits.idle {
                        idle_since = Instant::now();
                        self.streams.report(Inbound::Idle(self.connection.id)).await?;
                    }
                    tick_at = Instant::now() + limits.message;
                }
            }
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), End> {
        // RFC 7118 §5: text where the message is UTF-8 all through.
        let message = match Utf8Bytes::try_from(bytes.clone()) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(bytes),
        };
        match timeout(self.streams.limits.write, self.socket.send(message)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(End::NotRead),
        }
    }
}

/// Counts what is read, because a WebSocket does not tell that a message has begun.
#[derive(Debug)]
pub(super) struct Counted<S> {
    stream: S,
    count: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let read = buffer.filled().len().saturating_sub(before);
        self.count.fetch_add(u64::try_from(read).unwrap_or(u64::MAX), Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
