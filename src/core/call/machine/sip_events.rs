//! Events of the SIP endpoint: which of the call's dialogs they belong to, and what they mean
//! there.

use super::{Action, DialogRole, Machine, Now, Phase};
use crate::{
    model::Termination,
    proto::sip::{
        Status,
        endpoint::{DialogId, Event, Loss},
    },
};

/// RFC 3261 section 21.5.3: status when the callee's answer cannot be used.
const UNUSABLE: Status = Status::BAD_GATEWAY;

impl Machine {
    /// The part that `dialog` has in the call.
    pub fn role(&self, dialog: DialogId) -> DialogRole {
        if self.referral() == Some(dialog) {
            DialogRole::Referral
        } else if self.dialog == dialog {
            DialogRole::Peer
        } else {
            DialogRole::Former
        }
    }

    /// Handles an event of the peer's dialog.
    pub(super) fn peer_event(&mut self, event: Event, now: Now) {
        match event {
            Event::Progress { status, .. } => self.progress(status),
            Event::Answered { description, .. } => self.answered(description, now),
            Event::Refused { status, .. } => self.peer_gone(Termination::Refused(status), now),
            Event::Acknowledged { body, .. } => self.acknowledged(body.as_deref(), now),
            Event::Lost { how: Loss::NotAcknowledged, .. } => {
                self.peer_gone(Termination::NoAck, now);
            }
            Event::Lost { how: Loss::Unusable, .. } => {
                self.peer_gone(Termination::Refused(UNUSABLE), now);
            }
            // `Ended` also comes after our BYE or CANCEL: the call is ending then, and nothing
            // follows from it. A dialog that ends otherwise has lost its peer.
            Event::Lost { how: Loss::NotRefreshed | Loss::NotKnown, .. } | Event::Ended { .. } => {
                self.peer_gone(Termination::PeerLost, now);
            }
            Event::Referred { status, .. } => self.referred(status, now),
            Event::Refreshed { description, .. } => {
                if matches!(self.phase, Phase::Up) && self.session.refreshed(&description).is_ok() {
                    self.session_changed();
                }
            }
            Event::Canceled { .. } => self.peer_gone(Termination::PeerCanceled, now),
            Event::Reinvite { offer, .. } => self.reinvite(offer.as_deref()),
            Event::Info { tone, .. } => self.actions.push_back(Action::Press(tone)),
            Event::Bye { .. } => self.peer_gone(Termination::PeerHungUp, now),
            // The owner handles these.
            Event::Invite { .. } | Event::Heard { .. } | Event::ReferAsked { .. } => {}
        }
    }

    /// Handles an event of the dialog with the party that the peer has referred us to.
    pub(super) fn referral_event(&mut self, event: Event, now: Now) {
        match event {
            Event::Progress { status, .. } => self.tell_referrer(status),
            Event::Answered { description, .. } => self.referral_answered(description, now),
            Event::Refused { status, .. } => self.referral_refused(status, now),
            Event::Lost { how: Loss::Unusable, .. } => self.referral_refused(UNUSABLE, now),
            // The owner had no room for an earlier event, so the dialog was ended.
            Event::Bye { .. } | Event::Ended { .. } => {
                self.referral_refused(Status::SERVICE_UNAVAILABLE, now);
            }
            Event::Lost {
                how: Loss::NotAcknowledged | Loss::NotRefreshed | Loss::NotKnown,
                ..
            }
            | Event::Invite { .. }
            | Event::Heard { .. }
            | Event::Acknowledged { .. }
            | Event::Referred { .. }
            | Event::ReferAsked { .. }
            | Event::Refreshed { .. }
            | Event::Canceled { .. }
            | Event::Reinvite { .. }
            | Event::Info { .. } => {}
        }
    }
}
