//! How many messages strangers may send.
//!
//! Comes in: where a message is from. Goes out: whether it is taken, or when the next one would be.
//! Peers that are trusted are never limited, and never counted: whatever strangers do, a trunk is
//! heard. Over UDP a message too many is dropped, and a connection too many is refused; a stream is
//! read no further for a while, because nobody sends again what was lost on it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use ipnet::IpNet;
use tokio::sync::watch;
use tracing::warn;

/// Messages a second of one source. A call takes about six messages, so this is the traffic of
/// thirty calls a second: more than an office behind one NAT makes, little for a scanner.
const OF_A_SOURCE: NonZeroU32 = NonZeroU32::new(200).expect("200 is not zero");
/// What one source may send at once: every phone of an office registers when the power is back.
const BURST_OF_A_SOURCE: NonZeroU32 = NonZeroU32::new(400).expect("400 is not zero");
/// Messages a second of all strangers together: about half of what one core answers, so that trusted
/// peers find the endpoint free.
const OF_STRANGERS: NonZeroU32 = NonZeroU32::new(5_000).expect("5,000 is not zero");
/// What all strangers together may send at once.
const BURST_OF_STRANGERS: NonZeroU32 = NonZeroU32::new(10_000).expect("10,000 is not zero");
/// Sources that are remembered. One that is quiet for two seconds has its whole burst again and can
/// be forgotten; more than this at a time are forged, and nothing new is heard until some are quiet.
const MAX_SOURCES: usize = 65_536;
/// How often those that are quiet are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(1);
/// How often it is said of a source that it is limited.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Sources that this is said of, at a time.
const MAX_TOLD: usize = 1_024;

/// What is counted as one: an IPv4 address, or an IPv6 /64, which one host has to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// Counts messages; shared by all readers.
#[derive(Debug)]
pub(super) struct Rates {
    trusted: watch::Receiver<Vec<IpNet>>,
    of_sources: DefaultKeyedRateLimiter<Source>,
    of_strangers: DefaultDirectRateLimiter,
    clock: DefaultClock,
    limited: AtomicU64,
    diary: Mutex<Diary>,
}

/// What is done now and then.
#[derive(Debug)]
struct Diary {
    forgotten: Instant,
    told: BTreeMap<Source, Told>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    limited: u64,
}

/// A message too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany {
    /// When the next one may come.
    pub wait: Duration,
}

impl Rates {
    /// Nobody has sent anything yet.
    pub fn new(trusted: watch::Receiver<Vec<IpNet>>) -> Self {
        let of_a_source = Quota::per_second(OF_A_SOURCE).allow_burst(BURST_OF_A_SOURCE);
        let of_strangers = Quota::per_second(OF_STRANGERS).allow_burst(BURST_OF_STRANGERS);
        Self {
            trusted,
            of_sources: RateLimiter::dashmap(of_a_source),
            of_strangers: RateLimiter::direct(of_strangers),
            clock: DefaultClock::default(),
            limited: AtomicU64::new(0),
            diary: Mutex::new(Diary { forgotten: Instant::now(), told: BTreeMap::new() }),
        }
    }

    /// Takes one message, keep-alive or connection from `peer`.
    ///
    /// # Errors
    /// When it is one too many.
    pub fn take(&self, peer: IpAddr) -> Result<(), TooMany> {
        if self.is_trusted(peer) {
            return Ok(());
        }
        let source = Source::from(peer);
        let taken = self.take_from(source);
        if taken.is_err() {
            self.limited.fetch_add(1, Ordering::Relaxed);
            self.tell(source);
        }
        taken
    }

    /// Whether `peer` may do what it likes.
    pub fn is_trusted(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.borrow().iter().any(|network| network.contains(&peer))
    }

    /// How many messages were one too many, of all sources.
    fn limited(&self) -> u64 {
        self.limited.load(Ordering::Relaxed)
    }

    fn take_from(&self, source: Source) -> Result<(), TooMany> {
        if self.of_sources.len() >= MAX_SOURCES {
            self.forget_quiet();
            if self.of_sources.len() >= MAX_SOURCES {
                return Err(TooMany { wait: FORGET_EVERY });
            }
        }
        let now = self.clock.now();
        self.of_sources
            .check_key(&source)
            .and_then(|()| self.of_strangers.check())
            .map_err(|until| TooMany { wait: until.wait_time_from(now) })
    }

    fn forget_quiet(&self) {
        let mut diary = self.diary.lock().unwrap_or_else(PoisonError::into_inner);
        if diary.forgotten.elapsed() >= FORGET_EVERY {
            diary.forgotten = Instant::now();
            self.of_sources.retain_recent();
            self.of_sources.shrink_to_fit();
        }
    }

    /// One line for each source and minute.
    fn tell(&self, source: Source) {
        let mut diary = self.diary.lock().unwrap_or_else(PoisonError::into_inner);
        let all = &mut diary.told;
        if all.len() >= MAX_TOLD {
            all.retain(|_, told| told.at.elapsed() < TELL_EVERY);
        }
        let has_room = all.len() < MAX_TOLD;
        match all.get_mut(&source) {
            Some(told) if told.at.elapsed() < TELL_EVERY => told.limited += 1,
            Some(told) => {
                let limited = std::mem::take(&mut told.limited) + 1;
                told.at = Instant::now();
                let total = self.limited();
                warn!(source = %source.0, limited, total, "SIP source still sends too much");
            }
            None if has_room => {
                warn!(source = %source.0, "SIP source sends too much; it is limited");
                all.insert(source, Told { at: Instant::now(), limited: 0 });
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(trusted: &[&str]) -> Rates {
        let trusted = trusted.iter().map(|text| text.parse().unwrap()).collect();
        Rates::new(watch::channel(trusted).1)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of `count` messages are taken.
    fn taken(rates: &Rates, peer: IpAddr, count: usize) -> usize {
        (0..count).filter(|_| rates.take(peer).is_ok()).count()
    }

    #[test]
    fn a_stranger_has_a_burst_and_then_waits() {
        let rates = rates(&[]);
        let burst = usize::try_from(BURST_OF_A_SOURCE.get()).unwrap();
        assert_eq!(taken(&rates, ip("192.0.2.1"), burst), burst);
        assert!(taken(&rates, ip("192.0.2.1"), 10_000) < 10_000);
        assert!(rates.limited() > 0);
        let wait = (0..10_000).find_map(|_| rates.take(ip("192.0.2.1")).err()).unwrap().wait;
        assert!(wait <= Duration::from_millis(5), "{wait:?}");
        assert_eq!(taken(&rates, ip("192.0.2.2"), burst), burst, "another one is not concerned");
    }

    #[test]
    fn a_trusted_peer_is_heard_whatever_strangers_do() {
        let rates = rates(&["192.0.2.0/24"]);
        for index in 0..100 {
            taken(&rates, ip(&format!("198.51.100.{index}")), 400);
        }
        assert!(rates.take(ip("203.0.113.1")).is_err(), "all strangers together sent too much");
        assert_eq!(taken(&rates, ip("192.0.2.1"), 50_000), 50_000);
        assert_eq!(taken(&rates, ip("::ffff:192.0.2.1"), 1_000), 1_000);
    }

    #[test]
    fn trust_can_change_while_calls_are_up() {
        let (trust, trusted) = watch::channel(Vec::new());
        let rates = Rates::new(trusted);
        assert!(!rates.is_trusted(ip("192.0.2.1")));
        trust.send_replace(vec!["192.0.2.1/32".parse().unwrap()]);
        assert!(rates.is_trusted(ip("192.0.2.1")));
    }

    #[test]
    fn the_addresses_of_one_ipv6_host_are_one_source() {
        assert_eq!(Source::from(ip("2001:db8::1")), Source::from(ip("2001:db8::ffff:2")));
        assert_ne!(Source::from(ip("2001:db8::1")), Source::from(ip("2001:db8:0:1::1")));
        assert_eq!(Source::from(ip("::ffff:192.0.2.1")), Source::from(ip("192.0.2.1")));
    }

    #[test]
    fn what_is_said_of_sources_is_bounded() {
        let rates = rates(&[]);
        for index in 0..2 * MAX_TOLD {
            let [a, b] = u16::try_from(index).unwrap().to_be_bytes();
            rates.tell(Source::from(IpAddr::from([10, 0, a, b])));
        }
        assert_eq!(rates.diary.lock().unwrap().told.len(), MAX_TOLD);
    }
}
