//! A log limiter for each source, so that a stranger cannot flood the log.
//!
//! Comes in: the source of an event worth a log line, and the time. Goes out: whether to write the
//! line, and how often the event has happened since the last one.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::path::source_of;

/// Least time between two lines about the same source.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Most sources that are remembered at a time.
const MAX_TOLD: usize = 1_024;

/// Allows one line for each source and minute. While the limit of remembered sources is reached,
/// further sources get no line.
#[derive(Debug, Default)]
pub struct LogLimiter {
    told: BTreeMap<IpAddr, LineLimiter>,
}

/// Allows one line a minute, whatever the source.
#[derive(Debug, Default)]
pub struct LineLimiter {
    told_at: Option<Instant>,
    /// How often the event has happened since the last line.
    since: u64,
}

/// A line has to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tell {
    /// How often the event has happened since the last line; zero in the first.
    pub unsaid: u64,
}

impl LogLimiter {
    /// Notes an event that `peer` has caused; returns `None` while no line is due.
    pub fn note(&mut self, peer: IpAddr, now: Instant) -> Option<Tell> {
        let source = source_of(peer);
        if self.told.len() >= MAX_TOLD {
            self.told.retain(|_, remark| remark.is_recent(now));
        }
        if self.told.len() >= MAX_TOLD && !self.told.contains_key(&source) {
            return None;
        }
        self.told.entry(source).or_default().note(now)
    }
}

impl LineLimiter {
    /// Notes the event; returns `None` while no line is due.
    pub fn note(&mut self, now: Instant) -> Option<Tell> {
        if self.is_recent(now) {
            self.since += 1;
            return None;
        }
        self.told_at = Some(now);
        Some(Tell { unsaid: std::mem::take(&mut self.since) })
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.told_at.is_some_and(|at| now.saturating_duration_since(at) < TELL_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_gets_one_line_a_minute() {
        let start = Instant::now();
        let mut log_limiter = LogLimiter::default();
        let peer = "192.0.2.1".parse().unwrap();
        assert_eq!(log_limiter.note(peer, start), Some(Tell { unsaid: 0 }));
        for second in 1..60 {
            assert_eq!(log_limiter.note(peer, start + Duration::from_secs(second)), None);
        }
        assert_eq!(log_limiter.note(peer, start + TELL_EVERY), Some(Tell { unsaid: 59 }));
        let other = "192.0.2.2".parse().unwrap();
        assert_eq!(log_limiter.note(other, start + TELL_EVERY), Some(Tell { unsaid: 0 }));
    }

    #[test]
    fn the_addresses_of_one_host_are_one_source_and_sources_have_an_end() {
        let now = Instant::now();
        let mut log_limiter = LogLimiter::default();
        assert!(log_limiter.note("2001:db8::1".parse().unwrap(), now).is_some());
        assert!(log_limiter.note("2001:db8::ffff:2".parse().unwrap(), now).is_none());
        let lines = (0..u16::MAX).filter(|index| {
            let [a, b] = index.to_be_bytes();
            log_limiter.note([10, 0, a, b].into(), now).is_some()
        });
        assert_eq!(lines.count(), MAX_TOLD - 1);
    }
}
