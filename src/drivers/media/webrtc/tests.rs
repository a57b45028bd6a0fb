//! Sessions against each other and against a browser's stack, in virtual time.

mod browser;
mod hostile;
mod world;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{stun::tests as stun_messages, *};
use world::*;

const LONG: Duration = Duration::from_secs(60);

fn both_connected(endpoints: &[&mut Endpoint]) -> bool {
    endpoints.iter().all(|endpoint| endpoint.session.is_connected())
}

/// Both sides speak for a second. Returns how many packets each of them has got.
fn talk(network: &mut Network, one: &mut Endpoint, other: &mut Endpoint) -> (usize, usize) {
    let before = (one.rtp.len(), other.rtp.len());
    for _ in 0..50 {
        for endpoint in [&mut *one, &mut *other] {
            endpoint.speak(network);
            endpoint.tick(network);
        }
        network.now += TICK;
    }
    for _ in 0..5 {
        network.now += TICK;
        one.tick(network);
        other.tick(network);
    }
    (one.rtp.len() - before.0, other.rtp.len() - before.1)
}

#[test]
fn two_phones_exchange_media_in_both_directions() {
    let mut network = Network::new(1, Faults::default());
    let (mut client, mut server) = phones(&network);
    assert!(server.speak(&mut network).is_none());
    assert!(run(&mut network, &mut [&mut client, &mut server], LONG, both_connected));
    assert_eq!(talk(&mut network, &mut client, &mut server), (50, 50));
    assert_eq!(client.rtp[0], rtp(65_500, 160));
    // The sequence numbers have wrapped.
    assert_eq!(client.rtp[49], rtp(13, 160));
    let (to, packet) = client.session.send_rtcp(network.now, &rtcp()).unwrap();
    let packet = packet.to_vec();
    assert_eq!(to, server.at);
    server.receive(network.now, client.at, packet);
    assert_eq!(server.rtcp, [rtcp()]);
    let connected = SecureEvent::Connected {
        peer: server.at,
        suite: aftertone_core::proto::srtp::CryptoSuite::AeadAes256Gcm,
        version: "DTLS 1.2",
    };
    assert_eq!(client.events, [connected]);
    assert_eq!(client.session.stats(), SecureStats::default());
    server.session.close(network.now);
    assert!(run(&mut network, &mut [&mut client, &mut server], LONG, |both| {
        both[0].events.last() == Some(&SecureEvent::Closed)
    }));
}

#[test]
fn a_handshake_survives_loss_reordering_and_repetition() {
    let faults = Faults { lost: 0.2, repeated: 0.1, jitter: Duration::from_millis(100) };
    let mut slowest = Duration::ZERO;
    let mut failed = 0;
    for seed in 0..100 {
        let mut network = Network::new(seed, faults);
        let (mut client, mut server) = phones(&network);
        let began = network.now;
        if !run(&mut network, &mut [&mut client, &mut server], LONG, both_connected) {
            failed += 1;
            continue;
        }
        slowest = slowest.max(network.now - began);
        network.faults = Faults::default();
        assert_eq!(talk(&mut network, &mut client, &mut server), (50, 50), "{seed}");
    }
    // With every fifth datagram lost, a flight is lost six times in a row now and then.
    assert!(failed <= 3, "{failed} of 100");
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");
}

#[test]
fn another_certificate_ends_the_handshake_on_both_sides() {
    for is_client in [true, false] {
        let mut network = Network::new(2, Faults::default());
        let (mut client, mut server) = phones(&network);
        let wrong = if is_client { &mut client } else { &mut server };
        let stranger = identity();
        let path = SecurePath::Direct {
            peer: if is_client { address(2, 5_000) } else { address(1, 4_000) },
            host: None,
        };
        let role = if is_client { DtlsRole::Client } else { DtlsRole::Server };
        let fingerprints = of(if is_client { &OURS } else { &THEIRS });
        let config = SecureConfig { identity: stranger.clone(), path, role, fingerprints };
        *wrong = Endpoint::new(wrong.at, config, network.now);
        run(&mut network, &mut [&mut client, &mut server], LONG, |_| false);
        let right = if is_client { &server } else { &client };
        let expected = if is_client { &THEIRS } else { &OURS };
        let differs = SecureFailure::FingerprintDiffers {
            described: expected.fingerprint().to_string(),
            shown: stranger.fingerprint().to_string(),
        };
        assert!(right.failures().contains(&&differs), "{:?}", right.events);
        assert!(!right.session.is_connected());
        assert_eq!(right.connections(), 0);
    }
}

#[test]
fn silence_is_told_in_words() {
    let (client, server) = phones(&Network::new(3, Faults::default()));
    for (mut alone, told) in [
        (client, "192.0.2.2:5000 did not answer the DTLS ClientHello"),
        (server, "no DTLS ClientHello arrived from 192.0.2.1:4000"),
    ] {
        let mut network = Network::new(3, Faults::default());
        run(&mut network, &mut [&mut alone], LONG, |_| false);
        let told_by = alone.failures();
        assert_eq!(told_by.len(), 1, "{told_by:?}");
        assert_eq!(told_by[0].to_string(), told);
    }
    let mut network = Network::new(3, Faults::default());
    let config = browser_config(DtlsRole::Server);
    let mut alone = Endpoint::new(address(2, 5_000), config, network.now);
    run(&mut network, &mut [&mut alone], LONG, |_| false);
    let told = alone.failures()[0].to_string();
    assert_eq!(told, "no ICE check arrived at 192.0.2.2:5000 or [2001:db8::2]:5000");
}

#[test]
fn packets_of_another_key_are_reported_once() {
    let mut network = Network::new(4, Faults::default());
    let (mut client, mut server) = phones(&network);
    run(&mut network, &mut [&mut client, &mut server], LONG, both_connected);
    for sequence in 0..200 {
        server.receive(network.now, client.at, rtp(sequence, 160));
    }
    server.tick(&mut network);
    let told: Vec<String> = server.failures().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["50 packets failed authentication with AEAD_AES_256_GCM"]);
    assert_eq!(server.session.stats().unauthenticated, 200);
    assert_eq!(talk(&mut network, &mut client, &mut server), (50, 50));
}

#[test]
fn media_of_a_peer_behind_a_nat_are_followed_to_its_new_port() {
    let mut network = Network::new(5, Faults::default());
    let (mut client, mut server) = phones(&network);
    let host = Some(client.at.ip());
    let config = SecureConfig {
        identity: OURS.clone(),
        // The description has an address behind the NAT.
        path: SecurePath::Direct { peer: "10.0.0.1:4000".parse().unwrap(), host },
        role: DtlsRole::Server,
        fingerprints: of(&THEIRS),
    };
    server = Endpoint::new(server.at, config, network.now);
    assert!(run(&mut network, &mut [&mut client, &mut server], LONG, both_connected));
    assert_eq!(talk(&mut network, &mut client, &mut server), (50, 50));
    client.at.set_port(4_321);
    network.now += Duration::from_secs(1);
    let (heard, got) = talk(&mut network, &mut client, &mut server);
    assert!(heard >= 48 && got == 50, "{heard} {got}");
    // Another host cannot do that, even if it could repeat a packet.
    let packet = network.seen.last().unwrap().clone();
    server.receive(network.now + LONG, address(9, 4_000), packet);
    assert_eq!(server.session.destination(network.now), Some(client.at));
    assert_eq!(server.session.stats().strangers, 1);
}

#[test]
fn a_new_certificate_brings_new_keys_without_a_gap() {
    let mut network = Network::new(6, Faults::default());
    let (mut client, mut server) = phones(&network);
    run(&mut network, &mut [&mut client, &mut server], LONG, both_connected);
    // The same description again changes nothing.
    let config = |identity: &Arc<DtlsIdentity>, peer, role, other: &DtlsIdentity| SecureConfig {
        identity: identity.clone(),
        path: SecurePath::Direct { peer, host: None },
        role,
        fingerprints: of(other),
    };
    let (at_client, at_server) = (client.at, server.at);
    server.session.renew(config(&OURS, at_client, DtlsRole::Server, &THEIRS), network.now);
    client.session.renew(config(&THEIRS, at_server, DtlsRole::Client, &OURS), network.now);
    assert_eq!(talk(&mut network, &mut client, &mut server), (50, 50));
    assert_eq!((client.connections(), server.connections()), (1, 1));
    let other = identity();
    server.session.renew(config(&OURS, at_client, DtlsRole::Server, &other), network.now);
    client.session.renew(config(&other, at_server, DtlsRole::Client, &OURS), network.now);
    assert_eq!(talk(&mut network, &mut client, &mut server), (50, 50));
    assert_eq!((client.connections(), server.connections()), (2, 2));
    // And with the roles changed.
    server.session.renew(config(&OURS, at_client, DtlsRole::Client, &other), network.now);
    client.session.renew(config(&other, at_server, DtlsRole::Server, &OURS), network.now);
    assert_eq!(talk(&mut network, &mut client, &mut server), (50, 50));
    assert_eq!((client.connections(), server.connections()), (3, 3));
}

/// Our side of a session with ICE.
fn browser_config(role: DtlsRole) -> SecureConfig {
    let candidates = vec!["192.0.2.2:5000".parse().unwrap(), "[2001:db8::2]:5000".parse().unwrap()];
    let credentials = |name: &str| IceCredentials::new(name, &name.repeat(6)).unwrap();
    SecureConfig {
        identity: OURS.clone(),
        path: SecurePath::Ice {
            candidates,
            local: credentials("ours"),
            remote: credentials("peer"),
        },
        role,
        fingerprints: of(&THEIRS),
    }
}

/// A browser whose checks the test makes, and our session.
struct IceCall {
    network: Network,
    browser: Endpoint,
    ours: Endpoint,
}

impl IceCall {
    fn new() -> Self {
        let network = Network::new(7, Faults::default());
        let (browser, mut ours) = phones(&network);
        ours = Endpoint::new(ours.at, browser_config(DtlsRole::Server), network.now);
        Self { network, browser, ours }
    }

    /// Sends a check from `from`, with the credentials of this name.
    fn check(&mut self, from: SocketAddr, name: &str, more: &[(u16, &[u8])]) {
        let datagram = stun_messages::check(&format!("{name}:peer"), &name.repeat(6), 1, more);
        self.ours.receive(self.network.now, from, datagram);
        self.ours.tick(&mut self.network);
    }

    fn connect(&mut self) -> bool {
        let mut both = [&mut self.browser, &mut self.ours];
        run(&mut self.network, &mut both, Duration::from_secs(10), both_connected)
    }
}

#[test]
fn a_client_hello_counts_after_the_first_check_and_before_a_nomination() {
    let mut call = IceCall::new();
    assert!(!call.connect());
    assert!(call.ours.session.stats().strangers > 0);
    assert!(call.ours.events.is_empty());
    let at = call.browser.at;
    call.check(at, "ours", &[]);
    assert!(call.connect());
    assert_eq!(call.ours.events[0], SecureEvent::Checked(at));
    assert_eq!(talk(&mut call.network, &mut call.browser, &mut call.ours), (50, 50));
    call.check(at, "ours", &[stun_messages::NOMINATE]);
    assert_eq!(call.ours.events.last(), Some(&SecureEvent::Selected(at)));
}

#[test]
fn media_move_with_the_selected_address_and_a_restart_keeps_the_keys() {
    let mut call = IceCall::new();
    call.check(call.browser.at, "ours", &[stun_messages::NOMINATE]);
    assert!(call.connect());
    // Another network of the browser, in the same generation.
    call.browser.at = address(3, 4_444);
    call.check(call.browser.at, "ours", &[stun_messages::NOMINATE]);
    assert_eq!(talk(&mut call.network, &mut call.browser, &mut call.ours), (50, 50));
    // A restart: a new user name and password in a re-INVITE.
    let mut config = browser_config(DtlsRole::Server);
    if let SecurePath::Ice { local, .. } = &mut config.path {
        *local = IceCredentials::new("news", &"news".repeat(6)).unwrap();
    }
    call.ours.session.renew(config, call.network.now);
    assert_eq!(talk(&mut call.network, &mut call.browser, &mut call.ours), (50, 50));
    call.browser.at = address(4, 4_555);
    call.check(call.browser.at, "news", &[stun_messages::NOMINATE]);
    assert_eq!(talk(&mut call.network, &mut call.browser, &mut call.ours), (50, 50));
    assert_eq!(call.ours.connections(), 1);
    assert!(call.ours.failures().is_empty());
}

#[test]
fn an_address_is_proven_by_a_handshake_or_an_authenticated_packet_but_not_by_a_description() {
    let mut network = Network::new(8, Faults::default());
    let (mut client, mut server) = phones(&network);
    assert!(!client.session.is_destination_proven(network.now));
    assert!(run(&mut network, &mut [&mut client, &mut server], LONG, both_connected));
    assert!(server.session.is_destination_proven(network.now));
    let moved = address(1, 4_200);
    let config = SecureConfig {
        identity: OURS.clone(),
        path: SecurePath::Direct { peer: moved, host: None },
        role: DtlsRole::Server,
        fingerprints: of(&THEIRS),
    };
    server.session.renew(config, network.now);
    assert_eq!(server.session.destination(network.now), Some(moved));
    assert!(!server.session.is_destination_proven(network.now));
    client.at = moved;
    assert_eq!(talk(&mut network, &mut client, &mut server), (50, 50));
    assert!(server.session.is_destination_proven(network.now));
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_peer_without_further_checks_gets_nothing_more() {
    let mut call = IceCall::new();
    call.check(call.browser.at, "ours", &[stun_messages::NOMINATE]);
    assert!(call.connect());
    call.network.now += Duration::from_secs(31);
    assert_eq!(talk(&mut call.network, &mut call.browser, &mut call.ours), (0, 0));
    call.check(call.browser.at, "ours", &[stun_messages::NOMINATE]);
    assert_eq!(talk(&mut call.network, &mut call.browser, &mut call.ours), (50, 50));
}
