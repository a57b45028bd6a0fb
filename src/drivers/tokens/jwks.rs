//! The public keys of outside issuers, as they publish them (RFC 7517).
//!
//! Issuers put keys of many kinds into one set, with their own members. Only the members that a
//! signature check needs are read, and entries that cannot be used are skipped one by one (section
//! 5).

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The keys of an issuer that tokens for us can be checked with.
#[derive(Debug, Default)]
pub(super) struct PublicKeys {
    keys: Vec<PublicKey>,
    /// Number of entries of other kinds, for other uses, or that cannot be read.
    pub(super) left_out: usize,
}

struct PublicKey {
    id: String,
    kind: KeyKind,
    /// `alg`: the one algorithm that the key is for, if given.
    algorithm: Option<String>,
    decoding: DecodingKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
}

/// Some issuers add padding, which RFC 7515 section 2 forbids.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

impl PublicKeys {
    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The keys that fit a token with this key id and this algorithm. The id alone does not
    /// identify a key: several keys of different kinds may have it (section 4.5).
    pub(super) fn suited(&self, id: &str, algorithm: Algorithm) -> Vec<&DecodingKey> {
        let kind = match algorithm {
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => KeyKind::Rsa,
            Algorithm::ES256 => KeyKind::P256,
            _ => return Vec::new(),
        };
        let name = format!("{algorithm:?}");
        let is_suited = |key: &&PublicKey| {
            key.id == id
                && key.kind == kind
                && key.algorithm.as_ref().is_none_or(|algorithm| *algorithm == name)
        };
        self.keys.iter().filter(is_suited).map(|key| &key.decoding).collect()
    }
}

impl<'de> Deserialize<'de> for PublicKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let Document { keys: entries } = Document::deserialize(deserializer)?;
        let keys: Vec<PublicKey> = entries.iter().filter_map(PublicKey::read).collect();
        let left_out = entries.len() - keys.len();
        Ok(Self { keys, left_out })
    }
}

impl PublicKey {
    fn read(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        if text("use").is_some_and(|wanted| wanted != "sig") {
            return None;
        }
        let operations = entry.get("key_ops").and_then(Value::as_array);
        if operations.is_some_and(|operations| !operations.iter().any(|one| one == "verify")) {
            return None;
        }
        let number = |name: &str| Some(without_zeros(BASE64.decode(text(name)?).ok()?));
        let (kind, decoding) = match text("kty")? {
            "RSA" => {
                let (n, e) = (number("n")?, number("e")?);
                (KeyKind::Rsa, DecodingKey::from_rsa_raw_components(&n, &e))
            }
            "EC" if text("crv") == Some("P-256") => {
                // SEC 1 section 2.3.3: the uncompressed form of a point.
                let point = [vec![4], coordinate(number("x")?)?, coordinate(number("y")?)?];
                (KeyKind::P256, DecodingKey::from_ec_der(&point.concat()))
            }
            _ => return None,
        };
        let id = match entry.get("kid")? {
            Value::String(id) => id.clone(),
            // By the RFC it is a string; a token names a string in any case.
            Value::Number(id) => id.to_string(),
            _ => return None,
        };
        Some(Self { id, kind, algorithm: text("alg").map(str::to_owned), decoding })
    }
}

/// A number in its shortest form (RFC 7518 section 6.3.1.1). Some issuers put a zero at the front,
/// so that their own library does not read it as negative; ours would not accept it.
fn without_zeros(number: Vec<u8>) -> Vec<u8> {
    number.into_iter().skip_while(|byte| *byte == 0).collect()
}

/// A coordinate of P-256 in its 32 bytes (RFC 7518 section 6.2.1.2).
fn coordinate(number: Vec<u8>) -> Option<Vec<u8>> {
    let zeros = 32_usize.checked_sub(number.len())?;
    Some([vec![0; zeros], number].concat())
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, kind, algorithm, .. } = self;
        let mut shown = f.debug_struct("PublicKey");
        shown.field("id", id).field("kind", kind).field("algorithm", algorithm);
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// How many keys of a set suit RS256 and ES256 under the id `k`.
    fn suited(keys: Value) -> (usize, usize) {
        let keys: PublicKeys = serde_json::from_value(json!({"keys": keys})).unwrap();
        (keys.suited("k", Algorithm::RS256).len(), keys.suited("k", Algorithm::ES256).len())
    }

    fn rsa() -> Value {
        json!({"kid": "k", "kty": "RSA", "n": "AQAB", "e": "AQAB"})
    }

    fn ec() -> Value {
        json!({"kid": "k", "kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB"})
    }

    fn with(mut entry: Value, name: &str, value: Value) -> Value {
        entry[name] = value;
        entry
    }

    #[test]
    fn an_entry_that_cannot_be_used_costs_no_other() {
        let strange = json!([
            null, 7, "key", [], {}, {"kid": "k"}, {"kid": "k", "kty": "RSA"},
            {"kid": "k", "kty": "oct", "k": "AQAB"},
            {"kid": "k", "kty": "OKP", "crv": "Ed25519", "x": "AQAB"},
            {"kid": "k", "kty": "EC", "crv": "P-521", "x": "AQAB", "y": "AQAB"},
            {"kid": "k", "kty": "RSA", "n": "???", "e": "AQAB"},
            {"kid": "k", "kty": "RSA", "n": 5, "e": "AQAB"},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
            {"kid": ["k"], "kty": "RSA", "n": "AQAB", "e": "AQAB"},
        ]);
        assert_eq!(suited(strange.clone()), (0, 0));
        let mut mixed = strange.as_array().unwrap().clone();
        mixed.insert(3, rsa());
        mixed.push(ec());
        let keys: PublicKeys = serde_json::from_value(json!({"keys": mixed})).unwrap();
        assert_eq!((keys.len(), keys.left_out), (2, 14));
        assert_eq!(suited(mixed.into()), (1, 1));
        for document in [json!({"keys": null}), json!({"keys": {}}), json!([]), json!({})] {
            assert!(serde_json::from_value::<PublicKeys>(document).is_err());
        }
    }

    #[test]
    fn members_that_do_not_matter_may_be_of_any_type() {
        for (name, value) in [
            ("x5c", json!("text")),
            ("x5c", json!([1])),
            ("x5t", json!(5)),
            ("use", json!(null)),
            ("alg", json!(null)),
            ("key_ops", json!(null)),
            ("key_ops", json!(["verify", "encrypt"])),
            ("exp", json!("never")),
            ("n", json!("AQ==")),
        ] {
            assert_eq!(suited(json!([with(rsa(), name, value.clone())])), (1, 0), "{name} {value}");
        }
        let numbered: PublicKeys =
            serde_json::from_value(json!({"keys": [with(rsa(), "kid", json!(5))]})).unwrap();
        assert_eq!(numbered.suited("5", Algorithm::RS512).len(), 1);
    }

    #[test]
    fn of_keys_with_one_id_the_kind_the_algorithm_and_the_use_decide() {
        assert_eq!(suited(json!([ec(), rsa()])), (1, 1));
        assert_eq!(suited(json!([rsa(), ec(), with(rsa(), "alg", json!("RS256"))])), (2, 1));
        for (name, value) in [
            ("alg", json!("RS512")),
            ("alg", json!("RSA-OAEP")),
            ("use", json!("enc")),
            ("key_ops", json!(["encrypt"])),
            ("kid", json!("K")),
        ] {
            assert_eq!(suited(json!([with(rsa(), name, value), rsa()])), (1, 0), "{name}");
        }
    }

    #[test]
    fn a_coordinate_has_its_length() {
        let long = [vec![0], vec![9; 32]].concat();
        assert_eq!(coordinate(without_zeros(long)).unwrap(), vec![9; 32]);
        assert_eq!(coordinate(vec![9; 31]).unwrap()[..2], [0, 9]);
        assert_eq!(coordinate(vec![]).unwrap(), vec![0; 32]);
        assert_eq!(coordinate(vec![9; 33]), None);
    }
}
