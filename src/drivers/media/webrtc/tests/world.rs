//! Virtual time and a network that loses, delays and repeats datagrams; and peers on it.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::super::*;

pub(super) const TICK: Duration = Duration::from_millis(20);

/// Identities are costly, so the tests share two.
pub(super) static OURS: LazyLock<Arc<DtlsIdentity>> = LazyLock::new(identity);
pub(super) static THEIRS: LazyLock<Arc<DtlsIdentity>> = LazyLock::new(identity);

pub(super) fn identity() -> Arc<DtlsIdentity> {
    Arc::new(DtlsIdentity::generate().unwrap())
}

pub(super) fn of(identity: &DtlsIdentity) -> Fingerprints {
    identity.fingerprint().clone().into()
}

pub(super) fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], port))
}

/// How bad a network is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// The share of datagrams that are lost, and of those that come twice.
    pub(super) lost: f64,
    pub(super) repeated: f64,
    /// Each datagram takes up to this much longer than the others.
    pub(super) jitter: Duration,
}

#[derive(Debug)]
struct InFlight {
    due: Instant,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// The network.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) now: Instant,
    pub(super) faults: Faults,
    rng: StdRng,
    in_flight: Vec<InFlight>,
    /// All that was sent, for attackers.
    pub(super) seen: Vec<Vec<u8>>,
}

impl Network {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            now: Instant::now(),
            faults,
            rng: StdRng::seed_from_u64(seed),
            in_flight: Vec::new(),
            seen: Vec::new(),
        }
    }

    pub(super) fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.seen.push(bytes.clone());
        let copies = if self.rng.random_bool(self.faults.repeated) { 2 } else { 1 };
        for _ in 0..copies {
            if self.rng.random_bool(self.faults.lost) {
                continue;
            }
            let jitter = self.faults.jitter.mul_f64(self.rng.random());
            let due = self.now + Duration::from_millis(15) + jitter;
            self.in_flight.push(InFlight { due, from, to, bytes: bytes.clone() });
        }
    }

    /// The datagrams that have arrived at these addresses by now.
    pub(super) fn arrived(&mut self, at: &[SocketAddr]) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        let now = self.now;
        let is_due = |datagram: &mut InFlight| datagram.due <= now && at.contains(&datagram.to);
        let mut due: Vec<InFlight> = self.in_flight.extract_if(.., is_due).collect();
        due.sort_by_key(|datagram| datagram.due);
        due.into_iter().map(|datagram| (datagram.from, datagram.to, datagram.bytes)).collect()
    }
}

/// One of our sessions on a socket.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) at: SocketAddr,
    pub(super) session: SecureSession,
    gate: HandshakeGate,
    pub(super) events: Vec<SecureEvent>,
    pub(super) rtp: Vec<Vec<u8>>,
    pub(super) rtcp: Vec<Vec<u8>>,
    sequence: u16,
}

impl Endpoint {
    pub(super) fn new(at: SocketAddr, config: SecureConfig, now: Instant) -> Self {
        Self {
            at,
            session: SecureSession::new(config, now),
            gate: HandshakeGate::default(),
            events: Vec::new(),
            rtp: Vec::new(),
            rtcp: Vec::new(),
            sequence: 65_500,
        }
    }

    /// What a leg does in a tick.
    pub(super) fn tick(&mut self, network: &mut Network) {
        let now = network.now;
        for (from, _, bytes) in network.arrived(&[self.at]) {
            self.receive(now, from, bytes);
        }
        if self.session.next_timeout().is_some_and(|due| due <= now) {
            self.session.handle_timeout(now);
        }
        while let Some((to, bytes)) = self.session.poll_transmit() {
            network.send(self.at, to, bytes);
        }
        self.events.extend(std::iter::from_fn(|| self.session.poll_event()));
    }

    pub(super) fn receive(&mut self, now: Instant, from: SocketAddr, mut bytes: Vec<u8>) {
        match self.session.handle_datagram(now, from, &mut bytes, &mut self.gate) {
            SecureDatagram::Rtp(packet) => self.rtp.push(packet.to_vec()),
            SecureDatagram::Rtcp(packet) => self.rtcp.push(packet.to_vec()),
            SecureDatagram::Consumed | SecureDatagram::Refused => {}
        }
    }

    /// Sends a packet of 20 ms. Returns it, if there was somewhere to send it to.
    pub(super) fn speak(&mut self, network: &mut Network) -> Option<Vec<u8>> {
        let packet = rtp(self.sequence, 160);
        let (to, bytes) = self.session.send_rtp(network.now, &packet)?;
        let bytes = bytes.to_vec();
        network.send(self.at, to, bytes);
        self.sequence = self.sequence.wrapping_add(1);
        Some(packet)
    }

    pub(super) fn connections(&self) -> usize {
        let is_connected = |event: &&SecureEvent| matches!(event, SecureEvent::Connected { .. });
        self.events.iter().filter(is_connected).count()
    }

    pub(super) fn failures(&self) -> Vec<&SecureFailure> {
        let mut failures = Vec::new();
        for event in &self.events {
            if let SecureEvent::Failed(failure) = event {
                failures.push(failure);
            }
        }
        failures
    }
}

/// A packet of G.711.
pub(super) fn rtp(sequence: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend([1, 2, 3, 4]);
    packet.resize(packet.len() + payload, 0xd5);
    packet
}

/// A receiver report.
pub(super) fn rtcp() -> Vec<u8> {
    vec![0x80, 201, 0, 1, 1, 2, 3, 4]
}

/// Two SIP phones: the first is the DTLS client.
pub(super) fn phones(network: &Network) -> (Endpoint, Endpoint) {
    let (client, server) = (address(1, 4_000), address(2, 5_000));
    let config = |identity: &Arc<DtlsIdentity>, peer, role, other: &DtlsIdentity| SecureConfig {
        identity: identity.clone(),
        path: SecurePath::Direct { peer, host: None },
        role,
        fingerprints: of(other),
    };
    (
        Endpoint::new(client, config(&THEIRS, server, DtlsRole::Client, &OURS), network.now),
        Endpoint::new(server, config(&OURS, client, DtlsRole::Server, &THEIRS), network.now),
    )
}

/// Lets time pass until it holds, at most so long.
pub(super) fn run(
    network: &mut Network,
    endpoints: &mut [&mut Endpoint],
    at_most: Duration,
    until: impl Fn(&[&mut Endpoint]) -> bool,
) -> bool {
    let end = network.now + at_most;
    while network.now < end {
        for endpoint in endpoints.iter_mut() {
            endpoint.tick(network);
        }
        if until(endpoints) {
            return true;
        }
        network.now += TICK;
    }
    false
}
