//! The transforms: how the bytes of a packet are encrypted and authenticated. Which bytes these are
//! is decided in `session_keys`.

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey},
    constant_time,
};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use zeroize::Zeroizing;

use super::{
    MasterKey, SrtpError,
    aes_counter::AesCounter,
    derivation::{Protocol, derive},
};
use crate::proto::rtp::Ssrc;

/// The length of the tag of AES-GCM in bytes (RFC 7714 section 13.2).
const GCM_TAG_LEN: usize = 16;

/// The ciphers of one protocol with their session keys.
pub(super) enum SrtpTransform {
    /// AES in counter mode, and HMAC-SHA1 (RFC 3711 sections 4.1.1 and 4.2.1).
    CounterMode(Box<CounterMode>),
    /// AES in Galois/counter mode (RFC 7714).
    Gcm(Box<GaloisCounterMode>),
}

/// AES in counter mode, and HMAC-SHA1.
pub(super) struct CounterMode {
    cipher: AesCounter,
    salt: Zeroizing<[u8; 14]>,
    /// Of another crate than the cipher: it is copied for each packet, and that of aws-lc-rs has
    /// more than a kilobyte.
    authentication: Hmac<Sha1>,
    tag_len: usize,
}

/// AES in Galois/counter mode.
pub(super) struct GaloisCounterMode {
    cipher: LessSafeKey,
    salt: Zeroizing<[u8; 12]>,
}

impl SrtpTransform {
    /// Derives the session keys of one protocol.
    pub(super) fn derive(master: &MasterKey, protocol: Protocol) -> Self {
        let suite = master.suite();
        let derived = derive(master, protocol);
        if suite.is_aead() {
            return Self::Gcm(Box::new(GaloisCounterMode::new(&derived.encryption, &derived.salt)));
        }
        let tag_len = match protocol {
            Protocol::Srtp => suite.tag_len(),
            Protocol::Srtcp => suite.rtcp_tag_len(),
        };
        Self::CounterMode(Box::new(CounterMode {
            cipher: AesCounter::new(&derived.encryption),
            salt: copied(&derived.salt),
            authentication: Hmac::new_from_slice(&derived.authentication)
                .expect("HMAC takes keys of any length"),
            tag_len,
        }))
    }

    /// The length of the tag in bytes.
    pub(super) fn tag_len(&self) -> usize {
        match self {
            Self::CounterMode(mode) => mode.tag_len,
            Self::Gcm(_) => GCM_TAG_LEN,
        }
    }
}

impl CounterMode {
    /// The length of the tag in bytes.
    pub(super) fn tag_len(&self) -> usize {
        self.tag_len
    }

    /// Encrypts or decrypts the payload of a packet.
    pub(super) fn apply(&self, ssrc: Ssrc, index: u64, payload: &mut [u8]) {
        // The last two bytes are the block counter.
        let mut block = [0; 16];
        block[..14].copy_from_slice(&*self.salt);
        mix(&mut block[4..14], ssrc, index);
        self.cipher.apply(block, payload);
    }

    /// The tag of `packet`, followed by `roc`: the first [`Self::tag_len`] bytes.
    pub(super) fn tag(&self, packet: &[u8], roc: &[u8]) -> [u8; 20] {
        let mut authentication = self.authentication.clone();
        authentication.update(packet);
        authentication.update(roc);
        authentication.finalize().into_bytes().into()
    }

    /// Compares the tag in constant time.
    ///
    /// # Errors
    /// [`SrtpError::Authentication`] if `tag` is not that of `packet`, followed by `roc`.
    pub(super) fn verify(&self, packet: &[u8], roc: &[u8], tag: &[u8]) -> Result<(), SrtpError> {
        let right = self.tag(packet, roc);
        constant_time::verify_slices_are_equal(&right[..self.tag_len], tag)
            .map_err(|_| SrtpError::Authentication)
    }
}

impl GaloisCounterMode {
    /// The cipher with a session key of 16 or 32 bytes, and a session salt of 12.
    pub(super) fn new(key: &[u8], salt: &[u8]) -> Self {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        let key = UnboundKey::new(algorithm, key).expect("the key is as long as its suite says");
        Self { cipher: LessSafeKey::new(key), salt: copied(salt) }
    }

    /// Encrypts the payload of a packet and authenticates it with `associated`.
    pub(super) fn seal(
        &self,
        ssrc: Ssrc,
        index: u64,
        associated: &[u8],
        payload: &mut [u8],
    ) -> Tag {
        self.cipher
            .seal_in_place_separate_tag(self.nonce(ssrc, index), Aad::from(associated), payload)
            .expect("a packet is shorter than the limit of 2^36 bytes")
    }

    /// Decrypts the payload of a packet. After an error its bytes are unchanged; `scratch` keeps
    /// them until then, because the cipher decrypts before it knows.
    ///
    /// # Errors
    /// [`SrtpError::Authentication`] if `tag` is not that of `associated` and the payload.
    pub(super) fn open(
        &self,
        ssrc: Ssrc,
        index: u64,
        associated: &[u8],
        payload: &mut [u8],
        tag: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<(), SrtpError> {
        scratch.clear();
        scratch.extend_from_slice(payload);
        let (nonce, associated) = (self.nonce(ssrc, index), Aad::from(associated));
        if self.cipher.open_in_place_separate_tag(nonce, associated, tag, payload).is_err() {
            payload.copy_from_slice(scratch);
            return Err(SrtpError::Authentication);
        }
        Ok(())
    }

    /// The initialization vector of a packet (RFC 7714 sections 8.1 and 9.1).
    fn nonce(&self, ssrc: Ssrc, index: u64) -> Nonce {
        let mut nonce = *self.salt;
        mix(&mut nonce[2..12], ssrc, index);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Adds the SSRC and the 48 bits of the packet's index to ten bytes of a salt.
fn mix(salt: &mut [u8], ssrc: Ssrc, index: u64) {
    let number = u128::from(ssrc.0) << 48 | u128::from(index);
    for (byte, mixed) in salt.iter_mut().zip(&number.to_be_bytes()[6..]) {
        *byte ^= mixed;
    }
}

/// The salt as an array, in which a derived one always fits.
fn copied<const N: usize>(salt: &[u8]) -> Zeroizing<[u8; N]> {
    let mut array = Zeroizing::new([0; N]);
    array.copy_from_slice(salt);
    array
}
