//! The non-INVITE client transaction: RFC 3261 §17.1.2.
//!
//! Comes in: responses, time. Goes out: the request to send again, and, once, the result.

use std::time::Instant;

use bytes::Bytes;

use crate::proto::sip::{
    Status,
    timers::{Retransmission, Timer},
};

/// One request other than INVITE or ACK that we sent.
///
/// ```text
///   request    +--------+  1xx   +------------+
///  ----------->| Trying |------->| Proceeding |  E / request again, in both
///              +--------+        +------------+
///               |      | 200-699   |        |
///             F |      +-----+-----+        | F
///               |            v              |
///               |      +-----------+        |
///               |      | Completed |        |  responses are absorbed
///               |      +-----------+        |
///               |            | K            |
///               |            v              |
///               |      +------------+       |
///               +----->| Terminated |<------+
///                      +------------+
/// ```
#[derive(Debug)]
pub enum Client {
    /// No response yet.
    Trying {
        /// What was sent.
        request: Bytes,
        /// Timer E; none over a reliable transport.
        resend: Option<Retransmission>,
        /// Timer F.
        until: Instant,
    },
    /// A provisional response came.
    Proceeding {
        /// What was sent.
        request: Bytes,
        /// Timer E; none over a reliable transport.
        resend: Option<Retransmission>,
        /// Timer F.
        until: Instant,
    },
    /// The final response came.
    Completed {
        /// Timer K.
        until: Instant,
    },
    /// The transaction has ended.
    Terminated,
}

/// What a deadline of a client transaction led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// The request has to be sent again.
    Resend(Bytes),
    /// No final response came in time.
    TimedOut,
}

impl Client {
    /// `request` is sent at `now`.
    pub fn new(request: Bytes, is_reliable: bool, now: Instant) -> Self {
        let resend = Retransmission::over(now, is_reliable);
        Self::Trying { request, resend, until: Timer::F.from(now) }
    }

    /// A response with `status` came; returns true for the first final response only.
    pub fn handle_response(&mut self, status: Status, now: Instant) -> bool {
        match self {
            Self::Trying { request, resend, until }
            | Self::Proceeding { request, resend, until } => {
                if status.is_final() {
                    let until = Timer::K.absorb(now, resend.is_none());
                    *self = Self::Completed { until };
                    return true;
                }
                if let Some(resend) = resend {
                    resend.slow_down();
                }
                *self =
                    Self::Proceeding { request: request.clone(), resend: *resend, until: *until };
                false
            }
            Self::Completed { .. } | Self::Terminated => false,
        }
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        match self {
            Self::Trying { request, resend, until }
            | Self::Proceeding { request, resend, until } => {
                if *until <= now {
                    *self = Self::Terminated;
                    return Some(Due::TimedOut);
                }
                let resend = resend.as_mut().filter(|resend| resend.due() <= now)?;
                resend.sent(now);
                Some(Due::Resend(request.clone()))
            }
            Self::Completed { until } => {
                if *until <= now {
                    *self = Self::Terminated;
                }
                None
            }
            Self::Terminated => None,
        }
    }

    /// When `handle_timeout` has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Trying { resend, until, .. } | Self::Proceeding { resend, until, .. } => {
                Some(resend.map_or(*until, |resend| resend.due().min(*until)))
            }
            Self::Completed { until } => Some(*until),
            Self::Terminated => None,
        }
    }

    /// Whether no final response has come yet.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Trying { .. } | Self::Proceeding { .. })
    }

    /// Whether the transaction can be removed.
    pub fn is_terminated(&self) -> bool {
        matches!(self, Self::Terminated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::timers::{SIXTY_FOUR_T1, T1, T2, T4};

    const BYE: Bytes = Bytes::from_static(b"BYE");

    #[test]
    fn the_request_is_repeated_until_timer_f() {
        let now = Instant::now();
        let mut tx = Client::new(BYE, false, now);
        let mut sent = 1;
        loop {
            let due = tx.poll_timeout().unwrap();
            match tx.handle_timeout(due).unwrap() {
                Due::Resend(bytes) => assert_eq!(bytes, BYE),
                Due::TimedOut => {
                    assert_eq!(due, now + SIXTY_FOUR_T1);
                    break;
                }
            }
            sent += 1;
        }
        assert_eq!(sent, 11);
        assert!(tx.is_terminated());
    }

    #[test]
    fn the_final_response_is_told_once() {
        let now = Instant::now();
        let mut tx = Client::new(BYE, false, now);
        assert!(tx.handle_response(Status::OK, now));
        assert!(!tx.handle_response(Status::OK, now));
        assert_eq!(tx.poll_timeout(), Some(now + T4));
        assert_eq!(tx.handle_timeout(now + T4), None);
        assert!(tx.is_terminated());
    }

    #[test]
    fn over_a_reliable_transport_nothing_is_repeated_or_absorbed() {
        let now = Instant::now();
        let mut tx = Client::new(BYE, true, now);
        assert_eq!(tx.poll_timeout(), Some(now + SIXTY_FOUR_T1));
        assert!(tx.handle_response(Status::OK, now));
        assert_eq!(tx.handle_timeout(now), None);
        assert!(tx.is_terminated());
    }

    #[test]
    fn after_a_provisional_response_the_request_is_repeated_every_t2() {
        let now = Instant::now();
        let mut tx = Client::new(BYE, false, now);
        assert!(!tx.handle_response(Status::TRYING, now));
        assert_eq!(tx.handle_timeout(now + T1), Some(Due::Resend(BYE)));
        assert_eq!(tx.poll_timeout(), Some(now + T1 + T2));
    }
}
