//! The subscriptions that REFER makes within a dialog (RFC 3515 §2.4.4): ours to the progress of a
//! call that the peer places for us, and the peer's to that of a call that it has asked us for.
//!
//! Comes in: REFER requests and their answers, NOTIFY requests, time. Goes out: whether a REFER may
//! be sent or followed, the progress to report, and the Event header field of our NOTIFY requests.

use std::time::{Duration, Instant};

use crate::proto::sip::{
    Status,
    message::parse_number,
    timers::{LONGEST_REFER, REFER_EXPIRES},
};

/// Our REFER: we are the subscriber.
#[derive(Debug, Default)]
pub(in crate::proto::sip) struct SentRefer {
    /// Until when NOTIFY requests are awaited; `None` when no REFER of ours is under way.
    until: Option<Instant>,
}

impl SentRefer {
    /// A REFER was sent.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.until = Some(now + REFER_EXPIRES);
    }

    /// The REFER got its final response. Returns the progress: the refusal, or 100 when NOTIFY
    /// requests will follow. `None` when no REFER is under way.
    pub(crate) fn answered(&mut self, status: Status, now: Instant) -> Option<Status> {
        self.until?;
        if status.is_refusal() {
            self.until = None;
            return Some(status);
        }
        self.sent(now);
        Some(Status::TRYING)
    }

    /// A NOTIFY came with `state` as its Subscription-State (RFC 6665 §4.1.3) and the status of a
    /// response in its body. Returns the progress, if it says any.
    pub(crate) fn notified(
        &mut self,
        status: Option<Status>,
        state: &str,
        now: Instant,
    ) -> Option<Status> {
        let is_over = state.trim().to_ascii_lowercase().starts_with("terminated");
        let status = match (status, is_over) {
            // The subscription ends without a final status.
            (status, true) if !status.is_some_and(Status::is_final) => {
                Some(Status::REQUEST_TIMEOUT)
            }
            (status, _) => status,
        };
        if status.is_some_and(Status::is_final) {
            self.until = None;
        } else if let Some(expires) = expires_of(state) {
            self.until = Some(now + expires.min(LONGEST_REFER));
        }
        status
    }

    /// The deadline has passed. Returns true when NOTIFY requests are awaited no longer.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.until.take_if(|until| *until <= now).is_some()
    }

    /// When `handle_timeout` has to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Whether a REFER of ours is under way.
    pub(crate) fn is_under_way(&self) -> bool {
        self.until.is_some()
    }
}

/// The peer's REFER: we are the notifier.
#[derive(Debug)]
pub(in crate::proto::sip) struct ReceivedRefer {
    /// The peer may send a REFER: it is identified, or we have called it.
    is_allowed: bool,
    progress: ReferProgress,
}

/// Where the call is that the peer's REFER asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReferProgress {
    /// The peer has sent no REFER.
    None,
    /// The call is under way. `id` is the CSeq of the REFER, for all but the first REFER of a
    /// dialog (RFC 3515 §2.4.6).
    UnderWay { id: Option<u32> },
    /// The last REFER is over.
    Over,
}

impl ReceivedRefer {
    /// Without a REFER; `is_allowed` says whether the peer may send one without credentials.
    pub(crate) fn new(is_allowed: bool) -> Self {
        Self { is_allowed, progress: ReferProgress::None }
    }

    /// Whether the peer may send a REFER without credentials.
    pub(crate) fn is_allowed(&self) -> bool {
        self.is_allowed
    }

    /// The peer sent a REFER with this CSeq, and may have authenticated in it (`is_proved`).
    ///
    /// # Errors
    /// The status of the refusal.
    pub(super) fn accept(&mut self, cseq: u32, is_proved: bool) -> Result<(), Status> {
        if !(self.is_allowed || is_proved) {
            return Err(Status::DECLINE);
        }
        self.progress = match self.progress {
            ReferProgress::None => ReferProgress::UnderWay { id: None },
            ReferProgress::Over => ReferProgress::UnderWay { id: Some(cseq) },
            ReferProgress::UnderWay { .. } => return Err(Status::REQUEST_PENDING),
        };
        Ok(())
    }

    /// The value of the Event header field in a NOTIFY about the REFER, if one is under way;
    /// `is_last` ends it.
    pub(crate) fn event(&mut self, is_last: bool) -> Option<String> {
        let ReferProgress::UnderWay { id } = self.progress else { return None };
        if is_last {
            self.progress = ReferProgress::Over;
        }
        Some(id.map_or_else(|| "refer".to_owned(), |id| format!("refer;id={id}")))
    }
}

/// How long a subscription continues (RFC 6665 §4.1.3).
fn expires_of(state: &str) -> Option<Duration> {
    let named = |parameter: &str| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("expires").then(|| parse_number(value.trim()))?
    };
    let seconds = state.split(';').skip(1).find_map(named)?;
    Some(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_refer_is_over_with_a_final_status_a_refusal_or_its_time() {
        let now = Instant::now();
        let mut refer = SentRefer::default();
        assert_eq!(refer.answered(Status::ACCEPTED, now), None, "nothing was asked");
        refer.sent(now);
        assert_eq!(refer.answered(Status::ACCEPTED, now), Some(Status::TRYING));
        assert_eq!(
            refer.notified(Some(Status::RINGING), "active;expires=60", now),
            Some(Status::RINGING)
        );
        assert_eq!(refer.poll_timeout(), Some(now + Duration::from_secs(60)));
        assert_eq!(
            refer.notified(Some(Status::OK), "terminated;reason=noresource", now),
            Some(Status::OK)
        );
        assert!(!refer.is_under_way());

        refer.sent(now);
        assert_eq!(refer.answered(Status::DECLINE, now), Some(Status::DECLINE));
        assert!(!refer.is_under_way());

        refer.sent(now);
        assert!(!refer.handle_timeout(now) && refer.handle_timeout(now + REFER_EXPIRES));
        assert_eq!(refer.poll_timeout(), None);
    }

    #[test]
    fn a_subscription_that_ends_without_a_final_status_counts_as_a_timeout() {
        let now = Instant::now();
        for status in [None, Some(Status::RINGING)] {
            let mut refer = SentRefer::default();
            refer.sent(now);
            assert_eq!(
                refer.notified(status, "Terminated;reason=timeout", now),
                Some(Status::REQUEST_TIMEOUT)
            );
            assert!(!refer.is_under_way());
        }
    }

    #[test]
    fn a_peer_cannot_keep_its_subscription_for_ever() {
        let now = Instant::now();
        let mut refer = SentRefer::default();
        refer.sent(now);
        assert_eq!(refer.notified(None, "active; Expires = 4294967295", now), None);
        assert_eq!(refer.poll_timeout(), Some(now + LONGEST_REFER));
    }

    #[test]
    fn one_refer_of_the_peer_is_followed_at_a_time() {
        let mut refer = ReceivedRefer::new(true);
        assert_eq!(refer.event(false), None);
        assert_eq!(refer.accept(7, false), Ok(()));
        assert_eq!(refer.accept(8, false), Err(Status::REQUEST_PENDING));
        assert_eq!(refer.event(true).as_deref(), Some("refer"));
        assert_eq!(refer.accept(9, false), Ok(()));
        assert_eq!(refer.event(false).as_deref(), Some("refer;id=9"));
    }

    #[test]
    fn a_peer_that_may_not_refer_has_to_authenticate() {
        let mut refer = ReceivedRefer::new(false);
        assert_eq!(refer.accept(1, false), Err(Status::DECLINE));
        assert_eq!(refer.accept(2, true), Ok(()));
    }
}
