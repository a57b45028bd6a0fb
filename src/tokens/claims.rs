//! What a token says, named as Entra names it, and when that holds.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::{Deserialize, Serialize};

use crate::model::UnixMillis;

/// How far the clock of whoever made a token may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not signed by anybody whom we believe, or not for us.
    #[error("Access token validation failure.")]
    Invalid,
    /// It was valid.
    #[error("Access token has expired.")]
    Expired,
    /// It will be valid.
    #[error("Access token is not valid yet.")]
    NotYetValid,
    /// It may be of an issuer whose keys could not be read yet.
    #[error("The keys to check the access token with cannot be had now.")]
    Unavailable,
}

/// The claims that are looked at. Times are seconds since 1970.
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
    /// Its roles where Keycloak puts those of the realm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm_access: Option<Access>,
    /// Its roles where Keycloak puts those of each resource.
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub resource_access: HashMap<String, Access>,
    /// The tenant, in tokens of Entra.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<String>,
    /// What Entra's tokens of users may do in their name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scp: Option<String>,
    /// `app`, or `user`, in tokens of Entra that say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idtyp: Option<String>,
    /// `Bearer`, or `ID`, `Refresh`, …, in tokens of Keycloak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typ: Option<String>,
    /// When it ends to be valid.
    pub exp: i64,
    /// When it begins to be valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
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

    /// The roles that it names, wherever they stand; `audience` is what we are to its issuer.
    pub fn all_roles(&self, audience: &str) -> impl Iterator<Item = &str> {
        let resource = self.resource_access.get(audience);
        let elsewhere = self.realm_access.iter().chain(resource).flat_map(|access| &access.roles);
        self.roles.iter().chain(elsewhere).map(String::as_str)
    }

    /// Whether it is an access token that an application has for itself, rather than in the name of a
    /// user, and no token of another kind (contract sections 2.1 and 9).
    pub fn is_of_an_application(&self) -> bool {
        self.scp.is_none()
            && self.idtyp.as_deref().is_none_or(|kind| kind == "app")
            && self.typ.as_deref().is_none_or(|kind| kind.eq_ignore_ascii_case("Bearer"))
    }

    fn at(self, now: UnixMillis) -> Result<Self, TokenError> {
        if now.0.div_euclid(1000) >= self.exp {
            return Err(TokenError::Expired);
        }
        let begins = self.nbf.unwrap_or(i64::MIN);
        if now.plus(CLOCK_SKEW).0.div_euclid(1000) < begins {
            return Err(TokenError::NotYetValid);
        }
        Ok(self)
    }
}

/// What a token must say besides being signed.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted<'a> {
    /// Who issued it; nobody in particular when empty.
    pub issuer: &'a str,
    /// For whom it is, one of these; whoever when empty.
    pub audiences: &'a [String],
}

/// The claims of a token that `key` has signed with `algorithm` and that is valid now. Nothing of it
/// is believed before the signature is.
pub(super) fn verified(
    token: &str,
    key: &DecodingKey,
    algorithm: Algorithm,
    wanted: &Wanted<'_>,
    now: UnixMillis,
) -> Result<Claims, TokenError> {
    let mut validation = Validation::new(algorithm);
    // The library would look at a clock of its own.
    validation.validate_exp = false;
    validation.validate_aud = !wanted.audiences.is_empty();
    let mut required = vec!["exp"];
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
    match data.claims.is_of_an_application() {
        true => data.claims.at(now),
        false => Err(TokenError::Invalid),
    }
}
