//! A reliable provisional response: it is sent again until its PRACK comes (RFC 3262 §3).

use std::time::Instant;

use bytes::Bytes;

use crate::proto::sip::timers::{Retransmission, SIXTY_FOUR_T1};

/// A reliable provisional response that has no PRACK yet.
#[derive(Debug)]
pub(super) struct ReliableProvisional {
    rseq: u32,
    /// CSeq of its INVITE.
    cseq: u32,
    response: Bytes,
    resend: Retransmission,
    until: Instant,
}

/// What a deadline of a reliable provisional response led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReliableDue {
    /// It has to be sent again.
    Resend(Bytes),
    /// The PRACK never came.
    NotPracked,
}

impl ReliableProvisional {
    /// `response`, with this RSeq, was sent to the INVITE with `cseq`.
    pub(super) fn sent(rseq: u32, cseq: u32, response: Bytes, now: Instant) -> Self {
        let (resend, until) = (Retransmission::doubling(now), now + SIXTY_FOUR_T1);
        Self { rseq, cseq, response, resend, until }
    }

    /// Whether the value of a RAck header field acknowledges it (RFC 3262 §7.2).
    pub(super) fn is_acknowledged_by(&self, rack: &str) -> bool {
        let own = [self.rseq.to_string(), self.cseq.to_string(), "INVITE".to_owned()];
        rack.split_whitespace().eq(own)
    }

    /// The deadline has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<ReliableDue> {
        if self.until <= now {
            return Some(ReliableDue::NotPracked);
        }
        if self.resend.due() > now {
            return None;
        }
        self.resend.sent(now);
        Some(ReliableDue::Resend(self.response.clone()))
    }

    /// When `handle_timeout` has to be called.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.resend.due().min(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::timers::T1;

    #[test]
    fn only_a_rack_with_all_three_parts_acknowledges() {
        let sent = ReliableProvisional::sent(7, 1, Bytes::new(), Instant::now());
        assert!(sent.is_acknowledged_by(" 7  1 INVITE"));
        for other in ["8 1 INVITE", "7 2 INVITE", "7 1 PRACK", "7 1", "7 1 INVITE 2", ""] {
            assert!(!sent.is_acknowledged_by(other), "{other:?}");
        }
    }

    #[test]
    fn it_is_repeated_at_doubling_intervals_and_then_given_up() {
        let now = Instant::now();
        let mut sent = ReliableProvisional::sent(7, 1, Bytes::from_static(b"180"), now);
        let again = Some(ReliableDue::Resend(Bytes::from_static(b"180")));
        assert_eq!(sent.handle_timeout(now), None);
        assert_eq!(sent.handle_timeout(now + T1), again);
        assert_eq!(sent.poll_timeout(), now + 3 * T1);
        assert_eq!(sent.handle_timeout(now + 3 * T1), again);
        assert_eq!(sent.handle_timeout(now + SIXTY_FOUR_T1), Some(ReliableDue::NotPracked));
    }
}
