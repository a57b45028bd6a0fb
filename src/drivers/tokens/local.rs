//! Tokens of `aftertone token`: made on the daemon's machine, with a secret that both can read.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, encode};

use super::claims::{BACKDATE, Claims, NumericDate, RequiredClaims, TokenError, verified};
use aftertone_core::model::UnixMillis;

/// The secret that signs these tokens (HS256).
pub struct LocalKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl LocalKey {
    /// A key of these bytes; HS256 needs 32 random ones.
    pub fn new(secret: &[u8]) -> Self {
        let (encoding, decoding) =
            (EncodingKey::from_secret(secret), DecodingKey::from_secret(secret));
        Self { encoding, decoding }
    }

    /// Makes a token for the application with this id. Whatever `roles` are, the token permits
    /// nothing that the application itself may not do.
    ///
    /// # Errors
    /// Only a fault of the library.
    pub fn mint(
        &self,
        application: &str,
        roles: &[String],
        ttl: Duration,
        now: UnixMillis,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let claims = Claims {
            appid: Some(application.to_owned()),
            roles: roles.to_vec(),
            nbf: Some(NumericDate(now.minus(BACKDATE))),
            exp: NumericDate(now.plus(ttl)),
            ..Claims::default()
        };
        encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
    }

    /// The claims of a token that this key has signed and that is valid now.
    pub(super) fn verified(&self, token: &str, now: UnixMillis) -> Result<Claims, TokenError> {
        verified(token, &self.decoding, Algorithm::HS256, &RequiredClaims::default(), now)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    const APP: &str = "6d1a0b00-2db4-4022-9570-243709c565ab";
    const NOW: UnixMillis = UnixMillis(1_767_225_600_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn key() -> LocalKey {
        LocalKey::new(&[7; 32])
    }

    #[test]
    fn a_token_is_valid_for_its_time() {
        let token = key().mint(APP, &["r".to_owned()], HOUR, NOW).unwrap();
        let at = |seconds: i64| key().verified(&token, UnixMillis(NOW.0 + seconds * 1000));
        assert_eq!(at(0).unwrap().application(), Some(APP));
        assert_eq!(at(0).unwrap().all_roles("").collect::<Vec<_>>(), ["r"]);
        assert!(at(3599).is_ok());
        assert_eq!(at(3600), Err(TokenError::Expired));
        assert!(at(-360).is_ok());
        assert_eq!(at(-361), Err(TokenError::NotYetValid));
    }

    #[test]
    fn a_changed_token_is_not_taken() {
        let token = key().mint(APP, &[], HOUR, NOW).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let changed = [
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}x.{}", parts[0], parts[1], parts[2]),
            LocalKey::new(&[8; 32]).mint(APP, &[], HOUR, NOW).unwrap(),
            String::new(),
            "..".to_owned(),
        ];
        for token in changed {
            assert_eq!(key().verified(&token, NOW), Err(TokenError::Invalid), "{token}");
        }
    }
}
