//! Who we are in DTLS: a certificate, made once for the process.
//!
//! Output: its fingerprint for descriptions, and new DTLS connections. The certificate proves
//! nothing by itself; the fingerprint in the signalled description does (RFC 5763 section 3).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dimpl::{
    Config, Dtls, DtlsCertificate,
    crypto::{CryptoProvider, aws_lc_rs},
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};

use super::{fingerprint::Fingerprint, role::DtlsRole, rsa_request, verifier::VERIFIER};

/// The first interval after which a flight is sent again. RFC 6347 section 4.2.4.1 begins with 1 s;
/// half of it is still longer than the way to any telephone and back.
const FLIGHT_INTERVAL: Duration = Duration::from_millis(500);
/// How often a flight is sent again, in growing intervals.
const FLIGHT_REPEATS: usize = 5;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// Browsers want the serial number of each certificate to be unique.
const SERIAL_BYTES: usize = 16;

/// The certificate of this process with its private key, which `Debug` does not print.
#[derive(Debug)]
pub struct DtlsIdentity {
    certificate: DtlsCertificate,
    fingerprint: Fingerprint,
    /// For peers whose address is proven by ICE, and for all others as their client.
    common: Arc<Config>,
    /// For others as their server: the handshake begins with a cookie.
    careful: Arc<Config>,
}

/// A certificate or its settings cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key or the certificate.
    #[error("the DTLS certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The settings of DTLS.
    #[error("DTLS cannot be set up: {0}")]
    Settings(#[from] dimpl::Error),
}

impl DtlsIdentity {
    /// A new key (ECDSA with P-256, which all browsers and phones can verify) and certificate.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn generate() -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "aftertone");
        let mut serial = rand::random::<[u8; SERIAL_BYTES]>();
        // A positive number without leading zeros (RFC 5280 section 4.1.2.2).
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(serial.to_vec().into());
        let certificate = params.self_signed(&key)?.der().to_vec();
        Ok(Self {
            fingerprint: Fingerprint::of(&certificate),
            certificate: DtlsCertificate { certificate, private_key: key.serialize_der() },
            common: settings(provider(), false)?,
            careful: settings(rsa_request::provider(), true)?,
        })
    }

    /// The fingerprint for our descriptions.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// A connection to a peer whose address is proven: DTLS 1.3 or 1.2.
    pub(super) fn connect_proven(&self, now: Instant) -> Dtls {
        Dtls::new_auto(Arc::clone(&self.common), self.certificate.clone(), now)
    }

    /// A connection to a SIP phone: DTLS 1.2, which is all that they know. A server asks for a
    /// cookie before it sends more than the peer did; its datagrams have to go through
    /// [`rsa_request::change_datagram`].
    pub(super) fn connect_unproven(&self, role: DtlsRole, now: Instant) -> Dtls {
        let config = match role {
            DtlsRole::Client => &self.common,
            DtlsRole::Server => &self.careful,
        };
        Dtls::new_12(Arc::clone(config), self.certificate.clone(), now)
    }
}

fn provider() -> CryptoProvider {
    CryptoProvider { signature_verification: &VERIFIER, ..aws_lc_rs::default_provider() }
}

fn settings(provider: CryptoProvider, with_cookie: bool) -> Result<Arc<Config>, dimpl::Error> {
    let config = Config::builder()
        .with_crypto_provider(provider)
        .use_server_cookie(with_cookie)
        .flight_start_rto(FLIGHT_INTERVAL)
        .flight_retries(FLIGHT_REPEATS)
        .handshake_timeout(HANDSHAKE_TIMEOUT)
        .build()?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_identity_is_another_and_its_key_is_not_printed() {
        let (one, other) = (DtlsIdentity::generate().unwrap(), DtlsIdentity::generate().unwrap());
        assert_ne!(one.fingerprint(), other.fingerprint());
        let printed = format!("{one:?}");
        let key = format!("{:?}", &one.certificate.private_key[..8]);
        assert!(!printed.contains(key.trim_matches(['[', ']'])), "{printed}");
    }
}
