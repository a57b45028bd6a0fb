//! Signs tokens for applications and for notifications, and rotates the keys.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::{Algorithm, Header, encode, jwk::JwkSet};
use serde_json::{Value, json};
use tracing::info;

use super::{
    claims::{BACKDATE, Claims, RequiredClaims, TokenError, verified},
    keys::{self, KeyError, KeyRing},
};
use crate::drivers::store::{Database, StoreError};
use aftertone_core::model::UnixMillis;

/// The audiences of our tokens, as clients of Graph name them.
const GRAPH: [&str; 2] = ["https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000"];
/// How long a token is valid from now on. Its validity begins [`BACKDATE`] earlier, which gives the
/// 65 minutes of the documents for notification tokens (contract section 6.4).
const LIFE: Duration = Duration::from_secs(3600);
/// How long a notification token is used again.
const NOTIFICATION_REUSE: Duration = Duration::from_secs(10 * 60);

/// What our tokens say about this issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The tenant, a GUID.
    pub tenant: String,
    /// The API's public address, without a slash at its end.
    pub public_url: String,
    /// `iss` of notification tokens.
    pub notification_issuer: String,
}

/// Signs tokens; cheap to clone.
#[derive(Clone)]
pub struct Issuer {
    inner: Arc<IssuerParts>,
}

struct IssuerParts {
    config: IssuerConfig,
    audiences: Vec<String>,
    ring: RwLock<Arc<KeyRing>>,
    database: Database,
    notification_tokens: Mutex<HashMap<String, NotificationToken>>,
}

/// The token in the notifications for an application.
#[derive(Clone)]
struct NotificationToken {
    token: String,
    /// When it was made, by the wall clock: receivers compare the token's times with their own
    /// clock.
    made_at: UnixMillis,
}

/// A token for an application.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    /// The token.
    pub token: String,
    /// How long it is valid.
    pub life: Duration,
}

/// The keys are not available.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key cannot be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Issuer {
    /// Reads the keys of the store, and makes one if there is none.
    ///
    /// # Errors
    /// The database failed, or a key cannot be made or read.
    pub async fn open(database: Database, config: IssuerConfig) -> Result<Self, IssuerError> {
        let mut audiences: Vec<String> = GRAPH.map(str::to_owned).into();
        audiences.push(config.public_url.clone());
        let ring = RwLock::new(Arc::new(KeyRing::new(database.signing_keys().await?)?));
        let notification_tokens = Mutex::default();
        let inner = IssuerParts { config, audiences, ring, database, notification_tokens };
        let issuer = Self { inner: Arc::new(inner) };
        issuer.turn_over().await?;
        Ok(issuer)
    }

    /// Makes the key that is due, drops those that are not needed any more, and loads the keys that
    /// other processes on the same database have made. Must be called from time to time.
    ///
    /// # Errors
    /// The database failed, or a key cannot be made or read; the keys stay as they are.
    pub async fn turn_over(&self) -> Result<(), IssuerError> {
        let database = &self.inner.database;
        let now = database.clock().now();
        let turnover = KeyRing::new(database.signing_keys().await?)?.turnover(now);
        if turnover.make {
            // Searching for two primes takes a while.
            let made = tokio::task::spawn_blocking(move || keys::make(now)).await;
            let key = made.map_err(|_| KeyError::Make(rcgen::Error::RingUnspecified))??;
            info!(key = key.id, "A new signing key was made");
            database.add_signing_key(&key).await?;
        }
        for key in &turnover.retire {
            info!(key, "A signing key is not needed any more");
            database.drop_signing_key(key).await?;
        }
        let ring = KeyRing::new(database.signing_keys().await?)?;
        *self.inner.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        Ok(())
    }

    /// Our name (`iss`) in tokens for applications.
    pub fn name(&self) -> String {
        let IssuerConfig { tenant, public_url, .. } = &self.inner.config;
        format!("{public_url}/{tenant}/v2.0")
    }

    /// The configuration.
    pub fn config(&self) -> &IssuerConfig {
        &self.inner.config
    }

    /// The audience with the name `resource`, if tokens may be requested for it. Case and a slash
    /// at the end do not matter.
    pub fn audience(&self, resource: &str) -> Option<&str> {
        let resource = resource.trim_end_matches('/');
        let mut audiences = self.inner.audiences.iter();
        audiences.find(|known| known.eq_ignore_ascii_case(resource)).map(String::as_str)
    }

    /// The public keys.
    pub fn published(&self) -> JwkSet {
        self.ring().published()
    }

    /// Makes a token for the application with this id and for this audience.
    ///
    /// # Errors
    /// There is no key, or the library failed.
    pub fn mint(
        &self,
        application: &str,
        roles: &[String],
        audience: &str,
        now: UnixMillis,
    ) -> Result<Minted, KeyError> {
        let claims = json!({
            "aud": audience,
            "iss": self.name(),
            "tid": self.inner.config.tenant,
            "appid": application,
            "azp": application,
            "sub": application,
            "oid": application,
            "roles": roles,
            "idtyp": "app",
            "ver": "1.0",
            "iat": seconds(now.minus(BACKDATE)),
            "nbf": seconds(now.minus(BACKDATE)),
            "exp": seconds(now.plus(LIFE)),
        });
        Ok(Minted { token: self.signed(&claims)?, life: LIFE })
    }

    /// The token that authenticates a notification to the application with this id (contract
    /// section 6.4); the same one for some minutes.
    ///
    /// # Errors
    /// There is no key, or the library failed.
    pub fn notification_token(
        &self,
        application: &str,
        now: UnixMillis,
    ) -> Result<String, KeyError> {
        let known = self.notification_tokens().get(application).cloned();
        // A token that was made before the clock was set back is not valid yet.
        let is_usable = |known: &NotificationToken| {
            (known.made_at..known.made_at.plus(NOTIFICATION_REUSE)).contains(&now)
        };
        if let Some(known) = known.filter(is_usable) {
            return Ok(known.token);
        }
        self.fresh_notification_token(application, now)
    }

    /// A new notification token, for a receiver that has refused the notification.
    ///
    /// # Errors
    /// There is no key, or the library failed.
    pub fn fresh_notification_token(
        &self,
        application: &str,
        now: UnixMillis,
    ) -> Result<String, KeyError> {
        let claims = json!({
            "aud": application,
            "iss": self.inner.config.notification_issuer,
            "tid": self.inner.config.tenant,
            "iat": seconds(now.minus(BACKDATE)),
            "nbf": seconds(now.minus(BACKDATE)),
            "exp": seconds(now.plus(LIFE)),
        });
        let token = self.signed(&claims)?;
        let made = NotificationToken { token: token.clone(), made_at: now };
        self.notification_tokens().insert(application.to_owned(), made);
        Ok(token)
    }

    /// The claims of a token of ours that is valid now.
    pub(super) fn verified(
        &self,
        token: &str,
        key: &str,
        now: UnixMillis,
    ) -> Result<Claims, TokenError> {
        let ring = self.ring();
        let key = ring.find(key).ok_or(TokenError::Invalid)?;
        let name = self.name();
        let wanted = RequiredClaims { issuer: &name, audiences: &self.inner.audiences };
        verified(token, &key.decoding, Algorithm::RS256, &wanted, now)
    }

    fn signed(&self, claims: &Value) -> Result<String, KeyError> {
        let ring = self.ring();
        let Some(key) = ring.signing(self.inner.database.clock().now()) else {
            return Err(KeyError::Read(jsonwebtoken::errors::ErrorKind::InvalidKeyFormat.into()));
        };
        let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::RS256) };
        Ok(encode(&header, claims, &key.encoding)?)
    }

    fn notification_tokens(&self) -> MutexGuard<'_, HashMap<String, NotificationToken>> {
        self.inner.notification_tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.inner.ring.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn seconds(time: UnixMillis) -> i64 {
    time.0.div_euclid(1000)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::dangerous::insecure_decode;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_767_225_600_000);

    async fn issuer(folder: &tempfile::TempDir) -> Issuer {
        let path = format!("sqlite:{}/aftertone.db", folder.path().display());
        let config = IssuerConfig {
            tenant: "00000000-0000-0000-0000-000000000001".to_owned(),
            public_url: "https://api.example".to_owned(),
            notification_issuer: "https://graph.microsoft.com".to_owned(),
        };
        Issuer::open(Database::open(&path).await.unwrap(), config).await.unwrap()
    }

    fn times(token: &str) -> [i64; 3] {
        let claims = insecure_decode::<Value>(token).unwrap().claims;
        ["iat", "nbf", "exp"].map(|name| claims[name].as_i64().unwrap() - NOW.0 / 1000)
    }

    #[tokio::test]
    async fn a_token_is_good_on_a_clock_that_is_behind_or_ahead() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = issuer(&folder).await;
        let minted = issuer.mint("app", &[], "https://api.example", NOW).unwrap();
        let notified = issuer.notification_token("app", NOW).unwrap();
        for token in [minted.token, notified] {
            assert_eq!(times(&token), [-300, -300, 3600]);
        }
        assert_eq!(minted.life, Duration::from_secs(3600));
    }

    #[tokio::test]
    async fn a_fresh_notification_token_takes_the_place_of_the_one_that_was_refused() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = issuer(&folder).await;
        let token = |seconds| {
            let now = NOW.plus(Duration::from_secs(seconds));
            issuer.notification_token("app", now).unwrap()
        };
        let first = token(0);
        assert_eq!(token(599), first);
        let later = NOW.plus(Duration::from_secs(30));
        let fresh = issuer.fresh_notification_token("app", later).unwrap();
        assert_eq!(times(&fresh), [-270, -270, 3630]);
        assert_eq!(token(31), fresh);
        assert_ne!(token(630), fresh);
        // The clock was set back by more than the time for which a token is used again.
        assert_eq!(times(&token(0)), [-300, -300, 3600]);
    }
}
