//! Signs tokens for applications and for notifications, and turns the keys over.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::{Algorithm, Header, encode, jwk::JwkSet};
use serde_json::{Value, json};
use tracing::info;

use super::{
    claims::{Claims, TokenError, Wanted, verified},
    keys::{self, KeyError, KeyRing},
};
use crate::{
    model::UnixMillis,
    store::{Database, StoreError},
};

/// The resources that our tokens are for, as clients of Graph name them.
const GRAPH: [&str; 2] = ["https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000"];
/// How long a token of a notification lives, as in the documents (contract section 6.4).
const NOTIFICATION_LIFE: Duration = Duration::from_secs(65 * 60);
/// A notification token is used again for so long.
const NOTIFICATION_REUSE: Duration = Duration::from_secs(10 * 60);

/// Who we are, to those who read our tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The tenant, a GUID.
    pub tenant: String,
    /// The API's address as others see it, without a slash at its end.
    pub public_url: String,
    /// `iss` of the tokens that notifications bear.
    pub notification_issuer: String,
}

/// Signs tokens; cheap to clone.
#[derive(Clone)]
pub struct Issuer {
    inner: Arc<Inner>,
}

struct Inner {
    config: IssuerConfig,
    audiences: Vec<String>,
    ring: RwLock<Arc<KeyRing>>,
    database: Database,
    notification_tokens: Mutex<HashMap<String, NotificationToken>>,
}

/// The token that the notifications of an application bear.
#[derive(Clone)]
struct NotificationToken {
    token: String,
    /// When it was made, by the wall clock: receivers compare it with theirs.
    made_at: UnixMillis,
}

/// A token for an application.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    /// The token.
    pub token: String,
    /// For how long it is good.
    pub life: Duration,
}

/// Keys cannot be had.
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
        let inner = Inner { config, audiences, ring, database, notification_tokens };
        let issuer = Self { inner: Arc::new(inner) };
        issuer.turn_over().await?;
        Ok(issuer)
    }

    /// Makes the key that is due, forgets those that are not needed any more, and takes up what others
    /// who share the database have made. To be called now and then.
    ///
    /// # Errors
    /// The database failed, or a key cannot be made or read; the keys stay as they are.
    pub async fn turn_over(&self) -> Result<(), IssuerError> {
        let database = &self.inner.database;
        let now = database.clock().now();
        let turnover = KeyRing::new(database.signing_keys().await?)?.turnover(now);
        if turnover.make {
            // Looking for two primes takes a while.
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

    /// Our name as the issuer of tokens for applications.
    pub fn name(&self) -> String {
        let IssuerConfig { tenant, public_url, .. } = &self.inner.config;
        format!("{public_url}/{tenant}/v2.0")
    }

    /// Who we are.
    pub fn config(&self) -> &IssuerConfig {
        &self.inner.config
    }

    /// The audience that a resource is, if tokens may be asked for it. Neither case nor a slash at its end
    /// makes it another one.
    pub fn audience(&self, resource: &str) -> Option<&str> {
        let resource = resource.trim_end_matches('/');
        let mut audiences = self.inner.audiences.iter();
        audiences.find(|known| known.eq_ignore_ascii_case(resource)).map(String::as_str)
    }

    /// The public keys.
    pub fn published(&self) -> JwkSet {
        self.ring().published()
    }

    /// Makes a token for the application with this id; `audience` is what it is for.
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
        const LIFE: Duration = Duration::from_secs(3600);
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
            "iat": seconds(now),
            "nbf": seconds(now),
            "exp": seconds(now.plus(LIFE)),
        });
        Ok(Minted { token: self.signed(&claims)?, life: LIFE })
    }

    /// The token with which a notification goes to the application with this id (contract section
    /// 6.4); the same one for some minutes.
    ///
    /// # Errors
    /// There is no key, or the library failed.
    pub fn notification_token(
        &self,
        application: &str,
        now: UnixMillis,
    ) -> Result<String, KeyError> {
        let tokens = &self.inner.notification_tokens;
        let known = tokens.lock().unwrap_or_else(PoisonError::into_inner).get(application).cloned();
        // A token that was made before the clock was set back is not valid yet.
        let is_usable = |known: &NotificationToken| {
            (known.made_at..known.made_at.plus(NOTIFICATION_REUSE)).contains(&now)
        };
        if let Some(known) = known.filter(is_usable) {
            return Ok(known.token);
        }
        let claims = json!({
            "aud": application,
            "iss": self.inner.config.notification_issuer,
            "tid": self.inner.config.tenant,
            "iat": seconds(now),
            "nbf": seconds(now),
            "exp": seconds(now.plus(NOTIFICATION_LIFE)),
        });
        let token = self.signed(&claims)?;
        let made = NotificationToken { token: token.clone(), made_at: now };
        let mut tokens = tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(application.to_owned(), made);
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
        let wanted = Wanted { issuer: &name, audiences: &self.inner.audiences };
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

    fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.inner.ring.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn seconds(time: UnixMillis) -> i64 {
    time.0.div_euclid(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn notifications_bear_a_token_that_is_valid_after_the_clock_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("tokens.db").display());
        let config = IssuerConfig {
            tenant: "tenant".to_owned(),
            public_url: "https://house.example".to_owned(),
            notification_issuer: "https://house.example".to_owned(),
        };
        let database = Database::open(&url).await.unwrap();
        let issuer = Issuer::open(database, config).await.unwrap();
        let token = |minutes: i64| {
            issuer.notification_token("bot", UnixMillis(1_800_000_000_000 + minutes * 60_000))
        };
        let first = token(0).unwrap();
        assert_eq!(token(9).unwrap(), first);
        let early = token(-60).unwrap();
        assert_ne!(early, first);
        assert_eq!(token(-51).unwrap(), early);
        assert_ne!(token(24 * 60).unwrap(), early);
    }
}
