//! Keep-alives: a NAT that hears nothing for half a minute forgets the way. Phones behind one are sent
//! an empty line over UDP, and so is each trunk that we are registered at, over whatever way, because
//! there the NAT may be ours (RFC 5626 §4.4.1, §5.4; the receiver of an empty line drops it).

use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::Rng;

use super::Endpoint;
use crate::proto::sip::path::Path;

/// How long a way is left unused, in milliseconds: below the 30 s after which NATs forget (RFC 5626
/// §4.4.2).
const INTERVAL: std::ops::RangeInclusive<u64> = 24_000..=29_000;
/// The ping of RFC 5626 §4.4.1.
const EMPTY_LINES: &[u8] = b"\r\n\r\n";

impl Endpoint {
    /// Somebody may be there now who was not before.
    pub(super) fn plan_keep_alives(&mut self, now: Instant) {
        if self.keep_alive_at.is_none() && !self.kept_alive().is_empty() {
            let interval = Duration::from_millis(self.rng.random_range(INTERVAL));
            self.keep_alive_at = Some(now + interval);
        }
    }

    /// Sends them when it is time. When nobody is left, there is no next time.
    pub(super) fn keep_alive(&mut self, now: Instant) {
        if self.keep_alive_at.is_none_or(|due| due > now) {
            return;
        }
        for path in self.kept_alive() {
            self.send(path, Bytes::from_static(EMPTY_LINES));
        }
        self.keep_alive_at = None;
        self.plan_keep_alives(now);
    }

    fn kept_alive(&self) -> Vec<Path> {
        self.registrar.behind_nat().chain(self.trunk_flows()).collect()
    }
}
