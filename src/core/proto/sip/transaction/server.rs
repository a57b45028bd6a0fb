//! The non-INVITE server transaction: RFC 3261 §17.2.2.
//!
//! Comes in: retransmitted requests, our response, time. Goes out: bytes to send again. The
//! Proceeding state of the RFC is left out: RFC 4320 §4.1 forbids early provisional responses, and
//! we send the final response before a provisional one would be due.

use std::time::Instant;

use bytes::Bytes;
use tracing::debug;

use crate::proto::sip::timers::Timer;

/// One request other than INVITE or ACK that came in.
///
/// ```text
///    request      +--------+ 200-699 +-----------+ J  +------------+
///   ------------->| Trying |-------->| Completed |--->| Terminated |
///                 +--------+         +-----------+    +------------+
///             request: absorbed    request / response again
/// ```
#[derive(Debug)]
pub enum Server {
    /// Not answered yet.
    Trying,
    /// Answered.
    Completed {
        /// The answer.
        response: Bytes,
        /// Timer J.
        until: Instant,
    },
    /// The transaction has ended.
    Terminated,
}

impl Server {
    /// A request came.
    pub fn new() -> Self {
        Self::Trying
    }

    /// The same request came again; returns what to send again.
    pub fn handle_retransmission(&self) -> Option<Bytes> {
        match self {
            Self::Completed { response, .. } => Some(response.clone()),
            Self::Trying | Self::Terminated => None,
        }
    }

    /// We send the final response; returns its bytes, or `None` when one was sent already.
    pub fn respond(&mut self, response: Bytes, is_reliable: bool, now: Instant) -> Option<Bytes> {
        match self {
            Self::Trying => {
                let until = Timer::J.absorb(now, is_reliable);
                *self = Self::Completed { response: response.clone(), until };
                Some(response)
            }
            Self::Completed { .. } | Self::Terminated => {
                debug!("second final response is dropped");
                None
            }
        }
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Completed { until, .. } if *until <= now => *self = Self::Terminated,
            Self::Completed { .. } | Self::Trying | Self::Terminated => {}
        }
    }

    /// When `handle_timeout` has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Completed { until, .. } => Some(*until),
            Self::Trying | Self::Terminated => None,
        }
    }

    /// Whether the transaction can be removed.
    pub fn is_terminated(&self) -> bool {
        matches!(self, Self::Terminated)
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::timers::SIXTY_FOUR_T1;

    const OK: Bytes = Bytes::from_static(b"200");
    const GONE: Bytes = Bytes::from_static(b"481");

    #[test]
    fn a_repeated_request_gets_the_same_answer_until_timer_j() {
        let now = Instant::now();
        let mut tx = Server::new();
        assert_eq!(tx.handle_retransmission(), None);
        assert_eq!(tx.respond(OK, false, now), Some(OK));
        assert_eq!(tx.respond(GONE, false, now), None);
        assert_eq!(tx.handle_retransmission(), Some(OK));
        assert_eq!(tx.poll_timeout(), Some(now + SIXTY_FOUR_T1));
        tx.handle_timeout(now);
        assert!(!tx.is_terminated());
        tx.handle_timeout(now + SIXTY_FOUR_T1);
        assert!(tx.is_terminated());
    }
}
