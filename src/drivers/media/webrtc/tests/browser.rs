//! Calls with str0m as the browser: full ICE, DTLS in both roles and versions, RTP.

use std::{net::SocketAddr, time::Duration};

use str0m::{
    Candidate, Event, Input, Output, Rtc, RtcConfig,
    config::DtlsVersion,
    ice::IceCreds,
    media::{MediaKind, Mid},
    net::{Protocol, Receive},
    rtp::{RtpWrite, Ssrc},
};

use super::world::*;
use crate::drivers::media::webrtc::*;

const PT: u8 = 0;
const THEIR_SSRC: u32 = 0x0a0b_0c0d;
const OUR_SSRC: u32 = 0x0102_0304;

/// A browser. Its candidates are not told to us.
struct Browser {
    rtc: Rtc,
    /// Its sockets.
    at: Vec<SocketAddr>,
    mid: Mid,
    received: Vec<Vec<u8>>,
    is_connected: bool,
    sequence: u64,
}

/// A browser and our session, which have each other's descriptions.
fn call(network: &Network, version: DtlsVersion, role: DtlsRole) -> (Browser, Endpoint) {
    let (browser, config) = browser(network, version, role);
    (browser, Endpoint::new(address(2, 5_000), config, network.now))
}

/// A browser, and the configuration of a session with it.
fn browser(network: &Network, version: DtlsVersion, role: DtlsRole) -> (Browser, SecureConfig) {
    let (browser_at, ours_at) = (address(7, 7_000), address(2, 5_000));
    let mut config = RtcConfig::new().set_rtp_mode(true).set_dtls_version(version).clear_codecs();
    config = config.enable_pcmu(true, false);
    let mut rtc = config.build(network.now);
    rtc.add_local_candidate(Candidate::host(browser_at, "udp").unwrap());
    rtc.add_remote_candidate(Candidate::host(ours_at, "udp").unwrap());
    let local = IceCredentials::generate(&mut rand::rng());
    let mut api = rtc.direct_api();
    let IceCreds { ufrag, pass } = api.local_ice_credentials();
    let remote = IceCredentials::new(&ufrag, &pass).unwrap();
    let fingerprint = api.local_dtls_fingerprint().to_string();
    api.set_ice_controlling(true);
    api.set_remote_ice_credentials(IceCreds {
        ufrag: local.ufrag().into(),
        pass: local.password().into(),
    });
    api.set_remote_fingerprint(OURS.fingerprint().to_string().parse().unwrap());
    api.start_dtls(role == DtlsRole::Server).unwrap();
    let mid: Mid = "0".into();
    api.declare_media(mid, MediaKind::Audio);
    api.declare_stream_tx(Ssrc::from(THEIR_SSRC), None, mid, None);
    api.expect_stream_rx(Ssrc::from(OUR_SSRC), None, mid, None);
    let config = SecureConfig {
        identity: OURS.clone(),
        path: SecurePath::Ice { candidates: vec![ours_at], local, remote },
        role,
        fingerprints: Fingerprints::parse([fingerprint.as_str()]).unwrap(),
    };
    let browser = Browser {
        rtc,
        at: vec![browser_at],
        mid,
        received: Vec::new(),
        is_connected: false,
        sequence: 1,
    };
    (browser, config)
}

impl Browser {
    fn tick(&mut self, network: &mut Network) {
        for (from, to, bytes) in network.arrived(&self.at.clone()) {
            let Ok(contents) = bytes.as_slice().try_into() else { continue };
            let receive = Receive { proto: Protocol::Udp, source: from, destination: to, contents };
            self.rtc.handle_input(Input::Receive(network.now, receive)).unwrap();
            self.drain(network);
        }
        self.rtc.handle_input(Input::Timeout(network.now)).unwrap();
        self.drain(network);
    }

    fn drain(&mut self, network: &mut Network) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(_) => return,
                Output::Transmit(datagram) => {
                    let bytes = datagram.contents.to_vec();
                    network.send(datagram.source, datagram.destination, bytes);
                }
                Output::Event(Event::Connected) => self.is_connected = true,
                Output::Event(Event::RtpPacket(packet)) => {
                    self.received.push(packet.payload.to_vec());
                }
                Output::Event(_) => {}
            }
        }
    }

    fn speak(&mut self, network: &Network) {
        let (sequence, mid) = (self.sequence, self.mid);
        self.sequence += 1;
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, None).unwrap();
        let time = sequence as u32 * 160;
        let payload = [0xd5; 160];
        stream.write_rtp(RtpWrite::new(PT.into(), sequence.into(), time, network.now, payload));
    }
}

/// Both tick until both are connected, at most for 20 s.
fn connect(network: &mut Network, browser: &mut Browser, ours: &mut Endpoint) -> Option<Duration> {
    let began = network.now;
    while network.now < began + Duration::from_secs(20) {
        browser.tick(network);
        ours.tick(network);
        if browser.is_connected && ours.session.is_connected() {
            return Some(network.now - began);
        }
        network.now += TICK;
    }
    None
}

/// Both speak for a second.
fn talk(network: &mut Network, browser: &mut Browser, ours: &mut Endpoint) {
    for _ in 0..50 {
        browser.speak(network);
        ours.speak(network);
        browser.tick(network);
        ours.tick(network);
        network.now += TICK;
    }
    for _ in 0..5 {
        network.now += TICK;
        browser.tick(network);
        ours.tick(network);
    }
}

/// All datagrams of a call with DTLS 1.3, in which the browser has this role.
pub(super) fn recorded(role: DtlsRole) -> Vec<Vec<u8>> {
    let mut network = Network::new(9, Faults::default());
    let ours = if role == DtlsRole::Client { DtlsRole::Server } else { DtlsRole::Client };
    let (mut browser, mut ours) = call(&network, DtlsVersion::Dtls13, ours);
    connect(&mut network, &mut browser, &mut ours).unwrap();
    network.seen
}

#[test]
fn a_browser_connects_in_each_role_and_version() {
    for version in [DtlsVersion::Dtls12, DtlsVersion::Dtls13, DtlsVersion::Auto] {
        for role in [DtlsRole::Client, DtlsRole::Server] {
            let mut network = Network::new(1, Faults::default());
            let (mut browser, mut ours) = call(&network, version, role);
            let took = connect(&mut network, &mut browser, &mut ours);
            let took = took.unwrap_or_else(|| panic!("{version} {role:?} {:?}", ours.events));
            assert!(took < Duration::from_secs(2), "{version} {role:?} {took:?}");
            talk(&mut network, &mut browser, &mut ours);
            assert_eq!(ours.rtp.len(), 50, "{version} {role:?}");
            assert_eq!(browser.received.len(), 50, "{version} {role:?}");
            assert!(ours.rtp.iter().all(|packet| packet.ends_with(&[0xd5; 160])));
            assert!(ours.failures().is_empty(), "{:?}", ours.events);
        }
    }
}

#[test]
fn browsers_connect_through_bad_networks() {
    let faults = Faults { lost: 0.15, repeated: 0.1, jitter: Duration::from_millis(60) };
    let mut failed = Vec::new();
    for seed in 0..40 {
        let mut network = Network::new(seed, faults);
        let role = if seed % 2 == 0 { DtlsRole::Server } else { DtlsRole::Client };
        let version = if seed % 4 < 2 { DtlsVersion::Dtls12 } else { DtlsVersion::Auto };
        let (mut browser, mut ours) = call(&network, version, role);
        if connect(&mut network, &mut browser, &mut ours).is_none() {
            failed.push((seed, ours.events));
            continue;
        }
        network.faults = Faults::default();
        talk(&mut network, &mut browser, &mut ours);
        assert!(ours.rtp.len() >= 50, "{seed}: {}", ours.rtp.len());
    }
    assert!(failed.len() <= 1, "{failed:?}");
}

#[test]
fn a_browser_with_another_certificate_is_refused() {
    let mut network = Network::new(3, Faults::default());
    let (mut browser, config) = browser(&network, DtlsVersion::Auto, DtlsRole::Server);
    let config = SecureConfig { fingerprints: of(&THEIRS), ..config };
    let mut ours = Endpoint::new(address(2, 5_000), config, network.now);
    assert_eq!(connect(&mut network, &mut browser, &mut ours), None);
    let told = ours.failures()[0].to_string();
    assert!(told.starts_with("the fingerprint differs: the description says sha-256 "), "{told}");
    assert_eq!(ours.connections(), 0);
}
