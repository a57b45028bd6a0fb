//! Limits attempts with wrong client secrets, by a budget for each client and for each address.
//!
//! An address that has used up its budget is refused before its secret is checked, so it learns
//! nothing until some budget has refilled. A new connection does not help. When the budget of a
//! client is used up, every address that has tried a wrong secret is refused in the same way, after
//! a single attempt. An address without a wrong attempt is not refused, so strangers cannot lock
//! out a client that knows its secret. The time is an argument.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

/// Number of wrong secrets that may follow each other at once.
const BURST: u32 = 10;
/// After this time one more attempt is allowed. An address can try at most 1,450 times a day.
const REGAIN: Duration = Duration::from_secs(60);
/// At most one line is logged per client, and per address, in this time.
const LOG_PAUSE: Duration = Duration::from_secs(60);
/// Maximum number of addresses in memory, which take 5 MB. While the table is full, an unknown
/// address counts as one that has tried a wrong secret, unless the client has shown its correct
/// secret from there before.
const MAX_SOURCES: usize = 65_536;
/// How often the full table is searched for addresses whose budget is complete again.
const PRUNE_PAUSE: Duration = Duration::from_secs(1);
/// Number of addresses, per client, that are remembered for a correct secret.
const MAX_PROVEN: usize = 64;

/// Clients and addresses with wrong attempts.
#[derive(Default)]
pub(super) struct WrongSecrets {
    /// Configured clients only, so the size is bounded.
    clients: HashMap<Arc<str>, ClientAttempts>,
    sources: HashMap<IpAddr, Budget>,
    pruned_at: Option<Instant>,
}

/// State of a configured client.
#[derive(Default)]
struct ClientAttempts {
    budget: Budget,
    /// Addresses from which the correct secret was shown, the latest last.
    proven: VecDeque<IpAddr>,
}

/// A budget that refills with time (the generic cell rate algorithm, as in ATM traffic control).
#[derive(Debug, Clone, Copy, Default)]
struct Budget {
    /// When the budget is complete again; `None` before the first wrong secret.
    whole_at: Option<Instant>,
    logged_at: Option<Instant>,
}

impl WrongSecrets {
    /// How long an address has to wait before a secret for this client is checked; `None` when it
    /// need not wait. `client` is `None` when no such client is configured.
    pub(super) fn wait(
        &mut self,
        client: Option<&str>,
        ip: IpAddr,
        now: Instant,
    ) -> Option<Duration> {
        self.prune(now);
        let address = source(ip);
        let source = self.sources.get(&address).filter(|budget| budget.is_spent(now));
        let client = client.and_then(|client| self.clients.get(client));
        let is_remembered = self.sources.len() < MAX_SOURCES
            || self.sources.contains_key(&address)
            || client.is_some_and(|client| client.proven.contains(&address));
        if source.is_none() && is_remembered {
            return None;
        }
        // Behind a proxy on this machine all clients share one address, so its budget does not
        // count.
        let source = source.filter(|_| !ip.to_canonical().is_loopback());
        let client = client.map(|client| &client.budget);
        client.into_iter().chain(source).filter_map(|budget| budget.wait(now)).max()
    }

    /// Counts a wrong secret. Returns whether to log it.
    pub(super) fn count(&mut self, client: Option<&Arc<str>>, ip: IpAddr, now: Instant) -> bool {
        self.prune(now);
        let source = source(ip);
        let has_room = self.sources.len() < MAX_SOURCES || self.sources.contains_key(&source);
        let source = has_room.then(|| self.sources.entry(source).or_default());
        let client =
            client.map(|client| &mut self.clients.entry(Arc::clone(client)).or_default().budget);
        let mut budgets: Vec<_> = source.into_iter().chain(client).collect();
        budgets.iter_mut().for_each(|budget| budget.spend(now));
        let is_news = !budgets.is_empty() && budgets.iter().all(|budget| budget.is_silent(now));
        if is_news {
            budgets.iter_mut().for_each(|budget| budget.logged_at = Some(now));
        }
        is_news
    }

    /// Notes that the client has shown its correct secret from this address.
    pub(super) fn proved(&mut self, client: &Arc<str>, ip: IpAddr) {
        let source = source(ip);
        let proven = &mut self.clients.entry(Arc::clone(client)).or_default().proven;
        if proven.back() == Some(&source) {
            return;
        }
        proven.retain(|known| *known != source);
        if proven.len() >= MAX_PROVEN {
            proven.pop_front();
        }
        proven.push_back(source);
    }

    fn prune(&mut self, now: Instant) {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= PRUNE_PAUSE;
        if self.sources.len() >= MAX_SOURCES && self.pruned_at.is_none_or(is_due) {
            self.pruned_at = Some(now);
            self.sources.retain(|_, budget| budget.is_spent(now));
        }
    }
}

impl Budget {
    /// Spends one unit. No debt builds up, so after an attack the client recovers as fast as an
    /// address.
    fn spend(&mut self, now: Instant) {
        let whole_at = self.whole_at.map_or(now, |at| at.max(now)) + REGAIN;
        self.whole_at = Some(whole_at.min(now + REGAIN * BURST));
    }

    fn is_spent(&self, now: Instant) -> bool {
        self.whole_at.is_some_and(|at| at > now)
    }

    fn wait(&self, now: Instant) -> Option<Duration> {
        let spent = self.whole_at?.saturating_duration_since(now);
        let wait = spent.saturating_sub(REGAIN * (BURST - 1));
        (!wait.is_zero()).then_some(wait)
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.logged_at.is_none_or(|at| now.saturating_duration_since(at) >= LOG_PAUSE)
    }
}

/// The address as a unit for limits. For IPv6 this is the /64 network, since a host can choose the
/// rest of its address.
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
        let mut guesses = WrongSecrets::default();
        let (bot, other): (Arc<str>, Arc<str>) = ("bot".into(), "other".into());
        let (here, there) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let now = Instant::now();
        for guess in 0..BURST {
            assert_eq!(guesses.wait(Some(&bot), here, now), None, "{guess}");
            guesses.count(Some(&bot), here, now);
        }
        assert_eq!(guesses.wait(Some(&bot), here, now), Some(REGAIN));
        assert_eq!(guesses.wait(Some(&bot), there, now), None, "nothing was guessed there");
        guesses.count(Some(&bot), there, now);
        assert_eq!(guesses.wait(Some(&bot), there, now), Some(REGAIN), "it is the client's");
        assert_eq!(guesses.wait(Some(&other), here, now), Some(REGAIN), "it is the address's");
        assert_eq!(guesses.wait(Some(&other), there, now), None, "it was one");
        let later = now + REGAIN;
        assert_eq!(guesses.wait(Some(&bot), here, later), None);
        guesses.count(Some(&bot), here, later);
        assert_eq!(guesses.wait(Some(&bot), here, later), Some(REGAIN), "it was one");
        assert_eq!(guesses.wait(Some(&bot), here, later + BURST * REGAIN), None);
    }

    #[test]
    fn strangers_who_guess_do_not_keep_the_client_out() {
        let mut guesses = WrongSecrets::default();
        let bot: Arc<str> = "bot".into();
        let start = Instant::now();
        for minute in 0..120 {
            let now = start + minute * REGAIN;
            for stranger in 0..50_u8 {
                let stranger = IpAddr::from([192, 0, 2, stranger]);
                if guesses.wait(Some(&bot), stranger, now).is_none() {
                    guesses.count(Some(&bot), stranger, now);
                }
            }
            assert_eq!(guesses.wait(Some(&bot), ip("198.51.100.1"), now), None, "{minute}");
            assert_eq!(guesses.wait(Some(&bot), ip("127.0.0.9"), now), None, "{minute}");
        }
        let soon = start + 119 * REGAIN + BURST * REGAIN;
        guesses.count(Some(&bot), ip("192.0.2.1"), soon);
        assert_eq!(guesses.wait(Some(&bot), ip("192.0.2.1"), soon), None, "all was given back");
    }

    #[test]
    fn once_a_client_is_guessed_at_each_address_has_one_guess() {
        let mut guesses = WrongSecrets::default();
        let bot: Arc<str> = "bot".into();
        let now = Instant::now();
        let mut looked_at = 0;
        for _ in 0..20 {
            for stranger in 0..50_u8 {
                // A proxy on this machine, and strangers at addresses of their own.
                let own = if stranger == 0 { [127, 0, 0, 1] } else { [192, 0, 2, stranger] };
                if guesses.wait(Some(&bot), own.into(), now).is_none() {
                    guesses.count(Some(&bot), own.into(), now);
                    looked_at += 1;
                }
            }
        }
        assert_eq!(looked_at, 50);
    }

    #[test]
    fn a_network_of_ipv6_is_one_place_and_a_proxy_here_is_nobodys() {
        let mut guesses = WrongSecrets::default();
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
        let mut guesses = WrongSecrets::default();
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
        for _ in 0..BURST {
            guesses.count(Some(&bot), ip("192.0.2.1"), now + LOG_PAUSE);
        }
        // An address that does not fit into the table is unknown, unless the client has shown its
        // secret from there.
        let (here, there) = (ip("198.51.100.1"), ip("198.51.100.2"));
        guesses.proved(&bot, here);
        assert_eq!(guesses.wait(Some(&bot), here, now + LOG_PAUSE), None);
        assert_eq!(guesses.wait(Some(&bot), there, now + LOG_PAUSE), Some(REGAIN));
        let much_later = now + 100 * REGAIN;
        guesses.count(None, ip("192.0.2.3"), much_later);
        assert_eq!(guesses.sources.len(), 1);
    }
}
