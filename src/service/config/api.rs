//! `[api]`, `[[applications]]`, `[[routes]]` and `[[issuers]]`.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use super::{
    ConfigError,
    error::contradiction,
    nearest::nearest,
    values::{Line, identity_type, path},
};
use aftertone_core::{graph::IdentityType, model::role};

/// The REST API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Address of the listener.
    pub listen: SocketAddr,
    /// URL at which clients reach the API; empty = the address of the listener.
    pub public_url: String,
    /// Tenant id, a GUID.
    pub tenant: String,
    /// `iss` of the tokens in notifications.
    pub notification_issuer: String,
    /// The type that sets of identities declare.
    #[serde(deserialize_with = "identity_type")]
    pub identity_type: IdentityType,
    /// PEM file of our certificate with its chain; see [`ApiConfig::tls`].
    #[serde(deserialize_with = "path")]
    tls_certificate: Option<PathBuf>,
    /// PEM file of the certificate's private key.
    #[serde(deserialize_with = "path")]
    tls_key: Option<PathBuf>,
}

/// TLS mode of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiTls {
    /// Plain HTTP.
    Plain,
    /// TLS with a certificate that is generated for development.
    Development,
    /// TLS with this certificate and key.
    Files(PathBuf, PathBuf),
}

impl ApiConfig {
    /// TLS mode of the API. Loading has checked that a certificate has its key.
    pub fn tls(&self) -> ApiTls {
        match (&self.tls_certificate, &self.tls_key) {
            _ if self.is_development() => ApiTls::Development,
            (Some(certificate), Some(key)) => ApiTls::Files(certificate.clone(), key.clone()),
            (None, _) | (Some(_), None) => ApiTls::Plain,
        }
    }

    fn is_development(&self) -> bool {
        self.tls_certificate.as_ref().is_some_and(|path| path.as_os_str() == "development")
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let names_file = self.tls_certificate.is_some() && !self.is_development();
        if names_file != self.tls_key.is_some() {
            let message = "goes with api.tls_certificate, and with nothing else";
            return contradiction("api.tls_key", message);
        }
        if !self.public_url.is_empty() {
            check_http_url("api.public_url", &self.public_url)?;
        }
        if Uuid::try_parse(&self.tenant).is_err() {
            return contradiction("api.tenant", format!("{:?} is not a GUID", self.tenant));
        }
        Ok(())
    }
}

/// An application (bot).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationConfig {
    /// Its name in routes and logs.
    pub name: String,
    /// Its application id, usually a GUID.
    pub id: String,
    /// Static bearer tokens.
    #[serde(default)]
    pub tokens: Vec<String>,
    /// File with more tokens, one per line.
    #[serde(default)]
    pub(super) tokens_file: Option<PathBuf>,
    /// Client secrets, in plain text or as `sha256:` and a digest in hexadecimal.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// File with more secrets, one per line.
    #[serde(default)]
    pub(super) secret_file: Option<PathBuf>,
    /// Application roles. The static tokens have all of them; other tokens can have no more than
    /// these.
    #[serde(default)]
    pub roles: Vec<String>,
    /// `iss` of the external tokens that may belong to this application; any configured issuer when
    /// absent.
    #[serde(default)]
    pub issuer: Option<String>,
    /// URI of its notifications, unless a call names another one.
    pub callback_uri: String,
}

impl ApplicationConfig {
    /// Checks the application beside those before it.
    pub(super) fn check(&self, earlier: &[Self]) -> Result<(), ConfigError> {
        if self.name.is_empty() {
            return contradiction("applications.name", "must not be empty");
        }
        if earlier.iter().any(|other| other.name == self.name) {
            let message = format!("{:?} is there twice", self.name);
            return contradiction("applications.name", message);
        }
        if self.id.is_empty() || earlier.iter().any(|other| other.id.eq_ignore_ascii_case(&self.id))
        {
            let message = format!("{:?} is empty or there twice", self.id);
            return contradiction("applications.id", message);
        }
        if self.name.contains(char::is_control) {
            return contradiction("applications.name", "holds a control character");
        }
        if self.tokens.iter().any(String::is_empty) {
            return contradiction("applications.tokens", "a token must not be empty");
        }
        if self.secrets.iter().any(String::is_empty) {
            return contradiction("applications.secrets", "a secret must not be empty");
        }
        let is_known = |role: &&String| role::ALL.iter().any(|known| role::is_same(known, role));
        if let Some(role) = self.roles.iter().find(|role| !is_known(role)) {
            return contradiction("applications.roles", no_role(role));
        }
        check_http_url("applications.callback_uri", &self.callback_uri)
    }
}

/// A called number and the owner of its calls.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// User part of the called address; `*` and `?` match as in a shell.
    pub to: String,
    #[serde(default)]
    application: Option<String>,
    #[serde(default)]
    line: Option<Line>,
    /// Whether strangers may call it.
    #[serde(default)]
    pub public: bool,
}

/// Owner of the calls of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// The application of this name.
    Application(String),
    /// A built-in line.
    Line(Line),
}

impl RouteConfig {
    /// Owner of the route's calls. Loading has checked that there is exactly one.
    pub fn target(&self) -> Option<RouteTarget> {
        match (&self.application, self.line) {
            (Some(name), None) => Some(RouteTarget::Application(name.clone())),
            (None, Some(line)) => Some(RouteTarget::Line(line)),
            _ => None,
        }
    }

    /// Checks that the route has one owner, which exists.
    pub(super) fn check(&self, applications: &[ApplicationConfig]) -> Result<(), ConfigError> {
        match self.target() {
            None => {
                let message =
                    format!("the route to {:?} needs either application or line", self.to);
                contradiction("routes", message)
            }
            Some(RouteTarget::Application(name))
                if !applications.iter().any(|known| known.name == name) =>
            {
                let message =
                    format!("there is no application {name:?} for the route to {:?}", self.to);
                contradiction("routes.application", message)
            }
            Some(_) => Ok(()),
        }
    }
}

/// An external issuer of tokens that we accept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// URL of its OpenID metadata.
    pub metadata: String,
    /// Required `aud` of its tokens.
    pub audience: String,
    /// Required `tid` of its tokens; any when absent.
    #[serde(default)]
    pub tenant: Option<String>,
}

impl IssuerConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_http_url("issuers.metadata", &self.metadata)?;
        if self.audience.is_empty() {
            contradiction("issuers.audience", "must not be empty")
        } else {
            Ok(())
        }
    }
}

fn no_role(role: &str) -> String {
    match nearest(&role::ALL, role) {
        Some(nearest) => format!("{role:?} is no role; did you mean {nearest:?}?"),
        None => format!("{role:?} is none of {}", role::ALL.join(", ")),
    }
}

fn check_http_url(key: &str, text: &str) -> Result<(), ConfigError> {
    let is_http = Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    if is_http && !text.contains(char::is_control) {
        Ok(())
    } else {
        contradiction(key, format!("{text:?} is not an http or https URL"))
    }
}
