//! What the endpoint tells, and what it is told: the words between it and the calls.

pub use crate::proto::sip::outgoing::OutgoingCall;
use crate::{
    model::Tone,
    proto::sip::{
        dialog::DialogId,
        message::NameAddr,
        path::{Path, Transmit},
        uri::Uri,
    },
};

/// Everything that comes out of the endpoint.
#[derive(Debug)]
pub enum Output {
    /// A message to send.
    Transmit(Transmit),
    /// A fact for the owner of the call.
    Event(Event),
    /// A request that went this way was not answered in its time: the stream there may be dead.
    Silent(Path),
}

/// A fact about one dialog. `Canceled`, `Refused`, `Bye` and `Ended` are the last of their dialog.
#[derive(Debug)]
pub enum Event {
    /// A call of ours is on its way: 180 and the like.
    Progress {
        /// The dialog that the call would make.
        dialog: DialogId,
        /// 101 to 199.
        status: u16,
        /// Which way it came: that of the target that is tried.
        path: Path,
    },
    /// A call of ours was answered; the ACK was sent.
    Answered {
        /// The dialog.
        dialog: DialogId,
        /// The answer to our offer, in the 200 or before, from the one who has answered.
        description: Option<Vec<u8>>,
        /// Which way the call goes.
        path: Path,
    },
    /// A call of ours will not be.
    Refused {
        /// The dialog that it would have made.
        dialog: DialogId,
        /// 300 to 699; 408 also when nobody answers, 503 also when nobody can be reached.
        status: u16,
        /// The reason in words.
        reason: String,
        /// Of a 3xx: whom to call instead.
        contacts: Vec<NameAddr>,
    },
    /// A call is offered; 100 was sent. Wants `Ring`, then `Answer` or `Refuse`.
    Invite {
        /// The dialog that it would create.
        dialog: DialogId,
        /// What the INVITE says.
        invite: Box<IncomingInvite>,
    },
    /// A caller that is not known has sent a message with our tag: it is where it says. Once for
    /// each of its dialogs, before whatever the message leads to.
    Heard {
        /// The dialog.
        dialog: DialogId,
    },
    /// The ACK of an `Answer` came.
    Acknowledged {
        /// The dialog.
        dialog: DialogId,
        /// SDP of the ACK: the answer when the INVITE had no offer.
        body: Option<Vec<u8>>,
    },
    /// The peer is not there any more; BYE was sent, `Ended` follows.
    Lost {
        /// The dialog.
        dialog: DialogId,
        /// How we know.
        how: Loss,
    },
    /// What became of a `Refer`: 100 and more when the peer has begun, 200 when it is connected, 300
    /// and more when it will not be. Nothing follows a final status.
    Referred {
        /// The dialog.
        dialog: DialogId,
        /// 100 to 699.
        status: u16,
    },
    /// The peer wants us to call somebody else, who shall have its place (RFC 3515); 202 was sent.
    /// Wants `TellReferrer`, the last time with a final status.
    ReferAsked {
        /// The dialog.
        dialog: DialogId,
        /// Whom to call, and who says so.
        referral: Box<IncomingReferral>,
    },
    /// The peer has answered our refresh of the session with a description of its own.
    Refreshed {
        /// The dialog.
        dialog: DialogId,
        /// The answer to our newest description.
        description: Vec<u8>,
    },
    /// The caller gave up before we answered, by CANCEL or BYE; 487 was sent.
    Canceled {
        /// The dialog.
        dialog: DialogId,
    },
    /// The peer wants to change the session. Wants `Answer` or `Refuse`.
    Reinvite {
        /// The dialog.
        dialog: DialogId,
        /// The offer; without one the `Answer` is the offer.
        offer: Option<Vec<u8>>,
        /// Where it came from: the peer may have moved.
        path: Path,
        /// The peer there hears us; else the source may be forged.
        is_proved: bool,
    },
    /// An INFO with a key came and was answered by 200.
    Info {
        /// The dialog.
        dialog: DialogId,
        /// The key.
        tone: Tone,
    },
    /// The peer hung up; 200 was sent.
    Bye {
        /// The dialog.
        dialog: DialogId,
        /// The Reason header field (RFC 3326), as it came.
        reason: Option<String>,
    },
    /// Our BYE is done.
    Ended {
        /// The dialog.
        dialog: DialogId,
        /// Whether the peer said anything to it.
        how: Ending,
    },
}

impl Event {
    /// The dialog that it is about.
    pub fn dialog(&self) -> DialogId {
        match self {
            Self::Progress { dialog, .. }
            | Self::Answered { dialog, .. }
            | Self::Refused { dialog, .. }
            | Self::Invite { dialog, .. }
            | Self::Heard { dialog }
            | Self::Acknowledged { dialog, .. }
            | Self::Lost { dialog, .. }
            | Self::Referred { dialog, .. }
            | Self::ReferAsked { dialog, .. }
            | Self::Refreshed { dialog, .. }
            | Self::Canceled { dialog }
            | Self::Reinvite { dialog, .. }
            | Self::Info { dialog, .. }
            | Self::Bye { dialog, .. }
            | Self::Ended { dialog, .. } => *dialog,
        }
    }

    /// Whether nothing more comes from its dialog.
    pub fn is_last(&self) -> bool {
        matches!(
            self,
            Self::Canceled { .. } | Self::Refused { .. } | Self::Bye { .. } | Self::Ended { .. }
        )
    }
}

/// How we know that a peer is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// No ACK came in 64*T1.
    NotAcknowledged,
    /// Nobody refreshed the session (RFC 4028 §10).
    NotRefreshed,
    /// It does not know the dialog, or did not answer a request of ours (RFC 3261 §12.2.1.2).
    NotKnown,
    /// It has answered our call by a 2xx with a Contact or Record-Route that cannot be read; the
    /// ACK was sent.
    Unusable,
}

/// How our BYE was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A final response came, whatever it says.
    Answered,
    /// Nothing came in 64*T1.
    TimedOut,
}

/// What an INVITE outside of a dialog says.
#[derive(Debug, Clone)]
pub struct IncomingInvite {
    /// The user of ours who calls, proved by digest authentication.
    pub user: Option<String>,
    /// The trunk that it comes from.
    pub trunk: Option<String>,
    /// The call that it shall take the place of (RFC 3891); its caller may do so.
    pub replaces: Option<DialogId>,
    /// The caller, as it says.
    pub from: NameAddr,
    /// Whom the request was sent to.
    pub request_uri: Uri,
    /// Call-ID of the dialog.
    pub call_id: String,
    /// Subject header field.
    pub subject: Option<String>,
    /// Whom it was meant for before, from the first to the last (RFC 5806, RFC 7044).
    pub diverted: Vec<NameAddr>,
    /// Referred-By header field (RFC 3892), who sent the caller to us.
    pub referred_by: Option<NameAddr>,
    /// The SDP offer; without one the `Answer` is the offer.
    pub offer: Option<Vec<u8>>,
    /// Which way it came.
    pub path: Path,
}

/// What a REFER says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingReferral {
    /// Whom to call, without the header fields that the URI may have.
    pub target: Uri,
    /// The value of a Replaces header field: the target is in a call already, and takes us in its
    /// place (RFC 3891).
    pub replaces: Option<String>,
    /// Who refers, as the peer says (RFC 3892).
    pub by: Option<String>,
}

/// What the owner of a call wants. A command that comes too late for its dialog is dropped: the
/// event that made it so is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Places a call.
    Call {
        /// The dialog that it shall make; see [`DialogId::FIRST_OUTGOING`].
        dialog: DialogId,
        /// Whom, by which way, as whom.
        call: Box<OutgoingCall>,
    },
    /// Sends 180.
    Ring {
        /// The dialog.
        dialog: DialogId,
    },
    /// Sends 200 to the pending INVITE, re-INVITE or UPDATE. That of an INVITE is repeated until the
    /// ACK comes.
    Answer {
        /// The dialog.
        dialog: DialogId,
        /// The answer; an offer when the INVITE had none.
        sdp: Vec<u8>,
    },
    /// Refuses the pending INVITE with 401: whoever calls shall say who it is.
    Challenge {
        /// The dialog.
        dialog: DialogId,
    },
    /// Refuses the pending INVITE, re-INVITE or UPDATE.
    Refuse {
        /// The dialog.
        dialog: DialogId,
        /// 300 to 699.
        status: u16,
        /// Reason phrase.
        reason: String,
        /// Further header fields: name and value.
        headers: Vec<(String, String)>,
    },
    /// Asks the peer of a call that is up to call somebody else (RFC 3515); `Referred` follows.
    Refer {
        /// The dialog.
        dialog: DialogId,
        /// Whom.
        target: Box<Uri>,
        /// In the place of this call of ours (RFC 3891): then the target is its peer.
        replaces: Option<DialogId>,
    },
    /// Tells the peer how the call goes that it has asked for.
    TellReferrer {
        /// The dialog in which it has asked.
        dialog: DialogId,
        /// 100 to 699; from 200 on it is over.
        status: u16,
    },
    /// Ends a call whose caller has not shown that it hears us, at once: with 503 if it is not
    /// answered. Nothing of it is remembered, and no event follows. Any other call is hung up.
    MakeRoom {
        /// The dialog.
        dialog: DialogId,
    },
    /// Hangs up. A call that we have not answered is refused with 480, one that we place is canceled; a
    /// 200 that is not acknowledged yet keeps its BYE waiting (RFC 3261 §15). `Ended` follows in every
    /// case.
    Bye {
        /// The dialog.
        dialog: DialogId,
        /// Value of a Reason header field (RFC 3326).
        reason: Option<String>,
    },
}

impl Command {
    /// The dialog that it is for.
    pub fn dialog(&self) -> DialogId {
        match self {
            Self::Call { dialog, .. }
            | Self::Ring { dialog }
            | Self::Refer { dialog, .. }
            | Self::TellReferrer { dialog, .. }
            | Self::Challenge { dialog }
            | Self::Answer { dialog, .. }
            | Self::Refuse { dialog, .. }
            | Self::MakeRoom { dialog }
            | Self::Bye { dialog, .. } => *dialog,
        }
    }
}
