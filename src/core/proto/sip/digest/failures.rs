//! Recent wrong passwords, counted for each pair of source and user, and for each source.
//!
//! One phone with an old password must not lock out the other phones of its office, so its failures
//! are counted under its user name. A source that tries many users is stopped by the count of the
//! source.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::proto::sip::path::source_of;

/// Wrong passwords for one user that a source may send within [`WINDOW`].
const MAX_FOR_A_USER: usize = 5;
/// Wrong passwords for all users together that a source may send within [`WINDOW`]: six phones of
/// an office may have a wrong password at a time.
const MAX_OF_A_SOURCE: usize = 30;
/// How long a failure counts.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Sources that are remembered. An attacker that has more can also guess from each of them.
const MAX_SOURCES: usize = 4_096;
/// Pairs of source and user that are remembered.
const MAX_USERS: usize = 4 * MAX_SOURCES;
/// Bytes of a user name that are compared. A peer that guesses can send names of any length.
const NAME_BYTES: usize = 64;

/// The failures of the last minute.
#[derive(Debug)]
pub(super) struct Failures {
    for_users: Tally<(IpAddr, String)>,
    of_sources: Tally<IpAddr>,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            for_users: Tally::new(MAX_FOR_A_USER, MAX_USERS),
            of_sources: Tally::new(MAX_OF_A_SOURCE, MAX_SOURCES),
        }
    }
}

impl Failures {
    /// Whether this source has to wait before its next guess at the password of `user`.
    pub(super) fn is_blocked(&self, source: IpAddr, user: &str, now: Instant) -> bool {
        let source = source_of(source);
        self.of_sources.is_full(&source, now) || self.for_users.is_full(&(source, cut(user)), now)
    }

    /// Notes a wrong password.
    pub(super) fn note(&mut self, source: IpAddr, user: &str, now: Instant) {
        let source = source_of(source);
        self.for_users.note((source, cut(user)), now);
        self.of_sources.note(source, now);
    }
}

/// The times of the last failures by key: at most `most` of each key, for at most `max_keys` keys.
#[derive(Debug)]
struct Tally<K> {
    times: BTreeMap<K, Vec<Instant>>,
    most: usize,
    max_keys: usize,
}

impl<K: Ord + Clone> Tally<K> {
    fn new(most: usize, max_keys: usize) -> Self {
        Self { times: BTreeMap::new(), most, max_keys }
    }

    fn is_full(&self, key: &K, now: Instant) -> bool {
        let recent = |times: &Vec<Instant>| times.iter().filter(|at| is_recent(**at, now)).count();
        self.times.get(key).map(recent).unwrap_or_default() >= self.most
    }

    fn note(&mut self, key: K, now: Instant) {
        if !self.times.contains_key(&key) && self.times.len() >= self.max_keys {
            self.make_room(now);
        }
        let times = self.times.entry(key).or_default();
        times.retain(|time| is_recent(*time, now));
        if times.len() < self.most {
            times.push(now);
        }
    }

    fn make_room(&mut self, now: Instant) {
        self.times.retain(|_, times| times.iter().any(|time| is_recent(*time, now)));
        if self.times.len() >= self.max_keys {
            let oldest = self.times.iter().min_by_key(|(_, times)| times.last());
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.times.remove(&oldest);
            }
        }
    }
}

fn is_recent(time: Instant, now: Instant) -> bool {
    now.saturating_duration_since(time) < WINDOW
}

fn cut(user: &str) -> String {
    user[..user.floor_char_boundary(NAME_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn after(failures: &mut Failures, source: IpAddr, count: usize, now: Instant) -> bool {
        for _ in 0..count {
            failures.note(source, "alice", now);
        }
        failures.is_blocked(source, "alice", now)
    }

    #[test]
    fn five_wrong_passwords_a_minute_are_enough() {
        let start = Instant::now();
        let mut failures = Failures::default();
        assert!(!after(&mut failures, SOURCE, 4, start));
        assert!(after(&mut failures, SOURCE, 1, start + WINDOW / 2));
        assert!(!failures.is_blocked("192.0.2.2".parse().unwrap(), "alice", start));
        // The first four no longer count.
        assert!(!after(&mut failures, SOURCE, 3, start + WINDOW));
        assert!(after(&mut failures, SOURCE, 1, start + WINDOW));
    }

    #[test]
    fn a_phone_with_an_old_password_does_not_lock_out_its_office() {
        let now = Instant::now();
        let mut failures = Failures::default();
        for _ in 0..100 {
            if !failures.is_blocked(SOURCE, "alice", now) {
                failures.note(SOURCE, "alice", now);
            }
        }
        assert!(failures.is_blocked(SOURCE, "alice", now));
        assert!(!failures.is_blocked(SOURCE, "bob", now));
    }

    #[test]
    fn who_tries_many_users_is_stopped_as_well() {
        let now = Instant::now();
        let mut failures = Failures::default();
        let tried = (0..1_000)
            .filter(|number| {
                let user = number.to_string();
                let may = !failures.is_blocked(SOURCE, &user, now);
                if may {
                    failures.note(SOURCE, &user, now);
                }
                may
            })
            .count();
        assert_eq!(tried, MAX_OF_A_SOURCE);
    }

    #[test]
    fn a_host_with_many_addresses_is_one_source() {
        let now = Instant::now();
        let mut failures = Failures::default();
        for host in 0..5 {
            failures.note(format!("2001:db8::{host}").parse().unwrap(), "alice", now);
        }
        assert!(failures.is_blocked("2001:db8::ffff:1".parse().unwrap(), "alice", now));
        assert!(!failures.is_blocked("2001:db8:0:1::1".parse().unwrap(), "alice", now));
    }

    #[test]
    fn the_memory_has_an_end() {
        let start = Instant::now();
        let mut failures = Failures::default();
        let source = |n: u32| IpAddr::V4(n.into());
        let name = "x".repeat(60_000);
        for n in 0..20_000 {
            failures.note(source(n), &name, start + Duration::from_millis(n.into()));
        }
        assert_eq!(failures.of_sources.times.len(), MAX_SOURCES);
        assert_eq!(failures.for_users.times.len(), MAX_USERS);
        assert!(failures.for_users.times.keys().all(|(_, name)| name.len() == NAME_BYTES));
        let kept = &failures.of_sources.times;
        assert!(kept.contains_key(&source(19_999)) && !kept.contains_key(&source(0)));
        failures.note(SOURCE, "alice", start + 2 * WINDOW);
        assert_eq!(failures.of_sources.times.len(), 1);
    }
}
