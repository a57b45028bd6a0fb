//! How many wrong passwords came from each source lately.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Wrong passwords that a source may send within [`WINDOW`].
const MAX_FAILURES: usize = 5;
/// How long a failure counts.
const WINDOW: Duration = Duration::from_secs(60);
/// Sources that are remembered. Who has more can also guess from each of them.
const MAX_SOURCES: usize = 4_096;

/// The times of the last failures of each source, at most [`MAX_FAILURES`] of each.
#[derive(Debug, Default)]
pub(super) struct Failures(BTreeMap<IpAddr, Vec<Instant>>);

impl Failures {
    /// Whether this source has to wait before its next guess.
    pub(super) fn is_blocked(&self, source: IpAddr, now: Instant) -> bool {
        self.0.get(&network(source)).is_some_and(|times| {
            times.iter().filter(|time| is_recent(**time, now)).count() >= MAX_FAILURES
        })
    }

    /// Notes a wrong password.
    pub(super) fn note(&mut self, source: IpAddr, now: Instant) {
        let source = network(source);
        if !self.0.contains_key(&source) && self.0.len() >= MAX_SOURCES {
            self.make_room(now);
        }
        let times = self.0.entry(source).or_default();
        times.retain(|time| is_recent(*time, now));
        if times.len() < MAX_FAILURES {
            times.push(now);
        }
    }

    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, times| times.iter().any(|time| is_recent(*time, now)));
        if self.0.len() >= MAX_SOURCES {
            let oldest = self.0.iter().min_by_key(|(_, times)| times.last()).map(|(ip, _)| *ip);
            if let Some(oldest) = oldest {
                self.0.remove(&oldest);
            }
        }
    }
}

fn is_recent(time: Instant, now: Instant) -> bool {
    now.saturating_duration_since(time) < WINDOW
}

/// One host has a whole /64 of IPv6 (RFC 7934), so that counts as one source.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn after(failures: &mut Failures, source: IpAddr, count: usize, now: Instant) -> bool {
        for _ in 0..count {
            failures.note(source, now);
        }
        failures.is_blocked(source, now)
    }

    #[test]
    fn five_wrong_passwords_a_minute_are_enough() {
        let start = Instant::now();
        let mut failures = Failures::default();
        assert!(!after(&mut failures, SOURCE, 4, start));
        assert!(after(&mut failures, SOURCE, 1, start + WINDOW / 2));
        assert!(!failures.is_blocked("192.0.2.2".parse().unwrap(), start));
        // The first four no longer count.
        assert!(!after(&mut failures, SOURCE, 3, start + WINDOW));
        assert!(after(&mut failures, SOURCE, 1, start + WINDOW));
    }

    #[test]
    fn a_host_with_many_addresses_is_one_source() {
        let now = Instant::now();
        let mut failures = Failures::default();
        for host in 0..5 {
            failures.note(format!("2001:db8::{host}").parse().unwrap(), now);
        }
        assert!(failures.is_blocked("2001:db8::ffff:1".parse().unwrap(), now));
        assert!(!failures.is_blocked("2001:db8:0:1::1".parse().unwrap(), now));
    }

    #[test]
    fn the_memory_has_an_end() {
        let start = Instant::now();
        let mut failures = Failures::default();
        let source = |n: u32| IpAddr::V4(n.into());
        for n in 0..10_000 {
            failures.note(source(n), start + Duration::from_millis(n.into()));
        }
        assert_eq!(failures.0.len(), MAX_SOURCES);
        assert!(failures.0.contains_key(&source(9_999)) && !failures.0.contains_key(&source(0)));
        failures.note(SOURCE, start + 2 * WINDOW);
        assert_eq!(failures.0.len(), 1);
    }
}
