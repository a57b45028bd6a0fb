//! Pairs of UDP ports for legs: RTP on an even port, RTCP on the odd one above it (RFC 3550
//! section 11).
//!
//! Input: the configured range. Output: two bound sockets, and a lease that returns the pair when
//! it is dropped. A pair that has received something rests for a while after its return, so that a
//! peer that goes on sending is not heard in the next call. A pair that another program on the host
//! uses is skipped.

use std::{
    cell::Cell,
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rand::seq::SliceRandom;

/// How often a free pair of ephemeral ports is tried.
const EPHEMERAL_TRIES: usize = 64;

/// The ports that legs may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRange {
    /// Any port that the kernel assigns; written `0`.
    Ephemeral,
    /// From `first` to `last`, both included; written `20000-20999`.
    Between {
        /// The lowest port, at least 1.
        first: u16,
        /// The highest port.
        last: u16,
    },
}

/// The text is not a port range with room for one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a range of ports such as 20000-20999, with an even port and the odd one after it")]
pub struct NotAPortRange;

impl PortRange {
    /// Whether the port is in the range. Always false for ephemeral ports, which are not known.
    pub fn contains(self, port: u16) -> bool {
        match self {
            Self::Ephemeral => false,
            Self::Between { first, last } => (first..=last).contains(&port),
        }
    }

    /// The even ports of all whole pairs in the range.
    fn pairs(self) -> Vec<u16> {
        match self {
            Self::Ephemeral => Vec::new(),
            Self::Between { first, last } => {
                (first..last).filter(|port| port.is_multiple_of(2)).collect()
            }
        }
    }
}

impl FromStr for PortRange {
    type Err = NotAPortRange;

    fn from_str(text: &str) -> Result<Self, NotAPortRange> {
        if text.trim() == "0" {
            return Ok(Self::Ephemeral);
        }
        let (first, last) = text.split_once('-').ok_or(NotAPortRange)?;
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| NotAPortRange);
        let range = Self::Between { first: port(first)?, last: port(last)? };
        let usable = port(first)? > 0 && !range.pairs().is_empty();
        if usable { Ok(range) } else { Err(NotAPortRange) }
    }
}

/// No pair of ports for a leg.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Every pair is in use, resting, or used by another program.
    #[error("no free pair of RTP ports")]
    Exhausted,
    /// The address cannot be bound at all.
    #[error("cannot bind an RTP port on {address}: {source}")]
    Bind {
        /// The local address.
        address: IpAddr,
        /// The error of the system.
        source: io::Error,
    },
}

/// Hands out pairs of ports. Cloning shares the pool.
#[derive(Debug, Clone)]
pub struct PortPool {
    shared: Arc<SharedPorts>,
}

#[derive(Debug)]
struct SharedPorts {
    range: PortRange,
    capacity: usize,
    cooldown: Duration,
    shelf: Mutex<Shelf>,
}

/// The even ports of the pairs that are not leased.
#[derive(Debug)]
struct Shelf {
    /// Free ports, the one that has rested longest first.
    free: VecDeque<u16>,
    /// Resting ports with the time of their return, oldest first.
    resting: VecDeque<(Instant, u16)>,
}

/// Two bound, non-blocking sockets.
#[derive(Debug)]
pub struct PortPair {
    /// The socket on the even port.
    pub rtp: UdpSocket,
    /// The socket on the odd port.
    pub rtcp: UdpSocket,
    /// The address of `rtp`.
    pub local: SocketAddr,
    /// Returns the pair when it is dropped; to be dropped after the sockets.
    pub lease: PortLease,
}

/// The lease of a pair of ports.
#[derive(Debug)]
pub struct PortLease {
    /// `None` for ephemeral ports, which the kernel manages.
    leased: Option<(Arc<SharedPorts>, u16)>,
    /// Whether a datagram has come: its sender may go on sending.
    was_heard: Cell<bool>,
}

impl PortLease {
    fn new(leased: Option<(Arc<SharedPorts>, u16)>) -> Self {
        Self { leased, was_heard: Cell::new(false) }
    }

    /// Notes that a datagram has come on the pair.
    pub fn note_heard(&self) {
        self.was_heard.set(true);
    }
}

impl PortPool {
    /// A pool of all pairs in `range`; a pair rests for `cooldown` after use.
    pub fn new(range: PortRange, cooldown: Duration) -> Self {
        let mut ports = range.pairs();
        // In random order, so that the port of the next call cannot be predicted.
        ports.shuffle(&mut rand::rng());
        let capacity = ports.len();
        let shelf = Shelf { free: ports.into(), resting: VecDeque::new() };
        Self {
            shared: Arc::new(SharedPorts { range, capacity, cooldown, shelf: Mutex::new(shelf) }),
        }
    }

    /// The number of pairs in the pool; `None` for ephemeral ports.
    pub fn capacity(&self) -> Option<usize> {
        match self.shared.range {
            PortRange::Ephemeral => None,
            PortRange::Between { .. } => Some(self.shared.capacity),
        }
    }

    /// Binds a pair on `address`.
    ///
    /// # Errors
    /// [`PortError::Exhausted`] when no pair is available now, [`PortError::Bind`] when the address
    /// is not one of this host.
    pub fn bind(&self, address: IpAddr) -> Result<PortPair, PortError> {
        match self.shared.range {
            PortRange::Ephemeral => bind_ephemeral(address),
            PortRange::Between { .. } => self.bind_leased(address),
        }
    }

    fn bind_leased(&self, address: IpAddr) -> Result<PortPair, PortError> {
        for _ in 0..self.shared.capacity {
            let port = self.shared.take(Instant::now()).ok_or(PortError::Exhausted)?;
            match bind_pair(address, port) {
                Ok((rtp, rtcp)) => {
                    let lease = PortLease::new(Some((self.shared.clone(), port)));
                    let local = SocketAddr::new(address, port);
                    return Ok(PortPair { rtp, rtcp, local, lease });
                }
                Err(source) => {
                    self.shared.put_aside(port);
                    if source.kind() != io::ErrorKind::AddrInUse {
                        return Err(PortError::Bind { address, source });
                    }
                }
            }
        }
        Err(PortError::Exhausted)
    }
}

impl SharedPorts {
    fn take(&self, now: Instant) -> Option<u16> {
        let mut shelf = self.shelf();
        while let Some((since, port)) = shelf.resting.front().copied() {
            if now.saturating_duration_since(since) < self.cooldown {
                break;
            }
            shelf.resting.pop_front();
            shelf.free.push_back(port);
        }
        shelf.free.pop_front()
    }

    /// Returns a pair that received nothing, or that another program uses. It is the last to be
    /// tried.
    fn put_aside(&self, port: u16) {
        self.shelf().free.push_back(port);
    }

    fn rest(&self, port: u16, now: Instant) {
        self.shelf().resting.push_back((now, port));
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Each change is a single step, so a panic in another thread leaves no change half made.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        if let Some((shared, port)) = self.leased.take() {
            if self.was_heard.get() {
                shared.rest(port, Instant::now())
            } else {
                shared.put_aside(port)
            }
        }
    }
}

fn bind_ephemeral(address: IpAddr) -> Result<PortPair, PortError> {
    for _ in 0..EPHEMERAL_TRIES {
        let first = bind(address, 0).map_err(|source| PortError::Bind { address, source })?;
        let port = match first.local_addr() {
            Ok(local) => local.port(),
            Err(source) => return Err(PortError::Bind { address, source }),
        };
        // The other port of the pair is often taken; then the next try gets another pair.
        let Ok(second) = bind(address, port ^ 1) else { continue };
        let (rtp, rtcp) = if port.is_multiple_of(2) { (first, second) } else { (second, first) };
        let local = SocketAddr::new(address, port & !1);
        return Ok(PortPair { rtp, rtcp, local, lease: PortLease::new(None) });
    }
    Err(PortError::Exhausted)
}

fn bind_pair(address: IpAddr, port: u16) -> io::Result<(UdpSocket, UdpSocket)> {
    Ok((bind(address, port)?, bind(address, port + 1)?))
}

fn bind(address: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, port))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// A range of `pairs` pairs that are free at this moment.
    fn free_range(pairs: u16) -> PortRange {
        for _ in 0..EPHEMERAL_TRIES {
            let first = bind_ephemeral(LOCALHOST).unwrap().local.port();
            let Some(last) = first.checked_add(2 * pairs - 1) else { continue };
            if (first..=last).all(|port| bind(LOCALHOST, port).is_ok()) {
                return PortRange::Between { first, last };
            }
        }
        panic!("no {pairs} free pairs of ports in a row");
    }

    #[test]
    fn rtp_is_even_and_rtcp_the_port_after_it() {
        for range in [PortRange::Ephemeral, free_range(1)] {
            let pair = PortPool::new(range, Duration::ZERO).bind(LOCALHOST).unwrap();
            let port = pair.rtp.local_addr().unwrap().port();
            assert_eq!(port % 2, 0);
            assert_eq!(pair.rtcp.local_addr().unwrap().port(), port + 1);
            assert_eq!(pair.local.port(), port);
        }
    }

    #[test]
    fn a_pair_rests_before_it_is_used_again() {
        let pool = PortPool::new(free_range(1), Duration::from_secs(60));
        let pair = pool.bind(LOCALHOST).unwrap();
        let port = pair.local.port();
        assert!(matches!(pool.bind(LOCALHOST), Err(PortError::Exhausted)));
        drop(pair);
        let pair = pool.bind(LOCALHOST).expect("nobody has sent anything there");
        pair.lease.note_heard();
        drop(pair);
        assert!(matches!(pool.bind(LOCALHOST), Err(PortError::Exhausted)));
        let later = Instant::now() + Duration::from_secs(61);
        assert_eq!(pool.shared.take(later), Some(port));
    }

    #[test]
    fn ports_that_somebody_else_holds_are_passed_over() {
        let range = free_range(2);
        let PortRange::Between { first, last } = range else { unreachable!("made above") };
        let _held = UdpSocket::bind((LOCALHOST, first + 1)).unwrap();
        let pool = PortPool::new(range, Duration::ZERO);
        assert_eq!(pool.capacity(), Some(2));
        let pair = pool.bind(LOCALHOST).unwrap();
        assert_eq!(pair.local.port(), last - 1);
        assert!(matches!(pool.bind(LOCALHOST), Err(PortError::Exhausted)));
    }

    #[test]
    fn an_address_of_another_host_is_told_apart_from_exhaustion() {
        let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let pool = PortPool::new(free_range(1), Duration::ZERO);
        assert!(matches!(pool.bind(elsewhere), Err(PortError::Bind { .. })));
        assert!(pool.bind(LOCALHOST).is_ok());
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!("0".parse(), Ok(PortRange::Ephemeral));
        let range = PortRange::Between { first: 20_000, last: 20_999 };
        assert_eq!("20000-20999".parse(), Ok(range));
        assert_eq!(range.pairs().len(), 500);
        for text in ["", "x", "20000", "20001-20002", "9-8", "0-0", "20000-20000", "1-70000"] {
            assert_eq!(text.parse::<PortRange>(), Err(NotAPortRange), "{text:?}");
        }
    }
}
