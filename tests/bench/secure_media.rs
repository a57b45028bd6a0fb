//! The cost of media with DTLS-SRTP beside clear media, and of a handshake.

use std::{
    hint::black_box,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use aftertone::drivers::media::webrtc::{
    DtlsIdentity, DtlsRole, HandshakeGate, SecureConfig, SecureDatagram, SecurePath, SecureSession,
};
use aftertone_core::proto::rtp::packet::Packet;
use criterion::{Criterion, criterion_group, criterion_main};

/// Header and 20 ms of G.711.
const PACKET: usize = 172;

struct Pair {
    client: SecureSession,
    server: SecureSession,
    at_client: SocketAddr,
    at_server: SocketAddr,
    gate: HandshakeGate,
    /// Each handshake is a minute after the one before, as if from another host.
    now: Instant,
}

impl Pair {
    fn new(client: &Arc<DtlsIdentity>, server: &Arc<DtlsIdentity>, now: Instant) -> Self {
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let config = |ours: &Arc<DtlsIdentity>, theirs: &DtlsIdentity, peer, role| SecureConfig {
            identity: ours.clone(),
            path: SecurePath::Direct { peer, host: None },
            role,
            fingerprints: theirs.fingerprint().clone().into(),
        };
        let at_client = config(client, server, at(2), DtlsRole::Client);
        let at_server = config(server, client, at(1), DtlsRole::Server);
        Self {
            client: SecureSession::new(at_client, now),
            server: SecureSession::new(at_server, now),
            at_client: at(1),
            at_server: at(2),
            gate: HandshakeGate::default(),
            now,
        }
    }

    fn connect(&mut self) {
        while !(self.client.is_connected() && self.server.is_connected()) {
            while let Some((_, mut datagram)) = self.client.poll_transmit() {
                let from = self.at_client;
                self.server.handle_datagram(self.now, from, &mut datagram, &mut self.gate);
            }
            while let Some((_, mut datagram)) = self.server.poll_transmit() {
                let from = self.at_server;
                self.client.handle_datagram(self.now, from, &mut datagram, &mut self.gate);
            }
        }
    }
}

fn packets(criterion: &mut Criterion) {
    let (one, other) = (identity(), identity());
    let now = Instant::now();
    let mut pair = Pair::new(&one, &other, now);
    pair.connect();
    let mut packet = [0x55; PACKET];
    packet[..2].copy_from_slice(&[0x80, 0]);
    let mut received = [0; 2_048];
    let mut sequence = 0_u16;
    let mut next = |packet: &mut [u8; PACKET]| {
        sequence = sequence.wrapping_add(1);
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    };
    criterion.bench_function("a clear packet out and in", |bencher| {
        bencher.iter(|| {
            next(&mut packet);
            received[..PACKET].copy_from_slice(black_box(&packet));
            Packet::parse(&received[..PACKET]).is_ok()
        });
    });
    criterion.bench_function("an encrypted packet out and in", |bencher| {
        bencher.iter(|| {
            next(&mut packet);
            let (_, sent) = pair.client.send_rtp(now, black_box(&packet)).expect("keys");
            let len = sent.len();
            received[..len].copy_from_slice(sent);
            let datagram = &mut received[..len];
            match pair.server.handle_datagram(now, pair.at_client, datagram, &mut pair.gate) {
                SecureDatagram::Rtp(packet) => Packet::parse(packet).is_ok(),
                other => panic!("{other:?}"),
            }
        });
    });
}

fn handshakes(criterion: &mut Criterion) {
    let (one, other) = (identity(), identity());
    let mut now = Instant::now();
    criterion.bench_function("a handshake with DTLS 1.2, both sides", |bencher| {
        bencher.iter(|| {
            now += Duration::from_secs(60);
            let mut pair = Pair::new(&one, &other, now);
            pair.connect();
            pair.server.is_connected()
        });
    });
}

fn identity() -> Arc<DtlsIdentity> {
    Arc::new(DtlsIdentity::generate().expect("a certificate"))
}

criterion_group!(benches, packets, handshakes);
criterion_main!(benches);
