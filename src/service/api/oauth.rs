//! Token endpoints for applications: OAuth 2.0 client credentials (RFC 6749 section 4.4) in Entra
//! ID's form. Also the metadata and keys to verify tokens, and those for notification tokens
//! (contract sections 9 and 6.4).

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
    routing::{MethodRouter, any},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::warn;
use url::form_urlencoded;

use super::{
    auth::Credentials,
    body,
    error::ApiError,
    exchange::{Audit, Peer},
    now,
    wrong_secrets::WrongSecrets,
};
use crate::drivers::tokens::{BACKDATE, Issuer, IssuerConfig};
use aftertone_core::model::UnixMillis;

/// State of the token endpoints. Cheap to clone.
#[derive(Clone)]
pub(super) struct TokenEndpoint {
    issuer: Issuer,
    credentials: watch::Receiver<Arc<Credentials>>,
    wrong_secrets: Arc<Mutex<WrongSecrets>>,
}

/// Why no token is issued (RFC 6749 section 5.2), with Entra's error number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum TokenRefusal {
    #[error("AADSTS90002: Tenant {0:?} not found.")]
    Tenant(String),
    #[error("AADSTS900144: The request body must contain the following parameter: '{0}'.")]
    Missing(&'static str),
    #[error("AADSTS70003: The grant_type {0:?} is not supported; client_credentials is.")]
    GrantType(String),
    #[error("AADSTS7000215: Unknown client or invalid client secret provided.")]
    Client,
    #[error("Client certificates are not known here; use a client_secret.")]
    Assertion,
    #[error("AADSTS70011: The scope {0:?} is not valid; https://graph.microsoft.com/.default is.")]
    Scope(String),
    #[error("AADSTS500011: The resource {0:?} was not found; https://graph.microsoft.com is one.")]
    Resource(String),
    #[error("{0}")]
    Body(String),
    #[error("Too many wrong secrets; try again in {0} seconds.")]
    Guessed(u64),
    #[error("The server cannot sign a token.")]
    Internal,
}

/// The scopes of OpenID Connect.
const OPENID: [&str; 4] = ["openid", "profile", "offline_access", "email"];

/// Version of Entra's endpoints. The versions differ in how a request names the resource, and in
/// the form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntraVersion {
    /// The request has a `resource`, as ADAL and older bots send it.
    V1,
    /// The request has a `scope`.
    V2,
}

impl EntraVersion {
    const fn token_path(self) -> &'static str {
        match self {
            Self::V1 => "/{tenant}/oauth2/token",
            Self::V2 => "/{tenant}/oauth2/v2.0/token",
        }
    }

    const fn metadata_path(self) -> &'static str {
        match self {
            Self::V1 => "/{tenant}/.well-known/openid-configuration",
            Self::V2 => "/{tenant}/v2.0/.well-known/openid-configuration",
        }
    }

    const fn keys_path(self) -> &'static str {
        match self {
            Self::V1 => "/{tenant}/discovery/keys",
            Self::V2 => "/{tenant}/discovery/v2.0/keys",
        }
    }
}

const NOTIFICATION_METADATA: &str = "/v1/.well-known/OpenIdConfiguration";
const NOTIFICATION_KEYS: &str = "/v1/.well-known/keys";

/// The paths of the token endpoint, the metadata and the keys, for each version. The last two paths
/// are for notification tokens.
pub(super) fn table() -> [(&'static str, MethodRouter<TokenEndpoint>); 8] {
    let of_version = |version: EntraVersion| {
        let token =
            any(async move |desk, tenant, request| token(version, desk, tenant, request).await);
        let metadata =
            any(async move |desk, tenant, method| metadata(version, desk, tenant, method));
        let keys = any(async move |desk, tenant, method| keys(version, desk, tenant, method));
        [
            (version.token_path(), token),
            (version.metadata_path(), metadata),
            (version.keys_path(), keys),
        ]
    };
    let [token_v1, metadata_v1, keys_v1] = of_version(EntraVersion::V1);
    let [token_v2, metadata_v2, keys_v2] = of_version(EntraVersion::V2);
    let metadata = (NOTIFICATION_METADATA, any(notification_metadata));
    let keys = (NOTIFICATION_KEYS, any(notification_keys));
    [token_v1, metadata_v1, keys_v1, token_v2, metadata_v2, keys_v2, metadata, keys]
}

/// The routes of the token endpoints and their keys.
pub(super) fn routes(issuer: Issuer, credentials: watch::Receiver<Arc<Credentials>>) -> Router {
    let desk = TokenEndpoint { issuer, credentials, wrong_secrets: Arc::default() };
    table()
        .into_iter()
        .fold(Router::new(), |router, (path, method)| router.route(path, method))
        .with_state(desk)
}

async fn token(
    version: EntraVersion,
    State(desk): State<TokenEndpoint>,
    Path(tenant): Path<String>,
    request: Request,
) -> Response {
    let route = version.token_path();
    if request.method() != Method::POST {
        return audited(route, None, ApiError::Method { allow: "POST" }.into_response());
    }
    let (parts, body) = request.into_parts();
    let mut client = None;
    // There is no peer without a listener, as in a test of the routes.
    let peer = parts.extensions.get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |Peer(ip)| *ip);
    let answer = desk.token(version, &tenant, &parts.headers, peer, body, &mut client).await;
    let response = match answer {
        Ok(token) => token,
        Err(refusal) => refusal.response(),
    };
    audited(route, client, response)
}

impl TokenEndpoint {
    async fn token(
        &self,
        version: EntraVersion,
        tenant: &str,
        headers: &HeaderMap,
        peer: IpAddr,
        body: Body,
        client: &mut Option<Arc<str>>,
    ) -> Result<Response, TokenRefusal> {
        self.check_tenant(tenant)?;
        let form = body::form(headers, body)
            .await
            .map_err(|error| TokenRefusal::Body(error.to_string()))?;
        let field =
            |name: &'static str| form.get(name).map(String::as_str).filter(|text| !text.is_empty());
        let grant = field("grant_type").ok_or(TokenRefusal::Missing("grant_type"))?;
        if grant != "client_credentials" {
            return Err(TokenRefusal::GrantType(shortened(grant)));
        }
        let login = match basic(headers) {
            Some(login) => login,
            None if field("client_assertion").is_some() => return Err(TokenRefusal::Assertion),
            None => ClientLogin {
                id: field("client_id").ok_or(TokenRefusal::Missing("client_id"))?.to_owned(),
                secrets: vec![
                    field("client_secret")
                        .ok_or(TokenRefusal::Missing("client_secret"))?
                        .to_owned(),
                ],
            },
        };
        let (asked, resource) = match version {
            EntraVersion::V1 => {
                let resource = field("resource").ok_or(TokenRefusal::Missing("resource"))?;
                (resource, Some(resource))
            }
            EntraVersion::V2 => {
                let scope = field("scope").ok_or(TokenRefusal::Missing("scope"))?;
                (scope, resource(scope))
            }
        };
        let audience = resource.and_then(|resource| self.issuer.audience(resource));
        let audience = audience.ok_or_else(|| match version {
            EntraVersion::V1 => TokenRefusal::Resource(shortened(asked)),
            EntraVersion::V2 => TokenRefusal::Scope(shortened(asked)),
        })?;
        let credentials = self.credentials.borrow().clone();
        let (id, roles) = self.known(&credentials, &login, peer)?;
        *client = Some(Arc::clone(id));
        let now = now();
        let minted = self.issuer.mint(id, roles, audience, now).map_err(|error| {
            tracing::error!(%error, "a token cannot be signed");
            TokenRefusal::Internal
        })?;
        let life = minted.life.as_secs();
        let answer = match version {
            // Version 1 encodes its numbers as strings.
            EntraVersion::V1 => json!({
                "token_type": "Bearer",
                "expires_in": life.to_string(),
                "ext_expires_in": life.to_string(),
                "expires_on": seconds(now.plus(minted.life)),
                "not_before": seconds(now.minus(BACKDATE)),
                "resource": asked,
                "access_token": minted.token,
            }),
            EntraVersion::V2 => json!({
                "token_type": "Bearer",
                "expires_in": life,
                "ext_expires_in": life,
                "access_token": minted.token,
            }),
        };
        Ok(([(CACHE_CONTROL, "no-store")], Json(answer)).into_response())
    }

    fn check_tenant(&self, tenant: &str) -> Result<(), TokenRefusal> {
        if self.issuer.config().tenant.eq_ignore_ascii_case(tenant) {
            Ok(())
        } else {
            Err(TokenRefusal::Tenant(shortened(tenant)))
        }
    }

    /// Id and roles of the application with this secret. The budget is checked, the secret compared
    /// and a failure counted under one lock, so that parallel guesses cannot exceed the budget.
    fn known<'a>(
        &self,
        credentials: &'a Credentials,
        login: &ClientLogin,
        peer: IpAddr,
    ) -> Result<(&'a Arc<str>, &'a [String]), TokenRefusal> {
        let now = Instant::now();
        let ClientLogin { id, secrets } = login;
        let client = credentials.id(id);
        let mut guesses = self.wrong_secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = guesses.wait(client.map(|client| &**client), peer, now) {
            return Err(TokenRefusal::Guessed(wait.as_secs().saturating_add(1)));
        }
        let mut roles = secrets.iter().map(|secret| credentials.roles_with_secret(id, secret));
        match client.zip(roles.find_map(|roles| roles)) {
            Some(known) => {
                guesses.proved(known.0, peer);
                Ok(known)
            }
            None => {
                if guesses.count(client, peer, now) {
                    warn!(client = ?shortened(id), %peer, "A wrong client secret was shown");
                }
                Err(TokenRefusal::Client)
            }
        }
    }
}

fn metadata(
    version: EntraVersion,
    State(desk): State<TokenEndpoint>,
    Path(tenant): Path<String>,
    method: Method,
) -> Response {
    let shown = desk.check_tenant(&tenant).map(|()| {
        let IssuerConfig { public_url, tenant, .. } = desk.issuer.config();
        let address = |path: &str| format!("{public_url}{}", path.replace("{tenant}", tenant));
        let token_endpoint = address(version.token_path());
        json!({
            "issuer": desk.issuer.name(),
            // Clients require this member, but do not use it for client credentials.
            "authorization_endpoint": token_endpoint.replace("/token", "/authorize"),
            "token_endpoint": token_endpoint,
            "jwks_uri": address(version.keys_path()),
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "response_types_supported": ["token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
        })
    });
    read_only(version.metadata_path(), &method, shown)
}

fn keys(
    version: EntraVersion,
    State(desk): State<TokenEndpoint>,
    Path(tenant): Path<String>,
    method: Method,
) -> Response {
    let shown = desk.check_tenant(&tenant).map(|()| json!(desk.issuer.published()));
    read_only(version.keys_path(), &method, shown)
}

async fn notification_metadata(State(desk): State<TokenEndpoint>, method: Method) -> Response {
    let config = desk.issuer.config();
    let shown = json!({
        "issuer": config.notification_issuer,
        "jwks_uri": format!("{}{NOTIFICATION_KEYS}", config.public_url),
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
    });
    read_only(NOTIFICATION_METADATA, &method, Ok(shown))
}

async fn notification_keys(State(desk): State<TokenEndpoint>, method: Method) -> Response {
    read_only(NOTIFICATION_KEYS, &method, Ok(json!(desk.issuer.published())))
}

impl TokenRefusal {
    fn response(&self) -> Response {
        let (status, error) = match self {
            Self::Tenant(_) | Self::Missing(_) | Self::Body(_) => {
                (StatusCode::BAD_REQUEST, "invalid_request")
            }
            Self::GrantType(_) => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
            Self::Client | Self::Assertion => (StatusCode::UNAUTHORIZED, "invalid_client"),
            Self::Scope(_) => (StatusCode::BAD_REQUEST, "invalid_scope"),
            Self::Resource(_) => (StatusCode::BAD_REQUEST, "invalid_resource"),
            Self::Guessed(_) => (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
        };
        let body = Json(json!({"error": error, "error_description": self.to_string()}));
        let mut response = (status, [(CACHE_CONTROL, "no-store")], body).into_response();
        let header = match self {
            Self::Client | Self::Assertion => {
                Some((WWW_AUTHENTICATE, HeaderValue::from_static("Basic")))
            }
            Self::Guessed(seconds) => Some((RETRY_AFTER, HeaderValue::from(*seconds))),
            _ => None,
        };
        response.headers_mut().extend(header);
        response
    }
}

fn read_only(route: &'static str, method: &Method, shown: Result<Value, TokenRefusal>) -> Response {
    let response = match (method, shown) {
        (&Method::GET | &Method::HEAD, Ok(shown)) => Json(shown).into_response(),
        (&Method::GET | &Method::HEAD, Err(refusal)) => refusal.response(),
        _ => ApiError::Method { allow: "GET, HEAD" }.into_response(),
    };
    audited(route, None, response)
}

fn audited(route: &'static str, application: Option<Arc<str>>, mut response: Response) -> Response {
    let audit = Audit { route: Cow::Borrowed(route), application, probe: false };
    response.extensions_mut().insert(audit);
    response
}

/// The resource of a token request. Some of Microsoft's libraries (MSAL for Java and Go) also send
/// OpenID scopes, in any order. These have no meaning without a user.
fn resource(scope: &str) -> Option<&str> {
    let is_own = |one: &&str| !OPENID.iter().any(|known| known.eq_ignore_ascii_case(one));
    let mut own = scope.split_whitespace().filter(is_own);
    let first = own.next()?;
    own.next().is_none().then(|| first.strip_suffix("/.default")).flatten()
}

/// Client id and secret of a token request.
struct ClientLogin {
    id: String,
    /// The possible readings of the secret; one of them has to be correct.
    secrets: Vec<String>,
}

/// Client id and secret of an `Authorization: Basic` header. RFC 6749 section 2.3.1 requires both
/// to be form-urlencoded before they are joined, but many clients, including `curl -u`, do not do
/// this. So a secret with `+` or `%` is tried both ways.
fn basic(headers: &HeaderMap) -> Option<ClientLogin> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    let secrets = vec![plain(secret), secret.to_owned()];
    scheme.eq_ignore_ascii_case("Basic").then(|| ClientLogin { id: plain(id), secrets })
}

/// Decodes a single form-urlencoded value; an `&` in it does not separate fields.
fn plain(text: &str) -> String {
    let field = format!("x={}", text.replace('&', "%26"));
    let decoded = form_urlencoded::parse(field.as_bytes()).next();
    decoded.map(|(_, text)| text.into_owned()).unwrap_or_default()
}

/// A time in the form that version 1 of the token endpoint uses.
fn seconds(time: UnixMillis) -> String {
    time.0.div_euclid(1000).to_string()
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;
    use crate::{
        drivers::{store::Database, tokens::Verifier},
        service::api::{ApplicationCredential, INITIATE, fake::json_of},
    };

    const TENANT: &str = "00000000-0000-0000-0000-000000000001";
    const APP: &str = "11111111-1111-1111-1111-111111111111";
    const OTHER: &str = "22222222-2222-2222-2222-222222222222";

    struct Rig {
        routes: Router,
        issuer: Issuer,
        _folder: tempfile::TempDir,
    }

    impl Rig {
        async fn new() -> Self {
            Self::with_secret("a secret: 100%").await
        }

        async fn with_secret(secret: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = format!("sqlite:{}/aftertone.db", folder.path().display());
            let config = IssuerConfig {
                tenant: TENANT.to_owned(),
                public_url: "https://api.example".to_owned(),
                notification_issuer: "https://graph.microsoft.com".to_owned(),
            };
            let database = Database::open(&path).await.unwrap();
            let issuer = Issuer::open(database, config).await.unwrap();
            let application = ApplicationCredential {
                name: "mybot".to_owned(),
                id: APP.to_owned(),
                tokens: Vec::new(),
                secrets: vec![secret.to_owned()],
                roles: vec![INITIATE.to_owned()],
                issuer: None,
            };
            let other = ApplicationCredential {
                name: "other".to_owned(),
                id: OTHER.to_owned(),
                secrets: vec!["its own".to_owned()],
                ..application.clone()
            };
            let credentials = Credentials::new(vec![application, other], Verifier::default());
            let (_, credentials) = watch::channel(Arc::new(credentials));
            let routes = routes(issuer.clone(), credentials);
            Self { routes, issuer, _folder: folder }
        }

        async fn ask(&self, path: &str, basic: Option<&str>, form: &str) -> Response {
            let method = if form.is_empty() { "GET" } else { "POST" };
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header("content-type", "application/x-www-form-urlencoded");
            if let Some(basic) = basic {
                let encoded = STANDARD.encode(basic);
                request = request.header("authorization", format!("Basic {encoded}"));
            }
            let request = request.body(Body::from(form.to_owned())).unwrap();
            self.routes.clone().oneshot(request).await.unwrap()
        }

        async fn from(&self, ip: &str, form: &str) -> Response {
            let request = Request::builder()
                .method("POST")
                .uri(format!("/{TENANT}/oauth2/v2.0/token"))
                .header("content-type", "application/x-www-form-urlencoded")
                .extension(Peer(ip.parse().unwrap()))
                .body(Body::from(form.to_owned()));
            self.routes.clone().oneshot(request.unwrap()).await.unwrap()
        }

        async fn token(&self, form: &str) -> Response {
            self.ask(&format!("/{TENANT}/oauth2/v2.0/token"), None, form).await
        }
    }

    const SCOPE: &str = "scope=https%3A%2F%2Fgraph.microsoft.com%2F.default";

    #[tokio::test]
    async fn a_secret_gets_a_token_that_opens_the_api() {
        let rig = Rig::new().await;
        let grant = "grant_type=client_credentials&client_info=1&claims=%7B%7D";
        let secret = "client_secret=a+secret%3A+100%25";
        let posted = rig.token(&format!("{grant}&client_id={APP}&{secret}&{SCOPE}")).await;
        let path = format!("/{TENANT}/oauth2/v2.0/token");
        let basic = format!("{APP}:a+secret%3A+100%25");
        let by_header = rig.ask(&path, Some(&basic), &format!("{grant}&{SCOPE}")).await;
        for response in [posted, by_header] {
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["cache-control"], "no-store");
            let answer = json_of(response).await;
            assert_eq!(
                (&answer["token_type"], &answer["expires_in"]),
                (&json!("Bearer"), &json!(3600))
            );
            let verifier = Verifier { issuer: Some(rig.issuer.clone()), ..Verifier::default() };
            let token = answer["access_token"].as_str().unwrap();
            let named = verifier.named(token, now()).await.unwrap();
            assert_eq!(
                (named.application.as_str(), &named.roles[..]),
                (APP, &[INITIATE.to_owned()][..])
            );
        }
    }

    /// As MSAL for Go and for Java write it, and as people write it.
    #[tokio::test]
    async fn a_scope_is_known_among_those_of_openid() {
        let rig = Rig::new().await;
        let graph = "https%3A%2F%2Fgraph.microsoft.com%2F.default";
        for scope in [
            format!("{graph}+openid+offline_access+profile"),
            format!("profile+{graph}+openid+offline_access"),
            format!("OpenID++{graph}+"),
            "https%3A%2F%2FGraph.Microsoft.com%2F%2F.default".to_owned(),
            "https%3A%2F%2Fapi.example%2F.default".to_owned(),
        ] {
            let form = format!(
                "grant_type=client_credentials&client_id={APP}&client_secret=a+secret%3A+100%25&\
                 scope={scope}"
            );
            assert_eq!(rig.token(&form).await.status(), 200, "{scope}");
        }
    }

    #[tokio::test]
    async fn a_secret_in_a_basic_login_may_be_encoded_or_not() {
        let grant = format!("grant_type=client_credentials&{SCOPE}");
        let path = format!("/{TENANT}/oauth2/v2.0/token");
        for secret in ["a&b", "a&b=c;d:e", "100%", "100%41&+%zz", "1+1 = 2", "&", "grüße&", "%26"]
        {
            let rig = Rig::with_secret(secret).await;
            let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            for shown in [secret, &encoded] {
                let asked = rig.ask(&path, Some(&format!("{APP}:{shown}")), &grant).await;
                assert_eq!(asked.status(), 200, "{secret}: {shown}");
            }
            for wrong in [&secret[..secret.len() - 1], "a", ""] {
                let asked = rig.ask(&path, Some(&format!("{APP}:{wrong}")), &grant).await;
                assert_eq!(asked.status(), 401, "{secret}: {wrong}");
            }
        }
    }

    /// As ADAL for .NET, Node.js and Python send it.
    #[tokio::test]
    async fn the_first_version_of_the_token_endpoint_takes_a_resource() {
        let rig = Rig::new().await;
        let path = format!("/{TENANT}/oauth2/token");
        let login = format!("grant_type=client_credentials&client_id={APP}&client_secret=");
        let right = "a+secret%3A+100%25";
        for resource in [
            "https%3A%2F%2Fgraph.microsoft.com",
            "https://graph.microsoft.com/",
            "00000003-0000-0000-c000-000000000000",
            "https%3A%2F%2Fapi.example",
        ] {
            let form = format!("{login}{right}&resource={resource}");
            let response = rig.ask(&format!("{path}?api-version=1.0"), None, &form).await;
            assert_eq!(response.status(), 200, "{resource}");
            assert_eq!(response.headers()["cache-control"], "no-store");
            let answer = json_of(response).await;
            assert_eq!(
                (&answer["token_type"], &answer["expires_in"]),
                (&json!("Bearer"), &json!("3600"))
            );
            let number = |name: &str| answer[name].as_str().unwrap().parse::<i64>().unwrap();
            assert_eq!(number("expires_on") - number("not_before"), 3900);
            let asked = form_urlencoded::parse(form.as_bytes()).last().unwrap().1.into_owned();
            assert_eq!(answer["resource"], asked);
            let verifier = Verifier { issuer: Some(rig.issuer.clone()), ..Verifier::default() };
            let token = answer["access_token"].as_str().unwrap();
            assert_eq!(verifier.named(token, now()).await.unwrap().application, APP);
        }
        for (form, status, error) in [
            (format!("{login}{right}"), 400, "invalid_request"),
            (format!("{login}{right}&{SCOPE}"), 400, "invalid_request"),
            (format!("{login}{right}&resource=https://other.example"), 400, "invalid_resource"),
            (format!("{login}x&resource=https://graph.microsoft.com"), 401, "invalid_client"),
        ] {
            let response = rig.ask(&path, None, &form).await;
            assert_eq!(response.status(), status, "{form}");
            assert_eq!(json_of(response).await["error"], error, "{form}");
        }
        let elsewhere = rig.ask("/common/oauth2/token", None, &login).await;
        assert_eq!(json_of(elsewhere).await["error"], "invalid_request");
    }

    #[tokio::test]
    async fn who_has_no_secret_is_told_what_is_wrong() {
        let rig = Rig::new().await;
        let ok = format!("grant_type=client_credentials&client_id={APP}&client_secret=x");
        let table = [
            ("grant_type=password".to_owned(), 400, "unsupported_grant_type"),
            (SCOPE.to_owned(), 400, "invalid_request"),
            ("grant_type=client_credentials".to_owned(), 400, "invalid_request"),
            (ok.clone(), 400, "invalid_request"),
            (format!("{ok}&scope=openid"), 400, "invalid_scope"),
            (format!("{ok}&scope=https://other.example/.default"), 400, "invalid_scope"),
            (format!("{ok}&{SCOPE}+{SCOPE}").replace("+scope=", "+"), 400, "invalid_scope"),
            (format!("{ok}&{SCOPE}"), 401, "invalid_client"),
            (
                format!(
                    "grant_type=client_credentials&client_id={APP}&client_assertion=a.b.c&{SCOPE}"
                ),
                401,
                "invalid_client",
            ),
            (format!("{ok}&{SCOPE}").replace(APP, "nobody"), 401, "invalid_client"),
        ];
        for (form, status, error) in table {
            let response = rig.token(&form).await;
            assert_eq!(response.status(), status, "{form}");
            assert_eq!(json_of(response).await["error"], error, "{form}");
        }
        let elsewhere = rig.ask("/common/oauth2/v2.0/token", None, &ok).await;
        assert_eq!(json_of(elsewhere).await["error"], "invalid_request");
        let get = rig.ask(&format!("/{TENANT}/oauth2/v2.0/token"), None, "").await;
        assert_eq!(get.status(), 405);
    }

    #[tokio::test]
    async fn who_guesses_learns_nothing_and_others_do_not_wait() {
        let rig = Rig::new().await;
        let form = |id: &str, secret: &str| {
            format!("grant_type=client_credentials&client_id={id}&client_secret={secret}&{SCOPE}")
        };
        let mut statuses = Vec::new();
        for guess in 0..30 {
            let response = rig.token(&form(APP, &guess.to_string())).await;
            statuses.push(response.status().as_u16());
        }
        let refused = statuses.iter().filter(|status| **status == 401).count();
        assert!((1..30).contains(&refused), "{statuses:?}");
        assert!(statuses[refused..].iter().all(|status| *status == 429), "{statuses:?}");
        // The right secret gets the same answer as the wrong ones.
        let right = rig.token(&form(APP, "a+secret%3A+100%25")).await;
        assert_eq!(right.status(), 429);
        let wait: u64 = right.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=61).contains(&wait), "{wait}");
        // Another client at another address is not affected.
        let other = rig.from("192.0.2.9", &form(OTHER, "its+own")).await;
        assert_eq!(other.status(), 200);
    }

    #[tokio::test]
    async fn a_right_secret_is_taken_while_strangers_guess_for_the_same_client() {
        let rig = Rig::new().await;
        let form = |secret: &str| {
            format!("grant_type=client_credentials&client_id={APP}&client_secret={secret}&{SCOPE}")
        };
        for stranger in ["192.0.2.1", "127.0.0.2", "2001:db8::1"] {
            for guess in 0..30 {
                rig.from(stranger, &form(&guess.to_string())).await;
            }
            let right = form("a+secret%3A+100%25");
            assert_eq!(rig.from(stranger, &right).await.status(), 429, "{stranger}");
            for own in ["198.51.100.1", "127.0.0.1", "2001:db8:0:1::1"] {
                assert_eq!(rig.from(own, &right).await.status(), 200, "{own} {stranger}");
            }
        }
    }

    #[tokio::test]
    async fn metadata_leads_to_the_keys() {
        let rig = Rig::new().await;
        let base = format!("/{TENANT}");
        let first = format!("{base}/.well-known/openid-configuration");
        let second = format!("{base}/v2.0/.well-known/openid-configuration");
        for (path, of_version) in [(&first, ""), (&second, "/v2.0")] {
            let shown = json_of(rig.ask(path, None, "").await).await;
            // The issuer that the tokens of both versions name.
            assert_eq!(shown["issuer"], format!("https://api.example{base}/v2.0"));
            for (name, place) in
                [("token_endpoint", "token"), ("authorization_endpoint", "authorize")]
            {
                let address = format!("https://api.example{base}/oauth2{of_version}/{place}");
                assert_eq!(shown[name], address);
            }
        }
        for (metadata, issuer) in [
            (first.as_str(), rig.issuer.name()),
            (second.as_str(), rig.issuer.name()),
            ("/v1/.well-known/OpenIdConfiguration", "https://graph.microsoft.com".to_owned()),
        ] {
            let shown = json_of(rig.ask(metadata, None, "").await).await;
            assert_eq!(shown["issuer"], issuer);
            let keys = shown["jwks_uri"].as_str().unwrap().strip_prefix("https://api.example");
            let keys = json_of(rig.ask(keys.unwrap(), None, "").await).await;
            assert_eq!(keys["keys"][0]["alg"], "RS256");
            assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
        }
    }
}
