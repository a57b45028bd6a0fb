//! SIP over WebSocket (RFC 7118): one message per WebSocket message, text or binary.
//!
//! Only clients connect; this node opens no WebSocket. A message needs no Content-Length here,
//! because the WebSocket marks its end.

mod frames;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Error, Message, Utf8Bytes,
        handshake::server::{ErrorResponse, Request, Response},
        http::{
            HeaderValue, StatusCode,
            header::{ORIGIN, SEC_WEBSOCKET_PROTOCOL},
        },
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tracing::debug;

use self::frames::Frames;
use super::{
    connections::{Connection, Queued},
    stream::{Inbound, ReadEnd, Streams},
};
use aftertone_core::proto::sip::{
    framing::{PING, PONG},
    path::Path,
    wire::MAX_MESSAGE,
};

/// RFC 7118 §4: the subprotocol that both sides must agree on.
const SUBPROTOCOL: &str = "sip";
/// Bytes that are read or written at once; a connection costs twice this.
const BUFFER_BYTES: usize = 8 << 10;
/// Unwritten bytes after which the connection is closed: more than any message.
const MAX_UNWRITTEN_BYTES: usize = 256 << 10;

/// Fragments of one message: no client cuts one of [`MAX_MESSAGE`] into more. Empty fragments would
/// cost time without ever making the message too long.
const MAX_FRAGMENTS: usize = 256;
/// Limits of what is read and discarded after our Close frame, so that it reaches a peer that still
/// sends.
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: usize = 1 << 20;

/// A WebSocket with a parser that follows its frames.
pub(super) type Socket<S> = WebSocketStream<Watched<S>>;

/// Does the handshake. A client that does not offer the subprotocol gets 400 (RFC 7118 §4.1). A web
/// page whose origin is not in `origins` gets 403 (RFC 6455 §10.2). If `origins` is empty, every
/// page may connect, and the second value is true for it: the socket is foreign.
pub(super) async fn accept<S>(stream: S, origins: &[String]) -> Result<(Socket<S>, bool), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(MAX_UNWRITTEN_BYTES)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let stream = Watched { stream, frames: None };
    let mut is_foreign = false;
    #[expect(clippy::result_large_err, reason = "the library wants it so")]
    let agree = |request: &Request, response: Response| {
        is_foreign = is_of_other_page(request, origins);
        if is_foreign && !origins.is_empty() {
            return Err(refusal(StatusCode::FORBIDDEN, "this page may not\n"));
        }
        agree(request, response)
    };
    let mut socket = accept_hdr_async_with_config(stream, agree, Some(config)).await?;
    // The handshake is over, and a client must not have sent anything behind it yet (RFC 6455
    // §4.1).
    socket.get_mut().frames = Some(Frames::default());
    Ok((socket, is_foreign))
}

/// Whether the client is a script of a web page that is not in `origins`. Browsers send the Origin
/// header. Other clients need not, and could send anything.
fn is_of_other_page(request: &Request, origins: &[String]) -> bool {
    let is_ours = |origin: &HeaderValue| origins.iter().any(|ours| origin == ours.as_str());
    !request.headers().get_all(ORIGIN).iter().all(is_ours)
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
        return Err(refusal(StatusCode::BAD_REQUEST, "the subprotocol is \"sip\"\n"));
    }
    let agreed = HeaderValue::from_static(SUBPROTOCOL);
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, agreed);
    Ok(response)
}

fn refusal(status: StatusCode, why: &str) -> ErrorResponse {
    let mut refusal = ErrorResponse::new(Some(why.to_owned()));
    *refusal.status_mut() = status;
    refusal
}

/// Why a WebSocket has ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the peer")]
    Closed,
    #[error("nothing more is wanted from it")]
    Finished,
    #[error("a message is not complete in time")]
    TooSlow,
    #[error("a message comes in too many fragments")]
    TooManyFragments,
    #[error("the peer does not read")]
    NotRead,
    #[error(transparent)]
    Socket(#[from] Error),
    #[error(transparent)]
    Heard(#[from] ReadEnd),
}

impl End {
    /// The code of the Close frame for the peer (RFC 6455 §7.4.1).
    fn code(&self) -> Option<CloseCode> {
        match self {
            Self::Finished => Some(CloseCode::Normal),
            Self::TooSlow | Self::TooManyFragments => Some(CloseCode::Policy),
            Self::Socket(Error::Capacity(_)) => Some(CloseCode::Size),
            Self::Socket(Error::Protocol(_)) => Some(CloseCode::Protocol),
            Self::Socket(Error::Utf8(_)) => Some(CloseCode::Invalid),
            Self::Closed | Self::NotRead | Self::Socket(_) | Self::Heard(_) => None,
        }
    }
}

/// Serves a WebSocket until it ends. The first SIP message must come before `first_by`.
pub(super) async fn run<S>(
    socket: Socket<S>,
    connection: Connection,
    path: Path,
    streams: &Streams,
    first_by: Instant,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let given_up = connection.given_up.clone();
    let mut session = WebSocketSession { socket, connection, path, streams, in_flight: None };
    let end = tokio::select! {
        () = streams.cancel.cancelled() => return,
        () = given_up.cancelled() => End::NotRead,
        end = session.serve(first_by) => end,
    };
    debug!(peer = %path.peer, transport = path.transport.name(), %end, "WebSocket has ended");
    let WebSocketSession { mut socket, connection, in_flight, .. } = session;
    let id = connection.id;
    let queued = connection.into_undelivered();
    streams.report_undelivered(in_flight.into_iter().chain(queued)).await;
    // The peer cannot be reached any other way, so the endpoint counts it as gone (RFC 7118 §5).
    let _ = streams.report(Inbound::Ended(id)).await;
    // A peer that does not take the Close frame has lost nothing.
    let _ = timeout(streams.limits.write, say_farewell(&mut socket, &end)).await;
}

/// Sends the Close frame with the reason, or answers the peer's (RFC 6455 §7.1.2).
async fn say_farewell<S>(socket: &mut Socket<S>, end: &End) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(code) = end.code() else {
        return match end {
            End::Closed => socket.flush().await,
            _ => Ok(()),
        };
    };
    socket.close(Some(CloseFrame { code, reason: Utf8Bytes::default() })).await?;
    let stream = &mut socket.get_mut().stream;
    stream.shutdown().await?;
    // A socket that is closed with unread bytes resets the connection, and the Close frame is lost.
    let drain = async {
        let (mut buffer, mut drained) = ([0; 1 << 10], 0);
        while drained < MAX_LINGER_BYTES {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(length) => drained += length,
            }
        }
    };
    let _ = timeout(LINGER, drain).await;
    Ok(())
}

/// An open WebSocket.
struct WebSocketSession<'a, S> {
    socket: Socket<S>,
    connection: Connection,
    path: Path,
    streams: &'a Streams,
    /// The path of the message that is being written.
    in_flight: Option<Path>,
}

/// What woke the session.
enum SessionWake {
    Read(Option<Result<Message, Error>>),
    /// The message that exceeded the rate may be handled now.
    Turn,
    Queued(Option<Queued>),
    Tick,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketSession<'_, S> {
    async fn serve(&mut self, first_by: Instant) -> End {
        match self.talk(first_by).await {
            // The stream reports this error, because the library would go on reading.
            Err(End::Socket(Error::Io(_))) if self.has_too_many_fragments() => {
                End::TooManyFragments
            }
            Ok(end) | Err(end) => end,
        }
    }

    async fn talk(&mut self, first_by: Instant) -> Result<End, End> {
        let limits = self.streams.limits;
        let mut first_by = Some(first_by);
        let mut tick_at = first_by.unwrap_or_else(Instant::now);
        let mut idle_since = Instant::now();
        // A message that exceeds the rate, and the time when it may be handled. Nothing is read
        // meanwhile.
        let mut waiting: Option<(Message, Instant)> = None;
        loop {
            let turn_at = waiting.as_ref().map(|(_, at)| *at);
            let wake = tokio::select! {
                read = self.socket.next(), if waiting.is_none() => SessionWake::Read(read),
                () = sleep_until(turn_at.unwrap_or(tick_at)), if turn_at.is_some() => SessionWake::Turn,
                queued = self.connection.queue.recv() => SessionWake::Queued(queued),
                () = sleep_until(tick_at) => SessionWake::Tick,
            };
            let message = match wake {
                SessionWake::Read(None) => return Ok(End::Closed),
                SessionWake::Read(Some(message)) => message?,
                SessionWake::Turn => {
                    let Some((message, _)) = waiting.take() else { continue };
                    self.frames().listen_again(Instant::now());
                    message
                }
                SessionWake::Queued(None) => return Ok(End::Finished),
                SessionWake::Queued(Some(Queued::Pong)) => {
                    self.write(Bytes::from_static(PONG)).await?;
                    continue;
                }
                SessionWake::Queued(Some(Queued::Message(transmit, _room))) => {
                    self.in_flight = Some(transmit.path);
                    self.write(transmit.bytes).await?;
                    self.in_flight = None;
                    continue;
                }
                SessionWake::Tick => {
                    let message_by = self.frames().begun().map(|begun| begun + limits.message);
                    let deadline = [first_by, message_by].into_iter().flatten().min();
                    let now = Instant::now();
                    if waiting.is_none() && deadline.is_some_and(|deadline| deadline <= now) {
                        return Err(End::TooSlow);
                    }
                    if idle_since.elapsed() >= self.streams.connections.idle(self.connection.id) {
                        idle_since = now;
                        self.streams.report(Inbound::Idle(self.connection.id)).await?;
                    }
                    // A message that begins later is due after the next tick.
                    tick_at = deadline.filter(|due| *due > now).unwrap_or(now + limits.message);
                    continue;
                }
            };
            if let Message::Close(_) = message {
                return Ok(End::Closed);
            }
            self.streams.connections.heard(self.connection.id);
            if let Err(too_many) = self.streams.rates.take_over(self.path) {
                waiting = Some((message, Instant::now() + too_many.wait));
                continue;
            }
            idle_since = Instant::now();
            if self.take(message).await? {
                first_by = None;
            }
        }
    }

    /// Hands a message on; returns whether it was a SIP message.
    async fn take(&mut self, message: Message) -> Result<bool, End> {
        let bytes = match message {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(bytes) => bytes,
            // The library answers pings.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {
                return Ok(false);
            }
        };
        if bytes.as_ref() == PING {
            self.write(Bytes::from_static(PONG)).await?;
            return Ok(false);
        }
        self.streams.report(Inbound::Message { path: self.path, bytes }).await?;
        Ok(true)
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), End> {
        // RFC 7118 §5: a text message if the whole message is UTF-8.
        let message = match Utf8Bytes::try_from(bytes.clone()) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(bytes),
        };
        match timeout(self.streams.limits.write, self.socket.send(message)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(End::NotRead),
        }
    }

    fn frames(&mut self) -> &mut Frames {
        self.socket.get_mut().frames.get_or_insert_default()
    }

    fn has_too_many_fragments(&mut self) -> bool {
        self.frames().fragments() > MAX_FRAGMENTS
    }
}

/// A stream that follows the frames, once the handshake is over.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    frames: Option<Frames>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Self { stream, frames } = &mut *self;
        let polled = Pin::new(stream).poll_read(cx, buffer);
        if let Some(frames) = frames {
            frames.push(buffer.filled().get(before..).unwrap_or_default(), Instant::now());
            if frames.fragments() > MAX_FRAGMENTS {
                return Poll::Ready(Err(io::Error::other("too many fragments")));
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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
