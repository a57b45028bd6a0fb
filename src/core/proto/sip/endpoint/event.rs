//! The interface between the endpoint and the calls: its outputs and events, and the commands that
//! it takes.

pub use crate::proto::sip::outgoing::OutgoingCall;
use crate::{
    model::Tone,
    proto::sip::{
        Status,
        dialog::DialogId,
        message::{NameAddr, Request},
        path::Path,
        transmit::Transmit,
        uri::Uri,
    },
};

/// The maximum number of diverting parties that are kept; further ones are of no interest.
const MAX_DIVERSIONS: usize = 16;

/// An output of the endpoint.
#[derive(Debug)]
pub enum Output {
    /// A message to send.
    Transmit(Transmit),
    /// An event for the owner of the call.
    Event(Event),
    /// A request sent over this path timed out without a response: the stream may be dead.
    Silent(Path),
}

/// An event of one dialog. `Canceled`, `Refused`, `Bye` and `Ended` are the last of their dialog.
#[derive(Debug)]
pub enum Event {
    /// An outgoing call got a provisional response, such as 180.
    Progress {
        /// The dialog that the call will create.
        dialog: DialogId,
        /// 101 to 199.
        status: Status,
        /// The path that the response came over: that of the target being tried.
        path: Path,
    },
    /// An outgoing call was answered; the ACK was sent.
    Answered {
        /// The dialog.
        dialog: DialogId,
        /// The SDP answer to our offer: from the 2xx, or from an earlier provisional response of
        /// the same fork.
        description: Option<Vec<u8>>,
        /// The path of the dialog.
        path: Path,
    },
    /// An outgoing call failed.
    Refused {
        /// The dialog that it would have created.
        dialog: DialogId,
        /// 300 to 699. 408 also if no target answers, 503 also if no target can be reached.
        status: Status,
        /// The reason phrase.
        reason: String,
        /// The Contacts of a 3xx response: other targets to call.
        contacts: Vec<NameAddr>,
    },
    /// A new call came. 100 was sent, except to a stranger over UDP. Expects `Ring`, then `Answer`
    /// or `Refuse`.
    Invite {
        /// The dialog that it would create.
        dialog: DialogId,
        /// The content of the INVITE.
        invite: Box<IncomingInvite>,
    },
    /// A stranger has sent its first message with our tag, so it receives our messages. Comes once
    /// per dialog, before any event that the same message causes.
    Heard {
        /// The dialog.
        dialog: DialogId,
    },
    /// The ACK of an `Answer` came.
    Acknowledged {
        /// The dialog.
        dialog: DialogId,
        /// The SDP of the ACK: the answer if the INVITE had no offer.
        body: Option<Vec<u8>>,
    },
    /// The peer is gone. We hang up with BYE, unless that is done already; `Ended` follows.
    Lost {
        /// The dialog.
        dialog: DialogId,
        /// Why the peer is considered gone.
        how: Loss,
    },
    /// Progress of a `Refer`: 1xx while the peer calls the target, 2xx once it is connected, 300 or
    /// above if that fails. No further `Referred` follows a final status.
    Referred {
        /// The dialog.
        dialog: DialogId,
        /// 100 to 699.
        status: Status,
    },
    /// The peer asks us to call another party that takes the peer's place (RFC 3515); 202 was sent.
    /// Expects `TellReferrer`, the last time with a final status.
    ReferAsked {
        /// The dialog.
        dialog: DialogId,
        /// The target and the referrer.
        referral: Box<IncomingReferral>,
    },
    /// The peer has answered our session refresh with a session description.
    Refreshed {
        /// The dialog.
        dialog: DialogId,
        /// The SDP answer to our newest description.
        description: Vec<u8>,
    },
    /// The caller gave up before we answered, by CANCEL or BYE; 487 was sent. Also if the caller
    /// sends no PRACK for our reliable 180; then 504 was sent.
    Canceled {
        /// The dialog.
        dialog: DialogId,
    },
    /// The peer wants to change the session, by re-INVITE or by UPDATE with an offer. Expects
    /// `Answer` or `Refuse`.
    Reinvite {
        /// The dialog.
        dialog: DialogId,
        /// The offer; if there is none, the `Answer` carries our offer.
        offer: Option<Vec<u8>>,
        /// The path that the request came over: the peer may have moved.
        path: Path,
        /// Whether the peer has shown that it receives at its address; otherwise the source address
        /// may be forged.
        is_proved: bool,
    },
    /// An INFO with a DTMF key came; 200 was sent.
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
        /// The Reason header field (RFC 3326), unparsed.
        reason: Option<String>,
    },
    /// Our hang-up is complete: the BYE or CANCEL got its response or timed out, or we refused the
    /// call.
    Ended {
        /// The dialog.
        dialog: DialogId,
        /// Whether the peer sent a final response.
        how: Ending,
    },
}

impl Event {
    /// The dialog of the event.
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

    /// Whether this is the last event of its dialog.
    pub fn is_last(&self) -> bool {
        matches!(
            self,
            Self::Canceled { .. } | Self::Refused { .. } | Self::Bye { .. } | Self::Ended { .. }
        )
    }
}

/// Why a peer is considered gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// No ACK came within 64*T1.
    NotAcknowledged,
    /// The session was not refreshed (RFC 4028 §10).
    NotRefreshed,
    /// The peer does not know the dialog, or did not answer a request of ours (RFC 3261 §12.2.1.2).
    NotKnown,
    /// The peer answered our call with a 2xx that has an unreadable Contact or Record-Route, and
    /// no other fork answered in time; ACK and BYE were sent.
    Unusable,
}

/// How our hang-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A final response came, with any status; or we refused the call ourselves.
    Answered,
    /// No response came within 64*T1.
    TimedOut,
}

/// The content of an INVITE outside of a dialog.
#[derive(Debug, Clone)]
pub struct IncomingInvite {
    /// The user of ours that calls, proved by digest authentication.
    pub user: Option<String>,
    /// The name of the trunk that the call comes from.
    pub trunk: Option<String>,
    /// The call to be replaced (RFC 3891). The endpoint has checked that the caller may replace it.
    pub replaces: Option<DialogId>,
    /// The caller by the From header field, unverified.
    pub from: NameAddr,
    /// The Request-URI.
    pub request_uri: Uri,
    /// The Call-ID of the dialog.
    pub call_id: String,
    /// The Subject header field.
    pub subject: Option<String>,
    /// Parties that the call was diverted from, the oldest first (RFC 5806, RFC 7044).
    pub diverted: Vec<NameAddr>,
    /// The Referred-By header field (RFC 3892): the party that referred the caller to us.
    pub referred_by: Option<NameAddr>,
    /// The SDP offer; if there is none, the `Answer` carries our offer.
    pub offer: Option<Vec<u8>>,
    /// The path that the INVITE came over.
    pub path: Path,
}

impl IncomingInvite {
    /// What the INVITE itself says; not yet who has sent it.
    pub(super) fn read(request: &Request, path: Path) -> Self {
        let text = |name: &str| request.header(name).map(str::to_owned);
        Self {
            user: None,
            trunk: None,
            replaces: None,
            from: request.from().clone(),
            request_uri: request.uri().clone(),
            call_id: request.call_id().to_owned(),
            subject: text("Subject"),
            diverted: diverted(request),
            referred_by: text("Referred-By").and_then(|by| by.parse().ok()),
            offer: request.description(),
            path,
        }
    }
}

/// Parties that a call was diverted from, the oldest first. Diversion lists the newest first (RFC
/// 5806 section 4.2). History-Info lists the oldest first, and its last entry is the current target
/// (RFC 7044 section 5). Unreadable values are left out; no decision depends on them.
fn diverted(request: &Request) -> Vec<NameAddr> {
    let named = |name: &str| -> Vec<NameAddr> {
        request.headers(name).filter_map(|value| value.parse().ok()).collect()
    };
    let mut diverted = named("Diversion");
    if diverted.is_empty() {
        diverted = named("History-Info");
        diverted.pop();
    } else {
        diverted.reverse();
    }
    diverted.truncate(MAX_DIVERSIONS);
    diverted
}

/// The content of a REFER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingReferral {
    /// The party to call, without the parameters and header fields of the URI.
    pub target: Uri,
    /// The value of a Replaces header field for our INVITE: the target is in a call already, and
    /// our call replaces that one (RFC 3891).
    pub replaces: Option<String>,
    /// The Referred-By header field, unverified (RFC 3892).
    pub by: Option<String>,
}

/// A command from the owner of a call. A command that comes too late for its dialog is dropped: the
/// event that ended the dialog is already on its way to the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Places a call.
    Call {
        /// The id of the dialog that the call will create; see [`DialogId::FIRST_OUTGOING`].
        dialog: DialogId,
        /// The target, the paths to it, and the caller.
        call: Box<OutgoingCall>,
    },
    /// Sends 180.
    Ring {
        /// The dialog.
        dialog: DialogId,
    },
    /// Sends 200 to the pending INVITE, re-INVITE or UPDATE. The 200 to an INVITE or re-INVITE is
    /// repeated until the ACK comes.
    Answer {
        /// The dialog.
        dialog: DialogId,
        /// The SDP answer, or our offer if the INVITE had none.
        sdp: Vec<u8>,
    },
    /// Refuses the pending INVITE with 401, so that the caller authenticates; with 403 if we have
    /// no users.
    Challenge {
        /// The dialog.
        dialog: DialogId,
    },
    /// Refuses the pending INVITE, re-INVITE or UPDATE.
    Refuse {
        /// The dialog.
        dialog: DialogId,
        /// 300 to 699.
        status: Status,
        /// Reason phrase.
        reason: String,
        /// Further header fields: name and value.
        headers: Vec<(String, String)>,
    },
    /// Asks the peer of a call that is up to call another party (RFC 3515); `Referred` follows.
    Refer {
        /// The dialog.
        dialog: DialogId,
        /// The party to call.
        target: Box<Uri>,
        /// A call of ours that the new call replaces (RFC 3891). The target is then the peer of
        /// that call.
        replaces: Option<DialogId>,
    },
    /// Reports the progress of the call that the peer asked for by REFER.
    TellReferrer {
        /// The dialog in which the REFER came.
        dialog: DialogId,
        /// 100 to 699; 200 and above is final.
        status: Status,
    },
    /// Ends a call at once to free capacity. If the call is not answered, it is refused with 503.
    /// If it is answered but its caller has not yet sent our tag back, BYE is sent once. In both
    /// cases the endpoint forgets the dialog and no event follows. Any other call is hung up as by
    /// `Bye`.
    MakeRoom {
        /// The dialog.
        dialog: DialogId,
    },
    /// Hangs up. A call that we have not answered is refused with 480. A call that we place is
    /// canceled. If our 200 is not acknowledged yet, the BYE waits for the ACK (RFC 3261 §15).
    /// `Ended` follows in every case.
    Bye {
        /// The dialog.
        dialog: DialogId,
        /// Value of a Reason header field (RFC 3326).
        reason: Option<String>,
    },
}

impl Command {
    /// The dialog of the command.
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
