//! Values of the Reason header field of BYE and CANCEL (RFC 3326), which tell the other side why we
//! end a call. Only this module makes them. Ordinary reasons of telephony use the causes of Q.850,
//! which the exchanges behind a trunk understand; all others use a SIP status.

use crate::{
    model::{RejectReason, Termination},
    proto::sip::Status,
};

/// The reason for the end of a call.
pub fn of_end(termination: Termination) -> String {
    match termination {
        Termination::PeerHungUp
        | Termination::TelephoneHungUp
        | Termination::PeerCanceled
        | Termination::ApplicationHungUp
        | Termination::Transferred
        | Termination::LineEnded => q850(16, "Normal call clearing"),
        Termination::Rejected(RejectReason::Busy) => q850(17, "User busy"),
        Termination::NotAnswered | Termination::NoAnswer => q850(19, "No answer from user"),
        Termination::Rejected(RejectReason::None | RejectReason::Forbidden) => {
            q850(21, "Call rejected")
        }
        Termination::Redirected => of_status(Status::MOVED_TEMPORARILY),
        Termination::NoAck => sip(Status::REQUEST_TIMEOUT, "ACK missing"),
        Termination::MadeRoom => of_status(Status::SERVICE_UNAVAILABLE),
        Termination::PeerLost => of_status(Status::CALL_DOES_NOT_EXIST),
        Termination::NoEndpoint => of_status(Status::TEMPORARILY_UNAVAILABLE),
        Termination::Refused(status) => of_status(status),
        Termination::MediaTimeout(_) => sip(Status::REQUEST_TIMEOUT, "No media came"),
        Termination::KeepAliveExpired => sip(Status::REQUEST_TIMEOUT, "The application has gone"),
        Termination::MediaRefused | Termination::NotEncrypted(_) => {
            of_status(Status::NOT_ACCEPTABLE_HERE)
        }
        Termination::Drained => sip(Status::SERVICE_UNAVAILABLE, "Shutting down"),
        Termination::NodeLost | Termination::Internal => of_status(Status::SERVER_INTERNAL_ERROR),
    }
}

/// The reason for a peer that referred us to another party, which has replaced it.
pub fn transferred() -> String {
    sip(Status::OK, "Transferred")
}

/// The reason for a peer that another peer has replaced (RFC 3891).
pub fn replaced() -> String {
    sip(Status::OK, "Replaced")
}

/// A reason that is a SIP status.
pub fn of_status(status: Status) -> String {
    sip(status, status.reason())
}

fn sip(cause: Status, text: &str) -> String {
    format!("SIP;cause={cause};text=\"{text}\"")
}

fn q850(cause: u8, text: &str) -> String {
    format!("Q.850;cause={cause};text=\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MediaLoss, Silence};

    const SILENT: MediaLoss =
        MediaLoss { silence: Silence::NeverHeard, ours: None, theirs: None, refused: None };

    #[test]
    fn each_end_is_told_in_words_of_rfc_3326() {
        for (termination, expected) in [
            (Termination::ApplicationHungUp, "Q.850;cause=16;text=\"Normal call clearing\""),
            (Termination::Rejected(RejectReason::Busy), "Q.850;cause=17;text=\"User busy\""),
            (Termination::NoAnswer, "Q.850;cause=19;text=\"No answer from user\""),
            (Termination::Rejected(RejectReason::None), "Q.850;cause=21;text=\"Call rejected\""),
            (Termination::MediaRefused, "SIP;cause=488;text=\"Not Acceptable Here\""),
            (Termination::MediaTimeout(SILENT), "SIP;cause=408;text=\"No media came\""),
            (Termination::Drained, "SIP;cause=503;text=\"Shutting down\""),
            (Termination::Internal, "SIP;cause=500;text=\"Server Internal Error\""),
            (Termination::Refused(Status::BUSY_HERE), "SIP;cause=486;text=\"Busy Here\""),
        ] {
            assert_eq!(of_end(termination), expected, "{termination:?}");
        }
    }
}
