//! The API as clients meet it over time: tokens of other issuers and their keys, certificates that
//! change, notifications that are sent again.

mod support;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aftertone::service::demo::phone::Phone;
use axum::{Json, Router, http::StatusCode, routing::get};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet},
};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use support::{
    Node,
    bot::{Bot, TOKEN},
    eventually,
};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(20);
const APP: &str = "6d1a0b00-2db4-4022-9570-243709c565ab";
const TENANT: &str = "22222222-0000-0000-0000-000000000002";

/// A token issuer on loopback, with the paths of Keycloak or of Entra.
struct Elsewhere {
    /// `iss` of its tokens.
    name: String,
    metadata: String,
    key: SigningKey,
    published: Arc<Mutex<JwkSet>>,
}

struct SigningKey {
    id: String,
    encoding: EncodingKey,
}

impl SigningKey {
    /// A key pair, and its public part as the issuer publishes it.
    fn new(id: &str) -> (Self, Jwk) {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let encoding = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        let mut published = Jwk::from_encoding_key(&encoding, Algorithm::RS256).unwrap();
        published.common.key_id = Some(id.to_owned());
        (Self { id: id.to_owned(), encoding }, published)
    }
}

impl Elsewhere {
    /// `name` is the path of the issuer's name; `metadata` and `keys` are the paths of its two
    /// documents.
    async fn start(name: &str, metadata: &'static str, keys: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let name = format!("{url}{name}");
        let (key, jwk) = SigningKey::new("first");
        let published = Arc::new(Mutex::new(JwkSet { keys: vec![jwk] }));
        let told = json!({"issuer": name, "jwks_uri": format!("{url}{keys}")});
        let shown = Arc::clone(&published);
        let router = Router::new()
            .route(metadata, get(async move || Json(told)))
            .route(keys, get(async move || Json(shown.lock().unwrap().clone())));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { name, metadata: format!("{url}{metadata}"), key, published }
    }

    async fn keycloak() -> Self {
        let keys = "/realms/r/protocol/openid-connect/certs";
        Self::start("/realms/r", "/realms/r/.well-known/openid-configuration", keys).await
    }

    /// An issuer of Entra tokens, version 1.
    async fn entra() -> Self {
        let name = format!("/{TENANT}/");
        Self::start(&name, "/t/.well-known/openid-configuration", "/common/discovery/keys").await
    }

    fn signed(&self, mut claims: Value, changes: &[(&str, Value)]) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        claims["iss"] = json!(self.name);
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + 300);
        for (claim, value) in changes {
            claims[*claim] = value.clone();
        }
        let header = Header { kid: Some(self.key.id.clone()), ..Header::new(Algorithm::RS256) };
        encode(&header, &claims, &self.key.encoding).unwrap()
    }

    /// A token as Keycloak makes it for a service account.
    fn keycloak_token(&self, changes: &[(&str, Value)]) -> String {
        let claims = json!({
            "jti": "trrtcc:1", "typ": "Bearer", "azp": APP, "sub": "a-service-account",
            "aud": ["aftertone", "account"], "acr": "1", "scope": "email profile",
            "realm_access": {"roles": ["offline_access"]},
            "resource_access": {"aftertone": {"roles": ["Calls.AccessMedia.All"]}},
            "preferred_username": "service-account-mybot", "clientId": APP,
        });
        self.signed(claims, changes)
    }

    /// A token as Entra makes it for an application, version 1.
    fn entra_token(&self, changes: &[(&str, Value)]) -> String {
        let claims = json!({
            "aud": "api://aftertone", "appid": APP, "appidacr": "1", "idtyp": "app",
            "oid": "b", "sub": "b", "tid": TENANT, "ver": "1.0",
            "roles": ["Calls.AccessMedia.All"],
        });
        self.signed(claims, changes)
    }
}

/// The status that a token gets at a path that requires the role for media, for an unknown call.
async fn status(node: &Node, token: &str) -> u16 {
    let url = format!("{}/v1.0/communications/calls/{APP}/record", node.api);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let asked = client.post(url).bearer_auth(token).header("content-type", "application/json");
    asked.body("{}").send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_keycloak_and_entra_open_the_api() {
    let mut keycloak = Elsewhere::keycloak().await;
    let entra = Elsewhere::entra().await;
    let node = Node::start(&format!(
        "[[issuers]]\nmetadata = \"{}\"\naudience = \"aftertone\"\n\
         [[issuers]]\nmetadata = \"{}\"\naudience = \"api://aftertone\"\ntenant = \"{TENANT}\"\n\
         [[applications]]\nname = \"mybot\"\nid = \"{APP}\"\nroles = [\"Calls.AccessMedia.All\"]\n\
         callback_uri = \"http://127.0.0.1:9/\"\n\
         [[applications]]\nname = \"entras\"\nid = \"of-entra\"\nissuer = \"{}\"\n\
         roles = [\"Calls.AccessMedia.All\"]\ncallback_uri = \"http://127.0.0.1:9/\"\n",
        keycloak.metadata, entra.metadata, entra.name
    ));
    // A token that is accepted with its role gets 404: there is no such call.
    let no_roles = json!({"aftertone": {"roles": []}});
    let table = [
        ("keycloak", keycloak.keycloak_token(&[]), 404),
        ("another audience", keycloak.keycloak_token(&[("aud", json!("account"))]), 401),
        ("an ID token", keycloak.keycloak_token(&[("typ", json!("ID"))]), 401),
        ("no role", keycloak.keycloak_token(&[("resource_access", no_roles)]), 403),
        ("another application", keycloak.keycloak_token(&[("azp", json!("nobody"))]), 401),
        ("Entra's application", keycloak.keycloak_token(&[("azp", json!("of-entra"))]), 401),
        ("expired", keycloak.keycloak_token(&[("exp", json!(1_700_000_000))]), 401),
        ("entra", entra.entra_token(&[]), 404),
        ("its own application", entra.entra_token(&[("appid", json!("of-entra"))]), 404),
        ("a user's", entra.entra_token(&[("scp", json!("Calls.AccessMedia.All"))]), 401),
        ("another tenant", entra.entra_token(&[("tid", json!(APP))]), 401),
        ("in another's name", entra.entra_token(&[("iss", json!(keycloak.name))]), 401),
    ];
    for (what, token, expected) in table {
        assert_eq!(status(&node, &token).await, expected, "{what}");
    }
    // The daemon fetches the keys again for an unknown key after a pause of a minute, which the
    // unit tests cover; a reload fetches them at once.
    let (key, jwk) = SigningKey::new("second");
    keycloak.key = key;
    keycloak.published.lock().unwrap().keys.push(jwk);
    assert_eq!(status(&node, &keycloak.keycloak_token(&[])).await, 401);
    node.signal("HUP");
    eventually("the new key", PATIENCE, async || {
        (status(&node, &keycloak.keycloak_token(&[])).await == 404).then_some(())
    })
    .await;
}

/// Writes a self-signed certificate for this machine, and its key; returns the certificate.
fn certify(folder: &Path) -> String {
    let pair = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&pair).unwrap().pem();
    std::fs::write(folder.join("certificate.pem"), &certificate).unwrap();
    std::fs::write(folder.join("key.pem"), pair.serialize_pem()).unwrap();
    certificate
}

/// Whether the API presents this certificate to a new connection.
async fn shows(node: &Node, certificate: &str) -> bool {
    let certificate = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]);
    client.build().unwrap().get(format!("{}/healthz", node.api)).send().await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_shows_another_certificate_or_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let first = certify(folder.path());
    let pem = |name: &str| folder.path().join(name).display().to_string();
    let config = |log: &str| {
        format!(
            "[api]\nlisten = \"127.0.0.1:0\"\ntls_certificate = \"{}\"\ntls_key = \"{}\"\n\
             [telemetry]\nlog = \"{log}\"\n",
            pem("certificate.pem"),
            pem("key.pem")
        )
    };
    let node = Node::start(&config("info"));
    assert!(node.api.starts_with("https://"));
    assert!(shows(&node, &first).await);
    let second = certify(folder.path());
    assert!(!shows(&node, &second).await, "nobody has asked for it");
    node.signal("HUP");
    eventually("the second certificate", PATIENCE, async || {
        shows(&node, &second).await.then_some(())
    })
    .await;
    assert!(!shows(&node, &first).await);

    std::fs::write(folder.path().join("key.pem"), "no key").unwrap();
    node.signal("HUP");
    eventually("the complaint", PATIENCE, async || {
        let log = node.log_text();
        let told = log.lines().find(|line| line.contains("The configuration was not reloaded"))?;
        assert!(told.contains("key.pem"), "{told}");
        Some(())
    })
    .await;
    assert!(shows(&node, &second).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_that_was_given_up_is_listed_and_sent_again() {
    let mut bot = Bot::start().await;
    let node = Node::start(&bot.config());
    bot.knows(&node.api);
    bot.answer_with(&[StatusCode::GONE]);
    let calling = tokio::spawn({
        let sip = node.sip;
        async move { Phone::call(sip, "bot").await }
    });
    let told = eventually("what was given up", PATIENCE, async || {
        let (status, list) = bot.get("undeliveredNotifications").await;
        assert_eq!(status, 200);
        list["value"].get(0).cloned()
    })
    .await;
    assert!(told["lastError"].as_str().unwrap().contains("410"), "{told}");
    let data = &told["notification"]["value"][0]["resourceData"];
    assert_eq!(data["state"], "incoming");
    let path = format!("{}/v1.0/communications/undeliveredNotifications", node.api);
    let resend = format!("{path}/{}/resend", told["id"].as_str().unwrap());
    let asked = bot.client.post(&resend).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(asked.status(), 202);
    bot.wait_for("the notification once more", |n| {
        n.data()["state"] == "incoming" && n.answer == StatusCode::ACCEPTED
    })
    .await;
    // The call can be answered as if the notification had come at once.
    bot.answer(data["id"].as_str().unwrap()).await;
    calling.await.unwrap().expect("the call is taken");
    let (_, list) = bot.get("undeliveredNotifications").await;
    assert_eq!(list["value"], json!([]));
    let asked = bot.client.post(&resend).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(asked.status(), 404, "there is nothing to send any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_does_not_believe_the_first_tokens_gets_the_call() {
    let mut bot = Bot::start().await;
    let node = Node::start(&bot.config());
    bot.knows(&node.api);
    bot.answer_with(&[StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED]);
    let calling = tokio::spawn({
        let sip = node.sip;
        async move { Phone::call(sip, "bot").await }
    });
    bot.take_call().await;
    calling.await.unwrap().expect("the call is taken");
    let (_, list) = bot.get("undeliveredNotifications").await;
    assert_eq!(list["value"], json!([]));
}

#[tokio::test]
async fn an_api_that_is_everywhere_says_that_bots_need_its_address() {
    let bot = Bot::start().await;
    let warning = "api.public_url is empty";
    let node = Node::start(&format!("[api]\nlisten = \"0.0.0.0:0\"\n{}", bot.config()));
    node.logs(warning, 1).await;
    let told = "listen = \"0.0.0.0:0\"\npublic_url = \"http://pbx.example:8080\"\n";
    let node = Node::start(&format!("[api]\n{told}{}", bot.config()));
    assert!(!node.log_text().contains(warning), "{}", node.log_text());
}
