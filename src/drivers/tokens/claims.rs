//! The claims of a token, named as Entra names them, and when they are valid.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use aftertone_core::model::UnixMillis;

/// How far the clock of an issuer may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// Our tokens are issued and valid from this long before they are made, as Entra's are: libraries
/// usually allow no skew for a clock that is behind (RFC 7519 section 4.1.5).
pub const BACKDATE: Duration = Duration::from_secs(300);

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not signed by a trusted issuer, or not for us.
    #[error("Access token validation failure.")]
    Invalid,
    /// It is not valid any more.
    #[error("Access token has expired.")]
    Expired,
    /// It is not valid yet.
    #[error("Access token is not valid yet.")]
    NotYetValid,
    /// It may be of an issuer with keys that could not be read yet.
    #[error("The keys to check the access token with cannot be had now.")]
    Unavailable,
}

impl TokenError {
    /// The weight of a verdict: of several verdicts on one token, the one with the highest weight
    /// counts. A token that fails only by its time has passed all other checks.
    pub(super) fn weight(verdict: &Result<Claims, Self>) -> u8 {
        match verdict {
            Ok(_) => 2,
            Err(Self::Expired | Self::NotYetValid) => 1,
            Err(Self::Invalid | Self::Unavailable) => 0,
        }
    }
}

/// A time in a token: a JSON number of seconds since 1970, whole or not (RFC 7519 section 2).
/// Stored in milliseconds; a value beyond their range is clamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct NumericDate(pub UnixMillis);

/// The claims that are read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Claims {
    /// The application, in tokens of Entra's first version and in ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appid: Option<String>,
    /// The application, in tokens of Entra's second version and of Keycloak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azp: Option<String>,
    /// Its roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Its roles of the realm, in tokens of Keycloak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm_access: Option<Access>,
    /// Its roles for each resource, in tokens of Keycloak.
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub resource_access: HashMap<String, Access>,
    /// The tenant, in tokens of Entra.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<String>,
    /// The delegated permissions, in tokens of Entra for users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scp: Option<String>,
    /// `app` or `user`, in tokens of Entra that have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idtyp: Option<String>,
    /// `Bearer`, or `ID`, `Refresh`, …, in tokens of Keycloak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typ: Option<String>,
    /// The end of its validity.
    pub exp: NumericDate,
    /// The start of its validity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<NumericDate>,
}

/// Keycloak's roles of a realm or a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Access {
    /// Their names.
    #[serde(default)]
    pub roles: Vec<String>,
}

impl Claims {
    /// The application that the token names.
    pub fn application(&self) -> Option<&str> {
        self.appid.as_deref().or(self.azp.as_deref())
    }

    /// All roles in the token; `audience` is our audience at its issuer.
    pub fn all_roles(&self, audience: &str) -> impl Iterator<Item = &str> {
        let resource = self.resource_access.get(audience);
        let elsewhere = self.realm_access.iter().chain(resource).flat_map(|access| &access.roles);
        self.roles.iter().chain(elsewhere).map(String::as_str)
    }

    /// Whether it is an access token of an application itself. Tokens in the name of a user and
    /// tokens of other kinds are not (contract sections 2.1 and 9).
    pub fn is_of_an_application(&self) -> bool {
        self.scp.is_none()
            && self.idtyp.as_deref().is_none_or(|kind| kind == "app")
            && self.typ.as_deref().is_none_or(|kind| kind.eq_ignore_ascii_case("Bearer"))
    }

    fn at(self, now: UnixMillis) -> Result<Self, TokenError> {
        if now >= self.exp.0 {
            return Err(TokenError::Expired);
        }
        if self.nbf.is_some_and(|begins| now.plus(CLOCK_SKEW) < begins.0) {
            return Err(TokenError::NotYetValid);
        }
        Ok(self)
    }
}

impl Serialize for NumericDate {
    /// In whole seconds, which every parser accepts.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0.0.div_euclid(1000))
    }
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let millis = match (number.as_i64(), number.as_f64()) {
            (Some(seconds), _) => seconds.saturating_mul(1000),
            // `as` saturates at the ends of the range.
            (None, Some(seconds)) => (seconds * 1000.0).floor() as i64,
            (None, None) => return Err(D::Error::custom("a time is a number")),
        };
        Ok(Self(UnixMillis(millis)))
    }
}

/// What a token must say besides a valid signature.
#[derive(Debug, Clone, Default)]
pub(super) struct RequiredClaims<'a> {
    /// The issuer; any issuer when empty.
    pub issuer: &'a str,
    /// One of these must be its audience; any audience when empty.
    pub audiences: &'a [String],
}

/// The claims of a token that `key` has signed with `algorithm` and that is valid now. The
/// signature is checked before any claim is used.
pub(super) fn verified(
    token: &str,
    key: &DecodingKey,
    algorithm: Algorithm,
    wanted: &RequiredClaims<'_>,
    now: UnixMillis,
) -> Result<Claims, TokenError> {
    let mut validation = Validation::new(algorithm);
    // The library would use its own clock.
    validation.validate_exp = false;
    validation.validate_aud = !wanted.audiences.is_empty();
    // `exp` is required by our own type, which parses more forms of numbers than the library.
    let mut required = Vec::new();
    if !wanted.audiences.is_empty() {
        validation.set_audience(wanted.audiences);
        required.push("aud");
    }
    if !wanted.issuer.is_empty() {
        validation.iss = Some(HashSet::from([wanted.issuer.to_owned()]));
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    let data = decode::<Claims>(token, key, &validation).map_err(|_| TokenError::Invalid)?;
    if data.claims.is_of_an_application() { data.claims.at(now) } else { Err(TokenError::Invalid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(json: &str) -> Result<i64, serde_json::Error> {
        serde_json::from_str(json).map(|NumericDate(UnixMillis(millis))| millis)
    }

    #[test]
    fn a_time_is_any_json_number() {
        for (json, millis) in [
            ("1767225600", 1_767_225_600_000),
            ("1767225600.0", 1_767_225_600_000),
            ("1767225600.25", 1_767_225_600_250),
            ("1767225600.123456", 1_767_225_600_123),
            ("1.7672256e9", 1_767_225_600_000),
            ("17672256E+2", 1_767_225_600_000),
            ("0", 0),
            ("-1.5", -1_500),
            ("-7", -7_000),
            ("18446744073709551615", i64::MAX),
            ("9223372036854775807", i64::MAX),
            ("1e300", i64::MAX),
            ("-1e300", i64::MIN),
        ] {
            assert_eq!(date(json).unwrap(), millis, "{json}");
        }
        for json in ["\"1767225600\"", "null", "true", "[1]", "1e999"] {
            assert!(date(json).is_err(), "{json}");
        }
        let written = serde_json::to_string(&NumericDate(UnixMillis(1_767_225_600_999)));
        assert_eq!(written.unwrap(), "1767225600");
    }

    #[test]
    fn a_token_is_good_to_the_millisecond_before_its_end() {
        let claims: Claims =
            serde_json::from_str(r#"{"exp": 100.5, "nbf": 10.5, "iat": 1.5}"#).unwrap();
        let at = |millis| claims.clone().at(UnixMillis(millis)).map(|_| ());
        assert_eq!(at(100_499), Ok(()));
        assert_eq!(at(100_500), Err(TokenError::Expired));
        assert_eq!(at(10_500 - 60_000), Ok(()));
        assert_eq!(at(10_499 - 60_000), Err(TokenError::NotYetValid));
        assert!(serde_json::from_str::<Claims>(r#"{"nbf": 1}"#).is_err());
    }
}
