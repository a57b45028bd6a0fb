//! What goes into the machine of a call, and what comes out.

use std::time::{Duration, Instant};

use crate::{
    call::{line::LineScript, session::LocalAudio},
    model::{
        Arrival, Change, Operation, OperationEnd, OperationId, OperationKind, Party, PromptSource,
        RecordingId, RejectReason, Silence, SteadyMillis, Termination, Tone, UnixMillis,
    },
    proto::{
        sdp,
        sip::{
            endpoint::{self, DialogId},
            uri::Uri,
        },
    },
};

/// The time of an input, by each clock.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For timers.
    pub instant: Instant,
    /// For times that are shown.
    pub wall: UnixMillis,
    /// For deadlines that are stored.
    pub steady: SteadyMillis,
}

/// Times that the configuration sets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For the application to answer.
    pub answer_timeout: Duration,
    /// Between two keepAlive requests.
    pub keep_alive: Duration,
    /// For a call to a line: no application ends it.
    pub line_limit: Duration,
    /// How long clips live after hang-up.
    pub retention: Duration,
}

/// Who decides what happens on the call.
#[derive(Debug, Clone)]
pub enum Owner {
    /// A bot, told by notifications.
    Application {
        /// Its name.
        name: String,
        /// Its global callback.
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
    /// Whom it called.
    pub target: Party,
    /// Call-ID of the dialog.
    pub sip_call_id: String,
    /// How the call came here.
    pub arrival: Arrival,
    /// Whether the caller is a telephone, beyond a trunk.
    pub is_telephone: bool,
    /// Subject header.
    pub subject: Option<String>,
    /// Session description, if the INVITE had one.
    pub sdp: Option<Vec<u8>>,
    /// Codecs in our order.
    pub codecs: Vec<sdp::Codec>,
}

/// A call that we are to place.
#[derive(Debug)]
pub struct Placement {
    /// The dialog that it shall make.
    pub dialog: DialogId,
    /// The application, as the calling party.
    pub source: Party,
    /// Whom it calls.
    pub target: Party,
    /// Subject header.
    pub subject: Option<String>,
    /// Correlation id of the client, if it gave one.
    pub chain_id: Option<String>,
    /// Where the call's notifications go; the application's own place when absent.
    pub callback_uri: Option<String>,
    /// Echoed; JSON text.
    pub media_config: Option<String>,
    /// Whether the called party is a telephone, beyond a trunk.
    pub is_telephone: bool,
    /// How long it may ring, if the application says so.
    pub ringing_timeout_seconds: Option<u32>,
    /// Codecs in our order.
    pub codecs: Vec<sdp::Codec>,
}

/// What happened outside.
#[derive(Debug)]
pub enum Input {
    /// The leg is open, or cannot be.
    LegOpened(Option<LocalAudio>),
    /// Our 200 was acknowledged; with the answer if we had made the offer.
    Acknowledged(Option<Vec<u8>>),
    /// Our 200 was never acknowledged; the dialog is gone.
    NotAcknowledged,
    /// The caller has not shown that it hears us, and others want to call.
    MakeRoom,
    /// The peer is not there any more; the dialog is gone.
    PeerLost,
    /// The peer can be called, at the call's Call-ID; or there is no way to it: a SIP status.
    Located(Result<(), u16>),
    /// The called user is one of ours, and has no phone.
    NoEndpoint,
    /// Our call is on its way, by a SIP status of 100 to 199.
    Progress(u16),
    /// Our call was answered; with the answer to our offer.
    Answered(Option<Vec<u8>>),
    /// Our call was refused with this SIP status.
    Refused(u16),
    /// The peer has answered the refresh of the session.
    Refreshed(Vec<u8>),
    /// How the transfer goes: 100 and more, 200 when it is done, 300 and more when it has failed.
    Referred(u16),
    /// The caller canceled; already answered.
    Canceled,
    /// The peer sent BYE; already answered.
    PeerHungUp,
    /// The peer wants to change the session.
    Reinvite(Option<Vec<u8>>),
    /// The peer wants us to call somebody else, by this dialog, who shall have its place (RFC 3515); we
    /// may.
    ReferAsked(DialogId),
    /// Whom the peer has named can be called, or there is no way: a SIP status.
    ReferralLocated(Result<(), u16>),
    /// That one rings, or so: a SIP status.
    ReferralProgress(u16),
    /// That one is there; with the answer to our offer.
    ReferralAnswered(Option<Vec<u8>>),
    /// That one will not come: a SIP status.
    ReferralRefused(u16),
    /// Somebody else takes the peer's place, by this dialog and offer (RFC 3891).
    Replaced(DialogId, Option<Vec<u8>>),
    /// The acceptance of an operation is committed, and its prompts and its clip's file are there;
    /// or how it ends because they cannot be had.
    Prepared(OperationId, Result<(), OperationEnd>),
    /// A key was pressed.
    Tone(Tone),
    /// The media has sent all that an operation says, and will tell its end when the peer has
    /// played it.
    MediaSaid(OperationId),
    /// The media is done with an operation.
    MediaEnded(OperationId, MediaEnd),
    /// A clip is safe, or how its operation ends because it cannot be kept.
    ClipSafe(OperationId, Result<SafeClip, OperationEnd>),
    /// RTP did not come, or stopped.
    MediaTimedOut(Silence),
    /// The leg is closed; nothing more comes from it.
    LegClosed,
    /// The leg broke, or has vanished; nothing more comes from it.
    LegFailed,
    /// The store has refused a change for good: what is true is not what is written down. Or more
    /// changes wait for it than a call may have.
    NotCommitted,
}

/// How the media ended an operation.
#[derive(Debug, Clone)]
pub struct MediaEnd {
    /// Why.
    pub end: OperationEnd,
    /// How much of the clip was speech, in milliseconds.
    pub speech_ms: u64,
    /// Where the last speech ended.
    pub speech_ended_at_ms: Option<u64>,
}

/// A clip that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SafeClip {
    /// The size of its file.
    pub bytes: u64,
    /// Its length.
    pub duration_ms: u64,
    /// The disk took no more.
    pub is_cut_short: bool,
}

/// What the application, or whoever runs the house, asks for.
#[derive(Debug)]
pub enum Command {
    /// Take the call.
    Answer {
        /// Where later notifications go.
        callback_uri: Option<String>,
        /// Echoed; JSON text.
        media_config: Option<String>,
    },
    /// Do not take the call.
    Reject {
        /// Why.
        reason: RejectReason,
        /// Where the last notification goes.
        callback_uri: Option<String>,
    },
    /// Send the caller to somebody else.
    Redirect {
        /// To whom.
        target: Box<Uri>,
        /// Where the last notification goes.
        callback_uri: Option<String>,
    },
    /// End the call.
    HangUp(Termination),
    /// The application is still there.
    KeepAlive,
    /// The peer shall talk to somebody else.
    Transfer {
        /// To whom.
        target: Box<Uri>,
        /// In the place of this call of the application.
        replaces: Option<DialogId>,
    },
}

/// An operation that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOperation {
    /// What to do.
    pub kind: OperationKind,
    /// The client's words.
    pub client_context: Option<String>,
}

/// What the owner of the machine is to do, in order.
#[derive(Debug)]
pub enum Action {
    /// Write this down.
    Commit(Box<Change>),
    /// Tell the SIP endpoint.
    Signal(endpoint::Command),
    /// Open a leg; answer with [`Input::LegOpened`].
    OpenLeg,
    /// Find the way to the called party; answer with [`Input::Located`].
    Locate,
    /// Call it, with this offer.
    Dial(Vec<u8>),
    /// Find the way to whom the peer has named; answer with [`Input::ReferralLocated`].
    LocateReferral,
    /// Call them.
    DialReferral(Box<ReferralCall>),
    /// The session is agreed, or changed.
    ConnectLeg(Box<sdp::StreamPlan>),
    /// Once all earlier commits are through, get the prompts, and open the clip's file if that was
    /// not done; answer with [`Input::Prepared`].
    Prepare(OperationId, Vec<PromptSource>),
    /// Have the media begin.
    Start(Box<Operation>, Option<RecordingId>),
    /// Have the media end this one as canceled; answered by [`Input::MediaEnded`].
    Cancel(OperationId),
    /// Have the media drop, or let through, our sound and the peer's.
    Mute {
        /// Whether ours is dropped.
        ours: bool,
        /// Whether the peer's is dropped.
        peers: bool,
    },
    /// The leg vanished while it wrote this clip: seal what there is; answer with
    /// [`Input::ClipSafe`].
    SealClip(OperationId, RecordingId),
    /// Close the leg; answered by [`Input::LegClosed`].
    CloseLeg,
    /// Once all earlier commits are through, forget the call.
    Over,
}

/// The INVITE that a peer has asked for.
#[derive(Debug)]
pub struct ReferralCall {
    /// The dialog that it shall make.
    pub dialog: DialogId,
    /// Its Call-ID.
    pub call_id: String,
    /// Our offer.
    pub offer: Vec<u8>,
}
