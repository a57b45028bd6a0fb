//! The peer hands the call over: its REFER asks us to call another party, which replaces it
//! (RFC 3515).
//!
//! ```text
//!           accepted       route          200
//!  ReferAsked ────▶ Locating ─────▶ Dialing ─────▶ the call's dialog; the old one gets BYE
//!                       └─ no route ───┴── refusal, timeout ──▶ told to the peer; the call stays
//! ```
//!
//! The call stays established meanwhile; playing and recording go on. If the peer hangs up before
//! the referred-to party has answered, the call waits for that answer.

use std::time::{Duration, Instant};

use super::{Action, Machine, Now, PendingReferral, Phase, ReferralCall, guid};
use crate::{
    call::{reason, session::MediaTerms},
    model::Termination,
    proto::{
        sdp::Direction,
        sip::{
            Status,
            endpoint::{self, DialogId},
        },
    },
};

/// How long the referred-to party may ring.
const RINGING: Duration = Duration::from_secs(60);

impl Machine {
    /// The dialog that the call will have if the referred-to party answers.
    pub fn referral(&self) -> Option<DialogId> {
        self.referral.as_ref().map(|referral| referral.dialog)
    }

    pub(super) fn refer_asked(&mut self, dialog: DialogId, terms: MediaTerms, now: Now) {
        let is_free = self.referral.is_none() && self.transfer.is_none();
        if !matches!(self.phase, Phase::Up) || !is_free {
            self.tell_referrer(Status::DECLINE);
            return;
        }
        let until = now.instant + RINGING;
        self.referral =
            Some(PendingReferral { dialog, terms, until, offer: None, is_alone: false });
        self.actions.push_back(Action::LocateReferral);
    }

    pub(super) fn referral_located(&mut self, result: Result<(), Status>, now: Now) {
        let Some(referral) = &mut self.referral else { return };
        let offer =
            result.and_then(|()| self.session.propose(&referral.terms).ok_or(Status::DECLINE));
        match offer {
            Ok(offer) => {
                let text = offer.to_string().into_bytes();
                referral.offer = Some(offer);
                let call_id = guid(&mut self.rng);
                let call = ReferralCall { dialog: referral.dialog, call_id, offer: text };
                self.actions.push_back(Action::DialReferral(Box::new(call)));
            }
            Err(status) => self.referral_refused(status, now),
        }
    }

    /// The referred-to party has answered: the call goes on with it.
    pub(super) fn referral_answered(&mut self, answer: Option<Vec<u8>>, now: Now) {
        let Some(PendingReferral { offer: Some(offer), terms, dialog, is_alone, .. }) =
            &self.referral
        else {
            return;
        };
        let (dialog, is_alone) = (*dialog, *is_alone);
        if let Err(refusal) = self.session.move_to(offer, terms, answer.as_deref()) {
            self.hang_up_referral(refusal.status());
            self.referral_refused(refusal.status(), now);
            return;
        }
        self.referral = None;
        let before = std::mem::replace(&mut self.dialog, dialog);
        self.call.is_telephone = false;
        self.session_changed();
        if !is_alone {
            self.signal(endpoint::Command::TellReferrer { dialog: before, status: Status::OK });
            let reason = Some(reason::transferred());
            self.signal(endpoint::Command::Bye { dialog: before, reason });
        }
    }

    /// The call to the referred-to party has failed. The call goes on with the peer, or ends if the
    /// peer has hung up.
    pub(super) fn referral_refused(&mut self, status: Status, now: Now) {
        let Some(referral) = self.referral.take() else { return };
        if referral.is_alone {
            self.peer_gone(Termination::PeerHungUp, now)
        } else {
            self.tell_referrer(status)
        }
    }

    pub(super) fn referral_timeout(&mut self, now: Now) {
        if self.referral.as_ref().is_some_and(|referral| referral.until <= now.instant) {
            self.hang_up_referral(Status::REQUEST_TIMEOUT);
            self.referral_refused(Status::REQUEST_TIMEOUT, now);
        }
    }

    pub(super) fn referral_until(&self) -> Option<Instant> {
        self.referral.as_ref().map(|referral| referral.until)
    }

    /// The peer has hung up. Returns whether the call waits for the referred-to party.
    pub(super) fn is_referred(&mut self) -> bool {
        let Some(referral) = &mut self.referral else { return false };
        if !referral.is_alone {
            referral.is_alone = true;
            // The call has no peer to send to or to receive from.
            if let Some(mut plan) = self.session.plan() {
                plan.direction = Direction::Inactive;
                self.actions.push_back(Action::ConnectLeg(Box::new(plan)));
            }
        }
        true
    }

    /// Gives the referral up because the call ends or has another peer.
    pub(super) fn give_up_referral(&mut self) {
        self.hang_up_referral(Status::REQUEST_TERMINATED);
        self.referral = None;
    }

    fn hang_up_referral(&mut self, status: Status) {
        if let Some(PendingReferral { dialog, offer: Some(_), .. }) = self.referral {
            let reason = Some(reason::of_status(status));
            self.signal(endpoint::Command::Bye { dialog, reason });
        }
    }

    pub(super) fn tell_referrer(&mut self, status: Status) {
        self.signal(endpoint::Command::TellReferrer { dialog: self.dialog, status });
    }
}
