//! Changes of an established call: its session and its peer.

use super::{Action, Machine, Now, PendingTransfer, Phase, refuse};
use crate::{
    call::{
        reason,
        refusal::{CallError, Refusal},
        session::MediaTerms,
    },
    model::{CallState, Event, MediaState, Termination, TransferKind},
    proto::sip::{
        Status, StatusClass,
        endpoint::{self, DialogId},
        uri::Uri,
    },
};

impl Machine {
    pub(super) fn reinvite(&mut self, offer: Option<&[u8]>) {
        let command = match self.phase {
            Phase::Up => match self.session.reoffered(offer) {
                Ok(sdp) => {
                    // The leg changes first: the peer may use its new address as soon as it has our
                    // answer.
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
                status: Status::REQUEST_PENDING,
                reason: Status::REQUEST_PENDING.reason().to_owned(),
                headers: Vec::new(),
            },
            Phase::Ending { .. } | Phase::Over => endpoint::Command::Refuse {
                dialog: self.dialog,
                status: Status::CALL_DOES_NOT_EXIST,
                reason: Status::CALL_DOES_NOT_EXIST.reason().to_owned(),
                headers: Vec::new(),
            },
        };
        self.signal(command);
    }

    pub(super) fn transfer(
        &mut self,
        target: Box<Uri>,
        replaces: Option<DialogId>,
    ) -> Result<(), CallError> {
        self.established()?;
        let kind = match replaces {
            Some(_) => TransferKind::Consultative,
            None => TransferKind::Blind,
        };
        self.transfer = Some(PendingTransfer { kind, is_heard_of: false });
        self.signal(endpoint::Command::Refer { dialog: self.dialog, target, replaces });
        Ok(())
    }

    /// Contract section 2.4: the call is transferring; then the transfer is accepted and the call
    /// ends, or the transfer fails and the call is established again.
    pub(super) fn referred(&mut self, status: Status, now: Now) {
        let (Phase::Up, Some(transfer)) = (&self.phase, &mut self.transfer) else { return };
        let kind = transfer.kind;
        transfer.is_heard_of |= status.can_create_dialog();
        match status.class() {
            StatusClass::Provisional if self.call.state == CallState::Transferring => {}
            StatusClass::Provisional => self.set_state(CallState::Transferring),
            StatusClass::Success => {
                self.set_state(CallState::TransferAccepted);
                self.end(Termination::Transferred, None, now);
            }
            StatusClass::Redirection
            | StatusClass::ClientError
            | StatusClass::ServerError
            | StatusClass::GlobalFailure => {
                self.transfer = None;
                self.call.state = CallState::Established;
                self.call.media = Some(self.media_state());
                self.change.call = Some(self.call.clone());
                self.tell(Event::TransferFailed { call: self.call.clone(), transfer: kind });
            }
        }
    }

    pub(super) fn set_state(&mut self, state: CallState) {
        self.call.state = state;
        self.call.media = Some(self.media_state());
        self.tell_changed();
    }

    /// Contract section 3.1: while the peer is being transferred, its media is inactive.
    pub(super) fn media_state(&self) -> MediaState {
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

    /// The call goes on with another peer; playing and recording go on as well.
    pub(super) fn replaced(&mut self, dialog: DialogId, offer: Option<&[u8]>, terms: MediaTerms) {
        if !matches!(self.phase, Phase::Up) {
            self.signal(refuse(dialog, &Refusal::Internal));
            return;
        }
        match self.session.replaced(offer, terms) {
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

    /// Drops a transfer after its peer was replaced: the result of the transfer is no longer
    /// reported.
    fn give_up_transfer(&mut self) {
        self.transfer = None;
        if self.call.state == CallState::Transferring {
            self.call.state = CallState::Established;
            self.tell_changed();
        }
    }

    /// Before the ACK, the peer has not proved that the media address is its own. Nothing is sent
    /// there.
    pub(super) fn listen_only(&mut self) {
        if let Some(mut plan) = self.session.plan() {
            plan.direction = plan.direction.without_sending();
            self.actions.push_back(Action::ConnectLeg(Box::new(plan)));
        }
    }

    pub(super) fn session_changed(&mut self) {
        if let Some(plan) = self.session.plan() {
            self.actions.push_back(Action::ConnectLeg(Box::new(plan)));
        }
        let media = Some(self.media_state());
        if self.call.media != media {
            self.call.media = media;
            self.tell_changed();
        }
    }
}
