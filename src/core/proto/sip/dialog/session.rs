//! The refresh of a dialog's session (RFC 4028 §10): when, how, and with which interval.

use std::time::Instant;

use crate::proto::sip::session_timer::{MAX_RAISES, MIN_SE, SessionDue, SessionTimer};

/// What a dialog needs to refresh its session.
#[derive(Debug)]
pub(in crate::proto::sip) struct SessionRefresh {
    /// `None` when the session has no time limit.
    timer: Option<SessionTimer>,
    /// The least session interval that the peer accepts, in seconds (§7.4).
    min_se: u32,
    /// How often `min_se` was raised during one refresh.
    raised: u8,
    /// The peer supports UPDATE (RFC 3311), which refreshes without an offer.
    pub takes_update: bool,
    /// Our newest session description, for a refresh by re-INVITE (§7.4).
    pub description: Vec<u8>,
}

impl SessionRefresh {
    /// A session without a time limit, with a peer that allows these methods.
    pub fn new<'a>(mut allow: impl Iterator<Item = &'a str>) -> Self {
        Self {
            timer: None,
            min_se: MIN_SE,
            raised: 0,
            takes_update: allow.any(|method| method == "UPDATE"),
            description: Vec::new(),
        }
    }

    /// Takes over what the INVITE of our call has offered.
    pub fn offered(&mut self, description: &[u8], min_se: u32) {
        self.description = description.to_vec();
        self.min_se = min_se;
    }

    /// The session begins, or was refreshed; with `None` it has no time limit.
    pub fn restart(&mut self, timer: Option<SessionTimer>) {
        self.timer = timer;
        self.raised = 0;
    }

    /// Our refresh could not be made now; it is tried again at `at`.
    pub fn postpone(&mut self, at: Instant) {
        if let Some(timer) = &mut self.timer {
            timer.postpone(at);
        }
    }

    /// Our refresh was refused; it is tried again later.
    pub fn refused(&mut self, now: Instant) {
        self.raised = 0;
        if let Some(timer) = &mut self.timer {
            timer.refused(now);
        }
    }

    /// The peer wants an interval of at least `least` seconds (§7.3). Returns whether the refresh
    /// should be tried again with it.
    pub fn lengthen(&mut self, least: u32) -> bool {
        let proposed = self.timer.map_or(0, |timer| timer.seconds()).max(self.min_se);
        if least <= proposed || self.raised >= MAX_RAISES {
            return false;
        }
        self.raised += 1;
        self.min_se = least;
        true
    }

    /// What a refresh proposes: the value of Session-Expires, and the least interval in seconds
    /// (Min-SE).
    pub fn proposal(&self) -> Option<(String, u32)> {
        Some((self.timer?.proposal(self.min_se), self.min_se))
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<SessionDue> {
        self.timer.as_mut()?.handle_timeout(now)
    }

    /// When `handle_timeout` has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timer.map(|timer| timer.poll_timeout())
    }
}
