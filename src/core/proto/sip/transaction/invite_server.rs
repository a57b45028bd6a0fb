//! The INVITE server transaction: RFC 3261 §17.2.1 with the Accepted state of RFC 6026 §7.1.
//!
//! Comes in: retransmitted INVITEs, ACKs, our responses, time. Goes out: bytes to send again. At
//! most one final response is sent. A 2xx is repeated by the dialog, not here.

use std::time::Instant;

use bytes::Bytes;
use tracing::debug;

use crate::proto::sip::{
    Status, StatusClass,
    timers::{Retransmission, Timer},
};

/// One INVITE that came in, until no message can belong to it any more.
///
/// ```text
///          INVITE / 100
///               |      +--+ INVITE / provisional again
///               v      |  v
///            +------------+   2xx    +----------+ L
///            | Proceeding |--------->| Accepted |-----+
///            +------------+          +----------+     |
///               | 300-699             INVITE: absorbed|
///               v         H            ACK: to dialog |
///            +-----------+----------------------------+
///    G, or   | Completed |                            |
///    INVITE /+-----------+                            v
///    again      | ACK                           +------------+
///               v         I                     | Terminated |
///            +-----------+--------------------->+------------+
///            | Confirmed | ACK, INVITE: absorbed
///            +-----------+
/// ```
#[derive(Debug)]
pub enum InviteServer {
    /// No final response yet.
    Proceeding {
        /// The newest provisional response; `None` before the first.
        provisional: Option<Bytes>,
    },
    /// A 2xx was sent (RFC 6026).
    Accepted {
        /// Timer L.
        until: Instant,
    },
    /// A refusal was sent and has no ACK yet.
    Completed {
        /// The refusal.
        response: Bytes,
        /// Timer G; none over a reliable transport.
        resend: Option<Retransmission>,
        /// How many bytes timer G may still send.
        room: usize,
        /// Timer H.
        until: Instant,
    },
    /// The refusal was acknowledged.
    Confirmed {
        /// Timer I.
        until: Instant,
    },
    /// The transaction has ended.
    Terminated,
}

/// The addressee of an ACK that matches an INVITE transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckFor {
    /// The transaction has absorbed the ACK.
    Transaction,
    /// The transaction was accepted: the ACK is for the dialog.
    Dialog,
}

impl InviteServer {
    /// An INVITE came and was answered by `trying` (100).
    pub fn new(trying: Bytes) -> Self {
        Self::Proceeding { provisional: Some(trying) }
    }

    /// An INVITE came whose response follows within 200 ms, so that it needs no 100.
    pub fn unanswered() -> Self {
        Self::Proceeding { provisional: None }
    }

    /// The same INVITE came again; returns what to send again.
    pub fn handle_retransmission(&self) -> Option<Bytes> {
        match self {
            Self::Proceeding { provisional } => provisional.clone(),
            Self::Completed { response, .. } => Some(response.clone()),
            Self::Accepted { .. } | Self::Confirmed { .. } | Self::Terminated => None,
        }
    }

    /// An ACK came that matches this transaction.
    pub fn handle_ack(&mut self, now: Instant) -> AckFor {
        match self {
            Self::Accepted { .. } => return AckFor::Dialog,
            Self::Completed { resend, .. } => {
                let until = Timer::I.absorb(now, resend.is_none());
                *self = Self::Confirmed { until };
            }
            Self::Confirmed { .. } => {}
            Self::Proceeding { .. } | Self::Terminated => {
                debug!("ACK before a final response is dropped");
            }
        }
        AckFor::Transaction
    }

    /// We answer with `status`; returns the bytes to send, or `None` when a final response was sent
    /// already.
    pub fn respond(
        &mut self,
        status: Status,
        response: Bytes,
        is_reliable: bool,
        now: Instant,
    ) -> Option<Bytes> {
        match self {
            Self::Proceeding { provisional } => {
                match status.class() {
                    StatusClass::Provisional => *provisional = Some(response.clone()),
                    StatusClass::Success => *self = Self::Accepted { until: Timer::L.from(now) },
                    StatusClass::Redirection
                    | StatusClass::ClientError
                    | StatusClass::ServerError
                    | StatusClass::GlobalFailure => {
                        *self = Self::Completed {
                            response: response.clone(),
                            resend: Retransmission::over(now, is_reliable),
                            room: usize::MAX,
                            until: Timer::H.from(now),
                        };
                    }
                }
                Some(response)
            }
            Self::Accepted { .. }
            | Self::Completed { .. }
            | Self::Confirmed { .. }
            | Self::Terminated => {
                debug!(status = status.code(), "response after the final response is dropped");
                None
            }
        }
    }

    /// Stores a provisional response that is not sent until the INVITE is repeated.
    pub fn keep_provisional(&mut self, response: Bytes) {
        if let Self::Proceeding { provisional } = self {
            *provisional = Some(response);
        }
    }

    /// Limits the repetitions of the refusal by timer G to this many bytes.
    pub fn limit_repeats(&mut self, bytes: usize) {
        if let Self::Completed { room, .. } = self {
            *room = bytes;
        }
    }

    /// The deadline has passed; returns what to send again.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Bytes> {
        match self {
            Self::Completed { until, .. } if *until <= now => {
                debug!("refusal of an INVITE was never acknowledged");
                *self = Self::Terminated;
                None
            }
            Self::Completed { response, resend, room, .. } => {
                let resend = resend.as_mut().filter(|resend| resend.due() <= now)?;
                resend.sent(now);
                *room = room.checked_sub(response.len())?;
                Some(response.clone())
            }
            Self::Accepted { until } | Self::Confirmed { until } if *until <= now => {
                *self = Self::Terminated;
                None
            }
            Self::Proceeding { .. }
            | Self::Accepted { .. }
            | Self::Confirmed { .. }
            | Self::Terminated => None,
        }
    }

    /// When `handle_timeout` has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Proceeding { .. } | Self::Terminated => None,
            Self::Completed { resend, until, .. } => {
                Some(resend.map_or(*until, |resend| resend.due().min(*until)))
            }
            Self::Accepted { until } | Self::Confirmed { until } => Some(*until),
        }
    }

    /// Whether the transaction can be removed.
    pub fn is_terminated(&self) -> bool {
        matches!(self, Self::Terminated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::timers::{SIXTY_FOUR_T1, T1, T4};

    const TRYING: Bytes = Bytes::from_static(b"100");
    const RINGING: Bytes = Bytes::from_static(b"180");
    const OK: Bytes = Bytes::from_static(b"200");
    const BUSY: Bytes = Bytes::from_static(b"486");

    #[test]
    fn a_repeated_invite_gets_the_newest_provisional_response() {
        let mut tx = InviteServer::new(TRYING);
        assert_eq!(tx.handle_retransmission(), Some(TRYING));
        assert_eq!(tx.respond(Status::RINGING, RINGING, false, Instant::now()), Some(RINGING));
        assert_eq!(tx.handle_retransmission(), Some(RINGING));
        assert_eq!(tx.poll_timeout(), None);
    }

    #[test]
    fn what_was_not_answered_yet_is_absorbed_when_it_comes_again() {
        let mut tx = InviteServer::unanswered();
        assert_eq!(tx.handle_retransmission(), None);
        assert_eq!(tx.respond(Status::RINGING, RINGING, false, Instant::now()), Some(RINGING));
        assert_eq!(tx.handle_retransmission(), Some(RINGING));
    }

    #[test]
    fn a_refusal_is_repeated_until_the_ack() {
        let now = Instant::now();
        let mut tx = InviteServer::new(TRYING);
        assert_eq!(tx.respond(Status::BUSY_HERE, BUSY, false, now), Some(BUSY));
        assert_eq!(tx.handle_retransmission(), Some(BUSY));
        assert_eq!(tx.poll_timeout(), Some(now + T1));
        assert_eq!(tx.handle_timeout(now + T1), Some(BUSY));
        assert_eq!(tx.poll_timeout(), Some(now + 3 * T1));
        assert_eq!(tx.handle_ack(now + 2 * T1), AckFor::Transaction);
        assert_eq!(tx.handle_ack(now + 2 * T1), AckFor::Transaction);
        assert_eq!(tx.handle_retransmission(), None);
        assert_eq!(tx.poll_timeout(), Some(now + 2 * T1 + T4));
        assert_eq!(tx.handle_timeout(now + 2 * T1 + T4), None);
        assert!(tx.is_terminated());
    }

    #[test]
    fn a_refusal_without_ack_ends_with_timer_h() {
        let now = Instant::now();
        let mut tx = InviteServer::new(TRYING);
        tx.respond(Status::BUSY_HERE, BUSY, false, now);
        let mut sent = 1;
        while !tx.is_terminated() {
            let due = tx.poll_timeout().unwrap();
            assert!(due <= now + SIXTY_FOUR_T1);
            sent += usize::from(tx.handle_timeout(due).is_some());
        }
        assert_eq!(sent, 11);
    }

    #[test]
    fn after_a_2xx_invites_are_absorbed_and_acks_go_to_the_dialog() {
        let now = Instant::now();
        let mut tx = InviteServer::new(TRYING);
        assert_eq!(tx.respond(Status::OK, OK, false, now), Some(OK));
        assert_eq!(tx.handle_retransmission(), None);
        assert_eq!(tx.handle_ack(now), AckFor::Dialog);
        assert_eq!(tx.poll_timeout(), Some(now + SIXTY_FOUR_T1));
        tx.handle_timeout(now + SIXTY_FOUR_T1);
        assert!(tx.is_terminated());
    }

    #[test]
    fn only_one_final_response_is_sent() {
        let now = Instant::now();
        let mut tx = InviteServer::new(TRYING);
        tx.respond(Status::OK, OK, false, now);
        assert_eq!(tx.respond(Status::BUSY_HERE, BUSY, false, now), None);
        assert_eq!(tx.respond(Status::RINGING, RINGING, false, now), None);
    }
}
