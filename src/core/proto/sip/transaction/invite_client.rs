//! The INVITE client transaction: RFC 3261 §17.1.1 with the Accepted state of RFC 6026 §7.2.
//!
//! Comes in: statuses of responses, time. Goes out: the INVITE to send again, the ACK of a refusal,
//! and whether a response is new. The ACK of a 2xx is made by the dialog, not here.

use std::time::Instant;

use bytes::Bytes;

use super::client::Due;
use crate::proto::sip::{
    Status, StatusClass,
    timers::{Retransmission, Timer},
};

/// One INVITE that we sent.
///
/// ```text
///    INVITE  +---------+ 1xx  +------------+
///   -------->| Calling |----->| Proceeding |
///            +---------+      +------------+
///   A: again  |  |  |  2xx       |    |
///             |  |  +------------|----+------->+----------+
///             |  |               |             | Accepted | 2xx: to the dialog
///             |  |    300-699    |             +----------+
///             |  +-------+-------+                  | M
///           B |          v / ACK                    |
///             |    +-----------+  300-699 / ACK     |
///             |    | Completed |                    |
///             |    +-----------+                    |
///             |          | D                        |
///             |          v                          v
///             |     +------------+                  |
///             +---->| Terminated |<-----------------+
///                   +------------+
/// ```
#[derive(Debug)]
pub enum InviteClient {
    /// No response yet.
    Calling {
        /// What was sent.
        request: Bytes,
        /// Timer A; none over a reliable transport.
        resend: Option<Retransmission>,
        /// Timer B.
        until: Instant,
    },
    /// A provisional response came. The transaction user decides how long to wait for the final
    /// one.
    Proceeding {
        /// The transport is reliable, so timer D is zero.
        is_reliable: bool,
        /// Set once the final response is not awaited any more: a refusal is still acknowledged
        /// until then.
        until: Option<Instant>,
    },
    /// A refusal came and was acknowledged.
    Completed {
        /// The ACK, sent again whenever the refusal comes again.
        ack: Bytes,
        /// Timer D.
        until: Instant,
    },
    /// A 2xx came (RFC 6026).
    Accepted {
        /// Timer M.
        until: Instant,
    },
    /// The transaction has ended.
    Terminated,
}

/// What a response means to the transaction user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteAnswer {
    /// A provisional response.
    Provisional,
    /// A 2xx: the first, a repetition of it, or that of another fork.
    Accepted,
    /// The first refusal; its ACK has to be sent.
    Refused,
    /// A repetition of the refusal; its ACK has to be sent again.
    RefusedAgain,
    /// Nothing new.
    None,
}

impl InviteClient {
    /// `request` is sent at `now`.
    pub fn new(request: Bytes, is_reliable: bool, now: Instant) -> Self {
        let resend = (!is_reliable).then(|| Retransmission::doubling(now));
        Self::Calling { request, resend, until: Timer::B.from(now) }
    }

    /// A response with `status` came. `ack` makes the ACK of a refusal.
    pub fn handle_response(
        &mut self,
        status: Status,
        ack: impl FnOnce() -> Bytes,
        now: Instant,
    ) -> (InviteAnswer, Option<Bytes>) {
        let is_reliable = match self {
            Self::Calling { resend, .. } => resend.is_none(),
            Self::Proceeding { is_reliable, .. } => *is_reliable,
            Self::Completed { ack, .. } if status.is_refusal() => {
                return (InviteAnswer::RefusedAgain, Some(ack.clone()));
            }
            Self::Accepted { .. } if status.is_success() => {
                return (InviteAnswer::Accepted, None);
            }
            Self::Completed { .. } | Self::Accepted { .. } | Self::Terminated => {
                return (InviteAnswer::None, None);
            }
        };
        match status.class() {
            StatusClass::Provisional => {
                if let Self::Calling { .. } = self {
                    *self = Self::Proceeding { is_reliable, until: None };
                }
                (InviteAnswer::Provisional, None)
            }
            StatusClass::Success => {
                *self = Self::Accepted { until: Timer::M.from(now) };
                (InviteAnswer::Accepted, None)
            }
            StatusClass::Redirection
            | StatusClass::ClientError
            | StatusClass::ServerError
            | StatusClass::GlobalFailure => {
                let ack = ack();
                let until = Timer::D.absorb(now, is_reliable);
                *self = Self::Completed { ack: ack.clone(), until };
                (InviteAnswer::Refused, Some(ack))
            }
        }
    }

    /// The final response is not awaited any more, but is still acknowledged until `deadline`. A
    /// later call does not move the deadline.
    pub fn give_up_by(&mut self, deadline: Instant) {
        if let Self::Proceeding { until, .. } = self {
            until.get_or_insert(deadline);
        }
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        match self {
            Self::Calling { until, .. } if *until <= now => {
                *self = Self::Terminated;
                Some(Due::TimedOut)
            }
            Self::Calling { request, resend, .. } => {
                let resend = resend.as_mut().filter(|resend| resend.due() <= now)?;
                resend.sent(now);
                Some(Due::Resend(request.clone()))
            }
            Self::Proceeding { until: Some(until), .. }
            | Self::Completed { until, .. }
            | Self::Accepted { until }
                if *until <= now =>
            {
                *self = Self::Terminated;
                None
            }
            Self::Proceeding { .. }
            | Self::Completed { .. }
            | Self::Accepted { .. }
            | Self::Terminated => None,
        }
    }

    /// When `handle_timeout` has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Calling { resend, until, .. } => {
                Some(resend.map_or(*until, |resend| resend.due().min(*until)))
            }
            Self::Completed { until, .. } | Self::Accepted { until } => Some(*until),
            Self::Proceeding { until, .. } => *until,
            Self::Terminated => None,
        }
    }

    /// Whether no final response has come yet.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Calling { .. } | Self::Proceeding { .. })
    }

    /// Whether no final response has come yet and the transaction user still waits for it.
    pub fn is_awaited(&self) -> bool {
        matches!(self, Self::Calling { .. } | Self::Proceeding { until: None, .. })
    }

    /// Whether the transaction can be removed.
    pub fn is_terminated(&self) -> bool {
        matches!(self, Self::Terminated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::timers::SIXTY_FOUR_T1;

    const INVITE: Bytes = Bytes::from_static(b"INVITE");
    const ACK: Bytes = Bytes::from_static(b"ACK");

    fn ack() -> Bytes {
        ACK
    }

    #[test]
    fn the_invite_is_repeated_at_doubling_intervals_until_timer_b() {
        let now = Instant::now();
        let mut tx = InviteClient::new(INVITE, false, now);
        let mut seen = Vec::new();
        loop {
            let due = tx.poll_timeout().unwrap();
            match tx.handle_timeout(due).unwrap() {
                Due::Resend(bytes) => assert_eq!(bytes, INVITE),
                Due::TimedOut => break assert_eq!(due, now + SIXTY_FOUR_T1),
            }
            seen.push((due - now).as_millis());
        }
        assert_eq!(seen, [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
        assert!(tx.is_terminated());
    }

    #[test]
    fn a_provisional_response_ends_the_repeating_and_the_waiting() {
        let now = Instant::now();
        let mut tx = InviteClient::new(INVITE, false, now);
        assert_eq!(tx.handle_response(Status::TRYING, ack, now), (InviteAnswer::Provisional, None));
        assert_eq!(
            tx.handle_response(Status::RINGING, ack, now),
            (InviteAnswer::Provisional, None)
        );
        assert_eq!(tx.poll_timeout(), None);
        assert!(tx.is_pending());
    }

    #[test]
    fn when_nobody_waits_a_refusal_is_acknowledged_for_a_while() {
        let now = Instant::now();
        let mut tx = InviteClient::new(INVITE, false, now);
        tx.give_up_by(now);
        assert!(tx.is_awaited(), "timer B ends it");
        tx.handle_response(Status::TRYING, ack, now);
        tx.give_up_by(now + SIXTY_FOUR_T1);
        tx.handle_response(Status::RINGING, ack, now);
        tx.give_up_by(now + 2 * SIXTY_FOUR_T1);
        assert!(tx.is_pending() && !tx.is_awaited());
        assert_eq!(tx.poll_timeout(), Some(now + SIXTY_FOUR_T1));
        let late = now + SIXTY_FOUR_T1 / 2;
        assert_eq!(
            tx.handle_response(Status::REQUEST_TERMINATED, ack, late),
            (InviteAnswer::Refused, Some(ACK))
        );

        let mut tx = InviteClient::new(INVITE, false, now);
        tx.handle_response(Status::TRYING, ack, now);
        tx.give_up_by(now + SIXTY_FOUR_T1);
        assert_eq!(tx.handle_timeout(now + SIXTY_FOUR_T1), None);
        assert!(tx.is_terminated());
    }

    #[test]
    fn each_refusal_is_acknowledged_and_told_once() {
        let now = Instant::now();
        let mut tx = InviteClient::new(INVITE, false, now);
        assert_eq!(
            tx.handle_response(Status::BUSY_HERE, ack, now),
            (InviteAnswer::Refused, Some(ACK))
        );
        assert_eq!(
            tx.handle_response(Status::BUSY_HERE, ack, now),
            (InviteAnswer::RefusedAgain, Some(ACK))
        );
        assert_eq!(tx.handle_response(Status::OK, ack, now), (InviteAnswer::None, None));
        assert_eq!(tx.poll_timeout(), Some(Timer::D.from(now)));
        assert_eq!(tx.handle_timeout(Timer::D.from(now)), None);
        assert!(tx.is_terminated());
    }

    #[test]
    fn every_2xx_goes_to_the_dialog_until_timer_m() {
        let now = Instant::now();
        let mut tx = InviteClient::new(INVITE, false, now);
        assert_eq!(tx.handle_response(Status::OK, ack, now), (InviteAnswer::Accepted, None));
        assert_eq!(tx.handle_response(Status::OK, ack, now), (InviteAnswer::Accepted, None));
        assert_eq!(tx.handle_response(Status::RINGING, ack, now), (InviteAnswer::None, None));
        assert_eq!(tx.handle_response(Status::BUSY_HERE, ack, now), (InviteAnswer::None, None));
        assert_eq!(tx.poll_timeout(), Some(now + SIXTY_FOUR_T1));
        assert_eq!(tx.handle_timeout(now + SIXTY_FOUR_T1), None);
        assert!(tx.is_terminated());
    }

    #[test]
    fn over_a_reliable_transport_the_invite_is_sent_once() {
        let now = Instant::now();
        let mut tx = InviteClient::new(INVITE, true, now);
        assert_eq!(tx.poll_timeout(), Some(now + SIXTY_FOUR_T1));
        assert_eq!(
            tx.handle_response(Status::BUSY_HERE, ack, now),
            (InviteAnswer::Refused, Some(ACK))
        );
        assert_eq!(tx.handle_timeout(now), None);
        assert!(tx.is_terminated());
    }
}
