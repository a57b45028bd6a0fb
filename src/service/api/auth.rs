//! Authentication: maps bearer tokens and client secrets to applications and their roles (contract
//! sections 2.1 and 9).
//!
//! Static tokens and client secrets come from the configuration; only their digests are kept in
//! memory. [`Verifier`] checks signed tokens. No token is ever printed.

use std::sync::Arc;

use aws_lc_rs::{constant_time, digest};
use axum::http::{HeaderMap, header::AUTHORIZATION};

use crate::drivers::tokens::{TokenError, Verifier};
use aftertone_core::model::UnixMillis;
pub use aftertone_core::model::role::{ACCESS_MEDIA, INITIATE};

/// Longer tokens are refused without a check.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Prefix of a secret in the configuration that is given as its SHA-256 digest, in hexadecimal.
const DIGEST_PREFIX: &str = "sha256:";

/// An application that may use the API, as configured.
#[derive(Clone)]
pub struct ApplicationCredential {
    /// Its name in the configuration.
    pub name: String,
    /// Its GUID: the `appid` claim of its tokens.
    pub id: String,
    /// Its static bearer tokens.
    pub tokens: Vec<String>,
    /// Its client secrets, in plain text or as `sha256:` and a digest.
    pub secrets: Vec<String>,
    /// Names of its roles.
    pub roles: Vec<String>,
    /// Name of the external issuer that may sign its tokens; any configured issuer when absent.
    pub issuer: Option<String>,
}

/// The configured applications and the verifier of signed tokens.
pub struct Credentials {
    applications: Vec<Application>,
    verifier: Verifier,
}

/// The authenticated application of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The application's name.
    pub application: Arc<str>,
    /// The application's id.
    pub id: Arc<str>,
    roles: Vec<Role>,
}

/// Why a request is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The request has no bearer token.
    #[error("Access token is empty.")]
    Missing,
    /// The token is not accepted.
    #[error(transparent)]
    Token(#[from] TokenError),
}

struct Application {
    name: Arc<str>,
    id: Arc<str>,
    tokens: Vec<Vec<u8>>,
    secrets: Vec<Vec<u8>>,
    issuer: Option<String>,
    /// As configured; `roles` has the same roles in the spelling for comparison.
    role_names: Vec<String>,
    roles: Vec<Role>,
}

/// A role in the normalised spelling that is used for comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Role(String);

impl Credentials {
    /// Knows these applications, and the signed tokens that the verifier accepts.
    pub fn new(applications: Vec<ApplicationCredential>, verifier: Verifier) -> Self {
        let applications = applications.into_iter().map(Application::new).collect();
        Self { applications, verifier }
    }

    /// Authenticates a request by its headers.
    ///
    /// # Errors
    /// The reason why the token is not accepted.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        now: UnixMillis,
    ) -> Result<Caller, AuthError> {
        let token = bearer_token(headers)?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Invalid.into());
        }
        match self.with_static_token(token) {
            Some(caller) => Ok(caller),
            None => self.with_signed_token(token, now).await,
        }
    }

    /// The id of the application that has this id, in its configured spelling.
    pub fn id(&self, id: &str) -> Option<&Arc<str>> {
        Some(&self.application(id)?.id)
    }

    /// The roles of the application with this id, if the secret is one of its secrets.
    pub fn roles_with_secret(&self, id: &str, secret: &str) -> Option<&[String]> {
        let presented = sha256(secret);
        let application = self.application(id)?;
        let is_known = contains(&application.secrets, &presented);
        is_known.then_some(&application.role_names[..])
    }

    /// Compares with every token, so that the time taken reveals nothing about any of them.
    fn with_static_token(&self, token: &str) -> Option<Caller> {
        let presented = sha256(token);
        let mut found = None;
        for application in &self.applications {
            if contains(&application.tokens, &presented) {
                found = Some(application);
            }
        }
        found.map(|application| Caller {
            application: application.name.clone(),
            id: application.id.clone(),
            roles: application.roles.clone(),
        })
    }

    async fn with_signed_token(&self, token: &str, now: UnixMillis) -> Result<Caller, AuthError> {
        let named = self.verifier.named(token, now).await?;
        let application = self.application(&named.application).ok_or(TokenError::Invalid)?;
        if let (Some(issuer), Some(own)) = (&named.issuer, &application.issuer)
            && issuer != own
        {
            // Another issuer may give the same id to a different application.
            return Err(TokenError::Invalid.into());
        }
        // A role that was removed from the application no longer counts in older tokens.
        let roles = named.roles.iter().map(|role| Role::new(role));
        let roles = roles.filter(|role| application.roles.contains(role)).collect();
        Ok(Caller { application: application.name.clone(), id: application.id.clone(), roles })
    }

    fn application(&self, id: &str) -> Option<&Application> {
        self.applications.iter().find(|application| application.id.eq_ignore_ascii_case(id))
    }
}

impl Application {
    fn new(configured: ApplicationCredential) -> Self {
        // An empty token or secret in the configuration must not authenticate a request.
        let digests = |texts: &[String], digest: fn(&str) -> Vec<u8>| {
            texts.iter().filter(|text| !text.is_empty()).map(|text| digest(text)).collect()
        };
        Self {
            name: configured.name.into(),
            id: configured.id.into(),
            tokens: digests(&configured.tokens, sha256),
            secrets: digests(&configured.secrets, secret_digest),
            issuer: configured.issuer,
            roles: configured.roles.iter().map(|role| Role::new(role)).collect(),
            role_names: configured.roles,
        }
    }
}

impl Caller {
    /// Whether the caller has a role, in any spelling that the documents use.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.contains(&Role::new(role))
    }
}

impl Role {
    /// Microsoft's documents write both `Calls.JoinGroupCall.All` and `Calls.JoinGroupCalls.All`.
    fn new(name: &str) -> Self {
        Self(name.to_ascii_lowercase().replace("calls", "call"))
    }
}

/// The only bearer token of a request (RFC 6750 section 2.1).
///
/// # Errors
/// The request has no bearer token, or more than one.
pub(super) fn bearer_token(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(TokenError::Invalid.into());
    }
    let value = value.to_str().map_err(|_| TokenError::Invalid)?.trim();
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    match (scheme.eq_ignore_ascii_case("Bearer"), token.trim_start()) {
        (false, _) => Err(TokenError::Invalid.into()),
        (true, "") => Err(AuthError::Missing),
        (true, token) => Ok(token),
    }
}

fn sha256(text: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().to_vec()
}

/// The digest of a configured secret, or the digest that is configured in its place. An invalid
/// digest matches no secret.
fn secret_digest(text: &str) -> Vec<u8> {
    match text.strip_prefix(DIGEST_PREFIX) {
        Some(digest) => hex::decode(digest.trim()).unwrap_or_default(),
        None => sha256(text),
    }
}

/// Whether `presented` is among the known digests. The time taken depends on their number only.
fn contains(known: &[Vec<u8>], presented: &[u8]) -> bool {
    known.iter().fold(false, |found, known| {
        constant_time::verify_slices_are_equal(known, presented).is_ok() | found
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::drivers::tokens::LocalKey;

    const APP: &str = "6d1a0b00-2db4-4022-9570-243709c565ab";
    const NOW: UnixMillis = UnixMillis(1_767_225_600_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn key() -> LocalKey {
        LocalKey::new(&[7; 32])
    }

    fn credentials() -> Credentials {
        let digest: String = sha256("hashed").iter().map(|byte| format!("{byte:02X}")).collect();
        let application = ApplicationCredential {
            name: "mybot".to_owned(),
            id: APP.to_owned(),
            tokens: vec!["static-token".to_owned(), String::new()],
            secrets: vec!["secret".to_owned(), format!("sha256:{digest}"), "sha256:x".to_owned()],
            roles: vec![ACCESS_MEDIA.to_owned(), "Calls.JoinGroupCalls.All".to_owned()],
            issuer: None,
        };
        let other = ApplicationCredential {
            name: "other".to_owned(),
            id: "x".to_owned(),
            tokens: vec!["other-token".to_owned()],
            secrets: Vec::new(),
            roles: Vec::new(),
            issuer: None,
        };
        let verifier = Verifier { local: Some(key()), ..Verifier::default() };
        Credentials::new(vec![application, other], verifier)
    }

    async fn ask(authorization: &str, now: UnixMillis) -> Result<Caller, AuthError> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        credentials().authenticate(&headers, now).await
    }

    fn signed(application: &str, roles: &[&str]) -> String {
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        format!("Bearer {}", key().mint(application, &roles, HOUR, NOW).unwrap())
    }

    const INVALID: AuthError = AuthError::Token(TokenError::Invalid);

    #[tokio::test]
    async fn a_static_token_names_its_application() {
        assert_eq!(&*ask("Bearer static-token", NOW).await.unwrap().application, "mybot");
        assert_eq!(&*ask("bearer  other-token", NOW).await.unwrap().application, "other");
    }

    #[tokio::test]
    async fn what_is_not_a_token_opens_nothing() {
        let table = [
            ("Bearer", AuthError::Missing),
            ("Bearer ", AuthError::Missing),
            ("Bearer wrong", INVALID),
            ("Bearer static-token2", INVALID),
            ("Bearer secret", INVALID),
            ("Basic static-token", INVALID),
            ("static-token", INVALID),
            ("Bearer a.b.c", INVALID),
            ("Bearer ..", INVALID),
        ];
        for (authorization, error) in table {
            assert_eq!(ask(authorization, NOW).await, Err(error), "{authorization}");
        }
        let nothing = credentials().authenticate(&HeaderMap::new(), NOW).await;
        assert_eq!(nothing, Err(AuthError::Missing));
        let too_long = format!("Bearer {}", "x".repeat(MAX_TOKEN_BYTES + 1));
        assert_eq!(ask(&too_long, NOW).await, Err(INVALID));
    }

    #[tokio::test]
    async fn two_authorization_headers_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, "Bearer static-token".parse().unwrap());
        headers.append(AUTHORIZATION, "Bearer other-token".parse().unwrap());
        assert_eq!(credentials().authenticate(&headers, NOW).await, Err(INVALID));
    }

    #[test]
    fn a_secret_opens_its_own_application_alone() {
        let credentials = credentials();
        let upper = APP.to_uppercase();
        for secret in ["secret", "hashed"] {
            assert_eq!(&**credentials.id(&upper).unwrap(), APP);
            assert_eq!(credentials.roles_with_secret(&upper, secret).unwrap().len(), 2);
        }
        for (id, secret) in
            [(APP, ""), (APP, "x"), (APP, "sha256:x"), ("x", "secret"), ("nobody", "secret")]
        {
            assert_eq!(credentials.roles_with_secret(id, secret), None, "{id} {secret}");
        }
    }

    #[tokio::test]
    async fn a_signed_token_never_has_more_roles_than_its_application() {
        let caller = ask(&signed("x", &[ACCESS_MEDIA]), NOW).await.unwrap();
        assert_eq!(&*caller.application, "other");
        assert!(!caller.has_role(ACCESS_MEDIA));
        assert!(ask(&signed(APP, &[ACCESS_MEDIA]), NOW).await.unwrap().has_role(ACCESS_MEDIA));
        assert!(!ask(&signed(APP, &[]), NOW).await.unwrap().has_role(ACCESS_MEDIA));
        assert_eq!(ask(&signed("unknown", &[]), NOW).await, Err(INVALID));
        let later = NOW.plus(HOUR);
        let expired = AuthError::Token(TokenError::Expired);
        assert_eq!(ask(&signed(APP, &[]), later).await, Err(expired));
    }

    #[tokio::test]
    async fn roles_are_compared_in_every_spelling() {
        let caller = ask("Bearer static-token", NOW).await.unwrap();
        for role in ["calls.accessmedia.all", "Calls.JoinGroupCall.All", "calls.JoinGroupCalls.all"]
        {
            assert!(caller.has_role(role), "{role}");
        }
        assert!(!caller.has_role("Calls.Initiate.All"));
    }
}
