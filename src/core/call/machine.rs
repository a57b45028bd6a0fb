//! The state machine of one call. It turns inputs into actions.
//!
//! ```text
//!            answer        leg open           ACK
//!  Offered ─────────▶ Opening ─────▶ Answered ─────▶ Up
//!     │                  │              │             │
//!     └─ cancel, reject, time ──────────┴── BYE, DELETE, RTP or lease over ──▶ Ending ──▶ Over
//!                        │                            ▲
//!  placed ──▶ Locating ──▶ Opening ──▶ Dialing ─ 200 ─┘
//!                └─ no route ┴────────────┴─ refusal, timeout, DELETE ──────▶ Ending
//! ```
//!
//! *Ending* lasts until the leg is closed and every clip is safe, so that the end of each operation
//! is reported before the end of the call. A deadline bounds the wait for the leg.

mod dialog;
mod ending;
mod exchange;
mod operations;
mod referral;
mod setup;
mod sip_events;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand::{RngCore, rngs::StdRng};

pub use exchange::{
    Action, Command, DialogRole, Input, MediaEnd, NewOperation, Now, Offer, Owner, Placement,
    ReferralCall, Settings,
};

use super::{
    queue::{MAX_QUEUED, Queue},
    refusal::{CallError, Refusal},
    session::{MediaTerms, Session},
    tone_limit::ToneLimit,
};
use crate::{
    model::{
        Arrival, Call, CallId, CallState, Change, Direction, Event, Notification, Operation,
        OperationId, ParticipantId, RecordingId, Termination, Tone, TransferKind,
    },
    proto::{
        sdp::Description,
        sip::endpoint::{self, DialogId},
    },
};

/// The state machine of one call.
#[derive(Debug)]
pub struct Machine {
    call: Call,
    dialog: DialogId,
    owner: Owner,
    settings: Settings,
    phase: Phase,
    session: Session,
    leg: LegState,
    queue: Queue,
    /// When the call ends unless the application sends a keepAlive. For a built-in line: when the
    /// line's time limit is reached.
    lease_until: Option<Instant>,
    /// For a call that we place: when ringing ends as unanswered.
    ring_until: Option<Instant>,
    /// The transfer that is under way.
    transfer: Option<PendingTransfer>,
    /// The call to the party that the peer has referred us to (REFER).
    referral: Option<PendingReferral>,
    /// A new peer has replaced the first one and has not sent its ACK yet, so we only receive.
    is_unproven: bool,
    /// Tones received since the application subscribed, whether reported or not.
    tones_heard: u64,
    tone_limit: ToneLimit,
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

/// A transfer: we have asked the peer by REFER to call another party.
#[derive(Debug, Clone, Copy)]
struct PendingTransfer {
    kind: TransferKind,
    /// The peer has reported a status from 101 to 299: it has reached the transfer target.
    is_heard_of: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LegState {
    None,
    Open,
    Closing,
    Closed,
}

/// How long a call that we place may ring if the application sets no time.
const RINGING: Duration = Duration::from_secs(60);

impl Machine {
    /// Whether our INVITE is sent and neither answered nor given up.
    pub fn is_dialing(&self) -> bool {
        matches!(self.phase, Phase::Dialing)
    }

    /// Begins an incoming call that was admitted.
    ///
    /// # Errors
    /// No session can be agreed; nothing was begun.
    pub fn offered(
        id: CallId,
        offer: Offer,
        owner: Owner,
        settings: Settings,
        now: Now,
        mut rng: StdRng,
    ) -> Result<Self, Refusal> {
        let session = Session::new(offer.sdp.as_deref(), offer.media, &mut rng)?;
        let (application, callback_uri) = match &owner {
            Owner::Application { name, callback_uri } => {
                (Some(name.clone()), Some(callback_uri.clone()))
            }
            Owner::Line(_) => (None, None),
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
        let phase = Phase::Offered { until: now.instant + settings.answer_timeout };
        let mut machine = Self::new(call, offer.dialog, owner, phase, settings, session, rng);
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
    /// Only a fault of our own; nothing was begun.
    pub fn placed(
        id: CallId,
        placement: Placement,
        application: &str,
        callback_uri: String,
        settings: Settings,
        now: Now,
        mut rng: StdRng,
    ) -> Result<Self, Refusal> {
        let session = Session::new(None, placement.media, &mut rng)?;
        let ringing =
            placement.ringing_timeout_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let ringing = ringing.unwrap_or(RINGING);
        let call = Call {
            id,
            application: Some(application.to_owned()),
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
        let owner = Owner::Application { name: application.to_owned(), callback_uri };
        let (dialog, phase) = (placement.dialog, Phase::Locating);
        let mut machine = Self::new(call, dialog, owner, phase, settings, session, rng);
        machine.renew_lease(now);
        machine.ring_until = Some(now.instant + ringing);
        machine.tell_changed();
        machine.actions.push_back(Action::Locate);
        machine.flush();
        Ok(machine)
    }

    /// A machine that has reported nothing yet and has no deadline besides that of its phase.
    fn new(
        call: Call,
        dialog: DialogId,
        owner: Owner,
        phase: Phase,
        settings: Settings,
        session: Session,
        rng: StdRng,
    ) -> Self {
        Self {
            call,
            dialog,
            owner,
            settings,
            phase,
            session,
            leg: LegState::None,
            queue: Queue::default(),
            lease_until: None,
            ring_until: None,
            transfer: None,
            referral: None,
            is_unproven: false,
            tones_heard: 0,
            tone_limit: ToneLimit::default(),
            last_tone: None,
            change: Change::default(),
            actions: VecDeque::new(),
            rng,
        }
    }

    /// Handles an event from outside: from SIP, the media or the store.
    pub fn handle_input(&mut self, input: Input, now: Now) {
        match input {
            Input::LegOpened(Some(local)) => self.leg_opened(local, now),
            Input::LegOpened(None) => self.end(Termination::MediaRefused, Some(Refusal::Full), now),
            Input::Sip(event) => match self.role(event.dialog()) {
                DialogRole::Peer => self.peer_event(event, now),
                DialogRole::Referral => self.referral_event(event, now),
                DialogRole::Former => {}
            },
            Input::MakeRoom => self.make_room(now),
            Input::Located(result) => self.located(result, now),
            Input::NoEndpoint => self.not_located(Termination::NoEndpoint, now),
            Input::ReferAsked(dialog, terms) => self.refer_asked(dialog, terms, now),
            Input::ReferralLocated(result) => self.referral_located(result, now),
            Input::Replaced(dialog, offer, terms) => self.replaced(dialog, offer.as_deref(), terms),
            Input::Prepared(id, result) => {
                self.queue.prepared(id, result);
                self.take_turn(now);
            }
            Input::Tone(tone) => self.tone(tone, now),
            Input::MediaSaid(id) => {
                // The next operation starts now, so that the peer hears no gap.
                self.queue.said(id);
                self.take_turn(now);
            }
            Input::MediaEnded(id, ended) => self.media_ended(id, ended, now),
            Input::ClipSafe(id, result) => self.clip_safe(id, result, now),
            Input::MediaTimedOut(silence, unauthenticated) => {
                let loss = self.session.loss(silence, unauthenticated);
                self.end(Termination::MediaTimeout(loss), None, now);
            }
            Input::LegClosed if self.leg != LegState::Open => {
                self.leg = LegState::Closed;
                self.leg_gone(now);
            }
            // A leg that closes without our request has failed as well.
            Input::LegClosed | Input::LegFailed => {
                self.leg = LegState::Closed;
                self.end(Termination::Internal, Some(Refusal::Internal), now);
                self.leg_gone(now);
            }
            Input::NotCommitted => {
                self.end(Termination::Internal, Some(Refusal::Internal), now);
            }
        }
        self.flush();
    }

    /// Handles a request of the application or the operator.
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

    /// Takes an operation. It is accepted once the commits that follow are done. `clip` is the clip
    /// that it records, if the file is open already.
    ///
    /// # Errors
    /// The call's state does not allow it, or the queue is full; nothing was done.
    pub fn submit(
        &mut self,
        new: NewOperation,
        clip: Option<RecordingId>,
        now: Now,
    ) -> Result<Operation, CallError> {
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
        // One that barges in removes the waiting operations, so only those that have begun count.
        let ahead =
            if new.kind.barges_in() { self.queue.begun() } else { self.queue.entries().len() };
        if ahead >= MAX_QUEUED && new.kind.is_queued() {
            return Err(CallError::QueueFull);
        }
        let operation = self.accept(new, clip, now);
        self.flush();
        Ok(operation)
    }

    /// Handles the timers that have expired.
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
            Phase::Ending { until, .. } if until <= now.instant => self.ending_is_late(now),
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

    /// When [`handle_timeout`](Self::handle_timeout) must be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Offered { until } | Phase::Ending { until, .. } => Some(until),
            Phase::Locating | Phase::Opening | Phase::Dialing => self.ring_until,
            Phase::Answered | Phase::Up | Phase::Over => None,
        };
        [phase, self.lease_until, self.referral_until()].into_iter().flatten().min()
    }

    /// The next action to carry out.
    pub fn poll_output(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The call as it is now.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Whether keys of encrypted audio are secret: no third party can read the SIP of the peer.
    pub fn are_keys_secret(&self) -> bool {
        self.session.are_keys_secret()
    }

    /// The call's dialog.
    pub fn dialog(&self) -> DialogId {
        self.dialog
    }

    /// The dialog of an established call that is not being transferred.
    ///
    /// # Errors
    /// The call is not established yet, has ended, or is being transferred.
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

    /// Number of tones that were not reported because they came faster than a person presses keys.
    pub fn tones_passed_over(&self) -> u64 {
        self.tone_limit.passed_over()
    }

    /// The operations that are not over.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.queue.entries().iter().map(|entry| &entry.operation)
    }

    /// The clip of an operation that is not over, if it records.
    pub fn clip_of(&self, id: OperationId) -> Option<RecordingId> {
        self.queue.find(id)?.recording
    }

    fn renew_lease(&mut self, now: Now) {
        if matches!(self.owner, Owner::Application { .. }) {
            self.lease_until = Some(now.instant + self.settings.keep_alive);
        }
    }

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

    /// Puts all changes of one input into one commit, ahead of the actions that follow from them.
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

/// A call to the party that the peer has referred us to (RFC 3515), not answered yet.
#[derive(Debug)]
struct PendingReferral {
    /// The dialog that our INVITE creates.
    dialog: DialogId,
    /// What we can agree on with the party.
    terms: MediaTerms,
    /// When ringing ends as unanswered.
    until: Instant,
    /// Our offer, once the INVITE is sent.
    offer: Option<Description>,
    /// The peer that sent the REFER has hung up.
    is_alone: bool,
}
