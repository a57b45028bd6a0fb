//! Strangers, forged and damaged datagrams.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    super::{stun::tests as stun_messages, *},
    IceCall, both_connected, browser, browser_config, talk,
    world::*,
};

/// The bytes that a session wants to send.
fn sent(session: &mut SecureSession) -> usize {
    std::iter::from_fn(|| session.poll_transmit()).map(|(_, bytes)| bytes.len()).sum()
}

/// A ClientHello of a phone.
fn client_hello(network: &Network) -> Vec<u8> {
    let (mut client, _) = phones(network);
    client.session.poll_transmit().unwrap().1
}

#[test]
fn a_stranger_gets_no_byte_for_a_client_hello_or_a_check() {
    let mut call = IceCall::new();
    let (now, stranger) = (call.network.now, address(66, 666));
    let hello = client_hello(&call.network);
    let wrong_name = stun_messages::check("them:peer", &"ours".repeat(6), 1, &[]);
    let wrong_password = stun_messages::check("ours:peer", &"them".repeat(6), 1, &[]);
    call.check(call.browser.at, "ours", &[]);
    sent(&mut call.ours.session);
    for datagram in [hello, wrong_name, wrong_password, rtp(1, 160), b"x".to_vec(), Vec::new()] {
        call.ours.receive(now, stranger, datagram);
        assert_eq!(sent(&mut call.ours.session), 0);
    }
    let stats = call.ours.session.stats();
    assert_eq!((stats.strangers, stats.wrong_checks, stats.malformed), (2, 2, 2));
    assert!(call.connect());
}

#[test]
fn a_forged_client_hello_is_not_amplified() {
    let network = Network::new(1, Faults::default());
    let (client, mut server) = phones(&network);
    let hello = client_hello(&network);
    let (mut got, mut given) = (0, 0);
    for second in 0..20 {
        let now = network.now + Duration::from_secs(second);
        got += hello.len();
        server.receive(now, client.at, hello.clone());
        server.session.handle_timeout(now);
        given += sent(&mut server.session);
    }
    assert!(given > 0 && given * 2 <= got * 3, "{given} bytes for {got}");
}

#[test]
fn one_host_cannot_begin_more_handshakes_than_the_gate_admits() {
    let network = Network::new(2, Faults::default());
    let hello = client_hello(&network);
    let mut gate = HandshakeGate::default();
    let mut answered = 0;
    for _ in 0..200 {
        let (client, mut server) = phones(&network);
        server.session.handle_datagram(network.now, client.at, &mut hello.clone(), &mut gate);
        answered += usize::from(sent(&mut server.session) > 0);
    }
    assert_eq!(answered, 64);
}

/// Changes, cuts or lengthens a datagram.
fn mutate(datagram: &mut Vec<u8>, rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..datagram.len().max(1));
        match rng.random_range(0..4) {
            0 if !datagram.is_empty() => datagram[at] ^= 1 << rng.random_range(0..8),
            1 if !datagram.is_empty() => datagram[at] = rng.random(),
            2 => datagram.truncate(at),
            _ => datagram.resize(datagram.len() + rng.random_range(1..64), rng.random()),
        }
    }
}

/// One of the datagrams, changed.
fn mutated(recorded: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let original = &recorded[rng.random_range(0..recorded.len())];
    loop {
        let mut datagram = original.clone();
        mutate(&mut datagram, rng);
        if datagram != *original {
            return datagram;
        }
    }
}

/// All datagrams of a call with ICE: checks, both sides of the handshake, and media.
fn recorded() -> Vec<Vec<u8>> {
    let mut call = IceCall::new();
    call.check(call.browser.at, "ours", &[stun_messages::NOMINATE]);
    assert!(call.connect());
    talk(&mut call.network, &mut call.browser, &mut call.ours);
    let mut seen = call.network.seen;
    seen.truncate(24);
    seen.push(stun_messages::check("ours:peer", &"ours".repeat(6), 2, &[]));
    seen.push(stun_messages::check(
        "ours:peer",
        &"ours".repeat(6),
        3,
        &[stun_messages::CONTROLLED],
    ));
    seen
}

#[test]
fn mutated_datagrams_do_not_touch_a_live_call() {
    let recorded = recorded();
    let mut rng = StdRng::seed_from_u64(1);
    let mut call = IceCall::new();
    call.check(call.browser.at, "ours", &[stun_messages::NOMINATE]);
    assert!(call.connect());
    assert_eq!(talk(&mut call.network, &mut call.browser, &mut call.ours), (50, 50));
    for round in 0..20 {
        for _ in 0..2_500 {
            let datagram = mutated(&recorded, &mut rng);
            let from = if rng.random() { call.browser.at } else { address(66, 666) };
            call.ours.receive(call.network.now, from, datagram);
        }
        // A repeated part of the handshake makes our last flight go out again, within bounds.
        assert!(sent(&mut call.ours.session) < 32 * 1_200);
        let talked = talk(&mut call.network, &mut call.browser, &mut call.ours);
        assert_eq!(talked, (50, 50), "round {round}");
        call.check(call.browser.at, "ours", &[stun_messages::NOMINATE]);
    }
    assert_eq!(call.ours.rtp.len(), 1_050);
    assert!(call.ours.failures().is_empty(), "{:?}", call.ours.events);
}

/// Gives a session datagrams of another call, most of them changed, for five seconds. Returns how
/// many.
fn confuse(
    endpoint: &mut Endpoint,
    peer: SocketAddr,
    recorded: &[Vec<u8>],
    rng: &mut StdRng,
) -> u32 {
    let began = Instant::now();
    for step in 0..250 {
        // Some are as they were, so that more of the handshake is reached.
        let datagram = if rng.random_bool(0.7) {
            mutated(recorded, rng)
        } else {
            recorded[rng.random_range(0..recorded.len())].clone()
        };
        let now = began + TICK * step;
        endpoint.receive(now, peer, datagram);
        endpoint.session.handle_timeout(now);
        assert!(sent(&mut endpoint.session) <= 32 * 1_200);
    }
    assert!(endpoint.rtp.is_empty());
    assert!(!endpoint.session.is_connected());
    250
}

#[test]
fn mutated_handshakes_with_phones_do_no_harm() {
    let recorded = recorded();
    let mut rng = StdRng::seed_from_u64(2);
    let mut fed = 0;
    while fed < 25_000 {
        let network = Network::new(1, Faults::default());
        let (client, server) = phones(&network);
        let (at_client, at_server) = (client.at, server.at);
        let (mut endpoint, peer) =
            if rng.random() { (client, at_server) } else { (server, at_client) };
        fed += confuse(&mut endpoint, peer, &recorded, &mut rng);
    }
}

#[test]
fn mutated_handshakes_with_browsers_do_no_harm() {
    let recorded = [browser::recorded(DtlsRole::Client), browser::recorded(DtlsRole::Server)];
    let mut rng = StdRng::seed_from_u64(4);
    let mut fed = 0;
    while fed < 25_000 {
        let network = Network::new(1, Faults::default());
        let role = if rng.random() { DtlsRole::Client } else { DtlsRole::Server };
        let config = browser_config(role);
        let mut endpoint = Endpoint::new(address(2, 5_000), config, network.now);
        let peer = address(1, 4_000);
        let check = stun_messages::check("ours:peer", &"ours".repeat(6), 1, &[]);
        endpoint.receive(network.now, peer, check);
        let recorded = &recorded[usize::from(role == DtlsRole::Client)];
        fed += confuse(&mut endpoint, peer, recorded, &mut rng);
    }
}

#[test]
fn a_handshake_goes_on_beside_mutated_datagrams_of_its_own() {
    // A peer that is on the path can end a handshake, as by dropping its datagrams. It cannot make
    // it connect to anything else.
    let mut rng = StdRng::seed_from_u64(3);
    let mut connected = 0;
    for seed in 0..200 {
        let mut network = Network::new(seed, Faults::default());
        let (mut client, mut server) = phones(&network);
        let end = network.now + Duration::from_secs(10);
        while network.now < end && !both_connected(&[&mut client, &mut server]) {
            client.tick(&mut network);
            server.tick(&mut network);
            if let Some(mut datagram) = network.seen.last().cloned() {
                mutate(&mut datagram, &mut rng);
                let (from, to) =
                    if rng.random() { (client.at, server.at) } else { (server.at, client.at) };
                network.send(from, to, datagram);
            }
            network.now += TICK;
        }
        if both_connected(&[&mut client, &mut server]) {
            connected += 1;
            assert_eq!(talk(&mut network, &mut client, &mut server), (50, 50));
        }
    }
    assert!(connected > 100, "{connected} of 200");
}
