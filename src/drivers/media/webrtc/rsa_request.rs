//! Lets DTLS clients in that have an RSA certificate.
//!
//! As a server of DTLS 1.2, `dimpl` asks for an ECDSA certificate, by the two signature algorithms
//! in its CertificateRequest (RFC 5246 section 7.4.4). OpenSSL with an RSA certificate, as in
//! baresip and FreeSWITCH, then shows none. Here one of the two is replaced: RSA with SHA-256 takes
//! the place of ECDSA with SHA-384, which no client needs, because in DTLS 1.2 a key on P-384 signs
//! SHA-256 as well. The length stays the same.
//!
//! Both sides hash and sign all messages, so the message is changed in the datagram that is sent,
//! and wherever `dimpl` hashes or verifies its transcript. If one of these were missed, handshakes
//! would fail; none would pass that must not.

use dimpl::{
    CryptoError, HashAlgorithm, SignatureAlgorithm,
    crypto::{Buf, CryptoProvider, HashContext, HashProvider, SignatureVerifier, aws_lc_rs},
};

use super::verifier::VERIFIER;

/// Type, version, epoch, sequence number and length (RFC 6347 section 4.1).
const RECORD_HEADER: usize = 13;
/// Type, length, sequence number, offset and length of the fragment (RFC 6347 section 4.2.2).
const MESSAGE_HEADER: usize = 12;
const HANDSHAKE: u8 = 22;
const CERTIFICATE_REQUEST: u8 = 13;
/// The body before the signature algorithms: one type of certificate, `ecdsa_sign`, and the length
/// of the algorithms.
const BEFORE: [u8; 4] = [1, 64, 0, 4];
/// The body behind them: no names of authorities.
const BEHIND: [u8; 2] = [0, 0];
const ECDSA_SHA256: [u8; 2] = [4, 3];
const ECDSA_SHA384: [u8; 2] = [5, 3];
const RSA_SHA256: [u8; 2] = [4, 1];

/// The provider of servers that accept RSA.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        signature_verification: &TranscriptVerifier,
        hash_provider: &TranscriptHashes,
        ..aws_lc_rs::default_provider()
    }
}

/// Changes the CertificateRequest in a datagram of the server's, if there is one.
pub(super) fn change_datagram(datagram: &mut [u8]) {
    let mut rest = datagram;
    while let Some((header, after)) = rest.split_first_chunk_mut::<RECORD_HEADER>() {
        let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
        let Some((record, next)) = after.split_at_mut_checked(length) else { return };
        // Epoch 0: not encrypted.
        if header[0] == HANDSHAKE && header[3..5] == [0, 0] {
            change_messages(record);
        }
        rest = next;
    }
}

/// Changes the CertificateRequest in a sequence of messages, if there is one.
fn change_messages(messages: &mut [u8]) {
    let mut rest = messages;
    while let Some((header, after)) = rest.split_first_chunk_mut::<MESSAGE_HEADER>() {
        let length = u32::from_be_bytes([0, header[9], header[10], header[11]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((body, next)) = after.split_at_mut_checked(length) else { return };
        if header[0] == CERTIFICATE_REQUEST {
            change_body(body);
        }
        rest = next;
    }
}

fn change_body(body: &mut [u8]) {
    let [one_type, kind, high, low, first @ .., a, b, c, d, none, more] = body else { return };
    if [*one_type, *kind, *high, *low] != BEFORE || !first.is_empty() || [*none, *more] != BEHIND {
        return;
    }
    match ([*a, *b], [*c, *d]) {
        (ECDSA_SHA384, ECDSA_SHA256) => [*a, *b] = RSA_SHA256,
        (ECDSA_SHA256, ECDSA_SHA384) => [*c, *d] = RSA_SHA256,
        _ => {}
    }
}

/// Hashes transcripts. `dimpl` hands over a whole one at a time.
#[derive(Debug)]
struct TranscriptHashes;

impl HashProvider for TranscriptHashes {
    fn create_hash(&self, algorithm: HashAlgorithm) -> Box<dyn HashContext> {
        let hash = aws_lc_rs::default_provider().hash_provider.create_hash(algorithm);
        Box::new(TranscriptHash(hash))
    }
}

#[derive(Debug)]
struct TranscriptHash(Box<dyn HashContext>);

impl HashContext for TranscriptHash {
    fn update(&mut self, messages: &[u8]) {
        let mut messages = messages.to_vec();
        change_messages(&mut messages);
        self.0.update(&messages);
    }

    fn clone_and_finalize(&self, out: &mut Buf) {
        self.0.clone_and_finalize(out);
    }
}

/// Verifies the client's signature of the transcript.
#[derive(Debug)]
struct TranscriptVerifier;

impl SignatureVerifier for TranscriptVerifier {
    fn verify_signature(
        &self,
        certificate: &[u8],
        messages: &[u8],
        signature: &[u8],
        hash: HashAlgorithm,
        algorithm: SignatureAlgorithm,
    ) -> Result<(), CryptoError> {
        let mut messages = messages.to_vec();
        change_messages(&mut messages);
        VERIFIER.verify_signature(certificate, &messages, signature, hash, algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u8::try_from(body.len()).unwrap();
        [&[kind, 0, 0, length, 0, 5, 0, 0, 0, 0, 0, length], body].concat()
    }

    fn request(algorithms: &[[u8; 2]]) -> Vec<u8> {
        let length = u8::try_from(algorithms.len() * 2).unwrap();
        let body = [&[1, 64, 0, length], &algorithms.concat()[..], &BEHIND].concat();
        message(CERTIFICATE_REQUEST, &body)
    }

    fn changed(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut messages = messages.concat();
        change_messages(&mut messages);
        messages
    }

    #[test]
    fn rsa_takes_the_place_of_ecdsa_with_sha_384() {
        let (hello, done) = (message(2, &[1; 80]), message(14, &[]));
        for (before, after) in [
            ([ECDSA_SHA256, ECDSA_SHA384], [ECDSA_SHA256, RSA_SHA256]),
            ([ECDSA_SHA384, ECDSA_SHA256], [RSA_SHA256, ECDSA_SHA256]),
        ] {
            let messages = [hello.clone(), request(&before), done.clone()];
            let expected = [hello.clone(), request(&after), done.clone()].concat();
            assert_eq!(changed(&messages), expected);
            let record = |bytes: &[u8]| {
                let length = u8::try_from(bytes.len()).unwrap();
                [&[HANDSHAKE, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, length], bytes].concat()
            };
            let mut datagram = [record(&hello), record(&request(&before))].concat();
            change_datagram(&mut datagram);
            assert_eq!(datagram, [record(&hello), record(&request(&after))].concat());
        }
    }

    #[test]
    fn all_else_stays_as_it_is() {
        let both = [ECDSA_SHA256, ECDSA_SHA384];
        let of_another_type = message(12, &request(&both)[MESSAGE_HEADER..]);
        let mut cut = request(&both);
        cut.pop();
        for other in
            [request(&[ECDSA_SHA256]), request(&[ECDSA_SHA256; 2]), of_another_type, cut, vec![13]]
        {
            assert_eq!(changed(std::slice::from_ref(&other)), other);
            let mut datagram = other.clone();
            change_datagram(&mut datagram);
            assert_eq!(datagram, other);
        }
    }
}
