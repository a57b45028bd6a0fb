//! How many DTLS handshakes a host may begin. Each costs about as much as thousands of packets.
//!
//! One gate serves all sessions of a thread.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use hashlink::LruCache;

/// Handshakes that a host may begin at once: the phones of a large site behind one NAT.
const BURST: u32 = 64;
/// How often it may begin one more: 16 a second.
const INTERVAL: Duration = Duration::from_micros(62_500);
/// How many hosts are remembered. Signalling limits how many there can be in a second.
const MOST_HOSTS: usize = 1_024;

/// Limits handshakes per source: an IPv4 address, or the first 64 bits of an IPv6 address.
#[derive(Debug)]
pub struct HandshakeGate {
    /// For each host, when all handshakes that it has begun are paid for at the lasting rate.
    hosts: LruCache<IpAddr, Instant>,
}

impl Default for HandshakeGate {
    fn default() -> Self {
        Self { hosts: LruCache::new(MOST_HOSTS) }
    }
}

impl HandshakeGate {
    /// Whether this host may begin a handshake now; if so, it is counted.
    pub(super) fn admit(&mut self, host: IpAddr, now: Instant) -> bool {
        let host = key_of(host);
        let paid_at = self.hosts.get(&host).map_or(now, |paid_at| (*paid_at).max(now));
        if paid_at.saturating_duration_since(now) > INTERVAL * (BURST - 1) {
            return false;
        }
        self.hosts.insert(host, paid_at + INTERVAL);
        true
    }
}

fn key_of(host: IpAddr) -> IpAddr {
    match host.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_begin_a_burst_and_then_sixteen_a_second() {
        let (mut gate, now) = (HandshakeGate::default(), Instant::now());
        let host: IpAddr = "192.0.2.1".parse().unwrap();
        let admitted =
            |gate: &mut HandshakeGate, now| (0..1_000).filter(|_| gate.admit(host, now)).count();
        assert_eq!(admitted(&mut gate, now), 64);
        assert_eq!(admitted(&mut gate, now + Duration::from_secs(1)), 16);
        assert!(gate.admit("192.0.2.2".parse().unwrap(), now));
        assert_eq!(admitted(&mut gate, now + Duration::from_secs(60)), 64);
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_are_one_host() {
        let (mut gate, now) = (HandshakeGate::default(), Instant::now());
        let admitted = (0..100_u16).filter(|last| {
            gate.admit(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, *last).into(), now)
        });
        assert_eq!(admitted.count(), 64);
        assert!(gate.admit("2001:db8:1:3::1".parse().unwrap(), now));
    }
}
