//! The sections of the configuration as plain data.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

use super::{
    ConfigError, keys,
    values::{
        AllowedNetwork, Codec, DigestAlgorithm, IdentityType, Line, LogFormat, PortRange,
        SipListener, WebOrigin, duration, networks,
    },
};
use aftertone_core::model::role;

/// The whole configuration. Each module gets only its own section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file that was read. It overrides the defaults, and the environment overrides it.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// `[sip]`
    pub sip: SipConfig,
    /// `[media]`
    pub media: MediaConfig,
    /// `[api]`
    pub api: ApiConfig,
    /// `[storage]`
    pub storage: StorageConfig,
    /// `[fetch]`
    pub fetch: FetchConfig,
    /// `[calls]`
    pub calls: CallsConfig,
    /// `[telemetry]`
    pub telemetry: TelemetryConfig,
    /// `[[applications]]`
    #[serde(default)]
    pub applications: Vec<ApplicationConfig>,
    /// `[[issuers]]`
    #[serde(default)]
    pub issuers: Vec<IssuerConfig>,
    /// `[[routes]]`
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
    /// `[[users]]`
    #[serde(default)]
    pub users: Vec<UserConfig>,
    /// `[[trunks]]`
    #[serde(default)]
    pub trunks: Vec<TrunkConfig>,
}

/// SIP listeners, and access rights of callers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SipConfig {
    /// The SIP listeners.
    pub listen: Vec<SipListener>,
    /// Our public IP address, or `auto`.
    pub advertised_address: String,
    /// Realm of our challenges and domain of our users; empty = our address.
    pub domain: String,
    /// Digest algorithms that our challenges offer.
    pub digest: Vec<DigestAlgorithm>,
    /// PEM file of our certificate with its chain; empty = none.
    pub tls_certificate: PathBuf,
    /// PEM file of the certificate's private key.
    pub tls_key: PathBuf,
    /// PEM file of the CA for client certificates; empty = clients are not asked for one.
    pub tls_client_ca: PathBuf,
    /// PEM file of the CA for server certificates; empty = the CAs of the system.
    pub tls_server_ca: PathBuf,
    /// Networks of peers that may call any route.
    #[serde(deserialize_with = "networks")]
    pub trusted_peers: Vec<IpNet>,
    /// Origins of web pages that may use SIP over WebSocket; empty = any page may try.
    pub web_origins: Vec<WebOrigin>,
    /// Whether strangers may call public routes.
    pub anonymous_calls: bool,
}

/// RTP settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaConfig {
    /// Ports for RTP and RTCP.
    pub ports: PortRange,
    /// Number of media threads; 0 = one per core.
    pub shards: usize,
    /// Codecs in order of preference.
    pub codecs: Vec<Codec>,
    /// Maximum number of simultaneous calls; 0 = as many as the ports and the limit of open files
    /// allow.
    pub max_calls: usize,
    /// How long a peer may send neither RTP nor RTCP.
    #[serde(deserialize_with = "duration")]
    pub rtp_timeout: Duration,
    /// The same limit for a call on hold, or with audio in one direction only.
    #[serde(deserialize_with = "duration")]
    pub hold_timeout: Duration,
    /// How long a call sends, in total, to addresses from which nothing has arrived.
    #[serde(deserialize_with = "duration")]
    pub unverified: Duration,
    /// Whether RTP may come from a host that neither SDP nor SIP has named.
    pub any_host: bool,
}

/// The REST API.
#[derive(Debug, Clone, Deserialize)]
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
    pub identity_type: IdentityType,
    /// PEM file of our certificate with its chain; empty = plain HTTP; see [`ApiConfig::tls`].
    tls_certificate: PathBuf,
    /// PEM file of the certificate's private key.
    tls_key: PathBuf,
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
    /// TLS mode of the API.
    pub fn tls(&self) -> ApiTls {
        match self.tls_certificate.as_os_str().to_str() {
            Some("") => ApiTls::Plain,
            Some("development") => ApiTls::Development,
            _ => ApiTls::Files(self.tls_certificate.clone(), self.tls_key.clone()),
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

/// Database and clips.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// `sqlite:PATH` or `postgres://…`.
    pub database: String,
    /// Folder of the clips.
    pub recordings: PathBuf,
    /// How long a clip is kept after hang-up.
    #[serde(deserialize_with = "duration")]
    pub retention: Duration,
    /// Free disk space at `recordings` below which no recording begins; 0 = no limit.
    pub low_water: ByteSize,
}

/// Outgoing requests: prompts and notifications.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchConfig {
    /// Private networks that may be reached.
    pub allow_networks: Vec<AllowedNetwork>,
    /// Time limit for opening a connection.
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// Time limit for a whole fetch, including redirects.
    #[serde(deserialize_with = "duration")]
    pub total_timeout: Duration,
    /// Maximum size of a file.
    pub max_bytes: ByteSize,
    /// Maximum duration of a prompt.
    #[serde(deserialize_with = "duration")]
    pub max_duration: Duration,
    /// Folder of `file:` URIs; empty = `file:` URIs are refused.
    pub prompt_folder: PathBuf,
}

/// Time limits of a call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallsConfig {
    /// How long the application may take to answer.
    #[serde(deserialize_with = "duration")]
    pub answer_timeout: Duration,
    /// Maximum time between two keepAlive requests.
    #[serde(deserialize_with = "duration")]
    pub keep_alive: Duration,
    /// Maximum duration of a call to a built-in line.
    #[serde(deserialize_with = "duration")]
    pub line_limit: Duration,
    /// How long a notification is retried.
    #[serde(deserialize_with = "duration")]
    pub notification_retry_for: Duration,
    /// How long current calls may continue after the first signal to stop.
    #[serde(deserialize_with = "duration")]
    pub drain_timeout: Duration,
}

/// Logging.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// A level, or a filter in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// Format of log lines.
    pub format: LogFormat,
}

/// An application (bot).
#[derive(Debug, Clone, Deserialize)]
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
    tokens_file: Option<PathBuf>,
    /// Client secrets, in plain text or as `sha256:` and a digest in hexadecimal.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// File with more secrets, one per line.
    #[serde(default)]
    secret_file: Option<PathBuf>,
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

/// A called number and the owner of its calls.
#[derive(Debug, Clone, Deserialize)]
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

/// A user, with phones that may register and call.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserConfig {
    /// User part of the user's address.
    pub name: String,
    /// Password for digest authentication.
    #[serde(default)]
    pub password: String,
    /// File with the password.
    #[serde(default)]
    password_file: Option<PathBuf>,
}

impl std::fmt::Debug for UserConfig {
    /// Omits the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A provider or PBX that carries outgoing calls.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrunkConfig {
    /// Its name in logs.
    pub name: String,
    /// Host of the trunk, with a port if DNS does not give it. This is the domain of called
    /// numbers.
    pub host: String,
    /// `udp`, `tcp`, `tls`; empty = by DNS (RFC 3263).
    #[serde(default)]
    pub transport: String,
    /// Host of the outbound proxy; empty = requests go to `host`.
    #[serde(default)]
    pub outbound_proxy: String,
    /// User name for digest authentication and registration.
    #[serde(default)]
    pub username: String,
    /// Password for digest authentication.
    #[serde(default)]
    pub password: String,
    /// File with the password.
    #[serde(default)]
    password_file: Option<PathBuf>,
    /// Realm of the trunk's challenges; empty = `host`.
    #[serde(default)]
    pub realm: String,
    /// Whether we register at the trunk.
    #[serde(default)]
    pub register: bool,
    /// User part of From; empty = `username`, or anonymous if that is empty too.
    #[serde(default)]
    pub caller: String,
    /// User part of P-Asserted-Identity (RFC 3325); empty = the header is not sent.
    #[serde(default)]
    pub asserted_identity: String,
    /// Numbers and addresses that may be called; `*` and `?` match as in a shell.
    pub allow: Vec<String>,
    /// Whether a call follows the Contacts in a 3xx of the trunk, as far as `allow` permits.
    #[serde(default)]
    pub follow_redirects: bool,
    /// Maximum number of simultaneous calls; 0 = no limit.
    #[serde(default)]
    pub max_calls: usize,
}

impl std::fmt::Debug for TrunkConfig {
    /// Omits the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrunkConfig")
            .field("name", &self.name)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
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
}

impl Config {
    /// Reads the files that `…_file` keys name.
    pub(super) fn read_secrets(&mut self) -> Result<(), ConfigError> {
        for application in &mut self.applications {
            let lists = [
                ("applications.tokens_file", &application.tokens_file, &mut application.tokens),
                ("applications.secret_file", &application.secret_file, &mut application.secrets),
            ];
            for (key, file, list) in lists {
                let Some(path) = file else { continue };
                let text = read_secret(key, path)?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                list.extend(lines.map(str::to_owned));
            }
        }
        let users = self
            .users
            .iter_mut()
            .map(|user| ("users.password_file", &user.password_file, &mut user.password));
        let trunks = self
            .trunks
            .iter_mut()
            .map(|trunk| ("trunks.password_file", &trunk.password_file, &mut trunk.password));
        for (key, file, password) in users.chain(trunks) {
            let Some(path) = file else { continue };
            let text = read_secret(key, path)?;
            *password = text.trim_end_matches(['\r', '\n']).to_owned();
        }
        Ok(())
    }

    /// Checks that involve more than one value.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, message: String| {
            Err(ConfigError::Contradiction { key: key.to_owned(), message })
        };
        if self.sip.listen.is_empty() {
            return wrong("sip.listen", "at least one listener is needed".to_owned());
        }
        self.check_certificates()?;
        let advertised = &self.sip.advertised_address;
        if advertised != "auto" && advertised.parse::<std::net::IpAddr>().is_err() {
            return wrong(
                "sip.advertised_address",
                format!("{advertised:?} is neither \"auto\" nor an IP address"),
            );
        }
        if self.sip.digest.is_empty() {
            return wrong("sip.digest", "at least one algorithm is needed".to_owned());
        }
        if self.media.codecs.is_empty() {
            return wrong("media.codecs", "at least one codec is needed".to_owned());
        }
        if !self.api.public_url.is_empty() {
            check_http_url("api.public_url", &self.api.public_url)?;
        }
        if uuid::Uuid::try_parse(&self.api.tenant).is_err() {
            return wrong("api.tenant", format!("{:?} is not a GUID", self.api.tenant));
        }
        for (index, application) in self.applications.iter().enumerate() {
            let earlier = &self.applications[..index];
            if application.name.is_empty() {
                return wrong("applications.name", "must not be empty".to_owned());
            }
            if earlier.iter().any(|other| other.name == application.name) {
                return wrong(
                    "applications.name",
                    format!("{:?} is there twice", application.name),
                );
            }
            if application.id.is_empty()
                || earlier.iter().any(|other| other.id.eq_ignore_ascii_case(&application.id))
            {
                return wrong(
                    "applications.id",
                    format!("{:?} is empty or there twice", application.id),
                );
            }
            if application.name.contains(char::is_control) {
                return wrong("applications.name", "holds a control character".to_owned());
            }
            if application.tokens.iter().any(String::is_empty) {
                return wrong("applications.tokens", "a token must not be empty".to_owned());
            }
            if application.secrets.iter().any(String::is_empty) {
                return wrong("applications.secrets", "a secret must not be empty".to_owned());
            }
            let is_known =
                |role: &&String| role::ALL.iter().any(|known| role::is_same(known, role));
            if let Some(role) = application.roles.iter().find(|role| !is_known(role)) {
                return wrong("applications.roles", no_role(role));
            }
            check_http_url("applications.callback_uri", &application.callback_uri)?;
        }
        for issuer in &self.issuers {
            check_http_url("issuers.metadata", &issuer.metadata)?;
            if issuer.audience.is_empty() {
                return wrong("issuers.audience", "must not be empty".to_owned());
            }
        }
        for (index, user) in self.users.iter().enumerate() {
            if user.name.is_empty()
                || self.users[..index].iter().any(|other| other.name == user.name)
            {
                return wrong("users.name", format!("{:?} is empty or there twice", user.name));
            }
            if user.password.is_empty() {
                return wrong(
                    "users.password",
                    format!("{:?} needs a password or a password_file", user.name),
                );
            }
        }
        for (index, trunk) in self.trunks.iter().enumerate() {
            let is_host =
                |host: &str| !host.is_empty() && !host.contains(['@', ';', ' ', '/', '<']);
            if trunk.name.is_empty()
                || self.trunks[..index].iter().any(|other| other.name == trunk.name)
            {
                return wrong("trunks.name", format!("{:?} is empty or there twice", trunk.name));
            }
            if !is_host(&trunk.host) {
                return wrong("trunks.host", format!("{:?} is no host", trunk.host));
            }
            if !trunk.outbound_proxy.is_empty() && !is_host(&trunk.outbound_proxy) {
                return wrong(
                    "trunks.outbound_proxy",
                    format!("{:?} is no host", trunk.outbound_proxy),
                );
            }
            if trunk.register && trunk.username.is_empty() {
                return wrong("trunks.register", "needs trunks.username".to_owned());
            }
            if !matches!(trunk.transport.as_str(), "" | "udp" | "tcp" | "tls") {
                return wrong(
                    "trunks.transport",
                    format!("{:?} is none of udp, tcp and tls", trunk.transport),
                );
            }
        }
        for route in &self.routes {
            match route.target() {
                None => {
                    return wrong(
                        "routes",
                        format!("the route to {:?} needs either application or line", route.to),
                    );
                }
                Some(RouteTarget::Application(name))
                    if !self.applications.iter().any(|known| known.name == name) =>
                {
                    return wrong(
                        "routes.application",
                        format!("there is no application {name:?} for the route to {:?}", route.to),
                    );
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

impl Config {
    fn check_certificates(&self) -> Result<(), ConfigError> {
        let (sip, api) = (&self.sip, &self.api);
        let is_given = |path: &PathBuf| !path.as_os_str().is_empty();
        let wrong = |key: &str, message: &str| {
            Err(ConfigError::Contradiction { key: key.to_owned(), message: message.to_owned() })
        };
        if matches!(api.tls(), ApiTls::Files(..)) != is_given(&api.tls_key) {
            return wrong("api.tls_key", "goes with api.tls_certificate, and with nothing else");
        }
        let is_secure = sip.listen.iter().any(|listener| listener.transport.is_secure());
        match (is_given(&sip.tls_certificate), is_given(&sip.tls_key)) {
            (false, true) => wrong("sip.tls_certificate", "sip.tls_key needs its certificate"),
            (true, false) => wrong("sip.tls_key", "sip.tls_certificate needs its key"),
            (false, false) if is_secure => wrong(
                "sip.tls_certificate",
                "a tls or wss listener needs a certificate and its key",
            ),
            _ if is_given(&sip.tls_client_ca) && !is_secure => {
                wrong("sip.tls_client_ca", "only a tls or wss listener can ask for certificates")
            }
            _ => Ok(()),
        }
    }
}

fn read_secret(key: &str, path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|error| ConfigError::Contradiction {
        key: key.to_owned(),
        message: format!("cannot read {}: {error}", path.display()),
    })
}

fn no_role(role: &str) -> String {
    match keys::nearest(&role::ALL, role) {
        Some(nearest) => format!("{role:?} is no role; did you mean {nearest:?}?"),
        None => format!("{role:?} is none of {}", role::ALL.join(", ")),
    }
}

fn check_http_url(key: &str, text: &str) -> Result<(), ConfigError> {
    let is_http = Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    match is_http && !text.contains(char::is_control) {
        true => Ok(()),
        false => Err(ConfigError::Contradiction {
            key: key.to_owned(),
            message: format!("{text:?} is not an http or https URL"),
        }),
    }
}
