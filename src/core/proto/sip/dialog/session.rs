//! The refresh of a dialog's session (RFC 4028 §10): when, how, and with which interval.

use std::time::Instant;

use crate::proto::sip::session_timer::{LeastInterval, SessionDue, SessionTimer};

/// What a dialog needs to refresh its session.
#[derive(Debug)]
pub(in crate::proto::sip) struct SessionRefresh {
    /// `None` when the session has no time limit.
    timer: Option<SessionTimer>,
    least: LeastInterval,
    /// The peer supports UPDATE (RFC 3311), which refreshes without an offer.
    pub takes_update: bool,
    /// Our newest session description, for a refresh by re-INVITE (§7.4).
    pub description: Vec<u8>,
}

impl SessionRefresh {
    /// A session without a time limit, with a peer that allows these methods.
    pub(crate) fn new<'a>(mut allow: impl Iterator<Item = &'a str>) -> Self {
        Self {
            timer: None,
            least: LeastInterval::default(),
            takes_update: allow.any(|method| method == "UPDATE"),
            description: Vec::new(),
        }
    }

    /// Takes over what the INVITE of our call has offered.
    pub(crate) fn offered(&mut self, description: &[u8], least: LeastInterval) {
        self.description = description.to_vec();
        self.least = least;
    }

    /// The session begins, or was refreshed; with `None` it has no time limit.
    pub(crate) fn restart(&mut self, timer: Option<SessionTimer>) {
        self.timer = timer;
        self.least.settled();
    }

    /// Our refresh could not be made now; it is tried again at `at`.
    pub(crate) fn postpone(&mut self, at: Instant) {
        if let Some(timer) = &mut self.timer {
            timer.postpone(at);
        }
    }

    /// Our refresh was refused; it is tried again later.
    pub(crate) fn refused(&mut self, now: Instant) {
        self.least.settled();
        if let Some(timer) = &mut self.timer {
            timer.refused(now);
        }
    }

    /// The peer wants an interval of at least `least` seconds (§7.3). Returns whether the refresh
    /// should be tried again with it.
    pub(crate) fn lengthen(&mut self, least: u32) -> bool {
        let proposed = self.timer.map_or(0, |timer| timer.seconds()).max(self.least.seconds());
        self.least.raise(least, proposed)
    }

    /// What a refresh proposes: the value of Session-Expires, and the least interval in seconds
    /// (Min-SE).
    pub(crate) fn proposal(&self) -> Option<(String, u32)> {
        let least = self.least.seconds();
        Some((self.timer?.proposal(least), least))
    }

    /// The deadline has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<SessionDue> {
        self.timer.as_mut()?.handle_timeout(now)
    }

    /// When `handle_timeout` has to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timer.map(|timer| timer.poll_timeout())
    }
}
