//! The interface that the REST API needs from the call service, and its errors.
//!
//! A method that concerns a call takes the name of an application; a call of another application is
//! not found.

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
pub trait CallService: Send + Sync + 'static {
    /// The calls of an application that have not ended.
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

    /// Answers an incoming call.
    fn answer<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        answer: Answer,
    ) -> BoxFuture<'a, Result<(), CallError>>;

    /// Rejects an incoming call. Later notifications go to `callback_uri`, if there is one.
    fn reject<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        reason: RejectReason,
        callback_uri: Option<String>,
    ) -> BoxFuture<'a, Result<(), CallError>>;

    /// Redirects an incoming call to another party. The last notification goes to `callback_uri`,
    /// if there is one.
    fn redirect<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        target: Party,
        callback_uri: Option<String>,
    ) -> BoxFuture<'a, Result<(), CallError>>;

    /// Asks the peer to talk to another party.
    fn transfer<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        to: TransferTarget,
    ) -> BoxFuture<'a, Result<(), CallError>>;

    /// Ends a call in any state.
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

    /// The last SIP messages of a call. Works for an ended call as long as its messages are kept.
    fn trace<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
    ) -> BoxFuture<'a, Result<Vec<TracedMessage>, CallError>>;

    /// The number of the application's notifications whose delivery was abandoned, and at most
    /// `size` of them after the first `skip`, oldest first.
    fn undelivered<'a>(
        &'a self,
        application: &'a str,
        skip: usize,
        size: usize,
    ) -> BoxFuture<'a, Result<(usize, Vec<GivenUp>), CallError>>;

    /// Sends one abandoned notification again, or all of them; returns their number.
    fn resend<'a>(
        &'a self,
        application: &'a str,
        which: Option<(CallId, u64)>,
    ) -> BoxFuture<'a, Result<u64, CallError>>;

    /// Claims an `Idempotency-Key` for a request, unless it is claimed already. `call` is the id of
    /// the call that the request will place.
    fn begin_request<'a>(
        &'a self,
        application: &'a str,
        key: &'a str,
        fingerprint: &'a str,
        call: Option<CallId>,
    ) -> BoxFuture<'a, Result<RequestKey, CallError>>;

    /// Stores the answer to a request. Without an answer the key becomes free again.
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

    /// How long an opened recording is still available; `None` while its call is in progress. Not
    /// found when that time is over.
    fn recording_left(
        &self,
        recording: RecordingId,
    ) -> BoxFuture<'_, Result<Option<Duration>, RecordingError>>;

    /// Deletes a recording before its retention ends.
    fn delete_recording<'a>(
        &'a self,
        recording: RecordingId,
        key: RecordingKey<'a>,
    ) -> BoxFuture<'a, Result<(), RecordingError>>;

    /// URL and access token of a recording.
    fn recording_link(&self, recording: RecordingId) -> RecordingLink;

    /// Whether notifications can be sent to this URI, as far as this is known without resolving its
    /// host name.
    ///
    /// # Errors
    /// Why no notification can ever be sent there. The text does not repeat the URI.
    fn check_callback(&self, uri: &str) -> Result<(), String>;

    /// Whether calls can be accepted.
    ///
    /// # Errors
    /// The reason why not, for the operator.
    fn ready(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Clips that the database does not know. The numbers may be slightly old.
    fn lost_and_found(&self) -> LostAndFound;

    /// The state of the trunks that we register at.
    fn trunks(&self) -> BoxFuture<'_, Vec<TrunkHealth>>;
}

/// State of a trunk that we register at, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkHealth {
    /// Its name in the configuration.
    pub name: String,
    /// `registered`, `registering`, `waiting` (the last attempt failed, another follows),
    /// `unregistering`, `idle`, or `no way: ` and the reason why the trunk's address is not found.
    pub state: String,
    /// For how many seconds it has been in this state.
    pub seconds: u64,
    /// Status of the last answer to a REGISTER; `None` before the first answer.
    pub last_status: Option<u16>,
    /// Why the last attempt failed.
    pub failure: Option<String>,
}

/// A SIP message as it was sent or received, with secrets masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedMessage {
    /// When it was sent or received.
    pub at: UnixMillis,
    /// Whether we sent it.
    pub is_sent: bool,
    /// `UDP`, `TCP`, `TLS`, `WS` or `WSS`.
    pub transport: &'static str,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Text of the message.
    pub message: Arc<str>,
}

/// Parameters for answering a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// URI for later notifications; the application's own callback when absent.
    pub callback_uri: Option<String>,
    /// The media configuration as the application gave it; JSON text.
    pub media_config: Option<String>,
    /// Prompts to fetch now, because the application will play them.
    pub prefetch: Vec<PromptSource>,
}

/// Credential for a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordingKey<'a> {
    /// The recording's own token, its `recordingAccessToken`.
    Token(&'a str),
    /// An application with the role to access media. It may open its own recordings and those of
    /// the built-in lines, which belong to no application.
    Application(&'a str),
}

/// A recording that is open for reading. The file stays open even if the recording is purged
/// meanwhile, so the reader has to check whether it is still available.
#[derive(Debug)]
pub struct OpenRecording {
    /// Size in bytes.
    pub bytes: u64,
    /// How long the recording is still available; `None` while its call is in progress.
    pub left: Option<Duration>,
    /// The file, at its start.
    pub file: ClipReader,
}

/// Why a recording cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// The recording was purged or deleted, or never existed.
    #[error("Recording not found.")]
    NotFound,
    /// The key does not open this recording.
    #[error("Access token validation failure.")]
    Forbidden,
    /// The database or the folder of the recordings does not answer now; nothing was done.
    #[error("Recordings cannot be reached at the moment; try again later.")]
    Unavailable,
}
