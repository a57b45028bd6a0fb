//! Who is asking: bearer tokens to applications and their roles (contract sections 2.1 and 9).
//!
//! Two kinds of token are known. Static ones stand in the configuration; of them only digests are
//! kept. Signed ones are JWTs (RFC 7519, HS256) that `aftertone token` makes with the server's own
//! key. Nothing here asks another server, and no token is ever printed.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{constant_time, digest, hmac};
use axum::http::{HeaderMap, header::AUTHORIZATION};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::model::UnixMillis;
pub use crate::model::role::{ACCESS_MEDIA, INITIATE};

/// How far the clock of whoever made a token may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Longer tokens are not looked at.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// An application that may use the API, as it is configured.
#[derive(Clone)]
pub struct ApplicationCredential {
    /// Its name in the configuration.
    pub name: String,
    /// Its GUID: `appid` of its tokens.
    pub id: String,
    /// Its static bearer tokens.
    pub tokens: Vec<String>,
    /// What it may do.
    pub roles: Vec<String>,
}

/// Everything that tells who is asking.
pub struct Credentials {
    applications: Vec<Application>,
    signing_key: Option<SigningKey>,
}

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The application's name.
    pub application: Arc<str>,
    roles: Vec<Role>,
}

/// Why nobody is known to be asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No bearer token in the request.
    #[error("Access token is empty.")]
    Missing,
    /// Not a token of ours.
    #[error("Access token validation failure.")]
    Invalid,
    /// It was one.
    #[error("Access token has expired.")]
    Expired,
    /// It will be one.
    #[error("Access token is not valid yet.")]
    NotYetValid,
}

/// The key that signs tokens for applications.
pub struct SigningKey(hmac::Key);

struct Application {
    name: Arc<str>,
    id: String,
    tokens: Vec<digest::Digest>,
    roles: Vec<Role>,
}

/// A role in the one spelling in which roles are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Role(String);

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    typ: String,
}

/// The claims of a signed token, named as in a token of Entra. Times are seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Claims {
    appid: String,
    roles: Vec<String>,
    idtyp: String,
    iat: i64,
    nbf: i64,
    exp: i64,
}

impl Credentials {
    /// Knows these applications, and signed tokens when there is a key.
    pub fn new(applications: Vec<ApplicationCredential>, signing_key: Option<SigningKey>) -> Self {
        let applications = applications
            .into_iter()
            .map(|application| Application {
                name: application.name.into(),
                id: application.id,
                // An empty token in the configuration must not open anything.
                tokens: application
                    .tokens
                    .iter()
                    .filter(|token| !token.is_empty())
                    .map(|token| sha256(token))
                    .collect(),
                roles: application.roles.iter().map(|role| Role::new(role)).collect(),
            })
            .collect();
        Self { applications, signing_key }
    }

    /// Finds out who is asking with these headers.
    ///
    /// # Errors
    /// Says why the token is not taken.
    pub fn authenticate(&self, headers: &HeaderMap, now: UnixMillis) -> Result<Caller, AuthError> {
        let token = bearer_token(headers)?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Invalid);
        }
        match self.with_static_token(token) {
            Some(caller) => Ok(caller),
            None => self.with_signed_token(token, now),
        }
    }

    /// Compares with every token, so that the time tells nothing about any of them.
    fn with_static_token(&self, token: &str) -> Option<Caller> {
        let presented = sha256(token);
        let mut found = None;
        for application in &self.applications {
            for known in &application.tokens {
                let known = known.as_ref();
                if constant_time::verify_slices_are_equal(known, presented.as_ref()).is_ok() {
                    found = Some(application);
                }
            }
        }
        found.map(|application| Caller {
            application: application.name.clone(),
            roles: application.roles.clone(),
        })
    }

    fn with_signed_token(&self, token: &str, now: UnixMillis) -> Result<Caller, AuthError> {
        let key = self.signing_key.as_ref().ok_or(AuthError::Invalid)?;
        let claims = key.verified(token, now)?;
        let application = self
            .applications
            .iter()
            .find(|application| application.id.eq_ignore_ascii_case(&claims.appid))
            .ok_or(AuthError::Invalid)?;
        // A role that was taken from the application is gone from its older tokens also.
        let roles = claims.roles.iter().map(|role| Role::new(role));
        let roles = roles.filter(|role| application.roles.contains(role)).collect();
        Ok(Caller { application: application.name.clone(), roles })
    }
}

impl Caller {
    /// Whether the caller has a role, in any of the spellings of the documents.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.contains(&Role::new(role))
    }
}

impl SigningKey {
    /// A key of these bytes; 32 random ones are right for HS256.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Makes a token for the application with this id. It opens nothing that the application itself
    /// may not do, whatever `roles` are.
    pub fn mint(
        &self,
        application_id: &str,
        roles: &[String],
        ttl: Duration,
        now: UnixMillis,
    ) -> String {
        let now_seconds = now.0.div_euclid(1000);
        let claims = Claims {
            appid: application_id.to_owned(),
            roles: roles.to_vec(),
            idtyp: "app".to_owned(),
            iat: now_seconds,
            nbf: now_seconds,
            exp: now.plus(ttl).0.div_euclid(1000),
        };
        let header = Header { alg: "HS256".to_owned(), typ: "JWT".to_owned() };
        let signed = format!("{}.{}", encoded(&header), encoded(&claims));
        let tag = hmac::sign(&self.0, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    /// The claims of a token that this key has signed and that is valid now. Nothing of it is
    /// believed, not even that it is JSON, before the signature is.
    fn verified(&self, token: &str, now: UnixMillis) -> Result<Claims, AuthError> {
        let (signed, tag) = token.rsplit_once('.').ok_or(AuthError::Invalid)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| AuthError::Invalid)?;
        hmac::verify(&self.0, signed.as_bytes(), &tag).map_err(|_| AuthError::Invalid)?;
        let (header, claims) = signed.split_once('.').ok_or(AuthError::Invalid)?;
        if decoded::<Header>(header)?.alg != "HS256" {
            return Err(AuthError::Invalid);
        }
        let claims: Claims = decoded(claims)?;
        if now.0.div_euclid(1000) >= claims.exp {
            return Err(AuthError::Expired);
        }
        if now.plus(CLOCK_SKEW).0.div_euclid(1000) < claims.nbf {
            return Err(AuthError::NotYetValid);
        }
        Ok(claims)
    }
}

impl Role {
    /// The documents write `Calls.JoinGroupCall.All` and `Calls.JoinGroupCalls.All`.
    fn new(name: &str) -> Self {
        Self(name.to_ascii_lowercase().replace("calls", "call"))
    }
}

/// The one bearer token of a request (RFC 6750 section 2.1).
///
/// # Errors
/// There is none, or more than one.
pub fn bearer_token(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Invalid);
    }
    let value = value.to_str().map_err(|_| AuthError::Invalid)?.trim();
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    match (scheme.eq_ignore_ascii_case("Bearer"), token.trim_start()) {
        (false, _) => Err(AuthError::Invalid),
        (true, "") => Err(AuthError::Missing),
        (true, token) => Ok(token),
    }
}

fn sha256(text: &str) -> digest::Digest {
    digest::digest(&digest::SHA256, text.as_bytes())
}

fn encoded(part: &impl Serialize) -> String {
    let json = serde_json::to_vec(part).expect("strings and numbers always serialise");
    URL_SAFE_NO_PAD.encode(json)
}

fn decoded<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, AuthError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::Invalid)?;
    serde_json::from_slice(&json).map_err(|_| AuthError::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "6d1a0b00-2db4-4022-9570-243709c565ab";
    const NOW: UnixMillis = UnixMillis(1_767_225_600_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn key() -> SigningKey {
        SigningKey::new(&[7; 32])
    }

    fn credentials() -> Credentials {
        let application = ApplicationCredential {
            name: "mybot".to_owned(),
            id: APP.to_owned(),
            tokens: vec!["static-token".to_owned(), String::new()],
            roles: vec![ACCESS_MEDIA.to_owned(), "Calls.JoinGroupCalls.All".to_owned()],
        };
        let other = ApplicationCredential {
            name: "other".to_owned(),
            id: "x".to_owned(),
            tokens: vec!["other-token".to_owned()],
            roles: Vec::new(),
        };
        Credentials::new(vec![application, other], Some(key()))
    }

    fn ask(authorization: &str, now: UnixMillis) -> Result<Caller, AuthError> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        credentials().authenticate(&headers, now)
    }

    fn signed(application: &str, roles: &[&str]) -> String {
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        format!("Bearer {}", key().mint(application, &roles, HOUR, NOW))
    }

    #[test]
    fn a_static_token_names_its_application() {
        assert_eq!(&*ask("Bearer static-token", NOW).unwrap().application, "mybot");
        assert_eq!(&*ask("bearer  other-token", NOW).unwrap().application, "other");
    }

    #[test]
    fn what_is_not_a_token_opens_nothing() {
        let table = [
            ("Bearer", AuthError::Missing),
            ("Bearer ", AuthError::Missing),
            ("Bearer wrong", AuthError::Invalid),
            ("Bearer static-token2", AuthError::Invalid),
            ("Basic static-token", AuthError::Invalid),
            ("static-token", AuthError::Invalid),
            ("Bearer a.b.c", AuthError::Invalid),
            ("Bearer ..", AuthError::Invalid),
        ];
        for (authorization, error) in table {
            assert_eq!(ask(authorization, NOW), Err(error), "{authorization}");
        }
        assert_eq!(credentials().authenticate(&HeaderMap::new(), NOW), Err(AuthError::Missing));
        let too_long = format!("Bearer {}", "x".repeat(MAX_TOKEN_BYTES + 1));
        assert_eq!(ask(&too_long, NOW), Err(AuthError::Invalid));
    }

    #[test]
    fn two_authorization_headers_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, "Bearer static-token".parse().unwrap());
        headers.append(AUTHORIZATION, "Bearer other-token".parse().unwrap());
        assert_eq!(credentials().authenticate(&headers, NOW), Err(AuthError::Invalid));
    }

    #[test]
    fn a_signed_token_is_valid_for_its_time() {
        let token = signed(APP, &[ACCESS_MEDIA]);
        let at = |seconds: i64| ask(&token, UnixMillis(NOW.0 + seconds * 1000));
        assert!(at(0).unwrap().has_role(ACCESS_MEDIA));
        assert!(at(3599).is_ok());
        assert_eq!(at(3600), Err(AuthError::Expired));
        assert!(at(-60).is_ok());
        assert_eq!(at(-61), Err(AuthError::NotYetValid));
    }

    #[test]
    fn a_changed_token_is_not_taken() {
        let token = key().mint(APP, &[], HOUR, NOW);
        let parts: Vec<&str> = token.split('.').collect();
        let none = encoded(&Header { alg: "none".to_owned(), typ: "JWT".to_owned() });
        let changed = [
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}x.{}", parts[0], parts[1], parts[2]),
            SigningKey::new(&[8; 32]).mint(APP, &[], HOUR, NOW),
        ];
        for token in changed {
            assert_eq!(ask(&format!("Bearer {token}"), NOW), Err(AuthError::Invalid), "{token}");
        }
    }

    #[test]
    fn a_key_signs_with_no_other_algorithm() {
        let header = encoded(&Header { alg: "none".to_owned(), typ: "JWT".to_owned() });
        let token = key().mint(APP, &[], HOUR, NOW);
        let signed = format!("{header}.{}", token.split('.').nth(1).unwrap());
        let tag = hmac::sign(&key().0, signed.as_bytes());
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
        assert_eq!(ask(&format!("Bearer {token}"), NOW), Err(AuthError::Invalid));
    }

    #[test]
    fn a_signed_token_never_has_more_roles_than_its_application() {
        let caller = ask(&signed("x", &[ACCESS_MEDIA]), NOW).unwrap();
        assert_eq!(&*caller.application, "other");
        assert!(!caller.has_role(ACCESS_MEDIA));
        assert!(!ask(&signed(APP, &[]), NOW).unwrap().has_role(ACCESS_MEDIA));
        assert_eq!(ask(&signed("unknown", &[]), NOW), Err(AuthError::Invalid));
    }

    #[test]
    fn roles_are_compared_in_every_spelling() {
        let caller = ask("Bearer static-token", NOW).unwrap();
        for role in ["calls.accessmedia.all", "Calls.JoinGroupCall.All", "calls.JoinGroupCalls.all"]
        {
            assert!(caller.has_role(role), "{role}");
        }
        assert!(!caller.has_role("Calls.Initiate.All"));
    }
}
