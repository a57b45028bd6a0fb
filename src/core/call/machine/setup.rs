//! From an offer, or a request to place a call, to an established call.

use super::{Action, LegState, Machine, Now, Owner, Phase};
use crate::{
    call::{
        refusal::{CallError, Refusal},
        session::LocalAudio,
    },
    model::{CallState, Termination},
    proto::sip::{Status, endpoint},
};

/// RFC 3261 section 21.1.2: from this status on, the called party is being alerted.
const RINGS: Status = Status::RINGING;

impl Machine {
    pub(super) fn answer(
        &mut self,
        callback_uri: Option<String>,
        media_config: Option<String>,
        now: Now,
    ) -> Result<(), CallError> {
        self.must_be_offered()?;
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

    pub(super) fn refuse(
        &mut self,
        termination: Termination,
        refusal: Refusal,
        callback_uri: Option<String>,
        now: Now,
    ) -> Result<(), CallError> {
        self.must_be_offered()?;
        if callback_uri.is_some() {
            self.call.callback_uri = callback_uri;
        }
        self.end(termination, Some(refusal), now);
        Ok(())
    }

    /// Fails unless the call waits for the application's decision.
    fn must_be_offered(&self) -> Result<(), CallError> {
        match self.phase {
            Phase::Offered { .. } => Ok(()),
            Phase::Opening | Phase::Locating | Phase::Dialing | Phase::Answered | Phase::Up => {
                Err(CallError::WrongState)
            }
            Phase::Ending { .. } | Phase::Over => Err(CallError::Terminated),
        }
    }

    pub(super) fn open(&mut self) {
        self.phase = Phase::Opening;
        self.actions.push_back(Action::OpenLeg);
    }

    pub(super) fn leg_opened(&mut self, local: LocalAudio, now: Now) {
        self.leg = LegState::Open;
        if !matches!(self.phase, Phase::Opening) {
            // The call has ended in the meantime.
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
            Err(refusal) => self.end(without_media(&refusal), Some(refusal), now),
        }
    }

    pub(super) fn located(&mut self, result: Result<(), Status>, now: Now) {
        match result {
            Ok(()) if matches!(self.phase, Phase::Locating) => self.open(),
            Ok(()) => {}
            Err(status) => self.not_located(Termination::Refused(status), now),
        }
    }

    pub(super) fn not_located(&mut self, termination: Termination, now: Now) {
        if matches!(self.phase, Phase::Locating) {
            self.peer_gone(termination, now);
        }
    }

    /// Ringing is shown to an application that asks for the call. It is not reported: Microsoft's
    /// documentation has no notification of it.
    pub(super) fn progress(&mut self, status: Status) {
        let is_dialing = matches!(self.phase, Phase::Dialing);
        if is_dialing && status >= RINGS && self.call.state == CallState::Establishing {
            self.call.state = CallState::Ringing;
            self.change.call = Some(self.call.clone());
        }
    }

    pub(super) fn answered(&mut self, answer: Option<Vec<u8>>, now: Now) {
        if !matches!(self.phase, Phase::Dialing) {
            return;
        }
        self.phase = Phase::Answered;
        self.ring_until = None;
        self.acknowledged(answer.as_deref(), now);
    }

    pub(super) fn acknowledged(&mut self, body: Option<&[u8]>, now: Now) {
        if !matches!(self.phase, Phase::Answered) {
            // This is the ACK of a re-INVITE that we answered with an offer, or of a new peer.
            let is_news = std::mem::take(&mut self.is_unproven) || self.session.awaits_answer();
            if matches!(self.phase, Phase::Up) && is_news {
                match self.session.accept(body) {
                    Ok(()) => self.session_changed(),
                    Err(refusal) => self.end(without_media(&refusal), None, now),
                }
            }
            return;
        }
        if self.session.awaits_answer()
            && let Err(refusal) = self.session.accept(body)
        {
            self.end(without_media(&refusal), None, now);
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
}

/// The end of a call whose media cannot be agreed on.
fn without_media(refusal: &Refusal) -> Termination {
    if let Refusal::NotEncrypted(fault) = refusal {
        Termination::NotEncrypted(*fault)
    } else {
        Termination::MediaRefused
    }
}
