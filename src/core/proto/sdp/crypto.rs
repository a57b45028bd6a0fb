//! Keys for SRTP in session descriptions: the attribute `crypto` (RFC 4568, RFC 8643).
//!
//! In: the `a=crypto` lines of a media line. Out: the first one that we can use, or why there is
//! none. Each side names the key that it encrypts with itself. Our own keys are derived from one
//! secret of the call, so that a repeated description repeats them.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;

use super::description::{Attribute, Media, words};
use crate::model::EncryptionFault;
use crate::proto::srtp::{CryptoSuite, MasterKey, Mki};

/// The attribute's name.
const CRYPTO: &str = "crypto";
/// The only key method (RFC 4568 section 6.1).
const INLINE: &str = "inline:";
/// Some peers leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// The suites of our offers, the preferred one first. Some desk phones know the last one only.
const OFFERED: [CryptoSuite; 5] = [
    CryptoSuite::AeadAes256Gcm,
    CryptoSuite::AeadAes128Gcm,
    CryptoSuite::AesCm256HmacSha1_80,
    CryptoSuite::AesCm128HmacSha1_80,
    CryptoSuite::AesCm128HmacSha1_32,
];

/// Whether audio is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SrtpPolicy {
    /// Never: offers of encrypted audio are refused.
    Off,
    /// If the peer offers it. In our own offers only if they cannot be read on the way.
    Optional,
    /// Always: offers without keys are refused.
    Required,
}

/// The agreed keys of both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrtpKeys {
    /// The tag of the agreed `crypto` line.
    pub tag: u32,
    /// The key that we encrypt with.
    pub ours: MasterKey,
    /// The key that the peer encrypts with.
    pub theirs: MasterKey,
    /// The identifier of their key that is in each of their packets, if they have signalled one.
    pub mki: Option<Mki>,
}

impl SrtpKeys {
    /// The suite of both directions.
    pub fn suite(&self) -> CryptoSuite {
        self.theirs.suite()
    }
}

/// The secret that our keys in one call are derived from.
#[derive(Clone)]
pub struct MediaSecret {
    secret: [u8; Self::LEN],
    /// Counts the peers that the call has been with: none gets the key of another.
    peer: u64,
}

impl MediaSecret {
    /// The length of the secret in bytes.
    pub const LEN: usize = 32;

    /// The secret of a call, from random bytes.
    pub fn new(secret: [u8; Self::LEN]) -> Self {
        Self { secret, peer: 0 }
    }

    /// The secret of the same call with another peer.
    #[must_use]
    pub fn for_next_peer(&self) -> Self {
        Self { secret: self.secret, peer: self.peer + 1 }
    }

    /// Our key for a suite: always the same one in a session with the same peer.
    fn key(&self, suite: CryptoSuite) -> MasterKey {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA512, &self.secret));
        context.update(&self.peer.to_be_bytes());
        context.update(suite.name().as_bytes());
        let bytes = context.sign();
        MasterKey::from_bytes(suite, &bytes.as_ref()[..suite.key_len() + suite.salt_len()])
            .expect("a key of the suite's length, which is at most 46 of 64 bytes")
    }
}

impl fmt::Debug for MediaSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaSecret").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// One `a=crypto` line that we can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CryptoLine {
    pub(super) tag: u32,
    pub(super) suite: CryptoSuite,
    /// The suite's name as it was offered: some have two.
    name: String,
    pub(super) key: MasterKey,
    pub(super) mki: Option<Mki>,
}

impl CryptoLine {
    /// The first line that we can use, in the order of the peer's preference (RFC 4568 section
    /// 5.1.2).
    ///
    /// # Errors
    /// There is none. The reason is that of the line that came closest.
    pub(super) fn first_usable(media: &Media) -> Result<Self, EncryptionFault> {
        let mut refusal = EncryptionFault::KeysMissing;
        for value in media.values(CRYPTO) {
            match Self::parse(value) {
                Ok(line) => return Ok(line),
                Err(EncryptionFault::NoCommonSuite) if refusal != EncryptionFault::KeysMissing => {}
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// Our own lines in one of our descriptions.
    pub(super) fn ours(media: &Media) -> impl Iterator<Item = Self> {
        media.values(CRYPTO).filter_map(|value| Self::parse(value).ok())
    }

    /// The lines of our offers.
    pub(super) fn offered(secret: &MediaSecret) -> impl Iterator<Item = Self> {
        OFFERED.into_iter().zip(1..).map(|(suite, tag)| {
            let (name, key) = (suite.name().to_owned(), secret.key(suite));
            Self { tag, suite, name, key, mki: None }
        })
    }

    /// Our answer to this line of the peer's.
    pub(super) fn answered(&self, secret: &MediaSecret) -> Self {
        Self { key: secret.key(self.suite), mki: None, ..self.clone() }
    }

    /// The keys of both directions, if this is our line and `theirs` has the same tag and suite.
    pub(super) fn agreed_with(self, theirs: Self) -> SrtpKeys {
        let Self { tag, key: ours, .. } = self;
        SrtpKeys { tag, ours, theirs: theirs.key, mki: theirs.mki }
    }

    /// The attribute of a line of ours.
    pub(super) fn attribute(&self) -> Attribute {
        let Self { tag, name, key, .. } = self;
        Attribute::valued(CRYPTO, format!("{tag} {name} {INLINE}{}", BASE64.encode(key.as_bytes())))
    }

    /// RFC 4568 section 9.1: `TAG SUITE KEY-PARAMS SESSION-PARAMS`.
    fn parse(value: &str) -> Result<Self, EncryptionFault> {
        let mut words = words(value);
        let tag = words.next().and_then(tag).ok_or(EncryptionFault::KeysUnreadable)?;
        let name = words.next().ok_or(EncryptionFault::KeysUnreadable)?;
        let key_params = words.next().ok_or(EncryptionFault::KeysUnreadable)?;
        let suite = CryptoSuite::from_name(name).ok_or(EncryptionFault::NoCommonSuite)?;
        if key_params.contains(';') {
            return Err(EncryptionFault::SeveralKeys);
        }
        let (key, mki) = key_info(suite, key_params)?;
        if words.all(is_supported) {
            Ok(Self { tag, suite, name: name.to_owned(), key, mki })
        } else {
            Err(EncryptionFault::SessionParameter)
        }
    }
}

/// One to nine digits.
fn tag(word: &str) -> Option<u32> {
    let is_number = (1..=9).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|_| is_number)
}

/// RFC 4568 section 6.1: `inline:KEY|LIFETIME|MKI:LENGTH`, where lifetime and MKI may be missing.
/// The lifetime limits what the peer may send with its key, so we only check that it can be read.
fn key_info(suite: CryptoSuite, params: &str) -> Result<(MasterKey, Option<Mki>), EncryptionFault> {
    let method = params.get(..INLINE.len()).ok_or(EncryptionFault::KeysUnreadable)?;
    if !method.eq_ignore_ascii_case(INLINE) {
        return Err(EncryptionFault::KeysUnreadable);
    }
    let mut parts = params[INLINE.len()..].split('|');
    let key = parts.next().unwrap_or_default();
    let key = BASE64.decode(key).map_err(|_| EncryptionFault::KeysUnreadable)?;
    let key = MasterKey::from_bytes(suite, &key).ok_or(EncryptionFault::KeyLength)?;
    let (mut mki, mut lifetime) = (None, None);
    for part in parts {
        match part.split_once(':') {
            Some((value, length)) if mki.is_none() => {
                let value = value.parse().map_err(|_| EncryptionFault::KeysUnreadable)?;
                let length = length.parse().map_err(|_| EncryptionFault::KeysUnreadable)?;
                mki = Some(Mki::new(value, length).ok_or(EncryptionFault::KeysUnreadable)?);
            }
            None if lifetime.is_none() && mki.is_none() => lifetime = Some(part),
            Some(_) | None => return Err(EncryptionFault::KeysUnreadable),
        }
    }
    if lifetime.is_none_or(is_lifetime) {
        Ok((key, mki))
    } else {
        Err(EncryptionFault::KeysUnreadable)
    }
}

/// A number of packets as `2^N` or in digits; some peers write nothing between the bars.
fn is_lifetime(text: &str) -> bool {
    let digits = text.strip_prefix("2^").unwrap_or(text);
    text.is_empty() || digits.parse::<u64>().is_ok_and(|number| number != 0 || digits != text)
}

/// RFC 4568 section 6.3: whether we can do as a session parameter says. A window size is advice,
/// a key derivation rate of 0 is the default, and parameters that begin with `-` may be ignored.
fn is_supported(parameter: &str) -> bool {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    match name.to_ascii_uppercase().as_str() {
        "KDR" => value == "0",
        "WSH" => true,
        name => name.starts_with('-'),
    }
}

#[cfg(test)]
mod tests;
