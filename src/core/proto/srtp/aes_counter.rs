//! AES in counter mode, without a salt.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};

/// The cipher of packets in counter mode, and of the key derivation of all suites.
pub(super) struct AesCounter(EncryptingKey);

impl AesCounter {
    /// The cipher with a key of 16 or 32 bytes.
    pub(super) fn new(key: &[u8]) -> Self {
        let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
        let key = UnboundCipherKey::new(algorithm, key).and_then(EncryptingKey::ctr);
        Self(key.expect("the key is as long as its suite says"))
    }

    /// Adds the key stream that begins with this counter block.
    pub(super) fn apply(&self, block: [u8; 16], bytes: &mut [u8]) {
        self.0
            .less_safe_encrypt(bytes, EncryptionContext::Iv128(block.into()))
            .expect("counter mode takes a block of 128 bits and any number of bytes");
    }
}
