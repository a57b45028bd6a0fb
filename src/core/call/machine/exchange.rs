//! Inputs, commands and actions of a call's machine.

use std::time::{Duration, Instant};

use crate::{
    audio::tape::SafeClip,
    call::{
        line::LineScript,
        session::{LocalAudio, MediaTerms},
    },
    model::{
        Arrival, Change, Operation, OperationEnd, OperationId, OperationKind, Party, PromptSource,
        RecordingId, RejectReason, Silence, SteadyMillis, Termination, Tone, UnixMillis,
    },
    proto::{
        sdp,
        sip::{
            Status,
            endpoint::{self, DialogId},
            uri::Uri,
        },
    },
};

/// The time of an input on each of the three clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic time, for timers.
    pub instant: Instant,
    /// Wall-clock time, for times that are shown.
    pub wall: UnixMillis,
    /// Steady time, for deadlines that are stored.
    pub steady: SteadyMillis,
}

/// Time limits from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long the application may take to answer an offered call.
    pub answer_timeout: Duration,
    /// The longest time between two keepAlive requests.
    pub keep_alive: Duration,
    /// The longest call to a built-in line, which no application ends.
    pub line_limit: Duration,
    /// How long clips are kept after the call has ended.
    pub retention: Duration,
}

/// The party that controls the call.
#[derive(Debug, Clone)]
pub enum Owner {
    /// An application, which learns of events by notifications.
    Application {
        /// The application's name.
        name: String,
        /// URI of its global callback.
        callback_uri: String,
    },
    /// A built-in line.
    Line(LineScript),
}

/// An INVITE that was admitted.
#[derive(Debug)]
pub struct Offer {
    /// The dialog.
    pub dialog: DialogId,
    /// The caller.
    pub source: Party,
    /// The called party.
    pub target: Party,
    /// Call-ID of the dialog.
    pub sip_call_id: String,
    /// Called URI, diversions and referrer.
    pub arrival: Arrival,
    /// Whether the caller is a telephone behind a trunk.
    pub is_telephone: bool,
    /// Subject header.
    pub subject: Option<String>,
    /// Session description, if the INVITE had one.
    pub sdp: Option<Vec<u8>>,
    /// What we can agree on with the peer.
    pub media: MediaTerms,
}

/// A call that is to be placed.
#[derive(Debug)]
pub struct Placement {
    /// The dialog that our INVITE creates.
    pub dialog: DialogId,
    /// The application, as the calling party.
    pub source: Party,
    /// The called party.
    pub target: Party,
    /// Subject header.
    pub subject: Option<String>,
    /// Correlation id of the client, if it gave one.
    pub chain_id: Option<String>,
    /// Where the call's notifications go; the application's global callback when absent.
    pub callback_uri: Option<String>,
    /// The client's media configuration, echoed unchanged; JSON text.
    pub media_config: Option<String>,
    /// Whether the called party is a telephone behind a trunk.
    pub is_telephone: bool,
    /// How long the call may ring, if the application sets it.
    pub ringing_timeout_seconds: Option<u32>,
    /// What we can agree on with the peer.
    pub media: MediaTerms,
}

/// An event from outside the machine.
#[derive(Debug)]
pub enum Input {
    /// The leg is open, or could not be opened (`None`).
    LegOpened(Option<LocalAudio>),
    /// An event of one of the call's dialogs.
    Sip(endpoint::Event),
    /// The caller has not shown that it receives our responses, and another call needs its place.
    MakeRoom,
    /// The called party can be called, with the call's Call-ID; or there is no route to it, with a
    /// SIP status.
    Located(Result<(), Status>),
    /// The called party is a user of ours with no registered phone.
    NoEndpoint,
    /// The peer asks us by REFER to call another party, which replaces it (RFC 3515), and it is
    /// allowed to. The new call uses this dialog, and has these terms.
    ReferAsked(DialogId, MediaTerms),
    /// The referred-to party can be called, or there is no route to it: a SIP status.
    ReferralLocated(Result<(), Status>),
    /// INVITE with Replaces: another peer takes over the call, with this dialog and offer, on these
    /// terms (RFC 3891).
    Replaced(DialogId, Option<Vec<u8>>, MediaTerms),
    /// The acceptance of an operation is committed, and its prompts and its clip's file are ready.
    /// Or one of them cannot be had, and the operation ends with this result.
    Prepared(OperationId, Result<(), OperationEnd>),
    /// A key was pressed.
    Tone(Tone),
    /// The media has sent all audio of an operation. [`MediaEnded`](Self::MediaEnded) follows once
    /// the peer has played it.
    MediaSaid(OperationId),
    /// The media has ended an operation.
    MediaEnded(OperationId, MediaEnd),
    /// A clip is safe on disk. Or it cannot be kept, and its operation ends with this result.
    ClipSafe(OperationId, Result<SafeClip, OperationEnd>),
    /// The peer's RTP did not come, or stopped.
    /// The number of packets that came and were not protected with the agreed key is given too.
    MediaTimedOut(Silence, u64),
    /// The leg is closed; nothing more comes from it.
    LegClosed,
    /// The leg broke, or has vanished; nothing more comes from it.
    LegFailed,
    /// The store has refused a change for good, so the stored state differs from the machine's. Or
    /// more changes of this call wait for the store than one call may have.
    NotCommitted,
}

/// The part that a dialog has in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialogRole {
    /// The dialog with the peer.
    Peer,
    /// The dialog with the party that the peer has referred us to, until that party answers.
    Referral,
    /// None any more: another peer has taken over, or the referral was given up.
    Former,
}

/// How the media ended an operation.
#[derive(Debug, Clone)]
pub struct MediaEnd {
    /// Why the operation ended.
    pub end: OperationEnd,
    /// How much of the clip was speech, in milliseconds.
    pub speech_ms: u64,
    /// Where the last speech ended, in milliseconds from the clip's start; `None` without speech.
    pub speech_ended_at_ms: Option<u64>,
}

/// A request of the application or the operator.
#[derive(Debug)]
pub enum Command {
    /// Answer the call.
    Answer {
        /// Where later notifications go, if the application sets it.
        callback_uri: Option<String>,
        /// The client's media configuration, echoed unchanged; JSON text.
        media_config: Option<String>,
    },
    /// Reject the call.
    Reject {
        /// Reason of the rejection.
        reason: RejectReason,
        /// Where the last notification goes, if the application sets it.
        callback_uri: Option<String>,
    },
    /// Redirect the caller to another target (302).
    Redirect {
        /// The redirect target.
        target: Box<Uri>,
        /// Where the last notification goes, if the application sets it.
        callback_uri: Option<String>,
    },
    /// End the call.
    HangUp(Termination),
    /// Renew the lease: the application still controls the call.
    KeepAlive,
    /// Transfer the peer to another party by REFER.
    Transfer {
        /// The transfer target.
        target: Box<Uri>,
        /// For a consultative transfer: the application's other call, which the peer takes over.
        replaces: Option<DialogId>,
    },
}

/// A requested operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOperation {
    /// The kind of operation, with its parameters.
    pub kind: OperationKind,
    /// The client's context, echoed unchanged.
    pub client_context: Option<String>,
}

/// An action for the owner of the machine to carry out, in order.
#[derive(Debug)]
pub enum Action {
    /// Commit this change to the store.
    Commit(Box<Change>),
    /// Pass this command to the SIP endpoint.
    Signal(endpoint::Command),
    /// Open a leg; answer with [`Input::LegOpened`].
    OpenLeg,
    /// Find a route to the called party; answer with [`Input::Located`].
    Locate,
    /// Send the INVITE to the called party, with this offer.
    Dial(Vec<u8>),
    /// Find a route to the party that the peer refers us to; answer with
    /// [`Input::ReferralLocated`].
    LocateReferral,
    /// Send the INVITE to the referred-to party.
    DialReferral(Box<ReferralCall>),
    /// Apply this plan to the leg: the session is agreed, or has changed.
    ConnectLeg(Box<sdp::StreamPlan>),
    /// Once all earlier commits are done, load the prompts, and open the clip's file unless it is
    /// open; answer with [`Input::Prepared`].
    Prepare(OperationId, Vec<PromptSource>),
    /// Start this operation on the media, with the clip that it records.
    Start(Box<Operation>, Option<RecordingId>),
    /// Pass a key that came by SIP INFO to the leg, which reports it as [`Input::Tone`] at its
    /// place in the audio.
    Press(Tone),
    /// Cancel this operation on the media; answered by [`Input::MediaEnded`].
    Cancel(OperationId),
    /// Set which side's audio the media drops.
    Mute {
        /// Whether our audio is dropped.
        ours: bool,
        /// Whether the peer's audio is dropped.
        peers: bool,
    },
    /// The leg vanished while it wrote this clip: seal what there is; answer with
    /// [`Input::ClipSafe`].
    SealClip(OperationId, RecordingId),
    /// Close the leg; answered by [`Input::LegClosed`].
    CloseLeg,
    /// Once all earlier commits are done, forget the call.
    Over,
}

/// The INVITE that the peer has requested by REFER.
#[derive(Debug)]
pub struct ReferralCall {
    /// The dialog that the INVITE creates.
    pub dialog: DialogId,
    /// Its Call-ID.
    pub call_id: String,
    /// Our offer.
    pub offer: Vec<u8>,
}
