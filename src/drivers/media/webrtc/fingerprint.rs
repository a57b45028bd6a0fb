//! Fingerprints of certificates, as the attribute `fingerprint` of SDP gives them (RFC 8122).
//!
//! Input: the value of the attribute, and the certificate that the peer has shown. Output: whether
//! they belong together. Pure.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest;

/// How many fingerprints of a description are kept. Peers give one for each hash that they know.
const MOST: usize = 8;

/// A hash that a fingerprint may use, the weakest first. MD5 and MD2 must not be used (RFC 8122
/// section 5); SHA-1 is what some old phones offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum FingerprintHash {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// The hash of a certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint {
    hash: FingerprintHash,
    /// As long as the hash's output.
    bytes: Vec<u8>,
}

/// The fingerprints of one description: at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprints(Vec<Fingerprint>);

/// Why text is not a fingerprint that we can compare.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// A hash that we do not know or must not use.
    #[error("the hash of the fingerprint is not known: {0}")]
    UnknownHash(String),
    /// Not as many pairs of hexadecimal digits as the hash has bytes.
    #[error("the fingerprint cannot be read")]
    Malformed,
    /// A description without a fingerprint.
    #[error("the description has no fingerprint")]
    Missing,
}

impl FingerprintHash {
    const ALL: [Self; 5] = [Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha-1",
            Self::Sha224 => "sha-224",
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha224 => &digest::SHA224,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

impl Fingerprint {
    /// The SHA-256 fingerprint of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        Self::with(FingerprintHash::Sha256, certificate)
    }

    fn with(hash: FingerprintHash, certificate: &[u8]) -> Self {
        let bytes = digest::digest(hash.algorithm(), certificate).as_ref().to_vec();
        Self { hash, bytes }
    }
}

/// The value of the attribute: `sha-256 4A:AD:…`.
impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.hash.name())?;
        for (at, byte) in self.bytes.iter().enumerate() {
            let before = if at == 0 { ' ' } else { ':' };
            write!(formatter, "{before}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Reads the value of the attribute. Upper and lower case are the same.
impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(value: &str) -> Result<Self, FingerprintError> {
        let mut words = value.split_ascii_whitespace();
        let name = words.next().ok_or(FingerprintError::Malformed)?;
        let hash = FingerprintHash::ALL
            .into_iter()
            .find(|hash| hash.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| FingerprintError::UnknownHash(name.chars().take(16).collect()))?;
        let digits = words.next().ok_or(FingerprintError::Malformed)?;
        let byte = |pair: &str| {
            let is_hex = pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            is_hex.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = digits.split(':').map(byte).collect();
        let bytes = bytes
            .filter(|bytes| bytes.len() == hash.algorithm().output_len() && words.next().is_none())
            .ok_or(FingerprintError::Malformed)?;
        Ok(Self { hash, bytes })
    }
}

impl Fingerprints {
    /// The fingerprints among the values of the attribute. Those that we cannot compare are passed
    /// over if there is another one.
    ///
    /// # Errors
    /// There is none that we can compare.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Self, FingerprintError> {
        let mut error = FingerprintError::Missing;
        let mut known = Vec::new();
        for value in values.into_iter().take(MOST) {
            match value.parse() {
                Ok(fingerprint) => known.push(fingerprint),
                Err(reason) => error = reason,
            }
        }
        if known.is_empty() { Err(error) } else { Ok(Self(known)) }
    }

    /// Whether the certificate is one of those described. Only fingerprints with the strongest of
    /// the hashes count (RFC 8122 section 5.1).
    pub fn describe(&self, certificate: &[u8]) -> bool {
        let Some(hash) = self.0.iter().map(|fingerprint| fingerprint.hash).max() else {
            return false;
        };
        self.0.contains(&Fingerprint::with(hash, certificate))
    }

    /// The first fingerprint with the strongest hash, and that of `certificate` with the same hash,
    /// for messages.
    pub(super) fn compared_with(&self, certificate: &[u8]) -> (String, String) {
        let strongest = self.0.iter().rev().max_by_key(|fingerprint| fingerprint.hash);
        let described = strongest.map(ToString::to_string).unwrap_or_default();
        let hash = strongest.map_or(FingerprintHash::Sha256, |fingerprint| fingerprint.hash);
        (described, Fingerprint::with(hash, certificate).to_string())
    }
}

/// The one fingerprint of a description.
impl From<Fingerprint> for Fingerprints {
    fn from(fingerprint: Fingerprint) -> Self {
        Self(vec![fingerprint])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &[u8] = b"any bytes";

    fn value(hash: FingerprintHash) -> String {
        Fingerprint::with(hash, CERTIFICATE).to_string()
    }

    #[test]
    fn a_fingerprint_is_read_as_it_is_written() {
        for hash in FingerprintHash::ALL {
            let written = value(hash);
            assert_eq!(written.parse::<Fingerprint>().unwrap().to_string(), written);
            let lower = written.to_lowercase();
            assert_eq!(lower.parse::<Fingerprint>().unwrap().to_string(), written);
        }
        assert!(value(FingerprintHash::Sha256).starts_with("sha-256 "));
    }

    #[test]
    fn what_cannot_be_compared_is_refused_with_the_reason() {
        let unknown = "md5 00:11".parse::<Fingerprint>().unwrap_err();
        assert_eq!(unknown, FingerprintError::UnknownHash("md5".into()));
        let good = value(FingerprintHash::Sha256);
        let longer = format!("{good}:00");
        let wrong =
            ["", "sha-256", "sha-256 00", "sha-256 +1:00", &longer, &good[..good.len() - 1]];
        for text in wrong {
            let error = text.parse::<Fingerprint>().unwrap_err();
            assert_eq!(error, FingerprintError::Malformed, "{text}");
        }
        assert_eq!(Fingerprints::parse([]).unwrap_err(), FingerprintError::Missing);
    }

    #[test]
    fn the_strongest_hash_counts() {
        let (weak, strong) = (value(FingerprintHash::Sha1), value(FingerprintHash::Sha384));
        let wrong = Fingerprint::with(FingerprintHash::Sha384, b"other").to_string();
        let describes = |values: &[&str]| {
            Fingerprints::parse(values.iter().copied()).unwrap().describe(CERTIFICATE)
        };
        assert!(describes(&[&weak]));
        assert!(describes(&[&weak, &strong]));
        assert!(describes(&["md2 00", &strong, &wrong]));
        assert!(!describes(&[&weak, &wrong]));
    }
}
