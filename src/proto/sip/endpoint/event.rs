//! What the endpoint tells, and what it is told: the words between it and the calls.

use crate::proto::sip::{
    dialog::DialogId,
    message::NameAddr,
    path::{Path, Transmit},
    uri::Uri,
};

/// Everything that comes out of the endpoint.
#[derive(Debug)]
pub enum Output {
    /// A message to send.
    Transmit(Transmit),
    /// A fact for the owner of the call.
    Event(Event),
}

/// A fact about one dialog. `Canceled`, `Bye` and `Ended` are the last of their dialog.
#[derive(Debug)]
pub enum Event {
    /// A call is offered; 100 was sent. Wants `Ring`, then `Answer` or `Refuse`.
    Invite {
        /// The dialog that it would create.
        dialog: DialogId,
        /// What the INVITE says.
        invite: Box<IncomingInvite>,
    },
    /// The ACK of an `Answer` came.
    Acknowledged {
        /// The dialog.
        dialog: DialogId,
        /// SDP of the ACK: the answer when the INVITE had no offer.
        body: Option<Vec<u8>>,
    },
    /// No ACK came in 64*T1; BYE was sent, `Ended` follows.
    NotAcknowledged {
        /// The dialog.
        dialog: DialogId,
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
    },
    /// An INFO came and was answered by 200.
    Info {
        /// The dialog.
        dialog: DialogId,
        /// Content-Type of the body, in lower case, without parameters.
        content_type: String,
        /// The body.
        body: Vec<u8>,
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
            Self::Invite { dialog, .. }
            | Self::Acknowledged { dialog, .. }
            | Self::NotAcknowledged { dialog }
            | Self::Canceled { dialog }
            | Self::Reinvite { dialog, .. }
            | Self::Info { dialog, .. }
            | Self::Bye { dialog, .. }
            | Self::Ended { dialog, .. } => *dialog,
        }
    }
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
    /// The caller.
    pub from: NameAddr,
    /// Whom the caller wanted first.
    pub to: NameAddr,
    /// Whom the request was sent to.
    pub request_uri: Uri,
    /// Call-ID of the dialog.
    pub call_id: String,
    /// Where the caller is reached in this dialog.
    pub contact: Uri,
    /// Subject header field.
    pub subject: Option<String>,
    /// User-Agent header field.
    pub user_agent: Option<String>,
    /// Reason header field (RFC 3326), why the call comes to us.
    pub reason: Option<String>,
    /// Diversion header field (RFC 5806), whom it was meant for before.
    pub diversion: Option<String>,
    /// The SDP offer; without one the `Answer` is the offer.
    pub offer: Option<Vec<u8>>,
    /// Which way it came.
    pub path: Path,
}

/// What the owner of a call wants. A command that comes too late for its dialog is dropped: the
/// event that made it so is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Sends 180.
    Ring {
        /// The dialog.
        dialog: DialogId,
    },
    /// Sends 200 to the pending INVITE or re-INVITE, and repeats it until the ACK comes.
    Answer {
        /// The dialog.
        dialog: DialogId,
        /// The answer; an offer when the INVITE had none.
        sdp: Vec<u8>,
    },
    /// Refuses the pending INVITE or re-INVITE.
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
    /// Hangs up. A call that is not answered yet is refused with 480; a 200 that is not acknowledged
    /// yet keeps its BYE waiting (RFC 3261 §15). `Ended` follows in every case.
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
            Self::Ring { dialog }
            | Self::Answer { dialog, .. }
            | Self::Refuse { dialog, .. }
            | Self::Bye { dialog, .. } => *dialog,
        }
    }
}
