//! The keys that sign our tokens: which one signs, which are published, when they are made and
//! dropped.
//!
//! A key is published for a day before it signs, so that a client that caches our public keys for a
//! day knows it by then. After it stops signing, it stays published for as long as its last tokens
//! are valid. These are spans of elapsed time, so the steady clock counts the age of a key; tokens
//! name wall time.

use std::time::Duration;

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};

use crate::drivers::store::SigningKeyRow;
use aftertone_core::model::SteadyMillis;

/// How long a key signs.
const TERM: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a key is published before it signs.
const NOTICE: Duration = Duration::from_secs(24 * 3600);
/// The longest validity of our tokens.
pub(super) const LONGEST_TOKEN: Duration = Duration::from_secs(24 * 3600);

/// A key cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be made.
    #[error("a signing key cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// What the store holds is not a key.
    #[error("a signing key cannot be read: {0}")]
    Read(#[from] jsonwebtoken::errors::Error),
}

/// All keys that are published, oldest first; empty only until the first key is made.
#[derive(Debug, Clone)]
pub struct KeyRing {
    keys: Vec<SigningKey>,
}

#[derive(Clone)]
pub(super) struct SigningKey {
    pub id: String,
    created_at: SteadyMillis,
    pub encoding: EncodingKey,
    pub decoding: DecodingKey,
    jwk: Jwk,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The changes of the keys that are due now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Turnover {
    /// A new key is needed.
    pub make: bool,
    /// Keys that are not needed any more.
    pub retire: Vec<String>,
}

/// Makes a key, in the form that the store keeps.
///
/// # Errors
/// There is no randomness.
pub(super) fn make(now: SteadyMillis) -> Result<SigningKeyRow, KeyError> {
    let pem = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?.serialize_pem();
    let (_, jwk) = public(&EncodingKey::from_rsa_pem(pem.as_bytes())?)?;
    let id = jwk.thumbprint(ThumbprintHash::SHA256)?;
    Ok(SigningKeyRow { id, created_at: now, pem })
}

fn public(encoding: &EncodingKey) -> Result<(DecodingKey, Jwk), KeyError> {
    let jwk = Jwk::from_encoding_key(encoding, Algorithm::RS256)?;
    Ok((DecodingKey::from_jwk(&jwk)?, jwk))
}

impl KeyRing {
    /// The keys of these rows.
    ///
    /// # Errors
    /// One of them is not a key.
    pub fn new(mut rows: Vec<SigningKeyRow>) -> Result<Self, KeyError> {
        rows.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        let key = |row: SigningKeyRow| {
            let encoding = EncodingKey::from_rsa_pem(row.pem.as_bytes())?;
            let (decoding, mut jwk) = public(&encoding)?;
            jwk.common.key_id = Some(row.id.clone());
            jwk.common.public_key_use = Some(PublicKeyUse::Signature);
            Ok(SigningKey { id: row.id, created_at: row.created_at, encoding, decoding, jwk })
        };
        Ok(Self { keys: rows.into_iter().map(key).collect::<Result<_, KeyError>>()? })
    }

    /// The key that signs now: the newest that has been published for long enough, else the oldest.
    pub(super) fn signing(&self, now: SteadyMillis) -> Option<&SigningKey> {
        let is_known = |key: &&SigningKey| key.created_at.plus(NOTICE) <= now;
        self.keys.iter().rfind(is_known).or(self.keys.first())
    }

    pub(super) fn find(&self, id: &str) -> Option<&SigningKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// The public keys, as verifiers fetch them (RFC 7517).
    pub fn published(&self) -> JwkSet {
        JwkSet { keys: self.keys.iter().map(|key| key.jwk.clone()).collect() }
    }

    /// The changes that are due at `now`.
    pub(super) fn turnover(&self, now: SteadyMillis) -> Turnover {
        let make = self.keys.last().is_none_or(|newest| newest.created_at.plus(TERM) <= now);
        // A key signs until the next one has been published for long enough; its tokens stay valid
        // after that.
        let followed = self.keys.iter().zip(self.keys.iter().skip(1));
        let retire = followed
            .filter(|(_, next)| next.created_at.plus(NOTICE).plus(LONGEST_TOKEN) <= now)
            .map(|(key, _)| key.id.clone());
        Turnover { make, retire: retire.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600 * 1000;

    /// The key is made once, because making an RSA key takes long.
    fn ring(days: &[i64]) -> KeyRing {
        static ROW: std::sync::LazyLock<SigningKeyRow> =
            std::sync::LazyLock::new(|| make(SteadyMillis(0)).unwrap());
        let row = |day: &i64| SigningKeyRow {
            id: format!("day {day}"),
            created_at: SteadyMillis(day * DAY),
            pem: ROW.pem.clone(),
        };
        KeyRing::new(days.iter().map(row).collect()).unwrap()
    }

    fn signing(ring: &KeyRing, now: i64) -> String {
        ring.signing(SteadyMillis(now)).unwrap().id.clone()
    }

    #[test]
    fn a_key_signs_once_it_has_been_published_for_a_day() {
        let ring = ring(&[30, 0]);
        assert_eq!(signing(&ring, 31 * DAY - 1), "day 0");
        assert_eq!(signing(&ring, 31 * DAY), "day 30");
        assert_eq!(signing(&self::ring(&[5]), 5 * DAY), "day 5", "the first signs at once");
        assert!(self::ring(&[]).signing(SteadyMillis(0)).is_none());
    }

    #[test]
    fn keys_come_after_their_term_and_go_after_their_last_token() {
        let turnover = |days: &[i64], now| ring(days).turnover(SteadyMillis(now));
        assert!(turnover(&[], 0).make);
        assert!(!turnover(&[0], 30 * DAY - 1).make);
        assert!(turnover(&[0], 30 * DAY).make);
        assert_eq!(turnover(&[0, 30], 32 * DAY - 1), Turnover::default());
        assert_eq!(turnover(&[0, 30], 32 * DAY).retire, ["day 0"]);
        assert_eq!(turnover(&[0], 1000 * DAY).retire, [""; 0], "the last one stays");
    }

    #[test]
    fn only_the_public_part_is_published() {
        let published = serde_json::to_value(ring(&[0]).published()).unwrap();
        let key = published["keys"][0].as_object().unwrap();
        assert_eq!(key["kid"], "day 0");
        assert_eq!((&key["kty"], &key["use"]), (&"RSA".into(), &"sig".into()));
        assert!(key.contains_key("n") && key.contains_key("e"));
        for private in ["d", "p", "q", "dp", "dq", "qi"] {
            assert!(!key.contains_key(private));
        }
    }
}
