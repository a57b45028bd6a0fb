//! One call: offered, answered, ending. Turns inputs into actions.
//!
//! ```text
//!            answer        leg open           ACK
//!  Offered ─────────▶ Opening ─────▶ Answered ─────▶ Up
//!     │                  │              │             │
//!     └─ cancel, reject, time ──────────┴── BYE, DELETE, RTP or lease over ──▶ Ending ──▶ Over
//!                        │                            ▲
//!  placed ──▶ Locating ──▶ Opening ──▶ Dialing ─ 200 ─┘
//!                └─ no way ──┴────────────┴─ refusal, time, DELETE ─────────▶ Ending
//! ```
//!
//! *Ending* lasts until the media has let go and every clip is safe, so that each operation is told
//! before the call's end is; a deadline bounds it.

mod referral;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand::{RngCore, rngs::StdRng};

pub use referral::ReferralCall;

use super::{
    line::{LineScript, Step},
    queue::{Entry, MAX_QUEUED, Queue, Stage, Turn},
    reason,
    refusal::{CallError, Refusal},
    session::{LocalAudio, Session},
};
use crate::{
    model::{
        Arrival, Call, CallId, CallState, Change, Direction, Event, MediaState, Notification,
        Operation, OperationEnd, OperationId, OperationKind, OperationStatus, ParticipantId, Party,
        PromptFailure, PromptSource, Recorded, RecordingChange, RecordingId, RejectReason, Side,
        Silence, Termination, Tone, TransferKind, UnixMillis,
    },
    proto::{
        sdp,
        sip::{
            endpoint::{self, DialogId},
            uri::Uri,
        },
    },
};

/// The time of an input, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For timers.
    pub instant: Instant,
    /// For what is stored and shown.
    pub wall: UnixMillis,
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
    /// The acceptance of an operation is committed and its prompts are there, or cannot be had.
    Prepared(OperationId, Result<(), PromptFailure>),
    /// A key was pressed.
    Tone(Tone),
    /// The media is done with an operation.
    MediaEnded(OperationId, MediaEnd),
    /// A clip is safe, or it cannot be kept.
    ClipSafe(OperationId, Result<SafeClip, ()>),
    /// RTP did not come, or stopped.
    MediaTimedOut(Silence),
    /// The leg is closed; nothing more comes from it.
    LegClosed,
    /// The leg broke, or has vanished; nothing more comes from it.
    LegFailed,
    /// The store has refused a change for good: what is true is not what is written down.
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
    /// Once all earlier commits are through, get the prompts; answer with [`Input::Prepared`].
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

/// The machine of one call.
#[derive(Debug)]
pub struct Machine {
    call: Call,
    dialog: DialogId,
    owner: Owner,
    settings: Settings,
    phase: Phase,
    session: Session,
    leg: Leg,
    queue: Queue,
    /// Until when the call may live if nobody asks for more time.
    lease_until: Option<Instant>,
    /// Of a call that we place: until when it may ring.
    ring_until: Option<Instant>,
    /// The transfer that is under way.
    transfer: Option<Transfer>,
    /// Whom the peer wants us to call, in its place.
    referral: Option<referral::Referral>,
    /// A new peer has taken the place of the first, and has not acknowledged it: we listen only.
    is_unproven: bool,
    tones_told: u64,
    last_tone: Option<Tone>,
    change: Change,
    actions: VecDeque<Action>,
    rng: StdRng,
}

#[derive(Debug)]
enum Phase {
    Offered { until: Instant },
    Opening,
    Locating,
    Dialing,
    Answered,
    Up,
    Ending { termination: Termination, until: Instant },
    Over,
}

/// The peer was asked to talk to somebody else.
#[derive(Debug, Clone, Copy)]
struct Transfer {
    kind: TransferKind,
    /// The peer has told that the other one was reached: more than 100.
    is_heard_of: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    None,
    Open,
    Closing,
    Closed,
}

/// How long clips may take to become safe before the end is told all the same.
const ENDING_DEADLINE: Duration = Duration::from_secs(15);
/// How long a call that we place may ring when nobody says otherwise.
const RINGING: Duration = Duration::from_secs(60);
/// RFC 3261 section 21.1.2: from here on the called party is being told.
const RINGS: u16 = 180;

impl Machine {
    /// Our INVITE is out, and nobody has answered it or given it up.
    pub fn is_dialing(&self) -> bool {
        matches!(self.phase, Phase::Dialing)
    }

    /// Begins an incoming call that was admitted.
    ///
    /// # Errors
    /// The session cannot be agreed: nothing was begun.
    pub fn offered(
        id: CallId,
        offer: Offer,
        owner: Owner,
        settings: Settings,
        now: Now,
        mut rng: StdRng,
    ) -> Result<Self, Refusal> {
        let session = Session::new(offer.sdp.as_deref(), offer.codecs, rng.next_u32())?;
        let (application, callback_uri) = match &owner {
            Owner::Application { name, callback_uri } => (name.clone(), Some(callback_uri.clone())),
            Owner::Line(_) => (String::new(), None),
        };
        let call = Call {
            id,
            application,
            state: CallState::Incoming,
            direction: Direction::Incoming,
            source: offer.source,
            target: offer.target,
            arrival: offer.arrival,
            is_telephone: offer.is_telephone,
            chain_id: guid(&mut rng),
            participant_id: participant(&mut rng),
            peer_participant_id: participant(&mut rng),
            sip_call_id: offer.sip_call_id,
            callback_uri,
            media: None,
            tones_subscribed: false,
            is_muted: false,
            peer_is_muted: false,
            recording_status: None,
            media_config: None,
            subject: offer.subject,
            ringing_timeout_seconds: None,
            created_at: now.wall,
            ended_at: None,
            termination: None,
        };
        let mut machine = Self {
            call,
            dialog: offer.dialog,
            owner,
            phase: Phase::Offered { until: now.instant + settings.answer_timeout },
            settings,
            session,
            leg: Leg::None,
            queue: Queue::default(),
            lease_until: None,
            ring_until: None,
            transfer: None,
            referral: None,
            is_unproven: false,
            tones_told: 0,
            last_tone: None,
            change: Change::default(),
            actions: VecDeque::new(),
            rng,
        };
        machine.change.call = Some(machine.call.clone());
        match machine.owner {
            Owner::Application { .. } => {
                machine.tell(Event::CallOffered { call: machine.call.clone() });
                machine.signal(endpoint::Command::Ring { dialog: machine.dialog });
            }
            Owner::Line(_) => {
                machine.lease_until = Some(now.instant + machine.settings.line_limit);
                machine.open();
            }
        }
        machine.flush();
        Ok(machine)
    }

    /// Begins a call that an application places.
    ///
    /// # Errors
    /// Only our own fault could refuse it: nothing was begun.
    pub fn placed(
        id: CallId,
        placement: Placement,
        application: &str,
        callback_uri: String,
        settings: Settings,
        now: Now,
        mut rng: StdRng,
    ) -> Result<Self, Refusal> {
        let session = Session::new(None, placement.codecs, rng.next_u32())?;
        let ringing =
            placement.ringing_timeout_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let ringing = ringing.unwrap_or(RINGING);
        let call = Call {
            id,
            application: application.to_owned(),
            state: CallState::Establishing,
            direction: Direction::Outgoing,
            source: placement.source,
            target: placement.target,
            arrival: Arrival::default(),
            is_telephone: placement.is_telephone,
            chain_id: placement.chain_id.unwrap_or_else(|| guid(&mut rng)),
            participant_id: participant(&mut rng),
            peer_participant_id: participant(&mut rng),
            sip_call_id: guid(&mut rng),
            callback_uri: Some(placement.callback_uri.unwrap_or_else(|| callback_uri.clone())),
            media: None,
            tones_subscribed: false,
            is_muted: false,
            peer_is_muted: false,
            recording_status: None,
            media_config: placement.media_config,
            subject: placement.subject,
            ringing_timeout_seconds: placement.ringing_timeout_seconds,
            created_at: now.wall,
            ended_at: None,
            termination: None,
        };
        let mut machine = Self {
            call,
            dialog: placement.dialog,
            owner: Owner::Application { name: application.to_owned(), callback_uri },
            phase: Phase::Locating,
            lease_until: Some(now.instant + settings.keep_alive),
            settings,
            session,
            leg: Leg::None,
            queue: Queue::default(),
            ring_until: Some(now.instant + ringing),
            transfer: None,
            referral: None,
            is_unproven: false,
            tones_told: 0,
            last_tone: None,
            change: Change::default(),
            actions: VecDeque::new(),
            rng,
        };
        machine.tell_changed();
        machine.actions.push_back(Action::Locate);
        machine.flush();
        Ok(machine)
    }

    /// Takes what happened outside.
    pub fn handle_input(&mut self, input: Input, now: Now) {
        match input {
            Input::LegOpened(Some(local)) => self.leg_opened(local, now),
            Input::LegOpened(None) => self.end(Termination::MediaRefused, Some(Refusal::Full), now),
            Input::Acknowledged(body) => self.acknowledged(body.as_deref(), now),
            Input::NotAcknowledged => self.peer_gone(Termination::NoAck, now),
            Input::PeerLost => self.peer_gone(Termination::PeerLost, now),
            Input::Located(result) => self.located(result, now),
            Input::NoEndpoint => self.not_located(Termination::NoEndpoint, now),
            Input::Progress(status) => self.progress(status),
            Input::Answered(answer) => self.answered(answer, now),
            Input::Refused(status) => self.peer_gone(Termination::Refused(status), now),
            Input::Refreshed(answer) => {
                if matches!(self.phase, Phase::Up) && self.session.refreshed(&answer).is_ok() {
                    self.session_changed();
                }
            }
            Input::Canceled => self.peer_gone(Termination::PeerCanceled, now),
            Input::PeerHungUp => self.peer_gone(Termination::PeerHungUp, now),
            Input::Reinvite(offer) => self.reinvite(offer.as_deref()),
            Input::Referred(status) => self.referred(status, now),
            Input::ReferAsked(dialog) => self.refer_asked(dialog, now),
            Input::ReferralLocated(result) => self.referral_located(result, now),
            Input::ReferralProgress(status) => self.referral_progress(status),
            Input::ReferralAnswered(answer) => self.referral_answered(answer, now),
            Input::ReferralRefused(status) => self.referral_refused(status, now),
            Input::Replaced(dialog, offer) => self.replaced(dialog, offer.as_deref()),
            Input::Prepared(id, result) => {
                self.queue.prepared(id, result);
                self.take_turn(now);
            }
            Input::Tone(tone) => self.tone(tone, now),
            Input::MediaEnded(id, ended) => self.media_ended(id, ended, now),
            Input::ClipSafe(id, result) => self.clip_safe(id, result, now),
            Input::MediaTimedOut(silence) => {
                self.end(Termination::MediaTimeout(self.session.loss(silence)), None, now);
            }
            Input::LegClosed if self.leg != Leg::Open => {
                self.leg = Leg::Closed;
                self.leg_gone(now);
            }
            // Nobody has asked it to close.
            Input::LegClosed | Input::LegFailed => {
                self.leg = Leg::Closed;
                self.end(Termination::Internal, Some(Refusal::Internal), now);
                self.leg_gone(now);
            }
            Input::NotCommitted => {
                self.end(Termination::Internal, Some(Refusal::Internal), now);
            }
        }
        self.flush();
    }

    /// Takes what the application asks for.
    ///
    /// # Errors
    /// The request does not fit the call's state; nothing was done.
    pub fn handle_command(&mut self, command: Command, now: Now) -> Result<(), CallError> {
        let result = match command {
            Command::Answer { callback_uri, media_config } => {
                self.answer(callback_uri, media_config, now)
            }
            Command::Reject { reason, callback_uri } => {
                let refusal = Refusal::Rejected(reason);
                self.refuse(Termination::Rejected(reason), refusal, callback_uri, now)
            }
            Command::Redirect { target, callback_uri } => {
                let refusal = Refusal::Redirected(target.to_string());
                self.refuse(Termination::Redirected, refusal, callback_uri, now)
            }
            Command::HangUp(termination) => match self.phase {
                Phase::Ending { .. } | Phase::Over => Err(CallError::Terminated),
                Phase::Offered { .. }
                | Phase::Opening
                | Phase::Locating
                | Phase::Dialing
                | Phase::Answered
                | Phase::Up => {
                    self.end(termination, Some(Refusal::NotAnswered), now);
                    Ok(())
                }
            },
            Command::Transfer { target, replaces } => self.transfer(target, replaces),
            Command::KeepAlive => match self.phase {
                Phase::Ending { .. } | Phase::Over => Err(CallError::NotFound),
                Phase::Offered { .. }
                | Phase::Opening
                | Phase::Locating
                | Phase::Dialing
                | Phase::Answered
                | Phase::Up => {
                    self.renew_lease(now);
                    Ok(())
                }
            },
        };
        self.flush();
        result
    }

    /// Takes an operation. It is accepted once the commits that follow are through.
    ///
    /// # Errors
    /// The call's state does not allow it, or too many wait; nothing was done.
    pub fn submit(&mut self, new: NewOperation, now: Now) -> Result<Operation, CallError> {
        match self.phase {
            Phase::Offered { .. }
            | Phase::Opening
            | Phase::Locating
            | Phase::Dialing
            | Phase::Answered => {
                return Err(CallError::NotEstablished);
            }
            Phase::Ending { .. } | Phase::Over => return Err(CallError::Terminated),
            Phase::Up => {}
        }
        let ahead = match new.kind.barges_in() {
            // What waits makes room for it.
            true => self.queue.begun(),
            false => self.queue.entries().len(),
        };
        if ahead >= MAX_QUEUED && new.kind.is_queued() {
            return Err(CallError::QueueFull);
        }
        let operation = self.accept(new, now);
        self.flush();
        Ok(operation)
    }

    /// Looks at the timers.
    pub fn handle_timeout(&mut self, now: Now) {
        match self.phase {
            Phase::Offered { until } if until <= now.instant => {
                self.end(Termination::NotAnswered, Some(Refusal::NotAnswered), now);
            }
            Phase::Locating | Phase::Opening | Phase::Dialing
                if self.ring_until.is_some_and(|until| until <= now.instant) =>
            {
                self.end(Termination::NoAnswer, None, now);
            }
            Phase::Ending { until, .. } if until <= now.instant => {
                for entry in self.queue.take_all() {
                    self.conclude(entry, OperationEnd::Unspecified, None, now);
                }
                self.leg = Leg::Closed;
                self.try_finish(now);
            }
            Phase::Offered { .. }
            | Phase::Opening
            | Phase::Locating
            | Phase::Dialing
            | Phase::Answered
            | Phase::Up
            | Phase::Ending { .. }
            | Phase::Over => {}
        }
        self.referral_timeout(now);
        if self.lease_until.is_some_and(|until| until <= now.instant) {
            self.lease_until = None;
            let termination = match self.owner {
                Owner::Application { .. } => Termination::KeepAliveExpired,
                Owner::Line(_) => Termination::LineEnded,
            };
            self.end(termination, None, now);
        }
        self.flush();
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Offered { until } | Phase::Ending { until, .. } => Some(until),
            Phase::Locating | Phase::Opening | Phase::Dialing => self.ring_until,
            Phase::Answered | Phase::Up | Phase::Over => None,
        };
        [phase, self.lease_until, self.referral_until()].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The call as it is now.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// The call's dialog.
    pub fn dialog(&self) -> DialogId {
        self.dialog
    }

    /// The call's dialog, when it is up and nobody is about to leave it.
    ///
    /// # Errors
    /// The call is not up yet, or not any more, or one of its sides is being handed over.
    pub fn established(&self) -> Result<DialogId, CallError> {
        match self.phase {
            Phase::Up if self.transfer.is_some() || self.referral.is_some() => {
                Err(CallError::Conflict)
            }
            Phase::Up => Ok(self.dialog),
            Phase::Ending { .. } | Phase::Over => Err(CallError::Terminated),
            Phase::Offered { .. }
            | Phase::Opening
            | Phase::Locating
            | Phase::Dialing
            | Phase::Answered => Err(CallError::NotEstablished),
        }
    }

    /// The operations that are not over.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.queue.entries().iter().map(|entry| &entry.operation)
    }

    // -- setting up --------------------------------------------------------------------------

    fn answer(
        &mut self,
        callback_uri: Option<String>,
        media_config: Option<String>,
        now: Now,
    ) -> Result<(), CallError> {
        match self.phase {
            Phase::Offered { .. } => {}
            Phase::Opening | Phase::Locating | Phase::Dialing | Phase::Answered | Phase::Up => {
                return Err(CallError::WrongState);
            }
            Phase::Ending { .. } | Phase::Over => return Err(CallError::Terminated),
        }
        if callback_uri.is_some() {
            self.call.callback_uri = callback_uri;
        }
        self.call.media_config = media_config;
        self.call.state = CallState::Establishing;
        self.tell_changed();
        self.renew_lease(now);
        self.open();
        Ok(())
    }

    fn refuse(
        &mut self,
        termination: Termination,
        refusal: Refusal,
        callback_uri: Option<String>,
        now: Now,
    ) -> Result<(), CallError> {
        match self.phase {
            Phase::Offered { .. } => {}
            Phase::Opening | Phase::Locating | Phase::Dialing | Phase::Answered | Phase::Up => {
                return Err(CallError::WrongState);
            }
            Phase::Ending { .. } | Phase::Over => return Err(CallError::Terminated),
        }
        if callback_uri.is_some() {
            self.call.callback_uri = callback_uri;
        }
        self.end(termination, Some(refusal), now);
        Ok(())
    }

    fn open(&mut self) {
        self.phase = Phase::Opening;
        self.actions.push_back(Action::OpenLeg);
    }

    fn leg_opened(&mut self, local: LocalAudio, now: Now) {
        self.leg = Leg::Open;
        if !matches!(self.phase, Phase::Opening) {
            // The caller has gone in the meantime.
            self.close_leg();
            return;
        }
        match self.session.describe(local) {
            Ok(offer) if self.ring_until.is_some() => {
                self.phase = Phase::Dialing;
                self.actions.push_back(Action::Dial(offer));
            }
            Ok(sdp) => {
                self.phase = Phase::Answered;
                self.listen_only();
                self.signal(endpoint::Command::Answer { dialog: self.dialog, sdp });
            }
            Err(refusal) => self.end(Termination::MediaRefused, Some(refusal), now),
        }
    }

    fn located(&mut self, result: Result<(), u16>, now: Now) {
        match result {
            Ok(()) if matches!(self.phase, Phase::Locating) => self.open(),
            Ok(()) => {}
            Err(status) => self.not_located(Termination::Refused(status), now),
        }
    }

    fn not_located(&mut self, termination: Termination, now: Now) {
        if matches!(self.phase, Phase::Locating) {
            self.peer_gone(termination, now);
        }
    }

    /// Only who asks is told that it rings: the pages have no notification of it.
    fn progress(&mut self, status: u16) {
        let is_dialing = matches!(self.phase, Phase::Dialing);
        if is_dialing && status >= RINGS && self.call.state == CallState::Establishing {
            self.call.state = CallState::Ringing;
            self.change.call = Some(self.call.clone());
        }
    }

    fn answered(&mut self, answer: Option<Vec<u8>>, now: Now) {
        if !matches!(self.phase, Phase::Dialing) {
            return;
        }
        self.phase = Phase::Answered;
        self.ring_until = None;
        self.acknowledged(answer.as_deref(), now);
    }

    fn acknowledged(&mut self, body: Option<&[u8]>, now: Now) {
        if !matches!(self.phase, Phase::Answered) {
            // The ACK of a re-INVITE that we had answered with an offer, or of a new peer.
            let is_news = std::mem::take(&mut self.is_unproven) || self.session.awaits_answer();
            if matches!(self.phase, Phase::Up) && is_news {
                match self.session.accept(body) {
                    Ok(()) => self.session_changed(),
                    Err(_) => self.end(Termination::MediaRefused, None, now),
                }
            }
            return;
        }
        if self.session.awaits_answer() && self.session.accept(body).is_err() {
            self.end(Termination::MediaRefused, None, now);
            return;
        }
        if let Some(plan) = self.session.plan() {
            self.actions.push_back(Action::ConnectLeg(Box::new(plan)));
        }
        self.phase = Phase::Up;
        self.call.state = CallState::Established;
        self.call.media = Some(self.session.media_state());
        self.tell_changed();
        if let Owner::Line(script) = &mut self.owner {
            let step = script.established();
            self.follow(step, now);
        }
    }

    fn reinvite(&mut self, offer: Option<&[u8]>) {
        let command = match self.phase {
            Phase::Up => match self.session.reoffered(offer) {
                Ok(sdp) => {
                    // The leg first: the peer may move as soon as it has our answer.
                    if !self.session.awaits_answer() {
                        self.session_changed();
                    }
                    self.signal(endpoint::Command::Answer { dialog: self.dialog, sdp });
                    return;
                }
                Err(refusal) => refuse(self.dialog, &refusal),
            },
            Phase::Offered { .. }
            | Phase::Opening
            | Phase::Locating
            | Phase::Dialing
            | Phase::Answered => endpoint::Command::Refuse {
                dialog: self.dialog,
                status: 491,
                reason: "Request Pending".to_owned(),
                headers: Vec::new(),
            },
            Phase::Ending { .. } | Phase::Over => endpoint::Command::Refuse {
                dialog: self.dialog,
                status: 481,
                reason: "Call/Transaction Does Not Exist".to_owned(),
                headers: Vec::new(),
            },
        };
        self.signal(command);
    }

    fn transfer(&mut self, target: Box<Uri>, replaces: Option<DialogId>) -> Result<(), CallError> {
        self.established()?;
        let kind = match replaces {
            Some(_) => TransferKind::Consultative,
            None => TransferKind::Blind,
        };
        self.transfer = Some(Transfer { kind, is_heard_of: false });
        self.signal(endpoint::Command::Refer { dialog: self.dialog, target, replaces });
        Ok(())
    }

    /// Contract section 2.4: transferring, then accepted and over, or back to where it was.
    fn referred(&mut self, status: u16, now: Now) {
        let (Phase::Up, Some(transfer)) = (&self.phase, &mut self.transfer) else { return };
        let kind = transfer.kind;
        transfer.is_heard_of |= (101..300).contains(&status);
        match status {
            ..200 if self.call.state == CallState::Transferring => {}
            ..200 => self.set_state(CallState::Transferring),
            200..300 => {
                self.set_state(CallState::TransferAccepted);
                self.end(Termination::Transferred, None, now);
            }
            300.. => {
                self.transfer = None;
                self.call.state = CallState::Established;
                self.call.media = Some(self.media_state());
                self.change.call = Some(self.call.clone());
                self.tell(Event::TransferFailed { call: self.call.clone(), transfer: kind });
            }
        }
    }

    fn set_state(&mut self, state: CallState) {
        self.call.state = state;
        self.call.media = Some(self.media_state());
        self.tell_changed();
    }

    /// Contract section 3.1: while the peer goes to somebody else, nothing is to be heard of it.
    fn media_state(&self) -> MediaState {
        match self.call.state {
            CallState::Transferring | CallState::TransferAccepted => MediaState::Inactive,
            CallState::Incoming
            | CallState::Establishing
            | CallState::Ringing
            | CallState::Established
            | CallState::Terminating
            | CallState::Terminated => self.session.media_state(),
        }
    }

    /// The call goes on with another peer; what is played and recorded does not notice.
    fn replaced(&mut self, dialog: DialogId, offer: Option<&[u8]>) {
        if !matches!(self.phase, Phase::Up) {
            self.signal(refuse(dialog, &Refusal::Internal));
            return;
        }
        match self.session.replaced(offer) {
            Ok(sdp) => {
                self.is_unproven = true;
                self.listen_only();
                self.give_up_referral();
                self.give_up_transfer();
                let before = std::mem::replace(&mut self.dialog, dialog);
                self.call.is_telephone = false;
                self.signal(endpoint::Command::Answer { dialog, sdp });
                let reason = Some(reason::replaced());
                self.signal(endpoint::Command::Bye { dialog: before, reason });
            }
            Err(refusal) => self.signal(refuse(dialog, &refusal)),
        }
    }

    /// The peer whom we have asked to call somebody else is none any more: nobody tells how it went.
    fn give_up_transfer(&mut self) {
        self.transfer = None;
        if self.call.state == CallState::Transferring {
            self.call.state = CallState::Established;
            self.tell_changed();
        }
    }

    /// Before the ACK nobody has shown that the address is his.
    fn listen_only(&mut self) {
        if let Some(mut plan) = self.session.plan() {
            plan.direction = plan.direction.without_sending();
            self.actions.push_back(Action::ConnectLeg(Box::new(plan)));
        }
    }

    fn session_changed(&mut self) {
        if let Some(plan) = self.session.plan() {
            self.actions.push_back(Action::ConnectLeg(Box::new(plan)));
        }
        let media = Some(self.media_state());
        if self.call.media != media {
            self.call.media = media;
            self.tell_changed();
        }
    }

    fn renew_lease(&mut self, now: Now) {
        if matches!(self.owner, Owner::Application { .. }) {
            self.lease_until = Some(now.instant + self.settings.keep_alive);
        }
    }

    // -- operations --------------------------------------------------------------------------

    fn accept(&mut self, new: NewOperation, now: Now) -> Operation {
        let barge = new.kind.barges_in();
        if barge || new.kind == OperationKind::CancelMediaProcessing {
            self.cancel_all(now);
        }
        self.change_call(&new.kind);
        let queued = new.kind.is_queued();
        let mut operation = Operation {
            id: OperationId::from_random(random(&mut self.rng)),
            call: self.call.id,
            kind: new.kind,
            client_context: new.client_context,
            status: OperationStatus::Completed,
            end: Some(OperationEnd::Done),
            recording: None,
            created_at: now.wall,
            ended_at: Some(now.wall),
        };
        if queued {
            operation.end = None;
            operation.ended_at = None;
            operation.status = match barge || self.queue.is_free() {
                true => OperationStatus::Running,
                false => OperationStatus::NotStarted,
            };
            let recording =
                operation.kind.is_record().then(|| RecordingId::from_random(random(&mut self.rng)));
            if let Some(id) = recording {
                self.change.recordings.push(RecordingChange::Begun {
                    id,
                    call: self.call.id,
                    operation: operation.id,
                    application: self.call.application.clone(),
                    at: now.wall,
                });
            }
            let prompts = operation.kind.prompts().to_vec();
            self.queue.push(operation.clone(), recording);
            self.actions.push_back(Action::Prepare(operation.id, prompts));
        }
        self.change.operations.push(operation.clone());
        operation
    }

    /// What an operation that is complete at once changes of the call itself.
    fn change_call(&mut self, kind: &OperationKind) {
        let before = self.call.clone();
        let is_muted = match kind {
            OperationKind::Mute { side } => Some((*side, true)),
            OperationKind::Unmute { side } => Some((*side, false)),
            OperationKind::SubscribeToTone => {
                self.call.tones_subscribed = true;
                None
            }
            OperationKind::UpdateRecordingStatus { status } => {
                self.call.recording_status = Some(*status);
                None
            }
            _ => None,
        };
        match is_muted {
            Some((Side::Ours, is_muted)) => self.call.is_muted = is_muted,
            Some((Side::Peers, is_muted)) => self.call.peer_is_muted = is_muted,
            None => {}
        }
        if self.call == before {
            return;
        }
        self.change.call = Some(self.call.clone());
        if is_muted.is_some() {
            let (ours, peers) = (self.call.is_muted, self.call.peer_is_muted);
            self.actions.push_back(Action::Mute { ours, peers });
        }
    }

    fn cancel_all(&mut self, now: Now) {
        for entry in self.queue.take_waiting() {
            self.conclude(entry, OperationEnd::Canceled, None, now);
        }
        if let Some(running) = self.queue.running() {
            self.actions.push_back(Action::Cancel(running.operation.id));
        }
    }

    fn take_turn(&mut self, now: Now) {
        while matches!(self.phase, Phase::Up) {
            match self.queue.turn() {
                None => return,
                Some(Turn::Fail(id, failure)) => {
                    if let Some(entry) = self.queue.take(id) {
                        self.conclude(entry, OperationEnd::PromptFailed(failure), None, now);
                    }
                }
                Some(Turn::Begin(id)) => {
                    self.queue.begin(id);
                    if let Some(entry) = self.queue.find(id) {
                        self.actions.push_back(Action::Start(
                            Box::new(entry.operation.clone()),
                            entry.recording,
                        ));
                    }
                }
            }
        }
    }

    fn media_ended(&mut self, id: OperationId, ended: MediaEnd, now: Now) {
        match self.queue.find(id) {
            Some(Entry { recording: Some(clip), stage: Stage::Running, .. })
                if ended.end.delivers_recording() =>
            {
                let recorded = Recorded {
                    id: *clip,
                    // As long as its file will be.
                    duration_ms: 0,
                    speech_ms: ended.speech_ms,
                    speech_ended_at_ms: ended.speech_ended_at_ms,
                };
                self.queue.finish(id, ended.end, recorded);
            }
            Some(Entry { stage: Stage::Running, .. }) => {
                if let Some(entry) = self.queue.take(id) {
                    self.conclude(entry, ended.end, None, now);
                }
            }
            // It was over already, by the deadline of the call's end.
            Some(_) | None => {}
        }
        self.take_turn(now);
        self.try_finish(now);
    }

    fn clip_safe(&mut self, id: OperationId, result: Result<SafeClip, ()>, now: Now) {
        if !matches!(self.queue.find(id), Some(Entry { stage: Stage::Finishing { .. }, .. })) {
            return;
        }
        let Some(mut entry) = self.queue.take(id) else { return };
        let Stage::Finishing { end, mut recorded } =
            std::mem::replace(&mut entry.stage, Stage::Running)
        else {
            return;
        };
        match result {
            Ok(SafeClip { bytes, duration_ms }) => {
                self.change.recordings.push(RecordingChange::Finished { id: recorded.id, bytes });
                recorded.duration_ms = duration_ms;
                match (end, duration_ms) {
                    // Of a leg that vanished before it had recorded anything: the file is purged
                    // like all others.
                    (OperationEnd::HungUpWithAudio, 0) => {
                        entry.recording = None;
                        self.conclude(entry, OperationEnd::HungUpWithoutAudio, None, now);
                    }
                    (end, _) => self.conclude(entry, end, Some(recorded), now),
                }
            }
            Err(()) => self.conclude(entry, OperationEnd::Unspecified, None, now),
        }
        self.try_finish(now);
    }

    /// Ends an operation: the one place where it is written down and told.
    fn conclude(&mut self, entry: Entry, end: OperationEnd, recorded: Option<Recorded>, now: Now) {
        if let (Some(id), None) = (entry.recording, &recorded) {
            self.change.recordings.push(RecordingChange::Discarded { id });
        }
        let mut operation = entry.operation;
        operation.status = end.status();
        operation.end = Some(end);
        operation.recording = recorded;
        operation.ended_at = Some(now.wall);
        self.change.operations.push(operation.clone());
        self.tell(Event::OperationEnded { operation: operation.clone() });
        if let (Owner::Line(script), Phase::Up) = (&mut self.owner, &self.phase) {
            let step = script.ended(&operation, self.last_tone);
            self.follow(step, now);
        }
    }

    fn tone(&mut self, tone: Tone, now: Now) {
        self.last_tone = Some(tone);
        if self.call.tones_subscribed && matches!(self.phase, Phase::Up) {
            self.tones_told += 1;
            let event = Event::ToneHeard { call: self.call.id, sequence: self.tones_told, tone };
            self.tell(event);
        }
        if let (Owner::Line(script), Phase::Up) = (&mut self.owner, &self.phase) {
            let step = script.tone(tone);
            self.follow(step, now);
        }
    }

    fn follow(&mut self, step: Step, now: Now) {
        match step {
            Step::Wait => {}
            Step::Begin(kind) => {
                self.cancel_all(now);
                self.accept(NewOperation { kind, client_context: None }, now);
            }
            Step::HangUp => self.end(Termination::LineEnded, None, now),
        }
    }

    // -- ending ------------------------------------------------------------------------------

    /// The peer has left and knows it.
    fn peer_gone(&mut self, termination: Termination, now: Now) {
        let may_stay = matches!(termination, Termination::PeerHungUp | Termination::PeerLost);
        if may_stay && self.is_referred() {
            return;
        }
        if matches!(self.phase, Phase::Ending { .. } | Phase::Over) {
            return;
        }
        let is_heard_of = self.transfer.is_some_and(|transfer| transfer.is_heard_of);
        let termination = match termination {
            // Phones hang up as soon as they have reached whom they were sent to, and then tell no more.
            // One that has not told of anybody has just hung up.
            Termination::PeerHungUp if is_heard_of => {
                self.set_state(CallState::TransferAccepted);
                Termination::Transferred
            }
            Termination::PeerHungUp if self.call.is_telephone => Termination::TelephoneHungUp,
            termination => termination,
        };
        self.begin_ending(termination, now);
    }

    /// We end the call: with `refusal` if it is not answered yet, else with BYE.
    fn end(&mut self, termination: Termination, refusal: Option<Refusal>, now: Now) {
        match self.phase {
            Phase::Ending { .. } | Phase::Over => return,
            // Nobody out there knows of it yet.
            Phase::Locating => {}
            Phase::Opening if self.ring_until.is_some() => {}
            Phase::Offered { .. } | Phase::Opening => {
                let refusal = refusal.unwrap_or(Refusal::Internal);
                self.signal(refuse(self.dialog, &refusal));
            }
            Phase::Dialing | Phase::Answered | Phase::Up => {
                let reason = Some(reason::of_end(termination));
                self.signal(endpoint::Command::Bye { dialog: self.dialog, reason });
            }
        }
        if termination == Termination::ApplicationHungUp {
            self.call.state = CallState::Terminating;
            self.tell_changed();
        }
        self.begin_ending(termination, now);
    }

    fn begin_ending(&mut self, termination: Termination, now: Now) {
        self.phase = Phase::Ending { termination, until: now.instant + ENDING_DEADLINE };
        self.give_up_referral();
        self.lease_until = None;
        self.call.state = CallState::Terminating;
        let is_wanted = termination == Termination::ApplicationHungUp;
        for entry in self.queue.take_waiting() {
            let end = match entry.operation.kind.is_record() && !is_wanted {
                true => OperationEnd::HungUpWithoutAudio,
                false => OperationEnd::Canceled,
            };
            self.conclude(entry, end, None, now);
        }
        self.close_leg();
        self.try_finish(now);
    }

    fn close_leg(&mut self) {
        match self.leg {
            Leg::Open => {
                self.leg = Leg::Closing;
                self.actions.push_back(Action::CloseLeg);
            }
            Leg::None => self.leg = Leg::Closed,
            Leg::Closing | Leg::Closed => {}
        }
    }

    /// Nothing more comes from the leg: what it had not ended, because it vanished, is ended here.
    fn leg_gone(&mut self, now: Now) {
        if let Some(running) = self.queue.running() {
            let id = running.operation.id;
            match running.recording {
                Some(clip) => {
                    let recorded = Recorded {
                        id: clip,
                        duration_ms: 0,
                        speech_ms: 0,
                        speech_ended_at_ms: None,
                    };
                    self.queue.finish(id, OperationEnd::HungUpWithAudio, recorded);
                    self.actions.push_back(Action::SealClip(id, clip));
                }
                None => {
                    if let Some(entry) = self.queue.take(id) {
                        self.conclude(entry, OperationEnd::Unspecified, None, now);
                    }
                }
            }
        }
        self.try_finish(now);
    }

    fn try_finish(&mut self, now: Now) {
        let Phase::Ending { termination, .. } = self.phase else { return };
        if self.leg != Leg::Closed || !self.queue.entries().is_empty() {
            return;
        }
        self.phase = Phase::Over;
        self.call.state = CallState::Terminated;
        self.call.ended_at = Some(now.wall);
        self.call.termination = Some(termination);
        self.call.media = None;
        self.change.call = Some(self.call.clone());
        self.change.recordings.push(RecordingChange::Expire {
            call: self.call.id,
            at: now.wall.plus(self.settings.retention),
        });
        self.tell(Event::CallEnded { call: self.call.clone() });
        self.actions.push_back(Action::Over);
    }

    // -- telling -----------------------------------------------------------------------------

    fn tell_changed(&mut self) {
        self.change.call = Some(self.call.clone());
        self.tell(Event::CallChanged { call: self.call.clone() });
    }

    fn tell(&mut self, event: Event) {
        let Owner::Application { name, .. } = &self.owner else { return };
        let Some(callback_uri) = &self.call.callback_uri else { return };
        self.change.notifications.push(Notification {
            application: name.clone(),
            callback_uri: callback_uri.clone(),
            chain_id: self.call.chain_id.clone(),
            event,
        });
    }

    fn signal(&mut self, command: endpoint::Command) {
        self.actions.push_back(Action::Signal(command));
    }

    /// What one input changed is one commit, and comes before what is to be done about it.
    fn flush(&mut self) {
        if self.change != Change::default() {
            let change = std::mem::take(&mut self.change);
            self.actions.push_front(Action::Commit(Box::new(change)));
        }
    }
}

fn refuse(dialog: DialogId, refusal: &Refusal) -> endpoint::Command {
    endpoint::Command::Refuse {
        dialog,
        status: refusal.status(),
        reason: refusal.reason().to_owned(),
        headers: refusal.headers(),
    }
}

fn random(rng: &mut StdRng) -> [u8; 16] {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn participant(rng: &mut StdRng) -> ParticipantId {
    ParticipantId::from_random(random(rng))
}

fn guid(rng: &mut StdRng) -> String {
    CallId::from_random(random(rng)).to_string()
}
