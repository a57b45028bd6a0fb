//! Statuses of responses, with the one table of their reason phrases (RFC 3261 §21 and the
//! extensions that we know).

use std::fmt;

use serde::{Deserialize, Serialize};

/// The status of a response: a number from 100 to 699 (RFC 3261 §7.2).
///
/// It is stored and printed as that number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Status(u16);

/// The first digit of a status, with the names of RFC 3261 §7.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    /// 1xx: the request is being processed.
    Provisional,
    /// 2xx: the request was accepted.
    Success,
    /// 3xx: the caller may try other targets.
    Redirection,
    /// 4xx: this server cannot serve this request.
    ClientError,
    /// 5xx: this server fails at a valid request.
    ServerError,
    /// 6xx: no server can serve the request.
    GlobalFailure,
}

/// A number that is no status of SIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no status of SIP")]
pub struct NoStatus(u16);

impl Status {
    /// The status with this number, if it is from 100 to 699.
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            100..700 => Some(Self(code)),
            _ => None,
        }
    }

    /// Reads a status as a message has it: exactly three digits.
    pub fn parse(digits: &str) -> Option<Self> {
        let is_status = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| is_status).and_then(Self::new)
    }

    /// The number.
    pub const fn code(self) -> u16 {
        self.0
    }

    /// The first digit.
    pub const fn class(self) -> StatusClass {
        match self.0 {
            ..200 => StatusClass::Provisional,
            200..300 => StatusClass::Success,
            300..400 => StatusClass::Redirection,
            400..500 => StatusClass::ClientError,
            500..600 => StatusClass::ServerError,
            600.. => StatusClass::GlobalFailure,
        }
    }

    /// Whether further responses follow: 1xx.
    pub const fn is_provisional(self) -> bool {
        self.0 < 200
    }

    /// Whether no further response follows: 2xx to 6xx.
    pub const fn is_final(self) -> bool {
        self.0 >= 200
    }

    /// Whether the request was accepted: 2xx.
    pub const fn is_success(self) -> bool {
        matches!(self.class(), StatusClass::Success)
    }

    /// Whether the request was not accepted: 3xx to 6xx.
    pub const fn is_refusal(self) -> bool {
        self.0 >= 300
    }

    /// Whether a response with this status can create a dialog, if its request can: 101 to 299
    /// (RFC 3261 §12.1).
    pub const fn can_create_dialog(self) -> bool {
        self.0 > Self::TRYING.0 && !self.is_refusal()
    }

    /// The usual reason phrase. An unknown status has that of its class (RFC 3261 §8.1.3.2).
    pub const fn reason(self) -> &'static str {
        match self.known_reason() {
            Some(reason) => reason,
            None => match self.class() {
                StatusClass::Provisional => "Progress",
                StatusClass::Success => "OK",
                StatusClass::Redirection => "Redirection",
                StatusClass::ClientError => "Request Failure",
                StatusClass::ServerError => "Server Failure",
                StatusClass::GlobalFailure => "Global Failure",
            },
        }
    }
}

macro_rules! statuses {
    ($($code:literal $name:ident $reason:literal;)+) => {
        impl Status {
            $(
                #[doc = concat!(stringify!($code), " ", $reason, ".")]
                pub const $name: Self = Self($code);
            )+

            const fn known_reason(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($reason),)+
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    100 TRYING "Trying";
    180 RINGING "Ringing";
    181 CALL_IS_BEING_FORWARDED "Call Is Being Forwarded";
    182 QUEUED "Queued";
    183 SESSION_PROGRESS "Session Progress";
    200 OK "OK";
    202 ACCEPTED "Accepted";
    300 MULTIPLE_CHOICES "Multiple Choices";
    301 MOVED_PERMANENTLY "Moved Permanently";
    302 MOVED_TEMPORARILY "Moved Temporarily";
    305 USE_PROXY "Use Proxy";
    380 ALTERNATIVE_SERVICE "Alternative Service";
    400 BAD_REQUEST "Bad Request";
    401 UNAUTHORIZED "Unauthorized";
    402 PAYMENT_REQUIRED "Payment Required";
    403 FORBIDDEN "Forbidden";
    404 NOT_FOUND "Not Found";
    405 METHOD_NOT_ALLOWED "Method Not Allowed";
    406 NOT_ACCEPTABLE "Not Acceptable";
    407 PROXY_AUTHENTICATION_REQUIRED "Proxy Authentication Required";
    408 REQUEST_TIMEOUT "Request Timeout";
    410 GONE "Gone";
    413 REQUEST_ENTITY_TOO_LARGE "Request Entity Too Large";
    414 REQUEST_URI_TOO_LONG "Request-URI Too Long";
    415 UNSUPPORTED_MEDIA_TYPE "Unsupported Media Type";
    416 UNSUPPORTED_URI_SCHEME "Unsupported URI Scheme";
    420 BAD_EXTENSION "Bad Extension";
    421 EXTENSION_REQUIRED "Extension Required";
    422 SESSION_INTERVAL_TOO_SMALL "Session Interval Too Small";
    423 INTERVAL_TOO_BRIEF "Interval Too Brief";
    439 FIRST_HOP_LACKS_OUTBOUND_SUPPORT "First Hop Lacks Outbound Support";
    469 BAD_INFO_PACKAGE "Bad Info Package";
    480 TEMPORARILY_UNAVAILABLE "Temporarily Unavailable";
    481 CALL_DOES_NOT_EXIST "Call/Transaction Does Not Exist";
    482 LOOP_DETECTED "Loop Detected";
    483 TOO_MANY_HOPS "Too Many Hops";
    484 ADDRESS_INCOMPLETE "Address Incomplete";
    485 AMBIGUOUS "Ambiguous";
    486 BUSY_HERE "Busy Here";
    487 REQUEST_TERMINATED "Request Terminated";
    488 NOT_ACCEPTABLE_HERE "Not Acceptable Here";
    489 BAD_EVENT "Bad Event";
    491 REQUEST_PENDING "Request Pending";
    493 UNDECIPHERABLE "Undecipherable";
    500 SERVER_INTERNAL_ERROR "Server Internal Error";
    501 NOT_IMPLEMENTED "Not Implemented";
    502 BAD_GATEWAY "Bad Gateway";
    503 SERVICE_UNAVAILABLE "Service Unavailable";
    504 SERVER_TIMEOUT "Server Time-out";
    505 VERSION_NOT_SUPPORTED "Version Not Supported";
    513 MESSAGE_TOO_LARGE "Message Too Large";
    600 BUSY_EVERYWHERE "Busy Everywhere";
    603 DECLINE "Decline";
    604 DOES_NOT_EXIST_ANYWHERE "Does Not Exist Anywhere";
    606 NOT_ACCEPTABLE_ANYWHERE "Not Acceptable";
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq<u16> for Status {
    fn eq(&self, code: &u16) -> bool {
        self.0 == *code
    }
}

impl TryFrom<u16> for Status {
    type Error = NoStatus;

    fn try_from(code: u16) -> Result<Self, NoStatus> {
        Self::new(code).ok_or(NoStatus(code))
    }
}

impl From<Status> for u16 {
    fn from(status: Status) -> Self {
        status.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_three_digits_from_100_to_699() {
        for wrong in ["", "99", "099", "700", "1000", "+20", "2 0", "20O", "0200"] {
            assert_eq!(Status::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Status::parse("100"), Some(Status::TRYING));
        assert_eq!(Status::parse("699").map(Status::code), Some(699));
        assert_eq!(Status::new(99), None);
        assert_eq!(Status::new(700), None);
    }

    #[test]
    fn an_unknown_status_has_the_phrase_of_its_class() {
        let reason = |code| Status::new(code).map(Status::reason);
        assert_eq!(reason(486), Some("Busy Here"));
        assert_eq!(reason(199), Some("Progress"));
        assert_eq!(reason(499), Some("Request Failure"));
        assert_eq!(reason(699), Some("Global Failure"));
    }

    #[test]
    fn statuses_are_stored_as_numbers() {
        assert_eq!(serde_json::to_string(&Status::BUSY_HERE).unwrap(), "486");
        assert_eq!(serde_json::from_str::<Status>("486").unwrap(), Status::BUSY_HERE);
        assert!(serde_json::from_str::<Status>("700").is_err());
    }
}
