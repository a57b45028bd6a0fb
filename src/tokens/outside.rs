//! Issuers elsewhere whose tokens are believed: their metadata, their keys, and when to ask again.

use std::time::Duration;

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{Jwk, JwkSet},
};
use serde::Deserialize;
use tokio::{sync::RwLock, time::Instant};
use tracing::{info, warn};

use super::claims::{Claims, TokenError, Wanted, verified};
use crate::model::UnixMillis;

/// Keys that are older are asked for again.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// An issuer is not asked more often, whatever tokens are shown.
const PAUSE: Duration = Duration::from_secs(60);
/// Longer answers are none.
const MAX_BYTES: usize = 256 * 1024;
/// What tokens may be signed with; nothing under a secret, since the keys are public.
const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::ES256];

/// An issuer as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideConfig {
    /// The address of its OpenID metadata.
    pub metadata: String,
    /// What its tokens for us are for.
    pub audience: String,
}

/// An issuer elsewhere.
#[derive(Debug)]
pub struct OutsideIssuer {
    config: OutsideConfig,
    client: reqwest::Client,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    asked_at: Option<Instant>,
    issuer: Option<Trusted>,
}

#[derive(Debug)]
struct Trusted {
    name: String,
    keys: JwkSet,
    since: Instant,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

impl OutsideIssuer {
    /// An issuer that is asked when the first token is shown.
    pub fn new(config: OutsideConfig, client: reqwest::Client) -> Self {
        Self { config, client, known: RwLock::default() }
    }

    /// The claims of a token that this issuer, called `issuer`, has signed for us with the key
    /// `key`, and that is valid now. `None` when it is not this issuer's.
    pub(super) async fn verified(
        &self,
        token: &str,
        issuer: &str,
        key: &str,
        algorithm: Algorithm,
        now: UnixMillis,
    ) -> Option<Result<Claims, TokenError>> {
        if !ALGORITHMS.contains(&algorithm) {
            return None;
        }
        let found = match self.key(issuer, key).await {
            Some(found) => found,
            None => {
                self.ask().await;
                self.key(issuer, key).await?
            }
        };
        let decoding = DecodingKey::from_jwk(&found).ok()?;
        let audiences = [self.config.audience.clone()];
        let wanted = Wanted { issuer, audiences: &audiences };
        Some(verified(token, &decoding, algorithm, &wanted, now))
    }

    async fn key(&self, issuer: &str, key: &str) -> Option<Jwk> {
        let known = self.known.read().await;
        let trusted = known.issuer.as_ref().filter(|trusted| trusted.name == issuer)?;
        if trusted.since.elapsed() > FRESH {
            return None;
        }
        trusted.keys.find(key).cloned()
    }

    /// Asks for the metadata and the keys, unless that was done just now.
    async fn ask(&self) {
        let mut known = self.known.write().await;
        if known.asked_at.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        known.asked_at = Some(Instant::now());
        match self.fetched().await {
            Ok((name, keys)) => {
                info!(issuer = name, keys = keys.keys.len(), "The keys of an issuer were read");
                known.issuer = Some(Trusted { name, keys, since: Instant::now() });
            }
            // What was known stays good for its time.
            Err(error) => warn!(metadata = self.config.metadata, "No keys of an issuer: {error}"),
        }
    }

    async fn fetched(&self) -> Result<(String, JwkSet), String> {
        let metadata: Metadata = self.get(&self.config.metadata).await?;
        Ok((metadata.issuer, self.get(&metadata.jwks_uri).await?))
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, url: &str) -> Result<T, String> {
        let told = |error: reqwest::Error| format!("{url}: {}", error.without_url());
        let mut response = self.client.get(url).send().await.map_err(told)?;
        if !response.status().is_success() {
            return Err(format!("{url}: answered {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BYTES {
                return Err(format!("{url}: more than {MAX_BYTES} bytes"));
            }
        }
        serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::{Json, Router, routing::get};
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;
    use crate::tokens::{
        KeyRing, Named, Verifier,
        keys::{Key, make},
    };

    const NOW: UnixMillis = UnixMillis(1_767_225_600_000);

    /// An issuer on loopback, its one key, and how often it was asked for keys.
    struct Elsewhere {
        url: String,
        key: Key,
        asked: Arc<AtomicUsize>,
    }

    impl Elsewhere {
        async fn start() -> Self {
            let ring = KeyRing::new(vec![make(NOW).unwrap()]).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let asked = Arc::new(AtomicUsize::new(0));
            let (counter, published) = (Arc::clone(&asked), ring.published());
            let metadata = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
            let router = Router::new().route("/metadata", get(|| async { Json(metadata) })).route(
                "/keys",
                get(move || async move {
                    counter.fetch_add(1, Ordering::Relaxed);
                    Json(published)
                }),
            );
            tokio::spawn(async move { axum::serve(listener, router).await });
            Self { url, key: ring.signing(NOW).unwrap().clone(), asked }
        }

        fn verifier(&self) -> Verifier {
            let config = OutsideConfig {
                metadata: format!("{}/metadata", self.url),
                audience: "aftertone".to_owned(),
            };
            let outside = vec![OutsideIssuer::new(config, reqwest::Client::new())];
            Verifier { outside, ..Verifier::default() }
        }

        /// A token as Keycloak makes it, changed as a test wants it.
        fn token(&self, change: impl FnOnce(&mut Value, &mut Header)) -> String {
            let mut claims = json!({
                "iss": self.url,
                "aud": ["account", "aftertone"],
                "azp": "mybot",
                "exp": NOW.0 / 1000 + 60,
                "realm_access": {"roles": ["Calls.AccessMedia.All"]},
            });
            let mut header =
                Header { kid: Some(self.key.id.clone()), ..Header::new(Algorithm::RS256) };
            change(&mut claims, &mut header);
            encode(&header, &claims, &self.key.encoding).unwrap()
        }
    }

    #[tokio::test]
    async fn a_token_from_elsewhere_names_its_application() {
        let elsewhere = Elsewhere::start().await;
        let verifier = elsewhere.verifier();
        let named = verifier.named(&elsewhere.token(|_, _| {}), NOW).await;
        let roles = vec!["Calls.AccessMedia.All".to_owned()];
        assert_eq!(named, Ok(Named { application: "mybot".to_owned(), roles }));
        let later = NOW.plus(Duration::from_secs(60));
        let expired = verifier.named(&elsewhere.token(|_, _| {}), later).await;
        assert_eq!(expired, Err(TokenError::Expired));
        assert_eq!(elsewhere.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_is_not_for_us_or_not_signed_is_not_believed() {
        let elsewhere = Elsewhere::start().await;
        let verifier = elsewhere.verifier();
        let other = Elsewhere::start().await;
        let tokens = [
            elsewhere.token(|claims, _| claims["aud"] = json!("account")),
            elsewhere.token(|claims, _| drop(claims.as_object_mut().unwrap().remove("aud"))),
            elsewhere.token(|claims, _| claims["iss"] = json!("http://other.example")),
            elsewhere.token(|claims, _| drop(claims.as_object_mut().unwrap().remove("azp"))),
            elsewhere.token(|_, header| header.kid = Some("unknown".to_owned())),
            elsewhere.token(|_, header| header.kid = None),
            // Another issuer in the name of this one.
            other.token(|claims, header| {
                claims["iss"] = json!(elsewhere.url);
                header.kid = Some(elsewhere.key.id.clone());
            }),
            // The public key as if it were a secret.
            encode(
                &Header { kid: Some(elsewhere.key.id.clone()), ..Header::new(Algorithm::HS256) },
                &json!({"iss": elsewhere.url, "aud": "aftertone", "azp": "mybot",
                    "exp": NOW.0 / 1000 + 60}),
                &EncodingKey::from_secret(b"public"),
            )
            .unwrap(),
        ];
        for token in tokens {
            assert_eq!(verifier.named(&token, NOW).await, Err(TokenError::Invalid), "{token}");
        }
        // However many unknown keys are named, it is not asked again within a minute.
        assert_eq!(elsewhere.asked.load(Ordering::Relaxed), 1);
    }
}
