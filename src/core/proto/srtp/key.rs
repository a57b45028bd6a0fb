//! Master keys.

use std::fmt;

use aws_lc_rs::constant_time;
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::CryptoSuite;

/// The master key and master salt of one direction (RFC 3711 section 3.2.1).
///
/// The bytes are cleared when the value is dropped, and `Debug` does not print them.
#[derive(Clone)]
pub struct MasterKey {
    suite: CryptoSuite,
    /// The key, then the salt.
    bytes: Zeroizing<Vec<u8>>,
}

impl MasterKey {
    /// A new random key. The generator is seeded by the system.
    pub fn generate(suite: CryptoSuite, rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new(vec![0; suite.key_len() + suite.salt_len()]);
        rng.fill_bytes(&mut bytes);
        Self { suite, bytes }
    }

    /// The key from the key and the salt, one after the other, as in the `inline` parameter of
    /// RFC 4568 section 6.1 after base64. `None` if their length is not that of the suite.
    pub fn from_bytes(suite: CryptoSuite, bytes: &[u8]) -> Option<Self> {
        let bytes = Zeroizing::new(bytes.to_vec());
        (bytes.len() == suite.key_len() + suite.salt_len()).then_some(Self { suite, bytes })
    }

    /// The suite that the key is for.
    pub fn suite(&self) -> CryptoSuite {
        self.suite
    }

    /// The key and the salt, one after the other.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key without the salt.
    pub(super) fn key(&self) -> &[u8] {
        &self.bytes[..self.suite.key_len()]
    }

    /// The salt.
    pub(super) fn salt(&self) -> &[u8] {
        &self.bytes[self.suite.key_len()..]
    }

    /// Whether key and salt are the same, whatever the suites are. Takes the same time for all keys
    /// of one length.
    pub(super) fn has_bytes_of(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.bytes, &other.bytes).is_ok()
    }
}

/// Suite, key and salt are the same.
impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        self.suite == other.suite && self.has_bytes_of(other)
    }
}

impl Eq for MasterKey {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("suite", &self.suite).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn debug_prints_nothing_of_a_key() {
        let key = MasterKey::generate(CryptoSuite::AeadAes128Gcm, &mut StdRng::seed_from_u64(1));
        assert_eq!(format!("{key:?}"), "MasterKey { suite: AeadAes128Gcm, .. }");
        assert_eq!(MasterKey::from_bytes(key.suite(), key.as_bytes()), Some(key.clone()));
        assert_eq!(MasterKey::from_bytes(key.suite(), &key.as_bytes()[1..]), None);
        let other = MasterKey::generate(key.suite(), &mut StdRng::seed_from_u64(2));
        assert_ne!(other, key);
    }
}
