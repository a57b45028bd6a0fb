//! OpenSSL as the other side of DTLS-SRTP: both roles, and a certificate with RSA, as baresip and
//! FreeSWITCH have. OpenSSL prints the keys that it has exported; a packet protected with them must
//! be accepted.

mod support;

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use aftertone::drivers::media::webrtc::{
    DtlsIdentity, DtlsRole, Fingerprint, HandshakeGate, SecureConfig, SecureDatagram, SecureEvent,
    SecurePath, SecureSession,
};
use aftertone_core::proto::srtp::{CryptoSuite, MasterKey, SrtpSender};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use support::program;

/// The length of the keys and salts of `SRTP_AES128_CM_SHA1_80`, for both directions.
const MATERIAL: usize = 60;

/// OpenSSL, and the lines that it prints.
struct OpenSsl {
    process: Child,
    lines: Receiver<String>,
}

impl OpenSsl {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut process = Command::new(program("openssl", "openssl"))
            .args(arguments)
            .args(["-dtls1_2", "-cert", "certificate.pem", "-key", "key.pem"])
            .args(["-use_srtp", "SRTP_AES128_CM_SHA1_80"])
            .args(["-keymatexport", "EXTRACTOR-dtls_srtp"])
            .args(["-keymatexportlen", &MATERIAL.to_string()])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { process, lines }
    }

    /// The exported keys.
    fn material(&self) -> Vec<u8> {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(10)).unwrap();
            if let Some((_, digits)) = line.split_once("Keying material: ") {
                return hex::decode(digits.trim().to_lowercase()).unwrap();
            }
        }
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Writes a key with its certificate. Returns the fingerprint.
fn write_certificate(folder: &Path, key: &KeyPair) -> Fingerprint {
    let certificate = CertificateParams::default().self_signed(key).unwrap();
    std::fs::write(folder.join("certificate.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    Fingerprint::of(certificate.der())
}

/// Our side, on a socket, as a leg drives it.
struct Ours {
    socket: UdpSocket,
    session: SecureSession,
    gate: HandshakeGate,
}

impl Ours {
    fn new(socket: UdpSocket, peer: SocketAddr, role: DtlsRole, fingerprint: Fingerprint) -> Self {
        socket.set_nonblocking(true).unwrap();
        let config = SecureConfig {
            identity: Arc::new(DtlsIdentity::generate().unwrap()),
            path: SecurePath::Direct { peer, host: Some(peer.ip()) },
            role,
            fingerprints: fingerprint.into(),
        };
        let session = SecureSession::new(config, Instant::now());
        Self { socket, session, gate: HandshakeGate::default() }
    }

    /// Ticks until there is an event.
    fn event(&mut self) -> SecureEvent {
        let end = Instant::now() + Duration::from_secs(15);
        while Instant::now() < end {
            let mut datagram = [0; 2_048];
            while let Ok((len, from)) = self.socket.recv_from(&mut datagram) {
                let now = Instant::now();
                let datagram = &mut datagram[..len];
                self.session.handle_datagram(now, from, datagram, &mut self.gate);
            }
            self.session.handle_timeout(Instant::now());
            while let Some((to, bytes)) = self.session.poll_transmit() {
                self.socket.send_to(&bytes, to).unwrap();
            }
            if let Some(event) = self.session.poll_event() {
                return event;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("no event");
    }

    /// Whether a packet is accepted that the peer would protect with its part of the keys.
    fn accepts(&mut self, peer: SocketAddr, material: &[u8], peer_is_client: bool) -> bool {
        let (key, salt) = if peer_is_client { (0, 32) } else { (16, 46) };
        let key = [&material[key..key + 16], &material[salt..salt + 14]].concat();
        let key = MasterKey::from_bytes(CryptoSuite::AesCm128HmacSha1_80, &key).unwrap();
        let mut packet = [&[0x80, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4][..], &[0xd5; 160]].concat();
        SrtpSender::new(key, None).protect(&mut packet).unwrap();
        let now = Instant::now();
        let datagram = self.session.handle_datagram(now, peer, &mut packet, &mut self.gate);
        matches!(datagram, SecureDatagram::Rtp(packet) if packet[12..] == [0xd5; 160])
    }
}

fn openssl_as_client(key: &KeyPair) {
    let folder = tempfile::tempdir().unwrap();
    let fingerprint = write_certificate(folder.path(), key);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap().to_string();
    let peer = "127.0.0.1:9".parse().unwrap();
    let mut ours = Ours::new(socket, peer, DtlsRole::Server, fingerprint);
    let openssl = OpenSsl::start(folder.path(), &["s_client", "-connect", &at]);
    let SecureEvent::Connected { peer, suite, version } = ours.event() else { panic!() };
    assert_eq!((suite, version), (CryptoSuite::AesCm128HmacSha1_80, "DTLS 1.2"));
    assert!(ours.accepts(peer, &openssl.material(), true));
}

#[test]
fn openssl_connects_as_a_client_with_ecdsa() {
    openssl_as_client(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
}

#[test]
fn openssl_connects_as_a_client_with_rsa() {
    openssl_as_client(&KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap());
}

#[test]
fn openssl_is_reached_as_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let fingerprint = write_certificate(folder.path(), &key);
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = free.local_addr().unwrap();
    drop(free);
    let accept = peer.to_string();
    let openssl = OpenSsl::start(folder.path(), &["s_server", "-accept", &accept, "-Verify", "1"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut ours = Ours::new(socket, peer, DtlsRole::Client, fingerprint);
    let SecureEvent::Connected { suite, .. } = ours.event() else { panic!() };
    assert_eq!(suite, CryptoSuite::AesCm128HmacSha1_80);
    assert!(ours.accepts(peer, &openssl.material(), false));
}
