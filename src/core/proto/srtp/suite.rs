//! The crypto-suites and their parameters.

use serde::{Deserialize, Serialize};

/// A crypto-suite: a cipher and an authentication transform (RFC 4568 section 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CryptoSuite {
    /// AES-256 in Galois/counter mode (RFC 7714).
    AeadAes256Gcm,
    /// AES-128 in Galois/counter mode (RFC 7714).
    AeadAes128Gcm,
    /// AES-256 in counter mode, HMAC-SHA1 with a tag of 80 bits (RFC 6188).
    AesCm256HmacSha1_80,
    /// AES-128 in counter mode, HMAC-SHA1 with a tag of 80 bits (RFC 3711).
    AesCm128HmacSha1_80,
    /// AES-256 in counter mode, HMAC-SHA1 with a tag of 32 bits for RTP (RFC 6188).
    AesCm256HmacSha1_32,
    /// AES-128 in counter mode, HMAC-SHA1 with a tag of 32 bits for RTP (RFC 3711).
    AesCm128HmacSha1_32,
}

impl CryptoSuite {
    /// All suites in our order of preference: long tags first, then long keys.
    pub const ALL: [Self; 6] = [
        Self::AeadAes256Gcm,
        Self::AeadAes128Gcm,
        Self::AesCm256HmacSha1_80,
        Self::AesCm128HmacSha1_80,
        Self::AesCm256HmacSha1_32,
        Self::AesCm128HmacSha1_32,
    ];

    /// The name that IANA has registered for SDP (RFC 4568, RFC 6188, RFC 7714).
    pub const fn name(self) -> &'static str {
        match self {
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AesCm256HmacSha1_80 => "AES_256_CM_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm256HmacSha1_32 => "AES_256_CM_HMAC_SHA1_32",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
        }
    }

    /// The suite of this name, in upper or lower case. `AES_CM_256_HMAC_SHA1_80` and `…_32`, as
    /// many phones write, are understood.
    pub fn from_name(name: &str) -> Option<Self> {
        let spelled = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if spelled("AES_CM_256_HMAC_SHA1_80") {
            return Some(Self::AesCm256HmacSha1_80);
        }
        if spelled("AES_CM_256_HMAC_SHA1_32") {
            return Some(Self::AesCm256HmacSha1_32);
        }
        Self::ALL.into_iter().find(|suite| spelled(suite.name()))
    }

    /// The length of the master key in bytes, without the salt.
    pub const fn key_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AesCm256HmacSha1_80 | Self::AesCm256HmacSha1_32 => 32,
            Self::AeadAes128Gcm | Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 => 16,
        }
    }

    /// The length of the master salt in bytes.
    pub const fn salt_len(self) -> usize {
        if self.is_aead() { 12 } else { 14 }
    }

    /// The length of the tag of an RTP packet in bytes.
    pub const fn tag_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 16,
            Self::AesCm256HmacSha1_80 | Self::AesCm128HmacSha1_80 => 10,
            Self::AesCm256HmacSha1_32 | Self::AesCm128HmacSha1_32 => 4,
        }
    }

    /// The length of the tag of an RTCP packet in bytes: never 32 bits (RFC 3711 section 5.2).
    pub const fn rtcp_tag_len(self) -> usize {
        if self.is_aead() { 16 } else { 10 }
    }

    /// Whether one algorithm encrypts and authenticates.
    pub(super) const fn is_aead(self) -> bool {
        matches!(self, Self::AeadAes256Gcm | Self::AeadAes128Gcm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_suite_is_found_by_its_name_in_any_case() {
        for suite in CryptoSuite::ALL {
            assert_eq!(CryptoSuite::from_name(suite.name()), Some(suite));
            assert_eq!(CryptoSuite::from_name(&suite.name().to_lowercase()), Some(suite));
        }
        let other = "AES_CM_256_HMAC_SHA1_80";
        assert_eq!(CryptoSuite::from_name(other), Some(CryptoSuite::AesCm256HmacSha1_80));
        let other = "AES_CM_256_HMAC_SHA1_32";
        assert_eq!(CryptoSuite::from_name(other), Some(CryptoSuite::AesCm256HmacSha1_32));
        assert_eq!(CryptoSuite::from_name("F8_128_HMAC_SHA1_80"), None);
    }
}
