//! Outside issuers with trusted tokens: their metadata, their keys, and when they are fetched
//! again.
//!
//! A separate task fetches: at the start, repeatedly long before the keys expire, and when a token
//! names an unknown key, at most once a minute. Tokens under known keys never wait for it.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::Algorithm;
use serde::Deserialize;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use url::Url;

use super::{
    claims::{Claims, RequiredClaims, TokenError, verified},
    jwks::PublicKeys,
};
use aftertone_core::model::UnixMillis;

/// Age at which keys are not trusted any more.
const GOOD_FOR: Duration = Duration::from_secs(24 * 3600);
/// Age at which keys are fetched again.
const FRESH: Duration = Duration::from_secs(6 * 3600);
/// Shortest time between two fetches, whatever tokens come.
const PAUSE: Duration = Duration::from_secs(60);
/// How long an issuer may take to answer with its metadata and its keys.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longer answers are refused.
const MAX_BYTES: usize = 256 * 1024;
/// Algorithms that tokens may be signed with; no HMAC, since the keys are public.
const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::ES256];

/// The configuration of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideConfig {
    /// The URL of its OpenID metadata: https, or on this machine.
    pub metadata: String,
    /// The audience of its tokens for us.
    pub audience: String,
    /// The one tenant with trusted tokens; any tenant when absent.
    pub tenant: Option<String>,
}

/// An outside issuer.
#[derive(Debug)]
pub struct OutsideIssuer {
    config: OutsideConfig,
    known: watch::Receiver<KnownKeys>,
    wanted: Arc<Notify>,
    /// Fetches the keys until the issuer is dropped.
    _asking: AbortOnDropHandle<()>,
}

/// A token of a request, and what it says about itself.
pub(super) struct Shown<'a> {
    pub(super) token: &'a str,
    pub(super) issuer: &'a str,
    pub(super) key: &'a str,
    pub(super) algorithm: Algorithm,
}

/// What is known of an issuer.
#[derive(Debug, Clone, Default)]
struct KnownKeys {
    trusted: Option<Arc<Trusted>>,
    /// How many fetches have ended, successfully or not.
    rounds: u64,
    /// When the next fetch may start; `None` while a fetch runs or is due.
    rested_at: Option<Instant>,
}

#[derive(Debug)]
struct Trusted {
    name: String,
    keys: PublicKeys,
    since: Instant,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// The answer could be forged on the way.
    #[error("{url:?} is neither https nor on this machine")]
    Unprotected {
        /// The address.
        url: String,
    },
    /// The TLS library cannot be set up.
    #[error(transparent)]
    Client(reqwest::Error),
    /// The connection failed.
    #[error("{url}: {source}")]
    Unreachable {
        /// The address.
        url: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// A status other than success.
    #[error("{url}: answered {status}")]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: reqwest::StatusCode,
    },
    /// More bytes than such a document can have.
    #[error("{url}: more than {MAX_BYTES} bytes")]
    TooLong {
        /// The address.
        url: String,
    },
    /// The body is not the expected document.
    #[error("{url}: {source}")]
    Unreadable {
        /// The address.
        url: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// No answer in time.
    #[error("no answer within {DEADLINE:?}")]
    TooSlow,
}

impl OutsideIssuer {
    /// An issuer with keys that are fetched from now on, until this is dropped. Must be called
    /// within a runtime.
    ///
    /// # Errors
    /// Its address is not protected, or the TLS library cannot be set up.
    pub fn new(config: OutsideConfig) -> Result<Self, OutsideError> {
        if !is_protected(&config.metadata) {
            return Err(OutsideError::Unprotected { url: config.metadata });
        }
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            // The server may close a kept connection just before the next request, and there are
            // only two requests in six hours.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("aftertone/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(OutsideError::Client)?;
        let (tell, known) = watch::channel(KnownKeys::default());
        let wanted = Arc::new(Notify::new());
        let keeper = KeyFetcher {
            metadata: config.metadata.clone(),
            client,
            tell,
            wanted: Arc::clone(&wanted),
        };
        let asking = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
        Ok(Self { config, known, wanted, _asking: asking })
    }

    /// The audience of its tokens for us.
    pub(super) fn audience(&self) -> &str {
        &self.config.audience
    }

    /// Whether this is the issuer with this name, as far as its metadata is known.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.known.borrow().good().is_some_and(|trusted| trusted.name == name)
    }

    /// Checks a token for us that should be valid now with the known keys of this issuer. `None`
    /// when none of them fits the token.
    pub(super) fn verified(
        &self,
        shown: &Shown<'_>,
        now: UnixMillis,
    ) -> Option<Result<Claims, TokenError>> {
        if !ALGORITHMS.contains(&shown.algorithm) {
            return None;
        }
        let known = self.known.borrow().clone();
        let trusted = known.good().filter(|trusted| trusted.name == shown.issuer)?;
        let audiences = [self.config.audience.clone()];
        let wanted = RequiredClaims { issuer: shown.issuer, audiences: &audiences };
        let keys = trusted.keys.suited(shown.key, shown.algorithm);
        let verdicts = keys.into_iter().map(|key| {
            let claims = verified(shown.token, key, shown.algorithm, &wanted, now)?;
            match &self.config.tenant {
                Some(tenant) if claims.tid.as_ref() != Some(tenant) => Err(TokenError::Invalid),
                _ => Ok(claims),
            }
        });
        verdicts.max_by_key(TokenError::weight)
    }

    /// Fetches the issuer's keys if the token may be one of its own. Returns whether the token can
    /// be judged after that.
    pub(super) async fn ask_about(&self, shown: &Shown<'_>) -> bool {
        if !ALGORITHMS.contains(&shown.algorithm) {
            return true;
        }
        let known = self.known.borrow().clone();
        match known.good() {
            Some(trusted) if trusted.name != shown.issuer => true,
            Some(_) | None => self.asked(&known).await.good().is_some(),
        }
    }

    /// What is known after the next fetch; returns at once when the last fetch was a moment ago.
    async fn asked(&self, known: &KnownKeys) -> KnownKeys {
        self.wanted.notify_one();
        if known.rested_at.is_some_and(|at| Instant::now() < at) {
            return known.clone();
        }
        let mut next = self.known.clone();
        let told = timeout(2 * DEADLINE, next.wait_for(|next| next.rounds > known.rounds)).await;
        match told {
            Ok(Ok(next)) => next.clone(),
            Ok(Err(_)) | Err(_) => known.clone(),
        }
    }
}

impl KnownKeys {
    /// The name and keys, if they are not too old.
    fn good(&self) -> Option<&Trusted> {
        self.trusted.as_deref().filter(|trusted| trusted.since.elapsed() < GOOD_FOR)
    }
}

/// The task that fetches.
struct KeyFetcher {
    metadata: String,
    client: reqwest::Client,
    tell: watch::Sender<KnownKeys>,
    wanted: Arc<Notify>,
}

impl KeyFetcher {
    async fn run(self) {
        loop {
            let answer = timeout(DEADLINE, self.fetched()).await;
            let rested_at = Instant::now() + PAUSE;
            let is_good = self.told(answer.unwrap_or(Err(OutsideError::TooSlow)), rested_at);
            sleep_until(rested_at).await;
            if is_good {
                tokio::select! {
                    () = self.wanted.notified() => {}
                    () = sleep_until(rested_at + FRESH) => {}
                }
            }
            self.tell.send_modify(|known| known.rested_at = None);
        }
    }

    /// Publishes the result of a fetch. After a failure the known keys stay valid for their time.
    /// Returns whether the fetch succeeded.
    fn told(&self, answer: Result<Trusted, OutsideError>, rested_at: Instant) -> bool {
        let is_good = answer.is_ok();
        let trusted = match answer {
            Ok(trusted) => {
                let (issuer, keys) = (&trusted.name, trusted.keys.len());
                let left_out = trusted.keys.left_out;
                info!(issuer, keys, left_out, "The keys of an issuer were read");
                Some(Arc::new(trusted))
            }
            Err(error) => {
                warn!(metadata = self.metadata, "No keys of an issuer: {error}");
                None
            }
        };
        self.tell.send_modify(|known| {
            known.trusted = trusted.or_else(|| known.trusted.take());
            known.rounds += 1;
            known.rested_at = Some(rested_at);
        });
        is_good
    }

    async fn fetched(&self) -> Result<Trusted, OutsideError> {
        let metadata: Metadata = self.get(&self.metadata).await?;
        let keys = self.get(&metadata.jwks_uri).await?;
        Ok(Trusted { name: metadata.issuer, keys, since: Instant::now() })
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, url: &str) -> Result<T, OutsideError> {
        let named = || url.to_owned();
        if !is_protected(url) {
            return Err(OutsideError::Unprotected { url: named() });
        }
        let unreachable = |error: reqwest::Error| OutsideError::Unreachable {
            url: named(),
            source: error.without_url(),
        };
        let mut response = self.client.get(url).send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(OutsideError::Status { url: named(), status: response.status() });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BYTES {
                return Err(OutsideError::TooLong { url: named() });
            }
        }
        // RFC 8259 section 8.1: a parser may ignore a byte order mark.
        let json = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&body);
        serde_json::from_slice(json)
            .map_err(|source| OutsideError::Unreadable { url: named(), source })
    }
}

/// Whether the answer of a URL cannot be changed on the way.
fn is_protected(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let is_here = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
    url.scheme() == "https" || (url.scheme() == "http" && is_here)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::{Router, routing::get};
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;
    use crate::drivers::tokens::{
        KeyRing, Named, Verifier,
        keys::{SigningKey, make},
    };
    use aftertone_core::model::SteadyMillis;

    const NOW: UnixMillis = UnixMillis(1_767_225_600_000);

    /// An issuer on loopback, its one key, what it publishes, and how often its keys were fetched.
    struct FakeIssuer {
        url: String,
        key: SigningKey,
        asked: Arc<AtomicUsize>,
        published: Arc<Mutex<Value>>,
    }

    impl FakeIssuer {
        async fn start() -> Self {
            let ring = KeyRing::new(vec![make(SteadyMillis(NOW.0)).unwrap()]).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let asked = Arc::new(AtomicUsize::new(0));
            let published = Arc::new(Mutex::new(json!(ring.published())));
            let (counter, shown) = (Arc::clone(&asked), Arc::clone(&published));
            let metadata = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
            let router = Router::new().route("/metadata", get(|| async { metadata })).route(
                "/keys",
                get(move || async move {
                    counter.fetch_add(1, Ordering::Relaxed);
                    shown.lock().unwrap().to_string()
                }),
            );
            tokio::spawn(async move { axum::serve(listener, router).await });
            Self { url, key: ring.signing(SteadyMillis(NOW.0)).unwrap().clone(), asked, published }
        }

        fn verifier(&self) -> Verifier {
            self.verifier_for(None)
        }

        fn verifier_for(&self, tenant: Option<&str>) -> Verifier {
            let outside = vec![self.as_issuer("aftertone", tenant)];
            Verifier { outside, ..Verifier::default() }
        }

        fn as_issuer(&self, audience: &str, tenant: Option<&str>) -> OutsideIssuer {
            OutsideIssuer::new(OutsideConfig {
                metadata: format!("{}/metadata", self.url),
                audience: audience.to_owned(),
                tenant: tenant.map(str::to_owned),
            })
            .unwrap()
        }

        fn publish(&self, key: Value) {
            self.published.lock().unwrap()["keys"].as_array_mut().unwrap().insert(0, key);
        }

        /// A token as Keycloak makes it, with the changes of a test.
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

    /// An issuer at an address without a listener.
    fn unreachable() -> OutsideIssuer {
        OutsideIssuer::new(OutsideConfig {
            metadata: "http://127.0.0.1:1/metadata".to_owned(),
            audience: "aftertone".to_owned(),
            tenant: None,
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_token_from_elsewhere_names_its_application() {
        let elsewhere = FakeIssuer::start().await;
        let verifier = elsewhere.verifier();
        let named = verifier.named(&elsewhere.token(|_, _| {}), NOW).await;
        let roles = vec!["Calls.AccessMedia.All".to_owned()];
        let issuer = Some(elsewhere.url.clone());
        assert_eq!(named, Ok(Named { application: "mybot".to_owned(), roles, issuer }));
        let later = NOW.plus(Duration::from_secs(60));
        let expired = verifier.named(&elsewhere.token(|_, _| {}), later).await;
        assert_eq!(expired, Err(TokenError::Expired));
        assert_eq!(elsewhere.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_is_not_for_us_or_not_signed_is_not_believed() {
        let elsewhere = FakeIssuer::start().await;
        let verifier = elsewhere.verifier();
        let other = FakeIssuer::start().await;
        let tokens = [
            elsewhere.token(|claims, _| claims["aud"] = json!("account")),
            elsewhere.token(|claims, _| drop(claims.as_object_mut().unwrap().remove("aud"))),
            elsewhere.token(|claims, _| claims["iss"] = json!("http://other.example")),
            elsewhere.token(|claims, _| drop(claims.as_object_mut().unwrap().remove("azp"))),
            elsewhere.token(|_, header| header.kid = Some("unknown".to_owned())),
            elsewhere.token(|_, header| header.kid = None),
            // A user's token, in two forms, and tokens that are not for access.
            elsewhere.token(|claims, _| claims["scp"] = json!("Calls.Initiate.All")),
            elsewhere.token(|claims, _| claims["idtyp"] = json!("user")),
            elsewhere.token(|claims, _| claims["typ"] = json!("ID")),
            elsewhere.token(|claims, _| claims["typ"] = json!("Refresh")),
            // A token of another issuer in the name of this one.
            other.token(|claims, header| {
                claims["iss"] = json!(elsewhere.url);
                header.kid = Some(elsewhere.key.id.clone());
            }),
            // A token signed with the public key as an HMAC secret.
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
        // However many unknown keys are named, the keys are not fetched again within a minute.
        assert_eq!(elsewhere.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn roles_stand_where_entra_and_keycloak_put_them() {
        let elsewhere = FakeIssuer::start().await;
        let token = elsewhere.token(|claims, _| {
            claims["roles"] = json!(["a"]);
            claims["idtyp"] = json!("app");
            claims["typ"] = json!("Bearer");
            claims["resource_access"] =
                json!({"aftertone": {"roles": ["b"]}, "account": {"roles": ["view-profile"]}});
        });
        let named = elsewhere.verifier().named(&token, NOW).await.unwrap();
        assert_eq!(named.roles, ["a", "Calls.AccessMedia.All", "b"]);
    }

    #[tokio::test]
    async fn only_the_tenant_that_is_named_is_let_in() {
        let elsewhere = FakeIssuer::start().await;
        let verifier = elsewhere.verifier_for(Some("ours"));
        let of = |tenant: &str| elsewhere.token(|claims, _| claims["tid"] = json!(tenant));
        assert!(verifier.named(&of("ours"), NOW).await.is_ok());
        for token in [of("theirs"), elsewhere.token(|_, _| {})] {
            assert_eq!(verifier.named(&token, NOW).await, Err(TokenError::Invalid));
        }
    }

    #[tokio::test]
    async fn who_hangs_up_while_the_issuer_is_asked_locks_out_nobody() {
        let elsewhere = FakeIssuer::start().await;
        let verifier = elsewhere.verifier();
        let token = elsewhere.token(|_, _| {});
        let mut asking = Box::pin(verifier.named(&token, NOW));
        assert!(futures_util::poll!(&mut asking).is_pending());
        drop(asking);
        assert!(verifier.named(&token, NOW).await.is_ok());
        assert_eq!(elsewhere.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_new_key_is_known_after_the_pause_and_strangers_trigger_nothing() {
        let elsewhere = FakeIssuer::start().await;
        let verifier = elsewhere.verifier();
        let known = elsewhere.token(|_, _| {});
        assert!(verifier.named(&known, NOW).await.is_ok());
        let ring = KeyRing::new(vec![make(SteadyMillis(NOW.0)).unwrap()]).unwrap();
        let key = ring.signing(SteadyMillis(NOW.0)).unwrap().clone();
        elsewhere.publish(json!(ring.published())["keys"][0].clone());
        let changed = FakeIssuer { key, ..elsewhere };
        let fresh = changed.token(|_, _| {});
        assert_eq!(verifier.named(&fresh, NOW).await, Err(TokenError::Invalid));
        let stranger = changed.token(|claims, _| claims["iss"] = json!("https://other.example"));
        assert_eq!(verifier.named(&stranger, NOW).await, Err(TokenError::Invalid));
        assert_eq!(changed.asked.load(Ordering::Relaxed), 1);
        // The minute passes at once; the fetch uses a real socket.
        tokio::time::pause();
        tokio::time::advance(PAUSE).await;
        tokio::time::resume();
        assert!(verifier.named(&fresh, NOW).await.is_ok());
        assert!(verifier.named(&known, NOW).await.is_ok());
        assert_eq!(changed.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn an_issuer_that_was_never_reached_is_not_the_tokens_fault() {
        let elsewhere = FakeIssuer::start().await;
        let outside = vec![unreachable()];
        let verifier = Verifier { outside, ..Verifier::default() };
        for _ in 0..2 {
            let named = verifier.named(&elsewhere.token(|_, _| {}), NOW).await;
            assert_eq!(named, Err(TokenError::Unavailable));
        }
    }

    #[tokio::test]
    async fn an_issuer_that_cannot_be_reached_does_not_excuse_a_token_of_another() {
        let elsewhere = FakeIssuer::start().await;
        for is_last in [true, false] {
            let mut outside = vec![elsewhere.as_issuer("aftertone", None), unreachable()];
            if !is_last {
                outside.reverse();
            }
            let verifier = Verifier { outside, ..Verifier::default() };
            let good = elsewhere.token(|_, _| {});
            assert!(verifier.named(&good, NOW).await.is_ok(), "{is_last}");
            let expired = elsewhere.token(|claims, _| claims["exp"] = json!(NOW.0 / 1000));
            assert_eq!(verifier.named(&expired, NOW).await, Err(TokenError::Expired), "{is_last}");
            for token in [
                elsewhere.token(|claims, _| claims["aud"] = json!("account")),
                elsewhere.token(|claims, _| claims["scp"] = json!("Calls.Initiate.All")),
                elsewhere.token(|_, header| header.kid = Some("unknown".to_owned())),
            ] {
                assert_eq!(
                    verifier.named(&token, NOW).await,
                    Err(TokenError::Invalid),
                    "{is_last}"
                );
            }
            // This token may be of the unreachable issuer.
            let other = elsewhere.token(|claims, _| claims["iss"] = json!("https://other.example"));
            assert_eq!(verifier.named(&other, NOW).await, Err(TokenError::Unavailable));
        }
    }

    #[tokio::test]
    async fn one_issuer_may_be_configured_for_two_audiences() {
        let elsewhere = FakeIssuer::start().await;
        for audiences in [["aftertone", "other"], ["other", "aftertone"]] {
            let outside = audiences.map(|audience| elsewhere.as_issuer(audience, None)).into();
            let verifier = Verifier { outside, ..Verifier::default() };
            // The keys of both are fetched before either has a verdict.
            let unknown = elsewhere.token(|_, header| header.kid = Some("unknown".to_owned()));
            assert_eq!(verifier.named(&unknown, NOW).await, Err(TokenError::Invalid));
            let token = elsewhere.token(|_, _| {});
            assert!(verifier.named(&token, NOW).await.is_ok(), "{audiences:?}");
            let expired = verifier.named(&token, NOW.plus(Duration::from_secs(60))).await;
            assert_eq!(expired, Err(TokenError::Expired), "{audiences:?}");
        }
    }

    #[tokio::test]
    async fn times_with_a_fraction_are_read() {
        let elsewhere = FakeIssuer::start().await;
        let verifier = elsewhere.verifier();
        let now = NOW.0 as f64 / 1000.0;
        let of = |exp: Value, nbf: Value| {
            elsewhere.token(|claims, _| {
                claims["exp"] = exp;
                claims["nbf"] = nbf;
                claims["iat"] = json!(now - 0.75);
            })
        };
        for token in [
            of(json!(now + 60.5), json!(now - 0.5)),
            of(json!(now + 60.0), json!(now)),
            of(json!(1e300), json!(-1e300)),
            of(json!(u64::MAX), json!(-5)),
        ] {
            assert!(verifier.named(&token, NOW).await.is_ok(), "{token}");
        }
        for (token, error) in [
            (of(json!(now - 0.5), json!(now - 60.0)), TokenError::Expired),
            (of(json!(-1.5), json!(null)), TokenError::Expired),
            (of(json!(now + 90.5), json!(now + 60.5)), TokenError::NotYetValid),
            (of(json!("1767225660"), json!(null)), TokenError::Invalid),
            (of(json!(null), json!(null)), TokenError::Invalid),
        ] {
            assert_eq!(verifier.named(&token, NOW).await, Err(error), "{token}");
        }
    }

    #[tokio::test]
    async fn strange_entries_of_a_key_set_do_not_cost_the_key_beside_them() {
        let elsewhere = FakeIssuer::start().await;
        let id = elsewhere.key.id.clone();
        elsewhere.published.lock().unwrap()["keys"][0]["x5c"] = json!("text");
        for entry in [
            json!(null),
            json!({"kid": 5, "kty": "RSA", "n": "AQAB", "e": "AQAB"}),
            json!({"kid": id, "kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB"}),
            json!({"kid": id, "kty": "RSA", "n": "AQAB", "e": "AQAB", "use": "enc"}),
            // Of two that fit, the one that verifies the signature counts.
            json!({"kid": id, "kty": "RSA", "n": "AQAB", "e": "AQAB"}),
        ] {
            elsewhere.publish(entry);
        }
        let named = elsewhere.verifier().named(&elsewhere.token(|_, _| {}), NOW).await;
        assert!(named.is_ok(), "{named:?}");
    }

    #[tokio::test]
    async fn tokens_under_a_key_of_p_256_are_read() {
        let elsewhere = FakeIssuer::start().await;
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let encoding = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&encoding, Algorithm::ES256).unwrap();
        let mut jwk = json!(jwk);
        jwk["kid"] = json!(elsewhere.key.id);
        elsewhere.publish(jwk);
        let verifier = elsewhere.verifier();
        assert!(verifier.named(&elsewhere.token(|_, _| {}), NOW).await.is_ok());
        let mut elsewhere = elsewhere;
        elsewhere.key.encoding = encoding;
        let token = elsewhere.token(|_, header| header.alg = Algorithm::ES256);
        assert!(verifier.named(&token, NOW).await.is_ok());
    }

    #[tokio::test]
    async fn a_key_set_may_begin_with_a_byte_order_mark() {
        let elsewhere = FakeIssuer::start().await;
        let keys = format!("\u{FEFF}{}", elsewhere.published.lock().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let metadata = format!(
            "\u{FEFF}{}",
            json!({"issuer": elsewhere.url, "jwks_uri": format!("{url}/keys")})
        );
        let router = Router::new()
            .route("/metadata", get(|| async { metadata }))
            .route("/keys", get(|| async { keys }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let token = elsewhere.token(|_, _| {});
        let marked = FakeIssuer { url, ..elsewhere };
        assert!(marked.verifier().named(&token, NOW).await.is_ok());
    }

    #[test]
    fn an_issuer_is_asked_where_nobody_can_change_the_answer() {
        for (url, is_safe) in [
            ("https://login.example/x", true),
            ("http://localhost:8080/x", true),
            ("http://127.0.0.1/x", true),
            ("http://[::1]:80/x", true),
            ("http://login.example/x", false),
            ("http://127.0.0.1.example/x", false),
            ("ftp://localhost/x", false),
            ("x", false),
        ] {
            assert_eq!(is_protected(url), is_safe, "{url}");
        }
    }
}
