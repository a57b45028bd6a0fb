//! One DTLS association with the peer (RFC 5764): the handshake, the check of the peer's
//! certificate, and the keys that come of it.
//!
//! Input: the peer's DTLS datagrams and the time. Output: datagrams to be sent, and what has become
//! of the handshake. Keys are given out only if the certificate is the one of the description.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use dimpl::{
    CertificateError, Dtls, Error, KeyingMaterial, Output, ProtocolVersion, SecurityError,
    SrtpProfile,
};

use super::{
    failure::{DtlsAlert, SecureFailure},
    fingerprint::Fingerprints,
    identity::DtlsIdentity,
    role::DtlsRole,
    rsa_request,
    transmits::Transmits,
};
use aftertone_core::proto::srtp::{CryptoSuite, MasterKey};

/// More than the MTU of the connection.
const LONGEST_OUTPUT: usize = 2_048;
/// A timer that is later than this is none.
const IDLE: Duration = Duration::from_secs(3_600);
/// The content type of a handshake record (RFC 5246 section 6.2.1).
const HANDSHAKE: u8 = 22;
/// The handshake type of a ClientHello (RFC 5246 section 7.4).
const CLIENT_HELLO: u8 = 1;
/// Where the handshake type is in a datagram that begins with a handshake record.
const HANDSHAKE_TYPE_AT: usize = 13;

/// The keys of both directions.
#[derive(Debug)]
pub(super) struct MediaKeys {
    /// The suite of both.
    pub(super) suite: CryptoSuite,
    /// For what we send.
    pub(super) ours: MasterKey,
    /// For what the peer sends.
    pub(super) theirs: MasterKey,
}

/// What has happened.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing to report.
    Going,
    /// The handshake is finished, the certificate is the right one.
    Connected(MediaKeys),
    /// The peer has closed the finished association.
    Closed,
    /// The association is of no use any more.
    Failed(SecureFailure),
}

/// What an association begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning<'a> {
    pub(super) identity: &'a DtlsIdentity,
    pub(super) role: DtlsRole,
    pub(super) peer: SocketAddr,
    /// Whether ICE has shown that the peer receives what we send to its address.
    pub(super) is_proven: bool,
    pub(super) fingerprints: &'a Fingerprints,
}

/// One association.
pub(super) struct Association {
    dtls: Dtls,
    role: DtlsRole,
    /// Whether the client is asked for an RSA certificate too.
    asks_for_rsa: bool,
    /// Where what we send goes.
    pub(super) peer: SocketAddr,
    fingerprints: Fingerprints,
    /// The peer's certificate, once it is known to be the one of the description.
    certificate: Option<Vec<u8>>,
    keys: Option<(KeyingMaterial, SrtpProfile)>,
    has_finished: bool,
    is_connected: bool,
    /// The time of the peer's last datagram, or of the beginning.
    heard_at: Instant,
    has_answered: bool,
    timeout: Option<Instant>,
}

impl Association {
    /// A new association. A client's first datagram is put into `outgoing`.
    ///
    /// # Errors
    /// The connection cannot be set up.
    pub(super) fn new(
        beginning: Beginning<'_>,
        now: Instant,
        outgoing: &mut Transmits,
    ) -> Result<Self, SecureFailure> {
        let Beginning { identity, role, peer, is_proven, fingerprints } = beginning;
        let mut dtls = if is_proven {
            identity.connect_proven(now)
        } else {
            identity.connect_unproven(role, now)
        };
        dtls.set_active(role == DtlsRole::Client);
        let mut association = Self {
            dtls,
            role,
            asks_for_rsa: !is_proven && role == DtlsRole::Server,
            peer,
            fingerprints: fingerprints.clone(),
            certificate: None,
            keys: None,
            has_finished: false,
            is_connected: false,
            heard_at: now,
            has_answered: false,
            timeout: None,
        };
        match association.handle_timeout(now, outgoing) {
            Progress::Failed(failure) => Err(failure),
            _ => Ok(association),
        }
    }

    /// Whether a datagram may begin a handshake in which we are the server.
    pub(super) fn is_client_hello(datagram: &[u8]) -> bool {
        datagram.first() == Some(&HANDSHAKE)
            && datagram.get(HANDSHAKE_TYPE_AT) == Some(&CLIENT_HELLO)
    }

    /// Takes a datagram of the peer.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        datagram: &[u8],
        outgoing: &mut Transmits,
    ) -> Progress {
        (self.heard_at, self.has_answered) = (now, true);
        let handled =
            self.dtls.handle_timeout(now).and_then(|()| self.dtls.handle_packet(datagram));
        match handled {
            Ok(()) => self.drain(now, outgoing),
            Err(error) => {
                if matches!(error, Error::CertificateError(_)) {
                    // An alert tells the peer.
                    self.drain(now, outgoing);
                }
                self.fail(&error)
            }
        }
    }

    /// Sends flights again, and gives up in the end.
    pub(super) fn handle_timeout(&mut self, now: Instant, outgoing: &mut Transmits) -> Progress {
        match self.dtls.handle_timeout(now) {
            Ok(()) => self.drain(now, outgoing),
            Err(error) => self.fail(&error),
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.timeout
    }

    /// Tells the peer that the association is over.
    pub(super) fn close(&mut self, now: Instant, outgoing: &mut Transmits) {
        if self.dtls.close().is_ok() {
            self.drain(now, outgoing);
        }
    }

    /// Whether the handshake is finished.
    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// How long the peer has sent nothing.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard_at)
    }

    /// Whether this association is also the one of a later description.
    pub(super) fn suits(&self, role: DtlsRole, fingerprints: &Fingerprints) -> bool {
        let is_described = match &self.certificate {
            Some(certificate) => fingerprints.describe(certificate),
            None => *fingerprints == self.fingerprints,
        };
        role == self.role && is_described
    }

    /// The version of the protocol, for the log.
    pub(super) fn version(&self) -> &'static str {
        match self.dtls.protocol_version() {
            Some(ProtocolVersion::DTLS1_2) => "DTLS 1.2",
            Some(ProtocolVersion::DTLS1_3) => "DTLS 1.3",
            _ => "DTLS",
        }
    }

    /// Takes all outputs of the connection.
    fn drain(&mut self, now: Instant, outgoing: &mut Transmits) -> Progress {
        let mut buffer = [0; LONGEST_OUTPUT];
        let mut has_closed = false;
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(datagram) => {
                    let mut datagram = datagram.to_vec();
                    if self.asks_for_rsa {
                        rsa_request::change_datagram(&mut datagram);
                    }
                    outgoing.push(self.peer, datagram);
                }
                Output::Timeout(at) => {
                    self.timeout = (at.saturating_duration_since(now) < IDLE).then_some(at);
                    break;
                }
                Output::PeerCert(certificate) => {
                    if !self.fingerprints.describe(certificate) {
                        let (described, shown) = self.fingerprints.compared_with(certificate);
                        return Progress::Failed(SecureFailure::FingerprintDiffers {
                            described,
                            shown,
                        });
                    }
                    self.certificate = Some(certificate.to_vec());
                }
                Output::KeyingMaterial(material, profile) => self.keys = Some((material, profile)),
                Output::Connected => self.has_finished = true,
                Output::CloseNotify => has_closed = true,
                // Nothing but media is agreed.
                Output::ApplicationData(_) => {}
                // A datagram longer than the MTU, which the connection never makes.
                output => {
                    let text = format!("unexpected output {output:?}");
                    return Progress::Failed(SecureFailure::Handshake(text));
                }
            }
        }
        if self.has_finished && !self.is_connected {
            self.is_connected = true;
            return self.connected();
        }
        if has_closed { Progress::Closed } else { Progress::Going }
    }

    fn connected(&mut self) -> Progress {
        if self.certificate.is_none() {
            return Progress::Failed(SecureFailure::NoCertificate);
        }
        let keys = self.keys.take().and_then(|(material, profile)| {
            MediaKeys::split(&material, suite_of(profile)?, self.role)
        });
        keys.map_or(Progress::Failed(SecureFailure::NoProfile), Progress::Connected)
    }

    fn fail(&self, error: &Error) -> Progress {
        Progress::Failed(match error {
            Error::SecurityError(SecurityError::FatalAlert { description }) => {
                SecureFailure::Alert(DtlsAlert(*description))
            }
            Error::CertificateError(
                CertificateError::NoClientCertificateReceived
                | CertificateError::NoServerCertificateReceived,
            ) => SecureFailure::NoCertificate,
            Error::Timeout(_) => {
                SecureFailure::HandshakeTimeout { peer: self.peer, has_answered: self.has_answered }
            }
            other => SecureFailure::Handshake(other.to_string()),
        })
    }
}

impl fmt::Debug for Association {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Association")
            .field("dtls", &self.dtls)
            .field("peer", &self.peer)
            .field("is_connected", &self.is_connected)
            .finish_non_exhaustive()
    }
}

impl MediaKeys {
    /// Splits the exported bytes: the client's key, the server's key, the client's salt, the
    /// server's salt (RFC 5764 section 4.2).
    fn split(material: &[u8], suite: CryptoSuite, role: DtlsRole) -> Option<Self> {
        let (client_key, rest) = material.split_at_checked(suite.key_len())?;
        let (server_key, rest) = rest.split_at_checked(suite.key_len())?;
        let (client_salt, server_salt) = rest.split_at_checked(suite.salt_len())?;
        let client = MasterKey::from_bytes(suite, &[client_key, client_salt].concat())?;
        let server = MasterKey::from_bytes(suite, &[server_key, server_salt].concat())?;
        Some(match role {
            DtlsRole::Client => Self { suite, ours: client, theirs: server },
            DtlsRole::Server => Self { suite, ours: server, theirs: client },
        })
    }
}

/// The suite of a profile (RFC 5764 section 4.1.2, RFC 7714 section 14.2).
fn suite_of(profile: SrtpProfile) -> Option<CryptoSuite> {
    match profile {
        SrtpProfile::AES128_CM_SHA1_80 => Some(CryptoSuite::AesCm128HmacSha1_80),
        SrtpProfile::AEAD_AES_128_GCM => Some(CryptoSuite::AeadAes128Gcm),
        SrtpProfile::AEAD_AES_256_GCM => Some(CryptoSuite::AeadAes256Gcm),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exported_bytes_are_split_as_the_rfc_says() {
        let material: Vec<u8> = (0..60).collect();
        let keys =
            |role| MediaKeys::split(&material, CryptoSuite::AesCm128HmacSha1_80, role).unwrap();
        let client: Vec<u8> = (0..16).chain(32..46).collect();
        let server: Vec<u8> = (16..32).chain(46..60).collect();
        assert_eq!(keys(DtlsRole::Client).ours.as_bytes(), client);
        assert_eq!(keys(DtlsRole::Client).theirs.as_bytes(), server);
        assert_eq!(keys(DtlsRole::Server).ours.as_bytes(), server);
        let shorter =
            MediaKeys::split(&material[..59], CryptoSuite::AesCm128HmacSha1_80, DtlsRole::Client);
        assert!(shorter.is_none());
        assert!(!format!("{:?}", keys(DtlsRole::Client)).contains("16, 17"));
    }
}
