//! How often wrong client secrets may be shown: a budget for each client and for each address.
//!
//! Whoever has used one up is turned away before the secret is looked at, so that there is nothing to
//! learn, until time has given something back; hanging up and coming again changes nothing. Time is an
//! argument.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

/// So many wrong secrets may follow each other.
const BURST: u32 = 10;
/// After this time there may be one more. With both a client's secret is tried 1,450 times a day.
const REGAIN: Duration = Duration::from_secs(60);
/// Of each client, or address, no more is said in the log than one line in this time.
const LOG_PAUSE: Duration = Duration::from_secs(60);
/// So many addresses are remembered. What does not fit is counted for its client all the same.
const MAX_SOURCES: usize = 4096;

/// Who has shown wrong secrets.
#[derive(Default)]
pub(super) struct Guesses {
    /// Of configured clients only, so that there are not more.
    clients: HashMap<Arc<str>, Budget>,
    sources: HashMap<IpAddr, Budget>,
}

/// A budget that refills with time (the generic cell rate algorithm, as in ATM traffic control).
#[derive(Debug, Clone, Copy)]
struct Budget {
    /// When nothing of it is spent any more.
    whole_at: Instant,
    logged_at: Option<Instant>,
}

impl Guesses {
    /// How long this client, or whoever asks in its name from this address, has to wait before a
    /// secret of its is looked at. `client` is `None` when no such client is configured.
    pub(super) fn wait(&self, client: Option<&str>, ip: IpAddr, now: Instant) -> Option<Duration> {
        let client = client.and_then(|client| self.clients.get(client));
        // Behind a proxy on this machine everybody has the same address.
        let source = self.sources.get(&source(ip)).filter(|_| !ip.to_canonical().is_loopback());
        client.into_iter().chain(source).filter_map(|budget| budget.wait(now)).max()
    }

    /// Counts a wrong secret. Tells whether it is worth a line in the log.
    pub(super) fn count(&mut self, client: Option<&Arc<str>>, ip: IpAddr, now: Instant) -> bool {
        if self.sources.len() >= MAX_SOURCES {
            self.sources.retain(|_, budget| budget.whole_at > now);
        }
        let source = source(ip);
        let has_room = self.sources.len() < MAX_SOURCES || self.sources.contains_key(&source);
        let source = has_room.then(|| self.sources.entry(source).or_insert(Budget::new(now)));
        let client =
            client.map(|client| self.clients.entry(Arc::clone(client)).or_insert(Budget::new(now)));
        let mut budgets: Vec<_> = source.into_iter().chain(client).collect();
        budgets.iter_mut().for_each(|budget| budget.spend(now));
        let is_news = !budgets.is_empty() && budgets.iter().all(|budget| budget.is_silent(now));
        if is_news {
            budgets.iter_mut().for_each(|budget| budget.logged_at = Some(now));
        }
        is_news
    }
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { whole_at: now, logged_at: None }
    }

    fn spend(&mut self, now: Instant) {
        self.whole_at = self.whole_at.max(now) + REGAIN;
    }

    fn wait(&self, now: Instant) -> Option<Duration> {
        let spent = self.whole_at.saturating_duration_since(now);
        let wait = spent.saturating_sub(REGAIN * (BURST - 1));
        (!wait.is_zero()).then_some(wait)
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.logged_at.is_none_or(|at| now.saturating_duration_since(at) >= LOG_PAUSE)
    }
}

/// An address as one place: of IPv6 the network, since a host may choose the rest.
pub(super) fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_has_guessed_too_often_waits_and_nobody_else_does() {
        let mut guesses = Guesses::default();
        let (bot, other): (Arc<str>, Arc<str>) = ("bot".into(), "other".into());
        let (here, there) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let now = Instant::now();
        for guess in 0..BURST {
            assert_eq!(guesses.wait(Some(&bot), here, now), None, "{guess}");
            guesses.count(Some(&bot), here, now);
        }
        assert_eq!(guesses.wait(Some(&bot), here, now), Some(REGAIN));
        assert_eq!(guesses.wait(Some(&bot), there, now), Some(REGAIN), "it is the client's");
        assert_eq!(guesses.wait(Some(&other), here, now), Some(REGAIN), "it is the address's");
        assert_eq!(guesses.wait(Some(&other), there, now), None);
        let later = now + REGAIN;
        assert_eq!(guesses.wait(Some(&bot), here, later), None);
        guesses.count(Some(&bot), here, later);
        assert_eq!(guesses.wait(Some(&bot), here, later), Some(REGAIN), "it was one");
        assert_eq!(guesses.wait(Some(&bot), here, later + BURST * REGAIN), None);
    }

    #[test]
    fn a_network_of_ipv6_is_one_place_and_a_proxy_here_is_nobodys() {
        let mut guesses = Guesses::default();
        let now = Instant::now();
        for guess in 0..BURST {
            guesses.count(None, ip(&format!("2001:db8::{guess}")), now);
            guesses.count(None, ip("::ffff:127.0.0.1"), now);
        }
        assert_eq!(guesses.wait(None, ip("2001:db8::ffff"), now), Some(REGAIN));
        assert_eq!(guesses.wait(None, ip("2001:db8:0:1::"), now), None);
        assert_eq!(guesses.wait(None, ip("127.0.0.1"), now), None);
    }

    #[test]
    fn there_is_a_line_a_minute_and_a_bound_on_what_is_remembered() {
        let mut guesses = Guesses::default();
        let now = Instant::now();
        let bot: Arc<str> = "bot".into();
        assert!(guesses.count(Some(&bot), ip("192.0.2.1"), now));
        assert!(!guesses.count(Some(&bot), ip("192.0.2.1"), now));
        assert!(!guesses.count(Some(&bot), ip("192.0.2.2"), now));
        assert!(guesses.count(Some(&bot), ip("192.0.2.1"), now + LOG_PAUSE));
        for number in 0..2 * MAX_SOURCES as u32 {
            guesses.count(None, IpAddr::V4((number << 8).into()), now + LOG_PAUSE);
        }
        assert_eq!(guesses.sources.len(), MAX_SOURCES);
        let much_later = now + 100 * REGAIN;
        guesses.count(None, ip("192.0.2.3"), much_later);
        assert_eq!(guesses.sources.len(), 1);
    }
}
