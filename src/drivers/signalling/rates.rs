//! How many messages strangers may send.
//!
//! Comes in: the source of a message. Goes out: whether it is accepted, or when the next one would
//! be. Trusted peers are never limited and never counted. Peers that the endpoint knows (trunks,
//! phones that have registered, peers of calls that are up) have a limit each, and share nothing
//! with strangers: no flood from strangers keeps them out. Over UDP, a message that exceeds the
//! limit is dropped. A connection that exceeds it is refused. On a stream, reading pauses, because
//! messages that are lost on a stream are not sent again.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
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

use aftertone_core::proto::sip::{
    log_limiter::LogLimiter,
    path::Path,
    standing::{
        self, KnownPeers, MESSAGES_OF_A_KNOWN_SOURCE, MESSAGES_OF_A_SOURCE, MESSAGES_OF_STRANGERS,
        MessageRate, SipSource, Standing,
    },
};

/// Sources that are remembered. A source that is quiet for two seconds has its whole burst again
/// and can be forgotten. More than this at a time are forged; then messages of new sources are
/// dropped until some are quiet.
const MAX_SOURCES: usize = 65_536;
/// How often the quiet sources are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// Counts messages; shared by all readers.
#[derive(Debug)]
pub(super) struct Rates {
    trusted: watch::Receiver<Vec<IpNet>>,
    known: watch::Receiver<Arc<KnownPeers>>,
    of_known: DefaultKeyedRateLimiter<SipSource>,
    of_sources: DefaultKeyedRateLimiter<SipSource>,
    of_strangers: DefaultDirectRateLimiter,
    clock: DefaultClock,
    limited: AtomicU64,
    log_limiter: Mutex<LogLimiter>,
    /// When the quiet sources were last forgotten.
    forgotten: Mutex<Instant>,
}

/// A message that exceeds the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany {
    /// When the next one may come.
    pub wait: Duration,
}

impl Rates {
    /// Starts with no message counted.
    pub(super) fn new(
        trusted: watch::Receiver<Vec<IpNet>>,
        known: watch::Receiver<Arc<KnownPeers>>,
    ) -> Self {
        Self {
            trusted,
            known,
            of_known: RateLimiter::dashmap(quota(MESSAGES_OF_A_KNOWN_SOURCE)),
            of_sources: RateLimiter::dashmap(quota(MESSAGES_OF_A_SOURCE)),
            of_strangers: RateLimiter::direct(quota(MESSAGES_OF_STRANGERS)),
            clock: DefaultClock::default(),
            limited: AtomicU64::new(0),
            log_limiter: Mutex::default(),
            forgotten: Mutex::new(Instant::now()),
        }
    }

    /// Counts one message, keep-alive or connection from `peer`.
    ///
    /// # Errors
    /// When it exceeds the limit.
    pub(super) fn take(&self, peer: IpAddr) -> Result<(), TooMany> {
        let source = SipSource::from(peer);
        let standing =
            if self.is_trusted(peer) { Standing::Trusted } else { self.known.borrow().at(source) };
        self.count(source, standing)
    }

    /// Counts one message or keep-alive over a stream.
    ///
    /// # Errors
    /// When it exceeds the limit.
    pub(super) fn take_over(&self, path: Path) -> Result<(), TooMany> {
        if !path.is_foreign {
            return self.take(path.peer.ip());
        }
        let standing = match path.connection {
            Some(stream) => self.known.borrow().over(stream),
            None => Standing::Stranger,
        };
        self.count(SipSource::from(path.peer.ip()), standing)
    }

    fn count(&self, source: SipSource, standing: Standing) -> Result<(), TooMany> {
        let taken = match standing {
            Standing::Trusted => return Ok(()),
            Standing::Identified | Standing::KnownSource => self.take_from_known(source),
            Standing::Stranger => self.take_from_stranger(source),
        };
        if taken.is_err() {
            self.limited.fetch_add(1, Ordering::Relaxed);
            self.tell(source);
        }
        taken
    }

    /// Whether `peer` is trusted, and so not limited.
    pub(super) fn is_trusted(&self, peer: IpAddr) -> bool {
        standing::is_trusted(&self.trusted.borrow(), peer)
    }

    /// How many messages exceeded a limit, of all sources.
    fn limited(&self) -> u64 {
        self.limited.load(Ordering::Relaxed)
    }

    fn take_from_known(&self, source: SipSource) -> Result<(), TooMany> {
        if self.of_known.len() >= MAX_SOURCES {
            self.forget_quiet();
        }
        let now = self.clock.now();
        self.of_known
            .check_key(&source)
            .map_err(|until| TooMany { wait: until.wait_time_from(now) })
    }

    fn take_from_stranger(&self, source: SipSource) -> Result<(), TooMany> {
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
        let mut forgotten = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        if forgotten.elapsed() >= FORGET_EVERY {
            *forgotten = Instant::now();
            for sources in [&self.of_sources, &self.of_known] {
                sources.retain_recent();
                sources.shrink_to_fit();
            }
        }
    }

    /// Logs one line for each source and minute.
    fn tell(&self, source: SipSource) {
        let mut log_limiter = self.log_limiter.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tell) = log_limiter.note(source.ip(), Instant::now()) {
            let (limited, total) = (tell.unsaid + 1, self.limited());
            warn!(%source, limited, total, "SIP source sends too much; it is limited");
        }
    }
}

fn quota(rate: MessageRate) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.burst)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use aftertone_core::proto::sip::path::{ConnectionId, Transport};

    fn rates(trusted: &[&str]) -> Rates {
        let trusted = trusted.iter().map(|text| text.parse().unwrap()).collect();
        Rates::new(watch::channel(trusted).1, watch::channel(Arc::default()).1)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of `count` messages are accepted.
    fn taken(rates: &Rates, peer: IpAddr, count: usize) -> usize {
        (0..count).filter(|_| rates.take(peer).is_ok()).count()
    }

    #[test]
    fn a_stranger_has_a_burst_and_then_waits() {
        let rates = rates(&[]);
        let burst = usize::try_from(MESSAGES_OF_A_SOURCE.burst.get()).unwrap();
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
        let rates = Rates::new(trusted, watch::channel(Arc::default()).1);
        assert!(!rates.is_trusted(ip("192.0.2.1")));
        trust.send_replace(vec!["192.0.2.1/32".parse().unwrap()]);
        assert!(rates.is_trusted(ip("192.0.2.1")));
    }

    #[test]
    fn whom_we_know_is_heard_whatever_strangers_do_but_not_without_end() {
        let known = |known: &str| {
            let sources = BTreeSet::from([SipSource::from(ip(known))]);
            Arc::new(KnownPeers { sources, streams: BTreeSet::new() })
        };
        let (knows, receiver) = watch::channel(known("192.0.2.1"));
        let rates = Rates::new(watch::channel(Vec::new()).1, receiver);
        for index in 0..100 {
            taken(&rates, ip(&format!("198.51.100.{index}")), 400);
        }
        assert!(rates.take(ip("203.0.113.1")).is_err(), "all strangers together sent too much");
        let burst = usize::try_from(MESSAGES_OF_A_KNOWN_SOURCE.burst.get()).unwrap();
        assert_eq!(taken(&rates, ip("192.0.2.1"), burst), burst);
        assert!(taken(&rates, ip("192.0.2.1"), 10_000) < 10_000);

        knows.send_replace(known("192.0.2.2"));
        assert_eq!(taken(&rates, ip("192.0.2.2"), burst), burst);
    }

    #[test]
    fn a_page_is_known_by_its_stream_and_never_by_its_address() {
        let known = |streams: &[u64]| {
            let streams = streams.iter().map(|id| ConnectionId(*id)).collect();
            Arc::new(KnownPeers { sources: BTreeSet::from([SipSource::from(PAGE)]), streams })
        };
        const PAGE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
        let (knows, receiver) = watch::channel(known(&[]));
        let trusted = watch::channel(vec!["192.0.2.0/24".parse().unwrap()]).1;
        let rates = Rates::new(trusted, receiver);
        let local = "192.0.2.9:5080".parse().unwrap();
        let stream = Some(ConnectionId(7));
        let path = Path::udp(local, std::net::SocketAddr::new(PAGE, 40_000));
        let page = Path { transport: Transport::Ws, connection: stream, is_foreign: true, ..path };
        let taken = |count: usize| (0..count).filter(|_| rates.take_over(page).is_ok()).count();
        assert!(taken(10_000) < 10_000, "its address is trusted, but that is not its own");
        knows.send_replace(known(&[7]));
        let burst = usize::try_from(MESSAGES_OF_A_KNOWN_SOURCE.burst.get()).unwrap();
        assert_eq!(taken(burst), burst, "its user has registered");
    }
}
