//! Verifies the signature of the peer in a handshake: ECDSA as `dimpl` does, and RSA.
//!
//! `dimpl` neither offers RSA nor asks for it. Some DTLS clients, among them those with mbedTLS
//! (linphone), show their RSA certificate all the same. RSA with 2,048 bits or more and PKCS #1
//! version 1.5, as DTLS 1.2 has it, is accepted.

use std::sync::LazyLock;

use ::aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RsaParameters, UnparsedPublicKey,
};
use dimpl::{
    CryptoError, CryptoOperation, HashAlgorithm, SignatureAlgorithm,
    crypto::{SignatureVerifier, aws_lc_rs},
};
use x509_cert::{Certificate, der::Decode};

/// The verifier of all connections.
pub(super) static VERIFIER: PeerVerifier = PeerVerifier;

static ECDSA: LazyLock<&'static dyn SignatureVerifier> =
    LazyLock::new(|| aws_lc_rs::default_provider().signature_verification);

#[derive(Debug)]
pub(super) struct PeerVerifier;

impl SignatureVerifier for PeerVerifier {
    fn verify_signature(
        &self,
        certificate: &[u8],
        data: &[u8],
        signature: &[u8],
        hash: HashAlgorithm,
        algorithm: SignatureAlgorithm,
    ) -> Result<(), CryptoError> {
        if algorithm != SignatureAlgorithm::RSA {
            return ECDSA.verify_signature(certificate, data, signature, hash, algorithm);
        }
        let parameters: &RsaParameters = match hash {
            HashAlgorithm::SHA256 => &RSA_PKCS1_2048_8192_SHA256,
            HashAlgorithm::SHA384 => &RSA_PKCS1_2048_8192_SHA384,
            HashAlgorithm::SHA512 => &RSA_PKCS1_2048_8192_SHA512,
            _ => return Err(CryptoError::UnsupportedSignatureAlgorithm(algorithm)),
        };
        let certificate =
            Certificate::from_der(certificate).map_err(|_| CryptoError::CertificateParseFailed)?;
        let key = certificate.tbs_certificate().subject_public_key_info();
        let key = key.subject_public_key.as_bytes().ok_or(CryptoError::InvalidSubjectPublicKey)?;
        UnparsedPublicKey::new(parameters, key)
            .verify(data, signature)
            .map_err(|_| CryptoError::OperationFailed(CryptoOperation::VerifySignature))
    }
}

#[cfg(test)]
mod tests {
    use ::aws_lc_rs::{rand::SystemRandom, rsa, signature};
    use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};

    use super::*;

    #[test]
    fn a_signature_by_rsa_is_verified() {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let certificate = CertificateParams::default().self_signed(&pair).unwrap();
        let signer = rsa::KeyPair::from_pkcs8(&pair.serialize_der()).unwrap();
        let mut made = vec![0; signer.public_modulus_len()];
        let padding = &signature::RSA_PKCS1_SHA256;
        signer.sign(padding, &SystemRandom::new(), b"transcript", &mut made).unwrap();
        let verify = |data: &[u8], hash| {
            VERIFIER.verify_signature(certificate.der(), data, &made, hash, SignatureAlgorithm::RSA)
        };
        assert_eq!(verify(b"transcript", HashAlgorithm::SHA256), Ok(()));
        assert!(verify(b"transcripT", HashAlgorithm::SHA256).is_err());
        assert!(verify(b"transcript", HashAlgorithm::SHA384).is_err());
        assert!(verify(b"transcript", HashAlgorithm::SHA1).is_err());
    }
}
