//! What the REST face asks of the house, and how the house says no.
//!
//! Every call is asked for in the name of an application: one that belongs to another is not found.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use aftertone_core::{
    graph::RecordingLink,
    model::{
        Call, CallId, Operation, OperationId, Party, PromptSource, RecordingId, RejectReason,
        UnixMillis,
    },
};

pub use crate::{
    drivers::{
        recordings::{ClipReader, LostAndFound},
        store::{GivenUp, KeptAnswer, RequestKey},
    },
    service::switchboard::{CallError, NewCall, NewOperation, TransferTarget},
};

/// The calls, operations and recordings behind the API.
pub trait House: Send + Sync + 'static {
    /// The calls of an application that are not over.
    fn calls<'a>(&'a self, application: &'a str) -> BoxFuture<'a, Result<Vec<Call>, CallError>>;

    /// One call.
    fn call<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
    ) -> BoxFuture<'a, Result<Call, CallError>>;

    /// Places a call; it is committed when this returns.
    fn place<'a>(
        &'a self,
        application: &'a str,
        call: NewCall,
    ) -> BoxFuture<'a, Result<Call, CallError>>;

    /// Accepts an offered call.
    fn answer<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        answer: Answer,
    ) -> BoxFuture<'a, Result<(), CallError>>;

    /// Refuses an offered call; later notifications go to `callback_uri`, if there is one.
    fn reject<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        reason: RejectReason,
        callback_uri: Option<String>,
    ) -> BoxFuture<'a, Result<(), CallError>>;

    /// Sends an offered call to somebody else; the last notification goes to `callback_uri`, if there is
    /// one.
    fn redirect<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        target: Party,
        callback_uri: Option<String>,
    ) -> BoxFuture<'a, Result<(), CallError>>;

    /// Asks the peer to talk to somebody else.
    fn transfer<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        to: TransferTarget,
    ) -> BoxFuture<'a, Result<(), CallError>>;

    /// Ends a call in whatever state it is.
    fn hang_up<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
    ) -> BoxFuture<'a, Result<(), CallError>>;

    /// Renews the lease of a call.
    fn keep_alive<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
    ) -> BoxFuture<'a, Result<(), CallError>>;

    /// Accepts an operation; it is committed when this returns.
    fn submit<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        operation: NewOperation,
    ) -> BoxFuture<'a, Result<Operation, CallError>>;

    /// The operations of a call, oldest first.
    fn operations<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
    ) -> BoxFuture<'a, Result<Vec<Operation>, CallError>>;

    /// One operation of a call.
    fn operation<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        operation: OperationId,
    ) -> BoxFuture<'a, Result<Operation, CallError>>;

    /// The last SIP messages of a call, also of one that is over, as long as they are kept.
    fn trace<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
    ) -> BoxFuture<'a, Result<Vec<TracedMessage>, CallError>>;

    /// How many of the application's notifications were given up, and at most `size` of them after the
    /// first `skip`, oldest first.
    fn undelivered<'a>(
        &'a self,
        application: &'a str,
        skip: usize,
        size: usize,
    ) -> BoxFuture<'a, Result<(usize, Vec<GivenUp>), CallError>>;

    /// Has one of them sent again, or all; tells how many there were.
    fn resend<'a>(
        &'a self,
        application: &'a str,
        which: Option<(CallId, u64)>,
    ) -> BoxFuture<'a, Result<u64, CallError>>;

    /// Takes an `Idempotency-Key` for a request, unless it was taken before. `call` is what it will
    /// call the call that it places.
    fn begin_request<'a>(
        &'a self,
        application: &'a str,
        key: &'a str,
        fingerprint: &'a str,
        call: Option<CallId>,
    ) -> BoxFuture<'a, Result<RequestKey, CallError>>;

    /// Keeps the answer to a request; without one its key is free again.
    fn end_request<'a>(
        &'a self,
        application: &'a str,
        key: &'a str,
        answer: Option<KeptAnswer>,
    ) -> BoxFuture<'a, Result<(), CallError>>;

    /// Opens a recording.
    fn recording<'a>(
        &'a self,
        recording: RecordingId,
        key: RecordingKey<'a>,
    ) -> BoxFuture<'a, Result<OpenRecording, RecordingError>>;

    /// How long a recording that was opened may still be heard, `None` while its call lives; not
    /// found when that time is over.
    fn recording_left(
        &self,
        recording: RecordingId,
    ) -> BoxFuture<'_, Result<Option<Duration>, RecordingError>>;

    /// Purges a recording before its time.
    fn delete_recording<'a>(
        &'a self,
        recording: RecordingId,
        key: RecordingKey<'a>,
    ) -> BoxFuture<'a, Result<(), RecordingError>>;

    /// Where a recording can be fetched, and with what.
    fn recording_link(&self, recording: RecordingId) -> RecordingLink;

    /// Whether notifications could be sent to this URI, as far as that is known without resolving
    /// its name.
    ///
    /// # Errors
    /// Says in words why none ever could; the URI is not repeated.
    fn check_callback(&self, uri: &str) -> Result<(), String>;

    /// Whether calls can be taken.
    ///
    /// # Errors
    /// Says in words what is in the way, for the operator.
    fn ready(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Clips that the database does not know, as they were a short while ago.
    fn lost_and_found(&self) -> LostAndFound;

    /// How it stands with the trunks that we register at.
    fn trunks(&self) -> BoxFuture<'_, Vec<TrunkHealth>>;
}

/// A trunk that we register at, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkHealth {
    /// Its name in the configuration.
    pub name: String,
    /// `registered`, `registering`, `waiting` (it failed, another round follows), `unregistering`,
    /// `idle`, or `no way: ` and why the trunk is not found.
    pub state: String,
    /// For how many seconds.
    pub seconds: u64,
    /// What the last REGISTER was answered; `None` before the first answer.
    pub last_status: Option<u16>,
    /// Why the last round failed.
    pub failure: Option<String>,
}

/// A SIP message as it was sent or came; secrets in it are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedMessage {
    /// When.
    pub at: UnixMillis,
    /// Whether we sent it.
    pub is_sent: bool,
    /// `UDP`, `TCP`, `TLS`, `WS` or `WSS`.
    pub transport: &'static str,
    /// Our address.
    pub local: SocketAddr,
    /// The other side's address.
    pub peer: SocketAddr,
    /// What it says.
    pub message: Arc<str>,
}

/// How an offered call is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where later notifications go; the application's own place when absent.
    pub callback_uri: Option<String>,
    /// The media configuration as it was given; JSON text.
    pub media_config: Option<String>,
    /// What to fetch now because it will be played.
    pub prefetch: Vec<PromptSource>,
}

/// What opens a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordingKey<'a> {
    /// Its own token, the `recordingAccessToken`.
    Token(&'a str),
    /// An application with the role to hear calls: opens its own recordings, and those of the
    /// built-in lines, which belong to nobody.
    Application(&'a str),
}

/// A recording that can be read from now on. The file stays open when it is purged meanwhile: the
/// reader has to look whether it still may be heard.
#[derive(Debug)]
pub struct OpenRecording {
    /// Size in bytes.
    pub bytes: u64,
    /// How long it may still be heard; `None` while its call lives.
    pub left: Option<Duration>,
    /// The file, at its start.
    pub file: ClipReader,
}

/// Why a recording is not given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// Purged, deleted, or never there.
    #[error("Recording not found.")]
    NotFound,
    /// The key does not open this recording.
    #[error("Access token validation failure.")]
    Forbidden,
    /// The database or the folder of the recordings cannot be asked now; nothing was done.
    #[error("Recordings cannot be reached at the moment; try again later.")]
    Unavailable,
}
