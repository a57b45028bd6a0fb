//! One SIP stream, TCP or TLS: reads messages, writes messages, and detects its end.
//!
//! Reader and writer are two halves of one task, so that they end together. Messages that cannot be
//! written are reported, each with its path, so that the endpoint need not wait for its timers.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf},
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    connections::{Connection, Connections, Queued},
    rates::Rates,
    settings::StreamLimits,
    tls::TlsConfigs,
};
use aftertone_core::proto::sip::{
    framing::{Frame, FramingError, PING, PONG, StreamFramer},
    path::{ConnectionId, Path},
};

/// RFC 5626 §4.4.1: how long a pong may take.
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// Bytes that are read at once.
const READ_BYTES: usize = 8 << 10;

/// What the sockets report to the endpoint.
#[derive(Debug)]
pub(super) enum Inbound {
    /// One message as it came.
    Message {
        /// The path it came by.
        path: Path,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A message could not be delivered by this path.
    Undelivered(Path),
    /// A stream has been silent for long; it is closed unless the endpoint needs it for a dialog, a
    /// registered phone or a trunk.
    Idle(ConnectionId),
    /// Nothing more comes over this stream. Requests that came before are still answered over it.
    Ended(ConnectionId),
}

/// What all streams share.
#[derive(Debug)]
pub(super) struct Streams {
    pub limits: StreamLimits,
    pub connections: Connections,
    pub rates: Arc<Rates>,
    pub inbound: mpsc::Sender<Inbound>,
    pub tls: watch::Receiver<TlsConfigs>,
    /// Origins of our own web pages. If the list is empty, pages of any origin may connect, as
    /// foreign ones.
    pub web_origins: Vec<String>,
    pub cancel: CancellationToken,
    pub tasks: TaskTracker,
}

/// What reader and writer of one stream know of the peer's keep-alives.
#[derive(Debug)]
struct Pulse {
    /// How many reads have returned bytes.
    heard: watch::Sender<u64>,
    /// The value of `heard` when the newest ping was written.
    pinged: watch::Sender<u64>,
    /// The peer has answered a ping by a pong, as RFC 5626 requires; many do not.
    answers: AtomicBool,
}

impl Pulse {
    fn new() -> Self {
        let (heard, pinged) = (watch::Sender::new(0), watch::Sender::new(0));
        Self { heard, pinged, answers: AtomicBool::new(false) }
    }

    /// Returns when a peer that usually answers pings has not answered one.
    async fn stops(&self) {
        let mut pings = self.pinged.subscribe();
        while pings.changed().await.is_ok() {
            let before = *pings.borrow_and_update();
            if !self.answers.load(Ordering::Relaxed) {
                continue;
            }
            let mut heard = self.heard.subscribe();
            let pong = heard.wait_for(|heard| *heard > before);
            if timeout(PONG_WITHIN, pong).await.is_err() {
                return;
            }
        }
    }
}

/// Why a stream is read no further.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadEnd {
    #[error("closed by the peer")]
    Closed,
    #[error("a message is not complete in time")]
    TooSlow,
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("signalling has ended")]
    Stopped,
}

impl Streams {
    /// Waits while the peer exceeds its rate; its stream fills up meanwhile.
    pub(super) async fn pace(&self, path: Path) {
        while let Err(too_many) = self.rates.take_over(path) {
            sleep(too_many.wait).await;
        }
    }

    /// Reports to the endpoint.
    pub(super) async fn report(&self, inbound: Inbound) -> Result<(), ReadEnd> {
        self.inbound.send(inbound).await.map_err(|_| ReadEnd::Stopped)
    }

    /// Reports the messages that did not reach the peer.
    pub(super) async fn report_undelivered(&self, paths: impl IntoIterator<Item = Path>) {
        for path in paths {
            if self.report(Inbound::Undelivered(path)).await.is_err() {
                return;
            }
        }
    }
}

/// Serves a stream until it ends. If `first_by` is given, the first message must come before it.
pub(super) async fn run<S>(
    stream: S,
    mut connection: Connection,
    path: Path,
    streams: &Streams,
    first_by: Option<Instant>,
) where
    S: AsyncRead + AsyncWrite,
{
    let (reader, mut writer) = tokio::io::split(stream);
    let pulse = Pulse::new();
    let mut has_ended = false;
    let reading = async {
        let Err(end) = read(reader, path, connection.id, streams, &pulse, first_by).await;
        debug!(peer = %path.peer, transport = path.transport.name(), %end, "SIP stream was read");
        // After this the endpoint has no more requests to answer, and the queue ends.
        let _ = streams.report(Inbound::Ended(connection.id)).await;
        has_ended = true;
        std::future::pending::<()>().await;
    };
    let mut in_flight = None;
    let writing = async {
        while let Some(queued) = connection.queue.recv().await {
            let bytes = match &queued {
                Queued::Message(transmit, _) => {
                    in_flight = Some(transmit.path);
                    &transmit.bytes
                }
                Queued::Pong => PONG,
            };
            let heard = *pulse.heard.borrow();
            let written = timeout(streams.limits.write, async {
                writer.write_all(bytes).await?;
                writer.flush().await
            });
            match written.await {
                Ok(Ok(())) => {
                    in_flight = None;
                    if bytes == PING {
                        pulse.pinged.send_replace(heard);
                    }
                }
                Ok(Err(error)) => return debug!(peer = %path.peer, %error, "not written"),
                Err(_) => return debug!(peer = %path.peer, "peer does not read"),
            }
        }
        // Sends the TLS close_notify; a peer that does not take it has lost nothing.
        let _ = timeout(streams.limits.write, writer.shutdown()).await;
    };
    tokio::select! {
        () = streams.cancel.cancelled() => return,
        () = connection.given_up.cancelled() => {}
        () = reading => {}
        () = writing => {}
        () = pulse.stops() => debug!(peer = %path.peer, "peer answers no ping any more"),
    }
    let id = connection.id;
    streams.report_undelivered(in_flight.into_iter().chain(connection.into_undelivered())).await;
    if !has_ended {
        let _ = streams.report(Inbound::Ended(id)).await;
    }
}

/// Reads until the stream ends or fails.
async fn read<S: AsyncRead>(
    mut reader: ReadHalf<S>,
    path: Path,
    id: ConnectionId,
    streams: &Streams,
    pulse: &Pulse,
    mut first_by: Option<Instant>,
) -> Result<std::convert::Infallible, ReadEnd> {
    let mut framer = StreamFramer::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut message_by = None;
    let mut quiet_since = Instant::now();
    loop {
        let idle_at = quiet_since + streams.connections.idle(id);
        let deadline = [first_by, message_by].into_iter().flatten().min();
        let read = timeout_at(deadline.unwrap_or(idle_at), reader.read(&mut buffer)).await;
        let length = match read {
            Ok(length) => length?,
            Err(_) if deadline.is_some() => return Err(ReadEnd::TooSlow),
            // A stranger may have become known, and so have more time now.
            Err(_) if quiet_since.elapsed() < streams.connections.idle(id) => continue,
            Err(_) => {
                streams.report(Inbound::Idle(id)).await?;
                quiet_since = Instant::now();
                continue;
            }
        };
        if length == 0 {
            return Err(ReadEnd::Closed);
        }
        quiet_since = Instant::now();
        streams.connections.heard(id);
        pulse.heard.send_modify(|heard| *heard += 1);
        framer.push(buffer.get(..length).unwrap_or_default());
        while let Some(frame) = framer.next_frame()? {
            message_by = None;
            streams.pace(path).await;
            match frame {
                Frame::Message(bytes) => {
                    first_by = None;
                    streams.report(Inbound::Message { path, bytes }).await?;
                }
                Frame::Ping => streams.connections.pong(id),
            }
        }
        if framer.take_pong() {
            pulse.answers.store(true, Ordering::Relaxed);
        }
        if framer.is_within_message() {
            message_by = message_by.or_else(|| Some(Instant::now() + streams.limits.message));
        }
    }
}
