//! Reasons for refusals: a caller gets a SIP status, an application gets an error of the API.

use crate::{
    model::{EncryptionFault, RejectReason},
    proto::sip::Status,
};

/// Why an application's request is refused. `api/error.rs` has the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No such call or operation, or it is not this application's, or it is over.
    #[error("Call not found.")]
    NotFound,
    /// The call is not established yet.
    #[error("The action needs an established call.")]
    NotEstablished,
    /// The call is being taken down.
    #[error("The call has been terminated.")]
    Terminated,
    /// The request does not fit the call's state (answered twice, rejected after the answer).
    #[error("The action is not valid in the current state of the call.")]
    WrongState,
    /// No trunk may carry the call, and no user of that name is registered.
    #[error("No trunk allows this target.")]
    NoWay,
    /// The trunk has as many calls as it may have.
    #[error("The trunk has no room for another call.")]
    TrunkFull,
    /// Another action is in progress that excludes this one.
    #[error("A conflicting action is in progress.")]
    Conflict,
    /// The queue of the call is full.
    #[error("Too many operations wait on this call.")]
    QueueFull,
    /// Nothing was done for lack of capacity; a retry may succeed.
    #[error("The server is busy; try again later.")]
    Overloaded {
        /// Seconds after which a retry makes sense.
        retry_after: u32,
    },
    /// Nothing was done: the disk for recordings is full, fails or is away; a retry may succeed.
    #[error("The disk for recordings is full or cannot be used; try again later.")]
    NoDisk,
    /// The action was requested, but whether it was carried out is not known.
    #[error("The outcome of the action is not known; look at the call before trying again.")]
    Unanswered,
    /// Our own fault; the cause has been logged.
    #[error("An internal error occurred.")]
    Internal,
}

/// Why a caller is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No route leads to the called address.
    #[error("no route to {0:?}")]
    NoRoute(String),
    /// The caller is a stranger, and no route to the address is open to strangers.
    #[error("no route to {0:?} is open to strangers")]
    NotAllowed(String),
    /// The caller must authenticate.
    #[error("the caller has to prove who it is")]
    NotAuthenticated,
    /// No capacity for one more call.
    #[error("no room for another call")]
    Full,
    /// The database cannot be reached, so nothing can be committed.
    #[error("the database cannot be reached")]
    DatabaseAway,
    /// The database is damaged and cannot be relied on.
    #[error("the database is damaged; the log says what to do")]
    DatabaseDamaged,
    /// Too many changes wait to be committed.
    #[error("the database does not keep up")]
    DatabaseBehind,
    /// The media threads are overloaded.
    #[error("the media threads do not keep up")]
    MediaBehind,
    /// We are shutting down.
    #[error("shutting down")]
    Draining,
    /// No codec or transport in common.
    #[error("{0}")]
    NotAcceptable(String),
    /// The encryption of the audio cannot be agreed on.
    #[error("{0}")]
    NotEncrypted(EncryptionFault),
    /// The body is not a session description.
    #[error("the session description cannot be read: {0}")]
    BadOffer(String),
    /// The application does not want the call.
    #[error("rejected by the application")]
    Rejected(RejectReason),
    /// The application redirects the caller to this URI.
    #[error("redirected to {0}")]
    Redirected(String),
    /// The application did not answer in time.
    #[error("not answered in time")]
    NotAnswered,
    /// Our own fault.
    #[error("internal error")]
    Internal,
}

impl Refusal {
    /// The SIP status.
    pub fn status(&self) -> Status {
        match self {
            Self::NoRoute(_) | Self::NotAllowed(_) => Status::NOT_FOUND,
            Self::NotAuthenticated => Status::UNAUTHORIZED,
            Self::Redirected(_) => Status::MOVED_TEMPORARILY,
            Self::Rejected(RejectReason::Forbidden) => Status::FORBIDDEN,
            Self::Full
            | Self::DatabaseAway
            | Self::DatabaseDamaged
            | Self::DatabaseBehind
            | Self::MediaBehind
            | Self::Draining => Status::SERVICE_UNAVAILABLE,
            Self::NotAcceptable(_) | Self::NotEncrypted(_) => Status::NOT_ACCEPTABLE_HERE,
            Self::BadOffer(_) => Status::BAD_REQUEST,
            Self::Rejected(RejectReason::Busy) => Status::BUSY_HERE,
            Self::Rejected(RejectReason::None) | Self::NotAnswered => {
                Status::TEMPORARILY_UNAVAILABLE
            }
            Self::Internal => Status::SERVER_INTERNAL_ERROR,
        }
    }

    /// The reason phrase.
    pub fn reason(&self) -> &'static str {
        if matches!(self, Self::BadOffer(_)) {
            return "Bad Session Description";
        }
        self.status().reason()
    }

    /// Header fields that go with the status.
    pub fn headers(&self) -> Vec<(String, String)> {
        match self {
            Self::Full
            | Self::DatabaseAway
            | Self::DatabaseDamaged
            | Self::DatabaseBehind
            | Self::MediaBehind
            | Self::Draining => vec![("Retry-After".to_owned(), "5".to_owned())],
            Self::Redirected(to) => vec![("Contact".to_owned(), format!("<{to}>"))],
            // RFC 3261 section 20.43: 305 is "Incompatible media format", 399 any other warning.
            Self::NotAcceptable(why) => vec![warning(305, why)],
            Self::NotEncrypted(fault) => vec![warning(305, &fault.to_string())],
            Self::BadOffer(_) => vec![warning(399, &self.to_string())],
            Self::NoRoute(_)
            | Self::NotAllowed(_)
            | Self::NotAuthenticated
            | Self::Rejected(_)
            | Self::NotAnswered
            | Self::Internal => Vec::new(),
        }
    }
}

/// Longest text of a warning in characters. The part of an offer that it quotes may be longer than
/// a datagram.
const MAX_WARNING: usize = 256;

fn warning(code: u16, why: &str) -> (String, String) {
    let is_plain = |c: &char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
    let text: String = why.chars().filter(is_plain).take(MAX_WARNING).collect();
    ("Warning".to_owned(), format!("{code} aftertone \"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_cannot_carry_quotes_or_line_ends() {
        let refusal = Refusal::NotAcceptable("offered \"x\"\r\nEvil: 1".to_owned());
        assert_eq!(refusal.status(), 488);
        assert_eq!(refusal.headers()[0].1, "305 aftertone \"offered xEvil: 1\"");
    }

    #[test]
    fn a_warning_is_short_however_long_the_offer_was() {
        let refusal = Refusal::NotAcceptable("\u{fffd}G729".repeat(20_000));
        assert_eq!(refusal.headers()[0].1.len(), "305 aftertone \"\"".len() + MAX_WARNING);
    }

    #[test]
    fn an_offer_that_cannot_be_read_is_refused_with_the_number_of_the_line() {
        let refusal = Refusal::BadOffer("line 4 cannot be read".to_owned());
        assert_eq!(refusal.status(), 400);
        let warning =
            "399 aftertone \"the session description cannot be read: line 4 cannot be read\"";
        assert_eq!(refusal.headers(), [("Warning".to_owned(), warning.to_owned())]);
    }

    #[test]
    fn who_is_refused_for_want_of_room_hears_when_to_come_back() {
        for refusal in [
            Refusal::Full,
            Refusal::DatabaseAway,
            Refusal::DatabaseDamaged,
            Refusal::DatabaseBehind,
            Refusal::MediaBehind,
            Refusal::Draining,
        ] {
            assert_eq!(refusal.status(), 503);
            assert_eq!(refusal.headers()[0].0, "Retry-After");
        }
    }
}
